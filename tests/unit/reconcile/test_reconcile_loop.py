"""The loop against the fake: cut short, tampered with, refused, hurried. See tests/support/reconciling.py."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gatewayd.compile.masks import compile_elements
from gatewayd.errors import (
    DumpInterrupted,
    EventMalformed,
    KernelError,
    OperationRefused,
    ReplyMissing,
    RulesetRefused,
)
from gatewayd.kernel.fake import FakeSet, FakeTable
from gatewayd.model.mask import Mask, set_name
from gatewayd.model.policy import Policy
from gatewayd.model.registration import Registration
from gatewayd.model.transaction import AddElements, CreateTable, Ruleset, Transaction
from gatewayd.reconcile import loop, set_state, steps, verify
from tests.support.reconciling import (
    GUARD_S,
    Rig,
    WatchedTables,
    Witness,
    Write,
    allowlist_sets,
    hosts,
    oracle,
    policy,
    registered,
)

HOSTS = Mask(4, 32)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds small enough for a handful of registrations to meet them, and no waiting."""
    make_small(monkeypatch)


def make_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(loop, "GENERATION_POLL_S", 0.001)
    patch.setattr(loop, "FIRST_RETRY_S", 0.0)
    patch.setattr(loop, "MAX_RETRY_S", 0.0)
    patch.setattr(loop, "HURRIED_RETRY_S", 0.0)
    patch.setattr(verify, "COMPARE_AT_MOST_S", 0.0)
    patch.setattr(set_state, "MIN_CAPACITY", 4)
    patch.setattr(steps, "MAX_BYTES", 64)


class Cut(Exception):
    """The process dies here."""


# -- scenarios ---------------------------------------------------------------------------------------------

BANK = registered("bank", "203.0.113.0/28", "2001:db8:12::/48", services=["ipsec", "udp/51820"])
MOVED_BANK = registered("bank", "203.0.113.0/29", "2001:db8:12::/48", services=["ipsec", "wireguard", "tcp/443"])
EMBASSY = registered("embassy", "198.51.100.0/24", peers=["192.0.2.0/24"], services=["openvpn", "udp/8000-9000"])

Stage = tuple[list[Registration], Policy]
SCENARIOS: dict[str, tuple[Stage, Stage]] = {
    "initial load": (([], policy()), ([BANK, EMBASSY, *hosts(9)], policy())),
    "initial load, armed": (([], policy()), ([BANK, EMBASSY, *hosts(9)], policy("reject"))),
    "more registrations": ((hosts(2), policy()), (hosts(4), policy())),
    "withdraw": (([BANK, *hosts(12)], policy("reject")), ([BANK, *hosts(3)], policy("reject"))),
    "withdraw all": (([BANK, *hosts(3)], policy("reject")), ([], policy("reject"))),
    "policy": (([BANK, EMBASSY], policy()), ([BANK, EMBASSY], policy("limit"))),
    "policy and registry": (([BANK, *hosts(9)], policy()), ([MOVED_BANK, EMBASSY, *hosts(9, 5)], policy("reject"))),
    "growth": ((hosts(8), policy("reject")), (hosts(21), policy("reject"))),
    "growth and policy": ((hosts(8), policy()), (hosts(21), policy("reject"))),
    "growth and another mask": ((hosts(8), policy("reject")), ([BANK, *hosts(21)], policy("reject"))),
    "all others": ((hosts(8), policy("reject")), (hosts(8, 100), policy("reject"))),
    "all others, armed": ((hosts(8), policy()), (hosts(8, 100), policy("reject"))),
    "mask first seen": (([BANK], policy("reject")), ([BANK, EMBASSY], policy("reject"))),
    "mask moves": (([BANK, EMBASSY], policy("reject")), ([MOVED_BANK, EMBASSY], policy("reject"))),
    "mask moves into a full set": (
        ([registered("mover", "10.9.0.0/31"), *hosts(8)], policy("reject")),
        ([registered("mover", "10.9.0.0/32", "10.9.0.1/32"), *hosts(14, 200)], policy("reject")),
    ),
}


async def prepared(before: Stage, *, tells_counts: bool = True) -> Rig:
    rig = Rig(WatchedTables(tells_counts=tells_counts))
    rig.want(*before)
    await rig.settle()
    await rig.stop()
    rig.fake.writes.clear()
    return rig


async def crash_at(rig: Rig, number: int, *, when: str) -> bool:
    """Run until the write `number` and die before or after it; whether it came to that."""
    count = 0

    def maybe_die(now: str) -> None:
        nonlocal count
        if now == when:
            count += 1
            if count > number:
                raise Cut

    look = rig.fake.after_write
    rig.fake.before_write = lambda _: maybe_die("before")

    def look_and_die(write: Write) -> None:
        look(write)
        maybe_die("after")

    rig.fake.after_write = look_and_die
    died = False
    try:
        await rig.settle()
    except Cut:
        died = True
    finally:
        await rig.stop()
        rig.fake.before_write, rig.fake.after_write = lambda _: None, look
    return died


@pytest.mark.parametrize("tells_counts", [True, False], ids=["counts", "no counts"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_nothing_registered_is_lost_on_the_way(scenario: str, tells_counts: bool) -> None:
    before, after = SCENARIOS[scenario]
    rig = await prepared(before, tells_counts=tells_counts)
    await rig.restart()
    await rig.settle()
    rig.fake.after_write = Witness(rig, after[0]).look
    rig.want(*after)
    await rig.settle()
    await rig.stop()
    assert rig.elements() == oracle(after[0])
    assert rig.reconciler.stats.failures == rig.reconciler.stats.repairs == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_plan_cut_short_after_any_step_is_taken_up_by_the_next_process(scenario: str, when: str) -> None:
    before, after = SCENARIOS[scenario]
    start = await prepared(before)
    kernel, number, died = start.fake, 0, True
    while died:
        rig = Rig(replace_kernel(start, kernel))
        rig.want(*before)
        await rig.settle()
        rig.fake.after_write = Witness(rig, after[0]).look
        rig.want(*after)
        died = await crash_at(rig, number, when=when)
        await rig.restart()
        rig.want(*after)
        await rig.settle()
        await rig.stop()
        assert rig.elements() == oracle(after[0])
        assert rig.reconciler.stats.failures == 0
        number += 1
    assert number > 1


def replace_kernel(rig: Rig, kernel: WatchedTables) -> WatchedTables:
    rig.fake = kernel
    return rig.copy_kernel()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_failure_at_any_step_loses_nothing(scenario: str, when: str) -> None:
    """The answer to one write is lost: it was done (after) or not (before), and the process lives on."""
    before, after = SCENARIOS[scenario]
    start = await prepared(before)
    kernel, number, failures = start.fake, 0, 1
    while failures:
        rig = Rig(replace_kernel(start, kernel))
        rig.want(*before)
        await rig.settle()
        witness, count = Witness(rig, after[0]), 0

        def maybe_fail(now: str, number: int = number) -> None:
            nonlocal count
            count += now == when
            if now == when and count == number + 1:
                raise ReplyMissing("write", "lost")

        def look(write: Write, witness: Witness = witness, fail: Callable[[str], None] = maybe_fail) -> None:
            witness.look(write)
            fail("after")

        rig.fake.before_write = lambda _: maybe_fail("before")
        rig.fake.after_write = look
        rig.want(*after)
        await rig.settle()
        await rig.stop()
        assert rig.elements() == oracle(after[0])
        failures = rig.reconciler.stats.failures
        assert failures in (0, 1)
        number += 1
    assert number > 1


LISTS: dict[str, list[Stage]] = {
    "a registry grows": [(hosts(count), policy()) for count in (1, 3, 9, 20)],
    "sites come and move": [
        ([BANK], policy()),
        ([BANK, EMBASSY], policy("mark")),
        ([MOVED_BANK, EMBASSY], policy("reject")),
        ([MOVED_BANK, *hosts(5)], policy("reject")),
    ],
    "modes": [([BANK, *hosts(3)], policy(mode)) for mode in ("observe", "limit", "reject", "mark", "limit")],
}
EMPTY: Stage = ([], policy())
VARIATIONS: dict[str, Callable[[list[Stage]], list[Stage]]] = {
    "as it is": lambda stages: stages,
    "reversed": lambda stages: stages[::-1],
    "empties between": lambda stages: [each for stage in stages for each in (EMPTY, stage)],
    "duplicated": lambda stages: [each for stage in stages for each in (stage, stage)],
    "there and back": lambda stages: [*stages, *stages[::-1], *stages],
}


@pytest.mark.parametrize("squashed", [False, True], ids=["", "squashed"])
@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("name", LISTS)
async def test_the_way_does_not_matter(name: str, variation: str, squashed: bool) -> None:
    stages = VARIATIONS[variation](LISTS[name])
    rig = Rig()
    for stage in stages:
        if not squashed and rig.fake.table is not None:
            rig.fake.after_write = Witness(rig, stage[0]).look
        rig.want(*stage)
        if not squashed:
            await rig.settle()
    await rig.settle()
    await rig.stop()
    assert rig.elements() == oracle(stages[-1][0])
    assert rig.reconciler.stats.failures == rig.reconciler.stats.repairs == 0


async def test_nothing_is_read_or_written_before_the_allowlist_is_complete() -> None:
    rig = Rig()
    rig.reconciler.add(BANK)
    task = asyncio.create_task(rig.reconciler.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert rig.fake.writes == []
    assert rig.reconciler.unready() == "no allowlist yet"
    assert rig.reconciler.stuck() is None
    task.cancel()
    await asyncio.wait({task})


async def test_a_restart_over_the_same_registry_writes_the_rules_and_nothing_else() -> None:
    rig = await prepared(([BANK, EMBASSY, *hosts(9)], policy("reject")))
    assert rig.fake.table is not None
    text = rig.fake.table.rules
    await rig.restart()
    await rig.settle()
    await rig.stop()
    assert rig.fake.causes() == ["rules"]
    assert rig.fake.table.rules == text


# -- order and epochs --------------------------------------------------------------------------------------


async def test_a_policy_change_is_a_new_epoch_and_leaves_the_registered_bit_alone() -> None:
    rig = Rig(policy=policy(mask=0xF0000000))
    rig.want([BANK])
    epochs = []
    for mode in ("observe", "mark", "reject", "observe", "limit", "mark", "reject", "observe", "observe"):
        rig.want([BANK], policy(mode, mask=0xF0000000))
        await rig.settle()
        epochs.append(rig.reconciler.epoch)
        assert rig.fake.table is not None
        assert "ct mark & 0x80000000 == 0x80000000" in rig.fake.table.rules
        assert f"ct mark set ct mark & 0x0fffffff | 0x{epochs[-1] << 28:08x}" in rig.fake.table.rules
    await rig.stop()
    assert epochs == [1, 2, 3, 4, 5, 6, 7, 1, 1]


async def test_more_masks_are_no_new_epoch() -> None:
    rig = Rig()
    for stage in ([BANK], [BANK, EMBASSY], [BANK, EMBASSY, *hosts(30)], []):
        rig.want(stage)
        await rig.settle()
        assert rig.reconciler.epoch == 1
    await rig.stop()


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_epoch_lives_through_failures_and_restarts(restarted: bool) -> None:
    rig = Rig()
    for mode in ("observe", "mark", "reject"):
        rig.want([BANK], policy(mode))
        await rig.settle()
    rig.fake.before_write = fail_times(3)
    if restarted:
        await rig.restart()
    rig.want([BANK, EMBASSY])
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.epoch == 3


async def test_an_epoch_that_was_used_is_not_used_again_when_the_table_went() -> None:
    """Marks outlive the table: under epoch 1 other flows were judged, by another policy."""
    rig = Rig()
    for mode in ("observe", "mark", "reject"):
        rig.want([BANK], policy(mode))
        await rig.settle()
    await rig.fake.delete_table()
    await rig.settle()
    assert rig.reconciler.epoch == 3
    await rig.fake.delete_table()
    rig.want([BANK], policy("limit"))
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.epoch == 4


def fail_times(count: int) -> Callable[[Write], None]:
    left = count

    def fail(_: Write) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OperationRefused("write", errno.EBUSY)

    return fail


async def test_a_new_policy_comes_after_the_last_element() -> None:
    rig = Rig()
    rig.want([BANK, *hosts(9)], policy("reject"))
    await rig.settle()
    await rig.stop()
    causes = rig.fake.causes()
    assert causes[:2] == ["create table", "create sets"]
    assert set(causes[2:-1]) == {"add elements"}
    assert causes[-1] == "rules"


async def test_under_the_same_policy_a_new_mask_is_hooked_before_its_elements() -> None:
    """So that each element counts from the moment it is there."""
    rig = await prepared((hosts(2), policy("reject")))
    await rig.restart()
    await rig.settle()
    rig.fake.writes.clear()
    rig.want([BANK, *hosts(2)])
    await rig.settle()
    await rig.stop()
    causes = rig.fake.causes()
    assert causes[:2] == ["create sets", "rules"]
    assert set(causes[2:]) == {"add elements"}


async def test_a_full_set_is_followed_by_a_larger_one() -> None:
    rig = Rig(policy=policy("reject"))
    rig.want(hosts(8))
    await rig.settle()
    rig.fake.writes.clear()
    rig.want(hosts(21))
    await rig.settle()
    await rig.stop()
    causes = rig.fake.causes()
    assert causes[0] == "create sets"
    assert causes[-2:] == ["rules", "delete sets"]
    assert set(causes[1:-2]) == {"add elements"}
    assert rig.fake.table is not None
    assert {name: (found.capacity, len(found.keys)) for name, found in allowlist_sets(rig.fake.table).items()} == {
        "c4_32_g1": (64, 21)
    }


async def test_a_set_made_by_somebody_under_the_successors_name_is_passed_over() -> None:
    rig = Rig()
    rig.want(hosts(8))
    await rig.settle()
    await rig.stop()
    assert rig.fake.table is not None
    rig.fake.table.sets[set_name(HOSTS, 1)] = FakeSet(None, 4, 0)
    rig.fake.generation += 1
    await rig.restart()
    rig.want(hosts(21))
    await rig.settle()
    await rig.stop()
    assert set(allowlist_sets(rig.fake.table)) == {"c4_32_g2"}
    assert rig.reconciler.stats.failures == 0


async def test_masks_out_of_use_go_at_the_timer() -> None:
    rig = Rig()
    rig.want([BANK, EMBASSY])
    await rig.settle()
    rig.want([EMBASSY])
    await rig.settle()
    assert rig.fake.table is not None
    unused = {name for name, found in allowlist_sets(rig.fake.table).items() if not found.keys}
    assert unused
    rig.fake.writes.clear()
    rig.monotonic.now += 301
    table = rig.fake.table
    await rig.until(lambda: rig.fake.table is not table and not rig.reconciler.tracker.retired)
    await rig.settle()
    assert rig.fake.causes()[:2] == ["rules", "delete sets"]
    rig.want([BANK, EMBASSY])
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.stats.failures == 0


# -- tampering ---------------------------------------------------------------------------------------------


def _flush_elements(fake: WatchedTables) -> None:
    assert fake.table is not None
    for found in fake.table.sets.values():
        found.keys.clear()


def _delete_set(fake: WatchedTables) -> None:
    """With the rules that used it; the kernel would not let it go before."""
    assert fake.table is not None
    fake.table.rules, fake.table.used = "", frozenset()
    del fake.table.sets[list(allowlist_sets(fake.table))[-1]]


def _remove_element(fake: WatchedTables) -> None:
    assert fake.table is not None
    next(found for found in fake.table.sets.values() if found.keys).keys.pop()


def _add_element(fake: WatchedTables) -> None:
    assert fake.table is not None
    found = next(iter(allowlist_sets(fake.table).values()))
    found.keys.add(bytes(found.key_length))


def _swap_element(fake: WatchedTables) -> None:
    _remove_element(fake)
    _add_element(fake)


def _external_set(fake: WatchedTables) -> None:
    assert fake.table is not None
    fake.table.sets["guests"] = FakeSet(None, 4, 0, {bytes(4)})


def _external_set_of_our_name(fake: WatchedTables) -> None:
    assert fake.table is not None
    fake.table.sets["c4_32_g7"] = FakeSet(None, 4, 0, {bytes(4)})


def _regular_set_of_our_name(fake: WatchedTables) -> None:
    assert fake.table is not None
    fake.table.sets["c4_32_g9"] = FakeSet(HOSTS, 4, 8, {bytes(4)})


def _external_chain(fake: WatchedTables) -> None:
    assert fake.table is not None
    fake.table.rules += "table inet gatewayd {\n\tchain guests {\n\t}\n}\n"


def _external_rule(fake: WatchedTables) -> None:
    assert fake.table is not None
    fake.table.rules = fake.table.rules.replace("accept", "accept\n\t\tdrop", 1)


def _flush_rules(fake: WatchedTables) -> None:
    assert fake.table is not None
    fake.table.rules, fake.table.used = "", frozenset()


def _delete_table(fake: WatchedTables) -> None:
    fake.table = None


def _empty_table(fake: WatchedTables) -> None:
    fake.table = FakeTable()


TAMPERINGS: dict[str, Callable[[WatchedTables], None]] = {
    each.__name__[1:]: each
    for each in (
        _flush_elements,
        _delete_set,
        _remove_element,
        _add_element,
        _external_set,
        _external_set_of_our_name,
        _regular_set_of_our_name,
        _external_chain,
        _external_rule,
        _flush_rules,
        _delete_table,
        _empty_table,
    )
}


@pytest.mark.parametrize("tells_counts", [True, False], ids=["counts", "no counts"])
@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_what_somebody_did_to_the_table_is_repaired_once(
    tampering: str, tells_counts: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tells us: the generation does."""
    caplog.set_level("WARNING")
    # The comparison of everything that follows may be in the way of the next deed, and then is what finds it.
    monkeypatch.setattr(verify.Verifier, "_doubt", lambda _: None)
    rig = Rig(WatchedTables(tells_counts=tells_counts), policy=policy("reject"))
    rig.want([BANK, EMBASSY, *hosts(9)])
    await rig.settle()
    for number in (1, 2):
        TAMPERINGS[tampering](rig.fake)
        rig.fake.generation += 1
        await rig.settle()
        assert rig.reconciler.stats.repairs == number
        assert [record.message for record in caplog.records] == ["reconcile.external_change"] * number
    assert rig.reconciler.stats.failures == 0
    await rig.stop()


async def test_a_swapped_element_is_found_by_the_timer() -> None:
    """Equal counts and rules hide it from the generation's poll; the registry is added again at the timer."""
    rig = Rig()
    rig.want([BANK, *hosts(9)])
    await rig.settle()
    assert rig.fake.table is not None
    _swap_element(rig.fake)
    rig.fake.generation += 1
    rig.monotonic.now += 301
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.stats.repairs == 1


async def test_tampering_is_noticed_while_there_is_always_something_to_do() -> None:
    """A desire every time the loop would go to sleep must not keep it from looking at the generation."""
    rig = Rig()
    rig.want([BANK])
    await rig.settle()
    toggled = registered("toggled", "10.99.0.1")
    present = False

    async def keep_busy() -> None:
        nonlocal present
        while True:
            (rig.reconciler.remove if present else rig.reconciler.add)(toggled)
            present = not present
            rig.monotonic.now += 0.01
            await asyncio.sleep(0)

    busy = asyncio.create_task(keep_busy())
    _flush_rules(rig.fake)
    rig.fake.generation += 1
    await rig.until(lambda: rig.reconciler.stats.repairs > 0)
    busy.cancel()
    await asyncio.wait({busy})
    if present:
        rig.reconciler.remove(toggled)
    await rig.settle()
    await rig.stop()


# -- hurry -------------------------------------------------------------------------------------------------


async def test_a_late_admission_overtakes_bulk_work() -> None:
    rig = Rig()
    rig.want([BANK])
    await rig.settle()
    rig.fake.writes.clear()
    wanted = [BANK, *hosts(16)]
    state: dict[str, Any] = {"registration": None}

    def look(write: Write) -> None:
        if len(rig.fake.writes) == 4:
            assert isinstance(write, Transaction)
            under_way = {key for operation in write.operations for key in operation.keys}  # type: ignore[union-attr]
            missing = rig.reconciler.tracker.masks[HOSTS].current.missing - under_way
            state["registration"] = next(
                each for each in wanted if {(HOSTS, key) for key in missing}.issuperset(compile_elements(each))
            )
            assert not rig.reconciler.holds(state["registration"])
            assert rig.reconciler.prioritise([state["registration"]])

    rig.fake.after_write = look
    rig.want(wanted)
    await rig.settle()
    await rig.stop()
    causes = rig.fake.causes()
    assert causes.index("late admission") == 4
    assert "add elements" in causes[5:]
    late = rig.fake.writes[4]
    assert isinstance(late, Transaction)
    ((_, key),) = compile_elements(state["registration"])
    assert late.operations == (AddElements("c4_32", [key]),)
    assert rig.reconciler.holds(state["registration"])
    assert rig.reconciler.stats.late_admissions == 1
    assert not rig.reconciler.tracker.urgent
    assert rig.reconciler.prioritise([BANK]) is False


async def test_more_late_admissions_than_there_is_room_for_come_through() -> None:
    rig = Rig()
    rig.want(hosts(7))
    await rig.settle()
    more = hosts(40)
    rig.want(more)
    assert rig.reconciler.prioritise(more)
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.stats.failures == 0


async def test_late_admissions_keep_to_the_bound_of_a_transaction() -> None:
    rig = Rig()
    rig.want([registered("site", "10.0.0.0/24", "10.0.0.0/25", "10.0.0.1")])
    await rig.settle()
    rig.fake.writes.clear()
    more = [registered(f"m{n}", f"10.0.{n}.0/24", f"10.0.{n}.0/25", f"10.0.{n}.1") for n in range(1, 4)]
    rig.want([*rig.wanted.values(), *more])
    rig.reconciler.prioritise(more)
    await rig.settle()
    await rig.stop()
    for write in rig.fake.writes:
        if isinstance(write, Transaction):
            assert write.count_elements() * 16 <= steps.MAX_BYTES


async def test_every_change_that_is_in_the_kernel_is_told() -> None:
    """The sweeper looks at live flows only then."""
    rig = Rig()
    rig.want([BANK])
    await rig.settle()
    for wanted in ([BANK, EMBASSY], [BANK, EMBASSY, *hosts(3)], [BANK], [BANK, *hosts(1)]):
        told = rig.in_sync
        rig.want(wanted)
        await rig.until(lambda told=told: rig.in_sync != told)  # type: ignore[misc]
        assert rig.reconciler.tracker.count_missing() == rig.reconciler.tracker.count_surplus() == 0
    await rig.stop()


async def test_in_sync_is_not_told_while_something_is_outstanding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Desires that come in while the kernel is being read back; Rig asserts it in on_in_sync."""
    rig = Rig()
    read_table = rig.fake.read_table
    pending = hosts(12)

    async def read() -> Any:
        reading = await read_table()
        await asyncio.sleep(0)
        if pending:
            added = pending.pop()
            rig.wanted[added.id] = added
            rig.reconciler.add(added)
        return reading

    monkeypatch.setattr(rig.fake, "read_table", read)
    rig.want([BANK])
    await rig.settle()
    while pending:
        rig.fake.generation += 1
        await rig.fake.activity()
    await rig.settle()
    await rig.stop()


# -- desires while a write is under way --------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before_write", "after_write"])
async def test_what_is_no_longer_wanted_when_its_acknowledgement_comes_is_removed(moment: str) -> None:
    rig = Rig()
    rig.want([BANK])
    await rig.settle()
    guest = hosts(1)[0]

    def withdraw(write: Write) -> None:
        if isinstance(write, Transaction) and write.cause == "add elements" and guest.id in rig.wanted:
            rig.reconciler.remove(rig.wanted.pop(guest.id))

    setattr(rig.fake, moment, withdraw)
    rig.want([BANK, guest])
    await rig.settle()
    assert rig.fake.causes()[-2:] == ["add elements", "remove elements"]
    await rig.stop()


@pytest.mark.parametrize("moment", ["before_write", "after_write"])
async def test_what_is_wanted_again_when_its_removal_is_acknowledged_is_added(moment: str) -> None:
    rig = Rig()
    guest = hosts(1)[0]
    rig.want([BANK, guest])
    await rig.settle()
    rig.fake.writes.clear()

    def readd(write: Write) -> None:
        if isinstance(write, Transaction) and write.cause == "remove elements":
            rig.wanted[guest.id] = guest
            rig.reconciler.add(guest)

    setattr(rig.fake, moment, readd)
    rig.want([BANK])
    await rig.settle()
    await rig.stop()
    assert rig.fake.causes() == ["remove elements", "add elements"]


POOL = [
    BANK, MOVED_BANK, EMBASSY, *hosts(9), registered("net", "10.0.0.0/24", "10.0.0.0/30"),
    registered("six", "2001:db8::/32", services=["wireguard"]), registered("esp", "10.0.0.1", services=["esp"]),
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(script=st.lists(st.lists(st.sampled_from(POOL), max_size=3), min_size=1, max_size=25))
def test_desires_may_change_at_every_write(script: list[list[Registration]]) -> None:
    async def scenario() -> None:
        rig = Rig()
        rig.want(POOL[:4:2])
        rest = list(script)

        def change(_: Write) -> None:
            for registration in rest.pop() if rest else ():
                known = rig.wanted.get(registration.id)
                if known == registration:
                    rig.reconciler.remove(rig.wanted.pop(registration.id))
                    continue
                rig.reconciler.add(registration)
                rig.reconciler.prioritise([registration])
                if known is not None:
                    rig.reconciler.remove(known)
                rig.wanted[registration.id] = registration

        rig.fake.before_write = rig.fake.after_write = change
        while rest:
            await rig.settle()
            change(CreateTable())  # type: ignore[arg-type]
        await rig.settle()
        await rig.stop()
        assert rig.reconciler.stats.failures == 0

    run_small(scenario())


def run_small(scenario: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        asyncio.run(scenario)


# -- failures ----------------------------------------------------------------------------------------------

ERRORS: list[KernelError] = [
    OperationRefused("write", errno.EBUSY),
    OperationRefused("write", errno.ENOENT),
    OperationRefused("write", errno.ENFILE),
    ReplyMissing("write", "no answer"),
]


@settings(max_examples=60, deadline=None)
@given(
    before=st.sampled_from(list(SCENARIOS)),
    failures=st.lists(st.tuples(st.sampled_from(["before", "after", ""]), st.sampled_from(ERRORS)), max_size=30),
    tells_counts=st.booleans(),
)
def test_writes_refused_at_random_end_as_desired(
    before: str, failures: list[tuple[str, KernelError]], tells_counts: bool
) -> None:
    async def scenario() -> None:
        stages = SCENARIOS[before]
        rig = await prepared(stages[0], tells_counts=tells_counts)
        await rig.restart()
        await rig.settle()
        rest = list(failures)
        witness = Witness(rig, stages[1][0])

        def maybe(now: str) -> None:
            if rest and rest[-1][0] == now:
                raise rest.pop()[1]
            if now == "after" and rest and rest[-1][0] == "":
                rest.pop()

        def after(write: Write) -> None:
            witness.look(write)
            maybe("after")

        rig.fake.before_write = lambda _: maybe("before")
        rig.fake.after_write = after
        rig.want(*stages[1])
        await rig.settle()
        await rig.stop()

    run_small(scenario())


async def test_a_failure_is_counted_and_said() -> None:
    rig = Rig()
    rig.want([BANK])
    await rig.settle()
    said = []

    def refuse(_: Write) -> None:
        said.append(rig.reconciler.unready())
        if len(said) < 3:
            raise OperationRefused("add elements to c4_28", errno.ENFILE)

    rig.fake.before_write = refuse
    rig.want([BANK, EMBASSY])
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.stats.failures == 2
    assert rig.reconciler.stats.last_error is None


async def test_a_rule_that_came_between_our_rules_and_the_reading_back_is_not_taken_for_ours() -> None:
    rig = Rig(policy=policy("reject"))
    rig.want([BANK])
    await rig.settle()

    def tamper(write: Write) -> None:
        if rig.fake.causes()[-2:-1] == ["rules"]:
            _external_rule(rig.fake)
            rig.fake.generation += 1

    rig.fake.after_write = tamper
    rig.want([BANK, EMBASSY])
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.stats.repairs == 1


async def test_elements_do_not_wait_for_rules_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """nft may be broken for long; what needs no new rule goes on, without waiting for the back-off."""
    monkeypatch.setattr(loop, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(loop, "MAX_RETRY_S", 100_000.0)
    monkeypatch.setattr(loop, "HURRIED_RETRY_S", 0.0)
    rig = Rig()
    rig.want(hosts(2))
    await rig.settle()
    allowed = False

    def refuse(write: Write) -> None:
        if isinstance(write, Ruleset) and not allowed:
            raise RulesetRefused("nft is broken")

    rig.fake.before_write = refuse
    rig.want([*hosts(2), BANK])
    await rig.until(lambda: rig.reconciler.stats.failures >= 2)
    for number in range(3, 24):
        rig.want([*hosts(number), BANK])
        key = hosts(1, number)[0].clients[0].packed
        await rig.until(lambda key=key: any(key in keys for keys in rig.fake.sets_of(HOSTS)))  # type: ignore[misc]
    assert rig.reconciler.unready() is not None
    allowed = True
    rig.want([*hosts(24), BANK])
    await rig.settle()
    await rig.stop()


async def test_reasons_for_not_being_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    said: list[str | None] = []

    def look(_: Write) -> None:
        said.append(rig.reconciler.unready())

    rig.fake.before_write = look
    rig.want(hosts(2))
    said.append(rig.reconciler.unready())
    await rig.settle()
    assert said[0] == "kernel not read yet"
    assert said[-1] == "2 elements are not in the kernel yet"
    assert rig.reconciler.unready() is None
    rig.fake.before_write = fail_times(1)
    read_table = rig.fake.read_table

    async def read() -> Any:
        said.append(rig.reconciler.unready())
        return await read_table()

    monkeypatch.setattr(rig.fake, "read_table", read)
    rig.want([])
    await rig.settle()
    await rig.stop()
    assert "kernel not read: write: Device or resource busy" in said


@pytest.mark.parametrize(
    "error", [ReplyMissing("read", "late"), DumpInterrupted("list sets"), EventMalformed("set element", "no key")]
)
async def test_a_failed_reading_is_made_again(error: KernelError, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    read_table, fails = rig.fake.read_table, [error] * 3

    async def read() -> Any:
        if fails:
            raise fails.pop()
        return await read_table()

    monkeypatch.setattr(rig.fake, "read_table", read)
    rig.want([BANK])
    await rig.settle()
    await rig.stop()


async def test_the_watchdog_is_told_when_the_task_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.want([BANK])
    await rig.settle()
    assert rig.reconciler.stuck() is None
    hangs = asyncio.Event()

    async def hang() -> int:
        hangs.set()
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(rig.fake, "read_generation", hang)
    await hangs.wait()
    rig.monotonic.now += 61
    assert rig.reconciler.stuck() == "the reconciler has not moved for 61 s"
    await rig.stop()


async def test_a_long_dump_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = await prepared((hosts(4), policy()))
    said = []

    async def read(name: str) -> Any:
        assert rig.fake.table is not None
        for key in rig.fake.table.sets[name].keys:
            rig.monotonic.now += 40
            said.append(rig.reconciler.stuck())
            yield [key]

    monkeypatch.setattr(rig.fake, "read_elements", read)
    await rig.restart()
    await rig.settle()
    await rig.stop()
    assert said == [None] * 4


# -- sets too large to be listed at once -------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [hosts(8), hosts(7), hosts(9), hosts(8, 100), hosts(16, 100), hosts(40, 100)])
async def test_a_large_set_is_taken_over_without_dump_it_where_that_can_be(
    monkeypatch: pytest.MonkeyPatch, wanted: list[Registration]
) -> None:
    monkeypatch.setattr(verify, "SMALL_SET", 2)
    rig = await prepared((hosts(8), policy("reject")))
    rig.wanted = {}
    await rig.restart()
    rig.fake.after_write = Witness(rig, wanted).look
    rig.want(wanted)
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.stats.failures == 0
    assert rig.reconciler.stats.repairs == 0


async def test_a_set_that_gave_way_to_a_larger_one_is_not_asserted_any_more() -> None:
    rig = Rig()
    rig.want(hosts(12))
    await rig.settle()

    def grow(write: Write) -> None:
        if isinstance(write, Transaction) and write.cause == "verify" and len(rig.wanted) == 12:
            rig.want(hosts(40))

    rig.fake.after_write = grow
    rig.monotonic.now += 301
    await rig.until(lambda: len(rig.wanted) != 12)
    await rig.settle()
    await rig.stop()
    assert rig.reconciler.stats.failures == 0


async def test_the_timers_comparison_does_not_take_readiness_away(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(WatchedTables(tells_counts=False))
    rig.want([BANK, *hosts(9)])
    await rig.settle()
    said: set[str | None] = set()
    read_table = rig.fake.read_table

    async def read() -> Any:
        said.add(rig.reconciler.unready())
        return await read_table()

    monkeypatch.setattr(rig.fake, "read_table", read)
    rig.fake.after_write = lambda _: said.add(rig.reconciler.unready())
    rig.monotonic.now += 301
    told = rig.in_sync
    await rig.until(lambda: rig.in_sync != told)
    rig.want([BANK, EMBASSY, *hosts(9)])
    rig.fake.generation += 1
    await rig.settle()
    await rig.stop()
    assert not {each for each in said if each is not None and "read" in each}


async def test_the_timer_adds_everything_again_in_bounded_pieces() -> None:
    rig = Rig()
    rig.want([BANK, *hosts(9)])
    await rig.settle()
    rig.fake.writes.clear()
    rig.monotonic.now += 301
    told = rig.in_sync
    await rig.until(lambda: rig.in_sync != told)
    await rig.stop()
    verified: dict[str, set[bytes]] = {}
    for write in rig.fake.writes:
        assert isinstance(write, Transaction)
        assert write.cause == "verify"
        for operation in write.operations:
            assert isinstance(operation, AddElements)
            assert len(operation.keys) <= steps.max_keys(len(operation.keys[0]))
            verified.setdefault(operation.set_name, set()).update(operation.keys)
    assert {str(mask): keys for mask, keys in oracle(rig.wanted.values()).items()} == verified


# -- anything, in any order --------------------------------------------------------------------------------


class AnythingMayHappen(RuleBasedStateMachine):
    """After settling the kernel is what a dumb oracle says, whatever happened before."""

    @initialize(tells_counts=st.booleans())
    def begin(self, tells_counts: bool) -> None:
        self.patch = pytest.MonkeyPatch()
        make_small(self.patch)
        self.runner = asyncio.Runner()
        self.rig = Rig(WatchedTables(tells_counts=tells_counts))
        self.dirty = True

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.rig.stop())
            self.runner.close()
            self.patch.undo()

    @rule(registrations=st.lists(st.sampled_from(POOL), max_size=6))
    def add(self, registrations: list[Registration]) -> None:
        before = [each for each in self.rig.wanted.values() if isinstance(each, Registration)]
        self.rig.want({each.id: each for each in [*before, *registrations]}.values())
        self.rig.reconciler.prioritise(registrations[:2])

    @rule(count=st.integers(1, 30))
    def add_many(self, count: int) -> None:
        self.rig.want([*self.rig.wanted.values(), *hosts(count, 300, "many")])

    @rule(count=st.integers(1, 30))
    def remove(self, count: int) -> None:
        self.rig.want(list(self.rig.wanted.values())[count:])

    @rule(mode=st.sampled_from(["observe", "mark", "limit", "reject"]))
    def change_policy(self, mode: str) -> None:
        self.rig.want(list(self.rig.wanted.values()), policy(mode))

    @precondition(lambda self: bool(allowlist_sets(self.rig.fake.table)))
    @rule(tampering=st.sampled_from([*TAMPERINGS.values(), _swap_element]))
    def tamper(self, tampering: Callable[[WatchedTables], None]) -> None:
        try:
            tampering(self.rig.fake)
        except (StopIteration, KeyError):
            return  # nothing there to tamper with
        self.rig.fake.generation += 1

    @rule(failures=st.lists(st.sampled_from(ERRORS), max_size=4), after=st.booleans())
    def fail(self, failures: list[KernelError], after: bool) -> None:
        def maybe(_: Write) -> None:
            if failures:
                raise failures.pop()

        if after:
            self.rig.fake.after_write = maybe
        else:
            self.rig.fake.before_write = maybe

    @rule()
    def restart(self) -> None:
        self.runner.run(self.rig.restart())

    @rule()
    def settle(self) -> None:
        self.rig.monotonic.now += 301
        self.runner.run(self._settle_and_look())

    async def _settle_and_look(self) -> None:
        await self.rig.settle()
        reconciler = self.rig.reconciler
        assert self.rig.elements() == oracle(self.rig.wanted.values())
        assert (reconciler.tracker.count_missing(), reconciler.tracker.count_surplus()) == (0, 0)
        assert reconciler.unready() is None
        assert all(reconciler.holds(each) for each in self.rig.wanted.values())
        # The timer's comparison may be under way; it goes on with the next settling.
        await self.rig.stop()

    @invariant()
    def stays_bounded(self) -> None:
        if hasattr(self, "rig"):
            assert len(self.rig.reconciler.tracker.urgent) <= sum(map(len, oracle(POOL).values()))


AnythingMayHappen.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestAnythingMayHappen = AnythingMayHappen.TestCase


async def test_what_a_start_finds_is_told_until_the_kernel_is_read() -> None:
    before = Rig(wanted=[BANK, *hosts(3)], policy=policy("reject"))
    await before.settle()
    await before.stop()
    elements = before.reconciler.report().elements_desired
    later = Rig(before.copy_kernel(), wanted=[BANK, *hosts(3)])
    reconciler = later.reconciler
    reconciler.found(await later.fake.read_table())
    found = reconciler.report().found
    assert found is not None
    assert (found.mode, found.elements) == ("reject", elements)
    task = asyncio.create_task(reconciler.run())
    reconciler.disarm(policy("observe"))
    async with asyncio.timeout(GUARD_S):
        while reconciler.mode_in_force == "reject":  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert reconciler.report().found == replace(found, mode="observe")
        reconciler.want_policy(policy("observe"))
        while reconciler.unready() is not None:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert reconciler.report().found is None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
