"""Endpoints of licensed providers: registrations of a destination alone.

A flow from inside to an endpoint is registered, and never one from it. Its packets to the endpoint say so, and no
packet of the endpoint does: the service is at the endpoint's port. So, unlike a client's, a flow and its reverse
are not the same.

The far end may be the first to speak of a flow that is a client's: after a flush, a failover, a reboot or an idle
hour. With ports such as 500 at both ends, or with none at all, its packet looks like one that opens a flow. It is
left alone: it neither makes the flow registered nor is refused, and the client's packet decides (`answering`). Of
TCP the flags tell: a SYN opens a flow, and is no answer.

An allowlist does not know which end is inside. The rules do where an interface is named (compile.endpoints).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from gatewayd.model import Flow, Registration, reverse_flow
from gatewayd.model.service import TCP

MAX_MATCHING: Final = 64
"""Registrations that are found for a flow: a flow may be of thousands, and one is enough for it to pass."""


class Endpoints(Protocol):
    """Registrations with an endpoint that covers an address, effective or not, longest prefix first."""

    def endpoints_at(self, address: bytes) -> Sequence[Registration]: ...


def admits_at_endpoint(registration: Registration, flow: Flow, now: float) -> bool:
    """The rule for a registration that has the flow's destination among its endpoints."""
    return registration.is_effective(now) and serves_at_endpoint(registration, flow)


def serves_at_endpoint(registration: Registration, flow: Flow) -> bool:
    """Whether the flow's service, by its destination port alone, is one of the provider's."""
    return any(service.matches(flow.protocol, flow.destination_port) for service in registration.services)


def has_endpoint(registration: Registration, address: bytes) -> bool:
    return any(prefix.covers(address) for prefix in registration.endpoints)


def registered_at_endpoint(flow: Flow, registration: Registration, now: float) -> bool:
    """Whether this registration makes the flow registered by an endpoint: the rule, without an index."""
    return has_endpoint(registration, flow.destination) and admits_at_endpoint(registration, flow, now)


def matching_endpoints(
    allowlist: Endpoints, flow: Flow, now: float, found: tuple[Registration, ...] = ()
) -> tuple[Registration, ...]:
    """`found`, and behind it those by an endpoint that are not in it. At most MAX_MATCHING."""
    for registration in allowlist.endpoints_at(flow.destination):
        if len(found) >= MAX_MATCHING:
            break
        if admits_at_endpoint(registration, flow, now) and registration not in found:
            found += (registration,)
    return found


def answering(allowlist: Endpoints, flow: Flow, now: float) -> tuple[Registration, ...]:
    """Those of which an endpoint sent the flow's first packet, if that may be an answer: the client's decides."""
    return () if flow.protocol == TCP else matching_reversed(allowlist, flow, now)


def matching_reversed(allowlist: Endpoints, flow: Flow, now: float) -> tuple[Registration, ...]:
    """Those that make a connection registered which an endpoint's packet made, once the client has answered."""
    return matching_endpoints(allowlist, reverse_flow(flow), now)
