"""The process itself: its numbers, the loop's lag, the watchdog, and the readiness for the service manager."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sized

from gatewayd.api.process import LoopView
from gatewayd.api.queries import Queries
from gatewayd.control.host_time import HostTime
from gatewayd.errors import KernelError
from gatewayd.log import LOST, get_logger, is_any_stuck
from gatewayd.model.transaction import CounterReading
from gatewayd.systemd import Notifier, watchdog_interval_s
from gatewayd.trial.views import describe_for_systemd

log = get_logger(__name__)

COUNTERS_EVERY_S = 1.0
RETRY_S = 1.0
PULSE_S = 0.25
START_PATIENCE_S = 20.0
"""How often the loop's lag and the readiness are looked at."""


class Vitals:
    """`clock`: the likely time. `reload_error`: why the latest reload was refused, in part or whole; None if it was
    not. `counters`: the kernel's, as last read. `report_failures`: of tasks that only report, by task."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.started_at = clock()
        self.reload_error: str | None = None
        self.counters: Mapping[str, CounterReading] = {}
        self.loop = LoopView()
        self.report_failures: dict[str, int] = {}

    def note_reload(self, error: str | None) -> None:
        self.reload_error = error

    def note_lag(self, lag_s: float) -> None:
        """How late the loop was just now."""
        lag_s = max(0.0, lag_s)
        self.loop = LoopView(lag_s, max(self.loop.lag_max_s, lag_s))

    async def go_on(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task that only reports. A fault of it is logged and counted, and a second later it runs again: what
        cannot be said is no reason to end what is done. Until cancelled."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("daemon.report_failed", task=task)
                self.report_failures[task] = self.report_failures.get(task, 0) + 1
            await asyncio.sleep(RETRY_S)

    async def read_counters(self, read: Callable[[], Awaitable[Mapping[str, CounterReading]]]) -> None:
        """Every second, until cancelled; after a failure those of before are shown."""
        while True:
            try:
                self.counters = await read()
            except KernelError as error:
                log.warning("counters.failed", error=str(error))
            await asyncio.sleep(COUNTERS_EVERY_S)


class Pulse:
    """`registered`: what has a length, that of the allowlist.

    READY=1 comes when the daemon is ready, at the latest START_PATIENCE_S after the start. systemd delivers no
    reload to a unit that is still starting: it merges the job into the start's and reports success (src/core/job.c:
    job_install). A start may wait for a registry for as long as that is not there.
    """

    def __init__(
        self,
        queries: Queries,
        vitals: Vitals,
        notifier: Notifier,
        clock: HostTime,
        registered: Sized,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queries = queries
        self._vitals = vitals
        self._notifier = notifier
        self._clock = clock
        self._registered = registered
        self._ready: bool | None = None
        self._text = self._asides = ""
        self._said_lost = LOST.total
        self._monotonic = monotonic
        self._end_start_at = monotonic() + START_PATIENCE_S

    async def run(self) -> None:
        """Beat the watchdog while the reconciler gets on; say READY=1 on time. Until cancelled."""
        interval_s = watchdog_interval_s()
        beat_at = 0.0
        while True:
            before = self._monotonic()
            await asyncio.sleep(PULSE_S)
            now = self._monotonic()
            self._vitals.note_lag(now - before - PULSE_S)
            if interval_s is not None and now >= beat_at and self._queries.is_alive() is None:
                self._notifier.watchdog()
                beat_at = now + min(interval_s, 10.0)
            self.look()

    def look(self) -> None:
        """Say what is another state than before."""
        self._say_readiness()
        self._say_asides()
        self._say_lost()

    def _say_readiness(self) -> None:
        reasons = self._queries.readiness()
        if not self._notifier.said_ready and reasons and self._monotonic() >= self._end_start_at:
            self._notifier.ready(f"not ready: {reasons[0]}")
            log.warning("daemon.started_unready", reason=reasons[0])
        if self._ready is (not reasons):
            return
        self._ready = not reasons
        self._asides = self._read_asides()
        if self._ready:
            registrations = len(self._registered)
            self._text = f"{registrations} registrations in the kernel"
            self._notifier.ready(self._text + self._asides)
            log.info("daemon.ready", registrations=registrations)
        else:
            self._text = f"not ready: {reasons[0]}"
            self._notifier.status(self._text + self._asides)
            log.info("daemon.not_ready", reason=reasons[0])

    def _say_asides(self) -> None:
        asides = self._read_asides()
        if asides != self._asides:
            self._asides = asides
            self._text = f"{len(self._registered)} registrations in the kernel" if self._ready else self._text
            self._notifier.status(self._text + asides)

    def _read_asides(self) -> str:
        """A clock that is not believed, and a mode that is not to stay."""
        doubt = self._clock.doubt()
        clock = "" if doubt is None else f"; this host's clock is {doubt.word} and not believed"
        arming = describe_for_systemd(self._queries.arming.view())
        return f"{clock}; {arming}" if arming else clock

    def _say_lost(self) -> None:
        """Once the output takes records again."""
        if LOST.total != self._said_lost and not is_any_stuck():
            log.warning("log.lost", records=LOST.total - self._said_lost)
            self._said_lost = LOST.total
