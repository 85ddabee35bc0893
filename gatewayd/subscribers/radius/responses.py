"""What was answered to whom, so that a repeat of a request gets the same bytes and does nothing twice.

RFC 5080 §2.2.2: a repeat has the address, port, identifier and authenticator of the first. An answer may take its
time, as the request is written down before it. Repeats that come meanwhile get nothing, and those that come later
get what the first one got.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from dataclasses import dataclass
from heapq import nlargest
from typing import Final

KEEP_S: Final = 30.0
"""RFC 5080 §2.2.2: no less than 5 seconds and no more than 30."""
PENDING_S: Final = 5.0
"""What nobody answered in this time is given up, and its repeat is taken as new. A NAS repeats after 3 to 5 s."""
MAX_RESPONSES: Final = 65536

PENDING: Final = b""
"""In place of an answer: the request is being dealt with."""

_PRUNED_EACH: Final = 2


class Responses:
    """At most `most`; the oldest goes first. `now` is in seconds and never goes back.

    An OrderedDict in order of the last change: to find the first entry of a plain dict takes longer with each that
    was removed before it.
    """

    __slots__ = ("_entries", "_keep_s", "_most", "_pending_s", "lost")

    def __init__(self, *, keep_s: float = KEEP_S, pending_s: float = PENDING_S, most: int = MAX_RESPONSES) -> None:
        self._keep_s = keep_s
        self._pending_s = pending_s
        self._most = most
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self.lost = 0
        """Entries that the bound cost before their time."""

    def __len__(self) -> int:
        return len(self._entries)

    def admit(self, key: bytes, now: float) -> bytes | None:
        """What there is for a request. None: it is new, and PENDING from now on."""
        entry = self._entries.get(key)
        if entry is not None:
            since, response = entry
            if now - since < self._time_of(response):
                return response
        self.keep(key, PENDING, now)
        return None

    def keep(self, key: bytes, response: bytes, now: float) -> None:
        """`response` is the answer from now on. The key may have been given up since it was admitted."""
        entries = self._entries
        count = len(entries)
        entries[key] = (now, response)
        if len(entries) == count:
            entries.move_to_end(key)
            return
        for _ in range(_PRUNED_EACH):
            since, oldest = next(iter(entries.values()))
            if now - since < self._time_of(oldest):
                break
            entries.popitem(last=False)
        if len(entries) > self._most:
            entries.popitem(last=False)
            self.lost += 1

    def _time_of(self, response: bytes) -> float:
        return self._keep_s if response else self._pending_s


class ResponseTimes:
    """A histogram of times in seconds. `counts[i]`: those up to BOUNDS_S[i] and above the bound before; the last
    is of those above all bounds."""

    __slots__ = ("counts", "sum_s")

    BOUNDS_S: Final = (
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    )  # fmt: skip

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS_S) + 1)
        self.sum_s = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


MAX_SOURCES: Final = 1024


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

    def __init__(self, most: int = MAX_SOURCES) -> None:
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
