"""What others did is received, told once and put right: by notification, by generation, by the timer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from gatewayd.errors import DumpInterrupted, ReplyMissing
from gatewayd.kernel.fake import FakeSet
from gatewayd.model.mask import Mask
from gatewayd.model.transaction import (
    AddElements,
    ElementChange,
    ExternalChanges,
    ExternalCommit,
    RemoveElements,
    Transaction,
)
from gatewayd.reconcile import verify
from tests.support.reconciling import Rig, WatchedTables, hosts, policy, registered
from tests.unit.reconcile.test_reconcile_loop import BANK, EMBASSY, TAMPERINGS, make_small

HOSTS = Mask(4, 32)
FIRST, STRANGER = bytes((10, 0, 0, 1)), bytes((192, 0, 2, 77))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


async def in_sync(*, tells_counts: bool = True) -> Rig:
    rig = Rig(WatchedTables(tells_counts=tells_counts), policy=policy("reject"))
    rig.want([BANK, EMBASSY, *hosts(9)])
    await rig.settle()
    rig.fake.writes.clear()
    return rig


def keys(rig: Rig) -> set[bytes]:
    assert rig.fake.table is not None
    return rig.fake.table.sets["c4_32"].keys


def swap(rig: Rig) -> None:
    keys(rig).remove(FIRST)
    keys(rig).add(STRANGER)


async def polls(rig: Rig, count: int = 3) -> None:
    """So many looks at the generation."""
    for _ in range(count):
        await rig.fake.activity()
        rig.monotonic.now += 1


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    return [(record.message, record.fields) for record in caplog.records]  # type: ignore[attr-defined]


# -- received ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tells_counts", [True, False], ids=["counts", "no counts"])
@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_what_we_hear_of_is_repaired_once_and_told_with_who_did_it(
    tampering: str, tells_counts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    rig = await in_sync(tells_counts=tells_counts)
    for number in (1, 2):
        rig.fake.tamper(lambda: TAMPERINGS[tampering](rig.fake), program="firewalld", pid=77)
        await rig.settle()
        assert rig.reconciler.stats.repairs == number
        assert len(told(caplog)) == number
        event, fields = told(caplog)[-1]
        assert event == "reconcile.external_change"
        assert (fields["program"], fields["pid"]) == ("firewalld", 77)
    await rig.stop()
    assert rig.reconciler.stats.failures == 0


@pytest.mark.parametrize("tells_counts", [True, False], ids=["counts", "no counts"])
async def test_a_swap_costs_two_elements_and_no_reading(
    tells_counts: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("WARNING")
    rig = await in_sync(tells_counts=tells_counts)
    readings: list[str] = []
    read_elements = rig.fake.read_elements

    def read(name: str) -> AsyncIterator[Sequence[bytes]]:
        readings.append(name)
        return read_elements(name)

    monkeypatch.setattr(rig.fake, "read_elements", read)
    rig.fake.tamper(lambda: swap(rig))
    await rig.settle()
    await rig.stop()
    assert [write.operations for write in rig.fake.writes if isinstance(write, Transaction)] == [
        (AddElements("c4_32", [FIRST]),),
        (RemoveElements("c4_32", [STRANGER]),),
    ]
    assert readings == []
    assert told(caplog)[0][1]["found"] == "elements of c4_32: 1 removed, 1 added"


async def test_while_an_element_is_gone_the_registration_is_not_said_to_be_in_the_kernel() -> None:
    rig = await in_sync()
    host, said = hosts(1)[0], []

    def look(_: object) -> None:
        said.append((rig.reconciler.holds(host), rig.reconciler.tracker.count_missing(), rig.reconciler.unready()))

    rig.fake.before_write = look
    rig.fake.tamper(lambda: keys(rig).remove(FIRST))
    await rig.settle()
    await rig.stop()
    assert said == [(False, 1, "1 elements are not in the kernel yet")]
    assert rig.reconciler.holds(host)


async def test_after_a_failure_nothing_is_said_to_be_in_the_kernel_until_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = await in_sync()
    tracker, said = rig.reconciler.tracker, []
    read_table = rig.fake.read_table

    async def read() -> Any:
        said.append((tracker.count_missing(), tracker.desired.count()))
        return await read_table()

    def fail(_: object) -> None:
        rig.fake.before_write = lambda _: None
        monkeypatch.setattr(rig.fake, "read_table", read)
        raise ReplyMissing("write", "lost")

    rig.fake.before_write = fail
    rig.want([BANK, EMBASSY, *hosts(10)])
    await rig.settle()
    await rig.stop()
    assert said[0][0] == said[0][1] > 10
    assert tracker.count_missing() == 0


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_what_another_program_does_in_the_moment_of_a_write_is_told_too(
    tampering: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel may refuse the write for it; then all is read, and nothing of it is seen any more."""
    caplog.set_level("WARNING")
    rig = await in_sync()

    def meddle(_: object) -> None:
        rig.fake.before_write = lambda _: None
        rig.fake.tamper(lambda: TAMPERINGS[tampering](rig.fake), program="firewalld", pid=77)

    rig.fake.before_write = meddle
    rig.want([BANK, EMBASSY, *hosts(10)])
    await rig.settle()
    await rig.stop()
    changes = [fields for event, fields in told(caplog) if event == "reconcile.external_change"]
    assert [(each["program"], each["pid"]) for each in changes] == [("firewalld", 77)]
    assert rig.reconciler.stats.repairs == 1


async def test_a_commit_that_comes_in_batches_is_told_after_a_failure_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("WARNING")
    rig = await in_sync()
    take, batches = rig.fake.take_changes, iter(range(20))

    def meddle(_: object) -> None:
        rig.fake.before_write = lambda _: None
        rig.fake.tamper(lambda: TAMPERINGS["delete_table"](rig.fake), program="firewalld", pid=77)
        monkeypatch.setattr(
            rig.fake, "take_changes", lambda: ExternalChanges() if next(batches, None) is not None else take()
        )

    rig.fake.before_write = meddle
    rig.want([BANK, EMBASSY, *hosts(10)])
    await rig.settle()
    await rig.stop()
    changes = [fields for event, fields in told(caplog) if event == "reconcile.external_change"]
    assert [(each["found"], each["program"]) for each in changes] == [("the table is gone", "firewalld")]


async def test_rules_are_put_again_without_touching_an_element() -> None:
    rig = await in_sync()
    rig.fake.tamper(lambda: TAMPERINGS["external_rule"](rig.fake))
    await rig.settle()
    await rig.stop()
    assert rig.fake.causes() == ["rules"]


@pytest.mark.parametrize("tells_counts", [True, False], ids=["counts", "no counts"])
async def test_a_commit_in_another_table_costs_a_glance(
    tells_counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = await in_sync(tells_counts=tells_counts)
    readings, read_table = [], rig.fake.read_table

    async def read() -> Any:
        readings.append(1)
        return await read_table()

    monkeypatch.setattr(rig.fake, "read_table", read)
    for _ in range(5):
        rig.fake.tamper(lambda: None)
        await rig.until(lambda: rig.reconciler.stats.generation == rig.fake.generation)
    await polls(rig)
    await rig.settle()
    await rig.stop()
    assert (readings, rig.fake.writes, rig.reconciler.stats.repairs) == ([], [], 0)


async def test_what_somebody_adds_that_is_wanted_and_takes_that_is_not_is_no_repair() -> None:
    rig = await in_sync()
    new = registered("new", "10.0.9.9")

    def both() -> None:
        keys(rig).add(bytes((10, 0, 9, 9)))
        keys(rig).discard(STRANGER)

    rig.fake.tamper(lambda: keys(rig).add(STRANGER))
    rig.fake.tamper(both)
    rig.want([BANK, EMBASSY, *hosts(9), new])
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.stats.repairs == 1
    assert rig.reconciler.stats.failures == 0


async def test_more_changes_than_are_listed_are_looked_for_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = await in_sync()
    swap(rig)
    rig.fake.generation += 1
    news = [ExternalChanges((ExternalCommit(rig.fake.generation, 7, "nft", (), True, True),))]
    monkeypatch.setattr(rig.fake, "take_changes", lambda: news.pop() if news else ExternalChanges())
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.stats.repairs == 1


async def test_elements_and_something_harmless_in_one_commit_are_told_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    rig = await in_sync()
    keys(rig).remove(FIRST)
    rig.fake.generation += 1
    change = ElementChange("c4_32", FIRST, False)
    news = [ExternalChanges((ExternalCommit(rig.fake.generation, 7, "nft", (change,), True),))]
    monkeypatch.setattr(rig.fake, "take_changes", lambda: news.pop() if news else ExternalChanges())
    await rig.settle()
    await rig.stop()
    assert [fields["found"] for _, fields in told(caplog)] == ["elements of c4_32: 1 removed, 0 added"]
    assert rig.reconciler.stats.repairs == 1


@pytest.mark.parametrize(
    "change", [ElementChange("limiter4", bytes(4), True), ElementChange("c4_32", bytes(6), True)]
)
async def test_news_of_what_is_not_our_elements_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, change: ElementChange
) -> None:
    rig = await in_sync()
    rig.fake.generation += 1
    news = [ExternalChanges((ExternalCommit(rig.fake.generation, 7, "nft", (change,)),))]
    monkeypatch.setattr(rig.fake, "take_changes", lambda: news.pop() if news else ExternalChanges())
    await polls(rig)
    await rig.settle()
    await rig.stop()
    assert (rig.fake.writes, rig.reconciler.stats.repairs) == ([], 0)


async def test_somebody_who_does_not_stop_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reading is out of date when it comes: another rule, another set."""
    rig = await in_sync()
    read_table, rest = rig.fake.read_table, 12

    async def read() -> Any:
        nonlocal rest
        reading = await read_table()
        if rest and rig.fake.table is not None:
            rest -= 1
            name, sets = f"guests{rest}", rig.fake.table.sets
            rig.fake.tamper(lambda: sets.update({name: FakeSet(None, 4, 0)}))
        return reading

    monkeypatch.setattr(rig.fake, "read_table", read)
    rig.fake.tamper(lambda: TAMPERINGS["external_rule"](rig.fake))
    await rig.until(lambda: not rest)
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.stats.failures == 0


# -- not received ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tells_counts", [True, False], ids=["counts", "no counts"])
@pytest.mark.parametrize("how", ["lost", "untold"])
async def test_a_swap_that_was_not_received_of_is_found_without_the_timer(how: str, tells_counts: bool) -> None:
    rig = await in_sync(tells_counts=tells_counts)
    if how == "lost":
        rig.fake.tamper(lambda: swap(rig), received=False)
    else:
        swap(rig)
        rig.fake.generation += 1
    while rig.reconciler.stats.repairs == 0:
        await polls(rig, 1)
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.stats.repairs == 1
    assert rig.reconciler.stats.notifications_lost == (how == "lost")
    assert rig.monotonic.now < 1000 + 300


async def test_a_commit_that_is_told_of_late_is_no_reason_to_compare_everything() -> None:
    rig = await in_sync()
    rig.fake.generation += 1
    await rig.until(lambda: rig.reconciler.stats.generation == rig.fake.generation)
    rig.fake._received.append(ExternalCommit(rig.fake.generation))
    await polls(rig)
    await rig.settle()
    await rig.stop()
    assert rig.fake.writes == []


async def test_everything_is_compared_only_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "COMPARE_AT_MOST_S", 100.0)
    rig = await in_sync()
    in_sync_before = rig.in_sync
    rig.fake.tamper(lambda: None, received=False)
    await rig.until(lambda: rig.in_sync > in_sync_before)
    assert "verify" in rig.fake.causes()
    rig.fake.writes.clear()
    for _ in range(3):
        rig.fake.tamper(lambda: None, received=False)
        await polls(rig, 5)
        await rig.settle()
    assert rig.fake.writes == []
    rig.monotonic.now += 100
    await rig.until(lambda: "verify" in rig.fake.causes())
    await rig.settle()
    await rig.stop()


# -- listings that never come to an end --------------------------------------------------------------------


def interrupt(rig: Rig, times: float, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a listing was asked for."""
    read_elements, asked = rig.fake.read_elements, 0

    async def read(name: str) -> Any:
        nonlocal asked
        asked += 1
        mine = asked
        async for piece in read_elements(name):
            yield piece
        if mine <= times:
            raise DumpInterrupted("list elements")

    monkeypatch.setattr(rig.fake, "read_elements", read)
    return lambda: asked


@pytest.mark.parametrize("tells_counts", [True, False], ids=["counts", "no counts"])
@pytest.mark.parametrize("times", [4, 5, 9, float("inf")])
async def test_a_dump_that_is_always_interrupted_is_given_up(
    times: float, tells_counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is wanted is put there again, and what was seen and is not wanted goes."""
    rig = await in_sync(tells_counts=tells_counts)
    asked = interrupt(rig, times, monkeypatch)
    await rig.restart()
    keys(rig).add(STRANGER)
    keys(rig).remove(FIRST)
    await rig.settle()
    assert STRANGER not in keys(rig)
    rig.fake.tamper(lambda: keys(rig).remove(FIRST), received=False)
    while FIRST not in keys(rig):
        await polls(rig, 1)
    rig.monotonic.now += 301
    told = rig.in_sync
    await rig.until(lambda: rig.in_sync > told)
    await rig.stop()
    assert rig.reconciler.unready() is None
    assert rig.reconciler.stats.failures == 0
    assert asked() < 400


async def test_the_loop_turns_while_a_large_set_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewayd.reconcile.set_state.SLICE", 4)
    rig = await in_sync()
    await rig.restart()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await rig.settle()
    counting.cancel()
    await rig.stop()
    assert turns > 5
