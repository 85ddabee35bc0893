"""The addresses and prefixes that a session has, as far as a subscriber can be bound to them.

Reasons of what is left out: `address_malformed`, `address_hint`, `address_unspecified`, `address_loopback`,
`address_link_local`, `address_multicast`, `address_reserved`, `prefix_too_short`, `too_many_addresses`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gatewayd.errors import PrefixInvalid
from gatewayd.model.prefix import Prefix, mask_address, parse_address
from gatewayd.subscribers.radius.packet import AccountingRequest, split_attributes

# RFC 2865, 2866, 2869
USER_NAME: Final = 1
NAS_IP_ADDRESS: Final = 4
FRAMED_IP_ADDRESS: Final = 8
CALLING_STATION_ID: Final = 31
NAS_IDENTIFIER: Final = 32
ACCT_STATUS_TYPE: Final = 40
ACCT_DELAY_TIME: Final = 41
ACCT_SESSION_ID: Final = 44
EVENT_TIMESTAMP: Final = 55
ACCT_INTERIM_INTERVAL: Final = 85
# RFC 4372, 3162, 4818, 6911
CHARGEABLE_USER_IDENTITY: Final = 89
NAS_IPV6_ADDRESS: Final = 95
FRAMED_IPV6_PREFIX: Final = 97
DELEGATED_IPV6_PREFIX: Final = 123
FRAMED_IPV6_ADDRESS: Final = 168
# RFC 8045: 241.6
IP_PORT_RANGE: Final = 6

VENDOR_3GPP: Final = 10415
"""3GPP TS 29.061 §16.4.7.2"""
TGPP_IMSI: Final = 1
TGPP_NSAPI: Final = 10
TGPP_SESSION_STOP_INDICATOR: Final = 11

VENDOR_NOKIA: Final = 6527
"""7750 SR RADIUS Attributes Reference Guide"""
ALC_IPV6_ADDRESS: Final = 99
ALC_NAT_PORT_RANGE: Final = 121
ALC_MSISDN: Final = 147

VENDOR_HUAWEI: Final = 2011
"""FreeRADIUS share/dictionary.huawei"""
HUAWEI_NAT_PUBLIC_ADDRESS: Final = 161
HUAWEI_NAT_START_PORT: Final = 162
HUAWEI_NAT_END_PORT: Final = 163

INTEGER_BYTES: Final = 4


def text_of(raw: bytes) -> str:
    """Text that can go into a log line: printable, without the NULs that some gear ends its strings with."""
    text = raw.rstrip(b"\0").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def read_text(request: AccountingRequest, type_: int) -> str | None:
    """The first value that is not empty, as text; None for none."""
    return next(filter(None, map(text_of, request.values(type_))), None)


def read_integer(request: AccountingRequest, type_: int, ignored: list[str]) -> int | None:
    """The first value, unsigned; None where there is none, or `integer_malformed`: it is not of four bytes."""
    values = request.values(type_)
    if not values:
        return None
    if len(values[0]) != INTEGER_BYTES:
        ignored.append("integer_malformed")
        return None
    return int.from_bytes(values[0], "big")


SHORTEST_IPV6_LENGTH: Final = 40
"""End sites get /48 to /64 (RFC 6177). A slip in a NAS must not bind one subscriber to a whole region."""
SHORTEST_IPV4_LENGTH: Final = 24
"""A routed block behind one subscriber. A slip must not bind one subscriber to a whole region."""
MAX_ADDRESSES: Final = 64
"""In one request. What is beyond would be elements in the kernel, by the record of one NAS."""

_IPV4_BYTES: Final = 4
_IPV6_BYTES: Final = 16
_PREFIX_HEAD_BYTES: Final = 2
_HINTS: Final = (b"\xff\xff\xff\xfe", b"\xff\xff\xff\xff")
"""RFC 2865 §5.8: the NAS, or the user, is to choose. No address yet."""


def read_addresses(request: AccountingRequest, ignored: list[str]) -> list[Prefix]:
    """All of them, each once. Framed-IP-Netmask is not looked at: it is the link's, not the subscriber's share."""
    values = [_read_address(value, _IPV4_BYTES) for value in request.values(FRAMED_IP_ADDRESS)]
    values += [_read_address(value, _IPV6_BYTES) for value in request.values(FRAMED_IPV6_ADDRESS)]
    values += [_read_address(value, _IPV6_BYTES) for value in request.vendor_values(VENDOR_NOKIA, ALC_IPV6_ADDRESS)]
    values += [_read_prefix(value) for value in request.values(FRAMED_IPV6_PREFIX)]
    values += [_read_prefix(value) for value in request.values(DELEGATED_IPV6_PREFIX)]
    ignored += [value for value in values if isinstance(value, str)]
    prefixes = list(dict.fromkeys(value for value in values if isinstance(value, Prefix)))
    if len(prefixes) > MAX_ADDRESSES:
        ignored.append("too_many_addresses")
    return prefixes[:MAX_ADDRESSES]


def host_prefix(address: bytes) -> Prefix | str:
    """The /32 or /128 of an address, or the reason why no subscriber can be bound to it."""
    return _why_not(address) or Prefix(address, 8 * len(address))


def _read_address(value: bytes, size: int) -> Prefix | str:
    return host_prefix(value) if len(value) == size else "address_malformed"


def _read_prefix(value: bytes) -> Prefix | str:
    """RFC 3162 §2.3 and RFC 4818 §3: a reserved byte, the length, up to 16 bytes; the last may be missing.

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


LAST_PORT: Final = 0xFFFF

# RFC 8045 §3.2
_EXT_IPV4_ADDRESS: Final = 3
_ALLOC: Final = 8
_RANGE_START: Final = 9
_RANGE_END: Final = 10
_READ_TLVS: Final = frozenset((_EXT_IPV4_ADDRESS, _ALLOC, _RANGE_START, _RANGE_END))
_DEALLOCATION: Final = 2

_nokia_block = re.compile(r"(?P<address>[0-9.]{7,15}) (?P<ranges>[0-9,-]+)( .*)?", re.ASCII | re.DOTALL).fullmatch
_nokia_range = re.compile(r"(?P<first>[0-9]{1,5})-(?P<last>[0-9]{1,5})", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class PortBlock:
    """`ports`: first and last, 1..65535. `address`: the shared one, 4 bytes; None where it is not named."""

    ports: tuple[int, int]
    address: bytes | None


def read_port_blocks(request: AccountingRequest) -> list[PortBlock | None]:
    """Each block once; None stands for one that is malformed or was taken back. Empty: no address is shared."""
    blocks: list[PortBlock | None] = [_read_tlvs(value) for value in request.extended_values(IP_PORT_RANGE)]
    for value in request.vendor_values(VENDOR_NOKIA, ALC_NAT_PORT_RANGE):
        blocks += _read_nokia(text_of(value))
    blocks += _read_huawei(request)
    return list(dict.fromkeys(blocks))


def _block(first: int, last: int, address: bytes | None) -> PortBlock | None:
    return PortBlock((first, last), address) if 1 <= first <= last <= LAST_PORT else None


def _read_tlvs(value: bytes) -> PortBlock | None:
    """RFC 8045 §3.1.2."""
    tlvs = dict(split_attributes(value) or ())
    if any(len(tlvs[each]) != INTEGER_BYTES for each in _READ_TLVS & tlvs.keys()):
        return None
    if int.from_bytes(tlvs.get(_ALLOC, b""), "big") == _DEALLOCATION:
        return None
    first, last = (int.from_bytes(tlvs.get(each, b""), "big") for each in (_RANGE_START, _RANGE_END))
    return _block(first, last, tlvs.get(_EXT_IPV4_ADDRESS))


def _read_nokia(text: str) -> list[PortBlock | None]:
    """`180.0.1.248 37674-37723,38507-38556 router base`"""
    matched = _nokia_block(text)
    try:
        address = parse_address(matched["address"]) if matched else None
    except PrefixInvalid:
        address = None
    if matched is None or address is None:
        return [None]
    ranges = map(_nokia_range, matched["ranges"].split(","))
    return [each and _block(int(each["first"]), int(each["last"]), address) for each in ranges]


def _read_huawei(request: AccountingRequest) -> list[PortBlock | None]:
    """Three attributes, texts or four bytes each as the release has it."""
    kinds = (HUAWEI_NAT_PUBLIC_ADDRESS, HUAWEI_NAT_START_PORT, HUAWEI_NAT_END_PORT)
    found = [request.vendor_values(VENDOR_HUAWEI, each) for each in kinds]
    if not any(found):
        return []
    addresses, firsts, lasts = found
    if len(firsts) != 1 or len(lasts) != 1 or len(addresses) > 1:
        return [None]
    first, last = _read_port(firsts[0]), _read_port(lasts[0])
    if not addresses:
        return [_block(first, last, None)]
    address = _read_shared_address(addresses[0])
    return [_block(first, last, address) if address else None]


def _read_port(value: bytes) -> int:
    """0 for what is no port. Four digits cannot be taken for an integer, which would begin with two zero bytes."""
    if value.isdigit() and len(value) <= 5:
        return int(value)
    return int.from_bytes(value, "big") if len(value) == INTEGER_BYTES else 0


def _read_shared_address(value: bytes) -> bytes | None:
    if len(value) == INTEGER_BYTES:
        return value
    try:
        address = parse_address(text_of(value))
    except PrefixInvalid:
        return None
    return address if len(address) == INTEGER_BYTES else None
