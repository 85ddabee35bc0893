"""An event loop in which one seed decides what comes next, and no time passes but its own.

asyncio's own tasks, events, locks and timeouts run on it unchanged: they need no more of a loop than to call
something soon, or later. What is ready is run in an order that the seed chooses, first come first served in half of
the runs. When nothing is ready, the time of the next timer has come.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from heapq import heappop, heappush
from random import Random
from typing import Any, Final, TypeVar, cast

from tests.simulation.host_clock import HostClock

_T = TypeVar("_T")
START_S: Final = 1_700_000_000.0
MAX_STILL: Final = 1000
"""Turns at one moment; then a millisecond has passed. A pause may be so short that it moves no clock."""
MAX_TURNS: Final = 200_000
"""Of a run; one that needs more goes round in a circle."""


class Dice:
    """Choices of a seed. `Random.random` is the one method whose numbers no version of Python changes."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed).random

    def below(self, count: int) -> int:
        return int(self.random() * count)

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def pick(self, some: Sequence[_T]) -> _T:
        return some[int(self.random() * len(some))]


class Clock:
    """`elapsed_s`: since the boot of a host, and never set; `host`: what its clock says, by the true time. Call it
    for that clock's time."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.host = HostClock()

    def __call__(self) -> float:
        return START_S + self.elapsed_s + self.host.ahead_s

    def true_s(self) -> float:
        return START_S + self.elapsed_s

    def monotonic(self) -> float:
        return self.elapsed_s

    def come_to(self, elapsed_s: float) -> None:
        self.elapsed_s = elapsed_s


class CircleFound(AssertionError):
    """The program is busy and gets nowhere."""


class _Handle:
    """In the place of asyncio.Handle and TimerHandle, of which a run makes a thousand."""

    __slots__ = ("args", "callback", "context", "due_s", "is_cancelled")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None, due_s: float
    ) -> None:
        self.callback, self.args, self.due_s = callback, args, due_s
        self.context = copy_context() if context is None else context
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.due_s


class SeededLoop:
    """`is_shuffled`: what is ready runs in any order. `errors`: of callbacks, which asyncio would log."""

    def __init__(self, clock: Clock, dice: Dice, *, is_shuffled: bool) -> None:
        self.clock = clock
        self.errors: list[BaseException] = []
        self.turns = 0
        self._dice = dice
        self._is_shuffled = is_shuffled
        self._ready: list[_Handle] = []
        self._timers: list[tuple[float, int, _Handle]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._count = 0
        self._is_running = False

    # -- for asyncio ---------------------------------------------------------------------------------------

    def time(self) -> float:
        return self.clock.elapsed_s

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> _Handle:
        handle = _Handle(callback, args, context, 0.0)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:
        return self.call_at(self.clock.elapsed_s + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, context, when)
        self._count += 1
        heappush(self._timers, (when, self._count, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=cast(Any, self))

    def create_task(self, coro: Any, **more: Any) -> asyncio.Task[Any]:
        made: asyncio.Task[Any] = asyncio.Task(coro, loop=cast(Any, self), **more)
        self._tasks.append(made)
        return made

    def run_in_executor(self, executor: Any, func: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        """A thread: what it does is done at once, some time later."""
        future: asyncio.Future[_T] = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(self._dice.random() * 0.01, run)
        return future

    get_debug = staticmethod(bool)
    """Asked for every task and future; False."""

    def is_running(self) -> bool:
        return self._is_running

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            self.errors.append(error)

    # -- for the simulation --------------------------------------------------------------------------------

    def run_until(self, is_over: Callable[[], bool]) -> None:
        """One callback after another. Raises the first error of a callback."""
        ready, timers, clock, random = self._ready, self._timers, self.clock, self._dice.random
        moved_at = self.turns
        self._is_running = True
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=_leave)
        asyncio._set_running_loop(cast(Any, self))
        try:
            while not is_over():
                while timers and timers[0][0] <= clock.elapsed_s:
                    ready.append(heappop(timers)[2])
                if ready:
                    count = len(ready)
                    handle = ready.pop(int(random() * count) if self._is_shuffled and count > 1 else 0)
                    if not handle.is_cancelled:
                        self.turns += 1
                        handle.context.run(handle.callback, *handle.args)
                        if self.errors:
                            raise self.errors[0]
                elif timers:
                    if not timers[0][2].is_cancelled:
                        clock.come_to(timers[0][0])
                        moved_at = self.turns
                    else:
                        heappop(timers)
                else:
                    raise CircleFound("every task waits, and no timer is set")
                if self.turns - moved_at >= MAX_STILL:
                    clock.come_to(clock.elapsed_s + 0.001)
                    moved_at = self.turns
                if self.turns > MAX_TURNS:
                    raise CircleFound(f"no end after {MAX_TURNS} turns")
        finally:
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
            self._is_running = False

    def drop_all(self) -> None:
        """What waits to be run is run no more."""
        self._ready.clear()
        self._timers.clear()

    def close(self) -> None:
        """Tasks that were cut off are taken apart, without a word of theirs."""
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(RuntimeError):  # it would wait for something on its way out
                    cast(Any, task.get_coro()).close()
        self._tasks.clear()


def nothing() -> None:
    """A time has come, and the run is looked at."""


def _leave(_: object) -> None:
    """Generators of a process that was killed are not run to their end."""
