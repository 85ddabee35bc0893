"""The one owner of what changes: allowlist, windows, which registrations are programmed, what was seen.

Everything here runs on the event loop, and each change is one turn without await: take an event, update state,
tell the reconciler. What is long (a million registrations) is cut into slices, the loop turning in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from gatewayd.allowlist import Allowlist, Schedule
from gatewayd.errors import SourceFailed
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.flow import Flow, Mode
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.registration import Registration
from gatewayd.reconcile import Reconciler
from gatewayd.registry.feed_source import SourceDelta
from gatewayd.registry.merge import Merged, SourceSet, changes_in_slices
from gatewayd.registry.sources import SourceReading, run_in_slices
from gatewayd.settings import PolicySettings, Settings
from gatewayd.sweep import Sweeper
from gatewayd.watch.aggregate import UnregisteredAggregate
from gatewayd.watch.attribute import Attribution
from gatewayd.watch.decode import ConnectionEvent, PacketEvent

log = get_logger(__name__)
_Item = TypeVar("_Item")

SLICE = 500
"""Registrations applied between two turns of the loop: some 5 ms."""
LONGEST_SLEEP_S = 1.0
"""The wall clock may be set; it is looked at this often."""
SET_BACK_S = 2.0
"""A wall clock that goes back by more than this has been set: every window is looked at again."""
_IN_FORCE = ""
"""Stands for a source: what was in force when a reload brought sources that have not been read yet."""


def policy_in_force(settings: Settings, now: float) -> Policy:
    """The policy at a moment: before `starts` the mode is observe."""
    policy, kernel = settings.policy, settings.kernel
    limit = policy.on_unregistered.limit
    return Policy(
        mode=effective_mode(policy, now),
        scope=policy.scope,
        mark_layout=MarkLayout(kernel.ct_mark_mask),
        priority=kernel.priority,
        inside=policy.interfaces.inside,
        outside=policy.interfaces.outside,
        canary_percent=policy.canary_percent,
        registered_dscp=policy.on_registered.dscp,
        registered_mark=policy.on_registered.mark,
        unregistered_dscp=policy.on_unregistered.dscp,
        unregistered_mark=policy.on_unregistered.mark,
        limit_bytes_s=limit.bytes_per_second if limit is not None else 0,
        log_group=kernel.nflog_group,
        log_packets_s=kernel.nflog_rate_per_s,
    )


def effective_mode(policy: PolicySettings, now: float) -> Mode:
    return "observe" if policy.starts_at is not None and now < policy.starts_at else policy.mode


@dataclass(slots=True)
class SourceFacts:
    """What is known of one source. `error`: of the latest attempt, None if it succeeded."""

    url: str
    registrations: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    read_at: float = 0.0
    error: str | None = None


class Owner:
    """Fed by the sources, the event sockets and the clock; feeds the reconciler and the sweeper."""

    def __init__(
        self,
        settings: Settings,
        reconciler: Reconciler,
        conntrack: Conntrack,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.allowlist = Allowlist()
        self.reconciler = reconciler
        self.attribution = Attribution()
        self.aggregate = UnregisteredAggregate(settings.watch.unregistered)
        self.sources = {each.name: SourceFacts(each.url) for each in settings.registry.sources}
        self.merged = Merged({})
        self.loaded = False
        self.late_admissions = 0
        self.resyncs = 0
        self.sweeper = Sweeper(
            conntrack,
            MarkLayout(settings.kernel.ct_mark_mask),
            self.allowlist.matching,
            clock=clock,
            drain_s=settings.policy.drain_s,
            flow_table=self.attribution,
        )
        self._clock = clock
        self._schedule = Schedule()
        self._readings = SourceSet(self.sources)
        self._in_force: Mapping[str, Registration] = {}
        self._dormant: set[str] = set()
        self._applying = asyncio.Lock()
        self._retime = asyncio.Event()
        self._said_late = RateLimited(log, interval_s=10.0, clock=clock)

    # -- registry ------------------------------------------------------------------------------------------

    async def deliver(self, result: SourceReading | SourceDelta | SourceFailed) -> None:
        """A source was read, or could not be: whatever is in force stays until something better is complete."""
        if isinstance(result, SourceFailed):
            if result.source in self.sources:
                self.sources[result.source].error = result.why
            log.warning("source.failed", source=result.source, error=result.why)
            return
        facts = self.sources.get(result.name)
        if facts is None:
            return  # a reload has removed it while it was being read
        facts.error = None
        facts.registrations = len(result.registrations)
        facts.rejected = dict(result.rejected)
        facts.read_at = result.read_at
        log.info(
            "source.read",
            source=result.name,
            registrations=facts.registrations,
            rejected=sum(facts.rejected.values()),
        )
        async with self._applying:
            if result.name not in self.sources:
                return
            self._readings.put(result.name, result.registrations)
            if isinstance(result, SourceDelta) and self.loaded and not self._readings.unread():
                await self._apply_delta(result)
            else:
                await self._merge()

    async def _apply_delta(self, delta: SourceDelta) -> None:
        """What a delta changes, and nothing else is looked at: one record costs what one record costs."""
        changed = dict.fromkeys([*(each.id for each in delta.upserts), *delta.withdrawals])
        winners = {registration_id: self._readings.winner(registration_id) for registration_id in changed}
        upserts = [each for each in winners.values() if each is not None and each != self.allowlist.get(each.id)]
        withdrawals = [name for name, each in winners.items() if each is None and name in self.allowlist]
        await self._in_slices(upserts, self._upsert)
        await self._in_slices(withdrawals, self._withdraw)
        self._in_force = {}
        self.merged = Merged(self._readings.view(len(self.allowlist)), self.merged.conflicts)
        log.info("registry.applied", upserts=len(upserts), withdrawals=len(withdrawals))
        self._retime.set()

    async def _merge(self) -> None:
        """Apply what the readings in force say now; before the first time, once there is one of every source.

        While a source that a reload brought has not been read, nothing is withdrawn: what was in force then
        comes last in the order.
        """
        unread = self._readings.unread()
        if unread and not self.loaded:
            return
        readings = self._readings
        if not unread:
            self._in_force = {}
        else:
            readings = SourceSet([*self.sources, _IN_FORCE])
            for name in self.sources:
                known = self._readings.reading_of(name)
                if known is not None:
                    readings.put(name, known)
            readings.put(_IN_FORCE, self._in_force)
        merged = await run_in_slices(readings.merge_in_slices())
        changes = await run_in_slices(changes_in_slices(self.merged.registrations, merged.registrations))
        self.merged = merged
        if changes is not None:
            await self._in_slices(changes.upserts, self._upsert)
            await self._in_slices(changes.withdrawals, self._withdraw)
            log.info("registry.applied", upserts=len(changes.upserts), withdrawals=len(changes.withdrawals))
        if not self.loaded:
            self.loaded = True
            self.sweeper.note_added()
            self.sweeper.note_removed()
            self.reconciler.want_policy(policy_in_force(self.settings, self._clock()))
        self._retime.set()

    def unread_sources(self) -> tuple[str, ...]:
        """Sources without a first reading; until there is none the kernel is left as it was found."""
        return self._readings.unread()

    async def _in_slices(self, items: Iterable[_Item], change: Callable[[_Item, float], None]) -> None:
        iterator = iter(items)
        while piece := list(islice(iterator, SLICE)):
            now = self._clock()
            for item in piece:
                change(item, now)
            await asyncio.sleep(0)

    def _upsert(self, registration: Registration, now: float) -> None:
        old = self.allowlist.upsert(registration)
        was_programmed = old is not None and registration.id not in self._dormant
        self._schedule.watch(registration, now)
        if registration.is_effective(now):
            self._dormant.discard(registration.id)
            self.reconciler.add(registration)
            self.sweeper.note_added()
        else:
            self._dormant.add(registration.id)
        if old is not None and was_programmed:
            # After the addition: an element that both want never leaves the kernel.
            self.reconciler.remove(old)
            self.sweeper.note_removed()

    def _withdraw(self, registration_id: str, _: float) -> None:
        old = self.allowlist.withdraw(registration_id)
        self._schedule.forget(registration_id)
        self.attribution.forget(registration_id)
        if registration_id in self._dormant:
            self._dormant.remove(registration_id)
        elif old is not None:
            self.reconciler.remove(old)
            self.sweeper.note_removed()

    def _refresh(self, registration_id: str, now: float) -> None:
        """A window may have opened or closed."""
        registration = self.allowlist.get(registration_id)
        if registration is None:
            return
        self._schedule.watch(registration, now)
        is_dormant = registration_id in self._dormant
        if registration.is_effective(now) and is_dormant:
            self._dormant.remove(registration_id)
            self.reconciler.add(registration)
            self.sweeper.note_added()
            log.info("window.opened", id=registration_id)
        elif not registration.is_effective(now) and not is_dormant:
            self._dormant.add(registration_id)
            self.reconciler.remove(registration)
            self.sweeper.note_removed()
            log.info("window.closed", id=registration_id)

    def count_effective(self) -> int:
        return len(self.allowlist) - len(self._dormant)

    def next_window_change(self) -> float | None:
        return self._schedule.next_change()

    # -- time ----------------------------------------------------------------------------------------------

    async def keep_time(self) -> None:
        """Windows and `starts`, on time. Until cancelled."""
        before = self._clock()
        while True:
            self._retime.clear()
            now = self._clock()
            if now < before - SET_BACK_S:
                log.warning("clock.set_back", seconds=round(before - now, 3))
                async with self._applying:
                    self._schedule.watch_all(self.allowlist, now)
                    await self._in_slices([each.id for each in self.allowlist], self._refresh)
                self._survey()
            before = now
            await self._in_slices(self._schedule.due(now), self._refresh)
            self.aggregate.expire(now)
            self._want_policy(now)
            upcoming = [
                at_s for at_s in (self._schedule.next_change(), self._starts_after(now)) if at_s is not None
            ]
            pause_s = min([LONGEST_SLEEP_S, *(max(0.0, at_s - now) for at_s in upcoming)])
            try:
                async with asyncio.timeout(pause_s):
                    await self._retime.wait()
            except TimeoutError:
                pass

    def _want_policy(self, now: float) -> None:
        """What the settings say, once the allowlist is complete; observe needs no allowlist to be safe."""
        policy = policy_in_force(self.settings, now)
        is_complete = not self._readings.unread() and not self._applying.locked()
        if self.loaded and (is_complete or policy.mode == "observe"):
            self.reconciler.want_policy(policy)
        elif policy.mode == "observe" != self.reconciler.mode_in_force:
            self.reconciler.disarm(policy)

    def _survey(self) -> None:
        """Look at the registered flows again, whatever the kernel has still to be told."""
        self.sweeper.note_removed()
        if self.loaded:
            self.sweeper.look()

    def _starts_after(self, now: float) -> float | None:
        starts_at = self.settings.policy.starts_at
        return starts_at if starts_at is not None and starts_at > now else None

    def reload(self, settings: Settings) -> None:
        """New settings, sources apart: they take effect at the next turn."""
        if settings.policy.drain_s != self.settings.policy.drain_s:
            self.sweeper.drain_s = settings.policy.drain_s
            self._survey()
        self.settings = settings
        self.aggregate.detail = settings.watch.unregistered
        self.reconciler.verify_every(settings.kernel.verify_every_s)
        self._retime.set()

    async def use_sources(self, urls: Mapping[str, str]) -> None:
        """The sources of new settings, in order. Those that stay keep their reading until they are read anew;
        what only a removed source had goes once all that are new have been read."""
        async with self._applying:
            self._in_force = self.merged.registrations
            readings = SourceSet(urls)
            for name in urls:
                known = self._readings.reading_of(name) if name in self.sources else None
                if known is not None:
                    readings.put(name, known)
            self._readings = readings
            self.sources = {name: self.sources.get(name, SourceFacts(url)) for name, url in urls.items()}
            for name, url in urls.items():
                self.sources[name].url = url
            await self._merge()

    # -- events --------------------------------------------------------------------------------------------

    def on_packets(self, events: list[PacketEvent]) -> None:
        """Packets in scope that matched nothing in the kernel. A registered one is admitted late, at once."""
        now = self._clock()
        unprogrammed = self.reconciler.picture.desired.unprogrammed()
        for event in events:
            registrations = self.allowlist.matching(event.flow, now)
            if unprogrammed:
                # To the kernel these are not registered, and telling it again changes nothing.
                registrations = tuple(each for each in registrations if each.id not in unprogrammed)
            if registrations:
                self._admit_late(event.flow, registrations)
            else:
                self.aggregate.seen(event.flow, now)

    def _admit_late(self, flow: Flow, registrations: tuple[Registration, ...]) -> None:
        self.late_admissions += 1
        # If none is missing they are in the kernel by now, and only the flow's mark is out of date.
        self.sweeper.note_late(flow, in_kernel=not self.reconciler.urge(registrations))
        self._said_late.info("late_admission", id=registrations[0].id)

    def on_connections(self, events: list[ConnectionEvent]) -> None:
        """Begin and end of flows that the kernel knows as registered."""
        now = self._clock()
        for event in events:
            if event.kind == "destroy":
                self.attribution.closed(event, now)
            else:
                registrations = self.allowlist.matching(event.flow, now)
                self.attribution.opened(event, registrations, now)

    def on_lost(self, source: str) -> None:
        """Events were lost: what there is now comes from a listing."""
        log.warning("watch.overrun", source=source)
        if source == "conntrack":
            self.resyncs += 1
            self._survey()

    def on_settled(self) -> None:
        """The kernel is as desired and was read back."""
        self.sweeper.settle(self.reconciler.epoch)
