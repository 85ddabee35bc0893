"""What the kernel lets pass now: the sets that our rules look into, and single elements, asked for by their keys.

On a socket of its own: no commit and no dump waits for it. The kernel answers both under RCU (nf_tables_api.c:
nf_tables_cb, NFNL_CB_RCU), without the mutex that a commit holds.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from gatewayd.assertions.lookups import Element, RulesReading
from gatewayd.compile.ruleset import parse_tag
from gatewayd.errors import DumpInterrupted, OperationRefused
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import tables_codec as codec
from gatewayd.kernel.external import read_generation
from gatewayd.kernel.netlink import NetlinkChannel
from gatewayd.kernel.passage_codec import decode_looked_up, encode_get_element
from gatewayd.model.mask import parse_set_name

ATTEMPTS = 5
"""At a list of rules that commits of any program keep interrupting."""
REQUESTS_PER_SEND = 64
"""Well under a millisecond in the kernel, and answers that the usual receive buffer has room for."""


class KernelPassage:
    """Of the network namespace in which `open` was called."""

    def __init__(self, table: str, channel: NetlinkChannel) -> None:
        self._table = table
        self._channel = channel
        self._known: tuple[int, RulesReading] | None = None
        """The generation of the latest reading, and that."""

    @classmethod
    def open(cls, table: str) -> KernelPassage:
        """Raises MissingPrerequisite."""
        return cls(table, NetlinkChannel.open())

    def close(self) -> None:
        self._channel.close()

    async def read_rules(self) -> RulesReading:
        """Read again only after a commit. Raises KernelError, DumpInterrupted too."""
        generation = await read_generation(self._channel)
        if self._known is not None and self._known[0] == generation:
            return self._known[1]
        for attempt in range(ATTEMPTS):
            try:
                reading = await self._read()
                break
            except DumpInterrupted:
                if attempt == ATTEMPTS - 1:
                    raise
        # Of a commit in between the next call finds another generation.
        self._known = generation, reading
        return reading

    async def _read(self) -> RulesReading:
        tag, names = None, set[str]()
        sequence = self._channel.take_sequences(1)
        request = codec.encode_dump(codec.GETRULE, self._table, sequence)
        async for datagram in self._channel.dump(request, sequence, "list rules"):
            for kind, _, _, start, end in nl.iter_messages(datagram):
                if kind != codec.NEWRULE or codec.decode_table_name(datagram, start + 4, end) != self._table:
                    continue
                names |= decode_looked_up(datagram, start + 4, end)
                comment = None if tag is not None else codec.decode_rule_comment(datagram, start + 4, end)
                tag = tag or (parse_tag(comment) if comment else None)
        return RulesReading(tag, frozenset(name for name in names if parse_set_name(name) is not None))

    async def find_elements(self, elements: Sequence[Element]) -> frozenset[Element]:
        """Raises KernelError; OperationRefused for what is neither there nor absent."""
        found: set[Element] = set()
        for begin in range(0, len(elements), REQUESTS_PER_SEND):
            some = elements[begin : begin + REQUESTS_PER_SEND]
            first = self._channel.take_sequences(len(some))
            requests = (encode_get_element(self._table, *each, first + n) for n, each in enumerate(some))
            numbers = await self._channel.ask_each(b"".join(requests), first, len(some), "look elements up")
            for element, number in zip(some, numbers, strict=True):
                if number not in (0, errno.ENOENT):
                    raise OperationRefused(f"look up an element of {element[0]}", number)
                if not number:
                    found.add(element)
        return frozenset(found)
