"""A Controller with its reconciler and scanner on a kernel in memory, and time that passes when we say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import Any

from gatewayd.api.views import RegistrationView
from gatewayd.compile.masks import compile_elements
from gatewayd.control.assertion_gate import AssertionGate
from gatewayd.control.controller import Controller
from gatewayd.control.core import build_core
from gatewayd.control.host_time import HostTime, WindowClock
from gatewayd.control.queries import DaemonQueries
from gatewayd.control.reload import ReloadOutcome
from gatewayd.control.trial_gateway import TrialGateway
from gatewayd.control.trial_keeper import TrialKeeper
from gatewayd.control.trial_store import TrialStore
from gatewayd.control.trip_evidence import TripEvidence
from gatewayd.errors import OperationRefused, SourceUnreadable
from gatewayd.kernel.fake import FakeTables
from gatewayd.lab.traffic import flow_of
from gatewayd.model import Flow, Registration, parse_prefix, parse_services
from gatewayd.model.mask import parse_set_name, set_name
from gatewayd.model.policy import MarkLayout
from gatewayd.model.transaction import RemoveElements, Ruleset, Transaction
from gatewayd.settings import (
    PolicySettings,
    RegistrySettings,
    RemovalLimit,
    Settings,
    ShrinkGuardSettings,
    SourceSettings,
)
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.update import SourceUpdate
from gatewayd.subscribers.service import SubscriberService
from tests.support.fake_conntrack import FakeConntrack
from tests.support.manual_clock import ManualClock, until

LAYOUT = MarkLayout(0xFF000000)
REGISTERED = LAYOUT.registered
FAR = "198.51.100.7"


def registration(id: str, *clients: str, services: Iterable[str] = ("wireguard",), **fields: Any) -> Registration:
    """Active and always open, unless `fields` say otherwise."""
    return Registration(
        id,
        fields.pop("category", "bpo"),
        fields.pop("status", "active"),
        tuple(sorted(parse_prefix(text) for text in clients)),
        peers=tuple(sorted(parse_prefix(text) for text in fields.pop("peers", ()))),
        services=parse_services(services),
        **fields,
    )


def flow(source: str, service: str = "udp/51820", port: int = 40000, destination: str = FAR) -> Flow:
    return flow_of(source, destination, service, port)


def settings_of(*sources: str, **policy: Any) -> Settings:
    """Sources by name, in order; the rest are fields of the policy, which rejects and drains for 60 s. The guard
    holds nothing: see `guarded`."""
    return Settings(
        RegistrySettings(
            tuple(SourceSettings(name, f"file:/nowhere/{name}", allow_unsigned=True) for name in sources),
            shrink_guard=ShrinkGuardSettings(RemovalLimit(count=1_000_000), protected=()),
        ),
        replace(PolicySettings(mode="reject", drain_s=60.0), **policy),
    )


def guarded(settings: Settings, **fields: Any) -> Settings:
    """With the guard of the default configuration, or `fields` of it."""
    guard = replace(ShrinkGuardSettings(), **fields)
    return replace(settings, registry=replace(settings.registry, shrink_guard=guard))


def shown(queries: DaemonQueries, id: str) -> RegistrationView:
    """The view of a registration that is there."""
    found = queries.registration(id)
    assert found is not None
    return found


async def no_reload(_: str, is_forced: bool) -> ReloadOutcome:
    """For queries without a file."""
    return ReloadOutcome(is_done=False)


class Told:
    """`service`: told what the controller tells of subscribers, once there are any."""

    service: SubscriberService | None = None

    def recheck(self, subscriber: bytes) -> None:
        if self.service is not None:
            self.service.recheck(subscriber)

    def forget_unregistered(self) -> None:
        if self.service is not None:
            self.service.forget_unregistered()


class Owning:
    """`written`: every transaction and ruleset that was committed, in order."""

    def __init__(
        self,
        clock: ManualClock,
        settings: Settings,
        tables: FakeTables,
        conntrack: FakeConntrack,
        store: LastGood | None = None,
        trial_store: TrialStore | None = None,
    ) -> None:
        self.clock = clock
        self.tables = tables
        self.conntrack = conntrack
        self.written: list[Transaction | Ruleset] = []
        self.refuse_writes = False
        self.is_synced = False
        """What the kernel says of the clock."""
        self.host_time = HostTime(
            has_signed=settings.registry.has_signed,
            wall=clock,
            elapsed=clock.monotonic,
            is_synced=lambda _: self.is_synced,
            boot_id="boot",
        )
        tables.before_write = self._before_write
        self.core = build_core(
            settings,
            tables,
            conntrack,
            WindowClock(self.host_time, self.host_time.moment),
            monotonic=clock.monotonic,
        )
        self.reconciler = self.core.reconciler
        self.programmer = self.core.programmer
        self.watch = self.core.watch
        self.scanner = self.core.scanner
        self.told = Told()
        self.trial_store = trial_store or TrialStore(None)
        self.controller = Controller(
            settings,
            self.core,
            store=store,
            host_time=self.host_time,
            subscribers=self.told,
            arming=self.trial_store,
        )
        self.gate = AssertionGate(self.controller)
        self.trials = self.keep_trials()

    def _before_write(self, write: Transaction | Ruleset) -> None:
        if self.refuse_writes:
            raise OperationRefused("write", 16)
        self.written.append(write)

    def keep_trials(self) -> TrialKeeper:
        """Of this controller; ids are t1, t2, …"""
        numbers = count(1)
        gateway = TrialGateway(self.controller, self.core.in_sync)
        return TrialKeeper(
            self.trial_store,
            gateway,
            now=self.host_time.instant,
            make_id=lambda: f"t{next(numbers)}",
            evidence=TripEvidence(self.controller, self.gate),
        )

    # -- the world ---------------------------------------------------------------------------------------------

    async def read(self, source: str, *registrations: Registration) -> None:
        """The source was read, and holds these."""
        by_id = {each.id: each for each in registrations}
        await self.controller.deliver(SourceUpdate(source, self.clock(), registrations=by_id))

    async def fail(self, source: str, why: str) -> None:
        """The source could not be read."""
        await self.controller.deliver(SourceUpdate(source, self.clock(), SourceUnreadable(source, why)))

    def configure(self, **policy: Any) -> None:
        """SIGHUP with another policy."""
        settings = self.controller.settings
        self.controller.reload(replace(settings, policy=replace(settings.policy, **policy)))

    async def in_sync(self) -> None:
        """The kernel is as desired and was read back, and the scanner has nothing left to do now."""
        await until(lambda: self.reconciler.unready() is None)
        await asyncio.sleep(0.05)
        await until(lambda: self.reconciler.unready() is None)

    # -- the kernel --------------------------------------------------------------------------------------------

    def passes(self, wanted: Registration) -> bool:
        """Whether all its elements are in sets that the rules in force look into."""
        table = self.tables.table
        if table is None:
            return False
        used = {name: table.sets[name].keys for name in table.used if name in table.sets}
        return all(
            any(key in used.get(set_name(mask, generation), ()) for generation in range(4))
            for mask, key in compile_elements(wanted)
        )

    def removed_keys(self) -> list[bytes]:
        """Of the allowlist; the sets for the log of near misses let no flow pass."""
        return [
            key
            for write in self.written
            if isinstance(write, Transaction)
            for operation in write.operations
            if isinstance(operation, RemoveElements) and not is_near(operation.set_name)
            for key in operation.keys
        ]

    def rulesets(self) -> list[Ruleset]:
        return [write for write in self.written if isinstance(write, Ruleset)]

    def judged(self) -> int:
        """The mark of a flow judged unregistered now."""
        return LAYOUT.judged(self.reconciler.epoch)


@asynccontextmanager
async def owning(
    clock: ManualClock,
    settings: Settings | None = None,
    *,
    tables: FakeTables | None = None,
    conntrack: FakeConntrack | None = None,
    store: LastGood | None = None,
    trial_store: TrialStore | None = None,
) -> AsyncIterator[Owning]:
    """The tasks of the daemon that have to do with the kernel run until the block ends."""
    made = Owning(
        clock,
        settings or settings_of("national"),
        tables or FakeTables(),
        conntrack or FakeConntrack(),
        store,
        trial_store,
    )
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(work)
            for work in (made.reconciler.run(), made.scanner.run(), made.controller.keep_time(), made.trials.run())
        ]
        yield made
        for task in tasks:
            task.cancel()


def is_near(set_name: str) -> bool:
    """Whether a set is for the log of near misses alone."""
    parsed = parse_set_name(set_name)
    return parsed is not None and parsed[0].is_near
