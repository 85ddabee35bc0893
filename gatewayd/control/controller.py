"""What is registered, changed by one task: sources, local files, an operator's word and the clock come in here.

Everything here runs on the event loop, and each change is one turn without await: take an event, update state,
tell the reconciler. What is long (a million registrations) is cut into slices, the loop turning in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from math import inf, isfinite
from typing import TypeVar

from gatewayd.control.core import Core, Subscribers, make_registry, max_elements_of
from gatewayd.control.extended_log import ExtendedLog
from gatewayd.control.guard_keeper import GuardKeeper, HeldLog, Hold, Remainder, holds_of, read_last_good
from gatewayd.control.host_time import SET_BACK_S, HostTime
from gatewayd.control.policy import UNARMED, HasState, PolicyInForce, PolicyKeeper
from gatewayd.errors import SerialNotHeld, SourceTooLarge
from gatewayd.log import get_logger
from gatewayd.model.moment import earliest_of
from gatewayd.model.policy import Policy
from gatewayd.model.registration import Changes, Registration, run_slices
from gatewayd.registry.freshness import Freshness, SourceState, rejections_of
from gatewayd.registry.guard import RemovalGuard
from gatewayd.registry.guard_record import GuardRecord
from gatewayd.registry.layers import Merged, OverrideCounts
from gatewayd.registry.state import KERNEL, RegistryState
from gatewayd.settings import Settings
from gatewayd.sources.files import OverridesReading
from gatewayd.sources.last_good import Restored
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.override_file import OverrideFile
from gatewayd.sources.runner import run_in_slices
from gatewayd.sources.update import SourceUpdate
from gatewayd.subscribers.service import longest_unreported_s
from gatewayd.trial.stages import Cause

log = get_logger(__name__)
_Item = TypeVar("_Item")

SLICE = 500
"""Registrations applied between two turns of the loop: some 5 ms."""
MAX_SLEEP_S = 1.0
"""The clock may be set, or believed at last; it is looked at this often."""


class Controller:
    """Fed by the sources and the clock; feeds the active set, and through it the kernel's side."""

    def __init__(
        self, settings: Settings, core: Core, *, store: LastGood | None = None, arming: HasState = UNARMED,
        host_time: HostTime | None = None, subscribers: Subscribers | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.reconciler = core.reconciler
        self.active = core.programmer.active
        self.allowlist = self.active.allowlist
        self.in_sync = core.in_sync
        self.scanner = core.scanner
        self.watch = core.watch
        self.attribution = core.attribution
        self.aggregate = core.aggregate
        self.near_misses = core.near_misses
        self.loaded = False
        """The registry in force is in the allowlist, all of it."""
        self.moment = core.clock.moment
        """The time for windows, as far as it is known (`model.moment`)."""
        self.certain = core.clock.certain
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
        self.override_faults: tuple[str, ...] = ()
        self._remainder = Remainder(core.reconciler)
        self._store, self._began_with = store, settings.registry.sources
        self._registry = self.registry = make_registry(settings.registry)
        self._policy = PolicyKeeper(settings, core.reconciler, self._registry, arming)
        self._guard = GuardKeeper(self._registry, store)
        self.held_log = HeldLog()
        self.extended = ExtendedLog(self._registry)
        self._unsaved: list[SourceUpdate] = []
        """Updates from before all were there: to be the last good once they are in force."""
        self._override_files: tuple[OverrideFile, ...] = ()
        self._applying = asyncio.Lock()

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
        updates and local files wait until this is done. A reload to observe does not: its sources come later."""
        async with self._applying:
            record, found = GuardRecord(RemovalGuard(), lost_files=True), dict[str, Restored]()
            if self._store is not None:
                record, found = await read_last_good(self._store, self._began_with)
            await self._take(await run_in_slices(self._registry.restore(record, found, self.certain())))
            await self._guard.save()
            for name, state in self.sources.items() if found else ():
                if self._host_time is not None:
                    self._host_time.note_last_good(state.issued_at, found[name].saved_at_s)
                if found[name].position is not None:
                    log.info("source.restored", source=name, registrations=state.registrations)
        return found

    async def deliver(self, update: SourceUpdate) -> None:
        """What came of asking a source. Whatever is in force stays until something better is complete; every good
        answer ends a failure."""
        if update.error is not None:
            run_slices(self._registry.apply(update, self.certain()))
            log.warning("source.failed", source=update.source, error=update.error.why)
            return
        async with self._applying:
            if update.source not in self.sources:
                return  # a reload has removed it while it was being read
            try:
                changes = await run_in_slices(self._registry.apply(update, self.certain()))
            except SourceTooLarge as error:
                log.warning("source.failed", source=update.source, error=error.why)
                return
            if update.registrations is not None:
                count, rejected = len(update.registrations), sum(update.rejected.values())
                log.info("source.read", source=update.source, registrations=count, rejected=rejected)
                await self._take(changes)
                self._unsaved.append(update)
            self._know()
            updates, self._unsaved = (self._unsaved or [update], []) if self.loaded else ([], self._unsaved)
            holds = self._registry.held() is not None
            record = await self._guard.encode()
        # Nothing that is in force waits for the disk. What is held is on it before the reading without it is: a
        # crash in between holds it again.
        is_saved = await self._guard.write(record)
        if self.reconciler.unready() is not None and any(each.is_large for each in updates):
            await self.in_sync.wait()
        for each in updates:
            if self._store is not None and (is_saved or not holds):  # a restart would lose what is held of it
                await self._store.save(each, rejections_of(self.sources, each.source))

    async def _take(self, changes: Changes | None) -> None:
        """What is to change of what is in force, into the allowlist. The caller holds `_applying`."""
        if not self._registry.is_loaded:
            return
        await self._change(changes)
        await self.held_log.look(self._registry, self.allowlist)
        if not self.loaded:
            self.loaded = True
            self._guard.warn_of_categories()
            self._requests.note_added()
            self._requests.note_removed()
            self._policy.want(self.moment(), is_loaded=True, is_complete=True)
        self._retime.set()

    async def _change(self, changes: Changes | None) -> None:
        if changes is None or not (changes.upserts or changes.withdrawals):
            return
        await self._in_slices(changes.upserts, self._upsert)
        await self._in_slices(changes.withdrawals, self._withdraw)
        await self.extended.say_changes(self.allowlist)
        log.info("registry.applied", upserts=len(changes.upserts), withdrawals=len(changes.withdrawals))
        self._remainder.note_change()
        self._retime.set()

    async def accept(self, serial: int, by: str = "") -> dict[str, object]:
        """Release what is held under this serial, as `by` says. Raises SerialNotHeld when nothing is."""
        released: dict[str, int] = {}
        async with self._applying:
            released = self._registry.releasable(serial)
            if released:
                await self._change(await run_in_slices(self._registry.accept(serial, self.certain(), by)))
                await self._guard.save()
            if count := await self._remainder.accept(serial):
                released[KERNEL] = count
                self._registry.end_loss()
                await self._guard.save()
            if not released:
                raise SerialNotHeld(serial, min((each.serial for each in self.holds()), default=None))
        for cause, count in released.items():
            log.info("guard.accepted", cause=cause, serial=serial, removals=count, by=by)
        return {"serial": serial, "released": released}

    def holds(self) -> tuple[Hold, ...]:
        """All that waits for an operator's word."""
        return (*holds_of(self._registry), *([self._remainder.held] if self._remainder.held is not None else ()))

    def store_error(self, source: str) -> str | None:
        """Why its last good is old."""
        return self._store.error_of(source) if self._store else None

    async def use_overrides(self, reading: OverridesReading) -> None:
        """The local pins and filters as they are now; a file with faults stays as it was."""
        for fault in reading.faults:
            log.error("overrides.refused", fault=fault)
        self.override_faults, self._override_files = reading.faults, reading.files
        async with self._applying:
            await self._lay_overrides()

    async def _lay_overrides(self) -> None:
        """The caller holds `_applying`."""
        self._laid_at = self.certain()
        await self._take(await run_in_slices(self._registry.use_overrides(self._override_files, self._laid_at)))
        await self._guard.save()
        self._retime.set()

    def is_applying(self) -> bool:
        """A change of the registry is under way."""
        return self._applying.locked()

    async def between_changes(self, call: Callable[[RegistryState], _Item]) -> _Item:
        """What it returns for the registry, while no change is on its way into force: it may end what makes one."""
        async with self._applying:
            return call(self._registry)

    async def use_sources(self, names: Iterable[str]) -> None:
        """The sources of new settings, in order. Those that stay keep their reading until they are read anew; what
        only a removed source had goes, if the guard lets it, once all that are new have been read."""
        async with self._applying:
            await self._take(await run_in_slices(self._registry.use_sources(names, self.certain())))
            await self._guard.save()

    def override_counts(self) -> OverrideCounts:
        return self._registry.override_counts()

    def freshness(self, now: float) -> dict[str, Freshness]:
        """How old what is known of each source is."""
        return self._registry.freshness(earliest_of(now))

    def policy(self, now: float) -> Policy:
        """As PolicyKeeper.policy."""
        return self._policy.policy(now)

    def is_policy_in_force(self) -> bool:
        """The kernel has the policy of the moment."""
        return self._policy.is_in_force(self.moment())

    @property
    def policy_in_force(self) -> PolicyInForce | None:
        """None before the kernel has rules of this run."""
        return self._policy.in_force

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
        self.extended.put(registration, now)
        self._recheck(self._programmer.upsert(registration, now))

    def _withdraw(self, registration_id: str, _: float) -> None:
        self.extended.drop(self.allowlist.get(registration_id))
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
        """Windows and the schedule of the policy, on time. Until cancelled."""
        while True:
            self._retime.clear()
            now, went_back_s = self._windows.look()
            if went_back_s:
                await self._look_again(now, went_back_s)
            await self._in_slices(self.active.due(now), self._programmer.refresh)
            certain = earliest_of(now)
            self.aggregate.expire(self._clock())
            self.extended.say_ending(certain)
            if not self._applying.locked():
                async with self._applying:
                    await self._tend_held(self.certain())
            self._want_policy(now)
            overrides_at = self._registry.next_override_change()
            is_due = overrides_at is not None and overrides_at <= certain
            if is_due or self._laid_at > self.certain() + SET_BACK_S:
                async with self._applying:
                    await self._lay_overrides()
                overrides_at = self._registry.next_override_change()
            times = (self._policy.next_change(certain), overrides_at)
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
            await self._change(await run_in_slices(self._registry.end_windows(now)))
            await self._guard.save()
        self._know()
        if self._remainder.is_due(now) and self._is_known and self.reconciler.unready() is None:
            await self._judge_remainder(now)

    def _know(self) -> None:
        """Whether every source has spoken in this run, and it is applied. The caller holds `_applying`."""
        if not self._is_known and self._registry.is_known():
            self._is_known = True
            if self._subscribers is not None:
                self._subscribers.forget_unregistered()
            self._retime.set()

    async def _judge_remainder(self, now: float) -> None:
        registry, remainder = self._registry, self._remainder
        held, was_held = registry.held(), remainder.held
        decision = await remainder.judge(
            self.active.closed(now),
            self.settings.registry.shrink_guard,
            now,
            lost_files=registry.lost_files,
            taken=None if held is None else held.serial,
        )
        if remainder.held is None:
            registry.end_loss()
            await self._guard.save()
        elif was_held is None:
            self.held_log.say(remainder.held.serial, remainder.held.count, KERNEL, decision)

    def _want_policy(self, now: float) -> None:
        is_complete = not self._registry.unread() and not self._applying.locked()
        self._policy.want(now, is_loaded=self.loaded, is_complete=is_complete)
        self._policy.note(self._clock())

    def change_stage(self, by: str) -> None:
        """The stage of arming is another, by this word: the kernel gets it now."""
        self._policy.note_word(by)
        self._want_policy(self.moment())

    def cause_of_stage(self) -> Cause:
        """What decides on the stage of the moment."""
        return self._policy.decide(self.moment()).cause

    def _scan(self) -> None:
        """Look at the registered flows again, whatever the kernel has still to be told."""
        self._requests.note_removed()
        if self.loaded:
            self._requests.look()

    def reload(self, settings: Settings, by: str = "reload") -> None:
        """New settings, sources apart: they take effect at the next turn. `by`: who asked for it."""
        if settings.policy.drain_s != self.settings.policy.drain_s:
            self._requests.use_drain(settings.policy.drain_s)
            self._scan()
        self.settings = settings
        self._policy.use(settings, by)
        self._registry.use_settings(settings.registry, max_elements_of(settings.registry))
        self._guard.warn_of_categories()
        if settings.subscribers is not None:
            self._programmer.wait_for_accounting(longest_unreported_s(settings.subscribers))
        self.aggregate.use(settings.watch.unregistered)
        self.reconciler.verify_every(settings.kernel.verify_every_s)
        self.reconciler.protect(each.category for each in settings.registry.shrink_guard.protected)
        self._retime.set()
