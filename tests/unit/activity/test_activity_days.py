"""Days of UTC, and rows that wait within a bound."""

from __future__ import annotations

import pytest

from gatewayd.activity.days import (
    DayRow,
    Used,
    Waiting,
    day_of,
    day_text,
    is_kept,
    moment_of,
    seconds_to_midnight,
)
from gatewayd.log.events import FOLLOWED
from gatewayd.log.ring import stamp_of

NOON = 1_764_504_000.0  # 2025-11-30T12:00:00Z


def test_a_day_is_one_of_utc() -> None:
    assert day_text(day_of(NOON)) == "2025-11-30"
    assert day_of(NOON) == day_of(NOON - 12 * 3600) == day_of(NOON + 12 * 3600) - 1
    assert seconds_to_midnight(NOON) == 12 * 3600
    assert seconds_to_midnight(NOON + 12 * 3600) == 24 * 3600


def test_a_stamp_of_the_log_is_a_moment() -> None:
    assert moment_of(stamp_of(NOON + 0.25)) == NOON + 0.25


@pytest.mark.parametrize(
    ("event", "kept"),
    [
        ("guard.held", True), ("guard.accepted", True), ("policy.in_force", True), ("trial.begun", True),
        ("connections.drained", True), ("daemon.started", True), ("late_admission", False),
        ("registry.applied", False), ("source.failed", False),
    ],
)  # fmt: skip
def test_what_changed_the_effect_on_traffic_is_kept(event: str, kept: bool) -> None:
    assert is_kept(event) is kept


def test_an_event_that_is_kept_is_followed_or_it_would_never_come() -> None:
    assert {"daemon.started", "reload.done", "connections.drained", "guard.held", "guard.accepted"} <= set(FOLLOWED)


def test_rows_of_a_day_and_a_registration_are_one() -> None:
    waiting = Waiting()
    waiting.add(7, [Used("a", 1, 100, NOON), Used("b", 1, 50, NOON), Used("a", 2, 10, NOON + 5.9)])
    waiting.add(8, [Used("a", 1, 1, NOON + 9)])
    assert len(waiting) == 3
    assert list(waiting.take()) == [
        DayRow(7, "a", 3, 110, int(NOON) + 5),
        DayRow(7, "b", 1, 50, int(NOON)),
        DayRow(8, "a", 1, 1, int(NOON) + 9),
    ]
    assert waiting.take() == []


def test_rows_that_could_not_be_written_wait_again_behind_none_that_is_newer() -> None:
    waiting = Waiting()
    waiting.add(7, [Used("a", 1, 100, NOON)])
    rows = waiting.take()
    waiting.add(7, [Used("a", 1, 1, NOON + 60), Used("b", 1, 1, NOON + 60)])
    waiting.put_back(rows)
    assert waiting.take() == [DayRow(7, "a", 2, 101, int(NOON) + 60), DayRow(7, "b", 1, 1, int(NOON) + 60)]


def test_what_has_no_room_is_lost_and_counted() -> None:
    waiting = Waiting(max_rows=2)
    waiting.add(7, [Used("a", 1, 1, NOON), Used("b", 1, 1, NOON), Used("c", 1, 1, NOON), Used("a", 1, 1, NOON)])
    assert (len(waiting), waiting.lost) == (2, 1)
