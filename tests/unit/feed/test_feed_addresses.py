from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import PrefixInvalid, RecordRejected
from gatewayd.feed.addresses import parse_endpoints, parse_prefixes, parse_unicast_prefix
from gatewayd.model import Prefix, parse_prefix


def test_prefixes_are_sorted_and_unique() -> None:
    found = parse_prefixes("clients", ("203.0.113.9", "203.0.113.8/32", "203.0.113.9/32"), 3)
    assert [str(each) for each in found] == ["203.0.113.8/32", "203.0.113.9/32"]
    with pytest.raises(RecordRejected, match="4, and at most 3"):
        parse_prefixes("clients", ("203.0.113.9",) * 4, 3)


@pytest.mark.parametrize(("text", "shown"), [("203.0.113.1/28", "203.0.113.1/28:"), ("0300 1234567", "a prefix:")])
def test_a_rejection_shows_no_more_than_a_prefix(text: str, shown: str) -> None:
    with pytest.raises(RecordRejected, match=f"^[^0-9]*{shown}"):
        parse_prefixes("clients", (text,), 3)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("::ffff:1.2.3.4", "prefix_syntax"),
        ("fe80::/64", "prefix_not_unicast"),
        ("2001:db8::1/64", "prefix_host_bits"),
    ],
)
def test_what_no_registrant_has_is_refused(text: str, code: str) -> None:
    with pytest.raises(PrefixInvalid) as caught:
        parse_unicast_prefix(text)
    assert caught.value.code == code


def test_an_endpoint_is_no_wider_than_a_provider_has() -> None:
    assert len(parse_endpoints(("198.51.100.0/24", "2001:db8:1::/48", "198.51.100.7"), 9)) == 3
    for text in ("198.51.100.0/23", "2001:db8::/47"):
        with pytest.raises(RecordRejected, match="shorter than") as caught:
            parse_endpoints((text,), 9)
        assert caught.value.code == "endpoint_too_short"


def _slow(text: str) -> Prefix | str:
    try:
        prefix = parse_prefix(text)
    except PrefixInvalid as error:
        return error.code
    return prefix


def _fast(text: str) -> Prefix | str:
    try:
        return parse_unicast_prefix(text)
    except PrefixInvalid as error:
        return error.code


octet = st.one_of(st.integers(0, 260).map(str), st.sampled_from(["", "00", "01", "-1", " 1", "1_0", "٣"]))
group = st.one_of(
    st.integers(0, 0x10FFF).map(lambda n: f"{n:x}"), st.sampled_from(["", "0db8", "DB8", "00001", "2001"])
)
length = st.one_of(st.integers(0, 130).map(lambda n: f"/{n}"), st.sampled_from(["", "/", "/08", "/+8", "/8/8"]))


@given(st.lists(octet, min_size=3, max_size=5), length)
def test_ipv4_prefixes_are_read_as_the_model_reads_them(raw: list[str], length: str) -> None:
    text = ".".join(raw) + length
    assert _fast(text) in (_slow(text), "prefix_not_unicast")


@given(st.lists(group, min_size=1, max_size=9), st.sampled_from(["", ":", "::"]), length)
def test_ipv6_prefixes_are_read_as_the_model_reads_them(groups: list[str], end: str, length: str) -> None:
    text = ":".join(groups) + end + length
    assert _fast(text) in (_slow(text), "prefix_not_unicast")


@given(st.integers(0, 2**32 - 1), st.integers(8, 32))
def test_every_ipv4_prefix_of_a_registrant_is_read_as_it_is_written(address: int, length: int) -> None:
    packed = (address >> (32 - length) << (32 - length)).to_bytes(4, "big")
    if 1 <= packed[0] < 224 and packed[0] not in (127, 169):
        assert parse_unicast_prefix(str(Prefix(packed, length))) == Prefix(packed, length)


@given(st.integers(2**125, 2**126 - 1), st.integers(16, 128))
def test_every_global_ipv6_prefix_is_read_as_it_is_written(address: int, length: int) -> None:
    packed = (address >> (128 - length) << (128 - length)).to_bytes(16, "big")
    assert parse_unicast_prefix(str(Prefix(packed, length))) == Prefix(packed, length)


@pytest.mark.parametrize("text", ["923009876543.0.0/24", "203.0.113.923009876543/28", "2001:db8::30098/64"])
def test_a_number_that_stands_where_a_prefix_should_is_not_shown(text: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        parse_prefixes("clients", (text,), 5)
    assert caught.value.detail.startswith("a prefix: ")


def test_a_prefix_that_is_misspelt_is_shown() -> None:
    for text in ("203.0.1134.0/24", "203.0.113.0/33"):
        with pytest.raises(RecordRejected) as caught:
            parse_prefixes("clients", (text,), 5)
        assert text.partition("/")[0] in caught.value.detail
