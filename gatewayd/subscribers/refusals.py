"""Whose datagrams were refused, and why: a NAS with the wrong secret, or one that nobody told us of.

Source addresses of UDP can be forged, so there is no end of them. What is kept is bounded, and a flood of sources
that show up once does not push out the one that is refused day and night.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from heapq import nlargest
from typing import Final

MOST_SOURCES: Final = 1024


@dataclass(frozen=True, slots=True)
class Refused:
    """`source`: packed address. `reasons`: how often each."""

    source: bytes
    reasons: dict[str, int]
    total: int


class Refusals:
    """Counts by source and reason, of at most `most` sources; those of sources that had to go are in `others`.

    The first to go is the one that was seen once, the longest ago; where none was seen once, the one that was seen
    last the longest ago. Reasons are ours, and few.
    """

    __slots__ = ("_most", "_once", "_repeated", "others")

    def __init__(self, most: int = MOST_SOURCES) -> None:
        self._most = most
        self._once: OrderedDict[bytes, str] = OrderedDict()
        self._repeated: OrderedDict[bytes, Counter[str]] = OrderedDict()
        self.others = 0

    def __len__(self) -> int:
        return len(self._once) + len(self._repeated)

    def count(self, source: bytes, reason: str) -> None:
        counts = self._repeated.get(source)
        if counts is not None:
            counts[reason] += 1
            self._repeated.move_to_end(source)
            return
        first = self._once.pop(source, None)
        if first is not None:
            self._repeated[source] = Counter((first, reason))
            return
        if len(self) >= self._most:
            self._forget_one()
        self._once[source] = reason

    def worst(self, most: int) -> list[Refused]:
        """The sources with the highest counts, highest first."""
        refused = [Refused(source, {reason: 1}, 1) for source, reason in self._once.items()]
        refused += [Refused(source, dict(counts), counts.total()) for source, counts in self._repeated.items()]
        return nlargest(most, refused, key=lambda each: each.total)

    def _forget_one(self) -> None:
        if self._once:
            self._once.popitem(last=False)
            self.others += 1
        else:
            _, counts = self._repeated.popitem(last=False)
            self.others += counts.total()
