"""Files as spreadsheets save them: the same registrations, or a reason by name."""

from __future__ import annotations

import codecs

import pytest

from gatewayd.errors import SourceUnusable
from gatewayd.feed.reading import CsvReader, format_of
from tests.support.feeds import fields_of, line_of

COLUMNS = ("id", "category", "status", "clients", "peers", "services")
ROWS = (
    ("a", "bank", "active", "203.0.113.0/28", "", ""),
    ("b", "bank", "active", "198.51.100.0/28 192.0.2.0/28", "192.0.2.7", "ipsec udp/51820"),
)


def text(delimiter: str, end: str = "\n", quote: str = "") -> str:
    return end.join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in (COLUMNS, *ROWS)) + end


def read(content: bytes) -> CsvReader:
    reader = CsvReader("lab")
    for start in range(0, len(content), 7):
        reader.feed(content[start : start + 7])
    reader.finish()
    return reader


PLAIN = read(text(",").encode()).registrations

SAME = {
    "semicolons": text(";").encode(),
    "tabs": text("\t").encode(),
    "Excel's CSV": text(",", "\r\n").encode(),
    "CSV UTF-8": codecs.BOM_UTF8 + text(",", "\r\n").encode(),
    "Unicode Text": codecs.BOM_UTF16_LE + text("\t", "\r\n").encode("utf-16-le"),
    "big endian": codecs.BOM_UTF16_BE + text("\t").encode("utf-16-be"),
    "a mark and semicolons": codecs.BOM_UTF8 + text(";").encode(),
    "quotes": text(",", quote='"').encode(),
    "quotes and semicolons": text(";", quote='"').encode(),
    "sep": b"sep=;\r\n" + text(";", "\r\n").encode(),
    "sep after a mark": codecs.BOM_UTF8 + b"sep=\t\n" + text("\t").encode(),
    "sep of bars": b'"sep=|"\n' + text("|").encode(),
    "sep where the header shows another": b"sep=;\n" + text(";").encode().replace(b"id;", b'"id";'),
    "rows of commas": (text(",") + ",,,,,\n" * 3).encode(),
    "rows of semicolons": (text(";", "\r\n") + ";;;;;\r\n").encode(),
    "a row of quotes": (text(",") + '"","","","","",""\n').encode(),
    "rows of commas before the header": (",,,,,\n" + text(",")).encode(),
    "columns of nothing": text(",").replace("\n", ",,,\n").encode(),
    "commas within a cell": text(",").replace(
        "198.51.100.0/28 192.0.2.0/28", '"198.51.100.0/28, 192.0.2.0/28"'
    ).encode(),
    "semicolons within a cell": text(",").replace("/28 192", "/28;192").encode(),
    "lines within a cell": text(",").replace(
        "198.51.100.0/28 192.0.2.0/28", '"198.51.100.0/28\r\n192.0.2.0/28"'
    ).encode(),
    "no end of the last line": text(",").removesuffix("\n").encode(),
    "blank lines": text(",").replace("\n", "\n\n").encode(),
    "names in capitals": text(",").replace("id,category", "ID, Category").encode(),
    "blanks of a typesetter": text(",").replace("a,bank", "a,\u00a0bank").encode(),
}  # fmt: skip


@pytest.mark.parametrize("content", SAME.values(), ids=SAME.keys())
def test_a_spreadsheets_file_is_the_same_registry(content: bytes) -> None:
    reader = read(content)
    assert reader.rejections == []
    assert reader.registrations == PLAIN
    assert reader.records == len(ROWS)


NAMED = {
    "UTF-16 without its mark": (text(",").encode("utf-16-le"), "the row holds a NUL byte"),
    "an unknown delimiter": (text("|").encode(), "column 1, .not a word., is unknown"),
    "a name of nothing in the middle": (text(",").replace("category,", ",").encode(), "column 2, .not a word."),
    "no name at all": ("\u00a0,\u00a0\n".encode(), "column id is missing"),
    "an unknown sep": (b"sep=x\n" + text("x").encode(), "column 1, .not a word., is unknown"),
    "old Macintosh": (text(",", "\r").encode(), "a carriage return within it"),
    "a title above": ("Registry of VPNs 2026,,,\n" + text(","), "column 1, .not a word., is unknown"),
    "a spreadsheet's own format": (
        b"PK\x03\x04\x14\0" + b"\0" * 40,
        "is an archive, as .xlsx and .ods are; save it",
    ),
}


@pytest.mark.parametrize(("content", "why"), NAMED.values(), ids=NAMED.keys())
def test_a_file_that_is_no_csv_is_refused_by_name(content: bytes | str, why: str) -> None:
    with pytest.raises(SourceUnusable, match=why):
        read(content if isinstance(content, bytes) else content.encode())


def test_a_comma_without_quotes_moves_no_cell_into_the_next_column() -> None:
    """Though the last columns are empty, so that the row would fit without one of them."""
    content = text(",").replace("203.0.113.0/28", "203.0.113.0/28, 203.0.113.32/28")
    reader = read(content.encode())
    assert [(each.line, each.code) for each in reader.rejections] == [(2, "bad_columns")]
    assert "a cell with a comma in it stands in quotes" in reader.rejections[0].detail
    assert list(reader.registrations) == ["b"]


def test_what_was_usable_before_is_known_by_its_id_whatever_the_delimiter() -> None:
    reader = CsvReader("lab", None, PLAIN)
    reader.feed(text(";").replace("bank", "b\0nk").encode() + b"c;bank;active;10.0.0.0/28;;\n")
    reader.finish()
    assert (reader.retained, [each.id for each in reader.rejections]) == (2, ["a", "b"])


@pytest.mark.parametrize("name", ["list.tsv", "list.txt", "LIST.TXT.gz", "list.csv.gz"])
def test_the_suffixes_of_spreadsheets_mean_csv(name: str) -> None:
    assert format_of(name, None, b"id\t") == "csv"
    assert format_of(name, None, line_of(fields_of("a"))) == "ndjson"


class Noted(CsvReader):
    """Makes something of a column that is no field."""

    _extra_columns = frozenset({"note"})

    def _amend(self, texts: list[str], cells: list[str]) -> None:
        super()._amend(texts, cells)
        texts[1] = cells[0]


def test_a_reader_of_its_own_may_take_columns_beside_the_fields() -> None:
    reader = Noted("lab")
    reader.feed(b"note,id,category,status,clients\nbank,a,x,active,203.0.113.0/28\n")
    reader.finish()
    assert reader.registrations["a"].category == "bank"
    with pytest.raises(SourceUnusable, match="column note stands twice"):
        Noted("lab").feed(b"note,note,id,category,status\n")
