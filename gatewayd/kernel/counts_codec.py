"""Bytes → elements with counters, of the sets in which the rules count (include/uapi/linux/netfilter/nf_tables.h).

All elements of a set are laid out alike, so the first says where in each its key, counter and expiration are. That
the others are like it is checked column by column; where they are not, each is read by itself.
"""

from __future__ import annotations

from struct import Struct

from gatewayd.errors import EventMalformed
from gatewayd.kernel import attributes as nl
from gatewayd.model.transaction import Counted

_LIST_ELEMENTS = 3
_ELEM_KEY, _ELEM_EXPIRATION, _ELEM_EXPR, _ELEM_EXPRESSIONS = 1, 5, 7, 11
_DATA_VALUE, _EXPR_NAME, _EXPR_DATA, _LIST_ELEM, _COUNTER_PACKETS = 1, 1, 2, 1, 2
_COUNTER = b"counter\0"
_U64 = Struct(">Q")
_TABLE_HANDLE = 4

_Field = tuple[int, int]
"""Where in a message a value begins and ends."""


def decode_table_handle(buffer: bytes, start: int, end: int) -> int:
    """The number of a table, which no other table of the namespace had before (NFTA_TABLE_HANDLE)."""
    return nl.uint_of(nl.attributes_of(buffer, start, end).get(_TABLE_HANDLE, b""))


def decode_counts(buffer: bytes, start: int, end: int) -> list[Counted]:
    """The elements in the attributes of one NEWSETELEM message; those without a counter are left out. Raises
    EventMalformed."""
    counts: list[Counted] = []
    for kind, low, high in nl.iter_attributes(buffer, start, end):
        if kind == _LIST_ELEMENTS:
            counts += _decode_list(bytes(buffer[low:high]))
    return counts


def _decode_list(body: bytes) -> list[Counted]:
    stride = nl.align4(nl.ATTRIBUTE_HEADER.unpack_from(body)[0]) if len(body) >= nl.ATTRIBUTE_HEADER.size else 0
    if stride >= 4 and len(body) % stride == 0:
        fields = _fields_of(body, 4, stride)
        if fields is not None and _is_alike(body, stride, fields):
            (key, key_end), (count, _), (left, _) = fields
            return [
                Counted(
                    body[offset + key : offset + key_end],
                    _U64.unpack_from(body, offset + count)[0],
                    _U64.unpack_from(body, offset + left)[0] / 1000,
                )
                for offset in range(0, len(body), stride)
            ]
    each = (_fields_of(body, low, high) for _, low, high in nl.iter_attributes(body, 0, len(body)))
    return [_read(body, fields) for fields in each if fields is not None]


def _is_alike(body: bytes, stride: int, fields: tuple[_Field, _Field, _Field]) -> bool:
    """Whether all but the values is the same in every element; the counter's bytes are no value of ours, but differ
    as well."""
    values = {column for low, high in fields for column in range(low, high)}
    count_low = fields[1][0]
    values |= set(range(count_low - 12, count_low - 4))
    number = len(body) // stride
    same = (column for column in range(stride) if column not in values)
    return all(body[column::stride] == body[column : column + 1] * number for column in same)


def _read(body: bytes, fields: tuple[_Field, _Field, _Field]) -> Counted:
    (key, key_end), (count, _), (left, _) = fields
    return Counted(body[key:key_end], _U64.unpack_from(body, count)[0], _U64.unpack_from(body, left)[0] / 1000)


def _fields_of(body: bytes, start: int, end: int) -> tuple[_Field, _Field, _Field] | None:
    """Of an element: key, packets, expiration in milliseconds; None without one of them. Raises EventMalformed."""
    key: _Field | None = None
    packets: _Field | None = None
    left: _Field | None = None
    for kind, low, high in nl.iter_attributes(body, start, end):
        if kind == _ELEM_KEY:
            key = _find(body, low, high, _DATA_VALUE)
        elif kind == _ELEM_EXPR:
            packets = _find_packets(body, low, high)
        elif kind == _ELEM_EXPRESSIONS:
            for inner, inner_low, inner_high in nl.iter_attributes(body, low, high):
                if inner == _LIST_ELEM:
                    packets = packets or _find_packets(body, inner_low, inner_high)
        elif kind == _ELEM_EXPIRATION:
            left = (low, high)
    if key is None:
        raise EventMalformed("set element", "no key")
    if packets is None or left is None or packets[1] - packets[0] != 8 or left[1] - left[0] != 8:
        return None
    return key, packets, left


def _find_packets(body: bytes, start: int, end: int) -> _Field | None:
    name = _find(body, start, end, _EXPR_NAME)
    content = _find(body, start, end, _EXPR_DATA)
    if name is None or content is None or body[name[0] : name[1]] != _COUNTER:
        return None
    return _find(body, *content, _COUNTER_PACKETS)


def _find(body: bytes, start: int, end: int, wanted: int) -> _Field | None:
    for kind, low, high in nl.iter_attributes(body, start, end):
        if kind == wanted:
            return low, high
    return None
