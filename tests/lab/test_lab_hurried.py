"""The clock of a hurried daemon: one for all who have its file, also where its pace changes."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.hurried import HurriedClock


def test_processes_that_share_a_clock_have_the_same_time_at_any_pace(tmp_path: Path) -> None:
    clock = HurriedClock.starting_now(tmp_path / "clock", 20.0, 150.0)
    factor, _, path = clock.arguments()[0].partition(":")
    other = HurriedClock(Path(path), float(factor))
    for pace in (1500.0, 20.0, 1.0):
        before, wall = clock.monotonic(), clock()
        clock.pace(pace)
        assert other.factor == pace
        assert clock.monotonic() <= other.monotonic() <= clock.monotonic()
        assert clock() <= other() <= clock()
        assert before <= clock.monotonic()
        assert wall <= clock()


def test_a_pace_is_so_many_times_that_of_the_host(tmp_path: Path) -> None:
    clock = HurriedClock.starting_now(tmp_path / "clock", 1.0)
    clock.pace(1000.0)
    host, began = time.monotonic(), clock.monotonic()
    clock.sleep(10.0)
    passed = clock.monotonic() - began
    assert 10.0 <= passed <= 1000.0 * (time.monotonic() - host)
