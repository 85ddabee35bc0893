"""Which rise trips."""

from __future__ import annotations

from gatewayd.trial.trip import MAX_LOOKS, TripWatch

LIMITS = {"late_admissions": 10, "failing_assertions": 0, "near_misses": None}


def test_a_rise_past_its_threshold_within_a_minute_trips() -> None:
    watch = TripWatch()
    assert watch.look(0.0, {"late_admissions": 500}, LIMITS) is None
    assert watch.look(30.0, {"late_admissions": 510}, LIMITS) is None
    assert watch.look(31.0, {"late_admissions": 511}, LIMITS) == "late_admissions"
    assert watch.rise("late_admissions") == 11


def test_a_rise_that_takes_longer_than_a_minute_does_not() -> None:
    watch = TripWatch()
    for second in range(0, 600, 10):
        assert watch.look(float(second), {"late_admissions": second // 10}, LIMITS) is None


def test_what_is_there_when_a_mode_is_armed_is_the_ground() -> None:
    watch = TripWatch()
    assert watch.look(0.0, {"failing_assertions": 3}, LIMITS) is None
    assert watch.look(1.0, {"failing_assertions": 4}, LIMITS) == "failing_assertions"
    watch.reset()
    assert watch.look(2.0, {"failing_assertions": 4}, LIMITS) is None


def test_a_cause_without_a_threshold_or_without_a_number_is_not_looked_at() -> None:
    watch = TripWatch()
    assert watch.look(0.0, {"near_misses": 0}, LIMITS) is None
    assert watch.look(1.0, {"near_misses": 9999}, LIMITS) is None
    assert watch.rise("late_admissions") == 0


def test_the_looks_that_are_kept_are_bounded() -> None:
    watch = TripWatch()
    for number in range(MAX_LOOKS * 3):
        watch.look(number / 1000, {"late_admissions": number}, {})
    assert watch.rise("late_admissions") == MAX_LOOKS - 1
