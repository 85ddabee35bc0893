"""Prefixes that the clients of registrations lie in, whatever the registrations' status: sets for the log alone.

A packet that no registration lets pass is logged in a group of its own where its source is in one of these sets
(`judging.note_near`). A set has one of few lengths, so that a packet costs few look-ups: a client prefix is cut to
the next shorter of these. While there are few prefixes they are exact at /32 and /64, and a customer's neighbours
are not in them. Beyond a bound those of the longest length are cut further, until there are few enough. The sets
then have neighbours too, and user space makes the exact test (near_miss.reasons). So their memory does not grow
with the number of registrations. They are not made longer again in the same run.

Addresses that subscribers have for a while count exactly, up to a bound of their own: a pool of addresses pushes no
registration into a shorter length.

Measured (Python 3.11): a client whose prefix is counted already takes 0.5 µs, 1.3 µs amid the load of a million,
some 4 % of it. These are 19,687 prefixes of /24; they take 6 MB.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import Final

from gatewayd.compile.desired import Element
from gatewayd.model.mask import ANY_PEER, NEAR, Mask
from gatewayd.model.prefix import Family, Prefix

LENGTHS: Final[dict[Family, tuple[int, ...]]] = {
    4: (8, 12, 16, 20, 24, 28, 32),
    6: (16, 24, 32, 40, 48, 56, 64),
}
"""Of each family: a client prefix is cut to the longest of these that is not longer than it."""
MAX_PREFIXES: Final = 32768
"""Of a family; beyond, the longest are cut to the next shorter length."""
MAX_BOUND_PREFIXES: Final = 16384
"""Addresses of subscribers, of both families; more are not in the sets."""


_HALVES: Final = tuple(bytes((each & 0xF0, 0, 0, 0)) for each in range(256))
"""What half of a byte adds to a key of IPv4: so many bytes that the size of a key says the length of its prefix."""
_WHOLE: Final = 4
"""Bytes of an IPv4 key without half a byte, at most."""


@cache
def near_mask(family: Family, length: int) -> Mask:
    """One object for each: it is looked for among all masks with each element."""
    return Mask(family, length, ANY_PEER, NEAR)


@cache
def _places(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    """By the length of a client prefix: whole bytes, and bits beyond them."""
    chosen = [max((each for each in lengths if each <= length), default=0) for length in range(129)]
    return [divmod(length, 8) for length in chosen]


class _Counts:
    """Of one family: how many clients lie in each prefix.

    A key has as many bytes of the address as the prefix has, and _HALVES behind them.
    """

    __slots__ = ("by_prefix", "family", "lengths", "most", "pending", "places", "width")

    def __init__(self, family: Family, most: int) -> None:
        self.family = family
        self.width = 4 if family == 4 else 16
        self.most = most
        self.lengths = list(LENGTHS[family])
        self.by_prefix: dict[bytes, int] = {}
        self.pending: dict[bytes, bool] = {}
        """What came (True) or went and was not taken yet."""
        self.places = _places(tuple(self.lengths))

    def begin(self, key: bytes) -> None:
        """The first client lies in a prefix."""
        self._come(key, 1)
        while len(self.by_prefix) > self.most and len(self.lengths) > 1:
            self._shorten()

    def remove(self, packed: bytes, length: int) -> None:
        """Take back an `add`. KeyError if there was none: a bug of the caller."""
        size, rest = self.places[length]
        key = packed[:size] + _HALVES[packed[size]] if rest else packed[:size]
        count = self.by_prefix[key] - 1
        if count:
            self.by_prefix[key] = count
        else:
            self._go(key)

    def _come(self, key: bytes, count: int) -> None:
        self.by_prefix[key] = count
        if self.pending.pop(key, None) is None:
            self.pending[key] = True

    def _go(self, key: bytes) -> None:
        del self.by_prefix[key]
        if self.pending.pop(key, None) is None:
            self.pending[key] = False

    def _shorten(self) -> None:
        """The longest length is used no more."""
        longest = self.lengths.pop()
        self.places = _places(tuple(self.lengths))
        found = [key for key in self.by_prefix if self._length_of(key) == longest]
        size, rest = divmod(self.lengths[-1], 8)
        for key in found:
            count = self.by_prefix[key]
            self._go(key)
            other = key[:size] + _HALVES[key[size]] if rest else key[:size]
            if other in self.by_prefix:
                self.by_prefix[other] += count
            else:
                self._come(other, count)

    def _length_of(self, key: bytes) -> int:
        size = len(key)
        return 8 * size if self.family == 6 or size <= _WHOLE else 8 * (size - _WHOLE) + 4

    def element_of(self, key: bytes) -> Element:
        packed = key[: self.width].ljust(self.width, b"\0")
        return near_mask(self.family, self._length_of(key)), packed


class NearClients:
    """The prefixes to have in the sets; `take` returns what changed. `most`: as MAX_PREFIXES; `max_bound`: as
    MAX_BOUND_PREFIXES.

    A prefix that comes twice goes when it has gone twice.
    """

    __slots__ = ("_bound", "_families", "_ipv4", "_ipv6", "_max_bound", "unfollowed")

    def __init__(self, most: int = MAX_PREFIXES, max_bound: int = MAX_BOUND_PREFIXES) -> None:
        self._ipv4, self._ipv6 = _Counts(4, most), _Counts(6, most)
        self._families = {4: self._ipv4, 16: self._ipv6}
        self._max_bound = max_bound
        self._bound: dict[Prefix, int] = {}
        self.unfollowed = 0
        """Addresses of subscribers that found no place."""

    def __len__(self) -> int:
        return sum(len(each.by_prefix) for each in self._families.values())

    def add(self, prefixes: Iterable[Prefix]) -> bool:
        """Clients of a registration; whether `take` has more for it. Inlined: a million come this way."""
        is_new = False
        for prefix in prefixes:
            packed = prefix.packed
            counts = self._ipv4 if len(packed) == 4 else self._ipv6
            size, rest = counts.places[prefix.length]
            key = packed[:size] + _HALVES[packed[size]] if rest else packed[:size]
            by_prefix = counts.by_prefix
            count = by_prefix.get(key)
            if count is not None:
                by_prefix[key] = count + 1
            else:
                counts.begin(key)
                is_new = True
        return is_new

    def remove(self, prefixes: Iterable[Prefix]) -> None:
        """They are no clients any more."""
        families = self._families
        for prefix in prefixes:
            packed = prefix.packed
            families[len(packed)].remove(packed, prefix.length)

    def add_bound(self, prefix: Prefix) -> None:
        """A subscriber has it, or had it a moment ago."""
        count = self._bound.get(prefix)
        if count is not None:
            self._bound[prefix] = count + 1
        elif len(self._bound) < self._max_bound:
            self._bound[prefix] = 1
            counts = self._families[len(prefix.packed)]
            counts.most += 1
            self.add((prefix,))
        else:
            self.unfollowed += 1

    def remove_bound(self, prefix: Prefix) -> None:
        """Take back an `add_bound`, if there was a place for it."""
        count = self._bound.get(prefix)
        if count == 1:
            del self._bound[prefix]
            counts = self._families[len(prefix.packed)]
            counts.most -= 1
            counts.remove(prefix.packed, prefix.length)
        elif count is not None:
            self._bound[prefix] = count - 1

    @property
    def has_pending(self) -> bool:
        """Whether `take` has something to return."""
        return any(each.pending for each in self._families.values())

    def take(self, most: int) -> tuple[list[Element], list[Element]]:
        """Elements that came and that went since, so many of them at most."""
        came: list[Element] = []
        went: list[Element] = []
        for counts in self._families.values():
            pending = counts.pending
            for key in [*islice(pending, most - len(came) - len(went))] if pending else ():
                (came if pending.pop(key) else went).append(counts.element_of(key))
            if not pending:
                pending.clear()  # what a start has filled would stay as large: 2 MB
        return came, went
