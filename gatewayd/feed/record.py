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

from gatewayd.errors import PrefixInvalid, RecordRejected, ServiceInvalid
from gatewayd.model import Prefix, Registration, Service, Status, parse_prefix, parse_services
from gatewayd.model.msisdn import looks_like_number

_OCTETS: dict[str, int] = {str(number): number for number in range(256)}
_FIRST_OCTETS: dict[str, int] = {str(number): number for number in range(1, 224) if number not in (127, 169)}
"""First bytes of IPv4 under which every prefix of /8 or longer is unicast."""

_HOST_BITS_4: dict[str, tuple[int, int]] = {str(n): (n, (1 << (32 - n)) - 1) for n in range(8, 33)}
_LENGTHS_6: dict[str, int] = {str(n): n for n in range(16, 129)}

_split_global_6 = re.compile(
    r"([23][0-9a-f]{3}(?::[0-9a-f]{1,4}){0,5})::([0-9a-f]{0,4})/([0-9]{2,3})", re.ASCII
).fullmatch
"""The usual IPv6 prefix, in 2000::/3 and with its zeros at the end, or before the last group of a host."""

_NOT_UNICAST: tuple[tuple[Prefix, str], ...] = (
    (Prefix(bytes((0, 0, 0, 0)), 8), "this network (RFC 1122)"),
    (Prefix(bytes((127, 0, 0, 0)), 8), "loopback"),
    (Prefix(bytes((169, 254, 0, 0)), 16), "link-local"),
    (Prefix(bytes((224, 0, 0, 0)), 4), "multicast"),
    (Prefix(bytes((240, 0, 0, 0)), 4), "reserved"),
    (Prefix(bytes(16), 80), "unspecified, loopback or IPv4-compatible"),
    (Prefix(b"\xfe\x80" + bytes(14), 10), "link-local"),
    (Prefix(b"\xff" + bytes(15), 8), "multicast"),
)
_IPV4_MAPPED = Prefix(bytes(10) + b"\xff\xff" + bytes(4), 96)


def parse_unicast_prefix(text: str) -> Prefix:
    """A client or peer prefix. Raises PrefixInvalid; beyond the model's codes, `prefix_not_unicast`."""
    try:
        address, length_text = text.split("/")
        a, b, c, d = address.split(".")
        packed = bytes((_FIRST_OCTETS[a], _OCTETS[b], _OCTETS[c], _OCTETS[d]))
        length, host_bits = _HOST_BITS_4[length_text]
    except (ValueError, KeyError):
        pass
    else:
        if length == 32 or not int.from_bytes(packed, "big") & host_bits:
            return Prefix(packed, length)
    match = _split_global_6(text)
    if match is not None:
        groups = match[1].split(":")
        length, last = _LENGTHS_6.get(match[3], 0), match[2]
        leading = bytes.fromhex("".join([g.zfill(4) for g in groups]))
        packed = leading.ljust(14, b"\0") + bytes.fromhex(last.zfill(4))
        if length == 128 or (length and not int.from_bytes(packed, "big") & ((1 << (128 - length)) - 1)):
            return Prefix(packed, length)
    return _parse_slowly(text)


def _parse_slowly(text: str) -> Prefix:
    prefix = parse_prefix(text)
    if _IPV4_MAPPED.covers(prefix.packed):
        raise PrefixInvalid(text[:64], "prefix_syntax", "an IPv4-mapped IPv6 address; write it as IPv4")
    for block, what in _NOT_UNICAST:
        if block.covers(prefix.packed):
            raise PrefixInvalid(text[:64], "prefix_not_unicast", f"{what}; no registrant has such an address")
    return prefix


ReasonCode = Literal[
    "not_json", "not_object", "not_utf8", "nul_byte", "line_too_long", "bad_columns", "unknown_field",
    "identity_field", "missing_field", "bad_type", "bad_id", "duplicate_id", "bad_category", "bad_status",
    "prefix_syntax", "prefix_host_bits", "prefix_too_short", "prefix_not_unicast", "no_client_or_subscriber",
    "bad_subscriber", "bad_service", "bad_time", "window_empty", "too_many", "phone_number",
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
    "bad_type": "A field is not of its JSON type (text, or a list of texts).",
    "bad_id": "`id` is not 1 to 64 of A-Z a-z 0-9 . _ : -",
    "duplicate_id": "The same `id` stands earlier in the same source; the earlier one is used.",
    "bad_category": "`category` is not a lower-case word.",
    "bad_status": "`status` is not active, suspended or revoked.",
    "prefix_syntax": "A client or peer is not an IPv4 or IPv6 prefix, or is an IPv4-mapped one.",
    "prefix_host_bits": "A prefix has bits set beyond its length.",
    "prefix_too_short": "A prefix is shorter than /8 (IPv4) or /16 (IPv6).",
    "prefix_not_unicast": "A prefix is loopback, link-local, multicast, unspecified or reserved.",
    "no_client_or_subscriber": "There is neither a client prefix nor a subscriber.",
    "bad_subscriber": "`subscriber` is not `hmac-sha256:` and 64 lower-case hex digits.",
    "bad_service": "A service is not a known protocol, protocol/port, protocol/low-high or bundle.",
    "bad_time": "A time is not RFC 3339 with an offset.",
    "window_empty": "`valid_until` is not after `valid_from`.",
    "too_many": "More than 1024 clients, 256 peers or 64 services.",
    "phone_number": "`id` or `category` looks like a phone number, with or without dashes; the id is not shown.",
}
"""Every reason why a record is not used: stable codes (a metric label), and sentences for people."""

FIELDS: Final = (
    "id", "category", "status", "clients", "subscriber", "peers", "services", "valid_from", "valid_until",
)  # fmt: skip
REQUIRED_FIELDS: Final = ("id", "category", "status")
LIST_FIELDS: Final = frozenset({"clients", "peers", "services"})

MAX_LINE_BYTES: Final = 64 * 1024
MAX_CLIENTS, MAX_PEERS, MAX_SERVICES = 1024, 256, 64

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
_subscriber_parts = re.compile(r"hmac-sha256:([0-9a-f]{64})", re.ASCII).fullmatch
_is_prefix_like = re.compile(r"[0-9a-fA-F:./]*[.:][0-9a-fA-F:./]*", re.ASCII).fullmatch
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


_decode_wire = msgspec.json.Decoder(WireRecord).decode
_decode_any = msgspec.json.Decoder().decode


class RecordParser:
    """Parses the records of one source and lets equal parts of them be one object.

    A category, a list of peers or services, and a time repeat a great deal over a million records. Each cache
    is emptied when it holds MAX_SHARED: a source in which nothing repeats then shares less, and that is all.
    """

    __slots__ = ("_categories", "_peers", "_services", "_times")

    def __init__(self) -> None:
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
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
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
        clients = _parse_prefixes("clients", wire.clients, MAX_CLIENTS) if wire.clients else ()
        subscriber = _parse_subscriber(wire.subscriber) if wire.subscriber is not None else None
        if not clients and subscriber is None:
            raise _rejected("no_client_or_subscriber", "", "needs `clients`, `subscriber` or both")
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
        )

    def _share_category(self, word: str) -> str:
        if not _is_category(word):
            raise _rejected("bad_category", "category", "must be a lower-case word of at most 32 characters")
        if looks_like_number(word):
            raise _rejected("phone_number", "category", _NO_NUMBER)
        _remember(self._categories, word, word)
        return word

    def _share_peers(self, texts: tuple[str, ...]) -> tuple[Prefix, ...]:
        peers = _parse_prefixes("peers", texts, MAX_PEERS)
        _remember(self._peers, texts, peers)
        return peers

    def _share_services(self, words: tuple[str, ...]) -> tuple[Service, ...]:
        _check_count("services", len(words), MAX_SERVICES)
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


def is_id(text: str) -> bool:
    """Whether a text can be an id, and be shown as one."""
    return is_id_text(text) is not None and not looks_like_number(text)


def id_of_line(line: bytes) -> str | None:
    """The id of a line that was rejected, if it has one that can be shown."""
    try:
        value = _decode_any(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
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
    except (msgspec.DecodeError, RecursionError):
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
            is_right = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        else:
            is_right = isinstance(value, str)
        if not is_right and value is not None:
            raise _rejected("bad_type", name, f"must be {'a list of texts' if name in LIST_FIELDS else 'a text'}")
    return msgspec.convert(fields, WireRecord)


def _check_count(field: str, count: int, most: int) -> None:
    if count > most:
        raise _rejected("too_many", field, f"{count}, and at most {most} are taken")


def _parse_prefixes(field: str, texts: tuple[str, ...], most: int) -> tuple[Prefix, ...]:
    """Sorted and without duplicates."""
    try:
        if len(texts) == 1:
            return (parse_unicast_prefix(texts[0]),)
        _check_count(field, len(texts), most)
        return tuple(sorted({parse_unicast_prefix(text) for text in texts}))
    except PrefixInvalid as error:
        what = error.text if _is_prefix_like(error.text) else "a prefix"
        raise RecordRejected(error.code, field, f"{what}: {error.why}") from None


def _parse_subscriber(text: str) -> bytes:
    """The digest of `hmac-sha256:<64 hex>`. What is wrong may be a phone number and is never shown."""
    match = _subscriber_parts(text)
    if match is None:
        raise _rejected("bad_subscriber", "subscriber", "must be hmac-sha256: and 64 lower-case hex digits")
    return bytes.fromhex(match[1])


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
