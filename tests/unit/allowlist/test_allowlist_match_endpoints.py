from __future__ import annotations

from math import inf

import pytest

from gatewayd.allowlist import Allowlist, decide
from gatewayd.model import (
    Extension,
    Flow,
    Registration,
    Status,
    parse_address,
    parse_prefix,
    parse_services,
    reverse_flow,
)
from gatewayd.model.service import ESP, UDP

SCOPE = parse_services(["ipsec", "wireguard", "tcp/443"])
CLIENT, ENDPOINT = parse_address("39.32.9.9"), parse_address("198.51.100.7")


def provider(
    id: str = "VPN-7",
    endpoints: str = "198.51.100.0/24",
    services: str = "ipsec wireguard tcp/443",
    status: Status = "active",
    registrant: str | None = None,
    closes: float = inf,
) -> Registration:
    extension = Extension(registrant, endpoints=tuple(sorted(map(parse_prefix, endpoints.split()))))
    services_of = parse_services(services.split())
    return Registration(id, "provider", status, (), services=services_of, valid_until_s=closes, extension=extension)


def allowlist_of(*some: Registration) -> Allowlist:
    allowlist = Allowlist()
    for each in some:
        allowlist.upsert(each)
    return allowlist


def flow(port: int = 500, source_port: int = 40000, protocol: int = UDP) -> Flow:
    return Flow(protocol, CLIENT, ENDPOINT, source_port, port)


IKE, PORT_500, WIREGUARD = flow(500, 500), flow(500), flow(51820)
ESP_OUT = Flow(ESP, CLIENT, ENDPOINT)


@pytest.mark.parametrize(
    ("subject", "held", "word", "reason"),
    [
        (
            PORT_500,
            (provider(registrant="co-9"),),
            "registered",
            "registered by VPN-7 of co-9 (provider): destination in 198.51.100.0/24, an endpoint of a licensed "
            "provider, from inside alone, service ipsec",
        ),
        (
            WIREGUARD,
            (provider(), provider("VPN-8", "198.51.100.7/32")),
            "registered",
            "registered by VPN-8 (provider): destination in 198.51.100.7/32, an endpoint of a licensed provider, "
            "from inside alone, service udp/51820; also by VPN-7",
        ),
        (
            reverse_flow(IKE),
            (provider(),),
            "out_of_scope",
            "198.51.100.7 is an endpoint of VPN-7, so this may be an answer, and the client's packet decides",
        ),
        (
            Flow(UDP, ENDPOINT, CLIENT, 40000, 500),
            (provider(),),
            "unregistered",
            "VPN-7 has as an endpoint the source, but a flow to its endpoints is registered, and never one from "
            "them",
        ),
        (
            WIREGUARD,
            (provider(services="ipsec"),),
            "unregistered",
            "VPN-7 has as an endpoint the destination, but its services are ipsec, not udp/51820",
        ),
        (
            IKE,
            (provider(status="suspended"),),
            "unregistered",
            "VPN-7 has as an endpoint the destination, but is suspended",
        ),
        (
            flow(443, 500),  # from a port in scope, as an answer; the endpoint's service is no business of it
            (provider(services="udp/443"),),
            "out_of_scope",
            "udp/443 is outside the scope (ipsec, tcp/443, udp/51820); in scope it would be registered by VPN-7",
        ),
    ],
)
def test_a_decision_names_the_provider(
    subject: Flow, held: tuple[Registration, ...], word: str, reason: str
) -> None:
    found = decide(allowlist_of(*held), SCOPE, subject, 0.0)
    assert (found.word, found.reason) == (word, reason)
