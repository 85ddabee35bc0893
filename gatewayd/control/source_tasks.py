"""A task for each configured source: started, stopped, asked for a reading now."""

from __future__ import annotations

import asyncio
from math import inf

from gatewayd.control.controller import Controller
from gatewayd.control.host_time import HostTime
from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.fetch import Session
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.runners import Delivery, Runner, make_runner


class SourceTasks:
    """`runners`: by the name of the source; live."""

    def __init__(self, session: Session, store: LastGood, time: HostTime) -> None:
        self.runners: dict[str, Runner] = {}
        self._session = session
        self._store = store
        self._time = time
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

    def confirmed_at(self, name: str) -> float:
        """When the source last said that it has nothing else; -inf = never, or it is not asked."""
        runner = self.runners.get(name)
        return runner.state.checked_at if runner is not None else -inf

    async def read_all(self) -> None:
        """Read every source now."""
        for runner in list(self.runners.values()):
            await runner.attempt()

    def _make(self, source: SourceSettings, registry: RegistrySettings, controller: Controller) -> Runner:
        async def deliver(result: Delivery) -> None:
            # A sync may still be reading the URL that a reload has replaced.
            if self.runners.get(source.name) is runner:
                await controller.deliver(result)

        runner = make_runner(
            source,
            registry,
            deliver=deliver,
            session=self._session,
            keeper=self._store,
            restored=controller.restored.pop(source.name, None),
            clock=self._time,
            witnessed=self._time,
        )
        return runner
