from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.model import Family
from gatewayd.model.mask import ANY_PEER, Mask, parse_set_name, set_name
from gatewayd.model.service import BUNDLES

unhurried = settings(deadline=None)

SELECTORS = ("", "proto", *(f"port{bits}" for bits in range(1, 17)), *BUNDLES)
LONGEST_NAME = 255
"""NFT_SET_MAXNAMELEN less its NUL; include/uapi/linux/netfilter/nf_tables.h."""


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    family: Family = draw(st.sampled_from((4, 6)))
    widest = 32 if family == 4 else 128
    return Mask(
        family,
        draw(st.integers(0, widest)),
        draw(st.just(ANY_PEER) | st.integers(0, widest)),
        draw(st.sampled_from(SELECTORS)),
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


@unhurried
@given(masks(), st.integers(0, 10**6))
def test_a_name_says_the_mask_and_the_generation_and_fits_the_kernel(mask: Mask, generation: int) -> None:
    name = set_name(mask, generation)
    assert parse_set_name(name) == (mask, generation)
    assert len(name) <= LONGEST_NAME


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
        "c4_32_g", "c4_32 ", "C4_32", "c4_32_ipsec_g2_g3", "limited4", "c4_٣٢", "c4_32\n",
    ],
)  # fmt: skip
def test_other_names_are_not_ours(name: str) -> None:
    assert parse_set_name(name) is None


def test_masks_sort_so_that_the_rules_are_the_same_for_the_same_input() -> None:
    wanted = [Mask(4, 24), Mask(4, 24, 24), Mask(4, 24, 24, "ipsec"), Mask(4, 32), Mask(6, 24)]
    assert sorted(reversed(wanted)) == wanted
