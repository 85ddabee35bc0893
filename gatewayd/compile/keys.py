"""Sets of keys in parts, so that nothing ever goes through a million keys in one turn of the loop.

At 1 M keys a copy of a plain set takes 45 ms, a difference of two 46 ms, and one `add` in a million 40 ms where
the set grows. A part has a 64th of the keys: all of these come to less than a millisecond, and a walk
through the parts, one by one, finds each whole and up to date, however long it waited in between.

The part of a key is `hash(key) >> 40 & 63`, written out where a million keys come by. A hash's low bits choose the
place within a set: others are taken here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSet
from itertools import chain
from typing import Final, TypeVar, cast

_T = TypeVar("_T")

PARTS = 64

_NO_KEYS: Final = cast("set[bytes]", frozenset())
"""Each part without a key is this one, which cannot be changed: an empty set has 216 bytes, and of 80 masks all but
a few thousand parts are empty."""


def _begin_part(key: bytes) -> set[bytes]:
    """With its first key. The simulation has parts of its own kind here, whose order no seed of hashes decides."""
    return {key}


class Keys(MutableSet[bytes]):
    """`parts` are for reading, and for `replace_part`; equal to any set with the same keys."""

    __slots__ = ("_count", "parts")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self.parts: list[set[bytes]] = [_NO_KEYS] * PARTS
        self._count = 0
        self.update(keys)

    def __contains__(self, key: object) -> bool:
        return key in self.parts[hash(key) >> 40 & 63]

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self.parts)

    def __len__(self) -> int:
        return self._count

    @classmethod
    def _from_iterable(cls, it: Iterable[_T]) -> MutableSet[_T]:
        """What `-` and its like are in collections.abc.Set: for tests and small sets."""
        return set(it)

    def add(self, key: bytes) -> None:
        self.put(key)

    def put(self, key: bytes) -> bool:
        """`add`, and whether the key is new."""
        number = hash(key) >> 40 & 63
        part = self.parts[number]
        if key in part:
            return False
        if part:
            part.add(key)
        else:
            self.parts[number] = _begin_part(key)
        self._count += 1
        return True

    def discard(self, key: bytes) -> None:
        part = self.parts[hash(key) >> 40 & 63]
        if key in part:
            part.remove(key)
            self._count -= 1
            if not part:
                self.parts[hash(key) >> 40 & 63] = _NO_KEYS  # an emptied one is as long to go through as a full one

    def update(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self.put(key)

    def difference_update(self, keys: Iterable[bytes]) -> None:
        if self._count:
            for key in keys:
                self.discard(key)

    def replace_part(self, number: int, keys: set[bytes]) -> None:
        """Put `keys`, which all belong there, in place of a part; they are ours from now on."""
        self._count += len(keys) - len(self.parts[number])
        self.parts[number] = keys or _NO_KEYS


class MissingKeys(MutableSet[bytes]):
    """Always within `desired`: a key leaves that set first and this one next, and comes in the same order.

    `whole`: begin with all that is desired, without going through it. A part of which everything is missing is
    kept as None, and copied when the first of its keys comes into the kernel.
    """

    __slots__ = ("_count", "_desired", "_parts", "_whole")

    def __init__(self, desired: Keys, *, whole: bool = False) -> None:
        self._desired = desired
        self._parts: list[set[bytes] | None] = [None if whole else _NO_KEYS] * PARTS
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
                    self._parts[number] = _NO_KEYS
                    self._whole -= 1
        return count

    @classmethod
    def _from_iterable(cls, it: Iterable[_T]) -> MutableSet[_T]:
        """What `-` and its like are in collections.abc.Set: for tests and small sets."""
        return set(it)

    def add(self, key: bytes) -> None:
        """A key that is desired already."""
        number = hash(key) >> 40 & 63
        part = self._parts[number]
        if part is not None and key not in part:
            if part:
                part.add(key)
            else:
                self._parts[number] = _begin_part(key)
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
                    parts[number] = _NO_KEYS  # an emptied set is as long to go through as it was when it was full
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
        self._parts[number] = keys or _NO_KEYS

    def _own(self, number: int) -> set[bytes]:
        """A copy, of a part that is not empty."""
        part = set(self._desired.parts[number])
        self.replace_part(number, part)
        return part
