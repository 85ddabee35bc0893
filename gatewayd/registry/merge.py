"""Several sources → one registry, and what changed in it.

Sources merge in the order of the configuration; where two have the same id, the earlier one wins. Nothing is
stored twice: the merged registry is a view over the readings of the sources, and with one source in use it is
that reading itself. What takes long at a million comes as a generator of slices too; each slice is a few
milliseconds, and the generator's return value is the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gatewayd.model import Registration
from gatewayd.model.registration import SLICE, Slices


@dataclass(frozen=True, slots=True)
class Merged:
    """`conflicts`: per source, how many of its registrations an earlier source overrides with other content.

    `registrations` stays as it is when a source is read anew: readings are replaced, never changed.
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
                if count % SLICE == 0:
                    yield
            size += len(reading) - shadowed
        return Merged(_MergedView(tuple(reading for _, reading in named), size), conflicts)
