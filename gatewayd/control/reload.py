"""New settings while running: read, checked, handed to each part that reads one. A task for each source."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from gatewayd.control.controller import Controller
from gatewayd.control.host_time import HostTime
from gatewayd.errors import SettingsInvalid
from gatewayd.log import get_logger, setup_logging
from gatewayd.settings import RegistrySettings, Settings, SourceSettings, read_settings, settings_that_need_restart
from gatewayd.sources.last_good import Restored
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.plain_source import make_runner
from gatewayd.sources.runner import Runner, Tools
from gatewayd.sources.update import SourceUpdate
from gatewayd.subscribers.service import SubscriberService

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


@dataclass(slots=True)
class Reloader:
    """`settings`: in force. `path`: of the file that is read again."""

    settings: Settings
    path: Path
    controller: Controller
    sources: SourceTasks
    store: LastGood
    time: HostTime
    subscribers: SubscriberService | None

    async def reload(self, group: asyncio.TaskGroup, is_started: asyncio.Event) -> str | None:
        """None, or why the new settings are not in force. A file with a fault changes nothing. `is_started`: the
        last good is in force and its sources are asked; before that only mode observe is taken."""
        try:
            settings = await asyncio.to_thread(read_settings, str(self.path))
        except SettingsInvalid as error:
            for fault in error.faults:
                log.error("reload.refused", fault=fault)
            return error.faults[0]
        fixed = settings_that_need_restart(self.settings, settings)
        if fixed:
            log.error("reload.needs_restart", keys=",".join(fixed))
            return f"{', '.join(fixed)}: only a restart can change that"
        setup_logging(settings.log.level, settings.log.format)
        self.time.expect_signed(settings.registry.has_signed)
        if settings.policy.mode == "observe":
            self.controller.reload(settings)  # waits for nothing; an armed mode waits for the sources that are new
        await is_started.wait()
        self.settings = settings
        await self.controller.use_sources([each.name for each in settings.registry.sources])
        self.controller.reload(settings)
        faults: tuple[str, ...] = ()
        if self.subscribers is not None and settings.subscribers is not None:
            faults = self.subscribers.reload(settings.subscribers)
        self.sources.use(settings.registry, self.controller, group)
        await self.store.log_unused(self.controller.sources)
        log.info("reload.done")
        return faults[0] if faults else None
