"""Clocks that are wrong, and put right: a NAS's and ours, while we run. Order never waits for time to catch up.

An address is handed from a customer whom nobody registered to one who is registered, and the other way round, with
whatever clock; what counts is what happened last.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.nas import INTERIM, ON, START, STOP
from tests.support.radius import integer
from tests.support.subscribers import ALI, BANO, SpeakingNas, subscriber_gateway

STRANGER = 9
HOME = "192.0.2.77"
DAY_S = 86400
AHEAD = [2, 45, 200, 299, 301, 3600, DAY_S, 400 * DAY_S]


def by(nas: SpeakingNas, ahead_s: int, has_stamp: bool = True) -> dict[str, int | None]:
    """The time that a NAS says whose clock is so far ahead."""
    return {"ago": -ahead_s if has_stamp else None}


async def restart(nas: SpeakingNas, ahead_s: int, has_stamp: bool) -> None:
    at = (integer(55, int(nas._gateway.clock()) + ahead_s),) if has_stamp else ()
    await nas.ask(nas.request(integer(40, ON), *at))


@pytest.mark.parametrize("has_stamp", [True, False])
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("ahead_s", AHEAD)
async def test_a_nas_ahead_that_is_put_right_hands_an_address_on(
    tmp_path: Path, ahead_s: int, restarts: bool, has_stamp: bool
) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        if restarts:
            await restart(nas, ahead_s, has_stamp)
        await nas.says(START, "s1", STRANGER, HOME, **by(nas, ahead_s, has_stamp))
        await gateway.pass_time(5)
        await nas.says(INTERIM, "s1", STRANGER, HOME, **by(nas, ahead_s, has_stamp))
        await gateway.pass_time(1)
        if restarts:
            await restart(nas, 0, has_stamp)
        await nas.says(START, "s2", BANO, HOME, **by(nas, 0, has_stamp))
        assert await gateway.in_sync() == {f"{HOME}/32": BANO}
        await gateway.pass_time(1)
        await nas.says(STOP, "s1", STRANGER, HOME, **by(nas, 0, has_stamp))
        assert await gateway.in_sync() == {f"{HOME}/32": BANO}
        await nas.says(STOP, "s2", BANO, HOME, **by(nas, 0, has_stamp))
        assert await gateway.in_sync() == {}


@pytest.mark.parametrize("behind_s", [130, 3600, 5 * DAY_S, 400 * DAY_S])
@pytest.mark.parametrize("restarts", [False, True])
async def test_a_nas_that_is_set_back_is_believed_within_its_next_words(
    tmp_path: Path, behind_s: int, restarts: bool
) -> None:
    """By the first it might be a word that was long on its way. By the next of the same lag it is the clock."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", STRANGER, HOME)
        await nas.says(START, "other", ALI, "192.0.2.90")
        await gateway.pass_time(5)
        if restarts:
            await restart(nas, -behind_s, True)
        await nas.says(START, "s2", BANO, HOME, ago=behind_s)
        await gateway.pass_time(6)
        await nas.says(INTERIM, "other", ALI, "192.0.2.90", ago=behind_s)
        assert (await gateway.in_sync()).get(f"{HOME}/32") == BANO
        await nas.says(STOP, "s2", BANO, HOME, ago=behind_s)
        assert f"{HOME}/32" not in await gateway.in_sync()
        # And put right again.
        await gateway.pass_time(5)
        await nas.says(START, "s3", STRANGER, HOME)
        await gateway.pass_time(5)
        await nas.says(START, "s4", BANO, HOME)
        assert (await gateway.in_sync()).get(f"{HOME}/32") == BANO


async def test_old_words_among_fresh_ones_stay_old(tmp_path: Path) -> None:
    """As a proxy's queue has them: in no way do they look like a clock that was set."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s2", BANO, HOME)
        await gateway.pass_time(4000)
        for _ in range(5):
            await nas.says(START, "s1", STRANGER, HOME, ago=5000)
            await nas.says(INTERIM, "s2", BANO, HOME)
            await gateway.pass_time(6)
        for minute in range(5):
            await nas.says(INTERIM, "s1", STRANGER, HOME, ago=4900 - 60 * minute)
            await gateway.pass_time(3)
        assert await gateway.in_sync() == {f"{HOME}/32": BANO}


async def test_old_words_that_say_how_old_they_are_stay_old(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s2", BANO, HOME)
        await gateway.pass_time(4000)
        for _ in range(5):
            await nas.says(INTERIM, "s1", STRANGER, HOME, ago=5000, delay=5000)
            await gateway.pass_time(10)
        assert await gateway.in_sync() == {f"{HOME}/32": BANO}


@pytest.mark.parametrize("has_stamp", [True, False])
@pytest.mark.parametrize("set_s", [-400 * DAY_S, -3600, -100, -3, 3, 100, 3600, 400 * DAY_S])
async def test_our_clock_that_is_set_changes_nothing(tmp_path: Path, set_s: int, has_stamp: bool) -> None:
    """With Event-Timestamps by clocks that are right all the while, or without."""
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()

        def now(wrong_s: int = 0) -> dict[str, int | None]:
            return by(nas, -wrong_s, has_stamp)

        await nas.says(START, "s1", STRANGER, HOME, **now(), interim=600)
        await gateway.pass_time(5)
        gateway.clock.set_by(set_s)
        await nas.says(START, "s2", BANO, HOME, **now(set_s), interim=600)
        assert await gateway.in_sync() == {f"{HOME}/32": BANO}
        await gateway.pass_time(5)
        gateway.clock.set_by(-set_s)
        await nas.says(START, "s3", STRANGER, HOME, **now(), interim=600)
        assert await gateway.in_sync() == {}
        await gateway.pass_time(5)
        await nas.says(START, "s4", BANO, HOME, **now(), interim=600)
        assert await gateway.in_sync() == {f"{HOME}/32": BANO}


@pytest.mark.parametrize("wrong_s", [-2500 * DAY_S, -DAY_S, -3600, 3600, 400 * DAY_S])
@pytest.mark.parametrize("has_stamp", [True, False])
async def test_our_clock_that_was_wrong_at_the_start_and_is_put_right(
    tmp_path: Path, wrong_s: int, has_stamp: bool
) -> None:
    async with subscriber_gateway(tmp_path, start_s=1_700_000_000.0 + wrong_s) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", STRANGER, HOME, **by(nas, -wrong_s, has_stamp), interim=600)
        await nas.says(START, "s0", ALI, "192.0.2.90", **by(nas, -wrong_s, has_stamp), interim=600)
        await gateway.pass_time(60)
        gateway.clock.set_by(-wrong_s)
        await nas.says(START, "s2", BANO, HOME, **by(nas, 0, has_stamp), interim=600)
        assert (await gateway.in_sync()).get(f"{HOME}/32") == BANO
        # What a restart makes of it: nothing.
        for _ in range(3):
            await gateway.crash()
            gateway.clock.advance(30)
            await gateway.come_back()
            assert await gateway.in_sync() == {f"{HOME}/32": BANO, "192.0.2.90/32": ALI}
        (found,) = [each for each in gateway.confirmed() if str(each.prefix) == f"{HOME}/32"]
        assert abs(gateway.service.confirmed(found).confirmed_s - gateway.clock()) < 300
        await gateway.pass_time(2500)
        assert await gateway.in_sync() == {}, "nobody lives longer for it"


async def test_our_clock_that_is_wrong_at_a_restart_ends_nobody(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, HOME, interim=600)
        for set_s in (-2500 * DAY_S, 5000 * DAY_S, -2500 * DAY_S):
            await gateway.crash()
            gateway.clock.set_by(set_s)
            await gateway.come_back()
            assert await gateway.in_sync() == {f"{HOME}/32": ALI}
        await nas.says(START, "s2", BANO, HOME, interim=600)
        assert await gateway.in_sync() == {f"{HOME}/32": BANO}
