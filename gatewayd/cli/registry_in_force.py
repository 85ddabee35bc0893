"""The registry that would be in force, for commands that do without the daemon."""

from __future__ import annotations

import time
from pathlib import Path

from gatewayd.control.assertion_gate import split
from gatewayd.control.core import make_registry
from gatewayd.control.guard_keeper import read_last_good
from gatewayd.control.host_time import HostTime, WindowClock
from gatewayd.errors import SettingsInvalid
from gatewayd.model.assertion import Assertion
from gatewayd.model.registration import Changes, Registration, Slices, run_slices
from gatewayd.registry.state import RegistryState
from gatewayd.settings import Settings
from gatewayd.sources.fetch import open_session
from gatewayd.sources.files import OverridesReading, read_overrides
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.plain_source import make_runner
from gatewayd.sources.runner import Tools
from gatewayd.sources.update import SourceUpdate


async def read_registry(
    settings: Settings, host_time: HostTime, *, asks_sources: bool = True
) -> tuple[RegistryState, dict[str, Registration], tuple[Assertion, ...]]:
    """What a start would find in force: the last good of every source, and each source read once. Writes nothing.

    `asks_sources` False: the last good alone.

    Raises SourceFailed, and SettingsInvalid for faults of the local overrides.
    """
    registry = settings.registry
    reading = read_overrides(Path(registry.local)) if registry.local is not None else OverridesReading(())
    if reading.faults:
        raise SettingsInvalid(reading.faults)
    clock = WindowClock(host_time, host_time.moment)
    store = LastGood(Path(settings.state_dir), clock=host_time, monotonic=time.monotonic)
    for source in registry.sources:
        host_time.note_last_good(*await store.read_times(source.name))
    state, in_force = make_registry(registry), dict[str, Registration]()

    def take(slices: Slices[Changes | None]) -> None:
        changes = run_slices(slices) or Changes((), ())
        in_force.update({each.id: each for each in changes.upserts})
        for id in changes.withdrawals:
            in_force.pop(id, None)

    async def deliver(update: SourceUpdate) -> None:
        if update.error is not None:
            raise update.error
        take(state.apply(update, clock.certain()))

    now = clock.certain()
    files, assertions = split(reading.files)
    take(state.use_overrides(files, now))
    record, found = await read_last_good(store, registry.sources, tidies=False)
    take(state.restore(record, found, now))
    if not asks_sources:
        return state, in_force, assertions
    async with open_session() as session:
        tools = Tools(session, clock=host_time, time=host_time)
        for source in registry.sources:
            await make_runner(source, registry, tools, deliver, found[source.name]).attempt()
    return state, in_force, assertions
