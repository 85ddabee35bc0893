"""Sums over a time → the report: what happened, and what a policy would do to the same flows. Pure.

What a policy would do is not computed here by rules of its own. Each unregistered flow went the way that ends in
`reject` where the mode is reject; the kernel counted it there, with the canary's own hash. So `reject` refuses all
of them, a canary of N % those of the first N buckets, and `limit` drops what its own rules counted in observe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Final

import msgspec

from gatewayd.impact.buckets import OTHER_PREFIX, OTHER_SERVICE
from gatewayd.impact.counting import PrefixService, ServiceBucket
from gatewayd.model import Prefix, Service
from gatewayd.model.metric import counter, gauge
from gatewayd.model.moment import format_time
from gatewayd.model.service import PROTOCOLS_WITH_PORTS
from gatewayd.state_file.view import StateFileView

PERCENTS: Final = (1, 5, 10, 25, 50, 100)
"""Canaries that a report has beside the one that is asked for."""
SERVICES_OF_A_PREFIX: Final = 8
_OTHERS: Final = "other"
_OVER_LIMIT: Final = ("over_limit_packets", "limited_packets")


@dataclass(frozen=True, slots=True)
class Run:
    """A time that was watched without a gap. `found`: flows that its begin found counted, of the time before."""

    began_s: float
    ended_s: float
    found: int
    is_new_table: bool


@dataclass(frozen=True, slots=True)
class Sums:
    """`hours`: flows of each step of time; `runs`: all that are kept, oldest first."""

    packets: Mapping[str, int] = field(default_factory=dict)
    size_bytes: Mapping[str, int] = field(default_factory=dict)
    prefixes: Mapping[PrefixService, int] = field(default_factory=dict)
    services: Mapping[ServiceBucket, int] = field(default_factory=dict)
    interfaces: Mapping[str, int] = field(default_factory=dict)
    steps: Sequence[tuple[int, int]] = ()
    runs: Sequence[Run] = ()


class CanaryLine(msgspec.Struct, frozen=True):
    """A canary of so many percent of clients, and the flows that are in it."""

    percent: int
    flows: int


class ServiceLine(msgspec.Struct, frozen=True):
    """`canary`: flows in the canary that was asked for."""

    service: str
    flows: int
    canary: int


class InterfaceLine(msgspec.Struct, frozen=True):
    """`interface`: a name or pattern of `policy.interfaces.inside`."""

    interface: str
    flows: int


class PrefixLine(msgspec.Struct, frozen=True):
    """`services`: most used first, a few."""

    prefix: str
    flows: int
    services: tuple[tuple[str, int], ...]


class GapLine(msgspec.Struct, frozen=True):
    """A time that was not watched: no daemon ran, or the table was removed. `flows`: that the kernel counted
    meanwhile, None where its table is another one."""

    since: str
    until: str
    flows: int | None


class StepLine(msgspec.Struct, frozen=True):
    """An hour or a day, and its flows."""

    at: str
    flows: int


class LostLine(msgspec.Struct, frozen=True):
    """Flows that are in the total and not in a part. `prefixes`: the prefix is not known; so the others.
    `uncertain_packets`: refused packets that may be of a new flow or a repeated one; in no number."""

    prefixes: int
    services: int
    interfaces: int
    uncertain_packets: int


class LimitLine(msgspec.Struct, frozen=True):
    """Packets over `on_unregistered.limit`, dropped or not. `is_counted`: the rules count them now: in mode limit,
    and in observe with `watch.shadow_limit`."""

    is_counted: bool
    packets: int
    size_bytes: int
    of_packets: int


class DoneLine(msgspec.Struct, frozen=True):
    """Of the rules that were in force: packets refused, repeated ones included, and packets dropped."""

    rejected_packets: int
    limited_packets: int


class ImpactReport(msgspec.Struct, frozen=True):
    """`counts`: whether flows are counted at all (`watch.unregistered`). `watched_since`: None: not yet.

    `percent`: the canary that `services` have. `step_s`: length of a step. `prefixes` are the first of
    `prefix_count`; `other_flows`: of prefixes past the bound of what is kept. `buckets`: flows by the client's
    bucket, of which a canary of N % has the first N.
    """

    counts: bool
    since: str
    until: str
    watched_since: str | None
    file: str
    flows: int
    percent: int
    canaries: tuple[CanaryLine, ...]
    limit: LimitLine
    done: DoneLine
    lost: LostLine
    gaps: tuple[GapLine, ...]
    services: tuple[ServiceLine, ...]
    interfaces: tuple[InterfaceLine, ...]
    prefixes: tuple[PrefixLine, ...]
    prefix_count: int
    other_flows: int
    step_s: int
    steps: tuple[StepLine, ...]
    buckets: tuple[int, ...]


@dataclass(slots=True)
class ImpactView:
    """For status and metrics. `counts`: whether flows are counted at all; `read_at`: the latest reading."""

    counts: bool = True
    read_at: str | None = None
    elements: Annotated[int, gauge("impact_elements",
        "Prefixes, services and interfaces with unregistered flows that the kernel counts now.")] = 0  # fmt: skip
    flows: Annotated[int, counter("impact_flows",
        "New unregistered flows that the kernel counted, each once.")] = 0  # fmt: skip
    unplaced: Annotated[int, counter("impact_unplaced_flows",
        "Of these, flows for whose prefix and service the kernel's set had no place.",
        "rises: the prefixes of `gatewayd impact` are not all")] = 0  # fmt: skip
    failures: Annotated[int, counter("impact_failures",
        "Readings that failed. The kernel keeps its counts for the next.", "rises for an hour")] = 0  # fmt: skip


def flows_of(packets: Mapping[str, int]) -> int:
    """Flows, each once, of the rules' counters."""
    again = sum(packets.get(name, 0) for name in ("reclassified_flows", "repeated_packets", "uncertain_packets"))
    return max(0, packets.get("unregistered_flows", 0) - again)


@dataclass(frozen=True, slots=True)
class Question:
    """`shadows_limit`: observe counts what limit would drop."""

    since_s: float
    until_s: float
    step_s: int
    top: int
    percent: int
    counts: bool
    shadows_limit: bool


def make_report(sums: Sums, asked: Question, kept: StateFileView) -> ImpactReport:
    """The lines of each list have the most flows first."""
    flows = flows_of(sums.packets)
    buckets = _buckets(sums.services)
    prefixes = _prefix_lines(sums.prefixes)
    return ImpactReport(
        counts=asked.counts,
        since=_time(asked.since_s),
        until=_time(asked.until_s),
        watched_since=_time(sums.runs[0].began_s) if sums.runs else None,
        file=kept.state if kept.last_error is None else kept.last_error,
        flows=flows,
        percent=asked.percent,
        canaries=tuple(
            CanaryLine(percent, sum(buckets[:percent])) for percent in sorted({*PERCENTS, asked.percent})
        ),
        limit=LimitLine(
            asked.shadows_limit,
            sum(sums.packets.get(name, 0) for name in _OVER_LIMIT),
            sum(sums.size_bytes.get(name, 0) for name in _OVER_LIMIT),
            sums.packets.get("unregistered_packets", 0),
        ),
        done=DoneLine(sums.packets.get("rejected_packets", 0), sums.packets.get("limited_packets", 0)),
        lost=LostLine(
            _missing(flows, sums.prefixes.values()),
            _missing(flows, sums.services.values()),
            _missing(flows, sums.interfaces.values()) if sums.interfaces else 0,
            sums.packets.get("uncertain_packets", 0),
        ),
        gaps=_gaps(sums.runs, asked.since_s),
        services=_service_lines(sums.services, asked.percent),
        interfaces=tuple(
            InterfaceLine(name, count) for name, count in sorted(sums.interfaces.items(), key=_most_first)
        ),
        prefixes=tuple(prefixes[: asked.top]),
        prefix_count=len(prefixes),
        other_flows=sum(count for key, count in sums.prefixes.items() if key.prefix == OTHER_PREFIX),
        step_s=asked.step_s,
        steps=tuple(StepLine(_time(at_s), count) for at_s, count in sums.steps),
        buckets=buckets,
    )


def service_name(protocol: int, port: int) -> str:
    if (protocol, port) == OTHER_SERVICE:
        return _OTHERS
    return str(Service(protocol, port, port) if protocol in PROTOCOLS_WITH_PORTS else Service(protocol))


def _missing(flows: int, parts: Iterable[int]) -> int:
    # The total is read before its parts, which may be ahead of it by the flows of a moment.
    return max(0, flows - sum(parts))


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _buckets(services: Mapping[ServiceBucket, int]) -> tuple[int, ...]:
    sums = [0] * 100
    for key, count in services.items():
        sums[min(key.bucket, 99)] += count
    return tuple(sums)


def _service_lines(services: Mapping[ServiceBucket, int], percent: int) -> tuple[ServiceLine, ...]:
    sums: dict[str, list[int]] = {}
    for key, count in services.items():
        line = sums.setdefault(service_name(key.protocol, key.port), [0, 0])
        line[0] += count
        line[1] += count if key.bucket < percent else 0
    ordered = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))
    return tuple(ServiceLine(name, all_flows, canary) for name, (all_flows, canary) in ordered)


def _prefix_lines(prefixes: Mapping[PrefixService, int]) -> list[PrefixLine]:
    sums: dict[bytes, dict[str, int]] = {}
    for key, count in prefixes.items():
        if key.prefix != OTHER_PREFIX:
            services = sums.setdefault(key.prefix, {})
            name = service_name(key.protocol, key.port)
            services[name] = services.get(name, 0) + count
    lines = [
        PrefixLine(
            str(prefix_of(prefix)),
            sum(services.values()),
            tuple(sorted(services.items(), key=_most_first)[:SERVICES_OF_A_PREFIX]),
        )
        for prefix, services in sums.items()
    ]
    return sorted(lines, key=lambda line: (-line.flows, line.prefix))


def prefix_of(packed: bytes) -> Prefix:
    """A /24 of its 3 bytes, a /48 of its 6."""
    return Prefix(packed.ljust(4 if len(packed) == 3 else 16, b"\0"), len(packed) * 8)


def _gaps(runs: Sequence[Run], since_s: float) -> tuple[GapLine, ...]:
    return tuple(
        GapLine(_time(before.ended_s), _time(after.began_s), None if after.is_new_table else after.found)
        for before, after in pairwise(runs)
        if after.began_s >= since_s
    )


def _time(at_s: float) -> str:
    return format_time(at_s) or ""
