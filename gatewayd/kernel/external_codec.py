"""Other programs in nf_tables, from the kernel's bytes: commits to our table, rules that use our mark. Pure.

Commits: a transaction is told object by object, at commit and in order, each message with the netlink port of its
sender (nlmsg_pid); a NEWGEN with generation, process id and name of the program ends it
(net/netfilter/nf_tables_api.c: nf_tables_commit, nf_tables_gen_notify).

Rules of other tables: which of them write or leak our bits of the ct mark. A rule is gone through expression by
expression, as the kernel runs it, with what is known of each 32-bit register: which of its bits are still those of
the ct mark, which are 0, and which hold a bit of ours, wherever it was shifted to
(include/uapi/linux/netfilter/nf_tables.h). Of an expression that is not known here nothing is known afterwards; so
a rule that is not understood is no neighbour, and one that is named does what is said. Of iptables-nft the target
CONNMARK is read from its binary form (include/uapi/linux/netfilter/xt_connmark.h).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct
from typing import NamedTuple

from gatewayd.errors import EventMalformed
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import tables_codec as codec
from gatewayd.model.decoding import printable
from gatewayd.model.transaction import Deed, ElementChange, ExternalCommit, Neighbour

# -- commits ---------------------------------------------------------------------------------------------

NFNLGRP_NFTABLES = 7
MAX_CHANGES = 4096
"""Elements remembered of one transaction. Of a larger one it is only known that there was one."""
MAX_OWN_PORTS = 16
"""Processes of ours whose ports are remembered: one nft for each replacement of the rules."""

_TABLE, _SET_NAME = 1, 2
_GEN_ID, _GEN_PROC_PID, _GEN_PROC_NAME = 1, 2, 3
_FAMILY = bytes((codec.NFPROTO_INET,))
_HARMLESS = frozenset({codec.NEWOBJ, codec.SUBSYSTEM | 20})
"""Counters that came (NFT_MSG_NEWOBJ) or went (NFT_MSG_DELOBJ): no packet's fate hangs on them alone."""


class NotificationDecoder:
    """Fed with datagrams in their order. `own_port`: a netlink port whose transactions are ours."""

    def __init__(self, table: str, own_port: int | None = None) -> None:
        self._own_port = own_port
        self._own_ports: deque[int] = deque(maxlen=MAX_OWN_PORTS)
        self._table = table
        # The table's name is attribute 1 of every object.
        self._marker = nl.text(_TABLE, table)
        self._elements: dict[tuple[str, bytes], bool] = {}
        self._others = self._unlisted = False

    def feed(self, datagram: bytes) -> Iterator[ExternalCommit]:
        """The transactions that end in this datagram. Raises EventMalformed; then `reset` is due.

        What another table is about costs one search for our table's name.
        """
        if (self._unlisted or self._marker not in datagram) and not _is_end(datagram):
            return
        for kind, _, _, start, end in nl.iter_messages(datagram):
            port = nl.MESSAGE_HEADER.unpack_from(datagram, start - nl.MESSAGE_HEADER.size)[4]
            if port == self._own_port or port in self._own_ports:
                continue
            if kind == codec.NEWGEN:
                yield self._finish(nl.attributes_of(datagram, start + 4, end))
            elif kind not in _HARMLESS and datagram[start : start + 1] == _FAMILY and not self._unlisted:
                self._take(kind, datagram, start + 4, end)

    def add_own_port(self, port: int) -> None:
        """What this port commits is ours too: of the latest few, for a number comes again one day."""
        self._own_ports.append(port)

    def reset(self) -> None:
        """Forget the transaction that is under way: some of it was lost."""
        self._elements = {}
        self._others = self._unlisted = False

    def _take(self, kind: int, datagram: bytes, start: int, end: int) -> None:
        fields = nl.attributes_of(datagram, start, end)
        if nl.string_of(fields.get(_TABLE, b"")) != self._table:
            return
        if kind not in (codec.NEWSETELEM, codec.DELSETELEM):
            self._others = True
            return
        if len(self._elements) >= MAX_CHANGES:
            self._others = self._unlisted = True
            return
        name = nl.string_of(fields.get(_SET_NAME, b""))
        for key in codec.decode_elements(datagram, start, end):
            self._elements[(name, key)] = kind == codec.NEWSETELEM

    def _finish(self, fields: dict[int, bytes]) -> ExternalCommit:
        changes = (ElementChange(name, key, present) for (name, key), present in self._elements.items())
        commit = ExternalCommit(
            nl.uint_of(fields.get(_GEN_ID, b"")),
            nl.uint_of(fields.get(_GEN_PROC_PID, b"")),
            printable(nl.string_of(fields.get(_GEN_PROC_NAME, b""))),
            tuple(changes),
            self._others,
            self._unlisted,
        )
        self.reset()
        return commit


def _is_end(datagram: bytes) -> bool:
    """Whether it begins with the NEWGEN that ends a transaction: the kernel sends that by itself."""
    return len(datagram) >= 16 and nl.MESSAGE_HEADER.unpack_from(datagram)[1] == codec.NEWGEN


# -- rules -----------------------------------------------------------------------------------------------

FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_DATA_VALUE = 1
_CT_KEY, _CT_SREG, _CT_MARK = 2, 4, 3
_META_KEY, _META_SREG, _META_MARK = 2, 3, 3
_IMMEDIATE_DATA = 2
_BITWISE_SREG, _BITWISE_MASK, _BITWISE_XOR, _BITWISE_OP, _BITWISE_DATA = 1, 4, 5, 6, 7
_BITWISE_SREG2 = 8
_MASK_XOR, _SHIFT_LEFT, _SHIFT_RIGHT, _AND, _OR, _XOR = range(6)
_TARGET_NAME, _TARGET_REVISION, _TARGET_INFO = 1, 2, 3
_CONNMARK = Struct("=IIIBBB")
"""ctmark, ctmask, nfmask; then the mode (revision 1), or direction and width of a shift and the mode (2)."""
_SET, _SAVE, _RESTORE = range(3)
_ALL = 0xFFFFFFFF
_TELLTALES = (b"\x00ct\x00", b"CONNMARK\x00")
"""A rule without one of these cannot be one; it is not gone through."""


class _Value(NamedTuple):
    """Of a register. `kept`: bits that are those of the ct mark. `zero`: bits that are 0. `ours`: bits that hold
    one of ours."""

    kept: int
    zero: int
    ours: int


_ANYTHING = _Value(0, 0, 0)
_WRITES_A_REGISTER = {
    "payload": 1, "meta": 1, "lookup": 3, "immediate": 1, "ct": 1, "bitwise": 2, "byteorder": 2, "exthdr": 1,
    "hash": 2, "numgen": 1, "rt": 1, "socket": 2, "osf": 1, "fib": 1, "xfrm": 1, "tunnel": 2,
}  # fmt: skip
"""By the name of the expression the attribute that names its destination register."""
_FOUR_BYTES = frozenset({"meta", "ct", "immediate", "bitwise"})
"""Of all others the result may be wider than one register."""
_NO_REGISTER = frozenset(
    {
        "cmp", "counter", "log", "limit", "quota", "connlimit", "last", "range", "dynset", "reject", "masq", "nat",
        "redir", "tproxy", "queue", "notrack", "objref", "match", "flow_offload", "dup", "fwd", "synproxy", "inner",
    }
)  # fmt: skip


def encode_rules_dump(sequence: int) -> bytes:
    """A request for the rules of every table of every family."""
    return nl.message(codec.GETRULE, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, sequence, 0, 0)


def neighbours_in(datagram: bytes, mask: int, own_table: str) -> Iterator[Neighbour]:
    """Of the rules in a datagram of the dump. `mask`: our bits. Raises EventMalformed where a message does not
    parse as one; what a rule holds raises nothing."""
    for kind, _, _, start, end in nl.iter_messages(datagram):
        if kind != codec.NEWRULE or not any(word in datagram[start:end] for word in _TELLTALES):
            continue
        family = FAMILIES.get(datagram[start], str(datagram[start]))
        fields = nl.attributes_of(datagram, start + 4, end)
        table = nl.string_of(fields.get(_RULE_TABLE, b""))
        if (family, table) == ("inet", own_table):
            continue
        chain = nl.string_of(fields.get(_RULE_CHAIN, b""))
        handle = nl.uint_of(fields.get(_RULE_HANDLE, b""))
        for deed in judge_expressions(fields.get(_RULE_EXPRESSIONS, b""), mask):
            yield Neighbour(deed, family, table, chain, handle)


def judge_expressions(raw: bytes, mask: int) -> tuple[Deed, ...]:
    """What a rule with these NFTA_RULE_EXPRESSIONS does to our bits; () also where it is not understood."""
    deeds: dict[Deed, None] = {}
    with suppress(EventMalformed, ValueError):
        _run(raw, mask, deeds)
    return tuple(deeds)


def _run(raw: bytes, mask: int, deeds: dict[Deed, None]) -> None:
    registers: dict[int, _Value] = {}
    for _, low, high in nl.iter_attributes(raw, 0, len(raw)):
        expression = nl.attributes_of(raw, low, high)
        name = nl.string_of(expression.get(_EXPRESSION_NAME, b""))
        data = expression.get(_EXPRESSION_DATA, b"")
        fields = nl.attributes_of(data, 0, len(data))
        if name == "ct" and _CT_SREG in fields:
            value = registers.get(_register(fields, _CT_SREG), _ANYTHING)
            if nl.uint_of(fields.get(_CT_KEY, b"")) == _CT_MARK and mask & ~value.kept:
                deeds["writes"] = None
        elif name == "meta" and _META_SREG in fields:
            value = registers.get(_register(fields, _META_SREG), _ANYTHING)
            if nl.uint_of(fields.get(_META_KEY, b"")) == _META_MARK and value.ours:
                deeds["leaks"] = None
        elif name == "target":
            _judge_target(fields, mask, deeds)
        elif name in _WRITES_A_REGISTER:
            value = _result(name, fields, registers, mask)
            into = _register(fields, _WRITES_A_REGISTER[name])
            registers[into] = value
            if name not in _FOUR_BYTES:
                for beyond in range(into + 1, into + 4):
                    registers.pop(beyond, None)
        elif name not in _NO_REGISTER:
            registers.clear()


def _result(name: str, fields: dict[int, bytes], registers: dict[int, _Value], mask: int) -> _Value:
    """What is known of a register that the expression writes."""
    if name == "ct" and nl.uint_of(fields.get(_CT_KEY, b"")) == _CT_MARK:
        return _Value(_ALL, 0, mask)
    if name == "immediate":
        number = _number(fields.get(_IMMEDIATE_DATA, b""))
        return _ANYTHING if number is None else _Value(0, _ALL & ~number, 0)
    if name == "bitwise":
        source = registers.get(_register(fields, _BITWISE_SREG), _ANYTHING)
        other = registers.get(_register(fields, _BITWISE_SREG2), _ANYTHING)
        return _bitwise(fields, source, other)
    if name == "byteorder":
        source = registers.get(_register(fields, 1), _ANYTHING)
        return _Value(0, 0, _ALL if source.ours else 0)
    return _ANYTHING


def _bitwise(fields: dict[int, bytes], a: _Value, b: _Value) -> _Value:
    operation = nl.uint_of(fields.get(_BITWISE_OP, b""))
    if operation == _MASK_XOR:
        mask, xor = _number(fields.get(_BITWISE_MASK, b"")), _number(fields.get(_BITWISE_XOR, b""))
        if mask is None or xor is None:
            return _Value(0, 0, a.ours)
        return _Value(a.kept & mask & ~xor, (a.zero | ~mask) & ~xor & _ALL, a.ours & mask)
    if operation in (_SHIFT_LEFT, _SHIFT_RIGHT):
        width = _number(fields.get(_BITWISE_DATA, b""))
        if width is None or width > 31:
            return _ANYTHING
        return _Value(0 if width else a.kept, 0, _shifted(a.ours, operation == _SHIFT_LEFT, width))
    if operation in (_OR, _XOR):
        return _Value(a.kept & b.zero | b.kept & a.zero, a.zero & b.zero, a.ours | b.ours)
    if operation == _AND:
        return _Value(0, a.zero | b.zero, a.ours & ~b.zero | b.ours & ~a.zero)
    return _ANYTHING


def _judge_target(fields: dict[int, bytes], mask: int, deeds: dict[Deed, None]) -> None:
    """`-j CONNMARK`, as net/netfilter/xt_connmark.c does it."""
    info = fields.get(_TARGET_INFO, b"")
    if nl.string_of(fields.get(_TARGET_NAME, b"")) != "CONNMARK" or len(info) < _CONNMARK.size:
        return
    ct_mark, ct_mask, packet_mask, first, second, third = _CONNMARK.unpack_from(info)
    is_left, width, mode = first == 0, second, third
    if nl.uint_of(fields.get(_TARGET_REVISION, b"")) < 2:
        is_left, width, mode = True, 0, first
    writes = {
        _SET: ct_mask | ct_mark | (_ALL if width else 0),
        _SAVE: ct_mask | _shifted(packet_mask, is_left, width),
    }
    if mask & writes.get(mode, 0):
        deeds["writes"] = None
    elif mode == _RESTORE and mask & ct_mask:
        deeds["leaks"] = None


def _shifted(bits: int, is_left: bool, width: int) -> int:
    return (bits << width if is_left else bits >> width) & _ALL


def _register(fields: dict[int, bytes], kind: int) -> int:
    """The first of its 32-bit registers: 1 to 4 are 16 bytes wide, 8 to 23 are 4."""
    number = nl.uint_of(fields.get(kind, b""))
    return 8 + 4 * (number - 1) if 1 <= number <= 4 else number


def _number(data: bytes) -> int | None:
    """Of a NFTA_DATA_VALUE of 4 bytes, in the order of the host; None for anything else, a verdict say."""
    value = nl.attributes_of(data, 0, len(data)).get(_DATA_VALUE, b"")
    return int.from_bytes(value, sys.byteorder) if len(value) == 4 else None
