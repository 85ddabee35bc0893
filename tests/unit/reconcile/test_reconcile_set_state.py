"""Rules stop looking into a set only where nothing is lost by it."""

from __future__ import annotations

import pytest

from gatewayd.compile import DesiredSets, compile_bound
from gatewayd.model.mask import Mask
from gatewayd.model.transaction import AddElements, CreateSet, ObservedSet, RulesTag, TableReading, Transaction
from gatewayd.reconcile import Commit, PutRules, acknowledge, next_step
from gatewayd.reconcile.set_state import SetState
from gatewayd.reconcile.steps import Step
from gatewayd.reconcile.tracker import SetTracker
from tests.support.planes import TABLE
from tests.support.reconciling import Wanted, bound_at, hosts, policy, registered, subscribed

HOSTS = Mask(4, 32)
TAG = RulesTag(3, "policy", "digest")
REJECT = policy("reject")
OLD, NEW = registered("bank", "203.0.113.8/29"), registered("bank", "203.0.113.0/28")
BEA = subscribed("bea")
MOVES: list[tuple[Wanted, Wanted]] = [
    (OLD, NEW),
    (NEW, OLD),
    (bound_at(BEA, "100.64.0.9", (1024, 2047)), bound_at(BEA, "100.64.0.9", (1024, 3071))),
    (bound_at(BEA, "100.64.0.9"), bound_at(BEA, "2001:db8:64::/64")),
]


def in_force(*wanted: Wanted) -> SetTracker:
    """These are in the kernel and the rules look into their sets."""
    tracker = SetTracker(DesiredSets())
    for each in wanted:
        tracker.add(each)
    tracker.start_reading(TableReading(False))
    steps(tracker)
    return tracker


def steps(tracker: SetTracker) -> list[Step]:
    """All the steps there are to take, taken."""
    taken = []
    while (step := next_step(tracker, REJECT, TABLE)) is not None:
        acknowledge(tracker, step)
        taken.append(step)
    return taken


def names(tracker: SetTracker, wanted: Wanted) -> set[str]:
    """The sets that its elements are in."""
    return {tracker.masks[mask].current.name for mask in tracker.masks if mask in _masks(wanted)}


def _masks(wanted: Wanted) -> set[Mask]:
    sets = DesiredSets()
    sets.add(wanted)
    return set(sets.masks())


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_a_set_that_was_left_is_looked_into_until_what_took_over_is_there(old: Wanted, new: Wanted) -> None:
    tracker = in_force(old)
    left = names(tracker, old)
    tracker.add(new)
    tracker.remove(old)
    tracker.retire_unused()
    while (step := next_step(tracker, REJECT, TABLE)) is not None:
        if tracker.count_missing() and isinstance(step, PutRules):
            assert left <= step.ruleset.set_names
        acknowledge(tracker, step)
    assert not left & tracker.retired, "and goes then"
    assert set(tracker.rules.hooks.values()) == names(tracker, new)


def growing(*wanted: Wanted) -> tuple[SetTracker, SetState]:
    """The set of hosts is full, and its successor is whole; something else is missing, or soon."""
    tracker = in_force(*hosts(8))
    tracker.masks[HOSTS].current.capacity = 8
    for each in [*hosts(1, 9), *wanted]:
        tracker.add(each)
    tracker.grow_where_full()
    successor = tracker.masks[HOSTS].successor
    assert successor is not None
    acknowledge(tracker, Commit(Transaction((CreateSet(successor.name, HOSTS, successor.capacity),), "")))
    acknowledge(tracker, Commit(Transaction((AddElements(successor.name, sorted(successor.missing)),), "")))
    return tracker, successor


def test_a_successor_takes_over_early_where_it_has_all_that_its_set_has() -> None:
    tracker, successor = growing(NEW)
    assert not tracker.is_complete()
    assert tracker.hooks()[HOSTS] == successor.name


@pytest.mark.parametrize("unread", [True, False])
def test_a_set_with_more_than_its_successor_does_not_give_way_while_something_is_missing(unread: bool) -> None:
    """What it has more may be all that covers a flow whose new element is not there yet."""
    tracker, successor = growing(registered("host-1", "10.0.0.0/31"))
    if unread:
        tracker.masks[HOSTS].current.unread = 1
    else:
        tracker.remove(hosts(1)[0])
    assert tracker.hooks()[HOSTS] == "c4_32"
    steps(tracker)
    assert tracker.hooks()[HOSTS] == tracker.rules.hooks[HOSTS] == successor.name


def test_what_the_rules_look_into_stays_in_use_through_a_reading() -> None:
    """Of whichever mask, and however often the reading is cut short."""
    tracker = in_force(OLD)
    tracker.add(NEW)
    tracker.remove(OLD)
    found = (ObservedSet("c4_29", 4, 1024, True, 1), ObservedSet("c4_29_g1", 4, 1024, True, 0))
    for _ in range(2):
        tracker.start_reading(TableReading(True, found, "seen", TAG), frozenset(tracker.rules.hooks.values()))
        assert tracker.hooks()[Mask(4, 29)] == "c4_29"


def test_a_mask_with_an_element_that_nobody_read_is_not_retired() -> None:
    tracker = in_force(OLD)
    tracker.remove(OLD)
    steps(tracker)
    state = tracker.masks[Mask(4, 29)].current
    state.unread = 1
    assert not tracker.retire_unused()
    assert tracker.retiring
    state.unread = 0
    steps(tracker)
    assert tracker.masks == tracker.rules.hooks == {}


def test_a_set_with_another_time_is_followed_by_one_with_ours_and_what_is_retained_of_it_too() -> None:
    """After a change of subscribers.element_timeout and a loss of the journal nobody may lose his place."""
    retained = bound_at(BEA, "100.64.0.9")
    ((mask, key),) = compile_bound(retained)
    tracker = SetTracker(DesiredSets(), element_timeout_s=60)
    tracker.findings.retain()
    found = ObservedSet(str(mask), mask.key_length, 0, True, 1, 7200)
    ((state, _),) = tracker.start_reading(TableReading(True, (found,), "seen", TAG))
    tracker.observe_elements(state, {key})
    taken = steps(tracker)
    assert tracker.rules.hooks == {mask: f"{mask}_g1"}
    assert [type(step) for step in taken] == [Commit, Commit, PutRules, Commit], "create, add, rules, delete"
    assert tracker.holds(mask, key)


def test_of_several_sets_that_rules_unknown_may_look_into_all_are_retained() -> None:
    tracker = SetTracker(DesiredSets())
    tracker.findings.retain()
    one, two = (each.clients[0].packed for each in hosts(2))
    found = (ObservedSet("c4_32", 4, 8, True, 2), ObservedSet("c4_32_g1", 4, 1024, True, 1))
    for state, each in tracker.start_reading(TableReading(True, found, "seen", TAG)):
        tracker.observe_elements(state, {one, two} if each.name == "c4_32" else {one})
    steps(tracker)
    assert tracker.rules.hooks == {HOSTS: "c4_32_g1"}
    assert tracker.holds(HOSTS, two)
