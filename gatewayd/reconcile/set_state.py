"""One kernel set as we know it, and the set of a mask with the larger one that is to follow it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSet
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from gatewayd.compile.keys import PARTS, Keys
from gatewayd.model.mask import Mask, parse_set_name

_T = TypeVar("_T")


class MissingKeys(MutableSet[bytes]):
    """Always within `desired`: a key leaves that set first and this one next, and comes in the same order.

    `whole`: begin with all that is desired, without going through it. A part of which everything is missing is
    kept as None, and copied when the first of its keys comes into the kernel.
    """

    __slots__ = ("_count", "_desired", "_parts", "_whole")

    def __init__(self, desired: Keys, *, whole: bool = False) -> None:
        self._desired = desired
        self._parts: list[set[bytes] | None] = [None if whole else set() for _ in range(PARTS)]
        self._whole = PARTS if whole else 0
        self._count = 0
        """Keys in the parts that are not None."""

    def __contains__(self, key: object) -> bool:
        number = hash(key) >> 40 & 63
        part = self._parts[number]
        return key in (self._desired.parts[number] if part is None else part)

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(map(self.part, range(PARTS)))

    def __len__(self) -> int:
        if not self._whole:
            return self._count
        count = self._count
        for number, part in enumerate(self._parts):
            if part is None:
                more = len(self._desired.parts[number])
                count += more
                if not more:
                    # Nothing is desired here, so nothing is missing: no need to look again the next time.
                    self._parts[number] = set()
                    self._whole -= 1
        return count

    @classmethod
    def _from_iterable(cls, it: Iterable[_T]) -> MutableSet[_T]:
        """What `-` and its like are in collections.abc.Set: for tests and small sets."""
        return set(it)

    def add(self, key: bytes) -> None:
        """A key that is desired already."""
        part = self._parts[hash(key) >> 40 & 63]
        if part is not None and key not in part:
            part.add(key)
            self._count += 1

    def discard(self, key: bytes) -> None:
        """The key is in the kernel."""
        self.difference_update((key,))

    def forget(self, key: bytes) -> bool:
        """The key has just left `desired`; whether it was missing."""
        part = self._parts[hash(key) >> 40 & 63]
        if part is None:
            return True
        if key not in part:
            return False
        part.remove(key)
        self._count -= 1
        return True

    def difference_update(self, keys: Iterable[bytes]) -> int:
        """The keys are in the kernel; how many of them were missing. Inlined: a million keys come this way."""
        parts, found = self._parts, 0
        for key in keys:
            number = hash(key) >> 40 & 63
            part = parts[number]
            if part is None:
                if key not in self._desired.parts[number]:
                    continue
                part = self._own(number)
            if key in part:
                part.remove(key)
                found += 1
                if not part:
                    parts[number] = set()  # an emptied set is as long to go through as it was when it was full
        self._count -= found
        return found

    def part(self, number: int) -> set[bytes]:
        """The missing keys of one part; not to be changed by the caller."""
        part = self._parts[number]
        return self._desired.parts[number] if part is None else part

    def replace_part(self, number: int, keys: set[bytes]) -> None:
        """Put `keys`, which all belong there, in place of a part; they are ours from now on."""
        old = self._parts[number]
        self._whole -= old is None
        self._count += len(keys) - len(old or ())
        self._parts[number] = keys

    def _own(self, number: int) -> set[bytes]:
        part = set(self._desired.parts[number])
        self.replace_part(number, part)
        return part


SMALLEST_CAPACITY = 1024


def choose_capacity(mask: Mask, count: int) -> int:
    """Room for a new set: a power of two at least twice the elements, so that growth is rare.

    None is stated of a set with timeouts: the kernel's table for those grows by itself.
    """
    if mask.is_bound:
        return 0
    return max(SMALLEST_CAPACITY, 1 << (2 * max(count, 1) - 1).bit_length())


@dataclass(slots=True)
class SetState:
    """One kernel set. `exists`: seen or acknowledged. `hooked`: the rules in force look into it.

    `unread`: elements that it had when it was seen and whose keys were not read; any of them may be desired.
    `outdated`: its elements have another time than ours; a set can only be made with it.
    """

    name: str
    mask: Mask
    generation: int
    capacity: int
    exists: bool = False
    hooked: bool = False
    unread: int = 0
    outdated: bool = False
    missing: MissingKeys = field(default_factory=lambda: MissingKeys(Keys()))
    surplus: Keys = field(default_factory=Keys)

    @property
    def may_have_surplus(self) -> bool:
        """Whether there may be elements in it that are not desired."""
        return bool(self.surplus) or self.unread > 0

    def has_room_for(self, desired: int) -> bool:
        """Whether what is missing of so many wanted elements fits beside what is there."""
        inside = desired + len(self.surplus) + self.unread
        return self.capacity == 0 or self.capacity >= inside or not self.missing

    def has_room(self, desired: int, more: int) -> int:
        """How many of `more` new elements are sure to fit, `desired` being the wanted ones."""
        if self.capacity == 0:
            return more
        inside = desired - len(self.missing) + len(self.surplus) + self.unread
        return max(0, min(more, self.capacity - inside))


@dataclass(slots=True)
class MaskState:
    """The set of a mask, and its larger successor while that is being filled."""

    current: SetState
    successor: SetState | None = None

    def states(self) -> Iterator[SetState]:
        yield self.current
        if self.successor is not None:
            yield self.successor

    @property
    def newest(self) -> SetState:
        return self.successor or self.current

    @property
    def successor_is_whole(self) -> bool:
        """Whether there is a successor, with all that is desired."""
        return self.successor is not None and self.successor.exists and not self.successor.missing

    @property
    def successor_has_all(self) -> bool:
        """Whether there is a successor, with all that is desired and all else that the set may have."""
        return self.successor_is_whole and not self.current.may_have_surplus


def is_complete(masks: Mapping[Mask, MaskState]) -> bool:
    """Whether every desired element is known to be in a set that `choose_hooks` would then take."""
    return all(not state.current.missing or state.successor_is_whole for state in masks.values())


def choose_hooks(masks: Mapping[Mask, MaskState], in_force: Mapping[Mask, str]) -> dict[Mask, str]:
    """The set that the rules shall look into now, for each mask; `in_force`: the sets that they are known to look
    into.

    In order of capacity, the largest first: where most registrations are, most flows are found. It changes only
    with the sets, so an element more or less never asks for other rules.
    """
    complete = is_complete(masks)
    chosen: list[tuple[int, Mask, str]] = []
    for mask, state in masks.items():
        hooked = in_force.get(mask)
        best = state.successor if state.successor is not None and state.successor_is_whole else state.current
        if complete or hooked is None or (hooked == state.current.name and state.successor_has_all):
            chosen.append((best.capacity, mask, best.name))
        else:
            chosen.append((state.current.capacity, mask, hooked))
    if not complete:
        chosen += [(0, mask, name) for mask, name in in_force.items() if mask not in masks]
    chosen.sort(key=lambda each: (-each[0], -each[1].client_length, each[1]))
    return {mask: name for _, mask, name in chosen}


def hooks_of(names: Iterable[str]) -> dict[Mask, str]:
    """The masks of sets that rules look into, which are one a mask."""
    return {parsed[0]: name for name in names if (parsed := parse_set_name(name)) is not None}
