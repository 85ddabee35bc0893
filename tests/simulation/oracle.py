"""What is registered, and what the kernel makes of a flow, in the dumbest way: a bit for each flow of `parties`.

The registry's side asks whether an address lies in a prefix and a port among the services: it knows no mask, no
element and no set. The kernel's side looks into the sets that the rules in force name, as the rules do.
"""

from __future__ import annotations

from functools import cache

from gatewayd.compile.effects import canary_bucket
from gatewayd.kernel.fake import FakeSet, FakeTable
from gatewayd.model.flow import Flow
from gatewayd.model.mask import Mask, parse_set_name
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Ports, Registration
from tests.simulation.parties import FLOWS
from tests.support.reconciling import keys_asked

ALL = (1 << len(FLOWS)) - 1


def _is_of(registration: Registration, flow: Flow) -> bool:
    """Whether one of its services is at the port of either end."""
    ports = flow.destination_port, flow.source_port
    return not registration.services or any(
        each.matches(flow.protocol, port) for each in registration.services for port in ports
    )


def _is_at(registration: Registration, client: Prefix, ports: Ports, flow: Flow) -> bool:
    """Whether the flow is between the client, at its own port, and a peer; either may have opened it."""
    near, far = (flow.source, flow.source_port), (flow.destination, flow.destination_port)
    for (own, own_port), (peer, _) in ((near, far), (far, near)):
        if len(own) != len(client.packed) or not client.covers(own):
            continue
        if ports is not None and not ports[0] <= own_port <= ports[1]:
            continue
        if not registration.peers or any(
            len(peer) == len(each.packed) and each.covers(peer) for each in registration.peers
        ):
            return _is_of(registration, flow)
    return False


def _is_to(endpoint: Prefix, registration: Registration, flow: Flow) -> bool:
    return (
        len(endpoint.packed) == len(flow.destination)
        and endpoint.covers(flow.destination)
        and any(each.matches(flow.protocol, flow.destination_port) for each in registration.services)
    )


@cache
def flows_of(registration: Registration) -> int:
    """Those that it registers by itself, while it is active; its window is the caller's."""
    if registration.status != "active":
        return 0
    return sum(
        1 << number
        for number, flow in enumerate(FLOWS)
        if any(_is_at(registration, client, None, flow) for client in registration.clients)
        or any(_is_to(endpoint, registration, flow) for endpoint in registration.endpoints)
    )


@cache
def flows_at(registration: Registration, prefix: Prefix, ports: Ports) -> int:
    """Those that it registers for a subscriber who has this address, or these ports of it."""
    if registration.status != "active":
        return 0
    return sum(1 << number for number, flow in enumerate(FLOWS) if _is_at(registration, prefix, ports, flow))


# -- the kernel ------------------------------------------------------------------------------------------------


@cache
def _mask_of(set_name: str) -> Mask | None:
    parsed = parse_set_name(set_name)
    return None if parsed is None or parsed[0].is_near else parsed[0]


@cache
def _asked(mask: Mask) -> dict[bytes, int]:
    """For each key that the rules ask a set of the mask for, the flows for which they do."""
    found: dict[bytes, int] = {}
    for number, flow in enumerate(FLOWS):
        for key in keys_asked(mask, flow):
            found[key] = found.get(key, 0) | 1 << number
    return found


def flows_found(table: FakeTable | None, now: float) -> int:
    """Those that the rules in force find registered."""
    if table is None:
        return 0
    found = 0
    for name in table.used:
        mask = _mask_of(name)
        if mask is not None:
            found |= _found_in(mask, table.sets[name], now)
    return found


def _found_in(mask: Mask, content: FakeSet, now: float) -> int:
    asked, until, found = _asked(mask), content.until, 0
    for key in content.keys:
        flows = asked.get(key)
        if flows is not None and (not until or until.get(key, now + 1) > now):
            found |= flows
    return found


@cache
def beyond_canary(percent: int) -> int:
    """Those that rules refuse nothing of, as the client that opened them is not among so many percent."""
    return sum(1 << number for number, flow in enumerate(FLOWS) if canary_bucket(flow.source) >= percent)


def flows_gone(before: FakeTable | None, after: FakeTable | None) -> int:
    """Those of elements that are there no more."""
    found = 0
    for name, content in ({} if before is None else before.sets).items():
        mask = _mask_of(name)
        left = after.sets[name].keys if after is not None and name in after.sets else frozenset[bytes]()
        for key in content.keys - left if mask is not None else ():
            assert mask is not None
            found |= _asked(mask).get(key, 0)
    return found
