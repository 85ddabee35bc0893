"""A gateway on a bad registry: real runner, HTTP client, owner, guard and store, and a kernel in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from gatewayd.compile.masks import compile_elements
from gatewayd.kernel.fake import FakeTables
from gatewayd.model import Registration
from gatewayd.registry.freshness import SourceState
from gatewayd.settings import (
    PolicySettings,
    RegistrySettings,
    RemovalLimit,
    Settings,
    ShrinkGuardSettings,
    SourceSettings,
)
from gatewayd.sources.client import FeedClient
from gatewayd.sources.fetch import FetchLimits, Session, open_session
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.plain_source import make_runner
from gatewayd.sources.runner import FeedRunner, Runner, Tools
from tests.support.bad_input import MAX_BYTES
from tests.support.bad_registry import BadRegistry
from tests.support.fake_conntrack import FakeConntrack
from tests.support.manual_clock import ManualClock
from tests.support.owning import Owning
from tests.support.refusing_disk import RefusingDisk

SOURCE = "national"
IMPATIENT = FetchLimits(max_bytes=MAX_BYTES, connect_timeout_s=5.0, read_timeout_s=0.3, total_timeout_s=0.6)


class HostClock(ManualClock):
    """The host's time, and what `advance` adds to it."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def __call__(self) -> float:
        return time.time() + self.elapsed_s

    def monotonic(self) -> float:
        return time.monotonic() + self.elapsed_s


class Place:
    """What outlives a daemon: a directory, a kernel, a registry and the time."""

    def __init__(self, directory: Path, registry: BadRegistry, clock: HostClock) -> None:
        self.directory = directory
        self.registry = registry
        self.clock = clock
        self.disk = RefusingDisk()
        self.tables = FakeTables()


class FedGateway(Owning):
    """`runner` and `store` as the daemon has them. Use `fed_gateway`."""

    def __init__(self, place: Place, source: SourceSettings) -> None:
        guard = ShrinkGuardSettings(RemovalLimit(fraction=0.05), min_removed=3)
        registry = RegistrySettings((source,), local=None, shrink_guard=guard)
        settings = Settings(registry, PolicySettings(mode="reject", drain_s=60.0))
        store = LastGood(
            place.directory,
            clock=place.clock,
            monotonic=place.clock.monotonic,
            connect=place.disk.connect,
            replace=place.disk.replace,
        )
        super().__init__(place.clock, settings, place.tables, FakeConntrack(), store)
        self.is_synced = True
        self.place = place
        self.source = source
        self.store = store
        self.runner: Runner

    @property
    def facts(self) -> SourceState:
        return self.controller.sources[SOURCE]

    async def start(self, session: Session, fetch_limits: FetchLimits | None = None) -> None:
        """What the daemon does before it asks the network."""
        self.reconciler.found(await self.tables.read_table())
        found = await self.controller.restore()
        tools = Tools(session, self.clock, self.host_time, Random(7))
        registry, deliver = self.controller.settings.registry, self.controller.deliver
        if self.source.is_signed:
            self.runner = FeedRunner(self.source, registry, tools, deliver, found[SOURCE], fetch_limits)
        else:
            self.runner = make_runner(self.source, registry, tools, deliver, found[SOURCE])

    @property
    def client(self) -> FeedClient:
        """Of a signed feed."""
        assert isinstance(self.runner, FeedRunner)
        return self.runner.client

    async def attempt(self) -> None:
        """The source is asked once, and the kernel has what came of it."""
        await self.runner.attempt()
        await self.in_sync()

    def in_force(self) -> dict[str, Registration]:
        return {each.id: each for each in self.controller.allowlist}

    def check_in_force(self, wanted: Mapping[str, Registration]) -> None:
        """All of these are, as they were, and none of their elements was ever taken from the kernel."""
        assert {id: self.in_force().get(id) for id in wanted} == dict(wanted)
        assert [id for id, registration in wanted.items() if not self.passes(registration)] == []
        keys = {key for registration in wanted.values() for _, key in compile_elements(registration)}
        assert keys.isdisjoint(self.removed_keys())
        assert self.reconciler.unready() is None


@asynccontextmanager
async def fed_gateway(
    place: Place, source: SourceSettings, fetch_limits: FetchLimits | None = None
) -> AsyncIterator[FedGateway]:
    """A daemon's life in a place, from its start to its sudden end."""
    made = FedGateway(place, source)
    async with open_session() as session, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(work)
            for work in (made.reconciler.run(), made.scanner.run(), made.controller.keep_time())
        ]
        await made.start(session, fetch_limits)
        yield made
        for task in tasks:
            task.cancel()
