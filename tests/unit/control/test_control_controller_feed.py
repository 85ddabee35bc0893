"""Deltas of a feed, and an armed mode that is taken off before the allowlist is complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest

from gatewayd.kernel.fake import FakeTables
from gatewayd.model import Registration
from gatewayd.model.registration import Changes
from gatewayd.sources.update import FeedPosition, SourceUpdate
from tests.support.manual_clock import Time, until
from tests.support.owning import Owning, owning, registration, settings_of

BANK = registration("BANK", "39.32.0.0/28")
HOUSE = registration("HOUSE", "39.32.64.8/29")
MOVED = registration("BANK", "39.32.0.0/28", "39.32.5.0/29")


@pytest.fixture
def time() -> Iterator[Time]:
    with Time() as made:
        yield made


async def delta(
    it: Owning, source: str, registrations: Mapping[str, Registration], *upserts: Registration, gone: str = ""
) -> None:
    """The source says that these changed; `registrations` is all it holds then."""
    where = FeedPosition("session", 2, it.clock(), "00" * 32)
    await it.controller.deliver(
        SourceUpdate(
            source,
            it.clock(),
            registrations=registrations,
            changes=Changes(upserts, (gone,) if gone else ()),
            position=where,
            before=where,
        )
    )


def test_a_delta_changes_what_it_names(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock) as it:
            await it.read("national", BANK)
            await it.in_sync()
            await delta(it, "national", {"BANK": MOVED, "HOUSE": HOUSE}, MOVED, HOUSE)
            await it.in_sync()
            assert it.passes(MOVED)
            assert it.passes(HOUSE)
            assert it.removed_keys() == []
            await delta(it, "national", {"HOUSE": HOUSE}, gone="BANK")
            await it.in_sync()
            assert not it.passes(BANK)
            assert it.passes(HOUSE)
            assert dict(it.controller.merged.registrations) == {"HOUSE": HOUSE}

    time.run(scenario())


def test_a_delta_of_a_later_source_does_not_override_an_earlier_one(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", "desk")) as it:
            await it.read("national", BANK)
            await it.read("desk", HOUSE)
            await it.in_sync()
            await delta(it, "desk", {"BANK": MOVED, "HOUSE": HOUSE}, MOVED)
            await it.in_sync()
            assert it.controller.allowlist.get("BANK") == BANK
            await delta(it, "national", {}, gone="BANK")
            await it.in_sync()
            assert it.controller.allowlist.get("BANK") == MOVED
            assert it.passes(MOVED)
            assert sorted(it.controller.merged.registrations) == ["BANK", "HOUSE"]

    time.run(scenario())


@asynccontextmanager
async def restarted(time: Time) -> AsyncIterator[Owning]:
    """After a run that armed: the table was found, and no source has been read."""
    tables = FakeTables()
    async with owning(time.clock, tables=tables) as it:
        await it.read("national", BANK)
        await it.in_sync()
    async with owning(time.clock, tables=tables) as again:
        again.reconciler.found(await tables.read_table())
        yield again


def test_an_armed_mode_is_taken_off_although_the_registry_cannot_be_read(time: Time) -> None:
    async def scenario() -> None:
        tables = FakeTables()
        async with owning(time.clock, tables=tables) as it:
            await it.read("national", BANK)
            await it.in_sync()
            epoch = it.reconciler.epoch
        async with owning(time.clock, settings_of("national", mode="observe"), tables=tables) as again:
            again.reconciler.found(await tables.read_table())
            assert again.reconciler.mode_in_force == "reject"
            await until(lambda: again.reconciler.mode_in_force == "observe")
            assert again.reconciler.epoch == epoch + 1
            assert again.passes(BANK)
            assert [type(write).__name__ for write in again.written] == ["Ruleset"]

    time.run(scenario())


def test_before_the_registry_is_read_an_armed_table_stays_as_it_was_found(time: Time) -> None:
    async def scenario() -> None:
        async with restarted(time) as again:
            await asyncio.sleep(5)
            assert again.written == []
            assert again.reconciler.mode_in_force == "reject"

    time.run(scenario())


@pytest.mark.parametrize("refused", [False, True])
def test_a_reload_takes_an_armed_mode_off_although_no_source_has_been_read_since_the_start(
    time: Time, refused: bool
) -> None:
    async def scenario() -> None:
        async with restarted(time) as again:
            await asyncio.sleep(5)
            again.refuse_writes = refused
            again.configure(mode="observe")
            if refused:
                await until(lambda: again.reconciler.stats.failures > 1)
                assert again.reconciler.mode_in_force == "reject"
                again.refuse_writes = False
            await until(lambda: again.reconciler.mode_in_force == "observe")
            assert again.passes(BANK)
            assert [type(write).__name__ for write in again.written] == ["Ruleset"]
            # Arming waits for the source, as ever.
            again.configure(mode="reject")
            await asyncio.sleep(5)
            assert again.reconciler.mode_in_force == "observe"
            await again.read("national", BANK)
            await until(lambda: again.reconciler.mode_in_force == "reject")

    time.run(scenario())
