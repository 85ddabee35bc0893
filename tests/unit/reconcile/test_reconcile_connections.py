"""Marks that no longer say what is true, on connection tracking in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest

from gatewayd.errors import DumpInterrupted, EventMalformed, OperationRefused, ReplyMissing
from gatewayd.model import Flow, Registration
from gatewayd.model.prefix import Prefix, parse_prefix
from gatewayd.reconcile.connections import (
    AUDIT_EVERY_S,
    AUDIT_REST,
    REST,
    RETRY_S,
    ConnectionScanner,
)
from gatewayd.reconcile.scan_requests import MAX_BOUND, MAX_UNBOUND_S, Grace, ScanRequests
from gatewayd.watch.attribute import Attribution
from tests.support.fake_conntrack import FakeConntrack
from tests.support.manual_clock import Time, until
from tests.support.owning import LAYOUT, REGISTERED, flow, registration

BANK = registration("BANK", "39.32.0.0/28")
OTHERS = 0x5
"""Bits of the ct mark that are not ours."""
EPOCH = 3
JUDGED = LAYOUT.judged(EPOCH)


class Scanning:
    """A scanner, and what it asks of flows; `registered` are the sources of flows that are registered now."""

    def __init__(self, time: Time, drain_s: float) -> None:
        self.conntrack = FakeConntrack()
        self.registered: set[bytes] = set()
        self.attribution = Attribution()
        self.is_in_scope: Callable[[Flow], bool] = lambda _: True
        self.programmed: Callable[[Flow, float], tuple[Registration, ...]] = self.matching
        self.asked: list[Flow] = []
        self.requests = ScanRequests(drain_s)
        self.scanner = ConnectionScanner(
            self.conntrack,
            LAYOUT,
            self,
            self.requests,
            clock=time.clock,
            flow_table=self.attribution,
            grace=Grace(),
        )

    def matching(self, asked: Flow, _: float) -> tuple[Registration, ...]:
        self.asked.append(asked)
        return (BANK,) if asked.source in self.registered else ()

    def register(self, *flows: Flow) -> None:
        self.registered.update(each.source for each in flows)
        self.requests.note_added()

    def withdraw(self, *flows: Flow) -> None:
        self.registered.difference_update(each.source for each in flows)
        self.requests.note_removed()

    async def settle(self) -> None:
        self.requests.settle(EPOCH)
        await asyncio.sleep(0.01)


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


def scan(time: Time, scenario: Callable[[Scanning], Awaitable[None]], drain_s: float = 60.0) -> Scanning:
    """Run a scenario beside a sweeper that has already seen the kernel settled once."""
    it = Scanning(time, drain_s)

    async def run() -> None:
        task = asyncio.ensure_future(it.scanner.run())
        try:
            await it.settle()
            it.conntrack.dumps.clear()
            await scenario(it)
        finally:
            task.cancel()

    time.run(run())
    return it


def refuse(*errors: Exception) -> Callable[[], None]:
    """Raises the errors one after another, then nothing more."""
    left = list(errors)

    def raise_next() -> None:
        if left:
            raise left.pop(0)

    return raise_next


# -- judged, and registered now --------------------------------------------------------------------------------


def test_flows_that_became_registered_are_cleared_and_the_others_stay_judged(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine = [flow(f"39.32.0.{n}") for n in range(8)]
        theirs = [flow(f"39.40.0.{n}") for n in range(8)]
        for each in mine + theirs:
            it.conntrack.put(each, JUDGED | OTHERS)
        it.register(*mine)
        await it.settle()
        assert [it.conntrack.mark_of(each) for each in mine] == [OTHERS] * 8
        assert [it.conntrack.mark_of(each) for each in theirs] == [JUDGED | OTHERS] * 8
        assert it.scanner.reclassified == 8

    scan(time, scenario)


def test_a_flow_that_the_rules_find_registered_meanwhile_keeps_that_mark(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine = flow("39.32.0.1")
        it.conntrack.put(mine, JUDGED | OTHERS)
        it.register(mine)

        def find_registered() -> None:
            it.conntrack.put(mine, REGISTERED | OTHERS)

        it.conntrack.before_change = find_registered
        await it.settle()
        assert len(it.conntrack.changes) == 1
        assert it.conntrack.mark_of(mine) == REGISTERED | OTHERS

    scan(time, scenario)


def test_flows_of_another_epoch_are_left_to_the_kernel(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        old = flow("39.32.0.1")
        it.conntrack.put(old, LAYOUT.judged(EPOCH - 1))
        it.register(old)
        await it.settle()
        assert it.conntrack.mark_of(old) == LAYOUT.judged(EPOCH - 1)
        assert it.conntrack.dumps == [(JUDGED, LAYOUT.mask)]

    scan(time, scenario)


def test_flows_left_from_an_earlier_round_of_the_epochs_are_judged_anew(time: Time) -> None:
    """After the last epoch comes the first one again, and after a table that went, too."""

    async def scenario(it: Scanning) -> None:
        idle = flow("39.32.0.1")
        it.conntrack.put(idle, LAYOUT.judged(1))
        it.register(idle)
        await it.settle()
        assert it.conntrack.mark_of(idle) == LAYOUT.judged(1)
        it.requests.settle(1)
        await asyncio.sleep(0.01)
        assert it.conntrack.mark_of(idle) == 0

    scan(time, scenario)


def test_only_the_audit_lists_when_nothing_was_registered_or_withdrawn(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        for _ in range(5):
            await it.settle()
        assert it.conntrack.dumps == []
        await asyncio.sleep(20 * AUDIT_EVERY_S)
        assert it.conntrack.dumps == [(JUDGED, LAYOUT.mask), (REGISTERED, REGISTERED)] * it.scanner.audits
        assert 18 <= it.scanner.audits <= 20

    scan(time, scenario)


def test_an_addition_waits_for_the_kernel_to_be_as_desired(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        late, other = flow("39.32.0.1"), flow("39.32.0.2")
        it.conntrack.put(late, JUDGED)
        it.conntrack.put(other, JUDGED)
        it.register(late)
        it.requests.note_late(other, in_kernel=True)
        await asyncio.sleep(0.01)
        assert (it.conntrack.mark_of(other), it.conntrack.mark_of(late)) == (0, JUDGED)
        it.requests.look()
        await asyncio.sleep(0.01)
        assert it.conntrack.mark_of(late) == JUDGED
        await it.settle()
        assert it.conntrack.mark_of(late) == 0

    scan(time, scenario)


def test_an_addition_during_the_scan_is_swept_by_the_next(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        first, second = flow("39.32.0.1"), flow("39.32.0.2")
        it.conntrack.put(first, JUDGED)
        it.conntrack.put(second, JUDGED)
        it.register(first)
        it.conntrack.after_first_batch = lambda: it.register(second) if second.source not in it.registered else None
        await it.settle()
        assert it.conntrack.mark_of(first) == 0
        await it.settle()
        assert it.conntrack.mark_of(second) == 0

    scan(time, scenario)


# -- admitted late ---------------------------------------------------------------------------------------------


def test_a_late_flow_is_cleared_by_its_tuple_once_the_kernel_has_its_element(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        late = flow("39.32.0.1")
        it.conntrack.put(late, JUDGED | OTHERS)
        it.requests.note_late(late)
        it.requests.look()
        await asyncio.sleep(1)
        assert it.conntrack.mark_of(late) == JUDGED | OTHERS
        await it.settle()
        assert it.conntrack.mark_of(late) == OTHERS
        assert it.conntrack.dumps == []

    scan(time, scenario)


def test_a_late_flow_without_a_tuple_of_its_own_is_found_by_a_scan(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        late = flow("39.32.0.1", "gre")
        it.conntrack.put(late, JUDGED)
        it.registered.add(late.source)
        it.requests.note_late(late)
        await it.settle()
        assert it.conntrack.mark_of(late) == 0

    scan(time, scenario)


def test_a_late_flow_is_found_by_its_answer(time: Time) -> None:
    """A packet of the reply direction was logged: after DNAT, or as the far end spoke first."""

    async def scenario(it: Scanning) -> None:
        mine = flow("39.32.0.1")
        it.conntrack.put(mine, JUDGED | OTHERS)
        it.requests.note_late(turned(mine), in_kernel=True)
        await asyncio.sleep(0.01)
        assert it.conntrack.mark_of(mine) == OTHERS
        assert it.scanner.reclassified == 1
        assert it.conntrack.dumps == []

    scan(time, scenario)


def turned(flow: Flow) -> Flow:
    return Flow(flow.protocol, flow.destination, flow.source, flow.destination_port, flow.source_port)


@pytest.mark.parametrize("back", [False, True])
def test_a_late_flow_that_was_translated_at_both_ends_is_looked_for(time: Time, back: bool) -> None:
    async def scenario(it: Scanning) -> None:
        seen, asked_for, stranger = flow("39.32.0.1"), flow("39.32.0.1", port=7), flow("39.32.0.1", port=8)
        event = msgspec.structs.replace(it.conntrack.put(asked_for, JUDGED), flow=seen)
        it.conntrack.connections[event.tuple_bytes] = event
        it.conntrack.answers.clear()
        it.conntrack.put(stranger, JUDGED)
        it.conntrack.sources.clear()
        it.requests.note_late(turned(seen) if back else seen, in_kernel=True)
        await asyncio.sleep(0.01)
        assert it.conntrack.mark_of(asked_for) == 0
        assert it.conntrack.mark_of(stranger) == JUDGED
        assert set(it.conntrack.sources) == {seen.source, seen.destination}

    scan(time, scenario)


def test_a_late_flow_that_is_gone_by_then_is_no_matter(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        it.requests.note_late(flow("39.32.0.1"))
        await it.settle()
        assert it.scanner.reclassified == 0

    scan(time, scenario)


def test_too_many_late_flows_are_found_by_a_scan(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewayd.reconcile.connections.MAX_LATE", 4)

    async def scenario(it: Scanning) -> None:
        late = [flow("39.32.0.1", port=40000 + n) for n in range(20)]
        for each in late:
            it.conntrack.put(each, JUDGED)
            it.requests.note_late(each)
        it.registered.add(late[0].source)
        await it.settle()
        assert [it.conntrack.mark_of(each) for each in late] == [0] * 20

    scan(time, scenario)


# -- registered, and no longer so ------------------------------------------------------------------------------


def test_a_withdrawn_flow_is_left_alone_for_the_drain_and_then_cleared(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine = flow("39.32.0.1")
        it.conntrack.put(mine, REGISTERED | OTHERS)
        it.registered.add(mine.source)
        it.withdraw(mine)
        began = time.clock()
        await it.settle()
        await asyncio.sleep(59)
        assert it.conntrack.mark_of(mine) == REGISTERED | OTHERS
        await until(lambda: it.conntrack.mark_of(mine) == OTHERS)
        assert time.clock() >= began + 60
        assert it.scanner.drained == 1

    scan(time, scenario)


def test_with_no_drain_it_is_cleared_at_once(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine, stays = flow("39.32.0.1"), flow("39.32.0.2")
        for each in (mine, stays):
            it.conntrack.put(each, REGISTERED)
            it.registered.add(each.source)
        it.withdraw(mine)
        await it.settle()
        assert (it.conntrack.mark_of(mine), it.conntrack.mark_of(stays)) == (0, REGISTERED)

    scan(time, scenario, drain_s=0.0)


@pytest.mark.parametrize("drain_s", [0.0, 60.0])
def test_flows_with_the_same_tuple_in_two_zones_are_two(time: Time, drain_s: float) -> None:
    async def scenario(it: Scanning) -> None:
        mine = flow("39.32.0.1")
        for zone in range(3):
            it.conntrack.put(mine, REGISTERED, zone=zone)
        it.withdraw(mine)
        await it.settle()
        await asyncio.sleep(drain_s)
        await until(lambda: it.scanner.drained > 0)
        assert [it.conntrack.mark_of(mine, zone) for zone in range(3)] == [0, 0, 0]
        assert it.scanner.drained == 3

    scan(time, scenario, drain_s=drain_s)


def test_a_flow_registered_again_meanwhile_is_left_alone(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine = flow("39.32.0.1")
        it.conntrack.put(mine, REGISTERED)
        it.withdraw(mine)
        await it.settle()
        await asyncio.sleep(30)
        it.register(mine)
        await it.settle()
        await asyncio.sleep(120)
        assert it.conntrack.mark_of(mine) == REGISTERED
        assert it.scanner.drained == 0

    scan(time, scenario)


def test_each_flow_drains_from_when_it_was_found(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        first, second = flow("39.32.0.1"), flow("39.32.0.2")
        for each in (first, second):
            it.conntrack.put(each, REGISTERED)
            it.registered.add(each.source)
        it.withdraw(first)
        await it.settle()
        await asyncio.sleep(40)
        it.withdraw(second)
        await it.settle()
        await until(lambda: it.conntrack.mark_of(first) == 0, 25)
        await asyncio.sleep(30)
        assert it.conntrack.mark_of(second) == REGISTERED
        await until(lambda: it.conntrack.mark_of(second) == 0, 15)

    scan(time, scenario)


def test_a_shorter_drain_holds_for_what_is_draining_already(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine = flow("39.32.0.1")
        it.conntrack.put(mine, REGISTERED)
        it.withdraw(mine)
        await it.settle()
        it.requests.use_drain(0.0)
        it.requests.note_removed()
        it.requests.look()
        await asyncio.sleep(0.01)
        assert it.conntrack.mark_of(mine) == 0

    scan(time, scenario, drain_s=3600.0)


def test_a_clock_that_is_set_back_makes_no_drain_longer_than_it_is(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine = flow("39.32.0.1")
        it.conntrack.put(mine, REGISTERED)
        it.withdraw(mine)
        await it.settle()
        time.clock.set_by(-86_400)
        it.requests.note_removed()
        await it.settle()
        await until(lambda: it.conntrack.mark_of(mine) == 0, 61)

    scan(time, scenario)


def test_more_flows_than_are_timed_are_found_again_by_the_next_scan(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.reconcile.connections.MAX_DRAINING", 2)

    async def scenario(it: Scanning) -> None:
        flows = [flow(f"39.32.0.{n}") for n in range(5)]
        for each in flows:
            it.conntrack.put(each, REGISTERED)
        it.withdraw(*flows)
        await it.settle()
        await until(lambda: not any(it.conntrack.mark_of(each) for each in flows), 400)

    scan(time, scenario)


def test_a_scan_tells_the_flow_table_what_is_alive(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine, gone = flow("39.32.0.1"), flow("39.32.0.2")
        it.registered |= {mine.source, gone.source}
        for each in (mine, gone):
            it.conntrack.put(each, REGISTERED)
        it.requests.note_removed()
        await it.settle()
        assert it.attribution.live_count == 2
        it.conntrack.end(gone)
        it.requests.note_removed()
        await it.settle()
        assert [line.flow for line in it.attribution.flows(None, 0, 9)] == [mine]

    scan(time, scenario)


def test_before_any_epoch_is_known_nothing_is_listed_but_registered_flows(time: Time) -> None:
    async def scenario() -> None:
        it = Scanning(time, 60.0)
        task = asyncio.ensure_future(it.scanner.run())
        it.conntrack.before_dump = refuse(ReplyMissing("list connections", "late"))
        it.requests.note_removed()
        it.requests.look()
        await asyncio.sleep(5)
        assert it.conntrack.dumps == [(REGISTERED, REGISTERED)] * 2
        it.conntrack.put(flow("39.32.0.1"), JUDGED)
        it.register(flow("39.32.0.1"))
        await it.settle()
        assert it.conntrack.mark_of(flow("39.32.0.1")) == 0
        task.cancel()

    time.run(scenario())


# -- failures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        DumpInterrupted("list connections"),
        OperationRefused("list connections", 16),
        ReplyMissing("list", "late"),
        EventMalformed("conntrack statistics", "no number of entries"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_dump_that_fails_is_made_again_and_clears_nothing_meanwhile(
    time: Time, error: DumpInterrupted | EventMalformed | OperationRefused | ReplyMissing
) -> None:
    async def scenario(it: Scanning) -> None:
        judged, withdrawn = flow("39.32.0.1"), flow("39.40.0.1")
        it.conntrack.put(judged, JUDGED)
        it.conntrack.put(withdrawn, REGISTERED)
        it.conntrack.before_dump = refuse(error, error)
        it.register(judged)
        it.withdraw(withdrawn)
        await it.settle()
        assert (it.conntrack.mark_of(judged), it.conntrack.mark_of(withdrawn)) == (JUDGED, REGISTERED)
        await asyncio.sleep(2 * RETRY_S + 0.1)
        assert (it.conntrack.mark_of(judged), it.conntrack.mark_of(withdrawn)) == (0, 0)

    scan(time, scenario, drain_s=0.0)


def test_a_dump_that_breaks_off_forgets_no_live_flow(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        flows = [flow(f"39.32.0.{n}") for n in range(9)]
        for each in flows:
            it.conntrack.put(each, REGISTERED)
            it.registered.add(each.source)
        it.requests.note_removed()
        await it.settle()
        assert it.attribution.live_count == 9
        it.conntrack.after_first_batch = refuse(DumpInterrupted("list connections"))
        it.requests.note_removed()
        await it.settle()
        assert it.attribution.live_count == 9
        await asyncio.sleep(2 * RETRY_S)
        assert it.attribution.live_count == 9
        assert it.attribution.ended_unseen == 0

    scan(time, scenario)


def test_a_mark_change_that_fails_loses_no_late_flow(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        late = flow("39.32.0.1")
        it.conntrack.put(late, JUDGED)
        it.registered.add(late.source)
        it.conntrack.before_change = refuse(ReplyMissing("change connection marks", "late"))
        it.requests.note_late(late)
        await it.settle()
        assert it.conntrack.mark_of(late) == JUDGED
        await asyncio.sleep(2 * RETRY_S)
        assert it.conntrack.mark_of(late) == 0

    scan(time, scenario)


def test_it_ends_when_cancelled_wherever_it_is(time: Time) -> None:
    async def scenario() -> None:
        it = Scanning(time, 60.0)
        for turns in range(12):
            task = asyncio.ensure_future(it.scanner.run())
            it.conntrack.put(flow("39.32.0.1"), REGISTERED)
            it.requests.note_added()
            it.requests.note_removed()
            it.requests.settle(EPOCH)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    time.run(scenario())


# -- addresses that subscribers have for a while -------------------------------------------------------------------


def test_the_flows_of_an_address_that_was_bound_are_asked_for_alone(time: Time) -> None:
    early, stranger = flow("39.32.0.1"), flow("39.40.9.9")

    async def scenario(it: Scanning) -> None:
        it.conntrack.put(early, JUDGED | OTHERS)
        it.conntrack.put(stranger, JUDGED)
        it.conntrack.sources.clear()
        it.registered.add(early.source)
        it.requests.note_bound(Prefix(early.source, 32))
        await it.settle()
        assert it.conntrack.mark_of(early) == OTHERS
        assert it.conntrack.mark_of(stranger) == JUDGED
        assert it.conntrack.sources == [early.source] * 2  # as who opened, as who answers

    scan(time, scenario)


@pytest.mark.parametrize("count", [1, MAX_BOUND + 1])
def test_where_a_prefix_or_many_addresses_were_bound_all_that_were_judged_are_gone_through(
    time: Time, count: Any
) -> None:
    early = flow("39.32.0.1")

    async def scenario(it: Scanning) -> None:
        it.conntrack.put(early, JUDGED)
        it.conntrack.sources.clear()
        it.registered.add(early.source)
        for number in range(count):
            length = 32 if count > 1 else 24
            it.requests.note_bound(Prefix(bytes((39, 32, number, 1 if count > 1 else 0)), length))
        await it.settle()
        assert it.conntrack.mark_of(early) == 0
        assert it.conntrack.sources == [None]

    scan(time, scenario)


def test_flows_of_an_address_that_was_lost_begin_to_drain_in_a_while(time: Time) -> None:
    """Many go in a second, and each survey goes through all registered flows: they wait for one another."""
    mine = flow("39.32.0.1")

    async def scenario(it: Scanning) -> None:
        it.conntrack.put(mine, REGISTERED)
        for _ in range(5):
            it.requests.note_unbound()
            await it.settle()
        assert it.conntrack.dumps == []
        await asyncio.sleep(MAX_UNBOUND_S + 1)
        assert it.conntrack.dumps.count((REGISTERED, REGISTERED)) == 1
        assert it.conntrack.mark_of(mine) == REGISTERED
        await asyncio.sleep(600)
        assert it.conntrack.mark_of(mine) == 0

    scan(time, scenario, drain_s=600)


def test_without_a_drain_an_address_that_was_lost_is_looked_at_as_soon_as_the_kernel_has_it(time: Time) -> None:
    mine = flow("39.32.0.1")

    async def scenario(it: Scanning) -> None:
        it.conntrack.put(mine, REGISTERED)
        it.requests.note_unbound()
        await it.settle()
        assert it.conntrack.mark_of(mine) == 0

    scan(time, scenario, drain_s=0)


def test_after_a_search_it_rests_and_late_admissions_do_not_wait_for_that(time: Time) -> None:
    early, late = flow("39.32.0.1"), flow("39.32.0.2")

    async def scenario(it: Scanning) -> None:
        it.conntrack.put(early, JUDGED)
        it.conntrack.put(late, JUDGED)
        it.conntrack.patience_s = 1.0
        it.registered.update((early.source, late.source))
        it.requests.note_bound(Prefix(late.source, 32))
        await it.settle()
        await asyncio.sleep(2)
        it.conntrack.patience_s = 0.0
        it.conntrack.dumps.clear()
        it.requests.note_bound(Prefix(early.source, 32))
        await it.settle()
        assert it.conntrack.dumps == []
        it.conntrack.put(late, JUDGED)
        it.requests.note_late(late, in_kernel=True)
        await asyncio.sleep(0.01)
        assert it.conntrack.mark_of(late) == 0
        await asyncio.sleep(REST * 2)
        assert it.conntrack.mark_of(early) == 0

    scan(time, scenario)


# -- marks from elsewhere ------------------------------------------------------------------------------------------


def test_a_judged_mark_that_nobody_here_gave_is_found_by_the_audit(time: Time) -> None:
    """conntrackd brought it in an update, or another program's rule set it: nothing was registered meanwhile."""

    async def scenario(it: Scanning) -> None:
        mine, stranger = flow("39.32.0.1"), flow("39.40.0.1")
        it.registered.add(mine.source)
        it.conntrack.put(mine, JUDGED | OTHERS)
        it.conntrack.put(stranger, JUDGED)
        await asyncio.sleep(AUDIT_EVERY_S + 1)
        assert it.conntrack.mark_of(mine) == OTHERS
        assert it.conntrack.mark_of(stranger) == JUDGED
        assert (it.scanner.not_believed, it.scanner.reclassified) == (1, 0)

    scan(time, scenario)


def test_a_connection_put_in_judged_is_cleared_at_once(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine, stranger, older = flow("39.32.0.1"), flow("39.40.0.1"), flow("39.32.0.2")
        it.registered.update((mine.source, older.source))
        for each, mark in ((mine, JUDGED), (stranger, JUDGED), (older, LAYOUT.judged(EPOCH + 1))):
            it.scanner.note_carried(it.conntrack.put(each, mark))
        await asyncio.sleep(0.01)
        assert [it.conntrack.mark_of(each) for each in (mine, stranger)] == [0, JUDGED]
        assert it.conntrack.mark_of(older) == LAYOUT.judged(EPOCH + 1)  # to the rules it says nothing
        assert (it.scanner.not_believed, it.scanner.carried) == (1, 3)
        assert it.conntrack.dumps == []

    scan(time, scenario)


@pytest.mark.parametrize("is_event", [True, False])
def test_a_judged_mark_of_what_is_out_of_scope_is_cleared_and_not_counted(
    time: Time, is_event: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The other gateway has another scope; or it is AH over IPv6, tracked as what is inside."""

    async def scenario(it: Scanning) -> None:
        theirs = flow("39.40.0.1")
        it.is_in_scope = lambda _: False
        event = it.conntrack.put(theirs, JUDGED | OTHERS)
        if is_event:
            it.scanner.note_carried(event)
        await asyncio.sleep(1 if is_event else AUDIT_EVERY_S + 1)
        assert it.conntrack.mark_of(theirs) == OTHERS
        assert it.scanner.not_believed == 0
        assert "connections.not_believed" not in [each.getMessage() for each in caplog.records]

    scan(time, scenario)


def test_a_audit_leaves_what_was_registered_meanwhile_to_the_kernel(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine = flow("39.32.0.1")
        it.conntrack.put(mine, JUDGED)
        it.conntrack.before_dump = lambda: it.register(mine)
        await asyncio.sleep(AUDIT_EVERY_S + 1)
        assert it.conntrack.mark_of(mine) == JUDGED
        it.conntrack.before_dump = lambda: None
        await it.settle()
        await asyncio.sleep(0.01)
        assert it.conntrack.mark_of(mine) == 0
        assert (it.scanner.not_believed, it.scanner.reclassified) == (0, 1)

    scan(time, scenario)


def test_a_registration_that_the_kernel_cannot_be_told_of_clears_nothing(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine = flow("39.32.0.1")
        it.conntrack.put(mine, JUDGED)
        it.registered.add(mine.source)
        it.programmed = lambda *_: ()
        it.scanner.note_carried(it.conntrack.put(mine, JUDGED))
        await asyncio.sleep(3 * AUDIT_EVERY_S)
        assert it.conntrack.mark_of(mine) == JUDGED
        assert it.scanner.not_believed == 0

    scan(time, scenario)


def test_a_long_audit_is_followed_by_a_long_rest(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        it.conntrack.patience_s = 5.0  # two dumps a audit
        await asyncio.sleep(AUDIT_EVERY_S + 10 + AUDIT_REST * 10 - 5)
        assert it.scanner.audits == 1
        await asyncio.sleep(30)
        assert it.scanner.audits == 2

    scan(time, scenario)


# -- came registered, and nothing explains it ----------------------------------------------------------------------

DAY_S = 86_400.0


def registered_from_elsewhere(it: Scanning, *flows: Flow) -> None:
    it.scanner.grace.wait_for(DAY_S)
    for each in flows:
        it.conntrack.put(each, REGISTERED | OTHERS)


def test_a_flow_that_came_registered_is_left_alone_until_accounting_names_its_address(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        named, unnamed = flow("39.42.0.1"), flow("39.42.0.2")
        registered_from_elsewhere(it, named, unnamed)
        it.requests.note_removed()
        it.requests.look()
        await asyncio.sleep(3600)
        assert it.conntrack.mark_of(named) == REGISTERED | OTHERS
        assert (it.scanner.unexplained, it.scanner.grace.waiting) == (2, 2)
        it.scanner.grace.hear([parse_prefix("39.42.0.1/32")])
        await asyncio.sleep(3 * AUDIT_EVERY_S)
        assert it.conntrack.mark_of(named) == OTHERS
        assert it.conntrack.mark_of(unnamed) == REGISTERED | OTHERS
        assert it.scanner.grace.waiting == 1
        await asyncio.sleep(DAY_S)
        assert it.conntrack.mark_of(unnamed) == OTHERS
        assert it.scanner.grace.waiting == 0

    scan(time, scenario, drain_s=0)


def test_a_binding_that_comes_explains_it(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine = flow("39.42.0.1")
        registered_from_elsewhere(it, mine)
        await asyncio.sleep(2 * AUDIT_EVERY_S)
        assert it.scanner.grace.waiting == 1
        it.registered.add(mine.source)
        it.scanner.grace.hear([parse_prefix("39.42.0.1/32")])
        await asyncio.sleep(2 * AUDIT_EVERY_S)
        assert it.conntrack.mark_of(mine) == REGISTERED | OTHERS
        assert (it.scanner.unexplained, it.scanner.grace.waiting) == (0, 0)
        # From now on it is known here, and drains as any other.
        it.withdraw(mine)
        it.requests.look()
        await asyncio.sleep(1)
        assert it.conntrack.mark_of(mine) == OTHERS

    scan(time, scenario, drain_s=0)


def test_what_was_known_here_drains_although_subscribers_are_configured(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine = flow("39.42.0.1")
        registered_from_elsewhere(it, mine)
        it.registered.add(mine.source)
        it.requests.note_removed()
        it.requests.look()
        await asyncio.sleep(1)
        it.withdraw(mine)
        it.requests.look()
        await asyncio.sleep(59)
        assert it.conntrack.mark_of(mine) == REGISTERED | OTHERS
        await asyncio.sleep(40)
        assert it.conntrack.mark_of(mine) == OTHERS

    scan(time, scenario, drain_s=60)


def test_what_the_kernel_let_pass_a_moment_too_late_drains(time: Time) -> None:
    """Its element went while its first packet passed: nobody brought its mark from elsewhere."""

    async def scenario(it: Scanning) -> None:
        mine = flow("39.42.0.1")
        registered_from_elsewhere(it, mine)
        it.scanner.note_ended_early(it.conntrack.put(mine, REGISTERED))
        await asyncio.sleep(1)
        assert it.conntrack.mark_of(mine) == 0

    scan(time, scenario, drain_s=0)


def test_no_drain_begins_before_the_registry_is_known(time: Time) -> None:
    """A flow that begins while the daemon starts seems unregistered then: its drain is no shorter for it later."""

    async def scenario() -> None:
        it = Scanning(time, 60.0)
        task = asyncio.ensure_future(it.scanner.run())
        mine = flow("39.42.0.1")
        it.scanner.note_ended_early(it.conntrack.put(mine, REGISTERED))
        assert it.scanner.draining == 0
        await asyncio.sleep(30)
        it.register(mine)
        await it.settle()
        await asyncio.sleep(20)
        it.withdraw(mine)
        await it.settle()
        await asyncio.sleep(59)
        assert it.conntrack.mark_of(mine) == REGISTERED
        await asyncio.sleep(2)
        assert it.conntrack.mark_of(mine) == 0
        task.cancel()

    time.run(scenario())


def test_without_subscribers_nothing_waits(time: Time) -> None:
    async def scenario(it: Scanning) -> None:
        mine = flow("39.42.0.1")
        it.conntrack.put(mine, REGISTERED)
        it.requests.note_removed()
        it.requests.look()
        await asyncio.sleep(0.01)
        assert it.conntrack.mark_of(mine) == 0

    scan(time, scenario, drain_s=0)
