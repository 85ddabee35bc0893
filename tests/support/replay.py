"""Captures of real tunnels (tests/captures), rewritten to run between a customer and the internet of a lab.

A *conversation* is all packets between two ends, by protocol and ports. Its client becomes a customer, the other
end a host on the internet. Bytes stay as captured but for addresses and checksums.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from scapy.utils import RawPcapReader

from gatewayd.allowlist.match import in_scope, may_be_answer
from gatewayd.lab.lab import Side
from gatewayd.lab.packets import internet_checksum, parse_flow
from gatewayd.model import Flow, Service, parse_address, parse_services, reverse_flow
from gatewayd.model.service import TCP, UDP
from tests.support.worlds import World

CAPTURES = Path(__file__).parents[1] / "captures"
DEFAULT_SCOPE = parse_services(["ipsec", "wireguard", "openvpn", "pptp", "l2tp"])
"""`policy.scope` of an operator who writes nothing."""

SHOWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ndpi-6in4tunnel.pcap": ((), ("ipv6",)),
    "ndpi-esp.pcapng": (("ipsec",), ()),
    "ndpi-openvpn.pcap": (("openvpn",), ("tcp/443", "udp/443", "udp/1234", "udp/13680")),
    "ndpi-openvpn_nohmac_tcp.pcapng": (("openvpn",), ()),
    "ndpi-pptp.pcap": (("pptp",), ()),
    "ndpi-tailscale.pcap": ((), ("udp/41641",)),
    "ndpi-wireguard.pcap": (("wireguard",), ()),
    "suricata-ikev1-main-mode.pcap": (("ipsec",), ()),
    "tcpdump-08-sunrise-sunset-esp2.pcap": (("ipsec",), ()),
    "tcpdump-espudp1.pcap": (("ipsec",), ()),
    "tcpdump-isakmp4500.pcap": (("ipsec",), ()),
    "tcpdump-pptp.pcap": (("pptp",), ()),
    "zeek-ip6_esp.pcap": (("ipsec",), ()),
}
"""Of each capture the bundles that its tunnel is registered with, and the services that no bundle has."""

_ETHERTYPES = {0x0800: 4, 0x86DD: 6}
_Conversation = tuple[int, frozenset[tuple[bytes, int]]]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A captured packet. `side`: which end sends it. `flow`: as sent. `opened`: the conversation's flow as its
    client opens it. `capture`: the file's name, `number`: of the frame in it, from 1."""

    capture: str
    number: int
    side: Side
    packet: bytes
    flow: Flow
    opened: Flow

    @property
    def name(self) -> str:
        return f"{self.capture}#{self.number}"

    def is_by_client(self) -> bool:
        """Whether it runs from the client to the far end."""
        return self.side == "customers"

    def is_in_scope(self, scope: tuple[Service, ...]) -> bool:
        return in_scope(scope, self.flow) or may_be_answer(scope, self.flow)


@dataclass(slots=True)
class Capture:
    """`left_out`: the frames that no gateway forwards, with the reason."""

    name: str
    packets: list[Replayed] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)
    unforwarded: list[bytes] = field(default_factory=list)

    @property
    def words(self) -> tuple[str, ...]:
        bundles, more = SHOWN[self.name]
        return (*bundles, *more)

    @property
    def clients(self) -> list[bytes]:
        return sorted({each.opened.source for each in self.packets})


def manifest() -> list[dict[str, Any]]:
    return list(json.loads((CAPTURES / "manifest.json").read_text(encoding="utf-8")))


@cache
def captures() -> tuple[Capture, ...]:
    return tuple(_read(number, each["file"]) for number, each in enumerate(manifest()))


def all_words() -> tuple[str, ...]:
    return tuple(sorted({word for each in captures() for word in each.words}))


def _frames(name: str) -> Iterator[tuple[int, bytes]]:
    with RawPcapReader(str(CAPTURES / name)) as reader:
        for number, (frame, _) in enumerate(reader, 1):
            yield number, frame


def _read(place: int, name: str) -> Capture:
    capture = Capture(name)
    found: list[tuple[int, bytes, Flow]] = []
    for number, frame in _frames(name):
        version = _ETHERTYPES.get(int.from_bytes(frame[12:14], "big"))
        packet = _without_padding(frame[14:], version)
        flow = parse_flow(packet) if version else None
        if flow is None:
            capture.left_out[number] = "no IP packet"
        elif not _is_forwarded(flow):
            capture.left_out[number] = "link-local multicast"
            capture.unforwarded.append(packet)
        else:
            found.append((number, packet, flow))
    rename = _Renaming(place)
    opened = _clients_of([flow for _, _, flow in found], parse_services(capture.words))
    for number, packet, flow in found:
        by_client = _end(flow) == opened[_conversation(flow)]
        near, far = (flow.source, flow.destination) if by_client else (flow.destination, flow.source)
        inside, outside = rename.client(near), rename.far_end(far)
        sent = _readdressed(packet, *((inside, outside) if by_client else (outside, inside)))
        flow_sent = parse_flow(sent)
        assert flow_sent is not None
        ports = (flow.source_port, flow.destination_port)
        whole = Flow(flow.protocol, inside, outside, *(ports if by_client else ports[::-1]))
        side: Side = "customers" if by_client else "internet"
        capture.packets.append(Replayed(name, number, side, sent, flow_sent, whole))
    return capture


def _without_padding(packet: bytes, version: int | None) -> bytes:
    """Ethernet pads short frames."""
    if version == 4:
        return packet[: int.from_bytes(packet[2:4], "big")]
    return packet[: 40 + int.from_bytes(packet[4:6], "big")] if version == 6 else packet


def _is_forwarded(flow: Flow) -> bool:
    addresses = [ip_address(each) for each in (flow.source, flow.destination)]
    return not any(each.is_link_local or each.is_multicast for each in addresses)


def _end(flow: Flow) -> tuple[bytes, int]:
    return flow.source, flow.source_port


def _conversation(flow: Flow) -> _Conversation:
    return flow.protocol, frozenset((_end(flow), (flow.destination, flow.destination_port)))


def _clients_of(flows: Sequence[Flow], services: Sequence[Service]) -> dict[_Conversation, tuple[bytes, int]]:
    """The end that sends to the service's port; where both ends have it, or neither, the one that sent first."""
    found: dict[_Conversation, tuple[bytes, int]] = {}
    for flow in flows:
        back = reverse_flow(flow)
        to, of = (
            any(each.matches(one.protocol, one.destination_port) for each in services) for one in (flow, back)
        )
        found.setdefault(_conversation(flow), _end(back) if of and not to else _end(flow))
    return found


class _Renaming:
    """Addresses of the lab for those of a capture, by the part that they play: one may play both."""

    def __init__(self, place: int) -> None:
        self._place = place
        self._clients: dict[bytes, bytes] = {}
        self._far_ends: dict[bytes, bytes] = {}

    def client(self, address: bytes) -> bytes:
        number = len(self._clients) + 1
        text = f"39.32.{self._place}.{number}" if len(address) == 4 else f"2400:adc1:{self._place:x}::{number:x}"
        return self._clients.setdefault(address, parse_address(text))

    def far_end(self, address: bytes) -> bytes:
        number = len(self._far_ends) + 1
        text = f"198.51.{self._place}.{number}" if len(address) == 4 else f"2a00:1450:{self._place:x}::{number:x}"
        return self._far_ends.setdefault(address, parse_address(text))


def _readdressed(packet: bytes, source: bytes, destination: bytes) -> bytes:
    """The same packet between other addresses, with checksums that are right."""
    raw = bytearray(packet)
    if len(source) == 4:
        start, protocol = (raw[0] & 0xF) * 4, raw[9]
        raw[12:20] = source + destination
        raw[10:12] = bytes(2)
        raw[10:12] = internet_checksum(bytes(raw[:start])).to_bytes(2, "big")
    else:
        start, protocol = 40, raw[6]
        raw[8:40] = source + destination
    at = {TCP: start + 16, UDP: start + 6}.get(protocol)
    if at is not None and (protocol == TCP or raw[at : at + 2] != bytes(2)):
        raw[at : at + 2] = bytes(2)
        size = len(raw) - start
        pseudo = source + destination + size.to_bytes(4, "big") + protocol.to_bytes(4, "big")
        raw[at : at + 2] = (internet_checksum(pseudo + bytes(raw[start:])) or 0xFFFF).to_bytes(2, "big")
    return bytes(raw)


FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10


def tcp_flags(packet: bytes) -> int:
    """0 where it is no TCP."""
    start, protocol = ((packet[0] & 0xF) * 4, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
    return packet[start + 13] if protocol == TCP else 0


def same_packet(one: bytes, other: bytes) -> bool:
    """Whether two are one packet on either side of a router, one of them perhaps cut short: the hop limit and the
    header's checksum are another."""
    size = min(len(one), len(other))
    return size >= 28 and _unlike_hops(one[:size]) == _unlike_hops(other[:size])


def _unlike_hops(packet: bytes) -> bytes:
    if packet[0] >> 4 == 4:
        return packet[:8] + packet[9:10] + packet[12:]
    return packet[:7] + packet[8:]


class Expected:
    """What becomes of the packets of a replay in `reject`, where the interfaces are named.

    `decide` says it of each packet's own tuple: registered ones pass, unregistered ones are refused. What may be
    the far end's answer to an unregistered flow is left alone, until connection tracking has an entry of the
    conversation and a packet of the client was judged with it.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._tracked: set[_Conversation] = set()
        self._judged: set[_Conversation] = set()

    def passes(self, sent: Replayed) -> bool:
        conversation = _conversation(sent.flow)
        word = self._world.decision(sent.flow).word
        is_tracked = conversation in self._tracked or _begins(sent.packet)
        if word == "unregistered":
            if conversation in self._tracked:
                self._judged.add(conversation)
            return False
        if word == "out_of_scope" and sent.is_in_scope(self._world.policy.scope) and conversation in self._judged:
            return False
        if is_tracked:
            self._tracked.add(conversation)
        return True


def _begins(packet: bytes) -> bool:
    """Whether connection tracking makes an entry for it (nf_conntrack_proto_tcp.c: tcp_conntracks, from none)."""
    flags = tcp_flags(packet) & (FIN | SYN | RST | ACK)
    return flags in (0, SYN, ACK)


# -- the document --------------------------------------------------------------------------------------------------

SCOPE_PAGE = CAPTURES.parents[1] / "docs" / "scope.md"
_TABLE = re.compile(r"^\| capture \|.*?(?=\n\n)", re.MULTILINE | re.DOTALL)
WHAT = {
    "ndpi-6in4tunnel.pcap": "6in4",
    "ndpi-esp.pcapng": "IKE, ESP",
    "ndpi-openvpn.pcap": "OpenVPN, UDP and TCP",
    "ndpi-openvpn_nohmac_tcp.pcapng": "OpenVPN, TCP",
    "ndpi-pptp.pcap": "PPTP's control connection",
    "ndpi-tailscale.pcap": "Tailscale, peer to peer",
    "ndpi-wireguard.pcap": "WireGuard",
    "suricata-ikev1-main-mode.pcap": "IKEv1",
    "tcpdump-08-sunrise-sunset-esp2.pcap": "ESP",
    "tcpdump-espudp1.pcap": "ESP in UDP",
    "tcpdump-isakmp4500.pcap": "IKE, ESP in UDP",
    "tcpdump-pptp.pcap": "PPTP",
    "zeek-ip6_esp.pcap": "ESP over IPv6",
}


@dataclass(frozen=True, slots=True)
class Share:
    """Forwarded packets of captures, their bytes as IP packets, and their conversations."""

    packets: int
    size_bytes: int
    flows: int


def share_of(packets: Iterable[Replayed]) -> Share:
    some = list(packets)
    return Share(len(some), sum(len(each.packet) for each in some), len({each.opened for each in some}))


def in_default_scope(packets: Iterable[Replayed]) -> list[Replayed]:
    return [each for each in packets if each.is_in_scope(DEFAULT_SCOPE)]


def scope_table() -> str:
    """What `policy.scope` of an operator who writes nothing sees of each capture."""
    lines = ["| capture | tunnel | packets in scope | bytes | flows | out of scope |", "| --- |" + " --- |" * 5]
    everything: list[Replayed] = []
    for capture in captures():
        everything += capture.packets
        lines.append(_row(f"`{capture.name}`", WHAT[capture.name], capture.packets, _left_out(capture)))
    lines.append(_row("all", "", everything, ""))
    return "\n".join(lines)


def _row(name: str, what: str, packets: Sequence[Replayed], why: str) -> str:
    inside, whole = share_of(in_default_scope(packets)), share_of(packets)
    cells = [f"{inside.packets:,} of {whole.packets:,}", f"{inside.size_bytes:,} of {whole.size_bytes:,}"]
    return f"| {' | '.join([name, what, *cells, f'{inside.flows} of {whole.flows}', why or '–'])} |"


def _left_out(capture: Capture) -> str:
    words: Counter[str] = Counter()
    for each in capture.packets:
        if not each.is_in_scope(DEFAULT_SCOPE):
            port = each.opened.destination_port
            words[str(Service(each.opened.protocol, port, port or 65535))] += 1
    parts = [f"`{word}`: {count}" for word, count in sorted(words.items())]
    parts += [f"not forwarded: {count}, {why}" for why, count in Counter(capture.left_out.values()).items()]
    return "; ".join(parts)


def scope_page_of(text: str) -> str:
    """The text of docs/scope.md with the table as the captures give it."""
    renewed, count = _TABLE.subn(lambda _: scope_table(), text)
    assert count == 1, "docs/scope.md has no table of captures, or several"
    return renewed


if __name__ == "__main__":
    SCOPE_PAGE.write_text(scope_page_of(SCOPE_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
