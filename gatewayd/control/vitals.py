"""The numbers of the process that belong to no room: its tasks keep them, and the status shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from gatewayd.api.status import LoopView
from gatewayd.errors import KernelError
from gatewayd.log import get_logger
from gatewayd.model.transaction import CounterReading

log = get_logger(__name__)

COUNTERS_EVERY_S = 1.0


class Vitals:
    """`clock`: the likely time. `reload_error`: why the latest reload was refused, in part or whole; None if it was
    not. `counters`: the kernel's, as last read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.started_at = clock()
        self.reload_error: str | None = None
        self.counters: Mapping[str, CounterReading] = {}
        self.loop = LoopView()

    def note_reload(self, error: str | None) -> None:
        self.reload_error = error

    def note_lag(self, lag_s: float) -> None:
        """How late the loop was just now."""
        lag_s = max(0.0, lag_s)
        self.loop = LoopView(lag_s, max(self.loop.lag_max_s, lag_s))

    async def read_counters(self, read: Callable[[], Awaitable[Mapping[str, CounterReading]]]) -> None:
        """Every second, until cancelled; after a failure those of before are shown."""
        while True:
            try:
                self.counters = await read()
            except KernelError as error:
                log.warning("counters.failed", error=str(error))
            await asyncio.sleep(COUNTERS_EVERY_S)
