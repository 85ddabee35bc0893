"""What lets a flow pass, asked of the fake and of the kernel: each test runs against both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gatewayd.assertions.lookups import Element, RulesReading
from gatewayd.compile.ruleset import compile_ruleset, parse_tag
from gatewayd.errors import OperationRefused
from gatewayd.kernel.fake import FakeTables
from gatewayd.kernel.passage import REQUESTS_PER_SEND, KernelPassage
from gatewayd.model.mask import Mask, set_name
from gatewayd.model.transaction import AddElements, CreateSet, CreateTable, RemoveElements, Transaction
from tests.support.planes import TABLE, fresh_namespace, kernel_tables, run_nft
from tests.support.reconciling import OBSERVE

HOSTS, PAIRS, PORTS, BOUND = (
    Mask(4, 32),
    Mask(6, 48, 64, "ipsec"),
    Mask(4, 24, selector="port16"),
    Mask(4, 32, source_bits=4),
)
MASKS = (HOSTS, PAIRS, PORTS, BOUND)


class World(NamedTuple):
    plane: Any
    passage: Any


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.kernel)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "fake":
        fake = FakeTables()
        yield World(fake, fake)
        return
    with fresh_namespace() as namespace, kernel_tables(namespace, tmp_path) as tables:
        with namespace.entered():
            passage = KernelPassage.open(TABLE)
        yield World(tables, passage)
        passage.close()


def keys_of(mask: Mask, count: int) -> list[bytes]:
    """Such as an element of it may have."""
    made = []
    for number in range(count):
        key = bytearray(mask.key_length)
        key[2:4] = number.to_bytes(2, "big")
        made.append(bytes(key))
    return made


async def fill(world: World, count: int) -> list[Element]:
    names = {mask: set_name(mask, 0) for mask in MASKS}
    sets = [CreateSet(name, mask, 4096, 600 if mask.is_bound else 0) for mask, name in names.items()]
    adds = [AddElements(name, keys_of(mask, count)) for mask, name in names.items()]
    await world.plane.commit(Transaction((CreateTable(), *sets, *adds), "test"))
    await world.plane.replace_rules(compile_ruleset(TABLE, OBSERVE, {mask: names[mask] for mask in MASKS[:3]}, 5))
    return [(name, key) for mask, name in names.items() for key in keys_of(mask, count)]


def test_without_a_table_nothing_is_found_and_nothing_is_looked_into(world: World) -> None:
    async def scenario() -> None:
        assert await world.passage.read_rules() == RulesReading()
        assert await world.passage.find_elements([("c4_32", bytes(4))]) == frozenset()

    asyncio.run(scenario())


def test_rules_have_their_tag_and_the_sets_they_look_into(world: World) -> None:
    async def scenario() -> None:
        await fill(world, 1)
        reading = await world.passage.read_rules()
        wanted = compile_ruleset(TABLE, OBSERVE, {mask: set_name(mask, 0) for mask in MASKS[:3]}, 5)
        assert reading == RulesReading(parse_tag(wanted.tag), wanted.set_names)
        assert await world.passage.read_rules() == reading
        without = compile_ruleset(TABLE, OBSERVE, {HOSTS: set_name(HOSTS, 0)}, 6)
        await world.plane.replace_rules(without)
        assert await world.passage.read_rules() == RulesReading(parse_tag(without.tag), frozenset({"c4_32"}))

    asyncio.run(scenario())


def test_each_element_is_found_that_is_there_and_no_other(world: World) -> None:
    async def scenario() -> None:
        there = await fill(world, REQUESTS_PER_SEND)
        absent = [(name, bytes(len(key) - 1) + b"\xff") for name, key in there[::7]]
        absent.append(("c4_31", bytes(4)))
        asked = [each for pair in zip(there, [*absent, *there], strict=False) for each in pair]
        assert await world.passage.find_elements(asked) == set(there)
        name, key = there[0]
        await world.plane.commit(Transaction((RemoveElements(name, [key]),), "test"))
        assert await world.passage.find_elements(there) == set(there[1:])
        assert await world.passage.find_elements([]) == frozenset()

    asyncio.run(scenario())


def test_a_key_of_another_length_is_refused(world: World) -> None:
    async def scenario() -> None:
        await fill(world, 1)
        with pytest.raises(OperationRefused, match="look up an element of c4_32"):
            await world.passage.find_elements([("c4_32", bytes(8))])

    asyncio.run(scenario())


@pytest.mark.kernel
def test_another_program_that_empties_the_table_is_seen(tmp_path: Path) -> None:
    async def scenario(world: World, flush: Any) -> None:
        there = await fill(world, 3)
        assert (await world.passage.read_rules()).tag is not None
        flush()
        assert await world.passage.read_rules() == RulesReading()
        assert await world.passage.find_elements(there) == frozenset(there)

    with fresh_namespace() as namespace, kernel_tables(namespace, tmp_path) as tables:
        with namespace.entered():
            passage = KernelPassage.open(TABLE)
        asyncio.run(scenario(World(tables, passage), lambda: run_nft(namespace, f"flush table inet {TABLE}")))
        passage.close()


@pytest.mark.kernel
def test_another_program_that_holds_nf_tables_keeps_no_answer_back(tmp_path: Path) -> None:
    """Its transaction takes a second or more; it is asked all the while."""
    prefixes = ", ".join(f"10.{number >> 8}.{number & 255}.0/25" for number in range(20_000))
    script = (
        f"add table inet big\nadd set inet big s {{ type ipv4_addr; flags interval; elements = {{ {prefixes} }}; }}"
    )

    async def scenario(world: World, load: Any) -> None:
        there = await fill(world, 3)
        loading = asyncio.ensure_future(asyncio.to_thread(load))
        answers = 0
        while not loading.done():
            assert (await world.passage.read_rules()).tag is not None
            assert await world.passage.find_elements(there) == frozenset(there)
            answers += 1
            await asyncio.sleep(0.01)
        await loading
        assert answers > 1

    with fresh_namespace() as namespace, kernel_tables(namespace, tmp_path) as tables:
        with namespace.entered():
            passage = KernelPassage.open(TABLE)
        asyncio.run(scenario(World(tables, passage), lambda: run_nft(namespace, script)))
        passage.close()
