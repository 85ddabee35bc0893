"""What the reconciler may rely on, of the fake and of the kernel alike: each test runs against both.

`EXPECTED` is a table of every operation in every state; a test checks that none is left out.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from gatewayd.compile.rule_sets import RULE_SETS, rule_sets_of
from gatewayd.compile.ruleset import COUNTERS, compile_ruleset, policy_digest
from gatewayd.errors import DumpInterrupted, KernelError, OperationRefused, RulesetRefused
from gatewayd.kernel.fake import FakeSet, FakeTables
from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.namespace import Namespace
from gatewayd.model.mask import Mask
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.service import UDP, Service
from gatewayd.model.transaction import (
    AddElements,
    CounterReading,
    CreateSet,
    CreateTable,
    DeleteSet,
    ElementChange,
    ExternalChanges,
    ExternalCommit,
    ObservedSet,
    Operation,
    RefreshElements,
    RemoveElements,
    Ruleset,
    RulesTag,
    TableReading,
    Transaction,
)
from gatewayd.reconcile.dataplane import Dataplane
from tests.support.planes import TABLE, fresh_namespace, kernel_tables, run_nft

HOSTS = Mask(4, 32)
NAME = str(HOSTS)
ROOM = 4
"""Capacity of the set under test."""
KEY, OTHER = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
FILLERS = [bytes((10, 1, 0, number)) for number in range(ROOM)]
BOUND = Mask(4, 32, source_bits=0)
BOUND_NAME = str(BOUND)
PATIENCE = 600
"""Looks at what must come true, a twentieth of a second apart."""
LONG_S, SHORT_S = 7200, 2
"""Timeouts: one that no test lives to see, and one that it waits for."""
POLICY = Policy("observe", (Service(UDP, 51820, 51820), Service(50)), MarkLayout(0xFF000000), inside=("in0", "in1"))


@dataclass
class World:
    """A dataplane and ways of tampering with what is behind it."""

    plane: Any
    tells_counts: bool
    add_external_set: Callable[[str], None]
    add_external_rule: Callable[[], None]
    remove_behind: Callable[[str, bytes], None]
    swap_behind: Callable[[str, bytes, bytes], None]
    touch_another_table: Callable[[], None]
    pass_time: Callable[[float], Awaitable[None]]
    """Let so many seconds go by, of the clock by which elements go."""
    clock: Callable[[], float]

    async def commit(self, *operations: Operation) -> None:
        await self.plane.commit(Transaction(operations, "test"))

    async def keys(self, name: str = NAME) -> list[bytes]:
        """As a dump that was not interrupted has them: one of bindings is, while their table is rebuilt."""
        for _ in range(PATIENCE):
            with suppress(DumpInterrupted):
                return sorted([key async for piece in self.plane.read_elements(name) for key in piece])
            await self.pass_time(0.05)
        raise AssertionError("every dump was interrupted")


def fake_world(tells_counts: bool) -> World:
    now = 1000.0
    fake = FakeTables(tells_counts=tells_counts, monotonic=lambda: now)

    async def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    def table() -> Any:
        assert fake.table is not None
        return fake.table

    def add_rule() -> None:
        table().rules += "# an external rule"

    def swap(name: str, old: bytes, new: bytes) -> None:
        table().sets[name].keys.remove(old)
        table().sets[name].keys.add(new)

    return World(
        fake,
        tells_counts,
        lambda name: fake.tamper(lambda: table().sets.update({name: FakeSet(None, 4, 0)})),
        lambda: fake.tamper(add_rule),
        lambda name, key: fake.tamper(lambda: table().sets[name].keys.remove(key)),
        lambda name, old, new: fake.tamper(lambda: swap(name, old, new)),
        lambda: fake.tamper(lambda: None),
        pass_time,
        lambda: now,
    )


def dotted(key: bytes) -> str:
    return ".".join(str(octet) for octet in key)


def kernel_world(namespace: Namespace, tables: KernelTables) -> World:
    release = tuple(int("".join(filter(str.isdigit, part)) or 0) for part in os.uname().release.split(".")[:2])
    return World(
        tables,
        release >= (6, 17),
        lambda name: run_nft(namespace, f"add set inet {TABLE} {name} {{ type ipv4_addr; flags timeout; }}"),
        lambda: run_nft(namespace, f"add rule inet {TABLE} forward counter"),
        lambda name, key: run_nft(namespace, f"delete element inet {TABLE} {name} {{ {dotted(key)} }}"),
        lambda name, old, new: run_nft(
            namespace,
            f"delete element inet {TABLE} {name} {{ {dotted(old)} }}\n"
            f"add element inet {TABLE} {name} {{ {dotted(new)} }}",
        ),
        lambda: run_nft(namespace, "add table inet other"),
        asyncio.sleep,
        time.monotonic,
    )


@pytest.fixture(params=["fake", "fake-without-counts", pytest.param("kernel", marks=pytest.mark.kernel)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param != "kernel":
        yield fake_world(request.param == "fake")
        return
    with fresh_namespace() as namespace, kernel_tables(namespace, tmp_path) as tables:
        yield kernel_world(namespace, tables)


def ruleset(*names: str, policy: Policy = POLICY, epoch: int = 1) -> Ruleset:
    hooks = {HOSTS if name == NAME else Mask(6, 64): name for name in names}
    return compile_ruleset(TABLE, policy, hooks, epoch)


async def snapshot(world: World) -> tuple[TableReading, dict[str, list[bytes]], dict[str, CounterReading]]:
    """All that can be read."""
    reading = await world.plane.read_table()
    keys = {item.name: await world.keys(item.name) for item in reading.sets}
    return reading, keys, await world.plane.read_counters()


# -- every operation in every state ------------------------------------------------------------------------


async def no_table(world: World) -> None:
    pass


async def no_set(world: World) -> None:
    await world.commit(CreateTable())


async def set_empty(world: World) -> None:
    await world.commit(CreateTable(), CreateSet(NAME, HOSTS, ROOM))


async def element_there(world: World) -> None:
    await set_empty(world)
    await world.commit(AddElements(NAME, [KEY]))


async def element_not_there(world: World) -> None:
    await set_empty(world)
    await world.commit(AddElements(NAME, [OTHER]))


async def set_full(world: World) -> None:
    await set_empty(world)
    await world.commit(AddElements(NAME, FILLERS))


async def set_full_element_there(world: World) -> None:
    await set_empty(world)
    await world.commit(AddElements(NAME, [KEY, *FILLERS[1:]]))


async def set_used_by_rules(world: World) -> None:
    await element_there(world)
    await world.plane.replace_rules(ruleset(NAME))


async def set_foreign(world: World) -> None:
    await no_set(world)
    world.add_external_set(NAME)


STATES = {
    state.__name__: state
    for state in (
        no_table,
        no_set,
        set_empty,
        element_there,
        element_not_there,
        set_full,
        set_full_element_there,
        set_used_by_rules,
        set_foreign,
    )
}


def doing(*operations: Operation) -> Callable[[World], Awaitable[object]]:
    return lambda world: world.commit(*operations)


OPERATIONS: dict[str, Callable[[World], Awaitable[object]]] = {
    "create table": doing(CreateTable()),
    "create set": doing(CreateSet(NAME, HOSTS, ROOM)),
    "delete set": doing(DeleteSet(NAME)),
    "add": doing(AddElements(NAME, [KEY])),
    "add, wrong key length": doing(AddElements(NAME, [bytes(8)])),
    "add one twice": doing(AddElements(NAME, [KEY, KEY])),
    "add none": doing(AddElements(NAME, [])),
    "remove": doing(RemoveElements(NAME, [KEY])),
    "remove, wrong key length": doing(RemoveElements(NAME, [bytes(8)])),
    "remove one twice": doing(RemoveElements(NAME, [KEY, KEY])),
    "remove none": doing(RemoveElements(NAME, [])),
    "refresh": doing(RefreshElements(NAME, [KEY])),
    "refresh, wrong key length": doing(RefreshElements(NAME, [bytes(8)])),
    "refresh one twice": doing(RefreshElements(NAME, [KEY, KEY])),
    "refresh none": doing(RefreshElements(NAME, [])),
    "nothing": doing(),
    "replace rules": lambda world: world.plane.replace_rules(ruleset(NAME)),
    "replace rules without sets": lambda world: world.plane.replace_rules(ruleset()),
    "delete table": lambda world: world.plane.delete_table(),
}

OK, CHANGE, SAME = "nothing done", "change", "replaced by the same"
"""Nothing is different afterwards and the generation stays; something is and it rises by one; it only rises."""
NO_SUCH, IN_USE, EXISTS, FULL, INVALID = errno.ENOENT, errno.EBUSY, errno.EEXIST, errno.ENFILE, errno.EINVAL
REFUSED = RulesetRefused

EXPECTED: dict[str, dict[str, object]] = {
    "create table": {**dict.fromkeys(STATES, OK), "no_table": CHANGE},
    "create set": {**dict.fromkeys(STATES, EXISTS), "no_table": NO_SUCH, "no_set": CHANGE},
    "delete set": {
        **dict.fromkeys(STATES, CHANGE),
        "no_table": NO_SUCH,
        "no_set": NO_SUCH,
        "set_used_by_rules": IN_USE,
    },
    "add": {
        **dict.fromkeys(STATES, CHANGE),
        "no_table": NO_SUCH,
        "no_set": NO_SUCH,
        "element_there": OK,
        "set_used_by_rules": OK,
        "set_full": FULL,
        "set_full_element_there": OK,
    },
    "add, wrong key length": {**dict.fromkeys(STATES, INVALID), "no_table": NO_SUCH, "no_set": NO_SUCH},
    "add one twice": {
        **dict.fromkeys(STATES, CHANGE),
        "no_table": NO_SUCH,
        "no_set": NO_SUCH,
        "element_there": OK,
        "set_used_by_rules": OK,
        "set_full": FULL,
        "set_full_element_there": OK,
    },
    "add none": dict.fromkeys(STATES, OK),
    "remove": {
        **dict.fromkeys(STATES, NO_SUCH),
        "element_there": CHANGE,
        "set_full_element_there": CHANGE,
        "set_used_by_rules": CHANGE,
    },
    "remove, wrong key length": {**dict.fromkeys(STATES, INVALID), "no_table": NO_SUCH, "no_set": NO_SUCH},
    "remove one twice": dict.fromkeys(STATES, NO_SUCH),
    "remove none": dict.fromkeys(STATES, OK),
    "refresh": {
        **dict.fromkeys(STATES, CHANGE),
        "no_table": NO_SUCH,
        "no_set": NO_SUCH,
        "element_there": SAME,
        "set_used_by_rules": SAME,
        "set_full": FULL,
        "set_full_element_there": SAME,
    },
    "refresh, wrong key length": {**dict.fromkeys(STATES, INVALID), "no_table": NO_SUCH, "no_set": NO_SUCH},
    "refresh one twice": {**dict.fromkeys(STATES, NO_SUCH), "set_full": FULL},
    "refresh none": dict.fromkeys(STATES, OK),
    "nothing": dict.fromkeys(STATES, OK),
    "replace rules": {
        **dict.fromkeys(STATES, CHANGE),
        "no_table": REFUSED,
        "no_set": REFUSED,
        "set_used_by_rules": SAME,
    },
    "replace rules without sets": dict.fromkeys(STATES, CHANGE),
    "delete table": {**dict.fromkeys(STATES, CHANGE), "no_table": OK},
}


def test_the_table_of_cases_is_complete() -> None:
    assert set(EXPECTED) == set(OPERATIONS)
    assert {operation: set(row) for operation, row in EXPECTED.items()} == {
        operation: set(STATES) for operation in OPERATIONS
    }
    covered = {"CreateTable", "CreateSet", "DeleteSet", "AddElements", "RemoveElements", "RefreshElements"}
    assert {each.__name__ for each in Operation.__args__} == covered
    writes = {name for name in vars(Dataplane) if not name.startswith(("_", "read"))}
    writes -= {"watch", "unwatch", "take_changes"}
    assert writes == {"commit", "replace_rules", "delete_table"}


@pytest.mark.parametrize(("operation", "state"), list(product(OPERATIONS, STATES)))
async def test_every_operation_in_every_state(world: World, operation: str, state: str) -> None:
    await STATES[state](world)
    before = await snapshot(world)
    expected = EXPECTED[operation][state]
    if expected in (OK, CHANGE, SAME):
        await OPERATIONS[operation](world)
        after = await snapshot(world)
        assert after[0].generation - before[0].generation == (expected != OK)
        difference = (replace(after[0], generation=0), *after[1:]) != (
            replace(before[0], generation=0),
            *before[1:],
        )
        assert difference == (expected == CHANGE)
        return
    with pytest.raises(KernelError) as caught:
        await OPERATIONS[operation](world)
    if expected is REFUSED:
        assert isinstance(caught.value, RulesetRefused)
        assert NAME in caught.value.stderr or "No such file" in caught.value.stderr
    else:
        assert isinstance(caught.value, OperationRefused)
        assert caught.value.errno == expected
        assert caught.value.operation.startswith(operation.partition(",")[0].split()[0])
        assert caught.value.operation.endswith(NAME)
    assert await snapshot(world) == before


# -- atomicity ---------------------------------------------------------------------------------------------


REFUSED_LAST: dict[str, Operation] = {
    "create set": CreateSet(NAME, HOSTS, ROOM),
    "delete set": DeleteSet("c6_64"),
    "delete a set in use": DeleteSet(NAME),
    "add to no set": AddElements("c6_64", [bytes(16)]),
    "add past the capacity": AddElements(NAME, FILLERS),
    "add a wrong length": AddElements(NAME, [bytes(8)]),
    "remove what is not there": RemoveElements(NAME, [bytes(4)]),
    "refresh a wrong length": RefreshElements(NAME, [bytes(8)]),
    "refresh one twice": RefreshElements(NAME, [KEY, KEY]),
    "refresh past the capacity": RefreshElements(NAME, FILLERS),
}


@pytest.mark.parametrize("refused", REFUSED_LAST)
async def test_a_transaction_whose_last_operation_is_refused_changes_nothing(world: World, refused: str) -> None:
    await set_used_by_rules(world)
    before = await snapshot(world)
    with pytest.raises(OperationRefused):
        await world.commit(
            CreateTable(),
            CreateSet("c4_24", Mask(4, 24), 8),
            AddElements("c4_24", [bytes((10, 0, 0, 0))]),
            AddElements(NAME, [OTHER]),
            RemoveElements(NAME, [KEY]),
            CreateSet(BOUND_NAME, BOUND, 0, LONG_S),
            RefreshElements(BOUND_NAME, [KEY, OTHER]),
            REFUSED_LAST[refused],
        )
    assert await snapshot(world) == before


async def test_a_refused_operation_in_the_middle_is_the_one_that_is_named(world: World) -> None:
    await set_empty(world)
    with pytest.raises(OperationRefused) as caught:
        await world.commit(
            AddElements(NAME, [KEY]), RemoveElements("c4_7", [KEY]), CreateSet("c4_9", Mask(4, 9), 8)
        )
    assert (caught.value.operation, caught.value.errno) == ("remove elements from c4_7", errno.ENOENT)
    assert isinstance(caught.value, KernelError)


@pytest.mark.parametrize("position", [0, 1, 4094, 4095, 5999])
async def test_the_element_that_was_refused_is_named(world: World, position: int) -> None:
    """Also where it is one of many, and in the second message of an operation."""
    keys = [bytes((10, 1, number >> 8, number & 255)) for number in range(6000)]
    await world.commit(CreateTable(), CreateSet(NAME, HOSTS, 8192))
    await world.commit(AddElements(NAME, [key for number, key in enumerate(keys) if number != position]))
    with pytest.raises(OperationRefused) as caught:
        await world.commit(RemoveElements(NAME, keys))
    assert f"10.1.{position >> 8}.{position & 255}" in str(caught.value)
    assert caught.value.operation == f"remove elements from {NAME}"


async def test_a_dataplane_works_on_after_a_refusal(world: World) -> None:
    await set_empty(world)
    for _ in range(3):
        with pytest.raises(OperationRefused):
            await world.commit(*(DeleteSet(f"c4_{length}") for length in range(8, 20)))
    await world.commit(AddElements(NAME, [KEY]))
    assert await world.keys() == [KEY]


async def test_refused_rules_change_nothing(world: World) -> None:
    await set_used_by_rules(world)
    before = await snapshot(world)
    with pytest.raises(RulesetRefused):
        await world.plane.replace_rules(ruleset(NAME, "c6_64", epoch=2))
    assert await snapshot(world) == before


async def test_a_transaction_of_many_operations_is_one_generation(world: World) -> None:
    before = await world.plane.read_generation()
    await world.commit(
        CreateTable(),
        CreateSet(NAME, HOSTS, 1024),
        AddElements(NAME, FILLERS),
        RemoveElements(NAME, FILLERS[:1]),
        CreateSet("c6_64", Mask(6, 64), 8),
        DeleteSet("c6_64"),
    )
    reading = await world.plane.read_table()
    assert reading.generation == before + 1 == await world.plane.read_generation()
    assert [item.name for item in reading.sets] == [NAME]
    assert await world.keys() == FILLERS[1:]


async def test_room_made_in_a_transaction_is_room_in_it(world: World) -> None:
    await set_full(world)
    await world.commit(RemoveElements(NAME, FILLERS[:1]), AddElements(NAME, [KEY]))
    assert await world.keys() == sorted([KEY, *FILLERS[1:]])


async def test_a_removed_element_may_come_back_in_the_same_transaction(world: World) -> None:
    await element_there(world)
    await world.commit(RemoveElements(NAME, [KEY]), AddElements(NAME, [KEY, OTHER]))
    assert await world.keys() == [KEY, OTHER]


# -- readings ----------------------------------------------------------------------------------------------


async def test_no_table_is_a_reading_too(world: World) -> None:
    reading = await world.plane.read_table()
    assert reading == TableReading(False, generation=await world.plane.read_generation())
    assert await world.plane.read_counters() == {}
    with pytest.raises(OperationRefused) as caught:
        await world.keys()
    assert (caught.value.operation, caught.value.errno) == (f"list elements of {NAME}", errno.ENOENT)


async def test_a_table_without_rules_has_no_fingerprint_and_no_tag(world: World) -> None:
    await set_empty(world)
    reading = await world.plane.read_table()
    assert (reading.present, reading.rules, reading.tag) == (True, "", None)
    assert await world.plane.read_counters() == {}


MASKS = (
    Mask(4, 8), Mask(4, 32, 32), Mask(4, 24, selector="proto"), Mask(4, 29, 16, "port7"), Mask(6, 16),
    Mask(6, 48, 128, "port16"), Mask(6, 128, selector="ipsec"), Mask(4, 30, selector="wireguard"), BOUND,
    Mask(6, 56, 48, "ipsec", 0), Mask(4, 32, source_bits=9), Mask(4, 32, 32, "proto", 1),
    Mask(6, 128, 128, "port7", 16),
)  # fmt: skip


async def test_sets_are_read_back_as_they_were_made(world: World) -> None:
    operations: list[Operation] = [CreateTable()]
    timeouts = [LONG_S + count if mask.is_bound else 0 for count, mask in enumerate(MASKS)]
    for count, (mask, timeout_s) in enumerate(zip(MASKS, timeouts, strict=True)):
        operations.append(CreateSet(f"{mask}", mask, 1 << (4 + count), timeout_s))
        if count:
            keys = [bytes((number,)) * mask.key_length for number in range(count)]
            operations.append(AddElements(f"{mask}", keys))
    await world.commit(*operations)
    reading = await world.plane.read_table()
    assert sorted(reading.sets, key=lambda item: item.name) == sorted(
        (
            ObservedSet(
                f"{mask}",
                mask.key_length,
                1 << (4 + count),
                True,
                count if world.tells_counts else None,
                timeouts[count],
            )
            for count, mask in enumerate(MASKS)
        ),
        key=lambda item: item.name,
    )
    for count, mask in enumerate(MASKS):
        assert await world.keys(f"{mask}") == [bytes((number,)) * mask.key_length for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 4094, 4095, 4096, 4097, 20_000])
async def test_elements_come_back_whatever_their_number(world: World, count: int) -> None:
    keys = [number.to_bytes(4, "big") for number in range(1, count + 1)]
    await world.commit(CreateTable(), CreateSet(NAME, HOSTS, 1 << 16), AddElements(NAME, keys))
    assert await world.keys() == keys
    (found,) = (await world.plane.read_table()).sets
    assert found.count == (count if world.tells_counts else None)
    await world.commit(RemoveElements(NAME, keys[::2]))
    assert await world.keys() == keys[1::2]


async def test_a_external_set_is_seen_and_is_not_regular(world: World) -> None:
    await element_there(world)
    for name in ("c4_24", "guests"):
        world.add_external_set(name)
    found = {item.name: item.regular for item in (await world.plane.read_table()).sets}
    assert found == {NAME: True, "c4_24": False, "guests": False}
    await world.commit(DeleteSet("c4_24"), DeleteSet("guests"))
    assert [item.name for item in (await world.plane.read_table()).sets] == [NAME]


async def test_another_programs_change_raises_the_generation(world: World) -> None:
    await element_there(world)
    before = (await world.plane.read_table()).generation
    world.remove_behind(NAME, KEY)
    assert await world.plane.read_generation() == before + 1
    assert await world.keys() == []


# -- elements that go by themselves ------------------------------------------------------------------------


async def bound_set(world: World, timeout_s: int, *keys: bytes) -> None:
    create = CreateSet(BOUND_NAME, BOUND, 0, timeout_s)
    await world.commit(CreateTable(), create, *([AddElements(BOUND_NAME, keys)] if keys else []))


async def until(world: World, is_so: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(PATIENCE):
        if await is_so():
            return
        await world.pass_time(0.05)
    raise AssertionError("it did not come true")


async def is_gone(world: World, key: bytes) -> bool:
    return key not in await world.keys(BOUND_NAME)


async def test_an_element_goes_after_the_timeout_of_its_set_and_nobody_is_told(
    world: World, notifications: asyncio.Event
) -> None:
    await set_used_by_rules(world)
    await bound_set(world, SHORT_S, KEY, OTHER)
    world.plane.watch(notifications.set)
    before = await world.plane.read_generation()
    assert await world.keys(BOUND_NAME) == [KEY, OTHER]

    async def are_gone() -> bool:
        return await world.keys(BOUND_NAME) == []

    await until(world, are_gone)
    assert await world.keys() == [KEY], "those of sets without a timeout stay"
    assert await world.plane.read_generation() == before
    assert world.plane.take_changes() == ExternalChanges()


async def test_a_set_is_counted_without_what_went_in_the_end(world: World) -> None:
    """The kernel counts an element until it is collected, some time after it went."""
    await bound_set(world, SHORT_S, KEY, OTHER)

    async def says_so() -> bool:
        (found,) = (await world.plane.read_table()).sets
        assert found.timeout_s == SHORT_S
        if not world.tells_counts:
            assert found.count is None
            return await world.keys(BOUND_NAME) == []
        assert found.count in (0, 2)
        return bool(found.count == 0)

    await until(world, says_so)


async def test_a_refreshed_element_outlives_one_that_was_not(world: World) -> None:
    """A look that came too late to say anything is no look; the test then begins anew."""
    for _ in range(10):
        await bound_set(world, SHORT_S, KEY, OTHER)
        is_late = outlived = False
        while not (is_late or outlived):
            await world.commit(RefreshElements(BOUND_NAME, [KEY]))
            await world.pass_time(0.05)
            keys, refreshed_at = await world.keys(BOUND_NAME), world.clock()
            await world.commit(RefreshElements(BOUND_NAME, [KEY]))
            is_late = world.clock() - refreshed_at > SHORT_S / 2
            assert is_late or KEY in keys
            outlived = OTHER not in keys
        if not is_late:
            return
        await world.plane.delete_table()
    raise AssertionError("this machine never came to look in time")


async def test_to_add_an_element_again_leaves_it_the_time_that_it_had(world: World) -> None:
    """Added again and again it goes nevertheless: then, and not before, adding it is a change."""
    await bound_set(world, SHORT_S, KEY)
    before = await world.plane.read_generation()

    async def was_added() -> bool:
        await world.commit(AddElements(BOUND_NAME, [KEY]))
        return bool(await world.plane.read_generation() > before)

    await until(world, was_added)
    assert await world.keys(BOUND_NAME) == [KEY]


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_refresh_adds_what_is_absent_and_is_always_a_change(world: World, is_there: bool) -> None:
    await bound_set(world, LONG_S, *([KEY] if is_there else []))
    before = await world.plane.read_generation()
    await world.commit(RefreshElements(BOUND_NAME, [KEY]))
    assert await world.keys(BOUND_NAME) == [KEY]
    assert await world.plane.read_generation() == before + 1


async def test_a_refresh_adds_what_went_by_itself(world: World) -> None:
    await bound_set(world, SHORT_S, KEY)
    await until(world, lambda: is_gone(world, KEY))
    await world.commit(CreateSet("b4_24", Mask(4, 24, source_bits=0), 0, LONG_S))
    await world.commit(RefreshElements(BOUND_NAME, [KEY]), RefreshElements("b4_24", [KEY]))
    assert await world.keys("b4_24") == [KEY]
    before = await world.plane.read_generation()
    await world.commit(RefreshElements(BOUND_NAME, [KEY]))
    assert await world.plane.read_generation() == before + 1


async def test_what_went_by_itself_may_be_removed_from_a_set_of_bindings(world: World) -> None:
    await bound_set(world, SHORT_S, KEY)
    await until(world, lambda: is_gone(world, KEY))
    before = await world.plane.read_generation()
    await world.commit(RemoveElements(BOUND_NAME, [KEY]))
    assert await world.keys(BOUND_NAME) == []
    assert await world.plane.read_generation() == before + 1


async def test_what_never_was_there_may_be_removed_from_a_set_of_bindings_and_from_no_other(world: World) -> None:
    await set_empty(world)
    await bound_set(world, LONG_S, OTHER)
    await world.commit(RemoveElements(BOUND_NAME, [KEY, OTHER]))
    assert await world.keys(BOUND_NAME) == []
    with pytest.raises(OperationRefused) as caught:
        await world.commit(RemoveElements(BOUND_NAME, [KEY]), RemoveElements(NAME, [KEY]))
    assert (caught.value.operation, caught.value.errno) == (f"remove elements from {NAME}", errno.ENOENT)


@pytest.mark.parametrize("operation", [RefreshElements, RemoveElements])
async def test_a_key_of_bindings_that_comes_twice_is_refused_and_named(world: World, operation: Any) -> None:
    await bound_set(world, LONG_S, KEY)
    with pytest.raises(OperationRefused) as caught:
        await world.commit(operation(BOUND_NAME, [OTHER, KEY, OTHER]))
    assert caught.value.errno == errno.ENOENT
    assert dotted(OTHER) in str(caught.value)
    assert await world.keys(BOUND_NAME) == [KEY]


async def test_a_name_of_bindings_says_nothing_of_a_timeout_and_none_is_not_ours(world: World) -> None:
    await world.commit(
        CreateTable(), CreateSet(BOUND_NAME, BOUND, 0), CreateSet(NAME, HOSTS, ROOM, LONG_S)
    )  # fmt: skip
    found = {item.name: (item.regular, item.timeout_s) for item in (await world.plane.read_table()).sets}
    assert found == {BOUND_NAME: (False, 0), NAME: (False, LONG_S)}
    await world.commit(RemoveElements(BOUND_NAME, [KEY]))
    with pytest.raises(OperationRefused):
        await world.commit(RemoveElements(NAME, [KEY]))


@pytest.mark.parametrize("count", [1, 4094, 4095, 4096, 9000])
async def test_many_elements_of_bindings_come_are_refreshed_and_go(world: World, count: int) -> None:
    """Also where each pass over them takes several messages."""
    keys = [number.to_bytes(4, "big") for number in range(1, count + 1)]
    await bound_set(world, LONG_S, *keys[::2])
    await world.commit(RefreshElements(BOUND_NAME, keys))
    assert await world.keys(BOUND_NAME) == keys
    await world.commit(RefreshElements(BOUND_NAME, keys[::-1]))
    assert await world.keys(BOUND_NAME) == keys
    await world.commit(RemoveElements(BOUND_NAME, keys[::2]))
    assert await world.keys(BOUND_NAME) == keys[1::2]


async def test_a_dump_of_bindings_that_are_being_refreshed_is_right_or_it_is_interrupted(world: World) -> None:
    """The kernel's table for them is rebuilt as it grows; a piece of a dump then begins in another order."""
    keys = [number.to_bytes(4, "big") for number in range(1, 9001)]
    await bound_set(world, LONG_S)
    for count in range(500, 9001, 500):
        await world.commit(RefreshElements(BOUND_NAME, keys[:count]))
        with suppress(DumpInterrupted):
            found = [key async for piece in world.plane.read_elements(BOUND_NAME) for key in piece]
            assert sorted(found) == keys[:count]
    assert await world.keys(BOUND_NAME) == keys


async def test_sets_of_bindings_may_be_looked_into_and_refreshed_meanwhile(world: World) -> None:
    masks = [mask for mask in MASKS if mask.is_bound]
    keys = {mask: bytes((7,)) * mask.key_length for mask in masks}
    await world.commit(
        CreateTable(),
        *(CreateSet(str(mask), mask, 0, LONG_S) for mask in masks),
        *(AddElements(str(mask), [key]) for mask, key in keys.items()),
    )
    wanted = compile_ruleset(TABLE, POLICY, {mask: str(mask) for mask in masks}, 1)
    await world.plane.replace_rules(wanted)
    before = await world.plane.read_table()
    await world.commit(*(RefreshElements(str(mask), [key]) for mask, key in keys.items()))
    after = await world.plane.read_table()
    assert replace(after, generation=before.generation) == before
    with pytest.raises(OperationRefused) as caught:
        await world.commit(DeleteSet(str(masks[0])))
    assert caught.value.errno == errno.EBUSY


async def test_what_another_program_does_to_bindings_is_told_with_its_keys(
    world: World, notifications: asyncio.Event
) -> None:
    await bound_set(world, LONG_S, KEY)
    world.plane.watch(notifications.set)
    world.swap_behind(BOUND_NAME, KEY, OTHER)
    (commit,) = await hear(world, notifications)
    assert set(commit.elements) == {ElementChange(BOUND_NAME, KEY, False), ElementChange(BOUND_NAME, OTHER, True)}
    assert not commit.others


# -- rules -------------------------------------------------------------------------------------------------


async def test_the_tag_of_the_rules_is_read_back(world: World) -> None:
    await set_empty(world)
    for epoch, policy in ((3, POLICY), (4, replace(POLICY, mode="reject"))):
        wanted = ruleset(NAME, policy=policy, epoch=epoch)
        await world.plane.replace_rules(wanted)
        tag = (await world.plane.read_table()).tag
        assert tag == RulesTag(epoch, policy_digest(policy), wanted.tag.rpartition("=")[2], policy.mode)


@pytest.mark.parametrize("mode", ["observe", "mark", "limit", "reject"])
async def test_the_same_rules_have_the_same_fingerprint(world: World, mode: Any) -> None:
    await set_empty(world)
    policy = replace(POLICY, mode=mode, canary_percent=50, registered_dscp=10, unregistered_mark=7)
    await world.plane.replace_rules(ruleset(NAME, policy=policy))
    first = await world.plane.read_table()
    await world.commit(AddElements(NAME, [KEY]))
    await world.plane.replace_rules(ruleset(NAME, policy=policy))
    second = await world.plane.read_table()
    assert first.rules
    assert first.rules == second.rules
    assert first.tag == second.tag
    own = {each.name for each in rule_sets_of(policy)}
    assert {item.name for item in second.sets} == {NAME} | own
    await world.plane.replace_rules(ruleset(policy=policy))
    assert (await world.plane.read_table()).rules != first.rules


async def test_sets_that_the_rules_made_stay_when_the_rules_go(world: World) -> None:
    await set_empty(world)
    await world.plane.replace_rules(ruleset(NAME, policy=replace(POLICY, mode="limit")))
    limited = [item for item in (await world.plane.read_table()).sets if item.name in RULE_SETS]
    await world.plane.replace_rules(ruleset(NAME))
    assert [item for item in (await world.plane.read_table()).sets if item.name in RULE_SETS] == limited
    assert sorted((item.name, item.key_length, item.capacity, item.regular) for item in limited) == [
        ("followed4", 4, 65536, False),
        ("followed6", 16, 65536, False),
        ("interface_flows", 16, 65536, False),
        ("limiter4", 4, 131072, False),
        ("limiter6", 16, 131072, False),
        ("nearby4", 4, 65536, False),
        ("nearby6", 16, 65536, False),
        ("noted4", 4, 65536, False),
        ("noted6", 16, 65536, False),
        ("prefix_flows4", 12, 65536, False),
        ("prefix_flows6", 24, 65536, False),
        ("recent4", 20, 262144, False),
        ("recent6", 44, 262144, False),
        ("service_flows", 12, 65536, False),
        ("unfollowed", 4, 16, False),
    ]


async def test_an_external_rule_changes_the_fingerprint_and_goes_with_a_replacement(world: World) -> None:
    await set_used_by_rules(world)
    before = await world.plane.read_table()
    world.add_external_rule()
    tampered = await world.plane.read_table()
    assert tampered.rules != before.rules
    assert tampered.tag == before.tag
    await world.plane.replace_rules(ruleset(NAME))
    assert (await world.plane.read_table()).rules == before.rules


async def test_counters_are_read_by_name(world: World) -> None:
    await set_used_by_rules(world)
    assert await world.plane.read_counters() == dict.fromkeys(COUNTERS, CounterReading(0, 0))


async def test_a_set_is_free_to_go_once_no_rule_uses_it(world: World) -> None:
    await set_used_by_rules(world)
    await world.plane.replace_rules(ruleset())
    await world.commit(DeleteSet(NAME))
    own = {each.name for each in rule_sets_of(POLICY)}
    assert {each.name for each in (await world.plane.read_table()).sets} == own


async def test_delete_table_says_whether_there_was_one(world: World) -> None:
    assert await world.plane.delete_table() is False
    await set_used_by_rules(world)
    assert await world.plane.delete_table() is True
    assert await world.plane.delete_table() is False
    assert not (await world.plane.read_table()).present


# -- what others commit ------------------------------------------------------------------------------------


@pytest.fixture
def notifications(world: World) -> Iterator[asyncio.Event]:
    """Set when the dataplane says that there is something."""
    yield asyncio.Event()
    world.plane.unwatch()


async def hear(world: World, notifications: asyncio.Event, commits: int = 1) -> list[ExternalCommit]:
    """What others did, the callback having come before it was asked for."""
    heard: list[ExternalCommit] = []
    async with asyncio.timeout(30):
        while len(heard) < commits:
            await notifications.wait()
            notifications.clear()
            changes = world.plane.take_changes()
            assert not changes.lost
            heard += changes.commits
    return heard


async def test_a_swapped_element_is_told_with_its_keys_and_who_did_it(
    world: World, notifications: asyncio.Event
) -> None:
    await world.commit(CreateTable(), CreateSet(NAME, HOSTS, ROOM), AddElements(NAME, [KEY]))
    world.plane.watch(notifications.set)
    world.swap_behind(NAME, KEY, OTHER)
    (commit,) = await hear(world, notifications)
    assert set(commit.elements) == {ElementChange(NAME, KEY, False), ElementChange(NAME, OTHER, True)}
    assert (commit.others, commit.unlisted, commit.program) == (False, False, "nft")
    assert commit.pid > 0
    assert commit.generation == await world.plane.read_generation()


async def test_other_changes_of_our_table_are_told_as_such(world: World, notifications: asyncio.Event) -> None:
    await set_used_by_rules(world)
    world.plane.watch(notifications.set)
    world.add_external_set("guests")
    world.add_external_rule()
    assert [commit.others for commit in await hear(world, notifications, 2)] == [True, True]


async def test_a_commit_in_another_table_is_told_as_no_more_than_that(
    world: World, notifications: asyncio.Event
) -> None:
    await set_used_by_rules(world)
    world.plane.watch(notifications.set)
    world.touch_another_table()
    (commit,) = await hear(world, notifications)
    assert (commit.elements, commit.others) == ((), False)
    assert commit.generation == await world.plane.read_generation()


async def test_what_we_commit_is_never_told(world: World, notifications: asyncio.Event) -> None:
    await world.commit(CreateTable(), CreateSet(NAME, HOSTS, 1 << 10))
    world.plane.watch(notifications.set)
    await world.commit(AddElements(NAME, [KEY]))
    await world.commit(AddElements(NAME, [bytes((10, 2, number, 0)) for number in range(200)]))
    await world.commit(CreateSet(BOUND_NAME, BOUND, 0, LONG_S), RefreshElements(BOUND_NAME, [KEY]))
    await world.commit(RefreshElements(BOUND_NAME, [KEY, OTHER]))
    await world.commit(RemoveElements(BOUND_NAME, [KEY, bytes(4)]))
    await world.plane.replace_rules(ruleset(NAME))
    await world.plane.replace_rules(ruleset())
    await world.commit(RemoveElements(NAME, [KEY]))
    await world.commit(DeleteSet(NAME))
    await world.plane.delete_table()
    world.touch_another_table()
    (commit,) = await hear(world, notifications)
    assert (commit.elements, commit.others) == ((), False)


async def test_nothing_is_told_before_and_after_the_watch(world: World, notifications: asyncio.Event) -> None:
    await set_used_by_rules(world)
    world.add_external_rule()
    world.plane.watch(notifications.set)
    assert world.plane.take_changes() == ExternalChanges()
    world.add_external_rule()
    world.plane.unwatch()
    world.add_external_rule()
    assert world.plane.take_changes() == ExternalChanges()
    world.plane.watch(notifications.set)
    world.plane.watch(notifications.set)
    world.add_external_rule()
    assert len(await hear(world, notifications)) == 1


# -- the kernel alone --------------------------------------------------------------------------------------


OTHERS = """table FAMILY other {
	set c4_32 {
		type ipv4_addr
		elements = { 10.0.0.1 }
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		ip saddr @c4_32 counter packets 0 bytes 0 accept
	}
}
"""


@pytest.mark.kernel
async def test_what_is_in_other_tables_is_not_read_and_not_touched(tmp_path: Path) -> None:
    """The kernel lists the chains of every table of a family, whichever was asked for."""
    with fresh_namespace() as namespace, kernel_tables(namespace, tmp_path) as tables:
        world = kernel_world(namespace, tables)
        await set_used_by_rules(world)
        before = replace(await tables.read_table(), generation=0)
        others = {family: OTHERS.replace("FAMILY", family) for family in ("inet", "ip")}
        for text in others.values():
            run_nft(namespace, text)
        assert replace(await tables.read_table(), generation=0) == before
        await tables.replace_rules(ruleset(NAME))
        assert replace(await tables.read_table(), generation=0) == before
        assert await tables.delete_table()
        for family, text in others.items():
            assert namespace.run(["nft", "list", "table", family, "other"]).stdout == text


@pytest.mark.kernel
async def test_a_dump_of_a_set_that_goes_meanwhile_is_refused(tmp_path: Path) -> None:
    keys = [number.to_bytes(4, "big") for number in range(60_000)]
    with fresh_namespace() as namespace, kernel_tables(namespace, tmp_path) as tables:
        world = kernel_world(namespace, tables)
        await world.commit(CreateTable(), CreateSet(NAME, HOSTS, 1 << 16))
        for start in range(0, len(keys), 10_000):
            await world.commit(AddElements(NAME, keys[start : start + 10_000]))
        reading = tables.read_elements(NAME)
        await anext(reading)
        await world.commit(DeleteSet(NAME))
        with pytest.raises(OperationRefused) as caught:
            async for _ in reading:
                pass
        assert (caught.value.operation, caught.value.errno) == (f"list elements of {NAME}", errno.ENOENT)


@pytest.mark.kernel
async def test_nft_shows_our_sets_as_addresses_and_ports(tmp_path: Path) -> None:
    mask = Mask(4, 29, 16, "port16")
    key = bytes((10, 0, 0, 8, 10, 9, 0, 0, 17, 0, 0, 0)) + (51820).to_bytes(2, "big") + b"\0\0"
    with fresh_namespace() as namespace, kernel_tables(namespace, tmp_path) as tables:
        await tables.check()
        await tables.commit(
            Transaction((CreateTable(), CreateSet(f"{mask}", mask, 8), AddElements(f"{mask}", [key])), "test")
        )
        listing = json.loads(namespace.run(["nft", "--json", "list", "set", "inet", TABLE, f"{mask}"]).stdout)
    shown = listing["nftables"][1]["set"]
    assert shown["type"] == ["ipv4_addr", "ipv4_addr", "inet_proto", "inet_service"]
    assert shown["elem"] == [{"concat": ["10.0.0.8", "10.9.0.0", "udp", 51820]}]


@pytest.mark.kernel
async def test_nft_shows_sets_of_bindings_with_source_port_and_timeout(tmp_path: Path) -> None:
    mask = Mask(4, 32, selector="proto", source_bits=9)
    key = bytes((100, 64, 0, 1, 17, 0, 0, 0)) + (49280).to_bytes(2, "big") + b"\0\0"
    with fresh_namespace() as namespace, kernel_tables(namespace, tmp_path) as tables:
        create = CreateSet(f"{mask}", mask, 0, LONG_S)
        await tables.commit(Transaction((CreateTable(), create, AddElements(f"{mask}", [key])), "test"))
        listing = json.loads(namespace.run(["nft", "--json", "list", "set", "inet", TABLE, f"{mask}"]).stdout)
    shown = listing["nftables"][1]["set"]
    assert shown["type"] == ["ipv4_addr", "inet_proto", "inet_service"]
    assert (shown["flags"], shown["timeout"]) == (["timeout"], LONG_S)
    (element,) = shown["elem"]
    assert element["elem"]["val"] == {"concat": ["100.64.0.1", "udp", 49280]}
    assert 0 < element["elem"]["expires"] <= LONG_S


@pytest.mark.kernel
async def test_a_dump_that_was_given_up_does_not_spoil_the_next(tmp_path: Path) -> None:
    keys = [number.to_bytes(4, "big") for number in range(60_000)]
    with fresh_namespace() as namespace, kernel_tables(namespace, tmp_path) as tables:
        world = kernel_world(namespace, tables)
        await world.commit(CreateTable(), CreateSet(NAME, HOSTS, 1 << 16))
        for start in range(0, len(keys), 10_000):
            await world.commit(AddElements(NAME, keys[start : start + 10_000]))
        for _ in range(3):
            reading = tables.read_elements(NAME)
            await anext(reading)
            assert isinstance(reading, AsyncGenerator)
            await reading.aclose()
            assert await world.keys() == keys


@pytest.mark.kernel
async def test_a_change_in_the_middle_of_a_dump_shows_in_the_generation(tmp_path: Path) -> None:
    """Not as DumpInterrupted: nf_tables_dump_set of 6.18 never calls nl_dump_check_consistent."""
    keys = [number.to_bytes(4, "big") for number in range(60_000)]
    with fresh_namespace() as namespace, kernel_tables(namespace, tmp_path) as tables:
        world = kernel_world(namespace, tables)
        await world.commit(CreateTable(), CreateSet(NAME, HOSTS, 1 << 16))
        for start in range(0, len(keys), 10_000):
            await world.commit(AddElements(NAME, keys[start : start + 10_000]))
        before = await tables.read_generation()
        reading = tables.read_elements(NAME)
        await anext(reading)
        world.remove_behind(NAME, keys[-1])
        with suppress(DumpInterrupted):
            async for _ in reading:
                pass
        assert await tables.read_generation() == before + 1
        assert await world.keys() == keys[:-1]
