"""What went in a day, and how few there were."""

from __future__ import annotations

from gatewayd.registry.limits import (
    BUCKET_S,
    MAX_CATEGORIES,
    OTHER,
    WHOLE,
    WINDOW_S,
    CategoryNames,
    DayMemory,
    judge_remainder,
    judge_removals,
)
from gatewayd.settings import ShrinkGuardSettings
from gatewayd.settings.model import ProtectedCategory
from gatewayd.settings.values import RemovalLimit

NOW = 1_700_000_000.0


def test_removals_are_summed_over_a_day_and_forgotten_after_it() -> None:
    memory = DayMemory()
    memory.note_removed({"bank": 1}, NOW)
    memory.note_removed({"bank": 2, "bpo": 5}, NOW + BUCKET_S)
    memory.note_removed({}, NOW)
    assert memory.removed_by_category() == {"bank": 3, "bpo": 5}
    memory.expire(NOW + WINDOW_S)
    assert memory.removed_by_category() == {"bank": 2, "bpo": 5}
    memory.expire(NOW + WINDOW_S + BUCKET_S)
    assert memory.removed_by_category() == {}


def test_what_lies_ahead_of_a_clock_set_back_is_forgotten() -> None:
    memory = DayMemory()
    memory.note_removed({"bank": 1}, NOW)
    memory.note_size("bank", 9, 10, NOW)
    memory.expire(NOW - 2 * BUCKET_S)
    assert (memory.removed, memory.fewest) == ({}, {})


def test_the_fewest_of_a_day_are_remembered() -> None:
    memory = DayMemory()
    assert memory.fewest_of("bank", 7) == 7
    memory.note_size("bank", 7, 70, NOW)
    memory.note_size("bank", 70, 700, NOW)
    memory.note_size(WHOLE, 50, 40, NOW + BUCKET_S)
    assert memory.fewest_of("bank", 700) == 7
    assert memory.fewest_of("bank", 3) == 3
    assert memory.fewest_of(WHOLE, 60) == 40
    memory.expire(NOW + WINDOW_S)
    assert (memory.fewest_of("bank", 700), memory.fewest_of(WHOLE, 60)) == (700, 40)


def test_where_there_were_none_all_count_at_once() -> None:
    memory = DayMemory()
    memory.note_size("bank", 0, 8, NOW)
    memory.note_size("bank", 8, 80, NOW)
    assert memory.fewest_of("bank", 80) == 8
    memory.note_size("bank", 80, 0, NOW)
    memory.note_size("bank", 0, 500, NOW + BUCKET_S)
    assert memory.fewest_of("bank", 500) == 0


def test_changes_are_counted_and_nothing_else_is() -> None:
    memory = DayMemory()
    memory.note_size("bank", 7, 8, NOW)
    seen = memory.changes
    memory.note_size("bank", 8, 9, NOW)
    memory.note_removed({}, NOW)
    memory.expire(NOW)
    assert memory.changes == seen
    memory.note_size("bank", 9, 6, NOW)
    assert memory.changes > seen
    seen = memory.changes
    memory.forget()
    assert memory.changes > seen
    assert (memory.removed, memory.fewest) == ({}, {})


def test_it_is_made_again_of_what_it_was() -> None:
    memory = DayMemory()
    memory.note_size("bank", 7, 8, NOW)
    memory.note_removed({"bank": 1}, NOW)
    again = DayMemory(memory.removed, memory.fewest)
    assert (again.removed, again.fewest) == (memory.removed, memory.fewest)
    again.note_removed({"bank": 1}, NOW)
    again.note_size("bank", 1, 2, NOW)
    assert memory.removed_by_category() == {"bank": 1}
    assert memory.fewest_of("bank", 9) == 7


def test_the_first_categories_have_a_count_of_their_own_and_so_have_those_that_are_named() -> None:
    names = CategoryNames()
    assert [names.of(f"c{number}") for number in range(MAX_CATEGORIES)] == [
        f"c{number}" for number in range(MAX_CATEGORIES)
    ]
    assert names.of("bank") == OTHER
    assert names.of("c7") == "c7"
    names.keep(["bank"])
    assert names.of("bank") == "bank"
    assert names.of("embassy") == OTHER


NO_LIMIT = RemovalLimit(fraction=1.0)


def test_100_percent_of_a_protected_category_may_go_however_many_went_before() -> None:
    settings = ShrinkGuardSettings(RemovalLimit(count=1000), 1000, (ProtectedCategory("bank", NO_LIMIT),))
    decision = judge_removals({"bank": 1, WHOLE: 5000}, {"bank": 1}, settings, {"bank": 9})
    assert not decision.is_held
    assert not judge_remainder(9, 9, settings, lost_files=True).is_held


def test_100_percent_of_the_whole_may_go_however_many_went_before() -> None:
    settings = ShrinkGuardSettings(NO_LIMIT, 0, ())
    decision = judge_removals({"bpo": 1, WHOLE: 1}, {"bpo": 1}, settings, {"bpo": 9})
    assert (decision.is_held, str(decision)) == (False, "1 registration removed, within the limit of 1 of 1")
