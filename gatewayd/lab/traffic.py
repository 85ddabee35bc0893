"""What becomes of flows at the gateway, by real packets and real handshakes.

    with Lab() as lab:
        for flow, outcome in zip(flows, probe(lab, flows)): ...

Blocks; from a coroutine use `asyncio.to_thread`.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from gatewayd.errors import ServiceInvalid
from gatewayd.lab.handshake import MAX_HANDSHAKES_AT_ONCE, HandshakeProbe
from gatewayd.lab.lab import End, Lab, Side
from gatewayd.lab.packets import is_icmp, parse_flow, refused_packet
from gatewayd.lab.tap import Tap, Tokens
from gatewayd.model import Flow, parse_address, parse_service, reverse_flow
from gatewayd.model.service import PROTOCOLS_WITH_PORTS, TCP

Outcome = Literal["passed", "rejected", "lost"]

DEFAULT_DEADLINE_S = 10.0
"""A machine may be busy with something else."""
_PACKETS_AT_ONCE = 256
EPHEMERAL_PORT = 40000
"""Source port of `flow_of` where none is asked for."""


def flow_of(source: str, destination: str, service: str, source_port: int | None = None) -> Flow:
    """A flow in words: `flow_of("39.32.0.1", "198.51.100.7", "udp/51820")`.

    `source_port` is ignored where the protocol has no ports; a new one makes a new flow for connection tracking.
    Raises PrefixInvalid, or ServiceInvalid: a bundle or a port range is more than one flow.
    """
    found = parse_service(service)
    if len(found) != 1 or (found[0].protocol in PROTOCOLS_WITH_PORTS and found[0].low != found[0].high):
        raise ServiceInvalid(service, "one protocol, and one port where it has ports, make a flow")
    protocol, port = found[0].protocol, found[0].low
    if protocol not in PROTOCOLS_WITH_PORTS:
        source_port = 0
    elif source_port is None:
        source_port = EPHEMERAL_PORT
    return Flow(protocol, parse_address(source), parse_address(destination), source_port, port)


def probe(
    lab: Lab,
    flows: Sequence[Flow],
    *,
    start: Side = "customers",
    answered: bool = False,
    deadline_s: float = DEFAULT_DEADLINE_S,
) -> list[Outcome]:
    """Send a packet of each flow, or make its TCP handshake, from `start`; the outcomes in the order of `flows`.

    - passed: it arrived at the other side (TCP: connected, and an echo came back).
    - rejected: an ICMP "administratively prohibited" that quotes it, or a TCP reset, came back.
    - lost: neither within `deadline_s`, which starts anew for the packets and for each hundred handshakes. No
      time is spent when nothing is lost.

    `answered`: the far end answers each packet, and passed means that the answer came back; flows are then
    two-way. `start="internet"`: the far end initiates; a flow's source is then the far end's address.
    Raises EventsLost if what arrived could not all be seen.

    What nft rejects is lost, not rejected, for ipip, ipv6, l2tpv3 and for AH over IPv6: the kernel answers only
    if the body sums up as if it had a checksum (6.18, nf_reject_verify_csum; in AH over IPv6 it sees the inner
    protocol).
    """
    near, far = (lab.inside, lab.outside) if start == "customers" else (lab.outside, lab.inside)
    outcomes: dict[int, Outcome] = {}
    handshakes = [number for number, flow in enumerate(flows) if flow.protocol == TCP]
    packets = {number: flow for number, flow in enumerate(flows) if flow.protocol != TCP}
    if packets:
        outcomes |= _probe_packets(near, far, packets, answered, deadline_s)
    for group in _groups(handshakes, MAX_HANDSHAKES_AT_ONCE):
        with HandshakeProbe(near, far, {number: flows[number] for number in group}) as attempt:
            attempt.wait(deadline_s)
            outcomes |= {number: "passed" for number in attempt.passed}
            outcomes |= {number: "rejected" for number in attempt.rejected}
    return [outcomes.get(number, "lost") for number in range(len(flows))]


def _groups(numbers: list[int], size: int) -> Iterator[list[int]]:
    return (numbers[at : at + size] for at in range(0, len(numbers), size))


def _probe_packets(
    near: End, far: End, flows: dict[int, Flow], answered: bool, deadline_s: float
) -> dict[int, Outcome]:
    outcomes: dict[int, Outcome] = {}
    tokens = Tokens()

    def look() -> None:
        for number, flow in arrivals(far_tap, tokens, flows):
            if answered:
                far_tap.send(reverse_flow(flow), tokens.payload(number))
            else:
                outcomes[number] = "passed"
        for packet in near_tap.packets():
            quoted = refused_packet(packet)
            named = tokens.number_in(packet if quoted is None else quoted)
            if named is not None and quoted is not None:
                outcomes[named] = "rejected"
            elif named is not None and answered and not is_icmp(packet):
                outcomes[named] = "passed"

    with Tap(near) as near_tap, Tap(far) as far_tap:
        for group in _groups(list(flows), _PACKETS_AT_ONCE):
            for number in group:
                near_tap.send(flows[number], tokens.payload(number))
            look()
        deadline = time.monotonic() + deadline_s
        while len(outcomes) < len(flows) and (left_s := deadline - time.monotonic()) > 0:
            if select.select([near_tap, far_tap], [], [], left_s)[0]:
                look()
    return outcomes


def arrivals(tap: Tap, tokens: Tokens, flows: Mapping[int, Flow] | Sequence[Flow]) -> Iterator[tuple[int, Flow]]:
    """(number, flow) of the run's packets that `tap` has captured, for number n of `flows` (a sequence: n
    modulo its length). An ICMP error that quotes one is no arrival, nor is an answer that was routed back to
    who gave it."""
    for packet in tap.packets():
        number = None if is_icmp(packet) else tokens.number_in(packet)
        if number is None:
            continue
        flow = flows[number] if isinstance(flows, Mapping) else flows[number % len(flows)]
        seen = parse_flow(packet)
        if seen is not None and (seen.source, seen.destination) == (flow.source, flow.destination):
            yield number, flow
