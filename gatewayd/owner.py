"""The one owner of what changes: allowlist, windows, which registrations are programmed, what was seen.

Everything here runs on the event loop, and each change is one turn without await: take an event, update state,
tell the reconciler. What is long (a million registrations) is cut into slices, the loop turning in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from math import inf
from typing import TypeVar

from gatewayd.allowlist import Allowlist, in_scope
from gatewayd.effective import Effective
from gatewayd.errors import SerialNotHeld, SourceFailed
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.flow import Flow, Mode
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.registration import Registration
from gatewayd.reconcile import Reconciler
from gatewayd.registry.feed_source import SourceDelta
from gatewayd.registry.guard import HeldRemovals, RemovalGuard
from gatewayd.registry.held import decode_guard, encode_guard
from gatewayd.registry.merge import Changes, Merged, SourceSet, changes_in_slices
from gatewayd.registry.override_file import OverrideFile
from gatewayd.registry.overrides import OverrideCounts, OverrideLayer, Overrides
from gatewayd.registry.overrides_dir import OverridesReading
from gatewayd.registry.sources import SourceReading, run_in_slices
from gatewayd.registry.staleness import Freshness, judge_freshness, mode_by_freshness
from gatewayd.registry.store import LastGood, Restored
from gatewayd.settings import PolicySettings, Settings
from gatewayd.source_facts import (
    SourceFacts,
    count_categories,
    held_name,
    keep,
    merge_order,
    recount_categories,
)
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


class Owner:
    """Fed by the sources, the event sockets and the clock; feeds the reconciler and the sweeper."""

    def __init__(
        self,
        settings: Settings,
        reconciler: Reconciler,
        conntrack: Conntrack,
        *,
        clock: Callable[[], float],
        store: LastGood | None = None,
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
            programmed=self._matching_programmed,
            in_scope=self._is_in_scope,
        )
        self.effective = Effective(
            self.allowlist, reconciler, self.sweeper, prepares=settings.subscribers is not None
        )
        self.on_known: Callable[[], None] = lambda: None
        """Told once every source has spoken in this run, and what it said is applied."""
        self._is_known = False
        self._clock = clock
        self.restored: dict[str, Restored] = {}
        self.override_faults: tuple[str, ...] = ()
        self.confirmed_at: Callable[[str], float] = lambda _: -inf
        """When a source last said that it has nothing else, by name; the daemon asks its runner."""
        self.has_answered: Callable[[str], bool] = lambda _: False
        """Whether a source was read or confirmed in this run; the daemon asks its runner."""
        self._spares = False
        self._answered: set[str] = set()
        self._store = store
        self._layer = OverrideLayer()
        self._override_files: tuple[OverrideFile, ...] = ()
        self._size = 0
        self._readings = SourceSet(merge_order(self.sources))
        self._guards = {name: RemovalGuard() for name in self.sources}
        for name in self.sources:
            self._readings.put(held_name(name), {})
        self._in_force: Mapping[str, Registration] = {}
        self._applying = asyncio.Lock()
        self._retime = asyncio.Event()
        self._unprogrammed: tuple[int, Mapping[str, str]] = 0, {}
        """As of a second: a scan asks for many flows."""
        self._said_late = RateLimited(log, interval_s=10.0, clock=clock)

    # -- registry ------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Begin with the last good of each source, before any of them is asked."""
        for name, facts in list(self.sources.items()):
            restored = await self._store.load(name) if self._store is not None else Restored({})
            async with self._applying:
                guard = decode_guard(restored.held)
                self._guards[name] = guard
                self.restored[name] = restored
                if restored.position is None:
                    continue
                facts.restore(restored)
                self.reconciler.spare()
                self._spares = True
                facts.by_category = await run_in_slices(count_categories(restored.registrations))
                self._readings.put(name, restored.registrations)
                self._readings.put(held_name(name), guard.in_force(restored.registrations))
                log.info("source.restored", source=name, registrations=facts.registrations, held=len(guard))
        async with self._applying:
            await self._merge()

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
        facts.take(result)
        log.info(
            "source.read",
            source=result.name,
            registrations=facts.registrations,
            rejected=sum(facts.rejected.values()),
        )
        async with self._applying:
            if result.name not in self.sources:
                return
            changes = await self._guard(result, facts)
            held = self._guards[result.name].in_force(result.registrations)
            if self.loaded and not self._readings.unread():
                await self._replace({result.name: result.registrations, held_name(result.name): held}, changes)
                if not isinstance(result, SourceDelta):
                    # A whole reading is gone through anyway: conflicts are counted anew.
                    self.merged = await run_in_slices(self._readings.merge_in_slices())
            else:
                self._readings.put(result.name, result.registrations)
                self._readings.put(held_name(result.name), held)
                await self._merge()
            self._answered.add(result.name)
            await self._release_spared()
            kept = await _encode(self._guards[result.name])
        if self._store is not None:
            await keep(self._store, result, kept)

    async def _guard(self, result: SourceReading | SourceDelta, facts: SourceFacts) -> Changes:
        """What of the reading's changes may take effect; the guard holds the rest back (DESIGN §6)."""
        old = self._readings.reading_of(result.name) or {}
        if isinstance(result, SourceDelta):
            raw = Changes(tuple(result.upserts), tuple(result.withdrawals))
        else:
            found = await run_in_slices(changes_in_slices(old, result.registrations))
            raw = found if found is not None else Changes((), ())
        guard = self._guards[result.name]
        guarded = await run_in_slices(
            guard.take_in_slices(
                old,
                raw,
                facts.serial,
                total=len(old),
                by_category=facts.by_category,
                settings=self.settings.registry.shrink_guard,
                now=self._clock(),
            )
        )
        await run_in_slices(recount_categories(facts.by_category, old, raw))
        if guarded.decision.is_held:
            log.warning(
                "guard.held",
                source=result.name,
                serial=facts.serial,
                removals=len(guard),
                reason=str(guarded.decision),
            )
        return guarded.changes if guarded.changes is not None else Changes((), ())

    async def _replace(self, readings: Mapping[str, Mapping[str, Registration]], changes: Changes | None) -> None:
        """Put readings in place of those of the same names. Only what `changes` names is looked at: one record
        costs what one record costs."""
        before: dict[str, Registration | None] = {}
        if changes is not None:
            ids = dict.fromkeys([*(each.id for each in changes.upserts), *changes.withdrawals])
            before = {each: self._readings.winner(each) for each in ids}
        for name, reading in readings.items():
            self._readings.put(name, reading)
        await self._apply_winners(before)
        self.merged = Merged(self._readings.view(self._size), self.merged.conflicts)

    async def _apply_winners(self, before: Mapping[str, Registration | None]) -> None:
        """`before`: what was in force under the ids that may have changed."""
        upserts: list[Registration] = []
        withdrawals: list[str] = []
        for registration_id, old in before.items():
            new = self._readings.winner(registration_id)
            self._size += (new is not None) - (old is not None)
            if new is not None and new != old:
                upserts.append(new)
            elif new is None and old is not None:
                withdrawals.append(registration_id)
        self._in_force = {}
        await self._apply(Changes(tuple(upserts), tuple(withdrawals)))

    async def _apply(self, changes: Changes) -> None:
        """Changes of the merged registry, local overrides laid over them, into the allowlist."""
        amended = await run_in_slices(self._layer.amend_in_slices(changes))
        await self._change(amended)

    async def _change(self, changes: Changes | None) -> None:
        if changes is None or not (changes.upserts or changes.withdrawals):
            return
        await self._in_slices(changes.upserts, self.effective.upsert)
        await self._in_slices(changes.withdrawals, self._withdraw)
        log.info("registry.applied", upserts=len(changes.upserts), withdrawals=len(changes.withdrawals))
        self._retime.set()

    async def accept(self, serial: int) -> dict[str, object]:
        """Release the removals that any source holds under this serial. Raises SerialNotHeld when none does."""
        released: dict[str, int] = {}
        async with self._applying:
            for name, guard in self._guards.items():
                held, reading = guard.held(), self._readings.reading_of(name)
                if held is not None and held.serial == serial and reading is not None:
                    released[name] = len(guard)
                    await self._release(name, guard, serial, reading)
            if released:
                return {"serial": serial, "released": released}
            others = [held.serial for guard in self._guards.values() if (held := guard.held()) is not None]
        raise SerialNotHeld(serial, min(others, default=None))

    async def _release(
        self, name: str, guard: RemovalGuard, serial: int, reading: Mapping[str, Registration]
    ) -> None:
        count = len(guard)
        changes = await run_in_slices(guard.accept_in_slices(serial, reading))
        await self._replace({held_name(name): guard.in_force(reading)}, changes)
        log.info("guard.accepted", source=name, serial=serial, removals=count)
        if self._store is not None:
            await self._store.save_held(name, await _encode(guard))

    def held(self, source: str) -> HeldRemovals | None:
        """What the guard of a source holds back."""
        return self._guards[source].held()

    def store_error(self, source: str) -> str | None:
        """Why what is kept on disk of a source is old; None if it is not."""
        error = self._store.state_of(source).error if self._store is not None else None
        return str(error) if error is not None else None

    async def use_overrides(self, reading: OverridesReading) -> None:
        """The local pins and filters as they are now; a file with faults stays as it was."""
        for fault in reading.faults:
            log.error("overrides.refused", fault=fault)
        self.override_faults = reading.faults
        self._override_files = reading.files
        async with self._applying:
            await self._lay_overrides()

    async def _lay_overrides(self) -> None:
        overrides = Overrides(self._override_files, self._clock())
        changes = await run_in_slices(self._layer.switch_in_slices(overrides, self.merged.registrations))
        if self.loaded:
            await self._change(changes)
        self._retime.set()

    def override_counts(self) -> OverrideCounts:
        return self._layer.counts()

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
            readings = SourceSet([*merge_order(self.sources), _IN_FORCE])
            for name in merge_order(self.sources):
                known = self._readings.reading_of(name)
                if known is not None:
                    readings.put(name, known)
            readings.put(_IN_FORCE, self._in_force)
        merged = await run_in_slices(readings.merge_in_slices())
        changes = await run_in_slices(changes_in_slices(self.merged.registrations, merged.registrations))
        self.merged = merged
        self._size = len(merged.registrations)
        if changes is not None:
            await self._apply(changes)
        if not self.loaded:
            overrides = self._layer.overrides
            pins = [overrides.in_force(name, None) for name in overrides.pins if name not in self.allowlist]
            await self._change(Changes(tuple(pin for pin in pins if pin is not None), ()))
            self.loaded = True
            self.sweeper.note_added()
            self.sweeper.note_removed()
            self.reconciler.want_policy(self.policy(self._clock()))
        self._retime.set()

    def freshness(self, now: float) -> dict[str, Freshness]:
        """How old what is known of each source is."""
        registry = self.settings.registry
        fresh = {}
        for name, facts in self.sources.items():
            confirmed_at = max(facts.confirmed_at, self.confirmed_at(name))
            fresh[name] = judge_freshness(
                confirmed_at if confirmed_at > -inf else None,
                facts.issued_at,
                now,
                refresh_s=registry.refresh_s,
                expire_s=facts.expire_s or registry.expire_s,
            )
        return fresh

    def policy(self, now: float) -> Policy:
        """The policy of the moment: observe before `starts`, and where stale sources shall mean that."""
        policy = policy_in_force(self.settings, now)
        known = {name: each for name, each in self.freshness(now).items() if each.since_s > -inf}
        return replace(policy, mode=mode_by_freshness(policy.mode, known, self.settings.registry.on_stale))

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

    def _withdraw(self, registration_id: str, _: float) -> None:
        self.effective.withdraw(registration_id)
        self.attribution.forget(registration_id)

    def count_effective(self) -> int:
        return self.effective.count()

    def next_window_change(self) -> float | None:
        return self.effective.schedule.next_change()

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
                    self.effective.schedule.watch_all(self.allowlist, now)
                    await self._in_slices([each.id for each in self.allowlist], self.effective.refresh)
                self._survey()
            before = now
            await self._in_slices(self.effective.schedule.due(now), self.effective.refresh)
            self.aggregate.expire(now)
            if self._spares and not self._applying.locked():
                async with self._applying:
                    await self._release_spared()
            self._want_policy(now)
            overrides_at = self._layer.overrides.next_change()
            if overrides_at is not None and overrides_at <= now:
                async with self._applying:
                    await self._lay_overrides()
                overrides_at = self._layer.overrides.next_change()
            times = (self.effective.schedule.next_change(), self._starts_after(now), overrides_at)
            upcoming = [at_s for at_s in times if at_s is not None]
            pause_s = min([LONGEST_SLEEP_S, *(max(0.0, at_s - now) for at_s in upcoming)])
            try:
                async with asyncio.timeout(pause_s):
                    await self._retime.wait()
            except TimeoutError:
                pass

    async def _release_spared(self) -> None:
        """What a restart found in the kernel beyond the last good goes once every source has spoken in this run,
        and what it said is applied. The caller holds `_applying`."""
        answered = (name in self._answered or self.has_answered(name) for name in self.sources)
        if not all(answered) or self._readings.unread():
            return
        if not self._is_known:
            self._is_known = True
            self.on_known()
        if self._spares:
            self._spares = False
            await run_in_slices(self.reconciler.release_in_slices())

    def _want_policy(self, now: float) -> None:
        """What the settings say, once the allowlist is complete; observe needs no allowlist to be safe."""
        policy = self.policy(now)
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
            readings = SourceSet(merge_order(urls))
            guards = {}
            for name in urls:
                known = self._readings.reading_of(name) if name in self.sources else None
                guards[name] = self._guards[name] if name in self.sources else RemovalGuard()
                readings.put(held_name(name), guards[name].in_force(known or {}))
                if known is not None:
                    readings.put(name, known)
            self._readings, self._guards = readings, guards
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
        grants = [
            grant
            for registration in registrations
            for grant in self.allowlist.grants_of(registration)
            if grant.prefix.covers(flow.source) or grant.prefix.covers(flow.destination)
        ]
        # If none is missing they are in the kernel by now, and only the flow's mark is out of date.
        self.sweeper.note_late(flow, in_kernel=not self.reconciler.urge([*registrations, *grants]))
        self._said_late.info("late_admission", id=registrations[0].id)

    def on_connections(self, events: list[ConnectionEvent]) -> None:
        """Begin and end of flows that the kernel knows as registered."""
        now = self._clock()
        registered = self.sweeper.layout.registered
        for event in events:
            if event.sender_port and event.kind == "new":
                self.sweeper.note_carried(event)
                if not event.mark & registered:
                    continue
            if event.kind == "destroy":
                self.attribution.closed(event, now)
            else:
                registrations = self.allowlist.matching(event.flow, now)
                self.attribution.opened(event, registrations, now)
                if not registrations and not event.sender_port:
                    self.sweeper.note_ended_early(event)

    def _matching_programmed(self, flow: Flow, now: float) -> tuple[Registration, ...]:
        """As `matching`, without registrations that the kernel cannot be told of."""
        registrations = self.allowlist.matching(flow, now)
        desired = self.reconciler.picture.desired
        if not registrations or not desired.count_unprogrammed():
            return registrations
        second = int(now)
        if self._unprogrammed[0] != second:
            self._unprogrammed = second, desired.unprogrammed()
        return tuple(each for each in registrations if each.id not in self._unprogrammed[1])

    def _is_in_scope(self, flow: Flow) -> bool:
        """By the port of either end: the far end may have spoken first."""
        policy = self.reconciler.policy_in_force
        if policy is None or in_scope(policy.scope, flow):
            return True
        back = Flow(flow.protocol, flow.destination, flow.source, flow.destination_port, flow.source_port)
        return in_scope(policy.scope, back)

    def on_lost(self, source: str) -> None:
        """Events were lost: what there is now comes from a listing."""
        log.warning("watch.overrun", source=source)
        if source == "conntrack":
            self.resyncs += 1
            self._survey()

    def on_settled(self) -> None:
        """The kernel is as desired and was read back."""
        self.sweeper.settle(self.reconciler.epoch)


async def _encode(guard: RemovalGuard) -> bytes | None:
    """As the store keeps it; what is long, in a thread."""
    return encode_guard(guard) if len(guard) < SLICE else await asyncio.to_thread(encode_guard, guard)
