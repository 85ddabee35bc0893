"""Figures as people read them, and what is the middle of several."""

from __future__ import annotations

import pytest

from tests.bench.clock import percentile
from tests.bench.figures import figure, figure_of, number
from tests.bench.row import Outcome, check


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.034, "0.034"), (0.5, "0.5"), (1.2345, "1.23"), (12.345, "12.3"), (99.96, "100"),
        (123.4, "123"), (1234567.8, "1,234,568"),
    ],
)  # fmt: skip
def test_a_number_has_three_significant_digits_and_all_that_are_before_the_point(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.0, "s", "1 s"), (61.5, "s", "61.5 s"), (0.9996, "s", "1,000 ms"), (0.0125, "s", "12.5 ms"),
        (0.001, "s", "1 ms"), (0.00099, "s", "990 µs"), (9e-6, "s", "9 µs"), (3.4e-8, "s", "0.034 µs"),
        (0.0, "s", "0 µs"), (58.3, "MB", "58.3 MB"), (400.0, "", "400"),
    ],
)  # fmt: skip
def test_seconds_become_what_reads_best_and_other_units_stay(value: float, unit: str, text: str) -> None:
    assert figure(value, unit) == text


def test_the_span_is_in_the_unit_of_the_median() -> None:
    assert figure_of([0.0009, 0.002, 1.5], 0.002, "s") == "2 ms (0.9–1,500)"


@pytest.mark.parametrize("values", [[0.25], [0.25, 0.25], [0.2501, 0.2502]])
def test_runs_that_read_the_same_have_no_span(values: list[float]) -> None:
    assert figure_of(values, values[0], "s") == "250 ms"


@pytest.mark.parametrize(
    ("values", "median"), [([3.0], 3.0), ([9.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 100.0], 3.0), ([2.0, 1.0], 1.5)]
)
def test_the_median_is_the_middle_run_or_the_mean_of_the_two(values: list[float], median: float) -> None:
    outcome = Outcome("row", "who", 1, tuple({"s": value} for value in values))
    assert outcome.median("s") == median
    assert outcome.values("s") == sorted(values)


def test_of_what_was_not_measured_there_is_no_median() -> None:
    assert Outcome("row", "who", 1, ({"s": 1.0},)).median("rss_mb") is None
    assert Outcome("row", "who", 1, missing="no such program").median("s") is None


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [([5.0], 0.99, 5.0), ([3.0, 1.0, 2.0], 0.5, 2.0), ([float(n) for n in range(400)], 0.99, 396.0)],
)
def test_a_percentile_is_one_of_the_values(values: list[float], part: float, expected: float) -> None:
    assert percentile(values, part) == expected


def test_a_subject_that_did_not_do_its_work_has_no_figure() -> None:
    check(True, "all there")
    with pytest.raises(RuntimeError, match="did not do its work: 3 elements of 4"):
        check(False, "3 elements of 4")
