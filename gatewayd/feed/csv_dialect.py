"""What spreadsheets make of CSV: UTF-16, `;` or tab between cells, a line `sep=`, columns and rows of nothing.

RFC 4180 has commas and says nothing of encodings. Excel writes `;` where the comma is the decimal sign, tabs and
UTF-16 as "Unicode Text", and a first line `sep=;` for itself.
"""

from __future__ import annotations

import codecs
import csv
import re
from typing import Final

from gatewayd.errors import RecordRejected
from gatewayd.feed.record import WireRecord

COMMA: Final = ","
DELIMITERS: Final = (COMMA, ";", "\t")
"""Those that a header may show; of equally many the first is meant. `sep=` may name another one."""
NOTHING: Final = b' \t\r\n,;|"'
"""A row of these alone has no record; a spreadsheet writes such rows below the last one that was ever used."""

_UTF_16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_declaration = re.compile(rb'"?sep=([,;\t|])"?', re.IGNORECASE).fullmatch


class Utf8Input:
    """Bytes in UTF-8, or in UTF-16 with its mark, to bytes in UTF-8, however they are cut."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._decoder: codecs.IncrementalDecoder | None = None

    def feed(self, chunk: bytes) -> bytes:
        if self._head is not None:
            chunk = self._head + chunk
            if len(chunk) < 2:
                self._head = chunk
                return b""
            self._head = None
            if chunk.startswith(_UTF_16_MARKS):
                self._decoder = codecs.getincrementaldecoder("utf-16")("replace")
        return chunk if self._decoder is None else self._decoder.decode(chunk).encode("utf-8", "replace")

    def finish(self) -> bytes:
        """What was waiting for more."""
        head, self._head = self._head or b"", None
        return head if self._decoder is None else self._decoder.decode(b"", final=True).encode()


def declared_delimiter(line: bytes) -> str | None:
    """Of a line `sep=;`, which is neither header nor record; None for any other line."""
    found = _declaration(line.strip(b" \r"))
    return None if found is None else found[1].decode()


def delimiter_of(header: bytes) -> str:
    """What stands between the names of a header."""
    return max(DELIMITERS, key=lambda each: header.count(each.encode()))


def cells_of(row: bytes, delimiter: str = COMMA) -> list[str]:
    """Raises RecordRejected."""
    try:
        text = row.decode("utf-8")
    except UnicodeDecodeError:
        raise RecordRejected("not_utf8", "", "the row is not UTF-8") from None
    if "\0" in text:
        raise RecordRejected("nul_byte", "", "the row holds a NUL byte")
    try:
        return next(csv.reader((text,), delimiter=delimiter) if delimiter != COMMA else csv.reader((text,)))
    except csv.Error:
        why = "the row is not CSV (a carriage return within it?)"
        raise RecordRejected("bad_columns", "", why) from None


def fitted(cells: list[str], columns: int, width: int) -> list[str]:
    """As many cells as the header has names. `width`: with the columns of nothing at its end.

    Raises RecordRejected. One cell more than that is a comma that was not quoted: all cells after it would say
    something else than they were written for.
    """
    if len(cells) != width or any(cell.strip() for cell in cells[columns:]):
        hint = "; a cell with a comma in it stands in quotes" if len(cells) > columns else ""
        raise RecordRejected("bad_columns", "", f"{len(cells)} values under {columns} columns{hint}")
    return cells[:columns]


def listed(text: str) -> tuple[str, ...]:
    """The words of a cell, between which are blanks, semicolons or commas."""
    if not text:
        return ()
    if ";" in text:
        text = text.replace(";", " ")
    if "," in text:
        text = text.replace(",", " ")
    return tuple(text.split())


def flag_of(field: str, text: str) -> bool:
    """What a cell says, as spreadsheets write it too: TRUE, FALSE. Raises RecordRejected."""
    if text.lower() not in ("true", "false"):
        raise RecordRejected("bad_type", field, "must be true or false")
    return text.lower() == "true"


def wire_of(texts: list[str]) -> WireRecord:
    """Texts in the order of `record.FIELDS`; "" = absent. Raises RecordRejected."""
    return WireRecord(
        texts[0],
        texts[1],
        texts[2],
        listed(texts[3]),
        texts[4] or None,
        listed(texts[5]),
        listed(texts[6]),
        texts[7] or None,
        texts[8] or None,
        texts[9] or None,
        flag_of("provisional", texts[10]) if texts[10] else None,
        listed(texts[11]),
    )


def ends_quoted(line: bytes, is_quoted: bool, delimiter: str = COMMA) -> bool:
    """Whether a quoted cell is open after `line`, given whether one was before; as Python's csv sees it."""
    index = -1
    while (index := line.find(b'"', index + 1)) >= 0:
        if not is_quoted:
            is_quoted = index == 0 or line[index - 1] == ord(delimiter)
        elif line[index + 1 : index + 2] == b'"':
            index += 1
        else:
            is_quoted = False
    return is_quoted
