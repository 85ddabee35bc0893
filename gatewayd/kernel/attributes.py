"""Netlink messages and attributes: headers, TLVs, nests (include/uapi/linux/netlink.h, RFC 3549).

Headers are host byte order; what is inside nfnetlink attributes is network byte order, hence the `be` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from gatewayd.errors import EventMalformed

NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP_INTR = 0x01, 0x02, 0x04, 0x10
NLM_F_EXCL, NLM_F_CREATE, NLM_F_DUMP = 0x200, 0x400, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF

MESSAGE_HEADER = Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port id."""
FAMILY_HEADER = Struct("=BB")
"""struct nfgenmsg without its big-endian res_id: family, version."""
ATTRIBUTE_HEADER = Struct("=HH")
"""struct nlattr: length (header included), type."""
ERROR_CODE = Struct("=i")
"""struct nlmsgerr, its first field: a negative errno, or 0."""
_BE16, _BE32, _BE64 = Struct(">H"), Struct(">I"), Struct(">Q")


def align4(size: int) -> int:
    return (size + 3) & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    size = 4 + len(payload)
    return ATTRIBUTE_HEADER.pack(size, kind) + payload + b"\0" * (-size & 3)


def nest(kind: int, *attributes: bytes) -> bytes:
    """A nested attribute (NLA_F_NESTED set) of already packed attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def be16(kind: int, value: int) -> bytes:
    return attribute(kind, _BE16.pack(value))


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, _BE32.pack(value))


def be64(kind: int, value: int) -> bytes:
    return attribute(kind, _BE64.pack(value))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attribute(kind, value.encode("ascii") + b"\0")


def message(kind: int, flags: int, sequence: int, family: int, resource: int, *attributes: bytes) -> bytes:
    """An nfnetlink message: nlmsghdr, nfgenmsg (`resource` in network order), attributes."""
    body = b"".join(attributes)
    return (
        MESSAGE_HEADER.pack(20 + len(body), kind, flags, sequence, 0)
        + FAMILY_HEADER.pack(family, 0)
        + _BE16.pack(resource)
        + body
    )


def iter_messages(buffer: bytes | memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """(kind, flags, sequence, start, end) of each message; start is after nlmsghdr. Raises EventMalformed."""
    offset, total = 0, len(buffer)
    while total - offset >= 16:
        length, kind, flags, sequence, _ = MESSAGE_HEADER.unpack_from(buffer, offset)
        if length < 16 or offset + length > total:
            raise EventMalformed("netlink message", f"length {length} at offset {offset} of {total}")
        yield kind, flags, sequence, offset + 16, offset + length
        offset += align4(length)


def iter_attributes(buffer: bytes | memoryview, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type without flags, payload start, payload end) of each attribute. Raises EventMalformed."""
    offset = start
    while end - offset >= 4:
        length, kind = ATTRIBUTE_HEADER.unpack_from(buffer, offset)
        if length < 4 or offset + length > end:
            raise EventMalformed("netlink attribute", f"length {length} at offset {offset} of {end}")
        yield kind & NLA_TYPE_MASK, offset + 4, offset + length
        offset += align4(length)


def errno_in(buffer: bytes | memoryview, start: int, end: int) -> int:
    """The errno of an NLMSG_ERROR whose payload goes from `start` to `end`; 0: an acknowledgement. Raises
    EventMalformed. include/uapi/linux/netlink.h: struct nlmsgerr."""
    if end - start < ERROR_CODE.size:
        raise EventMalformed("netlink error", f"{end - start} bytes")
    return -int(ERROR_CODE.unpack_from(buffer, start)[0])


def attributes_of(buffer: bytes | memoryview, start: int, end: int) -> dict[int, bytes]:
    """Attributes by type, the last of a repeated type winning; for cold paths."""
    return {kind: bytes(buffer[low:high]) for kind, low, high in iter_attributes(buffer, start, end)}


def string_of(payload: bytes) -> str:
    """The text of a NUL-terminated string attribute."""
    return payload.rstrip(b"\0").decode("utf-8", "replace")


def uint_of(payload: bytes) -> int:
    """The number in a big-endian integer attribute of any width."""
    return int.from_bytes(payload, "big")
