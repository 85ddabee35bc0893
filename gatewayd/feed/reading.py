"""A source's bytes → registrations and rejections, chunk by chunk.

A reader is fed chunks as they come, however they are cut, and never looks back: one bad record is rejected
with its place and reason and the rest goes on. `feed` takes a few milliseconds for 64 KiB, so that its caller can
let the event loop turn in between. Nothing it holds is to be used before `finish` has returned.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from gatewayd.errors import RecordRejected, SourceTooLarge, SourceUnusable
from gatewayd.feed import csv_dialect as dialect
from gatewayd.feed.record import (
    FIELDS,
    MAX_LINE_BYTES,
    REQUIRED_FIELDS,
    RecordParser,
    id_of_line,
    identity_field_of,
    is_id,
    shown_name,
)
from gatewayd.model import Registration

Format = Literal["ndjson", "csv"]

MAX_REJECTIONS_LISTED: Final = 1000
"""Rejections dialect.listed with their place; beyond it they are only counted."""

_BOM: Final = b"\xef\xbb\xbf"
_ARCHIVE: Final = b"PK\x03\x04"
_GARBLED: Final = ("not_json", "bad_columns", "not_utf8", "nul_byte")
"""What a last line without newline is rejected for when the rest of it, and of the file, is missing."""

_BLANKS: Final = b" \t\r"
_NOTHING, _cells_of = dialect.NOTHING, dialect.cells_of

_id_within = re.compile(rb'"id"[ \t]*:[ \t]*"([A-Za-z0-9._:-]{1,64})"').search


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What one source may hold before it is refused as a whole: bytes (decompressed), and records."""

    max_bytes: int = 1 << 30
    max_records: int = 4_000_000


@dataclass(frozen=True, slots=True)
class Rejection:
    """One record that is not used. `line` counts from 1; `id` is None where the record has no usable one."""

    line: int
    id: str | None
    code: str
    field: str
    detail: str

    def __str__(self) -> str:
        return f"{self.line}: {self.id or '-'}: {self.code}: {self.field or '-'}: {self.detail}"


class RecordReader(Protocol):
    """What the readers of all formats have in common."""

    registrations: dict[str, Registration]
    rejections: list[Rejection]
    rejected: Counter[str]
    records: int
    retained: int

    def feed(self, chunk: bytes) -> list[Registration]: ...
    def finish(self) -> list[Registration]: ...


class NdjsonReader:
    """Reads one JSON object a line. `source` names the source in errors.

    `registrations`: what is usable so far, by id. `rejected`: how many records were not, by reason code, and
    `rejections` the first of them. `records`: how many there were, usable or not.
    `previous`: registrations of an earlier reading; what is equal keeps the earlier object, so that a second
    reading of a million costs no second million in memory. A record that is not usable now and was usable then
    is no withdrawal: what it said then stays, and `retained` counts it; also where the line is no JSON any more, as
    long as its id can be made out in its first MAX_LINE_BYTES. Endpoints that the source may bring no more go.
    """

    def __init__(
        self,
        source: str,
        limits: ReadLimits | None = None,
        previous: Mapping[str, Registration] | None = None,
        *,
        allows_endpoints: bool = True,
    ) -> None:
        self.registrations: dict[str, Registration] = {}
        self.rejections: list[Rejection] = []
        self.rejected: Counter[str] = Counter()
        self.records = 0
        self._source = source
        self._limits = limits or ReadLimits()
        self.retained = 0
        self._previous = previous or {}
        self._rejected_ids: set[str] = set()
        self._parser = RecordParser(allows_endpoints=allows_endpoints)
        self._size_bytes = 0
        self._line = 0
        self._tail = bytearray()
        self._is_skipping = False
        self._skipped_head = b""

    def feed(self, chunk: bytes) -> list[Registration]:
        """The registrations completed by this chunk. Raises SourceTooLarge, SourceUnusable."""
        self._size_bytes += len(chunk)
        if self._size_bytes > self._limits.max_bytes:
            raise SourceTooLarge(self._source, f"more than {self._limits.max_bytes} bytes")
        self._tail += chunk
        if self._line == 0 and self._tail.startswith(_ARCHIVE):
            raise SourceUnusable(self._source, "is an archive, as .xlsx and .ods are; save it as CSV")
        fresh: list[Registration] = []
        if b"\n" in chunk:
            *lines, tail = bytes(self._tail).split(b"\n")
            self._tail = bytearray(tail)
            for line in lines:
                self._take_raw(line, fresh)
        if len(self._tail) > MAX_LINE_BYTES or self._is_skipping:
            if not self._is_skipping:
                self._skipped_head = bytes(self._tail[:MAX_LINE_BYTES])
            self._tail.clear()
            self._is_skipping = True
        return fresh

    def finish(self) -> list[Registration]:
        """What a last line without newline gives.

        Raises SourceTooLarge, and SourceUnusable when that line is not whole: a file cut short must not
        become a shorter allowlist.
        """
        fresh: list[Registration] = []
        if self._tail or self._is_skipping:
            line, self._tail = bytes(self._tail), bytearray()
            garbled = self._count_garbled()
            self._take_raw(line, fresh)
            if self._count_garbled() > garbled:
                raise SourceUnusable(
                    self._source, f"line {self._line}: the file seems cut off: its last line is not whole"
                )
        for id in self._rejected_ids:
            if id not in self.registrations:
                self.registrations[id] = self._previous[id]
                fresh.append(self._previous[id])
                self.retained += 1
        self._rejected_ids.clear()
        return fresh

    def _count_garbled(self) -> int:
        return sum(self.rejected[code] for code in _GARBLED)

    def _take_raw(self, line: bytes, fresh: list[Registration]) -> None:
        self._line += 1
        if self._is_skipping or len(line) > MAX_LINE_BYTES:
            head = self._skipped_head if self._is_skipping else line[:MAX_LINE_BYTES]
            self._is_skipping, self._skipped_head = False, b""
            self._take_overlong(head)
            return
        if self._line == 1 and line.startswith(_BOM):
            line = line[3:]
        self._take(line, fresh)

    def _take_overlong(self, head: bytes) -> None:
        self._count_record()
        id = self._earlier_id(head)
        self._reject(self._line, id, "line_too_long", "", f"longer than {MAX_LINE_BYTES} bytes")

    def _take(self, line: bytes, fresh: list[Registration]) -> None:
        line = line.strip(_BLANKS)
        if not line:
            return
        self._count_record()
        try:
            registration = self._parser.parse(line)
        except RecordRejected as error:
            is_wanted = self._previous or len(self.rejections) < MAX_REJECTIONS_LISTED
            id = (id_of_line(line) or self._earlier_id(line)) if is_wanted else None
            self._reject(self._line, id, error.code, error.field, error.detail)
            return
        self._admit(self._line, registration, fresh)

    def _earlier_id(self, raw: bytes) -> str | None:
        """The id in a record that is damaged, if it is one of `previous`: only there it matters whose it is."""
        id = self._legible_id(raw) if self._previous else None
        return id if id in self._previous else None

    def _legible_id(self, raw: bytes) -> str | None:
        found = _id_within(raw)
        return None if found is None else found[1].decode()

    def _count_record(self) -> None:
        self.records += 1
        if self.records > self._limits.max_records:
            raise SourceTooLarge(self._source, f"more than {self._limits.max_records} records")

    def _admit(self, line: int, registration: Registration, fresh: list[Registration]) -> None:
        id = registration.id
        if id in self.registrations:
            self._reject(line, id, "duplicate_id", "id", "stands earlier in this source; the earlier is used")
            return
        earlier = self._previous.get(id)
        if earlier is not None and earlier == registration:
            registration = earlier
        self.registrations[registration.id] = registration
        fresh.append(registration)

    def _reject(self, line: int, id: str | None, code: str, field: str, detail: str) -> None:
        self.rejected[code] += 1
        earlier = self._previous.get(id) if id is not None else None
        if earlier is not None and not (code == "endpoints_not_allowed" and earlier.endpoints):
            self._rejected_ids.add(earlier.id)
        if len(self.rejections) < MAX_REJECTIONS_LISTED:
            self.rejections.append(Rejection(line, id, code, field, detail))


class CsvReader(NdjsonReader):
    """Reads CSV (RFC 4180) with a header line that names the columns, in any order.

    Lists are separated by spaces, semicolons or commas; an empty cell is an absent field. A place is the line on
    which a row begins. Raises SourceUnusable for a header that is not ours, and for a quote that is never
    closed: it would have swallowed the rows after it. Encoding and delimiter are found out (csv_dialect).
    """

    _extra_columns: frozenset[str] = frozenset()
    """Names of columns, beside FIELDS, that a reader of its own makes something of."""

    def __init__(
        self,
        source: str,
        limits: ReadLimits | None = None,
        previous: Mapping[str, Registration] | None = None,
        *,
        allows_endpoints: bool = True,
    ) -> None:
        super().__init__(source, limits, previous, allows_endpoints=allows_endpoints)
        self._columns = self._width = 0
        self._places: list[int] = []
        self._row: list[bytes] = []
        self._row_line = 0
        self._row_bytes = 0
        self._is_quoted = False
        self._input = dialect.Utf8Input()
        self._delimiter, self._is_declared = dialect.COMMA, False

    def feed(self, chunk: bytes) -> list[Registration]:
        return super().feed(self._input.feed(chunk))

    def finish(self) -> list[Registration]:
        fresh = super().feed(self._input.finish())
        fresh += super().finish()
        if self._is_quoted:
            raise self._quote_not_closed()
        return fresh

    def _take_overlong(self, head: bytes) -> None:
        if self._is_quoted:
            raise self._quote_not_closed()
        if not self._columns:
            raise SourceUnusable(self._source, f"line {self._line}: the header is too long to be one")
        super()._take_overlong(head)

    def _legible_id(self, raw: bytes) -> str | None:
        """By delimiters alone: what is damaged may be the quotes."""
        cells = raw.split(self._delimiter.encode(), self._columns)
        place = self._places[0]
        return cells[place].strip(b' \t\r"').decode("ascii", "replace") if place < len(cells) else None

    def _take(self, line: bytes, fresh: list[Registration]) -> None:
        line = line.removesuffix(b"\r")
        if not self._row:
            if not line.strip(_BLANKS) or (not self._columns and self._is_declaration(line)):
                return
            self._row_line, self._row_bytes = self._line, 0
        self._row.append(line)
        self._row_bytes += len(line) + 1
        if b'"' in line:
            self._is_quoted = dialect.ends_quoted(line, self._is_quoted, self._delimiter)
        if not self._is_quoted:
            row, self._row = b"\n".join(self._row), []
            self._take_row(row, fresh)
        elif self._row_bytes > MAX_LINE_BYTES:
            raise self._quote_not_closed()

    def _is_declaration(self, line: bytes) -> bool:
        """Whether it says which delimiter there is; else it is the header, and shows it."""
        declared = dialect.declared_delimiter(line)
        if declared is not None:
            self._delimiter, self._is_declared = declared, True
        elif not self._is_declared:
            self._delimiter = dialect.delimiter_of(line)
        return declared is not None

    def _quote_not_closed(self) -> SourceUnusable:
        return SourceUnusable(self._source, f"line {self._row_line}: a quote opens here and is never closed")

    def _take_row(self, row: bytes, fresh: list[Registration]) -> None:
        if row[0] in _NOTHING and not row.strip(_NOTHING):
            return
        if not self._columns:
            self._take_header(row)
            return
        self._count_record()
        id: str | None = None
        try:
            cells = _cells_of(row, self._delimiter)
            if len(cells) != self._columns:
                cells = dialect.fitted(cells, self._columns, self._width)
            cells.append("")  # the place of every absent column, -1
            texts = [cells[place].strip() for place in self._places]
            id = texts[0] if is_id(texts[0]) else None
            if self._extra_columns:
                self._amend(texts, cells)
            registration = self._parser.of_wire(dialect.wire_of(texts))
        except RecordRejected as error:
            shown = None if error.code == "identity_field" else id or self._earlier_id(row)
            self._reject(self._row_line, shown, error.code, error.field, error.detail)
            return
        self._admit(self._row_line, registration, fresh)

    def _amend(self, texts: list[str], cells: list[str]) -> None:
        """Makes something of the extra columns: `texts`, in the order of FIELDS, is what the record will say."""

    def _take_header(self, row: bytes) -> None:
        try:
            names = [name.strip().lower() for name in _cells_of(row, self._delimiter)]
        except RecordRejected as error:
            raise SourceUnusable(self._source, f"line {self._row_line}: header: {error.detail}") from None
        self._width = len(names)
        while names and not names[-1]:
            names.pop()
        identity = identity_field_of(name for name in names if name not in self._extra_columns)
        if identity is not None:
            raise self._bad_header(f"column {identity} carries a person's identity; the registry must not")
        for index, name in enumerate(names):
            if name not in FIELDS and name not in self._extra_columns:
                raise self._bad_header(
                    f"column {index + 1}, {shown_name(name)}, is unknown; known: {', '.join(FIELDS)}"
                )
            if names.index(name) != index:
                raise self._bad_header(f"column {name} stands twice")
        for name in REQUIRED_FIELDS:
            if name not in names:
                raise self._bad_header(f"column {name} is missing")
        self._columns = len(names)
        self._places = [names.index(field) if field in names else -1 for field in FIELDS]

    def _bad_header(self, why: str) -> SourceUnusable:
        return SourceUnusable(self._source, f"line {self._row_line}: {why}")


def reader_for(
    format: Format,
    source: str,
    limits: ReadLimits | None = None,
    previous: Mapping[str, Registration] | None = None,
    *,
    allows_endpoints: bool = True,
) -> RecordReader:
    """The reader of a format."""
    kind = CsvReader if format == "csv" else NdjsonReader
    return kind(source, limits, previous, allows_endpoints=allows_endpoints)


def format_of(location: str, content_type: str | None, head: bytes) -> Format:
    """What a source most likely is, where the configuration does not say.

    The first byte decides if it can (no CSV header of ours begins with `{`), then what the server says, then
    the suffix of the path (`location` without query).
    """
    if head.removeprefix(_BOM).lstrip()[:1] in (b"{", b"["):
        return "ndjson"
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type in ("text/csv", "application/csv"):
        return "csv"
    if "json" in media_type:
        return "ndjson"
    return "csv" if location.lower().removesuffix(".gz").endswith((".csv", ".tsv", ".txt")) else "ndjson"
