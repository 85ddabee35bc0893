"""What changes of the registry would come to in elements, without making any of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from gatewayd.compile.desired import DesiredSets, Element, elements_of
from gatewayd.model.mask import Mask
from gatewayd.model.registration import BoundRegistration, Registration

Wanted = Registration | BoundRegistration


@dataclass(frozen=True, slots=True)
class ElementChanges:
    """Elements that would come and go, by mask. `new_masks`: not in use yet. `unprogrammed`: ids of registrations
    that would be past a bound, with the reason."""

    added: Counter[Mask] = field(default_factory=Counter)
    removed: Counter[Mask] = field(default_factory=Counter)
    new_masks: tuple[Mask, ...] = ()
    unprogrammed: dict[str, str] = field(default_factory=dict)


class ElementSum:
    """Takes changes one by one. What removes and adds the same comes to nothing."""

    def __init__(self, desired: DesiredSets) -> None:
        self._desired = desired
        self._differences: dict[Element, int] = {}
        self._new: set[Mask] = set()
        self._unprogrammed: dict[str, str] = {}

    def add(self, wanted: Iterable[Wanted]) -> None:
        for each in wanted:
            reason = self._desired.refusal_of(each, self._new)
            if reason is not None:
                id = each.registration.id if isinstance(each, BoundRegistration) else each.id
                self._unprogrammed[id] = reason
                continue
            for element in elements_of(each):
                self._count(element, 1)
                if element[0] not in self._desired:
                    self._new.add(element[0])

    def remove(self, wanted: Iterable[Wanted]) -> None:
        for each in wanted:
            if not self._desired.is_unprogrammed(each):
                for element in elements_of(each):
                    self._count(element, -1)

    def _count(self, element: Element, difference: int) -> None:
        self._differences[element] = self._differences.get(element, 0) + difference

    def result(self) -> ElementChanges:
        found = ElementChanges(new_masks=tuple(sorted(self._new)), unprogrammed=self._unprogrammed)
        for (mask, key), difference in self._differences.items():
            before = self._desired.count_wanting(mask, key)
            if not before and difference > 0:
                found.added[mask] += 1
            elif before and before + difference <= 0:
                found.removed[mask] += 1
        return found
