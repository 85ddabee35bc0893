from __future__ import annotations

import random
from math import inf, nan
from zlib import crc32

import msgspec
import pytest

from gatewayd.model.prefix import Prefix, parse_prefix
from gatewayd.subscribers.journal_rows import (
    AddressRow,
    EndedRow,
    HoldRow,
    NasRow,
    Row,
    SessionRow,
    Value,
    address_key,
    decode_row,
    encode_key,
    encode_value,
    key_of,
    nas_key,
    prefix_of,
    session_key,
)

ALI = b"A" * 32
IPV4, IPV6 = parse_prefix("10.0.0.1"), parse_prefix("2001:db8:7::/56")
SESSION = SessionRow(
    "bng1",
    "s1",
    ALI,
    10.0,
    20.5,
    930.0,
    300,
    True,
    -inf,
    20.5,
    (HoldRow(IPV4, (1024, 2047), 20.5, 10.0), HoldRow(IPV6, None, 10.0, 10.0)),
)
VALUES: list[Value] = [
    SESSION,
    SessionRow("bng2", "ß/2", ALI, 10.0, 20.0, None, None, False, -inf, -inf, ()),
    EndedRow("bng1", "s1", ALI, 30.0, 31.25),
    AddressRow(IPV4, ALI, 30.0, 31.0, -inf),
    AddressRow(IPV6, ALI, 30.0, 31.0, 12.0),
    NasRow("bng1", 5.0),
]


def raw(value: Value) -> tuple[bytes, bytes]:
    key = encode_key(key_of(value))
    return key, encode_value(key, value)


def with_checksum(key: bytes, value: bytes) -> bytes:
    return crc32(value, crc32(key)).to_bytes(4, "big") + value


@pytest.mark.parametrize("value", VALUES)
def test_what_was_written_is_read(value: Value) -> None:
    assert decode_row(*raw(value)) == Row(key_of(value), value)


def test_every_kind_of_row_has_its_own_keys() -> None:
    assert len({raw(value)[0] for value in VALUES}) == len(VALUES)
    assert {type(value) for value in VALUES} == {SessionRow, EndedRow, AddressRow, NasRow}


def test_the_prefix_of_a_word_is_in_its_key() -> None:
    assert [prefix_of(address_key(prefix)) for prefix in (IPV4, IPV6)] == [IPV4, IPV6]


@pytest.mark.parametrize("value", VALUES)
def test_no_flipped_bit_and_no_missing_byte_passes(value: Value) -> None:
    key, good = raw(value)
    for index in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[index] ^= 1 << bit
            assert decode_row(key, bytes(bad)) is None
        assert decode_row(key, good[:index]) is None
    bad_key = bytearray(key)
    bad_key[-1] ^= 1
    assert decode_row(bytes(bad_key), good) is None


def test_random_bytes_are_no_row() -> None:
    noise = random.Random(7)
    for size in range(200):
        key, value = noise.randbytes(size % 20), noise.randbytes(size)
        assert decode_row(key, value) is None
        assert decode_row(key, with_checksum(key, value)) is None


def test_a_row_under_the_key_of_another_is_none() -> None:
    key = encode_key(session_key("bng1", "s2"))
    assert decode_row(key, encode_value(key, SESSION)) is None
    key = encode_key(nas_key("bng1"))
    assert decode_row(key, encode_value(key, SESSION)) is None


@pytest.mark.parametrize(
    "value",
    [
        msgspec.structs.replace(SESSION, subscriber=b"short"),
        msgspec.structs.replace(SESSION, since_s=nan),
        msgspec.structs.replace(SESSION, at_s=-inf),
        msgspec.structs.replace(SESSION, due_s=inf),
        msgspec.structs.replace(SESSION, snapshot_s=nan),
        msgspec.structs.replace(SESSION, ipv4_s=inf),
        *(
            msgspec.structs.replace(SESSION, holds=(HoldRow(*hold),))
            for hold in [
                (IPV4, (2047, 1024), 1.0, 1.0),
                (IPV4, (0, 65536), 1.0, 1.0),
                (IPV4, None, nan, 1.0),
                (IPV4, None, 1.0, inf),
                (Prefix(b"\x0a\0\0\1", 24), None, 1.0, 1.0),
                (Prefix(b"\x0a\0\0\1", 33), None, 1.0, 1.0),
                (Prefix(b"\x0a\0\0\1", -1), None, 1.0, 1.0),
                (Prefix(b"\x0a\0\0\1\0", 40), None, 1.0, 1.0),
            ]
        ),
        EndedRow("bng1", "s1", ALI, nan, 1.0),
        AddressRow(Prefix(b"", 0), ALI, 1.0, 1.0, -inf),
        AddressRow(IPV4, ALI, 1.0, inf, -inf),
        AddressRow(IPV4, ALI, 1.0, 1.0, nan),
        NasRow("bng1", inf),
    ],
)
def test_a_row_that_says_what_cannot_be_is_none(value: Value) -> None:
    assert decode_row(*raw(value)) is None
