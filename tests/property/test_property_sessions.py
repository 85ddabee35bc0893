"""The table of sessions against a replay of all events in the order of their times, which shares no code with it.

Generated networks do what real ones do: a session of a NAS begins with a Start or an Interim, goes on, ends with a
Stop or is forgotten; ids are used again only after a Stop or a restart; no two events of different sessions have
the same time. Addresses are given out as it pleases, with and without a Stop of who had them. What arrives is
shuffled, and any part of it repeated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gatewayd.model.accounting import AccountingEvent, AccountingKind
from gatewayd.model.prefix import Prefix
from tests.support.accounting import ALI, BANO, CHAND, Table, event

SUBSCRIBERS = [ALI, BANO, CHAND]
NAS = ["bng1", "bng2"]
ADDRESSES = ["10.0.0.1", "10.0.0.2", "2001:db8::/56", "2001:db8:100::/56"]
STEP_S = 3.0
"""More than an Interim may trail its Stop by; all of a history lies within the lag that is usual."""


@dataclass
class Life:
    """A session as the replay knows it."""

    subscriber: bytes
    addresses: dict[Prefix, float] = field(default_factory=dict)


def replay(events: list[AccountingEvent]) -> dict[Prefix, set[bytes]]:
    """What is bound after events that come in order, each once: the rules, word for word."""
    lives: dict[tuple[str, str], Life] = {}
    for each in sorted(events, key=lambda event: event.at_s):
        key = (each.nas, each.session)
        if each.kind in ("on", "off"):
            lives = {key: life for key, life in lives.items() if key[0] != each.nas}
        elif each.kind == "stop":
            lives.pop(key, None)
        else:
            assert each.subscriber is not None
            life = lives.setdefault(key, Life(each.subscriber))
            if each.is_snapshot and each.addresses:
                life.addresses.clear()
            elif any(address.family == 4 for address in each.addresses):
                life.addresses = {address: at for address, at in life.addresses.items() if address.family == 6}
            for address in each.addresses:
                life.addresses[address] = each.at_s
                for other in lives.values():
                    if other.subscriber != each.subscriber:
                        other.addresses.pop(address, None)
    bound: dict[Prefix, set[bytes]] = {}
    for life in lives.values():
        for address in life.addresses:
            bound.setdefault(address, set()).add(life.subscriber)
    return bound


KINDS: list[AccountingKind] = ["start", "start", "interim", "interim", "stop", "on"]
OF_A_NAS: list[AccountingKind] = ["on", "off"]
FIRST: list[AccountingKind] = ["start", "interim"]


@st.composite
def histories(draw: st.DrawFn) -> list[AccountingEvent]:
    """Events in the order in which they happen."""
    events: list[AccountingEvent] = []
    live: dict[tuple[str, str], bytes] = {}
    fresh = 0
    is_snapshot = {nas: draw(st.booleans()) for nas in NAS}
    for index in range(draw(st.integers(1, 18))):
        at = 1000 + STEP_S * index
        nas = draw(st.sampled_from(NAS))
        here = sorted(key for key in live if key[0] == nas)
        kind = draw(st.sampled_from(KINDS))
        addresses = draw(st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True))
        if kind == "on":
            events.append(event(draw(st.sampled_from(OF_A_NAS)), at=at, nas=nas))
            live = {key: subscriber for key, subscriber in live.items() if key[0] != nas}
        elif kind == "start" or not here:
            idle = [f"s{number}" for number in range(3) if (nas, f"s{number}") not in live]
            if not idle:
                idle = [f"t{fresh}"]
                fresh += 1
            key = (nas, draw(st.sampled_from(idle)))
            live[key] = draw(st.sampled_from(SUBSCRIBERS))
            first = draw(st.sampled_from(FIRST))
            more: dict[str, Any] = {"at": at, "nas": nas, "is_snapshot": is_snapshot[nas]}
            events.append(event(first, key[1], live[key], *addresses, **more))
        else:
            key = draw(st.sampled_from(here))
            more = {"at": at, "nas": nas, "is_snapshot": is_snapshot[nas]}
            events.append(event(kind, key[1], live[key], *addresses, **more))
            if kind == "stop":
                del live[key]
    return events


def bound(table: Table) -> dict[Prefix, set[bytes]]:
    table.bound()
    found: dict[Prefix, set[bytes]] = {}
    for binding in table.confirmed():
        found.setdefault(binding.prefix, set()).add(binding.subscriber)
    return found


@given(histories(), st.randoms(use_true_random=False), st.data())
def test_any_order_and_any_repetition_ends_in_what_the_replay_in_order_has(
    events: list[AccountingEvent], shuffle: random.Random, data: st.DataObject
) -> None:
    arriving = events + data.draw(st.lists(st.sampled_from(events), max_size=6))
    shuffle.shuffle(arriving)
    table = Table()
    for each in arriving:
        table.take(each, now=1000 + STEP_S * len(events))
        if data.draw(st.booleans()):
            table.bound()
        if data.draw(st.booleans()):
            table.sessions.handle_timer(1000 + STEP_S * len(events))
    table.wait_until(1000 + STEP_S * len(events))
    assert bound(table) == replay(events)


class Network(RuleBasedStateMachine):
    """Anything at all arrives; what must hold whatever it is."""

    def __init__(self) -> None:
        super().__init__()
        self.registered = {ALI, BANO}
        self.now = 1000.0
        self.table = Table(self.registered, max_sessions=6, max_tombstones=5)

    @rule(
        kind=st.sampled_from(["start", "interim", "stop", "on", "off"]),
        session=st.sampled_from(["s1", "s2", "s3", "s4"]),
        nas=st.sampled_from(NAS),
        subscriber=st.sampled_from([*SUBSCRIBERS, None]),
        addresses=st.lists(st.sampled_from(ADDRESSES), max_size=3, unique=True),
        age_s=st.sampled_from([0.0, 0.0, 1.0, 3.0, 30.0, 4000.0]),
        ports=st.sampled_from([None, None, (1024, 2047), (2000, 2100), (4096, 5119)]),
        interim_s=st.sampled_from([None, 300]),
        is_snapshot=st.booleans(),
        is_final_stop=st.booleans(),
    )
    def hear(
        self,
        kind: AccountingKind,
        session: str,
        nas: str,
        subscriber: bytes | None,
        addresses: list[str],
        age_s: float,
        ports: tuple[int, int] | None,
        interim_s: int | None,
        is_snapshot: bool,
        is_final_stop: bool,
    ) -> None:
        self.now += 0.25
        self.table.take(
            event(
                kind,
                session,
                subscriber,
                *addresses,
                at=self.now - age_s,
                received=self.now,
                nas=nas,
                ports=ports,
                interim_s=interim_s,
                is_snapshot=is_snapshot,
                is_final_stop=kind == "stop" and is_final_stop,
            )
        )

    @rule(seconds=st.sampled_from([1, 100, 1000]))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.table.wait_until(self.now)

    @rule(subscriber=st.sampled_from(SUBSCRIBERS))
    def register_or_revoke(self, subscriber: bytes) -> None:
        self.registered ^= {subscriber}
        self.table.sessions.recheck(subscriber)

    @invariant()
    def only_registered_subscribers_are_bound_and_none_where_another_is(self) -> None:
        self.table.bound()
        bindings = self.table.confirmed()
        for one in bindings:
            assert one.subscriber in self.registered
            for other in bindings:
                if one.subscriber != other.subscriber and one.prefix == other.prefix:
                    assert one.ports
                    assert other.ports
                    assert one.ports[1] < other.ports[0] or other.ports[1] < one.ports[0]

    @invariant()
    def every_index_holds_the_sessions_that_live_and_no_other(self) -> None:
        sessions = self.table.sessions
        live = [session for nas in sessions._nas for session in nas.sessions.values()]
        assert len(live) == len(sessions)
        for session in live:
            assert session.bucket is not None
            assert session in session.bucket.sessions
            assert session.since_s <= session.at_s
            for hold in session.holds:
                assert hold in sessions._changes.ownership.holds_at(hold.prefix)
        listed = [each for subscriber in list(sessions._of_subscriber) for each in sessions.sessions_of(subscriber)]
        named = [session for session in live if session.subscriber is not None]
        assert {id(each) for each in listed} == {id(each) for each in named}
        assert len(listed) == len(named)
        held = sum(
            len(sessions._changes.ownership.holds_at(hold.prefix)) > 0 for each in live for hold in each.holds
        )
        assert held == sum(len(each.holds) for each in live)

    def teardown(self) -> None:
        """When everything has run out, nothing is left."""
        self.table.wait_until(self.now + 200_000)
        self.table.wait_until(self.now + 300_000)
        assert len(self.table.sessions) == 0
        assert self.table.sessions.tombstones == 0
        assert len(self.table.sessions._changes.ownership) == 0
        assert not self.table.sessions._of_subscriber
        assert self.table.bound() == {}
        assert len(self.table.bindings) == 0


TestNetwork = Network.TestCase
