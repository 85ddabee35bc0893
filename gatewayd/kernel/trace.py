"""What the kernel says of traced packets (NFNLGRP_NFTRACE), of the network namespace in which a socket is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Self

from gatewayd.kernel.netlink import SOL_NETLINK, open_netfilter_socket

NFNLGRP_NFTRACE: Final = 9
RECEIVE_BUFFER_BYTES: Final = 8 << 20
_ADD_MEMBERSHIP: Final = 1
_MAX_DATAGRAM_BYTES: Final = 1 << 16


class TraceSocket:
    """Close it, or use `with`. Raises MissingPrerequisite."""

    def __init__(self) -> None:
        self._socket = open_netfilter_socket(RECEIVE_BUFFER_BYTES)
        self._socket.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, NFNLGRP_NFTRACE)

    def fileno(self) -> int:
        return self._socket.fileno()

    def datagrams(self) -> Iterator[bytes]:
        """All that have come and were not yet taken."""
        with suppress(BlockingIOError):
            while True:
                yield self._socket.recv(_MAX_DATAGRAM_BYTES)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
