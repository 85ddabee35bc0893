from __future__ import annotations

from math import inf

import pytest

from gatewayd.model import Registration, parse_prefix
from gatewayd.model.moment import Moment, between, earliest_of, format_time, latest_of, parse_time, went_back_s

DOUBTFUL = Moment(10.0, 20.0)


@pytest.mark.parametrize(
    ("boundary", "may_have_passed", "may_lie_ahead"),
    [(9.0, True, False), (10.0, True, False), (10.5, True, True), (20.0, True, True), (20.5, False, True)],
)
def test_of_one_boundary_both_may_hold(boundary: float, may_have_passed: bool, may_lie_ahead: bool) -> None:
    assert (boundary <= DOUBTFUL) is (boundary <= DOUBTFUL) is may_have_passed
    assert (boundary > DOUBTFUL) is (boundary > DOUBTFUL) is may_lie_ahead
    assert (boundary < Moment(10.0, 20.0)) is (boundary < 20.0)
    assert (Moment(10.0, 20.0) <= boundary) is (boundary >= 10.0)


def test_a_window_is_open_while_it_may_be() -> None:
    def window(opens: float, closes: float) -> Registration:
        return Registration("PK-1", "bank", "active", (parse_prefix("10.0.0.0/24"),), None, (), (), opens, closes)

    assert window(15.0, 16.0).is_effective(DOUBTFUL)
    assert window(-inf, 11.0).is_effective(DOUBTFUL)
    assert window(19.0, inf).is_effective(DOUBTFUL)
    assert not window(-inf, 10.0).is_effective(DOUBTFUL)
    assert not window(21.0, inf).is_effective(DOUBTFUL)
    assert window(21.0, inf).is_effective(Moment(-inf, inf))


def test_it_counts_as_its_earliest() -> None:
    assert DOUBTFUL + 1.0 == 11.0
    assert type(DOUBTFUL - 1.0) is float
    assert type(earliest_of(DOUBTFUL)) is float
    assert (earliest_of(DOUBTFUL), latest_of(DOUBTFUL), latest_of(5.0)) == (10.0, 20.0, 5.0)
    assert repr(DOUBTFUL) == "Moment(10.0, 20.0)"


def test_a_known_time_is_a_plain_float() -> None:
    assert type(between(5.0, 5.0)) is float
    both = between(20.0, 10.0)
    assert (earliest_of(both), latest_of(both)) == (10.0, 20.0)


@pytest.mark.parametrize(
    ("before", "now", "seconds"),
    [
        (5.0, 6.0, 0.0),
        (6.0, 5.0, 1.0),
        (Moment(1.0, 9.0), Moment(2.0, 4.0), 5.0),
        (Moment(-inf, inf), Moment(-inf, inf), 0.0),
        (Moment(1.0, inf), 2.0, inf),
        (-inf, 5.0, 0.0),
    ],
)
def test_whichever_end_went_back_counts(before: float, now: float, seconds: float) -> None:
    assert went_back_s(before, now) == seconds


@pytest.mark.parametrize(
    ("at_s", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (1_730_419_200.0, "2024-11-01T00:00:00Z"),
        (1_730_419_200.25, "2024-11-01T00:00:00.250Z"),
        (1_730_419_200.0004, "2024-11-01T00:00:00Z"),
    ],
)
def test_times_are_written_to_the_millisecond_and_read_again(at_s: float, text: str) -> None:
    assert format_time(at_s) == text
    assert parse_time(text) == round(at_s, 3)


@pytest.mark.parametrize("at_s", [None, inf, -inf])
def test_what_never_is_has_no_time(at_s: float | None) -> None:
    assert format_time(at_s) is None
