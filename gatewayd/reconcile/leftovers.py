"""Elements of bindings that a start finds in the kernel and nothing explains: a journal was lost, or a part of it.

They are not taken out: whoever had the address then mostly has it still. Nor are they asserted again, so they go by
themselves when their time is over, unless somebody is known to have the address before that. Pure.
"""

from __future__ import annotations

from collections import Counter

from gatewayd.model.mask import Mask
from gatewayd.model.prefix import Prefix

Ports = tuple[int, int] | None


def place_of(mask: Mask, key: bytes) -> tuple[Prefix, Ports]:
    """The address of an element of a binding, and its ports where the mask has them."""
    width = 4 if mask.family == 4 else 16
    prefix = Prefix(key[:width], mask.client_length)
    if mask.source_bits <= 0:
        return prefix, None
    first = int.from_bytes(key[-4:-2], "big")
    return prefix, (first, first + (1 << 16 - mask.source_bits) - 1)


class Leftovers:
    """By address, as there are as many as there are subscribers."""

    __slots__ = ("_keys", "_lengths", "_places")

    def __init__(self) -> None:
        self._keys: dict[Mask, set[bytes]] = {}
        self._places: dict[Prefix, set[tuple[Mask, bytes]]] = {}
        self._lengths: Counter[int] = Counter()
        """How many places of each length."""

    def __bool__(self) -> bool:
        return bool(self._places)

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def of(self, mask: Mask) -> set[bytes]:
        """Those of a mask; not to be changed by the caller."""
        return self._keys.get(mask, set())

    def masks(self) -> set[Mask]:
        return set(self._keys)

    def add(self, mask: Mask, key: bytes) -> None:
        prefix, _ = place_of(mask, key)
        self._keys.setdefault(mask, set()).add(key)
        self._lengths[prefix.length] += prefix not in self._places
        self._places.setdefault(prefix, set()).add((mask, key))

    def drop(self, mask: Mask, key: bytes) -> None:
        """It is wanted, or has run out; nothing if it is none of these."""
        keys = self._keys.get(mask)
        if keys is None or key not in keys:
            return
        keys.remove(key)
        if not keys:
            del self._keys[mask]
        prefix, _ = place_of(mask, key)
        there = self._places[prefix]
        there.remove((mask, key))
        if not there:
            del self._places[prefix]
            self._lengths[prefix.length] -= 1

    def drop_at(self, prefix: Prefix, ports: Ports) -> int:
        """Somebody is known to have the address, or those ports of it, or nobody any more. How many these were."""
        places = [prefix]
        if not self._lengths[prefix.length]:
            # A prefix may be in the kernel in several pieces.
            places = [each for each in self._places if prefix.length < each.length and prefix.covers(each.packed)]
        found = []
        for mask, key in [element for place in places for element in self._places.get(place, ())]:
            block = place_of(mask, key)[1]
            if ports is None or block is None or (block[0] <= ports[1] and ports[0] <= block[1]):
                found.append((mask, key))
        for mask, key in found:
            self.drop(mask, key)
        return len(found)
