"""New settings while running: read, checked, handed to each part that reads one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from gatewayd.control.controller import Controller
from gatewayd.control.host_time import HostTime
from gatewayd.control.source_tasks import SourceTasks
from gatewayd.errors import SettingsInvalid
from gatewayd.log import get_logger, setup_logging
from gatewayd.settings import Settings, read_settings, settings_that_need_restart
from gatewayd.sources.last_good_store import LastGood
from gatewayd.subscribers.service import SubscriberService

log = get_logger(__name__)


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
        await self.store.say_unused(self.controller.sources)
        log.info("reload.done")
        return faults[0] if faults else None
