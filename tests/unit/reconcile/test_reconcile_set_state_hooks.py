"""Rules stop looking into a set only where nothing is lost by it."""

from __future__ import annotations

import pytest

from gatewayd.compile import DesiredSets, compile_grant
from gatewayd.model.mask import Mask
from gatewayd.model.transaction import AddElements, CreateSet, ObservedSet, RulesTag, TableReading, Transaction
from gatewayd.reconcile import Commit, PutRules, acknowledge, next_step
from gatewayd.reconcile.picture import Picture
from gatewayd.reconcile.set_state import SetState
from gatewayd.reconcile.steps import Step
from tests.support.granting import Wanted, granted, subscribed
from tests.support.planes import TABLE
from tests.support.reconciling import hosts, policy, registered

HOSTS = Mask(4, 32)
TAG = RulesTag(3, "policy", "digest")
REJECT = policy("reject")
OLD, NEW = registered("bank", "203.0.113.8/29"), registered("bank", "203.0.113.0/28")
BEA = subscribed("bea")
MOVES: list[tuple[Wanted, Wanted]] = [
    (OLD, NEW),
    (NEW, OLD),
    (granted(BEA, "100.64.0.9", (1024, 2047)), granted(BEA, "100.64.0.9", (1024, 3071))),
    (granted(BEA, "100.64.0.9"), granted(BEA, "2001:db8:64::/64")),
]


def in_force(*wanted: Wanted) -> Picture:
    """These are in the kernel and the rules look into their sets."""
    picture = Picture(DesiredSets())
    for each in wanted:
        picture.add(each)
    picture.start_reading(TableReading(False))
    steps(picture)
    return picture


def steps(picture: Picture) -> list[Step]:
    """All the steps there are to take, taken."""
    taken = []
    while (step := next_step(picture, REJECT, TABLE)) is not None:
        acknowledge(picture, step)
        taken.append(step)
    return taken


def names(picture: Picture, wanted: Wanted) -> set[str]:
    """The sets that its elements are in."""
    return {picture.masks[mask].current.name for mask in picture.masks if mask in _masks(wanted)}


def _masks(wanted: Wanted) -> set[Mask]:
    sets = DesiredSets()
    sets.add(wanted)
    return set(sets.masks())


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_a_set_that_was_left_is_looked_into_until_what_took_over_is_there(old: Wanted, new: Wanted) -> None:
    picture = in_force(old)
    left = names(picture, old)
    picture.add(new)
    picture.remove(old)
    picture.retire_unused()
    while (step := next_step(picture, REJECT, TABLE)) is not None:
        if picture.count_missing() and isinstance(step, PutRules):
            assert left <= step.ruleset.set_names
        acknowledge(picture, step)
    assert not left & picture.retired, "and goes then"
    assert set(picture.in_force.values()) == names(picture, new)


def growing(*wanted: Wanted) -> tuple[Picture, SetState]:
    """The set of hosts is full, and its successor is whole; something else is missing, or soon."""
    picture = in_force(*hosts(8))
    picture.masks[HOSTS].current.capacity = 8
    for each in [*hosts(1, 9), *wanted]:
        picture.add(each)
    picture.grow_where_full()
    successor = picture.masks[HOSTS].successor
    assert successor is not None
    acknowledge(picture, Commit(Transaction((CreateSet(successor.name, HOSTS, successor.capacity),), "")))
    acknowledge(picture, Commit(Transaction((AddElements(successor.name, sorted(successor.missing)),), "")))
    return picture, successor


def test_a_successor_takes_over_early_where_it_has_all_that_its_set_has() -> None:
    picture, successor = growing(NEW)
    assert not picture.is_complete()
    assert picture.hooks()[HOSTS] == successor.name


@pytest.mark.parametrize("unread", [True, False])
def test_a_set_with_more_than_its_successor_does_not_give_way_while_something_is_missing(unread: bool) -> None:
    """What it has more may be all that covers a flow whose new element is not there yet."""
    picture, successor = growing(registered("host-1", "10.0.0.0/31"))
    if unread:
        picture.masks[HOSTS].current.unread = 1
    else:
        picture.remove(hosts(1)[0])
    assert picture.hooks()[HOSTS] == "c4_32"
    steps(picture)
    assert picture.hooks()[HOSTS] == picture.in_force[HOSTS] == successor.name


def test_what_the_rules_look_into_stays_in_use_through_a_reading() -> None:
    """Of whichever mask, and however often the reading is cut short."""
    picture = in_force(OLD)
    picture.add(NEW)
    picture.remove(OLD)
    found = (ObservedSet("c4_29", 4, 1024, True, 1), ObservedSet("c4_29_g1", 4, 1024, True, 0))
    for _ in range(2):
        picture.start_reading(TableReading(True, found, "seen", TAG), frozenset(picture.in_force.values()))
        assert picture.hooks()[Mask(4, 29)] == "c4_29"


def test_a_mask_with_an_element_that_nobody_read_is_not_retired() -> None:
    picture = in_force(OLD)
    picture.remove(OLD)
    steps(picture)
    state = picture.masks[Mask(4, 29)].current
    state.unread = 1
    assert not picture.retire_unused()
    assert picture.retiring
    state.unread = 0
    steps(picture)
    assert picture.masks == picture.in_force == {}


def test_a_set_with_another_time_is_followed_by_one_with_ours_and_what_is_spared_of_it_too() -> None:
    """After a change of subscribers.dead_man and a loss of the journal nobody may lose his place."""
    spared = granted(BEA, "100.64.0.9")
    ((mask, key),) = compile_grant(spared)
    picture = Picture(DesiredSets(), dead_man_s=60)
    picture.sparing = True
    found = ObservedSet(str(mask), mask.key_length, 0, True, 1, 7200)
    ((state, _),) = picture.start_reading(TableReading(True, (found,), "seen", TAG))
    picture.observe_elements(state, {key})
    taken = steps(picture)
    assert picture.in_force == {mask: f"{mask}_g1"}
    assert [type(step) for step in taken] == [Commit, Commit, PutRules, Commit], "create, add, rules, delete"
    assert picture.holds(mask, key)


def test_of_several_sets_that_rules_unknown_may_look_into_all_are_spared() -> None:
    picture = Picture(DesiredSets())
    picture.sparing = True
    one, two = (each.clients[0].packed for each in hosts(2))
    found = (ObservedSet("c4_32", 4, 8, True, 2), ObservedSet("c4_32_g1", 4, 1024, True, 1))
    for state, each in picture.start_reading(TableReading(True, found, "seen", TAG)):
        picture.observe_elements(state, {one, two} if each.name == "c4_32" else {one})
    steps(picture)
    assert picture.in_force == {HOSTS: "c4_32_g1"}
    assert picture.holds(HOSTS, two)
