"""The kernel's counts, read again and again, on disk and in reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.compile import compile_ruleset
from gatewayd.compile.effects import canary_bucket
from gatewayd.errors import ReplyMissing
from gatewayd.impact import keeper as module
from gatewayd.impact.counting import NAMES
from gatewayd.impact.keeper import ImpactKeeper
from gatewayd.impact.report import ImpactReport
from gatewayd.impact.store import FILE, ImpactStore
from gatewayd.kernel.fake import FakeTables
from gatewayd.model.policy import Policy
from gatewayd.model.transaction import CounterReading
from gatewayd.state_file.file import StateFileUnusable
from tests.support.rulesets import OBSERVE

NOON = 1_750_000_000.0
INSIDE = replace(OBSERVE, inside=("eth1",))
SERVICE = bytes((17, 0, 0, 0, 0xCA, 0x6C, 0, 0))


class World:
    """A table in which flows are counted as the rules do it, and daemons that come and go."""

    def __init__(self, state_dir: Path, policy: Policy) -> None:
        self.state_dir = state_dir
        self.policy: Policy | None = policy
        self.now_s = 1000.0
        self.fake = FakeTables(monotonic=lambda: self.now_s)
        self.packets = dict.fromkeys(NAMES, 0)
        self.boot_id = "boot"
        self.fault: Exception | None = None
        self.handle_after: int | None = None
        self.keeper = self._begin()

    def _begin(self) -> ImpactKeeper:
        self.store = ImpactStore(self.state_dir)
        return ImpactKeeper(
            self.fake,
            self._read_counters,
            self.store,
            lambda: self.policy,
            boot_id=self.boot_id,
            clock=lambda: NOON + self.now_s,
            monotonic=lambda: self.now_s,
        )

    async def restart(self) -> None:
        await self.keeper.close()
        self.keeper = self._begin()

    async def _read_counters(self) -> dict[str, CounterReading]:
        if self.fault is not None:
            raise self.fault
        return {name: CounterReading(count, count * 60) for name, count in self.packets.items()}

    async def put_rules(self) -> None:
        assert self.policy is not None
        await self.fake.replace_rules(compile_ruleset("gatewayd", self.policy, {}, 1))

    def count(self, address: bytes, flows: int = 1) -> None:
        bucket = bytes((canary_bucket(address), 0, 0, 0))
        self.packets["unregistered_flows"] += flows
        if not self.fake.count("prefix_flows4", address[:3] + bytes(1) + SERVICE, flows):
            self.packets["unplaced_flows"] += flows
        self.fake.count("service_flows", SERVICE + bucket, flows)

    async def read(self, seconds: float = 60.0) -> None:
        self.now_s += seconds
        await self.keeper.read()

    async def report(self, since_s: float = 3600.0) -> ImpactReport:
        return await self.keeper.report(NOON + self.now_s - since_s, 10, 25)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, INSIDE)
    await made.put_rules()
    await made.keeper.read()
    yield made
    await made.keeper.close()


CLIENT, OTHER = bytes((10, 0, 1, 77)), bytes((10, 0, 2, 1))


async def test_flows_are_in_the_report_by_service_interface_and_prefix(world: World) -> None:
    world.count(CLIENT, 5)
    world.count(OTHER, 2)
    await world.read()
    found = await world.report()
    assert (found.flows, found.counts, found.file) == (7, True, "ok")
    assert [(line.service, line.flows) for line in found.services] == [("udp/51820", 7)]
    assert [(line.interface, line.flows) for line in found.interfaces] == [("eth1", 7)]
    assert [(line.prefix, line.flows) for line in found.prefixes] == [("10.0.1.0/24", 5), ("10.0.2.0/24", 2)]
    assert (found.lost.prefixes, found.lost.services, found.lost.interfaces) == (0, 0, 0)
    assert found.buckets[canary_bucket(CLIENT)] >= 5
    view = world.keeper.view
    assert (view.flows, view.counts, view.failures, view.unplaced) == (7, True, 0, 0)
    assert view.elements == 4
    assert view.read_at is not None


async def test_by_several_interfaces_each_counts_for_its_pattern(world: World) -> None:
    world.policy = replace(OBSERVE, inside=("ppp*", "eth1"))
    for name in (b"ppp1", b"ppp2", b"eth1"):
        world.fake.count("interface_flows", name.ljust(16, b"\0"))
    world.packets["unregistered_flows"] += 3
    await world.read()
    found = await world.report()
    assert [(line.interface, line.flows) for line in found.interfaces] == [("ppp*", 2), ("eth1", 1)]


async def test_a_question_reads_the_kernel_again_unless_it_has_just_been_read(world: World) -> None:
    world.count(CLIENT)
    assert (await world.report()).flows == 0
    world.now_s += module.FRESH_S
    assert (await world.report()).flows == 1


async def test_what_came_while_no_daemon_ran_is_counted_by_the_next_and_nothing_twice(world: World) -> None:
    world.count(CLIENT, 5)
    await world.read()
    await world.restart()
    world.count(CLIENT, 3)
    world.count(OTHER)
    await world.read(600.0)
    await world.read()
    found = await world.report()
    assert found.flows == 9
    assert [(line.prefix, line.flows) for line in found.prefixes] == [("10.0.1.0/24", 8), ("10.0.2.0/24", 1)]
    (gap,) = found.gaps
    assert gap.flows == 4


async def test_after_a_reboot_the_table_is_another_and_counts_from_zero(world: World) -> None:
    world.count(CLIENT, 5)
    await world.read()
    await world.fake.delete_table()
    world.packets = dict.fromkeys(NAMES, 0)
    world.boot_id = "another boot"
    await world.restart()
    await world.put_rules()
    world.count(CLIENT, 6)
    await world.read()
    found = await world.report()
    assert (found.flows, found.prefixes[0].flows) == (11, 11)
    assert [gap.flows for gap in found.gaps] == [None]


async def test_a_table_that_another_program_removed_is_said_as_a_time_of_which_nothing_is_known(
    world: World,
) -> None:
    world.count(CLIENT, 5)
    await world.read()
    world.count(CLIENT, 3)
    await world.fake.delete_table()
    world.packets = dict.fromkeys(NAMES, 0)
    await world.put_rules()
    world.count(CLIENT, 2)
    await world.read()
    found = await world.report()
    assert found.flows == 7
    assert [(gap.since, gap.flows) for gap in found.gaps] == [("2025-06-15T15:24:20Z", None)]


async def test_before_our_rules_are_there_and_without_a_table_nothing_is_read(world: World) -> None:
    world.count(CLIENT)
    world.policy = None
    await world.read()
    assert (await world.report()).flows == 0
    world.policy = INSIDE
    await world.fake.delete_table()
    await world.read()
    assert (await world.report()).flows == 0
    assert world.keeper.view.failures == 0


async def test_a_table_that_is_replaced_while_it_is_read_is_read_another_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.count(CLIENT)
    numbers = iter([1, 2, 1, 1])

    async def read_handle() -> int:
        return next(numbers)

    monkeypatch.setattr(world.fake, "read_handle", read_handle)
    await world.read()
    assert world.keeper.view.flows == 0
    await world.read()
    assert world.keeper.view.flows == 1


async def test_a_fault_of_the_kernel_costs_nothing_but_time(world: World) -> None:
    world.count(CLIENT)
    world.fault = ReplyMissing("list counters", "no answer")
    await world.read()
    assert (world.keeper.view.failures, (await world.report()).flows) == (1, 0)
    world.fault = None
    world.count(CLIENT)
    await world.read()
    assert (await world.report()).flows == 2


async def test_a_file_that_cannot_be_opened_is_said_and_costs_nothing_but_time(world: World) -> None:
    away = world.state_dir.with_suffix(".away")
    await world.keeper.close()
    world.state_dir.rename(away)
    world.state_dir.write_text("no directory")
    await world.restart()
    world.count(CLIENT)
    await world.read()
    assert (world.keeper.view.failures, world.store.view.state) == (1, "failing")
    with pytest.raises(StateFileUnusable):
        await world.report()
    world.state_dir.unlink()
    away.rename(world.state_dir)
    await world.read()
    assert (await world.report()).flows == 1


async def test_a_file_that_fails_between_two_readings_has_them_all_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.count(CLIENT)
    write = world.store.write

    async def fail(*_: object) -> None:
        raise StateFileUnusable(FILE, "disk is full")

    monkeypatch.setattr(world.store, "write", fail)
    await world.read()
    assert world.keeper.view.failures == 1
    monkeypatch.setattr(world.store, "write", write)
    world.count(CLIENT)
    await world.read()
    found = await world.report()
    assert (found.flows, found.prefixes[0].flows) == (2, 2)


async def test_where_the_set_is_full_the_total_is_whole_and_the_rest_is_said(world: World) -> None:
    assert world.fake.table is not None
    world.fake.table.sets["prefix_flows4"].capacity = 1
    world.count(CLIENT, 5)
    world.count(OTHER, 2)
    await world.read()
    found = await world.report()
    assert (found.flows, found.lost.prefixes, found.lost.services) == (7, 2, 0)
    assert world.keeper.view.unplaced == 2


async def test_while_the_operator_has_counting_off_nothing_is_counted(world: World) -> None:
    world.policy = replace(INSIDE, counts=False)
    world.packets["unregistered_flows"] += 50
    await world.read()
    found = await world.report()
    assert (found.flows, found.counts) == (0, False)
    world.policy = INSIDE
    world.count(CLIENT)
    await world.read()
    assert (await world.report()).flows == 1


async def test_a_report_goes_back_as_far_as_something_is_kept(world: World) -> None:
    found = await world.report(since_s=10_000 * 86_400.0)
    assert found.step_s == 86_400
    assert found.since > "2024"


async def test_it_reads_at_every_minute_of_the_clock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        if len(waited) == 2:
            raise asyncio.CancelledError
        waited.append(seconds)
        world.now_s += seconds

    world.count(CLIENT)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await world.keeper.run()
    assert (NOON + world.now_s) % 60 == 0
    assert waited[1] == 60.0
    assert world.keeper.view.flows == 1
