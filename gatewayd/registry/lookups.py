"""What is registered under an id: now, with pins and filters over the sources; and what was in an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from gatewayd.model import Registration
from gatewayd.model.registration import Slices
from gatewayd.registry.layers import OverrideLayer, Overrides, SourceSet
from gatewayd.sources.override_file import OverrideFile


class Lookup(Protocol):
    """What is registered under an id; a mapping is one."""

    def get(self, id: str, /) -> Registration | None: ...


class Registered:
    """What the sources have, with pins and filters over it. The window of a pin ends with the pin."""

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


class Instead:
    """A look-up with others in the place of some ids."""

    __slots__ = ("_lookup", "_others")

    def __init__(self, lookup: Lookup, others: Mapping[str, Registration | None]) -> None:
        self._lookup = lookup
        self._others = others

    def get(self, id: str, /) -> Registration | None:
        return self._others[id] if id in self._others else self._lookup.get(id)


@dataclass(frozen=True, slots=True)
class Earlier:
    """Of what the registry in force was made in an earlier run, as far as it could be loaded."""

    readings: Mapping[str, Mapping[str, Registration]]
    sources: tuple[str, ...]
    files: tuple[OverrideFile, ...]

    def is_same(self, readings: SourceSet, sources: tuple[str, ...], files: tuple[OverrideFile, ...]) -> bool:
        """Whether nothing of it is another now."""
        return (self.sources, self.files) == (sources, files) and all(
            self.readings.get(name) is readings.reading_of(name) for name in sources
        )

    def in_force_in_slices(
        self, now: float, instead: Mapping[str, Registration | None]
    ) -> Slices[dict[str, Registration]]:
        """All that was registered then, with others in the place of some."""
        readings = SourceSet(self.sources)
        for name in self.sources:
            readings.put(name, self.readings.get(name, {}))
        merged = yield from readings.merge_in_slices()
        layer = OverrideLayer()
        yield from layer.switch_in_slices(Overrides(self.files, now), {})
        registered = yield from layer.amend_all_in_slices(merged.registrations)
        return {each.id: each for each in in_force_of(registered, instead)}


def in_force_of(registered: list[Registration], instead: Mapping[str, Registration | None]) -> list[Registration]:
    """With others in the place of some; None: nothing."""
    if not instead:
        return registered
    others = (each for each in instead.values() if each is not None)
    return [*(each for each in registered if each.id not in instead), *others]
