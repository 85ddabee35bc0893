"""An address that the registry gives to one and a NAS to another: the registry's word holds, whoever came first."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from tests.support.nas import INTERIM, START
from tests.support.subscribers import bank, registration, subscriber_gateway

ALI = 1
OFFICE, INSIDE = "203.0.113.0/28", "203.0.113.5"
ELSEWHERE = "100.64.3.9"


async def test_a_registration_that_comes_later_takes_its_addresses_from_whoever_is_bound_there(tmp_path: Path):
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, INSIDE)
        assert await gateway.settled() == {f"{INSIDE}/32": ALI}
        gateway.register(bank(OFFICE))
        assert await gateway.settled() == {}
        assert gateway.bindings.conflicting == 1
        # And a restart comes to the same.
        await gateway.crash()
        await gateway.come_back()
        assert await gateway.settled() == {}


@pytest.mark.parametrize("restarts", [False, True])
async def test_when_it_is_withdrawn_who_has_the_address_by_accounting_is_bound_again(
    tmp_path: Path, restarts: bool
):
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, INSIDE)
        gateway.register(bank(OFFICE))
        assert await gateway.settled() == {}
        if restarts:
            await gateway.crash()
            await gateway.come_back()
        gateway.withdraw(bank(OFFICE))
        assert await gateway.settled() == {f"{INSIDE}/32": ALI}


async def test_of_who_moved_on_nothing_comes_back(tmp_path: Path):
    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas()
        await nas.says(START, "s1", ALI, INSIDE)
        gateway.register(bank(OFFICE))
        await gateway.pass_time(60)
        await nas.says(INTERIM, "s1", ALI, ELSEWHERE)
        assert await gateway.settled() == {f"{ELSEWHERE}/32": ALI}
        gateway.withdraw(bank(OFFICE))
        assert await gateway.settled() == {f"{ELSEWHERE}/32": ALI}


@pytest.mark.parametrize(
    ("client", "address"),
    [("2001:db8:5:10::/60", "2001:db8:5::/48"), ("2001:db8:5::/48", "2001:db8:5:10::/60"), (OFFICE, INSIDE)],
    ids=["within what is delegated", "around it", "an address of it"],
)
async def test_an_address_in_common_is_enough(tmp_path: Path, client: str, address: str):
    async with subscriber_gateway(tmp_path) as gateway:
        gateway.register(bank(client))
        await gateway.nas().says(START, "s1", ALI, address, ELSEWHERE)
        assert await gateway.settled() == {f"{ELSEWHERE}/32": ALI}
        assert gateway.bindings.conflicting == 1


async def test_ones_own_registration_by_address_is_in_nobodys_way(tmp_path: Path):
    async with subscriber_gateway(tmp_path) as gateway:
        gateway.register(structs.replace(registration(ALI), clients=bank(OFFICE).clients))
        await gateway.nas().says(START, "s1", ALI, INSIDE)
        assert await gateway.settled() == {f"{INSIDE}/32": ALI}
        assert gateway.bindings.conflicting == 0
