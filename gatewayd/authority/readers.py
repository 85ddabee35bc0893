"""Readers for the registry's own files: records in canonical form, mobile numbers hashed and let go.

They are `registry.reading`'s readers with a step before and one after, so every rule of a registration is the same
and stands there alone. The number is in the bytes that are read and nowhere else: not in the registration, not
in a rejection, not in an error, and a record whose id repeats it is rejected without its id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from gatewayd.errors import MsisdnInvalid, PepperUnusable, RecordRejected
from gatewayd.feed.canonical import FIRST_TIME_S, LAST_TIME_S, Canonicaliser
from gatewayd.feed.csv_dialect import cells_of
from gatewayd.feed.reading import CsvReader, Format, NdjsonReader, ReadLimits
from gatewayd.feed.record import FIELDS, RecordParser, id_of_line
from gatewayd.model import Registration
from gatewayd.model.decoding import UNDECODABLE
from gatewayd.model.msisdn import normalise_msisdn, subscriber_digest

FIELD: Final = "mobile"
_JSON_NAME: Final = b'"mobile"'
"""Written otherwise, `Mobile` or with escapes, it is any reader's identity field and the record is rejected."""

_TELLING_DIGITS: Final = 9
"""Last digits of a number that say whose it is; no two numbers of a country share as many."""
_MIN_TELLING_DIGITS: Final = 6

_CHANGED: Final[tuple[tuple[Callable[[str], object], str], ...]] = (
    (re.compile(r"\+?\d{9,}[.,]0*").fullmatch, "a spreadsheet has made it a decimal number"),
    (re.compile(r"\+?\d([.,]\d*)?[eE][+-]?\d+").fullmatch, "a spreadsheet has rounded it, with an exponent"),
    (re.compile(r"[1-9]\d{3,}0{6}").fullmatch, "it ends with six zeros, as one that a spreadsheet has rounded"),
)
"""How a number shows that it was one for a while. With + before it, it was a text."""
_LENGTHS: Final = {"923": 12}
"""Digits of a mobile number, by how it begins; of the other countries the length is not known here."""
_SUBSCRIBER: Final = FIELDS.index("subscriber")

_SEEN: Final = Registration("seen", "seen", "active", ())
"""Stands for what was read: only ids are asked for again, and a million registrations are half a gigabyte."""

_drop_signs = re.compile(r"\D").sub


@dataclass(frozen=True, slots=True)
class Hashing:
    """How numbers become digests: this operator's pepper, and the country of numbers in national form."""

    pepper: bytes
    country_code: str | None = None

    def subscriber(self, text: str) -> str:
        """The `subscriber` field of a number. Raises MsisdnInvalid, also for one that a spreadsheet has changed."""
        digest = subscriber_digest(number_of(text, self.country_code), self.pepper)
        return f"hmac-sha256:{digest.hex()}"

    def __repr__(self) -> str:
        return "Hashing(…)"


def number_of(text: str, country_code: str | None) -> str:
    """The E.164 digits of a number, as a registry's clerk had it before a spreadsheet took it for a quantity.

    Raises MsisdnInvalid; `changed` where the digits are not those that were typed, or may not be.
    """
    for looks_so, how in _CHANGED:
        if looks_so(text.strip()):
            raise MsisdnInvalid("changed", f"{how}; format the column as text and enter the number again")
    try:
        digits = normalise_msisdn(text, country_code)
    except MsisdnInvalid as error:
        if error.code == "no_country_code" and country_code is not None:
            raise MsisdnInvalid(error.code, f"{error.why} (a spreadsheet drops a 0 at the beginning)") from None
        raise
    for prefix, length in _LENGTHS.items():
        if digits.startswith(prefix) and len(digits) != length:
            why = f"has {len(digits)} digits, and a mobile number that begins with {prefix} has {length}"
            raise MsisdnInvalid("changed", f"{why}; was one lost?")
    return digits


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
        except UNDECODABLE:
            return line
        if not isinstance(fields, dict) or FIELD not in fields:
            return line
        number, subscriber = fields.pop(FIELD), fields.get("subscriber")
        fields["subscriber"] = _hashed(number, subscriber, fields.get("id"), self._hashing, self._source)
        return msgspec.json.encode(fields)


class ImportCsvReader(ImportReader, CsvReader):
    """Reads CSV with a header line."""

    _extra_columns = frozenset({FIELD})
    _place: int | None = None
    """The column of numbers, if there is one."""

    def _take_header(self, row: bytes) -> None:
        super()._take_header(row)
        names = [name.strip().lower() for name in cells_of(row, self._delimiter)]
        if FIELD in names:
            if self._hashing is None:
                raise _needs_pepper(self._source)
            self._place = names.index(FIELD)

    def _amend(self, texts: list[str], cells: list[str]) -> None:
        if self._place is not None:
            number, subscriber = cells[self._place].strip(), texts[_SUBSCRIBER]
            texts[_SUBSCRIBER] = str(_hashed(number, subscriber, texts[0], self._hashing, self._source))


def import_reader(format: Format, source: str, hashing: Hashing | None = None) -> ImportReader:
    """The reader of a format."""
    return ImportCsvReader(source, hashing) if format == "csv" else ImportNdjsonReader(source, hashing)


def _hashed(number: object, subscriber: object, id: object, hashing: Hashing | None, source: str) -> object:
    """The `subscriber` of a record: the digest of `number` if it says anything, else what stands there.

    Raises RecordRejected, of which `identity_field` says that not even the id is fit to be shown.
    """
    if number is None or number == "":
        return subscriber
    if hashing is None:
        raise _needs_pepper(source)
    if not isinstance(number, str):
        raise RecordRejected("bad_type", FIELD, "must be a text")
    if _repeats(id, number):
        raise RecordRejected("identity_field", "id", "repeats the mobile number; the registry must not")
    if subscriber:
        raise RecordRejected("bad_subscriber", "subscriber", f"stands beside `{FIELD}`; one of them is enough")
    try:
        return hashing.subscriber(number)
    except MsisdnInvalid as error:
        raise RecordRejected("bad_mobile", FIELD, error.why) from None


def _repeats(id: object, number: str) -> bool:
    """Whether an id holds so many of a number's digits that it tells whose it is."""
    digits = _drop_signs("", number)[-_TELLING_DIGITS:]
    return isinstance(id, str) and len(digits) >= _MIN_TELLING_DIGITS and digits in _drop_signs("", id)


def _needs_pepper(source: str) -> PepperUnusable:
    return PepperUnusable(
        f"{source} holds mobile numbers (`{FIELD}`)", "give --pepper-file FILE, so that they are hashed and dropped"
    )
