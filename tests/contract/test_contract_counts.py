"""The sets in which the rules count: the kernel and the fake give the same answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gatewayd.compile import compile_ruleset
from gatewayd.compile.rule_sets import COUNTED_SETS, COUNTED_TIMEOUT_S
from gatewayd.impact.keeper import CountedTable
from gatewayd.kernel.counts import CountReader
from gatewayd.kernel.fake import FakeTables
from gatewayd.model.transaction import CreateTable, Transaction
from tests.support.planes import TABLE, fresh_namespace, kernel_tables, run_nft
from tests.support.rulesets import OBSERVE


@dataclass
class World:
    """`count`: as the rules do, for an element that is not there yet: set, key, the key in nft's words, flows."""

    plane: Any
    table: CountedTable
    count: Callable[[str, bytes, str, int], None]

    async def counts(self, name: str) -> dict[bytes, tuple[int, float]]:
        found: dict[bytes, tuple[int, float]] = {}
        async for piece in self.table.read_counts(name):
            found |= {each.key: (each.flows, each.left_s) for each in piece}
        return found

    async def put_rules(self) -> None:
        await self.plane.replace_rules(compile_ruleset(TABLE, OBSERVE, {}, 1))


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.kernel)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "fake":
        fake = FakeTables()
        yield World(fake, fake, lambda name, key, _, flows: assert_placed(fake.count(name, key, flows)))
        return
    with fresh_namespace() as namespace, kernel_tables(namespace, tmp_path) as tables:
        with namespace.entered():
            reader = CountReader.open(TABLE)

        def count(name: str, _: bytes, words: str, flows: int) -> None:
            element = f"{words} counter packets {flows} bytes {flows * 60}"
            run_nft(namespace, f"add element inet {TABLE} {name} {{ {element} }}")

        yield World(tables, reader, count)
        reader.close()


def assert_placed(was_placed: bool) -> None:
    assert was_placed


ELEMENTS = {
    "prefix_flows4": (bytes((10, 0, 1, 0, 17, 0, 0, 0)) + bytes((0xCA, 0x6C, 0, 0)), "10.0.1.0 . udp . 51820"),
    "prefix_flows6": (
        bytes.fromhex("20010db8000c") + bytes(10) + bytes((50, 0, 0, 0)) + bytes(4),
        "2001:db8:c:: . esp . 0",
    ),
    "interface_flows": (b"ppp17".ljust(16, b"\0"), '"ppp17"'),
}


async def test_before_there_is_a_table_it_has_no_number_and_no_counts(world: World) -> None:
    assert await world.table.read_handle() == 0
    for name in COUNTED_SETS:
        assert await world.counts(name) == {}


async def test_another_table_has_another_number(world: World) -> None:
    await world.plane.commit(Transaction((CreateTable(),), "test"))
    first = await world.table.read_handle()
    assert first > 0
    await world.put_rules()
    assert await world.table.read_handle() == first
    await world.plane.delete_table()
    assert await world.table.read_handle() == 0
    await world.put_rules()
    assert await world.table.read_handle() not in (0, first)


@pytest.mark.parametrize("name", ELEMENTS)
async def test_an_element_has_its_flows_and_its_time(world: World, name: str) -> None:
    await world.put_rules()
    assert await world.counts(name) == {}
    key, words = ELEMENTS[name]
    world.count(name, key, words, 7)
    ((found, (flows, left_s)),) = (await world.counts(name)).items()
    assert (found, flows) == (key, 7)
    assert 0 < left_s <= COUNTED_TIMEOUT_S


async def test_counts_outlive_the_rules(world: World) -> None:
    await world.put_rules()
    key, words = ELEMENTS["prefix_flows4"]
    world.count("prefix_flows4", key, words, 9)
    await world.plane.replace_rules(compile_ruleset(TABLE, OBSERVE, {}, 2))
    assert [flows for flows, _ in (await world.counts("prefix_flows4")).values()] == [9]


async def test_many_elements_come_in_pieces(world: World) -> None:
    await world.put_rules()
    numbers = range(2000)
    for number in range(0, len(numbers), 100):
        keys = [(each >> 8, each & 255) for each in numbers[number : number + 100]]
        packed = [bytes((10, high, low, 0, 6, 0, 0, 0, 0, 80, 0, 0)) for high, low in keys]
        if isinstance(world.plane, FakeTables):
            for key in packed:
                world.count("prefix_flows4", key, "", 3)
        else:
            words = ", ".join(f"10.{high}.{low}.0 . tcp . 80 counter packets 3 bytes 9" for high, low in keys)
            world.count("prefix_flows4", b"", words.removesuffix(" counter packets 3 bytes 9"), 3)
    found = await world.counts("prefix_flows4")
    assert len(found) == len(numbers)
    assert {flows for flows, _ in found.values()} == {3}
