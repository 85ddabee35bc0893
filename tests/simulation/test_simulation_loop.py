"""The loop's own time: it passes where nothing is ready, and where all that is ready waits for it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from tests.simulation.loop import MAX_STILL, MAX_TURNS, CircleFound, Clock, Dice, SeededLoop


def made() -> tuple[Clock, SeededLoop]:
    clock = Clock()
    clock.come_to(1000.0)
    return clock, SeededLoop(clock, Dice(1), is_shuffled=False)


def run(loop: SeededLoop, work: Any) -> None:
    task: asyncio.Task[None] = asyncio.Task(work, loop=cast(Any, loop))
    loop.run_until(task.done)
    task.result()


def test_no_time_passes_but_that_of_timers() -> None:
    clock, loop = made()

    async def work() -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        await asyncio.sleep(2.5)

    run(loop, work())
    assert clock.elapsed_s == 1002.5


def test_pauses_that_move_no_clock_come_to_an_end() -> None:
    """A pause is left of a deadline, and by rounding it is not nothing."""
    clock, loop = made()

    async def work() -> None:
        due_s = 1000.0 + 1e-9
        for _ in range(10 * MAX_STILL):
            if clock.elapsed_s >= due_s:
                return
            await asyncio.sleep(1e-14)

    run(loop, work())
    assert 1000.0 < clock.elapsed_s < 1001.0
    assert loop.turns < 3 * MAX_STILL


def test_a_circle_is_found_all_the_same() -> None:
    _, loop = made()

    async def work() -> None:
        for _ in range(MAX_TURNS + 1):
            await asyncio.sleep(0)

    with pytest.raises(CircleFound, match="no end"):
        run(loop, work())
    loop.close()
