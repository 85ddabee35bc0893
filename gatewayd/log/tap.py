"""Hands the events that a person follows from every logger to readers, whatever the level of the log is.

One for the process, as the loggers are. An event may come from any thread; a reader waits on its own loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from gatewayd.log.events import FOLLOWED
from gatewayd.log.lines import plain
from gatewayd.log.ring import Batch, EventRing, Loss, Position


class Wakeup:
    """Of one reader. `wait` returns after `ring`, also where that came before."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def ring(self) -> None:
        """From any thread."""
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:  # the loop has ended, and the reader with it
            return

    async def wait(self, timeout_s: float) -> None:
        """At most for so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()


class EventTap:
    """`clock`: the host's, as of the records of the log."""

    def __init__(self, ring: EventRing, clock: Callable[[], float] = time.time) -> None:
        self._ring = ring
        self._clock = clock
        self._lock = threading.Lock()
        self._readers: tuple[Wakeup, ...] = ()

    def take(self, event: str, fields: Mapping[str, object]) -> None:
        """An event of the log; one that is not followed costs a look-up."""
        declared = FOLLOWED.get(event)
        if declared is None:
            return
        level = "error" if declared.level == "exception" else declared.level
        plain_fields = {name: plain(value) for name, value in fields.items()}
        with self._lock:
            self._ring.append(self._clock(), level, event, plain_fields)
            readers = self._readers
        for each in readers:
            each.ring()

    def after(self, position: Position | None, limit: int) -> Batch:
        """As EventRing.after."""
        with self._lock:
            return self._ring.after(position, limit)

    def position_of(self, at_s: float) -> tuple[Position, Loss | None]:
        """As EventRing.position_of."""
        with self._lock:
            return self._ring.position_of(at_s)

    @property
    def dropped(self) -> int:
        """Events that the ring forgot for newer ones."""
        return self._ring.dropped

    @contextmanager
    def reading(self) -> Iterator[Wakeup]:
        """It rings at each event, while the block lasts."""
        wakeup = Wakeup()
        with self._lock:
            self._readers = (*self._readers, wakeup)
        try:
            yield wakeup
        finally:
            with self._lock:
                self._readers = tuple(each for each in self._readers if each is not wakeup)


TAP: Final = EventTap(EventRing(time.time_ns() // 1_000_000))
"""The epoch of its ids: when this process began, in milliseconds of Unix time."""
