"""New settings while running: read, checked, handed to each part that reads one. A task for each source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gatewayd.assertions.judge import AssertionsBroken
from gatewayd.control.assertion_gate import AssertionGate
from gatewayd.control.controller import Controller
from gatewayd.control.host_time import HostTime
from gatewayd.control.trial_keeper import TrialKeeper
from gatewayd.errors import SettingsInvalid
from gatewayd.log import get_logger, setup_logging
from gatewayd.settings import RegistrySettings, Settings, SourceSettings, read_settings, settings_that_need_restart
from gatewayd.sources.files import OverridesDir, OverridesReading
from gatewayd.sources.last_good import Restored
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.plain_source import make_runner
from gatewayd.sources.runner import Runner, Tools
from gatewayd.sources.update import SourceUpdate
from gatewayd.subscribers.service import SubscriberService
from gatewayd.systemd import Notifier

log = get_logger(__name__)


class SourceTasks:
    """`runners`: by the name of the source; live."""

    def __init__(self, tools: Tools) -> None:
        self.runners: dict[str, Runner] = {}
        self._tools = tools
        self._restored: dict[str, Restored] = {}
        self._running: dict[str, tuple[SourceSettings, tuple[float, float, float], asyncio.Task[None]]] = {}

    def use(self, registry: RegistrySettings, controller: Controller, group: asyncio.TaskGroup) -> None:
        """Start runners for the sources of the settings; stop those that are gone or changed."""
        wanted = {each.name: each for each in registry.sources}
        intervals = (registry.refresh_s, registry.retry_s, registry.expire_s)
        for name, (used, paced, task) in list(self._running.items()):
            if wanted.get(name) != used or paced != intervals:
                task.cancel()
                del self._running[name], self.runners[name]
        for name, each in wanted.items():
            if name not in self._running:
                runner = self._make(each, registry, controller)
                self.runners[name] = runner
                self._running[name] = (each, intervals, group.create_task(runner.run(), name=f"source {name}"))

    def cancel(self) -> None:
        for _, _, task in self._running.values():
            task.cancel()

    def begin(self, restored: dict[str, Restored]) -> None:
        """The last good of each source, to go on from."""
        self._restored = dict(restored)

    async def read_all(self) -> None:
        """Read every source now."""
        for runner in list(self.runners.values()):
            await runner.attempt()

    def _make(self, source: SourceSettings, registry: RegistrySettings, controller: Controller) -> Runner:
        async def deliver(update: SourceUpdate) -> None:
            # A sync may still be reading the URL that a reload has replaced.
            if self.runners.get(source.name) is runner:
                await controller.deliver(update)

        restored = self._restored.pop(source.name, None)
        runner = make_runner(source, registry, self._tools, deliver, restored)
        return runner


class LocalFiles:
    """The directory of local files: opened, put into force, watched."""

    def __init__(self, gate: AssertionGate) -> None:
        self._gate = gate
        self._opened: OpenedLocal | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self, path: str | None) -> OpenedLocal:
        """What is in the directory; the one in use is not read again. Raises SettingsInvalid: where it is new, a
        fault in a file of it is as one in the configuration."""
        if self._opened is not None and self._opened.path == path:
            return self._opened
        if path is None:
            return OpenedLocal(None, None, OverridesReading(()))
        directory = OverridesDir(Path(path))
        reading = await directory.read()
        if reading.faults:
            raise SettingsInvalid(reading.faults)
        return OpenedLocal(path, directory, reading)

    async def use(self, opened: OpenedLocal) -> None:
        if opened is not self._opened:
            self.cancel()
            self._opened = opened
            await self._gate.adopt(opened.reading)

    def is_new(self, opened: OpenedLocal) -> bool:
        """Whether it is another than the one in use."""
        return opened is not self._opened

    def watch(self, group: asyncio.TaskGroup) -> None:
        """The directory in use, if that is not done yet."""
        if self._task is None and self._opened is not None and self._opened.directory is not None:
            work = self._opened.directory.watch(self._gate.deliver)
            self._task = group.create_task(work, name="overrides")

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None


@dataclass(frozen=True, slots=True)
class OpenedLocal:
    """`path`: of the settings; None: there are no local files."""

    path: str | None
    directory: OverridesDir | None
    reading: OverridesReading


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """`is_done`: the new settings are in force, but for `faults` of files that they name, and for local files that
    would break assertions (`broken`). Else none of them is: `faults` of the configuration, keys that
    `needs_restart`, or assertions that would be `broken`."""

    is_done: bool
    faults: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    @property
    def error(self) -> str | None:
        if self.broken:
            return f"it would break an assertion: {self.broken[0]}"
        if self.needs_restart:
            return f"{', '.join(self.needs_restart)}: only a restart can change that"
        return self.faults[0] if self.faults else None


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The parts that new settings are handed to. `subscribers` None: the configuration has no such section."""

    controller: Controller
    sources: SourceTasks
    local: LocalFiles
    store: LastGood
    time: HostTime
    subscribers: SubscriberService | None
    gate: AssertionGate
    trials: TrialKeeper


class Reloader:
    """One reload at a time. `settings`: in force. `path`: of the file that is read again."""

    def __init__(
        self,
        settings: Settings,
        path: Path,
        parts: Reloaded,
        notifier: Notifier,
        note: Callable[[str | None], None],
    ) -> None:
        """`note`: gets why a reload was refused, in part or whole; or None."""
        self._settings = settings
        self._path = path
        self._parts = parts
        self._notifier = notifier
        self._is_started = asyncio.Event()
        self._asked = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[ReloadOutcome]] = {}
        self._is_forced = False
        self._note = note

    def begin(self) -> None:
        """The last good is in force and its sources are asked: what comes before is not mixed with a reload."""
        self._is_started.set()

    def ask(self, by: str, is_forced: bool = False) -> asyncio.Future[ReloadOutcome]:
        """Have the file read; what came of it. All who ask before a reload begins get the same one. A future is
        shared by all calls of one asker. `is_forced`: also where an assertion breaks."""
        self._is_forced = self._is_forced or is_forced
        if by not in self._waiting:
            self._waiting[by] = asyncio.get_running_loop().create_future()
            self._asked.set()
        return self._waiting[by]

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            waiting, self._waiting = self._waiting, {}
            is_forced, self._is_forced = self._is_forced, False
            # READY=1 also ends the start, which a reload must not do for it.
            if self._notifier.said_ready:
                self._notifier.reloading()
            outcome = await self.reload(group, ", ".join(waiting), is_forced=is_forced)
            self._note(outcome.error)
            if self._notifier.said_ready:
                self._notifier.ready()
            for asked in waiting.values():
                asked.set_result(outcome)

    async def reload(self, group: asyncio.TaskGroup, by: str, *, is_forced: bool = False) -> ReloadOutcome:
        """A file with a fault changes nothing, nor does one that would break an assertion, unless it is forced.
        None is taken while a trial of a mode is pending. Before the start is done only mode observe is taken."""
        refusal = self._parts.trials.refusal_of_reload()
        if refusal is not None:
            log.error("reload.refused", fault=refusal, by=by)
            return ReloadOutcome(is_done=False, faults=(refusal,))
        self._parts.trials.note_reloading(is_reloading=True)
        try:
            return await self._reload(group, by, is_forced=is_forced)
        finally:
            self._parts.trials.note_reloading(is_reloading=False)

    async def _reload(self, group: asyncio.TaskGroup, by: str, *, is_forced: bool) -> ReloadOutcome:
        parts = self._parts
        try:
            settings = await asyncio.to_thread(read_settings, str(self._path))
            fixed = settings_that_need_restart(self._settings, settings)
            local = await parts.local.open(settings.registry.local)
            new_files = local.reading if parts.local.is_new(local) else None
            if not fixed:
                await parts.gate.check_settings(settings, new_files, by, is_forced=is_forced)
        except AssertionsBroken as error:
            return ReloadOutcome(is_done=False, broken=tuple(map(str, error.broken)))
        except SettingsInvalid as error:
            for fault in error.faults:
                log.error("reload.refused", fault=fault, by=by)
            return ReloadOutcome(is_done=False, faults=error.faults)
        if fixed:
            log.error("reload.needs_restart", keys=",".join(fixed), by=by)
            return ReloadOutcome(is_done=False, needs_restart=fixed)
        setup_logging(settings.log.level, settings.log.format)
        parts.time.expect_signed(settings.registry.has_signed)
        if settings.policy.mode == "observe":
            parts.trials.use_file(settings.policy.stage)
            parts.controller.reload(settings, by)  # waits for nothing; an armed mode waits for new sources
        await self._is_started.wait()
        self._settings = settings
        await parts.controller.use_sources([each.name for each in settings.registry.sources])
        await parts.local.use(local)
        broken = await parts.gate.try_again(by, is_forced=is_forced)
        parts.trials.use_file(settings.policy.stage)
        parts.controller.reload(settings, by)
        faults: tuple[str, ...] = ()
        if parts.subscribers is not None and settings.subscribers is not None:
            faults = parts.subscribers.reload(settings.subscribers)
        # A runner that ends in the middle of its change would leave a part of it, of which no reading knows.
        await parts.controller.between_changes(
            lambda _: parts.sources.use(settings.registry, parts.controller, group)
        )
        parts.local.watch(group)
        await parts.store.log_unused(parts.controller.sources)
        log.info("reload.done", by=by)
        return ReloadOutcome(is_done=True, faults=faults, broken=tuple(map(str, broken)))
