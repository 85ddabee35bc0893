from __future__ import annotations

from struct import pack
from typing import Any

import pytest

from gatewayd.lab.packets import build_packet, internet_checksum, is_icmp, parse_flow, refused_packet
from gatewayd.model import Flow, parse_address, reverse_flow
from gatewayd.model.service import AH, ESP, GRE, L2TP, SCTP, TCP, UDP, UDPLITE

FOUR = (parse_address("39.32.0.1"), parse_address("198.51.100.7"))
SIX = (parse_address("2400:adc0::1"), parse_address("2001:db8::7"))


@pytest.mark.parametrize("ends", [FOUR, SIX], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", [UDP, UDPLITE, ESP, AH, GRE, L2TP])
def test_a_built_packet_reads_back_as_its_flow_and_carries_its_payload(
    ends: tuple[Any, Any], protocol: Any
) -> None:
    ports = (40000, 51820) if protocol in (UDP, UDPLITE) else (0, 0)
    flow = Flow(protocol, *ends, *ports)
    packet = build_packet(flow, b"payload")
    assert parse_flow(packet) == flow
    assert packet.endswith(b"payload")


@pytest.mark.parametrize("payload", [b"", b"odd", b"even"])
def test_a_datagram_has_the_checksum_that_sums_to_zero_with_its_pseudo_header(payload: bytes) -> None:
    datagram = build_packet(Flow(UDP, *SIX, 1, 2), payload)[40:]
    pseudo = b"".join(SIX) + pack(">II", len(datagram), UDP)
    assert internet_checksum(pseudo + datagram) == 0


@pytest.mark.parametrize("protocol", [TCP, SCTP])
def test_what_takes_more_than_one_packet_is_not_built(protocol: Any) -> None:
    with pytest.raises(ValueError, match="not single packets"):
        build_packet(Flow(protocol, *FOUR, 1, 2), b"")


def test_a_flow_of_two_families_is_not_built() -> None:
    with pytest.raises(ValueError, match="one family"):
        build_packet(Flow(UDP, FOUR[0], SIX[1], 1, 2), b"")


def test_a_reversed_flow_has_both_ends_exchanged() -> None:
    assert reverse_flow(Flow(UDP, *FOUR, 1, 2)) == Flow(UDP, FOUR[1], FOUR[0], 2, 1)


@pytest.mark.parametrize("raw", [b"", b"\x45", bytes(20), b"\x60" + bytes(20), b"\0\1\x08\0"])
def test_what_is_no_ip_packet_has_no_flow(raw: bytes) -> None:
    assert parse_flow(raw) is None


def test_a_quote_cut_before_the_ports_is_a_flow_without_ports() -> None:
    packet = build_packet(Flow(UDP, *FOUR, 1, 2), b"")
    assert parse_flow(packet[:22]) == Flow(UDP, *FOUR)


def icmp_error(ends: tuple[bytes, bytes], kind: int, code: int, quoted: bytes) -> bytes:
    protocol = 1 if len(ends[0]) == 4 else 58
    return build_packet(Flow(protocol, *ends), pack(">BBHI", kind, code, 0, 0) + quoted)


@pytest.mark.parametrize(
    ("ends", "kind", "code"),
    [(FOUR, 3, 9), (FOUR, 3, 10), (FOUR, 3, 13), (SIX, 1, 1), (SIX, 1, 5), (SIX, 1, 6)],
)
def test_an_administrative_prohibition_gives_the_packet_it_quotes(
    ends: tuple[Any, Any], kind: int, code: int
) -> None:
    quoted = build_packet(Flow(UDP, *ends, 1, 2), b"token")
    assert refused_packet(icmp_error(ends, kind, code, quoted)) == quoted


@pytest.mark.parametrize(
    ("ends", "kind", "code"),
    [
        (FOUR, 3, 1),
        (FOUR, 3, 2),
        (FOUR, 3, 3),
        (FOUR, 11, 0),
        (SIX, 1, 0),
        (SIX, 1, 4),
        (SIX, 3, 0),
        (SIX, 4, 1),
    ],
)
def test_an_error_about_hosts_routes_ports_or_time_is_no_refusal(
    ends: tuple[Any, Any], kind: int, code: int
) -> None:
    error = icmp_error(ends, kind, code, build_packet(Flow(UDP, *ends, 1, 2), b"token"))
    assert is_icmp(error)
    assert refused_packet(error) is None


def test_other_packets_and_cut_errors_are_no_refusal() -> None:
    assert refused_packet(build_packet(Flow(UDP, *FOUR, 1, 2), b"")) is None
    assert refused_packet(icmp_error(FOUR, 3, 13, b"")[:24]) is None
    assert refused_packet(b"") is None
