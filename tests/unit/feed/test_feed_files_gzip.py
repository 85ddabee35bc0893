from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.feed.files import PIECE_BYTES, GzipDamaged, Inflater


def inflate(*chunks: bytes, must_be_gzip: bool = False) -> tuple[bytes, bool]:
    inflater = Inflater(must_be_gzip)
    plain = b"".join(piece for chunk in chunks for piece in inflater.feed(chunk))
    return plain + inflater.finish(), inflater.is_whole()


def test_what_is_not_gzip_passes_as_it_is() -> None:
    assert inflate(b'{"id"', b":1}") == (b'{"id":1}', True)
    assert inflate(b"\x1f") == (b"\x1f", True)
    assert inflate() == (b"", True)


def test_several_members_are_one_content() -> None:
    assert inflate(gzip.compress(b"one ") + gzip.compress(b"two")) == (b"one two", True)


def test_a_stream_without_its_end_is_not_whole() -> None:
    compressed = gzip.compress(b"content" * 1000)
    assert not inflate(compressed[:-1])[1]
    assert not inflate(b"", must_be_gzip=True)[1]


@pytest.mark.parametrize("raw", [b"plain", gzip.compress(b"x")[:-8] + bytes(8), gzip.compress(b"x") + b"rest"])
def test_damage_is_noticed(raw: bytes) -> None:
    with pytest.raises(GzipDamaged):
        inflate(raw, must_be_gzip=True)


def test_a_bomb_comes_out_in_pieces_of_bounded_size() -> None:
    pieces = [len(piece) for piece in Inflater().feed(gzip.compress(bytes(10_000_000)))]
    assert sum(pieces) == 10_000_000
    assert max(pieces) == PIECE_BYTES


@given(st.binary(max_size=2000), st.integers(1, 50))
def test_where_gzip_is_cut_into_chunks_does_not_matter(content: bytes, step: int) -> None:
    raw = gzip.compress(content)
    chunks = [raw[start : start + step] for start in range(0, len(raw), step)]
    assert inflate(*chunks) == (content, True)


def test_an_empty_member_between_others_gives_nothing() -> None:
    inflater = Inflater()
    assert b"".join(inflater.feed(gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(b"b"))) == b"ab"
    assert inflater.is_whole()
