"""Rules of others that use our bits, from bytes that a kernel sent."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import EventMalformed
from gatewayd.kernel import external_codec as codec
from gatewayd.kernel import tables_codec
from gatewayd.kernel.attributes import attribute, be32, be64, message, nest, text
from gatewayd.model.transaction import Neighbour
from tests.support.rule_captures import RULES

MASK = 0xFF000000
CAPTURES = {name: bytes.fromhex(raw) for name, raw in RULES.items()}

WRITES = {
    "ct mark set 0x1",
    "ct mark set ct mark and 0x00ffffff",
    "ct mark set ct mark xor 0x80000000",
    "ct mark set meta mark",
    "ct mark set meta mark and 0x00ffffff",
    "ct mark set ip saddr map @m",
    "ct mark set jhash ip saddr mod 16",
    "-j CONNMARK --set-mark 0x1",
    "-j CONNMARK --save-mark",
    "-j CONNMARK --or-mark 0x80000000",
}
LEAKS = {
    "meta mark set ct mark",
    "meta mark set ct mark and 0xff000000",
    "meta mark set ct mark >> 24",
    "-j CONNMARK --restore-mark",
    "-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff000000",
}
OUR_OWN = "ct mark set 0x01000000"


@pytest.mark.parametrize("name", [name for name in CAPTURES if name != OUR_OWN])
def test_what_a_rule_does_to_our_bits(name: str) -> None:
    deeds = [each.deed for each in codec.neighbours_in(CAPTURES[name], MASK, "gatewayd")]
    assert deeds == ["writes"] * (name in WRITES) + ["leaks"] * (name in LEAKS)


@pytest.mark.parametrize("name", CAPTURES)
def test_bits_that_are_not_ours_are_nobodys_business(name: str) -> None:
    """A mask that only rules which set the whole mark touch."""
    harmless = ("0x00ffffff", "0x80000000", "and 0xff000000", ">> 24", "--ctmask", "--mask", "/0xff")
    deeds = {each.deed for each in codec.neighbours_in(CAPTURES[name], 0x00F00000, "gatewayd")}
    if "meta" not in name and any(word in name for word in harmless):
        assert not deeds


def test_our_own_table_is_left_out_and_one_of_its_name_in_another_family_is_not() -> None:
    raw = CAPTURES[OUR_OWN]
    assert list(codec.neighbours_in(raw, MASK, "gatewayd")) == []
    assert list(codec.neighbours_in(raw, MASK, "other")) == [Neighbour("writes", "inet", "gatewayd", "forward", 2)]
    in_ip = raw[:16] + b"\x02" + raw[17:]
    (found,) = codec.neighbours_in(in_ip, MASK, "gatewayd")
    assert str(found) == "ip gatewayd forward handle 2"


def test_a_family_that_is_not_known_is_a_number() -> None:
    raw = CAPTURES["ct mark set 0x1"]
    (found,) = codec.neighbours_in(raw[:16] + b"\x63" + raw[17:], MASK, "gatewayd")
    assert found.family == "99"


# -- rules that nft 1.0.6 does not write ---------------------------------------------------------------------------


def expression(name: str, *fields: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *fields))


def value(number: int) -> bytes:
    return attribute(1, struct.pack("=I", number))


def load_ct(register: int = 1) -> bytes:
    return expression("ct", be32(1, register), be32(2, 3))


def store_ct(register: int = 1) -> bytes:
    return expression("ct", be32(2, 3), be32(4, register))


def store_packet(register: int = 1) -> bytes:
    return expression("meta", be32(2, 3), be32(3, register))


def immediate(register: int, number: int) -> bytes:
    return expression("immediate", be32(1, register), nest(2, value(number)))


def mask_xor(mask: int, xor: int, register: int = 1) -> bytes:
    return expression(
        "bitwise",
        be32(1, register),
        be32(2, register),
        be32(3, 4),
        nest(4, value(mask)),
        nest(5, value(xor)),
        be32(6, 0),
    )


def two(operation: int, first: int, second: int, into: int = 1) -> bytes:
    """Of two registers, as of Linux 6.13."""
    return expression("bitwise", be32(1, first), be32(8, second), be32(2, into), be32(3, 4), be32(6, operation))


def target(mode: int, ct_mark: int = 0, ct_mask: int = 0, packet_mask: int = 0) -> bytes:
    info = struct.pack("=IIIBBBx", ct_mark, ct_mask, packet_mask, 0, 8, mode)
    return expression("target", text(1, "CONNMARK"), be32(2, 2), attribute(3, info))


AND, OR, XOR = 3, 4, 5
KEPT = (load_ct(1), mask_xor(0xFF000000, 0, 1))
LOW = (expression("meta", be32(1, 2), be32(2, 3)), mask_xor(0x00FFFFFF, 0, 2))
# ruff: noqa: E501
CASES: dict[str, tuple[tuple[bytes, ...], tuple[str, ...]]] = {
    "nothing": ((), ()),
    "a register that nobody filled": ((store_ct(),), ("writes",)),
    "the same mark": ((load_ct(), store_ct()), ()),
    "by the names of the narrow registers": ((load_ct(8), store_ct(1)), ()),
    "another register": ((load_ct(2), store_ct(1)), ("writes",)),
    "ours or-ed with the packet's low bits": ((*KEPT, *LOW, two(OR, 1, 2), store_ct()), ()),
    "ours xor-ed with the packet's low bits": ((*KEPT, *LOW, two(XOR, 1, 2), store_ct()), ()),
    "ours or-ed with any bits": ((*KEPT, expression("meta", be32(1, 2), be32(2, 3)), two(OR, 1, 2), store_ct()), ("writes",)),
    "and-ed away": ((load_ct(1), immediate(2, 0x00FFFFFF), two(AND, 1, 2), store_packet()), ()),
    "and-ed out": ((load_ct(1), immediate(2, 0xFF000000), two(AND, 1, 2), store_packet()), ("leaks",)),
    "an operation of a later kernel": ((load_ct(1), two(77, 1, 1), store_packet()), ()),
    "an expression of a later kernel": ((load_ct(), expression("future"), store_ct()), ("writes",)),
    "one that writes no register": ((load_ct(), expression("counter"), store_ct()), ()),
    "one that writes over it": ((load_ct(), expression("payload", be32(1, 1)), store_ct()), ("writes",)),
    "one that writes over it from below": ((load_ct(9), expression("payload", be32(1, 8)), store_ct(9)), ("writes",)),
    "another order of bytes": ((load_ct(), expression("byteorder", be32(1, 1), be32(2, 1)), store_packet()), ("leaks",)),
    "a constant in another order": ((immediate(1, 7), expression("byteorder", be32(1, 1), be32(2, 1)), store_packet()), ()),
    "a verdict": ((expression("immediate", be32(1, 0), nest(2, nest(2, be32(1, 1)))),), ()),
    "a mask of 16 bytes": ((load_ct(), expression("bitwise", be32(1, 1), be32(2, 1), nest(4, attribute(1, bytes(16)))), store_packet()), ("leaks",)),
    "a shift of nothing": ((load_ct(), expression("bitwise", be32(1, 1), be32(2, 1), be32(6, 1), nest(7, value(0))), store_ct()), ()),
    "a shift without a width": ((load_ct(), expression("bitwise", be32(1, 1), be32(2, 1), be32(6, 1)), store_packet()), ()),
    "another key of ct": ((immediate(1, 7), expression("ct", be32(2, 10), be32(4, 1))), ()),
    "another key of meta": ((load_ct(), expression("meta", be32(2, 2), be32(3, 1))), ()),
    "a target of others": ((expression("target", text(1, "MARK"), be32(2, 2), attribute(3, bytes(16))),), ()),
    "a target of an earlier revision": ((expression("target", text(1, "CONNMARK"), be32(2, 1), attribute(3, struct.pack("=IIIBBBx", 1 << 31, 1 << 31, 0, 0, 0, 0))),), ("writes",)),
    "a target that is cut": ((expression("target", text(1, "CONNMARK"), be32(2, 2), attribute(3, bytes(4))),), ()),
    "a shifted set": ((target(0, 1, 1),), ("writes",)),
    "a shifted save": ((target(1, 0, 0, 0x00FF0000),), ("writes",)),
    "a shifted save below": ((target(1, 0, 0, 0x0000FFFF),), ()),
    "a shifted restore": ((target(2, 0, 0x00FFFFFF, 0),), ()),
    "both": ((load_ct(), store_packet(), immediate(1, 1), store_ct()), ("leaks", "writes")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_expressions_one_after_another(name: str) -> None:
    expressions, deeds = CASES[name]
    assert codec.judge_expressions(b"".join(expressions), MASK) == deeds


@pytest.mark.parametrize("cut", range(1, 80, 3))
def test_a_rule_that_does_not_parse_is_no_neighbour(cut: int) -> None:
    raw = load_ct() + store_packet()
    assert codec.judge_expressions(raw[:-cut], MASK) == ()


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(CAPTURES)),
    changes=st.lists(st.tuples(st.integers(20, 300), st.integers(0, 255)), max_size=8),
)
def test_no_rule_raises_anything_but_that_its_message_is_malformed(
    name: str, changes: list[tuple[int, int]]
) -> None:
    raw = bytearray(CAPTURES[name])
    for place, byte in changes:
        if place < len(raw):
            raw[place] = byte
    with suppress(EventMalformed):
        list(codec.neighbours_in(bytes(raw), MASK, "gatewayd"))


def test_other_messages_are_stepped_over() -> None:
    rule = be64(3, 7) + nest(4, load_ct(), store_packet())
    raw = message(tables_codec.NEWRULE + 1, 0, 1, 1, 0, rule) + message(tables_codec.NEWRULE, 0, 1, 1, 0, rule)
    assert list(codec.neighbours_in(raw, MASK, "gatewayd")) == [Neighbour("leaks", "inet", "", "", 7)]


def test_the_request_names_no_table_and_no_family() -> None:
    assert codec.encode_rules_dump(5)[4:] == message(tables_codec.GETRULE, 0x301, 5, 0, 0)[4:]
