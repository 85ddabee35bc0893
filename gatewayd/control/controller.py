"""What is registered, changed by one task: sources, local files, an operator's word and the clock come in here.

Everything here runs on the event loop, and each change is one turn without await: take an event, update state,
tell the reconciler. What is long (a million registrations) is cut into slices, the loop turning in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import inf, isfinite
from typing import Protocol, TypeVar

from gatewayd.compile.policy import policy_in_force
from gatewayd.control.core import Core
from gatewayd.control.host_time import SET_BACK_S, HostTime
from gatewayd.errors import SerialNotHeld, SourceFailed
from gatewayd.feed.canonical import Damaged
from gatewayd.log import get_logger
from gatewayd.model.changes import Changes
from gatewayd.model.moment import earliest_of, latest_of
from gatewayd.model.policy import Policy
from gatewayd.model.registration import Registration
from gatewayd.registry.freshness import Freshness, judge_freshness, mode_by_freshness
from gatewayd.registry.guard import GuardDecision, Guarded, HeldRemovals, RemovalGuard, judge_remainder
from gatewayd.registry.guard_record import GuardRecord, decode_record, decode_versions, encode_record
from gatewayd.registry.merge import Merged
from gatewayd.registry.overrides import OverrideCounts
from gatewayd.registry.state import KERNEL, InForce
from gatewayd.settings import Settings
from gatewayd.sources.feed_source import SourceDelta
from gatewayd.sources.last_good_store import LastGood, Restored
from gatewayd.sources.override_file import OverrideFile
from gatewayd.sources.overrides_dir import OverridesReading
from gatewayd.sources.source_facts import SourceFacts, discard, keep
from gatewayd.sources.sources import SourceConfirmed, SourceReading, run_in_slices
from gatewayd.subscribers.service import longest_unreported_s

log = get_logger(__name__)
_Item = TypeVar("_Item")

SLICE = 500
"""Registrations applied between two turns of the loop: some 5 ms."""
MAX_SLEEP_S = 1.0
"""The clock may be set, or believed at last; it is looked at this often."""
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


class Subscribers(Protocol):
    """What the table of sessions is told of the registry."""

    def recheck(self, subscriber: bytes) -> None:
        """A registration names this digest now, or none any more."""
        ...

    def forget_unregistered(self) -> None:
        """The registry is known for what it is now."""
        ...


class Controller:
    """Fed by the sources and the clock; feeds the active set, and through it the kernel's side."""

    def __init__(
        self,
        settings: Settings,
        core: Core,
        *,
        store: LastGood | None = None,
        host_time: HostTime | None = None,
        subscribers: Subscribers | None = None,
        confirmed_at: Callable[[str], float] = lambda _: -inf,
    ) -> None:
        """`confirmed_at`: when a source, by name, last said that it has nothing else."""
        self.settings = settings
        self.reconciler = core.reconciler
        self.active = core.programmer.active
        self.allowlist = self.active.allowlist
        self.scanner = core.scanner
        self.watch = core.watch
        self.attribution = core.attribution
        self.aggregate = core.aggregate
        self.sources = {each.name: SourceFacts(each.url) for each in settings.registry.sources}
        self.loaded = False
        """The registry in force is in the allowlist, all of it."""
        self.moment = core.clock.moment
        """The time for windows, as far as it is known (`model.moment`)."""
        self._certain = core.clock.certain
        self._clock = core.clock.likely
        self._windows = core.clock
        self._programmer = core.programmer
        self._requests = core.requests
        self._retime = core.wake
        self._subscribers = subscribers
        self._is_known = False
        """Every source has spoken in this run, and it is applied."""
        self._host_time = host_time
        self._laid_at: float = -inf
        """The time that the local overrides in force were judged by."""
        self.restored: dict[str, Restored] = {}
        self.override_faults: tuple[str, ...] = ()
        self._confirmed_at = confirmed_at
        self._retains = True
        """What the kernel was found with stays, until it was judged what of it may go."""
        self.reconciler.retain()
        self._remainder: Hold | None = None
        """What of it nobody registers, and is held."""
        self._remainder_at = -inf
        self._is_remainder_old = False
        self._answered: set[str] = set()
        self._store = store
        self._registry = InForce(self.sources)
        self._kept_version: Hashable = None
        self._said_held: Hashable = None
        self._unsaved: list[SourceReading | SourceDelta] = []
        """Readings from before all were there: to be the last good once they are in force."""
        self._override_files: tuple[OverrideFile, ...] = ()
        self._applying = asyncio.Lock()

    # -- registry ------------------------------------------------------------------------------------------

    @property
    def merged(self) -> Merged:
        """The sources as merged, without local pins and filters and what is held."""
        return self._registry.merged

    async def restore(self) -> None:
        """Begin with the last good of each source, before any of them is asked. Other sources, readings and local
        files wait until this is done."""
        async with self._applying:
            if self._store is None:
                await self._restore(GuardRecord(RemovalGuard(), lost_files=True), {})
                return
            for name in self.sources:
                self.restored[name] = await self._store.load(name)
            record = await record_of(self._store, self.restored)
            found = {**self.restored}
            for name in record.sources or ():
                if name not in found:
                    log.info("source.not_configured", source=name)
                    found[name] = await self._store.load(name)
            readings = {name: each.registrations for name, each in found.items() if each.position is not None}
            if record.sources is None or any(found[name].is_lost for name in record.sources):
                record = replace(record, lost_files=True)
            for name, facts in self.sources.items():
                facts.restore(self.restored[name])
                if self._host_time is not None:
                    self._host_time.note_last_good(facts.issued_at, self.restored[name].saved_at_s)
                if name in readings:
                    log.info("source.restored", source=name, registrations=facts.registrations)
            await self._restore(record, readings)

    async def _restore(self, record: GuardRecord, readings: Mapping[str, Mapping[str, Registration]]) -> None:
        await self._take(
            await run_in_slices(
                self._registry.restore_in_slices(
                    record, readings, settings=self.settings.registry.shrink_guard, now=self._certain()
                )
            )
        )
        await self._keep_guard()

    async def deliver(self, result: SourceReading | SourceDelta | SourceConfirmed | SourceFailed) -> None:
        """What came of asking a source. Whatever is in force stays until something better is complete; every good
        answer ends a failure."""
        if isinstance(result, SourceFailed):
            if result.source in self.sources:
                self.sources[result.source].error = result.why
            log.warning("source.failed", source=result.source, error=result.why)
            return
        async with self._applying:
            facts = self.sources.get(result.name)
            if facts is None:
                return  # a reload has removed it while it was being read
            if isinstance(result, SourceConfirmed):
                facts.confirm(result.checked_at)
            else:
                facts.take(result)
                log.info(
                    "source.read",
                    source=result.name,
                    registrations=facts.registrations,
                    rejected=sum(facts.rejected.values()),
                )
                await self._take_reading(result, facts.serial)
            self._answered.add(result.name)
            self._know()
            readings, self._unsaved = (self._unsaved, []) if self.loaded else ([], self._unsaved)
            holds = self._registry.held() is not None
            record = await self._encode_guard()
        # Nothing that is in force waits for the disk. What is held is on it before the reading without it is: a
        # crash in between holds it again.
        is_kept = await self._save_guard(record)
        for each in readings:
            await self._keep_reading(each, is_safe=is_kept or not holds)

    async def _take_reading(self, result: SourceReading | SourceDelta, serial: int) -> None:
        delta = Changes(result.upserts, result.withdrawals) if isinstance(result, SourceDelta) else None
        guarded = await run_in_slices(
            self._registry.take_in_slices(
                result.name,
                result.registrations,
                delta,
                serial,
                settings=self.settings.registry.shrink_guard,
                now=self._certain(),
            )
        )
        await self._take(guarded)
        self._unsaved.append(result)

    async def _take(self, guarded: Guarded | None) -> None:
        """What is to change of what is in force, into the allowlist."""
        if guarded is None:
            return
        await self._change(guarded.changes)
        held = self._registry.held()
        if guarded.decision.is_held and held is not None:
            causes = ",".join(sorted(self._registry.guard.held_by_cause()))
            self._say_held(held.serial, len(held.versions), causes, held.decision)
        if not self.loaded:
            self.loaded = True
            self._requests.note_added()
            self._requests.note_removed()
            self.reconciler.want_policy(self.policy(self.moment()))
        self._retime.set()

    def _say_held(self, serial: int, removals: int, cause: str, decision: GuardDecision) -> None:
        if (serial, removals, cause) != self._said_held:
            self._said_held = serial, removals, cause
            log.warning("guard.held", cause=cause, serial=serial, removals=removals, reason=str(decision))

    async def _change(self, changes: Changes | None) -> None:
        if changes is None or not (changes.upserts or changes.withdrawals):
            return
        await self._in_slices(changes.upserts, self._upsert)
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
        if self._store is None or not self.loaded or version == self._kept_version:
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
        self._kept_version = version
        return True

    async def _keep_reading(self, result: SourceReading | SourceDelta, *, is_safe: bool) -> None:
        """Make it the last good, unless a restart would lose what is held of it."""
        if self._store is not None:
            await (keep if is_safe else discard)(self._store, result)

    async def accept(self, serial: int) -> dict[str, object]:
        """Release the removals that are held under this serial. Raises SerialNotHeld when none are."""
        released: dict[str, int] = {}
        async with self._applying:
            held = self._registry.held()
            if held is not None and held.serial == serial:
                released = self._registry.guard.held_by_cause()
                await self._change(await run_in_slices(self._registry.accept_in_slices(serial)))
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
            by_cause = self._registry.guard.held_by_cause()
            found.append(Hold(held.serial, held.since_s, by_cause, str(held.decision)))
        return (*found, *((self._remainder,) if self._remainder is not None else ()))

    def store_error(self, source: str) -> str | None:
        """Why what is kept on disk of a source is old; None if it is not."""
        if self._store is None:
            return None
        error = self._store.state_of(source).error
        return str(error) if error is not None else self._store.guard_file.error

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
        await self._take(
            await run_in_slices(
                self._registry.use_overrides_in_slices(
                    self._override_files, settings=self.settings.registry.shrink_guard, now=self._laid_at
                )
            )
        )
        await self._keep_guard()
        self._retime.set()

    async def use_sources(self, urls: Mapping[str, str]) -> None:
        """The sources of new settings, in order. Those that stay keep their reading until they are read anew; what
        only a removed source had goes, if the guard lets it, once all that are new have been read."""
        async with self._applying:
            self.sources = {name: self.sources.get(name, SourceFacts(url)) for name, url in urls.items()}
            for name, url in urls.items():
                self.sources[name].url = url
            self._answered &= urls.keys()
            await self._take(
                await run_in_slices(
                    self._registry.use_sources_in_slices(
                        urls, settings=self.settings.registry.shrink_guard, now=self._certain()
                    )
                )
            )
            await self._keep_guard()

    def override_counts(self) -> OverrideCounts:
        return self._registry.layer.counts()

    def freshness(self, now: float) -> dict[str, Freshness]:
        """How old what is known of each source is."""
        registry, now = self.settings.registry, earliest_of(now)
        fresh = {}
        for name, facts in self.sources.items():
            confirmed_at = max(facts.confirmed_at, self._confirmed_at(name))
            fresh[name] = judge_freshness(
                confirmed_at if confirmed_at > -inf else None,
                facts.issued_at,
                now,
                refresh_s=registry.refresh_s,
                expire_s=facts.expire_s or registry.expire_s,
            )
        return fresh

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

    def _upsert(self, registration: Registration, now: float) -> None:
        self._recheck(self._programmer.upsert(registration, now))

    def _withdraw(self, registration_id: str, _: float) -> None:
        self._recheck(self._programmer.withdraw(registration_id))
        self.attribution.forget(registration_id)

    def _recheck(self, subscribers: tuple[bytes, ...]) -> None:
        if self._subscribers is not None:
            for subscriber in subscribers:
                self._subscribers.recheck(subscriber)

    def count_active(self) -> int:
        return self.active.count()

    def next_window_change(self) -> float | None:
        return self.active.next_change()

    # -- time ----------------------------------------------------------------------------------------------

    async def keep_time(self) -> None:
        """Windows and `enforce_from`, on time. Until cancelled."""
        while True:
            self._retime.clear()
            now, went_back_s = self._windows.look()
            if went_back_s:
                await self._look_again(now, went_back_s)
            await self._in_slices(self.active.due(now), self._programmer.refresh)
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
            pause_s = min([MAX_SLEEP_S, self.active.due_in_s(now), *upcoming])
            try:
                async with asyncio.timeout(pause_s):
                    await self._retime.wait()
            except TimeoutError:
                pass

    async def _look_again(self, now: float, went_back_s: float) -> None:
        """The clock was set back: what was done by a time that had not come is undone."""
        log.warning("clock.set_back", **({"seconds": round(went_back_s, 3)} if isfinite(went_back_s) else {}))
        async with self._applying:
            self.active.watch_all(now)
            await self._in_slices([each.id for each in self.allowlist], self._programmer.refresh)
        self._scan()
        for facts in self.sources.values():
            facts.set_back(self._clock())

    async def _tend_held(self, now: float) -> None:
        """What is held ends with its window, and what the kernel was found with is judged once it is known what is
        registered. The caller holds `_applying`."""
        if self._registry.next_end() <= now:
            await self._change(await run_in_slices(self._registry.end_in_slices(now)))
            await self._keep_guard()
        self._know()
        is_old = self._is_remainder_old and now >= self._remainder_at + REMAINDER_EVERY_S
        is_due = self._retains or (self._remainder is not None and is_old)
        if is_due and self._is_known and self.reconciler.unready() is None:
            await self._judge_remainder(now)

    def _know(self) -> None:
        """Whether every source has spoken in this run, and it is applied. The caller holds `_applying`."""
        if not self._is_known and self._answered >= self.sources.keys() and not self._registry.unread():
            self._is_known = True
            if self._subscribers is not None:
                self._subscribers.forget_unregistered()
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
        self._requests.note_removed()
        if self.loaded:
            self._requests.look()

    def _starts_after(self, now: float) -> float | None:
        enforce_from = self.settings.policy.enforce_from
        return enforce_from if enforce_from is not None and enforce_from > now else None

    def reload(self, settings: Settings) -> None:
        """New settings, sources apart: they take effect at the next turn."""
        if settings.policy.drain_s != self.settings.policy.drain_s:
            self._requests.use_drain(settings.policy.drain_s)
            self._scan()
        self.settings = settings
        if settings.subscribers is not None:
            self._programmer.wait_for_accounting(longest_unreported_s(settings.subscribers))
        self.aggregate.use(settings.watch.unregistered)
        self.reconciler.verify_every(settings.kernel.verify_every_s)
        self.reconciler.protect(each.category for each in settings.registry.shrink_guard.protected)
        self._retime.set()


async def record_of(store: LastGood, restored: Mapping[str, Restored]) -> GuardRecord:
    """What the guard knew when the last run ended; where there is nothing, what an earlier version of gatewayd held
    of each source. A file that is damaged is said, and costs what it had."""
    content = await store.guard_file.load()
    try:
        record = decode_record(content)
    except Damaged as error:
        log.warning("guard.damaged", file=str(store.guard_file.path), error=str(error))
        record = decode_record(None)
    if content is not None:
        return record
    versions = {name: decode_versions(each.held) for name, each in restored.items()}
    causes = {id: name for name, held in versions.items() for id in held}
    if not causes:
        return record
    serial = max(each.position.serial for each in restored.values() if each.position is not None and each.held)
    decision = GuardDecision(True, "too_many", len(causes), 0)
    merged = {id: kept for held in versions.values() for id, kept in held.items()}
    return GuardRecord(RemovalGuard(HeldRemovals(serial, 0.0, decision, merged, causes)))
