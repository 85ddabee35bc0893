"""Addresses and prefixes, as packed bytes in network order.

An *address* is plain `bytes`, 4 (IPv4) or 16 (IPv6) long: it is what the kernel hands out and what set
elements are made of, and it costs no object of its own. A *prefix* is its network address and length.
"""

from __future__ import annotations

import ipaddress
from functools import cache
from typing import Literal

import msgspec

from gatewayd.errors import PrefixInvalid

Family = Literal[4, 6]

SHORTEST_LENGTH: dict[Family, int] = {4: 8, 6: 16}
"""A shorter client or peer prefix is a rejected record (a slip of the pen must not register a continent)."""


class Prefix(msgspec.Struct, frozen=True, gc=False, order=True):
    """`packed`: network address, 4 or 16 bytes, host bits zero. `length`: 0..32 or 0..128."""

    packed: bytes
    length: int

    @property
    def family(self) -> Family:
        return 4 if len(self.packed) == 4 else 6

    def covers(self, address: bytes) -> bool:
        """Whether `address` (same family or not) lies in this prefix."""
        return len(address) == len(self.packed) and mask_address(address, self.length) == self.packed

    def __str__(self) -> str:
        return f"{format_address(self.packed)}/{self.length}"


@cache
def mask_bytes(width: int, length: int) -> bytes:
    """The netmask of `length` leading ones as `width` bytes."""
    bits = width * 8
    return ((1 << bits) - (1 << (bits - length))).to_bytes(width, "big")


def mask_address(address: bytes, length: int) -> bytes:
    """`address` with all but its `length` leading bits cleared."""
    width = len(address)
    if length == width * 8:
        return address
    mask = int.from_bytes(mask_bytes(width, length), "big")
    return (int.from_bytes(address, "big") & mask).to_bytes(width, "big")


def format_address(address: bytes) -> str:
    """Text of an address of 4 or 16 bytes (RFC 5952 for IPv6)."""
    if len(address) == 4:
        return "{}.{}.{}.{}".format(*address)
    return str(ipaddress.IPv6Address(address))


def parse_address(text: str) -> bytes:
    """Packed address. Raises PrefixInvalid (`prefix_syntax`) for anything else, zone ids included."""
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.ip_address(text).packed
    except ValueError:
        raise PrefixInvalid(text[:64], "prefix_syntax", "not an IPv4 or IPv6 address") from None


def parse_prefix(text: str) -> Prefix:
    """A canonical CIDR prefix; a bare address is its host prefix.

    Raises PrefixInvalid: `prefix_syntax`, `prefix_host_bits` (rejected, never silently masked),
    `prefix_too_short` (shorter than /8 or /16).
    """
    address_text, slash, length_text = text.partition("/")
    packed = parse_address(address_text)
    width = len(packed) * 8
    if not slash:
        return Prefix(packed, width)
    if not (length_text.isascii() and length_text.isdigit()) or len(length_text) > 3:
        raise PrefixInvalid(text[:64], "prefix_syntax", "the length after '/' is not a number")
    length = int(length_text)
    if length > width or str(length) != length_text:
        raise PrefixInvalid(text[:64], "prefix_syntax", f"the length must be 0..{width}")
    network = mask_address(packed, length)
    if network != packed:
        raise PrefixInvalid(
            text[:64], "prefix_host_bits", f"host bits are set; meant {format_address(network)}/{length}?"
        )
    shortest = SHORTEST_LENGTH[4 if width == 32 else 6]
    if length < shortest:
        raise PrefixInvalid(text[:64], "prefix_too_short", f"shorter than /{shortest}")
    return Prefix(packed, length)
