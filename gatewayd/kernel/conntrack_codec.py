"""ctnetlink: connections from the kernel's bytes, and the few requests that we make of it.

Sources: include/uapi/linux/netfilter/nfnetlink_conntrack.h, Documentation/netlink/specs/conntrack.yaml.

The kernel lays messages of one kind out alike, so the attributes are walked once for each layout met: the
walk yields a mask over all attribute headers it read. A later message of the same length whose masked bytes
are equal has, by that fact, its fields at the same offsets, and is read with one `Struct`. Anything else
takes the walk. Which sysctl or helper adds which attribute therefore needs no table here.
"""

from __future__ import annotations

import sys
from operator import itemgetter
from struct import Struct
from typing import Any

import msgspec

from gatewayd.errors import EventMalformed
from gatewayd.kernel.attributes import (
    ATTRIBUTE_HEADER,
    MESSAGE_HEADER,
    NLA_TYPE_MASK,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    align4,
    attribute,
    be16,
    be32,
    iter_attributes,
    message,
    nest,
)
from gatewayd.model import Flow
from gatewayd.model.flow import AF_INET, AF_INET6, ConnectionEvent, ConnectionKey, ConnectionKind
from gatewayd.model.service import GRE, PROTOCOLS_WITH_PORTS

CT_NEW, CT_GET, CT_DELETE, CT_GET_STATS = 0x100, 0x101, 0x102, 0x105
"""IPCTNL_MSG_CT_NEW, _GET, _DELETE, _GET_STATS with the subsystem in the high byte."""
_CONNECTION_MESSAGES = frozenset({CT_NEW, CT_DELETE})
AF_UNSPEC = 0
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_MARK, CTA_COUNTERS_ORIG, CTA_COUNTERS_REPLY = 1, 2, 8, 9, 10
CTA_ID, CTA_ZONE, CTA_MARK_MASK = 12, 18, 21
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V6_SRC = 1, 3
CTA_FILTER, CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS, CTA_FILTER_F_IP_SRC = 25, 1, 2, 1

_ERRNO = Struct("=i")
MAX_LAYOUTS = 64
"""Layouts remembered; past it the walk does the work. Usual are a dozen: family × protocol × new or end."""


class ControlMessage(msgspec.Struct, frozen=True, gc=False):
    """A message among connections that is none: NLMSG_ERROR, NLMSG_DONE, statistics."""

    kind: int
    flags: int
    sequence: int
    payload: bytes


class ConnectionBatch(msgspec.Struct, frozen=True, gc=False):
    """What a buffer held. `malformed` messages are counted and left out; the others are all there."""

    events: list[ConnectionEvent]
    malformed: int
    controls: list[ControlMessage]
    interrupted: bool
    """NLM_F_DUMP_INTR was on one of the messages."""


# A leaf is (field, size in bytes); a dict is a nest. Everything else in a message is stepped over.
_TUPLE_TREE: dict[int, Any] = {
    CTA_TUPLE_IP: {1: ("source", 4), 2: ("destination", 4), 3: ("source", 16), 4: ("destination", 16)},
    CTA_TUPLE_PROTO: {1: ("protocol", 1), 2: ("source_port", 2), 3: ("destination_port", 2)},
}
_REPLY_TREE: dict[int, Any] = {
    CTA_TUPLE_IP: {1: ("reply_source", 4), 3: ("reply_source", 16)},
    CTA_TUPLE_PROTO: {2: ("reply_source_port", 2)},
}
_TREE: dict[int, Any] = {
    CTA_TUPLE_ORIG: _TUPLE_TREE,
    CTA_TUPLE_REPLY: _REPLY_TREE,
    CTA_ID: ("id", 4),
    CTA_MARK: ("mark", 4),
    CTA_ZONE: ("zone", 2),
    CTA_COUNTERS_ORIG: {1: ("packets_original", 8), 2: ("bytes_original", 8)},
    CTA_COUNTERS_REPLY: {1: ("packets_reply", 8), 2: ("bytes_reply", 8)},
}
_FIELDS = (
    "source", "destination", "protocol", "source_port", "destination_port", "mark", "id",
    "packets_original", "bytes_original", "packets_reply", "bytes_reply", "zone",
)  # fmt: skip
_SEEN_INSTEAD = {"destination": "reply_source", "destination_port": "reply_source_port"}
"""Where the far end is after DNAT, if the message has the reply tuple. ctnetlink sends both of every connection."""
_ADDRESSES = frozenset({"source", "destination", "reply_source"})
_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_ABSENT = (0,)


class Places(msgspec.Struct, frozen=True):
    """Where the fields of one message are: (offset, size) by field, and the offsets of all headers read."""

    fields: dict[str, tuple[int, int]]
    headers: list[int]
    tuple_start: int
    tuple_end: int


class _Layout:
    """`Places`, compiled: matched by one masked comparison, read by one unpack."""

    __slots__ = ("bits", "mask", "pick", "tuple_end", "tuple_start", "unpack")

    def __init__(self, image: bytes, places: Places) -> None:
        headers = bytearray(len(image))
        for offset in places.headers:
            headers[offset : offset + 4] = b"\xff\xff\xff\xff"
        self.mask = int.from_bytes(headers, "little")
        self.bits = int.from_bytes(image, "little") & self.mask
        self.tuple_start, self.tuple_end = places.tuple_start, places.tuple_end
        present = sorted(places.fields, key=places.fields.__getitem__)
        present = [field for field in present if _SEEN_INSTEAD.get(field) not in places.fields]
        layout, end = ">", 0
        for field in present:
            offset, size = places.fields[field]
            layout += f"{offset - end}x"
            layout += f"{size}s" if field in _ADDRESSES else _FORMATS[size]
            end = offset + size
        self.unpack = Struct(layout).unpack_from
        order = {field: index for index, field in enumerate(present)}
        seen = (order.get(_SEEN_INSTEAD.get(field, ""), order.get(field, -1)) for field in _FIELDS)
        self.pick = itemgetter(*seen)

    def read(self, kind: ConnectionKind, image: bytes, sender_port: int) -> ConnectionEvent:
        (
            source, destination, protocol, source_port, destination_port, mark, identity,
            packets_original, bytes_original, packets_reply, bytes_reply, zone,
        ) = self.pick(self.unpack(image) + _ABSENT)  # fmt: skip
        if protocol in PROTOCOLS_WITH_PORTS:
            flow = Flow(protocol, source, destination, source_port, destination_port)
        else:
            flow = Flow(protocol, source, destination)
        return ConnectionEvent(
            kind, flow, mark, identity, packets_original, bytes_original, packets_reply, bytes_reply,
            image[self.tuple_start : self.tuple_end], zone, sender_port,
        )  # fmt: skip


_layouts: dict[int, list[_Layout]] = {}
"""By message length. A memo: what it holds changes the speed of an answer, never the answer."""


def decode_connections(buffer: bytes | bytearray | memoryview) -> ConnectionBatch:
    """All connections of a buffer of whole netlink messages. Raises nothing.

    A message that does not parse is counted; one with an impossible length is too, and ends the buffer,
    for what follows it cannot be found.
    """
    raw = bytes(buffer)
    events: list[ConnectionEvent] = []
    controls: list[ControlMessage] = []
    malformed = offset = flags_seen = 0
    total = len(raw)
    while total - offset >= 16:
        length, kind, flags, sequence, port = MESSAGE_HEADER.unpack_from(raw, offset)
        end = offset + length
        if length < 16 or end > total:
            malformed += 1
            break
        flags_seen |= flags
        if kind in _CONNECTION_MESSAGES:
            image = raw[offset:end]
            word = _kind_of(kind, flags)
            if flags & NLM_F_MULTI:
                port = 0  # of who asked for the list
            bits = int.from_bytes(image, "little")
            for layout in _layouts.get(length, ()):
                if bits & layout.mask == layout.bits:
                    events.append(layout.read(word, image, port))
                    break
            else:
                try:
                    events.append(_meet(word, image, port))
                except EventMalformed:
                    malformed += 1
        else:
            controls.append(ControlMessage(kind, flags, sequence, raw[offset + 16 : end]))
        offset += align4(length)
    return ConnectionBatch(events, malformed, controls, bool(flags_seen & NLM_F_DUMP_INTR))


def _kind_of(kind: int, flags: int) -> ConnectionKind:
    if kind == CT_DELETE:
        return "destroy"
    if flags & NLM_F_CREATE:
        return "new"
    return "listed" if flags & NLM_F_MULTI else "update"


def _meet(kind: ConnectionKind, image: bytes, sender_port: int) -> ConnectionEvent:
    """Walk a message of no known layout, and remember its layout."""
    layout = _Layout(image, locate(image))
    if sum(map(len, _layouts.values())) < MAX_LAYOUTS:
        _layouts.setdefault(len(image), []).append(layout)
    return layout.read(kind, image, sender_port)


def locate(image: bytes) -> Places:
    """Find the fields of one CT_NEW or CT_DELETE message. Raises EventMalformed."""
    fields: dict[str, tuple[int, int]] = {}
    headers: list[int] = []
    _walk(image, 20, len(image), _TREE, fields, headers)
    if not {"source", "destination", "protocol"} <= fields.keys():
        raise EventMalformed("conntrack event", "no complete original tuple")
    if fields["source"][1] != fields["destination"][1] or fields["source"][1] != _far_size(fields):
        raise EventMalformed("conntrack event", "addresses of two families in one tuple")
    low, high = next(
        (low, high)
        for kind, low, high in iter_attributes(image, 20, len(image))
        if kind == CTA_TUPLE_ORIG and low < fields["source"][0] < high
    )
    return Places(fields, headers, low - 4, high)


def _far_size(fields: dict[str, tuple[int, int]]) -> int:
    return fields.get("reply_source", fields["destination"])[1]


def _walk(
    image: bytes, start: int, end: int, tree: dict[int, Any],
    fields: dict[str, tuple[int, int]], headers: list[int],
) -> None:  # fmt: skip
    offset = start
    while end - offset >= 4:
        length, kind = ATTRIBUTE_HEADER.unpack_from(image, offset)
        if length < 4 or offset + length > end:
            raise EventMalformed("conntrack event", f"attribute length {length} at offset {offset} of {end}")
        headers.append(offset)
        branch = tree.get(kind & NLA_TYPE_MASK)
        if isinstance(branch, dict):
            _walk(image, offset + 4, offset + length, branch, fields, headers)
        elif branch is not None:
            field, size = branch
            if length != size + 4:
                raise EventMalformed("conntrack event", f"{field} has {length - 4} bytes, not {size}")
            fields[field] = (offset + 4, size)
        offset += align4(length)


def encode_dump(
    sequence: int, mark: int, mask: int, family: int = AF_UNSPEC,
    source: bytes | None = None, answered_by: bytes | None = None,
) -> bytes:  # fmt: skip
    """List the connections with `ct mark & mask == mark`; the kernel does the choosing (CTA_MARK_MASK).

    `source`: only those that this address opened; `answered_by`: only those that it answers, which after DNAT is
    not the address that was asked for (CTA_FILTER, Linux 5.8). The family of the list is theirs; one at most.
    """
    _check_mark(mark, mask)
    flags = NLM_F_REQUEST | NLM_F_DUMP
    marks = be32(CTA_MARK, mark), be32(CTA_MARK_MASK, mask)
    address = source or answered_by
    if address is None:
        return message(CT_GET, flags, sequence, family, 0, *marks)
    side, which = (CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS) if source else (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS)
    kind = CTA_IP_V4_SRC if len(address) == 4 else CTA_IP_V6_SRC
    chosen = nest(side, nest(CTA_TUPLE_IP, attribute(kind, address)))
    by_source = nest(CTA_FILTER, attribute(which, CTA_FILTER_F_IP_SRC.to_bytes(4, sys.byteorder)))
    family = AF_INET if len(address) == 4 else AF_INET6
    return message(CT_GET, flags, sequence, family, 0, *marks, chosen, by_source)


def encode_mark_change(sequence: int, key: ConnectionKey, value: int, mask: int, acknowledge: bool) -> bytes:
    """Set the bits of `mask` in the ct mark of one existing connection to `value`; others stay.

    The kernel computes `(mark & ~CTA_MARK_MASK) ^ CTA_MARK` (net/netfilter/nf_conntrack_netlink.c:
    ctnetlink_change_mark), which is an assignment as long as `value` stays within `mask`. Without
    NLM_F_CREATE a connection that ended meanwhile is ENOENT. Errors are always answered; success only
    with `acknowledge`.
    """
    _check_mark(value, mask)
    flags = NLM_F_REQUEST | (NLM_F_ACK if acknowledge else 0)
    marks = be32(CTA_MARK, value) + be32(CTA_MARK_MASK, mask)
    zone = be16(CTA_ZONE, key.zone) if key.zone else b""
    return message(CT_NEW, flags, sequence, key.family, 0, key.tuple_bytes, zone, marks)


def encode_count(sequence: int) -> bytes:
    """Ask how many connections the table holds (IPCTNL_MSG_CT_GET_STATS)."""
    return message(CT_GET_STATS, NLM_F_REQUEST, sequence, AF_UNSPEC, 0)


def errno_of(control: ControlMessage) -> int:
    """The errno of an NLMSG_ERROR (0: an acknowledgement) or NLMSG_DONE. Raises EventMalformed."""
    if len(control.payload) < 4:
        what = "netlink error" if control.kind == NLMSG_ERROR else "end of dump"
        raise EventMalformed(what, f"{len(control.payload)} bytes")
    return -int(_ERRNO.unpack_from(control.payload)[0])


def _check_mark(value: int, mask: int) -> None:
    if not 0 <= mask <= 0xFFFFFFFF or value & ~mask:
        raise ValueError(f"mark {value:#x} goes past its mask {mask:#x}")


def key_of_flow(flow: Flow) -> ConnectionKey | None:
    """The key of the connection of which `flow` is the original or the reply tuple; None for GRE, whose call ids a
    flow lacks. A flow that was translated at both ends is neither."""
    if flow.protocol == GRE:
        return None
    wide = len(flow.source) == 16
    addresses = nest(
        CTA_TUPLE_IP, attribute(3 if wide else 1, flow.source), attribute(4 if wide else 2, flow.destination)
    )
    protocol = [attribute(1, bytes((flow.protocol,)))]
    if flow.protocol in PROTOCOLS_WITH_PORTS:
        protocol += [be16(2, flow.source_port), be16(3, flow.destination_port)]
    raw = nest(CTA_TUPLE_ORIG, addresses, nest(CTA_TUPLE_PROTO, *protocol))
    return ConnectionKey(raw, AF_INET6 if wide else AF_INET)
