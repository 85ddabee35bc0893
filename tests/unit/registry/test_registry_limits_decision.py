"""How much is let through at once and in a day, of all, of a category, and of a protected one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.model import Registration
from gatewayd.registry.limits import GuardDecision, judge_remainder, judge_removals
from gatewayd.settings import ProtectedCategory, RemovalLimit, ShrinkGuardSettings
from tests.support.guarding import BANKS_AT_ALL, registration


def guard_changes(
    total: int,
    by_category: Mapping[str, int],
    removals: Iterable[Registration],
    settings: ShrinkGuardSettings,
    recent: Mapping[str, int] | None = None,
) -> GuardDecision:
    removed = Counter(registration.category for registration in removals)
    return judge_removals({**by_category, "": total}, removed, settings, recent or {})


def many(count: int, category: str = "bpo") -> list[Registration]:
    return [registration(f"{category}-{number}", category) for number in range(count)]


@pytest.mark.parametrize(
    ("total", "banks", "removals", "expected"),
    [
        (1000, 10, many(50), GuardDecision(False, "", 50, 50)),
        (1000, 10, many(51), GuardDecision(True, "too_many", 51, 50)),
        (10, 10, many(2), GuardDecision(False, "", 2, 2)),
        (10, 10, many(3), GuardDecision(True, "too_many", 3, 2)),
        (1000, 10, many(1, "bank"), GuardDecision(True, "protected", 1, 0, "bank")),
        (1000, 10, [], GuardDecision(False, "", 0, 50)),
    ],
)
def test_removals_are_held_beyond_a_limit(
    total: int, banks: int, removals: list[Registration], expected: GuardDecision
) -> None:
    by_category = {"bank": banks, "bpo": 1000}
    assert guard_changes(total, by_category, removals, BANKS_AT_ALL) == expected


def test_a_protected_category_may_have_a_share() -> None:
    settings = ShrinkGuardSettings(protected=(ProtectedCategory("bank", RemovalLimit(fraction=0.1)),))
    assert not guard_changes(1000, {"bank": 20}, many(2, "bank"), settings).is_held
    assert guard_changes(1000, {"bank": 20}, many(3, "bank"), settings).is_held


def test_small_removals_sum_up() -> None:
    recent, sizes = {"bpo": 149}, {"bpo": 2000}
    assert not guard_changes(1000, sizes, many(1), BANKS_AT_ALL, recent).is_held
    decision = guard_changes(1000, sizes, many(2), BANKS_AT_ALL, recent)
    assert decision == GuardDecision(True, "trickle", 151, 150)
    assert not guard_changes(1000, sizes, [], BANKS_AT_ALL, {"bpo": 1000}).is_held


@pytest.mark.parametrize(
    ("total", "limit"), [(0, 0), (1, 0), (2, 1), (3, 1), (7, 3), (199, 99), (200, 100), (201, 100)]
)
def test_the_floor_never_lets_go_of_more_than_half(total: int, limit: int) -> None:
    settings = ShrinkGuardSettings(protected=())
    sizes = {"bpo": 100_000}
    assert not guard_changes(total, sizes, many(limit), settings).is_held
    decision = guard_changes(total, sizes, many(limit + 1), settings)
    assert decision == GuardDecision(True, "too_many", limit + 1, limit)


def test_no_day_takes_more_than_half_away() -> None:
    settings = ShrinkGuardSettings(protected=())
    assert guard_changes(40, {"bpo": 1000}, many(10), settings, {"bpo": 40}).reason == "trickle"
    assert not guard_changes(90, {"bpo": 1000}, many(10), settings, {"bpo": 40}).is_held


def test_what_an_operator_lets_go_of_goes_though_it_is_more_than_half() -> None:
    everything = ShrinkGuardSettings(RemovalLimit(fraction=1.0), protected=())
    assert not guard_changes(10, {"bpo": 10}, many(10), everything).is_held
    assert not guard_changes(10, {"bpo": 10}, many(10), ShrinkGuardSettings(RemovalLimit(count=50), 0, ())).is_held


@pytest.mark.parametrize(
    ("size", "removed", "is_held"), [(1, 1, False), (2, 1, False), (2, 2, True), (30, 15, False), (30, 16, True)]
)
def test_a_category_loses_no_more_than_half_but_the_only_one_of_it_may_go(
    size: int, removed: int, is_held: bool
) -> None:
    decision = guard_changes(1_000_000, {"ngo": size}, many(removed, "ngo"), ShrinkGuardSettings())
    assert decision.is_held == is_held
    assert decision.reason == ("category" if is_held else "")


def test_what_the_kernel_was_found_with_goes_within_the_same_limits() -> None:
    default = ShrinkGuardSettings()
    assert not judge_remainder(3021, 151, default, lost_files=False).is_held
    assert judge_remainder(3021, 152, default, lost_files=False) == GuardDecision(True, "too_many", 152, 151)
    assert judge_remainder(3, 2, default, lost_files=False).is_held
    assert not judge_remainder(3, 0, default, lost_files=False).is_held


def test_where_nobody_knows_whose_it_is_it_may_all_be_of_a_protected_category() -> None:
    default = ShrinkGuardSettings()
    assert judge_remainder(3021, 1, default, lost_files=True) == GuardDecision(True, "protected", 1, 0)
    assert not judge_remainder(3021, 0, default, lost_files=True).is_held
    of_bank = replace(default, protected=(ProtectedCategory("bank", RemovalLimit(fraction=0.5)),))
    assert judge_remainder(3021, 1, of_bank, lost_files=True).is_held
    assert judge_remainder(3021, 40, replace(default, protected=()), lost_files=True).is_held is False
    any_bank = replace(default, protected=(ProtectedCategory("bank", RemovalLimit(fraction=1.0)),))
    assert not judge_remainder(3021, 151, any_bank, lost_files=True).is_held
    assert judge_remainder(3021, 152, any_bank, lost_files=True).reason == "too_many"


def test_a_decision_says_itself_in_words() -> None:
    assert str(GuardDecision(False, "", 1, 5)) == "1 registration removed, within the limit of 5"
    assert str(GuardDecision(True, "too_many", 9, 5)) == "9 registrations removed at once, more than 5"
    assert str(GuardDecision(True, "too_many", 9, 5, base=100)).endswith(" at once, more than 5 of 100")
    words = "1 registration of category bank removed in 24 h, more than 0"
    assert str(GuardDecision(True, "trickle", 1, 0, "bank")) == words


@given(
    st.integers(0, 3000),
    st.lists(st.sampled_from(["bank", "bpo", "freelancer"]), max_size=200),
    st.integers(0, 100),
    st.integers(0, 10),
    st.integers(0, 50),
)
def test_never_more_than_a_limit_goes(
    total: int, categories: list[str], percent: int, banks_allowed: int, least: int
) -> None:
    settings = ShrinkGuardSettings(
        RemovalLimit(fraction=percent / 100),
        least,
        (ProtectedCategory("bank", RemovalLimit(count=banks_allowed)),),
    )
    removals = [registration(str(number), category) for number, category in enumerate(categories)]
    total = max(total, len(removals))
    decision = guard_changes(total, Counter(categories), removals, settings)
    sizes = Counter(categories)

    def allowed_of(size: int) -> int:
        return max(size * percent // 100, min(least, size // 2))

    fits = (
        len(removals) <= allowed_of(total)
        and sizes["bank"] <= banks_allowed
        and all(sizes[each] <= max(1, allowed_of(sizes[each])) for each in sizes if each != "bank")
    )
    assert decision.is_held == (not fits)
