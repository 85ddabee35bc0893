"""Changes that an operator makes: refused where they would break an assertion, made where he forces them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gatewayd.assertions.judge import AssertionsBroken
from gatewayd.model.assertion import Assertion
from gatewayd.settings import SourceSettings
from gatewayd.sources.files import OverridesReading
from gatewayd.sources.override_file import OverrideFile
from tests.support.asserting import assertion
from tests.support.guarding import overrides
from tests.support.manual_clock import START_S, Time
from tests.support.owning import Owning, guarded, owning, registration, settings_of

BANK = registration("BANK", "203.0.113.0/28", category="bank")
HOUSE = registration("HOUSE", "39.32.64.8/29")
HBL, OFFICE = assertion(), assertion("office", "203.0.113.200")
FRAUD = assertion("fraud", "192.0.2.1", kind="must_not_pass")
FILTER = overrides("filters: [{id: BANK, comment: why}]")
GUARDED = guarded(settings_of("national"))


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


def file(*assertions: Assertion, also: OverrideFile | None = None) -> OverridesReading:
    return OverridesReading((replace(also or OverrideFile("a.yaml"), assertions=assertions),))


async def begin(it: Owning, *assertions: Assertion, known: tuple[Any, ...] = (BANK, HOUSE)) -> None:
    await it.gate.adopt(file(*assertions))
    await it.read("national", *known)
    await it.in_sync()


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [dict(each.fields) for each in caplog.records if each.getMessage() == event]  # type: ignore[attr-defined]


def test_an_accept_that_breaks_one_is_refused_and_forced(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with owning(time.clock, GUARDED) as it:
            await begin(it, HBL, OFFICE)
            await it.read("national", HOUSE)
            (held,) = it.controller.holds()
            with pytest.raises(AssertionsBroken, match=r"must_pass hbl \(a.yaml:1\): udp/51820: no registration"):
                await it.gate.accept(held.serial, "uid 0", is_forced=False)
            await it.in_sync()
            assert it.passes(BANK)
            assert it.controller.holds() == (held,)
            assert (it.gate.refused, it.gate.forced) == (1, 0)
            await it.gate.accept(held.serial, "uid 0", is_forced=True)
            await it.in_sync()
            assert not it.passes(BANK)
            assert (it.gate.refused, it.gate.forced) == (1, 1)

    with caplog.at_level(logging.INFO):
        time.run(scenario())
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("assertion.refused") == messages.count("assertion.forced") == 1


def test_an_accept_that_breaks_none_is_made(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, GUARDED) as it:
            other = registration("OTHER", "203.0.113.5/32")
            await begin(it, HBL, known=(BANK, HOUSE, other))
            await it.read("national", HOUSE, other)
            (held,) = it.controller.holds()
            released = await it.gate.accept(held.serial, "uid 0", is_forced=False)
            assert released == {"serial": held.serial, "released": {"national": 1}}

    time.run(scenario())


def test_elements_that_nobody_registers_may_be_what_an_assertion_holds_by(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, GUARDED) as it:
            await begin(it, known=(BANK, HOUSE, *(registration(f"R-{n}", f"39.33.{n}.0/29") for n in range(3))))
            tables = it.tables
        async with owning(time.clock, GUARDED, tables=tables) as it:
            await begin(it, HBL, known=(HOUSE,))
            it.controller._retime.set()
            await it.in_sync()
            (held,) = it.controller.holds()
            assert held.causes == ("kernel/elements",)
            with pytest.raises(AssertionsBroken):
                await it.gate.accept(held.serial, "uid 0", is_forced=False)
            assert it.passes(BANK)
            await it.gate.accept(held.serial, "uid 0", is_forced=True)
            await it.in_sync()
            assert not it.passes(BANK)

    time.run(scenario())


def test_a_reading_of_the_registry_is_never_refused(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await begin(it, HBL)
            await it.read("national", HOUSE)
            await it.in_sync()
            assert not it.passes(BANK)
            assert it.gate.refused == 0

    time.run(scenario())


def test_local_files_that_break_one_wait_and_those_from_before_stay(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await begin(it, HBL)
            await it.gate.deliver(file(HBL, OFFICE, also=FILTER))
            await it.in_sync()
            assert it.passes(BANK)
            assert it.gate.states.assertions == (HBL,)
            (fault,) = it.controller.override_faults
            assert fault.startswith("must_pass hbl (a.yaml:1): udp/51820: no registration covers")
            assert fault.endswith("`gatewayd reload --force` takes the files all the same")
            assert [str(each) for each in await it.gate.try_again("uid 0", is_forced=False)] == [
                fault.partition("; `gatewayd")[0]
            ]
            assert await it.gate.try_again("uid 0", is_forced=True) == ()
            await it.in_sync()
            assert not it.passes(BANK)
            assert it.gate.states.assertions == (HBL, OFFICE)
            assert it.controller.override_faults == ()
            assert await it.gate.try_again("uid 0", is_forced=False) == ()

    time.run(scenario())


def test_files_that_take_the_assertion_away_too_are_taken(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await begin(it, HBL)
            await it.gate.deliver(file(also=FILTER))
            await it.in_sync()
            assert not it.passes(BANK)

    time.run(scenario())


def test_a_new_assertion_that_fails_is_taken_and_one_that_the_same_files_break_is_not(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await begin(it)
            await it.gate.deliver(file(OFFICE))
            assert it.gate.states.assertions == (OFFICE,)
            await it.gate.deliver(file(OFFICE, HBL, also=FILTER))
            assert it.gate.states.assertions == (OFFICE,)
            pin = overrides("pins: [{id: P, category: bpo, clients: [192.0.2.0/24], comment: why}]")
            await it.gate.deliver(file(OFFICE, FRAUD, also=pin))
            assert it.gate.refused == 2

    time.run(scenario())


def test_a_start_is_never_refused(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.gate.adopt(file(HBL, also=FILTER))
            assert await it.gate.would_break(it.controller.policy(START_S)) == ()
            await it.read("national", BANK, HOUSE)
            await it.in_sync()
            assert not it.passes(BANK)
            assert it.gate.states.assertions == (HBL,)

    time.run(scenario())


@pytest.mark.parametrize(
    ("assertions", "change", "reason"),
    [
        ((OFFICE,), {"mode": "reject"}, "udp/51820: no registration covers .*, and mode reject refuses it"),
        ((OFFICE,), {"mode": "limit"}, "and mode limit drops its packets above the limit"),
        ((OFFICE,), {"mode": "reject", "enforce_from": START_S + 86400}, "and mode reject refuses it"),
        ((FRAUD,), {"scope_words": ("ipsec",)}, "udp/51820 is outside the scope"),
    ],
)
def test_settings_that_break_one_are_refused(
    time: Time, assertions: tuple[Assertion, ...], change: dict[str, Any], reason: str
) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", mode="observe")) as it:
            await begin(it, *assertions, HBL)
            before = it.controller.settings
            after = replace(before, policy=replace(before.policy, **change))
            with pytest.raises(AssertionsBroken, match=reason) as caught:
                await it.gate.check_settings(after, None, "SIGHUP", is_forced=False)
            assert [each.assertion for each in caught.value.broken] == list(assertions)
            await it.gate.check_settings(after, None, "SIGHUP", is_forced=True)
            await it.gate.check_settings(before, None, "SIGHUP", is_forced=False)

    time.run(scenario())


def test_a_source_that_goes_takes_a_customer_with_it(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", "desk")) as it:
            await it.read("desk", HOUSE)
            await begin(it, HBL)
            before = it.controller.settings
            for names, is_broken in ((["desk"], True), (["desk", "national"], False), (["desk", "new"], False)):
                sources = tuple(SourceSettings(name, f"file:/{name}") for name in names)
                after = replace(before, registry=replace(before.registry, sources=sources))
                if is_broken:
                    with pytest.raises(AssertionsBroken):
                        await it.gate.check_settings(after, None, "SIGHUP", is_forced=False)
                else:
                    await it.gate.check_settings(after, None, "SIGHUP", is_forced=False)
            assert list(it.controller.sources) == ["national", "desk"]

    time.run(scenario())


def test_observe_does_not_wait_for_a_change_that_is_being_applied(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", "desk")) as it:
            await it.read("desk", HOUSE)
            await begin(it, HBL)
            before = it.controller.settings
            gone = replace(before.registry, sources=(SourceSettings("desk", "file:/desk"),))
            observe = replace(before, registry=gone, policy=replace(before.policy, mode="observe"))
            async with it.controller._applying:
                await it.gate.check_settings(observe, None, "SIGHUP", is_forced=False)
            with pytest.raises(AssertionsBroken):
                await it.gate.check_settings(observe, None, "SIGHUP", is_forced=False)

    time.run(scenario())


def test_another_directory_of_local_files_is_judged_by_its_own_assertions(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await begin(it)
            settings = it.controller.settings
            with pytest.raises(AssertionsBroken):
                await it.gate.check_settings(settings, file(HBL, also=FILTER), "SIGHUP", is_forced=False)
            await it.gate.check_settings(settings, file(also=FILTER), "SIGHUP", is_forced=False)
            assert it.gate.states.assertions == ()

    time.run(scenario())


def test_another_mode_is_asked_of_the_policy_of_the_moment(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", mode="observe")) as it:
            await begin(it, HBL, OFFICE)
            policy = it.controller.policy(START_S)
            (broken,) = await it.gate.would_break(replace(policy, mode="reject"))
            assert broken.assertion == OFFICE
            assert await it.gate.would_break(replace(policy, mode="mark")) == ()
            with pytest.raises(AssertionsBroken):
                await it.gate.check_policy(replace(policy, mode="reject"), "mode", "uid 0", is_forced=False)
            await it.gate.check_policy(replace(policy, mode="reject"), "mode", "uid 0", is_forced=True)

    time.run(scenario())


def test_an_assertion_ends(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, GUARDED) as it:
            await begin(it, replace(HBL, until_s=START_S + 60))
            assert len(it.gate.states.assertions) == 1
            time.clock.advance(61)
            it.gate.settle()
            assert it.gate.states.assertions == ()

    time.run(scenario())
