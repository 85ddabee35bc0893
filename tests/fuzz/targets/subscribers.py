"""What senders of accounting, and those who list sessions, may send."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from zlib import crc32

from gatewayd.errors import AccountingRejected, RadiusRejected, SessionEntryInvalid
from gatewayd.model import parse_address
from gatewayd.model.accounting import AccountingEvent, NasProfile
from gatewayd.model.msisdn import shows_number, subscriber_digest
from gatewayd.subscribers.journal_rows import decode_row, encode_key, encode_value
from gatewayd.subscribers.radius.accounting import read_event
from gatewayd.subscribers.radius.packet import AccountingRequest, encode_response, open_request
from gatewayd.subscribers.session_list import read_sessions
from tests.fuzz.target import NUMBER, Target, fault_of_message
from tests.support.accounting import ALI, Table
from tests.support.accounting import event as made_event
from tests.support.radius import (
    NOKIA_INTERIM,
    SECRET,
    VECTORS,
    accounting_request,
    attribute,
    framed_ipv4,
    huawei_block,
    integer,
    ipv6_prefix,
    is_response,
    nokia_block,
    port,
    status_server,
    text,
    tlvs,
)

PEPPER = b"the pepper of the fuzz"
NOW = 1_750_000_000.0
SECRETS = (b"another", SECRET)
SOURCE = parse_address("192.0.2.1")
PROFILES = (
    NasProfile(country_code="92"),
    NasProfile(
        interim="snapshot", identity="user-name", country_code="92", nat_side="outside", session_ids="digest"
    ),
    NasProfile(identity="3gpp-imsi"),
    NasProfile(identity="alc-msisdn"),
    NasProfile(identity="chargeable-user-identity"),
)


def datagram(raw: bytes) -> None:
    """As it comes; what is believed is answered, and the sender knows the answer for its own."""
    request = open_request(raw, SECRETS)
    answer = encode_response(request)
    assert is_response(answer, raw) or is_response(answer, raw, SECRETS[0])
    if isinstance(request, AccountingRequest):
        _events(request)


def attributes(raw: bytes) -> None:
    """The attributes of a request of a client that has the secret; an odd first byte has it signed too."""
    body = raw[1:4000]
    packet = accounting_request(body, is_signed=bool(raw[:1]) and bool(raw[0] & 1))
    request = open_request(packet, SECRETS)
    assert isinstance(request, AccountingRequest)
    answer = encode_response(request, is_signed=bool(raw[:1]) and bool(raw[0] & 2))
    assert is_response(answer, packet)
    _events(request)


def status(raw: bytes) -> None:
    """pyrad computes the Message-Authenticator over whatever it is."""
    packet = status_server(raw[:4000])
    assert is_response(encode_response(open_request(packet, SECRETS)), packet)


def _events(request: AccountingRequest) -> None:
    """By each kind of profile; what comes of it is taken by a table of sessions, and goes through its rows."""
    last: AccountingRejected | None = None
    for profile in PROFILES:
        try:
            event = read_event(request, SOURCE, profile, PEPPER, NOW)
        except AccountingRejected as error:
            last = error
            continue
        _check(event)
    if last is not None:
        raise last


def _check(event: AccountingEvent) -> None:
    shown = f"{event.nas} {event.session} {' '.join(event.ignored)}"
    if event.subscriber == subscriber_digest(NUMBER, PEPPER):
        assert not shows_number(shown, NUMBER), "a number in an event"
    assert event.subscriber is None or len(event.subscriber) == 32
    table = Table()
    table.take(event)
    for row in table.next_rows():
        if row.value is not None:
            assert decode_row(encode_key(row.key), encode_value(encode_key(row.key), row.value)) == row


def sessions(raw: bytes) -> None:
    found = read_sessions(raw, pepper=PEPPER, profile_of=lambda nas: PROFILES[len(nas) % 2], now_s=NOW)
    for fault in found.faults:
        assert NUMBER not in str(fault), "a number in a fault"
        why = fault_of_message(str(fault))
        assert why is None, why
    for event in found.events:
        assert event.subscriber is not None
    assert found.faulty >= len(found.faults)


def rows(raw: bytes) -> None:
    """A row of the journal: a byte says how long its key is. A table takes all that is decoded."""
    size = raw[0] if raw else 0
    key, value = raw[1 : 1 + size], raw[1 + size :]
    checked = crc32(value[4:], crc32(key)).to_bytes(4, "big") + value[4:]
    found = [decode_row(key, value), decode_row(key, checked)]
    some = [row for row in found if row is not None]
    table = Table()
    table.sessions.restore(some, NOW)
    table.next_rows()


@cache
def _believed() -> tuple[bytes, ...]:
    """Attributes of requests that others sent or published."""
    made = (
        integer(40, 1), text(44, "s-1"), text(31, f"+{NUMBER}"), text(1, f"{NUMBER}@isp"), framed_ipv4("10.0.0.1"),
        text(32, "bng-1"), integer(55, int(NOW)), integer(41, 3), integer(85, 600),
        ipv6_prefix(97, 64, "2001:db8::"), nokia_block("10.0.0.1 1024-2047"),
        huawei_block(parse_address("10.0.0.1"), port(1024), port(2047)),
        tlvs((1, b"\0\0\4\0"), (2, b"\0\0\x07\xff")),
    )  # fmt: skip
    on = integer(40, 7) + text(32, "bng-1")
    return (b"".join(made), on, *(each.request[20:] for each in VECTORS), NOKIA_INTERIM[20:])


def _bodies() -> Sequence[bytes]:
    return [flags + body for body in _believed() for flags in (b"\0", b"\1")]


def _datagrams() -> Sequence[bytes]:
    own = [accounting_request(body, is_signed=is_signed) for body in _believed() for is_signed in (False, True)]
    return [*own, status_server(), *(each.request for each in VECTORS)]


def _session_lists() -> Sequence[bytes]:
    entry = {
        "nas": "bng-1", "session": "s-1", "number": f"+{NUMBER}", "addresses": ["10.0.0.1/32", "2001:db8::/64"],
        "ports": "1024-2047", "at": "2026-01-01T00:00:00Z", "interim": 600,
    }  # fmt: skip
    digest = f"hmac-sha256:{subscriber_digest(NUMBER, PEPPER).hex()}"
    csv = f"nas,session,subscriber,addresses\nbng-1,s-2,{digest},10.0.0.2/32\nbng-1,{NUMBER},x,10.0.0.3\n"
    return [json.dumps(entry).encode() + b"\n", csv.encode(), f"nas,{NUMBER}\n".encode()]


def _rows() -> Sequence[bytes]:
    table = Table()
    table.take(made_event("start", "s-1", ALI, "10.0.0.1", at=10))
    found = []
    for row in table.next_rows():
        if row.value is not None:
            key = encode_key(row.key)
            found.append(bytes([len(key)]) + key + encode_value(key, row.value))
    return found


ATTRIBUTE_WORDS = (
    attribute(26, b"\0\0\x28\xaf\1\3x"), integer(40, 1), integer(40, 2), integer(40, 3), attribute(8, bytes(4)),
    text(44, NUMBER), text(32, NUMBER), text(31, NUMBER), attribute(241, b"\6\1\6\0\0\4\0"),
    attribute(80, bytes(16)), attribute(33, b"proxy"), bytes((97, 4, 0, 200)), bytes((26, 6, 0, 0, 25, 127)),
)  # fmt: skip
TARGETS = (
    Target("radius.datagram", datagram, (RadiusRejected, AccountingRejected), _datagrams, ATTRIBUTE_WORDS, cost=1),
    Target("radius.attributes", attributes, (RadiusRejected, AccountingRejected), _bodies, ATTRIBUTE_WORDS, cost=4),
    Target("radius.status", status, (RadiusRejected,), lambda: [b"", text(32, "m"), attribute(33, b"p")], cost=2),
    Target("sessions.list", sessions, (SessionEntryInvalid,), _session_lists,
           (NUMBER.encode(), b'"number":', b'"ports":[1,2]', b'"at":', b"1e308", b"hmac-sha256:"), cost=2),
    Target("sessions.rows", rows, (), _rows, cost=2),
)  # fmt: skip
