"""One life of the daemon, from a start to its end: the real parts, wired as the daemon wires them.

Real are the controller with registry, guard, overrides, active set and programmer; the reconciler and the scanner;
the sessions; trials, policy and reload. Left out are sockets, threads and what only watches: API, pages, vitals,
activity, impact. `Environment` is what the world tells the life, and learns from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol, cast
from unittest.mock import patch

from msgspec import structs

from gatewayd.control.assertion_gate import AssertionGate
from gatewayd.control.assertion_watch import AssertionWatch
from gatewayd.control.controller import Controller
from gatewayd.control.core import build_core
from gatewayd.control.host_time import HostTime, WindowClock
from gatewayd.control.reload import OpenedLocal, Reloaded, Reloader
from gatewayd.control.trial_gateway import TrialGateway
from gatewayd.control.trial_keeper import TrialKeeper
from gatewayd.control.trip_evidence import TripEvidence
from gatewayd.errors import KernelError
from gatewayd.model import Registration
from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.transaction import TableReading
from gatewayd.settings import Settings
from gatewayd.sources.files import OverridesReading
from gatewayd.sources.override_file import OverrideFile
from gatewayd.subscribers import service as service_module
from gatewayd.subscribers.service import SubscriberService
from gatewayd.systemd import Notifier
from gatewayd.trial.state import Instant
from tests.simulation.asking import Group, Sources, Supply
from tests.simulation.disk import DRAINS, JOURNAL, Disk, Journal, Store, Trials
from tests.simulation.kernel import Flows, Kernel, Line
from tests.simulation.loop import SeededLoop
from tests.support.accounting import NoJitter


class Environment(Supply, Protocol):
    """What lies around a life."""

    boot_id: str

    @property
    def is_synced(self) -> bool: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def files(self) -> tuple[OverrideFile, ...]: ...
    def restored(self, source: str, registrations: Mapping[str, Registration]) -> None: ...
    def laid(self, files: tuple[OverrideFile, ...]) -> None: ...
    def received(self, event: AccountingEvent) -> None: ...
    def answered(self, event: AccountingEvent) -> None: ...


class Stage:
    """What modules of the program ask of the process, for the one run that is going on: the configuration file, and
    where records of the log go."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.note: Callable[[str, dict[str, object]], None] = lambda _event, _fields: None

    def enter(self, settings: Settings, note: Callable[[str, dict[str, object]], None]) -> None:
        self.settings, self.note = settings, note

    def use(self, settings: Settings) -> None:
        self.settings = settings

    def leave(self) -> None:
        self.note = lambda _event, _fields: None


STAGE: Final = Stage()


class _LocalFiles:
    """In the place of control.reload.LocalFiles: the directory is watched by `Life` itself."""

    async def open(self, _: object) -> OpenedLocal:
        return OpenedLocal(None, None, OverridesReading(()))

    async def use(self, _: object) -> None:
        pass

    def is_new(self, _: object) -> bool:
        return False

    def watch(self, _: object) -> None:
        pass


class Life:
    """`number`: of the run's lives, from 1."""

    def __init__(self, number: int, kernel: Kernel, disk: Disk, env: Environment, loop: SeededLoop) -> None:
        self.number = number
        self.is_dead = False
        self.is_started = False
        self._env, self._loop, self._disk, self._kernel = env, loop, disk, kernel
        clock = kernel.clock
        self.line = Line(kernel)
        settings = env.settings
        self.host_time = HostTime(
            has_signed=False,
            wall=clock,
            elapsed=clock.monotonic,
            is_synced=lambda _: env.is_synced,
            boot_id=env.boot_id,
        )
        self.host_time.judge()
        self.core = build_core(
            settings,
            self.line,
            Flows(kernel),
            WindowClock(self.host_time, self.host_time.moment),
            monotonic=clock.monotonic,
            spread=kernel.dice.random,
        )
        self.reconciler = self.core.reconciler
        self.service = self._make_service(settings)
        self.trial_store = Trials(disk)
        store = cast(Any, Store(disk))
        self.controller = Controller(
            settings,
            self.core,
            store=store,
            host_time=self.host_time,
            subscribers=self.service,
            arming=self.trial_store,
        )
        self.gate = AssertionGate(self.controller)
        self.assertions = AssertionWatch(
            self.controller, self.gate, self.line, likely=self.host_time, monotonic=clock.monotonic
        )
        numbers = count(1)
        self.trials = TrialKeeper(
            self.trial_store,
            TrialGateway(self.controller, self.core.in_sync),
            now=self.host_time.instant,
            make_id=lambda: f"t{number}.{next(numbers)}",
            evidence=TripEvidence(self.controller, self.gate),
        )
        self.pokes = {name: asyncio.Event() for name in env.published}
        self._sources = Sources(env, self.pokes, kernel.dice, self.host_time)
        self._settings = settings
        parts = Reloaded(
            self.controller,
            self._sources,
            cast(Any, _LocalFiles()),
            store,
            self.host_time,
            self.service,
            self.gate,
            self.trials,
        )
        self.reloader = Reloader(settings, Path("/nowhere"), parts, Notifier({}), lambda _: None)
        self.files_changed = asyncio.Event()
        self._works: list[Coroutine[Any, Any, Any]] = []

    def _make_service(self, settings: Settings) -> SubscriberService:
        assert settings.subscribers is not None
        clock = self._kernel.clock
        with patch.object(service_module, "read_boot_id", lambda: self._env.boot_id):
            made = SubscriberService(
                settings.subscribers,
                Path("/nowhere"),
                self.core.programmer.active.allowlist,
                self.core.programmer,
                clock=self.host_time,
                monotonic=clock.monotonic,
            )
        own = cast(Any, made)
        own.journal = journal = Journal(self._disk)
        journal.moment = own._timeline.moment
        own.sessions._randomness = NoJitter()
        return made

    # -- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.do(self._start())

    def do(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
        """As a task of this life; what it raises ends the run."""
        self._works.append(work)
        return self._loop.create_task(self._watched(work))

    async def _watched(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Exception as error:
            if not self.is_dead:
                self._loop.errors.append(error)

    async def _start(self) -> None:
        """As daemon.Daemon: built, then all tasks at once; the journal and the last good before any source."""
        env, settings = self._env, self._env.settings
        reading = await self._first_look()
        self.reconciler.found(reading)
        earlier = self._disk.files.get(DRAINS)
        if earlier is not None and earlier[0] == env.boot_id:
            self.core.scanner.restore_drains(earlier[1].get)
        found = None if reading.tag is None else reading.tag.mode
        kept = self.trial_store.recall(settings.policy.stage, self.host_time.instant(), found)
        files = env.files
        await self.gate.adopt(OverridesReading(files))
        env.laid(files)
        self.trials.say_restored(kept)
        for work in (
            self.reconciler.run(),
            self.core.scanner.run(),
            self.controller.keep_time(),
            self.trials.run(),
            self._keep_drains(),
            self.assertions.run(),
            self.reloader.run(cast(Any, Group(self.do))),
        ):
            self.do(work)
        await self.service.start()
        self.do(self.service.run())
        self.is_started = True
        restored = await self.controller.restore()
        for name, each in restored.items():
            if each.position is not None:
                env.restored(name, each.registrations)
        self.do(self._watch_files(files))
        self._sources.begin(restored)
        self._sources.use(self._settings.registry, self.controller, cast(Any, Group(self.do)))
        self.reloader.begin()

    async def _first_look(self) -> TableReading:
        """Where it fails the service manager starts another, which begins in the same way."""
        while True:
            try:
                return await self.line.read_table()
            except KernelError:
                await asyncio.sleep(1.0)

    def kill(self) -> None:
        """kill -9: nothing of it is ever run again."""
        self.is_dead = self.line.is_dead = True

    def close(self) -> None:
        """After the loop was closed: what was never begun."""
        for work in self._works:
            with suppress(RuntimeError):
                work.close()

    async def _keep_drains(self) -> None:
        """As control.drain_keeper."""
        while True:
            await self.core.scanner.drains_changed.wait()
            self.core.scanner.drains_changed.clear()
            due = self._env.boot_id, dict(self.core.scanner.drains)
            await self._disk.wait()
            try:
                self._disk.put(DRAINS, due)
            except OSError:
                self.core.scanner.drains_changed.set()
                await asyncio.sleep(1.0)
            await asyncio.sleep(0.2)

    async def _watch_files(self, laid: tuple[OverrideFile, ...]) -> None:
        """The directory of local files, as its watch sees it."""
        while True:
            files = self._env.files
            if files != laid:
                await self.gate.deliver(OverridesReading(files))
                if not self.controller.override_faults:  # else an assertion of them would break
                    self._env.laid(files)
                laid = files
            if files == self._env.files:
                self.files_changed.clear()
                await self.files_changed.wait()

    # -- what comes in -------------------------------------------------------------------------------------

    def hear(self, event: AccountingEvent, true_s: float) -> None:
        """A datagram. `true_s`: the true time. It is stamped by the sessions' clock as it comes in."""
        if self.is_dead or not self.service.is_restored:
            return
        ahead_s = self.service.now() - true_s
        stamped = structs.replace(event, at_s=event.at_s + ahead_s, received_at_s=event.received_at_s + ahead_s)
        taken = self.service.receive(stamped, lambda: None if self.is_dead else self._env.answered(event))
        if taken.outcome is not None:
            self._env.received(event)

    def knows_session(self, nas: str, session: str) -> bool:
        """Whether the journal that it started from has it."""
        rows, _ = self._disk.files.get(JOURNAL, ({}, None))
        return ("session", nas, session) in rows

    def now(self) -> Instant:
        return self.host_time.instant()


class Lives:
    """One daemon after another on a host. `life`: the one that runs."""

    def __init__(self, kernel: Kernel, disk: Disk, env: Environment, loop: SeededLoop) -> None:
        self.life: Life | None = None
        self._kernel, self._disk, self._env, self._loop = kernel, disk, env, loop
        self._graveyard: list[Life] = []

    def make(self, number: int) -> Life:
        self.life = life = Life(number, self._kernel, self._disk, self._env, self._loop)
        return life

    def kill(self) -> bool:
        """Whether there was one."""
        life = self.life
        if life is None:
            return False
        life.kill()
        self._graveyard.append(life)
        self.life = None
        self._kernel.tables.unwatch()
        self._kernel.heal()
        self._loop.drop_all()
        return True

    def close(self) -> None:
        """After the loop was closed."""
        for life in self._graveyard:
            life.close()
        self._graveyard.clear()
