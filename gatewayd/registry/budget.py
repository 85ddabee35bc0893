"""How many elements of the kernel all registrations may come to: a reading that goes past that is refused whole.

A record is small where it is written and large where it is programmed: 64 clients with 64 peers are 4,096 elements.
So some thousands of records could take all memory, at each start again. Sources are counted one by one, also where
two have the same id: the sum is never too small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from math import inf

from gatewayd.errors import SourceTooLarge
from gatewayd.model import Registration
from gatewayd.model.registration import SLICE, Slices
from gatewayd.sources.update import SourceUpdate

Weigh = Callable[[Registration], int]


class ElementBudget:
    """`weigh`: the elements of a registration. `max_elements`: of all sources together; it may be set at any time
    and holds from the next reading on.
    Owned by one task."""

    def __init__(self, weigh: Weigh, max_elements: float = inf) -> None:
        self.max_elements = max_elements
        self._weigh = weigh
        self._elements: dict[str, int] = {}
        self._behind: set[str] = set()
        """Sources of which the latest reading was refused: their next changes begin from that."""

    @property
    def elements(self) -> int:
        """Of all sources."""
        return sum(self._elements.values())

    def use(self, names: Iterable[str]) -> None:
        """These are the sources now."""
        known = set(names)
        self._elements = {name: count for name, count in self._elements.items() if name in known}
        self._behind &= known

    def admit(self, update: SourceUpdate, old: Mapping[str, Registration] | None) -> Slices[bool]:
        """Whether the update's `changes` lead on from `old`, the reading in force. Raises SourceTooLarge, and then
        `old` stays. Of a delta costs what it changes."""
        name, new = update.source, update.registrations
        assert new is not None
        leads_on = update.changes is not None and old is not None and name not in self._behind
        if update.changes is not None and old is not None and leads_on:
            before = [old[id] for id in self._ids(update) if id in old]
            gone, _ = yield from self._sum(before)
            added, largest = yield from self._sum(update.changes.upserts)
            count = self._elements.get(name, 0) - gone + added
        else:
            count, largest = yield from self._sum(new.values())
        self._check(name, count, largest)
        return leads_on

    def restore(self, name: str, registrations: Mapping[str, Registration]) -> Slices[None]:
        """The last good of a source. Raises SourceTooLarge: it is of no use."""
        count, largest = yield from self._sum(registrations.values())
        self._check(name, count, largest)

    def _check(self, name: str, count: int, largest: str) -> None:
        others = self.elements - self._elements.get(name, 0)
        if others + count > self.max_elements:
            self._behind.add(name)
            beside = f", beside {others} of other sources" if others else ""
            raise SourceTooLarge(
                name,
                f"its registrations come to {count} elements{beside}, and registry.max_elements is "
                f"{self.max_elements:.0f}; the largest is {largest}",
            )
        self._elements[name] = count
        self._behind.discard(name)

    def _ids(self, update: SourceUpdate) -> Iterable[str]:
        assert update.changes is not None
        return (*(each.id for each in update.changes.upserts), *update.changes.withdrawals)

    def _sum(self, registrations: Iterable[Registration]) -> Slices[tuple[int, str]]:
        """All elements, and the largest registration in words."""
        total, most, largest = 0, 0, "none"
        each = iter(registrations)
        while part := list(islice(each, SLICE)):
            counts = list(map(self._weigh, part))
            total += sum(counts)
            if max(counts) > most:
                most = max(counts)
                largest = part[counts.index(most)].id
            if len(part) == SLICE:
                yield
        return total, f"{largest} with {most}"
