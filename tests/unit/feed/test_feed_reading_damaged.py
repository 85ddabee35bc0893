"""Whose record it was, of a line that is nothing any more: as far as its id can be made out."""

from __future__ import annotations

import pytest

from gatewayd.feed.reading import CsvReader, NdjsonReader
from gatewayd.feed.record import MAX_LINE_BYTES, registration_of
from tests.support.feeds import fields_of, line_of

PREVIOUS = {id: registration_of(fields_of(id)) for id in ("a", "b")}
OVERLONG = b'{"id": "b", "x": "' + b"x" * MAX_LINE_BYTES + b'"}\n'
COLUMNS = b"category,status,clients,id\n"
DAMAGED = {
    "a NUL byte": b'{"id": "b", "category": "ba\0nk"}\n',
    "another encoding": b'{"id" :\t"b", "category": "b\xe9nk"}\n',
    "no end": b'{"category": "bank", "id": "b", \n',
    "no end to it": OVERLONG,
}


def read(reader: NdjsonReader, content: bytes, chunk_bytes: int = 1 << 20) -> NdjsonReader:
    for start in range(0, len(content), chunk_bytes):
        reader.feed(content[start : start + chunk_bytes])
    reader.finish()
    return reader


@pytest.mark.parametrize("chunk_bytes", [1 << 20, 40_000, 7])
@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_line_leaves_what_was_usable_before(line: bytes, chunk_bytes: int) -> None:
    reader = read(NdjsonReader("lab", None, PREVIOUS), line + line_of(fields_of("a")), chunk_bytes)
    assert reader.registrations == PREVIOUS
    assert (reader.retained, [each.id for each in reader.rejections]) == (1, ["b"])


def test_it_is_of_nobody_where_nothing_was_usable_before() -> None:
    reader = read(NdjsonReader("lab"), b"".join(DAMAGED.values()))
    assert [each.id for each in reader.rejections] == [None] * len(DAMAGED)


def test_an_id_that_was_not_there_before_is_not_believed() -> None:
    content = b'{"id": "c", \0}\n{"name": "b", \0}\n' + line_of(fields_of("a"))
    reader = read(NdjsonReader("lab", None, PREVIOUS), content)
    assert [each.id for each in reader.rejections] == [None, None]
    assert list(reader.registrations) == ["a"]


@pytest.mark.parametrize(
    "row",
    [
        b"ba\0nk,active,203.0.113.0/28,b\n",
        b'b\xe9nk,active,203.0.113.0/28,"b"\r\n',
        b"bank,active,203.0.113.0/28,b,and,more\n",
        b"bank,active,203.0.113.0/28,b," + b"x" * MAX_LINE_BYTES + b"\n",
    ],
    ids=["a NUL byte", "another encoding", "too many cells", "too long"],
)
def test_a_damaged_row_leaves_what_was_usable_before(row: bytes) -> None:
    content = COLUMNS + row + b"bank,active,203.0.113.0/28,a\n"
    reader = read(CsvReader("lab", None, PREVIOUS), content)
    assert reader.registrations == PREVIOUS
    assert (reader.retained, [each.id for each in reader.rejections]) == (1, ["b"])


def test_a_row_that_ends_before_its_id_is_of_nobody() -> None:
    reader = read(CsvReader("lab", None, PREVIOUS), COLUMNS + b"bank,active\nbank,active,203.0.113.0/28,a\n")
    assert [each.id for each in reader.rejections] == [None]
    assert list(reader.registrations) == ["a"]
