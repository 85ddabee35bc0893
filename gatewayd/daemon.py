"""Builds everything, starts it in order, stops it in order. No logic.

Start: prerequisites, event sockets, API, sources; the kernel is read and written only once every source has been
read. Stop: sources and API first, then the event sockets; the kernel keeps what it has.
"""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from gatewayd import __version__
from gatewayd.api.app import ApiServer
from gatewayd.control.controller import Controller
from gatewayd.control.host_time import open_host_time
from gatewayd.control.queries import DaemonQueries
from gatewayd.control.subscriber_service import SubscriberService, longest_unheard_s
from gatewayd.errors import KernelError, MissingPrerequisite, SettingsInvalid
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.kernel.surroundings import RuleReader
from gatewayd.kernel.tables import KernelTables
from gatewayd.log import get_logger, setup_logging
from gatewayd.model.policy import MarkLayout
from gatewayd.reconcile import Reconciler
from gatewayd.reconcile.tracker import ELEMENT_TIMEOUT_S
from gatewayd.settings import Settings, SourceSettings, read_settings, settings_that_need_restart
from gatewayd.sources.feed_source import make_runner
from gatewayd.sources.fetch import open_session
from gatewayd.sources.last_good import Restored
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.overrides_dir import OverridesDir
from gatewayd.sources.runner import Runner, Tools
from gatewayd.sources.update import SourceUpdate
from gatewayd.systemd import Notifier, watchdog_interval_s
from gatewayd.watch.source import EventSource
from gatewayd.watch.surroundings import Surroundings

log = get_logger(__name__)

COUNTERS_EVERY_S = 1.0
PULSE_S = 0.25
"""How often the loop's lag and the readiness are looked at."""


class Daemon:
    """One process, one loop. `config_path` is read again on SIGHUP."""

    def __init__(self, settings: Settings, config_path: Path) -> None:
        self._settings = settings
        self._config_path = config_path
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._is_started = asyncio.Event()
        """The last good is in force and its sources are asked: what comes before is not mixed with a reload."""
        self._notifier = Notifier()
        self._said_ready = False
        self._runners: dict[str, Runner] = {}
        self._restored: dict[str, Restored] = {}
        """The last good that no runner has gone on from yet."""
        self._running: dict[str, tuple[SourceSettings, tuple[float, float, float], asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises MissingPrerequisite before anything is touched."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        async with AsyncExitStack() as stack:
            await self._build(stack)
            log.info("daemon.started", version=__version__, mode=self._settings.policy.mode)
            async with asyncio.TaskGroup() as group:
                self._tasks = [
                    group.create_task(work, name=name)
                    for name, work in (
                        ("reconcile", self._reconciler.run()),
                        ("sweep", self._controller.scanner.run()),
                        ("clock", self._time.keep()),
                        ("time", self._controller.keep_time()),
                        ("counters", self._read_counters()),
                        ("surroundings", self._surroundings.run()),
                        ("pulse", self._pulse()),
                        ("reload", self._reload_when_told()),
                    )
                ]
                self._events.start()
                self._group = group
                self._tasks.append(group.create_task(self._restore_and_read(), name="restore"))
                if self._overrides is not None:
                    work = self._overrides.watch(self._controller.use_overrides)
                    self._tasks.append(group.create_task(work, name="overrides"))
                await self._stop.wait()
                self._notifier.stopping()
                log.info("daemon.stopping")
                for task in [*self._tasks, *(task for _, _, task in self._running.values())]:
                    task.cancel()

    async def _build(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        layout = MarkLayout(settings.kernel.ct_mark_mask)
        self._time = open_host_time(Path(settings.state_dir), has_signed=settings.registry.has_signed)
        self._store = LastGood(Path(settings.state_dir), clock=self._time, monotonic=time.monotonic)
        for source in settings.registry.sources:  # before anybody asks the time: nothing known, any is believed
            self._time.note_last_good(*await self._store.read_times(source.name))
        stack.enter_context(claim_table(settings.kernel.table))
        self._dataplane = KernelTables.open(settings.kernel.table)
        stack.callback(self._dataplane.close)
        await self._dataplane.check()
        conntrack = Conntrack()
        conntrack.open()
        stack.callback(conntrack.close)
        rules = RuleReader.open(settings.kernel.table, layout.mask)
        stack.callback(rules.close)
        self._surroundings = Surroundings(rules, layout.mask, monotonic=time.monotonic)
        self._reconciler = Reconciler(
            self._dataplane,
            settings.kernel.table,
            clock=self._time,
            monotonic=time.monotonic,
            verify_every_s=settings.kernel.verify_every_s,
            element_timeout_s=int(settings.subscribers.element_timeout_s)
            if settings.subscribers is not None
            else ELEMENT_TIMEOUT_S,
            spread=random.random,
            on_in_sync=lambda: self._controller.on_in_sync(),
        )
        self._reconciler.protect(each.category for each in settings.registry.shrink_guard.protected)
        self._reconciler.found(await self._dataplane.read_table())
        self._controller = Controller(
            settings, self._reconciler, conntrack, clock=self._time, store=self._store, host_time=self._time
        )
        await self._read_overrides()
        self._subscribers: SubscriberService | None = None
        if settings.subscribers is not None:
            self._subscribers = SubscriberService(
                settings.subscribers, Path(settings.state_dir), self._controller.active, clock=self._time
            )
            self._controller.on_known = self._subscribers.bindings.forget_unregistered
            self._subscribers.bindings.on_named = self._controller.scanner.grace.hear
            self._controller.scanner.grace.longest_s = longest_unheard_s(settings.subscribers)
            self._subscribers.open()
            stack.push_async_callback(self._subscribers.close)
        self._events = EventSource(
            group=settings.kernel.nflog_group,
            mark=layout.registered,
            mask=layout.registered,
            carried=layout.mask,
            on_packets=self._controller.on_packets,
            on_connections=self._controller.on_connections,
            on_lost=self._controller.on_lost,
        )
        self._events.open()
        stack.callback(self._events.close)
        session = open_session()
        stack.push_async_callback(session.close)
        self._tools = Tools(session, clock=self._time, time=self._time, last_good=self._store)
        self._queries = DaemonQueries(
            self._controller,
            self._events,
            self._runners,
            clock=self._time,
            host_time=self._time,
            read_sources=self._read_sources,
            subscribers=self._subscribers,
            surroundings=self._surroundings,
        )
        api = ApiServer(self._queries, *settings.http.listen, settings.http.socket)
        await api.start()
        stack.push_async_callback(api.stop)
        log.info("api.listening", host=settings.http.listen.host, port=api.port, socket=settings.http.socket)

    async def _read_overrides(self) -> None:
        """Local pins and filters. Raises SettingsInvalid: at the start a fault in them is as one in the file."""
        local = self._settings.registry.local
        self._overrides = OverridesDir(Path(local)) if local is not None else None
        if self._overrides is not None:
            reading = await self._overrides.read()
            if reading.faults:
                raise SettingsInvalid(reading.faults)
            await self._controller.use_overrides(reading)

    # -- sources -------------------------------------------------------------------------------------------

    async def _restore_and_read(self) -> None:
        """The journal and the last good before the network; a reload comes after all of it."""
        if self._subscribers is not None:
            await self._subscribers.start()
            self._tasks.append(self._group.create_task(self._subscribers.bindings.run(), name="sessions"))
        self._restored = await self._controller.restore()
        await self._store.say_unused(self._controller.sources)
        self._use_sources(self._group)
        self._is_started.set()

    def _use_sources(self, group: asyncio.TaskGroup) -> None:
        """Start runners for the sources of the settings; stop those that are gone or changed."""
        registry = self._settings.registry
        wanted = {each.name: each for each in registry.sources}
        intervals = (registry.refresh_s, registry.retry_s, registry.expire_s)
        for name, (used, paced, task) in list(self._running.items()):
            if wanted.get(name) != used or paced != intervals:
                task.cancel()
                del self._running[name], self._runners[name]
        for name, each in wanted.items():
            if name not in self._running:
                runner = self._runner(each)
                self._runners[name] = runner
                self._running[name] = (each, intervals, group.create_task(runner.run(), name=f"source {name}"))

    def _runner(self, each: SourceSettings) -> Runner:
        async def deliver(update: SourceUpdate) -> None:
            # A sync may still be reading the URL that a reload has replaced.
            if self._runners.get(each.name) is runner:
                await self._controller.deliver(update)

        restored = self._restored.pop(each.name, None)
        runner = make_runner(each, self._settings.registry, self._tools, deliver, restored)
        return runner

    async def _read_sources(self) -> None:
        """`sync`: read every source now, and wait until what changed is in the kernel."""
        for runner in list(self._runners.values()):
            await runner.attempt()

    # -- reload --------------------------------------------------------------------------------------------

    async def _reload_when_told(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            # READY=1 also ends the start, which a reload must not do for it.
            if self._said_ready:
                self._notifier.reloading()
            await self._reload_settings()
            if self._said_ready:
                self._notifier.ready()

    async def _reload_settings(self) -> None:
        """A file with a fault changes nothing, and says so."""
        try:
            settings = await asyncio.to_thread(read_settings, str(self._config_path))
        except SettingsInvalid as error:
            for fault in error.faults:
                log.error("reload.refused", fault=fault)
            self._queries.reload_error = error.faults[0]
            return
        fixed = settings_that_need_restart(self._settings, settings)
        if fixed:
            log.error("reload.needs_restart", keys=",".join(fixed))
            self._queries.reload_error = f"{', '.join(fixed)}: only a restart can change that"
            return
        self._queries.reload_error = None
        setup_logging(settings.log.level, settings.log.format)
        self._time.expect_signed(settings.registry.has_signed)
        if settings.policy.mode == "observe":
            self._controller.reload(settings)  # waits for nothing; an armed mode waits for the sources that are new
        await self._is_started.wait()
        self._settings = settings
        await self._controller.use_sources([each.name for each in settings.registry.sources])
        self._controller.reload(settings)
        if self._subscribers is not None and settings.subscribers is not None:
            faults = self._subscribers.reload(settings.subscribers)
            self._controller.scanner.grace.longest_s = longest_unheard_s(settings.subscribers)
            self._queries.reload_error = faults[0] if faults else None
        self._use_sources(self._group)
        await self._store.say_unused(self._controller.sources)
        log.info("reload.done")

    # -- pulse ---------------------------------------------------------------------------------------------

    async def _read_counters(self) -> None:
        while True:
            try:
                self._queries.counters = await self._dataplane.read_counters()
            except KernelError as error:
                log.warning("counters.failed", error=str(error))
            await asyncio.sleep(COUNTERS_EVERY_S)

    async def _pulse(self) -> None:
        """Watch the loop's lag; beat the watchdog while the reconciler gets on; say READY=1 once it is true."""
        interval_s = watchdog_interval_s()
        beat_at = 0.0
        ready: bool | None = None
        was_doubted = False
        while True:
            before = time.monotonic()
            await asyncio.sleep(PULSE_S)
            now = time.monotonic()
            self._queries.note_lag(now - before - PULSE_S)
            if interval_s is not None and now >= beat_at and self._queries.is_alive() is None:
                self._notifier.watchdog()
                beat_at = now + min(interval_s, 10.0)
            reasons = self._queries.readiness()
            if ready is not (not reasons):
                ready = not reasons
                if ready:
                    self._said_ready = True
                    registrations = len(self._controller.allowlist)
                    self._notifier.ready(f"{registrations} registrations in the kernel")
                    log.info("daemon.ready", registrations=registrations)
                else:
                    self._notifier.status(f"not ready: {reasons[0]}")
                    log.info("daemon.not_ready", reason=reasons[0])
            doubt = self._time.doubt()
            if ready and was_doubted is not (doubt is not None):
                was_doubted = doubt is not None
                clock = "" if doubt is None else f"; this host's clock is {doubt.word} and not believed"
                self._notifier.status(f"{len(self._controller.allowlist)} registrations in the kernel{clock}")


def claim_table(table: str) -> socket.socket:
    """Held by the one daemon that keeps the table: two would each undo what the other does.

    An abstract name (unix(7)) belongs to a network namespace, as a table does, and goes with the process. Raises
    MissingPrerequisite when it is taken.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0gatewayd/{table}")
    except OSError as error:
        claim.close()
        raise MissingPrerequisite(
            f"another gatewayd keeps table inet {table} ({error.strerror})",
            "stop it first (systemctl stop gatewayd)",
        ) from None
    return claim


def run_daemon(settings: Settings, config_path: Path, runner: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """`runner`: uvloop.run, or asyncio.run in a test."""
    setup_logging(settings.log.level, settings.log.format)

    # What is imported stays; what a million registrations make is seldom a cycle, and looking for one costs a tenth
    # of the load at the usual 700.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)

    async def main() -> None:
        await Daemon(settings, config_path).run()

    runner(main())
