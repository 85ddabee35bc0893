from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import PrefixInvalid
from gatewayd.model import Prefix, format_address, parse_address, parse_prefix
from gatewayd.model.prefix import mask_address, mask_bytes

unhurried = settings(deadline=None)


@pytest.mark.parametrize(
    "text", ["203.0.113.9", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::", "fe80::1", "::ffff:10.0.0.1"]
)
def test_an_address_is_its_packed_bytes_and_comes_back_as_text(text: str) -> None:
    packed = parse_address(text)
    assert packed == ipaddress.ip_address(text).packed
    assert parse_address(format_address(packed)) == packed


def test_ipv6_text_is_the_short_lower_case_one_of_rfc_5952() -> None:
    assert format_address(parse_address("2001:DB8:0:0:0:0:0:01")) == "2001:db8::1"


@pytest.mark.parametrize(
    "text",
    ["", " 10.0.0.1", "10.0.0", "10.0.0.256", "010.0.0.1", "fe80::1%eth0", "1:2:3", "x" * 80, "10.0.0.1/32", "::g"],
)
def test_what_is_no_address_is_refused_and_shown_no_longer_than_64_characters(text: str) -> None:
    with pytest.raises(PrefixInvalid) as caught:
        parse_address(text)
    assert caught.value.code == "prefix_syntax"
    assert caught.value.text == text[:64]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.0/28", Prefix(bytes((203, 0, 113, 0)), 28)),
        ("203.0.113.9", Prefix(bytes((203, 0, 113, 9)), 32)),
        ("10.0.0.0/8", Prefix(bytes((10, 0, 0, 0)), 8)),
        ("2001:db8::/32", Prefix(parse_address("2001:db8::"), 32)),
        ("2001:db8::1", Prefix(parse_address("2001:db8::1"), 128)),
        ("2000::/16", Prefix(parse_address("2000::"), 16)),
    ],
)
def test_a_canonical_prefix_is_taken_as_it_stands(text: str, expected: Prefix) -> None:
    assert parse_prefix(text) == expected
    assert parse_prefix(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("10.0.0.0/", "prefix_syntax"),
        ("10.0.0.0/x", "prefix_syntax"),
        ("10.0.0.0/-8", "prefix_syntax"),
        ("10.0.0.0/+8", "prefix_syntax"),
        ("10.0.0.0/٨", "prefix_syntax"),
        ("10.0.0.0/0000", "prefix_syntax"),
        ("10.0.0.0/08", "prefix_syntax"),
        ("10.0.0.0/33", "prefix_syntax"),
        ("2001:db8::/129", "prefix_syntax"),
        ("10.0.0.0/8/8", "prefix_syntax"),
        ("10.0.0.0/255.0.0.0", "prefix_syntax"),
        ("10.0.0.1/31", "prefix_host_bits"),
        ("2001:db8::1/127", "prefix_host_bits"),
        ("0.0.0.0/7", "prefix_too_short"),
        ("0.0.0.0/0", "prefix_too_short"),
        ("2000::/15", "prefix_too_short"),
        ("::/0", "prefix_too_short"),
    ],
)
def test_a_prefix_that_is_not_canonical_or_too_short_is_refused_with_its_code(text: str, code: str) -> None:
    with pytest.raises(PrefixInvalid) as caught:
        parse_prefix(text)
    assert caught.value.code == code


def test_host_bits_are_never_silently_masked_but_the_prefix_meant_is_told() -> None:
    with pytest.raises(PrefixInvalid, match=r"203\.0\.113\.8/29"):
        parse_prefix("203.0.113.9/29")


def test_a_prefix_covers_addresses_of_its_own_family_alone() -> None:
    prefix = parse_prefix("203.0.113.8/29")
    assert prefix.family == 4
    assert prefix.covers(parse_address("203.0.113.8"))
    assert prefix.covers(parse_address("203.0.113.15"))
    assert not prefix.covers(parse_address("203.0.113.16"))
    wide = parse_prefix("2001:db8::/32")
    assert wide.family == 6
    assert wide.covers(parse_address("2001:db8:ffff::1"))
    assert not wide.covers(parse_address("2001:db9::"))
    assert not prefix.covers(parse_address("cb00:7108::"))
    assert not parse_prefix("cb00:7108::/32").covers(parse_address("203.0.113.8"))


def test_a_host_prefix_covers_itself_alone() -> None:
    prefix = parse_prefix("203.0.113.9")
    assert prefix.covers(parse_address("203.0.113.9"))
    assert not prefix.covers(parse_address("203.0.113.8"))


@unhurried
@given(
    st.sampled_from((4, 16)).flatmap(
        lambda width: st.tuples(st.binary(min_size=width, max_size=width), st.integers(0, width * 8))
    )
)
def test_masking_is_what_ipaddress_says(case: tuple[bytes, int]) -> None:
    address, length = case
    network = ipaddress.ip_network((address, length), strict=False)
    assert mask_address(address, length) == network.network_address.packed
    assert mask_bytes(len(address), length) == network.netmask.packed
    assert Prefix(network.network_address.packed, length).covers(address)


def test_prefixes_sort_by_address_then_length() -> None:
    texts = ["10.0.0.0/9", "10.0.0.0/8", "9.0.0.0/8", "10.128.0.0/9"]
    assert [str(prefix) for prefix in sorted(map(parse_prefix, texts))] == [
        "9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9",
    ]  # fmt: skip
