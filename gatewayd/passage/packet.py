"""The first packet of a flow, ready for the wire: link header, checksums, and a token to know it by. Pure."""

from __future__ import annotations

from struct import Struct, pack
from typing import Final

from gatewayd.errors import ServiceInvalid
from gatewayd.lab.packets import build_packet, internet_checksum
from gatewayd.model.flow import Flow
from gatewayd.model.service import SCTP, TCP

TOKEN_BYTES: Final = 4
_TCP = Struct(">HHIIBBHHH")
_SYN, _WINDOW = 0x02, 64240
_IPV4_TYPE, _IPV6_TYPE = 0x0800, 0x86DD


def build_frame(flow: Flow, token: bytes, *, to: bytes, sender: bytes) -> bytes:
    """An Ethernet frame. `token`: TOKEN_BYTES that stand in the packet, whatever translates its addresses. Raises
    ServiceInvalid for SCTP."""
    is_ipv4 = len(flow.source) == 4
    if flow.protocol == SCTP:
        raise ServiceInvalid("sctp", "an association begins with a checksum that is not made here")
    packet = _syn(flow, token) if flow.protocol == TCP else build_packet(flow, token * 4)
    if is_ipv4:
        header = bytearray(packet[:20])
        header[2:4] = len(packet).to_bytes(2, "big")
        header[10:12] = internet_checksum(bytes(header)).to_bytes(2, "big")
        packet = bytes(header) + packet[20:]
    return to + sender + pack(">H", _IPV4_TYPE if is_ipv4 else _IPV6_TYPE) + packet


def _syn(flow: Flow, token: bytes) -> bytes:
    """The token is the sequence number."""
    sequence = int.from_bytes(token, "big")
    ports = flow.source_port, flow.destination_port

    def segment(checksum: int) -> bytes:
        return _TCP.pack(*ports, sequence, 0, 5 << 4, _SYN, _WINDOW, checksum, 0)

    pseudo = flow.source + flow.destination + pack(">II", _TCP.size, TCP)
    if len(flow.source) == 4:
        pseudo = flow.source + flow.destination + pack(">HH", TCP, _TCP.size)
    body = segment(internet_checksum(pseudo + segment(0)))
    # A header like that of any packet of the family, with this body.
    shell = build_packet(Flow(_PLAIN, flow.source, flow.destination), body)
    at = 9 if len(flow.source) == 4 else 6
    return shell[:at] + bytes((TCP,)) + shell[at + 1 :]


_PLAIN: Final = 253
"""A protocol without a header of its own (RFC 3692)."""
