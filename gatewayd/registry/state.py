"""The registry in force as one state: sources in order, pins and filters over them, and what is held.

Whatever happens — an update of a source, other sources, other local files, an operator's word, a window that
closes, a start — is one call that gives what is to change of what is in force, judged by one guard; None: nothing.
The caller applies it; calls are made one after the other, and each generator of slices is run to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from math import inf
from typing import Final

from gatewayd.errors import SourceTooLarge
from gatewayd.model import Registration
from gatewayd.model.registration import Changes, Slices, changes_in_slices
from gatewayd.registry.budget import ElementBudget
from gatewayd.registry.endpoint_guard import EndpointGuard
from gatewayd.registry.freshness import Freshness, SourceState
from gatewayd.registry.guard import SLICE, HeldRemovals, RemovalGuard
from gatewayd.registry.guard_record import GuardRecord
from gatewayd.registry.history import History
from gatewayd.registry.layers import Merged, OverrideCounts, OverrideLayer, Overrides, SourceSet
from gatewayd.registry.lookups import Earlier, Instead, Lookup, Registered, in_force_of
from gatewayd.registry.standing import (
    HeldPage,
    OverrideNote,
    Standing,
    filtered_at,
    held_page,
    notes_of,
    standing_of,
)
from gatewayd.settings.model import RegistrySettings, ShrinkGuardSettings
from gatewayd.sources.last_good import Restored
from gatewayd.sources.override_file import OverrideFile
from gatewayd.sources.update import SourceUpdate

SOURCES: Final = "config/sources"
LOCAL: Final = "config/local"
KERNEL: Final = "kernel/elements"
ACCEPTED: Final = "operator/accept"
WINDOWS: Final = "clock/window"
ENDPOINTS: Final = "registry/endpoints"
"""What changes the registry in force and is no source: no source has a `/` in its name."""

NOTHING: Final = Changes((), ())
_REST: Final = ""
"""Stands for a source: what was in force when a reload brought sources that have not been read yet."""


class RegistryState:
    """Owned by one task. `merged`: the sources alone, without pins, filters and what is held. `sources`: the state
    of each that is configured, in order.

    Questions give values that never change: `standing_of` an id, `filtered_at` an address, `overrides_in_force`,
    `held_removals` page by page, `history.since`. They cost what they name, not what there is.
    """

    def __init__(self, settings: RegistrySettings, budget: ElementBudget | None = None) -> None:
        self.settings = settings
        self.budget = budget or ElementBudget(lambda _: 1)
        self.guard = RemovalGuard()
        self.endpoints = EndpointGuard()
        self.layer = OverrideLayer()
        self.merged = Merged({})
        self.is_loaded = False
        """Every source was read once. Until then nothing is in force, and nothing is given."""
        self.lost_files = False
        """As of GuardRecord, until `end_loss`."""
        self.sources = {each.name: SourceState() for each in settings.sources}
        self._readings = SourceSet(self.sources)
        self._files: tuple[OverrideFile, ...] = ()
        self._rest: Mapping[str, Registration] = {}
        self._size = 0
        self._earlier: Earlier | None = None
        self._recorded: tuple[str, ...] | None = None
        """The sources of what is in force, in order; None: not known."""
        self.history = History()
        """What changed of the registry in force in this run, by whom."""

    # -- as it is --------------------------------------------------------------------------------------------

    def unread(self) -> tuple[str, ...]:
        """Sources without a reading."""
        return self._readings.unread()

    def is_known(self) -> bool:
        """Every source has answered in this run."""
        return not self.unread() and all(each.has_answered for each in self.sources.values())

    def held(self) -> HeldRemovals | None:
        """What the guard holds."""
        return self.guard.held()

    def freshness(self, now: float) -> dict[str, Freshness]:
        """How old what is known of each source is."""
        return {name: each.freshness(self.settings, now) for name, each in self.sources.items()}

    def override_counts(self) -> OverrideCounts:
        """Local pins and filters, and their effect."""
        return self.layer.counts()

    def next_end(self) -> float:
        """When the window of something held closes; inf: never."""
        return self.guard.next_end() if self.is_loaded else inf

    def next_override_change(self) -> float | None:
        """When a pin or filter ends, in Unix seconds, and `use_overrides` is due; None: nothing ends."""
        return self.layer.overrides.next_change()

    def standing_of(self, id: str) -> Standing:
        """Where a registration is from, the pins and filters that speak of it, and what is held of it."""
        return standing_of(id, self._readings, self.layer.overrides, self.guard.held())

    def filtered_at(self, address: bytes) -> tuple[Standing, ...]:
        """Registrations whose client prefix has the address, and which a filter drops or leaves with fewer."""
        return filtered_at(address, self._readings, self.layer, self.guard.held())

    def overrides_in_force(self) -> tuple[OverrideNote, ...]:
        """Pins and filters, by file and line."""
        return notes_of(self.layer.overrides)

    def held_removals(self, offset: int = 0, limit: int = 1000) -> HeldPage:
        """Each id that the guard holds, with what took it away and when."""
        return held_page(self._readings, self.layer.overrides, self.guard.held(), offset, limit)

    def unknown_protected(self) -> tuple[str, ...]:
        """Categories that `shrink_guard.protected` adds to its default and no active registration has."""
        usual = {each.category for each in ShrinkGuardSettings().protected}
        named = [each.category for each in self.settings.shrink_guard.protected if each.category not in usual]
        return tuple(each for each in named if not self.guard.count_of(each)) if self.is_loaded else ()

    def version(self) -> Hashable:
        """Another one whenever `record` is."""
        is_known = self.is_loaded and not self.unread()
        return (
            self.guard.changes, self.endpoints.changes, is_known, tuple(self.sources), self._files, self.lost_files
        )  # fmt: skip

    def record(self) -> GuardRecord:
        """What the next run needs, beside the readings of the sources."""
        return GuardRecord(self.guard, self._recorded, self._files, self.lost_files, self.endpoints)

    def end_loss(self) -> None:
        """The kernel has nothing any more of what lost files knew."""
        self.lost_files = False

    def use_settings(self, settings: RegistrySettings, max_elements: float = inf) -> None:
        """Other limits and intervals, from now on; the sources: `use_sources`."""
        self.settings, self.budget.max_elements = settings, max_elements

    # -- events ----------------------------------------------------------------------------------------------

    def restore(self, record: GuardRecord, found: Mapping[str, Restored], now: float) -> Slices[Changes | None]:
        """Begin with what an earlier run left. `found`: the last good of each source, and of those that `record`
        names and nobody configures any more."""
        readings = {name: each.registrations for name, each in found.items() if each.position is not None}
        names = record.sources or ()
        self.guard, self.endpoints, self._recorded = record.guard, record.endpoints, record.sources
        self.lost_files = (
            record.lost_files
            or record.sources is None
            or any(name not in found or found[name].is_lost for name in names)
        )
        if record.sources is not None:
            self._earlier = Earlier(readings, names, record.overrides)
        for name, state in self.sources.items():
            if name in readings:
                try:
                    yield from self.budget.restore(name, readings[name])
                except SourceTooLarge as error:
                    state.error, self.lost_files = error.why, True
                    continue
                state.restore(found[name])
                self._readings.put(name, readings[name])
        cause = LOCAL if record.sources == tuple(self.sources) else SOURCES
        return (yield from self._load(cause, int(now), now))

    def apply(self, update: SourceUpdate, now: float) -> Slices[Changes | None]:
        """What came of asking a source; of one that is not configured, nothing. Of a delta only what it names is
        looked at: one record costs what one record costs. Raises SourceTooLarge: all stays as it was."""
        name, state = update.source, self.sources.get(update.source)
        if state is None:
            return None
        old, leads_on = self._readings.reading_of(name), False
        if update.registrations is not None:
            try:
                leads_on = yield from self.budget.admit(update, old)
            except SourceTooLarge as error:
                state.error, state.refused = error.why, state.refused + 1
                raise
        state.take(update)
        if update.registrations is None:
            return None
        if old is None or not self.is_loaded or self.unread():
            self._readings.put(name, update.registrations)
            if not self.is_loaded:
                return (yield from self._load(name, state.serial, now))
            return (yield from self._merge(name, state.serial, now))
        raw = update.changes if leads_on else None
        if raw is None:
            raw = (yield from changes_in_slices(old, update.registrations)) or NOTHING
        before: dict[str, Registration | None] = {}
        for id in _ids_of(raw):
            before[id] = self._readings.winner(id)
            if len(before) % SLICE == 0:
                yield
        self._readings.put(name, update.registrations)
        changes = yield from self._winners(before)
        self.merged = Merged(self._readings.view(self._size), self.merged.conflicts)

        def find(id: str) -> Registration | None:
            return before[id] if id in before else self.merged.registrations.get(id)

        guarded = yield from self._guard(find, changes, name, state.serial, now)
        if update.changes is None:
            # A whole reading is gone through anyway: conflicts are counted anew.
            self.merged = yield from self._readings.merge_in_slices()
        return guarded

    def use_sources(self, names: Iterable[str], now: float) -> Slices[Changes | None]:
        """Other sources, or in another order. Those that stay keep their reading until they are read anew; nothing
        is withdrawn before all that are new have been read."""
        sources = {name: self.sources.get(name, SourceState()) for name in names}
        self.budget.use(sources)
        readings = SourceSet(sources)
        for name in sources:
            known = self._readings.reading_of(name) if name in self.sources else None
            if known is not None:
                readings.put(name, known)
        self.sources, self._readings, self._rest = sources, readings, self.merged.registrations
        if not self.is_loaded:
            return (yield from self._load(SOURCES, int(now), now))
        return (yield from self._merge(SOURCES, int(now), now))

    def use_overrides(self, files: tuple[OverrideFile, ...], now: float) -> Slices[Changes | None]:
        """Other local files, or another moment of theirs."""
        before = self._registered()
        self._files = files
        changes = yield from self.layer.switch_in_slices(Overrides(files, now), self.merged.registrations)
        if not self.is_loaded:
            return None
        return (yield from self._judge(before, changes or NOTHING, LOCAL, int(now), now, looks_at_all=True))

    def releasable(self, serial: int) -> dict[str, int]:
        """How many ids are held under this serial, by cause."""
        held, endpoints = self.guard.held(), self.endpoints.held()
        found = dict(held.by_cause) if held is not None and held.serial == serial else {}
        if endpoints is not None and endpoints.serial == serial:
            found[ENDPOINTS] = len(endpoints.held)
        return found

    def accept(self, serial: int, now: float, by: str = "") -> Slices[Changes | None]:
        """Release what is held. `by`: who says so, for the history. Raises SerialNotHeld at once."""
        if ENDPOINTS in self.releasable(serial):
            return self._accept_endpoints(serial, now, by)
        return self._noted(self.guard.accept_in_slices(serial, self._registered()), ACCEPTED, serial, now, by)

    def _accept_endpoints(self, serial: int, now: float, by: str) -> Slices[Changes | None]:
        before, changes = self._registered(), self.endpoints.accept(now)
        result = yield from self._take(before, changes, ACCEPTED, serial, now, by=by)
        if not self.releasable(serial):
            return result
        more = yield from self.accept(serial, now, by)
        first, second = result or NOTHING, more or NOTHING
        return Changes((*first.upserts, *second.upserts), (*first.withdrawals, *second.withdrawals))

    def end_windows(self, now: float) -> Slices[Changes | None]:
        """Hold no longer what has a window that closed by now."""
        return self._noted(self.guard.end_in_slices(self._registered(), now), WINDOWS, int(now), now)

    # -- help ------------------------------------------------------------------------------------------------

    def _registered(self) -> Lookup:
        """Without what is held back of endpoints."""
        return self._without_held(Registered(self.layer.overrides, self.merged.registrations.get))

    def _without_held(self, lookup: Lookup) -> Lookup:
        return Instead(lookup, self.endpoints.in_force()) if self.endpoints.pending else lookup

    def _judge(
        self, before: Lookup, changes: Changes, cause: str, serial: int, now: float, *, looks_at_all: bool = False
    ) -> Slices[Changes | None]:
        """Changes of what is registered → changes of what is in force. `before`: what was registered."""
        before = self._without_held(before)
        limit, is_asked = self.settings.max_added_endpoints, self.layer.overrides.names
        taken = self.endpoints.take_in_slices(
            before, changes, serial, cause=cause, limit=limit, now=now, is_asked=is_asked
        )
        return (yield from self._take(before, (yield from taken), cause, serial, now, looks_at_all=looks_at_all))

    def _take(
        self, before: Lookup, changes: Changes, cause: str, serial: int, now: float,
        *, looks_at_all: bool = False, by: str = "",
    ) -> Slices[Changes | None]:  # fmt: skip
        """What of changes the guard of removals lets through."""
        held = set()
        for done, each in enumerate(changes.upserts if len(self.guard) else (), 1):
            held |= {each.id} if self.guard.holds(each.id) else set()
            if done % SLICE == 0:
                yield
        result = yield from self.guard.take_in_slices(
            before,
            changes,
            serial,
            cause=cause,
            settings=self.settings.shrink_guard,
            now=now,
            is_asked=self.layer.overrides.names,
            looks_at_all=looks_at_all,
        )
        if result is not None:
            self.history.note(result, lambda id: id in held or before.get(id) is not None, cause, serial, now, by)
        return result

    def _noted(
        self, slices: Slices[Changes | None], cause: str, serial: int, now: float, by: str = ""
    ) -> Slices[Changes | None]:
        """The guard alone changes something: no id comes by that."""
        result = yield from slices
        if result is not None:
            self.history.note(result, lambda _: True, cause, serial, now, by)
        return result

    def _guard(
        self, find: Callable[[str], Registration | None], changes: Changes, cause: str, serial: int, now: float
    ) -> Slices[Changes | None]:
        """Changes of the merged registry → changes of what is in force. `find`: the registry before them."""
        amended = yield from self.layer.amend_in_slices(changes)
        before = Registered(self.layer.overrides, find)
        return (yield from self._judge(before, amended or NOTHING, cause, serial, now))

    def _winners(self, before: Mapping[str, Registration | None]) -> Slices[Changes]:
        """`before`: what the sources had under the ids that may have changed."""
        upserts: list[Registration] = []
        withdrawals: list[str] = []
        for done, (id, old) in enumerate(before.items(), 1):
            new = self._readings.winner(id)
            self._size += (new is not None) - (old is not None)
            if new is None and old is not None:
                withdrawals.append(id)
            elif new is not None and new is not old and new != old:
                upserts.append(new)
            if done % SLICE == 0:
                yield
        return Changes(tuple(upserts), tuple(withdrawals))

    def _merge(self, cause: str, serial: int, now: float) -> Slices[Changes | None]:
        """All sources anew. While one has not been read, what was in force before comes last in their order."""
        readings = self._readings
        earlier = self._recorded or () if readings.unread() else ()
        if readings.unread():
            readings = SourceSet([*self.sources, _REST])
            for name in self.sources:
                known = self._readings.reading_of(name)
                if known is not None:
                    readings.put(name, known)
            readings.put(_REST, self._rest)
        else:
            self._rest = {}
        before = self.merged.registrations
        merged = yield from readings.merge_in_slices()
        changes = yield from changes_in_slices(before, merged.registrations)
        self.merged, self._size = merged, len(merged.registrations)
        self._recorded = tuple(dict.fromkeys((*self.sources, *earlier)))
        return (yield from self._guard(before.get, changes or NOTHING, cause, serial, now))

    def _load(self, cause: str, serial: int, now: float) -> Slices[Changes | None]:
        """Once every source has a reading: all that is in force, judged against what the last run left."""
        if self.unread():
            return None
        merged = yield from self._readings.merge_in_slices()
        self.merged, self._size = merged, len(merged.registrations)
        wanted = yield from self.layer.amend_all_in_slices(merged.registrations)
        if self.endpoints.pending:
            self.endpoints.begin({each.id: each for each in wanted if each.endpoints}, now)
        before, changes = self._registered(), NOTHING
        if self._earlier is None or self._earlier.is_same(self._readings, tuple(self.sources), self._files):
            yield from self.guard.count_in_slices(in_force_of(wanted, self.endpoints.in_force()))
        else:
            earlier = yield from self._earlier.in_force_in_slices(now, self.endpoints.in_force())
            yield from self.guard.count_in_slices(earlier.values())
            found = yield from changes_in_slices(earlier, {each.id: each for each in wanted})
            before, changes = earlier, found or NOTHING
        self._earlier, self._rest = None, {}
        yield from self._judge(before, changes, cause, serial, now, looks_at_all=True)
        self.is_loaded, self._recorded = True, tuple(self.sources)
        held = self.guard.in_force(self._registered())
        return Changes((*held.values(), *in_force_of(wanted, self.endpoints.in_force())), ())


def _ids_of(changes: Changes) -> dict[str, None]:
    return dict.fromkeys([*(each.id for each in changes.upserts), *changes.withdrawals])
