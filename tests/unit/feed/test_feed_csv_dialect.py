"""What spreadsheets make of CSV, a piece at a time."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import RecordRejected
from gatewayd.feed.csv_dialect import (
    Utf8Input,
    cells_of,
    declared_delimiter,
    delimiter_of,
    ends_quoted,
    fitted,
    flag_of,
    listed,
    wire_of,
)

TEXT = "id,category\r\nä,bank\U0001f600\n"


def through(content: bytes, size: int = 1 << 20) -> bytes:
    made = Utf8Input()
    out = b"".join(made.feed(content[start : start + size]) for start in range(0, len(content), size))
    return out + made.finish()


def test_a_row_of_texts_is_a_record() -> None:
    found = wire_of(["a", "bank", "active", "10.0.0.0/8; 11.0.0.0/8", "", "", "esp", "", "", "co-1", "FALSE", ""])
    assert (found.clients, found.subscriber, found.services) == (("10.0.0.0/8", "11.0.0.0/8"), None, ("esp",))
    assert (found.registrant, found.provisional, found.endpoints) == ("co-1", False, ())
    with pytest.raises(RecordRejected, match="must be true or false"):
        flag_of("provisional", "yes")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    ],
)
def test_utf_16_with_its_mark_becomes_utf_8_however_it_is_cut(content: bytes, size: int) -> None:
    assert through(content, size) == TEXT.encode()


@pytest.mark.parametrize("content", [b"", b"x", b"\xff", "id".encode("utf-16-le")])
def test_what_has_no_mark_stays_as_it_is(content: bytes) -> None:
    assert through(content, 1) == content


@pytest.mark.parametrize("damage", [b"x", b"\x00\xd8", b"\x00\xd8x\0"])
def test_damaged_utf_16_is_seen_as_such_and_raises_nothing(damage: bytes) -> None:
    assert through(codecs.BOM_UTF16_LE + "id".encode("utf-16-le") + damage).startswith(b"id")
    assert b"\xef\xbf\xbd" in through(codecs.BOM_UTF16_LE + damage)


@given(st.binary(max_size=12), st.integers(1, 4))
def test_where_it_is_cut_does_not_matter(content: bytes, size: int) -> None:
    assert through(content, size) == through(content)


@pytest.mark.parametrize(
    ("line", "delimiter"),
    [
        (b"sep=;", ";"),
        (b"sep=,\r", ","),
        (b"SEP=\t", "\t"),
        (b'"sep=|" ', "|"),
        (b"sep=", None),
        (b"sep=x", None),
        (b"id;category", None),
    ],
)
def test_a_line_may_say_what_the_delimiter_is(line: bytes, delimiter: str | None) -> None:
    assert declared_delimiter(line) == delimiter


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        (b"id,category,status", ","),
        (b"id;category;status", ";"),
        (b"id\tcategory\tstatus", "\t"),
        (b"id", ","),
        (b'"id";"category";"status"', ";"),
    ],
)
def test_a_header_shows_its_delimiter(header: bytes, delimiter: str) -> None:
    assert delimiter_of(header) == delimiter


@pytest.mark.parametrize(
    ("row", "code"),
    [(b"a,\xff", "not_utf8"), (b"a,\0", "nul_byte"), (b"a\rb,c", "bad_columns")],
)
def test_a_row_that_is_none_is_rejected_by_name(row: bytes, code: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        cells_of(row)
    assert caught.value.code == code


def test_cells_stand_between_delimiters_and_may_be_quoted() -> None:
    assert cells_of(b'a,"b;c,d", e') == ["a", "b;c,d", " e"]
    assert cells_of(b'a;"b;c"', ";") == ["a", "b;c"]


def test_cells_beyond_the_header_are_nothing() -> None:
    assert fitted(["a", "b", "", " "], 2, 4) == ["a", "b"]
    with pytest.raises(RecordRejected, match=r"1 values under 2 columns$"):
        fitted(["a"], 2, 2)
    for cells, width in ((["a", "b", ""], 2), (["a", "b", "c"], 3)):
        with pytest.raises(RecordRejected, match="3 values under 2 columns; a cell with a comma in it stands in"):
            fitted(cells, 2, width)


@pytest.mark.parametrize("text", ["a b", "a;b", "a,b", "a, b", " a ;\n b ", "a,,b;"])
def test_words_of_a_cell_stand_between_blanks_semicolons_or_commas(text: str) -> None:
    assert listed(text) == ("a", "b")
    assert listed(" ") == listed("") == ()


@pytest.mark.parametrize(
    ("line", "before", "after"),
    [
        (b'"a', False, True),
        (b'a,"b', False, True),
        (b'a;"b', False, False),
        (b'a"b', False, False),
        (b'b"', True, False),
        (b'b""', True, True),
        (b"b", True, True),
    ],
)
def test_a_quoted_cell_may_be_open_after_a_line(line: bytes, before: bool, after: bool) -> None:
    assert ends_quoted(line, before) is after


def test_a_quote_opens_after_the_delimiter_of_the_file() -> None:
    assert ends_quoted(b'a;"b', False, ";")
