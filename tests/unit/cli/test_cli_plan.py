"""What `plan` says of a start: removals that the guard would hold are named, and stay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gatewayd.cli import plan
from gatewayd.control import host_time
from gatewayd.control.host_time import open_host_time
from gatewayd.errors import SettingsInvalid, SourceFailed
from gatewayd.feed.canonical import LineWriter
from gatewayd.kernel.fake import FakeTables
from gatewayd.kernel.tables import KernelTables
from gatewayd.model import Registration
from gatewayd.settings import Settings
from gatewayd.settings.model import InterfaceSettings, SourceSettings
from gatewayd.sources.last_good_store import LastGood
from tests.support.manual_clock import Time
from tests.support.owning import guarded, owning, registration, settings_of

BANK = registration("BANK", "39.32.0.0/28", category="bank")
HOUSES = [registration(f"HOUSE-{n}", f"39.33.{n}.0/28") for n in range(4)]


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


class Tables(FakeTables):
    async def check(self) -> None: ...
    def close(self) -> None: ...


class Host:
    """A gateway's kernel and files, as a daemon left them that had read BANK and HOUSES."""

    def __init__(self, directory: Path, time: Time) -> None:
        self.file = directory / "national.ndjson"
        self.state_dir = directory / "state"
        self.tables = Tables()
        self.time = time
        settings = guarded(settings_of("national"))
        source = SourceSettings("national", f"file:{self.file}", allow_unsigned=True)
        self.settings: Settings = replace(
            settings,
            registry=replace(settings.registry, sources=(source,), local=None),
            state_dir=str(self.state_dir),
        )

    async def leave(self) -> None:
        clock = self.time.clock
        store = LastGood(self.state_dir, clock=clock, monotonic=clock.monotonic)
        async with owning(clock, self.settings, tables=self.tables, store=store) as it:
            await it.controller.restore()
            await it.read("national", BANK, *HOUSES)
            await it.in_sync()

    def register(self, *registrations: Registration) -> None:
        self.file.write_text("".join(f"{line}\n" for line in LineWriter().lines(registrations)))

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.state_dir.rglob("*") if path.is_file()}


@pytest.fixture
def host(tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A thread takes time that does not pass here: calls to the disk are made at once."""

    async def call_at_once(call: Callable[..., object], *arguments: object) -> object:
        return call(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", call_at_once)
    made = Host(tmp_path, time)
    monkeypatch.setattr(KernelTables, "open", lambda table: made.tables)
    return made


def test_nothing_would_change_where_nothing_did(host: Host) -> None:
    async def scenario() -> None:
        await host.leave()
        host.register(BANK, *HOUSES)
        before = host.files()
        planned = await plan.make_plan(host.settings)
        assert (planned.kernel.is_empty, planned.held) == (True, [])
        assert host.files() == before

    host.time.run(scenario())


def test_a_first_start_is_planned_where_no_time_is_confirmed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """No NTP, no last good, and a signed source that has not spoken: no time has certainly come."""
    unsure = partial(open_host_time, has_signed=True)
    monkeypatch.setattr(plan, "open_host_time", lambda directory, has_signed: unsure(directory))
    monkeypatch.setattr(host_time, "is_kernel_synced", lambda wall_s: False)

    async def scenario() -> plan.Plan:
        host.register(BANK, *HOUSES)
        return await plan.make_plan(host.settings)

    assert host.time.run(scenario()).kernel.added == {"c4_28_wireguard": 5, "c4_28_near": 5}


def test_removals_that_the_guard_would_hold_are_named_and_stay(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> plan.Plan:
        await host.leave()
        host.register(*HOUSES, registration("NEW", "39.60.0.0/28"))
        before = host.files()
        planned = await plan.make_plan(host.settings)
        assert host.files() == before
        return planned

    planned = host.time.run(scenario())
    (held,) = planned.held
    assert (held.by_cause, held.reason) == (
        {"national": 1},
        "1 registration of category bank removed at once, more than 0 of 1",
    )
    assert planned.kernel.added == {"c4_28_wireguard": 1, "c4_28_near": 1}
    assert (planned.kernel.removed, planned.kernel.deleted_sets) == ({}, [])
    plan.print_plan(planned, as_json=False, show_rules=False)
    assert "HELD" in capsys.readouterr().out
    plan.print_plan(planned, as_json=True, show_rules=False)
    document = json.loads(capsys.readouterr().out)
    assert document["held"] == [{"by_cause": {"national": 1}, "reason": held.reason}]
    assert document["added"] == planned.kernel.added


def test_removals_within_the_limits_would_go(host: Host) -> None:
    async def scenario() -> None:
        await host.leave()
        host.register(BANK, *HOUSES[1:])
        planned = await plan.make_plan(host.settings)
        assert planned.held == []
        assert sum(planned.kernel.removed.values()) == 1

    host.time.run(scenario())


def test_what_no_file_knows_of_would_stay_in_the_kernel_for_it_may_be_a_bank(host: Host) -> None:
    async def scenario() -> None:
        await host.leave()
        for path in host.state_dir.rglob("*"):
            if path.is_file():
                path.unlink()
        host.register(*HOUSES)
        planned = await plan.make_plan(host.settings)
        (held,) = planned.held
        assert held.by_cause == {"kernel/elements": 1}
        assert planned.kernel.is_empty

    host.time.run(scenario())


def test_a_source_or_a_local_file_that_cannot_be_read_is_said(host: Host, tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(SourceFailed, match="No such file"):
            await plan.make_plan(host.settings)
        local = tmp_path / "local.d"
        local.mkdir()
        (local / "desk.yaml").write_text("pins: 7\n")
        registry = replace(host.settings.registry, local=str(local))
        with pytest.raises(SettingsInvalid):
            await plan.make_plan(replace(host.settings, registry=registry))

    host.time.run(scenario())


def test_names_that_no_interface_has_are_said(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "read_interfaces", lambda: ("lo", "eth1", "eth0"))
    policy = replace(host.settings.policy, interfaces=InterfaceSettings(inside=("eth1.100",), outside=("eth0",)))
    host.settings = replace(host.settings, policy=policy)

    async def scenario() -> plan.Plan:
        host.register(BANK, *HOUSES)
        return await plan.make_plan(host.settings)

    planned = host.time.run(scenario())
    assert planned.warnings[0].startswith("no interface has a name of policy.interfaces.inside (eth1.100)")
    assert "is eth1 meant?" in planned.warnings[1]
    plan.print_plan(planned, as_json=False, show_rules=False)
    assert "WARNING" in capsys.readouterr().out
