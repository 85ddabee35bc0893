"""A signed feed that sends every bad input that has a name: nothing that was in force is lost.

Client, HTTP, owner, guard and store are the daemon's own; the kernel is in memory, and the disk refuses on demand.
Each case is told twice: as one life of a daemon, and with the daemon killed and started again in the middle.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.settings.model import SourceSettings
from tests.support.bad_input import BAD_INPUTS, MAX_BYTES, NAMES, BadInput, check_complete, published_register
from tests.support.bad_registry import bad_registry
from tests.support.fed_gateway import IMPATIENT, SOURCE, FedGateway, HostClock, Place, fed_gateway
from tests.support.feeds import KEY

STORE_RETRY_S = 61.0


def test_every_bad_input_of_the_requirement_is_tried() -> None:
    check_complete(case.name for case in BAD_INPUTS)
    assert list(dict.fromkeys(case.name for case in BAD_INPUTS)) == list(NAMES)
    assert len({str(case) for case in BAD_INPUTS}) == len(BAD_INPUTS)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    clock = HostClock()
    with bad_registry(published_register(clock()), clock) as registry:
        yield Place(tmp_path / "state", registry, clock)


def source_of(place: Place, tmp_path: Path) -> SourceSettings:
    key = tmp_path / "national.pub"
    key.write_text(KEY.public_text())
    return SourceSettings(SOURCE, place.registry.url, (str(key),), max_bytes=MAX_BYTES)


@pytest.mark.parametrize("is_restarted", [False, True], ids=["one life", "a restart"])
@pytest.mark.parametrize("case", BAD_INPUTS, ids=str)
async def test_nothing_in_force_is_lost(case: BadInput, is_restarted: bool, place: Place, tmp_path: Path) -> None:
    source = source_of(place, tmp_path)
    patience = IMPATIENT if case.name == "slow body" else None
    async with fed_gateway(place, source, patience) as it:
        await it.attempt()
        before = it.in_force()
        assert set(before) == set(place.registry.publisher.records)
        place.registry.remember()
        case.misbehave(place)
        await it.attempt()
        check_said(it, case)
        it.check_in_force(before)
        if not is_restarted:
            await recover(it, case)
            it.check_in_force(before)
    if is_restarted:
        async with fed_gateway(place, source, patience) as it:
            await it.settled()
            assert it.facts.restored_at is not None
            it.check_in_force(before)
            await it.attempt()
            it.check_in_force(before)
            await recover(it, case)
            it.check_in_force(before)


def check_said(it: FedGateway, case: BadInput) -> None:
    """An operator is told what is wrong, and a registry that can be followed is."""
    publisher, position = it.place.registry.publisher, it.runner.position
    assert case.error in (it.facts.error or "")
    assert bool(it.facts.error) == bool(case.error)
    followed = position is not None and (position.session, position.serial) == (publisher.session, publisher.serial)
    assert followed or case.error
    if case.reason is not None:
        assert it.runner.state.snapshot_reason == case.reason
    if case.rejected:
        assert it.facts.rejected[case.rejected] > 0
    assert (it.owner.held(SOURCE) is not None) == case.is_held
    assert (it.owner.store_error(SOURCE) or "").endswith(case.store_error)
    assert bool(it.owner.store_error(SOURCE)) == bool(case.store_error)


async def recover(it: FedGateway, case: BadInput) -> None:
    """The registry is good again and is followed; what is on disk is what is in force."""
    it.place.disk.mend()
    it.clock.advance(STORE_RETRY_S)
    extra = it.place.registry.recover(was_followed=not case.error)
    await it.attempt()
    assert it.facts.error is None
    assert extra in it.in_force()
    assert it.owner.held(SOURCE) is None
    assert it.owner.store_error(SOURCE) is None
    kept = await it.store.load(SOURCE)
    assert kept.damage is None
    assert kept.registrations == it.in_force()
