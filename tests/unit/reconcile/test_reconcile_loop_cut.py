"""Plans cut short anywhere, any number of times, on the journeys of a registry; see tests/support/reconciling.py.

What a dead process leaves behind is the kernel and nothing else. So one run of a journey is enough to see every
state in which it can be cut: from each of them a new process starts, and from each state that this one passes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gatewayd.errors import ReplyMissing
from gatewayd.kernel.fake import FakeSet, FakeTable
from gatewayd.model.flow import Flow
from gatewayd.model.mask import Mask, set_name
from gatewayd.model.policy import Policy
from gatewayd.reconcile import loop, set_state, steps, verify
from tests.support.reconciling import (
    GUARD_S,
    Rig,
    Wanted,
    WatchedTables,
    Write,
    bound_at,
    hosts,
    looks_up,
    oracle,
    policy,
    probes,
    registered,
    subscribed,
)

HOSTS = Mask(4, 32)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds small enough for a handful of registrations to meet them, and no waiting."""
    for name in ("FIRST_RETRY_S", "MAX_RETRY_S", "HURRIED_RETRY_S"):
        monkeypatch.setattr(loop, name, 0.0)
    monkeypatch.setattr(loop, "GENERATION_POLL_S", 0.001)
    monkeypatch.setattr(verify, "COMPARE_AT_MOST_S", 0.0)
    monkeypatch.setattr(set_state, "MIN_CAPACITY", 4)
    monkeypatch.setattr(steps, "MAX_BYTES", 64)


# -- journeys ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """`deed`: what somebody does to the kernel before. `timer`: comes round at the end; masks out of use go."""

    registrations: Sequence[Wanted]
    policy: Policy
    deed: Callable[[WatchedTables], None] | None = None
    timer: bool = False


def _delete_table(fake: WatchedTables) -> None:
    fake.table = None


def _delete_rules(fake: WatchedTables) -> None:
    if fake.table is not None:
        fake.table.rules, fake.table.used = "", frozenset()


def _load_half(fake: WatchedTables) -> None:
    """A set with some of its elements and one that is not wanted, its successor, no rules."""
    fake.table = FakeTable()
    keys = {key for _, key in zip(range(3), sorted(oracle(hosts(9))[HOSTS]), strict=False)}
    fake.table.sets[set_name(HOSTS, 0)] = FakeSet(HOSTS, 4, 4, keys | {b"\xc0\x00\x02\x4d"})
    fake.table.sets[set_name(HOSTS, 1)] = FakeSet(HOSTS, 4, 32, set(keys))


BANK = registered("bank", "203.0.113.0/28", "2001:db8:12::/48", services=["ipsec", "udp/51820"])
MOVED_BANK = registered("bank", "203.0.113.0/29", "2001:db8:12::/48", services=["ipsec", "wireguard", "tcp/443"])
EMBASSY = registered("embassy", "198.51.100.0/24", peers=["192.0.2.0/24"], services=["openvpn"])
PAIR = registered("pair", "10.9.0.0/31")
PARTED = registered("pair", "10.9.0.0", "10.9.0.1")
LATE = registered("late", "10.0.7.7", "10.8.0.0/25")

ALI, BEA = subscribed("ali", services=["ipsec"]), subscribed("bea")
MANY = [bound_at(subscribed(f"sub-{number}"), f"100.64.1.{number}") for number in range(1, 7)]
ALI_AT_1, ALI_AT_2 = bound_at(ALI, "100.64.0.1"), bound_at(ALI, "100.64.0.2")
BEA_AT_1, BEA_AT_2 = bound_at(BEA, "100.64.0.1"), bound_at(BEA, "100.64.0.2")
BEA_AT_HOME = bound_at(BEA, "2001:db8:64::/64")
BEA_LOW, BEA_WIDE, BEA_HIGH = (
    bound_at(BEA, "100.64.0.9", ports) for ports in ((1024, 2047), (1024, 3071), (60000, 60099))
)
ALI_LOW = bound_at(ALI, "100.64.0.9", (1024, 2047))

OBSERVE, LIMIT, REJECT = policy(), policy("limit"), policy("reject")
JOURNEYS: dict[str, list[Stage]] = {
    "load": [Stage([BANK, EMBASSY, *hosts(9)], REJECT)],
    "growth": [Stage(hosts(count), REJECT) for count in (3, 8, 21)],
    "modes": [Stage([BANK, *hosts(3)], each) for each in (OBSERVE, REJECT, LIMIT)],
    "all others": [Stage(hosts(8), OBSERVE), Stage(hosts(8, 100), REJECT), Stage([BANK, *hosts(5)], REJECT)],
    "policy and registry": [
        Stage([BANK, *hosts(9)], OBSERVE),
        Stage([MOVED_BANK, EMBASSY, *hosts(9, 5)], REJECT),
    ],
    "from mask to mask": [
        Stage([PAIR, *hosts(8)], REJECT),
        Stage([PARTED, *hosts(14, 200)], REJECT),
        Stage([PAIR, *hosts(3)], REJECT, timer=True),
    ],
    "masks come and go": [
        Stage([BANK, EMBASSY], REJECT),
        Stage([BANK], REJECT, timer=True),
        Stage([BANK, EMBASSY, *hosts(2)], LIMIT),
    ],
    "half-loaded": [Stage([BANK, *hosts(9)], REJECT, _load_half)],
    "deleted": [
        Stage([BANK, *hosts(5)], REJECT),
        Stage([BANK, *hosts(9)], REJECT, _delete_table),
        Stage([EMBASSY, *hosts(9)], LIMIT, _delete_rules),
    ],
    "an address moves from one subscriber to another": [
        Stage([ALI_AT_1, BEA_AT_2, BANK], REJECT),
        Stage([BEA_AT_1, BEA_AT_2, BANK], REJECT),
        Stage([BEA_AT_1, ALI_AT_2, BANK], REJECT),
    ],
    "an address of a subscriber changes": [
        Stage([BEA_AT_1, *MANY[:2]], REJECT),
        Stage([BEA_AT_2, BEA_AT_HOME, *MANY[:4]], REJECT),
        Stage([BEA_AT_HOME, *MANY[3:]], REJECT, timer=True),
    ],
    "a port block changes": [
        Stage([BEA_LOW, BANK], REJECT),
        Stage([BEA_WIDE], REJECT),
        Stage([BEA_HIGH, ALI_LOW], REJECT),
    ],
    "bindings deleted": [
        Stage([BEA_AT_1, BEA_LOW, *hosts(2)], REJECT),
        Stage([BEA_AT_1, ALI_LOW, *hosts(2)], REJECT, _delete_table),
        Stage([BEA_AT_2, *hosts(2)], LIMIT, _delete_rules),
    ],
}
EMPTY = Stage([], OBSERVE)
VARIATIONS: dict[str, Callable[[list[Stage]], list[Stage]]] = {
    "as it is": lambda stages: stages,
    "reversed": lambda stages: stages[::-1],
    "empties between": lambda stages: [each for stage in stages for each in (stage, EMPTY, stage)],
    "duplicated": lambda stages: [each for stage in stages for each in (stage, stage)],
}


# -- the evaluation ----------------------------------------------------------------------------------------


def passing(fake: WatchedTables, flows: Iterable[Flow]) -> set[Flow]:
    """New flows, as registered: without rules all are, else by the sets that the rules look into. What an
    unregistered flow may do does not count: it keeps its mark, and the next mode would find it."""
    return set(flows) if fake.table is None or not fake.table.rules else fake.passing(flows)


class Watch:
    """Says of every write whether it took its place from a flow that is registered and was passing."""

    def __init__(self, fake: WatchedTables, flows: Sequence[Flow]) -> None:
        self._fake, self._flows = fake, flows
        self._safe: set[Flow] = set()
        self._registered: list[Flow] = []

    def aim(self, registrations: Sequence[Wanted]) -> None:
        """These are registered from now on."""
        wanted = oracle(registrations)
        self._registered = [
            flow for flow in self._flows if any(looks_up(mask, keys, flow) for mask, keys in wanted.items())
        ]
        self._safe = passing(self._fake, self._registered)

    def look(self, write: object) -> None:
        safe = passing(self._fake, self._registered)
        assert self._safe <= safe, f"lost by {write}: {self._safe - safe}"
        self._safe = safe


# -- processes ---------------------------------------------------------------------------------------------


class Life:
    """A process with no memory on a kernel as it was left, and every state of the kernel that it goes through."""

    def __init__(self, fake: WatchedTables, flows: Sequence[Flow]) -> None:
        self.rig = Rig(fake)
        self.watch = Watch(fake, flows)
        self.states: list[tuple[WatchedTables, int]] = []
        self.stage = 0
        self.between: Callable[[Write], Any] = lambda _: None
        fake.after_write = self._wrote

    def _wrote(self, write: Write) -> None:
        self.watch.look(write)
        self.states.append((self.rig.copy_kernel(), self.stage))
        self.between(write)

    def want(self, stage: Stage) -> None:
        if stage.deed is not None:
            deed = stage.deed
            self.rig.fake.tamper(lambda: deed(self.rig.fake))
        self.watch.aim(stage.registrations)
        self.rig.want(stage.registrations, stage.policy)

    async def reach(self, number: int, stage: Stage) -> None:
        self.stage = number
        self.want(stage)
        await self.rig.settle()
        if stage.timer:
            async with asyncio.timeout(GUARD_S):
                while not self._is_tidy():
                    self.rig.monotonic.now += 301
                    await self.rig.fake.activity()
            await self.rig.settle()

    def _is_tidy(self) -> bool:
        tracked = self.rig.reconciler.tracker
        return self.rig.is_in_sync() and tracked.masks.keys() == oracle(self.rig.wanted.values()).keys()

    async def end(self, stage: Stage) -> None:
        await self.rig.stop()
        assert self.rig.elements() == oracle(stage.registrations)


async def travel(stages: Sequence[Stage], *, squashed: bool = False, late: bool = False) -> Life:
    """The whole journey in one life. `squashed`: after the first stage the others come at once. `late`: after
    a write a late admission asks for something, once for each registration; without end it would have its way."""
    life = Life(WatchedTables(), flows_of(stages))
    if late:
        everybody = [each for stage in stages for each in stage.registrations]
        life.between = lambda _: life.rig.reconciler.prioritise([everybody.pop()] if everybody else [])
    for number, stage in enumerate(stages):
        if squashed and 0 < number < len(stages) - 1:
            life.want(stage)
        else:
            await life.reach(number, stage)
    await life.end(stages[-1])
    return life


def flows_of(stages: Sequence[Stage]) -> list[Flow]:
    return list(dict.fromkeys(probes([each for stage in stages for each in [*stage.registrations, LATE]])))


def _fingerprint(fake: WatchedTables) -> object:
    if fake.table is None:
        return None
    sets = frozenset(
        (name, each.capacity, each.timeout_s, frozenset(each.keys)) for name, each in fake.table.sets.items()
    )
    return sets, fake.table.rules


async def recover_everywhere(life: Life, stages: Sequence[Stage], *, again: bool = False) -> int:
    """Cut the life after each of its writes. The next process wants the same as the dead one did, or the registry
    has gone on, or back, meanwhile. `again`: it is cut after each of its writes too, and so on. Returns how many
    lives there were.

    Before a write is after the one before it; a write done and not heard of is one that was done.
    """
    flows = flows_of(stages)
    blank = WatchedTables()
    todo = [(blank, 0), *((fake, stage + way) for fake, stage in life.states for way in (0, 1, -1))]
    seen, lives = set(), 0
    while todo:
        fake, number = todo.pop()
        mark = (_fingerprint(fake), number)
        if mark in seen or not 0 <= number < len(stages):
            continue
        seen.add(mark)
        lives += 1
        stage = replace(stages[number], deed=None, timer=False)
        heir = Life(fake, flows)
        await heir.reach(number, stage)
        await heir.end(stage)
        assert heir.rig.reconciler.stats.failures == heir.rig.reconciler.stats.repairs == 0
        todo += heir.states if again else ()
    return lives


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("name", JOURNEYS)
async def test_a_journey_cut_anywhere_any_number_of_times_goes_on_and_loses_nothing(
    name: str, variation: str
) -> None:
    stages = VARIATIONS[variation](JOURNEYS[name])
    life = await travel(stages)
    assert await recover_everywhere(life, stages, again=variation == "as it is") > len(stages)


@pytest.mark.parametrize("late", [False, True], ids=["", "late admissions"])
@pytest.mark.parametrize("squashed", [False, True], ids=["", "squashed"])
@pytest.mark.parametrize("name", JOURNEYS)
async def test_a_hurried_journey_may_be_cut_anywhere(name: str, squashed: bool, late: bool) -> None:
    stages = JOURNEYS[name]
    life = await travel(stages, squashed=squashed, late=late)
    await recover_everywhere(life, stages)


async def _at_every_write(name: str, deed: Callable[[Life, str, int], None]) -> None:
    """The journey again and again, `deed` being told of one more write each time; until there are none left."""
    stages = JOURNEYS[name]
    total = len((await travel(stages)).states)
    for when in ("before", "after"):
        for number in range(total):
            life = Life(WatchedTables(), flows_of(stages))
            count = 0

            def maybe(now: str, life: Life = life, number: int = number, when: str = when) -> None:
                nonlocal count
                count += now == when
                if now == when and count == number + 1:
                    deed(life, when, number)

            life.rig.fake.before_write = lambda _: maybe("before")
            life.between = lambda _: maybe("after")
            for at, stage in enumerate(stages):
                await life.reach(at, replace(stage, registrations=[*stage.registrations, *_latecomers(life)]))
            await life.end(replace(stages[-1], registrations=list(life.rig.wanted.values())))
            assert count > number


def _latecomers(life: Life) -> list[Wanted]:
    return [LATE] if LATE.id in life.rig.wanted else []


@pytest.mark.parametrize("name", JOURNEYS)
async def test_an_answer_lost_at_any_write_loses_nothing(name: str) -> None:
    def lose(life: Life, when: str, number: int) -> None:
        raise ReplyMissing(f"write {number}", f"lost {when}")

    await _at_every_write(name, lose)


@pytest.mark.parametrize("name", JOURNEYS)
async def test_a_registration_may_come_between_any_two_writes(name: str) -> None:
    """What comes while rules are on their way is registered from their acknowledgement on."""

    def register(life: Life, when: str, number: int) -> None:
        if when == "after":
            life.watch.aim([*life.rig.wanted.values(), LATE])
        life.rig.wanted[LATE.id] = LATE
        life.rig.reconciler.add(LATE)
        life.rig.reconciler.prioritise([LATE])

    await _at_every_write(name, register)


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "unheard"])
@pytest.mark.parametrize("name", JOURNEYS)
async def test_the_table_may_be_deleted_between_any_two_writes(name: str, heard: bool) -> None:
    """Without rules everything passes; what is registered does from then on."""

    def delete(life: Life, when: str, number: int) -> None:
        life.rig.fake.tamper(lambda: _delete_table(life.rig.fake), received=heard)
        life.watch.aim(list(life.rig.wanted.values()))

    await _at_every_write(name, delete)


async def test_lives_of_two_writes_each_get_there() -> None:
    """One write is never enough where something is to be removed: a process begins with the rules."""
    before, after = JOURNEYS["policy and registry"]
    fake, flows, lives = WatchedTables(), flows_of([before, after]), 0
    for stage in (before, after):
        in_sync = False
        while not in_sync:
            life = Life(fake, flows)
            life.between = lambda _, life=life: _die_after(life, 2)  # type: ignore[misc]
            lives += 1
            try:
                await life.reach(0, stage)
                in_sync = True
            except Cut:
                pass
            await life.rig.stop()
            fake = life.rig.copy_kernel()
        await life.end(stage)
    assert lives > 10


class Cut(Exception):
    """The process dies here."""


def _die_after(life: Life, writes: int) -> None:
    if len(life.states) == writes:
        raise Cut


async def test_the_new_address_of_a_subscriber_is_in_before_the_old_one_goes() -> None:
    """Of a move within a set, between sets of one kind, and between an address and a block."""
    for old, new in ((BEA_AT_1, BEA_AT_2), (BEA_AT_1, BEA_AT_HOME), (BEA_LOW, BEA_HIGH), (BEA_AT_1, BEA_LOW)):
        life = Life(WatchedTables(), flows_of([Stage([old, new], REJECT)]))
        await life.reach(0, Stage([old], REJECT))
        elements = {bound: oracle([bound]) for bound in (old, new)}

        def look(write: Write, life: Life = life, old: Any = old, new: Any = new, elements: Any = elements) -> None:
            found = life.rig.fake.looked_into()
            there = {
                bound: all(keys <= found.get(mask, set()) for mask, keys in elements[bound].items())
                for bound in (old, new)
            }
            assert there[old] or there[new], f"neither after {write}"

        life.between = look
        await life.reach(1, Stage([new], REJECT))
        await life.end(Stage([new], REJECT))


async def test_an_element_that_one_subscriber_leaves_and_another_takes_is_never_out() -> None:
    life = Life(WatchedTables(), flows_of([Stage([BEA_AT_1], REJECT)]))
    await life.reach(0, Stage([BEA_AT_1], REJECT))
    ((mask, keys),) = oracle([BEA_AT_1]).items()
    other = bound_at(subscribed("cid"), "100.64.0.1")
    writes: list[Write] = []

    def look(write: Write) -> None:
        writes.append(write)
        assert keys <= life.rig.fake.looked_into()[mask]

    life.between = look
    await life.reach(1, Stage([other], REJECT))
    await life.end(Stage([other], REJECT))
    assert writes == [], "it is the same element"
