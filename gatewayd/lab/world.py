"""Registrations as a national registry might hold them: category, client prefixes, services; and the prefixes of
Pakistan that they lie in, which ship with the package.

The same prefixes, count and randomness give the same registrations. Records are JSON objects as in docs/feed.md;
that they are valid is for the reader of the feed to find, and the tests of this module to hold. Prefixes of
different registrations overlap now and then, as they do in life.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import accumulate, product
from random import Random
from typing import Any, TypeVar

import msgspec

from gatewayd.model import Family, Prefix, parse_prefix

DEFAULT_COUNT = 31_000
DEMO_PEPPER = b"gatewayd demo pepper, not a secret"
DEFAULT_YEAR = 2024
MAX_NUMBERS = 10_000_000

_T = TypeVar("_T")
_Table = tuple[list[_T], list[float]]
"""Choices and their accumulated weights."""
_Kind = tuple[str, tuple[str, ...], int, str, tuple[str, ...]]
"""Category, service words, IPv4 length, families of the clients ("" = by mobile number), of the peers."""
_Bases = dict[int, list[tuple[int, int]]]
"""Family → (network as a number, length) of each prefix to draw from."""
_BATCH = 4096
_NONE: tuple[str, ...] = ()


class Record(msgspec.Struct, gc=False):
    """One registration as the feed writes it. Tuples, which the garbage collector lets go of."""

    id: str
    category: str
    status: str
    clients: tuple[str, ...]
    subscriber: str | None
    peers: tuple[str, ...]
    services: tuple[str, ...]
    valid_from: str
    valid_until: str | None


@dataclass(frozen=True, slots=True)
class _Category:
    """How often a category registers, and what. Each dict: choice → weight.

    `services`: words with spaces between, "" = any. `peers`: share with a named far end. `mobile`: share that
    has no address of its own and is registered by mobile number.
    """

    weight: float
    ipv4_lengths: dict[int, float]
    services: dict[str, float]
    peers: float
    mobile: float = 0.0


_SITES = {29: 45.0, 30: 25.0, 32: 20.0, 28: 6.0, 27: 2.0, 26: 1.0, 24: 1.0}
_LARGE_SITES = {29: 30.0, 28: 25.0, 27: 15.0, 26: 10.0, 24: 10.0, 30: 10.0}
_HOSTS = {32: 90.0, 30: 8.0, 29: 2.0}
CATEGORIES: dict[str, _Category] = {
    "bank": _Category(4, _LARGE_SITES, {"ipsec": 70, "": 8, "ipsec tcp/443": 12, "openvpn": 10}, 0.7),
    "embassy": _Category(1, _SITES, {"ipsec": 60, "": 30, "openvpn": 10}, 0.4),
    "software_house": _Category(
        34,
        _SITES,
        {"wireguard": 35, "openvpn": 25, "ipsec": 20, "": 5, "udp/51821": 8, "udp/1195 tcp/1195": 7},
        0.3,
    ),
    "bpo": _Category(14, _SITES, {"ipsec": 45, "openvpn": 20, "": 8, "tcp/443 udp/443": 17, "tcp/10443": 10}, 0.6),
    "freelancer": _Category(
        30, _HOSTS, {"wireguard": 40, "openvpn": 30, "pptp": 10, "ipsec": 15, "udp/41194": 5}, 0.05, 0.35
    ),
    "hospital": _Category(3, _SITES, {"ipsec": 60, "openvpn": 20, "pptp": 20}, 0.3),
    "university": _Category(3, _LARGE_SITES, {"openvpn": 40, "wireguard": 25, "ipsec": 25, "": 10}, 0.1),
    "government": _Category(2, _LARGE_SITES, {"ipsec": 80, "": 20}, 0.5),
    "ngo": _Category(3, _SITES, {"wireguard": 45, "openvpn": 35, "l2tp ipsec": 20}, 0.1),
    "manufacturer": _Category(6, _SITES, {"ipsec": 50, "pptp": 25, "openvpn": 20, "udp/4433": 5}, 0.4),
}

_IPV6_LENGTHS = [48, 56, 64, 128], [35.0, 65.0, 90.0, 100.0]
_FAMILIES = {"4": 76.0, "46": 9.0, "6": 7.0, "44": 8.0}
"""Families of a registration's client prefixes; about 15 % of all prefixes are IPv6."""
_STATUSES = {"active": 970.0, "suspended": 20.0, "revoked": 10.0}
_VALID_FROM = {f"{DEFAULT_YEAR}-{month:02}-01T00:00:00Z": 1.0 for month in range(1, 13)}
_VALID_UNTIL: dict[str | None, float] = {None: 95.0, "2099-12-31T00:00:00Z": 4.0, "2025-06-30T00:00:00Z": 1.0}

# Far ends of ranges that no network announces: the lower half of benchmarking (RFC 2544), documentation (RFC 3849).
_PEER_IPV4, _PEER_IPV6 = 0xC6120000, 0x20010DB8 << 96


def parse_prefix_lines(text: str) -> tuple[Prefix, ...]:
    """One prefix a line; empty lines and those that begin with # do not count. Raises PrefixInvalid."""
    return tuple(parse_prefix(line) for line in text.splitlines() if line and not line.startswith("#"))


@cache
def announced_prefixes(family: Family) -> tuple[Prefix, ...]:
    """All that are announced in Pakistan, those under another included (5,382 for IPv4, 1,373 for IPv6), in file
    order; the file's first line names origin and licence."""
    file = resources.files("gatewayd.lab") / "prefixes" / f"pk-bgp-announced-ipv{family}.txt"
    return parse_prefix_lines(file.read_text("ascii"))


def mobile_number(number: int) -> str:
    """The E.164 digits of the demo's mobile subscriber `number` (0..9,999,999)."""
    return f"92300{number % MAX_NUMBERS:07}"


def subscriber_of(number: int, pepper: bytes = DEMO_PEPPER) -> str:
    """The `subscriber` field for `mobile_number(number)`."""
    return f"hmac-sha256:{hmac.digest(pepper, mobile_number(number).encode(), hashlib.sha256).hex()}"


def generate_records(
    ipv4: Sequence[Prefix],
    ipv6: Sequence[Prefix],
    randomness: Random,
    count: int = DEFAULT_COUNT,
    *,
    pepper: bytes = DEMO_PEPPER,
) -> Iterator[Record]:
    """`count` registrations with clients inside `ipv4` and `ipv6`, ids PK-2024-000001 and on, in order of id.

    Registration n, if it is by mobile number, is that of `mobile_number(n)`. Both families must have
    prefixes, those of IPv6 /64 or shorter.
    """
    bases = {4: _bases(ipv4), 6: _bases(ipv6)}
    for start in range(1, count + 1, _BATCH):
        yield from _batch(range(start, min(start + _BATCH, count + 1)), bases, randomness, pepper)


def encode_ndjson(registrations: Iterable[Record] | Iterable[dict[str, Any]]) -> bytes:
    """One registration a line: a snapshot of the feed, or the file of a `file:` source."""
    return msgspec.json.Encoder().encode_lines(list(registrations))


def _bases(prefixes: Sequence[Prefix]) -> list[tuple[int, int]]:
    """(network as a number, length) of each."""
    return [(int.from_bytes(prefix.packed, "big"), prefix.length) for prefix in prefixes]


def _drawn(randomness: Random, table: _Table[_T], count: int) -> list[_T]:
    return randomness.choices(table[0], cum_weights=table[1], k=count)


def _table(weights: Iterable[tuple[_T, float]]) -> _Table[_T]:
    choices, numbers = zip(*weights, strict=True)
    return list(choices), list(accumulate(numbers))


def _share(weights: dict[_T, float]) -> list[tuple[_T, float]]:
    """Each choice and its part of one."""
    total = sum(weights.values())
    return [(choice, weight / total) for choice, weight in weights.items()]


def _kinds() -> Iterator[tuple[_Kind, float]]:
    for name, category in CATEGORIES.items():
        for (words, a), (length, b), (families, c), (has_peers, d), (is_mobile, e) in product(
            _share(category.services),
            _share(category.ipv4_lengths),
            _share(_FAMILIES),
            _share({True: category.peers, False: 1 - category.peers}),
            _share({True: category.mobile, False: 1 - category.mobile}),
        ):
            peer_families = tuple(dict.fromkeys(families)) if has_peers else ()
            kind = (name, tuple(words.split()), length, "" if is_mobile else families, peer_families)
            yield kind, category.weight * a * b * c * d * e


_KINDS: _Table[_Kind] = _table(_kinds())
_VALIDITIES: _Table[tuple[str, str, str | None]] = _table(
    ((status, since, until), a * b * c)
    for (status, a), (since, b), (until, c) in product(_share(_STATUSES), _share(_VALID_FROM), _share(_VALID_UNTIL))
)


def _batch(numbers: range, bases: _Bases, randomness: Random, pepper: bytes) -> Iterator[Record]:
    """The traits are drawn by the batch, in two draws; one for each would take most of the time."""
    kinds = _drawn(randomness, _KINDS, len(numbers))
    validities = _drawn(randomness, _VALIDITIES, len(numbers))
    for number, kind, (status, since, until) in zip(numbers, kinds, validities, strict=True):
        category, services, length, families, peer_families = kind
        subscriber, peers = None, _NONE
        clients: tuple[str, ...]
        if families == "4":
            clients = (_ipv4_client(bases[4], length, randomness),)
        elif families:
            drawn = [
                _ipv4_client(bases[4], length, randomness) if family == "4" else _ipv6_client(bases[6], randomness)
                for family in families
            ]
            clients = tuple(dict.fromkeys(drawn))
        else:
            clients, subscriber = _NONE, subscriber_of(number, pepper)
        if peer_families:
            peers = tuple([_peer(family, randomness) for family in peer_families])
        identity = f"PK-{DEFAULT_YEAR}-{number:06}"
        yield Record(identity, category, status, clients, subscriber, peers, services, since, until)


def _ipv4_client(bases: list[tuple[int, int]], length: int, randomness: Random) -> str:
    network, base_length = bases[int(randomness.random() * len(bases))]
    if length <= base_length:
        length = base_length
    else:
        network |= randomness.getrandbits(length - base_length) << (32 - length)
    return f"{network >> 24}.{network >> 16 & 255}.{network >> 8 & 255}.{network & 255}/{length}"


def _ipv6_client(bases: list[tuple[int, int]], randomness: Random) -> str:
    network, base_length = bases[int(randomness.random() * len(bases))]
    length = randomness.choices(_IPV6_LENGTHS[0], cum_weights=_IPV6_LENGTHS[1])[0]
    if length <= base_length:
        return f"{_ipv6_text(network)}/{base_length}"
    subnet_length = min(length, 64)
    if subnet_length > base_length:
        network |= randomness.getrandbits(subnet_length - base_length) << (128 - subnet_length)
    if length == 128:
        network |= 1 + randomness.getrandbits(8)
    return f"{_ipv6_text(network)}/{length}"


def _ipv6_text(address: int) -> str:
    """RFC 5952, where hextets 5 to 7 are zero (ipaddress takes ten times as long)."""
    text = f"{address >> 112:x}:{address >> 96 & 0xFFFF:x}:{address >> 80 & 0xFFFF:x}:{address >> 64 & 0xFFFF:x}"
    while text.endswith(":0"):
        text = text[:-2]
    last = address & 0xFFFF
    return f"{text}::{last:x}" if last else f"{text}::"


def _peer(family: str, randomness: Random) -> str:
    if family == "4":
        address = _PEER_IPV4 | randomness.getrandbits(16)
        return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}/32"
    return f"{_ipv6_text(_PEER_IPV6 | randomness.getrandbits(16) << 80 | 1)}/128"
