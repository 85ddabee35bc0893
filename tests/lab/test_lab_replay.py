"""Captures of real tunnels through the rules: the kernel's verdict on each packet is that of `decide`."""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Self

import pytest
from pyroute2 import IPRoute

from gatewayd.lab.lab import INSIDE, OUTSIDE, Lab, Side
from gatewayd.lab.packets import parse_flow, refused_packet
from gatewayd.lab.tap import Tap
from gatewayd.model import Prefix, Registration, Service, parse_prefix, parse_services, reverse_flow
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.service import IPV6, TCP
from tests.support.replay import (
    DEFAULT_SCOPE,
    RST,
    Capture,
    Expected,
    Replayed,
    all_words,
    captures,
    same_packet,
    tcp_flags,
)
from tests.support.talk import Outcome, Talk
from tests.support.worlds import World

pytestmark = pytest.mark.kernel

PATIENCE_S = 10.0
WIDE_SCOPE = parse_services(all_words())
"""All that the captures show."""
MTU = 9000
"""Two captured packets are larger than a wire takes: the card of their host had put segments together."""


@pytest.fixture(scope="module")
def lab(kernel: None) -> Iterator[Lab]:
    """Nothing at its ends answers, and no connection runs out while a busy machine takes its time."""
    with Lab((parse_prefix("39.32.0.0/11"), parse_prefix("2400:adc0::/31"))) as made:
        for wire in (INSIDE, OUTSIDE):
            made.gateway.configure(partial(_set_mtu, wire.gateway_interface))
        for end in (made.inside, made.outside):
            end.namespace.configure(partial(_set_mtu, end.interface))
            drop = f"type filter hook prerouting priority raw; iifname {end.interface} drop"
            end.namespace.nft(f"table inet deaf {{\nchain every {{\n{drop}\n}}\n}}\n")
        for name in (
            "tcp_timeout_close",
            "tcp_timeout_syn_sent",
            "udp_timeout",
            "udp_timeout_stream",
            "gre_timeout",
        ):
            made.gateway.sysctl(f"net.netfilter.nf_conntrack_{name}", "3600")
        yield made


def _set_mtu(interface: str, ip: IPRoute) -> None:
    ip.link("set", index=ip.link_lookup(ifname=interface)[0], mtu=MTU)


class Replay(ExitStack):
    """Captured packets onto the wires of a lab, one at a time, and what became of each."""

    def __init__(self, lab: Lab, talk: Talk) -> None:
        super().__init__()
        self._talk = talk
        self._taps: dict[Side, Tap] = {}
        self._wires: dict[Side, tuple[socket.socket, bytes]] = {}
        sides: tuple[Side, ...] = ("customers", "internet")
        for side, wire in zip(sides, (INSIDE, OUTSIDE), strict=True):
            end = lab.end(side)
            self._taps[side] = self.enter_context(Tap(end))
            with end.namespace.entered():
                raw = self.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            raw.bind((end.interface, 0))
            both = wire.gateway_hardware + ":" + wire.end_hardware
            self._wires[side] = raw, bytes.fromhex(both.replace(":", ""))

    def __enter__(self) -> Self:
        return self

    def put_on_wire(self, side: Side, packet: bytes) -> None:
        raw, header = self._wires[side]
        raw.send(header + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet)

    def outcome(self, sent: Replayed) -> Outcome:
        """ "lost": it neither came out nor was answered, and the rules did not count it as refused either."""
        near = self._taps[sent.side]
        far = self._taps["internet" if sent.side == "customers" else "customers"]
        silent = _is_refused_silently(sent)
        before = self._talk.counter("rejected_packets") if silent else 0
        self.put_on_wire(sent.side, sent.packet)
        deadline = time.monotonic() + PATIENCE_S
        while (left_s := deadline - time.monotonic()) > 0:
            if not select.select([near, far], [], [], 0.005 if silent else left_s)[0]:
                if silent and self._talk.counter("rejected_packets") > before:
                    return "rejected"
                continue
            if any(same_packet(packet, sent.packet) for packet in far.packets()):
                return "passed"
            if any(_refuses(packet, sent) for packet in near.packets()):
                return "rejected"
        return "lost"


def _is_refused_silently(sent: Replayed) -> bool:
    """The kernel answers no reset, and no protocol whose body does not sum up as if it had a checksum."""
    return sent.flow.protocol == IPV6 or bool(tcp_flags(sent.packet) & RST)


def _refuses(packet: bytes, sent: Replayed) -> bool:
    quoted = refused_packet(packet)
    if quoted is not None:
        return same_packet(quoted, sent.packet)
    is_reset = sent.flow.protocol == TCP and bool(tcp_flags(packet) & RST)
    return is_reset and parse_flow(packet) == reverse_flow(sent.flow)


def policy(scope: tuple[Service, ...]) -> Policy:
    return Policy("reject", scope, MarkLayout(0xFF000000), inside=("inside*",), outside=("outside0",))


def registered(capture: Capture, words: Sequence[str]) -> Registration:
    clients = tuple(Prefix(each, len(each) * 8) for each in capture.clients)
    name = capture.name.partition(".")[0]
    return Registration(name, "bank", "active", clients, services=parse_services(words))


def another_service(capture: Capture) -> tuple[str, ...]:
    return ("openvpn",) if "ipsec" in capture.words else ("ipsec",)


def nothing(capture: Capture) -> tuple[str, ...] | None:
    return None


HOLDERS: dict[str, Callable[[Capture], tuple[str, ...] | None]] = {
    "shown": lambda capture: capture.words,
    "another": another_service,
    "none": nothing,
}


def world_of(holder: str, policy: Policy) -> World:
    """The clients of each capture registered for its own services, for another, or not at all."""
    words = ((capture, HOLDERS[holder](capture)) for capture in captures())
    return World([registered(capture, some) for capture, some in words if some is not None], policy)


@pytest.mark.parametrize("scope", [DEFAULT_SCOPE, WIDE_SCOPE], ids=["default scope", "all in scope"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_the_kernels_verdict_on_each_captured_packet_is_decides(
    lab: Lab, holder: str, scope: tuple[Service, ...]
) -> None:
    world = world_of(holder, policy(scope))
    seen: Counter[tuple[Outcome, bool]] = Counter()
    with Talk(lab) as talk, Replay(lab, talk) as replay:
        talk.put(world)
        for capture in captures():
            assert list(complaints(replay, capture.packets, world, seen)) == []
        assert talk.counter("rejected_packets") == seen["rejected", True]
        assert talk.counter("registered_packets") == (seen["passed", True] if holder == "shown" else 0)
    # What is out of scope is never refused; what is registered passes whole; of the rest no client's packet does.
    assert seen["rejected", False] == 0
    by_client = sum(
        each.is_in_scope(scope) for capture in captures() for each in capture.packets if each.is_by_client()
    )
    if holder == "shown":
        assert seen["rejected", True] == 0
    else:
        assert seen["rejected", True] >= by_client


def complaints(
    replay: Replay, packets: Sequence[Replayed], world: World, seen: Counter[tuple[Outcome, bool]]
) -> Iterator[str]:
    """`seen`: outcomes, each with whether the packet is in scope."""
    expected = Expected(world)
    for sent in packets:
        outcome, wanted = replay.outcome(sent), "passed" if expected.passes(sent) else "rejected"
        seen[outcome, sent.is_in_scope(world.policy.scope)] += 1
        if outcome != wanted:
            why = world.decision(sent.flow).reason
            yield f"{sent.name} from the {sent.side}: {outcome}, not {wanted}; {why}"


def test_without_named_interfaces_a_registered_tunnel_passes_whole(lab: Lab) -> None:
    world = world_of("shown", replace(policy(WIDE_SCOPE), inside=(), outside=()))
    with Talk(lab) as talk, Replay(lab, talk) as replay:
        talk.put(world)
        packets = [each for capture in captures() for each in capture.packets]
        assert [each.name for each in packets if replay.outcome(each) != "passed"] == []
        assert talk.counter("registered_packets") == len(packets)


def test_a_verdict_that_is_not_decides_is_found(lab: Lab) -> None:
    """The kernel has other registrations than the allowlist that is asked."""
    some, none = (world_of(holder, policy(DEFAULT_SCOPE)) for holder in ("shown", "none"))
    ike = next(each for each in captures() if each.name == "ndpi-esp.pcapng").packets
    with Talk(lab) as talk, Replay(lab, talk) as replay:
        for programmed, asked, what in ((some, none, "passed, not rejected"), (none, some, "rejected, not passed")):
            talk.put(programmed)
            found = list(complaints(replay, ike, asked, Counter()))
            assert [what in each for each in found] == [True] * len(ike)


def test_what_no_gateway_forwards_comes_out_nowhere_and_meets_no_rule(lab: Lab) -> None:
    world = World([], policy(WIDE_SCOPE))
    probe = next(each for each in captures() if each.name == "zeek-ip6_esp.pcap").packets[0]
    with Talk(lab) as talk, Replay(lab, talk) as replay, Tap(lab.outside) as far:
        talk.put(world)
        for capture in captures():
            for packet in capture.unforwarded:
                replay.put_on_wire("customers", packet)
        # In order: where this one was refused, those before it have been looked at.
        assert replay.outcome(probe) == "rejected"
        assert [packet for packet in far.packets() if packet[6] == 0] == []
        assert talk.counter("unregistered_packets") == 1
