"""One file of local overrides: YAML → pins, filters and assertions, or every fault of it (RFC 8416 §3).

    pins:
      - {id: LOCAL-1, category: bank, clients: [203.0.113.0/28], services: [ipsec],
         comment: "agreed by phone 2024-11-03, ticket 4711", until: 2025-01-01T00:00:00Z}
    filters:
      - {id: PK-2024-000123, comment: "compromised", until: null}
      - {prefix: 198.51.100.0/24, comment: "hijacked"}
    must_pass:
      - {name: hbl-swift, source: 203.0.113.5, destination: 198.51.100.7, service: ipsec, comment: "ticket 4712"}
    must_not_pass:
      - {name: stolen-line, source: 203.0.113.9, destination: 198.51.100.7, service: udp/51820, comment: "fraud"}

A pin is a registration, by the same rules as one of a registry (`status` is active if nothing is said), with a
comment and an end. An assertion names an address at each end; that of a customer stands for the customer. A fault
shows what stands in the file, but not where it may be a person's number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from gatewayd.errors import OverridesInvalid, PrefixInvalid, RecordRejected, ServiceInvalid
from gatewayd.feed.addresses import parse_unicast_prefix
from gatewayd.feed.record import LIST_FIELDS, registration_of
from gatewayd.model import Prefix, Registration, Service, parse_service
from gatewayd.model.assertion import MAX_ASSERTIONS, Assertion, AssertionKind
from gatewayd.model.msisdn import may_name_person
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS
from gatewayd.settings.load import load_document
from gatewayd.settings.readers import (
    FAULTY,
    Check,
    Found,
    Key,
    ListOf,
    Node,
    OrNull,
    Report,
    Section,
    Value,
    child_of,
    join_path,
    keep_private,
    quote,
)
from gatewayd.settings.values import parse_switch, parse_time

MAX_COMMENT: Final = 1000
_GOOD_FIELDS: Final = {"id": "x", "category": "x", "status": "active", "clients": ["192.0.2.1"]}
_GOOD_PROVIDER: Final = {"id": "x", "category": "x", "status": "active", "services": ["esp"]}

_looks_like_prefix = re.compile(r"[0-9a-fA-F:./]*[.:][0-9a-fA-F:./]*", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class Pin:
    """A registration of the operator's own, good until `until_s` (Unix seconds, inf: for ever). `line` of `file`
    has it."""

    registration: Registration
    comment: str
    until_s: float
    line: int
    file: str = ""

    @property
    def id(self) -> str:
        return self.registration.id


@dataclass(frozen=True, slots=True)
class Filter:
    """Drops the registration of an `id`, or every client prefix that lies in `prefix`; exactly one is given."""

    id: str | None
    prefix: Prefix | None
    comment: str
    until_s: float
    line: int
    file: str = ""


@dataclass(frozen=True, slots=True)
class OverrideFile:
    """What one file says, in its order. `name` is the file's own, without directory."""

    name: str
    pins: tuple[Pin, ...] = ()
    filters: tuple[Filter, ...] = ()
    assertions: tuple[Assertion, ...] = ()


def parse_overrides(text: str, name: str, filename: str) -> OverrideFile:
    """Raises OverridesInvalid with one line per fault, in file order. `filename` names the file in them."""
    report = Report()
    content = load_document(text, _FILE, report)
    if not isinstance(content, _File):
        raise OverridesInvalid(report.lines(filename))
    return OverrideFile(
        name,
        tuple(replace(pin, file=name) for pin in content.pins or ()),
        tuple(replace(each, file=name) for each in content.filters or ()),
        tuple(replace(each, file=name) for each in (*(content.must_pass or ()), *(content.must_not_pass or ()))),
    )


@dataclass(frozen=True, slots=True)
class _File:
    pins: tuple[Pin, ...] | None = None
    filters: tuple[Filter, ...] | None = None
    must_pass: tuple[Assertion, ...] | None = None
    must_not_pass: tuple[Assertion, ...] | None = None


@dataclass(frozen=True, slots=True)
class _PinFields:
    """Texts, each right by itself."""

    id: str
    category: str
    comment: str
    status: str = "active"
    clients: tuple[str, ...] = ()
    subscriber: str | None = None
    peers: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    valid_from: str | None = None
    valid_until: str | None = None
    registrant: str | None = None
    provisional: bool = False
    endpoints: tuple[str, ...] = ()
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class _FilterFields:
    comment: str
    id: str | None = None
    prefix: Prefix | None = None
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class _AssertionFields:
    name: str
    source: bytes
    destination: bytes
    services: tuple[Service, ...]
    comment: str
    until_s: float | None = None


def _field_of_record(field: str) -> Callable[[str], str]:
    """A parser that holds one field's text to the rules of a record."""

    def parse(text: str) -> str:
        good = _GOOD_PROVIDER if field == "endpoints" else _GOOD_FIELDS
        try:
            registration_of({**good, field: [text] if field in LIST_FIELDS else text})
        except RecordRejected as error:
            what = error.detail.removeprefix(f"{text[:64]!r}: ").removeprefix(f"{text[:64]}: ")
            raise ValueError(f"is refused ({error.code}): {what}") from None
        return text

    return parse


def _parse_comment(text: str) -> str:
    if not text.strip():
        raise ValueError("says nothing")
    if len(text) > MAX_COMMENT:
        raise ValueError(f"is longer than {MAX_COMMENT} characters")
    if may_name_person(text):
        raise ValueError("has a number of a person, or an e-mail address")
    return text


def _parse_prefix(text: str) -> Prefix:
    try:
        return parse_unicast_prefix(text)
    except PrefixInvalid as error:
        raise ValueError(f"is not a prefix: {error.why}") from None


def _parse_end(text: str) -> bytes:
    """An address: a customer's stands for the customer, and is looked up as a packet's is."""
    prefix = _parse_prefix(text)
    if prefix.length < 8 * len(prefix.packed):
        raise ValueError("is a prefix")
    return prefix.packed


def _parse_asserted(word: str) -> tuple[Service, ...]:
    """A bundle stands for each of its services."""
    try:
        services = parse_service(word)
    except ServiceInvalid as error:
        raise ValueError(f"is not a service: {error.why}") from None
    if word not in BUNDLES and any(
        each.protocol in PROTOCOLS_WITH_PORTS and each.low != each.high for each in services
    ):
        raise ValueError("is more than one port")
    return services


def _show_name(text: str) -> str:
    return keep_private(text) if may_name_person(text) else quote(text)


def _show_prefix(text: str) -> str:
    return quote(text) if _looks_like_prefix(text) else keep_private(text)


_COMMENT = Value("why it is here, who agreed, when", _parse_comment, _show_name)
_UNTIL = OrNull(Value("a time with its offset such as 2025-01-01T00:00:00Z, or null", parse_time, _show_name))
_ID = Value("1 to 64 of A-Z a-z 0-9 . _ : -", _field_of_record("id"), _show_name)
_CATEGORY = Value("a lower-case word such as bank", _field_of_record("category"), _show_name)
_KEY = "1 to 64 of A-Z a-z 0-9 . _ : -, and no number of a person"
_A_PREFIX = "a prefix such as 203.0.113.0/28"


def _time_of(field: str) -> OrNull:
    return OrNull(Value("a time such as 2024-11-01T00:00:00Z, or null", _field_of_record(field), _show_name))


def _prefixes_of(field: str) -> ListOf:
    return ListOf(Value(_A_PREFIX, _field_of_record(field), _show_prefix), "a list of prefixes")


_PIN = Section(
    _PinFields,
    {
        "id": Key("id", _ID),
        "category": Key("category", _CATEGORY),
        "status": Key("status", Value("active, suspended or revoked", _field_of_record("status"), _show_name)),
        "clients": Key("clients", _prefixes_of("clients")),
        "subscriber": Key(
            "subscriber",
            OrNull(Value("hmac-sha256: and 64 hex digits", _field_of_record("subscriber"), keep_private)),
        ),
        "peers": Key("peers", _prefixes_of("peers")),
        "services": Key(
            "services",
            ListOf(
                Value("a service such as ipsec or udp/51820", _field_of_record("services"), _show_name),
                "a list of services",
            ),
        ),
        "valid_from": Key("valid_from", _time_of("valid_from")),
        "valid_until": Key("valid_until", _time_of("valid_until")),
        "registrant": Key("registrant", OrNull(Value(_KEY, _field_of_record("registrant"), keep_private))),
        "provisional": Key("provisional", Value("true or false", parse_switch, _show_name)),
        "endpoints": Key("endpoints", _prefixes_of("endpoints")),
        "comment": Key("comment", _COMMENT),
        "until": Key("until_s", _UNTIL),
    },
)

_FILTER = Section(
    _FilterFields,
    {
        "id": Key("id", _ID),
        "prefix": Key("prefix", Value(_A_PREFIX, _parse_prefix, _show_prefix)),
        "comment": Key("comment", _COMMENT),
        "until": Key("until_s", _UNTIL),
    },
)


_END = Value("an address such as 203.0.113.5", _parse_end, _show_prefix)

_ASSERTION = Section(
    _AssertionFields,
    {
        "name": Key("name", _ID),
        "source": Key("source", _END),
        "destination": Key("destination", _END),
        "service": Key(
            "services",
            Value("a bundle, a port such as udp/51820 or a protocol such as gre", _parse_asserted, _show_name),
        ),
        "comment": Key("comment", _COMMENT),
        "until": Key("until_s", _UNTIL),
    },
)


class _PinReader:
    """Fields that are right by themselves → a Pin, if they are right together."""

    expected = _PIN.expected

    def read(self, node: Node, path: str, report: Report) -> object:
        fields = _PIN.read(node, path, report)
        if not isinstance(fields, _PinFields):
            return FAULTY
        record: dict[str, object] = {
            "id": fields.id,
            "category": fields.category,
            "status": fields.status,
            "clients": fields.clients,
            "subscriber": fields.subscriber,
            "peers": fields.peers,
            "services": fields.services,
            "valid_from": fields.valid_from,
            "valid_until": fields.valid_until,
            "registrant": fields.registrant,
            "provisional": fields.provisional,
            "endpoints": fields.endpoints,
        }
        try:
            registration = registration_of(record)
        except RecordRejected as error:
            place = (child_of(node, error.field) or node).place
            where = join_path(path, error.field) if error.field else path
            report.add(place, where, f"is refused ({error.code}): {error.detail}")
            return FAULTY
        return Pin(registration, fields.comment, _end_of(fields.until_s), node.place.line)


class _FilterReader:
    """An id or a prefix."""

    expected = _FILTER.expected

    def read(self, node: Node, path: str, report: Report) -> object:
        fields = _FILTER.read(node, path, report)
        if not isinstance(fields, _FilterFields):
            return FAULTY
        if (fields.id is None) == (fields.prefix is None):
            what = "has neither id nor prefix" if fields.id is None else "has both id and prefix"
            report.add(node.place, path, f"{what}, expected one of them")
            return FAULTY
        return Filter(fields.id, fields.prefix, fields.comment, _end_of(fields.until_s), node.place.line)


@dataclass(frozen=True, slots=True)
class _AssertionReader:
    """Two addresses of one family."""

    kind: AssertionKind

    expected = _ASSERTION.expected

    def read(self, node: Node, path: str, report: Report) -> object:
        fields = _ASSERTION.read(node, path, report)
        if not isinstance(fields, _AssertionFields):
            return FAULTY
        ends = fields.source, fields.destination
        if len(fields.source) != len(fields.destination):
            report.add(node.place, path, "has an IPv4 and an IPv6 address, expected two of one family")
            return FAULTY
        end_s = _end_of(fields.until_s)
        return Assertion(self.kind, fields.name, *ends, fields.services, fields.comment, end_s, node.place.line)


def _end_of(until_s: float | None) -> float:
    return inf if until_s is None else until_s


def _list_of(kind: AssertionKind) -> OrNull:
    return OrNull(ListOf(_AssertionReader(kind), "a list of assertions", unique_by="name"))


def _check_assertions(file: _File, found: Found) -> None:
    """No name in both lists, and no more than are looked up."""
    first, second = file.must_pass or (), file.must_not_pass or ()
    for name in sorted({each.name for each in first} & {each.name for each in second}):
        found.add("must_not_pass", f"{quote(name)} is in must_pass too, expected it in one of them")
    if len(first) + len(second) > MAX_ASSERTIONS:
        what = f"{len(first) + len(second)} assertions with must_pass, expected at most {MAX_ASSERTIONS}"
        found.add("must_not_pass" if second else "must_pass", what)


_FILE = Section(
    _File,
    {
        "pins": Key("pins", OrNull(ListOf(_PinReader(), "a list of pins", unique_by="id"))),
        "filters": Key("filters", OrNull(ListOf(_FilterReader(), "a list of filters"))),
        "must_pass": Key("must_pass", _list_of("must_pass")),
        "must_not_pass": Key("must_not_pass", _list_of("must_not_pass")),
    },
    (Check(("must_pass", "must_not_pass"), _check_assertions),),
)
