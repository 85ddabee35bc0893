"""A licensed provider's registration, an allowlist of it, and flows of a client to its servers."""

from __future__ import annotations

from math import inf

from gatewayd.allowlist import Allowlist
from gatewayd.model import Extension, Flow, Registration, Status, parse_address, parse_prefix, parse_services
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
