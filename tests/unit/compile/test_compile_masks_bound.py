"""Registrations at an address to elements, against the rule itself: who may send, to whom, from which ports."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.compile import DesiredSets
from gatewayd.compile.masks import (
    GRAINS,
    MAX_BOUND_ELEMENTS,
    MAX_CUT,
    PEER_GRAINS,
    PORT_GRAINS,
    SERVICE_GRAINS,
    compile_bound,
    count_cut,
    count_elements,
    is_former,
    select_services,
    source_blocks,
)
from gatewayd.model import BoundRegistration, Flow, Service, parse_address
from gatewayd.model.flow import reverse_flow
from gatewayd.model.mask import Mask, parse_set_name
from gatewayd.model.service import AH, BUNDLES, ESP, GRE, PROTOCOLS_WITH_PORTS, TCP, UDP
from tests.support.reconciling import bound_at, looks_up, oracle, registered, subscribed
from tests.support.strategies import flows, prefixes, registrations

unhurried = settings(deadline=None)

ADDRESS = parse_address("100.64.0.1")
FAR = parse_address("198.51.100.7")
PROTOCOLS = (TCP, UDP, 132, 136, ESP, AH, GRE, 1)
BLOCKS: list[tuple[int, int]] = [
    (0, 0), (0, 1), (0, 63), (0, 32767), (0, 65534), (0, 65535), (1, 1), (1, 2), (1, 65534), (1, 65535),
    (1023, 1024), (1024, 2047), (1024, 2048), (1025, 2047), (10000, 10999), (32767, 32768), (32768, 65535),
    (49152, 49663), (65535, 65535),
]  # fmt: skip


def elements_of(bound: BoundRegistration) -> list[tuple[str, str]]:
    """(name of the mask, key in hex) of each element, in order."""
    return [(str(mask), key.hex()) for mask, key in compile_bound(bound)]


def is_granted(bound: BoundRegistration, flow: Flow) -> bool:
    """The rule: one end in the prefix and in the ports, if there are any, the other a peer, and a service at the
    port of either end."""
    return _is_granted_as_source(bound, flow) or _is_granted_as_source(bound, reverse_flow(flow))


def _is_granted_as_source(bound: BoundRegistration, flow: Flow) -> bool:
    registration = bound.registration
    return (
        bound.prefix.covers(flow.source)
        and (
            bound.ports is None
            or (flow.protocol in PROTOCOLS_WITH_PORTS and bound.ports[0] <= flow.source_port <= bound.ports[1])
        )
        and (not registration.peers or any(peer.covers(flow.destination) for peer in registration.peers))
        and (
            not registration.services
            or any(
                service.matches(flow.protocol, port)
                for service in registration.services
                for port in (flow.destination_port, flow.source_port)
            )
        )
    )


def passes(bound: BoundRegistration, flow: Flow) -> bool:
    return any(looks_up(mask, keys, flow) for mask, keys in oracle([bound]).items())


def blocks() -> st.SearchStrategy[tuple[int, int]]:
    ports = st.integers(0, 65535) | st.sampled_from((0, 1, 1023, 1024, 32767, 32768, 65534, 65535))
    return st.tuples(ports, ports).map(lambda pair: (min(pair), max(pair)))


def bound_registrations() -> st.SearchStrategy[BoundRegistration]:
    return st.builds(BoundRegistration, registrations(), prefixes(), st.none() | blocks())


# -- a port block ------------------------------------------------------------------------------------------


def ports_of(ports: tuple[int, int]) -> list[int]:
    """Every source port that the blocks let through, as often as they do."""
    return [
        port
        for bits, key in source_blocks(ports)
        for port in range(int.from_bytes(key[:2], "big"), int.from_bytes(key[:2], "big") + (1 << (16 - bits)))
    ]


@pytest.mark.parametrize("ports", BLOCKS, ids=lambda ports: f"{ports[0]}-{ports[1]}")
def test_the_parts_of_a_block_are_each_of_its_ports_once(ports: tuple[int, int]) -> None:
    assert ports_of(ports) == list(range(ports[0], ports[1] + 1))


@unhurried
@given(blocks())
def test_the_parts_of_any_block_are_aligned_and_exact(ports: tuple[int, int]) -> None:
    assert ports_of(ports) == list(range(ports[0], ports[1] + 1))
    for bits, key in source_blocks(ports):
        assert bits in PORT_GRAINS
        assert int.from_bytes(key[:2], "big") % (1 << (16 - bits)) == 0
        assert key[2:] == b"\0\0"


def test_a_whole_address_has_no_port_in_the_key_and_all_ports_have_one() -> None:
    assert source_blocks(None) == ((0, b""),)
    assert source_blocks((0, 65535)) == tuple((4, bytes((high << 4, 0, 0, 0))) for high in range(16))


SAMPLE = {
    *range(0, 65536, 251),
    *(edge + near for edge in (1 << bits for bits in range(16)) for near in (-1, 0, 1)),
}


@pytest.mark.parametrize("ports", BLOCKS, ids=lambda ports: f"{ports[0]}-{ports[1]}")
@pytest.mark.parametrize("words", ["", "udp", "ipsec", "udp/500-4500"])
def test_source_ports_of_the_block_pass_and_no_other(ports: tuple[int, int], words: str) -> None:
    """Through each kind of mask."""
    found = oracle([bound_at(subscribed("PK-1", services=words.split()), "100.64.0.1", ports)]).items()
    edges = {edge + near for edge in ports for near in (-1, 0, 1)} & set(range(65536))
    tried = sorted(SAMPLE | edges)
    passing = [
        port
        for port in tried
        if any(looks_up(mask, keys, Flow(UDP, ADDRESS, FAR, port, 500)) for mask, keys in found)
    ]
    assert passing == [port for port in tried if ports[0] <= port <= ports[1]]


def test_of_all_source_ports_those_of_the_block_pass_and_no_other() -> None:
    found = oracle([bound_at(subscribed("PK-1", services=["ipsec"]), "100.64.0.1", (1025, 3000))]).items()
    passing = [
        port
        for port in range(65536)
        if any(looks_up(mask, keys, Flow(UDP, ADDRESS, FAR, port, 500)) for mask, keys in found)
    ]
    assert passing == list(range(1025, 3001))


@pytest.mark.parametrize(
    ("protocol", "words"), list(product(PROTOCOLS, ["", "esp ah gre", "ipsec pptp", "tcp udp"]))
)
def test_a_protocol_without_ports_never_comes_out_of_a_block(protocol: int, words: str) -> None:
    """Also not out of one of all ports."""
    registration = subscribed("PK-1", services=words.split())
    for ports in ((0, 65535), (1024, 2047)):
        bound = bound_at(registration, "100.64.0.1", ports)
        for destination_port in (0, 500, 1723):
            flow = Flow(protocol, ADDRESS, FAR, 1024, destination_port)
            assert passes(bound, flow) == is_granted(bound, flow)
            assert not (passes(bound, flow) and protocol not in PROTOCOLS_WITH_PORTS)


def test_esp_and_gre_alone_give_no_element_through_a_block_and_do_without_one() -> None:
    registration = subscribed("PK-1", services=["esp", "gre"])
    assert compile_bound(bound_at(registration, "100.64.0.1", (1024, 2047))) == []
    assert elements_of(bound_at(registration, "100.64.0.1")) == [
        ("b4_32_proto", "64400001" + "2f000000"),
        ("b4_32_proto", "64400001" + "32000000"),
    ]


# -- all of a bound registration ---------------------------------------------------------------------------


def test_an_address_is_one_element_of_its_own_kind_of_set() -> None:
    assert elements_of(bound_at(subscribed("PK-1"), "100.64.0.1")) == [("b4_32", "64400001")]
    assert elements_of(bound_at(subscribed("PK-1"), "2001:db8:0:8000::/56")) == [
        ("b6_56", "20010db800008000" + "0" * 16)
    ]


def test_a_bundle_through_a_block_is_an_element_for_each_part_of_the_block() -> None:
    bound = bound_at(subscribed("PK-1", services=["ipsec"]), "100.64.0.1", (1024, 1552))
    assert elements_of(bound) == [
        ("b4_32_ipsec_s8", "64400001" + "04000000"),
        ("b4_32_ipsec_s8", "64400001" + "05000000"),
        ("b4_32_ipsec_s12", "64400001" + "06000000"),
        ("b4_32_ipsec_s16", "64400001" + "06100000"),
    ]


def test_the_source_port_comes_last_in_the_key() -> None:
    bound = bound_at(subscribed("PK-1", peers=["198.51.100.7"], services=["udp/500"]), "100.64.0.1", (256, 511))
    assert elements_of(bound) == [
        ("b4_32_p32_port16_s8", "64400001" + "c6336407" + "11000000" + "01f40000" + "01000000")
    ]


def test_peers_of_another_family_yield_nothing_and_no_peer_at_all_would_be_any() -> None:
    assert compile_bound(bound_at(subscribed("PK-1", peers=["198.51.100.0/24"]), "2001::/16")) == []
    registration = subscribed("PK-1", peers=["2001:db8:ffff::/48", "198.51.100.0/24"])
    assert elements_of(bound_at(registration, "100.64.0.1")) == [("b4_32_p24", "64400001" + "c6336400")]
    assert compile_bound(bound_at(subscribed("PK-1", peers=["2001:db8:ffff::/48"]), "100.64.0.1")) == []


def test_clients_of_the_same_registration_are_not_the_bound_registrations() -> None:
    """One with both has its own prefixes from its own elements."""
    registration = subscribed("PK-1")
    both = type(registration)("PK-1", "bank", "active", (bound_at(registration, "10.0.0.0/8").prefix,), bytes(32))
    assert elements_of(bound_at(both, "100.64.0.1")) == [("b4_32", "64400001")]


def test_equal_masks_of_bound_registrations_are_one_object_and_differ_from_those_of_clients() -> None:
    ((one, _),) = compile_bound(bound_at(subscribed("PK-1"), "100.64.0.1"))
    ((other, _),) = compile_bound(bound_at(subscribed("PK-2"), "100.64.0.2"))
    assert one is other == Mask(4, 32, source_bits=0) != Mask(4, 32)


@unhurried
@given(bound_registrations())
def test_no_element_comes_twice_each_is_as_long_as_its_mask_says_and_all_are_bound(
    bound: BoundRegistration,
) -> None:
    elements = compile_bound(bound)
    assert len(elements) == len(set(elements))
    assert len(elements) <= count_elements(bound)
    for mask, key in elements:
        assert len(key) == mask.key_length
        assert mask.is_bound
        assert (mask.source_bits > 0) == (bound.ports is not None)


@unhurried
@given(registrations(), prefixes())
def test_a_bound_registration_of_a_whole_address_is_counted_exactly(registration: object, prefix: object) -> None:
    bound = BoundRegistration(registration, prefix)  # type: ignore[arg-type]
    if count_elements(bound) <= MAX_BOUND_ELEMENTS:
        assert count_elements(bound) == len(compile_bound(bound))


def test_what_cannot_come_out_of_a_block_is_counted_and_not_made() -> None:
    bound = bound_at(subscribed("PK-1", services=["esp", "udp"]), "100.64.0.1", (1, 65534))
    assert (count_elements(bound), len(compile_bound(bound))) == (2 * 104, 104)


def test_counting_a_monster_is_cheap() -> None:
    services = tuple(Service(UDP, port, port) for port in range(1, 257))
    peers = [f"10.{a}.{b}.0/24" for a in range(32) for b in range(32)]
    registration = subscribed("PK-1", peers=peers)
    monster = type(registration)("PK-1", "bank", "active", (), bytes(32), registration.peers, services)
    assert count_elements(bound_at(monster, "100.64.0.1", (1, 65534))) == 1024 * 256 * 104 > MAX_BOUND_ELEMENTS


@unhurried
@given(bound_registrations(), flows(), st.integers(0, 65535), st.data())
def test_looking_up_the_elements_says_what_the_rule_says(
    bound: BoundRegistration, flow: Flow, port: int, data: st.DataObject
) -> None:
    """From edges of the block and from its middle, from the prefix and from elsewhere."""
    edges = [port]
    for edge in bound.ports or ():
        edges += [each for each in (edge - 1, edge, edge + 1) if 0 <= each <= 65535]
    source = data.draw(st.sampled_from([flow.source, bound.prefix.packed]), label="source")
    if len(source) != len(flow.destination):
        source = flow.source
    from_port = data.draw(st.sampled_from(edges), label="source port")
    has_ports = flow.protocol in PROTOCOLS_WITH_PORTS
    for near, far in ((source, flow.destination), (flow.destination, source)):
        tried = Flow(flow.protocol, near, far, from_port if has_ports else 0, flow.destination_port)
        assert passes(bound, tried) == is_granted(bound, tried)
        assert passes(bound, reverse_flow(tried)) == passes(bound, tried)


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("ports", [None, (1024, 2047)], ids=["whole", "block"])
def test_each_service_of_a_bundle_passes_as_far_as_it_can(bundle: str, ports: tuple[int, int] | None) -> None:
    bound = bound_at(subscribed("PK-1", services=[bundle]), "100.64.0.1", ports)
    assert {mask.selector for mask, _ in compile_bound(bound)} == {bundle}
    for protocol, port, source in product(PROTOCOLS, (0, 443, 500, 1194, 1701, 1723, 4500, 51820), (1024, 2048)):
        flow = Flow(protocol, ADDRESS, FAR, source, port)
        assert passes(bound, flow) == is_granted(bound, flow)


# -- few masks ---------------------------------------------------------------------------------------------


@unhurried
@given(bound_registrations())
def test_bound_registrations_have_few_masks_by_construction(bound: BoundRegistration) -> None:
    if count_elements(bound) > MAX_BOUND_ELEMENTS:
        return
    elements = compile_bound(bound)
    for mask, _ in elements:
        assert mask.client_length in GRAINS[mask.family]
        assert mask.source_bits in (0, *PORT_GRAINS)
        assert not is_former(mask)
    odd = [
        mask
        for mask, _ in elements
        if mask.peer_length not in (-1, *PEER_GRAINS[mask.family]) or mask.port_length not in (0, *SERVICE_GRAINS)
    ]
    assert not odd or _cut(bound) > MAX_CUT, "peers and services are as they are for the sake of the elements"


def _cut(bound: BoundRegistration) -> int:
    """Elements, were all of it cut."""
    family = bound.prefix.family
    peers = [each for each in bound.registration.peers if each.family == family]
    return (
        count_cut(bound.prefix.length, GRAINS[family])
        * len(source_blocks(bound.ports))
        * (sum(count_cut(each.length, PEER_GRAINS[family]) for each in peers) if bound.registration.peers else 1)
        * len(select_services(bound.registration.services, SERVICE_GRAINS))
    )


def test_freelancers_behind_a_cgnat_with_peers_of_every_length_leave_the_banks_their_masks() -> None:
    """400 of them with blocks of 1,000 ports; after a restart their bindings come first, from the journal."""
    peers = [f"192.0.{number}.0/{length}" for number, length in enumerate(range(26, 33))]
    freelancers = [subscribed(f"f-{number}", peers=[peers[number % 7]]) for number in range(400)]
    blocks = [(low, low + 999) for low in range(1024, 64024, 1000)]
    bound_registrations = [
        bound_at(each, f"203.0.113.{number // 63}", blocks[number % 63]) for number, each in enumerate(freelancers)
    ]
    sets = DesiredSets()
    for bound in bound_registrations:
        sets.add(bound)
    for length in range(8, 33):
        for services in ([], ["ipsec"]):
            sets.add(registered(f"r-{length}-{len(services)}", f"10.0.0.0/{length}", services=services))
    assert sets.unprogrammed() == {}
    assert sum(mask.is_bound for mask in sets.masks()) <= 7 * 3
    assert sets.count() < 30_000


@pytest.mark.parametrize(
    ("size", "most"),
    [(63, 18), (64, 4), (126, 21), (256, 1), (504, 24), (512, 2), (1000, 40), (1008, 18), (2016, 21), (4032, 27)],
)
def test_a_plan_of_blocks_below_4096_ports_has_three_masks_and_few_elements(size: int, most: int) -> None:
    found = [source_blocks((low, low + size - 1)) for low in range(1024, 65536 - size, size)]
    assert {bits for blocks in found for bits, _ in blocks} <= set(PORT_GRAINS[1:])
    assert max(map(len, found)) == most


def test_a_wide_block_has_room_for_peers_and_services() -> None:
    """Why there is a fourth grain."""
    peers = [f"192.0.{number}.0/24" for number in range(64)]
    wide = subscribed("PK-1", peers=peers, services=["ipsec", "wireguard"])
    assert count_elements(bound_at(wide, "100.64.0.1", (1024, 65535))) == 27 * 64 * 2


def test_one_interim_with_prefixes_of_all_lengths_has_four_masks_and_some_are_past_a_bound() -> None:
    sets, of_all_lengths = DesiredSets(), subscribed("PK-1")
    bound_registrations = {length: bound_at(of_all_lengths, f"2001:db8::/{length}") for length in range(48, 129)}
    for bound in bound_registrations.values():
        sets.add(bound)
    assert [str(mask) for mask in sets.masks()] == ["b6_48", "b6_56", "b6_64", "b6_128"]
    assert sets.unprogrammed()["PK-1"].startswith("needs ")
    past_bound = {length for length, bound in bound_registrations.items() if sets.is_unprogrammed(bound)}
    assert past_bound == {*range(65, 114)}


@pytest.mark.parametrize(
    ("prefix", "names", "elements"),
    [
        ("100.64.0.0/29", {"b4_32"}, 8),
        ("100.64.0.0/22", {"b4_24"}, 4),
        ("2001:db8::/60", {"b6_64"}, 16),
        ("2001:db8::/49", {"b6_56"}, 128),
        ("2001:db8::/48", {"b6_48"}, 1),
        ("2001:db8::/124", {"b6_128"}, 16),
    ],
)
def test_a_prefix_of_an_odd_length_is_cut(prefix: str, names: set[str], elements: int) -> None:
    found = elements_of(bound_at(subscribed("PK-1"), prefix))
    assert ({name for name, _ in found}, len(found)) == (names, elements)


@pytest.mark.parametrize("prefix", ["2001:db8::/66", "2001:db8::/108", "2001::/20"])
def test_one_that_would_be_too_many_is_counted_and_not_made(prefix: str) -> None:
    bound = bound_at(subscribed("PK-1"), prefix)
    assert count_elements(bound) > MAX_BOUND_ELEMENTS
    assert len(compile_bound(bound)) == 1


def test_peers_and_services_are_cut_where_that_is_not_too_much_and_else_left_as_they_are() -> None:
    few = subscribed("PK-1", peers=["198.51.100.0/29"])
    assert {name for name, _ in elements_of(bound_at(few, "100.64.0.1"))} == {"b4_32_p32"}
    wide = subscribed("PK-1", peers=["198.51.0.0/17", "192.0.2.0/25"])
    found = elements_of(bound_at(wide, "100.64.0.1", (1024, 2023)))
    assert {name for name, _ in found} == {
        f"b4_32_p{peer}_s{bits}" for peer in (17, 25) for bits in PORT_GRAINS[1:]
    }
    ranged = subscribed("PK-1", services=["udp/1024-4095"])
    found = elements_of(bound_at(ranged, "100.64.0.1"))
    assert ({name for name, _ in found}, len(found)) == ({"b4_32_port8"}, 12)


@pytest.mark.parametrize(
    ("name", "former"),
    [("b4_32_s6", True), ("b4_29", True), ("b6_60", True), ("b4_32_s8", False), ("b6_64", False), ("c4_29", False)],
)
def test_a_set_that_no_binding_has_any_more_is_known(name: str, former: bool) -> None:
    parsed = parse_set_name(name)
    assert parsed is not None
    assert is_former(parsed[0]) == former


@pytest.mark.parametrize("ports", [None, (1024, 2047)], ids=["whole", "block"])
def test_the_far_end_may_speak_first_if_it_is_a_peer(ports: tuple[int, int] | None) -> None:
    bound = bound_at(subscribed("PK-1", peers=["198.51.100.7"], services=["ipsec"]), "100.64.0.1", ports)
    assert passes(bound, Flow(UDP, FAR, ADDRESS, 500, 1024))
    assert passes(bound, Flow(UDP, FAR, ADDRESS, 4000, 500)) == (ports is None)
    assert not passes(bound, Flow(UDP, FAR, ADDRESS, 4000, 1024))
    assert not passes(bound, Flow(UDP, FAR[:3] + b"\x08", ADDRESS, 500, 1024))
