"""Client, peer and endpoint prefixes of a record: texts → prefixes, the usual ones in a microsecond."""

from __future__ import annotations

import re
from typing import Final

from gatewayd.errors import PrefixInvalid, RecordRejected
from gatewayd.model import Family, Prefix, parse_prefix

_OCTETS: dict[str, int] = {str(number): number for number in range(256)}
_FIRST_OCTETS: dict[str, int] = {str(number): number for number in range(1, 224) if number not in (127, 169)}
"""First bytes of IPv4 under which every prefix of /8 or longer is unicast."""

_HOST_BITS_4: dict[str, tuple[int, int]] = {str(n): (n, (1 << (32 - n)) - 1) for n in range(8, 33)}
_LENGTHS_6: dict[str, int] = {str(n): n for n in range(16, 129)}

_split_global_6 = re.compile(
    r"([23][0-9a-f]{3}(?::[0-9a-f]{1,4}){0,5})::([0-9a-f]{0,4})/([0-9]{2,3})", re.ASCII
).fullmatch
"""The usual IPv6 prefix, in 2000::/3 and with its zeros at the end, or before the last group of a host."""

_is_prefix_like = re.compile(r"(?![0-9a-fA-F:./]*[0-9]{5})[0-9a-fA-F:./]*[.:][0-9a-fA-F:./]*", re.ASCII).fullmatch
"""No part of a prefix has five digits in a row: what has may be a number in the wrong place."""

_NOT_UNICAST: tuple[tuple[Prefix, str], ...] = (
    (Prefix(bytes((0, 0, 0, 0)), 8), "this network (RFC 1122)"),
    (Prefix(bytes((127, 0, 0, 0)), 8), "loopback"),
    (Prefix(bytes((169, 254, 0, 0)), 16), "link-local"),
    (Prefix(bytes((224, 0, 0, 0)), 4), "multicast"),
    (Prefix(bytes((240, 0, 0, 0)), 4), "reserved"),
    (Prefix(bytes(16), 80), "unspecified, loopback or IPv4-compatible"),
    (Prefix(b"\xfe\x80" + bytes(14), 10), "link-local"),
    (Prefix(b"\xff" + bytes(15), 8), "multicast"),
)
_IPV4_MAPPED = Prefix(bytes(10) + b"\xff\xff" + bytes(4), 96)


def parse_unicast_prefix(text: str) -> Prefix:
    """A client or peer prefix. Raises PrefixInvalid; beyond the model's codes, `prefix_not_unicast`."""
    try:
        address, length_text = text.split("/")
        a, b, c, d = address.split(".")
        packed = bytes((_FIRST_OCTETS[a], _OCTETS[b], _OCTETS[c], _OCTETS[d]))
        length, host_bits = _HOST_BITS_4[length_text]
    except (ValueError, KeyError):
        pass
    else:
        if length == 32 or not int.from_bytes(packed, "big") & host_bits:
            return Prefix(packed, length)
    match = _split_global_6(text)
    if match is not None:
        groups = match[1].split(":")
        length, last = _LENGTHS_6.get(match[3], 0), match[2]
        leading = bytes.fromhex("".join([g.zfill(4) for g in groups]))
        packed = leading.ljust(14, b"\0") + bytes.fromhex(last.zfill(4))
        if length == 128 or (length and not int.from_bytes(packed, "big") & ((1 << (128 - length)) - 1)):
            return Prefix(packed, length)
    return _parse_slowly(text)


def _parse_slowly(text: str) -> Prefix:
    prefix = parse_prefix(text)
    if _IPV4_MAPPED.covers(prefix.packed):
        raise PrefixInvalid(text[:64], "prefix_syntax", "an IPv4-mapped IPv6 address; write it as IPv4")
    for block, what in _NOT_UNICAST:
        if block.covers(prefix.packed):
            raise PrefixInvalid(text[:64], "prefix_not_unicast", f"{what}; no registrant has such an address")
    return prefix


MIN_ENDPOINT_LENGTH: Final[dict[Family, int]] = {4: 24, 6: 48}
"""A shorter endpoint is a rejected record: one record opens all of it to every client."""


def check_count(field: str, count: int, most: int) -> None:
    if count > most:
        raise RecordRejected("too_many", field, f"{count}, and at most {most} are taken")


def parse_prefixes(field: str, texts: tuple[str, ...], most: int) -> tuple[Prefix, ...]:
    """Sorted and without duplicates."""
    try:
        if len(texts) == 1:
            return (parse_unicast_prefix(texts[0]),)
        check_count(field, len(texts), most)
        return tuple(sorted({parse_unicast_prefix(text) for text in texts}))
    except PrefixInvalid as error:
        what = error.text if _is_prefix_like(error.text) else "a prefix"
        raise RecordRejected(error.code, field, f"{what}: {error.why}") from None


def parse_endpoints(texts: tuple[str, ...], most: int) -> tuple[Prefix, ...]:
    """As `parse_prefixes`, of a length that one provider has."""
    found = parse_prefixes("endpoints", texts, most)
    for each in found:
        shortest = MIN_ENDPOINT_LENGTH[each.family]
        if each.length < shortest:
            raise RecordRejected("endpoint_too_short", "endpoints", f"{each}: shorter than /{shortest}")
    return found
