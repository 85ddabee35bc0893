"""Desired against observed as two differences: they must stay true whatever comes between send and answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.compile.desired import DesiredSets, elements_of
from gatewayd.compile.keys import Keys
from gatewayd.model import Flow
from gatewayd.model.mask import ANY_PEER, NEAR, Mask, set_name
from gatewayd.model.registration import Registration
from gatewayd.model.transaction import ElementChange, ObservedSet, RulesTag, TableReading
from gatewayd.reconcile import set_state
from gatewayd.reconcile.set_state import MaskState, SetState
from gatewayd.reconcile.tracker import SetTracker
from tests.support.reconciling import bound_hosts, hosts, registered

HOSTS = Mask(4, 32)
NEARBY = Mask(4, 32, ANY_PEER, NEAR)
ONE, TWO, THREE = (registration.clients[0].packed for registration in hosts(3))
STRANGER = bytes((192, 0, 2, 99))
TAG = RulesTag(3, "policy", "digest")


def tracked(registrations: list[Registration], *sets: ObservedSet, hooked: tuple[str, ...] = ()) -> SetTracker:
    tracker = SetTracker(DesiredSets())
    for registration in registrations:
        tracker.add(registration)
    tracker.start_reading(TableReading(True, sets, "seen", TAG), frozenset(hooked))
    return tracker


def observed(name: str = "c4_32", capacity: int = 1024, count: int | None = None, **more: Any) -> ObservedSet:
    return ObservedSet(name, 4, capacity, more.get("regular", True), count)


def current(tracker: SetTracker) -> SetState:
    return tracker.masks[HOSTS].current


# -- desires -----------------------------------------------------------------------------------------------


def test_what_is_desired_is_missing_until_it_is_known_to_be_there() -> None:
    tracker = tracked(hosts(2), observed())
    assert current(tracker).missing == {ONE, TWO}
    assert tracker.observe_elements(current(tracker), {ONE, STRANGER}) == 1
    assert (current(tracker).missing, current(tracker).surplus) == ({TWO}, {STRANGER})
    assert tracker.expected_count(current(tracker)) == 2
    assert tracker.count_surplus() == 1


def test_a_surplus_element_that_is_desired_again_needs_no_write() -> None:
    tracker = tracked(hosts(1), observed())
    tracker.observe_elements(current(tracker), {ONE, TWO})
    tracker.add(hosts(1, 2)[0])
    assert (current(tracker).missing, current(tracker).surplus) == (set(), set())
    tracker.remove(hosts(1, 2)[0])
    assert current(tracker).surplus == {TWO}


def test_a_missing_element_that_is_desired_no_longer_needs_no_write() -> None:
    tracker = tracked(hosts(2), observed())
    tracker.observe_elements(current(tracker), {ONE})
    tracker.prioritise([(HOSTS, TWO)])
    tracker.remove(hosts(1, 2)[0])
    assert (current(tracker).missing, current(tracker).surplus, tracker.urgent) == (set(), set(), {})


def test_only_what_is_desired_can_be_urgent_and_what_is_missing_is_told() -> None:
    tracker = tracked(hosts(2), observed())
    tracker.observe_elements(current(tracker), {ONE})
    assert tracker.prioritise([(HOSTS, ONE), (HOSTS, TWO), (HOSTS, STRANGER), (Mask(6, 64), bytes(16))]) == 1
    assert list(tracker.urgent) == [(HOSTS, ONE), (HOSTS, TWO)]
    assert tracker.prioritise([(HOSTS, ONE)]) == 0


def test_an_element_of_a_mask_never_seen_gets_a_set_of_its_own() -> None:
    tracker = tracked([])
    tracker.add(hosts(1)[0])
    state = current(tracker)
    assert (state.name, state.exists, state.hooked, state.missing) == ("c4_32", False, False, {ONE})


def test_a_mask_in_use_again_does_not_take_the_name_of_a_set_that_is_to_go() -> None:
    tracker = tracked(hosts(1), observed())
    tracker.remove(hosts(1)[0])
    tracker.retire_unused()
    assert tracker.retired == {"c4_32"}
    assert tracker.masks == {}
    tracker.add(hosts(1)[0])
    assert current(tracker).name == "c4_32_g1"


def test_a_mask_that_was_never_made_leaves_nothing_to_delete() -> None:
    tracker = tracked([])
    tracker.add(hosts(1)[0])
    tracker.remove(hosts(1)[0])
    tracker.retire_unused()
    assert tracker.retired == set()


def test_elements_that_make_no_flow_registered_come_and_go_as_others_do() -> None:
    tracker = tracked([])
    tracker.take_near([(NEARBY, ONE), (NEARBY, TWO)], [])
    state = tracker.masks[NEARBY].current
    assert (state.name, state.missing) == ("c4_32_near", {ONE, TWO})
    tracker.added(state, [ONE])
    tracker.take_near([(NEARBY, THREE)], [(NEARBY, ONE), (NEARBY, TWO)])
    assert (state.missing, state.surplus) == ({THREE}, {ONE}), "one that was never sent needs no write"
    assert tracker.desired.keys(NEARBY) == {THREE}


def test_before_the_first_reading_elements_that_make_no_flow_registered_are_only_gathered() -> None:
    """Past the bound of masks too: they take no registration's place."""
    tracker = SetTracker(DesiredSets(max_masks=1))
    tracker.add(hosts(1)[0])
    tracker.take_near([(NEARBY, ONE), (NEARBY, TWO)], [])
    tracker.take_near([], [(NEARBY, ONE)])
    assert tracker.masks == {}
    tracker.start_reading(TableReading(False))
    assert {mask: set(each.current.missing) for mask, each in tracker.masks.items()} == {
        HOSTS: {ONE},
        NEARBY: {TWO},
    }


# -- growth ------------------------------------------------------------------------------------------------


def test_a_set_with_room_does_not_grow() -> None:
    tracker = tracked(hosts(8), observed(capacity=8))
    tracker.grow_where_full()
    assert tracker.masks[HOSTS].successor is None


def test_an_unbounded_set_never_grows() -> None:
    tracker = tracked(hosts(9), observed(capacity=0, count=1_000_000))
    tracker.grow_where_full()
    assert tracker.masks[HOSTS].successor is None


@pytest.mark.parametrize("present", ["desired", "surplus", "unread"])
def test_a_set_without_room_for_what_is_missing_gets_a_successor(present: str) -> None:
    """Whatever takes the room: removals come only after the last addition."""
    count = 9 if present == "desired" else 5
    tracker = tracked(hosts(count), observed(capacity=8, count=4 if present == "unread" else None))
    if present == "surplus":
        tracker.observe_elements(current(tracker), {STRANGER, *(bytes((9, 9, 9, number)) for number in range(3))})
    tracker.grow_where_full()
    successor = tracker.masks[HOSTS].successor
    assert successor is not None
    assert (successor.name, successor.capacity, successor.exists) == ("c4_32_g1", 1024, False)
    assert successor.missing == tracker.desired.keys(HOSTS)
    assert tracker.hooks() == {HOSTS: "c4_32"}
    tracker.grow_where_full()
    assert tracker.masks[HOSTS].successor is successor


def test_a_set_that_is_not_made_yet_is_made_larger() -> None:
    tracker = tracked([])
    for registration in hosts(1025):
        tracker.add(registration)
    tracker.grow_where_full()
    assert (current(tracker).capacity, tracker.masks[HOSTS].successor) == (4096, None)


@pytest.mark.parametrize("exists", [True, False])
def test_a_successor_that_is_outgrown_gives_way(exists: bool) -> None:
    tracker = tracked(hosts(9), observed(capacity=8))
    tracker.grow_where_full()
    first = tracker.masks[HOSTS].successor
    assert first is not None
    first.exists = exists
    for registration in hosts(1100, 10):
        tracker.add(registration)
    tracker.grow_where_full()
    second = tracker.masks[HOSTS].successor
    assert second is not None
    assert (second.name, second.capacity) == (("c4_32_g2", 4096) if exists else ("c4_32_g1", 4096))
    assert tracker.retired == ({"c4_32_g1"} if exists else set())
    assert len(second.missing) == 1109


def test_a_successor_does_not_take_the_name_of_a_set_that_is_to_go() -> None:
    tracker = tracked(hosts(9), observed(capacity=8), observed("c4_32_g1", regular=False))
    tracker.grow_where_full()
    successor = tracker.masks[HOSTS].successor
    assert successor is not None
    assert successor.name == "c4_32_g2"


def test_a_successor_is_hooked_once_it_is_complete() -> None:
    tracker = tracked(hosts(9), observed(capacity=8))
    tracker.grow_where_full()
    successor = tracker.masks[HOSTS].successor
    assert successor is not None
    assert tracker.hooks() == {HOSTS: "c4_32"}
    successor.exists = True
    tracker.added(successor, sorted(successor.missing)[1:])
    assert tracker.hooks() == {HOSTS: "c4_32"}
    tracker.added(successor, sorted(successor.missing))
    assert tracker.hooks() == {HOSTS: "c4_32_g1"}
    tracker.hooked(frozenset({"c4_32_g1"}), "text", TAG)
    assert (current(tracker), tracker.retired) == (successor, {"c4_32"})
    assert tracker.masks[HOSTS].successor is None
    assert successor.hooked


def test_desires_go_to_the_set_and_its_successor() -> None:
    tracker = tracked(hosts(9), observed(capacity=8))
    tracker.grow_where_full()
    tracker.add(hosts(1, 10)[0])
    assert [len(state.missing) for state in tracker.set_states()] == [10, 10]
    tracker.remove(hosts(1, 10)[0])
    assert [len(state.missing) for state in tracker.set_states()] == [9, 9]


# -- what is known -----------------------------------------------------------------------------------------


def test_an_element_counts_when_it_is_in_a_set_that_the_rules_look_into() -> None:
    tracker = tracked(hosts(2), observed())
    tracker.observe_elements(current(tracker), {ONE})
    assert not tracker.holds(HOSTS, ONE)
    assert tracker.count_missing() == 2
    tracker.hooked(frozenset({"c4_32"}), "text", TAG)
    assert (tracker.holds(HOSTS, ONE), tracker.holds(HOSTS, TWO), tracker.holds(Mask(6, 64), ONE)) == (
        True, False, False,
    )  # fmt: skip
    assert tracker.count_missing() == 1


def test_rules_that_leave_a_set_out_unhook_it() -> None:
    tracker = tracked(hosts(1), observed(), hooked=("c4_32",))
    current(tracker).hooked = True
    tracker.hooked(frozenset(), "text", None)
    assert not current(tracker).hooked
    assert (tracker.rules.text, tracker.rules.tag, tracker.rules.last_tag) == ("text", None, TAG)


def test_the_last_tag_outlives_the_rules() -> None:
    tracker = tracked(hosts(1))
    tracker.start_reading(TableReading(False))
    assert (tracker.rules.tag, tracker.rules.last_tag, tracker.table_present) == (None, TAG, False)


# -- readings ----------------------------------------------------------------------------------------------


def test_what_is_not_ours_is_retired() -> None:
    tracker = tracked(
        hosts(1),
        observed(count=1),
        observed("guests"),
        observed("c4_24"),
        observed("c4_32_g5", regular=False),
        observed("limiter4", regular=False),
    )
    assert tracker.retired == {"guests", "c4_24", "c4_32_g5"}
    assert (current(tracker).name, current(tracker).exists, current(tracker).unread) == ("c4_32", True, 1)


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_sets_the_newest_is_taken_where_no_rules_are_known(order: int) -> None:
    sets = [observed(), observed("c4_32_g1"), observed("c4_32_g2", 4096)][::order]
    tracker = tracked(hosts(1), *sets)
    assert (current(tracker).name, current(tracker).capacity) == ("c4_32_g2", 4096)
    assert tracker.masks[HOSTS].successor is None
    assert tracker.retired == {"c4_32", "c4_32_g1"}


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_sets_the_hooked_one_stays_until_its_successor_is_complete(order: int) -> None:
    sets = [observed("c4_32_g1"), observed("c4_32_g2"), observed("c4_32_g3", 4096)][::order]
    tracker = SetTracker(DesiredSets())
    tracker.add(hosts(1)[0])
    pending = tracker.start_reading(TableReading(True, tuple(sets), "seen", TAG), frozenset({"c4_32_g1"}))
    successor = tracker.masks[HOSTS].successor
    assert successor is not None
    assert [(state.name, found.name) for state, found in pending] == [("c4_32_g1",) * 2, ("c4_32_g3",) * 2]
    assert (current(tracker).name, successor.name) == ("c4_32_g1", "c4_32_g3")
    assert successor.capacity == 4096
    assert tracker.hooks() == {HOSTS: "c4_32_g1"}
    assert tracker.retired == {"c4_32_g2"}
    tracker.observe_elements(successor, {ONE})
    assert tracker.hooks() == {HOSTS: "c4_32_g3"}


def test_an_older_set_beside_the_hooked_one_goes() -> None:
    tracker = tracked(hosts(1), observed(), observed("c4_32_g1"), hooked=("c4_32_g1",))
    assert (current(tracker).name, tracker.masks[HOSTS].successor) == ("c4_32_g1", None)
    assert tracker.retired == {"c4_32"}


def test_a_mask_without_a_set_gets_a_name_that_is_free() -> None:
    tracker = tracked(hosts(1), observed(regular=False))
    assert (current(tracker).name, current(tracker).exists, current(tracker).missing) == ("c4_32_g1", False, {ONE})


def test_an_observation_tells_what_somebody_else_did() -> None:
    tracker = tracked(hosts(3), observed(count=9))
    state = current(tracker)
    assert state.unread == 9
    assert tracker.observe_elements(state, {ONE, TWO, STRANGER}) == 0, "nothing was known of a set not read before"
    assert state.unread == 0
    assert tracker.observe_elements(state, {ONE, TWO, STRANGER}) == 0
    assert tracker.observe_elements(state, {ONE, bytes(4)}) == 2
    assert (state.missing, state.surplus) == ({TWO, THREE}, {bytes(4)})
    assert tracker.observe_elements(state, {ONE, TWO, THREE}) == 0, "what was known to be missing is there: no harm"


def test_an_observation_of_a_set_whose_mask_went_is_all_surplus() -> None:
    tracker = tracked([])
    state = SetState("c4_32", HOSTS, 0, 8, exists=True)
    tracker.observe_elements(state, {ONE})
    assert (state.missing, state.surplus) == (set(), {ONE})


@given(st.data())
def test_desires_may_change_between_the_slices_of_an_observation(data: st.DataObject) -> None:
    """Whatever comes in between: in the end the tracker has the difference of both."""
    pool = hosts(60)
    tracker = tracked(pool[:30], observed(count=1))
    kernel = {registration.clients[0].packed for registration in data.draw(st.lists(st.sampled_from(pool)))}
    wanted = dict.fromkeys(range(30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(set_state, "SLICE", 2)
        for _ in tracker.observe_in_slices(current(tracker), Keys(kernel)):
            number = data.draw(st.integers(0, 59))
            if number in wanted:
                tracker.remove(pool[number])
                del wanted[number]
            else:
                tracker.add(pool[number])
                wanted[number] = None
    desired = {pool[number].clients[0].packed for number in wanted}
    assert tracker.desired.keys(HOSTS) == desired
    assert (current(tracker).missing, current(tracker).surplus) == (desired - kernel, kernel - desired)


def test_of_a_reading_that_came_to_no_end_the_surplus_is_kept() -> None:
    tracker = tracked(hosts(3), observed(count=9))
    tracker.observe_some(current(tracker), Keys([ONE, STRANGER]))
    assert (current(tracker).missing, current(tracker).surplus) == ({ONE, TWO, THREE}, {STRANGER})


# -- what others did ---------------------------------------------------------------------------------------


def test_what_went_is_missing_and_what_came_is_surplus() -> None:
    tracker = tracked(hosts(3), observed())
    state = current(tracker)
    tracker.observe_elements(state, {ONE, TWO, THREE})
    swap = [ElementChange("c4_32", ONE, False), ElementChange("c4_32", STRANGER, True)]
    assert tracker.observe_changes(swap) == (1, 1)
    assert (state.missing, state.surplus) == ({ONE}, {STRANGER})
    assert tracker.observe_changes(swap) == (0, 0), "told twice, it is no more"


def test_what_came_and_is_wanted_stays_missing_until_we_have_put_it_there() -> None:
    """The news may be older than a removal of our own."""
    tracker = tracked(hosts(2), observed(count=0))
    tracker.observe_elements(current(tracker), [])
    assert tracker.observe_changes([ElementChange("c4_32", ONE, True)]) == (0, 0)
    assert current(tracker).missing == {ONE, TWO}


def test_what_went_and_was_to_go_needs_no_removal() -> None:
    tracker = tracked(hosts(1), observed())
    tracker.observe_elements(current(tracker), {ONE, STRANGER})
    assert tracker.observe_changes([ElementChange("c4_32", STRANGER, False)]) == (0, 0)
    assert (current(tracker).missing, current(tracker).surplus) == (set(), set())


@pytest.mark.parametrize("change", [ElementChange("guests", ONE, False), ElementChange("c4_32", bytes(16), True)])
def test_changes_of_what_we_know_nothing_of_are_passed_over(change: ElementChange) -> None:
    tracker = tracked(hosts(1), observed())
    tracker.observe_elements(current(tracker), {ONE})
    assert tracker.observe_changes([change]) == (0, 0)
    assert (current(tracker).missing, current(tracker).surplus) == (set(), set())


@pytest.mark.parametrize("tag", [None, RulesTag(4, "policy", "other")])
def test_rules_that_are_not_ours_look_into_nothing_that_we_know_of(tag: RulesTag | None) -> None:
    tracker = tracked(hosts(2), observed())
    tracker.observe_elements(current(tracker), {ONE, TWO})
    tracker.hooked(frozenset({"c4_32"}), "rules", TAG)
    assert tracker.count_missing() == 0
    tracker.forget_rules(tag)
    assert (tracker.rules.text, tracker.rules.fingerprint, tracker.rules.tag) == (None, "", tag)
    assert tracker.rules.last_tag == (tag or TAG)
    assert tracker.count_missing() == 2
    assert not tracker.holds(HOSTS, ONE)


def test_in_doubt_everything_is_missing() -> None:
    tracker = tracked(hosts(2), observed())
    tracker.observe_elements(current(tracker), {ONE, TWO})
    tracker.hooked(frozenset({"c4_32"}), "rules", TAG)
    tracker.doubted = True
    assert tracker.count_missing() == 2
    tracker.start_reading(TableReading(True, (observed(),), "seen", TAG), frozenset({"c4_32"}))
    assert not tracker.doubted


# -- all that is known -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "most", "pieces"), [(0, 4, []), (1, 4, [1]), (8, 4, [4, 4]), (70, 32, [32, 32, 6])]
)
def test_all_that_is_known_to_be_there_comes_in_full_pieces(count: int, most: int, pieces: list[int]) -> None:
    tracker = tracked(
        [*hosts(count), registered("gone", "10.9.9.9"), registered("unread", "2001:db8::/48")], observed()
    )
    known = {registration.clients[0].packed for registration in hosts(count)}
    tracker.observe_elements(current(tracker), known)
    found = list(tracker.known_in_slices(lambda key_length: most))
    assert [len(piece) for _, piece in found] == pieces
    assert {key for _, piece in found for key in piece} == known
    assert all(state is current(tracker) for state, _ in found)


# -- acknowledgements --------------------------------------------------------------------------------------


def test_acknowledged_elements_are_no_longer_missing_nor_urgent() -> None:
    tracker = tracked(hosts(3), observed())
    tracker.prioritise([(HOSTS, ONE), (HOSTS, TWO)])
    tracker.added(current(tracker), [ONE])
    assert (current(tracker).missing, list(tracker.urgent)) == ({TWO, THREE}, [(HOSTS, TWO)])


def test_an_acknowledgement_for_the_successor_leaves_the_hurry() -> None:
    tracker = tracked(hosts(9), observed(capacity=8))
    tracker.grow_where_full()
    successor = tracker.masks[HOSTS].successor
    assert successor is not None
    tracker.prioritise([(HOSTS, ONE)])
    tracker.added(successor, [ONE])
    assert list(tracker.urgent) == [(HOSTS, ONE)]


def test_acknowledgements_for_a_mask_out_of_use_are_surplus_and_nothing() -> None:
    tracker = tracked([])
    state = SetState("c4_32", HOSTS, 0, 8, exists=True)
    tracker.added(state, [ONE])
    assert state.surplus == {ONE}
    tracker.removed(state, [ONE])
    assert (state.missing, state.surplus) == (set(), set())


def test_states_of_a_mask_come_in_order() -> None:
    first, second = SetState("c4_32", HOSTS, 0, 8), SetState(set_name(HOSTS, 1), HOSTS, 1, 8)
    assert list(MaskState(first).states()) == [first]
    assert MaskState(first).newest is first
    assert list(MaskState(first, second).states()) == [first, second]
    assert MaskState(first, second).newest is second


CHANGES = st.lists(
    st.tuples(st.sampled_from(["want", "unwant", "send add", "send remove", "answer"]), st.integers(0, 3)),
    max_size=40,
)


@given(CHANGES)
def test_the_two_differences_are_true_whatever_comes_between_send_and_answer(
    changes: list[tuple[str, int]],
) -> None:
    """A kernel set beside the tracker; one write at a time under way, desires free to change."""
    tracker = tracked([], observed())
    tracker.add(pool := registered("pool", "10.9.9.9"))
    tracker.remove(pool)
    tracker.start_reading(TableReading(True, (observed(),), "seen", TAG))
    state, kernel = current(tracker), {STRANGER}
    tracker.observe_elements(state, set(kernel))
    registrations = hosts(4)
    wanted: set[int] = set()
    under_way: tuple[str, list[bytes]] | None = None
    for change, number in changes:
        if change == "want" and number not in wanted:
            wanted.add(number)
            tracker.add(registrations[number])
        elif change == "unwant" and number in wanted:
            wanted.remove(number)
            tracker.remove(registrations[number])
        elif change == "send add" and under_way is None:
            under_way = ("add", sorted(state.missing)[: number + 1])
            kernel |= set(under_way[1])
        elif change == "send remove" and under_way is None:
            under_way = ("remove", sorted(state.surplus)[: number + 1])
            kernel -= set(under_way[1])
        elif change == "answer" and under_way is not None:
            (tracker.added if under_way[0] == "add" else tracker.removed)(state, under_way[1])
            under_way = None
        if under_way is None:
            desired = {registrations[each].clients[0].packed for each in wanted}
            assert state.missing == desired - kernel
            assert state.surplus == kernel - desired
            assert tracker.expected_count(state) == len(kernel)


def test_masks_given_up_make_room_for_registrations_that_were_past_the_bound() -> None:
    tracker = SetTracker(DesiredSets(max_masks=1))
    first, second = registered("first", "10.0.0.0/24"), registered("second", "10.1.0.0/25")
    tracker.add(first)
    tracker.add(second)
    assert list(tracker.desired.unprogrammed()) == ["second"]
    tracker.remove(first)
    tracker.retire_unused()
    assert tracker.desired.unprogrammed() == {}
    assert tracker.desired.masks() == [Mask(4, 25)]


def test_the_largest_sets_are_looked_into_first() -> None:
    tracker = SetTracker(DesiredSets())
    for number, length in enumerate((32, 24, 28)):
        state = SetState(f"c4_{length}", Mask(4, length), 0, (1024, 1024, 4096)[number], exists=True)
        tracker.masks[Mask(4, length)] = MaskState(state)
    assert list(tracker.hooks()) == [Mask(4, 28), Mask(4, 32), Mask(4, 24)]


def test_masks_to_come_and_masks_of_the_kernel_are_in_use_before_anything_is_desired() -> None:
    tracker = SetTracker(DesiredSets(max_masks=2))
    tracker.reserve(TableReading(True, (observed("c4_24"), observed("strange")), "seen", TAG))
    assert (tracker.desired.masks(), tracker.rules.tag) == ([Mask(4, 24)], TAG)
    tracker.prepare([HOSTS])
    assert tracker.masks == {}
    tracker.start_reading(TableReading(True))
    tracker.prepare([HOSTS, Mask(4, 16), Mask(4, 8)])
    assert set(tracker.masks) == {HOSTS, Mask(4, 16)}


def test_elements_of_bindings_have_a_timeout_and_a_set_with_another_is_followed_by_one_with_ours() -> None:
    bound = Mask(4, 32, source_bits=0)
    tracker = SetTracker(DesiredSets(), 100)
    (wanted,) = bound_hosts(1)
    (mask, _), *_ = elements_of(wanted)
    tracker.add(wanted)
    tracker.use_element_timeout(60)
    assert (tracker.timeout_s(mask), tracker.timeout_s(HOSTS)) == (60, 0)
    assert mask == bound
    tracker.start_reading(TableReading(True, (ObservedSet("b4_32", 4, 0, True, 1, 100),)))
    tracker.grow_where_full()
    states = tracker.masks[bound].states()
    assert [state.has_former_timeout for state in states] == [True, False]


def test_a_registration_whose_bound_gave_way_leaves_its_former_form() -> None:
    desired = DesiredSets(max_masks=1)
    tracker = SetTracker(desired)
    old, new = registered("bank", "10.0.0.0/24"), registered("bank", "10.0.0.0/25")
    tracker.add(old)
    tracker.start_reading(TableReading(True))
    tracker.observe_elements(tracker.masks[Mask(4, 24)].current, {bytes((10, 0, 0, 0))})
    tracker.add(new)
    tracker.remove(old)
    assert desired.in_former_form() == ["bank"]
    tracker.make_room()
    assert desired.in_former_form() == ["bank"]
    desired.reserve([Mask(4, 25)])
    for each in desired.take_unprogrammed():
        tracker.add(each)
    assert desired.in_former_form() == []
    assert tracker.masks[Mask(4, 24)].current.surplus == {bytes((10, 0, 0, 0))}


def test_retained_elements_are_released_a_number_at_a_time() -> None:
    tracker = SetTracker(DesiredSets())
    tracker.findings.retain()
    tracker.start_reading(TableReading(True, (observed(),), "seen", TAG))
    tracker.observe_elements(current(tracker), {ONE, TWO})
    assert tracker.release(1) == 1
    assert tracker.findings.count_retained() == 1
    assert tracker.release(5) == 1
    assert current(tracker).surplus == {ONE, TWO}
    assert (tracker.release(5), tracker.findings.count_retained()) == (0, 0)


def test_a_mask_with_surplus_is_given_up_once_that_is_gone() -> None:
    tracker = tracked(hosts(1), observed(), hooked=("c4_32",))
    tracker.observe_elements(current(tracker), {ONE, STRANGER})
    tracker.remove(hosts(1)[0])
    assert not tracker.retire_unused()
    assert tracker.retiring
    tracker.removed(current(tracker), [ONE, STRANGER])
    assert tracker.retire_unused()
    assert tracker.masks == {}


def test_the_element_by_which_a_flow_passes_is_one_that_is_known_to_be_looked_into() -> None:
    tracker = tracked(hosts(2), observed())
    flows = [Flow(17, client, bytes((198, 51, 100, 7)), 4000, 51820) for client in (ONE, TWO, STRANGER)]
    assert [tracker.element_for(flow) for flow in flows] == [None] * 3
    tracker.observe_elements(current(tracker), {ONE, STRANGER})
    tracker.hooked(frozenset({"c4_32"}), "text", TAG)
    assert [tracker.element_for(flow) for flow in flows] == [(HOSTS, ONE), None, (HOSTS, STRANGER)]
    assert tracker.holds(HOSTS, ONE)
    assert not tracker.holds(Mask(4, 24), ONE)


def test_rules_that_the_kernel_lists_as_it_did_are_still_ours() -> None:
    tracker = tracked(hosts(1), observed())
    tracker.hooked(frozenset({"c4_32"}), "text", TAG)
    tracker.rules.see_fingerprint("seen")
    tracker.doubt()
    tracker.read_again(TableReading(True, (observed(),), "seen", TAG))
    assert tracker.rules.text == "text"
    tracker.read_again(TableReading(True, (observed(),), "other", TAG))
    assert tracker.rules.text is None


def test_a_bound_that_waits_keeps_masks_reserved_until_former_forms_were_looked_for() -> None:
    tracker = SetTracker(DesiredSets(max_masks=1))
    tracker.reserve(TableReading(True, (observed("c4_24"),)))
    tracker.add(hosts(1)[0])
    assert tracker.desired.count_unprogrammed() == 1
    tracker.start_reading(TableReading(True, (observed("c4_24", count=1),)))
    assert tracker.retiring
    assert Mask(4, 24) in tracker.masks


def test_acknowledged_tables_and_sets_are_there() -> None:
    tracker = SetTracker(DesiredSets())
    tracker.start_reading(TableReading(False))
    tracker.created_table()
    tracker.created(None, "c4_9", 8)
    tracker.add(hosts(1)[0])
    tracker.created(current(tracker), "c4_32", 8)
    assert (tracker.table_present, tracker.retired) == (True, {"c4_9"})
    assert (current(tracker).exists, current(tracker).capacity) == (True, 8)


def test_forgotten_rules_look_into_nothing() -> None:
    tracker = tracked(hosts(1), observed(), hooked=("c4_32",))
    assert current(tracker).hooked
    tracker.forget_rules(None)
    assert not current(tracker).hooked


def test_a_binding_at_an_address_that_was_left_is_left_no_longer() -> None:
    tracker = SetTracker(DesiredSets())
    (wanted,) = bound_hosts(1)
    tracker.findings.leave_unless(lambda prefix, ports: False)
    tracker.start_reading(TableReading(True, (ObservedSet("b4_32", 4, 0, True, 1, 7200),)))
    state = tracker.masks[Mask(4, 32, source_bits=0)].current
    tracker.observe_elements(state, [wanted.prefix.packed])
    assert tracker.left(state.mask) == {wanted.prefix.packed}
    tracker.add(wanted)
    assert tracker.left(state.mask) == set()
    assert state.missing == {wanted.prefix.packed}, "it is put there anew, with its whole time"


def test_room_is_made_only_where_registrations_wait() -> None:
    tracker = tracked(hosts(1), observed(), hooked=("c4_32",))
    tracker.observe_elements(current(tracker), {ONE})
    tracker.remove(hosts(1)[0])
    tracker.make_room()
    assert set(tracker.masks) == {HOSTS}


def test_a_former_form_that_goes_before_the_first_reading_is_not_in_the_kernel() -> None:
    tracker = SetTracker(DesiredSets(max_masks=1))
    old, new = registered("bank", "10.0.0.0/24"), registered("bank", "10.0.0.0/25")
    for each in (old, new):
        tracker.add(each)
    tracker.remove(old)
    tracker.desired.reserve([Mask(4, 25)])
    for waiting in tracker.desired.take_unprogrammed():
        tracker.add(waiting)
    assert tracker.desired.in_former_form() == []
    assert tracker.masks == {}
