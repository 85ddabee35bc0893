"""What KernelTables makes of the messages; with a kernel it is in tests/contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from gatewayd.errors import DumpInterrupted
from gatewayd.kernel import attributes as nl
from gatewayd.kernel.tables import INTERRUPTIONS, KernelTables
from gatewayd.kernel.tables_codec import NEWSETELEM, NFPROTO_INET, encode_elements

KEYS = [bytes((100, 64, 0, number)) for number in range(6)]


class Dumps:
    """A channel on which a dump is these pieces."""

    port = 1

    def __init__(self, *pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    def take_sequences(self, count: int) -> int:
        return count

    async def dump(self, request: bytes, sequence: int, operation: str) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            (elements,) = encode_elements(piece)
            yield nl.message(NEWSETELEM, 0, sequence, NFPROTO_INET, 0, elements)

    def close(self) -> None:
        pass


@pytest.fixture
def told() -> list[Sequence[bytes]]:
    """The pieces that a dump came in, also where it did not come to a good end."""
    return []


async def listen(told: list[Sequence[bytes]], name: str, *pieces: Sequence[bytes]) -> None:
    channel: Any = Dumps(*pieces)
    with closing(KernelTables("gatewayd", channel, channel, "nft")) as tables:
        async for piece in tables.read_elements(name):
            told.append(piece)


@pytest.mark.parametrize("name", ["c4_32", "b4_32", "b4_32_g2", "limiter4"])
async def test_a_dump_comes_in_the_kernels_pieces(told: list[Sequence[bytes]], name: str) -> None:
    await listen(told, name)
    assert told == []
    await listen(told, name, KEYS[:4], KEYS[4:])
    assert told == [KEYS[:4], KEYS[4:]]


async def test_a_dump_of_bindings_in_which_one_comes_twice_lacks_another(told: list[Sequence[bytes]]) -> None:
    """For the set's table was rebuilt between two pieces; all that came is told before."""
    with pytest.raises(DumpInterrupted) as caught:
        await listen(told, "b4_32", KEYS[:4], KEYS[3:5])
    assert told == [KEYS[:4], KEYS[3:5]]
    assert caught.value.operation == "list elements of b4_32"


# -- another program's commits -----------------------------------------------------------------------------


class Busy:
    """A kernel without objects in our table; each list is interrupted so many times before it is whole."""

    port = 1

    def __init__(self, times: int) -> None:
        self.times = times
        self.asked: Counter[str] = Counter()

    def take_sequences(self, count: int) -> int:
        return 1

    async def exchange(self, *_: object) -> list[bytes]:
        return []

    async def dump(self, request: bytes, sequence: int, operation: str) -> AsyncIterator[bytes]:
        self.asked[operation] += 1
        if self.asked[operation] <= self.times:
            raise DumpInterrupted(operation)
        return
        yield b""

    def close(self) -> None:
        pass


async def test_a_table_is_read_whatever_others_commit_meanwhile() -> None:
    """Whoever reads it: the daemon's start, the reconciler, plan, teardown."""
    channel: Any = Busy(INTERRUPTIONS - 1)
    with closing(KernelTables("gatewayd", channel, channel, "nft")) as tables:
        assert (await tables.read_table()).present
        assert await tables.read_counters() == {}
    assert set(channel.asked.values()) == {INTERRUPTIONS}
    channel = Busy(INTERRUPTIONS)
    with closing(KernelTables("gatewayd", channel, channel, "nft")) as tables, pytest.raises(DumpInterrupted):
        await tables.read_table()
