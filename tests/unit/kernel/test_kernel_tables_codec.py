"""Tables, sets, elements and rules as bytes: held to pyroute2's encoder and to what a kernel really sent.

The hex strings are datagrams of Linux 6.18 to a plain AF_NETLINK socket in a fresh network namespace (little
endian): table `gatewayd` made by KernelTables (sets c4_32 of 1024 with 10.0.0.1–3, and c4_29_p16_port16 of 8 with
10.0.0.8 . 10.9.0.0 . udp . 51820), then by `nft`

    counter hits { packets 5 bytes 700 }
    chain forward { type filter hook forward priority -10; policy accept;
        ip saddr @c4_32 counter name hits accept comment "gatewayd epoch=3 policy=aa rules=bb"
        th dport { 500, 4500 } accept }
    chain extra { }

and each kind of object dumped with the requests that this module encodes, sequence 7 (9 for single objects).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink.nftsocket import nft_set_elem_list_msg, nft_set_msg, nft_table_msg

from gatewayd.errors import EventMalformed
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import tables_codec as codec
from gatewayd.model.mask import Mask
from gatewayd.model.transaction import (
    AddElements,
    CounterReading,
    CreateSet,
    CreateTable,
    DeleteSet,
    ObservedSet,
    Operation,
    RefreshElements,
    RemoveElements,
    Transaction,
)

TABLE = "gatewayd"
REQUEST, ACK, CREATE, EXCL = 1, 4, 0x400, 0x200
PORTS = Mask(4, 29, 16, "port16")

KERNEL = {
    "sets": (
        "78000000090a0200070000003a2a5eaa010000030d0001006761746577617964000000000a00020063345f33320000000c001000"
        "0000000000000001080004000000000708000500000000040c000900080001000000040017001300307866666666666666663832"
        "3530376463300000080014000000000384000000090a0200070000003a2a5eaa010000030d000100676174657761796400000000"
        "1500020063345f32395f7031365f706f72743136000000000c001000000000000000000208000400001c730d0800050000000010"
        "0c00090008000100000000081700130030786666666666666666383235303765383000000800140000000001a0000000090a0200"
        "070000003a2a5eaa010000030d0001006761746577617964000000000b0002005f5f7365743000000c0010000000000000000007"
        "0800030000000003080004000000000d080005000000000220000d000004020000000314000407000000010c00040b0000000104"
        "020000000c00090008000100000000021700130030786666666666666666383235303830323000000800140000000002"
    ),
    "elements of c4_32": (
        "640000000c0a0200070000003a2a5eaa010000030d0001006761746577617964000000000a00020063345f333200000034000300"
        "100001000c000100080001000a000002100001000c000100080001000a000003100001000c000100080001000a000001"
    ),
    "end of elements": (
        "340000000c0a0200070000003a2a5eaa010000030d0001006761746577617964000000000a00020063345f333200000004000300"
        "1400000003000200070000003a2a5eaa00000000"
    ),
    "elements of c4_29_p16_port16": (
        "5c0000000c0a0200070000003a2a5eaa010000030d0001006761746577617964000000001500020063345f32395f7031365f706f"
        "7274313600000000200003001c00010018000100140001000a0000080a09000011000000ca6c0000"
    ),
    "chains": (
        "74000000030a0200070000003a2a5eaa010000030d0001006761746577617964000000000c000300666f7277617264000c000200"
        "000000000000000314000400080001000000000208000200fffffff608000500000000010b00070066696c746572000008000a00"
        "00000001080006000000000244000000030a0200070000003a2a5eaa010000030d0001006761746577617964000000000a000300"
        "65787472610000000c00020000000000000000040800060000000000"
    ),
    "rules": (
        "78010000060a0208070000003a2a5eaa010000030d0001006761746577617964000000000c000200666f7277617264000c000300"
        "00000000000000061001040024000100090001006d6574610000000014000200080002000000000f08000100000000012c000100"
        "08000100636d700020000200080001000000000108000200000000000c0003000500010002000000340001000c0001007061796c"
        "6f6164002400020008000100000000010800020000000001080003000000000c0800040000000004300001000b0001006c6f6f6b"
        "75700000200002000a00010063345f333200000008000200000000010800050000000000280001000b0001006f626a7265660000"
        "180002000900020068697473000000000800010000000001300001000e000100696d6d6564696174650000001c00020008000100"
        "00000000100002000c00020008000100000000012a000700002467617465776179642065706f63683d3320706f6c6963793d6161"
        "2072756c65733d6262000000e0000000060a0208070000003a2a5eaa010000030d0001006761746577617964000000000c000200"
        "666f7277617264000c00030000000000000000080c000600000000000000000698000400340001000c0001007061796c6f616400"
        "240002000800010000000001080002000000000208000300000000020800040000000002300001000b0001006c6f6f6b75700000"
        "200002000b0001005f5f73657430000008000200000000010800050000000000300001000e000100696d6d656469617465000000"
        "1c0002000800010000000000100002000c0002000800010000000001"
    ),
    "counters": (
        "68000000120a0208070000003a2a5eaa010000030d00010067617465776179640000000009000200686974730000000008000300"
        "000000010c000600000000000000000508000500000000011c0004000c00010000000000000002bc0c0002000000000000000005"
    ),
    "generation": (
        "300000000f0a0000090000007c420000000000030800010000000003080002000000427c0b000300707974686f6e0000"
    ),
}  # fmt: skip
CAPTURES = {name: bytes.fromhex(raw) for name, raw in KERNEL.items()}


def messages_of(name: str) -> list[tuple[bytes, int, int]]:
    """(buffer, start, end) of the attributes of each message."""
    buffer = CAPTURES[name]
    return [(buffer, start + 4, end) for _, _, _, start, end in nl.iter_messages(buffer)]


# -- encoding, against pyroute2 ----------------------------------------------------------------------------


def reference(message: Any, kind: int, flags: int, sequence: int, attributes: Iterable[tuple[str, Any]]) -> bytes:
    message["header"] = {"type": kind, "flags": flags, "sequence_number": sequence, "pid": 0}
    message["nfgen_family"], message["version"], message["res_id"] = codec.NFPROTO_INET, 0, 0
    message["attrs"] = list(attributes)
    message.encode()
    return without_nest_flags(bytes(message.data))


def without_nest_flags(raw: bytes) -> bytes:
    """pyroute2 does not set NLA_F_NESTED; the kernel wants it only of policies that are strict (ours are not)."""
    ((_, _, _, start, end),) = nl.iter_messages(raw)
    return raw[: start + 4] + _unflagged(raw, start + 4, end)


def _unflagged(raw: bytes, start: int, end: int) -> bytes:
    parts = []
    offset = start
    while offset < end:
        length, kind = struct.unpack_from("=HH", raw, offset)
        stop = offset + nl.align4(length)
        nested = bool(kind & nl.NLA_F_NESTED)
        body = _unflagged(raw, offset + 4, offset + length) if nested else raw[offset + 4 : stop]
        parts.append(struct.pack("=HH", length, kind & nl.NLA_TYPE_MASK) + body)
        offset = stop
    return b"".join(parts)


def ours(*operations: Operation, sequence: int = 40) -> list[bytes]:
    """The messages between batch begin and end."""
    batch = codec.encode_batch(Transaction(operations, "test"), TABLE, sequence)
    found = [batch.payload[start - 16 : end] for _, _, _, start, end in nl.iter_messages(batch.payload)]
    assert len(found) == len(batch.operations) + 2
    return [without_nest_flags(message) for message in found[1:-1]]


def named(table: str, name: str | None = None, prefix: str = "NFTA_SET_ELEM_LIST_") -> list[tuple[str, Any]]:
    return [
        (f"{prefix}TABLE", table),
        *([(f"{prefix}{'SET' if 'LIST' in prefix else 'NAME'}", name)] if name else []),
    ]


def elements(keys: Iterable[bytes]) -> tuple[str, Any]:
    return (
        "NFTA_SET_ELEM_LIST_ELEMENTS",
        [{"attrs": [("NFTA_SET_ELEM_KEY", {"attrs": [("NFTA_DATA_VALUE", key)]})]} for key in keys],
    )


def test_a_new_table_is_encoded_as_pyroute2_does() -> None:
    assert ours(CreateTable()) == [
        reference(nft_table_msg(), codec.NEWTABLE, REQUEST | CREATE | ACK, 40, [("NFTA_TABLE_NAME", TABLE)])
    ]


@pytest.mark.parametrize("mask", [Mask(4, 32), PORTS, Mask(6, 48, 128, "proto"), Mask(6, 64, selector="ipsec")])
def test_a_new_set_is_encoded_as_pyroute2_does(mask: Mask) -> None:
    attributes = [
        *named(TABLE, str(mask), "NFTA_SET_"),
        ("NFTA_SET_FLAGS", set()),
        ("NFTA_SET_KEY_TYPE", codec.key_type(mask)),
        ("NFTA_SET_KEY_LEN", mask.key_length),
        ("NFTA_SET_DESC", {"attrs": [("NFTA_SET_DESC_SIZE", 4096)]}),
        ("NFTA_SET_ID", 1),
    ]
    assert ours(CreateSet(str(mask), mask, 4096)) == [
        reference(nft_set_msg(), codec.NEWSET, REQUEST | CREATE | EXCL | ACK, 40, attributes)
    ]


BOUND = Mask(4, 32, 24, "port16", 9)


def test_a_new_set_of_bindings_is_encoded_as_pyroute2_does() -> None:
    """Its flag, its timeout in milliseconds, and no size."""
    attributes = [
        *named(TABLE, str(BOUND), "NFTA_SET_"),
        ("NFTA_SET_FLAGS", {"NFT_SET_TIMEOUT"}),
        ("NFTA_SET_KEY_TYPE", codec.key_type(BOUND)),
        ("NFTA_SET_KEY_LEN", 20),
        ("NFTA_SET_TIMEOUT", 7_200_000),
        ("NFTA_SET_ID", 1),
    ]
    assert ours(CreateSet(str(BOUND), BOUND, 0, 7200)) == [
        reference(nft_set_msg(), codec.NEWSET, REQUEST | CREATE | EXCL | ACK, 40, attributes)
    ]


@pytest.mark.parametrize(
    ("mask", "types"),
    [
        (Mask(4, 32, source_bits=0), (7,)),
        (Mask(4, 32, source_bits=9), (7, 13)),
        (Mask(6, 64, 48, "ipsec", 9), (8, 8, 13)),
        (Mask(4, 32, selector="proto", source_bits=1), (7, 12, 13)),
        (BOUND, (7, 7, 12, 13, 13)),
    ],
)
def test_the_type_of_a_key_of_bindings_ends_with_the_source_port(mask: Mask, types: tuple[int, ...]) -> None:
    value = 0
    for each in types:
        value = value << 6 | each
    assert codec.key_type(mask) == value


def kinds_of(*operations: Operation) -> list[int]:
    batch = codec.encode_batch(Transaction(operations, "test"), TABLE, 40)
    return [kind for kind, _, _, _, _ in nl.iter_messages(batch.payload)][1:-1]


@pytest.mark.parametrize(
    ("operation", "kinds"),
    [
        (AddElements("b4_32", [bytes(4)]), [codec.NEWSETELEM]),
        (RefreshElements("b4_32", [bytes(4)]), [codec.NEWSETELEM, codec.DELSETELEM, codec.NEWSETELEM]),
        (RefreshElements("c4_32", [bytes(4)]), [codec.NEWSETELEM, codec.DELSETELEM, codec.NEWSETELEM]),
        (RemoveElements("b4_32", [bytes(4)]), [codec.NEWSETELEM, codec.DELSETELEM]),
        (RemoveElements("b4_32_g2", [bytes(4)]), [codec.NEWSETELEM, codec.DELSETELEM]),
        (RemoveElements("c4_32", [bytes(4)]), [codec.DELSETELEM]),
        (RemoveElements("guests", [bytes(4)]), [codec.DELSETELEM]),
        (RefreshElements("b4_32", []), []),
        (RemoveElements("b4_32", []), []),
    ],
)
def test_what_may_have_gone_by_itself_is_added_before_it_is_removed(operation: Operation, kinds: list[int]) -> None:
    assert kinds_of(operation) == kinds


def test_all_keys_are_added_before_the_first_is_removed() -> None:
    """Pass by pass, each in as many messages as it takes; in the kernel all of them are one commit."""
    keys = [number.to_bytes(4, "big") for number in range(5000)]
    new, old = codec.NEWSETELEM, codec.DELSETELEM
    assert kinds_of(RefreshElements("b4_32", keys)) == [new, new, old, old, new, new]


def test_a_set_to_delete_is_encoded_as_pyroute2_does() -> None:
    assert ours(DeleteSet("c4_32")) == [
        reference(nft_set_msg(), codec.DELSET, REQUEST | ACK, 40, named(TABLE, "c4_32", "NFTA_SET_"))
    ]


@pytest.mark.parametrize("size", [4, 8, 12, 16, 20, 24, 32, 40])
@pytest.mark.parametrize(
    ("operation", "kind", "flags"),
    [(AddElements, codec.NEWSETELEM, REQUEST | CREATE), (RemoveElements, codec.DELSETELEM, REQUEST)],
)
def test_an_element_is_encoded_as_pyroute2_does(size: int, operation: Any, kind: int, flags: int) -> None:
    key = bytes(range(size))
    assert ours(operation("c4_32", [key])) == [
        reference(nft_set_elem_list_msg(), kind, flags | ACK, 40, [*named(TABLE, "c4_32"), elements([key])])
    ]


def test_many_elements_are_many_times_one() -> None:
    """pyroute2 numbers the entries of a list; the kernel and nft say NFTA_LIST_ELEM of each."""
    keys = [bytes((number,)) * 8 for number in range(5)]
    (nest,) = codec.encode_elements(keys)
    assert nest[4:] == b"".join(single[4:] for key in keys for single in codec.encode_elements([key]))


def test_a_batch_is_numbered_bracketed_and_asks_for_one_acknowledgement() -> None:
    operations = (CreateTable(), CreateSet("c4_32", Mask(4, 32), 8), AddElements("c4_32", [bytes(4)]))
    batch = codec.encode_batch(Transaction(operations, "test"), TABLE, 40)
    found = [(kind, flags & ACK, sequence) for kind, flags, sequence, _, _ in nl.iter_messages(batch.payload)]
    assert found == [
        (codec.BATCH_BEGIN, 0, 40),
        (codec.NEWTABLE, 0, 40),
        (codec.NEWSET, 0, 41),
        (codec.NEWSETELEM, ACK, 42),
        (codec.BATCH_END, 0, 42),
    ]
    assert (batch.first_sequence, batch.last_sequence, batch.operations) == (40, 42, operations)
    assert batch.payload[:20] == struct.pack("=IHHIIBB", 20, 0x10, 1, 40, 0, 0, 0) + b"\0\x0a"


def test_an_operation_of_many_messages_is_named_by_each() -> None:
    many = AddElements("c4_32", [number.to_bytes(4, "big") for number in range(10_000)])
    batch = codec.encode_batch(Transaction((CreateTable(), many), "test"), TABLE, 1)
    assert batch.operations == (CreateTable(), many, many, many)


@pytest.mark.parametrize(
    "operations", [(), (AddElements("c4_32", []),), (AddElements("a", []), RemoveElements("b", []))]
)
def test_nothing_to_do_is_nothing_to_send(operations: tuple[Operation, ...]) -> None:
    assert codec.encode_batch(Transaction(operations, "test"), TABLE, 1) == codec.Batch(b"", 1, ())


def test_requests_for_one_object_and_for_all() -> None:
    def read(request: bytes) -> tuple[int, int, int, dict[int, bytes]]:
        ((kind, flags, sequence, start, end),) = nl.iter_messages(request)
        return kind, flags, sequence, nl.attributes_of(request, start + 4, end)

    assert read(codec.encode_get_table(TABLE, 5)) == (codec.GETTABLE, REQUEST | ACK, 5, {1: b"gatewayd\0"})
    assert read(codec.encode_get_generation(6)) == (codec.GETGEN, REQUEST | ACK, 6, {})
    assert read(codec.encode_dump(codec.GETSET, TABLE, 7)) == (codec.GETSET, 0x301, 7, {1: b"gatewayd\0"})
    assert read(codec.encode_dump(codec.GETSETELEM, TABLE, 8, "c4_32"))[3] == {1: b"gatewayd\0", 2: b"c4_32\0"}
    assert read(codec.encode_dump(codec.GETOBJ, TABLE, 9))[3] == {1: b"gatewayd\0", 3: b"\0\0\0\1"}
    delete = codec.encode_delete_table(TABLE, 10)
    assert [(kind, flags) for kind, flags, _, _, _ in nl.iter_messages(delete)] == [
        (codec.BATCH_BEGIN, REQUEST), (codec.DELTABLE, REQUEST | ACK), (codec.BATCH_END, REQUEST),
    ]  # fmt: skip


# -- the nest's 64 KiB -------------------------------------------------------------------------------------

LENGTHS = (4, 8, 12, 16, 20, 24, 32, 36, 40)


def check_nests(keys: list[bytes]) -> list[bytes]:
    nests = list(codec.encode_elements(keys))
    for nest in nests:
        length, kind = struct.unpack_from("=HH", nest)
        assert length == len(nest) <= 0xFFFF
        assert kind == 3 | nl.NLA_F_NESTED
    decoded = [key for nest in nests for key in codec.decode_elements(nest, 0, len(nest))]
    assert decoded == keys
    return nests


@pytest.mark.parametrize("size", LENGTHS)
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_a_nest_is_as_full_as_it_can_be_and_no_fuller(size: int, offset: int) -> None:
    most = (codec.MAX_NEST_BYTES - 4) // codec.element_stride(size)
    keys = [number.to_bytes(size, "big") for number in range(most + offset)]
    assert len(check_nests(keys)) == (2 if offset == 1 else 1)
    assert 4 + (most + 1) * codec.element_stride(size) > codec.MAX_NEST_BYTES
    if size == 4:
        assert most == 4095


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(LENGTHS), st.integers(0, 9000))
def test_no_number_of_elements_overfills_a_nest(size: int, count: int) -> None:
    check_nests([number.to_bytes(size, "big") for number in range(count)])


# -- decoding, against the kernel --------------------------------------------------------------------------


def test_sets_as_the_kernel_lists_them() -> None:
    assert [codec.decode_set(*message) for message in messages_of("sets")] == [
        ObservedSet("c4_32", 4, 1024, True, 3),
        ObservedSet("c4_29_p16_port16", 16, 8, True, 1),
        None,
    ]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("elements of c4_32", [bytes((10, 0, 0, last)) for last in (2, 3, 1)]),
        ("elements of c4_29_p16_port16", [bytes.fromhex("0a0000080a09000011000000ca6c0000")]),
    ],
)
def test_elements_as_the_kernel_lists_them(name: str, keys: list[bytes]) -> None:
    ((buffer, start, end),) = messages_of(name)
    assert codec.decode_elements(buffer, start, end) == keys


def test_the_last_message_of_a_dump_is_empty() -> None:
    buffer, start, end = messages_of("end of elements")[0]
    assert codec.decode_elements(buffer, start, end) == []


def test_chains_rules_and_counters_as_the_kernel_lists_them() -> None:
    chains, rules = messages_of("chains"), messages_of("rules")
    assert [codec.decode_chain_name(*message) for message in chains] == ["forward", "extra"]
    assert [codec.decode_table_name(*message) for message in [*chains, *rules]] == [TABLE] * 4
    assert [codec.decode_rule_comment(*message) for message in rules] == [
        "gatewayd epoch=3 policy=aa rules=bb",
        None,
    ]
    assert [codec.decode_counter(*message) for message in messages_of("counters")] == [
        ("hits", CounterReading(5, 700))
    ]
    assert [codec.decode_generation(*message) for message in messages_of("generation")] == [3]


def packed(*attributes: bytes) -> tuple[bytes, int, int]:
    buffer = b"".join(attributes)
    return buffer, 0, len(buffer)


def set_message(name: str = "c4_32", flags: int = 0, kind: int = 7, length: int = 4, more: bytes = b"") -> Any:
    body = [nl.text(2, name), nl.be32(4, kind), nl.be32(5, length), more]
    return packed(*([nl.be32(3, flags)] if flags else []), *body)


@pytest.mark.parametrize(
    ("message", "regular"),
    [
        (set_message(), True),
        (set_message(flags=0x10), False),
        (set_message(flags=0x4), False),
        (set_message(kind=8), False),
        (set_message(length=16), False),
        (set_message(name="c4_33"), False),
        (set_message(name="guests"), False),
        (set_message(name="c6_32", kind=8, length=16), True),
        (set_message(name="b4_32", flags=0x10), True),
        (set_message(name="b4_32"), False),
        (set_message(name="b4_32", flags=0x14), False),
        (set_message(name="b4_32_s9", flags=0x10, kind=7 << 6 | 13, length=8), True),
        (set_message(name="b4_32_s9", flags=0x10, kind=7 << 6 | 12, length=8), False),
    ],
)
def test_a_set_that_is_not_as_we_would_make_it_is_not_regular(message: Any, regular: bool) -> None:
    found = codec.decode_set(*message)
    assert found is not None
    assert (found.regular, found.count, found.capacity) == (regular, None, 0)


@pytest.mark.parametrize(
    ("milliseconds", "timeout_s"), [(0, 0), (1000, 1), (7_200_000, 7200), (90_061_000, 90_061)]
)
def test_a_timeout_is_told_in_seconds(milliseconds: int, timeout_s: int) -> None:
    found = codec.decode_set(*set_message("b4_32", 0x10, more=nl.be64(11, milliseconds)))
    assert found is not None
    assert found.timeout_s == timeout_s


def test_what_has_no_name_is_no_set() -> None:
    assert codec.decode_set(*packed(nl.be32(5, 4))) is None
    assert codec.decode_set(*set_message(flags=1)) is None


@pytest.mark.parametrize("count", [0, 1, 1_000_000])
def test_a_count_is_told_where_the_kernel_tells_it(count: int) -> None:
    found = codec.decode_set(*set_message(more=nl.be32(20, count)))
    assert found is not None
    assert found.count == count


@pytest.mark.parametrize(
    ("userdata", "comment"),
    [
        (b"", None),
        (b"\x00\x03hi\0", "hi"),
        (b"\x05\x02xx\x00\x03hi\0", "hi"),
        (b"\x05\xff", None),
        (b"\x00\xffhi", "hi"),
        (b"\x05", None),
    ],
)
def test_a_comment_is_found_among_other_userdata(userdata: bytes, comment: str | None) -> None:
    assert codec.decode_rule_comment(*packed(nl.attribute(7, userdata))) == comment


def test_counters_and_generations_that_say_nothing_are_zero() -> None:
    assert codec.decode_counter(b"", 0, 0) == ("", CounterReading(0, 0))
    assert codec.decode_generation(b"", 0, 0) == 0
    assert codec.decode_chain_name(b"", 0, 0) == ""
    assert codec.decode_rule_chain(b"", 0, 0) == ""


def test_a_rule_is_a_line_of_its_chain() -> None:
    """As the kernel lists them; what is declared beside them is none."""
    text = """table inet gatewayd {
\tcounter hits {
\t}
\tset limiter4 {
\t\ttypeof ct original ip saddr
\t\tsize 65536
\t}

\tchain forward {
\t\ttype filter hook forward priority -10; policy accept;
\t\tip saddr @c4_32 counter name hits accept
\t\tth dport { 500, 4500 } accept
\t}

\tchain extra {
\t}

\tchain last {
\t\taccept
\t}
}
flush set inet gatewayd limiter4
"""
    assert codec.count_rules(text) == {"forward": 2, "last": 1}
    assert [codec.decode_rule_chain(*message) for message in messages_of("rules")] == ["forward", "forward"]


# -- the fingerprint ---------------------------------------------------------------------------------------


def chain(name: str, policy: int = 1, handle: int = 1) -> tuple[bytes, int, int]:
    return packed(nl.text(1, TABLE), nl.be64(2, handle), nl.text(3, name), nl.be32(5, policy), nl.be32(6, handle))


def rule(chain: str, expressions: bytes, userdata: bytes = b"", handle: int = 1) -> tuple[bytes, int, int]:
    return packed(nl.text(2, chain), nl.be64(3, handle), nl.attribute(4, expressions), nl.attribute(7, userdata))


CHAINS, RULES = [chain("a"), chain("b")], [rule("a", b"1"), rule("b", b"2"), rule("a", b"3")]


def test_no_chain_is_no_fingerprint() -> None:
    assert codec.fingerprint_rules([], []) == ""


@pytest.mark.parametrize(
    ("chains", "rules"),
    [
        (CHAINS[::-1], RULES),
        (CHAINS, [RULES[1], RULES[0], RULES[2]]),
        ([chain("a", handle=9), chain("b", handle=8)], [rule("a", b"1", handle=7), *RULES[1:]]),
    ],
)
def test_handles_and_the_order_of_chains_do_not_matter(chains: Any, rules: Any) -> None:
    assert codec.fingerprint_rules(chains, rules) == codec.fingerprint_rules(CHAINS, RULES)


@pytest.mark.parametrize(
    ("chains", "rules"),
    [
        ([*CHAINS, chain("c")], RULES),
        ([chain("a"), chain("b", policy=0)], RULES),
        (CHAINS[:1], RULES),
        (CHAINS, RULES[:2]),
        (CHAINS, [RULES[2], RULES[1], RULES[0]]),
        (CHAINS, [rule("a", b"1", b"comment"), *RULES[1:]]),
        (CHAINS, [rule("b", b"1"), *RULES[1:]]),
        (CHAINS, []),
    ],
)
def test_any_other_difference_matters(chains: Any, rules: Any) -> None:
    assert codec.fingerprint_rules(chains, rules) != codec.fingerprint_rules(CHAINS, RULES)


# -- fast and generic, and rubbish -------------------------------------------------------------------------


def generic(body: bytes) -> list[bytes]:
    """The decoding by attribute, whatever the layout."""
    return [codec._decode_element(body, low, high) for _, low, high in nl.iter_attributes(body, 0, len(body))]


def outcome(read: Callable[[], object]) -> object:
    try:
        return read()
    except EventMalformed:
        return EventMalformed


@st.composite
def element_lists(draw: st.DrawFn) -> bytes:
    """Lists of alike elements, with now and then an odd one, an attribute more, or a flipped byte."""
    size = draw(st.sampled_from((1, 4, 8, 16, 40)))
    parts = []
    for _ in range(draw(st.integers(0, 6))):
        key = nl.nest(1, nl.attribute(1, draw(st.binary(min_size=size, max_size=size))))
        extra = draw(st.sampled_from((b"", b"", b"", nl.be64(4, 60), nl.be32(3, 0))))
        before = draw(st.sampled_from((b"", b"", b"", nl.be32(3, 0))))
        flagged = draw(st.booleans())
        parts.append((nl.nest if flagged else nl.attribute)(1, before + key + extra))
    body = bytearray(b"".join(parts))
    if body and draw(st.booleans()):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


@settings(max_examples=400)
@given(element_lists())
def test_the_fast_path_and_the_generic_one_agree(body: bytes) -> None:
    assert outcome(lambda: codec._decode_list(body)) == outcome(lambda: generic(body))


def test_an_element_without_a_key_is_malformed() -> None:
    for body in (
        nl.nest(1),
        nl.nest(1, nl.nest(1)),
        nl.nest(1, nl.nest(1, nl.be32(2, 1))),
        nl.nest(1, nl.be32(3, 0)),
    ):
        with pytest.raises(EventMalformed, match="no key"):
            codec.decode_elements(nl.nest(3, body), 0, len(body) + 4)


DECODERS: list[Callable[[bytes, int, int], object]] = [
    codec.decode_elements,
    codec.decode_set,
    codec.decode_chain_name,
    codec.decode_table_name,
    codec.decode_rule_chain,
    codec.decode_rule_comment,
    codec.decode_counter,
    codec.decode_generation,
    lambda buffer, start, end: codec.fingerprint_rules([(buffer, start, end)], [(buffer, start, end)]),
]


@settings(max_examples=300)
@given(st.sampled_from(DECODERS), st.binary(max_size=120))
def test_rubbish_raises_nothing_but_event_malformed(decode: Any, rubbish: bytes) -> None:
    outcome(lambda: decode(rubbish, 0, len(rubbish)))


@settings(max_examples=300)
@given(st.data(), st.sampled_from(sorted(CAPTURES)))
def test_what_the_kernel_sent_with_a_few_bytes_changed_raises_nothing_else(data: st.DataObject, name: str) -> None:
    buffer, start, end = messages_of(name)[0]
    spoilt = bytearray(buffer)
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(start, end - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(start, end))
    for decode in DECODERS:
        outcome(lambda decode=decode: decode(bytes(spoilt), start, cut))  # type: ignore[misc]


def test_the_element_that_an_error_points_at_has_its_key() -> None:
    keys = [bytes((10, 0, 0, number)) for number in range(3)]
    adding = AddElements("c4_32", keys)
    payload = codec.encode_batch(
        Transaction((CreateSet("c4_32", Mask(4, 32), 4), adding), "test"), "gatewayd", 7
    ).payload
    (message,) = [found for found in nl.iter_messages(payload) if found[0] == codec.NEWSETELEM]
    number, start = message[2], message[3]
    places = {key: payload.index(key, start) - 12 - (start - nl.MESSAGE_HEADER.size) for key in keys}
    assert {key: codec.element_at(payload, number, place) for key, place in places.items()} == {
        key: key for key in keys
    }
    assert codec.element_at(payload, number, 4) is None
    assert codec.element_at(payload, number + 1, places[keys[0]]) is None
