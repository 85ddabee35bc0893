"""A task for each configured source: started, stopped, asked for a reading now."""

from __future__ import annotations

import asyncio

from gatewayd.control.controller import Controller
from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.feed_source import make_runner
from gatewayd.sources.last_good import Restored
from gatewayd.sources.runner import Runner, Tools
from gatewayd.sources.update import SourceUpdate


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
