"""Those that send to the accounting port: the numbers of the listener, and the senders that are refused. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import accumulate
from typing import Annotated, ClassVar, Final

import msgspec

from gatewayd.model.metric import counter, histogram, total

MAX_SOURCES: Final = 1024


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

    `AccountingListener.report` fills in addresses, losses and refusals. `pending_duplicates`: repeats of a
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
    over_rate: Annotated[int, _REQUESTS.of("over_rate")] = 0
    flood_drops: Annotated[int, counter("radius_flood_drops",
        "Datagrams dropped in the kernel while senders that are no clients flooded the port.",
        "rises: who sends?")] = 0  # fmt: skip
    receive_errors: Annotated[int, counter("radius_receive_errors", "Times that a socket could not be read.",
        "rises")] = 0  # fmt: skip
    kernel_drops: Annotated[int, counter("radius_kernel_drops",
        "Datagrams for which a socket had no room, or whose checksum was wrong.",
        "rises: the sender repeats, and bindings come late")] = 0  # fmt: skip
    response_times: Annotated[ResponseTimes, histogram("radius_response_seconds",
        "Time from the reading of a request to its first answer.", "`histogram_quantile(0.99, …)` over 0.05 s",
        read=ResponseTimes.cumulated)] = field(default_factory=ResponseTimes)  # fmt: skip
    responses_lost: Annotated[int, counter("radius_responses_lost",
        "Answers forgotten early, for the bound; their repeats count as new.", "rises")] = 0  # fmt: skip
    replays_lost: Annotated[int, counter("radius_replays_lost",
        "Requests without Event-Timestamp forgotten early, for the bound.",
        "rises: set `require_event_timestamp` where NAS send it")] = 0  # fmt: skip
    refused_unlisted: Annotated[int, counter("radius_refused_unlisted",
        "Refused datagrams of senders for which there is no room by name.")] = 0  # fmt: skip
    max_refused: tuple[RefusedSource, ...] = ()
    """The senders with the most refused datagrams, the most first."""
    max_unused: tuple[RefusedSource, ...] = ()
    """The clients of which most is not used, whole requests and parts, the most first."""


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
