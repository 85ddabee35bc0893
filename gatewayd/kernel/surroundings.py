"""What else is in the network namespace: rules of other tables, and the size of connection tracking. Read, never
written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from gatewayd.errors import DumpInterrupted
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import neighbours_codec as codec
from gatewayd.kernel import tables_codec
from gatewayd.kernel.netlink import NetlinkChannel
from gatewayd.model.external import ConntrackSize, Neighbour

MAX_NEIGHBOURS = 1000
ATTEMPTS = 3
_SETTINGS = Path("/proc/sys/net/netfilter")
_STATISTICS = Path("/proc/thread-self/net/stat/nf_conntrack")


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
        sequence = self._channel.take_sequences(1)
        request = tables_codec.encode_get_generation(sequence)
        for datagram in await self._channel.exchange(request, sequence, sequence, "read the generation"):
            for kind, _, _, start, end in nl.iter_messages(datagram):
                if kind == tables_codec.NEWGEN:
                    return tables_codec.decode_generation(datagram, start + 4, end)
        return 0

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
        async for datagram in self._channel.dump(codec.encode_dump(sequence), sequence, "list rules of all tables"):
            for each in codec.neighbours_in(datagram, self._mask, self._table):
                if len(found) < MAX_NEIGHBOURS:
                    found[each] = None


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
