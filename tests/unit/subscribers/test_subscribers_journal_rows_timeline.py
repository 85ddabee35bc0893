"""The time of the sessions, over restarts and clocks that are set."""

from __future__ import annotations

import pytest

from gatewayd.subscribers.journal_rows import MAX_AWAY_S, ClockMark, Timeline
from tests.support.manual_clock import START_S, ManualClock


def timeline(clock: ManualClock, boot: str = "one") -> Timeline:
    return Timeline(clock, clock.monotonic, boot)


def test_it_begins_with_the_wall_clock_and_is_never_set() -> None:
    clock = ManualClock()
    made = timeline(clock)
    assert (made.time_s(), made.wall_is_ahead_s()) == (START_S, 0)
    clock.advance(10)
    clock.set_by(-3600)
    assert (made.time_s(), made.wall_is_ahead_s()) == (START_S + 10, -3600)


@pytest.mark.parametrize("set_s", [-1e9, -3600, 0, 3600, 1e9])
def test_within_one_boot_the_monotonic_clock_tells_how_long_we_were_away(set_s: float) -> None:
    clock = ManualClock()
    moment = timeline(clock).moment()
    clock.advance(100)
    clock.set_by(set_s)
    after = timeline(clock)
    after.go_on_from(moment)
    clock.advance(1)
    assert after.time_s() == START_S + 101


@pytest.mark.parametrize(
    ("away_s", "believed_s"),
    [(50, 50), (-50, 0), (MAX_AWAY_S, MAX_AWAY_S), (MAX_AWAY_S + 1, 0), (-1e9, 0)],
)
def test_after_a_boot_the_wall_clock_does_as_far_as_it_can_be_believed(away_s: float, believed_s: float) -> None:
    clock = ManualClock()
    after = timeline(clock, "two")
    after.go_on_from(ClockMark(5000.0, START_S - away_s, -1000.0, "one"))
    assert after.time_s() == 5000 + believed_s


@pytest.mark.parametrize("boot", ["", "one"])
def test_a_monotonic_clock_that_went_back_is_of_another_boot(boot: str) -> None:
    clock = ManualClock()
    after = timeline(clock, boot)
    after.go_on_from(ClockMark(5000.0, START_S - 7, 1e6, boot))
    assert after.time_s() == 5007
