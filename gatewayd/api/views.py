"""The answers about one flow, registrations, live flows and bindings, as frozen values that are JSON as they stand.

Times are RFC 3339 in UTC, None where there is no such moment. A field added here is an addition for every reader; a
field renamed or taken away breaks the programs of people we do not know. No digest is in them, and nobody who is
not registered.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gatewayd.api.standing import StandingView
from gatewayd.model import (
    Binding,
    Canary,
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
from gatewayd.model.moment import format_time
from gatewayd.model.service import PROTOCOLS_WITH_PORTS

Role = Literal["source", "destination"]


class BoundView(msgspec.Struct, frozen=True):
    """A binding that a flow passes through. `ports`: first and last of a shared address; None = all of it.

    `since`, `confirmed`: by the NAS's clock. `age_s`: since it was confirmed. `restored`: known from before a
    restart, and not confirmed since.
    """

    prefix: str
    ports: tuple[int, int] | None
    nas: str
    since: str | None
    confirmed: str | None
    age_s: float
    restored: bool


class BindingView(BoundView, frozen=True):
    """With the registrations of its subscriber. `session`: as the NAS calls it.

    `in_kernel`: all elements of the effective registrations at this address are known to be there; None where none
    is effective, or it is not known. `also_of`: other registrations that have the address in a prefix of their own
    (of /24 or /48, or longer). Both pass; the NAS and the registry disagree.
    """

    session: str
    registrations: tuple[str, ...]
    in_kernel: bool | None
    also_of: tuple[str, ...] = ()


class BindingPage(msgspec.Struct, frozen=True):
    """`total`: all that match, of which `items` begins at `offset`."""

    total: int
    offset: int
    items: tuple[BindingView, ...]


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
    source that registrations match by. `notes`: filters, pins and held removals behind it.
    `crosses`: whether the rules judge packets between the interfaces that were given."""

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
    notes: tuple[str, ...] = ()
    crosses: bool | None = None


class RegistrationView(msgspec.Struct, frozen=True):
    """`subscriber`: whether there is one; the digest stays inside. `unprogrammed`: why the kernel cannot be told.

    `standing`: the registry behind it. `flows`, `bytes`: attributed since start. `valid_from`, `valid_until` None:
    open.
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
    standing: StandingView | None = None
    registrant: str | None = None
    provisional: bool = False
    endpoints: tuple[str, ...] = ()


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


class UnregisteredFlowView(msgspec.Struct, frozen=True):
    """An unregistered flow that a rule logged. `sport` None where the protocol has no ports."""

    src: str
    dst: str
    service: str
    sport: int | None
    seen_at: str | None


class UnregisteredFlowPage(msgspec.Struct, frozen=True):
    """The last ones, the newest first. `total`: all that are held, of which `items` begins at `offset`."""

    total: int
    offset: int
    items: tuple[UnregisteredFlowView, ...]


def flow_service(flow: Flow) -> str:
    """The flow's service as a word: `udp/51820`, `esp`."""
    port = flow.destination_port
    return str(
        Service(flow.protocol, port, port) if flow.protocol in PROTOCOLS_WITH_PORTS else Service(flow.protocol)
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
    standing: StandingView | None = None,
) -> RegistrationView:
    """A registration at `now`, with what the reconciler and the watch know of it."""
    return RegistrationView(
        id=registration.id,
        category=registration.category,
        status=registration.status,
        effective=registration.is_effective(now) and (standing is None or not standing.is_out_of_force),
        clients=words_of(registration.clients),
        peers=words_of(registration.peers),
        services=service_words(registration.services),
        subscriber=registration.subscriber is not None,
        valid_from=format_time(registration.valid_from_s),
        valid_until=format_time(registration.valid_until_s),
        in_kernel=in_kernel,
        unprogrammed=unprogrammed,
        last_seen_at=format_time(last_seen_s),
        flows=flows,
        bytes=size_bytes,
        standing=standing,
        registrant=registration.registrant,
        provisional=registration.is_provisional,
        endpoints=words_of(registration.endpoints),
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
        sport=source_port(flow),
        registrations=registration_ids,
        packets=packets,
        bytes=size_bytes,
        first_seen_at=format_time(first_seen_s),
        last_seen_at=format_time(last_seen_s),
    )


def unregistered_flow_view(flow: Flow, seen_s: float) -> UnregisteredFlowView:
    return UnregisteredFlowView(
        format_address(flow.source),
        format_address(flow.destination),
        flow_service(flow),
        source_port(flow),
        format_time(seen_s),
    )


def bound_view(binding: Binding, now: float) -> BoundView:
    """`binding` as it is confirmed now."""
    return BoundView(**_bound(binding, now))


def binding_view(
    binding: Binding,
    now: float,
    *,
    registrations: tuple[str, ...],
    in_kernel: bool | None,
    also_of: tuple[str, ...] = (),
) -> BindingView:
    """`registrations`: ids of those that name its subscriber."""
    return BindingView(
        **_bound(binding, now),
        session=binding.session,
        registrations=registrations,
        in_kernel=in_kernel,
        also_of=also_of,
    )


def _bound(binding: Binding, now: float) -> dict[str, Any]:
    return {
        "prefix": str(binding.prefix),
        "ports": binding.ports,
        "nas": binding.nas,
        "since": format_time(binding.since_s),
        "confirmed": format_time(binding.confirmed_s),
        # Nothing where the NAS's clock is ahead of ours.
        "age_s": round(max(now - binding.confirmed_s, 0.0), 3),
        "restored": binding.is_restored,
    }


def source_port(flow: Flow) -> int | None:
    """None where there is none, or it was not asked for."""
    return flow.source_port or None


def words_of(prefixes: tuple[Prefix, ...]) -> tuple[str, ...]:
    return tuple(str(prefix) for prefix in prefixes)
