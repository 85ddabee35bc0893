"""What the daemon says of itself, as frozen values that are JSON as they stand.

Times are RFC 3339 in UTC, None where there is no such moment. A field added here is an addition for every
reader; a field renamed or taken away breaks the dashboards of people we do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from gatewayd.api.subscriber_views import BoundView, ResponseTimesView, SubscribersView
from gatewayd.model import (
    Canary,
    Decision,
    DecisionWord,
    Effect,
    Flow,
    Mode,
    Prefix,
    Registration,
    Service,
    Status,
    format_address,
    service_words,
)
from gatewayd.model.moment import format_time as format_time
from gatewayd.model.moment import parse_time as parse_time
from gatewayd.model.service import PROTOCOLS_WITH_PORTS
from gatewayd.model.transaction import CounterReading

SourceState = Literal["waiting", "ok", "failing"]
FreshnessState = Literal["fresh", "overdue", "stale"]
Role = Literal["source", "destination"]

MAX_EXAMPLES = 20
"""How many unprogrammed registrations a status names."""

MAX_NEIGHBOURS = 20
"""How many rules of other programs a status names."""

MAX_AGGREGATES = 20
"""How many prefixes of unregistered traffic a status names, the busiest first."""


class HeldView(msgspec.Struct, frozen=True):
    """Removals that wait for `gatewayd accept SERIAL`; what they are about stays in force until then."""

    serial: int
    since: str
    count: int
    reason: str


class HoldView(HeldView, frozen=True):
    """`by_cause`: how many of what each source took away; `config/sources`, `config/local`, `kernel/elements` are
    the list of sources, local pins and filters, and elements found in the kernel that nobody registers."""

    by_cause: dict[str, int] = {}


class SourceView(msgspec.Struct, frozen=True):
    """`registrations`: usable records of the last good reading; `conflicts`: ids an earlier source has too.

    `issued_at`: as signed. `kept`: records that became unusable and stay as they were. `restored_at`: what is in
    force was saved on disk then, by an earlier run; None once the source gave it in this one. `store_error`: why
    the last good on disk is older than what is in force.
    """

    name: str
    url: str
    state: SourceState
    last_success_at: str | None = None
    last_error: str | None = None
    next_attempt_at: str | None = None
    registrations: int = 0
    rejected: int = 0
    rejected_by_code: dict[str, int] = {}
    conflicts: int = 0
    signed: bool = False
    session: str | None = None
    serial: int | None = None
    issued_at: str | None = None
    freshness: FreshnessState = "fresh"
    not_fresh_since: str | None = None
    """When it became overdue or stale; None where it is fresh, or was never read."""
    held: HeldView | None = None
    kept: int = 0
    restored_at: str | None = None
    store_error: str | None = None


class ClockView(msgspec.Struct, frozen=True):
    """What this host's clock says, and what is believed.

    `doubt`: `ahead` or `behind`, with `why`; None where it is believed. `used`: what closings of windows and
    `enforce_from` go by; None where the time is not known yet, and nothing closes. `opens_by`: what openings go by;
    None where every window that has not ended is open. `offset_s`: of the host's clock to `used`, positive = ahead.
    `confirmed`: NTP, as the kernel says, or a signed notification agrees.
    """

    host: str | None = None
    used: str | None = None
    opens_by: str | None = None
    doubt: Literal["ahead", "behind"] | None = None
    why: str | None = None
    offset_s: float = 0.0
    confirmed: bool = False


class OverridesView(msgspec.Struct, frozen=True):
    """Local overrides. `pins`, `filters`: in force. `filtered`: registrations dropped; `trimmed`: left with fewer
    clients. `conflicts`: pins over a filter or over a registration with other content; `shadowed`: pins that an
    earlier file has too; `expired`: past their end date. `faults`: one line for each problem of a file; what that
    file said before stays in force."""

    pins: int = 0
    filters: int = 0
    filtered: int = 0
    trimmed: int = 0
    conflicts: int = 0
    shadowed: int = 0
    expired: int = 0
    faults: tuple[str, ...] = ()


class UnprogrammedView(msgspec.Struct, frozen=True):
    """A registration that the kernel cannot be told of, and why."""

    id: str
    reason: str


class RegistrationCounts(msgspec.Struct, frozen=True):
    """`effective`: active and in their window now. `unprogrammed_examples`: at most MAX_EXAMPLES.

    `in_former_form`: of the unprogrammed ones, those of which a former form is in the kernel meanwhile.
    """

    total: int = 0
    effective: int = 0
    by_category: dict[str, int] = {}
    by_status: dict[str, int] = {}
    unprogrammed: int = 0
    in_former_form: int = 0
    unprogrammed_examples: tuple[UnprogrammedView, ...] = ()
    next_window_change_at: str | None = None


class KernelView(msgspec.Struct, frozen=True):
    """`not_in_kernel`: elements of effective registrations that are not known to be there; 0 in peace.

    `surplus`: elements there that no registration wants. `retained`: those found at the start that the last good
    does not have, until every source has answered. `pending`: operations not sent yet. `repairs`: foreign changes
    undone. `notifications_lost`: times that the kernel told of more of them than was read. `generation`: the
    kernel's ruleset generation at the last reading.
    """

    table: str
    masks: int = 0
    sets: int = 0
    elements_desired: int = 0
    not_in_kernel: int = 0
    surplus: int = 0
    retained: int = 0
    transactions: int = 0
    failures: int = 0
    last_error: str | None = None
    last_commit_at: str | None = None
    last_verified_at: str | None = None
    repairs: int = 0
    notifications_lost: int = 0
    generation: int = 0
    pending: int = 0


class CounterView(msgspec.Struct, frozen=True):
    """A counter of the kernel's, since the table was made."""

    packets: int
    bytes: int


class WatchView(msgspec.Struct, frozen=True):
    """`packets`, `connections`: events taken in from NFLOG and ctnetlink. `overruns`: events the kernel lost."""

    packets: int = 0
    connections: int = 0
    malformed: int = 0
    overruns: int = 0
    resyncs: int = 0
    late_admissions: int = 0
    flows_tracked: int = 0
    flows_evicted: int = 0


class ConntrackView(msgspec.Struct, frozen=True):
    """Connection tracking of the whole namespace, not of our flows alone. `dropped`: packets for whose flow there
    was no room; `early_dropped`: flows thrown out for others. None where the kernel does not tell."""

    entries: int
    max: int
    dropped: int | None = None
    insert_failed: int | None = None
    early_dropped: int | None = None


class NeighbourView(msgspec.Struct, frozen=True):
    """A rule of another program that uses our bits of the ct mark: it `writes` them, or `leaks` them into the
    packet mark."""

    deed: Literal["writes", "leaks"]
    family: str
    table: str
    chain: str
    handle: int


class MarksView(msgspec.Struct, frozen=True):
    """Marks that came from elsewhere, and those that no longer say what is true.

    `carried`: connections with a mark of ours that another program put in. `not_believed`: judged marks of
    registered flows, cleared. `unexplained`: flows marked registered that no registration or binding here explains,
    as of the latest survey; `waiting`: of them those that are left alone until accounting has named their address,
    for `waiting_at_most_s`; `draining`: flows whose drain runs. `writers`, `leakers`: rules of others.
    """

    carried: int = 0
    not_believed: int = 0
    unexplained: int = 0
    waiting: int = 0
    waiting_at_most_s: float = 0.0
    draining: int = 0
    writers: int = 0
    leakers: int = 0
    neighbours: tuple[NeighbourView, ...] = ()
    """At most MAX_NEIGHBOURS."""


class AggregateView(msgspec.Struct, frozen=True):
    """Unregistered flows from a /24 or /48, as far as they were logged. `services`: words, the most used first."""

    prefix: str
    flows: int
    services: tuple[str, ...] = ()


class StatusView(msgspec.Struct, frozen=True):
    """Everything on one screen. `mode` is in force, `configured_mode` comes at `enforce_from`.

    `counters` by the kernel's names: `<class>_packets`, `<class>_flows`. `unregistered`: at most
    MAX_AGGREGATES.
    """

    version: str
    started_at: str
    now: str
    mode: Mode
    configured_mode: Mode
    enforce_from: str | None
    armed: bool
    epoch: int
    ready: bool
    reasons: tuple[str, ...]
    sources: tuple[SourceView, ...]
    registrations: RegistrationCounts
    kernel: KernelView
    counters: dict[str, CounterView]
    watch: WatchView
    unregistered: tuple[AggregateView, ...] = ()
    reload_error: str | None = None
    """Why the latest reload was refused; the settings of before are in force."""
    overrides: OverridesView = OverridesView()
    warnings: tuple[str, ...] = ()
    """What can cut a registered customer though all of ours is as it should be; one sentence each."""
    marks: MarksView = MarksView()
    conntrack: ConntrackView | None = None
    """None while connection tracking is not loaded."""
    held: tuple[HoldView, ...] = ()
    """All that waits for `gatewayd accept`, whatever brought it about."""
    clock: ClockView = ClockView()
    subscribers: SubscribersView | None = None
    """None where the configuration has no such section."""


class MetricsView(msgspec.Struct, frozen=True):
    """A status and what only a graph can use. Lag: how late the event loop was, last and worst since start."""

    status: StatusView
    loop_lag_last_s: float = 0.0
    loop_lag_max_s: float = 0.0
    commit_seconds_sum: float = 0.0
    commit_count: int = 0
    response_times: ResponseTimesView = ResponseTimesView()
    """Of RADIUS accounting."""


class MatchView(msgspec.Struct, frozen=True):
    """A registration that makes a flow registered. `role`: which end is the registrant, by `client`.

    No `peers`, no `services`: any.
    """

    id: str
    category: str
    role: Role
    client: str | None
    peers: tuple[str, ...]
    services: tuple[str, ...]
    valid_until: str | None


class ExplainView(msgspec.Struct, frozen=True):
    """Why a flow passes or does not. `in_kernel`: all elements that make it pass are known to be
    there; None where nothing is to be there or it is not known. An unregistered flow passes by an element that the
    kernel still has: then the reason names it. `canary`: None at 100 %. `bindings`: those of the
    source that registrations match by."""

    decision: DecisionWord
    effect: Effect
    registrations: tuple[str, ...]
    in_kernel: bool | None
    reason: str
    src: str
    dst: str
    service: str
    sport: int | None
    mode: Mode
    canary: Canary | None
    matches: tuple[MatchView, ...]
    bindings: tuple[BoundView, ...] = ()


class RegistrationView(msgspec.Struct, frozen=True):
    """`subscriber`: whether there is one; the digest stays inside. `unprogrammed`: why the kernel cannot be told.

    `flows`, `bytes`: attributed since start. `valid_from`, `valid_until` None: open.
    """

    id: str
    category: str
    status: Status
    effective: bool
    clients: tuple[str, ...]
    peers: tuple[str, ...]
    services: tuple[str, ...]
    subscriber: bool
    valid_from: str | None
    valid_until: str | None
    in_kernel: bool | None = None
    unprogrammed: str | None = None
    last_seen_at: str | None = None
    flows: int = 0
    bytes: int = 0


class RegistrationPage(msgspec.Struct, frozen=True):
    """`total`: all that match, of which `items` begins at `offset`."""

    total: int
    offset: int
    items: tuple[RegistrationView, ...]


class FlowView(msgspec.Struct, frozen=True):
    """A registered flow that is alive. `sport` None where the protocol has no ports."""

    src: str
    dst: str
    service: str
    sport: int | None
    registrations: tuple[str, ...]
    packets: int
    bytes: int
    first_seen_at: str | None
    last_seen_at: str | None


class FlowPage(msgspec.Struct, frozen=True):
    """`total`: all that match, of which `items` begins at `offset`."""

    total: int
    offset: int
    items: tuple[FlowView, ...]


def flow_service(flow: Flow) -> str:
    """The flow's service as a word: `udp/51820`, `esp`."""
    port = flow.destination_port
    return str(
        Service(flow.protocol, port, port) if flow.protocol in PROTOCOLS_WITH_PORTS else Service(flow.protocol)
    )


def effect_of(word: DecisionWord, mode: Mode, canary: Canary | None) -> Effect:
    """What the rules do to such a flow; a client outside of the canary is only observed. Where one of two ends is
    in it, what is done if that one is the client."""
    if word != "unregistered":
        return "pass"
    return "observe" if canary == "out" else mode


def explain_view(
    flow: Flow,
    decision: Decision,
    *,
    mode: Mode,
    canary: Canary | None,
    in_kernel: bool | None,
    bindings: tuple[BoundView, ...] = (),
) -> ExplainView:
    """`mode`: the effective one. `canary`: of the flow's client."""
    return ExplainView(
        decision=decision.word,
        effect=effect_of(decision.word, mode, canary),
        registrations=tuple(registration.id for registration in decision.registrations),
        in_kernel=in_kernel,
        reason=decision.reason,
        src=format_address(flow.source),
        dst=format_address(flow.destination),
        service=flow_service(flow),
        sport=_source_port(flow),
        mode=mode,
        canary=canary,
        matches=tuple(match_view(registration, flow) for registration in decision.registrations),
        bindings=bindings,
    )


def match_view(registration: Registration, flow: Flow) -> MatchView:
    """For a registration that matches the flow. `client` is None when a binding, not a prefix, made it match."""
    role: Role = "destination"
    client = _longest_covering(registration.clients, flow.destination)
    source = _longest_covering(registration.clients, flow.source)
    peers = registration.peers
    if client is None or (source and (not peers or _longest_covering(peers, flow.destination))):
        role, client = "source", source
    return MatchView(
        id=registration.id,
        category=registration.category,
        role=role,
        client=None if client is None else str(client),
        peers=_words(peers),
        services=service_words(registration.services),
        valid_until=format_time(registration.valid_until_s),
    )


def registration_view(
    registration: Registration,
    now: float,
    *,
    in_kernel: bool | None = None,
    unprogrammed: str | None = None,
    last_seen_s: float | None = None,
    flows: int = 0,
    size_bytes: int = 0,
) -> RegistrationView:
    """A registration at `now`, with what the reconciler and the watch know of it."""
    return RegistrationView(
        id=registration.id,
        category=registration.category,
        status=registration.status,
        effective=registration.is_effective(now),
        clients=_words(registration.clients),
        peers=_words(registration.peers),
        services=service_words(registration.services),
        subscriber=registration.subscriber is not None,
        valid_from=format_time(registration.valid_from_s),
        valid_until=format_time(registration.valid_until_s),
        in_kernel=in_kernel,
        unprogrammed=unprogrammed,
        last_seen_at=format_time(last_seen_s),
        flows=flows,
        bytes=size_bytes,
    )


def flow_view(
    flow: Flow,
    registration_ids: tuple[str, ...],
    *,
    packets: int = 0,
    size_bytes: int = 0,
    first_seen_s: float | None = None,
    last_seen_s: float | None = None,
) -> FlowView:
    """A flow with the ids of the registrations that made it registered."""
    return FlowView(
        src=format_address(flow.source),
        dst=format_address(flow.destination),
        service=flow_service(flow),
        sport=_source_port(flow),
        registrations=registration_ids,
        packets=packets,
        bytes=size_bytes,
        first_seen_at=format_time(first_seen_s),
        last_seen_at=format_time(last_seen_s),
    )


def counter_views(readings: Mapping[str, CounterReading]) -> dict[str, CounterView]:
    """By name, sorted."""
    return {name: CounterView(each.packets, each.size_bytes) for name, each in sorted(readings.items())}


def _source_port(flow: Flow) -> int | None:
    """None where there is none, or it was not asked for."""
    return flow.source_port or None


def _longest_covering(prefixes: tuple[Prefix, ...], address: bytes) -> Prefix | None:
    covering = (prefix for prefix in prefixes if prefix.covers(address))
    return max(covering, key=lambda prefix: prefix.length, default=None)


def _words(prefixes: tuple[Prefix, ...]) -> tuple[str, ...]:
    return tuple(str(prefix) for prefix in prefixes)
