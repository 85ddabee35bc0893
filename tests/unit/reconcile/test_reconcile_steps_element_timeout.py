"""When elements of bindings are asserted again, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.compile.desired import DesiredSets, elements_of
from gatewayd.model.mask import Mask
from gatewayd.model.registration import BoundRegistration
from gatewayd.model.transaction import ObservedSet, RefreshElements, TableReading
from gatewayd.reconcile import Commit, steps
from gatewayd.reconcile.steps import ROUNDS, ElementTimeout, acknowledge, next_step
from gatewayd.reconcile.tracker import SetTracker
from tests.support.planes import TABLE
from tests.support.reconciling import bound_at, bound_hosts, hosts, subscribed

BOUND = Mask(4, 32, source_bits=0)
ELEMENT_TIMEOUT_S = 300
PERIOD_S = ELEMENT_TIMEOUT_S / ROUNDS
PIECE = 4
unhurried = settings(deadline=None)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PIECE", PIECE)


def put_all(tracker: SetTracker) -> None:
    """As the reconciler does, without rules."""
    while (step := next_step(tracker, None, TABLE)) is not None:
        acknowledge(tracker, step)


def tracker_of(bound_registrations: list[BoundRegistration]) -> SetTracker:
    tracker = SetTracker(DesiredSets(), ELEMENT_TIMEOUT_S)
    for each in bound_registrations:
        tracker.add(each)
    tracker.start_reading(TableReading(True))
    put_all(tracker)
    return tracker


def watch(
    bound_registrations: list[BoundRegistration], spread: Callable[[], float] = lambda: 0.5
) -> tuple[SetTracker, ElementTimeout]:
    tracker = tracker_of(bound_registrations)
    return tracker, ElementTimeout(tracker, spread=spread)


def keys_of(step: Commit) -> list[bytes]:
    (operation,) = step.transaction.operations
    assert isinstance(operation, RefreshElements)
    return list(operation.keys)


def pieces_at(watched: ElementTimeout, now: float) -> list[list[bytes]]:
    """All that is due now."""
    pieces = []
    while (step := watched.next_piece(now)) is not None:
        pieces.append(keys_of(step))
    return pieces


def first_round(watched: ElementTimeout) -> None:
    pieces_at(watched, 0.0)


def wanted(bound_registrations: list[BoundRegistration]) -> list[bytes]:
    return sorted(key for each in bound_registrations for _, key in elements_of(each))


def times_of_round(watched: ElementTimeout, start: int, end: int) -> dict[int, list[bytes]]:
    """What was asserted at which second."""
    return {now: keys for now in range(start, end) for keys in pieces_at(watched, float(now))}


def test_the_first_round_is_at_once_in_pieces_and_has_each_element_once() -> None:
    bound_registrations = bound_hosts(10)
    _, watched = watch(bound_registrations)
    assert watched.is_first
    pieces = pieces_at(watched, 7.0)
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert sorted(key for piece in pieces for key in piece) == wanted(bound_registrations)
    assert (watched.is_first, watched.refreshed) == (False, 10)


def test_a_piece_says_which_set_and_why() -> None:
    _, watched = watch(bound_hosts(1))
    step = watched.next_piece(0.0)
    assert step is not None
    assert step.transaction.cause == "refresh bindings"
    assert step.transaction.operations == (RefreshElements("b4_32", wanted(bound_hosts(1))),)


@pytest.mark.parametrize(("spread", "begins"), [(0.0, 100), (0.5, 88), (1.0, 75)])
def test_the_next_round_begins_within_a_third_of_the_element_timeout(spread: float, begins: int) -> None:
    _, watched = watch(bound_hosts(3), lambda: spread)
    first_round(watched)
    assert min(times_of_round(watched, 1, 200)) == begins


def test_later_rounds_come_with_pauses_between_their_pieces() -> None:
    bound_registrations = bound_hosts(5 * PIECE)
    _, watched = watch(bound_registrations)
    first_round(watched)
    times = times_of_round(watched, 1, 150)
    assert list(times) == [88, 98, 108, 118, 128]
    assert sorted(key for keys in times.values() for key in keys) == wanted(bound_registrations)


def test_pauses_are_not_even() -> None:
    random = Random(3)
    _, watched = watch(bound_hosts(10 * PIECE), random.random)
    first_round(watched)
    times = sorted(times_of_round(watched, 1, 160))
    pauses = {later - earlier for earlier, later in pairwise(times)}
    assert len(pauses) > 3
    assert max(pauses) <= PERIOD_S / 20 * 1.5 + 1


def test_where_nothing_is_there_is_nothing_to_assert_and_what_comes_later_is() -> None:
    tracker, watched = watch([])
    assert [watched.next_piece(float(now)) for now in range(500)] == [None] * 500
    assert not watched.is_first
    bound_registrations = bound_hosts(3)
    for each in bound_registrations:
        tracker.add(each)
    put_all(tracker)
    times = times_of_round(watched, 500, 500 + int(PERIOD_S) + 1)
    assert sorted(key for keys in times.values() for key in keys) == wanted(bound_registrations)


def test_elements_of_clients_are_left_alone() -> None:
    tracker = tracker_of(bound_hosts(2))
    for registration in hosts(5):
        tracker.add(registration)
    put_all(tracker)
    watched = ElementTimeout(tracker, spread=lambda: 0.5)
    assert [sorted(piece) for piece in pieces_at(watched, 0.0)] == [wanted(bound_hosts(2))]


def test_what_is_not_in_the_kernel_yet_or_not_wanted_any_more_is_not_asserted() -> None:
    bound_registrations = bound_hosts(6)
    tracker, watched = watch(bound_registrations)
    assert watched.next_piece(0.0) is not None
    tracker.remove(bound_registrations[0])
    tracker.remove(bound_registrations[5])
    late = bound_hosts(1, 200)
    tracker.add(late[0])
    rest = [key for piece in pieces_at(watched, 0.0) for key in piece]
    assert not set(rest) & set(wanted([bound_registrations[0], bound_registrations[5], *late]))


def test_all_kinds_of_sets_of_bindings_have_their_turn() -> None:
    bound_registrations = [
        *bound_hosts(2),
        bound_at(subscribed("sub-7", services=["ipsec"]), "100.64.9.9", (1024, 2047)),
        bound_at(subscribed("sub-8"), "2001:db8::/56"),
    ]
    _, watched = watch(bound_registrations)
    assert sorted(key for piece in pieces_at(watched, 0.0) for key in piece) == wanted(bound_registrations)


def test_after_a_failure_a_round_is_at_once() -> None:
    bound_registrations = bound_hosts(9)
    _, watched = watch(bound_registrations)
    first_round(watched)
    assert watched.next_piece(1.0) is None
    watched.start_over()
    assert watched.is_first
    assert sorted(key for piece in pieces_at(watched, 1.0) for key in piece) == wanted(bound_registrations)
    assert not watched.is_first


@pytest.mark.parametrize("later", [False, True], ids=["in the first round", "in a later round"])
def test_where_all_was_read_anew_in_the_middle_a_round_is_at_once(later: bool) -> None:
    bound_registrations = bound_hosts(10)
    tracker, watched = watch(bound_registrations)
    now = 0.0
    if later:
        first_round(watched)
        now = PERIOD_S
    assert watched.next_piece(now) is not None
    ((state, _),) = tracker.start_reading(
        TableReading(True, (ObservedSet("b4_32", 4, 0, True, 10, ELEMENT_TIMEOUT_S),))
    )
    tracker.observe_elements(state, wanted(bound_registrations))
    now += 60.0
    assert sorted(key for piece in pieces_at(watched, now) for key in piece) == wanted(bound_registrations)


def test_a_mask_that_goes_in_the_middle_of_a_round_harms_nothing() -> None:
    bound_registrations = bound_hosts(10)
    tracker, watched = watch(bound_registrations)
    assert watched.next_piece(0.0) is not None
    for each in bound_registrations:
        tracker.remove(each)
    state = tracker.masks[BOUND].current
    tracker.removed(state, list(state.surplus))
    tracker.retire_unused()
    assert pieces_at(watched, 0.0) == []
    assert BOUND not in tracker.desired


def test_a_round_of_many_more_pieces_than_it_began_with_still_ends_in_time() -> None:
    bound_registrations = bound_hosts(3 * PIECE)
    tracker, watched = watch(bound_registrations, lambda: 1.0)
    first_round(watched)
    begun = int(PERIOD_S * 3 / 4)
    (first,) = pieces_at(watched, float(begun))
    for each in bound_hosts(400, 100):
        tracker.add(each)
    put_all(tracker)
    asserted = set(first)
    for now in range(begun + 1, begun + int(PERIOD_S) + 1):
        asserted.update(key for piece in pieces_at(watched, float(now)) for key in piece)
    assert asserted >= set(wanted(bound_registrations))


def test_after_a_halt_all_that_is_overdue_comes_at_once() -> None:
    bound_registrations = bound_hosts(20)
    _, watched = watch(bound_registrations)
    first_round(watched)
    assert len(pieces_at(watched, PERIOD_S)) == 1
    rest = [key for piece in pieces_at(watched, 10 * ELEMENT_TIMEOUT_S) for key in piece]
    assert len(rest) == 16
    again = times_of_round(watched, 10 * ELEMENT_TIMEOUT_S, 10 * ELEMENT_TIMEOUT_S + 80)
    assert sorted(key for keys in again.values() for key in keys) == wanted(bound_registrations)


@unhurried
@given(st.integers(0, 2**32), st.integers(0, 40), st.sampled_from(["", "0", "1", "01", "0r"]))
def test_whatever_the_spread_no_element_is_older_than_two_thirds_of_the_element_timeout(
    seed: int, count: int, extremes: str
) -> None:
    """Bindings come and go by ones and in bursts, and at times all is read anew."""
    random = Random(seed)
    draws = {"0": lambda: 0.0, "1": lambda: 1.0, "r": random.random}

    def spread() -> float:
        return draws[random.choice(extremes or "r")]()

    held = {each.registration.id: each for each in bound_hosts(count)}
    retain = {each.registration.id: each for each in bound_hosts(120 - count, count + 1)}
    tracker, watched = watch(list(held.values()), spread)
    asserted_at = dict.fromkeys(wanted(list(held.values())), 0.0)
    for now in range(4 * ELEMENT_TIMEOUT_S):
        for _ in range(random.choice((0,) * 12 + (1, 1, 30))):
            if retain and random.random() < 0.6:
                name, each = retain.popitem()
                held[name] = each
                tracker.add(each)
                asserted_at[elements_of(each)[0][1]] = now
            elif held:
                name = random.choice(list(held))
                retain[name] = held.pop(name)
                tracker.remove(retain[name])
                del asserted_at[elements_of(retain[name])[0][1]]
        put_all(tracker)
        if random.random() < 0.005 and BOUND in tracker.masks:
            found = ObservedSet("b4_32", 4, 0, True, len(held), ELEMENT_TIMEOUT_S)
            for state, _ in tracker.start_reading(TableReading(True, (found,))):
                tracker.observe_elements(state, wanted(list(held.values())))
            put_all(tracker)
        for piece in pieces_at(watched, float(now)):
            assert asserted_at.keys() >= set(piece)
            asserted_at.update(dict.fromkeys(piece, now))
        oldest = min(asserted_at.values(), default=now)
        assert now - oldest <= ELEMENT_TIMEOUT_S * 2 / ROUNDS + 2


def test_a_piece_of_which_nothing_is_wanted_any_more_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PIECE", 1)
    bound_registrations = bound_hosts(2000)
    tracker = tracker_of(bound_registrations)
    put_all(tracker)
    watched = ElementTimeout(tracker, spread=lambda: 0.5)
    step = watched.next_piece(0.0)
    assert step is not None
    (kept,) = keys_of(step)
    for each in bound_registrations:
        if each.prefix.packed != kept:
            tracker.remove(each)
    assert watched.next_piece(0.0) is None
    assert watched.refreshed == 1
