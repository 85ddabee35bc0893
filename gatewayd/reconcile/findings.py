"""Elements that a start finds in the kernel and that nothing desires: which of them stay, and until when. Pure.

retained   The registry on disk may be older than the kernel's content: a disk that was full, a kill between
           applying and saving. Until every source has been read, elements that are found stay: they are desired
           like all others, and let go by `release`.
left       Elements of bindings that no binding explains: a journal was lost, or a part of it. They are not removed:
           the subscriber who had the address then mostly has it still. Nor are they asserted again, so they go by
           themselves when their time is over, unless it is known before that who has the address. They count as
           surplus that stays.
former     Elements of an address whose registration is past a bound: they may be of its former form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Generator, Iterable
from typing import Literal

from gatewayd.compile.desired import DesiredSets, Element
from gatewayd.compile.keys import Keys
from gatewayd.model.mask import Mask
from gatewayd.model.prefix import Prefix
from gatewayd.reconcile.set_state import SLICE, MaskState, SetState

Ports = tuple[int, int] | None
Explains = Callable[[Prefix, Ports], bool]
Presence = Literal["desired", "retained", "left", "surplus"]
"""Why an element is in the kernel; see findings. "surplus": it is about to be removed."""


def place_of(mask: Mask, key: bytes) -> tuple[Prefix, Ports]:
    """The address of an element of a binding, and its ports where the mask has them."""
    width = 4 if mask.family == 4 else 16
    prefix = Prefix(key[:width], mask.client_length)
    if mask.source_bits <= 0:
        return prefix, None
    first = int.from_bytes(key[-4:-2], "big")
    return prefix, (first, first + (1 << 16 - mask.source_bits) - 1)


class Leftovers:
    """Elements of bindings that nothing explains, by address: there may be as many as subscribers."""

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
        """It is desired, or its time is over; nothing happens if it is none of these."""
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
        """It is known now which subscriber has the address, or those ports of it, or that none has. How many these
        were."""
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


class Findings:
    """All that a start finds and nothing desires. Before `retain` or `leave_unless` is called, that is surplus."""

    def __init__(self, desired: DesiredSets) -> None:
        self._desired = desired
        self.retaining = False
        self.leftovers = Leftovers()
        self._explains: Explains | None = None
        """While it is there, elements of bindings that it does not explain are left."""
        self._is_first = True
        """No reading has come to its end yet."""
        self._counts: dict[str, int] = {}
        self._retained: list[Element] = []

    def retain(self) -> None:
        """Elements found from now on stay, until `release`."""
        self.retaining = True

    def leave_unless(self, explains: Explains) -> None:
        """Elements found from now on in sets of bindings, and not explained, stay until their time is over."""
        self._explains = explains

    def finish_reading(self) -> None:
        """All that is in the kernel was read once."""
        self._is_first = False

    def finish_leaving(self) -> int:
        """The kernel was read back: elements that come now are not from before. How many are left; 0 if this is
        known already."""
        left = len(self.leftovers) if self._explains is not None else 0
        self._explains = None
        return left

    @property
    def is_leaving(self) -> bool:
        """Whether elements of bindings that nothing explains are left when they are found."""
        return self._explains is not None

    def keeps_set(self, mask: Mask) -> bool:
        """Whether a set of this mask that a reading found stays, desired or not."""
        return self.retaining or (mask.is_bound and (self.is_leaving or bool(self.leftovers.of(mask))))

    def note_count(self, state: SetState, count: int) -> None:
        """A set was seen; while retaining, its elements of registrations count, the first time alone."""
        if self.retaining and not (state.mask.is_bound or state.mask.is_near):
            self._counts.setdefault(state.name, count)

    def count(self) -> int:
        """Elements of registrations that sets had when they were first seen, while retaining."""
        return sum(self._counts.values())

    def count_retained(self) -> int:
        return len(self._retained)

    def sort(self, masks: MaskState, state: SetState, keys: set[bytes]) -> set[bytes]:
        """Of keys found in a set and not desired, those that are surplus; the others are desired from now on.

        `masks`: the sets of the mask. Of one that makes no flow registered all are surplus.
        """
        if state.mask.is_near:
            return keys
        if self._explains is not None and state.mask.is_bound:
            for key in keys - state.surplus:
                if not self._explains(*place_of(state.mask, key)):
                    self.leftovers.add(state.mask, key)
        left = keys & self.leftovers.of(state.mask)
        rest = keys - left if left else keys
        if self.retaining:
            rest = self._retain(masks, state, rest)
        elif self._is_first:
            rest -= self._keep_former(masks, state, rest)
        return left | rest if left else rest

    def _retain(self, masks: MaskState, state: SetState, keys: set[bytes]) -> set[bytes]:
        """Desire keys found in a set; returns those that we ourselves are about to remove from it."""
        found = keys - state.surplus
        for key in found:
            self._desired.want(state.mask, key)
            self._retained.append((state.mask, key))
            for other in masks.states():
                if other is not state:
                    other.missing.add(key)
        return keys - found

    def _keep_former(self, masks: MaskState, state: SetState, keys: set[bytes]) -> set[bytes]:
        kept = {key for _, key in self._desired.keep_found((state.mask, key) for key in keys)}
        for other in masks.states() if kept else ():
            if other is not state:
                other.missing |= kept
        return kept

    def drop_expired(self, mask: Mask, keys: Keys) -> None:
        """The set of the mask has these keys: leftovers that are not among them have run out."""
        for key in [key for key in self.leftovers.of(mask) if key not in keys]:
            self.leftovers.drop(mask, key)

    def sort_retained_in_slices(self, explained: Container[Element]) -> Generator[None, None, int]:
        """Put ahead those that may go unasked: elements of bindings, those that a registration desires by now, and
        those of `explained`. How many others there are. Nothing more is retained from now on."""
        self.retaining = False
        going: list[Element] = []
        staying: list[Element] = []
        for done, (mask, key) in enumerate(self._retained, 1):
            goes = mask.is_bound or self._desired.is_wanted_twice(mask, key) or (mask, key) in explained
            (going if goes else staying).append((mask, key))
            if done % SLICE == 0:
                yield
        self._retained = [*going, *staying]
        return len(staying)

    def release(self, most: int) -> tuple[int, Iterable[Element]]:
        """Desire retained elements no longer, at most so many of them: how many these were, and those of them that
        nothing desires now. Nothing more is retained from now on."""
        self.retaining = False
        released, self._retained = self._retained[:most], self._retained[most:]
        gone = [element for element in released if self._desired.unwant(*element)]
        kept = set(self._desired.keep_found(gone))
        return len(released), [element for element in gone if element not in kept]
