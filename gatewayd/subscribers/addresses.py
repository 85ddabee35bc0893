"""The addresses and prefixes that a session has, as far as a subscriber can be bound to them.

Reasons of what is left out: `address_malformed`, `address_hint`, `address_unspecified`, `address_loopback`,
`address_link_local`, `address_multicast`, `address_reserved`, `prefix_too_short`, `too_many_addresses`.
"""

from __future__ import annotations

from typing import Final

from gatewayd.model.prefix import Prefix, mask_address
from gatewayd.subscribers.attributes import (
    ALC_IPV6_ADDRESS,
    DELEGATED_IPV6_PREFIX,
    FRAMED_IP_ADDRESS,
    FRAMED_IPV6_ADDRESS,
    FRAMED_IPV6_PREFIX,
    VENDOR_NOKIA,
)
from gatewayd.subscribers.packet import AccountingRequest

SHORTEST_IPV6_LENGTH: Final = 40
"""End sites get /48 to /64 (RFC 6177). A slip in a NAS must not bind one subscriber to a whole region."""
SHORTEST_IPV4_LENGTH: Final = 24
"""A routed block behind one subscriber. A slip must not bind one subscriber to a whole region."""
MOST_ADDRESSES: Final = 64
"""In one request. What is beyond would be elements in the kernel, on the word of one NAS."""

_IPV4_BYTES: Final = 4
_IPV6_BYTES: Final = 16
_PREFIX_HEAD_BYTES: Final = 2
_HINTS: Final = (b"\xff\xff\xff\xfe", b"\xff\xff\xff\xff")
"""RFC 2865 §5.8: the NAS, or the user, is to choose. No address yet."""


def read_addresses(request: AccountingRequest, left_out: list[str]) -> list[Prefix]:
    """All of them, each once. Framed-IP-Netmask is not looked at: it is the link's, not the subscriber's share."""
    values = [_read_address(value, _IPV4_BYTES) for value in request.values(FRAMED_IP_ADDRESS)]
    values += [_read_address(value, _IPV6_BYTES) for value in request.values(FRAMED_IPV6_ADDRESS)]
    values += [_read_address(value, _IPV6_BYTES) for value in request.vendor_values(VENDOR_NOKIA, ALC_IPV6_ADDRESS)]
    values += [_read_prefix(value) for value in request.values(FRAMED_IPV6_PREFIX)]
    values += [_read_prefix(value) for value in request.values(DELEGATED_IPV6_PREFIX)]
    left_out += [value for value in values if isinstance(value, str)]
    prefixes = list(dict.fromkeys(value for value in values if isinstance(value, Prefix)))
    if len(prefixes) > MOST_ADDRESSES:
        left_out.append("too_many_addresses")
    return prefixes[:MOST_ADDRESSES]


def host_prefix(address: bytes) -> Prefix | str:
    """The /32 or /128 of an address, or the reason why nobody can be bound to it."""
    return _why_not(address) or Prefix(address, 8 * len(address))


def _read_address(value: bytes, size: int) -> Prefix | str:
    return host_prefix(value) if len(value) == size else "address_malformed"


def _read_prefix(value: bytes) -> Prefix | str:
    """RFC 3162 §2.3 and RFC 4818 §3: a reserved octet, the length, up to 16 octets; the last may be missing.

    Bits behind the length are cleared: it is the length that says what was given to the subscriber.
    """
    if not _PREFIX_HEAD_BYTES <= len(value) <= _PREFIX_HEAD_BYTES + _IPV6_BYTES or value[1] > 8 * _IPV6_BYTES:
        return "address_malformed"
    length = value[1]
    if length < SHORTEST_IPV6_LENGTH:
        return "prefix_too_short"
    packed = mask_address(value[_PREFIX_HEAD_BYTES:].ljust(_IPV6_BYTES, b"\0"), length)
    return _why_not(packed) or Prefix(packed, length)


def _why_not(packed: bytes) -> str | None:
    """The reason why traffic of a subscriber cannot come from this address or prefix; None where it can."""
    return _why_not_ipv4(packed) if len(packed) == _IPV4_BYTES else _why_not_ipv6(packed)


def _why_not_ipv4(packed: bytes) -> str | None:
    """RFC 6890 §2.2.2."""
    if packed in _HINTS:
        return "address_hint"
    first = packed[0]
    if first == 0:
        return "address_unspecified"
    if first == 127:
        return "address_loopback"
    if packed.startswith(b"\xa9\xfe"):
        return "address_link_local"
    if first >= 240:
        return "address_reserved"
    return "address_multicast" if first >= 224 else None


def _why_not_ipv6(packed: bytes) -> str | None:
    """RFC 4291 §2.4; in 0000::/8 are also the mapped and the translated IPv4 addresses."""
    first = packed[0]
    if first == 0xFF:
        return "address_multicast"
    if first == 0xFE and packed[1] & 0xC0 == 0x80:
        return "address_link_local"
    if first:
        return None
    value = int.from_bytes(packed, "big")
    return ("address_unspecified", "address_loopback")[value] if value < 2 else "address_reserved"
