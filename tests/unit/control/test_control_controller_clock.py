"""The owner under a wrong clock, on a kernel in memory: nobody is cut, nothing is armed, and it is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from gatewayd.control.trusted_time import ROUGHLY, WELL, KeptTime
from gatewayd.model import Registration
from gatewayd.settings.model import Settings, SourceSettings
from gatewayd.sources.files import OverridesReading
from gatewayd.sources.override_file import parse_overrides
from tests.support.manual_clock import START_S, Time, until
from tests.support.owning import FAR, Owning, flow, owning, registration, settings_of

HOUR_S = 3600.0
DAY_S = 86400.0
YEAR_S = 365 * DAY_S
EXPIRE_S = 7 * DAY_S
TO_2020 = -1_400 * DAY_S

BANK = registration("BANK", "39.32.0.0/28", valid_from_s=START_S - YEAR_S)
YEARLY = registration("YEARLY", "39.32.0.16/28", valid_from_s=START_S - YEAR_S, valid_until_s=START_S + 30 * DAY_S)
ENDED = registration("ENDED", "39.32.0.32/28", valid_until_s=START_S - 60 * DAY_S)
LATER = registration("LATER", "39.32.0.48/28", valid_from_s=START_S + 60 * DAY_S)
EVERYBODY = (BANK, YEARLY, ENDED, LATER)

STEPS = [3.0, -3.0, HOUR_S, -HOUR_S, 5 * HOUR_S, -5 * HOUR_S, 40 * DAY_S, 5 * YEAR_S, TO_2020]


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


def signed_settings(**policy: Any) -> Settings:
    settings = settings_of("national", **policy)
    source = SourceSettings("national", "https://registry.example/notification.jws", keys=("/k.pub",))
    return replace(settings, registry=replace(settings.registry, sources=(source,)))


def passing(it: Owning, wanted: tuple[Registration, ...] = EVERYBODY) -> list[str]:
    return [each.id for each in wanted if it.passes(each)]


def confirm(it: Owning, strength: int = WELL) -> None:
    """The time is right now, and somebody has said so."""
    kept = KeptTime("boot", it.clock.elapsed_s, it.clock(), strength)
    it.host_time.trusted.recall(kept, "boot", it.clock.elapsed_s)
    it.host_time.expect_signed(it.host_time.trusted.has_signed)  # it judges anew


# -- at boot ---------------------------------------------------------------------------------------------------


def boot(it: Owning, off_s: float, last_issued_ago_s: float = HOUR_S) -> None:
    """The clock is wrong, and a last good is on disk that the registry signed."""
    it.clock.set_by(off_s)
    it.host_time.note_last_good(START_S - last_issued_ago_s, START_S - last_issued_ago_s)


@pytest.mark.parametrize("off_s", STEPS)
def test_a_boot_with_a_wrong_clock_cuts_nobody(time: Time, off_s: Any) -> None:
    async def scenario() -> None:
        async with owning(time.clock, signed_settings()) as it:
            boot(it, off_s)
            await it.read("national", *EVERYBODY)
            await it.in_sync()
            assert {"BANK", "YEARLY"} <= set(passing(it))
            assert "ENDED" not in passing(it)
            await asyncio.sleep(120)
            assert {"BANK", "YEARLY"} <= set(passing(it))
            time.clock.set_by(-off_s)  # NTP puts it right
            it.is_synced = True
            await until(lambda: passing(it) == ["BANK", "YEARLY"])
            assert it.host_time.doubt() is None
            assert it.reconciler.mode_in_force == "reject"

    time.run(scenario())


def test_a_boot_in_2020_is_said_with_both_times(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with owning(time.clock, signed_settings()) as it:
            boot(it, TO_2020)
            await it.read("national", *EVERYBODY)
            await it.in_sync()
            assert it.controller.count_active() == 3  # LATER too: nobody knows how late it is
            with caplog.at_level(logging.INFO, "gatewayd.control.host_time"):
                for _ in range(3):
                    it.host_time.say()
                    await asyncio.sleep(100)
                (said,) = caplog.records
                fields = said.__dict__["fields"]
                assert (said.message, said.levelname) == ("clock.doubted", "WARNING")
                assert fields["host"].startswith("2020-")
                assert fields["used"] == "2023-11-14T21:13:20Z"
                assert fields["seconds"] == round(TO_2020 + HOUR_S)
                time.clock.set_by(-TO_2020)
                it.is_synced = True
                it.host_time.say()
                assert caplog.records[-1].message == "clock.trusted"

    time.run(scenario())


def test_a_window_that_opened_while_the_host_was_off_is_open(time: Time) -> None:
    """The clock is in 2020, and all that is known is that the last good was issued a month ago."""

    async def scenario() -> None:
        async with owning(time.clock, signed_settings()) as it:
            boot(it, TO_2020, last_issued_ago_s=30 * DAY_S)
            fresh = registration("FRESH", "39.33.0.0/28", valid_from_s=START_S - 10 * DAY_S)
            await it.read("national", fresh)
            await it.in_sync()
            assert it.passes(fresh)

    time.run(scenario())


def test_a_boot_with_unsigned_sources_alone_and_a_clock_in_2020_cuts_nobody(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            it.clock.set_by(TO_2020)
            it.host_time.note_last_good(None, START_S - HOUR_S)
            await it.read("national", *EVERYBODY)
            await it.in_sync()
            assert passing(it) == ["BANK", "YEARLY", "ENDED"]
            time.clock.set_by(-TO_2020)
            it.is_synced = True
            await until(lambda: passing(it) == ["BANK", "YEARLY"])

    time.run(scenario())


def test_after_a_reboot_a_good_clock_opens_at_once_and_closes_within_the_hour(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            it.host_time.note_last_good(None, START_S - 20.0)
            closing = registration("CLOSING", "39.33.0.0/28", valid_until_s=START_S + 60)
            opening = registration("OPENING", "39.33.0.16/28", valid_from_s=START_S + 60)
            await it.read("national", closing, opening)
            await asyncio.sleep(70)
            assert (it.passes(closing), it.passes(opening)) == (True, True)
            await until(lambda: not it.passes(closing), within_s=HOUR_S + 10)
            assert it.passes(opening)

    time.run(scenario())


def test_a_first_start_that_nothing_is_known_of_closes_nothing_until_the_registry_speaks(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, signed_settings(enforce_from=START_S - DAY_S)) as it:
            it.clock.set_by(5 * YEAR_S)
            await it.read("national", *EVERYBODY)
            await it.in_sync()
            assert passing(it) == ["BANK", "YEARLY", "ENDED", "LATER"]
            assert it.reconciler.mode_in_force == "observe"
            assert it.controller.freshness(it.controller.moment())["national"].word == "fresh"
            it.host_time.witness(START_S - 60, EXPIRE_S, None)
            await until(lambda: passing(it) == ["BANK", "YEARLY", "LATER"])
            await until(lambda: it.reconciler.mode_in_force == "reject")

    time.run(scenario())


# -- while running ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [ROUGHLY, WELL])
@pytest.mark.parametrize("step_s", STEPS)
def test_a_step_while_running_changes_nothing_and_nor_does_its_correction(
    time: Time, step_s: Any, strength: Any
) -> None:
    async def scenario() -> None:
        async with owning(time.clock, signed_settings()) as it:
            confirm(it, strength)
            await it.read("national", *EVERYBODY)
            await it.in_sync()
            assert passing(it) == ["BANK", "YEARLY"]
            before = list(it.written)
            for seconds in (step_s, -step_s):
                time.clock.set_by(seconds)
                await asyncio.sleep(120)
                assert passing(it) == ["BANK", "YEARLY"]
            assert it.written == before
            assert it.host_time.doubt() is None

    time.run(scenario())


@pytest.mark.parametrize("step_s", STEPS)
def test_a_window_ends_on_time_under_a_clock_that_was_set_wrong(time: Time, step_s: Any) -> None:
    async def scenario() -> None:
        async with owning(time.clock, signed_settings()) as it:
            confirm(it)
            closes = registration("CLOSES", "39.33.0.0/28", valid_until_s=START_S + 1000)
            opens = registration("OPENS", "39.33.0.16/28", valid_from_s=START_S + 1000)
            await it.read("national", closes, opens)
            time.clock.set_by(step_s)
            await asyncio.sleep(990 - time.clock.elapsed_s)
            assert (it.passes(closes), it.passes(opens)) == (True, False)
            await asyncio.sleep(1020 - time.clock.elapsed_s)
            assert (it.passes(closes), it.passes(opens)) == (False, True)

    time.run(scenario())


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S, 5 * HOUR_S, 5 * YEAR_S, TO_2020])
def test_without_any_witness_a_step_cuts_nobody_who_is_registered(time: Time, step_s: float) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", *EVERYBODY)
            await it.in_sync()
            time.clock.set_by(step_s)
            await asyncio.sleep(120)
            assert {"BANK", "YEARLY"} <= set(passing(it))
            time.clock.set_by(-step_s)
            await until(lambda: passing(it) == ["BANK", "YEARLY"])

    time.run(scenario())


def test_ntp_that_puts_a_wrong_time_right_is_believed_at_once(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            it.clock.set_by(TO_2020)
            await it.read("national", *EVERYBODY)
            await it.in_sync()
            assert "BANK" not in passing(it)  # a first start: nothing contradicts the clock
            time.clock.set_by(-TO_2020)
            it.is_synced = True
            await until(lambda: passing(it) == ["BANK", "YEARLY"])

    time.run(scenario())


def test_a_later_time_that_was_believed_for_a_moment_is_undone(time: Time) -> None:
    """Between two looks: an upsert is judged by a time that is given up again before the next look."""

    async def scenario() -> None:
        async with owning(time.clock) as it:
            it.is_synced = True
            await it.read("national", BANK)
            await it.in_sync()
            time.clock.set_by(5 * YEAR_S)
            it.programmer.upsert(YEARLY, it.controller.moment())
            time.clock.set_by(-5 * YEAR_S)
            await until(lambda: it.passes(YEARLY))

    time.run(scenario())


def test_what_explain_and_the_watch_go_by_is_what_the_kernel_has(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, signed_settings()) as it:
            boot(it, TO_2020)
            await it.read("national", *EVERYBODY)
            await it.in_sync()
            it.watch.on_packets([flow("39.32.0.1"), flow("39.32.0.49")])
            assert it.watch.late_admissions == 2
            assert len(it.controller.aggregate) == 0
            assert (
                it.controller.allowlist.matching(flow("39.32.0.33", destination=FAR), it.controller.moment()) == ()
            )

    time.run(scenario())


# -- what else goes by the time --------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [HOUR_S, 5 * HOUR_S, 5 * YEAR_S])
@pytest.mark.parametrize("is_confirmed", [True, False])
def test_a_policy_is_not_armed_early_by_a_clock_that_is_ahead(
    time: Time, step_s: float, is_confirmed: bool
) -> None:
    async def scenario() -> None:
        async with owning(time.clock, signed_settings(enforce_from=START_S + 1800)) as it:
            if is_confirmed:
                confirm(it)
            else:
                boot(it, 0.0)
            await it.read("national", BANK)
            await it.in_sync()
            time.clock.set_by(step_s)
            await asyncio.sleep(600)
            assert it.reconciler.mode_in_force == "observe"
            time.clock.set_by(-step_s)
            it.is_synced = True
            await asyncio.sleep(START_S + 1790 - time.clock())
            assert it.reconciler.mode_in_force == "observe"
            await until(lambda: it.reconciler.mode_in_force == "reject", within_s=20)

    time.run(scenario())


@pytest.mark.parametrize(
    "settings", [settings_of("national", enforce_from=START_S - 60), signed_settings(enforce_from=START_S - 60)]
)
def test_a_policy_is_not_disarmed_by_a_clock_that_is_behind(time: Time, settings: Any) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings) as it:
            if settings.registry.has_signed:
                confirm(it)
            await it.read("national", BANK)
            await it.in_sync()
            assert it.reconciler.mode_in_force == "reject"
            time.clock.set_by(TO_2020)
            await asyncio.sleep(120)
            assert it.reconciler.mode_in_force == "reject"

    time.run(scenario())


def test_a_policy_that_started_long_ago_is_armed_after_a_boot_in_2020(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, signed_settings(enforce_from=START_S - DAY_S)) as it:
            boot(it, TO_2020)
            await it.read("national", BANK)
            await until(lambda: it.reconciler.mode_in_force == "reject")

    time.run(scenario())


def test_enforcement_ends_when_its_end_comes(time: Time) -> None:
    async def scenario() -> None:
        settings = signed_settings(enforce_from=START_S - DAY_S, enforce_until=START_S + 1800)
        async with owning(time.clock, settings) as it:
            confirm(it)
            await it.read("national", BANK)
            await until(lambda: it.reconciler.mode_in_force == "reject")
            await asyncio.sleep(START_S + 1790 - time.clock())
            assert it.reconciler.mode_in_force == "reject"
            await until(lambda: it.reconciler.mode_in_force == "observe", within_s=20)

    time.run(scenario())


def test_enforcement_ends_by_a_clock_that_may_be_right_and_goes_on_when_it_was_not(time: Time) -> None:
    async def scenario() -> None:
        settings = settings_of("national", enforce_until=START_S + 1800)
        async with owning(time.clock, settings) as it:
            await it.read("national", BANK)
            await until(lambda: it.reconciler.mode_in_force == "reject")
            time.clock.set_by(HOUR_S)  # nothing confirms it, and nothing contradicts it
            await until(lambda: it.reconciler.mode_in_force == "observe", within_s=20)
            time.clock.set_by(-HOUR_S)
            await until(lambda: it.reconciler.mode_in_force == "reject", within_s=20)

    time.run(scenario())


def test_a_source_is_not_stale_by_a_clock_that_is_ahead(time: Time) -> None:
    async def scenario() -> None:
        settings = signed_settings()
        settings = replace(settings, registry=replace(settings.registry, on_stale="observe"))
        async with owning(time.clock, settings) as it:
            confirm(it)
            await it.read("national", BANK)
            await it.in_sync()
            time.clock.set_by(5 * YEAR_S)
            await asyncio.sleep(60)
            assert it.controller.freshness(it.controller.moment())["national"].word == "fresh"
            assert it.reconciler.mode_in_force == "reject"
            time.clock.advance(8 * DAY_S)
            await until(lambda: it.reconciler.mode_in_force == "observe")
            assert it.controller.freshness(it.controller.moment())["national"].word == "stale"

    time.run(scenario())


def test_a_time_of_confirmation_that_was_wrong_does_not_keep_a_source_fresh_for_years(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            it.clock.set_by(5 * YEAR_S)
            await it.read("national", BANK)
            await it.in_sync()
            time.clock.set_by(-5 * YEAR_S)
            it.is_synced = True
            await asyncio.sleep(5)
            time.clock.advance(8 * DAY_S)
            assert it.controller.freshness(it.controller.moment())["national"].word == "stale"

    time.run(scenario())


def test_a_witness_ends_the_doubt_without_ntp(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, signed_settings()) as it:
            boot(it, 5 * YEAR_S)
            await it.read("national", *EVERYBODY)
            await it.in_sync()
            it.host_time.witness(START_S, EXPIRE_S, None)
            assert it.host_time.doubt() is not None
            await asyncio.sleep(60)
            it.host_time.witness(START_S + 30, EXPIRE_S, 60.0)
            await asyncio.sleep(2)
            assert passing(it) == ["BANK", "YEARLY"]
            assert it.host_time.doubt() is not None
            assert float(it.controller.moment()) == pytest.approx(START_S + time.clock.elapsed_s - 30, abs=1.0)
            assert it.controller.moment() < inf
            time.clock.set_by(-5 * YEAR_S)
            await asyncio.sleep(60)
            it.host_time.witness(time.clock() - 5, EXPIRE_S, 60.0)
            assert it.host_time.doubt() is None

    time.run(scenario())


def test_a_pin_that_ended_by_a_wrong_clock_is_back_when_that_is_known(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            it.clock.set_by(5 * YEAR_S)  # a first start: nothing contradicts it
            local = registration("LOCAL", "39.61.0.0/28")
            pin = "{id: LOCAL, category: bpo, clients: [39.61.0.0/28], services: [wireguard]"
            content = f"pins:\n  - {pin}, comment: for now, until: 2024-12-31T00:00:00Z}}\n"
            await it.controller.use_overrides(
                OverridesReading((parse_overrides(content, "desk.yaml", "desk.yaml"),))
            )
            await it.read("national", BANK)
            await it.in_sync()
            assert not it.passes(local)
            time.clock.set_by(-5 * YEAR_S)
            it.is_synced = True
            await until(lambda: it.passes(local))

    time.run(scenario())
