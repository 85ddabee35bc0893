"""When a source is asked: one attempt at a time, and a wait after each that a request cuts short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, Protocol

JITTER: Final = 0.1
"""A wait is between its length less this part and its length: gateways do not ask in step."""


class Randomness(Protocol):
    """The part of random.Random that waits are spread with."""

    def uniform(self, a: float, b: float, /) -> float: ...


class Pacer:
    """Makes the attempts of one source. `attempt` calls `plan` to say when the next is due.

    `run` belongs to one task; any other may call `attempt` and `request_now`. What is waited is counted by the
    event loop, so that a wall clock that is set delays nothing; `clock` gives the times for people.
    """

    def __init__(
        self, attempt: Callable[[], Awaitable[None]], *, clock: Callable[[], float], randomness: Randomness
    ) -> None:
        self._attempt = attempt
        self._clock = clock
        self._randomness = randomness
        self._attempting = asyncio.Lock()
        self._is_asked = False
        self._wake = asyncio.Event()
        self._due_s = inf

    def plan(self, wait_s: float) -> float:
        """The next attempt is due after this, less jitter: the time of it."""
        wait_s *= self._randomness.uniform(1 - JITTER, 1)
        self._due_s = asyncio.get_running_loop().time() + wait_s
        self._wake.set()
        return self._clock() + wait_s

    def request_now(self) -> None:
        """Ends the present wait; during an attempt, another follows it at once."""
        self._is_asked = True
        self._wake.set()

    async def attempt(self) -> None:
        """One attempt of the caller's own: one that is under way is waited for first."""
        async with self._attempting:
            await self._attempt()

    async def run(self) -> None:
        """Attempts and waits, until cancelled. Raises only what an attempt raises."""
        while True:
            self._is_asked = False
            await self.attempt()
            await self._wait()

    async def _wait(self) -> None:
        """Until the next attempt is due; an attempt of somebody else's meanwhile has planned it anew."""
        loop = asyncio.get_running_loop()
        while not self._is_asked and loop.time() < self._due_s:
            self._wake.clear()
            try:
                async with asyncio.timeout_at(self._due_s if self._due_s < inf else None):
                    await self._wake.wait()
            except TimeoutError:
                pass
