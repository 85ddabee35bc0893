"""Logged packets from bytes: the kernel's, every header chain we step over, and garbage."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import EventMalformed
from gatewayd.kernel.attributes import attribute, be32, message, text
from gatewayd.model import Flow, parse_address
from gatewayd.watch import decode
from tests.support.captures import PACKETS

SOURCE4, DESTINATION4 = parse_address("192.0.2.1"), parse_address("198.51.100.7")
SOURCE6, DESTINATION6 = parse_address("2001:db8::1"), parse_address("2001:db8::2")
PORTS = bytes.fromhex("9c41ca6c")
NFULA_PREFIX = 10
UDP, ESP, AH, GRE = 17, 50, 51, 47


def ipv4(protocol: int, rest: bytes, *, options: bytes = b"", fragment: int = 0, total: int | None = None) -> bytes:
    header = 20 + len(options)
    total = header + len(rest) if total is None else total
    return (
        bytes([0x40 | header // 4, 0]) + total.to_bytes(2, "big") + b"\0\0" + fragment.to_bytes(2, "big")
        + bytes([64, protocol, 0, 0]) + SOURCE4 + DESTINATION4 + options + rest
    )  # fmt: skip


def ipv6(protocol: int, rest: bytes, *, length: int | None = None) -> bytes:
    length = len(rest) if length is None else length
    return b"\x60\0\0\0" + length.to_bytes(2, "big") + bytes([protocol, 64]) + SOURCE6 + DESTINATION6 + rest


def extension(following: int, units: int = 0) -> bytes:
    return bytes([following, units]) + bytes(6 + 8 * units)


def fragment_header(following: int, offset: int, more: int = 1) -> bytes:
    return bytes([following, 0]) + (offset << 3 | more).to_bytes(2, "big") + bytes(4)


def nflog(*attributes: bytes) -> bytes:
    return message(decode.NFULNL_MSG_PACKET, 0, 0, 2, 77, *attributes)


def payload(packet: bytes) -> bytes:
    return attribute(decode.NFULA_PAYLOAD, packet)


@pytest.mark.parametrize(
    ("name", "flow"),
    [
        ("udp4", Flow(UDP, parse_address("127.0.0.1"), parse_address("127.0.0.2"), 40001, 51820)),
        ("udp6 truncated", Flow(UDP, parse_address("::1"), parse_address("::1"), 40001, 51820)),
        ("esp4", Flow(ESP, parse_address("127.0.0.1"), parse_address("127.0.0.2"))),
    ],
)
def test_the_kernels_bytes_give_the_packet_that_was_sent(name: str, flow: Flow) -> None:
    batch = decode.decode_packets(bytes.fromhex(PACKETS[name]))
    assert batch == decode.PacketBatch([flow], 0)


IPV4_FLOW = Flow(UDP, SOURCE4, DESTINATION4, 40001, 51820)
IPV6_FLOW = Flow(UDP, SOURCE6, DESTINATION6, 40001, 51820)
READABLE = {
    "plain": (ipv4(UDP, PORTS), IPV4_FLOW),
    "options": (ipv4(UDP, PORTS, options=bytes(8)), IPV4_FLOW),
    "don't fragment": (ipv4(UDP, PORTS, fragment=0x4000), IPV4_FLOW),
    "first fragment": (ipv4(UDP, PORTS, fragment=0x2000), IPV4_FLOW),
    "second fragment": (ipv4(UDP, b"", fragment=0x2001), Flow(UDP, SOURCE4, DESTINATION4)),
    "copied in part": (ipv4(UDP, PORTS, total=1500), IPV4_FLOW),
    "put together by GRO": (ipv4(UDP, PORTS, total=0), IPV4_FLOW),
    "no ports in ESP": (ipv4(ESP, PORTS), Flow(ESP, SOURCE4, DESTINATION4)),
    "no ports in GRE": (ipv4(GRE, b""), Flow(GRE, SOURCE4, DESTINATION4)),
    "IPv6": (ipv6(UDP, PORTS), IPV6_FLOW),
    "IPv6 copied in part": (ipv6(UDP, PORTS, length=1400), IPV6_FLOW),
    "IPv6 AH is a protocol": (ipv6(AH, bytes(24)), Flow(AH, SOURCE6, DESTINATION6)),
    "IPv6 no next header": (ipv6(59, b""), Flow(59, SOURCE6, DESTINATION6)),
    "IPv6 chain": (
        ipv6(0, extension(43) + extension(60, 2) + extension(44, 1) + fragment_header(UDP, 0) + PORTS),
        IPV6_FLOW,
    ),
    "IPv6 first fragment": (ipv6(44, fragment_header(UDP, 0) + PORTS), IPV6_FLOW),
    "IPv6 second fragment": (
        ipv6(60, extension(44) + fragment_header(UDP, 1)), Flow(UDP, SOURCE6, DESTINATION6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READABLE)
def test_a_packet_gives_its_flow(name: str) -> None:
    packet, flow = READABLE[name]
    assert decode.flow_of_packet(packet) == flow


UNREADABLE = {
    "empty": b"",
    "version 5": b"\x55" + bytes(60),
    "half an IPv4 header": ipv4(UDP, PORTS)[:19],
    "IHL 4": b"\x44" + ipv4(UDP, PORTS)[1:],
    "IHL past the packet": b"\x4f" + ipv4(UDP, PORTS)[1:],
    "total length in the header": ipv4(UDP, PORTS, total=19),
    "total length before the ports": ipv4(UDP, PORTS, total=22),
    "ports not copied": ipv4(UDP, PORTS)[:22],
    "half an IPv6 header": ipv6(UDP, PORTS)[:39],
    "IPv6 ports not copied": ipv6(UDP, PORTS)[:43],
    "extension header not copied": ipv6(0, extension(UDP))[:47],
    "extension header past the copy": ipv6(0, extension(60, 20)[:32]),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_packet_that_does_not_reach_to_its_ports_is_malformed(name: str) -> None:
    with pytest.raises(EventMalformed):
        decode.flow_of_packet(UNREADABLE[name])


MALFORMED = {
    "no payload": be32(NFULA_PREFIX, 1),
    "unreadable packet": payload(b"\x45"),
    "an attribute of length 3": b"\x03\0\x02\0",
    "an attribute past the end": b"\x20\0\x02\0",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_event_costs_only_itself(name: str) -> None:
    good = nflog(payload(ipv4(UDP, PORTS)), text(NFULA_PREFIX, "u"))
    batch = decode.decode_packets(memoryview(good + nflog(MALFORMED[name]) + good))
    assert (len(batch.flows), batch.malformed) == (2, 1)


@pytest.mark.parametrize("length", [3, 4000])
def test_an_impossible_length_ends_the_buffer_and_is_counted(length: int) -> None:
    good = nflog(payload(ipv4(UDP, PORTS)))
    batch = decode.decode_packets(good + length.to_bytes(4, "little") + good[4:])
    assert (len(batch.flows), batch.malformed) == (1, 1)


def test_other_messages_are_stepped_over() -> None:
    done = message(3, 0, 0, 0, 0)
    assert decode.decode_packets(done) == decode.PacketBatch([], 0)


def test_nothing_behind_the_ports_is_read() -> None:
    packet = ipv4(UDP, PORTS + b"secret")
    assert decode.flow_of_packet(packet) == decode.flow_of_packet(ipv4(UDP, PORTS + b"public"))


@settings(deadline=None)
@given(raw=st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing(raw: bytes) -> None:
    decode.decode_packets(raw)
    batch = decode.decode_packets(nflog(payload(raw)))
    assert len(batch.flows) + batch.malformed == 1
    batch = decode.decode_packets(nflog(raw + bytes(-len(raw) & 3)))
    assert len(batch.flows) + batch.malformed == 1


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(PACKETS)),
    changes=st.lists(st.tuples(st.integers(0, 210), st.integers(0, 255)), max_size=6),
)
def test_mutated_bytes_raise_nothing(name: str, changes: list[tuple[int, int]]) -> None:
    raw = bytearray.fromhex(PACKETS[name])
    for place, value in changes:
        if place < len(raw):
            raw[place] = value
    decode.decode_packets(raw)
