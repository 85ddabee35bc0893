"""Hypothesis strategies for the nouns, from a universe so small that things overlap, nest and collide.

Every value is valid: canonical prefixes, sorted unique tuples. Whoever wants rubbish draws it itself.

- `addresses(family)` packed; IPv4 in 10.0.0.0/15 and one stranger, IPv6 in 2001:db8::/47 and one stranger
- `prefixes(family)` canonical, covering such addresses, at every length of interest, often nested
- `prefix_sets(minimum, maximum)` sorted unique prefixes of both families, as clients and peers are held
- `services()` one Service: protocol and a port range, or a protocol alone
- `service_profiles()` sorted unique services, as a registration holds them; also none, and whole bundles
- `moments()` Unix seconds 0..9, so that windows touch the moment asked
- `registration_ids()` eight ids
- `registrations(ids, clients)` any status, window, one to three clients of one or both families, a few peers
- `providers(ids)` registrations of a destination alone
- `flows(family)` both ends of one family, ports and protocols that the services speak of
"""

from __future__ import annotations

from itertools import product
from math import inf

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from gatewayd.model import Extension, Family, Flow, Prefix, Registration, Service, parse_address, parse_services
from gatewayd.model.prefix import mask_address

CATEGORIES = ("bank", "embassy", "freelancer")
IDS = tuple(f"PK-{number}" for number in range(8))
EXTENSIONS = (Extension("co-1"), Extension("co-2"), Extension(is_provisional=True))
SERVICE_WORDS = ("ipsec", "wireguard", "openvpn", "pptp", "udp/500", "udp/500-4500", "tcp/443", "esp", "udp")

_ADDRESSES: dict[Family, tuple[bytes, ...]] = {
    4: (
        parse_address("198.51.100.9"),
        *(bytes((10, *rest)) for rest in product((0, 1), (0, 1), (0, 1, 2, 3, 128))),
    ),
    6: (
        parse_address("2400:cb00::9"),
        *(
            parse_address(f"2001:db8:{site}:{net}::{host}")
            for site, net, host in product((0, 1), (0, 1), (0, 1, 2, 3))
        ),
    ),
}
_LENGTHS: dict[Family, tuple[int, ...]] = {
    4: (8, 15, 16, 23, 24, 25, 30, 31, 32),
    6: (16, 32, 47, 48, 63, 64, 126, 127, 128),
}
_PORTS = (0, 443, 500, 1194, 1723, 4500, 51820)
_PROTOCOLS = (6, 17, 47, 50, 1)


def families() -> SearchStrategy[Family]:
    """4 or 6."""
    return st.sampled_from((4, 6))


def addresses(family: Family | None = None) -> SearchStrategy[bytes]:
    """Packed addresses of one family, or of either."""
    return st.sampled_from(_ADDRESSES[4] + _ADDRESSES[6] if family is None else _ADDRESSES[family])


@st.composite
def prefixes(draw: st.DrawFn, family: Family | None = None) -> Prefix:
    """Canonical prefixes that cover an address of the universe."""
    chosen = draw(families()) if family is None else family
    length = draw(st.sampled_from(_LENGTHS[chosen]))
    return Prefix(mask_address(draw(addresses(chosen)), length), length)


def prefix_sets(minimum: int = 0, maximum: int = 3) -> SearchStrategy[tuple[Prefix, ...]]:
    """Sorted unique prefixes of both families, as clients and peers are held."""
    return st.sets(prefixes(), min_size=minimum, max_size=maximum).map(lambda some: tuple(sorted(some)))


def services() -> SearchStrategy[Service]:
    """One service: what some word stands for."""
    return st.sampled_from(parse_services(SERVICE_WORDS))


def service_profiles() -> SearchStrategy[tuple[Service, ...]]:
    """Sorted unique services of up to three words; none means any."""
    return st.lists(st.sampled_from(SERVICE_WORDS), max_size=3).map(parse_services)


def moments() -> SearchStrategy[float]:
    """Unix seconds, few enough for windows to begin and end at the very moment asked."""
    return st.integers(0, 9).map(float)


def registration_ids() -> SearchStrategy[str]:
    """Few enough for an upsert to replace often."""
    return st.sampled_from(IDS)


def registrations(
    ids: SearchStrategy[str] | None = None,
    clients: SearchStrategy[tuple[Prefix, ...]] | None = None,
) -> SearchStrategy[Registration]:
    """Registrations by address; active ones and open windows are the more common, some windows are empty."""
    return st.builds(
        Registration,
        id=registration_ids() if ids is None else ids,
        category=st.sampled_from(CATEGORIES),
        status=st.sampled_from(("active", "active", "active", "suspended", "revoked")),
        clients=prefix_sets(minimum=1) if clients is None else clients,
        subscriber=st.none(),
        peers=st.just(()) | prefix_sets(),
        services=st.just(()) | service_profiles(),
        valid_from_s=st.just(-inf) | moments(),
        valid_until_s=st.just(inf) | moments(),
        extension=st.none() | st.sampled_from(EXTENSIONS),
    )


def providers(ids: SearchStrategy[str] | None = None) -> SearchStrategy[Registration]:
    """Registrations of a destination alone."""
    endpoints = st.sets(prefixes().filter(lambda each: each.length >= (24 if each.family == 4 else 48)), min_size=1)
    return st.builds(
        Registration,
        id=registration_ids() if ids is None else ids,
        category=st.just("provider"),
        status=st.sampled_from(("active", "active", "suspended")),
        clients=st.just(()),
        services=service_profiles().filter(bool),
        valid_from_s=st.just(-inf) | moments(),
        valid_until_s=st.just(inf) | moments(),
        extension=endpoints.map(lambda some: Extension(endpoints=tuple(sorted(some)))),
    )


@st.composite
def flows(draw: st.DrawFn, family: Family | None = None) -> Flow:
    """Conntrack original tuples; ports only where the protocol has them."""
    chosen = draw(families()) if family is None else family
    protocol = draw(st.sampled_from(_PROTOCOLS))
    has_ports = protocol in (6, 17)
    return Flow(
        protocol=protocol,
        source=draw(addresses(chosen)),
        destination=draw(addresses(chosen)),
        source_port=40000 if has_ports else 0,
        destination_port=draw(st.sampled_from(_PORTS)) if has_ports else 0,
    )
