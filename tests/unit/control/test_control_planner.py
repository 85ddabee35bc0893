"""A plan of the running daemon says what the change then does, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatewayd.api.plan import FlowCounts, HeldPlan, PlanRequest, PlanView
from gatewayd.control import planner as planner_module
from gatewayd.control.planner import Planner
from gatewayd.model import Registration
from gatewayd.settings import load_settings
from gatewayd.sources.files import read_overrides
from tests.support.fake_conntrack import FakeConntrack
from tests.support.manual_clock import Time
from tests.support.owning import REGISTERED, Owning, flow, owning, registration

BANK = registration("BANK", "203.0.113.0/28", category="bank")
HOUSE = registration("HOUSE", "39.32.64.8/29")
ASSERTED = """
must_pass:
  - {name: hbl, source: 203.0.113.5, destination: 198.51.100.7, service: wireguard, comment: "call them"}
"""


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    async def in_this_thread(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    # Time passes while a thread is waited for: here nothing is.
    monkeypatch.setattr(asyncio, "to_thread", in_this_thread)
    with Time() as made:
        yield made


class Rig:
    def __init__(self, it: Owning, planner: Planner, document: dict[str, Any], local: Path) -> None:
        self.it = it
        self.planner = planner
        self.document = document
        self.local = local

    async def plan(self, changes: dict[str, Any] | None = None, **fields: Any) -> PlanView:
        document = {section: {**self.document[section]} for section in self.document}
        written = len(self.it.written)
        for path, value in (changes or {}).items():
            section, key = path.split(".")
            document[section][key] = value
        view = await self.planner.plan(PlanRequest(yaml.safe_dump(document), "new.yaml", **fields))
        assert len(self.it.written) == written, "a plan has written"
        return view


@asynccontextmanager
async def planning(
    time: Time,
    tmp_path: Path,
    *known: Registration,
    mode: str = "observe",
    sources: tuple[str, ...] = ("national",),
) -> AsyncIterator[Rig]:
    local = tmp_path / "local.d"
    local.mkdir(exist_ok=True)
    listed = [{"name": name, "url": f"file:/nowhere/{name}", "allow_unsigned": True} for name in sources]
    document: dict[str, Any] = {
        "registry": {"sources": listed, "local": str(local)},
        "policy": {"mode": "observe", "scope": ["ipsec", "wireguard"]},
    }
    settings = load_settings(yaml.safe_dump(document), "c.yaml")
    conntrack = FakeConntrack()
    async with owning(time.clock, settings, conntrack=conntrack) as it:
        await it.gate.adopt(read_overrides(local))
        for name in sources:
            await it.read(name, *(known if name == "national" else ()))
        await it.in_sync()
        planner = Planner(
            it.controller, it.gate, it.reconciler.tracker, conntrack,
            host_time=it.host_time, monotonic=time.clock.monotonic,
        )  # fmt: skip
        yield Rig(it, planner, document, local)


def test_the_file_in_force_changes_nothing(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with planning(time, tmp_path, BANK) as rig:
            for view in (await rig.plan(), await rig.planner.plan(PlanRequest())):
                assert view.ruleset is None
                assert (view.added, view.removed, view.held, view.broken) == ({}, {}, (), ())
                assert view.policy.startswith("observe stays: unregistered flows in scope")

    time.run(scenario())


def test_local_files_are_rehearsed_and_the_guard_answers(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        others = [registration(f"R-{number}", f"39.33.{number}.0/24") for number in range(4)]
        async with planning(time, tmp_path, BANK, HOUSE, *others) as rig:
            (rig.local / "a.yaml").write_text(
                "pins: [{id: PIN, category: bpo, clients: [10.0.0.0/30], comment: why}]\n"
                "filters: [{prefix: 39.33.0.0/16, comment: why}]\n"
            )
            view = await rig.plan()
            assert (view.registrations.came_ids, view.registrations.went) == (("PIN",), 0)
            assert view.held == (HeldPlan({"config/local": 4}, view.held[0].reason),)
            assert "4 registrations removed at once" in view.held[0].reason
            assert view.added == {"c4_30": 1}
            assert view.new_masks == ("c4_30",)
            assert view.ruleset is not None
            assert "@c4_30 " in view.ruleset
            (rig.local / "a.yaml").write_text("filters: [{id: R-0, comment: why}, {id: R-1, comment: why}]\n")
            view = await rig.plan()
            assert (view.registrations.went_ids, view.held) == (("R-0", "R-1"), ())
            assert view.removed == {"c4_24_wireguard": 2}
            assert len(rig.it.controller.allowlist) == 6

    time.run(scenario())


def test_a_source_that_goes_and_one_that_is_new(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with planning(time, tmp_path, BANK, sources=("national", "desk")) as rig:
            keep, new = {"url": "file:/nowhere/desk", "allow_unsigned": True}, {"allow_unsigned": True}
            view = await rig.plan({"registry.sources": [{"name": "desk", **keep}]})
            assert view.held == (HeldPlan({"config/sources": 1}, view.held[0].reason),)
            listed = [*rig.document["registry"]["sources"], {"name": "new", "url": "file:/nowhere/new", **new}]
            assert (await rig.plan({"registry.sources": listed})).waits_for == ("new",)

    time.run(scenario())


def test_what_the_guard_holds_now_is_said(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with planning(time, tmp_path, BANK, HOUSE) as rig:
            await rig.it.read("national", HOUSE)
            (held,) = (await rig.plan()).held
            assert held.by_cause == {"national": 1}
        tables = rig.it.tables

        async with owning(time.clock, rig.it.controller.settings, tables=tables) as it:
            await it.read("national")
            await it.in_sync()
            planner = Planner(
                it.controller, it.gate, it.reconciler.tracker, FakeConntrack(),
                host_time=None, monotonic=time.clock.monotonic,
            )  # fmt: skip
            await asyncio.sleep(5)
            view = await planner.plan(PlanRequest())
            assert [each.by_cause for each in view.held] == [dict(each.by_cause) for each in it.controller.holds()]

    time.run(scenario())


def test_assertions_that_would_break_are_named(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "local.d").mkdir()
        (tmp_path / "local.d" / "a.yaml").write_text(ASSERTED)
        async with planning(time, tmp_path, HOUSE) as rig:
            view = await rig.plan({"policy.mode": "reject"})
            assert view.broken[0].startswith("must_pass hbl (a.yaml:3): udp/51820: no registration covers")
            assert (await rig.plan(mode="reject")).broken == view.broken
            assert (await rig.plan(mode="mark")).broken == ()
            assert view.assertions == 1
            await rig.it.read("national", BANK, HOUSE)
            await rig.it.in_sync()
            assert (await rig.plan(mode="reject")).broken == ()
            (rig.local / "b.yaml").write_text("filters: [{id: BANK, comment: a slip}]\n")
            (broken,) = (await rig.plan()).broken
            assert broken.startswith("must_pass hbl (a.yaml:3)")

    time.run(scenario())


def test_live_flows_are_counted_by_what_would_become_of_them(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with planning(time, tmp_path, BANK, HOUSE) as rig:
            conntrack, judged = rig.it.conntrack, rig.it.judged()
            for number in range(4):
                conntrack.put(flow("203.0.113.5", port=4000 + number), REGISTERED)
                conntrack.put(flow("192.0.2.1", port=4000 + number), judged)
            conntrack.put(flow("192.0.2.1", "tcp/443"), 0)
            armed = await rig.plan(mode="reject")
            assert armed.flows == FlowCounts(looked_at=8, registered=4, refused=4)
            assert (await rig.plan()).flows == FlowCounts(looked_at=8, registered=4, passed=4)
            wider = await rig.plan({"policy.scope": ["ipsec", "wireguard", "tcp/443"], "policy.mode": "limit"})
            assert wider.flows == FlowCounts(looked_at=9, registered=4, limited=5, enters=1)
            narrower = await rig.plan({"policy.scope": ["ipsec"]})
            assert narrower.flows.leaves == 4
            (rig.local / "a.yaml").write_text(
                "filters: [{id: BANK, comment: why}]\n"
                "pins: [{id: PIN, category: bpo, clients: [192.0.2.0/24], comment: why}]\n"
            )
            swapped = await rig.plan(mode="reject", canary=100)
            assert swapped.flows == FlowCounts(looked_at=8, registered=4, refused=4, loses=4, gains=4)
            assert [mark for event in conntrack.connections.values() if (mark := event.mark)] == [
                REGISTERED, judged,
            ] * 4  # fmt: skip

    time.run(scenario())


def test_flows_and_changes_have_a_bound(time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with planning(time, tmp_path, BANK) as rig:
            for number in range(9):
                rig.it.conntrack.put(flow("203.0.113.5", port=4000 + number), REGISTERED)
            monkeypatch.setattr(planner_module, "MAX_FLOWS", 5)
            assert (await rig.plan()).flows == FlowCounts(looked_at=5, registered=5, is_complete=False)
            monkeypatch.setattr(planner_module, "MAX_FLOWS", 50)
            rig.it.conntrack.patience_s = planner_module.MAX_FLOWS_S + 1
            assert not (await rig.plan()).flows.is_complete
            monkeypatch.setattr(planner_module, "MAX_CHANGES", 0)
            pin = "pins: [{id: PIN, category: bpo, clients: [192.0.2.0/24], comment: why}]\n"
            (rig.local / "a.yaml").write_text(pin)
            view = await rig.plan()
            assert (view.added, view.removed, view.flows) == (None, None, FlowCounts(is_complete=False))
            assert view.registrations.came == 1

    time.run(scenario())


def test_a_file_with_a_fault_is_answered_with_it(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with planning(time, tmp_path, BANK) as rig:
            (fault,) = (await rig.plan({"policy.mode": "refuse"})).faults
            assert fault.startswith("new.yaml:")
            (rig.local / "a.yaml").write_text("pins: 7\n")
            (fault,) = (await rig.plan()).faults
            assert "a.yaml:1:7: pins: is a single value" in fault
            keys = await rig.plan({"registry.local": None, "policy.mode": "reject"})
            assert keys.faults == ()

    time.run(scenario())


def test_keys_that_need_a_restart_are_named(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with planning(time, tmp_path, BANK) as rig:
            document = {**rig.document, "kernel": {"table": "other"}}
            view = await rig.planner.plan(PlanRequest(yaml.safe_dump(document), "new.yaml"))
            assert view.needs_restart == ("kernel.table",)

    time.run(scenario())


def test_windows_and_versions_are_counted_once(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with planning(time, tmp_path, BANK) as rig:
            (rig.local / "a.yaml").write_text(
                "pins:\n"
                "  - {id: BANK, category: bank, clients: [203.0.113.0/28, 203.0.114.0/28],"
                " services: [wireguard], comment: why}\n"
                "  - {id: LATER, category: bpo, clients: [10.0.0.0/8], valid_from: 2099-01-01T00:00:00Z,"
                " comment: why}\n"
            )
            view = await rig.plan()
            assert (view.registrations.changed_ids, view.registrations.came_ids) == (("BANK",), ("LATER",))
            assert (view.added, view.removed) == ({"c4_28_wireguard": 1}, {})

    time.run(scenario())
