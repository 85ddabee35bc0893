from __future__ import annotations

import tracemalloc
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gatewayd.allowlist import registered_by
from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.masks import (
    ELEMENT_BYTES,
    MAX_ELEMENTS,
    WIDEST_LISTED_RANGE,
    compile_elements,
    count_elements,
    count_programmed,
    select_services,
    split_range,
)
from gatewayd.model import Extension, Flow, Registration, Service, parse_prefix, parse_services
from gatewayd.model.mask import ANY_PEER, Mask
from gatewayd.model.prefix import Prefix, mask_address
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS, TCP, UDP
from tests.support.strategies import flows, registrations

unhurried = settings(deadline=None)


def registration(clients: str, peers: str = "", services: str = "") -> Registration:
    return Registration(
        "PK-1",
        "bank",
        "active",
        tuple(sorted(map(parse_prefix, clients.split()))),
        peers=tuple(sorted(map(parse_prefix, peers.split()))),
        services=parse_services(services.split()),
    )


def elements_of(clients: str, peers: str = "", services: str = "") -> list[tuple[str, str]]:
    """(name of the mask, key in hex) of each element, in order."""
    return [(str(mask), key.hex()) for mask, key in compile_elements(registration(clients, peers, services))]


def ranges() -> st.SearchStrategy[tuple[int, int]]:
    """low..high of ports, all 65536 of them excepted."""
    ports = st.integers(0, 65535)
    return st.tuples(ports, ports).map(lambda pair: (min(pair), max(pair))).filter(lambda pair: pair != (0, 65535))


def count_blocks(low: int, high: int, first: int = 0, size: int = 65536) -> int:
    """The fewest aligned blocks that make up low..high: whole ones count, halves are asked again."""
    last = first + size - 1
    if high < first or last < low:
        return 0
    if low <= first and last <= high:
        return 1
    half = size // 2
    return count_blocks(low, high, first, half) + count_blocks(low, high, first + half, half)


@unhurried
@given(ranges())
def test_a_range_is_cut_into_the_fewest_aligned_blocks_and_they_are_exactly_the_range(
    bounds: tuple[int, int],
) -> None:
    low, high = bounds
    blocks = list(split_range(low, high))
    ports = [port for first, length in blocks for port in range(first, first + (1 << (16 - length)))]
    assert ports == list(range(low, high + 1))
    for first, length in blocks:
        assert 1 <= length <= 16
        assert first % (1 << (16 - length)) == 0
    assert len(blocks) == count_blocks(low, high) <= 30


def test_the_worst_range_takes_thirty_blocks() -> None:
    assert len(list(split_range(1, 65534))) == 30


def test_any_service_and_any_peer_is_one_element_a_client() -> None:
    assert elements_of("203.0.113.0/28 2001:db8:12::/48") == [
        ("c6_48", "20010db8001200000000000000000000"),
        ("c4_28", "cb007100"),
    ]


def test_peers_of_the_same_family_are_in_the_key_and_those_of_the_other_yield_nothing() -> None:
    assert elements_of("203.0.113.0/28 2001:db8:12::/48", "198.51.100.7 192.0.2.0/24") == [
        ("c4_28_p24", "cb007100" + "c0000200"),
        ("c4_28_p32", "cb007100" + "c6336407"),
    ]
    assert elements_of("203.0.113.0/28", "2001:db8::/32") == []


def test_a_bundle_is_one_element_in_a_set_of_its_own() -> None:
    assert elements_of("203.0.113.0/28", "", "ipsec") == [("c4_28_ipsec", "cb007100")]
    assert elements_of("203.0.113.0/28", "198.51.100.7", "wireguard") == [
        ("c4_28_p32_wireguard", "cb007100" + "c6336407")
    ]


def test_services_beside_a_bundle_are_elements_of_their_own() -> None:
    assert elements_of("203.0.113.1", "", "ipsec udp/51821 gre") == [
        ("c4_32_ipsec", "cb007101"),
        ("c4_32_port16", "cb007101" + "11000000" + "ca6d0000"),
        ("c4_32_proto", "cb007101" + "2f000000"),
    ]


def test_part_of_a_bundle_is_no_bundle() -> None:
    assert [name for name, _ in elements_of("203.0.113.1", "", "udp/500 udp/4500 esp")] == [
        "c4_32_port16", "c4_32_port16", "c4_32_proto",
    ]  # fmt: skip


def test_several_bundles_are_an_element_each() -> None:
    assert [name for name, _ in elements_of("203.0.113.1", "", " ".join(BUNDLES))] == [
        f"c4_32_{name}" for name in BUNDLES
    ]


def test_all_ports_of_a_protocol_are_its_protocol_alone() -> None:
    assert elements_of("203.0.113.1", "", "udp") == [("c4_32_proto", "cb007101" + "11000000")]


def test_a_narrow_range_is_an_element_a_port_and_a_wide_one_is_blocks() -> None:
    narrow = parse_services([f"udp/1000-{1000 + WIDEST_LISTED_RANGE - 1}"])
    assert {selector for selector, _ in select_services(narrow)} == {"port16"}
    assert len(select_services(narrow)) == WIDEST_LISTED_RANGE
    wide = parse_services([f"udp/1024-{1024 + WIDEST_LISTED_RANGE}"])
    assert select_services(wide) == (
        ("port10", bytes((UDP, 0, 0, 0, 0x04, 0x00, 0, 0))),
        ("port16", bytes((UDP, 0, 0, 0, 0x04, 0x40, 0, 0))),
    )


def test_endpoints_are_elements_of_a_role_of_their_own() -> None:
    endpoints = (parse_prefix("198.51.100.0/24"), parse_prefix("2001:db8:7::/48"))
    services = parse_services(["ipsec", "tcp/443"])
    held = Registration(
        "VPN-7", "provider", "active", (), services=services, extension=Extension(endpoints=endpoints)
    )
    elements = compile_elements(held)
    assert [str(mask) for mask, _ in elements] == ["e4_24_ipsec", "e4_24_port16", "e6_48_ipsec", "e6_48_port16"]
    assert all(mask.is_endpoint and not mask.is_bound for mask, _ in elements)
    assert elements[0][1] == endpoints[0].packed
    assert count_elements(held) == count_programmed(held) == 4
    assert compile_elements(replace(held, extension=Extension("co-1"))) == []


def test_a_registration_by_subscriber_alone_has_no_element() -> None:
    held = Registration("PK-1", "freelancer", "active", (), subscriber=bytes(32))
    assert compile_elements(held) == []
    assert count_elements(held) == 0


@unhurried
@given(registrations())
def test_elements_are_counted_without_being_made(held: Registration) -> None:
    elements = compile_elements(held)
    assert count_elements(held) == len(elements) == len(set(elements))


@unhurried
@given(registrations())
def test_every_key_is_as_long_as_its_mask_says(held: Registration) -> None:
    for mask, key in compile_elements(held):
        assert len(key) == mask.key_length


def test_counting_a_monster_is_cheap() -> None:
    clients = tuple(sorted(parse_prefix(f"10.{a}.{b}.0/24") for a in range(32) for b in range(32)))
    services = tuple(Service(TCP, port, port) for port in range(1, 257))
    held = Registration("PK-1", "bank", "active", clients, peers=clients, services=services)
    assert count_elements(held) == 1024 * 1024 * 256 > MAX_ELEMENTS


def test_equal_masks_are_one_object() -> None:
    ((one, _),) = compile_elements(registration("192.0.2.0/29"))
    ((another, _),) = compile_elements(registration("198.51.100.0/29"))
    assert one is another == Mask(4, 29)


def looked_up(mask: Mask, flow: Flow, near: bytes, far: bytes) -> bytes | None:
    """The key that the rules would look up in the set of `mask`; None if they would not look there."""
    if (len(near) == 4) != (mask.family == 4):
        return None
    key = mask_address(near, mask.client_length)
    if mask.peer_length != ANY_PEER:
        key += mask_address(far, mask.peer_length)
    if mask.selector in BUNDLES:
        members = BUNDLES[mask.selector]
        return key if any(each.matches(flow.protocol, flow.destination_port) for each in members) else None
    if mask.has_protocol:
        key += bytes((flow.protocol, 0, 0, 0))
    if mask.port_length:
        if flow.protocol not in PROTOCOLS_WITH_PORTS:
            return None
        significant = 0xFFFF << (16 - mask.port_length) & flow.destination_port
        key += significant.to_bytes(2, "big") + b"\0\0"
    return key


@unhurried
@given(registrations(), flows())
def test_looking_up_the_elements_says_what_the_allowlist_says(held: Registration, flow: Flow) -> None:
    always = Registration(
        held.id, held.category, "active", held.clients, None, held.peers, held.services, -inf, inf
    )
    ends = ((flow.source, flow.destination), (flow.destination, flow.source))
    found = any(
        looked_up(mask, flow, near, far) == key for mask, key in compile_elements(held) for near, far in ends
    )
    assert found == registered_by(flow, always, 0.0)


@pytest.mark.parametrize("port", [999, 1000, 1063, 1064, 4095, 4096, 40000, 40001])
def test_the_edges_of_ranges_are_exact(port: int) -> None:
    held = registration("203.0.113.1", "", "udp/1000-1063 udp/4096-40000")
    flow = Flow(UDP, held.clients[0].packed, bytes(4), 0, port)
    found = any(looked_up(mask, flow, flow.source, flow.destination) == key for mask, key in compile_elements(held))
    assert found == registered_by(flow, held, 0.0)


def test_elements_are_counted_without_making_them() -> None:
    clients = tuple(parse_prefix(f"10.0.{number}.0/24") for number in range(20))
    clients += tuple(parse_prefix(f"2001:db8:{number:x}::/48") for number in range(7))
    peers = (parse_prefix("192.0.2.0/24"), parse_prefix("198.51.100.0/24"), parse_prefix("2001:db8:ffff::/48"))
    services = parse_services(("ipsec", "udp/1000-1009", "tcp/1-65534"))
    for some in ((), peers, peers[:2], peers[2:]):
        for each in ((), services):
            registration = Registration("bank", "bank", "active", clients, None, some, each)
            assert count_elements(registration) == len(compile_elements(registration))
            assert count_programmed(registration) == count_elements(registration)


def test_a_registration_past_the_bound_costs_no_elements() -> None:
    clients = tuple(Prefix(number.to_bytes(4, "big"), 32) for number in range(MAX_ELEMENTS + 1))
    assert count_programmed(Registration("bank", "bank", "active", clients)) == 0
    assert count_programmed(Registration("bank", "bank", "active", clients[1:])) == MAX_ELEMENTS


def test_an_element_takes_no_more_memory_than_is_estimated() -> None:
    services = parse_services(("udp/51820",))
    peers = tuple(Prefix(bytes((32, 1, 0, number)) + bytes(12), 32) for number in range(64))
    registrations = [
        Registration(
            "bank", "bank", "active", (Prefix(bytes((32, 2, 0, n)) + bytes(12), 32),), None, peers, services
        )
        for n in range(200)
    ]
    sets = DesiredSets()
    tracemalloc.start()
    try:
        for each in registrations:
            sets.add(each)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0 < taken / sets.count() <= ELEMENT_BYTES
