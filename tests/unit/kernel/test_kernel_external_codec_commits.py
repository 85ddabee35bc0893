"""Notifications as Linux 6.18 sent them, for what nft did to a table `inet gatewayd`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import EventMalformed
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import external_codec
from gatewayd.kernel import tables_codec as codec
from gatewayd.kernel.external_codec import NotificationDecoder
from gatewayd.model.transaction import ElementChange, ExternalCommit

SET_MADE = [
    "40000000000a000001000000051c0000010000020d00010067617465776179640000000008000300000000010c0004000000000000"
    "00000108000200000000007c000000090a000402000000051c0000010000020d0001006761746577617964000000000a0002006334"
    "5f33320000000c0010000000000000000001080004000000000708000500000000040a000d00000402000000000004000900170013"
    "0030786666666666666666383235303766343000000800140000000000",
    "2c0000000f0a000001000000051c00000000000208000100000000020800020000001c05080003006e667400",
]
"""add table inet gatewayd; add set inet gatewayd c4_32 { type ipv4_addr; }"""
ELEMENTS_ADDED = [
    "440000000c0a000400000000061c0000010000030d0001006761746577617964000000000a00020063345f33320000001400030010"
    "0001000c000100080001000a000001440000000c0a000400000000061c0000010000030d0001006761746577617964000000000a00"
    "020063345f333200000014000300100001000c000100080001000a000002",
    "2c0000000f0a000001000000061c00000000000308000100000000030800020000001c06080003006e667400",
]
"""add element inet gatewayd c4_32 { 10.0.0.1, 10.0.0.2 }"""
SWAPPED = [
    "440000000e0a000000000000071c0000010000040d0001006761746577617964000000000a00020063345f33320000001400030010"
    "0001000c000100080001000a000001440000000c0a000400000000071c0000010000040d0001006761746577617964000000000a00"
    "020063345f333200000014000300100001000c000100080001000a000009",
    "2c0000000f0a000001000000071c00000000000408000100000000040800020000001c07080003006e667400",
]
"""delete element inet gatewayd c4_32 { 10.0.0.1 }; add element inet gatewayd c4_32 { 10.0.0.9 }"""
COUNTER_MADE = [
    "64000000120a0004010000000a1c0000010000070d000100676174657761796400000000060002006e00000008000300000000010c"
    "000600000000000000000408000500000000001c0004000c00010000000000000000000c0002000000000000000000",
    "2c0000000f0a0000010000000a1c00000000000708000100000000070800020000001c0a080003006e667400",
]
"""add counter inet gatewayd n"""
OTHER_TABLE = [
    "3c000000000a0000010000000b1c0000020000080a0001006f7468657200000008000300000000000c000400000000000000000208"
    "00020000000000",
    "2c0000000f0a0000010000000b1c00000000000808000100000000080800020000001c0b080003006e667400",
]
"""add table ip other"""
ALL = [SET_MADE, ELEMENTS_ADDED, SWAPPED, COUNTER_MADE, OTHER_TABLE]

ONE, TWO, NINE = (bytes((10, 0, 0, number)) for number in (1, 2, 9))


def feed(decoder: NotificationDecoder, *datagrams: str | bytes) -> list[ExternalCommit]:
    raw = [bytes.fromhex(each) if isinstance(each, str) else each for each in datagrams]
    return [commit for each in raw for commit in decoder.feed(each)]


@pytest.mark.parametrize(
    ("datagrams", "commit"),
    [
        (SET_MADE, ExternalCommit(2, 7173, "nft", (), True)),
        (
            ELEMENTS_ADDED,
            ExternalCommit(3, 7174, "nft", (ElementChange("c4_32", ONE, True), ElementChange("c4_32", TWO, True))),
        ),
        (
            SWAPPED,
            ExternalCommit(
                4, 7175, "nft", (ElementChange("c4_32", ONE, False), ElementChange("c4_32", NINE, True))
            ),
        ),
        (COUNTER_MADE, ExternalCommit(7, 7178, "nft")),
        (OTHER_TABLE, ExternalCommit(8, 7179, "nft")),
    ],
    ids=["a set", "elements", "a swap", "a counter", "another table"],
)
def test_what_nft_did(datagrams: list[str], commit: ExternalCommit) -> None:
    decoder = NotificationDecoder("gatewayd")
    assert feed(decoder, *datagrams) == [commit]
    assert feed(decoder, *datagrams) == [commit]


def test_the_messages_may_come_in_one_datagram_or_in_many() -> None:
    whole = b"".join(bytes.fromhex(each) for each in [*SWAPPED, *ELEMENTS_ADDED])
    apart = [
        whole[start - nl.MESSAGE_HEADER.size : nl.align4(end)] for _, _, _, start, end in nl.iter_messages(whole)
    ]
    expected = feed(NotificationDecoder("gatewayd"), *SWAPPED, *ELEMENTS_ADDED)
    assert feed(NotificationDecoder("gatewayd"), whole) == expected
    assert feed(NotificationDecoder("gatewayd"), *apart) == expected


def test_what_our_own_ports_did_is_nothing() -> None:
    decoder = NotificationDecoder("gatewayd", 7175)
    decoder.add_own_port(7173)
    assert feed(decoder, *SET_MADE, *SWAPPED) == []
    assert [commit.generation for commit in feed(decoder, *ELEMENTS_ADDED)] == [3]


@pytest.mark.parametrize("table", ["other", "gateway", "gatewayd2"])
def test_a_change_in_another_table_is_a_commit_and_nothing_more(table: str) -> None:
    for datagrams in (SET_MADE, ELEMENTS_ADDED, SWAPPED):
        (commit,) = feed(NotificationDecoder(table), *datagrams)
        assert (commit.elements, commit.others, commit.program) == ((), False, "nft")


def element(kind: int, key: bytes, *, table: str = "gatewayd", family: int = 1) -> bytes:
    attributes = [nl.text(1, table), nl.text(2, "c4_32"), *codec.encode_elements([key])]
    return nl.message(kind, 0, 1, family, 0, *attributes)


def end(generation: int = 5) -> bytes:
    return nl.message(codec.NEWGEN, 0, 1, 0, 0, nl.be32(1, generation))


def test_a_table_of_our_name_in_another_family_is_not_ours() -> None:
    decoder = NotificationDecoder("gatewayd")
    assert feed(decoder, element(codec.NEWSETELEM, ONE, family=2), end()) == [ExternalCommit(5)]


def test_one_transaction_may_be_about_several_tables() -> None:
    both = element(codec.NEWSETELEM, ONE, table="other") + element(codec.NEWSETELEM, TWO)
    (commit,) = feed(NotificationDecoder("gatewayd"), both, end())
    assert commit.elements == (ElementChange("c4_32", TWO, True),)


def test_the_last_word_on_an_element_counts() -> None:
    there_and_back = element(codec.DELSETELEM, ONE) + element(codec.NEWSETELEM, ONE)
    (commit,) = feed(NotificationDecoder("gatewayd"), there_and_back, end())
    assert commit.elements == (ElementChange("c4_32", ONE, True),)


def test_of_very_many_elements_only_some_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_codec, "MAX_CHANGES", 2)
    decoder = NotificationDecoder("gatewayd")
    many = [element(codec.NEWSETELEM, bytes((10, 0, 0, number))) for number in range(5)]
    for datagrams in (many, [b"".join(many)]):
        (commit,) = feed(decoder, *datagrams, end())
        assert (len(commit.elements), commit.others, commit.unlisted) == (2, True, True)
    (commit,) = feed(decoder, *many[:2], end())
    assert (len(commit.elements), commit.others, commit.unlisted) == (2, False, False)


def test_what_was_under_way_can_be_forgotten() -> None:
    decoder = NotificationDecoder("gatewayd")
    assert feed(decoder, SWAPPED[0]) == []
    decoder.reset()
    assert feed(decoder, SWAPPED[1]) == [ExternalCommit(4, 7175, "nft")]


def test_a_generation_that_says_nothing() -> None:
    assert feed(NotificationDecoder("gatewayd"), nl.message(codec.NEWGEN, 0, 0, 0, 0)) == [ExternalCommit(0)]


@given(st.binary(max_size=200))
def test_rubbish_raises_nothing_but_event_malformed(rubbish: bytes) -> None:
    with suppress(EventMalformed):
        feed(NotificationDecoder("gatewayd"), rubbish, nl.text(1, "gatewayd") + rubbish)


@given(st.data())
def test_what_the_kernel_sent_with_a_few_bytes_changed_raises_nothing_else(data: Any) -> None:
    for datagram in data.draw(st.sampled_from(ALL)):
        raw = bytearray.fromhex(datagram)
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        with suppress(EventMalformed):
            feed(NotificationDecoder("gatewayd"), bytes(raw))


def test_the_name_of_a_program_is_fit_for_a_log() -> None:
    """Whoever has CAP_NET_ADMIN calls itself what it likes (prctl PR_SET_NAME)."""
    body = nl.be32(1, 5) + nl.be32(2, 9) + nl.text(3, "a\x1b[2J\nb")
    datagram = nl.message(codec.NEWGEN, 0, 1, 0, 0, body)
    assert [commit.program for commit in feed(NotificationDecoder("gatewayd"), datagram)] == ["a\ufffd[2J\ufffdb"]
