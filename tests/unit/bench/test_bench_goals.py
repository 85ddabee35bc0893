"""The numbers to reach: met, not met, not measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.bench.goals import GOALS, MILLION, Goal, Results, at_most, judge_all, ratio
from tests.bench.row import Outcome
from tests.bench.rows import find_row

Judge = Callable[[Results], tuple[str, bool] | None]


def outcome(subject: str, size: int = MILLION, row: str = "hosts", **figures: float) -> Outcome:
    return Outcome(row, subject, size, (figures,))


def verdict(judge: Judge, *outcomes: Outcome) -> tuple[str, str]:
    judged = Goal("what", "goal", judge).verdict(Results(outcomes))
    return judged.measured, judged.word


def judged(*outcomes: Outcome) -> list[tuple[str, str]]:
    """The goals that these are enough to judge."""
    return [(each.measured, each.word) for each in judge_all(outcomes) if each.is_met is not None]


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [(8.0, ("4.0 × (2 s against 8 s)", "met")), (7.0, ("3.5 × (2 s against 7 s)", "not met"))],
)
def test_a_ratio_is_the_peers_figure_over_ours(theirs: float, expected: tuple[str, str]) -> None:
    judge = ratio("hosts", MILLION, "peer", "s", 4.0)
    assert verdict(judge, outcome("gatewayd", s=2.0), outcome("peer", s=theirs)) == expected


@pytest.mark.parametrize(
    "there",
    [
        [], [outcome("gatewayd", s=1.0)], [outcome("peer", s=1.0)],
        [outcome("gatewayd", s=1.0), Outcome("hosts", "peer", MILLION, missing="not installed")],
        [outcome("gatewayd", 1000, s=1.0), outcome("peer", 1000, s=1.0)],
    ],
)  # fmt: skip
def test_a_ratio_of_which_a_side_is_missing_at_that_size_is_not_measured(there: list[Outcome]) -> None:
    assert verdict(ratio("hosts", MILLION, "peer", "s", 4.0), *there) == ("", "not measured")


@pytest.mark.parametrize(("value", "expected"), [(0.001, ("1 ms", "met")), (0.0011, ("1.1 ms", "not met"))])
def test_a_limit_is_kept_up_to_and_with_itself(value: float, expected: tuple[str, str]) -> None:
    judge = at_most("change", MILLION, "p99_s", 0.001)
    assert verdict(judge, outcome("gatewayd", row="change", p99_s=value)) == expected
    assert verdict(judge, outcome("gatewayd", row="hosts", p99_s=value)) == ("", "not measured")


def test_every_goal_is_listed_even_if_nothing_was_measured() -> None:
    verdicts = judge_all([])
    assert [each.what for each in verdicts] == [goal.what for goal in GOALS]
    assert {each.is_met for each in verdicts} == {None}


def test_the_goal_against_the_kernels_own_time_compares_the_whole_with_the_kernels_part() -> None:
    assert judged(outcome("gatewayd", s=1.2, kernel_s=1.0)) == [("1.20 ×", "met")]
    assert judged(outcome("gatewayd", s=1.6, kernel_s=1.0)) == [("1.60 ×", "not met")]


def test_the_goal_for_one_change_looks_at_the_row_of_changes() -> None:
    assert judged(outcome("gatewayd", row="change", p99_s=0.0005)) == [("500 µs", "met")]
    assert judged(outcome("gatewayd", row="change", p99_s=0.0005, size=31_000)) == []


def test_the_goal_for_a_start_is_taken_beside_other_accounting() -> None:
    assert judged(outcome("gatewayd", row="starts", p99_s=0.004, size=31_000)) == [("4 ms", "met")]
    assert judged(outcome("gatewayd", row="starts", p99_s=0.011, size=31_000)) == [("11 ms", "not met")]
    assert judged(outcome("gatewayd", row="starts", p99_s=0.004, size=300)) == []


@pytest.mark.parametrize(
    ("rate", "unanswered", "expected"),
    [
        (4998.0, 0.0, ("0 at 4,998 /s, 3 repeated", "met")),
        (5000.0, 1.0, ("1 at 5,000 /s, 3 repeated", "not met")),
        (4900.0, 0.0, ("0 at 4,900 /s, 3 repeated", "not met")),
    ],
)
def test_the_goal_for_accounting_wants_the_whole_rate_answered(
    rate: float, unanswered: float, expected: tuple[str, str]
) -> None:
    figures = {"rate": rate, "unanswered": unanswered, "repeats": 3.0}
    assert judged(outcome("gatewayd", row="accounting", size=31_000, **figures)) == [expected]
    assert judged(outcome("gatewayd", row="accounting", size=31_000, rate=rate)) == []


def test_a_row_that_a_goal_could_ask_for_names_itself_when_it_is_not_there() -> None:
    with pytest.raises(KeyError, match=r"no row 'host'; there are .*hosts,"):
        find_row("host")
