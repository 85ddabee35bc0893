"""What was answered to whom, so that a repeat of a request gets the same bytes and does nothing twice.

RFC 5080 §2.2.2: a repeat has the address, port, identifier and authenticator of the first. An answer may take its
time, as the request is written down before it. Repeats that come meanwhile get nothing, and those that come later
get what the first one got.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import accumulate
from typing import Annotated, ClassVar, Final

import msgspec

from gatewayd.model.metric import counter, histogram, total

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


@dataclass(slots=True)
class ResponseTimes:
    """A histogram of times in seconds. `counts[i]`: those up to BOUNDS_S[i] and above the bound before; the last
    is of those above all bounds."""

    BOUNDS_S: ClassVar[tuple[float, ...]] = (
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0
    )  # fmt: skip

    counts: list[int] = field(default_factory=lambda: [0] * (len(ResponseTimes.BOUNDS_S) + 1))
    sum_s: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulated(self) -> tuple[list[tuple[str, int]], float]:
        """Each bound with the number of times up to it, and the sum of all times."""
        bounds = [*map(str, self.BOUNDS_S), "+Inf"]
        return list(zip(bounds, accumulate(self.counts), strict=True)), self.sum_s

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


_REQUESTS: Final = counter(
    "radius_requests",
    "Datagrams, each in one kind.",
    "events stand still for two interim intervals; unknown_client or rejected rises: who is it?",
    label="kind",
)


class RefusedSource(msgspec.Struct, frozen=True):
    """A sender whose datagrams were refused. UDP sources can be forged."""

    source: str
    total: int
    reasons: dict[str, int]


@dataclass(slots=True)
class ListenerStats:
    """RADIUS accounting since the start; `requests` are all datagrams (RFC 4670: radiusAccServTotalRequests).

    `addresses` and `max_refused` are filled in by `AccountingListener.report`. `pending_duplicates`: repeats of a
    request that is still being written; not answered. `unsent`: the sender repeats, and gets its answer then.
    """

    addresses: tuple[str, ...] = ()
    requests: int = 0
    events: Annotated[int, _REQUESTS.of("event")] = 0
    unusable: Annotated[dict[str, int], _REQUESTS.of("unusable", read=total), counter("radius_accounting_rejected",
        "Requests that are authentic and cannot be used; they are answered.", "rises after a change of a NAS",
        label="reason")] = field(default_factory=Counter)  # fmt: skip
    duplicates: Annotated[int, _REQUESTS.of("duplicate")] = 0
    pending_duplicates: Annotated[int, _REQUESTS.of("pending_duplicate")] = 0
    status_server: Annotated[int, _REQUESTS.of("status_server")] = 0
    unknown_client: Annotated[int, _REQUESTS.of("unknown_client")] = 0
    rejected: Annotated[dict[str, int], _REQUESTS.of("rejected", read=total), counter("radius_rejected",
        "Datagrams that are not authentic; they are not answered.",
        "bad_authenticator rises: a NAS has another secret",
        label="reason")] = field(default_factory=Counter)  # fmt: skip
    ignored: Annotated[dict[str, int], counter("radius_ignored", "Parts of requests that could not be used.",
        "identity or address reasons rise after a change of a NAS",
        label="reason")] = field(default_factory=Counter)  # fmt: skip
    responses: Annotated[int, counter("radius_responses",
        "Answers sent, those to repeats and to Status-Server included.")] = 0  # fmt: skip
    unsent: Annotated[int, counter("radius_unsent", "Answers that the socket did not take.", "rises")] = 0
    receive_errors: Annotated[int, counter("radius_receive_errors", "Times that a socket could not be read.",
        "rises")] = 0  # fmt: skip
    kernel_drops: Annotated[int, counter("radius_kernel_drops",
        "Datagrams for which a socket had no room, or whose checksum was wrong.",
        "rises: the sender repeats, and bindings come late")] = 0  # fmt: skip
    response_times: Annotated[ResponseTimes, histogram("radius_response_seconds",
        "Time from the reading of a request to its first answer.", "`histogram_quantile(0.99, …)` over 0.05 s",
        read=ResponseTimes.cumulated)] = field(default_factory=ResponseTimes)  # fmt: skip
    max_refused: tuple[RefusedSource, ...] = ()
    """The senders with the most refused datagrams, the most first."""
