"""A flow that no registration lets pass → the registration that it misses by least, and why. Pure.

Only the flow's source is looked at: what comes from the far end to a customer's address is the internet's noise. Of
a licensed provider it is the destination, which every customer may reach: where a provider is suspended, all miss
it. A registration is nearer the fewer of its conditions fail, and then the longer its prefix. What was the
source's until a moment ago counts like what is, with one condition failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, Protocol, get_args

import msgspec

from gatewayd.model import Flow, Prefix, Registration, Service
from gatewayd.model.prefix import mask_address
from gatewayd.model.registration import Binding, Ports
from gatewayd.model.service import PROTOCOLS_WITH_PORTS
from gatewayd.near_miss.former import Former, FormerClient

Reason = Literal[
    "suspended",
    "revoked",
    "not_open_yet",
    "window_closed",
    "withdrawn",
    "address_moved",
    "binding_ended",
    "peer_not_listed",
    "service_not_listed",
    "not_programmed",
]
"""In the order in which they are named where several hold."""

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
MAX_LOOKED_AT: Final = 64
"""Registrations of one address that are looked at, beside those whose peers cover the far end."""


class Miss(msgspec.Struct, frozen=True, gc=False):
    """`service`: the flow's. `far`: the /24 or /48 of its destination."""

    registration_id: str
    category: str
    reason: Reason
    service: Service
    far: Prefix


class Around(Protocol):
    """What is asked of an allowlist."""

    def around(self, address: bytes, other: bytes, most: int) -> Sequence[Registration]:
        """Registrations with the address in their clients, of any status: those whose peers cover the other end,
        and some of the others."""
        ...

    def endpoints_at(self, address: bytes) -> Sequence[Registration]:
        """Registrations with an endpoint that covers the address, of any status."""
        ...

    def bindings_facing(self, address: bytes, port: int) -> Sequence[Binding]: ...

    def registrations_of(self, subscriber: bytes) -> Sequence[Registration]: ...

    def get(self, registration_id: str) -> Registration | None: ...

    def has_place(self, subscriber: bytes) -> bool:
        """Whether the subscriber has an address now."""
        ...


def classify(allowlist: Around, former: Former, flow: Flow, now: float) -> Miss | None:
    """Which registration the flow misses; None for a stranger's. `now`: as of `Allowlist.matching`."""
    nearest: tuple[int, int, str] | None = None
    found: tuple[Registration, Reason] | None = None
    for registration, length, reasons in _claims(allowlist, former, flow, now):
        distance = (len(reasons), -length, registration.id)
        if nearest is None or distance < nearest:
            nearest = distance
            found = registration, (reasons[0] if reasons else "not_programmed")
    if found is None:
        return None
    registration, reason = found
    return Miss(registration.id, registration.category, reason, service_of(flow), far_of(flow.destination))


def _claims(
    allowlist: Around, former: Former, flow: Flow, now: float
) -> Iterator[tuple[Registration, int, tuple[Reason, ...]]]:
    """Registrations, the length of their prefix there, and the conditions that fail."""
    source, far = flow.source, flow.destination
    for registration in allowlist.around(source, far, MAX_LOOKED_AT):
        length = max((each.length for each in registration.clients if each.covers(source)), default=0)
        yield registration, length, failures(registration, far, flow, now)
    for registration in allowlist.endpoints_at(far)[:MAX_LOOKED_AT]:
        # One that misses nothing is judged by the kernel: the flow came from outside.
        if failed_there := endpoint_failures(registration, flow, now):
            yield registration, 0, failed_there
    for binding in allowlist.bindings_facing(source, flow.source_port):
        if binding.prefix.covers(source) and _has_port(binding.ports, flow):
            for registration in allowlist.registrations_of(binding.subscriber):
                yield registration, binding.prefix.length, failures(registration, far, flow, now)
    for each in former.covering(source):
        if _has_port(each.ports, flow):
            reason = _why_former(allowlist, each)
            failed = (reason, *failures(each.registration, far, flow, now))
            yield each.registration, each.prefix.length, tuple(sorted(failed, key=REASONS.index))


def failures(registration: Registration, far: bytes, flow: Flow, now: float) -> tuple[Reason, ...]:
    """The conditions of the rule that fail, its clients apart: none of them, and it lets the flow pass."""
    found = _standing(registration, now)
    if registration.peers and not any(peer.covers(far) for peer in registration.peers):
        found += ("peer_not_listed",)
    ports = flow.destination_port, flow.source_port
    if registration.services and not any(
        service.matches(flow.protocol, port) for service in registration.services for port in ports
    ):
        found += ("service_not_listed",)
    return found


def endpoint_failures(registration: Registration, flow: Flow, now: float) -> tuple[Reason, ...]:
    """The same of a provider that has the flow's destination among its endpoints: its service is at that port."""
    found = _standing(registration, now)
    if not any(service.matches(flow.protocol, flow.destination_port) for service in registration.services):
        found += ("service_not_listed",)
    return found


def _standing(registration: Registration, now: float) -> tuple[Reason, ...]:
    if registration.status != "active":
        return (registration.status,)
    if not registration.valid_from_s <= now:
        return ("not_open_yet",)
    return () if now < registration.valid_until_s else ("window_closed",)


def _why_former(allowlist: Around, former: FormerClient) -> Reason:
    registration = former.registration
    if not former.is_bound:
        return "withdrawn" if allowlist.get(registration.id) is None else "address_moved"
    subscriber = registration.subscriber
    return "address_moved" if subscriber is not None and allowlist.has_place(subscriber) else "binding_ended"


def _has_port(ports: Ports, flow: Flow) -> bool:
    """Whether the flow's source port is the subscriber's; without ports the whole address is."""
    return ports is None or (flow.protocol in PROTOCOLS_WITH_PORTS and ports[0] <= flow.source_port <= ports[1])


def service_of(flow: Flow) -> Service:
    """Of the destination port; without a port the protocol."""
    port = flow.destination_port
    return (
        Service(flow.protocol, port, port)
        if flow.protocol in PROTOCOLS_WITH_PORTS and port
        else Service(flow.protocol)
    )


def far_of(address: bytes) -> Prefix:
    """The neighbourhood of the far end, as the aggregates have them."""
    length = 24 if len(address) == 4 else 48
    return Prefix(mask_address(address, length), length)
