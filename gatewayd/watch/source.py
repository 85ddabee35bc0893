"""The sockets that events come in on; all they do is receive, decode, count and call back.

An event socket holds what arrives while the loop is busy, and the loop takes a bounded batch each time it
comes round. The kernel charges an event of 160 bytes with 1280, and doubles the size asked for: 8 MiB hold
some 13 000 events.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from gatewayd.errors import MissingPrerequisite, OperationRefused, ReplyMissing
from gatewayd.kernel.attributes import NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, attribute, be32, message
from gatewayd.kernel.conntrack_codec import CT_GET_STATS, ControlMessage, decode_connections, encode_count, errno_of
from gatewayd.kernel.netlink import attach_filter, dropped_messages, open_netfilter_socket
from gatewayd.log import get_logger
from gatewayd.model import Flow
from gatewayd.model.flow import ConnectionEvent
from gatewayd.watch.decode import NFNL_SUBSYS_ULOG, decode_packets, mark_filter, pack_filter

log = get_logger(__name__)

SourceName = Literal["nflog", "near", "conntrack"]
_Event = TypeVar("_Event")

NFULNL_MSG_CONFIG = NFNL_SUBSYS_ULOG << 8 | 1
NFULA_CFG_CMD, NFULA_CFG_MODE, NFULA_CFG_NLBUFSIZ, NFULA_CFG_TIMEOUT, NFULA_CFG_QTHRESH = 1, 2, 3, 4, 5
NFULNL_CFG_CMD_BIND, NFULNL_COPY_PACKET = 1, 2
NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY = 1, 3
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1

CONNTRACK_PAUSE_S = 0.01
"""Nobody waits for an attribution; late admission comes by NFLOG, which is read at once."""
REST_S = 0.005
"""As long as a turn of events lasts at most (watch.handler): under a flood half of the time is for others."""
DATAGRAMS_PER_WAKEUP = 256
_MAX_DATAGRAM_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 19
_ANSWER_TIMEOUT_S = 5.0


@dataclass(slots=True)
class SourceStats:
    """`received`: datagrams. `malformed`: messages that did not parse. `overruns`: events that were lost.
    `postponed`: turns of the loop whose time was not enough for the events read."""

    received: int = 0
    malformed: int = 0
    overruns: int = 0
    postponed: int = 0


@dataclass(frozen=True, slots=True)
class PacketLog:
    """An NFLOG group, and what takes its packets. A flood of one group loses no packet of another."""

    name: SourceName
    group: int
    on_packets: Callable[[list[Flow]], int]


class EventSource:
    """Packets of the NFLOG groups `logs`, and begin and end of the connections with `ct mark & mask == mark`; and
    the beginning of those that another program made, with `ct mark & carried != 0`.

    `open` belongs in the network namespace to watch; `start` attaches to the running loop. Callbacks come from the
    loop, with lists that are never empty, and return how many events they took. The others come again REST_S later,
    and nothing is read meanwhile. `on_lost` says that events of that source are missing, once a wakeup; `stats` has
    the number. With `queue_threshold` above 1 the kernel holds a packet back for up to 10 ms, to send several in a
    datagram.
    """

    def __init__(
        self, *,
        logs: Sequence[PacketLog], mark: int, mask: int, carried: int = 0,
        on_connections: Callable[[list[ConnectionEvent]], int],
        on_lost: Callable[[SourceName], None],
        receive_buffer_bytes: int = 8 << 20, copy_bytes: int = 128, queue_threshold: int = 1,
    ) -> None:  # fmt: skip
        self.stats: dict[SourceName, SourceStats] = {
            "nflog": SourceStats(), "near": SourceStats(), "conntrack": SourceStats(),
        }  # fmt: skip
        self._logs = tuple(logs)
        self._filter = pack_filter(mark_filter(mark, mask, carried))
        self._receive_buffer_bytes = receive_buffer_bytes
        self._copy_bytes = copy_bytes
        self._queue_threshold = queue_threshold
        self._on_connections = on_connections
        self._on_lost = on_lost
        self._intakes: list[_Intake[Flow] | _Intake[ConnectionEvent]] = []

    def open(self) -> None:
        """Bind all sockets; events gather in them from now on.

        Raises MissingPrerequisite: no CAP_NET_ADMIN, no ctnetlink or nfnetlink_log in the kernel, or the
        group is taken. Nothing stays open then.
        """
        try:
            self._open_conntrack()
            for each in self._logs:
                self._open_nflog(each)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Begin to call back, from the running loop."""
        for intake in self._intakes:
            intake.say_if_small(self._receive_buffer_bytes)
        loop = asyncio.get_running_loop()
        for intake in self._intakes:
            intake.start(loop)

    def close(self) -> None:
        """Stop and close; open() may be called again."""
        for intake in self._intakes:
            intake.close()
        self._intakes.clear()

    def _open_conntrack(self) -> None:
        opened = open_netfilter_socket(self._receive_buffer_bytes)
        intake = _Intake(
            "conntrack", opened, self.stats["conntrack"], _connections_in, self._on_connections, self._on_lost,
            CONNTRACK_PAUSE_S,
        )  # fmt: skip
        self._intakes.append(intake)
        # Joining a group succeeds without ctnetlink, and the kernel's answer to a taken NFLOG group is the
        # same EPERM as to a missing capability: a harmless question first tells all of these apart.
        number = intake.ask(encode_count(1))
        if number == errno.EPERM:
            raise MissingPrerequisite(
                "connection events need CAP_NET_ADMIN", "run as root or under the service unit"
            )
        if number:
            raise MissingPrerequisite(
                f"this kernel has no ctnetlink ({os.strerror(number)})",
                "load the module nf_conntrack_netlink",
            )
        attach_filter(opened, self._filter)
        for group in (NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY):
            opened.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def _open_nflog(self, log: PacketLog) -> None:
        opened, group = open_netfilter_socket(self._receive_buffer_bytes), log.group
        intake = _Intake(log.name, opened, self.stats[log.name], _packets_in, log.on_packets, self._on_lost)
        self._intakes.append(intake)
        number = intake.ask(encode_bind(1, group, self._copy_bytes, self._queue_threshold))
        if number in (errno.EPERM, errno.EBUSY, errno.EEXIST):
            raise MissingPrerequisite(
                f"NFLOG group {group} is in use by another program",
                "stop that program (ulogd?) or choose another group",
            )
        if number in (errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP):
            raise MissingPrerequisite("this kernel has no nfnetlink_log", "load the module nfnetlink_log")
        if number:
            raise OperationRefused(f"bind NFLOG group {group}", number)


def _packets_in(raw: memoryview) -> tuple[list[Flow], int]:
    batch = decode_packets(raw)
    return batch.flows, batch.malformed


def _connections_in(raw: memoryview) -> tuple[list[ConnectionEvent], int]:
    batch = decode_connections(raw)
    return batch.events, batch.malformed


class _Intake(Generic[_Event]):
    """One event socket. `decode` takes a buffer of whole messages and returns their events, and how many did not
    parse; `on_events` returns how many it took.

    `pause_s`: for so long after a batch nothing is read, unless more is known to wait. A wakeup costs as much as
    an event, so at 20 k a second events that come in dozens cost half of what they cost one by one.
    """

    def __init__(
        self, name: SourceName, opened: socket.socket, stats: SourceStats,
        decode: Callable[[memoryview], tuple[list[_Event], int]], on_events: Callable[[list[_Event]], int],
        on_lost: Callable[[SourceName], None], pause_s: float = 0.0,
    ) -> None:  # fmt: skip
        self._name = name
        self._pause_s = pause_s
        self._pause: asyncio.TimerHandle | None = None
        self._socket = opened
        self._stats = stats
        self._decode = decode
        self._on_events = on_events
        self._waiting: list[_Event] = []
        self._on_lost = on_lost
        self._loop: asyncio.AbstractEventLoop | None = None
        self._buffer = memoryview(mmap.mmap(-1, _BUFFER_BYTES))  # pages that nothing came into take no memory
        self._drops = 0
        self._early = b""

    def say_if_small(self, wanted_bytes: int) -> None:
        """The kernel counts twice what is asked for (socket(7), SO_RCVBUF)."""
        size_bytes = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        if size_bytes < wanted_bytes:
            log.warning("watch.small_buffer", source=self._name, size_bytes=size_bytes, wanted_bytes=wanted_bytes)

    def ask(self, request: bytes) -> int:
        """Send a request, wait for its answer, give its errno (0: done). Events that come first are kept."""
        self._socket.settimeout(_ANSWER_TIMEOUT_S)
        try:
            self._socket.send(request)
            while True:
                raw = self._socket.recv(_MAX_DATAGRAM_BYTES)
                answers = [control for control in decode_connections(raw).controls if _is_answer(control)]
                if answers:
                    return errno_of(answers[0]) if answers[0].kind == NLMSG_ERROR else 0
                self._early += raw
        except TimeoutError:
            raise ReplyMissing(f"open {self._name} events", f"no answer in {_ANSWER_TIMEOUT_S:g} s") from None
        finally:
            self._socket.setblocking(False)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        if self._early:
            early, self._early = memoryview(self._early), b""
            self._take(early)
        if self._waiting:
            self._rest(REST_S)
        else:
            self._listen()

    def _listen(self) -> None:
        if self._loop is not None:
            self._loop.add_reader(self._socket.fileno(), self._receive)

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop = None
        self._socket.close()

    def _receive(self) -> None:
        """One batch: many datagrams, one decode, one callback. What is left wakes the loop again."""
        buffer, receive, filled = self._buffer, self._socket.recv_into, 0
        is_empty = False
        try:
            for _ in range(DATAGRAMS_PER_WAKEUP):
                room = _BUFFER_BYTES - filled
                if room < _MAX_DATAGRAM_BYTES:
                    break
                size = receive(buffer[filled:], 0, socket.MSG_TRUNC)
                self._stats.received += 1
                if size > room:
                    self._stats.malformed += 1
                else:
                    filled += (size + 3) & ~3
        except BlockingIOError:
            is_empty = True
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._note_lost(1)
        drops = dropped_messages(self._socket)
        if drops != self._drops:
            self._note_lost((drops - self._drops) & 0xFFFFFFFF)
            self._drops = drops
        if filled:
            self._take(buffer[:filled])
        if self._waiting:
            self._rest(REST_S)
        elif self._pause_s and is_empty:
            self._rest(self._pause_s)

    def _take(self, raw: memoryview) -> None:
        events, malformed = self._decode(raw)
        self._stats.malformed += malformed
        self._hand_on(events)

    def _hand_on(self, events: list[_Event]) -> None:
        """What is not taken waits."""
        taken = self._on_events(events) if events else 0
        self._waiting = events[taken:]
        self._stats.postponed += bool(self._waiting)

    def _rest(self, pause_s: float) -> None:
        """Read nothing for so long."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._pause = self._loop.call_later(pause_s, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._hand_on(self._waiting)
        if self._waiting:
            self._rest(REST_S)
        else:
            self._listen()

    def _note_lost(self, count: int) -> None:
        self._stats.overruns += count
        self._on_lost(self._name)


def _is_answer(control: ControlMessage) -> bool:
    return control.sequence == 1 and control.kind in (NLMSG_ERROR, CT_GET_STATS)


def encode_bind(sequence: int, group: int, copy_bytes: int, queue_threshold: int) -> bytes:
    """Bind an NFLOG group to the sending socket.

    The kernel allocates a message of NFULA_CFG_NLBUFSIZ for every datagram and charges all of it to our
    receive buffer; its default of a page would leave room for a quarter as many.
    """
    return message(
        NFULNL_MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK, sequence, 0, group,
        attribute(NFULA_CFG_CMD, bytes([NFULNL_CFG_CMD_BIND])),
        attribute(NFULA_CFG_MODE, struct.pack(">IBx", copy_bytes, NFULNL_COPY_PACKET)),
        be32(NFULA_CFG_NLBUFSIZ, queue_threshold * (copy_bytes + 384)),
        be32(NFULA_CFG_TIMEOUT, 1),
        be32(NFULA_CFG_QTHRESH, queue_threshold),
    )  # fmt: skip
