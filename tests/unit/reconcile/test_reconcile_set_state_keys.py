"""One set of the kernel: its room, and what happens to its keys."""

from __future__ import annotations

import pytest

from gatewayd.compile.keys import Keys, MissingKeys
from gatewayd.model.mask import Mask
from gatewayd.model.transaction import ObservedSet, RulesTag, TableReading
from gatewayd.reconcile import set_state
from gatewayd.reconcile.set_state import MIN_CAPACITY, KnownRules, SetState, choose_capacity, known_pieces

HOSTS = Mask(4, 32)
ONE, TWO, STRANGER = (bytes((10, 0, 0, number)) for number in (1, 2, 99))
TAG = RulesTag(3, "policy", "digest")


@pytest.mark.parametrize(
    ("count", "capacity"),
    [
        (0, 1024), (1, 1024), (512, 1024), (513, 2048), (1024, 2048), (1025, 4096), (1_000_000, 1 << 21),
    ],
)  # fmt: skip
def test_a_new_set_has_room_for_twice_its_elements(count: int, capacity: int) -> None:
    assert choose_capacity(Mask(4, 32), count) == capacity
    assert choose_capacity(Mask(4, 32, source_bits=0), count) == 0
    assert capacity >= max(MIN_CAPACITY, 2 * count)


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
    absent = Keys(bytes((0, number)) for number in range(missing))
    strange = Keys(bytes((1, number)) for number in range(surplus))
    state = SetState(
        "c4_32", HOSTS, 0, capacity, missing=MissingKeys(absent, whole=True), surplus=strange, unread=unread
    )
    assert state.has_room(desired, more) == room


@pytest.mark.parametrize(
    ("key", "present", "counts", "missing", "surplus"),
    [
        (ONE, False, True, {ONE, TWO}, set()),
        (TWO, False, False, {TWO}, set()),
        (TWO, True, False, {TWO}, set()),
        (STRANGER, True, True, {TWO}, {STRANGER}),
        (STRANGER, False, False, {TWO}, set()),
    ],
)
def test_a_change_of_others_counts_where_it_is_to_be_put_right(
    key: bytes, present: bool, counts: bool, missing: set[bytes], surplus: set[bytes]
) -> None:
    wanted = Keys([ONE, TWO])
    state = SetState("c4_32", HOSTS, 0, 0, exists=True, missing=MissingKeys(wanted))
    state.missing.add(TWO)
    assert state.changed(key, wanted, present=present) == counts
    assert (state.missing, state.surplus) == (missing, surplus)


def test_acknowledged_keys_are_there_or_gone_whatever_is_desired_by_then() -> None:
    wanted = Keys([ONE])
    state = SetState("c4_32", HOSTS, 0, 0, exists=True, missing=MissingKeys(wanted, whole=True))
    state.added([ONE, STRANGER], wanted)
    assert (state.missing, state.surplus) == (set(), {STRANGER})
    assert list(known_pieces(state, wanted, 10)) == [[ONE]]
    state.removed([ONE, STRANGER], wanted)
    assert (state.missing, state.surplus) == ({ONE}, set())
    assert list(known_pieces(state, wanted, 10)) == []


@pytest.mark.parametrize("mask", [HOSTS, Mask(4, 32, source_bits=0)])
def test_a_surplus_key_that_is_desired_again_is_there_unless_it_may_be_about_to_go(mask: Mask) -> None:
    wanted = Keys([ONE])
    state = SetState(str(mask), mask, 0, 0, exists=True, missing=MissingKeys(wanted), surplus=Keys([ONE]))
    state.desire(ONE)
    assert state.surplus == set()
    assert state.missing == ({ONE} if mask.is_bound else set())


def test_rules_are_known_by_how_the_kernel_lists_them() -> None:
    rules = KnownRules()
    listed = TableReading(True, (), "listed", TAG)
    assert not rules.differ(listed)
    rules.put({"c4_32"}, "text", TAG)
    assert rules.hooks == {HOSTS: "c4_32"}
    rules.recognise(TableReading(True, (), "listed", None))
    assert rules.fingerprint == ""
    rules.recognise(listed)
    assert not rules.differ(listed)
    assert rules.differ(TableReading(True, (), "edited", TAG))
    rules.see_fingerprint("")
    assert rules.differ(listed)
    rules.forget(None)
    assert (rules.text, rules.hooks, rules.tag, rules.last_tag) == (None, {}, None, TAG)


def test_what_is_not_known_by_its_keys_may_be_surplus() -> None:
    state = SetState("c4_32", HOSTS, 0, 0)
    assert not state.may_have_surplus
    state.note_unread(3)
    assert state.may_have_surplus
    assert compare(state, Keys([ONE]), Keys([TWO])) == 0, "what was not read yet is no change of others"
    assert (state.missing, state.surplus, state.unread) == ({ONE}, {TWO}, 0)
    assert compare(state, Keys([ONE]), Keys([ONE, TWO, STRANGER])) == 1


def test_a_large_set_is_compared_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_state, "SLICE", 1)
    keys = Keys(number.to_bytes(2, "big") for number in range(200))
    state = SetState("c4_32", HOSTS, 0, 0)
    slices = set_state.compare_in_slices(state, Keys(), keys, lambda found: found)
    assert sum(1 for _ in slices) > 10
    assert state.surplus == keys


def test_only_sets_laid_out_as_ours_have_a_mask() -> None:
    sets = (
        ObservedSet("c4_32", 4, 0, True, 0),
        ObservedSet("c4_24", 4, 0, False, 0),
        ObservedSet("other", 4, 0, True, 0),
    )
    assert set_state.masks_of(TableReading(True, sets)) == [HOSTS]


def compare(state: SetState, wanted: Keys, keys: Keys) -> int:
    slices = set_state.compare_in_slices(state, wanted, keys, lambda found: found)
    while True:
        try:
            next(slices)
        except StopIteration as end:
            return int(end.value)


@pytest.mark.parametrize(
    ("first", "taken", "free"),
    [
        (0, set(), 0),
        (0, {"c4_32"}, 1),
        (1, {"c4_32", "c4_32_g1", "c4_32_g2", "c4_32_g4"}, 3),
        (1, {"c4_32_near_g1", "c4_24_g1"}, 1),
    ],
)
def test_a_new_set_has_the_first_generation_whose_name_is_free(first: int, taken: set[str], free: int) -> None:
    assert set_state.free_generation(HOSTS, first, taken) == free


def test_known_keys_come_in_pieces_without_those_of_parts_that_are_missing_whole() -> None:
    wanted = Keys(number.to_bytes(2, "big") for number in range(200))
    state = SetState("c4_32", HOSTS, 0, 0, missing=MissingKeys(wanted, whole=True))
    assert list(known_pieces(state, wanted, 7)) == []
    state.missing.difference_update(list(wanted))
    pieces = list(known_pieces(state, wanted, 50))
    assert list(map(len, pieces)) == [50] * 4
    assert {key for piece in pieces for key in piece} == wanted
