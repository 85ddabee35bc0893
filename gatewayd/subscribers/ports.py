"""Port blocks of a CGNAT: which part of a shared address a subscriber has.

Read are RFC 8045 §3.1.2 (IP-Port-Range) and what Nokia and Huawei send. A block that cannot be used still says that
the address is shared, and nobody is ever bound to the whole of such an address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gatewayd.errors import PrefixInvalid
from gatewayd.model.prefix import parse_address
from gatewayd.subscribers.attributes import (
    ALC_NAT_PORT_RANGE,
    HUAWEI_NAT_END_PORT,
    HUAWEI_NAT_PUBLIC_ADDRESS,
    HUAWEI_NAT_START_PORT,
    INTEGER_BYTES,
    IP_PORT_RANGE,
    VENDOR_HUAWEI,
    VENDOR_NOKIA,
    text_of,
)
from gatewayd.subscribers.packet import AccountingRequest, split_attributes

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
