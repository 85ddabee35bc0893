"""Elements that a start finds and nothing desires: retained until they are released, or of a former form."""

from __future__ import annotations

import pytest

from gatewayd.compile.desired import DesiredSets
from gatewayd.model.mask import Mask, set_name
from gatewayd.model.registration import Registration
from gatewayd.model.transaction import ObservedSet, RulesTag, TableReading
from gatewayd.reconcile.set_state import MaskState, SetState
from gatewayd.reconcile.tracker import SetTracker
from tests.support.reconciling import hosts, registered

HOSTS = Mask(4, 32)
ONE, TWO, THREE = (registration.clients[0].packed for registration in hosts(3))
STRANGER = bytes((192, 0, 2, 99))
TAG = RulesTag(3, "policy", "digest")


def observed(name: str = "c4_32", capacity: int = 1024, count: int | None = None) -> ObservedSet:
    return ObservedSet(name, 4, capacity, True, count)


def current(tracker: SetTracker) -> SetState:
    return tracker.masks[HOSTS].current


def retaining(registrations: list[Registration], *sets: ObservedSet) -> SetTracker:
    tracker = SetTracker(DesiredSets())
    tracker.findings.retain()
    for registration in registrations:
        tracker.add(registration)
    tracker.start_reading(TableReading(True, sets, "seen", TAG))
    return tracker


def test_what_is_found_and_not_desired_is_kept_until_it_is_released() -> None:
    tracker = retaining(hosts(1), observed())
    assert tracker.observe_elements(current(tracker), {ONE, STRANGER}) == 0
    assert (tracker.count_surplus(), tracker.count_missing()) == (0, 2)  # nothing is known to be looked into yet
    assert tracker.expected_count(current(tracker)) == 2
    assert tracker.release(10) == 1
    assert current(tracker).surplus == {STRANGER}
    assert tracker.release(10) == 0


def test_what_is_retained_and_registered_after_all_never_goes() -> None:
    tracker = retaining(hosts(1), observed())
    tracker.observe_elements(current(tracker), {ONE, TWO})
    (_, late) = hosts(2)
    tracker.add(late)
    assert tracker.release(10) == 1
    assert (current(tracker).surplus, current(tracker).missing) == (set(), set())
    tracker.remove(late)
    assert current(tracker).surplus == {TWO}


def test_a_set_of_a_mask_that_nobody_needs_is_looked_into_while_it_is_retained() -> None:
    nets = Mask(4, 24)
    tracker = retaining(hosts(1), observed(), observed("c4_24"))
    tracker.observe_elements(tracker.masks[nets].current, {STRANGER})
    assert tracker.hooks()[nets] == "c4_24"
    assert not tracker.retired
    tracker.release(10)
    assert tracker.hooks()[nets] == "c4_24", "until it is empty"
    tracker.removed(tracker.masks[nets].current, [STRANGER])
    tracker.added(current(tracker), [ONE])
    assert tracker.retiring
    tracker.retire_unused()
    assert tracker.retired == {"c4_24"}
    assert nets not in tracker.hooks()


def test_no_bound_of_masks_keeps_what_is_in_force_from_being_retained() -> None:
    tracker = SetTracker(DesiredSets(max_masks=1))
    tracker.findings.retain()
    tracker.add(*hosts(1))
    tracker.start_reading(TableReading(True, (observed(), observed("c4_24")), "seen", TAG))
    assert tracker.retired == set()
    assert Mask(4, 24) in tracker.masks


# -- past a bound ------------------------------------------------------------------------------------------


def test_what_is_retained_of_a_registration_past_a_bound_is_not_released() -> None:
    tracker = SetTracker(DesiredSets(max_masks=1, protected_masks=0))
    tracker.findings.retain()
    tracker.desired.reserve([HOSTS])
    new = registered("bank", "10.0.0.0/31", services=["esp"])
    tracker.add(new)
    tracker.start_reading(TableReading(True, (observed(count=2),), "seen", TAG))
    tracker.observe_elements(current(tracker), {ONE, STRANGER})
    assert tracker.release(10) == 2
    assert current(tracker).surplus == {STRANGER}
    assert tracker.desired.in_former_form() == ["bank"]
    tracker.remove(new)
    assert current(tracker).surplus == {ONE, STRANGER}


@pytest.mark.parametrize("at_start", [True, False])
def test_a_form_past_a_bound_leaves_the_former_one_in_force_in_this_life_and_the_next(at_start: bool) -> None:
    old, new = registered("bank", "10.0.0.1"), registered("bank", "10.0.0.0/31", services=["esp"])
    tracker = SetTracker(DesiredSets(max_masks=1, protected_masks=0))
    if at_start:
        tracker.desired.reserve([HOSTS])
    else:
        tracker.add(old)
    tracker.add(new)
    if not at_start:
        tracker.remove(old)
    tracker.start_reading(TableReading(True, (observed(count=2),), "seen", TAG))
    tracker.observe_elements(current(tracker), {ONE, STRANGER})
    assert (current(tracker).missing, current(tracker).surplus) == (set(), {STRANGER})
    assert tracker.desired.in_former_form() == ["bank"]
    tracker.remove(new)
    assert current(tracker).surplus == {ONE, STRANGER}


def test_a_former_form_goes_when_masks_given_up_make_room_for_the_present_one() -> None:
    nets = Mask(4, 24)
    tracker = SetTracker(DesiredSets(max_masks=2, protected_masks=0))
    tracker.start_reading(TableReading(True))
    other, old, new = registered("n", "10.1.0.0/24"), registered("b", "10.0.0.1"), registered("b", "10.0.0.0/31")
    for each in (other, old, new):
        tracker.add(each)
    tracker.remove(old)
    tracker.start_reading(TableReading(True))
    tracker.remove(other)
    for state in tracker.set_states():
        tracker.added(state, list(state.missing))
        tracker.removed(state, list(state.surplus))
    assert tracker.retire_unused()
    assert nets not in tracker.desired
    assert tracker.masks[HOSTS].current.surplus == {ONE}
    assert tracker.desired.in_former_form() == []


def test_what_is_retained_goes_into_a_successor_too() -> None:
    tracker = retaining(hosts(1), observed(), observed("c4_32_g1"))
    state = tracker.masks[HOSTS]
    tracker.masks[HOSTS] = MaskState(SetState("c4_32", HOSTS, 0, 1024, exists=True), state.current)
    tracker.observe_elements(current(tracker), {ONE, STRANGER})
    assert STRANGER in tracker.masks[HOSTS].newest.missing


def sort_retained(tracker: SetTracker, explained: set[tuple[Mask, bytes]]) -> int:
    slices = tracker.findings.sort_retained_in_slices(explained)
    while True:
        try:
            next(slices)
        except StopIteration as end:
            return int(end.value)


def test_what_nothing_explains_is_released_last() -> None:
    tracker = retaining(hosts(1), observed())
    tracker.observe_elements(current(tracker), {ONE, TWO, STRANGER})
    assert sort_retained(tracker, {(HOSTS, TWO)}) == 1
    assert not tracker.findings.retaining
    assert tracker.release(tracker.findings.count_retained() - 1) == 1
    assert current(tracker).surplus == {TWO}
    assert tracker.findings.count_retained() == 1


def test_what_is_registered_by_now_explains_itself() -> None:
    tracker = retaining(hosts(1), observed())
    tracker.observe_elements(current(tracker), {ONE, TWO})
    tracker.add(hosts(2)[1])
    assert sort_retained(tracker, set()) == 0


def test_elements_of_bindings_are_not_for_the_guard() -> None:
    bound = Mask(4, 32, source_bits=0)
    tracker = SetTracker(DesiredSets())
    tracker.findings.retain()
    found = ObservedSet(set_name(bound, 0), 4, 1024, True, 1, tracker.element_timeout_s)
    tracker.start_reading(TableReading(True, (found,), "seen", TAG))
    tracker.observe_elements(tracker.masks[bound].current, {ONE})
    assert tracker.findings.count_retained() == 1
    assert tracker.findings.count() == 0
    assert sort_retained(tracker, set()) == 0


def test_what_was_found_is_counted_once_and_not_what_came_since() -> None:
    tracker = retaining(hosts(2), observed(count=None))
    tracker.observe_elements(current(tracker), {ONE, STRANGER})
    tracker.observe_elements(current(tracker), {ONE, TWO, STRANGER})
    assert tracker.findings.count() == 2
    counted = retaining(hosts(2), observed(count=7))
    counted.observe_elements(current(counted), {ONE})
    assert counted.findings.count() == 7


def test_what_we_are_about_to_remove_is_not_retained() -> None:
    tracker = retaining(hosts(2), observed())
    tracker.observe_elements(current(tracker), {ONE, TWO})
    tracker.remove(hosts(2)[1])
    tracker.observe_elements(current(tracker), {ONE, TWO})
    assert current(tracker).surplus == {TWO}
