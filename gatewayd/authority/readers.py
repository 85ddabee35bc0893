"""Readers for the registry's own files: records in canonical form, mobile numbers hashed and let go.

They are `registry.reading`'s readers with a step before and one after, so every rule of a registration is the same
and stands there alone. The number is in the bytes that are read and nowhere else: not in the registration, not
in a rejection, not in an error, and a record whose id repeats it is rejected without its id.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from gatewayd.errors import MsisdnInvalid, PepperUnusable, RecordRejected
from gatewayd.feed.canonical import FIRST_TIME_S, LAST_TIME_S, Canonicaliser
from gatewayd.feed.reading import CsvReader, Format, NdjsonReader, ReadLimits, _cells_of
from gatewayd.feed.record import RecordParser, id_of_line, is_id
from gatewayd.model import Registration
from gatewayd.model.msisdn import normalise_msisdn, subscriber_digest

FIELD: Final = "mobile"
_JSON_NAME: Final = b'"mobile"'
"""Written otherwise, `Mobile` or with escapes, it is any reader's identity field and the record is rejected."""

_TELLING_DIGITS: Final = 9
"""Last digits of a number that say whose it is; no two numbers of a country share as many."""
_MIN_TELLING_DIGITS: Final = 6

_SEEN: Final = Registration("seen", "seen", "active", ())
"""Stands for what was read: only ids are asked for again, and a million registrations are half a gigabyte."""

_drop_signs = re.compile(r"\D").sub


@dataclass(frozen=True, slots=True)
class Hashing:
    """How numbers become digests: this operator's pepper, and the country of numbers in national form."""

    pepper: bytes
    country_code: str | None = None

    def subscriber(self, text: str) -> str:
        """The `subscriber` field of a number. Raises MsisdnInvalid."""
        digest = subscriber_digest(normalise_msisdn(text, self.country_code), self.pepper)
        return f"hmac-sha256:{digest.hex()}"

    def __repr__(self) -> str:
        return "Hashing(…)"


class ImportReader(NdjsonReader):
    """What both formats have in common. `hashing` None: a `mobile` field raises PepperUnusable from `feed`."""

    def __init__(self, source: str, hashing: Hashing | None = None, limits: ReadLimits | None = None) -> None:
        super().__init__(source, limits)
        self._parser = _WritableParser()
        self._hashing = hashing
        self._writer = Canonicaliser()

    def write(self, fresh: list[Registration]) -> Iterator[tuple[str, str]]:
        """(id, canonical record) of what `feed` and `finish` gave. Of these the reader keeps only the ids."""
        line, registrations = self._writer.line, self.registrations
        for registration in fresh:
            registrations[registration.id] = _SEEN
            yield registration.id, line(registration)


class _WritableParser(RecordParser):
    """Takes no time that canonical form has no way to write."""

    __slots__ = ()

    def _time(self, field: str, text: str) -> float:
        moment_s = super()._time(field, text)
        if not FIRST_TIME_S <= moment_s <= LAST_TIME_S:
            raise RecordRejected("bad_time", field, "is beyond the years 1 to 9999 in UTC")
        return moment_s


class ImportNdjsonReader(ImportReader):
    """Reads one JSON object a line."""

    def _take(self, line: bytes, fresh: list[Registration]) -> None:
        if _JSON_NAME in line:
            try:
                line = self._without_number(line)
            except RecordRejected as error:
                self._count_record()
                id = None if error.code == "identity_field" else id_of_line(line)
                self._reject(self._line, id, error.code, error.field, error.detail)
                return
        super()._take(line, fresh)

    def _without_number(self, line: bytes) -> bytes:
        """`subscriber` for `mobile`; what is no object with such a field is for the reader to judge."""
        try:
            fields = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return line
        if not isinstance(fields, dict) or FIELD not in fields:
            return line
        _replace_number(fields, self._hashing, self._source)
        return msgspec.json.encode(fields)


class ImportCsvReader(ImportReader, CsvReader):
    """Reads CSV with a header line."""

    _names: tuple[str, ...] = ()
    """The columns of the file, if `mobile` is among them."""

    def _take_row(self, row: bytes, fresh: list[Registration]) -> None:
        if not self._columns:
            row = self._without_column(row)
        elif self._names:
            id: str | None = None
            try:
                cells = _cells_of(row)
                if len(cells) != len(self._names):
                    raise RecordRejected("bad_columns", "", f"{len(cells)} values under {len(self._names)} columns")
                fields: dict[str, object] = dict(zip(self._names, map(str.strip, cells), strict=True))
                id = _shown_id(fields)
                _replace_number(fields, self._hashing, self._source)
            except RecordRejected as error:
                self._count_record()
                id = None if error.code == "identity_field" else id
                self._reject(self._row_line, id, error.code, error.field, error.detail)
                return
            row = _row_of(fields)
        super()._take_row(row, fresh)

    def _without_column(self, header: bytes) -> bytes:
        """The header with `subscriber` in the place of `mobile`; any other is for the reader to judge."""
        try:
            names = [name.strip().lower() for name in _cells_of(header)]
        except RecordRejected:
            return header
        if names.count(FIELD) != 1 or len(set(names)) != len(names):
            return header
        if self._hashing is None:
            raise _needs_pepper(self._source)
        self._names = tuple(names)
        columns: dict[str, object] = {name: name for name in names if name != FIELD}
        return _row_of({**columns, "subscriber": "subscriber"})


def import_reader(format: Format, source: str, hashing: Hashing | None = None) -> ImportReader:
    """The reader of a format."""
    return ImportCsvReader(source, hashing) if format == "csv" else ImportNdjsonReader(source, hashing)


def _replace_number(fields: dict[str, object], hashing: Hashing | None, source: str) -> None:
    """Takes `mobile` out of `fields`; `subscriber` is there afterwards, with its digest if it said anything.

    Raises RecordRejected, of which `identity_field` says that not even the id is fit to be shown.
    """
    text = fields.pop(FIELD)
    fields.setdefault("subscriber", None)
    if text is None or text == "":
        return
    if hashing is None:
        raise _needs_pepper(source)
    if not isinstance(text, str):
        raise RecordRejected("bad_type", FIELD, "must be a text")
    if _repeats(fields.get("id"), text):
        raise RecordRejected("identity_field", "id", "repeats the mobile number; the registry must not")
    if fields["subscriber"]:
        raise RecordRejected("bad_subscriber", "subscriber", f"stands beside `{FIELD}`; one of them is enough")
    try:
        fields["subscriber"] = hashing.subscriber(text)
    except MsisdnInvalid as error:
        raise RecordRejected("bad_mobile", FIELD, error.why) from None


def _repeats(id: object, number: str) -> bool:
    """Whether an id holds so many of a number's digits that it tells whose it is."""
    digits = _drop_signs("", number)[-_TELLING_DIGITS:]
    return isinstance(id, str) and len(digits) >= _MIN_TELLING_DIGITS and digits in _drop_signs("", id)


def _shown_id(fields: dict[str, object]) -> str | None:
    id = fields.get("id")
    return id if isinstance(id, str) and is_id(id) else None


def _row_of(fields: dict[str, object]) -> bytes:
    """One CSV row, without its line end."""
    row = io.StringIO()
    csv.writer(row, quoting=csv.QUOTE_ALL, lineterminator="").writerow(fields.values())
    return row.getvalue().encode()


def _needs_pepper(source: str) -> PepperUnusable:
    return PepperUnusable(
        f"{source} holds mobile numbers (`{FIELD}`)", "give --pepper-file FILE, so that they are hashed and dropped"
    )
