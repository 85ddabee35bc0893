"""The keys that the rules look for, against the rule: a flow finds an element of what registers it."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from gatewayd.allowlist import registered_by
from gatewayd.compile.desired import elements_of
from gatewayd.compile.masks import keys_of
from gatewayd.lab.traffic import flow_of
from gatewayd.model import (
    Binding,
    BoundRegistration,
    Extension,
    Flow,
    Registration,
    parse_prefix,
    parse_services,
    reverse_flow,
)
from gatewayd.model.mask import Mask
from tests.support.owning import registration
from tests.support.reconciling import bound_at, subscribed


def provider(id: str, *endpoints: str, services: tuple[str, ...]) -> Registration:
    extension = Extension(endpoints=tuple(map(parse_prefix, endpoints)))
    return Registration(id, "provider", "active", (), services=parse_services(services), extension=extension)


WANTED: list[Registration | BoundRegistration] = [
    registration("ANY", "39.32.0.0/28", services=()),
    registration("PEER", "39.32.1.0/28", peers=["198.51.100.0/24"], services=("ipsec",)),
    registration("PORTS", "39.32.2.1", services=("udp/500-520", "gre")),
    registration("SIX", "2001:db8:1::/48", services=("openvpn", "udp/1195")),
    bound_at(subscribed("WHOLE", services=("esp", "wireguard")), "100.64.0.9"),
    provider("TO", "198.51.100.0/24", services=("ipsec", "udp/1194-1300")),
    provider("TO-SIX", "2001:db8:2::/48", services=("openvpn", "gre")),
    bound_at(subscribed("BLOCK"), "100.64.0.8", (2048, 4095)),
    bound_at(subscribed("BLOCK-PORT", peers=["198.51.100.7"], services=("udp/1194",)), "100.64.0.8", (4096, 5119)),
]
SERVICES = ("esp", "gre", "udp/500", "udp/519", "udp/521", "udp/1194", "udp/1195", "udp/51820", "tcp/1194")
PAIRS = (
    ("39.32.0.15", "198.51.100.7"), ("39.32.0.16", "198.51.100.7"), ("39.32.1.5", "198.51.100.9"),
    ("39.32.1.5", "198.51.101.9"), ("39.32.2.1", "192.0.2.1"), ("100.64.0.9", "192.0.2.1"),
    ("100.64.0.8", "198.51.100.7"), ("100.64.0.8", "192.0.2.1"), ("2001:db8:1::5", "2001:db8:2::1"),
)  # fmt: skip


def flows() -> list[Flow]:
    made = [
        flow_of(near, far, service, port)
        for (near, far), service, port in product(PAIRS, SERVICES, (500, 2048, 4095, 4100, 5120))
    ]
    return made + [reverse_flow(each) for each in made]


@pytest.mark.parametrize("wanted", WANTED, ids=lambda each: elements_of(each)[0][0].__str__())
def test_a_flow_finds_an_element_if_and_only_if_it_is_registered(wanted: Any) -> None:
    elements: dict[Mask, set[bytes]] = {}
    for mask, key in elements_of(wanted):
        elements.setdefault(mask, set()).add(key)
    is_bound = isinstance(wanted, BoundRegistration)
    by, bindings = (wanted.registration, (_binding(wanted),)) if is_bound else (wanted, ())
    found = 0
    for flow in flows():
        has_found = any(key in keys for mask, keys in elements.items() for key in keys_of(mask, flow))
        assert has_found == registered_by(flow, by, 0, bindings), flow
        found += has_found
    assert 0 < found < len(flows())


def _binding(bound: BoundRegistration) -> Binding:
    subscriber = bound.registration.subscriber
    assert subscriber is not None
    return Binding(
        subscriber=subscriber,
        prefix=bound.prefix,
        ports=bound.ports,
        since_s=0,
        confirmed_s=0,
        nas="n",
        session="s",
    )
