"""What stands between a reading and the allowlist: the guard, the last good, local overrides, staleness."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from gatewayd.control.controller import Controller
from gatewayd.control.core import InSync, build_core, max_elements_of, memory_bytes
from gatewayd.control.host_time import HostTime, WindowClock
from gatewayd.errors import SerialNotHeld
from gatewayd.kernel.fake import FakeTables
from gatewayd.model import Registration, parse_prefix
from gatewayd.settings.model import Settings
from gatewayd.sources.files import OverridesReading
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.override_file import parse_overrides
from gatewayd.sources.update import SourceUpdate
from tests.support.fake_conntrack import FakeConntrack
from tests.support.manual_clock import Time
from tests.support.owning import guarded, owning, registration, settings_of

BANK = registration("BANK", "39.32.0.0/28", category="bank")
OTHER_BANK = registration("OTHER-BANK", "39.33.0.0/28", category="bank")
HOUSE = registration("HOUSE", "39.32.64.8/29", category="software_house")
HOUR_S = 3600.0


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


def overrides(text: str) -> OverridesReading:
    return OverridesReading((parse_overrides(text, "desk.yaml", "desk.yaml"),))


def test_a_bank_that_is_withdrawn_stays_until_it_is_accepted(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded(settings_of("national"))) as it:
            await it.read("national", BANK, OTHER_BANK, HOUSE)
            await it.in_sync()
            await it.read("national", OTHER_BANK, registration("NEW", "39.60.0.0/28"))
            await it.in_sync()
            assert it.passes(BANK)
            assert it.passes(registration("NEW", "39.60.0.0/28"))
            (held,) = it.controller.holds()
            assert held.by_cause == {"national": 2}
            with pytest.raises(SerialNotHeld):
                await it.controller.accept(held.serial + 1)
            assert await it.controller.accept(held.serial) == {"serial": held.serial, "released": {"national": 2}}
            await it.in_sync()
            assert not it.passes(BANK)
            assert not it.passes(HOUSE)
            assert it.passes(OTHER_BANK)
            assert it.controller.holds() == ()
            assert sorted(it.controller.merged.registrations) == ["NEW", "OTHER-BANK"]

    time.run(scenario())


def test_a_bank_that_comes_back_is_held_no_longer(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, guarded(settings_of("national"))) as it:
            await it.read("national", BANK, HOUSE)
            await it.in_sync()
            await it.read("national", HOUSE)
            assert len(it.controller.holds()) == 1
            await it.read("national", BANK, HOUSE)
            await it.in_sync()
            assert it.controller.holds() == ()
            assert it.passes(BANK)
            assert it.removed_keys() == []

    time.run(scenario())


def test_a_filter_and_a_pin_lie_over_what_the_registry_says(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.controller.use_overrides(
                overrides(
                    "pins:\n  - {id: LOCAL-1, category: bpo, clients: [39.61.0.0/28], services: [wireguard], "
                    'comment: "by phone"}\nfilters:\n  - {id: HOUSE, comment: "compromised"}\n'
                )
            )
            await it.read("national", BANK, HOUSE)
            await it.in_sync()
            assert it.passes(registration("LOCAL-1", "39.61.0.0/28"))
            assert it.passes(BANK)
            assert not it.passes(HOUSE)
            counts = it.controller.override_counts()
            assert (counts.pins, counts.filters, counts.filtered) == (1, 1, 1)
            await it.controller.use_overrides(OverridesReading(()))
            await it.in_sync()
            assert it.passes(HOUSE)
            assert not it.passes(registration("LOCAL-1", "39.61.0.0/28"))

    time.run(scenario())


def test_a_filter_ends_on_its_date(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            until_s = time.clock() + 10
            await it.controller.use_overrides(
                overrides(f'filters:\n  - {{id: HOUSE, comment: "for now", until: {rfc3339(until_s)}}}\n')
            )
            await it.read("national", HOUSE)
            await it.in_sync()
            assert not it.passes(HOUSE)
            await asyncio.sleep(15)
            await it.in_sync()
            assert it.passes(HOUSE)

    time.run(scenario())


def rfc3339(at_s: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(("on_stale", "mode"), [("keep", "reject"), ("observe", "observe")])
def test_a_registry_that_is_not_confirmed_for_too_long_means_what_the_operator_chose(
    time: Time, on_stale: Literal["keep", "observe"], mode: str
) -> None:
    async def scenario() -> None:
        settings = settings_of("national")
        registry = replace(settings.registry, on_stale=on_stale, expire_s=HOUR_S)
        async with owning(time.clock, replace(settings, registry=registry)) as it:
            await it.read("national", BANK)
            await it.in_sync()
            assert it.reconciler.mode_in_force == "reject"
            await asyncio.sleep(2 * HOUR_S)
            await it.in_sync()
            assert it.controller.freshness(time.clock())["national"].word == "stale"
            assert it.reconciler.mode_in_force == mode
            assert it.passes(BANK)
            await it.read("national", BANK)
            await asyncio.sleep(2)
            await it.in_sync()
            assert it.reconciler.mode_in_force == "reject"

    time.run(scenario())


def make_controller(
    directory: Path, settings: Settings, now: float, host_time: HostTime | None = None
) -> Controller:
    """An owner on a disk, its reconciler not running."""
    core = build_core(settings, FakeTables(), FakeConntrack(), WindowClock(lambda: now), monotonic=lambda: now)
    store = LastGood(directory, clock=lambda: now, monotonic=lambda: now)
    return Controller(settings, core, store=store, host_time=host_time)


def reading(*registrations: Registration, at_s: float = 1000.0) -> SourceUpdate:
    return SourceUpdate("national", at_s, registrations={each.id: each for each in registrations})


async def test_a_restart_begins_with_the_last_good_and_what_was_held(tmp_path: Path) -> None:
    first = make_controller(tmp_path, guarded(settings_of("national")), 1000.0)
    await first.restore()
    assert not first.loaded
    await first.deliver(reading(BANK, HOUSE))
    await first.deliver(reading(HOUSE, at_s=1001.0))
    assert sorted(each.id for each in first.allowlist) == ["BANK", "HOUSE"]

    second = make_controller(tmp_path, guarded(settings_of("national")), 2000.0)
    await second.restore()
    assert second.loaded
    assert sorted(each.id for each in second.allowlist) == ["BANK", "HOUSE"]
    assert second.sources["national"].restored_at == 1000.0
    assert second.sources["national"].serial == 1001
    (held,) = second.holds()
    assert held.serial == 1001
    await second.accept(1001)
    assert [each.id for each in second.allowlist] == ["HOUSE"]

    third = make_controller(tmp_path, guarded(settings_of("national")), 3000.0)
    await third.restore()
    assert [each.id for each in third.allowlist] == ["HOUSE"]
    assert third.holds() == ()


async def test_a_reload_to_observe_that_comes_before_the_last_good_ends_no_start(tmp_path: Path) -> None:
    """Its settings counted at once, its sources later: the start looked for the last good of the new ones alone."""
    first = make_controller(tmp_path, settings_of("national"), 1000.0)
    await first.restore()
    await first.deliver(reading(BANK))
    (tmp_path / "guard").unlink()

    time = HostTime(has_signed=False, wall=lambda: 2000.0, elapsed=lambda: 0.0, is_synced=lambda _: True)
    second = make_controller(tmp_path, settings_of("national"), 2000.0, time)
    second.reload(settings_of("desk", mode="observe"))
    await second.restore()
    assert [each.id for each in second.allowlist] == ["BANK"]
    await second.use_sources(["desk"])
    assert list(second.sources) == ["desk"]


async def test_a_large_reading_is_saved_when_the_kernel_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.sources.update.LARGE", 1)
    first = make_controller(tmp_path, settings_of("national"), 1000.0)
    run = asyncio.create_task(first.reconciler.run())
    await first.deliver(reading(BANK, HOUSE))
    assert first.reconciler.unready() is None
    run.cancel()
    second = make_controller(tmp_path, settings_of("national"), 2000.0)
    await second.restore()
    assert sorted(each.id for each in second.allowlist) == ["BANK", "HOUSE"]


async def test_a_large_reading_is_saved_though_the_kernel_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.sources.update.LARGE", 1)
    monkeypatch.setattr(InSync, "MAX_WAIT_S", 0.01)
    first = make_controller(tmp_path, settings_of("national"), 1000.0)
    await first.deliver(reading(BANK, HOUSE))
    assert first.reconciler.unready() is not None
    second = make_controller(tmp_path, settings_of("national"), 2000.0)
    await second.restore()
    assert sorted(each.id for each in second.allowlist) == ["BANK", "HOUSE"]


async def test_a_reading_that_memory_would_not_hold_is_refused_and_the_last_good_stays(tmp_path: Path) -> None:
    """Four thousand records of this kind ended the daemon, and each start that followed."""
    prefixes = tuple(parse_prefix(f"198.51.100.{number}") for number in range(64))
    monster = msgspec.structs.replace(HOUSE, id="MONSTER", clients=prefixes, peers=prefixes, services=())
    settings = guarded(settings_of("national"))
    settings = replace(settings, registry=replace(settings.registry, max_elements=1000))
    first = make_controller(tmp_path, settings, 1000.0)
    await first.deliver(reading(BANK, HOUSE))
    await first.deliver(reading(BANK, HOUSE, monster, at_s=1001.0))
    assert sorted(each.id for each in first.allowlist) == ["BANK", "HOUSE"]
    assert "the largest is MONSTER with 4096" in (first.sources["national"].error or "")
    assert first.sources["national"].refused == 1
    second = make_controller(tmp_path, settings, 2000.0)
    await second.restore()
    assert sorted(each.id for each in second.allowlist) == ["BANK", "HOUSE"]
    await second.deliver(reading(BANK, HOUSE, at_s=2000.0))
    assert second.sources["national"].error is None


def test_the_bound_on_elements_follows_the_memory_unless_it_is_configured() -> None:
    registry = settings_of("national").registry
    assert 1 << 20 < memory_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert max_elements_of(registry) == memory_bytes() // 2 // 288
    assert max_elements_of(replace(registry, max_elements=7)) == 7


async def test_a_damaged_last_good_is_no_allowlist_at_all(tmp_path: Path) -> None:
    first = make_controller(tmp_path, guarded(settings_of("national")), 1000.0)
    await first.deliver(reading(BANK, HOUSE))
    for path in (tmp_path / "registry").rglob("*.sqlite3"):
        path.write_bytes(b"")
    second = make_controller(tmp_path, guarded(settings_of("national")), 2000.0)
    await second.restore()
    assert not second.loaded
    assert second.unread_sources() == ("national",)
    await second.deliver(reading(BANK, at_s=2000.0))
    assert [each.id for each in second.allowlist] == ["BANK"]


async def test_a_reading_after_a_restart_is_guarded_against_the_last_good(tmp_path: Path) -> None:
    first = make_controller(tmp_path, guarded(settings_of("national")), 1000.0)
    await first.deliver(reading(BANK, HOUSE))
    second = make_controller(tmp_path, guarded(settings_of("national")), 2000.0)
    await second.restore()
    await second.deliver(reading(HOUSE, at_s=2000.0))
    assert sorted(each.id for each in second.allowlist) == ["BANK", "HOUSE"]
