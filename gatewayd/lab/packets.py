"""IPv4 and IPv6 packets as bytes: built for a flow, and read back from the wire (RFC 791, 8200, 768, 4303,
4302, 2637). Whole packets, because the lab sends by raw sockets and captures below the stack.
"""

from __future__ import annotations

from struct import Struct, unpack

from gatewayd.model import Flow
from gatewayd.model.service import AH, ESP, GRE, IPIP, IPV6, PROTOCOLS_WITH_PORTS, SCTP, TCP, UDP, UDPLITE

ICMP, ICMPV6 = 1, 58
_HOP_LIMIT = 64
_IPV4 = Struct(">BBHHHBBH4s4s")
_IPV6 = Struct(">IHBB16s16s")
_PORTS = Struct(">HHHH")
_ESP = Struct(">II")
_AH = Struct(">BBHII12s")
_ENHANCED_GRE = Struct(">HHHHI")

_SPI = 0x67770001
_CALL_ID = 0x6777
_REFUSALS = {ICMP: (3, frozenset({9, 10, 13})), ICMPV6: (1, frozenset({1, 5, 6}))}
"""ICMP type and codes that mean "not allowed" (RFC 1812 §5.2.7.1, RFC 4443 §3.1). A missing host, route or
socket has other codes and is no refusal."""


def build_packet(flow: Flow, payload: bytes) -> bytes:
    """An IP packet of `flow` that carries `payload`: UDP with checksum, UDP-Lite, ESP, AH (a null ICV around
    an IP tunnel), GRE as PPTP sends it; any other protocol has `payload` for its body.

    Raises ValueError for TCP and SCTP, which are more than one packet.
    """
    if len(flow.source) != len(flow.destination):
        raise ValueError("a flow has both addresses of one family")
    body = _body(flow, payload)
    if len(flow.source) == 4:
        # Length, identification and checksum are the kernel's to fill in (raw(7), IP_HDRINCL).
        header = _IPV4.pack(
            0x45, 0, 20 + len(body), 0, 0, _HOP_LIMIT, flow.protocol, 0, flow.source, flow.destination
        )
    else:
        header = _IPV6.pack(6 << 28, len(body), flow.protocol, _HOP_LIMIT, flow.source, flow.destination)
    return header + body


def _body(flow: Flow, payload: bytes) -> bytes:
    if flow.protocol in (TCP, SCTP):
        raise ValueError("TCP and SCTP are not single packets")
    if flow.protocol in (UDP, UDPLITE):
        return _datagram(flow, payload)
    if flow.protocol == ESP:
        return _ESP.pack(_SPI, 1) + payload
    if flow.protocol == AH:
        inner = IPIP if len(flow.source) == 4 else IPV6
        return _AH.pack(inner, 4, 0, _SPI, 1, bytes(12)) + payload
    if flow.protocol == GRE:
        # Version 1 with key and sequence number, payload PPP (RFC 2637 §4.1).
        return _ENHANCED_GRE.pack(0x3001, 0x880B, len(payload), _CALL_ID, 1) + payload
    return payload


def _datagram(flow: Flow, payload: bytes) -> bytes:
    size = 8 + len(payload)
    pseudo = flow.source + flow.destination + size.to_bytes(4, "big") + flow.protocol.to_bytes(4, "big")
    # UDP-Lite's third field is its checksum coverage; the whole datagram is as good as UDP (RFC 3828 §3.1).
    ports = (flow.source_port, flow.destination_port, size)
    checksum = internet_checksum(pseudo + _PORTS.pack(*ports, 0) + payload)
    return _PORTS.pack(*ports, checksum or 0xFFFF) + payload


def internet_checksum(raw: bytes) -> int:
    """RFC 1071."""
    if len(raw) % 2:
        raw += b"\0"
    total: int = sum(unpack(f">{len(raw) // 2}H", raw))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return ~total & 0xFFFF


def parse_flow(packet: bytes) -> Flow | None:
    """The tuple of an IP packet (options and extension headers not followed); None if it is not one."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        protocol, source, destination, start = packet[9], packet[12:16], packet[16:20], (packet[0] & 0xF) * 4
    elif version == 6 and len(packet) >= 40:
        protocol, source, destination, start = packet[6], packet[8:24], packet[24:40], 40
    else:
        return None
    if protocol not in PROTOCOLS_WITH_PORTS or len(packet) < start + 4:
        return Flow(protocol, source, destination)
    ports = int.from_bytes(packet[start : start + 4], "big")
    return Flow(protocol, source, destination, ports >> 16, ports & 0xFFFF)


def is_icmp(packet: bytes) -> bool:
    """Whether it is ICMP or ICMPv6, errors that quote another packet included."""
    version = packet[0] >> 4 if packet else 0
    return (version == 4 and packet[9:10] == b"\x01") or (version == 6 and packet[6:7] == b"\x3a")


def refused_packet(packet: bytes) -> bytes | None:
    """The packet that an ICMP error calls administratively prohibited, as far as quoted; None if it is no
    such.

    Linux quotes up to 576 bytes (icmp_send) and 1280 (icmpv6_send): all of a probe.
    """
    if not is_icmp(packet):
        return None
    protocol, start = (ICMP, (packet[0] & 0xF) * 4) if packet[0] >> 4 == 4 else (ICMPV6, 40)
    kind, codes = _REFUSALS[protocol]
    if len(packet) < start + 8 or packet[start] != kind or packet[start + 1] not in codes:
        return None
    return packet[start + 8 :]
