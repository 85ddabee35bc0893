"""Whether the kernel keeps the assertions: what is said, when, and by which of its elements."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatewayd.assertions.states import PATIENCE_S
from gatewayd.control.assertion_watch import LOOK_EVERY_S, AssertionWatch
from gatewayd.errors import ReplyMissing
from gatewayd.model.assertion import Assertion
from gatewayd.sources.files import OverridesReading
from gatewayd.sources.override_file import OverrideFile
from tests.support.asserting import assertion
from tests.support.manual_clock import Time, until
from tests.support.owning import Owning, owning, registration, settings_of

BANK = registration("BANK", "203.0.113.0/28", services=("ipsec", "wireguard"))
HOUSE = registration("HOUSE", "39.32.64.8/29")
HBL = assertion(service="ipsec")
FRAUD = assertion("fraud", "203.0.113.5", kind="must_not_pass")


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


@asynccontextmanager
async def watching(
    time: Time, *assertions: Assertion, passage: Any = None
) -> AsyncIterator[tuple[Owning, AssertionWatch]]:
    async with owning(time.clock, settings_of("national", mode="observe")) as it:
        await it.gate.adopt(OverridesReading((OverrideFile("a.yaml", assertions=assertions),)))
        watch = AssertionWatch(
            it.controller,
            it.gate,
            passage or it.tables,
            likely=time.clock,
            monotonic=time.clock.monotonic,
        )
        task = asyncio.create_task(watch.run())
        yield it, watch
        task.cancel()


def turns(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.getMessage().startswith("assertion.")]


def test_nothing_is_said_before_the_kernel_is_as_desired(time: Time) -> None:
    async def scenario() -> None:
        async with watching(time, HBL) as (it, watch):
            await asyncio.sleep(60)
            view = watch.view()
            assert (view.total, view.failing, view.looked_at) == (1, 0, None)
            await it.read("national", BANK)
            await until(lambda: watch.view().looked_at is not None)
            assert watch.failing == 0

    time.run(scenario())


def test_a_registration_past_a_bound_keeps_nothing_from_looking(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with watching(time, HBL) as (it, watch):
            monkeypatch.setattr(it.reconciler, "unready", lambda: "1 registrations in their former form")
            await it.read("national", HOUSE)
            await until(lambda: watch.failing == 1, within_s=20)

    time.run(scenario())


def test_a_reading_that_takes_the_customer_away_is_said_at_once(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with watching(time, HBL) as (it, watch):
            await it.read("national", BANK, HOUSE)
            await it.in_sync()
            await it.read("national", HOUSE)
            before = time.clock()
            await until(lambda: watch.failing == 1, within_s=20)
            assert time.clock() - before < LOOK_EVERY_S
            (example,) = watch.view().examples
            assert example.reason == "udp/500: no registration covers 203.0.113.5 or 198.51.100.7"
            await it.read("national", BANK, HOUSE)
            await until(lambda: watch.failing == 0, within_s=20)

    with caplog.at_level(logging.INFO):
        time.run(scenario())
    assert turns(caplog) == ["assertion.failing", "assertion.passing"]


def test_an_element_that_the_kernel_does_not_have_is_said_after_a_moment(time: Time) -> None:
    async def scenario() -> None:
        async with watching(time, HBL) as (it, watch):
            await it.read("national", BANK, HOUSE)
            await until(lambda: watch.view().looked_at is not None)
            it.refuse_writes = True
            table = it.tables.table
            assert table is not None
            began = time.clock()

            def empty() -> None:
                for each in table.sets.values():
                    each.keys.clear()

            it.tables.tamper(empty)
            await until(lambda: watch.failing == 1, within_s=20)
            assert time.clock() - began >= PATIENCE_S
            (example,) = watch.view().examples
            assert example.reason.startswith("udp/500: registered by BANK")
            assert example.reason.endswith("but the kernel has no element of it")
            it.refuse_writes = False
            await until(lambda: watch.failing == 0, within_s=20)

    time.run(scenario())


def test_an_element_that_nobody_registers_lets_a_fraud_pass(time: Time) -> None:
    async def scenario() -> None:
        async with watching(time, FRAUD, assertion("office")) as (it, watch):
            await it.read("national", HOUSE, BANK)
            await until(lambda: watch.failing == 1, within_s=20)
            assert watch.view().examples[0].reason.startswith("udp/51820: registered by BANK")
            it.refuse_writes = True
            await it.read("national", HOUSE)
            await until(lambda: "nobody registers" in watch.view().examples[0].reason, within_s=20)
            assert watch.failing == 1
            it.refuse_writes = False
            await until(lambda: watch.view().examples[0].name == "office", within_s=20)

    time.run(scenario())


def test_without_rules_of_ours_nothing_is_registered(time: Time) -> None:
    async def scenario() -> None:
        async with watching(time, HBL, assertion("far", service="tcp/9")) as (it, watch):
            await it.read("national", BANK)
            await until(lambda: watch.view().looked_at is not None)
            it.refuse_writes = True
            it.tables.tamper(lambda: setattr(it.tables, "table", None))
            await until(lambda: watch.failing == 1, within_s=20)
            assert watch.view().examples[0].reason == "udp/500: the kernel has no rules of gatewayd"

    time.run(scenario())


def test_a_kernel_that_cannot_be_asked_is_counted_and_nothing_else_changes(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent:
        async def read_rules(self) -> None:
            raise ReplyMissing("list rules", "no answer")

    async def scenario() -> None:
        async with watching(time, HBL, passage=Silent()) as (it, watch):
            await it.read("national", BANK)
            await until(lambda: watch.view().look_failures >= 3, within_s=60)
            assert watch.view().looked_at is None
            assert watch.failing == 0

    time.run(scenario())
    assert turns(caplog) == ["assertion.look_failed"]


def test_where_nothing_changes_it_is_looked_at_every_few_seconds(time: Time) -> None:
    async def scenario() -> None:
        async with watching(time, HBL) as (it, watch):
            await it.read("national", BANK)
            await it.in_sync()
            await asyncio.sleep(2 * LOOK_EVERY_S)
            looks = set[object]()
            for _ in range(600):
                await asyncio.sleep(0.1)
                looks.add(watch.view().looked_at)
            assert 8 <= len(looks) <= 14

    time.run(scenario())
