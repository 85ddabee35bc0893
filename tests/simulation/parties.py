"""Who may be registered, in which forms, and the flows that are looked at: few, but every kind of change of form.

A form is a tuple of registrations of one source. Most forms of a party have flows in common, so that a change of
form is one that no flow may notice.
"""

from __future__ import annotations

from typing import Final

from msgspec import structs

from gatewayd.model.flow import Flow, reverse_flow
from gatewayd.model.prefix import parse_address, parse_prefix
from gatewayd.model.registration import Extension, Registration
from gatewayd.model.service import parse_services
from tests.simulation.loop import START_S
from tests.support.reconciling import subscribed

Form = tuple[Registration, ...]
HOSTS: Final = [f"10.0.0.{number}" for number in range(1, 13)]
NATIONAL, LOCAL, PARTNER = "national", "local", "partner"
SOURCES: Final = (NATIONAL, LOCAL, PARTNER)
FEEDS: Final = (NATIONAL, PARTNER)
"""The other source is plain."""
CONFIGURED: Final = ((NATIONAL, LOCAL), SOURCES, (NATIONAL, PARTNER), (LOCAL, NATIONAL), (NATIONAL,))
"""Sources that a file names; the first at the beginning."""


def _registered(
    id: str,
    *clients: str,
    peers: tuple[str, ...] = (),
    services: tuple[str, ...] = (),
    category: str = "bank",
    opens: float | None = None,
    closes: float | None = None,
) -> Registration:
    made = Registration(
        id,
        category,
        "active",
        tuple(sorted(map(parse_prefix, clients))),
        None,
        tuple(sorted(map(parse_prefix, peers))),
        parse_services(services),
    )
    if opens is not None:
        made = structs.replace(made, valid_from_s=START_S + opens)
    return made if closes is None else structs.replace(made, valid_until_s=START_S + closes)


def _provider(id: str, *endpoints: str) -> Registration:
    extension = Extension(endpoints=tuple(sorted(map(parse_prefix, endpoints))))
    services = parse_services(("wireguard", "udp/4500"))
    return Registration(id, "provider", "active", (), None, (), services, extension=extension)


def _hosts(start: int, end: int) -> Form:
    return tuple(_registered(f"h-{each}", each, category="bpo") for each in HOSTS[start:end])


BANK_8 = _registered("bank", "203.0.113.8/29", services=("ipsec",))
PARTIES: Final[dict[str, tuple[str, tuple[Form, ...]]]] = {
    "bank": (
        NATIONAL,
        (
            (BANK_8,),
            (_registered("bank", "203.0.113.0/28", services=("ipsec",)),),
            (_registered("bank", "203.0.113.8/30", "203.0.113.12/30", "2001:db8:12::/48"),),
            (_registered("bank", "203.0.113.8/29", "203.0.113.10", peers=("192.0.2.0/24",), services=("ipsec",)),),
            (_registered("bank", "203.0.113.8/29", "2001:db8:12::/64", services=("udp/500", "esp")),),
            (structs.replace(BANK_8, status="suspended"),),
            (),
        ),
    ),
    "few": (NATIONAL, (_hosts(0, 2), _hosts(0, 4), _hosts(1, 2), ())),
    "guest": (
        PARTNER,
        (
            (_registered("guest", "203.0.113.8/30", services=("ipsec",)),),
            (_registered("guest", "10.0.0.0/29"),),
            (_registered("guest-1", "10.0.0.9"), _registered("guest-2", "198.18.0.0/31")),
            (),
        ),
    ),
    "many": (LOCAL, (_hosts(4, 12), _hosts(6, 12), _hosts(4, 7), ())),
    "net": (LOCAL, ((_registered("net", "10.0.0.0/28"),), (_registered("net", "10.0.0.0/29", "10.0.0.8/29"),), ())),
    "shift": (
        NATIONAL,
        (
            (_registered("shift", "198.18.0.0/30", closes=25),),
            (_registered("shift", "198.18.0.0/30", opens=12),),
            (
                _registered("shift", "198.18.0.0/31", opens=8, closes=45),
                _registered("late", "198.18.0.1", opens=20),
            ),
            (_registered("shift", "198.18.0.0/30"),),
            (),
        ),
    ),
    "vpn": (LOCAL, ((_provider("vpn", "198.51.100.1"),), (_provider("vpn", "198.51.100.0/30"),), ())),
    "ali": (NATIONAL, ((subscribed("ali"),), (subscribed("ali", services=["ipsec"]),), ())),
    "bea": (NATIONAL, ((subscribed("bea"),), (subscribed("bea", peers=["192.0.2.0/24"]),), ())),
}


def _flow(source: str, service: int = 500, port: int = 4000, destination: str = "") -> Flow:
    there = destination or ("2001:db8:ffff::1" if ":" in source else "192.0.2.1")
    return Flow(17, parse_address(source), parse_address(there), port, service)


BLOCK_PORTS: Final = (1000, 1024, 2047, 2048, 3071)
_OPENED: Final = [
    *(_flow(f"203.0.113.{last}") for last in (1, 8, 10, 12)),
    _flow("203.0.113.9", 51820),
    *(_flow(each, 51820) for each in HOSTS),
    *(_flow(f"198.18.0.{last}") for last in (0, 1, 3)),
    _flow("192.0.2.77", 51820, destination="198.51.100.1"),
    _flow("192.0.2.77", 51820, destination="198.51.100.2"),
    *(_flow("100.64.0.9", port=port) for port in BLOCK_PORTS),
    *(_flow(f"100.64.0.{last}") for last in (1, 2)),
    _flow("2001:db8:12::1"),
    _flow("2001:db8:64::1"),
    _flow("2001:db8:64:1::1"),
]
FLOWS: Final = [*_OPENED, *map(reverse_flow, _OPENED)]
"""The far end may speak first."""
FLOW_NAMES: Final = [
    f"{each.source.hex()}:{each.source_port}→{each.destination.hex()}:{each.destination_port}" for each in FLOWS
]


def names_of(bits: int) -> list[str]:
    """Of flows by number, for people."""
    return [name for number, name in enumerate(FLOW_NAMES) if bits >> number & 1]
