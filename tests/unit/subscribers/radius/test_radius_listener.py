from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import MissingPrerequisite
from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.prefix import parse_address, parse_prefix
from gatewayd.settings.subscribers import ProfileSettings
from gatewayd.subscribers.radius import listener as module
from gatewayd.subscribers.radius import sockets
from gatewayd.subscribers.radius.accounting import Permission
from gatewayd.subscribers.radius.clients import Client, ClientTable, Profiles
from gatewayd.subscribers.radius.flood import SOURCE_BURST, STRANGERS_PER_S
from gatewayd.subscribers.radius.listener import (
    LOG_INTERVAL_S,
    TURN_S,
    AccountingListener,
)
from gatewayd.subscribers.radius.packet import KEEP_S, PENDING_S
from gatewayd.subscribers.radius.sockets import answer_ancillary, bind_udp
from tests.support.manual_clock import START_S, ManualClock, until
from tests.support.radius import (
    NOKIA_INTERIM,
    SECRET,
    VECTORS,
    accounting_request,
    attribute,
    integer,
    is_message_authentic,
    is_response,
    status_server,
    text,
)

Answer = Callable[[], None]

PEPPER = b"sixteen bytes or more"
NUMBER = "923001234567"
START, STOP = integer(40, 1), integer(40, 2)
SESSION = text(44, "S1")
STARTED = accounting_request(START, SESSION, text(31, NUMBER))
NAS = ("192.0.2.1", 1646)
STRANGER = ("203.0.113.9", 1646)
USUAL = Profiles(ProfileSettings(country_code="92"))
PREFIXES = ("192.0.2.0/24", "127.0.0.0/8", "::1", "2001:db8::/32")


def clients(
    *secrets: bytes, prefixes: tuple[str, ...] = PREFIXES, require: bool = False, sign: bool = False
) -> ClientTable:
    return ClientTable(Client(parse_prefix(prefix), secrets or (SECRET,), require, sign) for prefix in prefixes)


class Desk:
    """A listener and what came out of it. `answers_at_once`: as an owner that has nothing to write."""

    def __init__(self, *addresses: tuple[str, int], table: ClientTable | None = None) -> None:
        self.clock = ManualClock()
        self.events: list[tuple[AccountingEvent, Answer]] = []
        self.sent: list[bytes] = []
        self.answers_at_once = True
        self.costs_s = 0.0
        self.listener = AccountingListener(
            addresses,
            clients=clients() if table is None else table,
            profiles=USUAL,
            pepper=PEPPER,
            on_event=self._on_event,
            clock=self.clock,
            monotonic=self.clock.monotonic,
        )
        self.stats = self.listener.stats

    def _on_event(self, event: AccountingEvent, answer: Answer) -> None:
        self.events.append((event, answer))
        self.clock.advance(self.costs_s)
        if self.answers_at_once:
            answer()

    def handle(self, raw: bytes, source: tuple[Any, ...] = NAS) -> list[bytes]:
        """What is sent for this datagram at once."""
        before = len(self.sent)
        self.listener.handle(raw, source, self.clock.monotonic(), self.sent.append)
        return self.sent[before:]

    def is_accounted_for(self) -> bool:
        stats = self.stats
        return stats.requests == (
            stats.unknown_client + sum(stats.rejected.values()) + stats.status_server + stats.duplicates
            + stats.pending_duplicates + stats.events + sum(stats.unusable.values()) + stats.over_rate
        )  # fmt: skip


# One datagram, without sockets


def test_a_request_is_an_event_and_is_answered() -> None:
    desk = Desk()
    (response,) = desk.handle(STARTED)
    assert is_response(response, STARTED)
    ((event, _),) = desk.events
    assert (event.kind, event.nas, event.session) == ("start", "192.0.2.1", "S1")
    assert (event.received_at_s, event.subscriber is None) == (desk.clock(), False)
    assert (desk.stats.requests, desk.stats.events, desk.stats.responses) == (1, 1, 1)
    assert sum(desk.stats.response_times.counts) == 1


@pytest.mark.parametrize("vector", [each for each in VECTORS if each.secret], ids=lambda vector: vector.id)
def test_other_implementations_get_the_answer_that_they_expect(vector: Any) -> None:
    desk = Desk(table=clients(vector.secret))
    assert desk.handle(vector.request) == [vector.response]
    assert desk.is_accounted_for()


def test_a_repeat_gets_the_same_bytes_and_is_no_event() -> None:
    desk = Desk()
    first = desk.handle(STARTED)
    desk.clock.advance(3.0)
    assert desk.handle(STARTED) == first
    assert (len(desk.events), desk.stats.duplicates, desk.stats.responses) == (1, 1, 2)
    assert sum(desk.stats.response_times.counts) == 1
    desk.clock.advance(KEEP_S)
    assert desk.handle(STARTED) == first
    assert (len(desk.events), desk.stats.duplicates) == (2, 1)
    assert [event.is_replay for event, _ in desk.events] == [False, True]


def test_what_was_not_answered_is_no_replay_and_what_has_a_time_is_none() -> None:
    desk = Desk()
    desk.answers_at_once = False
    desk.handle(STARTED)
    desk.clock.advance(PENDING_S)
    desk.handle(STARTED)
    assert [event.is_replay for event, _ in desk.events] == [False, False]
    desk.events[-1][1]()
    desk.clock.advance(KEEP_S)
    desk.handle(STARTED)
    timed = accounting_request(START, SESSION, integer(55, int(desk.clock())))
    desk.answers_at_once = True
    for _ in range(2):
        desk.handle(timed)
        desk.clock.advance(KEEP_S)
    assert [event.is_replay for event, _ in desk.events[2:]] == [True, False, False]


def test_a_replay_from_another_port_is_one_too() -> None:
    desk = Desk()
    desk.handle(STARTED)
    desk.handle(STARTED, ("192.0.2.1", 40_000))
    desk.handle(STARTED, ("192.0.2.2", 40_000))
    assert [event.is_replay for event, _ in desk.events] == [False, True, False]


PERMISSION = Permission(frozenset({"bng-1"}), (parse_prefix("100.64.0.0/10"), parse_prefix("2001:db8::/32")), True)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ([text(32, "bng-2"), integer(55, int(START_S))], "nas_not_allowed"),
        ([integer(55, int(START_S))], "nas_not_allowed"),
        ([text(32, "bng-1")], "no_event_timestamp"),
        ([text(32, "bng-1"), integer(55, 0)], "no_event_timestamp"),
        ([text(32, "bng-1"), integer(55, int(START_S))], None),
    ],
)
def test_a_client_reports_no_more_than_it_may(attributes: list[bytes], reason: str | None) -> None:
    client = Client(parse_prefix("192.0.2.0/24"), (SECRET,), permission=PERMISSION)
    desk = Desk(table=ClientTable([client]))
    assert len(desk.handle(accounting_request(START, SESSION, *attributes))) == 1, "it is answered in any case"
    assert desk.stats.unusable == ({reason: 1} if reason else {})
    assert len(desk.events) == (reason is None)


def test_addresses_that_a_client_may_not_report_are_left_out() -> None:
    client = Client(parse_prefix("192.0.2.0/24"), (SECRET,), permission=PERMISSION)
    desk = Desk(table=ClientTable([client]))
    addresses = [attribute(8, bytes(each)) for each in ((100, 64, 0, 1), (10, 0, 0, 1), (100, 128, 0, 1))]
    prefixes = [attribute(97, b"\0\x40" + parse_address(each)) for each in ("2001:db8:1::", "2001:db9::")]
    stamp = integer(55, int(desk.clock()))
    desk.handle(accounting_request(START, SESSION, text(32, "bng-1"), stamp, *addresses, *prefixes))
    ((event, _),) = desk.events
    assert [str(each) for each in event.addresses] == ["100.64.0.1/32", "2001:db8:1::/64"]
    assert desk.stats.ignored == {"address_not_allowed": 3}


def test_what_of_a_client_is_not_used_is_reported_by_reason() -> None:
    desk = Desk()
    desk.handle(accounting_request(START))
    desk.handle(accounting_request(START, SESSION, attribute(8, b"\0\0\0\0"), text(31, "nemo")))
    desk.handle(STARTED)
    report = desk.listener.report()
    (unused,) = report.max_unused
    assert (unused.source, unused.total) == ("192.0.2.1", 3)
    assert unused.reasons == {"no_session": 1, "address_unspecified": 1, "identity_not_a_number": 1}
    assert report.max_refused == ()


def test_of_the_names_of_a_nas_those_count_that_its_client_may_use() -> None:
    permission = Permission(frozenset({"bng-1", "10.0.0.1"}))
    desk = Desk(table=ClientTable([Client(parse_prefix("192.0.2.0/24"), (SECRET,), permission=permission)]))
    for address in ((10, 0, 0, 1), (10, 0, 0, 2)):
        desk.handle(accounting_request(START, SESSION, text(32, "bng-1"), attribute(4, bytes(address))))
    identities = [event.identity for event, _ in desk.events]
    assert [each.addresses for each in identities if each] == [("10.0.0.1",), ()]


def test_padding_does_not_make_a_repeat_new() -> None:
    desk = Desk()
    assert desk.handle(STARTED + b"\0\0") == desk.handle(STARTED)
    assert len(desk.events) == 1


def test_the_wall_clock_may_be_set_and_repeats_are_still_known() -> None:
    desk = Desk()
    desk.handle(STARTED)
    for seconds in (86400.0, -2 * 86400.0):
        desk.clock.set_by(seconds)
        desk.handle(STARTED)
    assert (len(desk.events), desk.stats.duplicates) == (1, 2)


def test_an_identifier_that_is_used_again_is_another_request() -> None:
    desk = Desk()
    desk.handle(STARTED)
    stopped = accounting_request(STOP, SESSION)
    assert stopped[1] == STARTED[1]
    (response,) = desk.handle(stopped)
    assert is_response(response, stopped)
    assert [event.kind for event, _ in desk.events] == ["start", "stop"]
    assert is_response(desk.handle(STARTED)[0], STARTED)
    assert (len(desk.events), desk.stats.duplicates) == (2, 1)


@pytest.mark.parametrize("source", [("192.0.2.1", 1647), ("192.0.2.2", 1646), ("2001:db8::1", 1646, 0, 0)])
def test_the_same_bytes_of_another_sender_are_another_request(source: tuple[Any, ...]) -> None:
    desk = Desk()
    desk.handle(STARTED)
    assert len(desk.handle(STARTED, source)) == 1
    assert (len(desk.events), desk.stats.duplicates) == (2, 0), "perhaps a replay, and no repeat"


def test_a_late_answer_serves_the_repeats_that_come_after_it() -> None:
    desk = Desk()
    desk.answers_at_once = False
    assert desk.handle(STARTED) == []
    assert desk.handle(STARTED) == []
    desk.clock.advance(1.0)
    assert desk.handle(STARTED) == []
    assert (desk.stats.pending_duplicates, desk.stats.responses, len(desk.events)) == (2, 0, 1)
    ((_, answer),) = desk.events
    answer()
    (response,) = desk.sent
    assert is_response(response, STARTED)
    assert desk.stats.response_times.sum_s == 1.0
    assert desk.handle(STARTED) == [response]
    assert (len(desk.events), desk.stats.duplicates) == (1, 1)


def test_what_is_never_answered_is_taken_anew_after_a_while() -> None:
    desk = Desk()
    desk.answers_at_once = False
    desk.handle(STARTED)
    desk.clock.advance(PENDING_S)
    desk.handle(STARTED)
    assert (len(desk.events), desk.stats.pending_duplicates, desk.sent) == (2, 0, [])


def test_an_answer_is_given_once() -> None:
    desk = Desk()
    desk.handle(STARTED)
    ((_, answer),) = desk.events
    answer()
    assert (len(desk.sent), desk.stats.responses, sum(desk.stats.response_times.counts)) == (1, 1, 1)


def test_an_answer_that_the_socket_does_not_take_is_there_for_the_repeat() -> None:
    desk = Desk()

    def refuse(_: bytes) -> None:
        raise BlockingIOError(errno.EAGAIN, "full")

    desk.listener.handle(STARTED, NAS, desk.clock.monotonic(), refuse)
    assert (desk.stats.unsent, desk.stats.responses, len(desk.events)) == (1, 0, 1)
    (response,) = desk.handle(STARTED)
    assert is_response(response, STARTED)
    assert (desk.stats.duplicates, desk.stats.responses, len(desk.events)) == (1, 1, 1)


def test_proxy_states_go_back_in_order() -> None:
    raw = accounting_request(START, attribute(33, b"two"), SESSION, attribute(33, b"one"))
    desk = Desk()
    (response,) = desk.handle(raw)
    assert is_response(response, raw)
    assert response[20:] == attribute(33, b"two") + attribute(33, b"one")


def test_either_secret_of_a_rotation_is_believed_and_answered_under() -> None:
    desk = Desk(table=clients(b"new", b"old"))
    for secret in (b"old", b"new"):
        raw = accounting_request(START, SESSION, secret=secret)
        (response,) = desk.handle(raw)
        assert is_response(response, raw, secret)
    assert len(desk.events) == 2


def test_a_reload_changes_who_is_believed_from_the_next_datagram_on() -> None:
    desk = Desk(table=clients(b"old"))
    desk.answers_at_once = False
    old, new = (accounting_request(START, SESSION, secret=secret) for secret in (b"old", b"new"))
    desk.handle(old)
    desk.listener.use(clients(b"new"), Profiles(ProfileSettings(session_ids="digest")))
    assert desk.handle(old) == []
    assert desk.stats.rejected == {"bad_authenticator": 1}
    desk.handle(new)
    (_, answer_old), (event_new, answer_new) = desk.events
    assert event_new.session != "S1"
    answer_old()
    answer_new()
    assert is_response(desk.sent[0], old, b"old")
    assert is_response(desk.sent[1], new, b"new")
    desk.listener.use(clients(prefixes=()), USUAL)
    assert desk.handle(new) == []
    assert desk.stats.unknown_client == 1


def test_a_nas_is_read_by_the_profile_of_its_name() -> None:
    named = Profiles(ProfileSettings(), {"bng-1": ProfileSettings(interim="snapshot")})
    desk = Desk()
    desk.listener.use(clients(), named)
    for name in ("bng-1", "bng-2"):
        desk.handle(accounting_request(integer(40, 3), SESSION, text(32, name)))
    assert [(event.nas, event.is_snapshot) for event, _ in desk.events] == [("bng-1", True), ("bng-2", False)]


def test_a_stranger_gets_no_answer_and_is_counted() -> None:
    desk = Desk()
    assert desk.handle(STARTED, STRANGER) == []
    assert desk.handle(STARTED, ("2a00::9", 1646, 0, 0)) == []
    assert (desk.stats.unknown_client, desk.events, desk.stats.rejected) == (2, [], {})
    assert {each.source: each.reasons for each in desk.listener.refusals.worst(9)} == {
        parse_address("203.0.113.9"): {"unknown_client": 1},
        parse_address("2a00::9"): {"unknown_client": 1},
    }


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "too_short"),
        (STARTED[:-1], "bad_length"),
        (b"\x01" + STARTED[1:], "bad_code"),
        (accounting_request(STARTED[20:21] + b"\x01" + STARTED[22:]), "bad_attribute"),
        (STARTED[:-1] + b"\0", "bad_authenticator"),
        (accounting_request(START, SESSION, secret=b"wrong"), "bad_authenticator"),
        (accounting_request(START, attribute(80, bytes(16))), "bad_message_authenticator"),
        (status_server(secret=b"wrong"), "bad_message_authenticator"),
        (status_server(is_signed=False), "missing_message_authenticator"),
    ],
)
def test_what_is_not_believed_gets_no_answer_and_leaves_a_count(raw: bytes, reason: str) -> None:
    desk = Desk()
    assert desk.handle(raw) == []
    assert desk.stats.rejected == {reason: 1}
    assert (desk.events, len(desk.listener.responses)) == ([], 0)
    (refused,) = desk.listener.refusals.worst(9)
    assert (refused.source, refused.reasons) == (parse_address("192.0.2.1"), {reason: 1})


def test_a_client_without_a_secret_is_not_believed() -> None:
    desk = Desk(table=ClientTable([Client(parse_prefix("192.0.2.0/24"), ())]))
    assert desk.handle(STARTED) == []
    assert desk.stats.rejected == {"bad_authenticator": 1}


def test_a_message_authenticator_may_be_asked_for() -> None:
    desk = Desk(table=clients(require=True))
    assert desk.handle(STARTED) == []
    assert desk.stats.rejected == {"missing_message_authenticator": 1}
    assert len(desk.handle(accounting_request(START, SESSION, is_signed=True))) == 1
    assert len(desk.handle(status_server())) == 1
    assert desk.is_accounted_for()


def test_answers_are_signed_for_the_client_that_wants_it() -> None:
    desk = Desk(table=clients(sign=True))
    (response,) = desk.handle(STARTED)
    assert is_response(response, STARTED)
    assert is_message_authentic(response, bytes(16))


def test_status_server_is_answered_each_time_and_is_no_event() -> None:
    desk = Desk()
    asked = status_server()
    for _ in range(2):
        (response,) = desk.handle(asked)
        assert is_response(response, asked)
        assert is_message_authentic(response, asked[4:20])
    assert (desk.stats.status_server, desk.stats.responses, desk.stats.duplicates) == (2, 2, 0)
    assert desk.events == []


def test_accounting_of_no_use_is_answered_and_counted_once() -> None:
    desk = Desk()
    raw = accounting_request(START)
    (response,) = desk.handle(raw)
    assert is_response(response, raw)
    assert desk.handle(raw) == [response]
    assert desk.stats.unusable == {"no_session": 1}
    assert (desk.stats.duplicates, desk.events) == (1, [])


def test_what_is_left_out_of_events_is_counted() -> None:
    desk = Desk()
    raw = accounting_request(START, SESSION, attribute(8, b"\x7f\0\0\1"), attribute(8, b"\xff" * 4))
    assert len(desk.handle(raw)) == 1
    assert desk.stats.ignored == {"address_loopback": 1, "address_hint": 1}


def test_log_lines_have_the_source_and_the_reason_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()

    def lines() -> list[tuple[str, dict[str, object]]]:
        found = [(record.getMessage(), vars(record)["fields"]) for record in caplog.records]
        caplog.clear()
        return found

    wrong = accounting_request(START, text(44, NUMBER), text(31, NUMBER), secret=b"wrong")
    for _ in range(3):
        desk.handle(wrong)
        desk.handle(STARTED, STRANGER)
        desk.handle(accounting_request(START, text(44, NUMBER), text(31, NUMBER)))
        desk.handle(accounting_request(STOP, text(44, NUMBER), text(31, NUMBER)))
    assert lines() == [
        ("radius.refused", {"source": "192.0.2.1", "reason": "bad_authenticator"}),
        ("radius.refused", {"source": "203.0.113.9", "reason": "unknown_client"}),
        ("radius.unusable", {"source": "192.0.2.1", "reason": "number_in_clear"}),
    ]
    desk.clock.advance(LOG_INTERVAL_S)
    desk.handle(wrong)
    assert lines() == [("radius.refused", {"source": "192.0.2.1", "reason": "bad_authenticator", "suppressed": 2})]


# Anything at all


def is_authentic(raw: bytes) -> bool:
    """By the RFCs, and by nobody's library."""
    length = int.from_bytes(raw[2:4], "big")
    if not 20 <= length <= min(len(raw), 4096):
        return False
    raw = raw[:length]
    if raw[0] == 4:
        return hashlib.md5(raw[:4] + bytes(16) + raw[20:] + SECRET).digest() == raw[4:20]
    at = 20
    while raw[0] == 12 and at + 18 <= length and raw[at + 1] >= 2:
        if raw[at : at + 2] == b"\x50\x12":
            zeroed = raw[: at + 2] + bytes(16) + raw[at + 18 :]
            return hmac.digest(SECRET, zeroed, "md5") == raw[at + 2 : at + 18]
        at += raw[at + 1]
    return False


SEEDS = [
    STARTED, NOKIA_INTERIM, status_server(), accounting_request(START, SESSION, is_signed=True),
    *(vector.request for vector in VECTORS),
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real request with bytes changed, taken out, put in, cut off or added behind."""
    raw = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        taken = draw(st.sampled_from([0, 1, 1, 1, 2, 20]))
        raw[at : at + taken] = draw(st.binary(max_size=3))
    return bytes(raw)


DATAGRAMS = st.one_of(st.binary(max_size=64), st.binary(max_size=64).map(b"\x04\x07\0\x30".__add__), mutated())


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(DATAGRAMS, st.sampled_from([NAS, STRANGER])), max_size=6))
def test_nothing_is_raised_and_only_what_is_authentic_is_answered(
    datagrams: list[tuple[bytes, tuple[str, int]]],
) -> None:
    desk = Desk()
    for raw, source in datagrams:
        sent = desk.handle(raw, source)
        if source == STRANGER or not is_authentic(raw):
            assert sent == []
        assert all(is_response(response, raw) for response in sent)
    assert desk.is_accounted_for()
    assert sum(each.total for each in desk.listener.refusals.worst(9)) == (
        desk.stats.unknown_client + sum(desk.stats.rejected.values())
    )
    assert desk.stats.responses == len(desk.sent)
    assert len(desk.listener.responses) <= len(desk.sent)


ATTRIBUTES = st.tuples(
    st.sampled_from([1, 4, 8, 25, 26, 31, 32, 33, 40, 41, 44, 50, 55, 85, 95, 97, 123, 168, 241]),
    st.one_of(st.binary(max_size=24), st.integers(0, 16).map(lambda number: number.to_bytes(4, "big"))),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(ATTRIBUTES, max_size=12), st.booleans())
def test_whatever_somebody_with_the_secret_says_is_answered(said: list[tuple[int, bytes]], is_signed: bool) -> None:
    raw = accounting_request(*(attribute(type_, value) for type_, value in said), is_signed=is_signed)
    desk = Desk()
    (response,) = desk.handle(raw)
    assert is_response(response, raw)
    assert desk.handle(raw) == [response]
    assert desk.stats.events + sum(desk.stats.unusable.values()) == 1
    assert desk.is_accounted_for()


# Sockets


class Sender:
    """A NAS: its own socket, and what it hears."""

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind((host, 0))

    async def ask(self, raw: bytes, to: tuple[str, int]) -> tuple[bytes, tuple[str, int]]:
        """The answer to this very request, and where it came from; those to others may still be on their way."""
        self.socket.sendto(raw, to)
        while True:
            answer, source = await self.hear()
            if is_response(answer, raw):
                return answer, source

    async def hear(self) -> tuple[bytes, tuple[str, int]]:
        loop = asyncio.get_running_loop()
        raw, source = await asyncio.wait_for(loop.sock_recvfrom(self.socket, 4096), 10)
        return raw, source[:2]


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def open_desk(*hosts: str, starts: bool = True, table: ClientTable | None = None) -> Desk:
        desk = Desk(*((host, 0) for host in hosts or ("127.0.0.1",)), table=table)
        desks.append(desk)
        desk.listener.open()
        if starts:
            desk.listener.start()
        return desk

    yield open_desk
    for desk in desks:
        desk.listener.close()


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    made = Sender("127.0.0.1")
    yield made
    made.socket.close()


async def test_requests_by_ipv4_are_answered(opened: Callable[..., Desk], sender: Sender) -> None:
    desk = opened()
    (address,) = desk.listener.addresses
    response, source = await sender.ask(STARTED, address)
    assert is_response(response, STARTED)
    assert source == address
    repeated, _ = await sender.ask(STARTED, address)
    assert repeated == response
    assert (len(desk.events), desk.stats.duplicates, desk.stats.responses) == (1, 1, 2)


@pytest.mark.parametrize("host", ["::1", "::"])
async def test_requests_by_ipv6_are_answered(opened: Callable[..., Desk], host: str) -> None:
    desk = opened(host)
    ((_, port),) = desk.listener.addresses
    sender = Sender("::1")
    try:
        response, source = await sender.ask(STARTED, ("::1", port))
    finally:
        sender.socket.close()
    assert is_response(response, STARTED)
    assert source == ("::1", port)
    assert desk.events[0][0].nas == "::1"


async def test_the_answer_leaves_from_the_address_that_was_asked(
    opened: Callable[..., Desk], sender: Sender
) -> None:
    desk = opened("0.0.0.0")
    ((_, port),) = desk.listener.addresses
    for host in ("127.0.0.2", "127.0.0.1", "127.1.2.3"):
        for raw in (STARTED, status_server()):
            response, source = await sender.ask(raw, (host, port))
            assert is_response(response, raw)
            assert source == (host, port)
    assert (desk.stats.duplicates, desk.stats.unsent) == (2, 0)


async def test_both_families_may_be_listened_on_at_the_same_port(
    opened: Callable[..., Desk], sender: Sender
) -> None:
    ((_, port),) = opened("::").listener.addresses
    both = Desk(("0.0.0.0", port))
    both.listener.open()
    both.listener.start()
    try:
        _, source = await sender.ask(STARTED, ("127.0.0.2", port))
        assert source == ("127.0.0.2", port)
        assert both.stats.events == 1
    finally:
        both.listener.close()


async def test_what_is_not_believed_is_not_answered_on_the_wire(
    opened: Callable[..., Desk], sender: Sender
) -> None:
    desk = opened()
    (address,) = desk.listener.addresses
    for raw in (b"", b"x", accounting_request(START, SESSION, secret=b"wrong"), b"\xff" * 4096):
        sender.socket.sendto(raw, address)
    asked = status_server()
    response, _ = await sender.ask(asked, address)
    assert is_response(response, asked)
    assert desk.stats.rejected == {"too_short": 2, "bad_authenticator": 1, "bad_length": 1}
    assert desk.stats.responses == 1


async def test_bytes_behind_the_largest_request_are_padding(opened: Callable[..., Desk], sender: Sender) -> None:
    desk = opened()
    response, _ = await sender.ask(STARTED + bytes(9000), desk.listener.addresses[0])
    assert is_response(response, STARTED)


async def test_late_answers_find_their_way(opened: Callable[..., Desk], sender: Sender) -> None:
    desk = opened("0.0.0.0")
    desk.answers_at_once = False
    ((_, port),) = desk.listener.addresses
    for _ in range(3):
        sender.socket.sendto(STARTED, ("127.0.0.3", port))
    await until(lambda: desk.stats.requests == 3)
    assert (len(desk.events), desk.stats.pending_duplicates, desk.stats.responses) == (1, 2, 0)
    desk.events[0][1]()
    response, source = await sender.hear()
    assert is_response(response, STARTED)
    assert source == ("127.0.0.3", port)


async def test_an_answer_after_the_close_goes_nowhere(opened: Callable[..., Desk], sender: Sender) -> None:
    desk = opened()
    desk.answers_at_once = False
    sender.socket.sendto(STARTED, desk.listener.addresses[0])
    await until(lambda: len(desk.events) == 1)
    desk.listener.close()
    desk.events[0][1]()
    assert (desk.stats.unsent, desk.stats.responses) == (1, 0)


async def test_it_may_be_closed_and_opened_again(opened: Callable[..., Desk], sender: Sender) -> None:
    desk = opened()
    desk.listener.close()
    desk.listener.close()
    assert desk.listener.addresses == []
    desk.listener.open()
    desk.listener.start()
    response, _ = await sender.ask(STARTED, desk.listener.addresses[0])
    assert is_response(response, STARTED)


async def test_the_owner_may_close_it_in_the_middle_of_a_batch(opened: Callable[..., Desk], sender: Sender) -> None:
    desk = opened(starts=False)
    for raw in (STARTED, accounting_request(STOP, SESSION)):
        sender.socket.sendto(raw, desk.listener.addresses[0])
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def close(event: AccountingEvent, answer: Answer) -> None:
        desk.events.append((event, answer))
        desk.listener.close()

    desk.listener._on_event = close
    desk.listener.start()
    await until(lambda: len(desk.events) == 1)
    await asyncio.sleep(0)
    assert (len(desk.events), failures) == (1, [])


async def test_what_waits_before_the_start_is_taken_then(opened: Callable[..., Desk], sender: Sender) -> None:
    desk = opened(starts=False)
    sender.socket.sendto(STARTED, desk.listener.addresses[0])
    desk.listener.start()
    response, _ = await sender.hear()
    assert is_response(response, STARTED)


async def test_a_burst_is_taken_in_batches_and_the_loop_has_its_turn(
    opened: Callable[..., Desk], sender: Sender
) -> None:
    desk = opened(starts=False)
    desk.costs_s = TURN_S / 4
    count = 48
    for number in range(count):
        raw = accounting_request(START, text(44, f"S{number}"), identifier=number & 255)
        sender.socket.sendto(raw, desk.listener.addresses[0])
    seen_at_turns: list[int] = []
    loop = asyncio.get_running_loop()

    def look() -> None:
        seen_at_turns.append(desk.stats.requests)
        if desk.stats.requests < count:
            loop.call_soon(look)

    desk.listener.start()
    loop.call_soon(look)
    await until(lambda: desk.stats.requests == count)
    helpings = [after - before for before, after in pairwise(seen_at_turns)]
    assert max(helpings) <= 5
    assert (desk.stats.events, desk.stats.responses) == (count, count)


async def test_what_the_kernel_had_no_room_for_is_counted(
    opened: Callable[..., Desk], sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "RECEIVE_BUFFER_BYTES", 4096)
    desk = opened(starts=False)
    for _ in range(100):
        sender.socket.sendto(STARTED, desk.listener.addresses[0])
    desk.listener.start()
    await until(lambda: desk.stats.kernel_drops > 0)
    assert desk.stats.requests + desk.stats.kernel_drops == 100
    for _ in range(2):
        await sender.ask(status_server(), desk.listener.addresses[0])
    assert desk.stats.requests + desk.stats.kernel_drops == 102


# Floods


def test_of_one_sender_so_many_datagrams_a_second_are_looked_at() -> None:
    desk = Desk()
    for _ in range(int(SOURCE_BURST) + 100):
        desk.handle(STARTED[:-1])
    assert (desk.stats.over_rate, sum(desk.stats.rejected.values())) == (100, SOURCE_BURST)
    assert desk.handle(STARTED, ("192.0.2.2", 1646)), "another has its own room"
    desk.clock.advance(1.0)
    assert desk.handle(STARTED)
    assert desk.is_accounted_for()


async def test_strangers_that_flood_are_dropped_by_the_kernel(opened: Callable[..., Desk], sender: Sender) -> None:
    desk = opened(table=clients(prefixes=("127.0.0.1/32",)))
    address = desk.listener.addresses[0]
    stats = desk.stats
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.2", 0))
        while not stats.flood_drops:
            for _ in range(100):
                stranger.sendto(STARTED, address)
            await sender.ask(status_server(), address)
        seen = stats.unknown_client
        assert seen > STRANGERS_PER_S
        for _ in range(100):
            stranger.sendto(STARTED, address)
        await sender.ask(status_server(), address)
        desk.listener.use(clients(prefixes=("127.0.0.0/8",)), USUAL)
        assert stats.kernel_drops == 0
        assert stats.flood_drops >= 100
        assert stats.unknown_client == seen
        stranger.sendto(STARTED, address)
        await until(lambda: len(desk.events) == 1)


async def test_a_kernel_that_takes_no_filter_leaves_strangers_to_be_counted(
    opened: Callable[..., Desk], sender: Sender, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: object, __: bytes) -> bool:
        return False

    monkeypatch.setattr(module, "attach_filter", refuse)
    desk = opened(table=clients(prefixes=("127.0.0.1/32",)))
    for _ in range(STRANGERS_PER_S + 1):
        desk.handle(STARTED, ("127.0.0.2", 1646))
    assert "radius.flood" in caplog.text
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.2", 0))
        stranger.sendto(STARTED, desk.listener.addresses[0])
        await until(lambda: desk.stats.unknown_client == STRANGERS_PER_S + 2)
    assert desk.stats.flood_drops == 0


class _Refusing(socket.socket):
    """`refusals`: errors to be raised, by method. A call of sendmsg or recvmsg takes one; others raise for ever."""

    refusals: dict[str, list[int]] = {}

    def _raise(self, method: str) -> None:
        numbers = self.refusals.get(method)
        if numbers:
            raise OSError(numbers.pop(0), "refused")

    def bind(self, address: Any, /) -> None:
        self._raise("bind")
        super().bind(address)

    def setsockopt(self, level: int, kind: int, *value: Any) -> None:
        if kind == 33:
            self._raise("force")
        super().setsockopt(level, kind, *value)

    def recvmsg(self, *arguments: Any) -> Any:
        self._raise("recvmsg")
        return super().recvmsg(*arguments)

    def sendmsg(self, *arguments: Any) -> int:
        self._raise("sendmsg")
        return super().sendmsg(*arguments)


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """What sockets of the listener refuse."""
    chosen: dict[str, list[int]] = {}
    monkeypatch.setattr(_Refusing, "refusals", chosen)
    monkeypatch.setattr(socket, "socket", _Refusing)
    return chosen


async def test_errors_of_the_socket_are_counted_and_the_sender_repeats(
    refusals: dict[str, list[int]], opened: Callable[..., Desk], sender: Sender
) -> None:
    desk = opened()
    refusals["recvmsg"] = [errno.ENOMEM]
    refusals["sendmsg"] = [errno.EAGAIN, errno.ENETUNREACH]
    for _ in range(2):
        sender.socket.sendto(STARTED, desk.listener.addresses[0])
    await until(lambda: desk.stats.unsent == 2)
    response, _ = await sender.ask(STARTED, desk.listener.addresses[0])
    assert is_response(response, STARTED)
    assert (desk.stats.receive_errors, desk.stats.events, desk.stats.duplicates) == (1, 1, 2)


def test_without_the_right_to_a_large_buffer_the_usual_one_does(refusals: dict[str, list[int]]) -> None:
    refusals["force"] = [errno.EPERM]
    bind_udp("127.0.0.1", 0).close()
    assert refusals["force"] == []


@pytest.mark.parametrize(
    ("host", "number", "what", "remedy"),
    [
        ("127.0.0.1", errno.EACCES, "127.0.0.1:1 (RADIUS accounting): a port below 1024 needs", "use 1813 or"),
        ("::1", errno.EACCES, "[::1]:1 (RADIUS accounting): a port below 1024 needs", "use 1813 or"),
        ("127.0.0.1", errno.ENODEV, "cannot listen on 127.0.0.1:1 (RADIUS accounting): No such device", "change"),
    ],
)
def test_an_address_that_cannot_be_had_is_said_with_its_remedy(
    refusals: dict[str, list[int]], host: str, number: int, what: str, remedy: str
) -> None:
    refusals["bind"] = [number]
    with pytest.raises(MissingPrerequisite) as caught:
        bind_udp(host, 1)
    assert caught.value.what.startswith(what)
    assert caught.value.remedy.startswith(remedy)
    assert "subscribers.radius.listen" in caught.value.remedy


def test_an_address_that_comes_with_the_network_is_listened_on_before() -> None:
    with bind_udp("192.0.2.1", 0) as opened:
        assert opened.getsockname()[0] == "192.0.2.1"


def test_a_family_that_the_host_has_not_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "refused")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(MissingPrerequisite, match=r"cannot listen on \[::1\]:1813 .*not supported"):
        bind_udp("::1", 1813)


def test_an_address_in_use_is_said_and_nothing_stays_open() -> None:
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with taken:
        taken.bind(("127.0.0.1", 0))
        desk = Desk(("127.0.0.1", 0), taken.getsockname())
        with pytest.raises(MissingPrerequisite, match="in use by another program"):
            desk.listener.open()
        assert desk.listener.addresses == []


# Where answers leave from

IPV4, IPV6 = (socket.IPPROTO_IP, 8), (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
INTERFACE = b"\5\0\0\0"


@pytest.mark.parametrize(
    ("kind", "packed", "expected"),
    [
        (IPV4, INTERFACE + b"\x0a\0\0\1" + b"\x0a\0\0\xff", bytes(4) + b"\x0a\0\0\1" + bytes(4)),
        (IPV6, parse_address("2001:db8::1") + INTERFACE, parse_address("2001:db8::1") + bytes(4)),
        (IPV6, parse_address("fe80::1") + INTERFACE, parse_address("fe80::1") + INTERFACE),
        (IPV6, parse_address("fec0::1") + INTERFACE, parse_address("fec0::1") + bytes(4)),
        (IPV6, parse_address("ff02::1") + INTERFACE, None),
    ],
    ids=["ipv4", "ipv6", "link-local", "not quite link-local", "multicast"],
)
def test_the_way_back_is_left_to_routing(kind: tuple[int, int], packed: bytes, expected: bytes | None) -> None:
    other = (socket.SOL_SOCKET, 40, bytes(4))
    wanted = [] if expected is None else [(*kind, expected)]
    assert answer_ancillary([other, (*kind, packed)]) == wanted


def test_where_the_kernel_did_not_say_routing_chooses() -> None:
    assert answer_ancillary([]) == []
