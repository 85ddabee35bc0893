"""What the daemon answers of subscribers, with their sessions and grants on a kernel in memory."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from gatewayd.allowlist import Allowlist, BindingTable
from gatewayd.control.arming_queries import Arming, check_nothing
from gatewayd.control.queries import Counts, DaemonQueries
from gatewayd.control.status import StatusReport
from gatewayd.control.vitals import Vitals
from gatewayd.errors import SessionEntryInvalid, SessionsNotKept
from gatewayd.kernel.fake import FakeTables
from gatewayd.model import Registration, parse_prefix
from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.msisdn import session_digest, subscriber_digest
from gatewayd.settings.subscribers import NasSettings, ProfileSettings, SubscriberSettings
from gatewayd.subscribers.journal import Journal
from gatewayd.subscribers.journal_rows import JournalStats, Row, SessionRow
from gatewayd.subscribers.radius.clients import Client, ClientTable
from gatewayd.subscribers.radius.listener import AccountingListener
from gatewayd.subscribers.service import SubscriberService
from gatewayd.subscribers.sessions.session import Terms
from gatewayd.watch.source import SourceStats
from tests.support.fake_conntrack import FakeConntrack
from tests.support.fake_queries import serving
from tests.support.impact import no_impact
from tests.support.manual_clock import START_S, ManualClock, Time, until
from tests.support.owning import Owning, flow, no_reload, owning, registration, settings_of, shown
from tests.support.radius import SECRET, accounting_request, integer, text
from tests.support.subscribers import bare_service

PEPPER = b"0123456789abcdef"
NUMBER = "+92 300 1234567"
ALI = subscriber_digest("923001234567", PEPPER)
BANO = subscriber_digest("923007654321", PEPPER)
MOBILE = registration("MOBILE-1", subscriber=ALI, category="freelancer")
BANK = registration("BANK-1", "39.32.0.0/28", services=("ipsec",), category="bank")
MANY = 250


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


class HeldJournal:
    """A disk that takes what it is given at once, or when it is told to."""

    def __init__(self) -> None:
        self.stats = JournalStats()
        self.has_room = True
        self.is_holding = False
        self.held: list[Callable[[], None]] = []
        self.rows: dict[Any, Row] = {}
        self.room_for: int | None = None
        """Writes that are taken before there is no more room."""

    @property
    def waiting(self) -> int:
        return len(self.held)

    def report(self) -> JournalStats:
        return self.stats

    def write(self, rows: Any, done: Callable[[], None] | None) -> bool:
        if done is not None and self.room_for is not None:
            if not self.room_for:
                return False
            self.room_for -= 1
        self.rows.update((row.key, row) for row in rows)
        if done is not None:
            if self.is_holding:
                self.held.append(done)
            else:
                done()
        return True

    def release(self) -> None:
        held, self.held = self.held, []
        for done in held:
            done()


def service_of(it: Owning, journal: Any, clock: Any, monotonic: Any) -> SubscriberService:
    """What is behind the section `subscribers`."""
    made = bare_service(
        it.programmer,
        journal,
        clock,
        monotonic,
        profile=ProfileSettings(country_code="92"),
        nas=(NasSettings("bng-d", ProfileSettings(country_code="92", session_ids="digest")),),
    )
    made.pepper = PEPPER
    it.told.service = made
    return made


def listen(service: SubscriberService, clock: Any, monotonic: Any) -> AccountingListener:
    service.listener = AccountingListener(
        [("127.0.0.1", 0)],
        clients=ClientTable([Client(parse_prefix("10.0.0.0/24"), (SECRET,))]),
        profiles=service.profiles,
        pepper=PEPPER,
        on_event=service.receive,
        clock=clock,
        monotonic=monotonic,
    )
    return service.listener


class _Events:
    stats = {"nflog": SourceStats(), "near": SourceStats(), "conntrack": SourceStats()}


class Scene:
    def __init__(
        self, answers: DaemonQueries, it: Owning, service: SubscriberService, journal: HeldJournal
    ) -> None:
        self.answers = answers
        self.it = it
        self.service = service
        self.journal = journal

    async def put(self, *entries: dict[str, object]) -> Any:
        return await self.answers.put_bindings(entries)

    async def delete(self, session: str = "s1", nas: str = "bng-1", at: object = None) -> Any:
        return await self.answers.delete_binding(nas, session, at)

    def listed(self, **selected: Any) -> list[str]:
        prefix = selected.get("prefix")
        page = self.answers.bindings(
            selected.get("id"),
            None if prefix is None else parse_prefix(prefix),
            selected.get("offset", 0),
            selected.get("limit", 100),
        )
        assert page is not None
        return [each.prefix for each in page.items]


def answers_of(it: Owning, clock: ManualClock, service: SubscriberService | None) -> DaemonQueries:
    async def read_sources() -> None:
        raise AssertionError

    events: Any = _Events()
    report = StatusReport(it.controller, events, {}, Vitals(clock))
    return DaemonQueries(
        it.controller,
        report,
        service,
        clock=clock,
        read_sources=read_sources,
        reload=no_reload,
        gate=it.gate,
        arming=Arming(it.trials, check_nothing),
        counts=Counts(None, no_impact),
    )


@asynccontextmanager
async def answering(
    clock: ManualClock, *known: Registration, tables: FakeTables | None = None
) -> AsyncIterator[Scene]:
    """A daemon that has read `known`, and has them in the kernel. Its journal knows no binding."""
    settings = replace(settings_of("national"), subscribers=SubscriberSettings(pepper_file="/nowhere"))
    async with owning(clock, settings, tables=tables, conntrack=FakeConntrack()) as it:
        it.reconciler.leave_unless(lambda *_: False)
        journal = HeldJournal()
        service = service_of(it, journal, clock, clock.monotonic)
        service.is_restored = True  # of nothing

        answers = answers_of(it, clock, service)
        await it.read("national", *known)
        await it.in_sync()
        yield Scene(answers, it, service, journal)


def entry(*addresses: str, session: str = "s1", **fields: Any) -> dict[str, object]:
    whole: dict[str, object] = {
        "nas": "bng-1", "session": session, "number": NUMBER, "addresses": list(addresses or ("10.1.2.3",)),
    }  # fmt: skip
    return {name: value for name, value in (whole | fields).items() if value is not ...}


# -- what is told ----------------------------------------------------------------------------------------------


def test_a_session_that_is_told_passes_and_ends_when_it_is_told_to(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            assert scene.answers.explain(flow("10.1.2.3")).decision == "unregistered"
            assert await scene.put(entry()) == {"sessions": 1, "passed_over": {}, "conflicting": 0}
            await scene.it.in_sync()
            view = scene.answers.explain(flow("10.1.2.3"))
            assert (view.decision, view.effect, view.in_kernel) == ("registered", "pass", True)
            assert scene.listed() == ["10.1.2.3/32"]
            assert [type(row.value) for row in scene.journal.rows.values()] == [SessionRow]
            await asyncio.sleep(5)
            assert await scene.delete() == {"sessions": 1}
            assert await scene.delete() == {"sessions": 0}
            assert scene.listed() == []
            assert scene.answers.explain(flow("10.1.2.3")).decision == "unregistered"

    time.run(scenario())


def test_what_an_entry_does_not_name_the_session_has_no_more(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            await scene.put(entry("10.1.2.3", "2001:db8:7::/64"))
            assert scene.listed() == ["10.1.2.3/32", "2001:db8:7::/64"]
            await asyncio.sleep(5)
            await scene.put(entry("10.1.2.4"))
            assert scene.listed() == ["10.1.2.4/32"]

    time.run(scenario())


def test_nothing_of_a_stranger_is_listed_or_kept(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            outcome = await scene.put(entry("10.9.9.9", number="+923007654321"))
            assert outcome["sessions"] == 1
            assert (scene.listed(), scene.listed(prefix="10.9.9.9"), scene.journal.rows) == ([], [], {})
            status = scene.answers.status().subscribers
            assert status is not None
            assert (status.sessions, status.bindings) == (1, 0)
            said = msgspec.json.encode((status, scene.answers.bindings(None, None, 0, 100))).decode()
            assert "10.9.9.9" not in said
            assert BANO.hex() not in said

    time.run(scenario())


def test_a_registration_that_goes_takes_its_bindings_off_the_list(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            await scene.put(entry())
            await scene.it.read("national", BANK)
            assert scene.listed() == []
            await scene.it.read("national", BANK, MOBILE)
            assert scene.listed() == ["10.1.2.3/32"]

    time.run(scenario())


def test_a_list_with_one_bad_entry_changes_nothing(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            with pytest.raises(SessionEntryInvalid) as caught:
                await scene.put(entry(), entry("224.0.0.1", session="s2"), entry(session="s3"))
            assert (caught.value.entry, caught.value.field, caught.value.code) == (
                1,
                "addresses",
                "address_multicast",
            )
            assert str(caught.value).startswith("entry 1: addresses: ")
            with pytest.raises(SessionEntryInvalid) as caught:
                await scene.put(entry(nas=...))
            assert caught.value.entry is None
            assert len(scene.service.sessions) == 0

    time.run(scenario())


def test_a_long_list_is_taken_whole(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            strangers = [
                entry(f"10.2.{n >> 8}.{n & 255}", session=f"t{n}", number=f"+92301{n:07}") for n in range(MANY)
            ]
            assert (await scene.put(*strangers, entry()))["sessions"] == MANY + 1
            assert len(scene.service.sessions) == MANY + 1
            assert scene.listed() == ["10.1.2.3/32"]
            assert (await scene.put())["sessions"] == 0

    time.run(scenario())


def test_what_says_nothing_new_is_counted_and_not_called_a_session(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            await scene.put(entry(session="s9"))
            old = entry(at=START_S - 90000, interim=300)
            assert await scene.put(old) == {"sessions": 0, "passed_over": {"stale": 1}, "conflicting": 0}
            await scene.put(entry())
            await asyncio.sleep(5)
            await scene.delete()
            late = await scene.put(entry(at=START_S), entry(session="s2"))
            assert late == {"sessions": 1, "passed_over": {"tombstoned": 1}, "conflicting": 0}

    time.run(scenario())


def test_an_address_that_the_registry_gives_to_a_bank_is_bound_and_it_is_said(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE, BANK) as scene:
            outcome = await scene.put(entry("39.32.0.5", "10.1.2.3"))
            assert (outcome["sessions"], outcome["conflicting"]) == (1, 1)
            assert sorted(scene.listed()) == ["10.1.2.3/32", "39.32.0.5/32"]
            status = scene.answers.status().subscribers
            assert status is not None
            assert status.conflicting == 1

    time.run(scenario())


def test_a_session_whose_id_is_hashed_ends_by_either_name(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            for name in ("plain-1", session_digest("plain-1", PEPPER)):
                await scene.put(entry(nas="bng-d", session="plain-1"))
                page = scene.answers.bindings(None, None, 0, 1)
                assert page is not None
                assert page.items[0].session == session_digest("plain-1", PEPPER)
                await asyncio.sleep(5)
                assert await scene.delete(name, "bng-d") == {"sessions": 1}
                assert scene.listed() == []
                await asyncio.sleep(5)

    time.run(scenario())


def test_a_session_ends_when_it_is_said_to_have_ended(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            await scene.put(entry())
            assert await scene.delete(at=START_S - 60) == {"sessions": 0}
            assert scene.listed() == ["10.1.2.3/32"]
            with pytest.raises(SessionEntryInvalid):
                await scene.delete(at="soon")

    time.run(scenario())


# -- the journal -----------------------------------------------------------------------------------------------


def test_the_answer_comes_when_the_journal_has_it(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            scene.journal.is_holding = True
            answer = asyncio.ensure_future(scene.put(entry(), entry("10.1.2.4", session="s2")))
            await until(lambda: scene.journal.waiting == 2, step_s=0)
            assert not answer.done()
            scene.journal.release()
            assert (await answer)["sessions"] == 2

    time.run(scenario())


def test_a_disk_that_does_not_answer_is_said_so_and_the_session_is_in_force(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            scene.journal.is_holding = True
            before = time.clock()
            with pytest.raises(SessionsNotKept, match="in force, but not on disk yet: the disk has not answered"):
                await scene.put(entry())
            assert time.clock() - before == pytest.approx(5)
            assert scene.listed() == ["10.1.2.3/32"]
            scene.journal.release()

    time.run(scenario())


def test_with_a_journal_that_is_full_nothing_is_taken(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            scene.journal.has_room = False
            with pytest.raises(SessionsNotKept, match="nothing was taken"):
                await scene.put(entry())
            with pytest.raises(SessionsNotKept, match="nothing was taken"):
                await scene.delete()
            assert len(scene.service.sessions) == 0

    time.run(scenario())


def test_before_the_journal_is_read_nothing_is_taken(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            scene.service.is_restored = False
            with pytest.raises(SessionsNotKept, match="nothing was taken: the journal is still being read"):
                await scene.put(entry())
            assert (scene.listed(), len(scene.service.sessions)) == ([], 0)
            assert scene.answers.status().subscribers is not None

    time.run(scenario())


def test_a_journal_that_fills_up_meanwhile_is_said_so_at_once(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            scene.journal.room_for = 1
            with pytest.raises(SessionsNotKept, match="taken in part, and not on disk yet"):
                await scene.put(entry(), entry("10.1.2.4", session="s2"), entry("10.1.2.5", session="s3"))
            assert scene.listed() == ["10.1.2.3/32", "10.1.2.4/32"]
            status = scene.answers.status().subscribers
            assert status is not None
            assert status.unanswered == 1
            scene.journal.room_for = None
            assert (await scene.put(entry("10.1.2.5", session="s3")))["sessions"] == 1
            assert len(scene.journal.rows) == 3

    time.run(scenario())


async def rows_on_disk(path: Path, elsewhere: Path) -> list[str]:
    """Ids of the sessions that a daemon would find that began now. The file is another's, so a copy is opened."""
    shutil.copytree(path.parent, elsewhere)
    copy = Journal(elsewhere / path.name)
    rows = await copy.open()
    await copy.close()
    return sorted(row.value.session for row in rows if isinstance(row.value, SessionRow))


async def test_over_http_a_session_is_on_disk_before_the_answer(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "state" / "sessions.sqlite"
    os.mkdir(path.parent)
    async with owning(clock, settings_of("national"), conntrack=FakeConntrack()) as it, AsyncExitStack() as stack:
        await it.read("national", MOBILE)
        service = service_of(it, Journal(path), clock, clock.monotonic)
        await service.start()
        stack.push_async_callback(service.close)
        queries: Any = answers_of(it, clock, service)
        await stack.enter_async_context(serving(queries, tmp_path / "api.sock"))
        connector = aiohttp.UnixConnector(str(tmp_path / "api.sock"))
        session = await stack.enter_async_context(aiohttp.ClientSession("http://gatewayd", connector=connector))

        async def ask(method: str, target: str, body: object = None) -> tuple[int, Any]:
            async with session.request(method, target, json=body) as answer:
                return answer.status, await answer.json()

        taken = {"sessions": 2, "passed_over": {}, "conflicting": 0}
        assert await ask("PUT", "/v1/bindings", [entry(), entry("10.1.2.4", session="s2")]) == (200, taken)
        assert await rows_on_disk(path, tmp_path / "one") == ["s1", "s2"]
        end = {"nas": "bng-1", "session": "s2"}
        assert await ask("DELETE", "/v1/bindings", end) == (200, {"sessions": 1})
        assert await rows_on_disk(path, tmp_path / "two") == ["s1"]
        status, fault = await ask("PUT", "/v1/bindings", [entry(), entry("0.0.0.0")])
        assert (status, fault["entry"], fault["reason"]) == (400, 1, "address_unspecified")
        _, page = await ask("GET", "/v1/bindings?address=10.1.2.3")
        assert [(each["registrations"], each["session"]) for each in page["items"]] == [(["MOBILE-1"], "s1")]
        _, view = await ask("GET", "/v1/status")
        assert (view["subscribers"]["bindings"], view["subscribers"]["listener"]) == (1, None)
        assert view["subscribers"]["journal"]["rows"] >= 3
        async with session.get("/metrics") as answer:
            assert "gatewayd_bindings 1.0\n" in await answer.text()


# -- what is asked ---------------------------------------------------------------------------------------------


def test_without_the_section_there_is_nothing_to_ask(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, conntrack=FakeConntrack()) as it:
            answers = answers_of(it, time.clock, None)
            assert answers.bindings(None, None, 0, 100) is None
            assert await answers.put_bindings([entry()]) is None
            assert await answers.delete_binding("bng-1", "s1", None) is None
            assert answers.status().subscribers is None

    time.run(scenario())


def test_bindings_are_selected_by_registration_and_address_and_paged(time: Time) -> None:
    async def scenario() -> None:
        other = registration("MOBILE-2", subscriber=BANO)
        also = registration("MOBILE-3", subscriber=ALI, status="suspended")
        async with answering(time.clock, MOBILE, other, also, BANK) as scene:
            await scene.put(
                entry("10.1.2.3", "2001:db8:7::/64", "10.1.3.0/24"),
                entry("10.1.3.9", session="s2", number="+923007654321"),
            )
            assert scene.listed() == ["10.1.2.3/32", "2001:db8:7::/64", "10.1.3.0/24", "10.1.3.9/32"]
            assert scene.listed(offset=1, limit=2) == ["2001:db8:7::/64", "10.1.3.0/24"]
            assert scene.listed(id="MOBILE-2") == ["10.1.3.9/32"]
            assert len(scene.listed(id="MOBILE-3")) == 3
            assert scene.listed(id="MOBILE-3", limit=1, offset=2) == ["10.1.3.0/24"]
            assert scene.listed(id="BANK-1") == scene.listed(id="NOBODY") == []
            assert scene.listed(prefix="10.1.3.9") == ["10.1.3.9/32", "10.1.3.0/24"]
            assert scene.listed(prefix="10.1.3.0/24") == ["10.1.3.0/24"]
            assert scene.listed(prefix="10.1.3.9", id="MOBILE-1") == ["10.1.3.0/24"]
            assert scene.listed(prefix="2001:db8:7::1") == ["2001:db8:7::/64"]
            assert scene.listed(prefix="10.1.4.1") == []
            page = scene.answers.bindings(None, None, 3, 1)
            assert page is not None
            assert (page.total, page.offset, page.items[0].registrations) == (4, 3, ("MOBILE-2",))
            page = scene.answers.bindings("MOBILE-1", None, 0, 1)
            assert page is not None
            assert (page.total, page.items[0].registrations) == (3, ("MOBILE-1", "MOBILE-3"))

    time.run(scenario())


def test_a_binding_is_as_old_as_its_last_word(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            await scene.put(entry())
            await asyncio.sleep(100)
            await scene.put(entry())
            await asyncio.sleep(7)
            page = scene.answers.bindings(None, None, 0, 1)
            assert page is not None
            (item,) = page.items
            assert (str(item.since)[:19], item.age_s) == ("2023-11-14T22:13:20", 7.0)
            view = scene.answers.explain(flow("10.1.2.3"))
            (through,) = view.bindings
            assert (through.prefix, through.nas, through.age_s) == ("10.1.2.3/32", "bng-1", item.age_s)
            assert "(confirmed 7 s ago)" in view.reason

    time.run(scenario())


def test_a_binding_says_whether_the_kernel_has_its_elements(time: Time) -> None:
    async def scenario() -> None:
        soon = registration("SOON", subscriber=BANO, valid_from_s=START_S + 3600)
        async with answering(time.clock, MOBILE, soon) as scene:
            scene.it.refuse_writes = True
            await scene.put(entry(), entry("10.1.2.4", session="s2", number="+923007654321"))

            def in_kernel() -> list[bool | None]:
                page = scene.answers.bindings(None, None, 0, 100)
                assert page is not None
                return [item.in_kernel for item in page.items]

            await asyncio.sleep(1)
            assert in_kernel() == [False, None]
            assert scene.answers.explain(flow("10.1.2.3")).in_kernel is False
            assert shown(scene.answers, "MOBILE-1").in_kernel is False
            scene.it.refuse_writes = False
            await until(lambda: in_kernel() == [True, None], 60)
            assert scene.answers.explain(flow("10.1.2.3")).in_kernel is True
            assert shown(scene.answers, "MOBILE-1").in_kernel is True
            assert shown(scene.answers, "SOON").in_kernel is None

    time.run(scenario())


def test_a_registrant_with_clients_too_is_in_the_kernel_by_what_the_flow_passes_through(time: Time) -> None:
    async def scenario() -> None:
        both = registration("BOTH", "39.40.0.0/28", subscriber=ALI)
        async with answering(time.clock, both) as scene:
            scene.it.refuse_writes = True
            await scene.put(entry())
            await asyncio.sleep(1)
            by_client, by_binding = (scene.answers.explain(flow(source)) for source in ("39.40.0.5", "10.1.2.3"))
            assert (by_binding.in_kernel, len(by_binding.bindings)) == (False, 1)
            assert by_client.bindings == ()
            scene.it.refuse_writes = False
            await until(lambda: scene.answers.explain(flow("10.1.2.3")).in_kernel is True, 60)
            assert scene.answers.explain(flow("39.40.0.5")).in_kernel is True

    time.run(scenario())


def test_two_subscribers_at_one_address_are_two_alternatives(time: Time) -> None:
    async def scenario() -> None:
        other = registration("MOBILE-2", subscriber=BANO)
        async with answering(time.clock, MOBILE, other) as scene:
            scene.it.refuse_writes = True
            await scene.put(entry("10.1.3.0/24"), entry("10.1.3.9", session="s2", number="+923007654321"))
            await asyncio.sleep(1)
            assert scene.answers.explain(flow("10.1.3.9")).in_kernel is False
            scene.it.refuse_writes = False
            await until(lambda: scene.answers.explain(flow("10.1.3.9")).in_kernel is True, 60)
            view = scene.answers.explain(flow("10.1.3.9"))
            assert (set(view.registrations), view.in_kernel) == ({"MOBILE-1", "MOBILE-2"}, True)
            assert [each.prefix for each in view.bindings] == ["10.1.3.9/32", "10.1.3.0/24"]

    time.run(scenario())


def test_an_address_that_a_lost_journal_left_in_the_kernel_passes_and_explain_says_why(time: Time) -> None:
    async def scenario() -> None:
        tables = FakeTables()
        async with answering(time.clock, MOBILE, tables=tables) as scene:
            await scene.put(entry(), entry("192.0.2.7", session="s2", ports="1024-2047"))
            await scene.it.in_sync()
        async with answering(time.clock, MOBILE, tables=tables) as scene:
            for passing in (flow("10.1.2.3"), flow("192.0.2.7", port=1500)):
                view = scene.answers.explain(passing)
                assert (view.decision, view.effect, view.in_kernel) == ("unregistered", "pass", True)
                assert view.reason.endswith(", a binding that the journal does not know, until its time is over")
            for refused in (flow("10.1.2.4"), flow("192.0.2.7", port=2048), flow("10.1.2.3", "esp")):
                assert scene.answers.explain(refused).effect == "reject"

    time.run(scenario())


def test_of_a_shared_address_the_source_port_decides(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            await scene.put(entry("192.0.2.7", ports="1024-2047"))
            await scene.it.in_sync()
            inside = scene.answers.explain(flow("192.0.2.7", port=1500))
            assert (inside.decision, inside.in_kernel) == ("registered", True)
            assert inside.bindings[0].ports == (1024, 2047)
            outside = scene.answers.explain(flow("192.0.2.7", port=2048))
            assert outside.decision == "unregistered"
            assert "the source port decides" not in outside.reason
            unknown = scene.answers.explain(flow("192.0.2.7", port=0))
            assert unknown.decision == "unregistered"
            assert "has the ports 1024-2047 of the address" in unknown.reason
            assert unknown.reason.endswith("the source port decides: it was not given")
            assert "port decides" not in scene.answers.explain(flow("192.0.2.8", port=0)).reason

    time.run(scenario())


# -- status ----------------------------------------------------------------------------------------------------


def test_the_status_tells_of_the_journal(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            scene.journal.stats = JournalStats(
                state="suspended",
                suspended_for="OSError: full",
                last_error="OSError: full",
                groups=3,
                rows=7,
                failures=2,
                refused=4,
                skipped=1,
                set_aside=1,
                lost_groups=2,
                lost_rows=9,
                lost_whole=True,
                salvaged=5,
                write_seconds=0.5,
                longest_write_seconds=0.4,
            )
            status = scene.answers.status()
            assert status.subscribers is not None
            assert status.subscribers.journal is scene.journal.stats
            # A journal that fails is nothing that a restart would mend, and nobody is cut by it.
            assert status.ready

    time.run(scenario())


def test_what_was_restored_is_counted_until_it_is_confirmed(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            await scene.put(entry())
            rows = tuple(scene.journal.rows.values())
            await asyncio.sleep(10)
            again = service_of(scene.it, HeldJournal(), time.clock, time.clock.monotonic)
            again.sessions.restore(rows, again.now())
            scene.service.sessions = again.sessions

            def restored() -> int:
                status = scene.answers.status().subscribers
                assert status is not None
                return status.restored

            assert restored() == 1
            await scene.put(entry())
            assert restored() == 0

    time.run(scenario())


def test_the_status_tells_of_the_listener_and_whom_it_refuses(time: Time) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            listener = listen(scene.service, time.clock, time.clock.monotonic)
            listener.open()
            try:
                sent: list[bytes] = []
                start = accounting_request(
                    integer(40, 1), text(44, "s7"), text(32, "bng-7"), text(31, NUMBER), b"\x08\x06\x0a\x01\x02\x09"
                )
                for raw, source in [
                    (start, "10.0.0.5"), (start, "10.0.0.5"), (start, "192.0.2.66"), (start, "192.0.2.66"),
                    (accounting_request(integer(40, 1), secret=b"other"), "10.0.0.6"),
                    (accounting_request(integer(40, 1)), "10.0.0.6"),
                ]:  # fmt: skip
                    listener.handle(raw, (source, 1646), time.clock.monotonic(), sent.append)
                status = scene.answers.status().subscribers
                assert status is not None
                view = status.listener
                assert view is not None
                assert view.addresses == tuple(f"127.0.0.1:{port}" for _, port in listener.addresses)
                assert (view.requests, view.events, view.duplicates, view.responses) == (6, 1, 1, 3)
                assert (view.unknown_client, view.unusable) == (2, {"no_session": 1})
                assert sum(view.rejected.values()) == 1
                assert [(each.source, each.total) for each in view.max_refused] == [
                    ("192.0.2.66", 2), ("10.0.0.6", 1),
                ]  # fmt: skip
                assert view.response_times.count == 2
                assert status.counts.starts == 1
                assert scene.listed() == ["10.1.2.9/32"]
            finally:
                listener.close()

    time.run(scenario())


# -- and registrations by address ------------------------------------------------------------------------------


EMBASSY = registration("EMB-1", "10.0.0.0/8", peers=("192.0.2.1/32",), category="embassy")
OFFICE = registration("BANK-2", "10.1.2.0/28", services=("udp/500",), category="bank")


@pytest.mark.parametrize("later", [False, True])
def test_a_registration_around_a_bound_address_takes_nothing_and_explain_names_both(
    time: Time, later: bool
) -> None:
    async def scenario() -> None:
        before, after = ((MOBILE,), (MOBILE, EMBASSY, OFFICE)) if later else ((MOBILE, EMBASSY, OFFICE),) * 2
        async with answering(time.clock, *before) as scene:
            await scene.put(entry())
            await scene.it.read("national", *after)
            await scene.it.in_sync()
            view = scene.answers.explain(flow("10.1.2.3"))
            assert (view.decision, view.registrations, view.in_kernel) == ("registered", ("MOBILE-1",), True)
            view = scene.answers.explain(flow("10.1.2.3", destination="192.0.2.1"))
            assert set(view.registrations) == {"MOBILE-1", "EMB-1"}
            assert "MOBILE-1" in view.reason
            assert "EMB-1" in view.reason
            # Also where one of them matches, or neither does.
            view = scene.answers.explain(flow("10.1.2.3"))
            assert view.reason.startswith("registered by MOBILE-1")
            assert view.reason.endswith("; BANK-2 covers the source, but its services are udp/500, not udp/51820")
            view = scene.answers.explain(flow("10.1.2.3", "udp/500"))
            assert view.reason.startswith("registered by BANK-2")
            assert view.reason.endswith(
                "; MOBILE-1 is bound to the source, but its services are udp/51820, not udp/500"
            )
            view = scene.answers.explain(flow("10.1.2.3", "udp/1194"))
            assert view.reason == (
                "BANK-2 covers the source, but its services are udp/500, not udp/1194;"
                " MOBILE-1 is bound to the source, but its services are udp/51820, not udp/1194"
            )
            page = scene.answers.bindings(None, None, 0, 100)
            assert page is not None
            (item,) = page.items
            assert (item.registrations, item.also_of) == (("MOBILE-1",), ("BANK-2",))

    time.run(scenario())


def test_a_record_around_thousands_of_bindings_costs_what_one_record_costs(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with answering(time.clock, MOBILE) as scene:
            scene.service.sessions._terms_of = lambda _: Terms(interim_s=600)
            subscribers = [
                registration(f"M-{number}", subscriber=number.to_bytes(32, "big")) for number in range(300)
            ]
            for each, number in zip(subscribers, range(300), strict=True):
                scene.it.programmer.upsert(each, time.clock())
                event = AccountingEvent(
                    kind="start", nas="n", session=str(number), subscriber=each.subscriber, at_s=time.clock(),
                    received_at_s=time.clock(), addresses=(parse_prefix(f"10.1.{number >> 8}.{number & 255}"),),
                )  # fmt: skip
                scene.service.receive(event, lambda: None)
            assert scene.it.controller.allowlist.bindings.size == 300
            looked_at: list[object] = []
            for of, name in (
                (BindingTable, "put"), (BindingTable, "remove"), (BindingTable, "of"),
                (Allowlist, "bindings_at"), (Allowlist, "bound_registrations_at"),
            ):  # fmt: skip
                real = getattr(of, name)

                def spied(*arguments: Any, real: Any = real) -> Any:
                    looked_at.append(real)
                    return real(*arguments)

                monkeypatch.setattr(of, name, spied)
            scene.it.programmer.upsert(EMBASSY, time.clock())
            scene.it.programmer.upsert(registration("EMB-1", "10.0.0.0/9", category="embassy"), time.clock())
            scene.it.programmer.withdraw("EMB-1")
            assert looked_at == []
            assert scene.it.controller.allowlist.bindings.size == 300

    time.run(scenario())
