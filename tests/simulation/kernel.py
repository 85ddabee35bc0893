"""The kernel of a simulated host, and the line by which one process speaks to it.

Every call waits twice, for a time of the seed's choice: before it takes effect, and between its effect and its
answer. In either wait other tasks run, the process may be killed, and the call may fail. Then it was done or not,
and the process does not know which.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gatewayd.assertions.lookups import Element, RulesReading
from gatewayd.errors import ReplyMissing
from gatewayd.kernel.conntrack_codec import AF_UNSPEC
from gatewayd.kernel.fake import FakeTables
from gatewayd.model.flow import ConnectionEvent, ConnectionKey, Flow
from gatewayd.model.policy import MarkLayout
from gatewayd.model.transaction import CounterReading, ExternalChanges, Ruleset, TableReading, Transaction
from tests.simulation.loop import Clock, Dice
from tests.support.fake_conntrack import FakeConntrack

LAYOUT: Final = MarkLayout(0xFF000000)
LONGEST_CALL_S: Final = 0.02


@dataclass(slots=True)
class Trouble:
    """What the next calls meet: so many `calls` fail, before they take effect or `after` it."""

    calls: int = 0
    after: bool = False


class Kernel:
    """`tables` and `flows` (connection tracking) outlive every process. `point` is called at each wait of a call,
    `wrote` right after each write took effect."""

    def __init__(self, clock: Clock, dice: Dice) -> None:
        self.clock, self.dice = clock, dice
        self.tables = FakeTables(monotonic=clock.monotonic)
        self.flows = FakeConntrack()
        self.trouble = Trouble()
        self.point: Callable[[], None] = lambda: None
        self.wrote: Callable[[Transaction | Ruleset], None] = lambda _: None
        self.cleared: Callable[[list[Flow]], None] = lambda _: None

    def report_to(
        self,
        point: Callable[[], None],
        wrote: Callable[[Transaction | Ruleset], None],
        cleared: Callable[[list[Flow]], None],
    ) -> None:
        self.point, self.wrote, self.cleared = point, wrote, cleared

    def heal(self) -> None:
        """No call fails any more."""
        self.trouble.calls = 0

    async def wait(self, *, after: bool) -> None:
        self.point()
        dice = self.dice
        await asyncio.sleep(0 if dice.chance(0.6) else dice.random() * LONGEST_CALL_S)
        if self.trouble.calls and self.trouble.after is after:
            self.trouble.calls -= 1
            raise ReplyMissing("a call", "lost")

    def power_off(self) -> None:
        self.tables.unwatch()
        self.tables.table = None
        self.tables.generation = self.tables.handle = 1
        self.flows.connections.clear()
        self.flows.answers.clear()


class Line:
    """Implements reconcile.dataplane.Dataplane for one process. A dead one's says nothing more."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._tables = kernel.tables
        self.is_dead = False

    async def read_table(self) -> TableReading:
        await self._kernel.wait(after=False)
        reading = await self._tables.read_table()
        await self._kernel.wait(after=True)
        return reading

    async def read_elements(self, set_name: str) -> AsyncIterator[Sequence[bytes]]:
        await self._kernel.wait(after=False)
        async for piece in self._tables.read_elements(set_name):
            yield sorted(piece)
        await self._kernel.wait(after=True)

    async def commit(self, transaction: Transaction) -> None:
        await self._kernel.wait(after=False)
        await self._tables.commit(transaction)
        self._kernel.wrote(transaction)
        await self._kernel.wait(after=True)

    async def replace_rules(self, ruleset: Ruleset) -> None:
        await self._kernel.wait(after=False)
        await self._tables.replace_rules(ruleset)
        self._kernel.wrote(ruleset)
        await self._kernel.wait(after=True)

    async def read_counters(self) -> dict[str, CounterReading]:
        return await self._tables.read_counters()

    async def read_generation(self) -> int:
        await self._kernel.wait(after=False)
        return await self._tables.read_generation()

    async def delete_table(self) -> bool:
        raise AssertionError("a daemon that runs deletes no table")

    async def read_rules(self) -> RulesReading:
        return await self._tables.read_rules()

    async def find_elements(self, elements: Sequence[Element]) -> frozenset[Element]:
        return await self._tables.find_elements(elements)

    def watch(self, on_change: Callable[[], None]) -> None:
        if not self.is_dead:
            self._tables.watch(on_change)

    def unwatch(self) -> None:
        if not self.is_dead:
            self._tables.unwatch()

    def take_changes(self) -> ExternalChanges:
        return self._tables.take_changes()


class Flows:
    """Implements reconcile.connections.Connections for one process."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._flows = kernel.flows

    async def dump(
        self, *, mark: int, mask: int, family: int = AF_UNSPEC,
        source: bytes | None = None, answered_by: bytes | None = None,
    ) -> AsyncGenerator[list[ConnectionEvent], None]:  # fmt: skip
        await self._kernel.wait(after=False)
        async for batch in self._flows.dump(mark=mark, mask=mask, source=source, answered_by=answered_by):
            yield batch

    async def change_marks(self, connections: Iterable[ConnectionKey], value: int, mask: int) -> int:
        keys = list(connections)
        return len(keys) - len(await self.change_known_marks(keys, value, mask))

    async def change_known_marks(
        self, connections: Iterable[ConnectionKey], value: int, mask: int
    ) -> list[ConnectionKey]:
        keys = list(connections)
        await self._kernel.wait(after=False)
        known = self._flows.connections
        found = [known.get(self._flows.answers.get(key.tuple_bytes, key.tuple_bytes)) for key in keys]
        if mask & ~value & LAYOUT.registered:
            marked = [each.flow for each in found if each is not None and each.mark & LAYOUT.registered]
            self._kernel.cleared(marked)
        return await self._flows.change_known_marks(keys, value, mask)

    def key_of(self, flow: Flow) -> ConnectionKey | None:
        return self._flows.key_of(flow)
