"""A local filter, a pin and a held removal are seen wherever the registration is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatewayd.control.arming_queries import Arming, check_nothing
from gatewayd.control.queries import Counts, DaemonQueries
from gatewayd.control.status import StatusReport
from gatewayd.control.vitals import Vitals
from gatewayd.feed.reading import Rejection
from gatewayd.model import Extension, Registration, parse_prefix
from gatewayd.reconcile.dataplane import Found
from gatewayd.settings.model import InterfaceSettings
from gatewayd.sources.files import OverridesReading
from gatewayd.sources.override_file import parse_overrides
from gatewayd.sources.update import SourceUpdate
from gatewayd.watch.source import SourceStats
from tests.support.fake_conntrack import FakeConntrack
from tests.support.impact import no_impact
from tests.support.manual_clock import START_S, Time
from tests.support.owning import Owning, flow, guarded, owning, registration, settings_of, shown

BANK = registration("BANK-1", "39.32.0.0/28", category="bank")
HOUSE = registration("HOUSE-1", "39.32.64.8/29", "39.32.65.0/28", category="software_house")
FILTERS = """\
pins:
  - {id: PIN-1, category: bank, clients: [39.33.0.0/28], comment: by phone, until: 2099-01-01T00:00:00Z}
filters:
  - {id: BANK-1, comment: compromised}
  - {prefix: 39.32.65.0/24, comment: hijacked}
"""


class _Events:
    def __init__(self) -> None:
        self.stats = {"nflog": SourceStats(), "near": SourceStats(), "conntrack": SourceStats()}


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


@asynccontextmanager
async def asked(time: Time) -> AsyncIterator[tuple[Owning, DaemonQueries]]:
    async with owning(time.clock, guarded(settings_of("national")), conntrack=FakeConntrack()) as it:
        events: Any = _Events()
        report = StatusReport(it.controller, events, {}, Vitals(time.clock))

        async def read_sources() -> None: ...

        more: dict[str, Any] = {"arming": Arming(it.trials, check_nothing)}
        if "reload" in DaemonQueries.__init__.__annotations__:
            more["reload"] = read_sources
        yield (
            it,
            DaemonQueries(
                it.controller,
                report,
                None,
                clock=time.clock,
                read_sources=read_sources,
                gate=it.gate,
                counts=Counts(None, no_impact),
                **more,
            ),
        )


def local(text: str) -> OverridesReading:
    return OverridesReading((parse_overrides(text, "desk.yaml", "desk.yaml"),))


def test_a_registrant_that_a_filter_cuts_is_found_with_the_filter(time: Time) -> None:
    async def scenario() -> None:
        async with asked(time) as (it, queries):
            await it.read("national", BANK, HOUSE)
            await it.controller.use_overrides(local(FILTERS))
            await it.in_sync()
            view = shown(queries, "BANK-1")
            assert (view.status, view.effective, view.in_kernel) == ("active", False, None)
            assert view.standing is not None
            assert (view.standing.source, view.standing.dropped) == ("national", True)
            assert [str(each) for each in view.standing.filters] == [
                "filter of BANK-1 in desk.yaml:4 (compromised)"
            ]
            explained = queries.explain(flow("39.32.0.1"))
            assert explained.decision == "unregistered"
            assert explained.notes == (
                "BANK-1 of national has the source, but the filter of BANK-1 in desk.yaml:4 (compromised) takes it "
                "away",
            )
            assert explained.reason.endswith(
                ", but the filter of BANK-1 in desk.yaml:4 (compromised) takes it away"
            )
            for text in ("BANK-1", "39.32.0.1", "39.32.0.1/32"):
                assert [each.id for each in (await queries.registrations(None, None, text, 0, 9)).items] == [
                    "BANK-1"
                ]
            assert (await queries.registrations("ngo", None, "BANK-1", 0, 9)).total == 0

    time.run(scenario())


def test_a_registrant_of_whom_a_filter_leaves_less_is_found_with_what_he_lost(time: Time) -> None:
    async def scenario() -> None:
        async with asked(time) as (it, queries):
            await it.read("national", BANK, HOUSE)
            await it.controller.use_overrides(local(FILTERS))
            await it.in_sync()
            view = shown(queries, "HOUSE-1")
            assert view.standing is not None
            assert (view.effective, view.standing.trimmed, view.standing.dropped) == (True, True, False)
            assert (view.clients, view.standing.clients) == (
                ("39.32.64.8/29",), ("39.32.64.8/29", "39.32.65.0/28"),
            )  # fmt: skip
            assert "filter of 39.32.65.0/24 in desk.yaml:5 (hijacked)" in queries.explain(flow("39.32.65.1")).reason
            assert queries.explain(flow("39.32.64.9")).decision == "registered"

    time.run(scenario())


def test_a_pin_is_said_where_it_makes_a_flow_pass(time: Time) -> None:
    async def scenario() -> None:
        async with asked(time) as (it, queries):
            await it.read("national", BANK)
            await it.controller.use_overrides(local(FILTERS))
            await it.in_sync()
            pin = "pin of PIN-1 in desk.yaml:2 (by phone), until 2099-01-01T00:00:00Z"
            assert queries.explain(flow("39.33.0.1")).notes == (f"PIN-1 is a local {pin}",)
            view = shown(queries, "PIN-1")
            assert view.standing is not None
            assert (view.standing.source, str(view.standing.pin)) == (None, pin)

    time.run(scenario())


def test_held_removals_are_listed_with_their_live_flows_and_marked(time: Time) -> None:
    async def scenario() -> None:
        async with asked(time) as (it, queries):
            assert queries.held(0, 9).total == 0
            await it.read("national", BANK, HOUSE)
            await it.in_sync()
            time.clock.advance(60)
            await it.read("national", HOUSE)
            await it.in_sync()
            found = queries.held(0, 9)
            (item,) = found.items
            assert (found.total, item.id, item.category, item.prefixes, item.cause, item.becomes, item.flows) == (
                1, "BANK-1", "bank", ("39.32.0.0/28",), "national", "nothing", 0,
            )  # fmt: skip
            assert "bank" in found.reason
            assert item.since == found.since
            assert queries.held(1, 9).items == ()
            view = shown(queries, "BANK-1")
            assert view.standing is not None
            assert (view.effective, view.in_kernel, view.standing.held_cause) == (True, True, "national")
            (note,) = queries.explain(flow("39.32.0.1")).notes
            assert note.startswith("BANK-1 is in force because its removal is held, since ")
            await queries.accept(found.serial, "uid 1000", is_forced=False)
            assert queries.held(0, 9).total == 0
            step = queries.changes(0.0).items[-1]
            assert (step.cause, step.serial, step.by, step.went) == (
                "operator/accept", found.serial, "uid 1000", ("BANK-1",),
            )  # fmt: skip

    time.run(scenario())


def test_what_came_went_and_changed_is_told_with_its_cause(time: Time) -> None:
    async def scenario() -> None:
        async with asked(time) as (it, queries):
            await it.read("national", BANK)
            await it.in_sync()
            before = time.clock()
            time.clock.advance(60)
            await it.read("national", BANK, HOUSE)
            (step,) = queries.changes(before + 1).items
            assert (step.cause, step.came, step.went, step.changed, step.by) == (
                "national",
                ("HOUSE-1",),
                (),
                (),
                "",
            )
            assert queries.changes(before + 90).items == ()
            assert len(queries.changes(START_S - 1).items) >= 1

    time.run(scenario())


def test_an_id_that_neither_a_source_nor_a_file_has_is_unknown(time: Time) -> None:
    async def scenario() -> None:
        async with asked(time) as (it, queries):
            await it.read("national", BANK)
            assert queries.registration("BANK-2") is None

    time.run(scenario())


def test_explain_says_which_interfaces_are_not_there_and_whether_the_rules_judge(time: Time) -> None:
    async def scenario() -> None:
        async with asked(time) as (it, queries):
            await it.read("national", BANK)
            await it.in_sync()
            it.configure(interfaces=InterfaceSettings(inside=("eth1.100",), outside=("eth0",)))
            view = queries.explain(flow("39.32.0.1"), "eth1", "eth0")
            assert view.crosses is False
            assert queries.explain(flow("39.32.0.1"), "eth1.100", "eth0").crosses is True
            assert queries.explain(flow("39.32.0.1"), "eth1").crosses is None

    time.run(scenario())


def test_explain_says_that_a_kernel_that_was_not_read_may_have_more(time: Time) -> None:
    async def scenario() -> None:
        async with asked(time) as (it, queries):
            await it.read("national", BANK)
            await it.in_sync()
            it.reconciler.stats.found = Found("reject", 3, 9)
            reason = queries.explain(flow("39.60.0.1")).reason
            assert "the kernel was not read yet since the start: what it has from before may let it pass" in reason
            assert "not read yet" not in queries.explain(flow("39.32.0.1")).reason

    time.run(scenario())


def test_rejected_records_are_listed_of_one_source_or_all(time: Time) -> None:
    async def scenario() -> None:
        async with asked(time) as (it, queries):
            rejections = (
                Rejection(3, "B", "bad_time", "valid_until", "2025-13-01"),
                Rejection(9, None, "not_json", "", ""),
            )
            update = SourceUpdate(
                "national", START_S, registrations={"BANK-1": BANK}, rejected={"bad_time": 1, "not_json": 6},
                rejections=rejections,
            )  # fmt: skip
            await it.controller.deliver(update)
            found = queries.rejected(None, 0, 10)
            assert (found.total, found.listed, [each.line for each in found.items]) == (7, 2, [3, 9])
            assert queries.rejected("national", 1, 10).items == found.items[1:]
            assert queries.rejected("other", 0, 10).total == 0
            assert "2025-13-01" not in repr(found)

    time.run(scenario())


def test_registrations_are_selected_by_company_by_end_and_as_provisional(time: Time) -> None:
    day_s = 86_400.0

    def of(company: str | None, id: str, client: str, **fields: Any) -> Registration:
        extension = Extension(company, is_provisional=company is None)
        return registration(id, client, extension=extension, **fields)

    async def scenario() -> None:
        async with asked(time) as (it, queries):
            soon, late = time.clock() + 3 * day_s, time.clock() + 5 * day_s
            await it.read(
                "national",
                of("co-1", "A", "39.32.0.0/28"),
                of("co-1", "B", "39.32.1.0/28"),
                of("co-2", "C", "39.32.2.0/28", valid_until_s=late),
                of("co-3", "D", "39.32.3.0/28", valid_until_s=soon),
                of(None, "P", "39.32.4.0/28", valid_until_s=soon + 1),
            )

            async def ids(**only: Any) -> list[str]:
                return [each.id for each in (await queries.registrations(None, None, None, 0, 100, **only)).items]

            assert await ids(registrant="co-1") == ["A", "B"]
            assert await ids(ending_s=4 * day_s) == ["D", "P"]
            assert await ids(ending_s=7 * day_s) == ["D", "P", "C"]
            assert await ids(provisional=True) == ["P"]
            assert len(await ids()) == 5
            view = shown(queries, "P")
            assert (view.registrant, view.provisional, view.endpoints) == (None, True, ())
            assert shown(queries, "A").registrant == "co-1"

    time.run(scenario())


def test_endpoints_that_wait_are_listed_with_what_they_replace(time: Time) -> None:
    def provider(id: str, endpoint: str) -> Registration:
        extension = Extension("co-9", endpoints=(parse_prefix(endpoint),))
        return registration(id, services=("ipsec",), extension=extension)

    async def scenario() -> None:
        async with asked(time) as (it, queries):
            former = provider("VPN-0", "198.51.0.0/25")
            await it.read("national", former)
            await it.read("national", *(provider(f"VPN-{n}", f"198.51.{n}.0/24") for n in range(17)))
            found = queries.held(0, 2)
            assert [(each.id, each.registrant, each.endpoints, each.replaces) for each in found.endpoints] == [
                ("VPN-0", "co-9", ("198.51.0.0/24",), ("198.51.0.0/25",)),
                ("VPN-1", "co-9", ("198.51.1.0/24",), ()),
            ]
            assert (found.total, found.endpoints_serial > 0) == (0, True)
            assert found.endpoints_reason.startswith("17 endpoint prefixes added, more than 16")
            assert shown(queries, "VPN-0").endpoints == ("198.51.0.0/25",)

    time.run(scenario())
