"""Endpoints of licensed providers, on packets: a flow to one is registered, never one from it, and whoever speaks
first of a client's flow, none of its packets is refused. The rules alone, without a daemon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from gatewayd.lab.lab import Lab
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Extension, Flow, Registration, parse_prefix, parse_services, reverse_flow
from gatewayd.model.flow import Mode
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.service import GRE
from tests.support.talk import Talk
from tests.support.worlds import World

pytestmark = pytest.mark.kernel

CLIENT, CLIENT6 = "39.32.9.9", "2400:adc1:9::9"
PROVIDER, PROVIDER6, FAR = "198.51.100.7", "2a00:1450:0:7::7", "203.0.113.7"
SCOPE = parse_services(["ipsec", "wireguard", "openvpn", "pptp", "l2tp", "tcp/443"])
_ports = count(30000)


def policy(mode: Mode = "reject", *, named: bool = True, **changes: Any) -> Policy:
    made = Policy(
        mode, SCOPE, MarkLayout(0xFF000000),
        inside=("inside*",) if named else (), outside=("outside0",) if named else (),
    )  # fmt: skip
    return replace(made, **changes)


def provider(
    *words: str, endpoints: Sequence[str] = ("198.51.100.0/24", "2a00:1450:0:7::/64"), under: Policy | None = None
) -> World:
    prefixes = tuple(sorted(map(parse_prefix, endpoints)))
    one = Registration(
        "VPN-7", "provider", "active", (), services=parse_services(words), extension=Extension(endpoints=prefixes)
    )
    return World([one], under or policy())


def to(service: str, port: int | None = None, client: str = CLIENT, far: str | None = None) -> Flow:
    return flow_of(client, far or (PROVIDER6 if ":" in client else PROVIDER), service, port)


TUNNELS = {
    "IKE": ("ipsec", "udp/500", 500),
    "NAT-T": ("ipsec", "udp/4500", 4500),
    "NAT-T, any port": ("ipsec", "udp/4500", 40122),
    "WireGuard, fixed ports": ("wireguard", "udp/51820", 51820),
    "WireGuard, any port": ("wireguard", "udp/51820", 40123),
    "OpenVPN": ("udp/1190-1200", "udp/1194", 1194),
    "a wide range": ("udp/1-51820", "udp/4500", 40125),
    "ESP": ("ipsec", "esp", None),
    "AH": ("ah", "ah", None),
    "GRE": ("pptp", "gre", None),
}


@pytest.mark.parametrize("named", [True, False], ids=["named", "bare"])
@pytest.mark.parametrize("client", [CLIENT, CLIENT6])
@pytest.mark.parametrize("tunnel", TUNNELS.values(), ids=TUNNELS)
def test_a_flow_to_an_endpoint_passes_and_is_known_whoever_speaks_first(
    talk: Talk, tunnel: tuple[str, str, int | None], client: str, named: bool
) -> None:
    word, service, port = tunnel
    talk.put(provider(word, under=policy(named=named)))
    flow = to(service, port, client)
    for first in ("far end", "client"):
        talk.forget()
        before = talk.counter("registered_flows")
        turns = [talk.far_end, talk.client] if first == "far end" else [talk.client, talk.far_end]
        assert [turn(flow) for turn in turns * 2] == ["passed"] * 4
        # To conntrack the two directions of GRE are two flows: of the endpoint's own nothing becomes.
        assert talk.counter("registered_flows") - before == 1
    assert talk.counter("unregistered_flows") == 0


def test_what_an_endpoint_sends_makes_no_flow_registered(talk: Talk) -> None:
    talk.put(provider("ipsec", "wireguard"))
    for service, port in (("udp/500", 500), ("esp", None), ("udp/51820", 51820)):
        flow = to(service, port)
        assert [talk.far_end(flow) for _ in range(3)] == ["passed"] * 3
    assert talk.counter("registered_flows") == talk.counter("unregistered_flows") == 0


@pytest.mark.parametrize("named", [True, False], ids=["named", "bare"])
@pytest.mark.parametrize("service", ["udp/500", "udp/51820", "udp/1194"])
def test_a_flow_that_an_endpoint_opens_is_refused(talk: Talk, service: str, named: bool) -> None:
    """To a server inside that nobody registered, from a port of the system's choice."""
    talk.put(provider("ipsec", "wireguard", under=policy(named=named)))
    flow = flow_of(PROVIDER, CLIENT, service, next(_ports))
    assert [talk.say("internet", flow) for _ in range(3)] == ["rejected"] * 3
    assert talk.counter("registered_flows") == 0


def test_a_connection_of_tcp_is_opened_to_an_endpoint_and_not_from_it(lab: Lab, talk: Talk) -> None:
    """Even where the provider's services are all ports: a SYN is no answer."""
    talk.put(provider("tcp"))
    out = [to("tcp/1723", next(_ports)), to("tcp/443", next(_ports), CLIENT6)]
    back = [
        flow_of(PROVIDER, CLIENT, "tcp/1723", next(_ports)),
        flow_of(PROVIDER6, CLIENT6, "tcp/443", next(_ports)),
    ]
    with lab.gateway.entered():
        assert probe(lab, out, start="customers") == ["passed"] * 2
        assert probe(lab, back, start="internet") == ["rejected"] * 2
    assert talk.counter("registered_flows") == 2


@pytest.mark.parametrize(
    ("flow", "why"),
    [
        (to("udp/1194", 40001), "another service"),
        (to("udp/500", 40002, far=FAR), "another far end"),
        (to("udp/500", 40003, CLIENT6, "2a00:1450:0:8::7"), "another far end"),
        (to("gre"), "another protocol"),
    ],
)
def test_other_flows_of_the_client_are_refused(talk: Talk, flow: Flow, why: str) -> None:
    talk.put(provider("ipsec"))
    assert [talk.client(flow) for _ in range(2)] == ["rejected"] * 2


def test_from_outside_to_an_endpoint_inside_nothing_is_registered_where_a_side_is_named(talk: Talk) -> None:
    inside = provider("wireguard", endpoints=["39.32.9.0/24"])
    flow = flow_of(FAR, CLIENT, "udp/51820", next(_ports))
    talk.put(inside)
    assert talk.say("internet", flow) == "rejected"
    # Where none is, it cannot be told who the client is: the limit that the documents state.
    talk.put(World(list(inside.allowlist), policy(named=False)))
    assert talk.say("internet", flow) == "passed"


def test_an_endpoint_inside_is_no_client_of_the_others(talk: Talk) -> None:
    talk.put(provider("wireguard", endpoints=["39.32.9.0/24"]))
    assert talk.client(flow_of(CLIENT, FAR, "udp/51820", 51820)) == "rejected"


@pytest.mark.parametrize("mode", ["limit", "reject"])
@pytest.mark.parametrize("service", ["udp/500", "esp"])
def test_a_mark_of_somebody_else_refuses_no_packet_of_a_flow_to_an_endpoint(
    talk: Talk, service: str, mode: Mode
) -> None:
    talk.put(provider("ipsec", under=policy(mode, limit_bytes_s=100)))
    flow = to(service, 500 if "/" in service else None)
    with talk.beside("prerouting priority mangle", "ct mark set 0x01000000"):
        said = [turn(flow) for _ in range(5) for turn in (talk.client, talk.far_end)]
        assert said == ["passed"] * 10


@pytest.mark.parametrize("tunnel", [each for each in TUNNELS.values() if each[1] != "gre"])
def test_untracked_packets_of_a_flow_to_an_endpoint_pass_both_ways(
    talk: Talk, tunnel: tuple[str, str, int | None]
) -> None:
    word, service, port = tunnel
    talk.put(provider(word))
    flow = to(service, port)
    with talk.beside("prerouting priority raw", "notrack"):
        assert [talk.far_end(flow), talk.client(flow), talk.far_end(flow)] == ["passed"] * 3


def test_gre_of_an_endpoint_passes_and_that_of_others_does_not(talk: Talk) -> None:
    talk.put(provider("pptp"))
    flow = to("gre")
    assert flow.protocol == GRE
    assert talk.say("internet", reverse_flow(flow)) == "passed"
    assert talk.say("internet", reverse_flow(to("gre", far=FAR))) == "rejected"
