"""A journal that was damaged takes no address out of the kernel, and the loss is said.

Damage is done to the files, behind the back of a daemon that was killed. What the kernel still has stays until its
own time is over, unless somebody is known to have the address.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gatewayd.subscribers.service import JOURNAL_NAME
from tests.support.nas import INTERIM, START, STOP
from tests.support.subscribers import (
    ELEMENT_TIMEOUT_S,
    STRIDE_S,
    SubscriberGateway,
    bank,
    eventually,
    subscriber_gateway,
)

COUNT = 40
STRANGER = 900


def address(subscriber: int) -> str:
    return f"192.0.2.{subscriber}"


ALL = {f"{address(each)}/32": each for each in range(1, COUNT + 1)}


def flip_in_log(directory: Path) -> None:
    """One bit in the middle of the write-ahead log."""
    path = directory / f"{JOURNAL_NAME}-wal"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    path.write_bytes(raw)


def remove_log(directory: Path) -> None:
    (directory / f"{JOURNAL_NAME}-wal").unlink()


def remove_all(directory: Path) -> None:
    for path in directory.iterdir():
        if not path.name.endswith(".mark"):
            path.unlink()


def write_over(directory: Path) -> None:
    remove_log(directory)
    (directory / JOURNAL_NAME).write_bytes(b"no database" * 1000)


DAMAGE = [flip_in_log, remove_log, remove_all, write_over]


@asynccontextmanager
async def filled(directory: Path) -> AsyncIterator[SubscriberGateway]:
    """All are bound."""
    registered = range(1, COUNT + 1)
    async with subscriber_gateway(directory, registered=registered, more=[bank("203.0.113.0/28")]) as gateway:
        nas = gateway.nas()
        for each in registered:
            await nas.says(START, f"s{each}", each, address(each), interim=600)
        assert await gateway.in_sync() == ALL
        yield gateway


async def damaged(gateway: SubscriberGateway, damage: Callable[[Path], None]) -> None:
    await gateway.crash()
    damage(gateway.directory / "saved")
    gateway.clock.advance(5)
    await gateway.come_back(waits=False)
    await gateway.read_back()


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_journal_takes_nobody_out_of_the_kernel_and_is_said(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    async with filled(tmp_path) as gateway:
        await damaged(gateway, damage)
        assert gateway.kernel() == ALL
        lost = COUNT - len(gateway.confirmed())
        assert lost > 0
        assert gateway.programmer.left == lost
        assert gateway.service.journal.stats.lost_groups > 0
        assert gateway.reconciler.tracker.count_surplus() == 0
        # Time passes, and each is told of again, or is not.
        nas = gateway.nas()
        for each in range(1, COUNT + 1, 2):
            await nas.says(INTERIM, f"s{each}", each, address(each), interim=600)
        assert gateway.kernel() == ALL
        assert gateway.programmer.left <= COUNT // 2


async def test_what_nobody_tells_of_again_goes_by_itself_and_comes_back_by_nothing(tmp_path: Path) -> None:
    async with filled(tmp_path) as gateway:
        await damaged(gateway, remove_all)
        nas = gateway.nas()
        await nas.says(START, "t1", 1, address(1), interim=600)
        gateway.clock.advance(ELEMENT_TIMEOUT_S - 20)
        await eventually(lambda: gateway.reconciler.unready() is None)
        assert set(gateway.kernel()) <= set(ALL)
        gateway.clock.advance(2 * STRIDE_S)
        await eventually(lambda: not gateway.programmer.left)
        assert not set(gateway.kernel()) - {f"{address(1)}/32"}


async def test_whoever_is_known_to_have_the_address_has_it(tmp_path: Path) -> None:
    async with filled(tmp_path) as gateway:
        await damaged(gateway, remove_all)
        nas = gateway.nas("bng-9")
        await nas.says(START, "x1", STRANGER, address(1))
        await nas.says(START, "x2", 3, address(2))
        await nas.says(STOP, "s4", 4, address(4))
        await eventually(lambda: gateway.programmer.left == COUNT - 3)
        expected = {place: who for place, who in ALL.items() if who not in (1, 2, 4)} | {f"{address(2)}/32": 3}
        await eventually(lambda: gateway.reconciler.unready() is None)
        await eventually(lambda: gateway.kernel() == expected)


async def test_with_a_sound_journal_nothing_is_left_that_is_not_wanted(tmp_path: Path) -> None:
    """Withdrawn while we were away: the journal knows whose it was."""
    async with filled(tmp_path) as gateway:
        await gateway.crash()
        for each in (1, 2):
            gateway.registrations.pop(f"PK-{each}")
        gateway.clock.advance(5)
        await gateway.come_back()
        assert await gateway.in_sync() == {place: who for place, who in ALL.items() if who > 2}
        assert gateway.programmer.left == 0
        assert gateway.service.journal.stats.lost_groups == 0


async def test_what_somebody_adds_to_our_sets_later_is_removed_as_ever(tmp_path: Path) -> None:
    async with filled(tmp_path) as gateway:
        await damaged(gateway, remove_all)
        await eventually(lambda: not gateway.reconciler.tracker.findings.is_leaving)
        assert gateway.programmer.left == COUNT
