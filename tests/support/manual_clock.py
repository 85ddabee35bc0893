"""Time that passes only when nothing is left to do: a clock and an event loop that goes by it.

    with Time() as time:
        time.run(scenario())      # asyncio.sleep(3600) takes no time, and everything due in between happens

A loop that would wait for ever raises NothingWillHappen instead, so a test cannot hang. The wall clock may be
set, as NTP or an operator does; the loop's own time never goes back.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Self, TypeVar

START_S = 1_700_000_000.0
MAX_TURNS = 1_000_000
"""With `step_s=0` time may stand still."""
_T = TypeVar("_T")


class NothingWillHappen(AssertionError):
    """Every task waits, and there is no timer to wake one."""


class ManualClock:
    """The wall clock, in Unix seconds: call it. `elapsed_s` is the monotonic clock that never goes back."""

    def __init__(self, start_s: float = START_S) -> None:
        self.elapsed_s = 0.0
        self._offset_s = start_s

    def __call__(self) -> float:
        return self._offset_s + self.elapsed_s

    def monotonic(self) -> float:
        return self.elapsed_s

    def advance(self, seconds: float) -> None:
        self.elapsed_s += seconds

    def set_by(self, seconds: float) -> None:
        """Somebody sets the wall clock: forward, or back."""
        self._offset_s += seconds


class _Selector(selectors.SelectSelector):
    """Never waits: what would have been waited for has then passed."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise NothingWillHappen
        if not ready and timeout is not None and timeout > 0:
            self._clock.advance(timeout)
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return super().get_map()


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__(_Selector(clock))
        self._manual_clock = clock

    def time(self) -> float:
        return self._manual_clock.elapsed_s


class Time:
    """A ManualClock and a runner whose loop goes by it."""

    def __init__(self, start_s: float = START_S) -> None:
        self.clock = ManualClock(start_s)
        self._runner = asyncio.Runner(loop_factory=lambda: _Loop(self.clock))

    def run(self, scenario: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(scenario)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()


async def until(condition: Callable[[], bool], within_s: float = 5.0, step_s: float = 0.01) -> None:
    """Let time pass until the condition holds. AssertionError if it does not within `within_s` of that time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    turns = 0
    while not condition():
        turns += 1
        assert loop.time() < deadline, f"it did not come true within {within_s:g} s"
        assert turns < MAX_TURNS, f"it did not come true in {turns} turns of the loop"
        await asyncio.sleep(step_s)
