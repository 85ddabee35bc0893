"""What a flow is, by the registrations: the rule, and its reasons in words.

`matching_registrations` is the hot path and says only which; `decide` says why, for people.

A registration matches a flow in one of two roles: the source is in its clients and the destination in its
peers, or the other way round. Its service is the flow's protocol and the port of either end: after a reboot, or
once a conntrack entry ran out, the far end may speak first, and then the service's port is the source port. So a
flow and its reverse are always the same, and it does not matter whose packet made the conntrack entry.

A binding of its subscriber counts as a client in both roles. One with a port block (CGNAT) counts only where the
subscriber's port is in the block: the source port of what comes from the address, the destination port of what
goes to it. So it never counts for a protocol without ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from gatewayd.allowlist import words
from gatewayd.allowlist.endpoints import (
    MAX_MATCHING,
    Endpoints,
    answering,
    matching_endpoints,
    registered_at_endpoint,
    serves_at_endpoint,
)
from gatewayd.model import (
    Binding,
    Decision,
    Flow,
    Prefix,
    Registration,
    Service,
    format_address,
    reverse_flow,
    service_words,
)
from gatewayd.model.service import PROTOCOLS_WITH_PORTS

End = Literal["source", "destination"]


class FacingClients(Protocol):
    """Registrations whose clients cover an address, without some whose peers do not cover the other end's."""

    def facing(self, address: bytes, other: bytes) -> Sequence[Registration]: ...


class Covering(Endpoints, Protocol):
    """What is asked of an allowlist for people: all whose clients, or prefix, cover an address."""

    def covering(self, address: bytes) -> Sequence[Registration]: ...

    def bindings_at(self, address: bytes) -> Sequence[Binding]: ...

    def registrations_of(self, subscriber: bytes) -> Sequence[Registration]: ...


class FacingBindings(Protocol):
    """Bindings whose prefix covers an address, without some that do not have the port."""

    def bindings_facing(self, address: bytes, port: int) -> Sequence[Binding]: ...

    def registrations_of(self, subscriber: bytes) -> Sequence[Registration]: ...


class Facing(FacingClients, FacingBindings, Endpoints, Protocol): ...


def matching_registrations(allowlist: Facing, flow: Flow, now: float) -> tuple[Registration, ...]:
    """The registrations that make the flow registered at `now`, once each: those with the source in their
    clients, then those with the destination, then those through bindings alone, then those with it among their
    endpoints. At most MAX_MATCHING."""
    found = matching_bound(allowlist, flow, now, matching_clients(allowlist, flow, now))
    return matching_endpoints(allowlist, flow, now, found)


def matching_clients(allowlist: FacingClients, flow: Flow, now: float) -> tuple[Registration, ...]:
    found: tuple[Registration, ...] = ()
    for registration in allowlist.facing(flow.source, flow.destination):
        if _admits(registration, flow.destination, flow, now) and registration not in found:
            found += (registration,)
            if len(found) == MAX_MATCHING:
                return found
    for registration in allowlist.facing(flow.destination, flow.source):
        if _admits(registration, flow.source, flow, now) and registration not in found:
            found += (registration,)
            if len(found) == MAX_MATCHING:
                return found
    return found


def matching_bound(
    allowlist: FacingBindings, flow: Flow, now: float, found: tuple[Registration, ...]
) -> tuple[Registration, ...]:
    """`found`, and behind it those through bindings that are not in it."""
    for binding in allowlist.bindings_facing(flow.source, flow.source_port):
        if _shares_port(binding, flow.protocol, flow.source_port):
            for registration in allowlist.registrations_of(binding.subscriber):
                if _admits(registration, flow.destination, flow, now) and registration not in found:
                    found += (registration,)
                    if len(found) >= MAX_MATCHING:
                        return found
    for binding in allowlist.bindings_facing(flow.destination, flow.destination_port):
        if _shares_port(binding, flow.protocol, flow.destination_port):
            for registration in allowlist.registrations_of(binding.subscriber):
                if _admits(registration, flow.source, flow, now) and registration not in found:
                    found += (registration,)
                    if len(found) >= MAX_MATCHING:
                        return found
    return found


def registered_by(flow: Flow, registration: Registration, now: float, bindings: Iterable[Binding] = ()) -> bool:
    """Whether this registration makes the flow registered at `now`: the rule, without an index.

    `bindings`: all that may count; those of other subscribers and elsewhere do not.
    """
    held = [binding for binding in bindings if binding.subscriber == registration.subscriber]
    ends = (
        (flow.source, flow.source_port, flow.destination),
        (flow.destination, flow.destination_port, flow.source),
    )
    for near, port, far in ends:
        is_near = _includes(registration.clients, near) or any(
            binding.prefix.covers(near) and _shares_port(binding, flow.protocol, port) for binding in held
        )
        if is_near and _admits(registration, far, flow, now):
            return True
    return registered_at_endpoint(flow, registration, now)


def in_scope(scope: tuple[Service, ...], flow: Flow) -> bool:
    """Whether the policy looks at the flow's service at all; an empty scope looks at nothing."""
    return any(service.matches(flow.protocol, flow.destination_port) for service in scope)


def may_be_answer(scope: tuple[Service, ...], flow: Flow) -> bool:
    """Whether the source port is in scope: then the flow's first packet may be an answer of the far end, and it is
    registered or nothing at all."""
    return in_scope(scope, reverse_flow(flow))


def decide(allowlist: Covering, scope: tuple[Service, ...], flow: Flow, now: float) -> Decision:
    """The decision and its reason; they depend on what the allowlist holds, not on the order it came in.

    Out of scope, `registrations` are those that would match if the service were in scope.
    """
    # All of them are looked at, perhaps 50,000; words are made for those alone that are named.
    claims = list(_claims(allowlist, flow, now))
    matching = sorted((claim for claim in claims if not claim.failed), key=_Claim.nearness)
    registrations = tuple({claim.registration.id: claim.registration for claim in matching}.values())
    bindings = _bindings_that_count(matching)
    by_client = any(not claim.is_endpoint for claim in matching)
    if not in_scope(scope, flow) and not (by_client and may_be_answer(scope, flow)):
        return Decision("out_of_scope", registrations, _reason_out_of_scope(scope, flow, registrations), bindings)
    if registrations:
        nearest, others = matching[0], registrations[1:]
        reason = _reason_registered(nearest, flow, others, now) + _beside(nearest, claims, flow, now)
        return Decision("registered", registrations, reason, bindings)
    left_to = answering(allowlist, flow, now)
    if left_to:
        source = format_address(flow.source)
        what = f"{source} is an endpoint of {words.name_some(left_to)}"
        why = f"{what}, so this may be an answer, and the client's packet decides"
        return Decision("out_of_scope", (), why)
    return Decision("unregistered", (), _reason_unregistered(claims, flow, now))


# The rule. Plain loops: a generator expression costs more than what it would iterate over.


def _admits(registration: Registration, far: bytes, flow: Flow, now: float) -> bool:
    """The rule for a registration whose clients or binding have the near end: effective, peers and services
    agree."""
    if registration.status != "active" or not registration.valid_from_s <= now < registration.valid_until_s:
        return False
    if registration.peers and not _includes(registration.peers, far):
        return False
    services = registration.services
    return not services or _serves(services, flow)


def _count_failures(registration: Registration, far: bytes, flow: Flow, now: float) -> int:
    """How many conditions of `_admits` do not hold."""
    is_in_window = registration.valid_from_s <= now < registration.valid_until_s
    failed = int(registration.status != "active" or not is_in_window)
    failed += bool(registration.peers) and not _includes(registration.peers, far)
    return failed + (bool(registration.services) and not _serves(registration.services, flow))


def _shares_port(binding: Binding, protocol: int, port: int) -> bool:
    """Whether traffic of this protocol and port at the binding's address is the subscriber's."""
    ports = binding.ports
    return ports is None or (protocol in PROTOCOLS_WITH_PORTS and ports[0] <= port <= ports[1])


def _includes(prefixes: Iterable[Prefix], address: bytes) -> bool:
    for prefix in prefixes:  # noqa: SIM110
        if prefix.covers(address):
            return True
    return False


def _serves(services: Iterable[Service], flow: Flow) -> bool:
    """Whether one of them is the flow's, by the port of either end."""
    protocol, port, other = flow.protocol, flow.destination_port, flow.source_port
    for service in services:
        if service.protocol == protocol and (
            service.low <= port <= service.high or service.low <= other <= service.high
        ):
            return True
    return False


# The words.


class _Claim(msgspec.Struct, frozen=True, gc=False):
    """A registration whose clients, or whose subscriber's `binding`, have one end of the flow at `prefix`.

    `is_endpoint`: it is an endpoint of a provider.
    `failed`: how many conditions do not hold. `is_elsewhere`: the binding has other ports, so that this traffic of
    the shared address is another subscriber's.
    """

    registration: Registration
    end: End
    prefix: Prefix
    failed: int
    binding: Binding | None = None
    is_elsewhere: bool = False
    is_endpoint: bool = False

    def nearness(self) -> tuple[bool, int, bool, bool, bool, int, str, tuple[int, int]]:
        """Sorts matches first, then what fails least, and what is elsewhere last; ties: the source, a client
        prefix, the longest prefix, the id."""
        ports = self.binding.ports if self.binding is not None else None
        return (
            self.is_elsewhere,
            self.failed,
            self.is_endpoint,
            self.end == "destination",
            self.binding is not None,
            -self.prefix.length,
            self.registration.id,
            ports or (-1, -1),
        )


def _claims(allowlist: Covering, flow: Flow, now: float) -> Iterator[_Claim]:
    ends: tuple[tuple[End, bytes, bytes], ...] = (
        ("source", flow.source, flow.destination),
        ("destination", flow.destination, flow.source),
    )
    for end, near, far in ends:
        for each in {each.id: each for each in allowlist.covering(near)}.values():
            prefix = _longest_covering(each.clients, near)
            yield _Claim(each, end, prefix, _count_failures(each, far, flow, now))
        port = flow.source_port if end == "source" else flow.destination_port
        for binding in allowlist.bindings_at(near):
            is_elsewhere = not _shares_port(binding, flow.protocol, port)
            for each in allowlist.registrations_of(binding.subscriber):
                failed = _count_failures(each, far, flow, now) + is_elsewhere
                yield _Claim(each, end, binding.prefix, failed, binding, is_elsewhere)
        for each in {each.id: each for each in allowlist.endpoints_at(near)}.values():
            failed = len(list(_endpoint_failures(each, end, flow, now)))
            yield _Claim(each, end, _longest_covering(each.endpoints, near), failed, is_endpoint=True)


def _failures_of(claim: _Claim, flow: Flow, now: float) -> Iterator[str]:
    """Why it does not match, each as the rest of a sentence."""
    if claim.is_endpoint:
        yield from _endpoint_failures(claim.registration, claim.end, flow, now)
        return
    is_source = claim.end == "source"
    yield from _failures(claim.registration, flow.destination if is_source else flow.source, flow, now)
    if claim.binding is not None:
        port = flow.source_port if is_source else flow.destination_port
        yield from _binding_failures(claim.binding, claim.end, flow, port)


def _bindings_that_count(matching: Sequence[_Claim]) -> tuple[Binding, ...]:
    """Through which those match that do not match through clients; each once, the nearest first."""
    by_client = {claim.registration.id for claim in matching if claim.binding is None}
    counting = [claim.binding for claim in matching if claim.registration.id not in by_client]
    return tuple(dict.fromkeys(binding for binding in counting if binding is not None))


def _binding_failures(binding: Binding, end: End, flow: Flow, port: int) -> Iterator[str]:
    """Why a binding at this end does not count, each as the rest of a sentence."""
    if binding.ports is not None and not _shares_port(binding, flow.protocol, port):
        first, last = binding.ports
        has_port = flow.protocol in PROTOCOLS_WITH_PORTS and port
        other = f"not {port}" if has_port else f"and the flow has no {end} port"
        yield f"its binding has the ports {first}-{last} of the address, {other}"


def _failures(registration: Registration, far: bytes, flow: Flow, now: float) -> Iterator[str]:
    """The conditions of `_admits` that do not hold, each as the rest of a sentence."""
    yield from words.standing_failures(registration, now)
    if registration.peers and not _includes(registration.peers, far):
        yield f"its peers do not include {format_address(far)}"
    if registration.services and not _serves(registration.services, flow):
        yield words.other_services(registration, flow)


def _endpoint_failures(registration: Registration, end: End, flow: Flow, now: float) -> Iterator[str]:
    """The same of a provider's registration, one of whose endpoints is this end."""
    if end == "source":
        yield "a flow to its endpoints is registered, and never one from them"
    yield from words.standing_failures(registration, now)
    if end == "destination" and not serves_at_endpoint(registration, flow):
        yield words.other_services(registration, flow)


def _reason_registered(claim: _Claim, flow: Flow, others: Sequence[Registration], now: float) -> str:
    registration = claim.registration
    if claim.is_endpoint:
        return _reason_endpoint(claim, flow, others)
    facts = [f"{claim.end} in {claim.prefix}"]
    if claim.binding is not None:
        facts.extend(_binding_facts(claim.binding, claim.end, now))
    if registration.peers:
        far_end, far = ("destination", flow.destination) if claim.end == "source" else ("source", flow.source)
        facts.append(f"{far_end} in peer {_longest_covering(registration.peers, far)}")
    if registration.services:
        facts.append(f"service {words.matching_word(registration.services, flow)}")
    also = f"; also by {words.name_some(others)}" if others else ""
    return f"registered by {registration.id} ({registration.category}): {', '.join(facts)}{also}"


def _reason_endpoint(claim: _Claim, flow: Flow, others: Sequence[Registration]) -> str:
    provider, word = words.provider_name(claim.registration), words.matching_word(claim.registration.services, flow)
    facts = f"destination in {claim.prefix}, an endpoint of a licensed provider, from inside alone, service {word}"
    also = f"; also by {words.name_some(others)}" if others else ""
    return f"registered by {provider} ({claim.registration.category}): {facts}{also}"


def _reason_unregistered(claims: Sequence[_Claim], flow: Flow, now: float) -> str:
    if not claims:
        source, destination = format_address(flow.source), format_address(flow.destination)
        return f"no registration covers {source} or {destination}"
    first = min(claims, key=_Claim.nearness)
    return _reason_failed(first, flow, now) + _beside(first, claims, flow, now)


def _reason_failed(claim: _Claim, flow: Flow, now: float) -> str:
    has = "covers" if claim.binding is None else "is bound to"
    subject = claim.registration.id
    if claim.is_endpoint:
        has, subject = "has as an endpoint", words.provider_name(claim.registration)
    return f"{subject} {has} the {claim.end}, but {' and '.join(_failures_of(claim, flow, now))}"


def _beside(first: _Claim, claims: Sequence[_Claim], flow: Flow, now: float) -> str:
    """Where the nearest claim is by address, another's that is nearest by binding, and the reverse, unless that
    matches too: then it is named already."""
    others = [
        claim
        for claim in claims
        if (claim.binding is None) != (first.binding is None)
        and claim.registration.id != first.registration.id
        and not claim.is_elsewhere
    ]
    nearest = min(others, key=_Claim.nearness, default=None)
    return f"; {_reason_failed(nearest, flow, now)}" if nearest is not None and nearest.failed else ""


def _binding_facts(binding: Binding, end: End, now: float) -> Iterator[str]:
    """What is known of a binding; of its subscriber nothing."""
    if binding.ports is not None:
        yield f"{end} port in {binding.ports[0]}-{binding.ports[1]}"
    confirmed = f"confirmed {words.format_age(now - binding.confirmed_s)} ago"
    if binding.is_restored:
        confirmed += ", restored from the journal"
    since = words.format_moment(int(binding.since_s))
    yield f"bound to the registration's subscriber since {since} ({confirmed}) by NAS {binding.nas}"


def _reason_out_of_scope(scope: tuple[Service, ...], flow: Flow, registrations: Sequence[Registration]) -> str:
    listed = ", ".join(service_words(scope)) or "empty"
    would = f"; in scope it would be registered by {words.name_some(registrations)}" if registrations else ""
    return f"{words.flow_service(flow)} is outside the scope ({listed}){would}"


def _longest_covering(prefixes: Sequence[Prefix], address: bytes) -> Prefix:
    if len(prefixes) == 1:
        return prefixes[0]
    return max((prefix for prefix in prefixes if prefix.covers(address)), key=lambda prefix: prefix.length)
