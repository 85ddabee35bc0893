"""The one owner of what changes: allowlist, windows, which registrations are programmed, what was seen.

Everything here runs on the event loop, and each change is one turn without await: take an event, update state,
tell the reconciler. What is long (a million registrations) is cut into slices, the loop turning in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import inf, isfinite
from typing import TypeVar

from gatewayd.allowlist import Allowlist, in_scope
from gatewayd.control.active import ActiveSet
from gatewayd.control.host_time import HostTime
from gatewayd.errors import SerialNotHeld
from gatewayd.feed.canonical import Damaged
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.binding import BoundRegistration
from gatewayd.model.changes import Changes, run_slices
from gatewayd.model.flow import Flow, Mode, reverse_flow
from gatewayd.model.moment import Moment, earliest_of, latest_of, went_back_s
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.registration import Registration
from gatewayd.reconcile import Reconciler
from gatewayd.reconcile.connections import ConnectionScanner
from gatewayd.registry.freshness import Freshness, SourceState, mode_by_freshness
from gatewayd.registry.guard import RemovalGuard
from gatewayd.registry.guard_record import GuardRecord, decode_record, encode_record
from gatewayd.registry.limits import GuardDecision, judge_remainder
from gatewayd.registry.merge import Merged
from gatewayd.registry.overrides import OverrideCounts
from gatewayd.registry.state import KERNEL, RegistryState
from gatewayd.settings import PolicySettings, Settings
from gatewayd.sources.last_good import Restored
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.override_file import OverrideFile
from gatewayd.sources.overrides_dir import OverridesReading
from gatewayd.sources.runner import run_in_slices
from gatewayd.sources.update import SourceUpdate
from gatewayd.watch.aggregate import UnregisteredAggregate
from gatewayd.watch.attribute import Attribution
from gatewayd.watch.decode import ConnectionEvent, PacketEvent

log = get_logger(__name__)
_Item = TypeVar("_Item")

SLICE = 500
"""Registrations applied between two turns of the loop: some 5 ms."""
MAX_SLEEP_S = 1.0
"""The clock may be set, or believed at last; it is looked at this often."""
SET_BACK_S = 2.0
"""A time that goes back by more than this was wrong before: every window is looked at again."""
REMAINDER_EVERY_S = 10.0
"""How often at most what is held of the kernel is compared with a registry that changes."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Removals that wait for `accept`. `serial`: under which. `by_cause`: how many, by what brought them about;
    registrations, or elements of the kernel. `reason`: in words."""

    serial: int
    since_s: float
    by_cause: Mapping[str, int]
    reason: str

    @property
    def count(self) -> int:
        return sum(self.by_cause.values())

    @property
    def causes(self) -> tuple[str, ...]:
        return tuple(sorted(self.by_cause))


def policy_in_force(settings: Settings, now: float) -> Policy:
    """The policy at a moment: before `enforce_from` the mode is observe."""
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
    return "observe" if policy.enforce_from is not None and now < policy.enforce_from else policy.mode


class Controller:
    """Fed by the sources, the event sockets and the clock; feeds the reconciler and the sweeper."""

    def __init__(
        self,
        settings: Settings,
        reconciler: Reconciler,
        conntrack: Conntrack,
        *,
        clock: Callable[[], float],
        store: LastGood | None = None,
        host_time: HostTime | None = None,
    ) -> None:
        """`clock`: the likely time, for ages. `host_time`: what is decided by; None = `clock` is always right."""
        self.settings = settings
        self.allowlist = Allowlist()
        self.reconciler = reconciler
        self.attribution = Attribution()
        self.aggregate = UnregisteredAggregate(settings.watch.unregistered)
        self.loaded = False
        """The registry in force is in the allowlist, all of it."""
        self.late_admissions = 0
        self.resyncs = 0
        self.scanner = ConnectionScanner(
            conntrack,
            MarkLayout(settings.kernel.ct_mark_mask),
            self.allowlist.matching,
            clock=self.moment,
            drain_s=settings.policy.drain_s,
            flow_table=self.attribution,
            programmed=self._matching_programmed,
            in_scope=self._is_in_scope,
        )
        self.active = ActiveSet(self.allowlist, reconciler, self.scanner, prepares=settings.subscribers is not None)
        self.on_known: Callable[[], None] = lambda: None
        """Told once every source has spoken in this run, and what it said is applied."""
        self._is_known = False
        self._clock = clock
        self._host_time = host_time
        self._moment_used: float = -inf
        """The latest that something was done by since `keep_time` last looked."""
        self._laid_at: float = -inf
        """The time that the local overrides in force were judged by."""
        self.override_faults: tuple[str, ...] = ()
        self._retains = True
        """What the kernel was found with stays, until it was judged what of it may go."""
        reconciler.retain()
        self._remainder: Hold | None = None
        """What of it nobody registers, and is held."""
        self._remainder_at = -inf
        self._is_remainder_old = False
        self._store = store
        self._registry = RegistryState(settings.registry)
        self._saved_version: Hashable = None
        self._said_held: Hashable = None
        self._unsaved: list[SourceUpdate] = []
        """Updates from before all were there: to be the last good once they are in force."""
        self._override_files: tuple[OverrideFile, ...] = ()
        self._applying = asyncio.Lock()
        self._retime = asyncio.Event()
        self._said_late = RateLimited(log, interval_s=10.0, clock=clock)

    # -- registry ------------------------------------------------------------------------------------------

    @property
    def merged(self) -> Merged:
        """The sources as merged, without local pins and filters and what is held."""
        return self._registry.merged

    @property
    def sources(self) -> Mapping[str, SourceState]:
        """The state of each configured source, in order."""
        return self._registry.sources

    async def restore(self) -> dict[str, Restored]:
        """Begin with the last good of each source, before any of them is asked, and return it. Other sources,
        updates and local files wait until this is done."""
        async with self._applying:
            if self._store is None:
                await self._restore(GuardRecord(RemovalGuard(), lost_files=True), {})
                return {}
            record, found = await read_last_good(self._store, self.sources)
            await self._restore(record, found)
            for name, state in self.sources.items():
                if self._host_time is not None:
                    self._host_time.note_last_good(state.issued_at, found[name].saved_at_s)
                if found[name].position is not None:
                    log.info("source.restored", source=name, registrations=state.registrations)
        return found

    async def _restore(self, record: GuardRecord, found: Mapping[str, Restored]) -> None:
        await self._take(await run_in_slices(self._registry.restore(record, found, self._certain())))
        await self._keep_guard()

    async def deliver(self, update: SourceUpdate) -> None:
        """What came of asking a source. Whatever is in force stays until something better is complete; every good
        answer ends a failure."""
        if update.error is not None:
            run_slices(self._registry.apply(update, self._certain()))
            log.warning("source.failed", source=update.source, error=update.error.why)
            return
        async with self._applying:
            if update.source not in self.sources:
                return  # a reload has removed it while it was being read
            changes = await run_in_slices(self._registry.apply(update, self._certain()))
            if update.registrations is not None:
                log.info(
                    "source.read",
                    source=update.source,
                    registrations=len(update.registrations),
                    rejected=sum(update.rejected.values()),
                )
                await self._take(changes)
                self._unsaved.append(update)
            self._know()
            updates, self._unsaved = (self._unsaved, []) if self.loaded else ([], self._unsaved)
            holds = self._registry.held() is not None
            record = await self._encode_guard()
        # Nothing that is in force waits for the disk. What is held is on it before the reading without it is: a
        # crash in between holds it again.
        is_saved = await self._save_guard(record)
        for each in updates:
            if self._store is not None:
                # A restart would lose what is held of it.
                await (self._store.save if is_saved or not holds else self._store.discard)(each)

    async def _take(self, changes: Changes | None) -> None:
        """What is to change of what is in force, into the allowlist. The caller holds `_applying`."""
        if not self._registry.is_loaded:
            return
        await self._change(changes)
        held = self._registry.held()
        if held is not None:
            self._say_held(held.serial, len(held.versions), ",".join(sorted(held.by_cause)), held.decision)
        if not self.loaded:
            self.loaded = True
            self.scanner.note_added()
            self.scanner.note_removed()
            self.reconciler.want_policy(self.policy(self.moment()))
        self._retime.set()

    def _say_held(self, serial: int, removals: int, cause: str, decision: GuardDecision) -> None:
        if (serial, removals, cause) != self._said_held:
            self._said_held = serial, removals, cause
            log.warning("guard.held", cause=cause, serial=serial, removals=removals, reason=str(decision))

    async def _change(self, changes: Changes | None) -> None:
        if changes is None or not (changes.upserts or changes.withdrawals):
            return
        await self._in_slices(changes.upserts, self.active.upsert)
        await self._in_slices(changes.withdrawals, self._withdraw)
        log.info("registry.applied", upserts=len(changes.upserts), withdrawals=len(changes.withdrawals))
        self._is_remainder_old = True
        self._retime.set()

    async def _keep_guard(self) -> None:
        """What the guard knows, on disk. The caller holds `_applying`."""
        await self._save_guard(await self._encode_guard())

    async def _encode_guard(self) -> tuple[Hashable, bytes] | None:
        """What the guard knows, if that is not on disk yet. The caller holds `_applying`."""
        version = self._registry.version()
        if self._store is None or not self.loaded or version == self._saved_version:
            return None
        record = self._registry.record()
        if len(record.guard) < SLICE:
            return version, encode_record(record)
        return version, await asyncio.to_thread(encode_record, record)

    async def _save_guard(self, record: tuple[Hashable, bytes] | None) -> bool:
        """Saves are made in the order of the calls; whether it is on disk."""
        if self._store is None or record is None:
            return True
        version, content = record
        if not await self._store.guard_file.save(content):
            return False
        self._saved_version = version
        return True

    async def accept(self, serial: int) -> dict[str, object]:
        """Release the removals that are held under this serial. Raises SerialNotHeld when none are."""
        released: dict[str, int] = {}
        async with self._applying:
            held = self._registry.held()
            if held is not None and held.serial == serial:
                released = dict(held.by_cause)
                await self._change(await run_in_slices(self._registry.accept(serial)))
                await self._keep_guard()
            remainder = self._remainder
            if remainder is not None and remainder.serial == serial:
                self._remainder = None
                released[KERNEL] = remainder.count
                await run_in_slices(self.reconciler.release_in_slices())
                self._registry.end_loss()
                await self._keep_guard()
            if not released:
                raise SerialNotHeld(serial, min((each.serial for each in self.holds()), default=None))
        for cause, count in released.items():
            log.info("guard.accepted", cause=cause, serial=serial, removals=count)
        return {"serial": serial, "released": released}

    def holds(self) -> tuple[Hold, ...]:
        """All that waits for an operator's word."""
        found = []
        held = self._registry.held()
        if held is not None:
            found.append(Hold(held.serial, held.since_s, held.by_cause, str(held.decision)))
        return (*found, *((self._remainder,) if self._remainder is not None else ()))

    def store_error(self, source: str) -> str | None:
        """Why what is kept on disk of a source is old; None if it is not."""
        return None if self._store is None else self._store.error_of(source)

    async def use_overrides(self, reading: OverridesReading) -> None:
        """The local pins and filters as they are now; a file with faults stays as it was."""
        for fault in reading.faults:
            log.error("overrides.refused", fault=fault)
        self.override_faults = reading.faults
        self._override_files = reading.files
        async with self._applying:
            await self._lay_overrides()

    async def _lay_overrides(self) -> None:
        """The caller holds `_applying`."""
        self._laid_at = self._certain()
        await self._take(await run_in_slices(self._registry.use_overrides(self._override_files, self._laid_at)))
        await self._keep_guard()
        self._retime.set()

    async def use_sources(self, names: Iterable[str]) -> None:
        """The sources of new settings, in order. Those that stay keep their reading until they are read anew; what
        only a removed source had goes, if the guard lets it, once all that are new have been read."""
        async with self._applying:
            await self._take(await run_in_slices(self._registry.use_sources(names, self._certain())))
            await self._keep_guard()

    def override_counts(self) -> OverrideCounts:
        return self._registry.override_counts()

    def freshness(self, now: float) -> dict[str, Freshness]:
        """How old what is known of each source is."""
        return self._registry.freshness(earliest_of(now))

    def policy(self, now: float) -> Policy:
        """The policy of the moment: observe before `enforce_from`, and where stale sources shall mean that.

        `now` may be a Moment: nothing is armed, nor a source stale, before that has certainly come; what is armed
        stays so while it may be.
        """
        is_armed = self.reconciler.mode_in_force != "observe"
        policy = policy_in_force(self.settings, latest_of(now) if is_armed else earliest_of(now))
        known = {name: each for name, each in self.freshness(now).items() if each.since_s > -inf}
        return replace(policy, mode=mode_by_freshness(policy.mode, known, self.settings.registry.on_stale))

    def unread_sources(self) -> tuple[str, ...]:
        """Sources without a first reading; until there is none the kernel is left as it was found."""
        return self._registry.unread()

    async def _in_slices(self, items: Iterable[_Item], change: Callable[[_Item, float], None]) -> None:
        iterator = iter(items)
        while piece := list(islice(iterator, SLICE)):
            now = self.moment()
            for item in piece:
                change(item, now)
            await asyncio.sleep(0)

    def _withdraw(self, registration_id: str, _: float) -> None:
        self.active.withdraw(registration_id)
        self.attribution.forget(registration_id)

    def count_active(self) -> int:
        return self.active.count()

    def next_window_change(self) -> float | None:
        return self.active.schedule.next_change()

    # -- time ----------------------------------------------------------------------------------------------

    def moment(self) -> float:
        """The time for windows, as far as it is known (`model.moment`)."""
        now, used = self._ask_moment(), self._moment_used
        # What was done by a later time, however short that was believed, is looked at again.
        earliest = max(earliest_of(now), earliest_of(used))
        latest = max(latest_of(now), latest_of(used))
        self._moment_used = earliest if earliest == latest else Moment(earliest, latest)
        return now

    def _ask_moment(self) -> float:
        return self._clock() if self._host_time is None else self._host_time.moment()

    def _certain(self) -> float:
        """The time that has certainly come: what the guard goes by, and the ends of local overrides."""
        earliest = earliest_of(self._ask_moment())
        return earliest if isfinite(earliest) else self._clock()

    async def keep_time(self) -> None:
        """Windows and `enforce_from`, on time. Until cancelled."""
        while True:
            self._retime.clear()
            before, now = self._moment_used, self._ask_moment()
            if went_back_s(before, now) > SET_BACK_S:
                seconds = went_back_s(before, now)
                known = {"seconds": round(seconds, 3)} if isfinite(seconds) else {}
                log.warning("clock.set_back", **known)
                self._moment_used = now
                async with self._applying:
                    self.active.schedule.watch_all(self.allowlist, now)
                    await self._in_slices([each.id for each in self.allowlist], self.active.refresh)
                self._scan()
                for facts in self.sources.values():
                    facts.set_back(self._clock())
            await self._in_slices(self.active.schedule.due(now), self.active.refresh)
            certain = earliest_of(now)
            self.aggregate.expire(self._clock())
            if not self._applying.locked():
                async with self._applying:
                    await self._tend_held(self._certain())
            self._want_policy(now)
            overrides_at = self._registry.layer.overrides.next_change()
            is_due = overrides_at is not None and overrides_at <= certain
            if is_due or self._laid_at > self._certain() + SET_BACK_S:
                async with self._applying:
                    await self._lay_overrides()
                overrides_at = self._registry.layer.overrides.next_change()
            times = (self._starts_after(certain), overrides_at)
            upcoming = [max(0.0, at_s - certain) for at_s in times if at_s is not None]
            pause_s = min([MAX_SLEEP_S, self.active.schedule.due_in_s(now), *upcoming])
            try:
                async with asyncio.timeout(pause_s):
                    await self._retime.wait()
            except TimeoutError:
                pass

    async def _tend_held(self, now: float) -> None:
        """What is held ends with its window, and what the kernel was found with is judged once it is known what is
        registered. The caller holds `_applying`."""
        if self._registry.next_end() <= now:
            await self._change(await run_in_slices(self._registry.end_windows(now)))
            await self._keep_guard()
        self._know()
        is_old = self._is_remainder_old and now >= self._remainder_at + REMAINDER_EVERY_S
        is_due = self._retains or (self._remainder is not None and is_old)
        if is_due and self._is_known and self.reconciler.unready() is None:
            await self._judge_remainder(now)

    def _know(self) -> None:
        """Whether every source has spoken in this run, and it is applied. The caller holds `_applying`."""
        if not self._is_known and self._registry.is_known():
            self._is_known = True
            self.on_known()
            self._retime.set()

    async def _judge_remainder(self, now: float) -> None:
        """What a start found in the kernel and nobody registers goes, unless it is more than the guard lets go."""
        self._retains = self._is_remainder_old = False
        self._remainder_at = now
        closed = self.active.closed(now)
        left, found = await run_in_slices(self.reconciler.sort_retained_in_slices(closed))
        lost_files = self._registry.lost_files
        decision = judge_remainder(found, left, self.settings.registry.shrink_guard, lost_files=lost_files)
        await run_in_slices(self.reconciler.release_in_slices(left if decision.is_held else 0))
        before, self._remainder = self._remainder, None
        if not decision.is_held:
            self._registry.end_loss()
            await self._keep_guard()
        else:
            reason = f"the kernel has {left} elements that nobody registers, of {found} that it was found with"
            if decision.reason == "protected":
                reason = f"{reason}, and they may be of a protected category: files that said whose were lost"
            held = self._registry.held()
            number = int(now) + (held is not None and held.serial == int(now))
            serial, since_s = (number, now) if before is None else (before.serial, before.since_s)
            self._remainder = Hold(serial, since_s, {KERNEL: left}, f"{reason}; more than {decision.limit}")
            if before is None:
                self._say_held(serial, left, KERNEL, decision)

    def _want_policy(self, now: float) -> None:
        """What the settings say, once the allowlist is complete; observe needs no allowlist to be safe."""
        policy = self.policy(now)
        is_complete = not self._registry.unread() and not self._applying.locked()
        if self.loaded and (is_complete or policy.mode == "observe"):
            self.reconciler.want_policy(policy)
        elif policy.mode == "observe" != self.reconciler.mode_in_force:
            self.reconciler.disarm(policy)

    def _scan(self) -> None:
        """Look at the registered flows again, whatever the kernel has still to be told."""
        self.scanner.note_removed()
        if self.loaded:
            self.scanner.look()

    def _starts_after(self, now: float) -> float | None:
        enforce_from = self.settings.policy.enforce_from
        return enforce_from if enforce_from is not None and enforce_from > now else None

    def reload(self, settings: Settings) -> None:
        """New settings, sources apart: they take effect at the next turn."""
        if settings.policy.drain_s != self.settings.policy.drain_s:
            self.scanner.drain_s = settings.policy.drain_s
            self._scan()
        self.settings = settings
        self._registry.use_settings(settings.registry)
        self.aggregate.detail = settings.watch.unregistered
        self.reconciler.verify_every(settings.kernel.verify_every_s)
        self.reconciler.protect(each.category for each in settings.registry.shrink_guard.protected)
        self._retime.set()

    # -- events --------------------------------------------------------------------------------------------

    def on_packets(self, events: list[PacketEvent]) -> None:
        """Packets in scope that matched nothing in the kernel. A registered one is admitted late, at once."""
        now = self.moment()
        for event in events:
            registrations = self._matching_programmed(event.flow, now)
            if registrations:
                self._admit_late(event.flow, registrations)
            else:
                self.aggregate.seen(event.flow, self._clock())

    def _admit_late(self, flow: Flow, registrations: tuple[Registration, ...]) -> None:
        self.late_admissions += 1
        wanted = [each for registration in registrations for each in self._wanted_at(registration, flow)]
        # If none is missing they are in the kernel by now, and only the flow's mark is out of date.
        self.scanner.note_late(flow, in_kernel=not self.reconciler.prioritise(wanted))
        self._said_late.info("late_admission", id=registrations[0].id)

    def on_connections(self, events: list[ConnectionEvent]) -> None:
        """Begin and end of flows that the kernel knows as registered."""
        now, moment = self._clock(), self.moment()
        registered = self.scanner.layout.registered
        for event in events:
            if event.sender_port and event.kind == "new":
                self.scanner.note_carried(event)
                if not event.mark & registered:
                    continue
            if event.kind == "destroy":
                self.attribution.closed(event, now)
            else:
                registrations = self.allowlist.matching(event.flow, moment)
                self.attribution.opened(event, registrations, now)
                if not registrations and not event.sender_port:
                    self.scanner.note_ended_early(event)
                elif not registrations and event.kind == "new" and self.loaded:
                    self.scanner.note_strange()

    def _matching_programmed(self, flow: Flow, now: float) -> tuple[Registration, ...]:
        """As `matching`, without registrations that the kernel cannot be told of at the flow's addresses: to the
        kernel these are not registered, and telling it again changes nothing."""
        registrations = self.allowlist.matching(flow, now)
        desired = self.reconciler.tracker.desired
        unprogrammed = desired.unprogrammed()
        if not registrations or not unprogrammed:
            return registrations
        return tuple(
            each
            for each in registrations
            if each.id not in unprogrammed or not all(map(desired.is_unprogrammed, self._wanted_at(each, flow)))
        )

    def _wanted_at(self, registration: Registration, flow: Flow) -> Iterator[Registration | BoundRegistration]:
        """The registration, and what it is given, where they have an end of the flow."""
        ends = flow.source, flow.destination
        if any(client.covers(end) for client in registration.clients for end in ends):
            yield registration
        for bound in self.allowlist.bound_registrations_of(registration):
            if any(map(bound.prefix.covers, ends)):
                yield bound

    def _is_in_scope(self, flow: Flow) -> bool:
        """By the port of either end: the far end may have spoken first."""
        policy = self.reconciler.policy_in_force
        return policy is None or in_scope(policy.scope, flow) or in_scope(policy.scope, reverse_flow(flow))

    def on_lost(self, source: str) -> None:
        """Events were lost: what there is now comes from a listing."""
        log.warning("watch.overrun", source=source)
        if source == "conntrack":
            self.resyncs += 1
            self._scan()

    def on_in_sync(self) -> None:
        """The kernel is as desired and was read back."""
        self.scanner.settle(self.reconciler.epoch)
        self._retime.set()


async def read_last_good(
    store: LastGood, sources: Iterable[str], *, tidies: bool = True
) -> tuple[GuardRecord, dict[str, Restored]]:
    """What the guard knew when the last run ended, and the last good of each source: those that are configured,
    and those that the guard names. A file that is damaged is said, and costs what it had."""
    try:
        record = decode_record(await store.guard_file.load())
    except Damaged as error:
        log.warning("guard.damaged", file=str(store.guard_file.path), error=str(error))
        record = decode_record(None)
    found = {name: await store.load(name, tidies=tidies) for name in sources}
    for name in record.sources or ():
        if name not in found:
            log.info("source.not_configured", source=name)
            found[name] = await store.load(name, tidies=tidies)
    return record, found
