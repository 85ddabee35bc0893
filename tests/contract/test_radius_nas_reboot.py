"""A NAS with 50,000 sessions restarts: all of it goes and nothing else, and the loop turns while it does.

Of its sessions 1,500 are of registered subscribers; another NAS beside it has 2,000, of which 300. The sessions are
taken as a list, as from the AAA's database; the restart and all that follows comes by RADIUS.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.prefix import Prefix
from tests.support.nas import INTERIM
from tests.support.subscribers import SubscriberGateway, digest, named, subscriber_gateway

SESSIONS, REGISTERED = 50_000, 1_500
OTHERS, OTHERS_REGISTERED = 2_000, 300
EVERY = SESSIONS // REGISTERED
REASSERTED = range(1, 1_501, 5)
"""Subscribers whom the NAS tells of again within the grace."""
GRACE_S = 120.0
MAX_AT_ONCE = 500
"""Sessions that may end between two turns of the loop: some 5 ms."""


def address(index: int) -> str:
    return str(IPv4Address("100.64.0.0") + index)


def places(subscribers: range) -> dict[str, int]:
    """Where the registered ones of the NAS are: one in EVERY of its sessions is of one."""
    return {f"{address(each * EVERY)}/32": each for each in subscribers}


MINE = places(range(1, REGISTERED + 1))
BESIDE = {f"{address(1 << 18 | each)}/32": REGISTERED + each for each in range(1, OTHERS_REGISTERED + 1)}


def event(nas: str, session: str, subscriber: int, written: str, now: float) -> AccountingEvent:
    return AccountingEvent(
        kind="interim", nas=nas, session=session, subscriber=digest(subscriber), at_s=now - 30, received_at_s=now,
        addresses=(Prefix(IPv4Address(written).packed, 32),),
    )  # fmt: skip


def live_sessions(now: float) -> Iterator[AccountingEvent]:
    for index in range(1, SESSIONS + 1):
        is_registered = index % EVERY == 0 and index <= REGISTERED * EVERY
        subscriber = index // EVERY if is_registered else 100_000 + index
        yield event("bng-1", f"s{index}", subscriber, address(index), now)
    for index in range(1, OTHERS + 1):
        subscriber = REGISTERED + index if index <= OTHERS_REGISTERED else 200_000 + index
        yield event("bng-2", f"s{index}", subscriber, address(1 << 18 | index), now)


class Ticker:
    """Another task of the loop: how many sessions there are whenever it has its turn."""

    def __init__(self, gateway: SubscriberGateway) -> None:
        self.gateway = gateway
        self.seen: list[int] = []

    async def run(self) -> None:
        while True:
            self.seen.append(len(self.gateway.service.sessions))
            await asyncio.sleep(0)

    def longest_step(self) -> int:
        """The most sessions that went between two turns."""
        return max((before - after for before, after in zip(self.seen, self.seen[1:], strict=False)), default=0)


@asynccontextmanager
async def ticking(gateway: SubscriberGateway) -> AsyncIterator[Ticker]:
    ticker = Ticker(gateway)
    task = asyncio.create_task(ticker.run())
    await asyncio.sleep(0)
    try:
        yield ticker
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def laden(directory: Path, grace_s: float) -> AsyncIterator[SubscriberGateway]:
    """A gateway that has taken all the sessions."""
    registered = range(1, REGISTERED + OTHERS_REGISTERED + 1)
    profiles = (named("bng-1", restart_grace_s=grace_s),)
    async with subscriber_gateway(directory, registered=registered, nas=profiles) as gateway:
        assert await gateway.service.take_list(live_sessions(gateway.clock())) == SESSIONS + OTHERS
        assert await gateway.in_sync() == MINE | BESIDE
        yield gateway


async def sessions_in_journal(gateway: SubscriberGateway) -> dict[str, int]:
    """How many rows by kind, and of sessions by NAS."""
    counts: dict[str, int] = {}
    for kind, nas, _ in await gateway.rows():
        name = f"{kind} {nas}" if kind in ("session", "nas") else kind
        counts[name] = counts.get(name, 0) + 1
    return counts


async def test_without_a_grace_all_its_bindings_go_at_once_in_batches(tmp_path: Path) -> None:
    async with laden(tmp_path, 0.0) as gateway:
        async with ticking(gateway) as ticker:
            await gateway.nas("bng-1").restart_now()
            await gateway.do_what_is_due()
        assert len(ticker.seen) >= SESSIONS // MAX_AT_ONCE
        assert 0 < ticker.longest_step() <= MAX_AT_ONCE
        assert await gateway.in_sync() == BESIDE
        assert len(gateway.service.sessions) == OTHERS
        assert (gateway.counts.restarts, gateway.counts.ended_by_restart) == (1, SESSIONS)
        assert await sessions_in_journal(gateway) == {
            "session bng-2": OTHERS_REGISTERED, "address": REGISTERED, "nas bng-1": 1,
        }  # fmt: skip
        await gateway.pass_time(901)
        assert await sessions_in_journal(gateway) == {"session bng-2": OTHERS_REGISTERED, "nas bng-1": 1}
        assert await gateway.in_sync() == BESIDE


async def test_with_a_grace_all_stays_until_it_is_over_and_then_what_was_told_again_stays(tmp_path: Path) -> None:
    async with laden(tmp_path, GRACE_S) as gateway:
        nas = gateway.nas("bng-1")
        async with ticking(gateway) as ticker:
            await nas.restart_now()
            await gateway.do_what_is_due()
        assert len(ticker.seen) >= SESSIONS // MAX_AT_ONCE
        assert ticker.longest_step() == 0
        assert await gateway.in_sync() == MINE | BESIDE
        await gateway.pass_time(GRACE_S / 2)
        for subscriber in REASSERTED:
            await nas.says(INTERIM, f"s{subscriber * EVERY}", subscriber, address(subscriber * EVERY))
        assert await gateway.in_sync() == MINE | BESIDE
        async with ticking(gateway) as ticker:
            await gateway.pass_time(GRACE_S)
        gone = SESSIONS - len(REASSERTED)
        assert len(ticker.seen) >= gone // MAX_AT_ONCE
        assert 0 < ticker.longest_step() <= MAX_AT_ONCE
        assert await gateway.in_sync() == places(REASSERTED) | BESIDE
        assert (gateway.counts.ended_by_restart, gateway.counts.expired) == (gone, 0)
        rows = {
            "session bng-1": len(REASSERTED), "session bng-2": OTHERS_REGISTERED, "nas bng-1": 1,
        }  # fmt: skip
        assert await sessions_in_journal(gateway) == rows | {"address": REGISTERED - len(REASSERTED)}
        await gateway.pass_time(901)
        assert await sessions_in_journal(gateway) == rows
        assert await gateway.in_sync() == places(REASSERTED) | BESIDE


async def test_a_crash_within_the_grace_saves_nobody(tmp_path: Path) -> None:
    """Nor does it cost those whom the NAS told of again, before or after it."""
    async with laden(tmp_path, GRACE_S) as gateway:
        nas = gateway.nas("bng-1")
        await nas.restart_now()
        for subscriber in REASSERTED[::2]:
            await nas.says(INTERIM, f"s{subscriber * EVERY}", subscriber, address(subscriber * EVERY))
        await gateway.crash()
        gateway.clock.advance(10)
        await gateway.come_back()
        assert await gateway.in_sync() == MINE | BESIDE
        for subscriber in REASSERTED[1::2]:
            await nas.says(INTERIM, f"s{subscriber * EVERY}", subscriber, address(subscriber * EVERY))
        await gateway.pass_time(1.2 * GRACE_S)
        assert await gateway.in_sync() == places(REASSERTED) | BESIDE
        assert gateway.counts.ended_by_restart == REGISTERED - len(REASSERTED)
