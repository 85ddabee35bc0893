"""The registry in force as one state: sources in order, pins and filters over them, and what is held.

Whatever happens — a reading, a delta, other sources, other local files, an operator's word, a window that closes,
a start — is one call that gives what is to change of what is in force, judged by one guard. The caller applies it;
calls are made one after the other, and each generator of slices is run to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

import msgspec

from gatewayd.model import Registration
from gatewayd.model.changes import Changes, Slices, changes_in_slices
from gatewayd.registry.guard import SLICE, Guarded, HeldRemovals, Lookup, RemovalGuard
from gatewayd.registry.guard_record import GuardRecord
from gatewayd.registry.merge import Merged, SourceSet
from gatewayd.registry.overrides import OverrideLayer, Overrides
from gatewayd.settings.model import ShrinkGuardSettings
from gatewayd.sources.override_file import OverrideFile

SOURCES: Final = "config/sources"
LOCAL: Final = "config/local"
KERNEL: Final = "kernel/elements"
"""What takes registrations away and is no source: no source has a `/` in its name."""

NOTHING: Final = Changes((), ())
_REST: Final = ""
"""Stands for a source: what was in force when a reload brought sources that have not been read yet."""


class _Registered:
    """What is registered under an id: what the sources have, with pins and filters over it. The window of a pin
    ends with the pin."""

    __slots__ = ("_find", "_overrides")

    def __init__(self, overrides: Overrides, find: Callable[[str], Registration | None]) -> None:
        self._overrides = overrides
        self._find = find

    def get(self, id: str, /) -> Registration | None:
        found = self._overrides.in_force(id, self._find(id))
        pin = self._overrides.pins.get(id)
        if found is not None and pin is not None and pin.until_s < found.valid_until_s:
            return msgspec.structs.replace(found, valid_until_s=pin.until_s)
        return found


@dataclass(frozen=True, slots=True)
class _Earlier:
    """Of what the registry in force was made in an earlier run, as far as it could be loaded."""

    readings: Mapping[str, Mapping[str, Registration]]
    sources: tuple[str, ...]
    files: tuple[OverrideFile, ...]

    def is_same(self, readings: SourceSet, sources: tuple[str, ...], files: tuple[OverrideFile, ...]) -> bool:
        """Whether nothing of it is another now."""
        return (self.sources, self.files) == (sources, files) and all(
            self.readings.get(name) is readings.reading_of(name) for name in sources
        )

    def registered_in_slices(self, now: float) -> Slices[dict[str, Registration]]:
        """All that was registered then."""
        readings = SourceSet(self.sources)
        for name in self.sources:
            readings.put(name, self.readings.get(name, {}))
        merged = yield from readings.merge_in_slices()
        layer = OverrideLayer()
        yield from layer.switch_in_slices(Overrides(self.files, now), {})
        return {each.id: each for each in (yield from _amended_in_slices(layer, merged.registrations))}


class InForce:
    """Owned by one task. `merged`: the sources alone, without pins, filters and what is held."""

    def __init__(self, sources: Iterable[str]) -> None:
        self.guard = RemovalGuard()
        self.layer = OverrideLayer()
        self.merged = Merged({})
        self.is_loaded = False
        """Every source was read once. Until then nothing is in force, and nothing is given."""
        self.lost_files = False
        """As of GuardRecord, until `end_loss`."""
        self._sources = tuple(sources)
        self._readings = SourceSet(self._sources)
        self._files: tuple[OverrideFile, ...] = ()
        self._rest: Mapping[str, Registration] = {}
        self._size = 0
        self._earlier: _Earlier | None = None
        self._recorded: tuple[str, ...] | None = None

    def unread(self) -> tuple[str, ...]:
        """Sources without a reading."""
        return self._readings.unread()

    def held(self) -> HeldRemovals | None:
        """What the guard holds."""
        return self.guard.held()

    def version(self) -> Hashable:
        """Another one whenever `record` is."""
        is_known = self.is_loaded and not self.unread()
        return self.guard.changes, is_known, self._sources, self._files, self.lost_files

    def record(self) -> GuardRecord:
        """What the next run needs, beside the readings of the sources."""
        if self.is_loaded:
            # While one has not been read, what was in force before comes last in their order.
            before = self._recorded or () if self.unread() else ()
            self._recorded = tuple(dict.fromkeys((*self._sources, *before)))
        return GuardRecord(self.guard, self._recorded, self._files, self.lost_files)

    def end_loss(self) -> None:
        """The kernel has nothing any more of what lost files knew."""
        self.lost_files = False

    # -- events ----------------------------------------------------------------------------------------------

    def restore_in_slices(
        self,
        record: GuardRecord,
        readings: Mapping[str, Mapping[str, Registration]],
        *,
        settings: ShrinkGuardSettings,
        now: float,
    ) -> Slices[Guarded | None]:
        """Begin with what an earlier run left. `readings`: the last good of each source that has one, and of those
        that `record` names and nobody configures any more."""
        self.guard, self._recorded, self.lost_files = record.guard, record.sources, record.lost_files
        if record.sources is not None:
            self._earlier = _Earlier(readings, record.sources, record.overrides)
        for name in self._sources:
            if name in readings:
                self._readings.put(name, readings[name])
        cause = LOCAL if record.sources == self._sources else SOURCES
        return (yield from self._load_in_slices(cause, int(now), settings, now))

    def take_in_slices(
        self,
        name: str,
        registrations: Mapping[str, Registration],
        delta: Changes | None,
        serial: int,
        *,
        settings: ShrinkGuardSettings,
        now: float,
    ) -> Slices[Guarded | None]:
        """A source was read; `delta` leads to it from its last reading, None: not known. Only what it names is
        looked at: one record costs what one record costs."""
        old = self._readings.reading_of(name)
        if old is None or not self.is_loaded or self.unread():
            self._readings.put(name, registrations)
            if not self.is_loaded:
                return (yield from self._load_in_slices(name, serial, settings, now))
            return (yield from self._merge_in_slices(name, serial, settings, now))
        raw = delta
        if raw is None:
            raw = (yield from changes_in_slices(old, registrations)) or NOTHING
        before: dict[str, Registration | None] = {}
        for id in _ids_of(raw):
            before[id] = self._readings.winner(id)
            if len(before) % SLICE == 0:
                yield
        self._readings.put(name, registrations)
        changes = yield from self._winners_in_slices(before)
        self.merged = Merged(self._readings.view(self._size), self.merged.conflicts)

        def find(id: str) -> Registration | None:
            return before[id] if id in before else self.merged.registrations.get(id)

        guarded = yield from self._guard_in_slices(find, changes, name, serial, settings, now)
        if delta is None:
            # A whole reading is gone through anyway: conflicts are counted anew.
            self.merged = yield from self._readings.merge_in_slices()
        return guarded

    def use_sources_in_slices(
        self, sources: Iterable[str], *, settings: ShrinkGuardSettings, now: float
    ) -> Slices[Guarded | None]:
        """Other sources, or in another order. Those that stay keep their reading until they are read anew; nothing
        is withdrawn before all that are new have been read."""
        sources = tuple(sources)
        readings = SourceSet(sources)
        for name in sources:
            known = self._readings.reading_of(name) if name in self._sources else None
            if known is not None:
                readings.put(name, known)
        self._sources, self._readings, self._rest = sources, readings, self.merged.registrations
        if not self.is_loaded:
            return (yield from self._load_in_slices(SOURCES, int(now), settings, now))
        return (yield from self._merge_in_slices(SOURCES, int(now), settings, now))

    def use_overrides_in_slices(
        self, files: tuple[OverrideFile, ...], *, settings: ShrinkGuardSettings, now: float
    ) -> Slices[Guarded | None]:
        """Other local files, or another moment of theirs."""
        before = self.layer.overrides
        self._files = files
        changes = yield from self.layer.switch_in_slices(Overrides(files, now), self.merged.registrations)
        if not self.is_loaded:
            return None
        return (
            yield from self.guard.take_in_slices(
                _Registered(before, self.merged.registrations.get),
                changes or NOTHING,
                int(now),
                cause=LOCAL,
                settings=settings,
                now=now,
                is_asked=self.layer.overrides.names,
                looks_at_all=True,
            )
        )

    def accept_in_slices(self, serial: int) -> Slices[Changes | None]:
        """Release what is held. Raises SerialNotHeld at once."""
        return self.guard.accept_in_slices(serial, self._registered())

    def end_in_slices(self, now: float) -> Slices[Changes | None]:
        """Hold no longer what has a window that closed by now."""
        return self.guard.end_in_slices(self._registered(), now)

    # -- help ------------------------------------------------------------------------------------------------

    def _registered(self) -> Lookup:
        return _Registered(self.layer.overrides, self.merged.registrations.get)

    def _guard_in_slices(
        self,
        find: Callable[[str], Registration | None],
        changes: Changes,
        cause: str,
        serial: int,
        settings: ShrinkGuardSettings,
        now: float,
    ) -> Slices[Guarded]:
        """Changes of the merged registry → changes of what is in force. `find`: the registry before them."""
        amended = yield from self.layer.amend_in_slices(changes)
        overrides = self.layer.overrides
        return (
            yield from self.guard.take_in_slices(
                _Registered(overrides, find),
                amended or NOTHING,
                serial,
                cause=cause,
                settings=settings,
                now=now,
                is_asked=overrides.names,
            )
        )

    def _winners_in_slices(self, before: Mapping[str, Registration | None]) -> Slices[Changes]:
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

    def _merge_in_slices(
        self, cause: str, serial: int, settings: ShrinkGuardSettings, now: float
    ) -> Slices[Guarded]:
        """All sources anew. While one has not been read, what was in force before comes last in their order."""
        readings = self._readings
        if readings.unread():
            readings = SourceSet([*self._sources, _REST])
            for name in self._sources:
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
        return (yield from self._guard_in_slices(before.get, changes or NOTHING, cause, serial, settings, now))

    def _load_in_slices(
        self, cause: str, serial: int, settings: ShrinkGuardSettings, now: float
    ) -> Slices[Guarded | None]:
        """Once every source has a reading: all that is in force, judged against what the last run left."""
        if self.unread():
            return None
        merged = yield from self._readings.merge_in_slices()
        self.merged, self._size = merged, len(merged.registrations)
        wanted = yield from _amended_in_slices(self.layer, merged.registrations)
        before, changes = self._registered(), NOTHING
        if self._earlier is None or self._earlier.is_same(self._readings, self._sources, self._files):
            yield from self.guard.count_in_slices(wanted)
        else:
            earlier = yield from self._earlier.registered_in_slices(now)
            yield from self.guard.count_in_slices(earlier.values())
            found = yield from changes_in_slices(earlier, {each.id: each for each in wanted})
            before, changes = earlier, found or NOTHING
        self._earlier, self._rest = None, {}
        guarded = yield from self.guard.take_in_slices(
            before,
            changes,
            serial,
            cause=cause,
            settings=settings,
            now=now,
            is_asked=self.layer.overrides.names,
            looks_at_all=True,
        )
        self.is_loaded = True
        held = self.guard.in_force(self._registered())
        return Guarded(Changes((*held.values(), *wanted), ()), guarded.decision)

    def next_end(self) -> float:
        """When the window of something held closes; inf: never."""
        return self.guard.next_end() if self.is_loaded else inf


def _ids_of(changes: Changes) -> dict[str, None]:
    return dict.fromkeys([*(each.id for each in changes.upserts), *changes.withdrawals])


def _amended_in_slices(layer: OverrideLayer, merged: Mapping[str, Registration]) -> Slices[list[Registration]]:
    """All of a registry, with pins and filters over it."""
    amended = yield from layer.amend_in_slices(Changes(tuple(merged.values()), ()))
    overrides = layer.overrides
    pins = [overrides.in_force(id, None) for id in overrides.pins if id not in merged]
    return [*(amended.upserts if amended is not None else ()), *(pin for pin in pins if pin is not None)]
