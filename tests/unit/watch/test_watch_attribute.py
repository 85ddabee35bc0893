from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.model import Flow, Registration, parse_prefix
from gatewayd.model.flow import ConnectionEvent, ConnectionKind
from gatewayd.watch.attribute import AttributedFlow, Attribution, Traffic, Usage


def registration(id: str) -> Registration:
    return Registration(id, "bank", "active", (parse_prefix("10.0.0.0/24"),))


BANK, EMBASSY, BPO = registration("bank"), registration("embassy"), registration("bpo")


def flow(number: int) -> Flow:
    return Flow(17, b"\x0a\0\0" + bytes([number]), b"\xc6\x33\x64\x07", 500, 500)


def event(
    kind: ConnectionKind, number: int, packets: int = 0, size_bytes: int = 0, *, id: int = 0, zone: int = 0
) -> ConnectionEvent:
    """A quarter of the traffic is in the reply direction."""
    return ConnectionEvent(
        kind, flow(number), 1, id or number,
        packets - packets // 4, size_bytes - size_bytes // 4, packets // 4, size_bytes // 4,
        b"tuple" + bytes([number]), zone,
    )  # fmt: skip


def resync(
    attribution: Attribution, found: Sequence[tuple[ConnectionEvent, Sequence[Registration]]], now: float
) -> int:
    """All of a resync in one go."""
    attribution.begin_resync()
    for each, registrations in found:
        attribution.listed(each, registrations, now)
    return attribution.finish_resync()


def test_a_registration_without_traffic_has_no_usage() -> None:
    attribution = Attribution()
    assert attribution.usage("bank") is None
    assert attribution.flows(None, 0, 10) == ()
    assert attribution.live_count == 0


def test_a_flow_counts_when_it_begins_and_its_traffic_of_both_directions_when_it_ends() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1), (BANK,), 10.0)
    assert attribution.usage("bank") == Usage(1, 10.0, 0, 0)
    assert attribution.flows(None, 0, 10) == (AttributedFlow(flow(1), ("bank",), 10.0, 10.0, 0, 0),)
    assert attribution.closed(event("destroy", 1, 8, 800), 20.0) == ("bank",)
    assert attribution.usage("bank") == Usage(1, 20.0, 8, 800)
    assert attribution.live_count == 0


def test_a_flow_that_several_registrations_cover_counts_for_each() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1), (BANK, EMBASSY), 10.0)
    assert attribution.closed(event("destroy", 1, 8, 800), 20.0) == ("bank", "embassy")
    assert attribution.usage("bank") == attribution.usage("embassy") == Usage(1, 20.0, 8, 800)


def test_live_flows_are_counted_of_those_that_are_named() -> None:
    attribution = Attribution()
    for number, registrations in enumerate(((BANK,), (BANK, EMBASSY), (BPO,)), 1):
        attribution.opened(event("new", number), registrations, 10.0)
    attribution.closed(event("destroy", 1), 20.0)
    assert attribution.count_live(frozenset({"bank", "embassy", "ngo"})) == {"bank": 1, "embassy": 1}
    assert attribution.count_live(frozenset()) == {}


def test_a_flow_that_no_registration_covers_is_only_counted() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1), (), 10.0)
    attribution.listed(event("listed", 2), (), 10.0)
    assert (attribution.live_count, attribution.unmatched) == (0, 2)


def test_the_end_of_a_flow_that_is_not_live_is_a_stray() -> None:
    attribution = Attribution()
    assert attribution.closed(event("destroy", 1, 8, 800), 20.0) == ()
    assert attribution.strays == 1


def test_a_flow_whose_beginning_was_missed_is_attributed_by_the_event_of_its_end() -> None:
    attribution = Attribution()
    end = event("destroy", 1, 8, 800)
    attribution.opened(end, (BANK,), 20.0)
    assert attribution.closed(end, 20.0) == ("bank",)
    assert attribution.usage("bank") == Usage(1, 20.0, 8, 800)


def test_a_beginning_told_twice_counts_once_and_brings_the_counters_up_to_date() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1), (BANK,), 10.0)
    attribution.opened(event("update", 1, 4, 400), (BANK,), 15.0)
    assert attribution.usage("bank") == Usage(1, 15.0, 4, 400)
    attribution.closed(event("destroy", 1, 8, 800), 20.0)
    assert attribution.usage("bank") == Usage(1, 20.0, 8, 800)


def test_another_id_for_a_live_tuple_means_that_the_end_of_the_first_was_lost() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1, 4, 400, id=7), (BANK,), 10.0)
    attribution.opened(event("new", 1, id=8), (BANK,), 20.0)
    assert (attribution.live_count, attribution.ended_unseen) == (1, 1)
    assert attribution.usage("bank") == Usage(2, 20.0, 4, 400)
    assert attribution.closed(event("destroy", 1, 8, 800, id=7), 30.0) == ()
    assert attribution.strays == 1
    assert attribution.closed(event("destroy", 1, 8, 800, id=8), 30.0) == ("bank",)


def test_the_same_tuple_in_two_zones_is_two_flows_and_the_same_id_of_two_tuples_too() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1, id=7), (BANK,), 10.0)
    attribution.opened(event("new", 1, id=7, zone=3), (BANK,), 10.0)
    attribution.opened(event("new", 2, id=7), (BANK,), 10.0)
    assert attribution.live_count == 3
    assert attribution.closed(event("destroy", 1, id=7, zone=3), 20.0) == ("bank",)
    assert attribution.closed(event("destroy", 1, id=7), 20.0) == ("bank",)
    assert attribution.live_count == 1


def test_a_counter_that_somebody_zeroed_counts_from_zero_again() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1, 8, 800), (BANK,), 10.0)
    attribution.closed(event("destroy", 1, 2, 200), 20.0)
    assert attribution.usage("bank") == Usage(1, 20.0, 10, 1000)


def test_a_full_table_loses_its_oldest_flows_and_counts_them() -> None:
    attribution = Attribution(capacity=2)
    for number in (1, 2, 3):
        attribution.opened(event("new", number), (BANK,), float(number))
    assert [one.flow for one in attribution.flows(None, 0, 10)] == [flow(2), flow(3)]
    assert attribution.evicted == 1
    assert attribution.closed(event("destroy", 1, 8, 800), 9.0) == ()
    assert attribution.usage("bank") == Usage(3, 3.0, 0, 0)


def test_a_large_full_table_loses_a_64th_at_once() -> None:
    attribution = Attribution(capacity=128)
    for number in range(129):
        attribution.opened(event("new", number), (BANK,), 1.0)
    assert (attribution.live_count, attribution.evicted) == (127, 2)


def test_flows_are_paged_oldest_first_and_chosen_by_registration() -> None:
    attribution = Attribution()
    for number in range(1, 7):
        attribution.opened(event("new", number), (BANK,) if number % 2 else (EMBASSY, BANK), 1.0)
    assert [one.flow for one in attribution.flows("bank", 1, 2)] == [flow(2), flow(3)]
    assert [one.flow for one in attribution.flows("embassy", 0, 9)] == [flow(2), flow(4), flow(6)]
    assert attribution.flows("bpo", 0, 9) == ()
    assert attribution.flows(None, 6, 9) == ()


def test_what_is_forgotten_is_not_counted_until_it_has_new_traffic() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1), (BANK,), 10.0)
    attribution.forget("bank")
    attribution.forget("never seen")
    assert attribution.usage("bank") is None
    assert [one.registration_ids for one in attribution.flows("bank", 0, 9)] == [("bank",)]
    assert attribution.closed(event("destroy", 1, 8, 800), 20.0) == ("bank",)
    assert attribution.usage("bank") is None
    attribution.opened(event("new", 1), (BANK,), 30.0)
    assert attribution.usage("bank") == Usage(1, 30.0, 0, 0)


def test_a_resync_adds_what_is_missing_and_drops_what_is_gone() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1), (BANK,), 10.0)
    attribution.opened(event("new", 2), (BANK,), 10.0)
    found = [(event("listed", 2, 1, 50), (BANK,)), (event("listed", 3, 4, 400), (EMBASSY,))]
    assert resync(attribution, found, 20.0) == 1
    assert [one.flow for one in attribution.flows(None, 0, 9)] == [flow(2), flow(3)]
    assert attribution.ended_unseen == 1
    assert attribution.usage("bank") == Usage(2, 20.0, 1, 50)
    assert attribution.usage("embassy") == Usage(1, 20.0, 4, 400)


def test_a_resync_counts_the_traffic_since_the_last_and_the_end_counts_the_rest() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1), (BANK,), 10.0)
    for moment, packets in ((20.0, 4), (30.0, 4), (40.0, 6)):
        resync(attribution, [(event("listed", 1, packets, packets * 100), ())], moment)
    assert attribution.usage("bank") == Usage(1, 40.0, 6, 600)
    assert attribution.flows(None, 0, 9) == (AttributedFlow(flow(1), ("bank",), 10.0, 40.0, 6, 600),)
    attribution.closed(event("destroy", 1, 8, 800), 50.0)
    assert attribution.usage("bank") == Usage(1, 50.0, 8, 800)


def test_a_flow_without_new_traffic_was_not_seen_by_a_resync() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1, 4, 400), (BANK,), 10.0)
    resync(attribution, [(event("listed", 1, 4, 400), (BANK,))], 99.0)
    assert attribution.usage("bank") == Usage(1, 10.0, 4, 400)


def test_a_registration_that_covers_a_live_flow_only_now_has_it_from_here_on() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1, 4, 400), (BANK,), 10.0)
    resync(attribution, [(event("listed", 1, 6, 600), (BANK, EMBASSY))], 20.0)
    assert attribution.usage("embassy") == Usage(1, 20.0, 0, 0)
    resync(attribution, [(event("listed", 1, 6, 600), (EMBASSY,))], 30.0)
    assert attribution.closed(event("destroy", 1, 8, 800), 40.0) == ("embassy",)
    assert attribution.usage("bank") == Usage(1, 20.0, 6, 600)
    assert attribution.usage("embassy") == Usage(1, 40.0, 2, 200)


def test_an_event_is_newer_than_the_list_that_is_being_read() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1, id=11), (BANK,), 10.0)
    attribution.opened(event("new", 2, id=21), (BANK,), 10.0)
    attribution.begin_resync()
    attribution.closed(event("destroy", 1, 8, 800, id=11), 20.0)  # ended: the list still has it
    attribution.closed(event("destroy", 2, 8, 800, id=21), 20.0)  # ended and begun anew
    attribution.opened(event("new", 2, id=22), (BANK,), 20.0)
    attribution.opened(event("new", 3), (BANK,), 20.0)  # begun: the list does not have it
    attribution.listed(event("listed", 1, 4, 400, id=11), (BANK,), 30.0)
    attribution.listed(event("listed", 2, 4, 400, id=21), (BANK,), 30.0)
    assert attribution.finish_resync() == 0
    assert [one.flow for one in attribution.flows(None, 0, 9)] == [flow(2), flow(3)]
    assert attribution.usage("bank") == Usage(4, 20.0, 16, 1600)


def test_a_listed_flow_replaces_one_of_its_tuple_whose_end_was_lost() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1, id=11), (BANK,), 10.0)
    resync(attribution, [(event("listed", 1, id=12), (BANK,))], 20.0)
    assert (attribution.live_count, attribution.ended_unseen) == (1, 1)
    assert attribution.usage("bank") == Usage(2, 20.0, 0, 0)


def test_a_list_does_not_push_live_flows_out() -> None:
    attribution = Attribution(capacity=1)
    attribution.opened(event("new", 1), (BANK,), 10.0)
    resync(attribution, [(event("listed", 2), (BANK,)), (event("listed", 1), (BANK,))], 20.0)
    assert [one.flow for one in attribution.flows(None, 0, 9)] == [flow(1)]
    assert attribution.evicted == 1


def test_ends_during_a_resync_are_remembered_up_to_a_bound() -> None:
    attribution = Attribution(capacity=1)
    attribution.begin_resync()
    for number in (1, 2):
        attribution.opened(event("new", number), (BANK,), 10.0)
        attribution.closed(event("destroy", number), 10.0)
    assert attribution.unremembered == 1
    attribution.listed(event("listed", 1), (BANK,), 20.0)
    assert attribution.live_count == 0
    attribution.listed(event("listed", 2), (BANK,), 20.0)
    assert attribution.live_count == 1


def test_a_resync_that_was_given_up_drops_nothing() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1), (BANK,), 10.0)
    assert attribution.finish_resync() == 0
    attribution.begin_resync()
    attribution.begin_resync()
    attribution.listed(event("listed", 1), (), 20.0)
    assert attribution.finish_resync() == 0
    assert attribution.live_count == 1


def test_only_a_live_flow_is_known() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1), (BANK,), 10.0)
    assert attribution.knows(event("listed", 1))
    assert not attribution.knows(event("listed", 1, id=9))
    assert not attribution.knows(event("listed", 2))


COVERED: tuple[Sequence[Registration], ...] = ((BANK,), (BPO, EMBASSY, BANK))


class Oracle:
    """A kernel with two tuples, and by hand what should be known of each connection that ever was in it.

    `id` names a connection for good. `told`: the totals we last heard of it. `held`: the one that we should
    think alive, by tuple.
    """

    def __init__(self) -> None:
        self.alive: dict[int, int] = {}
        self.totals: list[int] = [0]
        self.told: dict[int, tuple[int, int]] = {}
        self.held: dict[int, int] = {}
        self.pending: list[ConnectionEvent] = []
        self.read: set[int] = set()
        self.began: set[int] = set()
        self.ended: set[int] = set()

    def event(self, kind: ConnectionKind, number: int) -> ConnectionEvent:
        id = self.alive[number]
        return event(kind, number, self.totals[id], 100 * self.totals[id], id=id)

    def hear(self, number: int, heard: ConnectionEvent) -> None:
        self.held[number] = heard.id
        self.told[heard.id] = number, heard.packets_original + heard.packets_reply

    def hear_listed(self, number: int, heard: ConnectionEvent) -> None:
        if number in self.held:
            if self.held[number] == heard.id or number not in self.began:
                self.hear(number, heard)
                self.began.add(number)
        elif number not in self.ended:
            self.hear(number, heard)
            self.began.add(number)

    def usage(self) -> dict[str, tuple[int, int, int]]:
        flows: Counter[str] = Counter()
        packets: Counter[str] = Counter()
        for number, total in self.told.values():
            for one in COVERED[number]:
                flows[one.id] += 1
                packets[one.id] += total
        return {id: (flows[id], packets[id], 100 * packets[id]) for id in flows}


numbers = st.sampled_from((0, 1))
turns = st.lists(
    st.tuples(st.just("begin"), numbers, st.booleans())
    | st.tuples(st.just("end"), numbers, st.booleans())
    | st.tuples(st.just("traffic"), numbers, st.integers(1, 5))
    | st.tuples(st.just("start list"), numbers, st.none())
    | st.tuples(st.just("read"), numbers, st.none())
    | st.tuples(st.just("apply"), numbers, st.none())
    | st.tuples(st.just("finish list"), numbers, st.none()),
    min_size=15,
    max_size=50,
)


@given(turns)
@settings(deadline=None, max_examples=400)
def test_any_order_of_events_losses_and_lists_counts_each_flow_and_byte_that_was_told_once(
    turns: list[tuple[str, int, int]],
) -> None:
    attribution, oracle, listing = Attribution(), Oracle(), False

    def read(number: int) -> None:
        if number in oracle.alive and number not in oracle.read:
            oracle.pending.append(oracle.event("listed", number))
        oracle.read.add(number)

    def apply() -> None:
        for heard in oracle.pending:
            number = heard.flow.source[3]
            attribution.listed(heard, COVERED[number], 1.0)
            oracle.hear_listed(number, heard)
        oracle.pending.clear()

    def finish() -> None:
        for number in range(2):
            read(number)
        apply()
        attribution.finish_resync()
        oracle.held = {number: id for number, id in oracle.held.items() if number in oracle.began}

    for turn, number, argument in turns:
        if turn == "begin" and number not in oracle.alive:
            oracle.totals.append(0)
            oracle.alive[number] = len(oracle.totals) - 1
            if argument:
                begun = oracle.event("new", number)
                attribution.opened(begun, COVERED[number], 1.0)
                oracle.hear(number, begun)
                oracle.began.add(number)
        elif turn == "end" and number in oracle.alive:
            ended = oracle.event("destroy", number)
            del oracle.alive[number]
            if argument:
                was_held = oracle.held.get(number) == ended.id
                assert attribution.closed(ended, 1.0) == (
                    tuple(one.id for one in COVERED[number]) if was_held else ()
                )
                if was_held:
                    oracle.hear(number, ended)
                    del oracle.held[number]
                oracle.ended.add(number)
        elif turn == "traffic" and number in oracle.alive:
            oracle.totals[oracle.alive[number]] += argument
        elif turn == "start list":
            attribution.begin_resync()
            listing = True
            oracle.pending.clear()
            oracle.read, oracle.began, oracle.ended = set(), set(), set()
        elif turn == "read" and listing:
            read(number)
        elif turn == "apply" and listing:
            apply()
        elif turn == "finish list" and listing:
            finish()
            listing = False
        found = {
            one.id: (usage.flows, usage.packets, usage.size_bytes)
            for one in (BANK, EMBASSY, BPO)
            if (usage := attribution.usage(one.id)) is not None
        }
        assert found == oracle.usage()
        assert {one.flow.source[3] for one in attribution.flows(None, 0, 99)} == set(oracle.held)


@pytest.mark.parametrize("capacity", [1, 3])
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40))
def test_the_table_never_holds_more_than_its_bound(capacity: int, turns: list[tuple[bool, int]]) -> None:
    attribution = Attribution(capacity)
    for by_event, number in turns:
        if by_event:
            attribution.opened(event("new", number), (BANK,), 1.0)
        else:
            attribution.listed(event("listed", number), (BANK,), 1.0)
        assert attribution.live_count <= capacity


def test_live_flows_are_counted_for_the_registrations_that_are_asked_for() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1), (BANK, EMBASSY), 10.0)
    attribution.opened(event("new", 2), (BANK,), 10.0)
    assert attribution.count_live(frozenset({"bank", "bpo"})) == Counter(bank=2)
    assert attribution.count_live(frozenset()) == Counter()


def taken(attribution: Attribution) -> list[Traffic]:
    return [each for piece in attribution.take_traffic(2) for each in piece]


def test_traffic_is_taken_once() -> None:
    attribution = Attribution()
    assert taken(attribution) == []
    resync(attribution, [], 1.0)
    attribution.opened(event("new", 1, 1, 60), (BANK, EMBASSY), 10.0)
    attribution.opened(event("new", 2, 1, 40), (BPO,), 11.0)
    assert taken(attribution) == [
        Traffic("bank", 1, 60, 10.0), Traffic("embassy", 1, 60, 10.0), Traffic("bpo", 1, 40, 11.0),
    ]  # fmt: skip
    assert taken(attribution) == []
    resync(attribution, [(event("listed", 1, 5, 500), ()), (event("listed", 2, 1, 40), ())], 20.0)
    attribution.closed(event("destroy", 2, 1, 40), 21.0)
    assert taken(attribution) == [
        Traffic("bank", 0, 440, 20.0), Traffic("embassy", 0, 440, 20.0), Traffic("bpo", 0, 0, 21.0),
    ]  # fmt: skip


def test_traffic_of_a_registration_that_was_withdrawn_is_not_lost() -> None:
    attribution = Attribution()
    attribution.opened(event("new", 1, 1, 60), (BANK,), 10.0)
    attribution.opened(event("new", 2, 1, 60), (BPO,), 10.0)
    taken(attribution)
    attribution.opened(event("new", 3, 1, 70), (BANK,), 11.0)
    attribution.forget("bank")
    attribution.forget("bpo")
    assert taken(attribution) == [Traffic("bank", 1, 70, 11.0)]
    assert taken(attribution) == []


def test_a_registration_may_go_while_traffic_is_taken() -> None:
    attribution = Attribution()
    for number, each in enumerate((BANK, EMBASSY, BPO), 1):
        attribution.opened(event("new", number, 1, 60), (each,), 10.0)
    pieces = attribution.take_traffic(1)
    assert [each.registration_id for each in next(pieces)] == ["bank"]
    attribution.forget("embassy")
    assert [[each.registration_id for each in piece] for piece in pieces] == [[], ["bpo"]]
    assert [each.registration_id for each in taken(attribution)] == ["embassy"]


def test_what_a_flow_carried_before_this_run_is_not_taken_again() -> None:
    """A restart finds flows that are days old; the run before has counted what they carried."""
    attribution = Attribution()
    resync(attribution, [(event("listed", 1, 900, 90_000), (BANK,))], 10.0)
    assert attribution.usage("bank") == Usage(1, 10.0, 900, 90_000)
    assert taken(attribution) == []
    resync(attribution, [(event("listed", 1, 901, 90_100), ())], 40.0)
    assert taken(attribution) == [Traffic("bank", 0, 100, 40.0)]
    resync(attribution, [(event("listed", 1, 901, 90_100), ()), (event("listed", 2, 7, 700), (BANK,))], 70.0)
    assert taken(attribution) == [Traffic("bank", 1, 700, 70.0)]  # its beginning was lost in this run


def test_without_counters_a_flow_that_is_alive_was_used() -> None:
    """`nf_conntrack_acct` is off by default, and a tunnel may live for months."""
    attribution = Attribution()
    attribution.opened(event("new", 1), (BANK,), 10.0)
    taken(attribution)
    resync(attribution, [(event("listed", 1), ())], 40.0)
    assert taken(attribution) == [Traffic("bank", 0, 0, 40.0)]


steps = st.lists(
    st.tuples(st.sampled_from(["open", "close", "list", "take", "restart"]), st.integers(0, 5), st.integers(1, 9)),
    max_size=60,
)


@given(steps)
def test_every_byte_is_taken_once_however_often_it_is_asked_and_restarted(
    found: list[tuple[str, int, int]],
) -> None:
    """The oracle: what the flows carried while a run watched them. Each has its own tuple, so none is mistaken."""
    attribution, carried, alive = Attribution(), dict[int, int](), set[int]()
    resync(attribution, [], 0.0)
    watched, got, seen_by_run, ids = 0, 0, dict[int, int](), dict[int, int]()
    for now, (what, number, more) in enumerate(found, 1):
        carried[number] = carried.get(number, 0) + more
        if what == "open" and number not in alive:
            carried[number] = more
            alive.add(number)
            attribution.opened(event("new", number, more, more * 4, id=now), (BANK,), now)
            seen_by_run[number], ids[number] = more, now
            watched += more
        elif what == "close" and number in alive:
            alive.discard(number)
            total = carried.pop(number)
            attribution.closed(event("destroy", number, total, total * 4, id=ids[number]), now)
            watched += total - seen_by_run.pop(number)
        elif what in ("list", "restart"):
            if what == "restart":
                got += sum(each.size_bytes for each in taken(attribution))
                attribution, seen_by_run = Attribution(), {each: carried[each] for each in alive}
            flows = [
                (event("listed", each, carried[each], carried[each] * 4, id=ids[each]), (BANK,)) for each in alive
            ]
            resync(attribution, flows, now)
            for each in alive:
                watched += carried[each] - seen_by_run[each]
                seen_by_run[each] = carried[each]
        elif what == "take":
            got += sum(each.size_bytes for each in taken(attribution))
    got += sum(each.size_bytes for each in taken(attribution))
    assert got == watched * 4
