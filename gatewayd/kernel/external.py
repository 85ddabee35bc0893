"""Other programs in the network namespace: their commits as they come (NFNLGRP_NFTABLES), their rules, and the
size of connection tracking. Nothing is written here.

Listening is not free: while anybody listens, in any namespace of the host (netlink_has_listeners knows of one
list for all), the kernel makes a message for every element of every commit. Measured on 6.18, 2 cores, processor
time of 500,000 elements in transactions of 16,384, least and median of five:

    no listener                                         0.17 s  0.20 s
    a listener that drops ours by a socket filter       0.56 s  0.61 s
    the same, leaving the group around each of them     0.18 s  0.19 s    leaving and joining again: 0.7 µs

A listener that reads them costs more still: 2.1 s instead of 0.5 s for a million, and 110 MB for a moment. One
element in a transaction takes the same in all of them, 26 to 31 µs. So the group is left around transactions of
more than a few elements; small ones stay, and the filter keeps what we send from coming back. What others commit
in the moment between shows in the generation alone (reconcile.dataplane: Generations).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatewayd.errors import DumpInterrupted, EventMalformed
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import external_codec as codec
from gatewayd.kernel import tables_codec
from gatewayd.kernel.netlink import NetlinkChannel, attach_filter, dropped_messages, open_netfilter_socket
from gatewayd.model.transaction import ConntrackSize, ExternalChanges, ExternalCommit, Neighbour

LARGE_COMMIT = 64
"""Elements from which on leaving and joining is cheaper than the messages."""
DATAGRAMS_PER_BATCH = 16
"""Some 700 elements, and 6 ms: what is taken in at a time."""
RECEIVE_BUFFER_BYTES = 4 << 20
_MAX_DATAGRAM_BYTES = 1 << 16
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NETLINK_DROP_MEMBERSHIP = 270, 1, 2
_LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_PORT_OFFSET, _WHOLE_MESSAGE = 12, 0xFFFFFFFF

MAX_NEIGHBOURS = 1000
ATTEMPTS = 3
_SETTINGS = Path("/proc/sys/net/netfilter")
_STATISTICS = Path("/proc/thread-self/net/stat/nf_conntrack")


class NotificationSocket:
    """Of the network namespace that it is made in. Joins the group between `start` and `stop`.

    `own_port`: of the socket whose commits are ours.
    """

    def __init__(self, table: str, own_port: int) -> None:
        self._socket = open_netfilter_socket(RECEIVE_BUFFER_BYTES)
        attach_filter(self._socket, leave_out(own_port))
        self._decoder = codec.NotificationDecoder(table, own_port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drops = 0
        self._lost = False

    def start(self, on_notification: Callable[[], None]) -> None:
        """Call back, from the running loop, while there is something to `take`."""
        self.stop()
        self._loop = asyncio.get_running_loop()
        self._join(_NETLINK_ADD_MEMBERSHIP)
        self._loop.add_reader(self._socket.fileno(), on_notification)

    def stop(self) -> None:
        """Receive nothing more; messages that were not taken are gone."""
        if self._loop is None:
            return
        self._join(_NETLINK_DROP_MEMBERSHIP)
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
        self._loop = None
        while self._receive():
            pass
        self._decoder.reset()
        self._lost = False

    def close(self) -> None:
        self.stop()
        self._socket.close()

    def own_port(self, port: int) -> None:
        """From now on what this port commits is ours too: of the latest few, for a number comes again one day.

        A process that binds no port gets its process id as one, as its own pid namespace knows it
        (net/netlink/af_netlink.c: netlink_autobind).
        """
        self._decoder.add_own_port(port)

    @contextmanager
    def without_ours(self, elements: int) -> Iterator[None]:
        """While a transaction of ours with so many elements is in the kernel; nothing may be awaited inside."""
        if self._loop is None or elements <= LARGE_COMMIT:
            yield
            return
        self._join(_NETLINK_DROP_MEMBERSHIP)
        try:
            yield
        finally:
            self._join(_NETLINK_ADD_MEMBERSHIP)

    def take(self) -> ExternalChanges:
        """A batch of what came in; `on_notification` comes again for the rest."""
        commits: list[ExternalCommit] = []
        for _ in range(DATAGRAMS_PER_BATCH):
            datagram = self._receive()
            if not datagram:
                break
            try:
                commits += self._decoder.feed(datagram)
            except EventMalformed:
                self._lose()
        drops = dropped_messages(self._socket)
        if drops != self._drops:
            self._drops = drops
            self._lose()
        lost, self._lost = self._lost, False
        return ExternalChanges(tuple(commits), lost)

    def _lose(self) -> None:
        self._lost = True
        self._decoder.reset()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_MAX_DATAGRAM_BYTES)
        except BlockingIOError:
            return b""

    def _join(self, what: int) -> None:
        self._socket.setsockopt(_SOL_NETLINK, what, codec.NFNLGRP_NFTABLES)


def leave_out(port: int) -> bytes:
    """A classic socket filter that drops the messages which a netlink port caused.

    It runs on each message from its nlmsghdr on, and loads nlmsg_pid as big endian
    (Documentation/networking/filter.rst). Messages of one datagram are of one transaction.
    """
    program = (
        (_LOAD_WORD, 0, 0, _PORT_OFFSET),
        (_JUMP_EQUAL, 0, 1, socket.htonl(port)),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, _WHOLE_MESSAGE),
    )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


async def read_generation(channel: NetlinkChannel) -> int:
    """The kernel's ruleset generation. Raises KernelError."""
    sequence = channel.take_sequences(1)
    request = tables_codec.encode_get_generation(sequence)
    for datagram in await channel.exchange(request, sequence, sequence, "read the generation"):
        for kind, _, _, start, end in nl.iter_messages(datagram):
            if kind == tables_codec.NEWGEN:
                return tables_codec.decode_generation(datagram, start + 4, end)
    return 0


class RuleReader:
    """Of the network namespace in which `open` was called; on a socket of its own, so that a long list holds up no
    commit."""

    def __init__(self, channel: NetlinkChannel, table: str, mask: int) -> None:
        self._channel = channel
        self._table = table
        self._mask = mask

    @classmethod
    def open(cls, table: str, mask: int) -> RuleReader:
        """`table`: our own, which is left out; `mask`: our bits of the ct mark. Raises MissingPrerequisite."""
        return cls(NetlinkChannel.open(), table, mask)

    def close(self) -> None:
        self._channel.close()

    async def generation(self) -> int:
        """Goes up with every transaction of any program. Raises KernelError."""
        return await read_generation(self._channel)

    async def neighbours(self) -> tuple[Neighbour, ...]:
        """Other tables' rules that use our bits, at most MAX_NEIGHBOURS; elements of sets are not listed. Raises
        KernelError.

        Every commit in any table interrupts a list, our own elements too. A list interrupted again and again
        is taken as it is: what was committed meanwhile has changed the generation, so there will be another.
        """
        for _ in range(ATTEMPTS):
            found: dict[Neighbour, None] = {}
            with suppress(DumpInterrupted):
                await self._list(found)
                break
        return tuple(found)

    async def _list(self, found: dict[Neighbour, None]) -> None:
        sequence = self._channel.take_sequences(1)
        async for datagram in self._channel.dump(
            codec.encode_rules_dump(sequence), sequence, "list rules of all tables"
        ):
            for each in codec.neighbours_in(datagram, self._mask, self._table):
                if len(found) < MAX_NEIGHBOURS:
                    found[each] = None


def read_route(address: str) -> str | None:
    """The interface by which a packet to the address leaves this host; None where there is no such way."""
    # Imported here: it is large, and the daemon has no use for it.
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as ip:
            index = ip.route("get", dst=address)[0].get("oif")
            return None if index is None else socket.if_indextoname(index)
    except (NetlinkError, OSError):
        return None


def read_conntrack_size() -> ConntrackSize | None:
    """Of the network namespace that the calling thread is in; None while connection tracking is not loaded.

    `nf_conntrack_max` is one for all namespaces, the count is each one's own.
    """
    try:
        most = int((_SETTINGS / "nf_conntrack_max").read_text())
        entries = int((_SETTINGS / "nf_conntrack_count").read_text())
    except (OSError, ValueError):
        return None
    counts: dict[str, int] = {}
    with suppress(OSError, ValueError):
        counts = sum_statistics(_STATISTICS.read_text())
    return ConntrackSize(entries, most, counts.get("drop"), counts.get("insert_failed"), counts.get("early_drop"))


def sum_statistics(text: str) -> dict[str, int]:
    """By column of /proc/net/stat/nf_conntrack: a line of names, then one of hexadecimal numbers for each
    processor. Raises ValueError."""
    names, *lines = text.splitlines() or [""]
    columns = names.split()
    counts = dict.fromkeys(columns, 0)
    for line in lines:
        for name, number in zip(columns, line.split(), strict=False):
            counts[name] += int(number, 16)
    return counts
