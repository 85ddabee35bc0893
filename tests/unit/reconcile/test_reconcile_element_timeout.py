"""When elements of bindings are asserted again, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.compile.desired import DesiredSets, elements_of
from gatewayd.model.binding import Grant
from gatewayd.model.mask import Mask
from gatewayd.model.transaction import ObservedSet, RefreshElements, TableReading, Transaction
from gatewayd.reconcile import element_timeout as dead_man
from gatewayd.reconcile.element_timeout import ROUNDS, DeadMan
from gatewayd.reconcile.picture import Picture
from gatewayd.reconcile.steps import acknowledge, next_step
from tests.support.granting import bound_hosts, granted, subscribed
from tests.support.planes import TABLE
from tests.support.reconciling import hosts

BOUND = Mask(4, 32, source_bits=0)
DEAD_MAN_S = 300
PERIOD_S = DEAD_MAN_S / ROUNDS
PIECE = 4
unhurried = settings(deadline=None)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_man, "PIECE", PIECE)


def put_all(picture: Picture) -> None:
    """As the reconciler does, without rules."""
    while (step := next_step(picture, None, TABLE)) is not None:
        acknowledge(picture, step)


def picture_of(grants: list[Grant]) -> Picture:
    picture = Picture(DesiredSets(), DEAD_MAN_S)
    for each in grants:
        picture.add(each)
    picture.start_reading(TableReading(True))
    put_all(picture)
    return picture


def watch(grants: list[Grant], spread: Callable[[], float] = lambda: 0.5) -> tuple[Picture, DeadMan]:
    picture = picture_of(grants)
    return picture, DeadMan(picture, spread=spread)


def keys_of(transaction: Transaction | None) -> list[bytes]:
    assert transaction is not None
    (operation,) = transaction.operations
    assert isinstance(operation, RefreshElements)
    return list(operation.keys)


def pieces_at(watched: DeadMan, now: float) -> list[list[bytes]]:
    """All that is due now."""
    pieces = []
    while (transaction := watched.next_piece(now)) is not None:
        pieces.append(keys_of(transaction))
    return pieces


def first_round(watched: DeadMan) -> None:
    pieces_at(watched, 0.0)


def wanted(grants: list[Grant]) -> list[bytes]:
    return sorted(key for each in grants for _, key in elements_of(each))


def times_of_round(watched: DeadMan, start: int, end: int) -> dict[int, list[bytes]]:
    """What was asserted at which second."""
    return {now: keys for now in range(start, end) for keys in pieces_at(watched, float(now))}


def test_the_first_round_is_at_once_in_pieces_and_has_each_element_once() -> None:
    grants = bound_hosts(10)
    _, watched = watch(grants)
    assert watched.is_first
    pieces = pieces_at(watched, 7.0)
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert sorted(key for piece in pieces for key in piece) == wanted(grants)
    assert (watched.is_first, watched.refreshed) == (False, 10)


def test_a_piece_says_which_set_and_why() -> None:
    _, watched = watch(bound_hosts(1))
    transaction = watched.next_piece(0.0)
    assert transaction is not None
    assert transaction.cause == "refresh bindings"
    assert transaction.operations == (RefreshElements("b4_32", wanted(bound_hosts(1))),)


@pytest.mark.parametrize(("spread", "begins"), [(0.0, 100), (0.5, 88), (1.0, 75)])
def test_the_next_round_begins_within_a_third_of_the_dead_man_time(spread: float, begins: int) -> None:
    _, watched = watch(bound_hosts(3), lambda: spread)
    first_round(watched)
    assert min(times_of_round(watched, 1, 200)) == begins


def test_later_rounds_come_with_pauses_between_their_pieces() -> None:
    grants = bound_hosts(5 * PIECE)
    _, watched = watch(grants)
    first_round(watched)
    times = times_of_round(watched, 1, 150)
    assert list(times) == [88, 98, 108, 118, 128]
    assert sorted(key for keys in times.values() for key in keys) == wanted(grants)


def test_pauses_are_not_even() -> None:
    random = Random(3)
    _, watched = watch(bound_hosts(10 * PIECE), random.random)
    first_round(watched)
    times = sorted(times_of_round(watched, 1, 160))
    pauses = {later - earlier for earlier, later in pairwise(times)}
    assert len(pauses) > 3
    assert max(pauses) <= PERIOD_S / 20 * 1.5 + 1


def test_where_nothing_is_there_is_nothing_to_assert_and_what_comes_later_is() -> None:
    picture, watched = watch([])
    assert [watched.next_piece(float(now)) for now in range(500)] == [None] * 500
    assert not watched.is_first
    grants = bound_hosts(3)
    for each in grants:
        picture.add(each)
    put_all(picture)
    times = times_of_round(watched, 500, 500 + int(PERIOD_S) + 1)
    assert sorted(key for keys in times.values() for key in keys) == wanted(grants)


def test_elements_of_clients_are_left_alone() -> None:
    picture = picture_of(bound_hosts(2))
    for registration in hosts(5):
        picture.add(registration)
    put_all(picture)
    watched = DeadMan(picture, spread=lambda: 0.5)
    assert [sorted(piece) for piece in pieces_at(watched, 0.0)] == [wanted(bound_hosts(2))]


def test_what_is_not_in_the_kernel_yet_or_not_wanted_any_more_is_not_asserted() -> None:
    grants = bound_hosts(6)
    picture, watched = watch(grants)
    assert watched.next_piece(0.0) is not None
    picture.remove(grants[0])
    picture.remove(grants[5])
    late = bound_hosts(1, 200)
    picture.add(late[0])
    rest = [key for piece in pieces_at(watched, 0.0) for key in piece]
    assert not set(rest) & set(wanted([grants[0], grants[5], *late]))


def test_all_kinds_of_sets_of_bindings_have_their_turn() -> None:
    grants = [
        *bound_hosts(2),
        granted(subscribed("sub-7", services=["ipsec"]), "100.64.9.9", (1024, 2047)),
        granted(subscribed("sub-8"), "2001:db8::/56"),
    ]
    _, watched = watch(grants)
    assert sorted(key for piece in pieces_at(watched, 0.0) for key in piece) == wanted(grants)


def test_after_a_failure_a_round_is_at_once() -> None:
    grants = bound_hosts(9)
    _, watched = watch(grants)
    first_round(watched)
    assert watched.next_piece(1.0) is None
    watched.start_over()
    assert watched.is_first
    assert sorted(key for piece in pieces_at(watched, 1.0) for key in piece) == wanted(grants)
    assert not watched.is_first


@pytest.mark.parametrize("later", [False, True], ids=["in the first round", "in a later round"])
def test_where_all_was_read_anew_in_the_middle_a_round_is_at_once(later: bool) -> None:
    grants = bound_hosts(10)
    picture, watched = watch(grants)
    now = 0.0
    if later:
        first_round(watched)
        now = PERIOD_S
    assert watched.next_piece(now) is not None
    ((state, _),) = picture.start_reading(TableReading(True, (ObservedSet("b4_32", 4, 0, True, 10, DEAD_MAN_S),)))
    picture.observe_elements(state, wanted(grants))
    now += 60.0
    assert sorted(key for piece in pieces_at(watched, now) for key in piece) == wanted(grants)


def test_a_mask_that_goes_in_the_middle_of_a_round_harms_nothing() -> None:
    grants = bound_hosts(10)
    picture, watched = watch(grants)
    assert watched.next_piece(0.0) is not None
    for each in grants:
        picture.remove(each)
    state = picture.masks[BOUND].current
    picture.removed(state, list(state.surplus))
    picture.retire_unused()
    assert pieces_at(watched, 0.0) == []
    assert BOUND not in picture.desired


def test_a_round_of_many_more_pieces_than_it_began_with_still_ends_in_time() -> None:
    grants = bound_hosts(3 * PIECE)
    picture, watched = watch(grants, lambda: 1.0)
    first_round(watched)
    begun = int(PERIOD_S * 3 / 4)
    (first,) = pieces_at(watched, float(begun))
    for each in bound_hosts(400, 100):
        picture.add(each)
    put_all(picture)
    asserted = set(first)
    for now in range(begun + 1, begun + int(PERIOD_S) + 1):
        asserted.update(key for piece in pieces_at(watched, float(now)) for key in piece)
    assert asserted >= set(wanted(grants))


def test_after_a_halt_all_that_is_overdue_comes_at_once() -> None:
    grants = bound_hosts(20)
    _, watched = watch(grants)
    first_round(watched)
    assert len(pieces_at(watched, PERIOD_S)) == 1
    rest = [key for piece in pieces_at(watched, 10 * DEAD_MAN_S) for key in piece]
    assert len(rest) == 16
    again = times_of_round(watched, 10 * DEAD_MAN_S, 10 * DEAD_MAN_S + 80)
    assert sorted(key for keys in again.values() for key in keys) == wanted(grants)


@unhurried
@given(st.integers(0, 2**32), st.integers(0, 40), st.sampled_from(["", "0", "1", "01", "0r"]))
def test_whatever_the_spread_no_element_is_older_than_two_thirds_of_the_dead_man_time(
    seed: int, count: int, extremes: str
) -> None:
    """Bindings come and go by ones and in bursts, and at times all is read anew."""
    random = Random(seed)
    draws = {"0": lambda: 0.0, "1": lambda: 1.0, "r": random.random}

    def spread() -> float:
        return draws[random.choice(extremes or "r")]()

    held = {each.registration.id: each for each in bound_hosts(count)}
    spare = {each.registration.id: each for each in bound_hosts(120 - count, count + 1)}
    picture, watched = watch(list(held.values()), spread)
    asserted_at = dict.fromkeys(wanted(list(held.values())), 0.0)
    for now in range(4 * DEAD_MAN_S):
        for _ in range(random.choice((0,) * 12 + (1, 1, 30))):
            if spare and random.random() < 0.6:
                name, each = spare.popitem()
                held[name] = each
                picture.add(each)
                asserted_at[elements_of(each)[0][1]] = now
            elif held:
                name = random.choice(list(held))
                spare[name] = held.pop(name)
                picture.remove(spare[name])
                del asserted_at[elements_of(spare[name])[0][1]]
        put_all(picture)
        if random.random() < 0.005 and BOUND in picture.masks:
            found = ObservedSet("b4_32", 4, 0, True, len(held), DEAD_MAN_S)
            for state, _ in picture.start_reading(TableReading(True, (found,))):
                picture.observe_elements(state, wanted(list(held.values())))
            put_all(picture)
        for piece in pieces_at(watched, float(now)):
            assert asserted_at.keys() >= set(piece)
            asserted_at.update(dict.fromkeys(piece, now))
        oldest = min(asserted_at.values(), default=now)
        assert now - oldest <= DEAD_MAN_S * 2 / ROUNDS + 2
