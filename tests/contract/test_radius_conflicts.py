"""An address that the registry gives to one and a NAS to another: both pass, whoever came first, and it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from tests.support.nas import INTERIM, START
from tests.support.subscribers import BANO, bank, registration, subscriber_gateway

ALI = 1
OFFICE, INSIDE = "203.0.113.0/28", "203.0.113.5"
POOL = "203.0.0.0/16"
ELSEWHERE = "100.64.3.9"


@pytest.mark.parametrize("client", [OFFICE, f"{INSIDE}/32", POOL], ids=["office", "the very address", "pool"])
async def test_a_registration_that_comes_later_disturbs_nobody_who_is_bound_there(
    tmp_path: Path, client: str
) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, INSIDE)
        gateway.register(bank(client))
        assert await gateway.in_sync() == {f"{INSIDE}/32": ALI}
        # And a restart comes to the same.
        await gateway.crash()
        await gateway.come_back()
        assert await gateway.in_sync() == {f"{INSIDE}/32": ALI}
        gateway.withdraw(bank(client))
        assert await gateway.in_sync() == {f"{INSIDE}/32": ALI}


@pytest.mark.parametrize("restarts", [False, True])
async def test_nor_does_one_that_was_there_before(tmp_path: Path, restarts: bool) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        gateway.register(bank(OFFICE))
        await gateway.nas().says(START, "s1", ALI, INSIDE)
        if restarts:
            await gateway.crash()
            await gateway.come_back()
        assert await gateway.in_sync() == {f"{INSIDE}/32": ALI}
        gateway.withdraw(bank(OFFICE))
        assert await gateway.in_sync() == {f"{INSIDE}/32": ALI}


async def test_of_who_moved_on_nothing_comes_back(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, INSIDE)
        gateway.register(bank(OFFICE))
        await gateway.pass_time(60)
        await nas.says(INTERIM, "s1", ALI, ELSEWHERE)
        assert await gateway.in_sync() == {f"{ELSEWHERE}/32": ALI}
        gateway.withdraw(bank(OFFICE))
        assert await gateway.in_sync() == {f"{ELSEWHERE}/32": ALI}


async def test_between_subscribers_the_last_word_counts_within_somebody_elses_prefix_too(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        gateway.register(bank(OFFICE))
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, INSIDE)
        await gateway.pass_time(60)
        await nas.says(START, "s2", BANO, INSIDE)
        assert await gateway.in_sync() == {f"{INSIDE}/32": BANO}


@pytest.mark.parametrize(
    ("client", "address"),
    [("2001:db8:5::/48", "2001:db8:5:10::/64"), (OFFICE, INSIDE), ("203.0.113.0/24", INSIDE)],
    ids=["around what is delegated", "an address of it", "the largest that is somebody's own"],
)
async def test_an_address_in_somebody_elses_own_prefix_is_bound_and_counted(
    tmp_path: Path, client: str, address: str
) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        gateway.register(bank(client))
        await gateway.nas().says(START, "s1", ALI, address, ELSEWHERE)
        assert set(await gateway.in_sync()) == {f"{ELSEWHERE}/32", address if "/" in address else f"{address}/32"}
        assert gateway.service.conflicting == 1


@pytest.mark.parametrize("client", ["203.0.0.0/23", POOL, "203.0.0.0/8"])
async def test_one_in_a_pool_or_a_providers_block_is_nothing_to_speak_of(tmp_path: Path, client: str) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        gateway.register(bank(client.replace("203.0.0.0/23", "203.0.112.0/23")))
        await gateway.nas().says(START, "s1", ALI, INSIDE)
        assert await gateway.in_sync() == {f"{INSIDE}/32": ALI}
        assert gateway.service.conflicting == 0


async def test_ones_own_registration_by_address_is_in_nobodys_way(tmp_path: Path) -> None:
    async with subscriber_gateway(tmp_path) as gateway:
        gateway.register(structs.replace(registration(ALI), clients=bank(OFFICE).clients))
        await gateway.nas().says(START, "s1", ALI, INSIDE)
        assert await gateway.in_sync() == {f"{INSIDE}/32": ALI}
        assert gateway.service.conflicting == 0
