"""Bytes ↔ tables, sets, elements, rules and counters of nf_tables (include/uapi/linux/netfilter/nf_tables.h).

The hot pieces are `encode_elements` and `decode_elements`: all elements of one set have the same layout, so a
message is one join with the attribute headers between the keys, and reading is a check that those headers are
what they should be, column by column, and one slice an element.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gatewayd.errors import EventMalformed
from gatewayd.kernel import attributes as nl
from gatewayd.model.mask import ANY_PEER, Mask, parse_set_name
from gatewayd.model.transaction import (
    AddElements,
    CounterReading,
    CreateSet,
    CreateTable,
    DeleteSet,
    ElementOperation,
    ObservedSet,
    Operation,
    RefreshElements,
    Transaction,
)

NFPROTO_INET = 1
SUBSYSTEM = 10 << 8
"""NFNL_SUBSYS_NFTABLES in the message type's high byte."""
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWTABLE, GETTABLE, DELTABLE = SUBSYSTEM | 0, SUBSYSTEM | 1, SUBSYSTEM | 2
NEWCHAIN, GETCHAIN = SUBSYSTEM | 3, SUBSYSTEM | 4
NEWRULE, GETRULE = SUBSYSTEM | 6, SUBSYSTEM | 7
NEWSET, GETSET, DELSET = SUBSYSTEM | 9, SUBSYSTEM | 10, SUBSYSTEM | 11
NEWSETELEM, GETSETELEM, DELSETELEM = SUBSYSTEM | 12, SUBSYSTEM | 13, SUBSYSTEM | 14
NEWGEN, GETGEN = SUBSYSTEM | 15, SUBSYSTEM | 16
NEWOBJ, GETOBJ = SUBSYSTEM | 18, SUBSYSTEM | 19
NEWFLOWTABLE, GETFLOWTABLE = SUBSYSTEM | 22, SUBSYSTEM | 23

_TABLE_NAME = 1
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 4, 7
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LEN, _SET_DESC, _SET_ID = 1, 2, 3, 4, 5, 9, 10
_SET_TIMEOUT = 11
_SET_COUNT = 20  # NFTA_SET_COUNT; newer than Debian 12's headers
_DESC_SIZE = 1
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEM, _ELEM_KEY, _DATA_VALUE = 1, 1, 1
_OBJ_NAME, _OBJ_TYPE, _OBJ_DATA, _OBJECT_COUNTER = 2, 3, 4, 1
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_GEN_ID = 1
_SET_ANONYMOUS, _SET_HAS_TIMEOUT = 0x1, 0x10
_USERDATA_COMMENT = 0

# nft's numbers of data types (nftables include/datatype.h), six bits each in a concatenation.
_TYPE_IPV4, _TYPE_IPV6, _TYPE_PROTOCOL, _TYPE_PORT, _TYPE_BITS = 7, 8, 12, 13, 6

MAX_NEST_BYTES = 65528
"""An attribute's length is 16 bits, header included; kept aligned."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A transaction as bytes. `operations`: what each message, from `first_sequence` on, belongs to.

    Only the last message asks for an acknowledgement; errors come for any.
    """

    payload: bytes
    first_sequence: int
    operations: tuple[Operation, ...]

    @property
    def last_sequence(self) -> int:
        return self.first_sequence + len(self.operations) - 1


def key_type(mask: Mask) -> int:
    """NFTA_SET_KEY_TYPE as nft would write it, so that `nft list` shows addresses, protocols and ports."""
    address = _TYPE_IPV4 if mask.family == 4 else _TYPE_IPV6
    value = address
    if mask.peer_length != ANY_PEER:
        value = value << _TYPE_BITS | address
    if mask.has_protocol:
        value = value << _TYPE_BITS | _TYPE_PROTOCOL
    if mask.port_length:
        value = value << _TYPE_BITS | _TYPE_PORT
    if mask.source_bits > 0:
        value = value << _TYPE_BITS | _TYPE_PORT
    return value


def encode_batch(transaction: Transaction, table: str, sequence: int) -> Batch:
    """The transaction between batch begin and end, numbered from `sequence` on; no bytes if it does nothing."""
    messages: list[bytes] = []
    operations: list[Operation] = []
    for operation in transaction.operations:
        for kind, flags, body in _encode_operation(operation, table):
            messages.append(nl.message(kind, flags, sequence + len(messages), NFPROTO_INET, 0, *body))
            operations.append(operation)
    if not messages:
        return Batch(b"", sequence, ())
    messages[-1] = _ask_for_ack(messages[-1])
    begin = nl.message(BATCH_BEGIN, nl.NLM_F_REQUEST, sequence, 0, SUBSYSTEM >> 8)
    end = nl.message(BATCH_END, nl.NLM_F_REQUEST, sequence + len(messages) - 1, 0, SUBSYSTEM >> 8)
    return Batch(b"".join([begin, *messages, end]), sequence, tuple(operations))


def element_at(payload: bytes, sequence: int, offset: int) -> bytes | None:
    """The key of the element that begins `offset` bytes from the header of a batch's message; None if none does."""
    for kind, _, number, start, end in nl.iter_messages(payload):
        if number != sequence or kind not in (NEWSETELEM, DELSETELEM):
            continue
        at = start - nl.MESSAGE_HEADER.size + offset
        for name, low, high in nl.iter_attributes(payload, start + 4, end):
            if name == _LIST_ELEMENTS and low <= at <= high - 4:
                length, _ = nl.ATTRIBUTE_HEADER.unpack_from(payload, at)
                return _decode_element(payload, at + 4, min(at + length, high))
    return None


def encode_delete_table(table: str, sequence: int) -> bytes:
    """A batch that removes the table with all that is in it."""
    begin = nl.message(BATCH_BEGIN, nl.NLM_F_REQUEST, sequence, 0, SUBSYSTEM >> 8)
    flags = nl.NLM_F_REQUEST | nl.NLM_F_ACK
    delete = nl.message(DELTABLE, flags, sequence, NFPROTO_INET, 0, nl.text(_TABLE_NAME, table))
    end = nl.message(BATCH_END, nl.NLM_F_REQUEST, sequence, 0, SUBSYSTEM >> 8)
    return begin + delete + end


def encode_dump(kind: int, table: str, sequence: int, set_name: str | None = None) -> bytes:
    """A request to list objects of one table; of one set for GETSETELEM."""
    # The attribute that names the table has number 1 for every kind of object.
    body = [nl.text(_LIST_TABLE, table)]
    if set_name is not None:
        body.append(nl.text(_LIST_SET, set_name))
    if kind == GETOBJ:
        body.append(nl.be32(_OBJ_TYPE, _OBJECT_COUNTER))
    return nl.message(kind, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, sequence, NFPROTO_INET, 0, *body)


def encode_get_table(table: str, sequence: int) -> bytes:
    """A request for one table; ENOENT if there is none."""
    return nl.message(
        GETTABLE, nl.NLM_F_REQUEST | nl.NLM_F_ACK, sequence, NFPROTO_INET, 0, nl.text(_TABLE_NAME, table)
    )


def encode_get_generation(sequence: int) -> bytes:
    return nl.message(GETGEN, nl.NLM_F_REQUEST | nl.NLM_F_ACK, sequence, 0, 0)


def _ask_for_ack(message: bytes) -> bytes:
    length, kind, flags, sequence, port = nl.MESSAGE_HEADER.unpack_from(message)
    header = nl.MESSAGE_HEADER.pack(length, kind, flags | nl.NLM_F_ACK, sequence, port)
    return header + message[nl.MESSAGE_HEADER.size :]


def _encode_operation(operation: Operation, table: str) -> Iterator[tuple[int, int, list[bytes]]]:
    """(message type, flags, attributes) of each message the operation takes."""
    create = nl.NLM_F_REQUEST | nl.NLM_F_CREATE
    match operation:
        case CreateTable():
            yield NEWTABLE, create, [nl.text(_TABLE_NAME, table)]
        case CreateSet(name, mask, capacity, timeout_s):
            body = [
                nl.text(_SET_TABLE, table),
                nl.text(_SET_NAME, name),
                nl.be32(_SET_FLAGS, _SET_HAS_TIMEOUT if timeout_s else 0),
                nl.be32(_SET_KEY_TYPE, key_type(mask)),
                nl.be32(_SET_KEY_LEN, mask.key_length),
                *([nl.nest(_SET_DESC, nl.be32(_DESC_SIZE, capacity))] if capacity else []),
                *([nl.be64(_SET_TIMEOUT, timeout_s * 1000)] if timeout_s else []),
                nl.be32(_SET_ID, 1),
            ]
            yield NEWSET, create | nl.NLM_F_EXCL, body
        case DeleteSet(name):
            yield DELSET, nl.NLM_F_REQUEST, [nl.text(_SET_TABLE, table), nl.text(_SET_NAME, name)]
        case _:
            names = [nl.text(_LIST_TABLE, table), nl.text(_LIST_SET, operation.set_name)]
            for adds in _turns(operation):
                kind, flags = (NEWSETELEM, create) if adds else (DELSETELEM, nl.NLM_F_REQUEST)
                for nested in encode_elements(operation.keys):
                    yield kind, flags, [*names, nested]


def _turns(operation: ElementOperation) -> tuple[bool, ...]:
    """Whether each pass over the keys adds them or removes them.

    Where an element may have gone by itself it is added first: to add what is there is no error, and to remove what
    is not there would be. To add what is there leaves it the time that it had (6.18). All are one transaction.
    """
    if isinstance(operation, AddElements):
        return (True,)
    if isinstance(operation, RefreshElements):
        return True, False, True
    parsed = parse_set_name(operation.set_name)
    return (True, False) if parsed is not None and parsed[0].is_bound else (False,)


def element_stride(key_length: int) -> int:
    """Bytes of one element in a message."""
    return 12 + key_length


def encode_elements(keys: Sequence[bytes]) -> Iterator[bytes]:
    """NFTA_SET_ELEM_LIST_ELEMENTS attributes, each within the 64 KiB of a nest. All keys are of one length."""
    if not keys:
        return
    size = len(keys[0])
    header = b"".join(
        (
            nl.ATTRIBUTE_HEADER.pack(12 + size, _LIST_ELEM | nl.NLA_F_NESTED),
            nl.ATTRIBUTE_HEADER.pack(8 + size, _ELEM_KEY | nl.NLA_F_NESTED),
            nl.ATTRIBUTE_HEADER.pack(4 + size, _DATA_VALUE),
        )
    )
    per_message = (MAX_NEST_BYTES - 4) // element_stride(size)
    for start in range(0, len(keys), per_message):
        body = header + header.join(keys[start : start + per_message])
        yield nl.ATTRIBUTE_HEADER.pack(4 + len(body), _LIST_ELEMENTS | nl.NLA_F_NESTED) + body


def decode_elements(buffer: bytes, start: int, end: int) -> list[bytes]:
    """The keys in the attributes of one NEWSETELEM message. Raises EventMalformed."""
    keys: list[bytes] = []
    for kind, low, high in nl.iter_attributes(buffer, start, end):
        if kind == _LIST_ELEMENTS:
            keys += _decode_list(buffer[low:high])
    return keys


def _decode_list(body: bytes) -> list[bytes]:
    """Keys of an element list: by stride where all elements are laid out alike, one by one otherwise."""
    stride = nl.ATTRIBUTE_HEADER.unpack_from(body)[0] if len(body) >= 12 else 0
    if stride > 12 and stride % 4 == 0 and len(body) % stride == 0:
        size = stride - 12
        nested, key, value = (nl.ATTRIBUTE_HEADER.unpack_from(body, offset) for offset in (0, 4, 8))
        count = len(body) // stride
        if (
            (nested[1] & nl.NLA_TYPE_MASK, key[1] & nl.NLA_TYPE_MASK, value[1])
            == (_LIST_ELEM, _ELEM_KEY, _DATA_VALUE)
            and (key[0], value[0]) == (size + 8, size + 4)
            and all(body[column::stride] == body[column : column + 1] * count for column in range(12))
        ):
            return [body[offset : offset + size] for offset in range(12, len(body), stride)]
    return [_decode_element(body, low, high) for _, low, high in nl.iter_attributes(body, 0, len(body))]


def _decode_element(body: bytes, start: int, end: int) -> bytes:
    for kind, low, high in nl.iter_attributes(body, start, end):
        if kind == _ELEM_KEY:
            for inner, value_low, value_high in nl.iter_attributes(body, low, high):
                if inner == _DATA_VALUE:
                    return body[value_low:value_high]
    raise EventMalformed("set element", "no key")


def decode_set(buffer: bytes, start: int, end: int) -> ObservedSet | None:
    """A set of a GETSET dump; None for anonymous sets, which belong to a rule."""
    fields = nl.attributes_of(buffer, start, end)
    flags = nl.uint_of(fields.get(_SET_FLAGS, b""))
    if flags & _SET_ANONYMOUS or _SET_NAME not in fields:
        return None
    name = nl.string_of(fields[_SET_NAME])
    key_length = nl.uint_of(fields.get(_SET_KEY_LEN, b""))
    desc = fields.get(_SET_DESC, b"")
    capacity = nl.uint_of(nl.attributes_of(desc, 0, len(desc)).get(_DESC_SIZE, b""))
    parsed = parse_set_name(name)
    regular = (
        parsed is not None
        and flags == (_SET_HAS_TIMEOUT if parsed[0].is_bound else 0)
        and key_length == parsed[0].key_length
        and nl.uint_of(fields.get(_SET_KEY_TYPE, b"")) == key_type(parsed[0])
    )
    count = nl.uint_of(fields[_SET_COUNT]) if _SET_COUNT in fields else None
    timeout_s = int.from_bytes(fields.get(_SET_TIMEOUT, b""), "big") // 1000
    return ObservedSet(name, key_length, capacity, regular, count, timeout_s)


def decode_table_name(buffer: bytes, start: int, end: int) -> str:
    """The table that a listed object is in; the attribute has number 1 for every kind of object."""
    return nl.string_of(nl.attributes_of(buffer, start, end).get(_LIST_TABLE, b""))


def decode_chain_name(buffer: bytes, start: int, end: int) -> str:
    return nl.string_of(nl.attributes_of(buffer, start, end).get(_CHAIN_NAME, b""))


def decode_rule_comment(buffer: bytes, start: int, end: int) -> str | None:
    """The comment of a rule; None if it has none."""
    return decode_comment(nl.attributes_of(buffer, start, end).get(_RULE_USERDATA, b""))


def decode_comment(userdata: bytes) -> str | None:
    """The comment in userdata (libnftnl's TLVs: type, length, value; one byte each)."""
    offset = 0
    while offset + 2 <= len(userdata):
        kind, size = userdata[offset], userdata[offset + 1]
        if kind == _USERDATA_COMMENT:
            return nl.string_of(userdata[offset + 2 : offset + 2 + size])
        offset += 2 + size
    return None


def decode_rule_chain(buffer: bytes, start: int, end: int) -> str:
    return nl.string_of(nl.attributes_of(buffer, start, end).get(_RULE_CHAIN, b""))


def count_rules(text: str) -> Counter[str]:
    """Rules of each chain in a table's nft text as compile/ruleset.py writes it, a rule a line; the kernel lists
    each as one."""
    counts: Counter[str] = Counter()
    chain = ""
    for line in text.splitlines():
        if line.startswith("\tchain "):
            chain = line.split()[1]
        elif not line.startswith("\t\t"):
            chain = ""
        elif chain and not line.startswith("\t\ttype "):
            counts[chain] += 1
    return counts


def fingerprint_rules(chains: Iterable[tuple[bytes, int, int]], rules: Iterable[tuple[bytes, int, int]]) -> str:
    """A digest of chains and rules as the kernel lists them, without handles and counts; "" if no chain.

    Equal digests = equal rules in equal order: someone's edit changes it, our own replacement by the same
    text does not.
    """
    parts: list[bytes] = []
    for buffer, start, end in chains:
        fields = nl.attributes_of(buffer, start, end)
        numbers = (_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE)
        parts.append(b"chain\0" + b"\1".join(fields.get(number, b"") for number in numbers))
    if not parts:
        return ""
    parts.sort()
    ordered: dict[bytes, list[bytes]] = {}
    for buffer, start, end in rules:
        fields = nl.attributes_of(buffer, start, end)
        line = fields.get(_RULE_EXPRESSIONS, b"") + b"\1" + fields.get(_RULE_USERDATA, b"")
        ordered.setdefault(fields.get(_RULE_CHAIN, b""), []).append(line)
    for chain in sorted(ordered):
        parts += [chain, *ordered[chain]]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.hexdigest()


def decode_counter(buffer: bytes, start: int, end: int) -> tuple[str, CounterReading]:
    fields = nl.attributes_of(buffer, start, end)
    inner = fields.get(_OBJ_DATA, b"")
    counts = nl.attributes_of(inner, 0, len(inner))
    return nl.string_of(fields.get(_OBJ_NAME, b"")), CounterReading(
        nl.uint_of(counts.get(_COUNTER_PACKETS, b"")), nl.uint_of(counts.get(_COUNTER_BYTES, b""))
    )


def decode_generation(buffer: bytes, start: int, end: int) -> int:
    return nl.uint_of(nl.attributes_of(buffer, start, end).get(_GEN_ID, b""))
