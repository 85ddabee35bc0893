"""What a flow is, by the registrations: the rule of DESIGN §5, and its reasons in words.

`matching_registrations` is the hot path and says only which; `decide` says why, for people.

A registration matches a flow in one of two roles: the source is in its clients and the destination in its
peers, or the other way round (a connection in from the far end). In both, the service is the flow's protocol
and destination port.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from gatewayd.model import Decision, Flow, Prefix, Registration, Service, format_address, service_words
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS

End = Literal["source", "destination"]

_NAMED_AT_MOST = 3
"""How many further registrations a reason names before it only counts them."""


class Covering(Protocol):
    """What is asked of an allowlist: registrations whose clients cover an address, longest prefix first."""

    def covering(self, address: bytes) -> Sequence[Registration]: ...


def matching_registrations(allowlist: Covering, flow: Flow, now: float) -> tuple[Registration, ...]:
    """The registrations that make the flow registered at `now`, once each; those of the source come first."""
    found: tuple[Registration, ...] = ()
    for registration in allowlist.covering(flow.source):
        if _admits(registration, flow.destination, flow, now) and registration not in found:
            found += (registration,)
    for registration in allowlist.covering(flow.destination):
        if _admits(registration, flow.source, flow, now) and registration not in found:
            found += (registration,)
    return found


def registered_by(flow: Flow, registration: Registration, now: float) -> bool:
    """Whether this registration makes the flow registered at `now`: the rule, without an index."""
    source, destination = flow.source, flow.destination
    return (_includes(registration.clients, source) and _admits(registration, destination, flow, now)) or (
        _includes(registration.clients, destination) and _admits(registration, source, flow, now)
    )


def in_scope(scope: tuple[Service, ...], flow: Flow) -> bool:
    """Whether the policy looks at the flow's service at all; an empty scope looks at nothing."""
    return _serves(scope, flow)


def decide(allowlist: Covering, scope: tuple[Service, ...], flow: Flow, now: float) -> Decision:
    """The decision and its reason; they depend on what the allowlist holds, not on the order it came in.

    Out of scope, `registrations` are those that would match if the service were in scope.
    """
    claims = sorted(_claims(allowlist, flow, now), key=_Claim.nearness)
    matching = {claim.registration.id: claim.registration for claim in claims if not claim.failures}
    registrations = tuple(matching.values())
    if not in_scope(scope, flow):
        return Decision("out_of_scope", registrations, _reason_out_of_scope(scope, flow, registrations))
    if registrations:
        return Decision("registered", registrations, _reason_registered(claims[0], flow, registrations[1:]))
    return Decision("unregistered", (), _reason_unregistered(claims, flow))


# The rule. Plain loops: a generator expression costs more than what it would iterate over.


def _admits(registration: Registration, far: bytes, flow: Flow, now: float) -> bool:
    """The rule for a registration whose clients have the near end: effective, peers and services agree."""
    if registration.status != "active" or not registration.valid_from_s <= now < registration.valid_until_s:
        return False
    if registration.peers and not _includes(registration.peers, far):
        return False
    services = registration.services
    if not services:
        return True
    protocol, port = flow.protocol, flow.destination_port
    for service in services:  # noqa: SIM110
        if service.protocol == protocol and service.low <= port <= service.high:
            return True
    return False


def _includes(prefixes: Iterable[Prefix], address: bytes) -> bool:
    for prefix in prefixes:  # noqa: SIM110
        if prefix.covers(address):
            return True
    return False


def _serves(services: Iterable[Service], flow: Flow) -> bool:
    for service in services:  # noqa: SIM110
        if service.matches(flow.protocol, flow.destination_port):
            return True
    return False


# The words.


@dataclass(frozen=True, slots=True)
class _Claim:
    """A registration whose clients have one end of the flow. `failures`: none, or why it does not match."""

    registration: Registration
    end: End
    prefix: Prefix
    failures: tuple[str, ...]

    def nearness(self) -> tuple[int, bool, int, str]:
        """Sorts matches first, then what fails least; ties: the source, the longest prefix, the id."""
        return len(self.failures), self.end == "destination", -self.prefix.length, self.registration.id


def _claims(allowlist: Covering, flow: Flow, now: float) -> Iterator[_Claim]:
    ends: tuple[tuple[End, bytes, bytes], ...] = (
        ("source", flow.source, flow.destination),
        ("destination", flow.destination, flow.source),
    )
    for end, near, far in ends:
        for registration in {each.id: each for each in allowlist.covering(near)}.values():
            yield _Claim(
                registration,
                end,
                _longest_covering(registration.clients, near),
                tuple(_failures(registration, far, flow, now)),
            )


def _failures(registration: Registration, far: bytes, flow: Flow, now: float) -> Iterator[str]:
    """The conditions of `_admits` that do not hold, each as the rest of a sentence."""
    if registration.status != "active":
        yield f"is {registration.status}"
    elif now < registration.valid_from_s:
        yield f"its window opens at {_format_moment(registration.valid_from_s)}"
    elif now >= registration.valid_until_s:
        yield f"its window closed at {_format_moment(registration.valid_until_s)}"
    if registration.peers and not _includes(registration.peers, far):
        yield f"its peers do not include {format_address(far)}"
    if registration.services and not _serves(registration.services, flow):
        yield f"its services are {', '.join(service_words(registration.services))}, not {_flow_service(flow)}"


def _reason_registered(claim: _Claim, flow: Flow, others: Sequence[Registration]) -> str:
    registration = claim.registration
    facts = [f"{claim.end} in {claim.prefix}"]
    if registration.peers:
        far_end, far = ("destination", flow.destination) if claim.end == "source" else ("source", flow.source)
        facts.append(f"{far_end} in peer {_longest_covering(registration.peers, far)}")
    if registration.services:
        facts.append(f"service {_matching_word(registration.services, flow)}")
    also = f"; also by {_name_some(others)}" if others else ""
    return f"registered by {registration.id} ({registration.category}): {', '.join(facts)}{also}"


def _reason_unregistered(claims: Sequence[_Claim], flow: Flow) -> str:
    if not claims:
        source, destination = format_address(flow.source), format_address(flow.destination)
        return f"no registration covers {source} or {destination}"
    nearest = claims[0]
    return f"{nearest.registration.id} covers the {nearest.end}, but {' and '.join(nearest.failures)}"


def _reason_out_of_scope(scope: tuple[Service, ...], flow: Flow, registrations: Sequence[Registration]) -> str:
    words = ", ".join(service_words(scope)) or "empty"
    would = f"; in scope it would be registered by {_name_some(registrations)}" if registrations else ""
    return f"{_flow_service(flow)} is outside the scope ({words}){would}"


def _longest_covering(prefixes: Iterable[Prefix], address: bytes) -> Prefix:
    return max((prefix for prefix in prefixes if prefix.covers(address)), key=lambda prefix: prefix.length)


def _name_some(registrations: Sequence[Registration]) -> str:
    named = ", ".join(registration.id for registration in registrations[:_NAMED_AT_MOST])
    rest = len(registrations) - _NAMED_AT_MOST
    return f"{named} and {rest} more" if rest > 0 else named


def _matching_word(services: Sequence[Service], flow: Flow) -> str:
    """The word, among those for `services`, that stands for the flow's service."""
    for word in service_words(services):
        if word in BUNDLES and _serves(BUNDLES[word], flow):
            return word
    return next(str(service) for service in services if service.matches(flow.protocol, flow.destination_port))


def _flow_service(flow: Flow) -> str:
    if flow.protocol not in PROTOCOLS_WITH_PORTS:
        return str(Service(flow.protocol))
    return str(Service(flow.protocol, flow.destination_port, flow.destination_port))


def _format_moment(at_s: float) -> str:
    """RFC 3339 in UTC; the reader of records has bounded it to what a calendar holds."""
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
