"""Whatever happens between whichever steps: who is registered before and after is registered all along.

A real reconciler on the fake kernel. A script says what happens, and how many calls to the kernel later: before a
call is made, or after it was done and before its answer is heard. After every write and every event each flow that
has been registered since it last passed must pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gatewayd.errors import ReplyMissing
from gatewayd.kernel.fake import FakeSet
from gatewayd.model.flow import Flow, reverse_flow
from gatewayd.model.mask import Mask, parse_set_name
from gatewayd.model.policy import Policy
from gatewayd.model.prefix import parse_address
from gatewayd.model.transaction import Ruleset, TableReading, Transaction
from gatewayd.reconcile import Reconciler, loop, set_state, steps, verify
from tests.support.planes import TABLE
from tests.support.reconciling import (
    Wanted,
    WatchedTables,
    allowlist_sets,
    bound_at,
    looks_up,
    oracle,
    policy,
    registered,
    subscribed,
)

GUARD_S = 60
CALL_S = 0.01
"""What a call to the kernel takes, by the fake's clock: a poll is due after a few, the timer after some dozens."""
VERIFY_S = 0.8
HOSTS = [f"10.0.0.{number}" for number in range(1, 15)]
BEA, CID = subscribed("bea"), subscribed("cid", services=["ipsec"])


def _block(low: int, high: int) -> tuple[Wanted, ...]:
    return (bound_at(BEA, "100.64.0.9", (low, high)),)


PARTIES: dict[str, list[tuple[Wanted, ...]]] = {
    # Most forms have flows in common.
    "bank": [
        (registered("bank", "203.0.113.8/29", services=["ipsec"]),),
        (registered("bank", "203.0.113.0/28", services=["ipsec"]),),
        (registered("bank", "203.0.113.8/30", "203.0.113.12/30", "2001:db8:12::/48"),),
        (registered("bank", "203.0.113.8/29", "203.0.113.10", peers=["192.0.2.0/24"], services=["ipsec"]),),
        (registered("bank", "203.0.113.8/29", "2001:db8:12::/64", services=["udp/500", "esp"]),),
        (),
    ],
    "few": [tuple(registered(f"h-{each}", each) for each in HOSTS[:3]), ()],
    "many": [*(tuple(registered(f"h-{each}", each) for each in HOSTS[start:]) for start in (3, 6)), ()],
    "net": [(registered("net", "10.0.0.0/28"),), (registered("net", "10.0.0.0/29", "10.0.0.8/29"),), ()],
    "bea": [_block(1024, 2047), _block(1024, 3071), _block(1000, 2999), (bound_at(BEA, "100.64.0.9"),), ()],
    "cid": [
        (bound_at(CID, "100.64.0.1"),),
        (bound_at(CID, "100.64.0.2"), bound_at(CID, "2001:db8:64::/64")),
        (bound_at(CID, "100.64.0.1"), bound_at(CID, "2001:db8:64::/56")),
        (),
    ],
}
PREPARED = [Mask(4, 32, source_bits=0), Mask(6, 64, source_bits=0), Mask(4, 24)]
POLICIES: list[Policy] = [policy("reject"), policy("limit"), policy("observe")]


def _flow(source: str, service: int = 500, port: int = 4000, destination: str = "192.0.2.1") -> Flow:
    return Flow(17, parse_address(source), parse_address(destination), port, service)


_OPENED = [
    *(_flow(f"203.0.113.{last}") for last in (1, 8, 10, 12, 15)),
    _flow("203.0.113.9", 51820),
    *(_flow(each, 51820) for each in HOSTS),
    *(_flow("100.64.0.9", port=port) for port in (1000, 1023, 1024, 1999, 2000, 2047, 2048, 2500, 3000, 3071)),
    _flow("100.64.0.1"),
    _flow("100.64.0.2"),
    _flow("2001:db8:12::1", destination="2001:db8:ffff::1"),
    _flow("2001:db8:64::1", destination="2001:db8:ffff::1"),
    _flow("2001:db8:64:1::1", destination="2001:db8:ffff::1"),
]
FLOWS = [*_OPENED, *map(reverse_flow, _OPENED)]
"""The far end may speak first."""


class Cut(Exception):
    """The process dies here."""


@dataclass
class Kernel(WatchedTables):
    """A fake that lets the script go on at every call."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(lambda: self.now)
        self.on_call: Callable[[], None] = lambda: None
        self.on_written: Callable[[object], None] = lambda _: None

    def _called(self) -> None:
        self.now += CALL_S
        self.on_call()

    async def read_table(self) -> TableReading:
        self._called()
        return await super().read_table()

    async def read_elements(self, set_name: str) -> AsyncIterator[Sequence[bytes]]:
        self._called()
        async for piece in super().read_elements(set_name):
            yield piece

    async def read_generation(self) -> int:
        self._called()
        return await super().read_generation()

    async def commit(self, transaction: Transaction) -> None:
        self._called()
        await super().commit(transaction)
        self.on_written(transaction)
        self._called()

    async def replace_rules(self, ruleset: Ruleset) -> None:
        self._called()
        await super().replace_rules(ruleset)
        self.on_written(ruleset.set_names)
        self._called()


Event = tuple[Any, ...]
Script = list[tuple[int, Event]]


@dataclass
class World:
    """Who is registered, the process, and the kernel that outlives it."""

    script: Script
    kernel: Kernel = field(default_factory=Kernel)
    desires: dict[str, tuple[Wanted, ...]] = field(default_factory=dict)
    policy: Policy = POLICIES[0]
    element_timeout_s: int = 7200

    def __post_init__(self) -> None:
        self.kernel.on_call, self.kernel.on_written = self._call, self._wrote
        self._waits = self.script[0][0] if self.script else 0
        self._safe: set[Flow] = set()
        self._told: dict[str, tuple[Wanted, ...]] = {}
        """What the process knows of the desires: all, but for a while after a start from old files."""
        self._read_old = ""
        """The party that the files of a start do not know of, until the process has written for the first time."""
        self._unknown = ""
        """Such a party, if the kernel lacked some of it too: nobody could know of it before `release`."""
        self._history: list[object] = []
        self.reconciler = self._make()

    def _make(self, *, retains: bool = False) -> Reconciler:
        made = Reconciler(
            self.kernel,
            TABLE,
            clock=lambda: 0.0,
            monotonic=lambda: self.kernel.now,
            verify_every_s=VERIFY_S,
            element_timeout_s=self.element_timeout_s,
        )
        if retains:
            made.retain()
        for party in self._told.values():
            for each in party:
                made.add(each)
        made.want_policy(self.policy)
        return made

    # -- the evaluation ------------------------------------------------------------------------------------

    def _passing(self) -> set[Flow]:
        """Without rules everything passes; the process can only keep it so for whom it knows."""
        table = self.kernel.table
        if table is None or not table.rules:
            return self._registered(self._told)
        return self.kernel.passing(FLOWS)

    def _registered(self, desires: Mapping[str, tuple[Wanted, ...]]) -> set[Flow]:
        wanted = oracle(each for party in desires.values() for each in party)
        return {flow for flow in FLOWS if any(looks_up(mask, keys, flow) for mask, keys in wanted.items())}

    def _registered_and_known(self) -> set[Flow]:
        known = {name: party for name, party in self.desires.items() if name != self._unknown}
        return self._registered(known)

    def _look_for_unknown(self) -> None:
        """Until it writes, somebody else may still take away what the process would have found."""
        if self._read_old:
            found = self.kernel.looked_into()
            wanted = oracle(self.desires.get(self._read_old, ()))
            if any(not keys <= found.get(mask, frozenset()) for mask, keys in wanted.items()):
                self._unknown = self._read_old

    def _wrote(self, what: object) -> None:
        self._look_for_unknown()
        self._read_old = ""
        lost = self._safe - (passing := self._passing())
        assert not lost, "\n".join(["lost:", *map(str, lost), *map(str, [*self._history, what])])
        self._history.append(what)
        self._safe = self._registered_and_known() & passing

    def _changed(self) -> None:
        """The desires, or the kernel by somebody else. What of it is better for a flow counts from the next write
        on: one that is under way knows nothing of it."""
        self._look_for_unknown()
        self._safe &= self._registered_and_known() & self._passing()

    # -- events --------------------------------------------------------------------------------------------

    def _call(self) -> None:
        while self.script and self._waits == 0:
            _, event = self.script.pop(0)
            self._waits = self.script[0][0] if self.script else 0
            self._happen(event)
        self._waits -= bool(self.script)

    def _happen(self, event: Event) -> None:
        self._history.append(event)
        match event:
            case ("move", *moves):
                for name, form in moves:
                    self._move(name, PARTIES[name][form % len(PARTIES[name])])
                self._changed()
            case ("policy", number):
                self.policy = POLICIES[number]
                self.reconciler.want_policy(self.policy)
            case ("urge", name):
                self.reconciler.prioritise(self._told.get(name, ()))
            case ("prepare", number):
                self.reconciler.prepare([PREPARED[number]])
            case ("time", seconds):
                self.kernel.now += seconds
            case ("retire",):
                self.reconciler.tracker.retire_unused()
            case ("refused",):
                # Before the call, or after it and before its answer.
                raise ReplyMissing("a call", "lost")
            case ("tamper", heard, number):
                self.kernel.tamper(lambda: self._damage(number), received=heard)
                self._changed()
            case ("restart", *more):
                raise Cut(*more)
            case ("release",):
                self._release()

    def _move(self, name: str, new: tuple[Wanted, ...]) -> None:
        """What is new before what is old, as the owner does."""
        self._read_old = "" if name == self._read_old else self._read_old
        self._unknown = "" if name == self._unknown else self._unknown
        self.desires[name] = new
        known, self._told[name] = self._told.get(name, ()), new
        for each in new:
            if each not in known:
                self.reconciler.add(each)
        for each in known:
            if each not in new:
                self.reconciler.remove(each)

    def _release(self) -> None:
        for name in self.desires:
            self._move(name, self.desires[name])
        for _ in self.reconciler.release_in_slices():
            pass

    def _damage(self, number: int) -> None:
        table = self.kernel.table
        if table is None:
            return
        names = sorted(allowlist_sets(table))
        match number % 6:
            case 0:
                self.kernel.table = None
            case 1:
                table.rules, table.used = "", frozenset()
            case 2:
                for key in list(table.sets[names[number % len(names)]].keys) if names else ():
                    table.sets[names[number % len(names)]].drop(key)
            case 3:
                name = names[number % len(names)] if names else ""
                parsed = parse_set_name(name)
                if parsed is not None:
                    table.sets[name].put([bytes(parsed[0].key_length)], self.kernel.now)
            case 4:
                table.sets.setdefault("c4_31", FakeSet(Mask(4, 31), 4, 1024))
            case 5:
                table.sets.setdefault("c4_32_g1", FakeSet(Mask(4, 32), 4, 1024))

    # -- lives ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        async with asyncio.timeout(GUARD_S):
            while True:
                task = asyncio.create_task(self.reconciler.run())
                in_sync = asyncio.create_task(self._in_sync())
                done, _ = await asyncio.wait({task, in_sync}, return_when=asyncio.FIRST_COMPLETED)
                error = task.exception() if task in done else None
                for each in (task, in_sync):
                    each.cancel()
                await asyncio.wait({task, in_sync})
                if task not in done:
                    return
                if not isinstance(error, Cut):
                    assert error is not None
                    raise error
                self._restart(*error.args)

    def _restart(self, retains: bool, stale: str, element_timeout_s: int) -> None:
        """`retains`: from files that do not know of a party, until sources were read."""
        self.element_timeout_s = element_timeout_s
        self._told = {name: party for name, party in self.desires.items() if not retains or name != stale}
        self._read_old, self._unknown = stale if retains else "", ""
        self._changed()
        self.reconciler = self._make(retains=retains)
        if retains:
            self.script.append((3, ("release",)))

    async def _in_sync(self) -> None:
        while self.script or not self._is_in_sync():  # noqa: ASYNC110 - what is waited for is a call to the kernel
            await asyncio.sleep(0)

    def _is_in_sync(self) -> bool:
        found = {mask: keys for mask, keys in self.kernel.looked_into().items() if keys}
        return (
            self.reconciler.unready() is None
            and self.reconciler.tracker.count_surplus() == 0
            and self.reconciler.policy_in_force == self.policy
            and found == oracle(each for party in self.desires.values() for each in party)
        )


def _moves() -> st.SearchStrategy[Event]:
    move = st.tuples(st.sampled_from(sorted(PARTIES)), st.integers(0, 5))
    return st.lists(move, min_size=1, max_size=3, unique_by=lambda each: each[0]).map(lambda some: ("move", *some))


_events = st.one_of(
    _moves(),
    _moves(),
    _moves(),
    st.tuples(st.just("policy"), st.integers(0, 2)),
    st.tuples(st.just("urge"), st.sampled_from(sorted(PARTIES))),
    st.tuples(st.just("prepare"), st.integers(0, 2)),
    st.tuples(st.just("time"), st.sampled_from((0.05, 1.0, 60.0))),
    st.just(("retire",)),
    st.just(("refused",)),
    st.tuples(st.just("tamper"), st.booleans(), st.integers(0, 40)),
    st.tuples(st.just("restart"), st.booleans(), st.sampled_from(sorted(PARTIES)), st.sampled_from((7200, 3600))),
)
_scripts: st.SearchStrategy[Script] = st.lists(st.tuples(st.integers(0, 7) | st.just(60), _events), max_size=14)


def _small(patch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_RETRY_S", "MAX_RETRY_S", "HURRIED_RETRY_S"):
        patch.setattr(loop, name, 0.0)
    patch.setattr(loop, "GENERATION_POLL_S", 0.04)
    patch.setattr(loop.Reconciler, "_idle", _no_pause)
    patch.setattr(verify, "COMPARE_AT_MOST_S", 0.1)
    patch.setattr(set_state, "MIN_CAPACITY", 4)
    patch.setattr(steps, "MAX_BYTES", 64)


async def _no_pause(self: Reconciler) -> None:
    """Time passes with calls alone."""
    await asyncio.sleep(0)
    self._poll_at = self._monotonic()


START: Script = [(0, ("move", ("bank", 0), ("few", 0), ("bea", 0), ("cid", 0), ("net", 0)))]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(_scripts)
@example([(60, ("move", ("bank", 1))), (0, ("retire",))])
@example([(60, ("move", ("bea", 1))), (1, ("retire",))])
@example([(0, ("restart", True, "net", 7200)), (60, ("move", ("few", 1)))])
def test_who_is_registered_before_and_after_is_registered_all_along(script: Script) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _small(patch)
        asyncio.run(World([*START, *script]).run())
