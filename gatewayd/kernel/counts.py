"""The sets in which the rules count, read by a socket of their own: no commit and no long dump waits for it."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Sequence
from typing import Self

from gatewayd.errors import DumpInterrupted, OperationRefused
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import tables_codec as codec
from gatewayd.kernel.counts_codec import decode_counts, decode_table_handle
from gatewayd.kernel.netlink import NetlinkChannel
from gatewayd.model.transaction import Counted


class CountReader:
    """Of the network namespace in which `open` was called."""

    def __init__(self, table: str, channel: NetlinkChannel) -> None:
        self._table = table
        self._channel = channel

    @classmethod
    def open(cls, table: str) -> Self:
        """Raises MissingPrerequisite."""
        return cls(table, NetlinkChannel.open())

    def close(self) -> None:
        self._channel.close()

    async def read_handle(self) -> int:
        """The number of our table, which no other has had since the namespace began; 0: no table. Raises
        KernelError."""
        sequence = self._channel.take_sequences(1)
        request = codec.encode_get_table(self._table, sequence)
        try:
            answers = await self._channel.exchange(request, sequence, sequence, f"read table {self._table}")
        except OperationRefused as error:
            if error.errno == errno.ENOENT:
                return 0
            raise
        for datagram in answers:
            for kind, _, _, start, end in nl.iter_messages(datagram):
                if kind == codec.NEWTABLE:
                    return decode_table_handle(datagram, start + 4, end)
        return 0

    async def read_counts(self, set_name: str) -> AsyncIterator[Sequence[Counted]]:
        """Elements piece by piece; none where there is no such set. The set grows and shrinks meanwhile: an element
        may come twice or be left out. Raises KernelError."""
        sequence = self._channel.take_sequences(1)
        request = codec.encode_dump(codec.GETSETELEM, self._table, sequence, set_name)
        try:
            async for datagram in self._channel.dump(request, sequence, f"list counts of {set_name}"):
                for kind, _, _, start, end in nl.iter_messages(datagram):
                    if kind == codec.NEWSETELEM:
                        yield decode_counts(datagram, start + 4, end)
        except DumpInterrupted:
            return
        except OperationRefused as error:
            if error.errno != errno.ENOENT:
                raise
