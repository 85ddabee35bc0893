from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.model import Family
from gatewayd.model.mask import ANY_PEER, ENDPOINT, NEAR, NOT_BOUND, Mask, describe_key, parse_set_name, set_name
from gatewayd.model.prefix import parse_address
from gatewayd.model.service import BUNDLES

unhurried = settings(deadline=None)

SELECTORS = ("", "proto", *(f"port{bits}" for bits in range(1, 17)), *BUNDLES)
MAX_NAME = 255
"""NFT_SET_MAXNAMELEN less its NUL; include/uapi/linux/netfilter/nf_tables.h."""
MAX_KEY = 64
"""NFT_DATA_VALUE_MAXLEN of the same file."""


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    family: Family = draw(st.sampled_from((4, 6)))
    widest = 32 if family == 4 else 128
    return Mask(
        family,
        draw(st.integers(0, widest)),
        draw(st.just(ANY_PEER) | st.integers(0, widest)),
        draw(st.sampled_from(SELECTORS)),
        draw(st.sampled_from((NOT_BOUND, *range(17)))),
    )


@pytest.mark.parametrize(
    ("mask", "name", "key_length"),
    [
        (Mask(4, 29), "c4_29", 4),
        (Mask(6, 48), "c6_48", 16),
        (Mask(4, 32, 24), "c4_32_p24", 8),
        (Mask(6, 64, 128), "c6_64_p128", 32),
        (Mask(4, 29, 32, "ipsec"), "c4_29_p32_ipsec", 8),
        (Mask(4, 32, ANY_PEER, "proto"), "c4_32_proto", 8),
        (Mask(4, 32, ANY_PEER, "port16"), "c4_32_port16", 12),
        (Mask(6, 128, 128, "port7"), "c6_128_p128_port7", 40),
        (Mask(4, 0, 0), "c4_0_p0", 8),
        (Mask(4, 32, source_bits=0), "b4_32", 4),
        (Mask(6, 56, 48, "ipsec", 0), "b6_56_p48_ipsec", 32),
        (Mask(4, 32, source_bits=9), "b4_32_s9", 8),
        (Mask(4, 32, ANY_PEER, "wireguard", 16), "b4_32_wireguard_s16", 8),
        (Mask(4, 32, ANY_PEER, "proto", 10), "b4_32_proto_s10", 12),
        (Mask(4, 32, ANY_PEER, "port16", 9), "b4_32_port16_s9", 16),
        (Mask(4, 32, 24, "port7", 1), "b4_32_p24_port7_s1", 20),
        (Mask(6, 128, 128, "port7", 12), "b6_128_p128_port7_s12", 44),
    ],
)
def test_a_mask_has_a_name_and_keys_padded_to_registers(mask: Mask, name: str, key_length: int) -> None:
    assert str(mask) == name
    assert mask.key_length == key_length
    assert parse_set_name(name) == (mask, 0)


def test_only_selectors_of_ports_have_a_port_length() -> None:
    lengths = {selector: Mask(4, 32, ANY_PEER, selector).port_length for selector in SELECTORS}
    assert {selector for selector, length in lengths.items() if length} == {f"port{n}" for n in range(1, 17)}
    assert lengths["port1"] == 1
    assert lengths["port16"] == 16


def test_the_protocol_is_in_the_key_with_ports_and_alone_but_not_for_bundles() -> None:
    with_protocol = {each for each in SELECTORS if Mask(4, 32, ANY_PEER, each).has_protocol}
    assert with_protocol == {"proto", *(f"port{bits}" for bits in range(1, 17))}


def test_a_mask_is_of_bindings_whether_or_not_a_source_port_is_in_the_key() -> None:
    bound = {bits: Mask(4, 32, source_bits=bits).is_bound for bits in (NOT_BOUND, 0, 1, 16)}
    assert bound == {NOT_BOUND: False, 0: True, 1: True, 16: True}
    assert not Mask(4, 32).is_bound
    assert len({Mask(4, 32), Mask(4, 32, source_bits=0), Mask(4, 32, source_bits=16)}) == 3


@pytest.mark.parametrize("name", ["b4_32", "b6_56_p48_ipsec", "b4_32_port16_s9", "b4_32_proto_s16"])
def test_a_successor_of_a_set_of_bindings_has_its_generation_at_the_end_of_its_name(name: str) -> None:
    parsed = parse_set_name(name)
    assert parsed is not None
    assert set_name(parsed[0], 2) == f"{name}_g2"
    assert parse_set_name(f"{name}_g2") == (parsed[0], 2)


@unhurried
@given(masks())
def test_a_key_is_made_of_whole_registers_and_fits_the_kernel(mask: Mask) -> None:
    assert mask.key_length % 4 == 0
    assert mask.key_length <= MAX_KEY


@unhurried
@given(masks(), st.integers(0, 10**6))
def test_a_name_says_the_mask_and_the_generation_and_fits_the_kernel(mask: Mask, generation: int) -> None:
    name = set_name(mask, generation)
    assert parse_set_name(name) == (mask, generation)
    assert len(name) <= MAX_NAME


@unhurried
@given(masks(), masks(), st.integers(0, 3), st.integers(0, 3))
def test_no_two_sets_share_a_name(one: Mask, other: Mask, generation: int, another: int) -> None:
    same = set_name(one, generation) == set_name(other, another)
    assert same == ((one, generation) == (other, another))


@pytest.mark.parametrize(
    "name",
    [
        "", "c4", "c4_", "c5_32", "c4_33", "c6_129", "c4_32_p33", "c6_64_p129", "c4_029", "c4_32_p08",
        "c4_32_port0", "c4_32_port17", "c4_32_port", "c4_32_tunnel", "c4_32_ipsec_p32", "c4_32_g0", "c4_32_g01",
        "c4_32_g", "c4_32 ", "C4_32", "c4_32_ipsec_g2_g3", "limiter4", "c4_٣٢", "c4_32\n",
        "b4", "b4_33", "b6_129", "b4_032", "b5_32", "B4_32", "a4_32", "bc4_32", "b4_32_s0", "b4_32_s17", "b4_32_s",
        "b4_32_s09", "b4_32_s9_s9", "b4_32_s9_port16", "b4_32_g2_s9", "b4_32_s9_g0", "b4_32_s9_g02", "b4_32_s9 ",
        "b4_32_s-1", "b4_32_ipsec_p32_s9", "b4_32_s٩", "b4_32_g2_g2", "c4_32_s9", "c4_32_s0", "c4_32_port16_s9_g2",
        "c6_64_p64_ipsec_s16",
    ],
)  # fmt: skip
def test_other_names_are_not_ours(name: str) -> None:
    assert parse_set_name(name) is None


def test_a_mask_of_endpoints_has_a_role_and_a_name_of_its_own() -> None:
    mask = Mask(4, 24, ANY_PEER, "port16", ENDPOINT)
    assert (str(mask), mask.role, mask.is_endpoint, mask.is_bound) == ("e4_24_port16", "endpoint", True, False)
    assert parse_set_name("e4_24_port16_g2") == (mask, 2)
    assert [Mask(4, 24).role, Mask(4, 24, source_bits=0).role] == ["client", "bound"]
    assert parse_set_name("e4_24_s4") is None


def test_a_mask_that_makes_no_flow_registered_is_known_by_its_selector_alone() -> None:
    near = Mask(6, 64, ANY_PEER, NEAR)
    assert near.is_near
    assert (near.role, near.port_length, near.has_protocol, near.key_length) == ("client", 0, False, 16)
    assert parse_set_name("c6_64_near_g3") == (near, 3)
    assert not any(Mask(6, 64, ANY_PEER, each).is_near for each in SELECTORS)


def test_masks_sort_so_that_the_rules_are_the_same_for_the_same_input() -> None:
    wanted = [Mask(4, 24), Mask(4, 24, 24), Mask(4, 24, 24, "ipsec"), Mask(4, 32), Mask(6, 24)]
    assert sorted(reversed(wanted)) == wanted


def test_a_mask_of_bindings_sorts_right_behind_the_one_of_clients() -> None:
    wanted = [
        Mask(4, 32),
        Mask(4, 32, source_bits=0),
        Mask(4, 32, source_bits=9),
        Mask(4, 32, ANY_PEER, "ipsec"),
        Mask(4, 32, ANY_PEER, "ipsec", 0),
        Mask(4, 32, 24),
    ]
    assert sorted(reversed(wanted)) == wanted


def port(number: int) -> bytes:
    """As it is in a key: padded to a register."""
    return number.to_bytes(2, "big") + b"\0\0"


V4, FAR4 = parse_address("192.0.2.1"), parse_address("198.51.100.7")
V6, FAR6 = parse_address("2001:db8::"), parse_address("2400:cb00::7")
UDP = bytes((17, 0, 0, 0))


@pytest.mark.parametrize(
    ("name", "key", "shown"),
    [
        ("c4_32", V4, "192.0.2.1"),
        ("b4_32", V4, "192.0.2.1"),
        ("b6_56_p48_ipsec_g2", V6 + FAR6, "2001:db8:: . 2400:cb00::7"),
        ("c4_32_port16", V4 + UDP + port(500), "192.0.2.1 . 17 . 500"),
        ("b4_32_s9", V4 + port(49280), "192.0.2.1 . 49280"),
        ("b4_32_proto_s6", V4 + UDP + port(1024), "192.0.2.1 . 17 . 1024"),
        ("b4_32_p32_port9_s9", V4 + FAR4 + UDP + port(0) + port(128), "192.0.2.1 . 198.51.100.7 . 17 . 0 . 128"),
        ("b6_128_ipsec_s1", V6 + port(32768), "2001:db8:: . 32768"),
        ("b4_32_s9", V4, V4.hex()),
        ("b4_32", V4 + port(1), (V4 + port(1)).hex()),
        ("limiter4", V4, V4.hex()),
        ("b4_32", b"", ""),
    ],
)  # fmt: skip
def test_a_key_is_shown_as_nft_shows_it_and_in_hex_where_it_is_not_the_sets(
    name: str, key: bytes, shown: str
) -> None:
    assert describe_key(name, key) == shown
