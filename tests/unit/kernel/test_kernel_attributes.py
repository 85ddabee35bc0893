"""Messages and attributes: held to pyroute2's encoder, and to nothing but EventMalformed for rubbish."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import nlmsg

from gatewayd.errors import EventMalformed
from gatewayd.kernel import attributes as nl


class Reference(nlmsg):  # type: ignore[misc]
    """One attribute of each kind that we write."""

    pack = "struct"
    fields = (("family", "B"), ("version", "B"), ("res_id", "!H"))
    nla_map = (
        ("A_UNSPEC", "none"), ("A_BYTES", "cdata"), ("A_BE16", "be16"), ("A_BE32", "be32"), ("A_BE64", "be64"),
        ("A_TEXT", "asciiz"),
    )  # fmt: skip


def test_a_message_is_what_pyroute2_makes_of_it() -> None:
    reference = Reference()
    reference["family"], reference["version"], reference["res_id"] = 1, 0, 10
    reference["attrs"] = [
        ("A_BYTES", b"\x01\x02\x03\x04\x05"), ("A_BE16", 0x1234), ("A_BE32", 0x12345678),
        ("A_BE64", 0x123456789ABCDEF0), ("A_TEXT", "gatewayd"),
    ]  # fmt: skip
    reference["header"] = {"type": 0xA0C, "flags": 0x401, "sequence_number": 77, "pid": 0}
    reference.encode()
    ours = nl.message(
        0xA0C, 0x401, 77, 1, 10,
        nl.attribute(1, b"\x01\x02\x03\x04\x05"), nl.be16(2, 0x1234), nl.be32(3, 0x12345678),
        nl.be64(4, 0x123456789ABCDEF0), nl.text(5, "gatewayd"),
    )  # fmt: skip
    assert ours == bytes(reference.data)


@pytest.mark.parametrize(("size", "aligned"), [(0, 0), (1, 4), (3, 4), (4, 4), (5, 8)])
def test_sizes_are_aligned_to_four(size: int, aligned: int) -> None:
    assert nl.align4(size) == aligned
    assert len(nl.attribute(1, bytes(size))) == 4 + aligned


def test_padding_is_not_counted_in_the_length() -> None:
    assert nl.attribute(9, b"ab") == struct.pack("=HH", 6, 9) + b"ab\0\0"


def test_a_nest_says_so_and_holds_its_attributes() -> None:
    packed = nl.nest(3, nl.be16(1, 7), nl.be32(2, 8))
    assert struct.unpack_from("=HH", packed) == (20, 0x8003)
    ((kind, low, high),) = nl.iter_attributes(packed, 0, len(packed))
    assert kind == 3
    assert {number: nl.uint_of(payload) for number, payload in nl.attributes_of(packed, low, high).items()} == {
        1: 7, 2: 8,
    }  # fmt: skip


@given(st.lists(st.tuples(st.integers(1, 200), st.binary(max_size=40)), max_size=10))
def test_attributes_come_back_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    buffer = b"".join(nl.attribute(kind, payload) for kind, payload in pairs)
    found = [(kind, buffer[low:high]) for kind, low, high in nl.iter_attributes(buffer, 0, len(buffer))]
    assert found == pairs
    assert nl.attributes_of(buffer, 0, len(buffer)) == dict(pairs)


@given(st.lists(st.binary(max_size=40), max_size=6), st.binary(max_size=15))
def test_messages_come_back_as_they_were_written(bodies: list[bytes], rest: bytes) -> None:
    messages = [nl.message(5, 2, number, 1, 0, nl.attribute(1, body)) for number, body in enumerate(bodies)]
    buffer = b"".join(messages) + rest[: 0 if not bodies else 15]
    found = list(nl.iter_messages(buffer))[: len(bodies)]
    assert [sequence for _, _, sequence, _, _ in found] == list(range(len(bodies)))
    assert [buffer[start - 16 : end] for _, _, _, start, end in found] == messages


@pytest.mark.parametrize("length", [0, 15, 21, 0xFFFFFFFF])
def test_a_message_of_an_impossible_length_is_malformed(length: int) -> None:
    with pytest.raises(EventMalformed, match="netlink message"):
        list(nl.iter_messages(struct.pack("=IHHII", length, 1, 0, 0, 0) + bytes(4)))


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_an_attribute_of_an_impossible_length_is_malformed(length: int) -> None:
    with pytest.raises(EventMalformed, match="netlink attribute"):
        list(nl.iter_attributes(struct.pack("=HH", length, 1) + bytes(4), 0, 8))


def test_an_attribute_that_reaches_past_its_nest_is_malformed() -> None:
    buffer = nl.be32(1, 1) + nl.be32(2, 2)
    with pytest.raises(EventMalformed):
        list(nl.iter_attributes(buffer, 0, 12))


@given(st.binary(max_size=80))
def test_rubbish_raises_nothing_but_event_malformed(rubbish: bytes) -> None:
    for read in (lambda: list(nl.iter_messages(rubbish)), lambda: nl.attributes_of(rubbish, 0, len(rubbish))):
        with suppress(EventMalformed):
            read()


@pytest.mark.parametrize(
    ("payload", "text"), [(b"", ""), (b"\0", ""), (b"c4_32\0", "c4_32"), (b"c4_32", "c4_32"), (b"\xff\0", "�")]
)
def test_a_string_ends_at_its_nul(payload: bytes, text: str) -> None:
    assert nl.string_of(payload) == text


def test_a_number_may_be_of_any_width() -> None:
    assert [nl.uint_of(bytes([0] * width + [5])) for width in (0, 1, 3, 7)] == [5] * 4
    assert nl.uint_of(b"") == 0


@pytest.mark.parametrize("length", [0, 15, 21])
def test_a_message_of_impossible_length_ends_the_buffer(length: int) -> None:
    whole = nl.message(7, 0, 1, 0, 0)
    assert [kind for kind, *_ in nl.iter_messages(whole)] == [7]
    with pytest.raises(EventMalformed, match=f"length {length} at offset 20"):
        list(nl.iter_messages(whole + length.to_bytes(4, "little") + whole[4:]))


def test_the_errno_of_an_error_is_what_the_kernel_wrote_negated() -> None:
    raw = struct.pack("=IHHIIi", 20, nl.NLMSG_ERROR, 0, 1, 0, -16)
    ((_, _, _, start, end),) = nl.iter_messages(raw)
    assert nl.errno_in(raw, start, end) == 16


@pytest.mark.parametrize("size", [0, 3])
def test_an_error_that_is_too_short_for_its_code_is_malformed(size: int) -> None:
    raw = struct.pack("=IHHII", 16 + size, nl.NLMSG_ERROR, 0, 1, 0) + b"\0" * size
    ((_, _, _, start, end),) = nl.iter_messages(raw)
    with pytest.raises(EventMalformed, match=f"{size} bytes"):
        nl.errno_in(raw, start, end)
