"""The operator's FreeRADIUS between a NAS and our listener, configured as docs/operations.md says; real processes.

Nothing here is told how long anything may take: what is waited for is polled, within DEADLINE_S.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.msisdn import subscriber_digest
from gatewayd.model.prefix import parse_prefix
from gatewayd.settings.subscribers import ProfileSettings
from gatewayd.subscribers.radius.clients import Client, ClientTable, Profiles
from gatewayd.subscribers.radius.listener import AccountingListener
from tests.support.accounting import Table
from tests.support.freeradius import NAS_SECRET, RECEIVER_SECRET, FreeRadius, Way, documented_blocks, radclient
from tests.support.radius import accounting_request, attribute, extended, integer, text, vendor

DEADLINE_S = 90.0
PEPPER = b"sixteen bytes and more"
NUMBER = "923001234567"
SUBSCRIBER = subscriber_digest(NUMBER, PEPPER)
BOTH: tuple[Way, ...] = ("buffered", "replicate")

START = (
    'Acct-Status-Type = Start, Acct-Session-Id = "{session}", NAS-Identifier = "bng-1", '
    'Calling-Station-Id = "+923001234567", Framed-IP-Address = {address}'
)


class Receiver:
    """Our listener, and what it heard. It answers at once, as the owner does where nothing has to be written; not
    while `is_answering` is false, as where nothing can be written."""

    def __init__(self, secret: str = RECEIVER_SECRET, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.events: list[AccountingEvent] = []
        self.is_answering = True
        client = Client(prefix=parse_prefix("127.0.0.0/8"), secrets=(secret.encode(),))
        self.listener = AccountingListener(
            [address],
            clients=ClientTable([client]),
            profiles=Profiles(ProfileSettings(country_code="92")),
            pepper=PEPPER,
            on_event=self._take,
            clock=time.time,
            monotonic=time.monotonic,
        )

    @property
    def address(self) -> tuple[str, int]:
        return self.listener.addresses[0]

    @property
    def sessions(self) -> list[str]:
        return [event.session for event in self.events]

    def _take(self, event: AccountingEvent, answer: Callable[[], None]) -> None:
        self.events.append(event)
        if self.is_answering:
            answer()

    def __enter__(self) -> Receiver:
        self.listener.open()
        self.listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()


async def becomes(condition: Callable[[], bool]) -> bool:
    """Whether it comes true before the deadline; the listener has its turns meanwhile."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - files and logs tell nobody
        await asyncio.sleep(0.02)
    return condition()


@asynccontextmanager
async def proxied(directory: Path, way: Way, receiver: tuple[str, int]) -> AsyncIterator[FreeRadius]:
    """A running FreeRADIUS; it starts and ends in a thread, so that the listener goes on."""
    radius = await asyncio.to_thread(FreeRadius, directory, way, receiver)
    await asyncio.to_thread(radius.__enter__)
    try:
        yield radius
    finally:
        await asyncio.to_thread(radius.__exit__, None)


def has_more(receiver: Receiver, events: int) -> bool:
    return len(receiver.events) > events


async def send(radius: FreeRadius, attributes: str, source: str | None = None) -> bool:
    return await asyncio.to_thread(lambda: radius.send(attributes, source=source))


@pytest.mark.parametrize("way", BOTH)
async def test_a_session_passes_through_with_all_that_we_read(way: Way, tmp_path: Path) -> None:
    """Raw packets of a PGW, a BNG and a CGNAT: the attributes that we read come as they were sent."""
    start = accounting_request(
        integer(40, 1), text(44, "0A1B"), text(50, "multi/7"), text(32, "pgw-1"), text(31, "00923001234567"),
        attribute(8, bytes([100, 64, 3, 9])), attribute(97, bytes.fromhex("0040 20010db800010002")),
        attribute(123, bytes.fromhex("0038 20010db8ff0100")), integer(85, 600),
        vendor(10415, text(1, "410011234567890"), text(10, "5")), secret=NAS_SECRET.encode(), identifier=1,
    )  # fmt: skip
    interim = accounting_request(
        integer(40, 3), text(44, "0A1B"), text(50, "multi/7"), text(32, "pgw-1"), text(31, "923001234567"),
        attribute(168, bytes.fromhex("20010db8000100020000000000000001")), integer(46, 61),
        vendor(6527, attribute(99, bytes.fromhex("20010db8000900020000000000000001"))),
        secret=NAS_SECRET.encode(), identifier=2,
    )  # fmt: skip
    stop = accounting_request(
        integer(40, 2), text(44, "0A1B"), text(32, "pgw-1"), text(31, "0300-1234567"), integer(49, 1),
        vendor(10415, text(10, "5"), attribute(11, b"\xff")), secret=NAS_SECRET.encode(), identifier=3,
    )  # fmt: skip
    block = accounting_request(
        integer(40, 1), text(44, "0A1C"), text(32, "cgn-1"), text(31, "+92 300 1234567"),
        attribute(8, bytes([203, 0, 113, 7])), extended(6, bytes.fromhex("0a0600000fff 090600000800")),
        secret=NAS_SECRET.encode(), identifier=4,
    )  # fmt: skip
    with Receiver() as receiver:
        async with proxied(tmp_path, way, receiver.address) as radius:
            for request in (start, interim, stop, block):
                before = len(receiver.events)
                assert await asyncio.to_thread(radius.send_raw, request)
                assert await becomes(partial(has_more, receiver, before)), radius.words()
            started, interim_event, stopped, shared = receiver.events
    assert [event.kind for event in receiver.events] == ["start", "interim", "stop", "start"]
    assert [event.nas for event in receiver.events] == ["pgw-1", "pgw-1", "pgw-1", "cgn-1"]
    assert {event.subscriber for event in receiver.events} == {SUBSCRIBER}
    assert [event.ignored for event in receiver.events] == [()] * 4
    assert started.session == "0A1B"
    assert started.interim_s == 600
    assert {str(each) for each in started.addresses} == {"100.64.3.9/32", "2001:db8:1:2::/64", "2001:db8:ff01::/56"}
    assert {str(each) for each in interim_event.addresses} == {"2001:db8:1:2::1/128", "2001:db8:9:2::1/128"}
    assert stopped.is_final_stop
    assert (shared.ports, [str(each) for each in shared.addresses]) == ((2048, 4095), ["203.0.113.7/32"])
    assert not receiver.listener.stats.rejected
    assert not receiver.listener.stats.unknown_client


@pytest.mark.parametrize("way", BOTH)
async def test_a_nas_that_does_not_name_itself_is_known_by_its_address_and_not_by_the_proxys(
    way: Way, tmp_path: Path
) -> None:
    with Receiver() as receiver:
        async with proxied(tmp_path, way, receiver.address) as radius:
            nameless = 'Acct-Status-Type = Start, Acct-Session-Id = "s", Framed-IP-Address = 100.64.3.9'
            assert await send(radius, nameless, source="127.0.0.9")
            assert await send(radius, 'Acct-Status-Type = Accounting-On, NAS-Identifier = "bng-2"')
            assert await becomes(lambda: len(receiver.events) == 2), radius.words()
    assert {(event.kind, event.nas) for event in receiver.events} == {("start", "127.0.0.9"), ("on", "bng-2")}


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize(
    ("said", "is_believed"),
    [
        ("Acct-Delay-Time = 40", True),
        ("Event-Timestamp = {plausible}", True),
        ("Event-Timestamp = 946684800", False),
        ("Event-Timestamp = {future}", False),
    ],
    ids=["delay", "timestamp", "clock in 2000", "clock ahead"],
)
async def test_when_it_happened_is_what_the_nas_says_and_where_it_cannot_be_when_freeradius_heard_it(
    way: Way, said: str, is_believed: bool, tmp_path: Path
) -> None:
    with Receiver() as receiver:
        async with proxied(tmp_path, way, receiver.address) as radius:
            before = int(time.time())
            said = said.format(plausible=before - 40, future=before + 40_000_000)
            assert await send(radius, f"{START.format(session='s', address='100.64.3.9')}, {said}")
            after = time.time()
            assert await becomes(lambda: bool(receiver.events)), radius.words()
    (event,) = receiver.events
    ago = 40 if is_believed else 0
    # FreeRADIUS tells whole seconds, and the queue's wait is the difference of two of them.
    assert before - ago - 1 <= event.at_s <= after - ago + 1
    assert bool(event.ignored) is not is_believed


@pytest.mark.parametrize("zone", ["UTC0", "PKT-5", "XST5XDT,0/0,J365/25"])
@pytest.mark.parametrize("way", BOTH)
async def test_the_time_zone_of_the_aaa_does_not_move_an_event(
    way: Way, zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Summer time all the year in the last: FreeRADIUS 3.2.1 reads such a date in a detail file an hour ahead."""
    monkeypatch.setenv("TZ", zone)
    with Receiver() as receiver:
        async with proxied(tmp_path, way, receiver.address) as radius:
            happened = int(time.time()) - 7200
            start = START.format(session="s", address="100.64.3.9")
            assert await send(radius, f"{start}, Event-Timestamp = {happened}")
            assert await becomes(lambda: bool(receiver.events)), radius.words()
    assert [(event.at_s, event.ignored) for event in receiver.events] == [(happened, ())]


async def test_what_the_buffered_way_holds_while_we_are_away_comes_late_whole_and_in_its_time(
    tmp_path: Path,
) -> None:
    """And FreeRADIUS is killed meanwhile. Old words take nothing from those who came after."""
    with Receiver() as receiver:
        address = receiver.address
    async with proxied(tmp_path, "buffered", address) as radius:
        sent_at = {}
        for number in range(8):
            if number == 4:
                assert await becomes(lambda: any(radius.queue.glob("queue.work"))), radius.words()
                await asyncio.to_thread(radius.kill)
                await asyncio.to_thread(radius.start)
            session = f"old-{number}"
            assert await send(radius, START.format(session=session, address=f"100.64.0.{number}"))
            sent_at[session] = time.time()
        # It has found out that nobody answers, and counts us as away.
        assert await becomes(lambda: "lack of any response from home server" in radius.words()), radius.words()
        away_until = time.time()
        with Receiver(address=address) as receiver:
            new = START.format(session="new", address="100.64.0.0").replace(NUMBER, "923009999999")
            assert await asyncio.to_thread(radclient, new, *address, RECEIVER_SECRET)
            assert await becomes(lambda: set(receiver.sessions) >= sent_at.keys()), radius.words()
            assert await becomes(lambda: not list(radius.queue.iterdir())), radius.words()
    assert receiver.sessions[0] == "new"
    olds = {event.session: event for event in receiver.events if event.session != "new"}
    assert olds.keys() == sent_at.keys()
    for session, event in olds.items():
        assert sent_at[session] - 3 <= event.at_s <= sent_at[session] + 1
        assert event.received_at_s >= away_until > event.at_s
    assert [event.at_s for event in olds.values()] == sorted(event.at_s for event in olds.values())

    table = Table()
    for event in receiver.events:
        table.take(event, now=event.received_at_s)
    bound = table.bound()
    assert bound.pop("100.64.0.0/32") == subscriber_digest("923009999999", PEPPER)
    assert bound == {f"100.64.0.{number}/32": SUBSCRIBER for number in range(1, 8)}


async def test_accounting_that_we_do_not_answer_is_repeated_and_status_server_says_that_we_live(
    tmp_path: Path,
) -> None:
    with Receiver() as receiver:
        receiver.is_answering = False
        async with proxied(tmp_path, "buffered", receiver.address) as radius:
            assert await send(radius, START.format(session="s", address="100.64.3.9"))
            assert await becomes(lambda: "Received response to status check" in radius.words()), radius.words()
            assert "alive" in radius.words().partition("as zombie")[2]
            assert receiver.listener.stats.status_server > 0
            receiver.is_answering = True
            assert await becomes(lambda: not list(radius.queue.iterdir())), radius.words()
    assert len(receiver.events) > 1
    assert {(event.session, event.at_s) for event in receiver.events} == {("s", receiver.events[0].at_s)}


async def test_what_the_replicated_way_sends_while_we_are_away_is_lost_and_the_nas_is_answered(
    tmp_path: Path,
) -> None:
    with Receiver() as receiver:
        address = receiver.address
    async with proxied(tmp_path, "replicate", address) as radius:
        assert await send(radius, START.format(session="unheard", address="100.64.0.1"))
        with Receiver(address=address) as receiver:
            interim = START.replace("= Start", "= Interim-Update").format(session="heard", address="100.64.0.2")
            assert await send(radius, interim)
            assert await becomes(lambda: bool(receiver.events)), radius.words()
    assert receiver.sessions == ["heard"]


async def test_a_copy_that_cannot_be_sent_does_not_keep_the_nas_from_its_answer(tmp_path: Path) -> None:
    """A broadcast address: the kernel refuses to send there."""
    async with proxied(tmp_path, "replicate", ("255.255.255.255", 1813)) as radius:
        assert await send(radius, START.format(session="s", address="100.64.0.1"))


async def test_a_copy_that_cannot_be_written_keeps_the_nas_from_its_answer_so_that_it_repeats(
    tmp_path: Path,
) -> None:
    with Receiver() as receiver:
        async with proxied(tmp_path, "buffered", receiver.address) as radius:
            radius.queue.parent.mkdir(exist_ok=True)
            radius.queue.touch()  # a file in the place of the directory
            start = START.format(session="s", address="100.64.0.1")
            assert not await send(radius, start)
            radius.queue.unlink()
            assert await send(radius, start)
            assert await becomes(lambda: bool(receiver.events)), radius.words()


@pytest.mark.parametrize("way", BOTH)
async def test_under_another_secret_nothing_is_accepted_and_nothing_of_it_is_answered(
    way: Way, tmp_path: Path
) -> None:
    with Receiver(secret="another") as receiver:
        async with proxied(tmp_path, way, receiver.address) as radius:
            assert await send(radius, START.format(session="s", address="100.64.3.9"))
            stats = receiver.listener.stats
            assert await becomes(lambda: stats.rejected["bad_authenticator"] > 0), radius.words()
    assert not receiver.events
    assert stats.responses == 0


async def test_status_server_tells_the_operator_whether_the_secret_is_right() -> None:
    """The command of the document; and accounting that a NAS sends to us without a proxy."""
    ask = "Message-Authenticator = 0x00"
    with Receiver() as receiver:
        address = receiver.address
        assert await asyncio.to_thread(radclient, ask, *address, RECEIVER_SECRET, command="status")
        assert not await asyncio.to_thread(radclient, ask, *address, "another", command="status", timeout_s=1)
        start = START.format(session="s", address="100.64.3.9")
        assert await asyncio.to_thread(radclient, start, *address, RECEIVER_SECRET)
        assert not await asyncio.to_thread(radclient, start, *address, "another", timeout_s=1)
    assert receiver.listener.stats.status_server == 1
    assert [(event.nas, event.subscriber) for event in receiver.events] == [("bng-1", SUBSCRIBER)]


@pytest.mark.parametrize(
    "spelling", ["+923001234567", "00923001234567", "923001234567", "0300 1234567", "+92-300-1234567"]
)
async def test_a_number_is_the_same_subscriber_in_every_spelling(spelling: str) -> None:
    with Receiver() as receiver:
        start = START.format(session="s", address="100.64.3.9").replace("+923001234567", spelling)
        assert await asyncio.to_thread(radclient, start, *receiver.address, RECEIVER_SECRET)
    assert [event.subscriber for event in receiver.events] == [SUBSCRIBER]


def test_the_document_has_both_ways() -> None:
    for way in BOTH:
        heads = [block.partition("\n")[0] for block in documented_blocks(way)]
        assert any(head.startswith("# first in accounting { }") for head in heads)


async def test_two_gateways_have_a_queue_each(tmp_path: Path) -> None:
    """One that is away keeps nothing from the other, and hears all of it when it is back."""
    with Receiver() as first, Receiver() as second:
        second.is_answering = False
        radius = await asyncio.to_thread(FreeRadius, tmp_path, "buffered", first.address)
        await asyncio.to_thread(radius.add_second_gateway, second.address)
        await asyncio.to_thread(radius.__enter__)
        try:
            for number in range(1, 4):
                start = START.format(session=f"s{number}", address=f"39.41.0.{number}")
                assert await send(radius, start)
            assert await becomes(lambda: first.sessions == ["s1", "s2", "s3"]), radius.words()
            assert await becomes(lambda: bool(second.events))
            second.is_answering = True
            assert await becomes(lambda: {"s1", "s2", "s3"} <= set(second.sessions)), radius.words()
        finally:
            await asyncio.to_thread(radius.__exit__, None)
    assert first.sessions == ["s1", "s2", "s3"]
