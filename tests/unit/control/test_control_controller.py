"""The owner on a kernel in memory: what is written when, and what never is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gatewayd.control.controller import MAX_SLEEP_S
from gatewayd.control.core import WindowLog
from gatewayd.control.trusted_time import PATIENCE_S
from gatewayd.kernel.fake import FakeTables
from gatewayd.model import Flow, parse_address, parse_prefix
from gatewayd.model.registration import Binding, BindingChange
from gatewayd.model.transaction import Ruleset, Transaction
from gatewayd.watch.aggregate import UnregisteredAggregate
from tests.support.fake_conntrack import FakeConntrack, connection_event
from tests.support.manual_clock import START_S, Time, until
from tests.support.owning import LAYOUT, REGISTERED, flow, owning, registration, settings_of

BANK = registration("BANK", "39.32.0.0/28")
HOUSE = registration("HOUSE", "39.32.64.8/29")
GUEST = registration("GUEST", "2400:adc0:1::/48", services=())


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


# -- start -----------------------------------------------------------------------------------------------------


def test_nothing_is_written_before_every_source_was_read(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", "desk")) as it:
            await it.read("national", BANK)
            await it.fail("desk", "no such file")
            await asyncio.sleep(30)
            assert it.written == []
            assert not it.controller.loaded
            assert it.controller.unread_sources() == ("desk",)
            await it.read("desk", HOUSE)
            await it.in_sync()
            assert it.passes(BANK)
            assert it.passes(HOUSE)

    time.run(scenario())


def test_the_rules_are_written_once_and_after_every_element(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", BANK, HOUSE, GUEST)
            await it.in_sync()
            assert it.rulesets() == [it.written[-1]]

    time.run(scenario())


def test_an_earlier_source_wins_and_what_it_gives_up_falls_to_the_later(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", "desk")) as it:
            elsewhere = registration("BANK", "39.33.0.0/28")
            await it.read("national", BANK)
            await it.read("desk", elsewhere)
            await it.in_sync()
            assert it.controller.merged.conflicts == {"desk": 1}
            assert (it.passes(BANK), it.passes(elsewhere)) == (True, False)
            await it.read("national", HOUSE)
            await it.in_sync()
            assert (it.passes(BANK), it.passes(elsewhere), it.passes(HOUSE)) == (False, True, True)

    time.run(scenario())


# -- changes ---------------------------------------------------------------------------------------------------


def test_a_failing_source_keeps_what_is_in_force_and_says_why(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", BANK)
            await it.in_sync()
            before = list(it.written)
            await it.fail("national", "connection refused")
            await asyncio.sleep(5)
            assert it.written == before
            assert it.passes(BANK)
            assert it.controller.sources["national"].error == "connection refused"
            await it.read("national", BANK)
            assert it.controller.sources["national"].error is None

    time.run(scenario())


def test_a_change_never_removes_an_element_that_both_forms_want(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            old = registration("BANK", "39.32.0.0/28", "39.32.1.0/28")
            new = registration("BANK", "39.32.0.0/28", "39.32.2.0/28", category="embassy")
            await it.read("national", old)
            await it.in_sync()
            await it.read("national", new)
            await it.in_sync()
            assert it.passes(new)
            assert not it.passes(old)
            assert len(it.removed_keys()) == 1
            assert parse_address("39.32.0.0") not in {key[:4] for key in it.removed_keys()}

    time.run(scenario())


def test_an_element_that_another_registration_wants_stays_after_a_withdrawal(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            twin = registration("TWIN", "39.32.0.0/28")
            await it.read("national", BANK, twin)
            await it.in_sync()
            await it.read("national", twin)
            await it.in_sync()
            assert it.passes(twin)
            assert it.removed_keys() == []
            await it.read("national")
            await it.in_sync()
            assert not it.passes(twin)

    time.run(scenario())


@pytest.mark.parametrize("fields", [{"status": "suspended"}, {"valid_until_s": START_S - 1}])
def test_a_registration_that_is_not_effective_is_not_programmed_nor_removed_twice(
    time: Time, fields: dict[str, Any]
) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            idle = registration("BANK", "39.32.0.0/28", **fields)
            await it.read("national", idle, HOUSE)
            await it.in_sync()
            assert (len(it.controller.allowlist), it.controller.count_active()) == (2, 1)
            assert not it.passes(idle)
            await it.read("national", BANK, HOUSE)
            await it.in_sync()
            assert it.passes(BANK)
            await it.read("national", idle, HOUSE)
            await it.in_sync()
            assert not it.passes(BANK)
            await it.read("national", HOUSE)
            await it.in_sync()
            assert (len(it.controller.allowlist), it.controller.count_active()) == (1, 1)
            assert it.passes(HOUSE)

    time.run(scenario())


def test_many_registrations_leave_the_loop_free_between_slices(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            turns = 0

            async def count_turns() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.ensure_future(count_turns())
            many = [registration(f"R-{n}", f"10.{n >> 8}.{n & 255}.1") for n in range(5000)]
            await it.read("national", *many)
            assert turns >= 10
            counting.cancel()
            await it.in_sync()
            assert all(it.passes(each) for each in many)

    time.run(scenario())


# -- time ------------------------------------------------------------------------------------------------------


def test_a_thousand_windows_at_once_are_a_hundred_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    windows = WindowLog(lambda: now)
    for number in range(1000):
        windows.opened(f"r{number}")
        windows.closed(f"r{number}")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["window.opened", "window.closed"] * 50 + ["window.not_listed"]
    now = WindowLog.EVERY_S
    windows.closed("later")
    assert [record.getMessage() for record in caplog.records][len(said) :] == ["window.closed"]


def test_windows_open_and_close_on_time(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            timed = registration("TIMED", "39.32.0.0/28", valid_from_s=START_S + 10, valid_until_s=START_S + 20)
            await it.read("national", timed, HOUSE)
            await it.in_sync()
            assert it.controller.next_window_change() == START_S + 10
            await asyncio.sleep(9)
            assert not it.passes(timed)
            await until(lambda: it.passes(timed))
            assert time.clock() - (START_S + 10) < MAX_SLEEP_S
            assert it.controller.next_window_change() == START_S + 20
            await asyncio.sleep(START_S + 19.9 - time.clock())
            assert it.passes(timed)
            await until(lambda: not it.passes(timed))
            assert 0 <= time.clock() - (START_S + 20) < MAX_SLEEP_S
            assert it.controller.next_window_change() is None
            assert it.passes(HOUSE)

    time.run(scenario())


def test_a_clock_that_is_set_forward_opens_at_once_and_closes_when_it_is_believed(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            opens = registration("OPENS", "39.32.0.0/28", valid_from_s=START_S + 5000)
            closes = registration("CLOSES", "39.32.0.16/28", valid_until_s=START_S + 5000)
            await it.read("national", opens, closes)
            await it.in_sync()
            assert (it.passes(opens), it.passes(closes)) == (False, True)
            time.clock.set_by(6000)
            await until(lambda: (it.passes(opens), it.passes(closes)) == (True, True))
            await asyncio.sleep(PATIENCE_S - 10)
            assert (it.passes(opens), it.passes(closes)) == (True, True)
            await until(lambda: (it.passes(opens), it.passes(closes)) == (True, False), within_s=30)

    time.run(scenario())


def test_a_clock_that_is_set_forward_by_ntp_opens_and_closes_what_is_due(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            opens = registration("OPENS", "39.32.0.0/28", valid_from_s=START_S + 5000)
            closes = registration("CLOSES", "39.32.0.16/28", valid_until_s=START_S + 5000)
            await it.read("national", opens, closes)
            await it.in_sync()
            it.is_synced = True
            time.clock.set_by(6000)
            await until(lambda: (it.passes(opens), it.passes(closes)) == (True, False))

    time.run(scenario())


def test_a_clock_that_is_set_back_opens_what_had_closed_and_closes_nothing(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            opened = registration("OPENED", "39.32.0.0/28", valid_from_s=START_S + 10)
            closed = registration("CLOSED", "39.32.0.16/28", valid_until_s=START_S + 10)
            await it.read("national", opened, closed)
            await asyncio.sleep(20)
            assert (it.passes(opened), it.passes(closed)) == (True, False)
            time.clock.set_by(-100)
            await until(lambda: (it.passes(opened), it.passes(closed)) == (True, True))
            await asyncio.sleep(100)
            await until(lambda: (it.passes(opened), it.passes(closed)) == (True, False))

    time.run(scenario())


def test_a_policy_that_starts_later_is_armed_then_with_a_new_epoch(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", enforce_from=START_S + 30)) as it:
            await it.read("national", BANK)
            await it.in_sync()
            assert it.reconciler.policy_in_force is not None
            assert it.reconciler.mode_in_force == "observe"
            epoch = it.reconciler.epoch
            await asyncio.sleep(START_S + 29.9 - time.clock())
            assert it.reconciler.mode_in_force == "observe"
            await until(lambda: it.reconciler.mode_in_force == "reject")
            assert 0 <= time.clock() - (START_S + 30) < MAX_SLEEP_S
            await it.in_sync()
            assert it.reconciler.epoch == epoch + 1
            assert it.removed_keys() == []

    time.run(scenario())


# -- reload ----------------------------------------------------------------------------------------------------


def test_a_reload_puts_the_new_mode_in_force_and_touches_no_element(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", BANK)
            await it.in_sync()
            before = len(it.written)
            it.configure(mode="observe")
            await until(lambda: it.reconciler.mode_in_force == "observe")
            await it.in_sync()
            assert len(it.rulesets()) == 2
            assert len(it.written) == before + 1

    time.run(scenario())


def test_what_only_a_removed_source_had_goes_and_the_rest_stays(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", "desk")) as it:
            await it.read("national", BANK)
            await it.read("desk", BANK, HOUSE)
            await it.in_sync()
            await it.controller.use_sources({"national": "file:/nowhere/national"})
            await it.in_sync()
            assert (it.passes(BANK), it.passes(HOUSE)) == (True, False)
            assert list(it.controller.sources) == ["national"]

    time.run(scenario())


def test_a_new_source_that_cannot_be_read_holds_nothing_up_and_removes_nothing(time: Time) -> None:
    """A change of `national` passes at once; what the removed source had stays until the new one was read."""

    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", "old")) as it:
            await it.read("national", BANK)
            await it.read("old", HOUSE)
            await it.in_sync()
            await it.controller.use_sources({"national": "file:/nowhere/national", "new": "file:/nowhere/new"})
            await it.fail("new", "no such file")
            assert it.controller.unread_sources() == ("new",)
            await it.read("national", BANK, GUEST)
            await until(lambda: it.passes(GUEST))
            assert it.passes(BANK)
            assert it.passes(HOUSE)
            await it.read("national", GUEST)
            await asyncio.sleep(5)
            assert it.passes(BANK)
            await it.read("new", registration("NEW", "39.40.0.0/24"))
            await it.in_sync()
            assert [it.passes(each) for each in (BANK, HOUSE, GUEST)] == [False, False, True]
            assert sorted(each.id for each in it.controller.allowlist) == ["GUEST", "NEW"]

    time.run(scenario())


def test_a_new_source_and_an_armed_mode_in_one_reload_arm_only_after_the_source_is_in_the_kernel(
    time: Time,
) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", mode="observe")) as it:
            await it.read("national", BANK)
            await it.in_sync()
            await it.controller.use_sources({"national": "file:/nowhere/national", "new": "file:/nowhere/new"})
            it.configure(mode="reject")
            await asyncio.sleep(30)
            assert it.reconciler.mode_in_force == "observe"
            armed_without: list[str] = []
            seen = it.tables.before_write

            def look(write: Any) -> None:
                seen(write)
                missing = any(each.missing for each in it.reconciler.tracker.set_states())
                if isinstance(write, Ruleset) and "reject with" in write.text and missing:
                    armed_without.append("elements")

            it.tables.before_write = look
            await it.read("new", *(registration(f"N-{n}", f"10.0.{n >> 8}.{n & 255}") for n in range(2000)))
            await until(lambda: it.reconciler.mode_in_force == "reject")
            assert armed_without == []
            assert it.controller.count_active() == 2001

    time.run(scenario())


def test_going_back_to_observe_waits_for_no_source(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", BANK)
            await it.in_sync()
            await it.controller.use_sources({"national": "file:/nowhere/national", "new": "file:/nowhere/new"})
            it.configure(mode="observe")
            await until(lambda: it.reconciler.mode_in_force == "observe")

    time.run(scenario())


def test_a_reading_of_a_source_that_a_reload_has_removed_is_let_go(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", "desk")) as it:
            await it.read("national", BANK)
            await it.read("desk", HOUSE)
            await it.in_sync()
            await it.controller.use_sources({"national": "file:/nowhere/national"})
            await it.read("desk", HOUSE)
            await it.fail("desk", "gone")
            await it.in_sync()
            assert it.passes(BANK)
            assert not it.passes(HOUSE)

    time.run(scenario())


# -- events ----------------------------------------------------------------------------------------------------


def test_a_registered_flow_that_the_kernel_did_not_know_is_admitted_ahead_of_all_else(time: Time) -> None:
    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", HOUSE)
            await it.in_sync()
            late = flow("39.32.0.5")
            conntrack.put(late, it.judged() | 7)
            others = [registration(f"R-{n}", f"10.{n >> 8}.{n & 255}.1") for n in range(20_000)]
            before = len(it.written)
            # One turn: all are desired, none is written yet.
            for each in [*others, BANK]:
                it.programmer.upsert(each, time.clock())
            it.watch.on_packets([late])
            await it.in_sync()
            first = next(
                write
                for write in it.written[before:]
                if isinstance(write, Transaction)
                and any(
                    parse_address("39.32.0.0") == bytes(key[:4])
                    for op in write.operations
                    for key in getattr(op, "keys", ())
                )
            )
            assert first.cause == "late admission"
            assert it.watch.late_admissions == 1
            assert conntrack.mark_of(late) == 7
            assert len(it.controller.aggregate) == 0

    time.run(scenario())


def test_a_flow_judged_just_before_its_element_came_is_cleared_by_its_tuple_alone(time: Time) -> None:
    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", BANK)
            await it.in_sync()
            late = flow("39.32.0.5")
            conntrack.put(late, it.judged())
            conntrack.dumps.clear()
            it.watch.on_packets([late])
            await until(lambda: conntrack.mark_of(late) == 0)
            assert conntrack.dumps == []

    time.run(scenario())


def test_a_gre_flow_is_cleared_by_a_scan_since_its_tuple_is_not_known(time: Time) -> None:
    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", GUEST)
            await it.in_sync()
            late = flow("2400:adc0:1::5", "gre", destination="2001:db8::7")
            conntrack.put(late, it.judged())
            it.watch.on_packets([late])
            await until(lambda: conntrack.mark_of(late) == 0)

    time.run(scenario())


def test_unregistered_events_go_to_the_aggregate_and_to_nothing_else(time: Time) -> None:
    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", BANK)
            await it.in_sync()
            stranger = flow("39.40.9.9")
            conntrack.put(stranger, it.judged())
            written, dumps = len(it.written), len(conntrack.dumps)
            it.watch.on_packets([stranger] * 3)
            await asyncio.sleep(5)
            assert (len(it.written), len(conntrack.dumps), conntrack.changes) == (written, dumps, [])
            assert [str(line.prefix) for line in it.controller.aggregate.top(9)] == ["39.40.9.0/24"]
            assert it.watch.late_admissions == 0
            assert it.controller.attribution.live_count == 0

    time.run(scenario())


def test_a_registration_that_cannot_be_programmed_is_not_admitted_late_for_ever(time: Time) -> None:
    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            peers = [f"198.18.{n >> 8}.{n & 255}" for n in range(5000)]
            large = registration("LARGE", "39.32.0.0/28", peers=peers)
            await it.read("national", large)
            await it.in_sync()
            assert "LARGE" in it.reconciler.unprogrammed()
            seen = flow("39.32.0.5", destination="198.18.0.9")
            conntrack.put(seen, it.judged())
            it.watch.on_packets([seen])
            await asyncio.sleep(5)
            assert it.watch.late_admissions == 0
            assert conntrack.changes == []
            assert len(it.controller.aggregate) == 1

    time.run(scenario())


def test_an_address_that_cannot_be_programmed_takes_late_admission_from_no_other(time: Time) -> None:
    """One Interim may list a /66, which is too many elements, beside an address that is one."""

    def bound(prefix: str) -> BindingChange:
        at = parse_prefix(prefix)
        binding = Binding(subscriber=bytes(32), prefix=at, since_s=0.0, confirmed_s=0.0, nas="bng", session="1")
        return BindingChange("added", binding)

    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", registration("PK-1", subscriber=bytes(32)))
            changes = [bound("100.64.0.9"), bound("2001:db8::/66")]
            for each in changes:
                it.controller.allowlist.bindings.put(each.binding)
            it.programmer.take(changes)
            await it.in_sync()
            assert "PK-1" in it.reconciler.unprogrammed()
            good, bad = flow("100.64.0.9"), flow("2001:db8::9", destination="2001:db8:ffff::1")
            for seen in (good, bad):
                conntrack.put(seen, it.judged())
            it.watch.on_packets([good, bad])
            await asyncio.sleep(5)
            assert it.watch.late_admissions == 1
            assert len(it.controller.aggregate) == 1
            assert [conntrack.mark_of(each) for each in (good, bad)] == [0, it.judged()]

    time.run(scenario())


def test_what_waits_for_late_admission_is_bounded(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewayd.reconcile.connections.MAX_LATE", 10)

    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", HOUSE)
            await it.in_sync()
            it.refuse_writes = True
            it.programmer.upsert(BANK, time.clock())
            late = [flow("39.32.0.5", port=port) for port in range(40000, 40050)]
            for each in late:
                conntrack.put(each, it.judged())
            it.watch.on_packets(list(late))
            await asyncio.sleep(5)
            assert all(conntrack.mark_of(each) == it.judged() for each in late)
            it.refuse_writes = False
            await until(lambda: not any(conntrack.mark_of(each) for each in late), 60)

    time.run(scenario())


def test_flow_events_are_attributed_and_their_end_is_known(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", BANK)
            await it.in_sync()
            seen = flow("39.32.0.5")
            it.watch.on_connections([connection_event(seen, REGISTERED)])
            assert it.controller.attribution.live_count == 1
            it.watch.on_connections([connection_event(seen, REGISTERED, "destroy", packets=9)])
            assert it.controller.attribution.live_count == 0
            usage = it.controller.attribution.usage("BANK")
            assert usage is not None
            assert (usage.flows, usage.packets) == (1, 9)
            await it.read("national", HOUSE)
            assert it.controller.attribution.usage("BANK") is None

    time.run(scenario())


def test_lost_flow_events_are_made_good_by_a_dump(time: Time) -> None:
    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", BANK)
            await it.in_sync()
            scans = it.scanner.scans
            it.watch.on_connections([connection_event(flow("39.32.0.4"), REGISTERED)])
            conntrack.put(flow("39.32.0.5"), REGISTERED)
            it.watch.on_lost("conntrack")
            await until(lambda: it.scanner.scans == scans + 1)
            assert [line.flow for line in it.controller.attribution.flows(None, 0, 9)] == [flow("39.32.0.5")]
            assert it.watch.resyncs == 1

    time.run(scenario())


def test_lost_packet_events_need_no_dump(time: Time) -> None:
    async def scenario() -> None:
        conntrack = FakeConntrack()
        async with owning(time.clock, conntrack=conntrack) as it:
            await it.read("national", BANK)
            await it.in_sync()
            scans = it.scanner.scans
            it.watch.on_lost("nflog")
            await asyncio.sleep(5)
            assert (it.watch.resyncs, it.scanner.scans) == (0, scans)

    time.run(scenario())


def test_events_lost_before_the_registry_is_loaded_cut_nothing(time: Time) -> None:
    """The kernel still has the flows of an earlier run; an empty allowlist says nothing about them."""

    async def scenario() -> None:
        conntrack = FakeConntrack()
        conntrack.put(flow("39.32.0.5"), REGISTERED)
        async with owning(time.clock, settings_of("national", drain_s=0.0), conntrack=conntrack) as it:
            it.watch.on_lost("conntrack")
            await asyncio.sleep(5)
            assert conntrack.mark_of(flow("39.32.0.5")) == REGISTERED
            await it.read("national", BANK)
            await it.in_sync()
            assert conntrack.mark_of(flow("39.32.0.5")) == REGISTERED
            assert it.controller.attribution.live_count == 1

    time.run(scenario())


def test_events_lost_while_the_kernel_is_behind_do_not_use_up_the_new_judgement(time: Time) -> None:
    async def scenario() -> None:
        conntrack = FakeConntrack()
        tables = FakeTables()
        async with owning(time.clock, tables=tables, conntrack=conntrack) as it:
            await it.read("national", HOUSE)
            await it.in_sync()
            waiting = flow("39.32.0.5")
            conntrack.put(waiting, it.judged())
            it.refuse_writes = True
            await it.read("national", HOUSE, BANK)
            it.watch.on_lost("conntrack")
            await asyncio.sleep(3)
            # Its element is not in the kernel: cleared now, it would be judged unregistered again.
            assert conntrack.mark_of(waiting) == it.judged()
            it.refuse_writes = False
            await until(lambda: conntrack.mark_of(waiting) == 0, 60)

    time.run(scenario())


def test_after_a_external_flush_no_flow_of_an_earlier_epoch_counts_as_judged(time: Time) -> None:
    async def scenario() -> None:
        conntrack, tables = FakeConntrack(), FakeTables()
        async with owning(time.clock, tables=tables, conntrack=conntrack) as it:
            await it.read("national", BANK)
            await it.in_sync()
            it.configure(mode="observe")
            await it.in_sync()
            it.configure(mode="reject")
            await until(lambda: it.reconciler.mode_in_force == "reject")
            await it.in_sync()
            assert it.reconciler.epoch == 3
            # Judged in the first epoch, before it was registered, and idle since.
            stale = flow("39.32.0.5")
            conntrack.put(stale, LAYOUT.judged(1))
            await tables.delete_table()
            await until(lambda: it.reconciler.stats.repairs == 1)
            await it.in_sync()
            assert it.passes(BANK)
            assert conntrack.mark_of(stale) != it.judged()

    time.run(scenario())


def test_detail_off_keeps_nothing_of_unregistered_flows(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            it.controller.aggregate = UnregisteredAggregate("off")
            await it.read("national", BANK)
            it.watch.on_packets([flow("39.40.9.9")])
            assert len(it.controller.aggregate) == 0

    time.run(scenario())


def test_a_reload_changes_what_is_kept_of_unregistered_flows(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", BANK)
            it.watch.on_packets([flow("39.40.9.9")])
            assert len(it.controller.aggregate) == 1
            settings = it.controller.settings
            it.controller.reload(replace(settings, watch=replace(settings.watch, unregistered="off")))
            assert len(it.controller.aggregate) == 0
            it.watch.on_packets([flow("39.40.9.9")])
            assert len(it.controller.aggregate) == 0

    time.run(scenario())


def test_aggregates_are_gone_a_day_after_the_last_flow(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", BANK)
            it.watch.on_packets([flow("39.40.9.9")])
            time.clock.advance(86_390)  # slept through, each poll of the kernel in them costs time of the processor
            await asyncio.sleep(5)
            assert len(it.controller.aggregate) == 1
            await until(lambda: len(it.controller.aggregate) == 0, within_s=10)

    time.run(scenario())


def test_a_fragment_of_a_stranger_is_counted_by_its_protocol(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", BANK)
            it.watch.on_packets([Flow(17, parse_address("39.40.9.9"), parse_address("198.51.100.7"))])
            (line,) = it.controller.aggregate.top(1)
            assert [str(service) for service, _ in line.services] == ["udp"]

    time.run(scenario())
