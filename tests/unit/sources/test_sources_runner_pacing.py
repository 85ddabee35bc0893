from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from gatewayd.sources.runner import JITTER, Pacer
from tests.support.manual_clock import START_S, Time


class Longest:
    """Waits are as long as they can be."""

    def uniform(self, a: float, b: float, /) -> float:
        assert (a, b) == (1 - JITTER, 1)
        return b


class Source:
    """Attempts that take `takes_s` and are planned `wait_s` apart; `began` has the moments, from the start on."""

    def __init__(self, time: Time, wait_s: float = 60.0, takes_s: float = 0.0) -> None:
        self.time = time
        self.wait_s = wait_s
        self.takes_s = takes_s
        self.began: list[float] = []
        self.under_way = 0
        self.next_at = 0.0
        self.pacer = Pacer(self.attempt, clock=time.clock, randomness=Longest())

    async def attempt(self) -> None:
        self.under_way += 1
        assert self.under_way == 1, "one at a time"
        self.began.append(self.time.clock.elapsed_s)
        try:
            await asyncio.sleep(self.takes_s)
            self.next_at = self.pacer.plan(self.wait_s)
        finally:
            self.under_way -= 1

    async def after(self, *moments_s: float) -> None:
        """Run, and request at these moments."""
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.pacer.run())
            for moment_s in moments_s:
                await asyncio.sleep(moment_s - self.time.clock.elapsed_s)
                self.pacer.request_now()
            await asyncio.sleep(200 - self.time.clock.elapsed_s)
            running.cancel()


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as time:
        yield time


def test_a_source_is_asked_at_the_start_and_after_every_wait(time: Time) -> None:
    source = Source(time)
    time.run(source.after())
    assert source.began == [0, 60, 120, 180]
    assert source.next_at == START_S + 240


def test_what_an_attempt_takes_is_no_part_of_the_wait(time: Time) -> None:
    source = Source(time, takes_s=15)
    time.run(source.after())
    assert source.began == [0, 75, 150]


def test_a_request_cuts_the_wait_short(time: Time) -> None:
    source = Source(time)
    time.run(source.after(10, 30))
    assert source.began == [0, 10, 30, 90, 150]


def test_a_request_during_an_attempt_leads_to_another_right_after_it(time: Time) -> None:
    source = Source(time, takes_s=20)
    time.run(source.after(5, 6))
    assert source.began == [0, 20, 100, 180]


def test_an_attempt_of_ones_own_waits_for_the_one_under_way_and_is_made_then(time: Time) -> None:
    source = Source(time, wait_s=1000, takes_s=20)
    ended = []

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(source.pacer.run())
            await asyncio.sleep(5)
            await source.pacer.attempt()
            ended.append(time.clock.elapsed_s)
            running.cancel()

    time.run(scenario())
    assert source.began == [0, 20]
    assert ended == [40]


@pytest.mark.parametrize(("wait_s", "began"), [(100, [0, 30, 130]), (5, [0, 30, 35, 40])])
def test_an_attempt_of_somebody_elses_moves_the_next(time: Time, wait_s: float, began: list[float]) -> None:
    """A sync that fails is tried again soon, and one that succeeds puts the next one off."""
    source = Source(time)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(source.pacer.run())
            await asyncio.sleep(30)
            source.wait_s = wait_s
            await source.pacer.attempt()
            await asyncio.sleep(began[-1] - 30 + 1)
            running.cancel()

    time.run(scenario())
    assert source.began == began


@pytest.mark.parametrize("by_s", [-86400.0, 86400.0])
def test_a_wall_clock_that_is_set_delays_and_hastens_nothing(time: Time, by_s: float) -> None:
    source = Source(time)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(source.pacer.run())
            await asyncio.sleep(30)
            time.clock.set_by(by_s)
            await asyncio.sleep(100)
            running.cancel()

    time.run(scenario())
    assert source.began == [0, 60, 120]


def test_an_attempt_that_is_cancelled_makes_way_for_the_next(time: Time) -> None:
    source = Source(time, takes_s=10)

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await source.pacer.attempt()
        await source.pacer.attempt()

    time.run(scenario())
    assert source.began == [0, 5]


def test_what_an_attempt_raises_ends_the_run(time: Time) -> None:
    async def attempt() -> None:
        raise RuntimeError("ours")

    pacer = Pacer(attempt, clock=time.clock, randomness=Longest())
    with pytest.raises(RuntimeError, match="ours"):
        time.run(pacer.run())


def test_an_attempt_that_plans_nothing_is_the_last_until_it_is_asked_for(time: Time) -> None:
    began: list[float] = []

    async def attempt() -> None:
        began.append(time.clock.elapsed_s)

    pacer = Pacer(attempt, clock=time.clock, randomness=Longest())

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(pacer.run())
            await asyncio.sleep(1000)
            pacer.request_now()
            await asyncio.sleep(1000)
            running.cancel()

    time.run(scenario())
    assert began == [0, 1000]
