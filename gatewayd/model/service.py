"""Services: a protocol and, where it has them, destination ports.

Words: `udp/51820`, `tcp/8000-8100`, a bare protocol (`esp`, `gre`, `udp`), or a bundle (`ipsec`). Numbers are
IANA's protocol numbers; a protocol without ports always has the range 0..65535.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gatewayd.errors import ServiceInvalid

TCP, UDP, GRE, ESP, AH, IPIP, IPV6, SCTP, UDPLITE, L2TP = 6, 17, 47, 50, 51, 4, 41, 132, 136, 115

PROTOCOL_NUMBERS: dict[str, int] = {
    "tcp": TCP, "udp": UDP, "gre": GRE, "esp": ESP, "ah": AH, "ipip": IPIP, "ipv6": IPV6,
    "sctp": SCTP, "udplite": UDPLITE, "l2tpv3": L2TP,
}  # fmt: skip
PROTOCOL_NAMES: dict[int, str] = {number: name for name, number in PROTOCOL_NUMBERS.items()}

PROTOCOLS_WITH_PORTS = frozenset({TCP, UDP, SCTP, UDPLITE})
"""Those whose header begins with source and destination port (nft's `th dport`)."""


class Service(msgspec.Struct, frozen=True, gc=False, order=True, cache_hash=True):
    """`protocol`: IANA number. `low`..`high`: destination ports; 0..65535 = all or none."""

    protocol: int
    low: int = 0
    high: int = 65535

    def matches(self, protocol: int, port: int) -> bool:
        return self.protocol == protocol and self.low <= port <= self.high

    def __str__(self) -> str:
        name = PROTOCOL_NAMES.get(self.protocol, str(self.protocol))
        if (self.low, self.high) == (0, 65535):
            return name
        return f"{name}/{self.low}" if self.low == self.high else f"{name}/{self.low}-{self.high}"


BUNDLES: dict[str, tuple[Service, ...]] = {
    "ipsec": (Service(UDP, 500, 500), Service(UDP, 4500, 4500), Service(ESP), Service(AH)),
    "wireguard": (Service(UDP, 51820, 51820),),
    "openvpn": (Service(TCP, 1194, 1194), Service(UDP, 1194, 1194)),
    "pptp": (Service(TCP, 1723, 1723), Service(GRE)),
    "l2tp": (Service(UDP, 1701, 1701),),
}
"""What each bundle stands for: RFC 7296 §2 and RFC 3948 (ipsec), the ports of wireguard.com and openvpn.net,
RFC 2637 (pptp), RFC 2661 (l2tp)."""


def parse_service(word: str) -> tuple[Service, ...]:
    """The services a word stands for: one, or those of a bundle. Raises ServiceInvalid."""
    if word in BUNDLES:
        return BUNDLES[word]
    name, slash, ports = word.partition("/")
    protocol = PROTOCOL_NUMBERS.get(name)
    if protocol is None:
        known = ", ".join([*PROTOCOL_NUMBERS, *BUNDLES])
        raise ServiceInvalid(word[:64], f"unknown protocol or bundle; known: {known}")
    if not slash:
        return (Service(protocol),)
    if protocol not in PROTOCOLS_WITH_PORTS:
        raise ServiceInvalid(word[:64], f"{name} has no ports")
    low_text, dash, high_text = ports.partition("-")
    low = _parse_port(word, low_text)
    high = _parse_port(word, high_text) if dash else low
    if high < low:
        raise ServiceInvalid(word[:64], "the range ends before it begins")
    return (Service(protocol, low, high),)


def _parse_port(word: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise ServiceInvalid(word[:64], "a port is a number from 1 to 65535")
    return int(text)


def parse_services(words: Iterable[str]) -> tuple[Service, ...]:
    """Sorted, without duplicates. Raises ServiceInvalid for the first bad word."""
    return tuple(sorted({service for word in words for service in parse_service(word)}))


def service_words(services: Iterable[Service]) -> tuple[str, ...]:
    """Words for people: a bundle's name where all of it is there, single services for the rest."""
    rest = set(services)
    words = []
    for name, members in BUNDLES.items():
        if len(members) > 1 and rest.issuperset(members):
            words.append(name)
            rest.difference_update(members)
    return (*words, *(str(service) for service in sorted(rest)))
