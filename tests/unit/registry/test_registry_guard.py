"""The shrink guard: what is held, and what an operator's word does."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import SerialNotHeld
from gatewayd.model.registration import Changes, run_slices
from gatewayd.registry import ends as ends_module
from gatewayd.registry import guard as guard_module
from gatewayd.registry.guard import HeldRemovals, RemovalGuard, Taken, held_id
from gatewayd.registry.guard_record import GuardRecord, decode_record, encode_record
from gatewayd.registry.limits import BUCKET_S, WINDOW_S, GuardDecision, is_loss
from gatewayd.settings import RemovalLimit, ShrinkGuardSettings
from tests.support.guarding import BANK, BANKS_AT_ALL, NOW, OTHERS, Guarding, registration, registry


def test_additions_apply_at_once_while_removals_are_held() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    new = registration("new")
    changes = source.read(new, *OTHERS)
    assert source.guard.decision == GuardDecision(True, "protected", 1, 0, "bank")
    assert changes == Changes((new,), ())
    assert source.in_force == registry(BANK, new, *OTHERS)
    assert source.versions() == {"b": (BANK,)}
    assert len(source.guard) == 1


def test_removals_within_the_limits_apply_at_once() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    changes = source.read(BANK, *OTHERS[2:])
    assert changes == Changes((), ("0", "1"))
    assert source.guard.held() is None


def test_all_removals_of_a_change_are_held_together() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    assert source.read(*OTHERS[1:]) is None
    assert source.versions().keys() == {"b", "0"}
    assert source.guard.holds("b")
    assert not source.guard.holds("1")
    assert (source.guard.count_of("bank"), source.guard.count_of("embassy")) == (1, 0)


def test_an_operators_word_lets_go_of_everything_held() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read(*OTHERS[1:])
    with pytest.raises(SerialNotHeld) as error:
        source.accept(1)
    assert (error.value.serial, error.value.held_serial) == (1, 2)
    source.accept(2)
    assert source.in_force == registry(*OTHERS[1:])
    with pytest.raises(SerialNotHeld, match="nothing is"):
        source.accept(2)
    assert not source.guard.memory.removed


def test_what_the_source_has_again_is_held_no_longer() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read()
    assert len(source.guard) == 11
    assert source.read(BANK) is None
    assert source.versions().keys() == {each.id for each in OTHERS}
    assert source.read(BANK, *OTHERS) is None
    assert source.guard.held() is None


def test_when_the_rest_is_within_the_limits_it_applies() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read()
    changes = source.read(BANK, *OTHERS[1:])
    assert changes == Changes((), ("0",))
    assert source.guard.held() is None


def test_further_removals_join_what_is_held_under_the_latest_serial() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read(*OTHERS)
    source.now += 60
    source.read(*OTHERS[1:])
    held = source.guard.held()
    assert held is not None
    assert held.versions.keys() == {"b", "0"}
    assert (held.serial, held.since_s) == (3, NOW)


def test_a_new_hold_begins_when_it_begins() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.now += 60
    source.read(*OTHERS)
    held = source.guard.held()
    assert held is not None
    assert held.since_s == NOW + 60


def test_a_replacement_that_covers_less_applies_and_the_old_stays_beside_it() -> None:
    source = Guarding()
    source.read(BANK)
    moved = registration("b", "bank", "203.0.113.16/28")
    changes = source.read(moved)
    beside = msgspec.structs.replace(BANK, id="b#held")
    assert changes == Changes((beside, moved), ())
    assert source.in_force == {"b": moved, "b#held": beside}
    again = registration("b", "bank", "203.0.113.32/28")
    source.read(again)
    assert source.in_force.keys() == {"b", "b#held", "b#held-2"}
    source.accept(3)
    assert source.in_force == {"b": again}


def test_a_registration_withdrawn_after_it_was_replaced_stays_under_its_id() -> None:
    source = Guarding()
    source.read(BANK)
    moved = registration("b", "bank", "203.0.113.16/28")
    source.read(moved)
    assert source.read() is None
    assert source.in_force["b"] == moved
    source.read(registration("b", "bank", "203.0.113.0/27"))
    assert source.in_force.keys() == {"b"}
    assert source.guard.held() is None


def test_a_version_that_another_covers_is_not_held_twice() -> None:
    source = Guarding()
    source.read(registration("b", "bank", "203.0.113.0/24"))
    source.read(BANK)
    source.read()
    assert len(source.versions()["b"]) == 1
    assert source.in_force.keys() == {"b"}


def test_settings_may_let_go_of_what_is_held() -> None:
    source = Guarding()
    source.read(BANK)
    source.read()
    source.settings = ShrinkGuardSettings(RemovalLimit(fraction=1.0), protected=())
    assert source.take({}) == Changes((), ("b",))


def test_a_registry_that_shrinks_little_by_little_is_noticed() -> None:
    source = Guarding()
    source.read(*OTHERS)
    for left in (8, 6):
        assert not source.judge(*OTHERS[:left]).is_held
    assert source.judge(*OTHERS[:4]).reason == "trickle"


def test_removals_of_another_day_are_forgotten_and_so_are_those_ahead_of_a_clock_set_back() -> None:
    source = Guarding()
    source.read(*OTHERS)
    for left in (8, 6):
        source.read(*OTHERS[:left])
    source.now += WINDOW_S + BUCKET_S
    assert not source.judge(*OTHERS[:4]).is_held
    source.now -= WINDOW_S
    source.read(*OTHERS[:3])
    assert list(source.guard.memory.removed) == [int(source.now // BUCKET_S)]


def test_what_came_less_than_a_day_ago_does_not_make_a_removal_small() -> None:
    source, junk = Guarding(), [registration(f"j{number}", "junk") for number in range(200)]
    source.read(*OTHERS)
    source.read(*OTHERS, *junk)
    assert source.judge(*junk) == GuardDecision(True, "too_many", 10, 2)
    source.read(*OTHERS, *junk)
    assert not source.judge(*OTHERS[:8], *junk).is_held
    source.read(*OTHERS, *junk)
    source.now += WINDOW_S + BUCKET_S
    assert not source.judge(*OTHERS, *junk[:190]).is_held
    assert source.judge(*OTHERS, *junk[:150]) == GuardDecision(True, "too_many", 40, 10)


def test_what_is_held_ends_with_its_window() -> None:
    source = Guarding()
    ends = registration("e", "bank", valid_until_s=NOW + 100)
    source.read(BANK, ends, *OTHERS)
    source.read(*OTHERS)
    assert source.guard.next_end() == NOW + 100
    source.guard = decode_record(encode_record(GuardRecord(source.guard))).guard
    run_slices(source.guard.count_in_slices(source.reading.values()))
    assert run_slices(source.guard.end_in_slices(source.reading, NOW + 99)) is None
    source.apply(run_slices(source.guard.end_in_slices(source.reading, NOW + 100)))
    assert source.versions().keys() == {"b"}
    assert source.guard.next_end() == inf


def test_a_guard_goes_on_with_what_was_held() -> None:
    first, later = (registration("e", "bank", valid_until_s=NOW + end) for end in (100, 200))
    decision = GuardDecision(True, "protected", 2, 0, "bank")
    held = HeldRemovals(7, NOW - 60, decision, {"e": (first, later)}, {"e": Taken("national", NOW - 60)})
    guard = RemovalGuard(held)
    assert (guard.holds("e"), guard.holds("b"), guard.decision) == (True, False, decision)
    assert guard.held() == replace(held, by_cause={"national": 1})
    assert guard.next_end() == NOW + 100


def test_of_two_versions_the_one_whose_window_is_open_stays_held() -> None:
    """The newest shows under the id, and an older one beside it: when the older one goes, its place goes."""
    source = Guarding()
    source.read(BANK)
    source.read(registration("b", "bank", "203.0.113.16/28", valid_until_s=NOW + 100))
    source.read()
    source.read(registration("b", "bank", "203.0.113.32/28"))
    source.read()
    assert source.in_force.keys() == {"b", "b#held", "b#held-2"}
    before = source.guard.held()
    source.apply(run_slices(source.guard.end_in_slices(source.reading, NOW + 100)))
    held = source.guard.held()
    assert before is not None
    assert held is not None
    assert [str(each.clients[0]) for each in held.versions["b"]] == ["203.0.113.0/28", "203.0.113.32/28"]
    assert source.in_force.keys() == {"b", "b#held"}
    assert (held.taken, held.by_cause) == (before.taken, before.by_cause)


def test_a_window_of_what_is_not_held_any_more_closes_unnoticed() -> None:
    source = Guarding()
    ends = registration("e", "bank", valid_until_s=NOW + 100)
    source.read(ends)
    source.read()
    source.read(ends)
    known = source.guard.changes
    assert run_slices(source.guard.end_in_slices(source.reading, NOW + 100)) is None
    assert source.guard.changes == known


def test_windows_that_close_are_looked_at_in_slices_also_where_nothing_is_held_by_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard_module, "SLICE", 2)
    source = Guarding()
    ending = [registration(f"e{number}", "bank", valid_until_s=NOW + number) for number in range(1, 10)]
    for reading in (ending, [], ending, ending[1:]):
        source.read(*reading)
    slices = source.guard.end_in_slices(source.reading, NOW + 9)
    assert sum(1 for _ in slices) == (9 + 1) // 2
    assert source.guard.held() is None


def test_a_registry_that_withdraws_and_restores_for_ever_leaves_no_more_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ends_module, "SLICE", 4)
    monkeypatch.setattr(guard_module, "SLICE", 1)
    source = Guarding()
    ends = registration("e", "bank", valid_until_s=NOW + 100)
    source.read(ends)
    for _ in range(100):
        source.read()
        source.read(ends)
    assert sum(1 for _ in source.guard.end_in_slices(source.reading, NOW + 100)) <= 4 + 2


def test_a_restart_has_something_to_know_when_the_held_or_the_day_changes() -> None:
    source = Guarding()
    seen = [source.guard.changes]
    for reading in ([BANK, *OTHERS], OTHERS, OTHERS, OTHERS[1:]):
        source.read(*reading)
        seen.append(source.guard.changes)
    # Sizes of the day; what is held; a reading like the one before; more that is held.
    assert [one != other for one, other in pairwise(seen)] == [True, True, False, True]


def test_a_share_is_of_the_active_registrations_found_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "COUNTED_SLICE", 4)
    source = Guarding()
    source.reading = registry(*OTHERS, registration("s", status="suspended"))
    source.in_force = dict(source.reading)
    assert len(list(source.guard.count_in_slices(source.reading.values()))) == 2
    assert source.judge(*OTHERS[3:]) == GuardDecision(True, "too_many", 3, 2)
    assert source.guard.decision.base == 10


def test_what_an_operator_names_goes_and_is_no_removal() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read(*OTHERS)
    slices = source.guard.take_in_slices(
        source.reading, Changes((), ("0",)), 9, cause="local", settings=BANKS_AT_ALL, now=NOW,
        is_asked=lambda id: id in ("b", "0"), looks_at_all=True,
    )  # fmt: skip
    changes = run_slices(slices)
    assert changes is not None
    assert (changes.upserts, sorted(changes.withdrawals)) == ((), ["0", "b"])
    assert source.guard.held() is None
    assert source.guard.memory.removed == {}


def test_what_joins_what_is_held_has_another_number_and_its_own_cause() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read(*OTHERS)
    source.serial -= 1  # of the same second
    source.read(*OTHERS[1:])
    held = source.guard.held()
    assert held is not None
    assert held.serial == 3
    taken = source.guard.take_in_slices(
        source.reading, Changes((), ("1",)), 9, cause="config/local", settings=BANKS_AT_ALL, now=NOW
    )
    run_slices(taken)
    assert source.guard.decision.is_held
    held = source.guard.held()
    assert held is not None
    assert held.by_cause == {"national": 2, "config/local": 1}
    restored = decode_record(encode_record(GuardRecord(source.guard))).guard
    assert restored.held() == held
    run_slices(restored.accept_in_slices(9, {}))
    assert restored.held() is None


def test_older_versions_have_ids_that_no_registry_can_have() -> None:
    assert [held_id("a", place) for place in range(3)] == ["a#held", "a#held-2", "a#held-3"]


def test_long_work_yields_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "SLICE", 2)
    all = {each.id: each for each in (BANK, *OTHERS[:5])}
    changes = Changes(tuple(OTHERS[5:]), tuple(all))
    guard = RemovalGuard()
    slices = guard.take_in_slices(all, changes, 1, cause="national", settings=BANKS_AT_ALL, now=NOW)
    assert len(list(slices)) == 5 + 3 + 2
    assert len(list(guard.accept_in_slices(1, {}))) == 3 + 3


readings = st.lists(
    st.one_of(
        st.dictionaries(st.sampled_from("abcd"), st.integers(0, 5), max_size=4),
        st.just("accept"),
    ),
    max_size=8,
)
SHAPES = [
    registration("x", "bank", "203.0.113.0/24"),
    registration("x", "bank", "203.0.113.0/28"),
    registration("x", "bpo", "203.0.113.16/28"),
    registration("x", "bpo", "203.0.113.16/28", services=("ipsec",)),
    registration("x", "freelancer", "203.0.113.0/24", status="revoked"),
    registration("x", "bpo", "203.0.113.0/28", "203.0.113.16/28"),
]


@given(readings, st.booleans())
def test_nothing_new_waits_and_nothing_held_is_lost(steps: list[dict[str, int] | str], is_restarted: bool) -> None:
    source = Guarding()
    for step in steps:
        if isinstance(step, str):
            held = source.guard.held()
            if held is not None:
                source.accept(held.serial)
                assert source.in_force == source.reading
            continue
        before = dict(source.in_force)
        new = {id: msgspec.structs.replace(SHAPES[shape], id=id) for id, shape in step.items()}
        source.take(new)
        assert new.items() <= source.in_force.items()
        if source.guard.decision.is_held:
            for each in before.values():
                kept = source.in_force.values()
                assert not is_loss(each, None, NOW) or any(
                    other.id.partition("#")[0] == each.id.partition("#")[0]
                    and not is_loss(each, other, NOW, {"bank"})
                    for other in kept
                )
        else:
            assert source.in_force == new
        if is_restarted:
            source.guard = decode_record(encode_record(GuardRecord(source.guard))).guard
            run_slices(source.guard.count_in_slices(source.reading.values()))
