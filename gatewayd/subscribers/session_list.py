"""Live sessions as reported by others than a NAS: an AAA system by the API, an operator by a file. Pure.

An entry is an Interim that names every address of its session. It has

- `nas` and `session`, as accounting calls them, so that the NAS's own records of the session are of the same one
- `subscriber` (`hmac-sha256:` and 64 hex digits) or `number`, which is hashed here and goes no further
- `addresses`: prefixes, or addresses; in CSV with blanks between them
- `ports`, `1024-2047` or [1024, 2047], where the one IPv4 address among them is shared (CGNAT)
- `at`, when it was so (RFC 3339 or Unix seconds); now, if it does not say
- `interim`: in how many seconds it will be said again

A file is NDJSON, or CSV with a line of these names at its head. Codes of SessionEntryInvalid: `not_an_object`,
`unknown_field`, `missing`, `both`, `bad_type`, `empty`, `too_long`, `not_printable`, `bad_subscriber`,
`number_in_clear`, `bad_ports`, `bad_time`, `at_in_future`, `bad_interim`, those of model.msisdn after `number_`,
those of model.prefix, and those of radius.attributes; of a line, also `not_json`, `not_utf8` and `bad_columns`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from gatewayd.errors import MsisdnInvalid, PrefixInvalid, SessionEntryInvalid
from gatewayd.model.accounting import AccountingEvent, AccountingKind, NasProfile
from gatewayd.model.decoding import UNDECODABLE
from gatewayd.model.msisdn import (
    normalise_msisdn,
    parse_digest,
    session_digest,
    shows_number,
    shows_subscriber,
    subscriber_digest,
)
from gatewayd.model.prefix import Prefix, parse_prefix
from gatewayd.subscribers.radius.accounting import FUTURE_SKEW_S, MAX_INTERIM_S
from gatewayd.subscribers.radius.attributes import (
    LAST_PORT,
    MAX_ADDRESSES,
    SHORTEST_IPV4_LENGTH,
    SHORTEST_IPV6_LENGTH,
    host_prefix,
)

FIELDS: Final = ("nas", "session", "subscriber", "number", "addresses", "ports", "at", "interim")
MAX_TEXT: Final = 253
"""Bytes of an attribute's value (RFC 2865 §5)."""
MAX_FAULTS_KEPT: Final = 1000

_MAX_NUMBER: Final = 64
_MAX_SECONDS: Final = 10**12
_BOM: Final = b"\xef\xbb\xbf"
_BLANKS: Final = b" \t\r\n"

_port_block = re.compile(r"([0-9]{1,5})-([0-9]{1,5})", re.ASCII).fullmatch
_is_seconds = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII).fullmatch
_is_rfc_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
).fullmatch
_is_field_name = re.compile(r"[A-Za-z_][A-Za-z_.-]{0,31}", re.ASCII).fullmatch
_is_hardware_address = re.compile(r"[0-9a-f]{4}([-.][0-9a-f]{4}){2}|[0-9a-f]{2}(-[0-9a-f]{2}){5}", re.I).fullmatch
"""Their separators would pass for those of a number."""

ProfileOf = Callable[[str], NasProfile]
"""How a NAS, by its name, reports its sessions: of it are the country code, and whether session ids are hashed."""


class SessionFault(NamedTuple):
    """A line that is not used. `line` counts from 1; `field` is empty where it is about the whole line."""

    line: int
    field: str
    code: str
    why: str

    def __str__(self) -> str:
        return f"{self.line}: {self.field or '-'}: {self.code}: {self.why}"


class SessionList(NamedTuple):
    """`events`: by `at_s`. `faults`: the first MAX_FAULTS_KEPT. `faulty`: how many lines are not used."""

    events: list[AccountingEvent]
    faults: list[SessionFault]
    faulty: int


def entry_event(
    entry: object, *, pepper: bytes, profile_of: ProfileOf, now_s: float, kind: AccountingKind = "interim"
) -> AccountingEvent:
    """What an entry says, as a NAS would say it. `now_s`: by the wall clock. Raises SessionEntryInvalid."""
    if not isinstance(entry, Mapping):
        raise SessionEntryInvalid("", "not_an_object", "not an object with named fields")
    for name in entry:
        if name not in FIELDS:
            raise SessionEntryInvalid(_shown(name), "unknown_field", f"unknown, expected {', '.join(FIELDS)}")
    nas, session = _read_text(entry, "nas"), _read_text(entry, "session")
    profile = profile_of(nas)
    digits = _read_digits(entry, profile)
    subscriber = _read_digest(entry) if digits is None else subscriber_digest(digits, pepper)
    is_hashed = profile.session_ids == "digest"
    for field, text in [("nas", nas)] if is_hashed else [("nas", nas), ("session", session)]:
        _check_clear(field, text, subscriber if digits is None else digits, pepper, profile)
    if is_hashed:
        session = session_digest(session, pepper)
    addresses = _read_addresses(entry)
    return AccountingEvent(
        kind=kind,
        nas=nas,
        session=session,
        at_s=_read_time(entry, now_s),
        received_at_s=now_s,
        is_by_our_clock=True,
        subscriber=subscriber,
        addresses=addresses,
        is_snapshot=True,
        ports=_read_ports(entry, addresses),
        interim_s=_read_interim(entry),
    )


def end_events(
    nas: object, session: object, *, pepper: bytes, profile_of: ProfileOf, now_s: float, at: object = None
) -> list[AccountingEvent]:
    """The final Stop of a session. It may be called as accounting calls it, or as `gatewayd bindings` shows it:
    these are two where the profile hashes session ids. Raises SessionEntryInvalid."""
    entry = {"nas": nas, "session": session, "at": at}
    event = AccountingEvent(
        kind="stop",
        nas=_read_text(entry, "nas"),
        session=_read_text(entry, "session"),
        at_s=_read_time(entry, now_s),
        received_at_s=now_s,
        is_by_our_clock=True,
        is_final_stop=True,
    )
    if profile_of(event.nas).session_ids == "plain":
        return [event]
    return [event, msgspec.structs.replace(event, session=session_digest(event.session, pepper))]


def read_sessions(raw: bytes, *, pepper: bytes, profile_of: ProfileOf, now_s: float) -> SessionList:
    """The sessions of a file. A line that cannot be used costs its own session and no other.

    Takes some 25 µs a line and lets nothing else run meanwhile: a long file is for a thread.
    """
    raw = raw.removeprefix(_BOM)
    lines = _ndjson_entries(raw) if raw.lstrip(_BLANKS).startswith(b"{") else _csv_entries(raw)
    events: list[AccountingEvent] = []
    faults: list[SessionFault] = []
    faulty = 0
    for number, entry in lines:
        try:
            if isinstance(entry, SessionEntryInvalid):
                raise entry
            events.append(entry_event(entry, pepper=pepper, profile_of=profile_of, now_s=now_s))
        except SessionEntryInvalid as invalid:
            faulty += 1
            if len(faults) < MAX_FAULTS_KEPT:
                faults.append(SessionFault(number, invalid.field, invalid.code, invalid.why))
    events.sort(key=lambda event: event.at_s)
    return SessionList(events, faults, faulty)


# Lines


def _lines(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Those that are not blank, numbered from 1."""
    for number, line in enumerate(raw.split(b"\n"), 1):
        stripped = line.strip(_BLANKS)
        if stripped:
            yield number, stripped


def _ndjson_entries(raw: bytes) -> Iterator[tuple[int, object]]:
    for number, line in _lines(raw):
        try:
            entry: object = msgspec.json.decode(line)
        except UNDECODABLE:
            entry = SessionEntryInvalid("", "not_json", "not JSON")
        yield number, entry


def _csv_entries(raw: bytes) -> Iterator[tuple[int, object]]:
    """RFC 4180, a record a line. A head that is not understood is the only fault: without it nothing has a name."""
    columns: list[str] | None = None
    for number, line in _lines(raw):
        cells = _csv_cells(line)
        if columns is not None:
            yield number, cells if isinstance(cells, SessionEntryInvalid) else _csv_entry(columns, cells)
            continue
        if isinstance(cells, SessionEntryInvalid):
            yield number, cells
            return
        columns = [cell.strip() for cell in cells]
        unknown = [name for name in columns if name not in FIELDS]
        if unknown:
            why = f"unknown column, expected some of {', '.join(FIELDS)}"
            yield number, SessionEntryInvalid(_shown(unknown[0]), "unknown_field", why)
            return
        if len(set(columns)) < len(columns):
            yield number, SessionEntryInvalid("", "bad_columns", "a column is named twice")
            return


def _csv_cells(line: bytes) -> list[str] | SessionEntryInvalid:
    try:
        return next(csv.reader([line.decode()], strict=True))
    except UnicodeDecodeError:
        return SessionEntryInvalid("", "not_utf8", "not UTF-8")
    except csv.Error:
        return SessionEntryInvalid("", "bad_columns", "not a line of CSV")


def _csv_entry(columns: list[str], cells: list[str]) -> object:
    if len(cells) != len(columns):
        return SessionEntryInvalid("", "bad_columns", f"{len(cells)} columns, and {len(columns)} have a name")
    entry: dict[str, object] = {name: cell.strip(" \t") for name, cell in zip(columns, cells, strict=True)}
    filled = {name: value for name, value in entry.items() if value}
    if "addresses" in filled:
        filled["addresses"] = str(filled["addresses"]).split()
    return filled


# Fields. None is as good as absent.


def _shown(name: object) -> str:
    """A name that somebody else chose, if it is a name at all: a number may have come into its place."""
    return name if isinstance(name, str) and _is_field_name(name) else "?"


def _read_text(entry: Mapping[str, object], field: str) -> str:
    text = entry.get(field)
    if text is None:
        raise SessionEntryInvalid(field, "missing", "missing")
    if not isinstance(text, str):
        raise SessionEntryInvalid(field, "bad_type", "expected a text")
    if not text:
        raise SessionEntryInvalid(field, "empty", "empty")
    if not text.isprintable():
        raise SessionEntryInvalid(field, "not_printable", "has signs that cannot be printed")
    if len(text.encode()) > MAX_TEXT:
        raise SessionEntryInvalid(field, "too_long", f"longer than {MAX_TEXT} bytes")
    return text


def _read_digits(entry: Mapping[str, object], profile: NasProfile) -> str | None:
    """The number's digits; None where the digest is there in its place."""
    number, subscriber = entry.get("number"), entry.get("subscriber")
    if number is not None and subscriber is not None:
        raise SessionEntryInvalid("subscriber", "both", "`number` is there too; expected one of them")
    if number is None and subscriber is None:
        raise SessionEntryInvalid("subscriber", "missing", "missing, expected `subscriber` or `number`")
    if number is None:
        return None
    if not isinstance(number, str):
        raise SessionEntryInvalid("number", "bad_type", "expected a text")
    if len(number) > _MAX_NUMBER:
        raise SessionEntryInvalid("number", "too_long", f"longer than {_MAX_NUMBER} signs")
    if _is_hardware_address(number):
        raise SessionEntryInvalid("number", "number_hardware_address", "a MAC address")
    try:
        return normalise_msisdn(number.strip(), profile.country_code)
    except MsisdnInvalid as invalid:
        raise SessionEntryInvalid("number", f"number_{invalid.code}", invalid.why) from None


def _read_digest(entry: Mapping[str, object]) -> bytes:
    subscriber = entry.get("subscriber")
    digest = parse_digest(subscriber) if isinstance(subscriber, str) else None
    if digest is None:
        why = "expected `hmac-sha256:` and 64 lower-case hex digits"
        raise SessionEntryInvalid("subscriber", "bad_subscriber", why)
    return digest


def _check_clear(field: str, text: str, subscriber: str | bytes, pepper: bytes, profile: NasProfile) -> None:
    """The text is kept and shown, and a number in it too. `subscriber`: the number's digits, or its digest."""
    if (
        shows_number(text, subscriber)
        if isinstance(subscriber, str)
        else shows_subscriber(text, subscriber, pepper, profile.country_code)
    ):
        why = "has the subscriber's number in it; for session ids there is `session_ids: digest`"
        raise SessionEntryInvalid(field, "number_in_clear", why)


def _read_addresses(entry: Mapping[str, object]) -> tuple[Prefix, ...]:
    texts = entry.get("addresses")
    if texts is None:
        raise SessionEntryInvalid("addresses", "missing", "missing")
    if not isinstance(texts, list):
        raise SessionEntryInvalid("addresses", "bad_type", "expected a list of texts")
    if not texts:
        raise SessionEntryInvalid("addresses", "empty", "empty")
    if len(texts) > MAX_ADDRESSES:
        raise SessionEntryInvalid("addresses", "too_many_addresses", f"more than {MAX_ADDRESSES}")
    return tuple(dict.fromkeys(map(_read_prefix, texts)))


def _read_prefix(text: object) -> Prefix:
    if not isinstance(text, str):
        raise SessionEntryInvalid("addresses", "bad_type", "expected a list of texts")
    try:
        prefix = parse_prefix(text)
    except PrefixInvalid as invalid:
        raise SessionEntryInvalid("addresses", invalid.code, invalid.why) from None
    # What no subscriber can be bound to is in blocks larger than the shortest prefix: its first address decides.
    reason = host_prefix(prefix.packed)
    if isinstance(reason, str):
        raise SessionEntryInvalid("addresses", reason, f"nobody can be bound to {prefix}")
    shortest = SHORTEST_IPV4_LENGTH if prefix.family == 4 else SHORTEST_IPV6_LENGTH
    if prefix.length < shortest:
        raise SessionEntryInvalid("addresses", "prefix_too_short", f"{prefix} is shorter than /{shortest}")
    return prefix


def _read_ports(entry: Mapping[str, object], addresses: tuple[Prefix, ...]) -> tuple[int, int] | None:
    ports = entry.get("ports")
    if ports is None:
        return None
    first, last = _port_pair(ports)
    if not 1 <= first <= last <= LAST_PORT:
        raise SessionEntryInvalid("ports", "bad_ports", f"expected FIRST-LAST in order, from 1 to {LAST_PORT}")
    if [each.length for each in addresses if each.family == 4] != [32]:
        raise SessionEntryInvalid(
            "ports", "bad_ports", "expected one IPv4 address in `addresses`, and no IPv4 prefix"
        )
    return first, last


def _port_pair(ports: object) -> tuple[int, int]:
    """(0, 0) for what is none."""
    if isinstance(ports, str) and (parts := _port_block(ports)) is not None:
        return int(parts[1]), int(parts[2])
    if isinstance(ports, list) and len(ports) == 2 and all(type(port) is int for port in ports):
        return ports[0], ports[1]
    return 0, 0


def _read_time(entry: Mapping[str, object], now_s: float) -> float:
    at = entry.get("at")
    if at is None:
        return now_s
    at_s = _seconds(at)
    if at_s is None or not at_s >= 0:
        raise SessionEntryInvalid(
            "at", "bad_time", "expected RFC 3339 with a zone (2024-11-01T00:00:00Z) or Unix seconds"
        )
    if at_s > now_s + FUTURE_SKEW_S:
        raise SessionEntryInvalid("at", "at_in_future", f"more than {FUTURE_SKEW_S:.0f} s in the future")
    return at_s


def _seconds(at: object) -> float | None:
    if isinstance(at, int | float) and not isinstance(at, bool):
        return float(at) if abs(at) <= _MAX_SECONDS else None
    if not isinstance(at, str):
        return None
    if _is_seconds(at):
        return float(at)
    if _is_rfc_3339(at):
        try:
            return datetime.fromisoformat(at.upper()).timestamp()
        except ValueError:
            return None
    return None


def _read_interim(entry: Mapping[str, object]) -> int | None:
    interim = entry.get("interim")
    if isinstance(interim, str) and interim.isascii() and interim.isdigit() and len(interim) <= 12:
        interim = int(interim)
    if interim is None:
        return None
    if type(interim) is not int or not 1 <= interim <= MAX_INTERIM_S:
        raise SessionEntryInvalid("interim", "bad_interim", f"expected seconds, from 1 to {MAX_INTERIM_S}")
    return interim
