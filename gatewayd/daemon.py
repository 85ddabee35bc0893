"""Builds everything, starts it in order, stops it in order. No logic.

Start: prerequisites, event sockets, API, sources; the kernel is read and written only once every source has been
read. Stop: sources and API first, then the event sockets; the kernel keeps what it has.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

from gatewayd import __version__
from gatewayd.api.app import ApiServer
from gatewayd.api.process import ListenerView
from gatewayd.control.activity_keeper import ActivityKeeper
from gatewayd.control.arming_queries import Arming
from gatewayd.control.assertion_gate import AssertionGate
from gatewayd.control.assertion_watch import AssertionWatch
from gatewayd.control.controller import Controller
from gatewayd.control.core import Core, build_core
from gatewayd.control.drain_keeper import DrainKeeper
from gatewayd.control.history_keeper import HistoryKeeper
from gatewayd.control.host_time import WindowClock, open_host_time
from gatewayd.control.planner import Planner
from gatewayd.control.queries import Counts, DaemonQueries
from gatewayd.control.reload import LocalFiles, Reloaded, Reloader, SourceTasks
from gatewayd.control.status import Host, Kept, StatusReport
from gatewayd.control.trial_gateway import TrialGateway
from gatewayd.control.trial_keeper import TrialKeeper
from gatewayd.control.trial_report import TrialReports
from gatewayd.control.trial_store import TrialStore
from gatewayd.control.trip_evidence import TripEvidence
from gatewayd.control.vitals import Pulse, Vitals
from gatewayd.doctor.keeper import HostKeeper
from gatewayd.impact.keeper import ImpactKeeper
from gatewayd.impact.store import ImpactStore
from gatewayd.kernel.claim import claimed_table
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.kernel.counts import CountReader
from gatewayd.kernel.external import RuleReader
from gatewayd.kernel.passage import KernelPassage
from gatewayd.kernel.tables import KernelTables
from gatewayd.log import get_logger, setup_logging
from gatewayd.log.tap import TAP
from gatewayd.model.policy import MarkLayout
from gatewayd.page.routes import Pages
from gatewayd.settings import Settings
from gatewayd.sources.fetch import open_session
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.runner import Tools
from gatewayd.subscribers.service import SubscriberService, read_boot_id
from gatewayd.systemd import Notifier
from gatewayd.trial.state import TrialState
from gatewayd.watch.links import LinkWatch
from gatewayd.watch.source import EventSource, PacketLog
from gatewayd.watch.surroundings import Surroundings

log = get_logger(__name__)


class Daemon:
    """One process, one loop. `config_path` is read again on SIGHUP."""

    def __init__(self, settings: Settings, config_path: Path) -> None:
        self._settings = settings
        self._config_path = config_path
        self._stop = asyncio.Event()
        self._notifier = Notifier()
        self._reloader: Reloader | None = None
        self._was_hung_up = False
        """SIGHUP came before there was a reloader."""

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises MissingPrerequisite before anything is touched."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        async with AsyncExitStack() as stack:
            stack.callback(self._notifier.close)
            reloader = self._reloader = await self._build(stack)
            if self._was_hung_up:
                self._hang_up()
            log.info("daemon.started", version=__version__, mode=self._settings.policy.mode)
            go_on = self._vitals.go_on
            async with asyncio.TaskGroup() as group:
                self._tasks = [
                    group.create_task(work, name=name)
                    for name, work in (
                        ("reconcile", self._core.reconciler.run()),
                        ("scan", self._core.scanner.run()),
                        ("clock", self._time.keep()),
                        ("time", self._controller.keep_time()),
                        ("trials", self._trials.run()),
                        (
                            "counters",
                            go_on("counters", partial(self._vitals.read_counters, self._dataplane.read_counters)),
                        ),
                        ("history", go_on("history", self._history.run)),
                        ("activity", go_on("activity", self._activity.run)),
                        ("surroundings", go_on("surroundings", self._surroundings.run)),
                        ("interfaces", go_on("interfaces", self._links.run)),
                        ("host", go_on("host", self._host.run)),
                        ("pulse", go_on("pulse", self._pulse.run)),
                        ("assertions", go_on("assertions", self._asserted.run)),
                        ("drains", go_on("drains", self._drains.run)),
                        ("near misses", go_on("near_misses", self._core.near_misses.run)),
                        ("impact", go_on("impact", self._impact.run)),
                        ("reload", reloader.run(group)),
                    )
                ]
                self._events.start()
                self._tasks.append(group.create_task(self._restore_and_read(group, reloader), name="restore"))
                self._local.watch(group)
                await self._stop.wait()
                self._notifier.stopping()
                log.info("daemon.stopping")
                for task in self._tasks:
                    task.cancel()
                self._sources.cancel()
                self._local.cancel()

    def _hang_up(self) -> None:
        self._was_hung_up = True
        if self._reloader is not None:
            self._reloader.ask("SIGHUP")

    # -- built, from the bottom up -------------------------------------------------------------------------

    async def _build(self, stack: AsyncExitStack) -> Reloader:
        settings = self._settings
        self._time = open_host_time(Path(settings.state_dir), has_signed=settings.registry.has_signed)
        self._store = LastGood(Path(settings.state_dir), clock=self._time, monotonic=time.monotonic)
        for source in settings.registry.sources:  # before anybody asks the time: nothing known, any is believed
            self._time.note_last_good(*await self._store.read_times(source.name))
        session = open_session()
        stack.push_async_callback(session.close)
        self._sources = SourceTasks(Tools(session, clock=self._time, time=self._time))
        self._core = await self._build_core(stack)
        self._subscribers = self._build_subscribers()
        arming = TrialStore(Path(settings.state_dir))
        kept = arming.recall(settings.policy.stage, self._time.instant(), self._found)
        self._controller = self._build_controller(arming)
        self._gate = AssertionGate(self._controller)
        self._asserted = self._watch_assertions(stack)
        self._local = LocalFiles(self._gate)
        await self._local.use(await self._local.open(settings.registry.local))
        self._open_counts(stack)
        self._trials = self._keep_trials(arming, kept)
        if self._subscribers is not None:
            self._subscribers.open()
            stack.push_async_callback(self._subscribers.close)
        self._open_events(stack)
        controller = self._controller
        self._links = LinkWatch(lambda: controller.settings.policy.interfaces, monotonic=time.monotonic)
        self._vitals = Vitals(self._time)
        parts = Reloaded(
            self._controller,
            self._sources,
            self._local,
            self._store,
            self._time,
            self._subscribers,
            self._gate,
            self._trials,
        )
        reloader = Reloader(settings, self._config_path, parts, self._notifier, self._vitals.note_reload)
        await self._build_api(stack, reloader)
        return reloader

    def _build_subscribers(self) -> SubscriberService | None:
        if self._settings.subscribers is None:
            return None
        programmer = self._core.programmer
        return SubscriberService(
            self._settings.subscribers,
            Path(self._settings.state_dir),
            programmer.active.allowlist,
            programmer,
            clock=self._time,
        )

    def _build_controller(self, arming: TrialStore) -> Controller:
        return Controller(
            self._settings,
            self._core,
            store=self._store,
            host_time=self._time,
            subscribers=self._subscribers,
            arming=arming,
        )

    def _keep_trials(self, arming: TrialStore, kept: TrialState) -> TrialKeeper:
        made = TrialKeeper(
            arming,
            TrialGateway(self._controller, self._core.in_sync),
            now=self._time.instant,
            make_id=partial(token_hex, 4),
            evidence=TripEvidence(self._controller, self._gate),
            reports=TrialReports(
                Path(self._settings.state_dir), self._dataplane.read_counters, self._impact.report
            ),
            path=str(self._config_path),
        )
        made.say_restored(kept)
        return made

    async def _build_core(self, stack: AsyncExitStack) -> Core:
        settings, mask = self._settings, self._settings.kernel.ct_mark_mask
        stack.enter_context(claimed_table(settings.kernel.table, Path(settings.http.socket).parent))
        self._dataplane = KernelTables.open(settings.kernel.table)
        stack.callback(self._dataplane.close)
        await self._dataplane.check()
        conntrack = Conntrack()
        conntrack.open()
        stack.callback(conntrack.close)
        rules = RuleReader.open(settings.kernel.table, mask)
        stack.callback(rules.close)
        self._surroundings = Surroundings(rules, mask, monotonic=time.monotonic)
        core = build_core(
            settings,
            self._dataplane,
            conntrack,
            WindowClock(self._time, self._time.moment),
            monotonic=time.monotonic,
            spread=random.random,
        )
        core.reconciler.protect(each.category for each in settings.registry.shrink_guard.protected)
        reading = await self._dataplane.read_table()
        core.reconciler.found(reading)
        self._found = None if reading.tag is None else reading.tag.mode
        self._drains = DrainKeeper(Path(settings.state_dir), core.scanner, boot_id=read_boot_id())
        await self._drains.open()
        stack.push_async_callback(self._drains.close)
        await core.near_misses.open(Path(settings.state_dir))
        stack.push_async_callback(core.near_misses.close)
        return core

    def _open_counts(self, stack: AsyncExitStack) -> None:
        """What is kept of traffic: the use of registrations, and unregistered flows."""
        state_dir, reconciler = Path(self._settings.state_dir), self._core.reconciler
        self._activity = ActivityKeeper(
            state_dir, self._core.attribution, self._controller.registry.history, TAP, clock=self._time
        )
        stack.push_async_callback(self._activity.close)
        reader = CountReader.open(self._settings.kernel.table)
        stack.callback(reader.close)
        self._impact = ImpactKeeper(
            reader,
            self._dataplane.read_counters,
            ImpactStore(state_dir),
            lambda: reconciler.policy_in_force,
            boot_id=read_boot_id(),
            clock=self._time,
            monotonic=partial(time.clock_gettime, time.CLOCK_MONOTONIC),  # by which elements go
        )
        stack.push_async_callback(self._impact.close)

    def _watch_assertions(self, stack: AsyncExitStack) -> AssertionWatch:
        passage = KernelPassage.open(self._settings.kernel.table)
        stack.callback(passage.close)
        return AssertionWatch(self._controller, self._gate, passage, likely=self._time)

    def _open_events(self, stack: AsyncExitStack) -> None:
        kernel = self._settings.kernel
        layout = MarkLayout(kernel.ct_mark_mask)
        self._events = EventSource(
            logs=(
                PacketLog("near", kernel.near_miss_group, self._core.watch.on_near),
                PacketLog("nflog", kernel.nflog_group, self._core.watch.on_packets),
            ),
            mark=layout.registered,
            mask=layout.registered,
            carried=layout.mask,
            on_connections=self._core.watch.on_connections,
            on_lost=self._core.watch.on_lost,
        )
        self._events.open()
        stack.callback(self._events.close)

    async def _build_api(self, stack: AsyncExitStack, reloader: Reloader) -> None:
        listeners = ListenerView("tcp"), ListenerView("unix")
        files = (self._activity.view, self._core.near_misses.file_view, self._drains.view, self._impact.file)
        self._host = HostKeeper(self._controller)
        report = StatusReport(
            self._controller,
            self._events,
            self._sources.runners,
            self._vitals,
            host=Host(self._surroundings, self._links, self._host),
            host_time=self._time,
            listeners=listeners,
            kept=Kept(files, self._impact.view),
            assertions=self._asserted.view,
            arming=self._trials.view,
        )
        self._history = HistoryKeeper(self._controller, self._vitals, self._subscribers)
        self._queries = DaemonQueries(
            self._controller,
            report,
            self._subscribers,
            clock=self._time,
            read_sources=self._sources.read_all,
            reload=reloader.ask,
            gate=self._gate,
            arming=Arming(self._trials, self._gate.check_stage),
            plan=self._build_planner(stack).plan,
            counts=Counts(self._activity, self._impact.report, self._history.view),
        )
        self._pulse = Pulse(self._queries, self._vitals, self._notifier, self._time, self._controller.allowlist)
        http, pages = self._settings.http, Pages(self._queries, os.uname().nodename)
        api = ApiServer(
            self._queries, *http.listen, http.socket, names=http.names, listeners=listeners, pages=pages.add_to
        )
        await api.start()
        stack.push_async_callback(api.stop)

    def _build_planner(self, stack: AsyncExitStack) -> Planner:
        conntrack = Conntrack()
        conntrack.open()
        stack.callback(conntrack.close)
        return Planner(
            self._controller,
            self._gate,
            self._core.reconciler.tracker,
            conntrack,
            host_time=self._time,
            monotonic=time.monotonic,
        )

    # -- tasks ---------------------------------------------------------------------------------------------

    async def _restore_and_read(self, group: asyncio.TaskGroup, reloader: Reloader) -> None:
        """The journal and the last good before the network; a reload comes after all of it."""
        if self._subscribers is not None:
            await self._subscribers.start()
            self._tasks.append(group.create_task(self._subscribers.run(), name="sessions"))
        restored = await self._controller.restore()
        await self._store.log_unused(self._controller.sources)
        self._sources.begin(restored)
        self._sources.use(self._settings.registry, self._controller, group)
        reloader.begin()


def raise_file_limit() -> None:
    """As many open files as the host allows us; 1,024 is the usual soft limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_daemon(settings: Settings, config_path: Path, runner: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """`runner`: uvloop.run, or asyncio.run in a test."""
    setup_logging(settings.log.level, settings.log.format)
    raise_file_limit()

    # What is imported stays; what a million registrations make is seldom a cycle, and looking for one costs a tenth
    # of the load at the usual 700.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)

    async def main() -> None:
        await Daemon(settings, config_path).run()

    runner(main())
