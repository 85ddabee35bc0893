"""The addresses and blocks of ports that a request names, and why some of them bind no subscriber."""

from __future__ import annotations

import pytest

from gatewayd.model import Prefix, parse_address
from gatewayd.subscribers.radius.attributes import (
    MAX_ADDRESSES,
    PortBlock,
    host_prefix,
    read_addresses,
    read_integer,
    read_port_blocks,
    read_text,
    text_of,
)
from gatewayd.subscribers.radius.packet import AccountingRequest, open_request
from tests.support.radius import (
    SECRET,
    accounting_request,
    attribute,
    extended,
    framed_ipv4,
    huawei_block,
    integer,
    ipv6_prefix,
    nokia_block,
    port,
    text,
    tlvs,
    vendor,
)

SHARED = parse_address("198.51.100.7")


def request_of(*attributes: bytes) -> AccountingRequest:
    request = open_request(accounting_request(*attributes), [SECRET])
    assert isinstance(request, AccountingRequest)
    return request


def addresses_of(*attributes: bytes) -> tuple[list[str], list[str]]:
    """As text, and the reasons of those that were left out."""
    ignored: list[str] = []
    return [str(prefix) for prefix in read_addresses(request_of(*attributes), ignored)], ignored


def blocks_of(*attributes: bytes) -> list[PortBlock | None]:
    return read_port_blocks(request_of(*attributes))


# Texts and integers


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"BNG 1", "BNG 1"),
        (b"BNG\0\0", "BNG"),
        ("Bähnhof".encode(), "Bähnhof"),
        (b"B\xffG", "B\\xffG"),
        (b"a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        (b"\0", ""),
    ],
)
def test_a_text_can_go_into_a_line_of_a_log(raw: bytes, shown: str) -> None:
    assert text_of(raw) == shown


def test_the_first_text_that_is_not_empty_counts() -> None:
    request = request_of(text(32, ""), attribute(32, b"\0"), text(32, "a"), text(32, "b"))
    assert (read_text(request, 32), read_text(request, 44)) == ("a", None)


@pytest.mark.parametrize(
    ("attributes", "number", "ignored"),
    [
        ((), None, []),
        ((integer(41, 0),), 0, []),
        ((integer(41, 0xFFFFFFFF),), 4294967295, []),
        ((integer(41, 7), attribute(41, b"x")), 7, []),
        ((attribute(41, b"\0\1"),), None, ["integer_malformed"]),
        ((attribute(41, bytes(8)),), None, ["integer_malformed"]),
    ],
)
def test_an_integer_is_unsigned_and_of_four_bytes(
    attributes: tuple[bytes, ...], number: int | None, ignored: list[str]
) -> None:
    """RFC 2865 §5."""
    found: list[str] = []
    assert read_integer(request_of(*attributes), 41, found) == number
    assert found == ignored


# Addresses


def test_all_addresses_of_a_session_each_once() -> None:
    addresses, ignored = addresses_of(
        framed_ipv4("203.0.113.9"),
        attribute(9, bytes([255, 255, 255, 0])),
        attribute(168, parse_address("2001:db8::9")),
        vendor(6527, attribute(99, parse_address("2001:db8::9"))),
        ipv6_prefix(97, 64, "2001:db8:1::"),
        ipv6_prefix(97, 64, "2001:db8:2::"),
        ipv6_prefix(123, 56, "2001:db8:3::"),
    )
    assert addresses == [
        "203.0.113.9/32",
        "2001:db8::9/128",
        "2001:db8:1::/64",
        "2001:db8:2::/64",
        "2001:db8:3::/56",
    ]
    assert ignored == []


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("0.0.0.0", "address_unspecified"),
        ("0.1.2.3", "address_unspecified"),
        ("127.0.0.1", "address_loopback"),
        ("169.254.1.1", "address_link_local"),
        ("224.0.0.1", "address_multicast"),
        ("239.255.255.255", "address_multicast"),
        ("240.0.0.1", "address_reserved"),
        ("255.255.255.253", "address_reserved"),
        ("255.255.255.254", "address_hint"),
        ("255.255.255.255", "address_hint"),
    ],
)
def test_no_subscriber_is_bound_to_such_an_ipv4_address(address: str, code: str) -> None:
    """RFC 6890 §2.2.2; RFC 2865 §5.8 for the two hints."""
    assert addresses_of(framed_ipv4(address), framed_ipv4("203.0.113.9")) == (["203.0.113.9/32"], [code])
    assert host_prefix(parse_address(address)) == code


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("::", "address_unspecified"),
        ("::1", "address_loopback"),
        ("::ffff:203.0.113.9", "address_reserved"),
        ("64:ff9b::1", "address_reserved"),
        ("fe80::1", "address_link_local"),
        ("febf::1", "address_link_local"),
        ("ff02::1", "address_multicast"),
    ],
)
def test_no_subscriber_is_bound_to_such_an_ipv6_address_or_prefix(address: str, code: str) -> None:
    """RFC 4291 §2.4."""
    found = addresses_of(attribute(168, parse_address(address)), ipv6_prefix(123, 128, address))
    assert found == ([], [code, code])


@pytest.mark.parametrize("address", ["fec0::1", "fd00::1", "fe00::1", "100.64.0.1", "10.0.0.1", "223.255.255.255"])
def test_private_and_shared_addresses_are_as_good_as_any(address: str) -> None:
    packed = parse_address(address)
    assert host_prefix(packed) == Prefix(packed, 8 * len(packed))
    assert addresses_of(attribute(8 if len(packed) == 4 else 168, packed)) == ([f"{address}/{8 * len(packed)}"], [])


@pytest.mark.parametrize(
    "malformed",
    [
        attribute(8, b""),
        attribute(8, bytes(3)),
        attribute(8, bytes(16)),
        attribute(168, bytes(15)),
        vendor(6527, attribute(99, bytes(4))),
        attribute(97, b""),
        attribute(97, b"\0"),
        attribute(97, b"\0\x40" + bytes(17)),
        ipv6_prefix(123, 129, "2001:db8::"),
    ],
)
def test_addresses_of_another_size_are_left_out(malformed: bytes) -> None:
    assert addresses_of(malformed, framed_ipv4("203.0.113.9")) == (["203.0.113.9/32"], ["address_malformed"])


def test_a_prefix_may_end_early_and_bits_behind_its_length_do_not_count() -> None:
    """RFC 3162 §2.3: the reserved byte may be anything."""
    addresses, ignored = addresses_of(
        ipv6_prefix(97, 48, bytes.fromhex("20010db80001")),
        ipv6_prefix(97, 64, bytes.fromhex("20010db80002")),
        ipv6_prefix(97, 64, "2001:db8:3::dead:beef"),
        attribute(97, b"\xff\x40" + parse_address("2001:db8:4::")),
    )
    assert addresses == ["2001:db8:1::/48", "2001:db8:2::/64", "2001:db8:3::/64", "2001:db8:4::/64"]
    assert ignored == []


@pytest.mark.parametrize("length", [0, 16, 39])
def test_a_prefix_that_is_too_short_for_one_subscriber_is_left_out(length: int) -> None:
    assert addresses_of(ipv6_prefix(123, length, "2001:db8::")) == ([], ["prefix_too_short"])
    assert addresses_of(ipv6_prefix(123, 40, "2001:db8::")) == (["2001:db8::/40"], [])


def test_there_is_a_bound_to_the_addresses_of_one_request() -> None:
    hosts = [framed_ipv4(f"203.0.113.{host}") for host in range(MAX_ADDRESSES + 1)]
    addresses, ignored = addresses_of(*hosts)
    assert (len(addresses), ignored) == (MAX_ADDRESSES, ["too_many_addresses"])
    assert addresses_of(*hosts[1:], hosts[1])[1] == []


# Blocks of ports


@pytest.mark.parametrize(
    "attributes",
    [
        tlvs((3, SHARED), (9, port(2048)), (10, port(4095))),
        tlvs((1, port(1)), (3, SHARED), (8, port(1)), (9, port(2048)), (10, port(4095)), (11, b"local")),
        nokia_block("198.51.100.7 2048-4095 router base"),
        nokia_block("198.51.100.7 2048-4095"),
        huawei_block(b"198.51.100.7", b"2048", b"4095"),
        huawei_block(SHARED, port(2048), port(4095)),
    ],
)
def test_a_block_is_a_range_of_a_shared_address(attributes: bytes) -> None:
    assert blocks_of(attributes) == [PortBlock((2048, 4095), SHARED)]


@pytest.mark.parametrize("attributes", [tlvs((9, port(1)), (10, port(65535))), huawei_block(b"", b"1", b"65535")])
def test_a_block_need_not_name_the_address(attributes: bytes) -> None:
    assert blocks_of(attributes) == [PortBlock((1, 65535), None)]


def test_the_blocks_of_all_attributes_are_read_and_none_is_no_block() -> None:
    assert blocks_of(framed_ipv4("203.0.113.9")) == []
    found = blocks_of(
        nokia_block("198.51.100.7 2048-4095,8192-9215 router base"),
        tlvs((3, SHARED), (9, port(1)), (10, port(9))),
        huawei_block(b"", b"7", b"8"),
        tlvs((3, SHARED), (9, port(2048)), (10, port(4095))),
    )
    assert found == [
        PortBlock((1, 9), SHARED),
        PortBlock((2048, 4095), SHARED),
        PortBlock((8192, 9215), SHARED),
        PortBlock((7, 8), None),
    ]


@pytest.mark.parametrize(
    "attributes",
    [
        tlvs((3, SHARED), (8, port(2)), (9, port(2048)), (10, port(4095))),
        tlvs((3, SHARED), (9, port(4095)), (10, port(2048))),
        tlvs((3, SHARED), (9, port(0)), (10, port(2048))),
        tlvs((3, SHARED), (9, port(1)), (10, port(65536))),
        tlvs((3, SHARED), (9, port(1))),
        tlvs((3, SHARED), (9, b"\1"), (10, port(9))),
        extended(6, b"\x03\x09"),
        extended(6, b""),
        nokia_block("198.51.100.7"),
        nokia_block("198.51.100.777 2048-4095 router base"),
        nokia_block("198.51.100.7 2048 router base"),
        nokia_block("198.51.100.7 4095-2048 router base"),
        huawei_block(b"198.51.100.7", b"2048", b""),
        huawei_block(b"198.51.100.7", b"", b"2048"),
        huawei_block(b"", b"x", b"9"),
        huawei_block(b"nowhere", b"1", b"9"),
        huawei_block(b"2001:db8::1", b"1", b"9"),
        huawei_block(b"198.51.100.7", b"123456", b"123457"),
        huawei_block(b"198.51.100.7", b"1", b"9") + huawei_block(b"198.51.100.7", b"11", b"19"),
    ],
)
def test_a_block_that_is_malformed_or_was_taken_back_is_none(attributes: bytes) -> None:
    """RFC 8045 §3.2.8 for the deallocation. None is not "no block": the address is shared all the same."""
    assert blocks_of(attributes) == [None]
