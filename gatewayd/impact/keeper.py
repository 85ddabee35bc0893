"""Reads the kernel's counts once a minute, puts what came on disk, and answers questions from there.

Traffic depends on none of it. What fails costs time: the kernel keeps its counts, and the next reading has them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from gatewayd.errors import KernelError
from gatewayd.impact.buckets import DAY_S, group_interfaces, resolution_for
from gatewayd.impact.counting import SETS, Counting, Step
from gatewayd.impact.report import ImpactReport, ImpactView, Question, Run, flows_of, make_report
from gatewayd.impact.store import ImpactStore
from gatewayd.log import get_logger
from gatewayd.model.moment import format_time
from gatewayd.model.policy import Policy
from gatewayd.model.transaction import Counted, CounterReading
from gatewayd.state_file.file import StateFileUnusable
from gatewayd.state_file.view import StateFileView

EVERY_S: Final = 60.0
FRESH_S: Final = 10.0
"""A question reads the kernel again where the latest reading is older."""
_HALF_S: Final = EVERY_S / 2

log = get_logger(__name__)


class CountedTable(Protocol):
    """The table in which the rules count; `kernel.counts` is the real one."""

    async def read_handle(self) -> int:
        """The number of the table, which no other had; 0: none. Raises KernelError."""
        ...

    def read_counts(self, set_name: str) -> AsyncIterator[Sequence[Counted]]:
        """Elements of a set, piece by piece. Raises KernelError."""
        ...


class ImpactKeeper:
    """`boot_id`: of the host's present boot. `policy`: of the rules in the kernel, None before ours are there.
    `clock`: the likely time; `monotonic`: of the boot."""

    def __init__(
        self,
        table: CountedTable,
        read_counters: Callable[[], Awaitable[Mapping[str, CounterReading]]],
        store: ImpactStore,
        policy: Callable[[], Policy | None],
        *,
        boot_id: str,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._table = table
        self._read_counters = read_counters
        self._store = store
        self._policy = policy
        self._boot_id = boot_id
        self._clock = clock
        self._monotonic = monotonic
        self._counting = Counting()
        self._is_loaded = False
        self._run: Run | None = None
        self._lock = asyncio.Lock()
        self._read_at_s = float("-inf")
        self.view = ImpactView()

    async def run(self) -> None:
        """A reading at every minute of the clock, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S - self._clock() % EVERY_S)
            await self.read()

    async def read(self, fresh_s: float = 0.0) -> None:
        """One reading, unless the latest is not older than that. A fault of the kernel or the disk is counted."""
        async with self._lock:
            if self._monotonic() - self._read_at_s < fresh_s:
                return
            try:
                await self._read()
            except KernelError as error:
                self.view.failures += 1
                log.warning("impact.failed", error=str(error))
            except StateFileUnusable:
                self.view.failures += 1

    async def report(self, since_s: float | None, top: int, percent: int) -> ImpactReport:
        """Of the time from `since_s`, Unix seconds, to now; None: of a day. Raises StateFileUnusable."""
        await self.read(FRESH_S)
        until_s = self._clock()
        since_s = until_s - DAY_S if since_s is None else since_s
        resolution = resolution_for(until_s - since_s)
        since_s = max(since_s, resolution.first_kept(until_s))
        policy = self._policy()
        asked = Question(
            since_s=resolution.start_of(since_s),
            until_s=until_s,
            step_s=resolution.step_s,
            top=top,
            percent=percent,
            counts=policy is None or policy.counts,
            shadows_limit=policy is not None and (policy.shadows_limit or policy.mode == "limit"),
        )
        sums = await self._store.read(since_s, until_s)
        # Of tens of thousands of prefixes this takes tenths of a second: not in a turn of the loop.
        return await asyncio.to_thread(make_report, sums, asked, self._store.view)

    @property
    def file(self) -> StateFileView:
        return self._store.view

    async def close(self) -> None:
        """After the last reading."""
        await self._store.close()

    async def _read(self) -> None:
        policy = self._policy()
        if policy is None:
            return
        if not self._is_loaded:
            self._counting.load(await self._store.load())
            self._is_loaded = True
        step = await self._compare(policy)
        if step is None:
            return
        now_s = self._clock()
        run = self._run
        if run is None or step.is_new_table:
            # Of a table that went while we ran, what came since the latest reading is not known either.
            run = Run(now_s, now_s, flows_of(step.packets), step.is_new_table)
        run = replace(run, ended_s=max(run.began_s, now_s))
        await self._store.write(step, run, now_s - _HALF_S, self._counting.whole)
        self._counting.accept(step)
        self._run = run
        self._read_at_s = self._monotonic()
        self._note(step, policy, now_s)

    async def _compare(self, policy: Policy) -> Step | None:
        """None where there is no table, or another one came meanwhile."""
        handle = await self._table.read_handle()
        incarnation = f"{self._boot_id}:{handle}"
        counters = await self._read_counters()
        comparison = self._counting.compare(incarnation, self._monotonic())
        for number, name in enumerate(SETS):
            async for piece in self._table.read_counts(name):
                comparison.take(number, piece)
        for _ in comparison.find_gone():
            await asyncio.sleep(0)
        if handle == 0 or handle != await self._table.read_handle():
            return None
        step = self._counting.finish(incarnation, comparison, counters, is_counted=policy.counts)
        return replace_interfaces(step, policy)

    def _note(self, step: Step, policy: Policy, now_s: float) -> None:
        view = self.view
        view.counts = policy.counts
        view.read_at = format_time(now_s)
        view.elements = len(self._counting)
        view.flows += flows_of(step.packets)
        view.unplaced += step.packets.get("unplaced_flows", 0)


def replace_interfaces(step: Step, policy: Policy) -> Step:
    """Interfaces by the patterns that name them; where one alone is inside, all flows are its."""
    if len(policy.inside) == 1 and not step.interfaces:
        flows = sum(step.services.values())
        return replace(step, interfaces={policy.inside[0]: flows} if flows else {})
    return replace(step, interfaces=group_interfaces(step.interfaces, policy.inside))
