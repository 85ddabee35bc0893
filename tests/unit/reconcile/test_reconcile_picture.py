"""Desired against observed as two differences: they must stay true whatever comes between send and answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.keys import Keys
from gatewayd.model.external import ElementChange
from gatewayd.model.mask import Mask, set_name
from gatewayd.model.registration import Registration
from gatewayd.model.transaction import ObservedSet, RulesTag, TableReading
from gatewayd.reconcile import picture as picture_module
from gatewayd.reconcile.picture import Picture
from gatewayd.reconcile.set_state import SMALLEST_CAPACITY, MaskState, SetState, choose_capacity
from tests.support.reconciling import hosts, registered

HOSTS = Mask(4, 32)
ONE, TWO, THREE = (registration.clients[0].packed for registration in hosts(3))
STRANGER = bytes((192, 0, 2, 99))
TAG = RulesTag(3, "policy", "digest")


def pictured(registrations: list[Registration], *sets: ObservedSet, hooked: tuple[str, ...] = ()) -> Picture:
    picture = Picture(DesiredSets())
    for registration in registrations:
        picture.add(registration)
    picture.start_reading(TableReading(True, sets, "seen", TAG), frozenset(hooked))
    return picture


def observed(name: str = "c4_32", capacity: int = 1024, count: int | None = None, **more: Any) -> ObservedSet:
    return ObservedSet(name, 4, capacity, more.get("regular", True), count)


def current(picture: Picture) -> SetState:
    return picture.masks[HOSTS].current


@pytest.mark.parametrize(
    ("count", "capacity"),
    [
        (0, 1024), (1, 1024), (512, 1024), (513, 2048), (1024, 2048), (1025, 4096), (1_000_000, 1 << 21),
    ],
)  # fmt: skip
def test_a_new_set_has_room_for_twice_its_elements(count: int, capacity: int) -> None:
    assert choose_capacity(Mask(4, 32), count) == capacity
    assert choose_capacity(Mask(4, 32, source_bits=0), count) == 0
    assert capacity >= max(SMALLEST_CAPACITY, 2 * count)


@pytest.mark.parametrize(
    ("capacity", "desired", "missing", "surplus", "unread", "more", "room"),
    [
        (0, 5, 5, 0, 0, 7, 7),
        (8, 5, 5, 0, 0, 7, 7),
        (8, 5, 0, 0, 0, 7, 3),
        (8, 5, 2, 4, 0, 2, 1),
        (8, 8, 0, 0, 0, 1, 0),
        (8, 9, 0, 1, 0, 1, 0),
        (8, 5, 5, 0, 4, 5, 4),
    ],
)
def test_room_counts_everything_that_may_be_in_the_set(
    capacity: int, desired: int, missing: int, surplus: int, unread: int, more: int, room: int
) -> None:
    state = SetState("c4_32", HOSTS, 0, capacity, unread=unread)
    state.missing = {bytes((0, number)) for number in range(missing)}
    state.surplus = {bytes((1, number)) for number in range(surplus)}
    assert state.has_room(desired, more) == room


# -- desires -----------------------------------------------------------------------------------------------


def test_what_is_desired_is_missing_until_it_is_known_to_be_there() -> None:
    picture = pictured(hosts(2), observed())
    assert current(picture).missing == {ONE, TWO}
    assert picture.observe_elements(current(picture), {ONE, STRANGER}) == 1
    assert (current(picture).missing, current(picture).surplus) == ({TWO}, {STRANGER})
    assert picture.expected_count(current(picture)) == 2
    assert picture.count_surplus() == 1


def test_a_surplus_element_that_is_desired_again_needs_no_write() -> None:
    picture = pictured(hosts(1), observed())
    picture.observe_elements(current(picture), {ONE, TWO})
    picture.add(hosts(1, 2)[0])
    assert (current(picture).missing, current(picture).surplus) == (set(), set())
    picture.remove(hosts(1, 2)[0])
    assert current(picture).surplus == {TWO}


def test_a_missing_element_that_is_desired_no_longer_needs_no_write() -> None:
    picture = pictured(hosts(2), observed())
    picture.observe_elements(current(picture), {ONE})
    picture.urge([(HOSTS, TWO)])
    picture.remove(hosts(1, 2)[0])
    assert (current(picture).missing, current(picture).surplus, picture.urgent) == (set(), set(), {})


def test_only_what_is_desired_can_be_urgent_and_what_is_missing_is_told() -> None:
    picture = pictured(hosts(2), observed())
    picture.observe_elements(current(picture), {ONE})
    assert picture.urge([(HOSTS, ONE), (HOSTS, TWO), (HOSTS, STRANGER), (Mask(6, 64), bytes(16))]) == 1
    assert list(picture.urgent) == [(HOSTS, ONE), (HOSTS, TWO)]
    assert picture.urge([(HOSTS, ONE)]) == 0


def test_an_element_of_a_mask_never_seen_gets_a_set_of_its_own() -> None:
    picture = pictured([])
    picture.add(hosts(1)[0])
    state = current(picture)
    assert (state.name, state.exists, state.hooked, state.missing) == ("c4_32", False, False, {ONE})


def test_a_mask_in_use_again_does_not_take_the_name_of_a_set_that_is_to_go() -> None:
    picture = pictured(hosts(1), observed())
    picture.remove(hosts(1)[0])
    picture.retire_unused()
    assert picture.retired == {"c4_32"}
    assert picture.masks == {}
    picture.add(hosts(1)[0])
    assert current(picture).name == "c4_32_g1"


def test_a_mask_that_was_never_made_leaves_nothing_to_delete() -> None:
    picture = pictured([])
    picture.add(hosts(1)[0])
    picture.remove(hosts(1)[0])
    picture.retire_unused()
    assert picture.retired == set()


# -- growth ------------------------------------------------------------------------------------------------


def test_a_set_with_room_does_not_grow() -> None:
    picture = pictured(hosts(8), observed(capacity=8))
    picture.grow_where_full()
    assert picture.masks[HOSTS].successor is None


def test_an_unbounded_set_never_grows() -> None:
    picture = pictured(hosts(9), observed(capacity=0, count=1_000_000))
    picture.grow_where_full()
    assert picture.masks[HOSTS].successor is None


@pytest.mark.parametrize("present", ["desired", "surplus", "unread"])
def test_a_set_without_room_for_what_is_missing_gets_a_successor(present: str) -> None:
    """Whatever takes the room: removals come only after the last addition."""
    count = 9 if present == "desired" else 5
    picture = pictured(hosts(count), observed(capacity=8, count=4 if present == "unread" else None))
    if present == "surplus":
        picture.observe_elements(current(picture), {STRANGER, *(bytes((9, 9, 9, number)) for number in range(3))})
    picture.grow_where_full()
    successor = picture.masks[HOSTS].successor
    assert successor is not None
    assert (successor.name, successor.capacity, successor.exists) == ("c4_32_g1", 1024, False)
    assert successor.missing == picture.desired.keys(HOSTS)
    assert picture.hooks() == {HOSTS: "c4_32"}
    picture.grow_where_full()
    assert picture.masks[HOSTS].successor is successor


def test_a_set_that_is_not_made_yet_is_made_larger() -> None:
    picture = pictured([])
    for registration in hosts(1025):
        picture.add(registration)
    picture.grow_where_full()
    assert (current(picture).capacity, picture.masks[HOSTS].successor) == (4096, None)


@pytest.mark.parametrize("exists", [True, False])
def test_a_successor_that_is_outgrown_gives_way(exists: bool) -> None:
    picture = pictured(hosts(9), observed(capacity=8))
    picture.grow_where_full()
    first = picture.masks[HOSTS].successor
    assert first is not None
    first.exists = exists
    for registration in hosts(1100, 10):
        picture.add(registration)
    picture.grow_where_full()
    second = picture.masks[HOSTS].successor
    assert second is not None
    assert (second.name, second.capacity) == (("c4_32_g2", 4096) if exists else ("c4_32_g1", 4096))
    assert picture.retired == ({"c4_32_g1"} if exists else set())
    assert len(second.missing) == 1109


def test_a_successor_does_not_take_the_name_of_a_set_that_is_to_go() -> None:
    picture = pictured(hosts(9), observed(capacity=8), observed("c4_32_g1", regular=False))
    picture.grow_where_full()
    successor = picture.masks[HOSTS].successor
    assert successor is not None
    assert successor.name == "c4_32_g2"


def test_a_successor_is_hooked_once_it_is_complete() -> None:
    picture = pictured(hosts(9), observed(capacity=8))
    picture.grow_where_full()
    successor = picture.masks[HOSTS].successor
    assert successor is not None
    assert picture.hooks() == {HOSTS: "c4_32"}
    successor.exists = True
    picture.added(successor, sorted(successor.missing)[1:])
    assert picture.hooks() == {HOSTS: "c4_32"}
    picture.added(successor, sorted(successor.missing))
    assert picture.hooks() == {HOSTS: "c4_32_g1"}
    picture.hooked(frozenset({"c4_32_g1"}), "text", TAG)
    assert (current(picture), picture.retired) == (successor, {"c4_32"})
    assert picture.masks[HOSTS].successor is None
    assert successor.hooked


def test_desires_go_to_the_set_and_its_successor() -> None:
    picture = pictured(hosts(9), observed(capacity=8))
    picture.grow_where_full()
    picture.add(hosts(1, 10)[0])
    assert [len(state.missing) for state in picture.set_states()] == [10, 10]
    picture.remove(hosts(1, 10)[0])
    assert [len(state.missing) for state in picture.set_states()] == [9, 9]


# -- what is known -----------------------------------------------------------------------------------------


def test_an_element_counts_when_it_is_in_a_set_that_the_rules_look_into() -> None:
    picture = pictured(hosts(2), observed())
    picture.observe_elements(current(picture), {ONE})
    assert not picture.holds(HOSTS, ONE)
    assert picture.count_missing() == 2
    picture.hooked(frozenset({"c4_32"}), "text", TAG)
    assert (picture.holds(HOSTS, ONE), picture.holds(HOSTS, TWO), picture.holds(Mask(6, 64), ONE)) == (
        True, False, False,
    )  # fmt: skip
    assert picture.count_missing() == 1


def test_rules_that_leave_a_set_out_unhook_it() -> None:
    picture = pictured(hosts(1), observed(), hooked=("c4_32",))
    current(picture).hooked = True
    picture.hooked(frozenset(), "text", None)
    assert not current(picture).hooked
    assert (picture.rules, picture.tag, picture.last_tag) == ("text", None, TAG)


def test_the_last_tag_outlives_the_rules() -> None:
    picture = pictured(hosts(1))
    picture.start_reading(TableReading(False))
    assert (picture.tag, picture.last_tag, picture.table_present) == (None, TAG, False)


# -- readings ----------------------------------------------------------------------------------------------


def test_what_is_not_ours_is_retired() -> None:
    picture = pictured(
        hosts(1),
        observed(count=1),
        observed("guests"),
        observed("c4_24"),
        observed("c4_32_g5", regular=False),
        observed("limited4", regular=False),
    )
    assert picture.retired == {"guests", "c4_24", "c4_32_g5"}
    assert (current(picture).name, current(picture).exists, current(picture).unread) == ("c4_32", True, 1)


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_sets_the_newest_is_taken_where_no_rules_are_known(order: int) -> None:
    sets = [observed(), observed("c4_32_g1"), observed("c4_32_g2", 4096)][::order]
    picture = pictured(hosts(1), *sets)
    assert (current(picture).name, current(picture).capacity) == ("c4_32_g2", 4096)
    assert picture.masks[HOSTS].successor is None
    assert picture.retired == {"c4_32", "c4_32_g1"}


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_sets_the_hooked_one_stays_until_its_successor_is_complete(order: int) -> None:
    sets = [observed("c4_32_g1"), observed("c4_32_g2"), observed("c4_32_g3", 4096)][::order]
    picture = Picture(DesiredSets())
    picture.add(hosts(1)[0])
    pending = picture.start_reading(TableReading(True, tuple(sets), "seen", TAG), frozenset({"c4_32_g1"}))
    successor = picture.masks[HOSTS].successor
    assert successor is not None
    assert [(state.name, found.name) for state, found in pending] == [("c4_32_g1",) * 2, ("c4_32_g3",) * 2]
    assert (current(picture).name, successor.name) == ("c4_32_g1", "c4_32_g3")
    assert successor.capacity == 4096
    assert picture.hooks() == {HOSTS: "c4_32_g1"}
    assert picture.retired == {"c4_32_g2"}
    picture.observe_elements(successor, {ONE})
    assert picture.hooks() == {HOSTS: "c4_32_g3"}


def test_an_older_set_beside_the_hooked_one_goes() -> None:
    picture = pictured(hosts(1), observed(), observed("c4_32_g1"), hooked=("c4_32_g1",))
    assert (current(picture).name, picture.masks[HOSTS].successor) == ("c4_32_g1", None)
    assert picture.retired == {"c4_32"}


def test_a_mask_without_a_set_gets_a_name_that_is_free() -> None:
    picture = pictured(hosts(1), observed(regular=False))
    assert (current(picture).name, current(picture).exists, current(picture).missing) == ("c4_32_g1", False, {ONE})


def test_an_observation_tells_what_somebody_else_did() -> None:
    picture = pictured(hosts(3), observed(count=9))
    state = current(picture)
    assert state.unread == 9
    assert picture.observe_elements(state, {ONE, TWO, STRANGER}) == 0, "nothing was known of a set not read before"
    assert state.unread == 0
    assert picture.observe_elements(state, {ONE, TWO, STRANGER}) == 0
    assert picture.observe_elements(state, {ONE, bytes(4)}) == 2
    assert (state.missing, state.surplus) == ({TWO, THREE}, {bytes(4)})
    assert picture.observe_elements(state, {ONE, TWO, THREE}) == 0, "what was known to be missing is there: no harm"


def test_an_observation_of_a_set_whose_mask_went_is_all_surplus() -> None:
    picture = pictured([])
    state = SetState("c4_32", HOSTS, 0, 8, exists=True)
    picture.observe_elements(state, {ONE})
    assert (state.missing, state.surplus) == (set(), {ONE})


@given(st.data())
def test_desires_may_change_between_the_slices_of_an_observation(data: st.DataObject) -> None:
    """Whatever comes in between: in the end the picture is the difference of both."""
    pool = hosts(60)
    picture = pictured(pool[:30], observed(count=1))
    kernel = {registration.clients[0].packed for registration in data.draw(st.lists(st.sampled_from(pool)))}
    wanted = dict.fromkeys(range(30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture_module, "SLICE", 2)
        for _ in picture.observe_in_slices(current(picture), Keys(kernel)):
            number = data.draw(st.integers(0, 59))
            if number in wanted:
                picture.remove(pool[number])
                del wanted[number]
            else:
                picture.add(pool[number])
                wanted[number] = None
    desired = {pool[number].clients[0].packed for number in wanted}
    assert picture.desired.keys(HOSTS) == desired
    assert (current(picture).missing, current(picture).surplus) == (desired - kernel, kernel - desired)


def test_of_a_reading_that_came_to_no_end_the_surplus_is_kept() -> None:
    picture = pictured(hosts(3), observed(count=9))
    picture.observe_some(current(picture), Keys([ONE, STRANGER]))
    assert (current(picture).missing, current(picture).surplus) == ({ONE, TWO, THREE}, {STRANGER})


# -- what others did ---------------------------------------------------------------------------------------


def test_what_went_is_missing_and_what_came_is_surplus() -> None:
    picture = pictured(hosts(3), observed())
    state = current(picture)
    picture.observe_elements(state, {ONE, TWO, THREE})
    swap = [ElementChange("c4_32", ONE, False), ElementChange("c4_32", STRANGER, True)]
    assert picture.observe_changes(swap) == (1, 1)
    assert (state.missing, state.surplus) == ({ONE}, {STRANGER})
    assert picture.observe_changes(swap) == (0, 0), "told twice, it is no more"


def test_what_came_and_is_wanted_stays_missing_until_we_have_put_it_there() -> None:
    """The news may be older than a removal of our own."""
    picture = pictured(hosts(2), observed(count=0))
    picture.observe_elements(current(picture), [])
    assert picture.observe_changes([ElementChange("c4_32", ONE, True)]) == (0, 0)
    assert current(picture).missing == {ONE, TWO}


def test_what_went_and_was_to_go_needs_no_removal() -> None:
    picture = pictured(hosts(1), observed())
    picture.observe_elements(current(picture), {ONE, STRANGER})
    assert picture.observe_changes([ElementChange("c4_32", STRANGER, False)]) == (0, 0)
    assert (current(picture).missing, current(picture).surplus) == (set(), set())


@pytest.mark.parametrize("change", [ElementChange("guests", ONE, False), ElementChange("c4_32", bytes(16), True)])
def test_changes_of_what_we_know_nothing_of_are_passed_over(change: ElementChange) -> None:
    picture = pictured(hosts(1), observed())
    picture.observe_elements(current(picture), {ONE})
    assert picture.observe_changes([change]) == (0, 0)
    assert (current(picture).missing, current(picture).surplus) == (set(), set())


@pytest.mark.parametrize("tag", [None, RulesTag(4, "policy", "other")])
def test_rules_that_are_not_ours_look_into_nothing_that_we_know_of(tag: RulesTag | None) -> None:
    picture = pictured(hosts(2), observed())
    picture.observe_elements(current(picture), {ONE, TWO})
    picture.hooked(frozenset({"c4_32"}), "rules", TAG)
    assert picture.count_missing() == 0
    picture.forget_rules(tag)
    assert (picture.rules, picture.rules_seen, picture.tag) == (None, "", tag)
    assert picture.last_tag == (tag or TAG)
    assert picture.count_missing() == 2
    assert not picture.holds(HOSTS, ONE)


def test_in_doubt_everything_is_missing() -> None:
    picture = pictured(hosts(2), observed())
    picture.observe_elements(current(picture), {ONE, TWO})
    picture.hooked(frozenset({"c4_32"}), "rules", TAG)
    picture.doubted = True
    assert picture.count_missing() == 2
    picture.start_reading(TableReading(True, (observed(),), "seen", TAG), frozenset({"c4_32"}))
    assert not picture.doubted


# -- all that is known -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "most", "pieces"), [(0, 4, []), (1, 4, [1]), (8, 4, [4, 4]), (70, 32, [32, 32, 6])]
)
def test_all_that_is_known_to_be_there_comes_in_full_pieces(count: int, most: int, pieces: list[int]) -> None:
    picture = pictured(
        [*hosts(count), registered("gone", "10.9.9.9"), registered("unread", "2001:db8::/48")], observed()
    )
    known = {registration.clients[0].packed for registration in hosts(count)}
    picture.observe_elements(current(picture), known)
    found = list(picture.known_in_slices(lambda key_length: most))
    assert [len(piece) for _, piece in found] == pieces
    assert {key for _, piece in found for key in piece} == known
    assert all(state is current(picture) for state, _ in found)


# -- acknowledgements --------------------------------------------------------------------------------------


def test_acknowledged_elements_are_no_longer_missing_nor_urgent() -> None:
    picture = pictured(hosts(3), observed())
    picture.urge([(HOSTS, ONE), (HOSTS, TWO)])
    picture.added(current(picture), [ONE])
    assert (current(picture).missing, list(picture.urgent)) == ({TWO, THREE}, [(HOSTS, TWO)])


def test_an_acknowledgement_for_the_successor_leaves_the_hurry() -> None:
    picture = pictured(hosts(9), observed(capacity=8))
    picture.grow_where_full()
    successor = picture.masks[HOSTS].successor
    assert successor is not None
    picture.urge([(HOSTS, ONE)])
    picture.added(successor, [ONE])
    assert list(picture.urgent) == [(HOSTS, ONE)]


def test_acknowledgements_for_a_mask_out_of_use_are_surplus_and_nothing() -> None:
    picture = pictured([])
    state = SetState("c4_32", HOSTS, 0, 8, exists=True)
    picture.added(state, [ONE])
    assert state.surplus == {ONE}
    picture.removed(state, [ONE])
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
    """A kernel set beside the picture; one write at a time under way, desires free to change."""
    picture = pictured([], observed())
    picture.add(pool := registered("pool", "10.9.9.9"))
    picture.remove(pool)
    picture.start_reading(TableReading(True, (observed(),), "seen", TAG))
    state, kernel = current(picture), {STRANGER}
    picture.observe_elements(state, set(kernel))
    registrations = hosts(4)
    wanted: set[int] = set()
    under_way: tuple[str, list[bytes]] | None = None
    for change, number in changes:
        if change == "want" and number not in wanted:
            wanted.add(number)
            picture.add(registrations[number])
        elif change == "unwant" and number in wanted:
            wanted.remove(number)
            picture.remove(registrations[number])
        elif change == "send add" and under_way is None:
            under_way = ("add", sorted(state.missing)[: number + 1])
            kernel |= set(under_way[1])
        elif change == "send remove" and under_way is None:
            under_way = ("remove", sorted(state.surplus)[: number + 1])
            kernel -= set(under_way[1])
        elif change == "answer" and under_way is not None:
            (picture.added if under_way[0] == "add" else picture.removed)(state, under_way[1])
            under_way = None
        if under_way is None:
            desired = {registrations[each].clients[0].packed for each in wanted}
            assert state.missing == desired - kernel
            assert state.surplus == kernel - desired
            assert picture.expected_count(state) == len(kernel)


def test_masks_given_up_make_room_for_registrations_that_were_past_the_bound() -> None:
    picture = Picture(DesiredSets(most_masks=1))
    first, second = registered("first", "10.0.0.0/24"), registered("second", "10.1.0.0/25")
    picture.add(first)
    picture.add(second)
    assert list(picture.desired.unprogrammed()) == ["second"]
    picture.remove(first)
    picture.retire_unused()
    assert picture.desired.unprogrammed() == {}
    assert picture.desired.masks() == [Mask(4, 25)]


# -- what is spared ----------------------------------------------------------------------------------------


def sparing(registrations: list[Registration], *sets: ObservedSet) -> Picture:
    picture = Picture(DesiredSets())
    picture.sparing = True
    for registration in registrations:
        picture.add(registration)
    picture.start_reading(TableReading(True, sets, "seen", TAG))
    return picture


def test_what_is_found_and_not_desired_is_kept_until_it_is_released() -> None:
    picture = sparing(hosts(1), observed())
    assert picture.observe_elements(current(picture), {ONE, STRANGER}) == 0
    assert (picture.count_surplus(), picture.count_missing()) == (0, 2)  # nothing is known to be looked into yet
    assert picture.expected_count(current(picture)) == 2
    assert picture.release(10) == 1
    assert current(picture).surplus == {STRANGER}
    assert picture.release(10) == 0


def test_what_is_spared_and_registered_after_all_never_goes() -> None:
    picture = sparing(hosts(1), observed())
    picture.observe_elements(current(picture), {ONE, TWO})
    (_, late) = hosts(2)
    picture.add(late)
    assert picture.release(10) == 1
    assert (current(picture).surplus, current(picture).missing) == (set(), set())
    picture.remove(late)
    assert current(picture).surplus == {TWO}


def test_a_set_of_a_mask_that_nobody_needs_is_looked_into_while_it_is_spared() -> None:
    nets = Mask(4, 24)
    picture = sparing(hosts(1), observed(), observed("c4_24"))
    picture.observe_elements(picture.masks[nets].current, {STRANGER})
    assert picture.hooks()[nets] == "c4_24"
    assert not picture.retired
    picture.release(10)
    assert picture.hooks()[nets] == "c4_24", "until it is empty"
    picture.removed(picture.masks[nets].current, [STRANGER])
    picture.added(current(picture), [ONE])
    assert picture.retiring
    picture.retire_unused()
    assert picture.retired == {"c4_24"}
    assert nets not in picture.hooks()


def test_no_bound_of_masks_keeps_what_is_in_force_from_being_spared() -> None:
    picture = Picture(DesiredSets(most_masks=1))
    picture.sparing = True
    picture.add(*hosts(1))
    picture.start_reading(TableReading(True, (observed(), observed("c4_24")), "seen", TAG))
    assert picture.retired == set()
    assert Mask(4, 24) in picture.masks


# -- past a bound ------------------------------------------------------------------------------------------


def test_what_is_spared_of_a_registration_past_a_bound_is_not_released() -> None:
    picture = Picture(DesiredSets(most_masks=1, protected_masks=0))
    picture.sparing = True
    picture.desired.reserve([HOSTS])
    new = registered("bank", "10.0.0.0/31", services=["esp"])
    picture.add(new)
    picture.start_reading(TableReading(True, (observed(count=2),), "seen", TAG))
    picture.observe_elements(current(picture), {ONE, STRANGER})
    assert picture.release(10) == 2
    assert current(picture).surplus == {STRANGER}
    assert picture.desired.in_former_form() == ["bank"]
    picture.remove(new)
    assert current(picture).surplus == {ONE, STRANGER}


@pytest.mark.parametrize("at_start", [True, False])
def test_a_form_past_a_bound_leaves_the_former_one_in_force_in_this_life_and_the_next(at_start: bool) -> None:
    old, new = registered("bank", "10.0.0.1"), registered("bank", "10.0.0.0/31", services=["esp"])
    picture = Picture(DesiredSets(most_masks=1, protected_masks=0))
    if at_start:
        picture.desired.reserve([HOSTS])
    else:
        picture.add(old)
    picture.add(new)
    if not at_start:
        picture.remove(old)
    picture.start_reading(TableReading(True, (observed(count=2),), "seen", TAG))
    picture.observe_elements(current(picture), {ONE, STRANGER})
    assert (current(picture).missing, current(picture).surplus) == (set(), {STRANGER})
    assert picture.desired.in_former_form() == ["bank"]
    picture.remove(new)
    assert current(picture).surplus == {ONE, STRANGER}


def test_a_former_form_goes_when_masks_given_up_make_room_for_the_present_one() -> None:
    nets = Mask(4, 24)
    picture = pictured(hosts(1), observed(count=1))
    picture.desired = DesiredSets(most_masks=2, protected_masks=0)
    other, old, new = registered("n", "10.1.0.0/24"), registered("b", "10.0.0.1"), registered("b", "10.0.0.0/31")
    for each in (other, old, new):
        picture.add(each)
    picture.remove(old)
    picture.start_reading(TableReading(True))
    picture.remove(other)
    for state in picture.set_states():
        picture.added(state, list(state.missing))
        picture.removed(state, list(state.surplus))
    assert picture.retire_unused()
    assert nets not in picture.desired
    assert picture.masks[HOSTS].current.surplus == {ONE}
    assert picture.desired.in_former_form() == []


def test_what_is_spared_goes_into_a_successor_too() -> None:
    picture = sparing(hosts(1), observed(), observed("c4_32_g1"))
    state = picture.masks[HOSTS]
    picture.masks[HOSTS] = MaskState(SetState("c4_32", HOSTS, 0, 1024, exists=True), state.current)
    picture.observe_elements(current(picture), {ONE, STRANGER})
    assert STRANGER in picture.masks[HOSTS].newest.missing


def sort_spared(picture: Picture, explained: set[tuple[Mask, bytes]]) -> int:
    slices = picture.sort_spared_in_slices(explained)
    while True:
        try:
            next(slices)
        except StopIteration as end:
            return int(end.value)


def test_what_nothing_explains_is_released_last() -> None:
    picture = sparing(hosts(1), observed())
    picture.observe_elements(current(picture), {ONE, TWO, STRANGER})
    assert sort_spared(picture, {(HOSTS, TWO)}) == 1
    assert not picture.sparing
    assert picture.release(picture.count_spared() - 1) == 1
    assert current(picture).surplus == {TWO}
    assert picture.count_spared() == 1


def test_what_is_registered_by_now_explains_itself() -> None:
    picture = sparing(hosts(1), observed())
    picture.observe_elements(current(picture), {ONE, TWO})
    picture.add(hosts(2)[1])
    assert sort_spared(picture, set()) == 0


def test_elements_of_bindings_are_not_for_the_guard() -> None:
    bound = Mask(4, 32, source_bits=0)
    picture = Picture(DesiredSets())
    picture.sparing = True
    found = ObservedSet(set_name(bound, 0), 4, 1024, True, 1, picture.dead_man_s)
    picture.start_reading(TableReading(True, (found,), "seen", TAG))
    picture.observe_elements(picture.masks[bound].current, {ONE})
    assert picture.count_spared() == 1
    assert picture.found == {}
    assert sort_spared(picture, set()) == 0


def test_what_was_found_is_counted_once_and_not_what_came_since() -> None:
    picture = sparing(hosts(2), observed(count=None))
    picture.observe_elements(current(picture), {ONE, STRANGER})
    picture.observe_elements(current(picture), {ONE, TWO, STRANGER})
    assert picture.found == {"c4_32": 2}
    counted = sparing(hosts(2), observed(count=7))
    counted.observe_elements(current(counted), {ONE})
    assert counted.found == {"c4_32": 7}


def test_what_we_are_about_to_remove_is_not_spared() -> None:
    picture = sparing(hosts(2), observed())
    picture.observe_elements(current(picture), {ONE, TWO})
    picture.remove(hosts(2)[1])
    picture.observe_elements(current(picture), {ONE, TWO})
    assert current(picture).surplus == {TWO}


def test_the_largest_sets_are_looked_into_first() -> None:
    picture = Picture(DesiredSets())
    for number, length in enumerate((32, 24, 28)):
        state = SetState(f"c4_{length}", Mask(4, length), 0, (1024, 1024, 4096)[number], exists=True)
        picture.masks[Mask(4, length)] = MaskState(state)
    assert list(picture.hooks()) == [Mask(4, 28), Mask(4, 32), Mask(4, 24)]
