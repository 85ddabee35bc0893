"""The file of the counts: what goes in comes out, in hours and days, and with the baseline."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.impact import store as module
from gatewayd.impact.buckets import DAY_S, DAYS, HOUR_S, HOURS
from gatewayd.impact.counting import Baseline, Counting, PrefixService, ServiceBucket, Step
from gatewayd.impact.report import Run
from gatewayd.impact.store import FILE, ImpactStore
from gatewayd.model.transaction import Counted, CounterReading
from gatewayd.state_file.file import StateFileUnusable

NOON = 1_750_000_000.0
RUN = Run(NOON, NOON + 60, 3, is_new_table=False)
PREFIX = PrefixService(bytes((10, 0, 1)), 17, 51820)
KEY = bytes((10, 0, 1, 0, 17, 0, 0, 0)) + bytes((0xCA, 0x6C, 0, 0))
KEY_SERVICE = bytes((17, 0, 0, 0)) + bytes((0xCA, 0x6C, 0, 0)) + bytes((42, 0, 0, 0))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImpactStore]:
    opened = ImpactStore(tmp_path)
    yield opened
    await opened.close()


class Kernel:
    """Counts that rise, and the counting of them."""

    def __init__(self) -> None:
        self.counting = Counting()
        self.flows = 0

    def step(self, flows: int, incarnation: str = "boot:1") -> Step:
        self.flows += flows
        comparison = self.counting.compare(incarnation, 0.0)
        comparison.take(0, [Counted(KEY, self.flows, 3600.0)])
        comparison.take(2, [Counted(KEY_SERVICE, self.flows, 3600.0)])
        comparison.take(3, [Counted(b"eth1".ljust(16, b"\0"), self.flows, 3600.0)])
        counters = {
            "unregistered_flows": CounterReading(self.flows, self.flows * 60),
            "over_limit_packets": CounterReading(self.flows * 2, self.flows * 100),
        }
        return self.counting.finish(incarnation, comparison, counters)

    async def write(self, store: ImpactStore, flows: int, at_s: float = NOON, run: Run = RUN) -> None:
        step = self.step(flows)
        await store.write(step, run, at_s, self.counting.whole)
        self.counting.accept(step)


async def begun(store: ImpactStore) -> Kernel:
    kernel = Kernel()
    kernel.counting.load(await store.load())
    await kernel.write(store, 100)
    return kernel


async def test_a_new_file_has_no_baseline_and_no_sums(store: ImpactStore) -> None:
    assert await store.load() == Baseline()
    found = await store.read(NOON - HOUR_S, NOON)
    assert (found.packets, found.prefixes, found.services, found.interfaces) == ({}, {}, {}, {})
    assert (list(found.steps), list(found.runs)) == ([], [])


async def test_what_came_is_summed_by_the_hour_and_by_the_day(store: ImpactStore) -> None:
    kernel = await begun(store)
    await kernel.write(store, 5)
    await kernel.write(store, 6)
    await kernel.write(store, 7, NOON + HOUR_S)
    hours = await store.read(NOON - HOUR_S, NOON + 2 * HOUR_S)
    assert hours.prefixes == {PREFIX: 18}
    assert hours.services == {ServiceBucket(17, 51820, 42): 18}
    assert hours.interfaces == {"eth1": 18}
    assert hours.packets == {"unregistered_flows": 18, "over_limit_packets": 36}
    assert hours.size_bytes == {"unregistered_flows": 1080, "over_limit_packets": 1800}
    assert list(hours.steps) == [(HOURS.start_of(NOON), 11), (HOURS.start_of(NOON) + HOUR_S, 7)]
    assert (await store.read(NOON + HOUR_S, NOON + 2 * HOUR_S)).prefixes == {PREFIX: 7}
    days = await store.read(NOON - 30 * DAY_S, NOON + 2 * HOUR_S)
    assert days.prefixes == {PREFIX: 18}
    assert list(days.steps) == [(DAYS.start_of(NOON), 18)]


async def test_another_daemon_finds_the_baseline(tmp_path: Path, store: ImpactStore) -> None:
    kernel = await begun(store)
    await kernel.write(store, 5)
    await store.close()
    second = ImpactStore(tmp_path)
    assert await second.load() == kernel.counting.whole()
    assert kernel.counting.whole().incarnation == "boot:1"
    assert list((await second.read(NOON, NOON)).runs) == [RUN]
    await second.close()


async def test_of_another_table_the_elements_before_are_gone(tmp_path: Path, store: ImpactStore) -> None:
    kernel = await begun(store)
    kernel.flows = 0
    step = kernel.step(9, "boot:2")
    await store.write(step, RUN, NOON, kernel.counting.whole)
    kernel.counting.accept(step)
    found = await store.load()
    assert found == kernel.counting.whole()
    assert (await store.read(NOON, NOON)).prefixes == {PREFIX: 9}


async def test_an_element_that_went_is_gone_from_the_baseline(store: ImpactStore) -> None:
    kernel = await begun(store)
    comparison = kernel.counting.compare("boot:1", 10_000.0)
    assert list(comparison.find_gone()) == []
    step = kernel.counting.finish("boot:1", comparison, {})
    assert len(step.gone) == 3
    await store.write(step, RUN, NOON, kernel.counting.whole)
    assert (await store.load()).elements == {}


async def test_a_file_that_is_begun_again_has_the_whole_baseline(tmp_path: Path, store: ImpactStore) -> None:
    """What was damaged is set aside; without the baseline every element would be counted a second time."""
    kernel = await begun(store)
    await kernel.write(store, 5)
    await store.close()
    (tmp_path / FILE).write_bytes(b"no database at all" * 1000)
    second = ImpactStore(tmp_path)
    step = kernel.counting.finish("boot:1", kernel.counting.compare("boot:1", 60.0), {})
    await second.write(step, RUN, NOON, kernel.counting.whole)
    assert second.view.set_aside == 1
    assert (await second.load()).elements == kernel.counting.whole().elements
    await second.close()


async def test_old_hours_and_days_go(store: ImpactStore) -> None:
    kernel = await begun(store)
    await kernel.write(store, 5, NOON - 500 * DAY_S)
    await kernel.write(store, 6, NOON - 10 * DAY_S)
    await kernel.write(store, 7, NOON)
    assert (await store.read(NOON - 8 * DAY_S, NOON)).prefixes == {PREFIX: 7}
    assert (await store.read(NOON - 600 * DAY_S, NOON)).prefixes == {PREFIX: 13}


async def test_the_first_run_and_the_latest_are_kept(store: ImpactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RUNS", 2)
    kernel = await begun(store)
    for number in range(1, 6):
        await kernel.write(store, 1, run=Run(NOON + number, NOON + number, 0, is_new_table=False))
    assert [run.began_s - NOON for run in (await store.read(NOON, NOON)).runs] == [0, 4, 5]


async def test_a_fault_leaves_nothing_of_a_step(tmp_path: Path, store: ImpactStore) -> None:
    kernel = await begun(store)
    await store.close()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("DROP TABLE interface")
    connection.commit()
    connection.close()
    second = ImpactStore(tmp_path)
    step = kernel.step(5)
    with pytest.raises(StateFileUnusable):
        await second.write(step, RUN, NOON, kernel.counting.whole)
    assert (await second.load()).packets == kernel.counting.whole().packets
    await second.close()
