"""A daemon that is not there: Queries with answers to be set, and a server of them in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from gatewayd.allowlist import Allowlist, decide
from gatewayd.api.app import AddPages, ApiServer
from gatewayd.api.arming import ModeRequest
from gatewayd.api.explanation import explain_view
from gatewayd.api.history import HistoryView
from gatewayd.api.near_misses import NearMissLineView, NearMissList
from gatewayd.api.plan import PlanRequest, PlanView
from gatewayd.api.process import LoopView
from gatewayd.api.report import ActivityPage, CountsView, ReportView, VerifyPage
from gatewayd.api.standing import ChangeList, HeldList, RejectedList, RejectedView
from gatewayd.api.status import (
    AggregateView,
    CounterView,
    HeldView,
    MarksView,
    RegistrationCounts,
    SourceView,
    StatusView,
    SubscribersView,
    UnprogrammedView,
)
from gatewayd.api.views import (
    BindingPage,
    BindingView,
    ExplainView,
    FlowPage,
    FlowView,
    RegistrationPage,
    RegistrationView,
    UnregisteredFlowPage,
    UnregisteredFlowView,
    binding_view,
    bound_view,
    flow_view,
    registration_view,
)
from gatewayd.assertions.states import AssertionsView
from gatewayd.errors import InputRejected, SerialNotHeld
from gatewayd.impact.report import ImpactReport
from gatewayd.log.tap import TAP, EventTap
from gatewayd.model import (
    Binding,
    Flow,
    Prefix,
    Registration,
    Status,
    parse_address,
    parse_prefix,
    parse_services,
)
from gatewayd.model.accounting import AccountingEvent, NasProfile
from gatewayd.model.transaction import ConntrackSize, Neighbour
from gatewayd.reconcile.dataplane import Stats
from gatewayd.registry.layers import OverrideCounts
from gatewayd.subscribers.journal_rows import JournalStats
from gatewayd.subscribers.radius.senders import ListenerStats, RefusedSource, ResponseTimes
from gatewayd.subscribers.session_list import end_events, entry_event
from gatewayd.subscribers.sessions.session import SessionCounts
from gatewayd.trial.views import ArmingView
from gatewayd.watch.attribute import WatchView
from gatewayd.watch.interfaces import InterfacesView, PatternView
from tests.support.impact import report_of

NOW = 1_730_689_200.0  # 2024-11-04T03:00:00Z

BANK = Registration(
    "PK-2024-000123",
    "bank",
    "active",
    (parse_prefix("203.0.113.0/28"), parse_prefix("2001:db8:12::/48")),
    peers=(parse_prefix("198.51.100.7/32"),),
    services=parse_services(["ipsec", "udp/51820"]),
    valid_from_s=NOW - 86400,
)
FREELANCER = Registration("PK-2024-000200", "freelancer", "suspended", (), subscriber=b"\xd1" * 32)

PEACE = StatusView(
    version="0.1.0",
    started_at="2024-11-01T00:00:00Z",
    now="2024-11-04T03:00:00Z",
    mode="observe",
    configured_mode="reject",
    enforce_from="2024-12-01T00:00:00Z",
    armed=False,
    epoch=3,
    ready=True,
    reasons=(),
    sources=(
        SourceView(
            name="national",
            url="https://registry.example/feed",
            state="ok",
            last_success_at="2024-11-04T02:59:20Z",
            next_attempt_at="2024-11-04T03:00:20Z",
            registrations=31022,
        ),
    ),
    registrations=RegistrationCounts(
        total=31022,
        effective=30988,
        by_category={"embassy": 22, "bank": 31000},
        by_status={"active": 31000, "suspended": 22},
        next_window_change_at="2024-11-04T04:30:00Z",
    ),
    kernel=Stats(
        table="gatewayd",
        masks=12,
        sets=14,
        elements_desired=61000,
        transactions=144,
        commit_seconds=0.5,
        last_commit_at="2024-11-04T02:59:20Z",
        last_verified_at="2024-11-04T02:57:50Z",
        generation=1201,
    ),
    counters={
        "registered_flows": CounterView(1200, 96000),
        "registered_packets": CounterView(2_500_000, 3 * 1024**3),
        "unregistered_packets": CounterView(17, 1020),
    },
    watch=WatchView(packets=17, connections=2400, flows_tracked=310),
    loop=LoopView(0.001, 0.02),
)

TROUBLE = msgspec.structs.replace(
    PEACE,
    assertions=AssertionsView(looked_at="2024-11-04T02:59:58Z"),
    mode="reject",
    armed=True,
    enforce_from=None,
    ready=False,
    reasons=("12 registered elements are not in the kernel", "source lab was never read"),
    sources=(
        msgspec.structs.replace(
            PEACE.sources[0],
            rejected=4,
            rejected_by_code={"prefix_host_bits": 1, "unknown_field": 3},
            conflicts=1,
        ),
        SourceView("lab", "file:/lab.csv", "waiting"),
        SourceView("mirror", "https://m.example/", "failing", last_error="HTTP status 503\x1b[2J"),
    ),
    registrations=msgspec.structs.replace(
        PEACE.registrations,
        by_status={"active": 31022},
        unprogrammed=1,
        unprogrammed_examples=(UnprogrammedView("PK-9", "would need 5000 elements, 4096 are allowed"),),
        next_window_change_at=None,
    ),
    kernel=replace(
        PEACE.kernel,
        not_in_kernel=12,
        surplus=1,
        retained=3,
        failures=2,
        repairs=1,
        last_error="commit: Device or resource busy",
        last_verified_at=None,
        pending=12,
    ),
    counters={},
    interfaces=InterfacesView(
        4, (PatternView("ppp*", 1200, ("ppp0", "ppp1")), PatternView("eth1.100", 0)), (PatternView("eth0", 1),)
    ),
    interfaces_unmatched=("eth1.100",),
    watch=WatchView(malformed=1, overruns=20, resyncs=1, late_admissions=5, flows_evicted=3),
    warnings=("a rule of another program (inet a c handle 3) sets the ct mark", "connection tracking is 90% full"),
    marks=MarksView(
        carried=9,
        not_believed=2,
        unexplained=6,
        waiting=4,
        waiting_at_most_s=900.0,
        draining=5,
        writers=1,
        neighbours=(Neighbour("writes", "inet", "a", "c", 3),),
    ),
    conntrack=ConntrackSize(900, 1000, dropped=7, insert_failed=1, early_dropped=3),
    unregistered=(
        AggregateView("192.0.2.0/24", 55, ("udp/51820 (54)", "esp (1)")),
        AggregateView("2001:db8:99::/48", 1),
    ),
)

GUARDED = msgspec.structs.replace(
    PEACE,
    sources=(
        msgspec.structs.replace(
            PEACE.sources[0],
            signed=True,
            session="9df4b597-af9e-4dca-bdda-719cce2c4e28",
            serial=17,
            issued_at="2024-11-04T02:58:00Z",
            held=HeldView(17, "2024-11-04T01:00:00Z", 1204, "1204 registrations removed at once, more than 1000"),
            kept=2,
            store_error="No space left on device",
        ),
        SourceView(
            "embassies",
            "https://e.example/notification.jws",
            "failing",
            last_success_at="2024-11-04T02:50:00Z",
            last_error="HTTP status 503",
            registrations=22,
            signed=True,
            serial=4,
            freshness="overdue",
            not_fresh_since="2024-11-04T02:53:00Z",
            held=HeldView(4, "2024-11-04T02:59:59Z", 1, "1 registrations of category embassy removed"),
        ),
        SourceView(
            "mirror",
            "https://m.example/list.csv",
            "waiting",
            registrations=3,
            freshness="stale",
            not_fresh_since="2024-11-01T02:00:00Z",
            restored_at="2024-10-25T02:00:00Z",
        ),
        SourceView("lab", "file:/lab.csv", "waiting", freshness="stale"),
    ),
    overrides=OverrideCounts(
        pins=3,
        filters=1,
        filtered=1200,
        trimmed=5,
        conflicts=1,
        shadowed=2,
        expired=4,
        faults=("10-local.yaml:3:5: pins[0].id: missing", *(f"20-more.yaml:{line}:1: x" for line in range(1, 7))),
    ),
)
"""The kernel has everything, and the registry needs somebody to look at it."""


PEPPER = b"a pepper for the tests of today"

MOBILE = msgspec.structs.replace(FREELANCER, id="PK-2024-000300", status="active", subscriber=b"\xd2" * 32)
HOME = Binding(
    subscriber=b"\xd2" * 32,
    prefix=parse_prefix("10.1.2.3/32"),
    since_s=NOW - 7200,
    confirmed_s=NOW - 12,
    nas="bng-1",
    session="8a01",
)
SHARED = Binding(
    subscriber=b"\xd2" * 32,
    prefix=parse_prefix("192.0.2.77/32"),
    ports=(1024, 2047),
    since_s=NOW - 90000,
    confirmed_s=NOW - 3600,
    nas="cgn-2",
    session="s-77",
    is_restored=True,
)

RESPONSE_TIMES = ResponseTimes()
RESPONSE_TIMES.counts[3], RESPONSE_TIMES.counts[6], RESPONSE_TIMES.counts[-1] = 900, 80, 10
RESPONSE_TIMES.sum_s = 1.5

SUBSCRIBED = msgspec.structs.replace(
    PEACE,
    subscribers=SubscribersView(
        sessions=31000,
        bindings=412,
        counts=SessionCounts(starts=900, expired=3),
        refreshed=1200,
        tombstones=14,
        journal=JournalStats(groups=400, rows=1500, write_seconds=0.8, longest_write_seconds=0.02),
        listener=ListenerStats(
            addresses=("0.0.0.0:1813",),
            requests=1000,
            status_server=60,
            duplicates=9,
            events=930,
            unusable={"no_session": 1},
            responses=1000,
            response_times=RESPONSE_TIMES,
        ),
    ),
)
"""With a section `subscribers`, and all is well."""

DEAF = msgspec.structs.replace(
    PEACE,
    subscribers=SubscribersView(
        sessions=1,
        bindings=1,
        restored=1,
        unanswered=2,
        conflicting=6,
        counts=SessionCounts(tombstoned=2, stale=3, evictions=8),
        tombstones_lost=5,
        journal=JournalStats(
            state="suspended",
            suspended_for="OperationalError: database or disk is full",
            last_error="OperationalError: database or disk is full",
            waiting=1,
            waiting_rows=7,
            failures=4,
            refused=2,
            skipped=1,
            set_aside=1,
        ),
        listener=ListenerStats(
            addresses=("0.0.0.0:1813", "[::]:1813"),
            requests=60,
            unknown_client=30,
            rejected={"bad_authenticator": 15, "malformed": 5},
            unusable={"nas_not_allowed": 4},
            ignored={"address_hint": 2, "identity_no_country_code": 7},
            over_rate=3,
            flood_drops=9000,
            max_unused=(RefusedSource("192.0.2.1", 13, {"identity_no_country_code": 7, "nas_not_allowed": 4}),),
            pending_duplicates=3,
            unsent=1,
            receive_errors=1,
            kernel_drops=8,
            max_refused=(
                RefusedSource("192.0.2.9", 30, {"unknown_client": 30}),
                RefusedSource("2001:db8::9", 20, {"malformed": 5, "bad_authenticator": 15}),
            ),
        ),
    ),
)
"""Nothing that anybody sends is believed, and the disk is full."""


class FakeArming:
    """`shown`: the answer to all. `refusal`: of every change. `asked`: what was asked for."""

    def __init__(self) -> None:
        self.shown = ArmingView()
        self.page: bytes | None = None
        self.refusal: InputRejected | None = None
        self.asked: list[object] = []

    def view(self) -> ArmingView:
        return self.shown

    async def report(self) -> bytes | None:
        return self.page

    async def _take(self, asked: object) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(asked)

    async def set_mode(self, request: ModeRequest) -> None:
        await self._take(request)

    async def confirm(self, by: str) -> None:
        await self._take(("confirm", by))

    async def revert(self, by: str) -> None:
        await self._take(("revert", by))

    async def rearm(self, by: str) -> None:
        await self._take(("rearm", by))

    async def acknowledge(self, by: str) -> None:
        await self._take(("acknowledge", by))


class FakeQueries:
    """Answers as a daemon would that holds BANK, FREELANCER and, bound to HOME and SHARED, MOBILE; every answer may
    be replaced. `told`: what came of PUT and DELETE, with the session `8a01` of `bng-1` alone known."""

    def __init__(self) -> None:
        self.dead: str | None = None
        self.reasons: tuple[str, ...] = ()
        self.view = PEACE
        self.history_view = HistoryView()
        self.in_kernel: bool | None = True
        self.arming = FakeArming()
        self.outcome: Mapping[str, object] = {"registrations": 31022, "errors": {}}
        self.held_serial: int | None = 17
        self.failure: Exception | None = None
        self.asked: list[object] = []
        self.plan_view = PlanView(policy="observe stays")
        self.reload_outcome: dict[str, object] = {"reloaded": True, "mode": "observe"}
        self.has_subscribers = True
        self.keeps_flows = True
        self.told: list[AccountingEvent] = []
        self.profile = NasProfile(country_code="92")
        self.bound = [HOME, SHARED]
        self.crosses: bool | None = None
        self.report_view = ReportView(None, None, None, CountsView())
        self.activity_page: ActivityPage | Exception = ActivityPage(0, 0, ())
        self.verify_page = VerifyPage(0, 0, ())
        self.held_list = HeldList(0, None, "", 0, 0, ())
        self.change_list = ChangeList(0, ())
        self.rejected_views: list[RejectedView] = []
        self.rejected_total = 0
        self.near_miss_lines: list[NearMissLineView] = []
        self.acknowledged: list[tuple[str, float | None, str]] = []
        self.impact_report = report_of()
        self.allowlist = Allowlist()
        for registration in (BANK, FREELANCER):
            self.allowlist.upsert(registration)

    def bind(self) -> None:
        """MOBILE is registered too, and at its addresses."""
        self.allowlist.upsert(MOBILE)
        for binding in self.bound:
            self.allowlist.bindings.put(binding)

    def is_alive(self) -> str | None:
        return self.dead

    def outage(self) -> tuple[str, ...]:
        return self.readiness()

    def readiness(self) -> tuple[str, ...]:
        return self.reasons

    def status(self) -> StatusView:
        if self.failure is not None:
            raise self.failure
        return self.view

    def history(self) -> HistoryView:
        return self.history_view

    def explain(self, flow: Flow, incoming: str | None = None, outgoing: str | None = None) -> ExplainView:
        self.asked.append(flow if incoming is None and outgoing is None else (flow, incoming, outgoing))
        decision = decide(self.allowlist, parse_services(["ipsec", "wireguard"]), flow, NOW)
        in_kernel = self.in_kernel if decision.word == "registered" else None
        bindings = tuple(bound_view(each, NOW) for each in decision.bindings)
        view = explain_view(
            flow, decision, mode=self.view.mode, canary=None, in_kernel=in_kernel, bindings=bindings
        )
        return msgspec.structs.replace(view, crosses=self.crosses)

    async def registrations(
        self, category: str | None, status: Status | None, text: str | None, offset: int, limit: int,
        *, registrant: str | None = None, ending_s: float | None = None, provisional: bool = False,
    ) -> RegistrationPage:  # fmt: skip
        self.asked.append((category, status, text, offset, limit))
        if registrant is not None or ending_s is not None or provisional:
            self.asked.append((registrant, ending_s, provisional))
        found = [
            each
            for each in self.allowlist
            if category in (None, each.category) and status in (None, each.status) and (text or "") in each.id
            and registrant in (None, each.registrant)
        ]  # fmt: skip
        items = tuple(self._registration_view(each) for each in found[offset : offset + limit])
        return RegistrationPage(len(found), offset, items)

    def registration(self, registration_id: str) -> RegistrationView | None:
        found = self.allowlist.get(registration_id)
        return None if found is None else self._registration_view(found)

    def held(self, offset: int, limit: int) -> HeldList:
        self.asked.append((offset, limit))
        return self.held_list

    async def report(self, since_s: float) -> ReportView:
        self.asked.append(since_s)
        return self.report_view

    async def verify(self, since_s: float, offset: int, limit: int) -> VerifyPage:
        self.asked.append((since_s, offset, limit))
        items = self.verify_page.items[offset : offset + limit]
        return VerifyPage(len(self.verify_page.items), offset, items, self.verify_page.notes)

    async def activity(self, since_s: float, id: str | None, offset: int, limit: int) -> ActivityPage:
        self.asked.append((since_s, id, offset, limit))
        if isinstance(self.activity_page, Exception):
            raise self.activity_page
        items = self.activity_page.items[offset : offset + limit]
        return ActivityPage(len(self.activity_page.items), offset, items)

    def rejected(self, source: str | None, offset: int, limit: int) -> RejectedList:
        found = [each for each in self.rejected_views if source in (None, each.source)]
        page = tuple(found[offset : offset + limit])
        return RejectedList(self.rejected_total or len(found), len(found), offset, page)

    def near_misses(self, offset: int, limit: int, *, with_acknowledged: bool) -> NearMissList:
        found = [each for each in self.near_miss_lines if with_acknowledged or not each.for_good]
        return NearMissList(len(found), offset, 0, tuple(found[offset : offset + limit]))

    async def acknowledge(self, registration_id: str, until_s: float | None, by: str) -> Mapping[str, object]:
        lines = sum(each.id == registration_id for each in self.near_miss_lines)
        if lines:
            self.acknowledged.append((registration_id, until_s, by))
        return {"id": registration_id, "lines": lines}

    def changes(self, since_s: float) -> ChangeList:
        self.asked.append(since_s)
        return self.change_list

    def flows(self, registration_id: str | None, offset: int, limit: int) -> FlowPage:
        self.asked.append((registration_id, offset, limit))
        flows = live_flows() if registration_id in (None, BANK.id) else ()
        return FlowPage(len(flows), offset, flows[offset : offset + limit])

    async def impact(self, since_s: float | None, top: int, percent: int) -> ImpactReport:
        if self.failure is not None:
            raise self.failure
        self.asked.append((since_s, top, percent))
        return self.impact_report

    def unregistered_flows(self, offset: int, limit: int) -> UnregisteredFlowPage | None:
        self.asked.append((offset, limit))
        if not self.keeps_flows:
            return None
        items = (UnregisteredFlowView("203.0.113.9", "198.51.100.7", "udp/500", 40000, "2024-11-04T02:59:55Z"),)
        return UnregisteredFlowPage(len(items), offset, items[offset : offset + limit])

    def bindings(
        self, registration_id: str | None, prefix: Prefix | None, offset: int, limit: int
    ) -> BindingPage | None:
        self.asked.append((registration_id, prefix, offset, limit))
        if not self.has_subscribers:
            return None
        found = [
            each for each in self.bound if prefix in (None, each.prefix) and registration_id in (None, MOBILE.id)
        ]
        return BindingPage(len(found), offset, tuple(map(self._binding_view, found[offset : offset + limit])))

    async def put_bindings(self, entries: Sequence[object]) -> Mapping[str, object] | None:
        if not self.has_subscribers:
            return None
        if self.failure is not None:
            raise self.failure
        events = [
            entry_event(each, pepper=PEPPER, profile_of=lambda _: self.profile, now_s=NOW) for each in entries
        ]
        self.told += events
        return {"sessions": len(events), "passed_over": {}}

    async def delete_binding(self, nas: object, session: object, at: object) -> Mapping[str, object] | None:
        if not self.has_subscribers:
            return None
        if self.failure is not None:
            raise self.failure
        (event,) = end_events(nas, session, pepper=PEPPER, profile_of=lambda _: NasProfile(), now_s=NOW, at=at)
        self.told.append(event)
        return {"sessions": int((event.nas, event.session) == (HOME.nas, HOME.session))}

    async def sync(self) -> Mapping[str, object]:
        if self.failure is not None:
            raise self.failure
        return self.outcome

    async def reload(self, by: str, *, is_forced: bool) -> Mapping[str, object]:
        self.asked.append((by, "forced") if is_forced else by)
        return self.reload_outcome

    async def plan(self, request: PlanRequest) -> PlanView:
        self.asked.append(request)
        if self.failure is not None:
            raise self.failure
        return self.plan_view

    async def accept(self, serial: int, by: str, *, is_forced: bool) -> Mapping[str, object]:
        self.asked.append((serial, by, "forced") if is_forced else (serial, by))
        if serial != self.held_serial:
            raise SerialNotHeld(serial, self.held_serial)
        self.held_serial = None
        return {"serial": serial, "released": {"national": 1204}}

    def _binding_view(self, binding: Binding) -> BindingView:
        return binding_view(binding, NOW, registrations=(MOBILE.id,), in_kernel=self.in_kernel)

    def _registration_view(self, registration: Registration) -> RegistrationView:
        return registration_view(
            registration,
            NOW,
            in_kernel=self.in_kernel if registration.is_effective(NOW) else None,
            last_seen_s=NOW - 5 if registration is BANK else None,
            flows=2 if registration is BANK else 0,
            size_bytes=4096 if registration is BANK else 0,
        )


def live_flows() -> tuple[FlowView, ...]:
    """One of each family: IPv4 with ports, IPv6 without."""
    far = parse_address("198.51.100.7")
    return (
        flow_view(
            Flow(17, parse_address("203.0.113.5"), far, 40000, 51820),
            (BANK.id,),
            packets=2000,
            size_bytes=4096,
            first_seen_s=NOW - 60,
            last_seen_s=NOW - 5,
        ),
        flow_view(Flow(50, parse_address("2001:db8:12::1"), parse_address("2001:db8:ff::1")), ()),
    )


@asynccontextmanager
async def serving(
    queries: FakeQueries, socket_path: Path, pages: AddPages | None = None, events: EventTap = TAP, port: int = 0
) -> AsyncGenerator[ApiServer, None]:
    """An ApiServer on 127.0.0.1 and the socket, in this loop."""
    server = ApiServer(queries, "127.0.0.1", port, str(socket_path), pages=pages, events=events)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextmanager
def serving_in_a_thread(
    queries: FakeQueries, socket_path: Path, pages: AddPages | None = None, events: EventTap = TAP, port: int = 0
) -> Generator[ApiServer, None, None]:
    """The same in a loop of its own, for commands that bring theirs."""
    started = threading.Event()
    found: list[ApiServer | Callable[[], object]] = []

    async def serve() -> None:
        finished = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with serving(queries, socket_path, pages, events, port) as server:
            found.extend((server, lambda: loop.call_soon_threadsafe(finished.set)))
            started.set()
            await finished.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert started.wait(15), "the server did not start"
        server = found[0]
        assert isinstance(server, ApiServer)
        yield server
    finally:
        if len(found) == 2 and callable(found[1]):
            found[1]()
        thread.join()
