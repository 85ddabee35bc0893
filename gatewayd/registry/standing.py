"""How an id stands, for people: its source, the pins and filters that speak of it, and what the guard holds of it.

All of it are values: nothing of them changes when the registry does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from gatewayd.model import Registration
from gatewayd.registry.ends import Versions
from gatewayd.registry.guard import HeldRemovals
from gatewayd.registry.layers import OverrideLayer, Overrides, SourceSet
from gatewayd.sources.override_file import Filter, Pin

MAX_FILTERED_LOOKED_AT: Final = 20_000
"""Registrations that filters touch, of which one question looks at so many: some 20 ms."""


@dataclass(frozen=True, slots=True)
class OverrideNote:
    """A pin or a filter in force. `subject`: its id or prefix. `file`: its name, without directory; `line` from 1.
    `until_s`: Unix seconds, inf: for ever."""

    kind: Literal["pin", "filter"]
    subject: str
    file: str
    line: int
    comment: str
    until_s: float


@dataclass(frozen=True, slots=True)
class HeldRemoval:
    """`versions`: kept in force, oldest first. `registered`: what is registered now under the id, None: nothing.
    `cause`: what took it away: the name of a source, or another word; `since_s`: when, in Unix seconds."""

    id: str
    versions: Versions
    registered: Registration | None
    cause: str
    since_s: float


@dataclass(frozen=True, slots=True)
class HeldPage:
    """`serial`: accepts all of them. `total`: how many there are, of which `items` begins at `offset`."""

    serial: int
    total: int
    offset: int
    items: tuple[HeldRemoval, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """`source`: the one that counts, `in_source` as it says; None: no source has the id. `also_in`: later sources
    that have it too. `filters` also where a pin stands over them. `registered`: with pins and filters over it;
    `held` is in force beside it."""

    id: str
    source: str | None
    in_source: Registration | None
    also_in: tuple[str, ...]
    pin: OverrideNote | None
    filters: tuple[OverrideNote, ...]
    registered: Registration | None
    held: HeldRemoval | None

    @property
    def is_known(self) -> bool:
        """Whether there is anything of the id."""
        return self.source is not None or self.pin is not None or bool(self.filters) or self.held is not None


def standing_of(id: str, readings: SourceSet, overrides: Overrides, held: HeldRemovals | None) -> Standing:
    """Costs a few look-ups for each source and prefix."""
    having = readings.having(id)
    in_source = readings.winner(id)
    pin = overrides.pins.get(id)
    filters = overrides.filters_of(in_source) if in_source is not None else ()
    if in_source is None and id in overrides.id_filters:
        filters = (overrides.id_filters[id],)
    registered = overrides.in_force(id, in_source)
    return Standing(
        id,
        having[0] if having else None,
        in_source,
        having[1:],
        None if pin is None else note_of(pin),
        tuple(map(note_of, filters)),
        registered,
        _held_of(id, registered, held),
    )


def note_of(override: Pin | Filter) -> OverrideNote:
    """For people."""
    if isinstance(override, Pin):
        return OverrideNote("pin", override.id, override.file, override.line, override.comment, override.until_s)
    subject = override.id or str(override.prefix)
    return OverrideNote("filter", subject, override.file, override.line, override.comment, override.until_s)


def notes_of(overrides: Overrides) -> tuple[OverrideNote, ...]:
    """All in force, by file and line."""
    all_of_them: list[Pin | Filter] = [
        *overrides.pins.values(),
        *overrides.id_filters.values(),
        *overrides.prefix_filters.values(),
    ]
    return tuple(sorted(map(note_of, all_of_them), key=lambda note: (note.file, note.line)))


def filtered_at(
    address: bytes, readings: SourceSet, layer: OverrideLayer, held: HeldRemovals | None
) -> tuple[Standing, ...]:
    """What would register an address if no filter touched it; the first of them, within a bound of work."""
    return tuple(
        standing_of(registration.id, readings, layer.overrides, held)
        for registration in _touched(layer.touched_by_filters(), readings)
        if any(prefix.covers(address) for prefix in registration.clients)
    )


def held_page(
    readings: SourceSet, overrides: Overrides, held: HeldRemovals | None, offset: int, limit: int
) -> HeldPage:
    """In the order in which the guard came to hold them."""
    if held is None:
        return HeldPage(0, 0, offset, ())
    found = []
    for id in islice(held.versions, offset, offset + limit):
        each = _held_of(id, overrides.in_force(id, readings.winner(id)), held)
        found += [] if each is None else [each]
    return HeldPage(held.serial, len(held.versions), offset, tuple(found))


def _touched(ids: Iterable[str], readings: SourceSet) -> Iterator[Registration]:
    for id in islice(ids, MAX_FILTERED_LOOKED_AT):
        registration = readings.winner(id)
        if registration is not None:
            yield registration


def _held_of(id: str, registered: Registration | None, held: HeldRemovals | None) -> HeldRemoval | None:
    versions = () if held is None else held.versions.get(id, ())
    if held is None or not versions:
        return None
    taken = held.taken[id]
    return HeldRemoval(id, versions, registered, taken.cause, taken.since_s)
