"""The demo's named registrants, and flows of theirs and of strangers with what should become of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gatewayd.lab.lab import Side
from gatewayd.lab.traffic import flow_of
from gatewayd.lab.world import mobile_number, subscriber_of
from gatewayd.model import Flow
from gatewayd.model.service import TCP

Expected = Literal["registered", "unregistered", "out_of_scope"]


def registration(id: str, category: str, clients: list[str], **rest: Any) -> dict[str, Any]:
    """A registration as the registry writes it."""
    return {"id": id, "category": category, "status": "active", "clients": clients} | rest


BANK = registration(
    "DEMO-BANK", "bank", ["39.32.0.0/28", "2400:adc0:12::/48"],
    peers=["198.51.100.7/32", "2001:db8:7::/64"], services=["ipsec"],
)  # fmt: skip
BRANCH = registration("DEMO-BANK-BRANCH", "bank", ["39.32.1.0/29"], peers=["198.51.100.7/32"], services=["ipsec"])
"""Closes in the course of the demo."""
SOFTWARE_HOUSE = registration(
    "DEMO-SOFTWARE-HOUSE", "software_house", ["39.32.64.8/29", "2400:adc0:100::/56"],
    services=["wireguard", "openvpn", "pptp"],
)  # fmt: skip
EMBASSY = registration("DEMO-EMBASSY", "embassy", ["39.33.7.0/27", "2400:adc1:7::/48"])
FREELANCER = registration("DEMO-FREELANCER", "freelancer", ["39.34.55.123/32"], services=["udp/51900-51999"])
LATECOMER = registration("DEMO-LATECOMER", "software_house", ["39.35.200.16/29"], services=["wireguard"])
"""Not there at first; comes and goes while its traffic flows."""

MOBILE_NUMBER = mobile_number(9_000_001)
MOBILE = registration(
    "DEMO-MOBILE", "freelancer", [], subscriber=subscriber_of(9_000_001), services=["wireguard"]
)  # fmt: skip
"""By mobile number: has the address that the NAS gave last."""
STRANGERS_NUMBER = mobile_number(9_000_002)
MOBILE_ADDRESSES = ("39.42.8.15", "39.42.200.4")

CAST = (BANK, BRANCH, SOFTWARE_HOUSE, EMBASSY, FREELANCER, MOBILE)
STRANGER, STRANGER_IPV6 = "39.40.9.9", "2400:adc1:9::9"
FAR, FAR_IPV6 = "198.51.100.7", "2001:db8:7::7"
ELSEWHERE, ELSEWHERE_IPV6 = "203.0.113.99", "2001:db8:99::1"


@dataclass(frozen=True, slots=True)
class Line:
    """A flow of the demo, who it is of, and what our policy should say. `start`: who opens it."""

    who: str
    what: str
    flow: Flow
    expected: Expected
    start: Side = "customers"


def lines(source_port: int) -> list[Line]:
    """The flows that are shown. Another `source_port` makes other flows for connection tracking."""
    return [
        Line(who, what, flow_of(src, dst, word, source_port), expected, start)
        for who, what, src, dst, word, expected, start in _ROWS
    ]


def is_streamable(line: Line) -> bool:
    """Whether it is made of single packets from the customers."""
    return line.start == "customers" and line.flow.protocol != TCP


def registered_flows(source_port: int) -> list[Flow]:
    """Of the cast, for a stream: all of these should pass, whatever happens."""
    return [line.flow for line in lines(source_port) if line.expected == "registered" and is_streamable(line)]


_Row = tuple[str, str, str, str, str, Expected, Side]
_ROWS: tuple[_Row, ...] = (
    ("bank", "IKE", "39.32.0.5", FAR, "udp/500", "registered", "customers"),
    ("bank", "IKE, NAT-T", "39.32.0.5", FAR, "udp/4500", "registered", "customers"),
    ("bank", "ESP", "39.32.0.6", FAR, "esp", "registered", "customers"),
    ("bank", "AH", "39.32.0.6", FAR, "ah", "registered", "customers"),
    ("bank", "ESP, IPv6", "2400:adc0:12::5", FAR_IPV6, "esp", "registered", "customers"),
    ("bank", "IKE, from the far end", FAR, "39.32.0.9", "udp/500", "registered", "internet"),
    ("bank", "IKE to a peer not registered", "39.32.0.5", ELSEWHERE, "udp/500", "unregistered", "customers"),
    ("software house", "WireGuard", "39.32.64.10", ELSEWHERE, "udp/51820", "registered", "customers"),
    (
        "software house",
        "WireGuard, IPv6",
        "2400:adc0:100::10",
        ELSEWHERE_IPV6,
        "udp/51820",
        "registered",
        "customers",
    ),
    ("software house", "OpenVPN, UDP", "39.32.64.11", ELSEWHERE, "udp/1194", "registered", "customers"),
    ("software house", "OpenVPN, TCP", "39.32.64.11", ELSEWHERE, "tcp/1194", "registered", "customers"),
    ("software house", "PPTP, control", "39.32.64.12", ELSEWHERE, "tcp/1723", "registered", "customers"),
    ("software house", "PPTP, GRE", "39.32.64.12", ELSEWHERE, "gre", "registered", "customers"),
    ("software house", "ESP, not registered", "39.32.64.12", ELSEWHERE, "esp", "unregistered", "customers"),
    ("embassy", "any service", "39.33.7.30", ELSEWHERE, "udp/1701", "registered", "customers"),
    ("embassy", "ESP, IPv6", "2400:adc1:7::1", ELSEWHERE_IPV6, "esp", "registered", "customers"),
    ("embassy", "GRE, IPv6", "2400:adc1:7::1", ELSEWHERE_IPV6, "gre", "registered", "customers"),
    ("freelancer", "a port range", "39.34.55.123", ELSEWHERE, "udp/51950", "registered", "customers"),
    ("stranger", "WireGuard", STRANGER, ELSEWHERE, "udp/51820", "unregistered", "customers"),
    ("stranger", "WireGuard, IPv6", STRANGER_IPV6, ELSEWHERE_IPV6, "udp/51820", "unregistered", "customers"),
    ("stranger", "OpenVPN, TCP", STRANGER, ELSEWHERE, "tcp/1194", "unregistered", "customers"),
    ("stranger", "ESP", STRANGER, ELSEWHERE, "esp", "unregistered", "customers"),
    ("stranger", "GRE", STRANGER, ELSEWHERE, "gre", "unregistered", "customers"),
    ("stranger", "HTTPS", STRANGER, ELSEWHERE, "tcp/443", "out_of_scope", "customers"),
    ("stranger", "DNS", STRANGER, ELSEWHERE, "udp/53", "out_of_scope", "customers"),
)
