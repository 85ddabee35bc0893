"""The desired content of every set: kept up to date registration by registration.

Each element is stored once, as its key. Several registrations may want the same element; only those keys carry
a count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gatewayd.compile.keys import Keys
from gatewayd.compile.masks import MOST_ELEMENTS, compile_elements, compile_grant, count_elements
from gatewayd.model.grant import Grant
from gatewayd.model.mask import Mask
from gatewayd.model.registration import Registration

MOST_PREPARED = 32
"""Masks in use without an element: each costs a new flow a look-up."""
MOST_MASKS = 256
"""Masks in use at most, per family: each costs a new flow two look-ups. Registrations beyond are reported."""


@dataclass(slots=True)
class DesiredSet:
    """`keys`: what shall be in the kernel. `shared`: how many more registrations want a key than one."""

    keys: Keys = field(default_factory=Keys)
    shared: dict[bytes, int] = field(default_factory=dict)


class DesiredSets:
    """All masks in use and their keys."""

    def __init__(self, most_masks: int = MOST_MASKS) -> None:
        self._most_masks = most_masks
        self._sets: dict[Mask, DesiredSet] = {}
        self._masks_of_family = {4: 0, 6: 0}
        # A registration by identity: while one form of it replaces another, both are known here.
        self._unprogrammed: dict[int | Grant, tuple[Registration | Grant, str]] = {}
        self._prepared: set[Mask] = set()

    def __contains__(self, mask: Mask) -> bool:
        return mask in self._sets

    def masks(self) -> list[Mask]:
        """Masks in use, sorted; a mask stays in use after its last key went until `drop`."""
        return sorted(self._sets)

    def keys(self, mask: Mask) -> Keys:
        """The keys of a mask in use; not to be changed by the caller."""
        return self._sets[mask].keys

    def count(self) -> int:
        """Elements over all sets."""
        return sum(len(desired.keys) for desired in self._sets.values())

    def unprogrammed(self) -> dict[str, str]:
        """Ids of the registrations past a bound, at one of their addresses at least, with the reason."""
        return {_registration_of(wanted).id: reason for wanted, reason in self._unprogrammed.values()}

    def count_unprogrammed(self) -> int:
        return len(self._unprogrammed)

    def take_unprogrammed(self) -> list[Registration | Grant]:
        """Forget what is past a bound, and return it: it may be added again."""
        taken = [wanted for wanted, _ in self._unprogrammed.values()]
        self._unprogrammed.clear()
        return taken

    def add(self, wanted: Registration | Grant) -> list[tuple[Mask, bytes]]:
        """Want the elements of it; returns those that nobody wanted before."""
        fresh, sets = [], self._sets
        for element in self._admit(wanted):
            mask, key = element
            desired = sets[mask]
            if desired.keys.put(key):
                fresh.append(element)
            else:
                desired.shared[key] = desired.shared.get(key, 0) + 1
        return fresh

    def remove(self, wanted: Registration | Grant) -> list[tuple[Mask, bytes]]:
        """Take back an `add` of this very registration, or of an equal grant; returns what nobody wants now."""
        if self._unprogrammed and self._unprogrammed.pop(_name_of(wanted), None) is not None:
            return []
        gone = []
        for element in elements_of(wanted):
            if self.unwant(*element):
                gone.append(element)
        return gone

    def prepare(self, mask: Mask) -> bool:
        """Put a mask in use for what is to come, and keep it there; whether it is in use."""
        if len(self._prepared) < MOST_PREPARED and self.adopt(mask):
            self._prepared.add(mask)
        return mask in self._sets

    def adopt(self, mask: Mask) -> bool:
        """Put a mask in use that no registration needs; whether the bound lets it."""
        if mask not in self._sets:
            if self._masks_of_family[mask.family] >= self._most_masks:
                return False
            self._put_in_use(mask)
        return True

    def want(self, mask: Mask, key: bytes) -> None:
        """Want one element of a mask in use, which nobody wanted before."""
        self._sets[mask].keys.add(key)

    def is_wanted_twice(self, mask: Mask, key: bytes) -> bool:
        """Whether something else wants an element that was wanted by `want`."""
        return key in self._sets[mask].shared

    def unwant(self, mask: Mask, key: bytes) -> bool:
        """Take back a `want`; whether nobody wants the element now."""
        desired = self._sets[mask]
        others = desired.shared.get(key, 0)
        if others == 0:
            desired.keys.remove(key)
        elif others == 1:
            del desired.shared[key]
        else:
            desired.shared[key] = others - 1
        return others == 0

    def unused(self) -> list[Mask]:
        """Masks without keys that are not prepared."""
        return [mask for mask, desired in self._sets.items() if not desired.keys and mask not in self._prepared]

    def drop(self, mask: Mask) -> None:
        """Put an unused mask out of use."""
        assert not self._sets[mask].keys
        del self._sets[mask]
        self._masks_of_family[mask.family] -= 1

    def _admit(self, wanted: Registration | Grant) -> list[tuple[Mask, bytes]]:
        """The elements of it, a set being there for each; none if a bound is in the way."""
        registration = _registration_of(wanted)
        if (
            len(registration.clients) > 1
            or registration.peers
            or registration.services
            or wanted is not registration
        ):
            count = count_elements(wanted)
            if count > MOST_ELEMENTS:
                reason = f"needs {count} elements, at most {MOST_ELEMENTS} are made"
                self._unprogrammed[_name_of(wanted)] = (wanted, reason)
                return []
        elements = elements_of(wanted)
        sets = self._sets
        needed = {mask for mask, _ in elements if mask not in sets}
        if not needed:
            return elements
        for family in (4, 6):
            more = sum(mask.family == family for mask in needed)
            if self._masks_of_family[family] + more > self._most_masks:
                in_use = f"{self._masks_of_family[family]} of at most {self._most_masks} are in use"
                reason = f"needs {more} new masks for IPv{family}, {in_use}"
                self._unprogrammed[_name_of(wanted)] = (wanted, reason)
                return []
        for mask in needed:
            self._put_in_use(mask)
        return elements

    def _put_in_use(self, mask: Mask) -> None:
        self._sets[mask] = DesiredSet()
        self._masks_of_family[mask.family] += 1


def _registration_of(wanted: Registration | Grant) -> Registration:
    return wanted.registration if isinstance(wanted, Grant) else wanted


def _name_of(wanted: Registration | Grant) -> int | Grant:
    return wanted if isinstance(wanted, Grant) else id(wanted)


def elements_of(wanted: Registration | Grant) -> list[tuple[Mask, bytes]]:
    return compile_grant(wanted) if isinstance(wanted, Grant) else compile_elements(wanted)
