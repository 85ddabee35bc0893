"""One record of a source → a Registration, or the reason why not.

Two ways through: a typed decode that accepts what is right in a few microseconds, and, only where that fails,
a slow one over plain fields that finds which rule is broken. Both end in the same checks of the values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from math import inf
from typing import Final, Literal, TypeVar, get_args

import msgspec

from gatewayd.errors import RecordRejected, ServiceInvalid
from gatewayd.feed.addresses import check_count, parse_endpoints, parse_prefixes
from gatewayd.model import Extension, Prefix, Registration, Service, Status, parse_services
from gatewayd.model.decoding import UNDECODABLE
from gatewayd.model.msisdn import looks_like_national_id, looks_like_number, parse_digest

ReasonCode = Literal[
    "not_json", "not_object", "not_utf8", "nul_byte", "line_too_long", "bad_columns", "unknown_field",
    "identity_field", "missing_field", "bad_type", "bad_id", "duplicate_id", "bad_category", "bad_status",
    "prefix_syntax", "prefix_host_bits", "prefix_too_short", "prefix_not_unicast", "no_client_or_subscriber",
    "bad_subscriber", "bad_service", "bad_time", "window_empty", "too_many", "phone_number",
    "bad_registrant", "national_id", "provisional_open", "endpoints_not_allowed", "endpoint_too_short",
    "endpoint_with_client", "endpoint_without_service",
]  # fmt: skip

REASONS: Final[dict[ReasonCode, str]] = {
    "not_json": "The line is not one JSON value.",
    "not_object": "The line is JSON, but not one object.",
    "not_utf8": "The line is not UTF-8.",
    "nul_byte": "The line holds a NUL byte, as a file does that was being written when the power failed.",
    "line_too_long": "The line is longer than 64 KiB.",
    "bad_columns": "The CSV row does not have one value for each column of the header.",
    "unknown_field": "A field is not one of a registration's.",
    "identity_field": "A field carries the identity of a person; the registry feed must not.",
    "missing_field": "`id`, `category` or `status` is absent.",
    "bad_type": "A field is not of its JSON type (text, a list of texts, or true and false).",
    "bad_id": "`id` is not 1 to 64 of A-Z a-z 0-9 . _ : -",
    "duplicate_id": "The same `id` stands earlier in the same source; the earlier one is used.",
    "bad_category": "`category` is not a lower-case word.",
    "bad_status": "`status` is not active, suspended or revoked.",
    "prefix_syntax": "A client, peer or endpoint is not an IPv4 or IPv6 prefix, or is an IPv4-mapped one.",
    "prefix_host_bits": "A prefix has bits set beyond its length.",
    "prefix_too_short": "A prefix is shorter than /8 (IPv4) or /16 (IPv6).",
    "prefix_not_unicast": "A prefix is loopback, link-local, multicast, unspecified or reserved.",
    "no_client_or_subscriber": "There is neither a client prefix nor a subscriber nor an endpoint.",
    "bad_subscriber": "`subscriber` is not `hmac-sha256:` and 64 lower-case hex digits.",
    "bad_service": "A service is not a known protocol, protocol/port, protocol/low-high or bundle.",
    "bad_time": "A time is not RFC 3339 with an offset.",
    "window_empty": "`valid_until` is not after `valid_from`.",
    "too_many": "More than 1024 clients, 256 peers, 256 endpoints or 64 services.",
    "phone_number": "`id`, `category` or `registrant` looks like a phone number; the id is not shown.",
    "bad_registrant": "`registrant` is not 1 to 64 of A-Z a-z 0-9 . _ : -",
    "national_id": "`registrant` looks like a national identity number.",
    "provisional_open": "`provisional` is true, and there is no `valid_until`.",
    "endpoints_not_allowed": "The source may not bring `endpoints` (`allow_endpoints` is false).",
    "endpoint_too_short": "An endpoint is shorter than /24 (IPv4) or /48 (IPv6).",
    "endpoint_with_client": "There are `endpoints`, and `clients`, `subscriber` or `peers` beside them.",
    "endpoint_without_service": "There are `endpoints` and no `services`.",
}
"""Every reason why a record is not used: stable codes (a metric label), and sentences for people."""

FIELDS: Final = (
    "id", "category", "status", "clients", "subscriber", "peers", "services", "valid_from", "valid_until",
    "registrant", "provisional", "endpoints",
)  # fmt: skip
REQUIRED_FIELDS: Final = ("id", "category", "status")
LIST_FIELDS: Final = frozenset({"clients", "peers", "services", "endpoints"})
FLAG_FIELDS: Final = frozenset({"provisional"})
"""True or false; in a cell of CSV `true` or `false`."""

MAX_LINE_BYTES: Final = 64 * 1024
MAX_CLIENTS, MAX_PEERS, MAX_SERVICES, MAX_ENDPOINTS = 1024, 256, 64, 256

IDENTITY_WORDS: Final = frozenset({
    "name", "fullname", "firstname", "lastname", "surname", "username", "fathername", "mothername",
    "husbandname", "spouse", "owner", "ownername", "contact", "person", "cnic", "nic", "nicop", "snic", "poc",
    "passport", "ntn", "dob", "birthdate", "dateofbirth", "gender", "msisdn", "phone", "phonenumber",
    "telephone", "tel", "mobile", "cell", "cellphone", "whatsapp", "fax", "email", "mail", "address",
    "street", "imsi", "imei", "iccid", "sim",
})  # fmt: skip
"""Words that make a field one that carries a person's identity; case, `-` and `_` do not matter."""

_STATUSES: Final[dict[str, Status]] = {status: status for status in get_args(Status)}
MAX_SHARED: Final = 65_536
"""Parts that one cache of a RecordParser holds at most."""

is_id_text = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII).fullmatch
# Quick: an id text of any length in which `looks_like_number` sees no number.
_is_plain_id = re.compile(r"(?:[A-Za-z._:-]++|[1-9][0-9]*+|0(?![0-9.-]{9})[0-9]*+){1,64}+", re.ASCII).fullmatch
_NO_NUMBER: Final = "looks like a phone number; the registry feed must carry none"
_is_category = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII).fullmatch
_is_field_name = re.compile(r"[A-Za-z_][A-Za-z_-]{0,31}", re.ASCII).fullmatch
_is_service_like = re.compile(r"[a-z][a-z0-9]{0,11}(?:/[0-9]{1,6}(?:-[0-9]{1,6})?)?", re.ASCII).fullmatch
_time_parts = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:)(\d\d)(\.\d{1,6})?\d*([Zz]|[+-]\d\d:\d\d)", re.ASCII
).fullmatch
_CAMEL_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])")
_word_breaks = re.compile(r"[-_.\s]+").split
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_K = TypeVar("_K")
_V = TypeVar("_V")


class WireRecord(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A record as it is written, its types checked and nothing else. None = absent."""

    id: str
    category: str
    status: str
    clients: tuple[str, ...] | None = None
    subscriber: str | None = None
    peers: tuple[str, ...] | None = None
    services: tuple[str, ...] | None = None
    valid_from: str | None = None
    valid_until: str | None = None
    registrant: str | None = None
    provisional: bool | None = None
    endpoints: tuple[str, ...] | None = None


_decode_wire = msgspec.json.Decoder(WireRecord).decode
_decode_any = msgspec.json.Decoder().decode


class RecordParser:
    """Parses the records of one source and lets equal parts of them be one object.

    `allows_endpoints`: whether the source may bring endpoints of licensed providers.

    A category, a list of peers or services, and a time repeat a great deal over a million records. Each cache
    is emptied when it holds MAX_SHARED: a source in which nothing repeats then shares less, and that is all.
    """

    __slots__ = ("_allows_endpoints", "_categories", "_extensions", "_peers", "_services", "_times")

    def __init__(self, *, allows_endpoints: bool = True) -> None:
        self._allows_endpoints = allows_endpoints
        self._extensions: dict[tuple[str | None, bool, tuple[str, ...]], Extension] = {}
        self._categories: dict[str, str] = {}
        self._peers: dict[tuple[str, ...], tuple[Prefix, ...]] = {(): ()}
        self._services: dict[tuple[str, ...], tuple[Service, ...]] = {(): ()}
        self._times: dict[str, float] = {}

    def parse(self, line: bytes) -> Registration:
        """One line of NDJSON, without its newline. Raises RecordRejected."""
        if len(line) > MAX_LINE_BYTES:
            raise _rejected("line_too_long", "", f"longer than {MAX_LINE_BYTES} bytes")
        try:
            wire = _decode_wire(line)
        except UNDECODABLE:
            return self.of_fields(_decode_fields(line))
        return self.of_wire(wire)

    def of_fields(self, fields: dict[str, object]) -> Registration:
        """A record given as plain fields. Raises RecordRejected, an identity field before any other fault."""
        _check_names(fields)
        return self.of_wire(_typed(fields))

    def of_wire(self, wire: WireRecord) -> Registration:
        """A record whose types are right. Raises RecordRejected for the first bad value."""
        if (not _is_plain_id(wire.id) or len(wire.id) > 64) and not is_id(wire.id):
            if is_id_text(wire.id):
                raise _rejected("phone_number", "id", _NO_NUMBER)
            raise _rejected("bad_id", "id", "must be 1 to 64 of A-Z a-z 0-9 . _ : -")
        status = _STATUSES.get(wire.status)
        if status is None:
            raise _rejected("bad_status", "status", "must be active, suspended or revoked")
        clients = parse_prefixes("clients", wire.clients, MAX_CLIENTS) if wire.clients else ()
        subscriber = _parse_subscriber(wire.subscriber) if wire.subscriber is not None else None
        extension = None
        if wire.registrant is not None or wire.provisional or wire.endpoints:
            extension = self._extend(wire)
        if not clients and subscriber is None and not wire.endpoints:
            raise _rejected("no_client_or_subscriber", "", "needs `clients`, `subscriber` or `endpoints`")
        since, until = wire.valid_from, wire.valid_until
        valid_from_s = -inf if since is None else self._time("valid_from", since)
        valid_until_s = inf if until is None else self._time("valid_until", until)
        if valid_until_s <= valid_from_s:
            raise _rejected("window_empty", "valid_until", "must be after `valid_from`")
        peers, services = wire.peers or (), wire.services or ()
        category = self._categories.get(wire.category)
        shared_peers, shared_services = self._peers.get(peers), self._services.get(services)
        return Registration(
            wire.id,
            self._share_category(wire.category) if category is None else category,
            status,
            clients,
            subscriber,
            self._share_peers(peers) if shared_peers is None else shared_peers,
            self._share_services(services) if shared_services is None else shared_services,
            valid_from_s,
            valid_until_s,
            extension,
        )

    def _extend(self, wire: WireRecord) -> Extension:
        """What few records have. Raises RecordRejected."""
        endpoints = wire.endpoints or ()
        if endpoints:
            self._check_endpoints(wire)
        if wire.provisional and wire.valid_until is None:
            raise _rejected("provisional_open", "valid_until", "is required where `provisional` is true")
        parts = wire.registrant, bool(wire.provisional), endpoints
        extension = self._extensions.get(parts)
        if extension is None:
            registrant = None if wire.registrant is None else _check_registrant(wire.registrant)
            found = parse_endpoints(endpoints, MAX_ENDPOINTS) if endpoints else ()
            extension = Extension(registrant, bool(wire.provisional), found)
            _remember(self._extensions, parts, extension)
        return extension

    def _check_endpoints(self, wire: WireRecord) -> None:
        if not self._allows_endpoints:
            raise _rejected("endpoints_not_allowed", "endpoints", "the source may not bring any (allow_endpoints)")
        if wire.clients or wire.subscriber is not None or wire.peers:
            raise _rejected("endpoint_with_client", "endpoints", "stand without `clients`, `subscriber`, `peers`")
        if not wire.services:
            raise _rejected("endpoint_without_service", "services", "are required where there are `endpoints`")

    def _share_category(self, word: str) -> str:
        if not _is_category(word):
            raise _rejected("bad_category", "category", "must be a lower-case word of at most 32 characters")
        if looks_like_number(word):
            raise _rejected("phone_number", "category", _NO_NUMBER)
        _remember(self._categories, word, word)
        return word

    def _share_peers(self, texts: tuple[str, ...]) -> tuple[Prefix, ...]:
        peers = parse_prefixes("peers", texts, MAX_PEERS)
        _remember(self._peers, texts, peers)
        return peers

    def _share_services(self, words: tuple[str, ...]) -> tuple[Service, ...]:
        check_count("services", len(words), MAX_SERVICES)
        try:
            services = parse_services(words)
        except ServiceInvalid as error:
            what = error.text if _is_service_like(error.text) else "a service"
            raise _rejected("bad_service", "services", f"{what}: {error.why}") from None
        _remember(self._services, words, services)
        return services

    def _time(self, field: str, text: str) -> float:
        moment = self._times.get(text)
        if moment is None:
            moment = _parse_time(field, text)
            _remember(self._times, text, moment)
        return moment


def parse_record(line: bytes) -> Registration:
    """One line of NDJSON. Raises RecordRejected. For many records, keep a RecordParser: it shares parts."""
    return RecordParser().parse(line)


def registration_of(fields: dict[str, object]) -> Registration:
    """One record given as plain fields (YAML pins, a database row). Raises RecordRejected."""
    return RecordParser().of_fields(fields)


def is_registrant(text: str) -> bool:
    """Whether a text can be the key of a company, and be shown as one."""
    return is_id(text) and not looks_like_national_id(text)


def _check_registrant(text: str) -> str:
    """Raises RecordRejected, which does not show it."""
    if not is_id_text(text):
        raise _rejected("bad_registrant", "registrant", "must be 1 to 64 of A-Z a-z 0-9 . _ : -")
    if looks_like_number(text):
        raise _rejected("phone_number", "registrant", _NO_NUMBER)
    if looks_like_national_id(text):
        raise _rejected("national_id", "registrant", "looks like a national identity number; use an opaque key")
    return text


def is_id(text: str) -> bool:
    """Whether a text can be an id, and be shown as one."""
    return is_id_text(text) is not None and not looks_like_number(text)


def id_of_line(line: bytes) -> str | None:
    """The id of a line that was rejected, if it has one that can be shown."""
    try:
        value = _decode_any(line)
    except UNDECODABLE:
        return None
    id = value.get("id") if isinstance(value, dict) else None
    return id if isinstance(id, str) and is_id(id) else None


def identity_field_of(names: Iterable[str]) -> str | None:
    """The first of these names that carries a person's identity, fit to be shown; None if none does."""
    for name in names:
        if name not in FIELDS and not IDENTITY_WORDS.isdisjoint(_words_of(name)):
            return shown_name(name)
    return None


def _words_of(name: str) -> list[str]:
    """`contactEmail`, `Contact-Email`: contact, email, contactemail."""
    words = _word_breaks(_CAMEL_BREAK.sub("_", name).lower())
    return [*words, "".join(words)]


def shown_name(name: str) -> str:
    """A field's name if it looks like one; what does not may be a value in the wrong place."""
    return name if _is_field_name(name) else "(not a word)"


def _rejected(code: ReasonCode, field: str, detail: str) -> RecordRejected:
    return RecordRejected(code, field, detail)


def _remember(cache: dict[_K, _V], key: _K, value: _V) -> None:
    if len(cache) >= MAX_SHARED:
        cache.clear()
    cache[key] = value


def _decode_fields(line: bytes) -> dict[str, object]:
    """The line as plain fields, without opinions on their names and types."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise _rejected("not_utf8", "", "the line is not UTF-8") from None
    if "\0" in text:
        raise _rejected("nul_byte", "", "the line holds a NUL byte")
    try:
        value = _decode_any(text)
    except UNDECODABLE:
        raise _rejected("not_json", "", "the line is not one JSON object") from None
    if not isinstance(value, dict):
        raise _rejected("not_object", "", "must be one JSON object a line, not a list or a single value")
    return value


def _check_names(fields: dict[str, object]) -> None:
    identity = identity_field_of(fields)
    if identity is not None:
        raise _rejected("identity_field", identity, "carries a person's identity; the registry feed must not")
    for name in fields:
        if name not in FIELDS:
            raise _rejected("unknown_field", shown_name(name), "is not a field of a registration")
    for name in REQUIRED_FIELDS:
        if fields.get(name) is None:
            raise _rejected("missing_field", name, "is required")


def _typed(fields: dict[str, object]) -> WireRecord:
    for name, value in fields.items():
        if name in LIST_FIELDS:
            kind = "a list of texts"
            is_right = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        elif name in FLAG_FIELDS:
            kind, is_right = "true or false", isinstance(value, bool)
        else:
            kind, is_right = "a text", isinstance(value, str)
        if not is_right and value is not None:
            raise _rejected("bad_type", name, f"must be {kind}")
    return msgspec.convert(fields, WireRecord)


def _parse_subscriber(text: str) -> bytes:
    """The digest of `hmac-sha256:<64 hex>`. What is wrong may be a phone number and is never shown."""
    digest = parse_digest(text)
    if digest is None:
        raise _rejected("bad_subscriber", "subscriber", "must be hmac-sha256: and 64 lower-case hex digits")
    return digest


def _parse_time(field: str, text: str) -> float:
    """Unix seconds of an RFC 3339 §5.6 date-time; a leap second is the first second after it."""
    match = _time_parts(text)
    try:
        if match is None:
            raise ValueError
        date, minute, second, fraction, offset = match.groups("")
        is_leap = second == "60"
        offset = "+00:00" if offset in "Zz" else offset
        moment = datetime.fromisoformat(f"{date}T{minute}{'59' if is_leap else second}{fraction}{offset}")
    except ValueError:
        raise _rejected("bad_time", field, "must be RFC 3339, such as 2024-11-01T00:00:00Z") from None
    return (moment - _EPOCH).total_seconds() + is_leap
