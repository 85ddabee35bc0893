"""One set of the kernel: its room, and what happens to its keys."""

from __future__ import annotations

import pytest

from gatewayd.compile.keys import Keys, MissingKeys
from gatewayd.model.mask import Mask
from gatewayd.model.transaction import RulesTag, TableReading
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
