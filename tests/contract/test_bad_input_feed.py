"""A signed feed that sends every bad input that has a name: nothing that was in force is lost.

Client, HTTP, owner, guard and store are the daemon's own; the kernel is in memory, and the disk refuses on demand.
Each case is told twice: as one life of a daemon, and with the daemon killed and started again in the middle.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.compile.masks import compile_elements
from gatewayd.settings.model import SourceSettings
from tests.support.bad_input import BAD_INPUTS, MAX_BYTES, NAMES, BadInput, check_complete, published_register
from tests.support.bad_registry import bad_registry
from tests.support.fed_gateway import IMPATIENT, SOURCE, FedGateway, HostClock, Place, fed_gateway
from tests.support.feeds import KEY, upsert

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
        await attempt_in_time(it)
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
            await it.in_sync()
            assert it.facts.restored_at is not None
            it.check_in_force(before)
            await it.attempt()
            it.check_in_force(before)
            await recover(it, case)
            it.check_in_force(before)


NEWCOMERS = (upsert("NEXT", "39.37.1.1/32"), upsert("WIDE", "39.37.8.0/22"))
"""The second is of a mask that nobody else has."""


@pytest.mark.parametrize("is_withdrawn", [False, True], ids=["registered still", "withdrawn meanwhile"])
async def test_what_the_disk_never_took_stays_in_the_kernel_until_the_registry_answers(
    is_withdrawn: bool, place: Place, tmp_path: Path
) -> None:
    """Read while the disk was full, and in force; the restart knows nothing of it but that it is in the kernel."""
    source, registry = source_of(place, tmp_path), place.registry
    async with fed_gateway(place, source) as it:
        await it.attempt()
        place.disk.fill()
        registry.publish(*NEWCOMERS)
        await it.attempt()
        in_force = it.in_force()
    newcomers = [in_force.pop(each) for each in ("NEXT", "WIDE")]
    place.disk.mend()
    registry.go_away()
    async with fed_gateway(place, source) as it:
        await it.in_sync()
        await it.attempt()
        assert "Cannot connect" in (it.facts.error or "")
        assert it.in_force() == in_force
        assert all(map(it.passes, newcomers))
        registry.come_back()
        if is_withdrawn:
            for each in newcomers:
                del registry.publisher.records[each.id]
            registry.publish_anew()
        await it.attempt()
        await it.in_sync()
        assert it.facts.error is None
        assert [it.passes(each) for each in newcomers] == [not is_withdrawn] * 2
        if not is_withdrawn:
            keys = {key for each in newcomers for _, key in compile_elements(each)}
            assert keys.isdisjoint(it.removed_keys())


def check_said(it: FedGateway, case: BadInput) -> None:
    """An operator is told what is wrong, and a registry that can be followed is."""
    publisher, position = it.place.registry.publisher, it.client.position
    assert case.error in (it.facts.error or "")
    assert bool(it.facts.error) == bool(case.error)
    followed = position is not None and (position.session, position.serial) == (publisher.session, publisher.serial)
    assert followed or case.error
    if case.reason is not None:
        assert it.client.snapshot_reason == case.reason
    if case.rejected:
        assert it.facts.rejected[case.rejected] > 0
    assert bool(it.controller.holds()) == case.is_held
    assert (it.controller.store_error(SOURCE) or "").endswith(case.store_error)
    assert bool(it.controller.store_error(SOURCE)) == bool(case.store_error)


async def attempt_in_time(it: FedGateway) -> None:
    """An impatient client gives up on a good server too, where the machine is busy: then it asks again."""
    await it.attempt()
    while (it.facts.error or "").endswith("no answer in time"):
        await it.attempt()


async def recover(it: FedGateway, case: BadInput) -> None:
    """The registry is good again and is followed; what is on disk is what is in force."""
    it.place.disk.mend()
    it.clock.advance(STORE_RETRY_S)
    extra = it.place.registry.recover(was_followed=not case.error)
    await attempt_in_time(it)
    assert it.facts.error is None
    assert extra in it.in_force()
    assert it.controller.holds() == ()
    assert it.controller.store_error(SOURCE) is None
    kept = await it.store.load(SOURCE)
    assert kept.damage is None
    assert kept.registrations == it.in_force()
