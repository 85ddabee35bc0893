"""When the kernel has committed an element, by its own word: nf_tables tells who listens of every one."""

from __future__ import annotations

import queue
import socket
import time

from gatewayd.kernel.attributes import iter_messages
from gatewayd.kernel.tables_codec import NEWSETELEM
from gatewayd.lab.namespace import Namespace
from tests.bench.row import check
from tests.support.background import Background

NFNLGRP_NFTABLES = 7
"""include/uapi/linux/netfilter/nfnetlink.h."""
_NETLINK_NETFILTER = 12
_PATIENCE_S = 30.0
_LOOK_EVERY_S = 0.2
_DATAGRAM_BYTES = 1 << 16


class CommitWatch(Background):
    """Listens from `with` on, in a thread of its own. Not for bulk: the socket holds some hundred elements."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__("commits")
        with namespace.entered():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        self._socket.settimeout(_LOOK_EVERY_S)
        self._times: queue.SimpleQueue[float] = queue.SimpleQueue()

    def added_at(self) -> float:
        """When the next element was committed that `forget` has not passed over, by time.perf_counter."""
        try:
            return self._times.get(timeout=_PATIENCE_S)
        except queue.Empty:
            check(False, f"no element committed in {_PATIENCE_S:g} s")
            raise

    def forget(self) -> None:
        """What was committed until now is of no interest."""
        while not self._times.empty():
            self._times.get()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                datagram = self._socket.recv(_DATAGRAM_BYTES)
            except TimeoutError:
                continue
            now = time.perf_counter()
            if any(kind == NEWSETELEM for kind, *_ in iter_messages(datagram)):
                self._times.put(now)

    def _close(self) -> None:
        self._socket.close()
