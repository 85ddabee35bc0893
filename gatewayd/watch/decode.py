"""Packets that a rule logged, from the kernel's bytes; and a filter for the events of connections.

Logged packets come as include/uapi/linux/netfilter/nfnetlink_log.h says. Of each the addresses, the protocol
and the two ports are read, and nothing behind them; the socket asks the kernel for no more than it takes to
get past IPv6 extension headers. Connections are decoded beside the other ctnetlink code, in
gatewayd.kernel.conntrack_codec.

The filter leaves unwanted events in the kernel (Documentation/networking/filter.rst). Some other rule on the
gateway may well track every flow of every customer; we want the events of those that our rules marked. Its program
looks for CTA_MARK with the classic BPF extension SKF_AD_NLATTR and compares, so an event that is not ours costs
no copy and no Python.

It runs on each event message from its nlmsghdr on. The kernel leaves CTA_MARK out of an event when the mark
is 0; it is then taken as 0.

Connections that another program makes (conntrackd carries over those of the other gateway) pass with any bit of
ours: their nlmsghdr names the netlink port of that program, where an event that a packet caused has 0 there
(net/netfilter/nf_conntrack_netlink.c: ctnetlink_conntrack_event, item->portid; seen on 6.18).
"""

from __future__ import annotations

import sys
from struct import Struct

import msgspec

from gatewayd.errors import EventMalformed
from gatewayd.kernel.attributes import NLA_TYPE_MASK, align4
from gatewayd.kernel.conntrack_codec import CT_NEW, CTA_MARK
from gatewayd.model import Flow
from gatewayd.model.service import PROTOCOLS_WITH_PORTS

NFNL_SUBSYS_ULOG = 4
NFULNL_MSG_PACKET = NFNL_SUBSYS_ULOG << 8
NFULA_PAYLOAD = 9

_HEADER = Struct("=IH")
_TLV = Struct("=HH")
_PORTS = Struct(">HH")
_IPV4 = Struct(">BxHxxHxBxx4s4s")
"""RFC 791 §3.1: version and IHL, total length, flags and fragment offset, protocol, source, destination."""
_IPV6 = Struct(">BxxxxxBx16s16s")
"""RFC 8200 §3: version, next header, source, destination."""

HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60
_EXTENSIONS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS})
"""Headers stepped over (RFC 8200 §4). AH is not: it is a service of its own, and nft's `meta l4proto` stops
there too."""


class PacketBatch(msgspec.Struct, frozen=True, gc=False):
    """What a buffer held. `flows`: of the packets, each as it stood at the rule's hook, before NAT of the source;
    without ports where the packet was not the first fragment of its datagram. `malformed` messages, or packets in
    them, are counted and left out."""

    flows: list[Flow]
    malformed: int


def decode_packets(buffer: bytes | bytearray | memoryview) -> PacketBatch:
    """All logged packets of a buffer of whole netlink messages; other messages are stepped over.

    Raises nothing. A message of impossible length is counted and ends the buffer.
    """
    raw = bytes(buffer)
    flows: list[Flow] = []
    malformed = offset = 0
    total = len(raw)
    while total - offset >= 16:
        length, kind = _HEADER.unpack_from(raw, offset)
        if length < 16 or offset + length > total:
            malformed += 1
            break
        if kind == NFULNL_MSG_PACKET:
            try:
                flows.append(_decode_packet(raw, offset + 20, offset + length))
            except EventMalformed:
                malformed += 1
        offset += align4(length)
    return PacketBatch(flows, malformed)


def _decode_packet(raw: bytes, start: int, end: int) -> Flow:
    packet: bytes | None = None
    offset = start
    while end - offset >= 4:
        length, kind = _TLV.unpack_from(raw, offset)
        if length < 4 or offset + length > end:
            raise EventMalformed("nflog event", f"attribute length {length} at offset {offset} of {end}")
        kind &= NLA_TYPE_MASK
        payload = raw[offset + 4 : offset + length]
        if kind == NFULA_PAYLOAD:
            packet = payload
        offset += align4(length)
    if packet is None:
        raise EventMalformed("nflog event", "no payload")
    return flow_of_packet(packet)


def flow_of_packet(packet: bytes) -> Flow:
    """Of an IPv4 or IPv6 packet, given from its first byte on.

    Raises EventMalformed when what we were given does not reach to the ports of a protocol that has them.
    """
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        return _flow_of_ipv4(packet)
    if version == 6:
        return _flow_of_ipv6(packet)
    raise EventMalformed("packet", f"IP version {version}")


def _flow_of_ipv4(packet: bytes) -> Flow:
    if len(packet) < 20:
        raise EventMalformed("packet", f"an IPv4 header of {len(packet)} bytes")
    first, total, fragmentation, protocol, source, destination = _IPV4.unpack_from(packet)
    header = (first & 0x0F) * 4
    # A total length of 0 is the kernel's own, for packets over 64 KiB put together by GRO (BIG TCP).
    total = total or len(packet)
    if header < 20 or header > min(total, len(packet)):
        raise EventMalformed("packet", f"IHL {header} bytes of {total}, {len(packet)} given")
    if fragmentation & 0x1FFF:
        return Flow(protocol, source, destination)
    return _flow_with_ports(packet[:total], header, protocol, source, destination)


def _flow_of_ipv6(packet: bytes) -> Flow:
    if len(packet) < 40:
        raise EventMalformed("packet", f"an IPv6 header of {len(packet)} bytes")
    _, protocol, source, destination = _IPV6.unpack_from(packet)
    offset = 40
    while protocol in _EXTENSIONS:
        if offset + 8 > len(packet):
            raise EventMalformed("packet", f"extension headers go past the {len(packet)} bytes given")
        if protocol == FRAGMENT:
            if int.from_bytes(packet[offset + 2 : offset + 4], "big") >> 3:
                return Flow(packet[offset], source, destination)
            size = 8
        else:
            size = (packet[offset + 1] + 1) * 8
        protocol = packet[offset]
        offset += size
    return _flow_with_ports(packet, offset, protocol, source, destination)


def _flow_with_ports(packet: bytes, offset: int, protocol: int, source: bytes, destination: bytes) -> Flow:
    if protocol not in PROTOCOLS_WITH_PORTS:
        return Flow(protocol, source, destination)
    if offset + 4 > len(packet):
        raise EventMalformed(
            "packet", f"no ports: {len(packet)} bytes, the header of protocol {protocol} at {offset}"
        )
    return Flow(protocol, source, destination, *_PORTS.unpack_from(packet, offset))


# The filter

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, jump if true, jump if false, k."""

_SOCK_FILTER = Struct("=HBBI")
_LD_IMMEDIATE, _LDX_IMMEDIATE = 0x00, 0x01
_LD_WORD_ABSOLUTE, _LD_WORD_INDIRECT = 0x20, 0x40
_LD_HALF_ABSOLUTE = 0x28
_AND, _JUMP_EQUAL, _TAX, _TXA, _RETURN = 0x54, 0x15, 0x07, 0x87, 0x06
_TYPE_OFFSET, _PORT_OFFSET = 4, 12
_SKF_AD_NLATTR = 0xFFFFF000 + 12
_FIRST_ATTRIBUTE = 20
_WHOLE_MESSAGE = 0xFFFFFFFF


def mark_filter(value: int, mask: int, carried: int = 0) -> tuple[Instruction, ...]:
    """The program that passes events with `ct mark & mask == value`, and connections that another program made with
    `ct mark & carried != 0`; it drops all others.

    Raises ValueError when `value` has bits outside `mask`: such a filter would pass nothing.
    """
    if not 0 <= mask <= 0xFFFFFFFF or value & ~mask:
        raise ValueError(f"mark {value:#x} goes past its mask {mask:#x}")
    # Loads are big endian; the header is in the order of the host.
    new = int.from_bytes(CT_NEW.to_bytes(2, sys.byteorder), "big")
    return (
        (_LD_IMMEDIATE, 0, 0, _FIRST_ATTRIBUTE),
        (_LDX_IMMEDIATE, 0, 0, CTA_MARK),
        (_LD_WORD_ABSOLUTE, 0, 0, _SKF_AD_NLATTR),  # A: offset of CTA_MARK, 0 when it is not there
        (_JUMP_EQUAL, 2, 0, 0),
        (_TAX, 0, 0, 0),
        (_LD_WORD_INDIRECT, 0, 0, 4),  # behind the attribute's header; the mark is big endian
        (_TAX, 0, 0, 0),
        (_AND, 0, 0, mask),
        (_JUMP_EQUAL, 7, 0, value),
        (_LD_WORD_ABSOLUTE, 0, 0, _PORT_OFFSET),
        (_JUMP_EQUAL, 6, 0, 0),
        (_LD_HALF_ABSOLUTE, 0, 0, _TYPE_OFFSET),
        (_JUMP_EQUAL, 0, 4, new),
        (_TXA, 0, 0, 0),
        (_AND, 0, 0, carried),
        (_JUMP_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _WHOLE_MESSAGE),
        (_RETURN, 0, 0, 0),
    )


def pack_filter(program: tuple[Instruction, ...]) -> bytes:
    """The instructions as an array of struct sock_filter, for SO_ATTACH_FILTER."""
    return b"".join(_SOCK_FILTER.pack(*instruction) for instruction in program)
