"""The layers of the registry: sources in order, and the operator's pins and filters over them.

Sources merge in the order of the configuration; where two have the same id, the earlier one wins. Nothing is
stored twice: the merged registry is a view over the readings of the sources, and with one source in use it is
that reading itself.

Over it lie local overrides, filters first and then pins (in the manner of RFC 8416).

- A filter by id drops the registration of that id. A filter by prefix drops every client prefix and endpoint that
  lies in it, the same length included; one that is wider than the filter stays. A registration that loses its last
  one this way is dropped, unless it has a subscriber: its addresses are bindings.
- A pin stands in the place of its id, whatever the registry and the filters say.
- Of two pins of one id the one in the earlier file counts, while it lasts.

`Overrides` is what the files say at a moment, and costs a few look-ups a registration. `OverrideLayer` is
where changes of the registry, and of the overrides, become changes of what is in force. What takes long at a
million is a generator of slices of a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from typing import Annotated, Final

import msgspec

from gatewayd.model import Prefix, Registration
from gatewayd.model.metric import gauge
from gatewayd.model.prefix import mask_address
from gatewayd.model.registration import SLICE as MERGE_SLICE
from gatewayd.model.registration import Changes, Slices, with_endpoints
from gatewayd.sources.override_file import Filter, OverrideFile, Pin


@dataclass(frozen=True, slots=True)
class Merged:
    """`conflicts`: per source, how many of its registrations an earlier source overrides with other content.

    `registrations` stays as it is when a source is read again: readings are replaced, never changed.
    """

    registrations: Mapping[str, Registration]
    conflicts: Mapping[str, int] = field(default_factory=dict)


class _MergedView(Mapping[str, Registration]):
    """The readings of two or more sources as one mapping, the earlier ones first."""

    __slots__ = ("_readings", "_size")

    def __init__(self, readings: Sequence[Mapping[str, Registration]], size: int) -> None:
        self._readings = readings
        self._size = size

    def __getitem__(self, id: str) -> Registration:
        for reading in self._readings:
            registration = reading.get(id)
            if registration is not None:
                return registration
        raise KeyError(id)

    def __iter__(self) -> Iterator[str]:
        for index, reading in enumerate(self._readings):
            earlier = self._readings[:index]
            for id in reading:
                if not any(id in other for other in earlier):
                    yield id

    def __len__(self) -> int:
        return self._size


class SourceSet:
    """The latest reading of each configured source, in merge order. Owned by one task.

    A mapping given to `put` belongs to this set from then on and must not change.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._readings: dict[str, Mapping[str, Registration] | None] = dict.fromkeys(names)

    def put(self, name: str, registrations: Mapping[str, Registration]) -> None:
        """The new reading of a source, which replaces its last one. KeyError for a source not configured."""
        if name not in self._readings:
            raise KeyError(name)
        self._readings[name] = registrations

    def reading_of(self, name: str) -> Mapping[str, Registration] | None:
        """The reading in force of a source; None = never read."""
        return self._readings[name]

    def unread(self) -> tuple[str, ...]:
        """Sources that have not been read yet: until there is none, the registry is not complete."""
        return tuple(name for name, reading in self._readings.items() if reading is None)

    def winner(self, id: str) -> Registration | None:
        """The registration in force under an id: that of the earliest source that has one."""
        for reading in self._readings.values():
            registration = reading.get(id) if reading else None
            if registration is not None:
                return registration
        return None

    def having(self, id: str) -> tuple[str, ...]:
        """The sources that have an id, in order."""
        return tuple(name for name, reading in self._readings.items() if reading and id in reading)

    def view(self, size: int) -> Mapping[str, Registration]:
        """The registry of all readings in force, whose size the caller knows; conflicts are not counted."""
        named = [reading for reading in self._readings.values() if reading]
        return named[0] if len(named) == 1 else _MergedView(tuple(named), size)

    def merge_in_slices(self) -> Slices[Merged]:
        """The registry of all readings in force, yielding now and then. A `put` meanwhile does not show in it."""
        named = [(name, reading) for name, reading in self._readings.items() if reading]
        if len(named) < 2:
            return Merged(named[0][1] if named else {})
        conflicts: dict[str, int] = {}
        size = len(named[0][1])
        for index in range(1, len(named)):
            name, reading = named[index]
            earlier = [other for _, other in named[:index]]
            shadowed = 0
            for count, (id, registration) in enumerate(reading.items(), 1):
                winner = next((other[id] for other in earlier if id in other), None)
                if winner is not None:
                    shadowed += 1
                    if winner != registration:
                        conflicts[name] = conflicts.get(name, 0) + 1
                if count % MERGE_SLICE == 0:
                    yield
            size += len(reading) - shadowed
        return Merged(_MergedView(tuple(reading for _, reading in named), size), conflicts)


# -- pins and filters --------------------------------------------------------------------------------------

SLICE: Final = 1024
"""Registrations looked at between two yields: some 5 ms."""


class PrefixSet:
    """Prefixes, asked whether another lies in one of them: one look-up for each length in use."""

    __slots__ = ("_by_length", "_lengths")

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._by_length: dict[tuple[int, int], set[bytes]] = {}
        for prefix in prefixes:
            self._by_length.setdefault((len(prefix.packed), prefix.length), set()).add(prefix.packed)
        self._lengths: dict[int, list[int]] = {}
        for width, length in sorted(self._by_length):
            self._lengths.setdefault(width, []).append(length)

    def __bool__(self) -> bool:
        return bool(self._lengths)

    def cover_of(self, prefix: Prefix) -> Prefix | None:
        """The shortest of them that `prefix` lies in."""
        width = len(prefix.packed)
        for length in self._lengths.get(width, ()):
            if length > prefix.length:
                return None
            packed = mask_address(prefix.packed, length)
            if packed in self._by_length[width, length]:
                return Prefix(packed, length)
        return None


class Overrides:
    """What files, in the order of their names, say at `now`. A value: it never changes.

    `shadowed`: pins that an earlier file has too. `next_change_s`: when the next end comes; inf: none.
    """

    __slots__ = ("_filtered", "expired", "id_filters", "next_change_s", "pins", "prefix_filters", "shadowed")

    def __init__(self, files: Sequence[OverrideFile] = (), now: float = -inf) -> None:
        self.pins: dict[str, Pin] = {}
        self.id_filters: dict[str, Filter] = {}
        self.prefix_filters: dict[Prefix, Filter] = {}
        self.expired = self.shadowed = 0
        self.next_change_s = inf
        for file in files:
            for pin in file.pins:
                if self._holds(pin, now):
                    self.shadowed += self.pins.setdefault(pin.id, pin) is not pin
            for each in file.filters:
                if self._holds(each, now):
                    if each.id is not None:
                        self.id_filters.setdefault(each.id, each)
                    else:
                        assert each.prefix is not None
                        self.prefix_filters.setdefault(each.prefix, each)
        self._filtered = PrefixSet(self.prefix_filters)

    def _holds(self, override: Pin | Filter, now: float) -> bool:
        if override.until_s <= now:
            self.expired += 1
            return False
        self.next_change_s = min(self.next_change_s, override.until_s)
        return True

    def __bool__(self) -> bool:
        """Whether there is any override."""
        return bool(self.pins or self.id_filters or self.prefix_filters)

    def next_change(self) -> float | None:
        """When this must be made anew, in Unix seconds; None if nothing ends."""
        return None if self.next_change_s == inf else self.next_change_s

    def apply_to(self, registration: Registration) -> Registration | None:
        """What is in force of the id of a registration of the registry; None: nothing."""
        pin = self.pins.get(registration.id)
        if pin is not None:
            return pin.registration
        if registration.id in self.id_filters:
            return None
        if not self._filtered:
            return registration
        clients = registration.clients
        left = tuple(prefix for prefix in clients if self._filtered.cover_of(prefix) is None)
        if registration.endpoints:
            return self._with_endpoints(registration)
        if len(left) == len(clients):
            return registration
        if not left and registration.subscriber is None:
            return None
        return msgspec.structs.replace(registration, clients=left)

    def _with_endpoints(self, registration: Registration) -> Registration | None:
        left = tuple(each for each in registration.endpoints if self._filtered.cover_of(each) is None)
        if len(left) == len(registration.endpoints):
            return registration
        return with_endpoints(registration, left) if left else None

    def in_force(self, id: str, registration: Registration | None) -> Registration | None:
        """`apply_to`, also for an id that the registry does not have (None)."""
        if registration is not None:
            return self.apply_to(registration)
        pin = self.pins.get(id)
        return None if pin is None else pin.registration

    def names(self, id: str) -> bool:
        """Whether an operator speaks of this id by name: his word, whatever it takes away."""
        return id in self.id_filters or id in self.pins

    def filters_of(self, registration: Registration) -> tuple[Filter, ...]:
        """The filters that speak of a registration, pinned or not: for explanations."""
        found = [self.id_filters[registration.id]] if registration.id in self.id_filters else []
        covers = [self._filtered.cover_of(prefix) for prefix in registration.clients or registration.endpoints]
        return (*found, *(self.prefix_filters[cover] for cover in dict.fromkeys(covers) if cover is not None))


NO_OVERRIDES = Overrides()


def _affected_by_id(old: Overrides, new: Overrides) -> set[str]:
    ids = old.id_filters.keys() ^ new.id_filters.keys()
    for id in old.pins.keys() | new.pins.keys():
        before, after = old.pins.get(id), new.pins.get(id)
        if before is None or after is None or before.registration != after.registration:
            ids.add(id)
    return ids


def ids_within_in_slices(
    registrations: Mapping[str, Registration], prefixes: Collection[Prefix]
) -> Slices[dict[str, None]]:
    """Ids of the registrations with a client prefix or an endpoint in one of `prefixes`, in their order, yielding
    now and then."""
    within = PrefixSet(prefixes)
    ids: dict[str, None] = {}
    for done, (id, registration) in enumerate(registrations.items() if within else (), 1):
        if any(within.cover_of(each) is not None for each in registration.clients or registration.endpoints):
            ids[id] = None
        if done % SLICE == 0:
            yield
    return ids


_OVERRIDES: Final = gauge(
    "overrides",
    "Local overrides in force, and their effect.",
    "`expired > 0` for a week: tidy up; `conflicts` or `filtered` rises without a change of yours",
    label="kind",
)


@dataclass(frozen=True, slots=True)
class OverrideCounts:
    """For status and metrics. `trimmed`: registrations left with fewer clients; `shadowed`: pins that an earlier
    file has too. `faults`: one line for each problem of a file; its former content stays in force."""

    pins: Annotated[int, _OVERRIDES.of(meaning="Pins in force.")] = 0
    filters: Annotated[int, _OVERRIDES.of(meaning="Filters in force.")] = 0
    filtered: Annotated[int, _OVERRIDES.of(meaning="Registrations dropped by filters.")] = 0
    trimmed: int = 0
    conflicts: Annotated[int,
        _OVERRIDES.of(meaning="Pins over a filter, or over a registration with other content.")] = 0  # fmt: skip
    shadowed: int = 0
    expired: Annotated[int, _OVERRIDES.of(meaning="Overrides past their end date.")] = 0
    faults: Annotated[tuple[str, ...], gauge("override_faults",
        "Problems in files of overrides. The former content of those files is in force.", "`> 0` for 5 min",
        read=len)] = ()  # fmt: skip


class OverrideLayer:
    """Between the merged registry and the allowlist; owned by one task."""

    def __init__(self) -> None:
        self.overrides = NO_OVERRIDES
        self.filtered: set[str] = set()
        self._trimmed: set[str] = set()
        self._conflicts: set[str] = set()

    def amend_in_slices(self, changes: Changes) -> Slices[Changes | None]:
        """Changes of the merged registry → changes of what is in force; None if none of them shows."""
        if not self.overrides:
            return changes
        upserts: list[Registration] = []
        withdrawals: list[str] = []
        for done, registration in enumerate(changes.upserts, 1):
            after = self._note(registration.id, registration)
            if after is None:
                withdrawals.append(registration.id)
            else:
                upserts.append(after)
            if done % SLICE == 0:
                yield
        for done, id in enumerate(changes.withdrawals, 1):
            if self._note(id, None) is None:
                withdrawals.append(id)
            if done % SLICE == 0:
                yield
        return Changes(tuple(upserts), tuple(withdrawals)) if upserts or withdrawals else None

    def amend_all_in_slices(self, merged: Mapping[str, Registration]) -> Slices[list[Registration]]:
        """All of a registry, with pins and filters over it."""
        amended = yield from self.amend_in_slices(Changes(tuple(merged.values()), ()))
        pins = [self.overrides.in_force(id, None) for id in self.overrides.pins if id not in merged]
        return [*(amended.upserts if amended is not None else ()), *(pin for pin in pins if pin is not None)]

    def switch_in_slices(self, new: Overrides, registry: Mapping[str, Registration]) -> Slices[Changes | None]:
        """Use `new` from now on. `registry`: as merged, before overrides; all of it is looked at where a filter by
        prefix came or went."""
        old, self.overrides = self.overrides, new
        # Perhaps a million: their order is that of the registry, and to sort them would be one turn of a second.
        ids = dict.fromkeys(sorted(_affected_by_id(old, new)))
        changed = old.prefix_filters.keys() ^ new.prefix_filters.keys()
        ids |= yield from ids_within_in_slices(registry, changed)
        upserts: list[Registration] = []
        withdrawals: list[str] = []
        for done, id in enumerate(ids, 1):
            registration = registry.get(id)
            before, after = old.in_force(id, registration), self._note(id, registration)
            if after is None and before is not None:
                withdrawals.append(id)
            elif after is not None and after != before:
                upserts.append(after)
            if done % SLICE == 0:
                yield
        return Changes(tuple(upserts), tuple(withdrawals)) if upserts or withdrawals else None

    def touched_by_filters(self) -> Iterator[str]:
        """Ids of registrations that filters drop or leave with fewer clients."""
        return chain(self.filtered, self._trimmed)

    def counts(self) -> OverrideCounts:
        overrides = self.overrides
        return OverrideCounts(
            pins=len(overrides.pins),
            filters=len(overrides.id_filters) + len(overrides.prefix_filters),
            filtered=len(self.filtered),
            trimmed=len(self._trimmed),
            conflicts=len(self._conflicts),
            shadowed=overrides.shadowed,
            expired=overrides.expired,
        )

    def _note(self, id: str, registration: Registration | None) -> Registration | None:
        """What is in force of an id, counted."""
        after = self.overrides.in_force(id, registration)
        is_pinned = id in self.overrides.pins
        is_changed = registration is not None and after is not registration and after != registration
        is_over_filter = is_pinned and after is not None and bool(self.overrides.filters_of(after))
        _set(self.filtered, id, registration is not None and after is None)
        _set(self._trimmed, id, is_changed and after is not None and not is_pinned)
        _set(self._conflicts, id, (is_pinned and is_changed) or is_over_filter)
        return after


def _set(ids: set[str], id: str, is_in: bool) -> None:
    if is_in:
        ids.add(id)
    else:
        ids.discard(id)
