"""Accounting over a wire that loses, doubles and reorders requests and answers, to a gateway that crashes.

The oracle replays what happened in the order of its times; it knows of no wire and no crash, and shares no code
with the gateway. Real are the datagrams, the listener's reading and its memory of answers, the table of sessions,
the bytes of the journal's rows, the allowlist and the reconciler. The kernel, the disk and the wire are models; a
crash loses what the disk has not taken. Time is virtual.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from gatewayd.allowlist.allowlist import ActiveSet
from gatewayd.compile.near import NearClients
from gatewayd.control.core import Programmer
from gatewayd.model.accounting import AccountingEvent, AccountingKind
from gatewayd.model.prefix import Prefix, parse_prefix
from gatewayd.near_miss.keeper import NearMissKeeper
from gatewayd.reconcile import Reconciler
from gatewayd.reconcile.scan_requests import Grace, ScanRequests
from gatewayd.settings.subscribers import ProfileSettings
from gatewayd.subscribers.journal_rows import Row, decode_row, encode_key, encode_value
from gatewayd.subscribers.radius.clients import Client, ClientTable, Profiles
from gatewayd.subscribers.radius.listener import AccountingListener
from tests.property.test_property_sessions import NAS, SUBSCRIBERS, histories, replay
from tests.support.accounting import ALI, BANO, CHAND, confirmed, event
from tests.support.manual_clock import ManualClock, Time, until
from tests.support.planes import TABLE
from tests.support.radius import SECRET, accounting_request, attribute, integer, is_response, text
from tests.support.reconciling import WatchedTables, policy
from tests.support.subscribers import FIRST_PORT, PEPPER, bare_service, digest, number, registration

BEGIN_S = 1000.0
"""When the first event of a history happens."""
REPEAT_S = 3.0
MAX_WAY_S = 8.0
"""Of a datagram. More than REPEAT_S, and than what lies between two events: all comes in any order."""
STATUS = {"start": 1, "stop": 2, "interim": 3, "on": 7, "off": 8}
EVERYBODY = frozenset(SUBSCRIBERS)


def index_of(subscriber: bytes) -> int:
    """The number, in tests.support.subscribers, of one of SUBSCRIBERS."""
    return SUBSCRIBERS.index(subscriber) + 1


@dataclass(frozen=True)
class Weather:
    """`loss`, `doubling`: parts of the datagrams, either way. `crashes`: (seconds from the one before,
    seconds that the gateway is away). `changes_repeats`: NAS whose repeats say how late they are."""

    loss: float
    doubling: float
    seed: int
    crashes: tuple[tuple[float, float], ...] = ()
    changes_repeats: frozenset[str] = frozenset()


def weathers(*, crashes: bool) -> st.SearchStrategy[Weather]:
    crash = st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 20.0))
    return st.builds(
        Weather,
        loss=st.sampled_from([0.0, 0.1, 0.4]),
        doubling=st.sampled_from([0.0, 0.3, 1.0]),
        seed=st.integers(0, 2**32),
        crashes=st.lists(crash, max_size=4).map(tuple) if crashes else st.just(()),
        changes_repeats=st.frozensets(st.sampled_from(NAS)),
    )


class Wire:
    """Carries each datagram never, once or twice, each time for as long as it likes."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather
        self._random = random.Random(weather.seed)
        self.lost = 0

    def carry(self, deliver: Callable[[bytes], None], datagram: bytes) -> None:
        copies = 1 + (self._random.random() < self._weather.doubling)
        for _ in range(copies):
            if self._random.random() < self._weather.loss:
                self.lost += 1
            else:
                way_s = self._random.uniform(0.001, MAX_WAY_S)
                asyncio.get_running_loop().call_later(way_s, deliver, datagram)


class Disk:
    """What survives."""

    def __init__(self, seed: int) -> None:
        self.rows: dict[bytes, bytes] = {}
        self._random = random.Random(seed)

    def latency_s(self) -> float:
        return self._random.choice([0.001, 0.02, 1.0, 4.0])


class SlowJournal:
    """What the service asks of a journal: groups that are written one after another, and answered when they are."""

    suspended_for = None
    last_moment = None

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._waiting: list[Row] = []
        self._done: list[Callable[[], None]] = []
        self._writing: asyncio.TimerHandle | None = None

    async def open(self) -> tuple[Row, ...]:
        found = [decode_row(key, value) for key, value in self._disk.rows.items()]
        rows = tuple(row for row in found if row is not None)
        assert len(rows) == len(self._disk.rows), "what was written can be read"
        return rows

    def write(self, rows: Iterable[Row], done: Callable[[], None] | None) -> bool:
        self._waiting += rows
        if done is not None:
            self._done.append(done)
        if self._writing is None:
            self._begin()
        return True

    def crash(self) -> None:
        """What is not written never will be."""
        if self._writing is not None:
            self._writing.cancel()

    def _begin(self) -> None:
        rows, self._waiting = self._waiting, []
        done, self._done = self._done, []
        loop = asyncio.get_running_loop()
        self._writing = loop.call_later(self._disk.latency_s(), self._written, rows, done)

    def _written(self, rows: list[Row], done: list[Callable[[], None]]) -> None:
        for row in rows:
            key = encode_key(row.key)
            if row.value is None:
                self._disk.rows.pop(key, None)
            else:
                self._disk.rows[key] = encode_value(key, row.value)
        self._writing = None
        for each in done:
            each()
        if self._writing is None and (self._waiting or self._done):
            self._begin()


class Gateway:
    """Hears datagrams while it is there. `registered`: of SUBSCRIBERS."""

    def __init__(
        self, clock: ManualClock, wire: Wire, disk: Disk, registered: frozenset[bytes], snapshots: set[str]
    ) -> None:
        self._clock = clock
        self._wire = wire
        self._disk = disk
        self._registered = registered
        self._profiles = {
            nas: ProfileSettings("snapshot" if nas in snapshots else "merge", restart_grace_s=0.0) for nas in NAS
        }
        self.fake = WatchedTables(clock.monotonic)
        self.crashes = 0
        self._task: asyncio.Task[None] | None = None

    def call_all(self, name: str) -> None:
        """All NAS have this name, and one profile."""
        self._profiles = {name: self._profiles[NAS[0]]}

    async def start(self) -> None:
        clock = self._clock
        self.reconciler = Reconciler(self.fake, TABLE, clock=clock, monotonic=clock.monotonic)
        self.active = ActiveSet()
        self.programmer = Programmer(
            self.active,
            self.reconciler,
            ScanRequests(60.0),
            Grace(),
            NearMissKeeper(
                self.active.allowlist, NearClients(), lambda: None, clock=clock, monotonic=clock.monotonic
            ),
            prepares=True,
        )
        for subscriber in sorted(self._registered):
            self.programmer.upsert(registration(index_of(subscriber)), clock())
        profiles = Profiles(ProfileSettings(), self._profiles)
        self._journal = SlowJournal(self._disk)
        self.service = bare_service(self.programmer, self._journal, clock, clock.monotonic)
        self.service.profiles = profiles
        self.listener = AccountingListener(
            [],
            clients=ClientTable([Client(parse_prefix("192.0.2.0/24"), (SECRET,))]),
            profiles=profiles,
            pepper=PEPPER,
            on_event=self.service.receive,
            clock=clock,
            monotonic=clock.monotonic,
        )
        # Virtual time waits for no thread.
        with patch("asyncio.to_thread", _at_once):
            await self.service.start()
        self.service.forget_unregistered()
        self._task = asyncio.create_task(self.service.run())

    async def crash(self) -> None:
        """Memory is lost, and what the disk had not taken. Nobody hears anything until the next start."""
        assert self._task is not None
        task, self._task = self._task, None
        self._journal.crash()
        task.cancel()
        await asyncio.wait({task})
        self.crashes += 1

    def hear(self, datagram: bytes, source: tuple[str, int], answer_to: Callable[[bytes], None]) -> None:
        if self._task is not None:
            self.listener.handle(
                datagram, source, self._clock.monotonic(), lambda answer: self._wire.carry(answer_to, answer)
            )

    def bound(self) -> dict[Prefix, set[bytes]]:
        found: dict[Prefix, set[bytes]] = {}
        for each in confirmed(self.service.sessions, self.active.allowlist.bindings):
            (subscriber,) = [one for one in SUBSCRIBERS if digest(index_of(one)) == each.subscriber]
            found.setdefault(each.prefix, set()).add(subscriber)
        return found

    async def programmed(self) -> dict[Prefix, set[bytes]]:
        """As `bound`, of what is in the kernel once it is as desired."""
        self.reconciler.want_policy(policy("reject"))
        reconciling = asyncio.create_task(self.reconciler.run())
        await until(lambda: self.reconciler.unready() is None and not self.reconciler.tracker.count_surplus())
        reconciling.cancel()
        await asyncio.wait({reconciling})
        found: dict[Prefix, set[bytes]] = {}
        for mask, keys in self.fake.looked_into().items():
            width = 4 if mask.family == 4 else 16
            for key in keys:
                port = int.from_bytes(key[width + 4 : width + 6], "big")
                prefix = Prefix(key[:width], mask.client_length)
                found.setdefault(prefix, set()).add(SUBSCRIBERS[port - FIRST_PORT - 1])
        return found


@dataclass
class Sender:
    """A NAS, with a socket. It repeats until it is answered, and waits with nothing that comes later."""

    name: str
    source: tuple[str, int]
    clock: ManualClock
    wire: Wire
    gateway: Gateway
    changes_repeats: bool
    identifiers: Any = field(default_factory=lambda: itertools.cycle(range(256)))
    sent: int = 0

    async def tell(self, happened: AccountingEvent) -> None:
        await asyncio.sleep(happened.at_s - self.clock())
        answered = asyncio.Event()
        requests: list[bytes] = []

        def hear(answer: bytes) -> None:
            if any(is_response(answer, request) for request in requests):
                answered.set()

        while not answered.is_set():
            if not requests or self.changes_repeats:
                requests.append(self.encode(happened, int(self.clock() - happened.at_s)))
            self.sent += 1
            self.wire.carry(lambda datagram: self.gateway.hear(datagram, self.source, hear), requests[-1])
            try:
                async with asyncio.timeout(REPEAT_S):
                    await answered.wait()
            except TimeoutError:
                continue

    def encode(self, happened: AccountingEvent, late_s: int) -> bytes:
        attributes = [text(32, self.name), integer(40, STATUS[happened.kind]), integer(55, int(happened.at_s))]
        if late_s:
            attributes.append(integer(41, late_s))
        if happened.session:
            attributes.append(text(44, happened.session))
        if happened.subscriber is not None:
            attributes.append(text(31, f"+{number(index_of(happened.subscriber))}"))
        for prefix in happened.addresses:
            is_ipv4 = prefix.family == 4
            attributes.append(attribute(8, prefix.packed) if is_ipv4 else _ipv6(prefix))
        return accounting_request(*attributes, identifier=next(self.identifiers))


async def _at_once(work: Callable[..., object], *arguments: object) -> object:
    return work(*arguments)


def _ipv6(prefix: Prefix) -> bytes:
    return attribute(97, bytes([0, prefix.length]) + prefix.packed)


@dataclass
class World:
    """One history, told in one weather. `loop_faults`: what was raised where nobody waits for it."""

    gateway: Gateway
    senders: dict[str, Sender]
    weather: Weather
    loop_faults: list[str] = field(default_factory=list)

    async def tell_all(self, events: list[AccountingEvent]) -> None:
        """Until all of it is answered and the wire is empty."""
        asyncio.get_running_loop().set_exception_handler(lambda _, found: self.loop_faults.append(str(found)))
        await self.gateway.start()
        crashing = asyncio.create_task(self._crash_and_come_back())
        await asyncio.gather(*(self.senders[each.nas].tell(each) for each in events))
        await crashing
        await asyncio.sleep(2 * MAX_WAY_S + 5)
        assert not self.loop_faults

    async def tell_again(self, events: Iterable[AccountingEvent]) -> None:
        await asyncio.gather(*(self.senders[each.nas].tell(each) for each in events))
        await asyncio.sleep(2 * MAX_WAY_S + 5)
        assert not self.loop_faults

    async def _crash_and_come_back(self) -> None:
        for after_s, away_s in self.weather.crashes:
            await asyncio.sleep(after_s)
            await self.gateway.crash()
            await asyncio.sleep(away_s)
            await self.gateway.start()


def world_of(
    clock: ManualClock, events: list[AccountingEvent], weather: Weather, registered: frozenset[bytes]
) -> World:
    wire = Wire(weather)
    snapshots = {each.nas for each in events if each.is_snapshot}
    gateway = Gateway(clock, wire, Disk(weather.seed), registered, snapshots)
    senders = {
        name: Sender(name, (f"192.0.2.{host}", 1000 + host), clock, wire, gateway, name in weather.changes_repeats)
        for host, name in enumerate(NAS, 1)
    }
    return World(gateway, senders, weather)


ONE_NAME = "MikroTik"


def _whose(own: dict[bytes, bytes], subscriber: bytes | None) -> bytes | None:
    return None if subscriber is None else own.get(subscriber, subscriber)


def under_one_name(events: list[AccountingEvent]) -> list[AccountingEvent]:
    """The same network, of NAS that have no subscriber in common; so a session id of both is of two sessions."""
    own = {NAS[0]: {CHAND: ALI}, NAS[1]: {ALI: CHAND, BANO: CHAND}}
    return [
        structs.replace(each, subscriber=_whose(own[each.nas], each.subscriber), is_snapshot=False)
        for each in events
    ]


def of(subscribers: frozenset[bytes], bound: dict[Prefix, set[bytes]]) -> dict[Prefix, set[bytes]]:
    return {prefix: whose & subscribers for prefix, whose in bound.items() if whose & subscribers}


def note_what_there_was(world: World) -> None:
    note(f"crashes: {world.gateway.crashes}")
    note(f"lost on the wire: {min(world.gateway._wire.lost, 20) // 5 * 5} or more")


@settings(max_examples=150, deadline=None)
@given(histories(), weathers(crashes=True))
def test_whatever_the_wire_and_crashes_do_the_bindings_are_those_of_the_replay(
    events: list[AccountingEvent], weather: Weather
) -> None:
    async def scenario(clock: ManualClock) -> None:
        world = world_of(clock, events, weather, EVERYBODY)
        await world.tell_all(events)
        assert world.gateway.bound() == replay(events)
        assert await world.gateway.programmed() == replay(events)
        note_what_there_was(world)

    with Time(BEGIN_S) as time:
        time.run(scenario(time.clock))


@settings(max_examples=80, deadline=None)
@given(histories(), weathers(crashes=True))
def test_nas_of_one_name_are_told_apart_by_where_they_speak_from(
    events: list[AccountingEvent], weather: Weather
) -> None:
    events = under_one_name(events)

    async def scenario(clock: ManualClock) -> None:
        world = world_of(clock, events, weather, EVERYBODY)
        for sender in world.senders.values():
            sender.name = ONE_NAME
        world.gateway.call_all(ONE_NAME)
        await world.tell_all(events)
        assert world.gateway.bound() == replay(events)
        assert await world.gateway.programmed() == replay(events)

    with Time(BEGIN_S) as time:
        time.run(scenario(time.clock))


@settings(max_examples=80, deadline=None)
@given(histories(), weathers(crashes=False), st.sampled_from([1, 2]))
def test_who_is_not_registered_is_never_bound_and_counts_for_those_who_are(
    events: list[AccountingEvent], weather: Weather, count: int
) -> None:
    registered = frozenset(SUBSCRIBERS[:count])

    async def scenario(clock: ManualClock) -> None:
        world = world_of(clock, events, weather, registered)
        await world.tell_all(events)
        assert world.gateway.bound() == of(registered, replay(events))
        assert await world.gateway.programmed() == of(registered, replay(events))

    with Time(BEGIN_S) as time:
        time.run(scenario(time.clock))


def next_interims(events: list[AccountingEvent], at_s: float) -> list[AccountingEvent]:
    """What each NAS says of its live sessions in the next round: what they have by now.

    A session may have lost an address to another one. A NAS that always lists all addresses says so by the list.
    Another NAS cannot say it in an interim record, so it ends the session.
    """
    live: dict[tuple[str, str], list[AccountingEvent]] = {}
    for each in sorted(events, key=lambda event: event.at_s):
        key = (each.nas, each.session)
        if each.kind in ("on", "off"):
            live = {key: words for key, words in live.items() if key[0] != each.nas}
        elif each.kind == "stop":
            live.pop(key, None)
        else:
            live.setdefault(key, []).append(each)
    owners = replay(events)
    interims = []
    for (nas, session), words in live.items():
        subscriber, is_snapshot = words[0].subscriber, words[0].is_snapshot
        told = {prefix for word in words for prefix in word.addresses}
        held = sorted(str(prefix) for prefix in told if subscriber in owners.get(prefix, ()))
        kind: AccountingKind = "interim" if is_snapshot or len(held) == len(told) else "stop"
        interims.append(event(kind, session, subscriber, *held, at=at_s, nas=nas, is_snapshot=is_snapshot))
    return interims


@settings(max_examples=80, deadline=None)
@given(histories(), weathers(crashes=True), st.sampled_from([1, 2]))
def test_what_a_crash_forgot_of_those_not_registered_is_put_right_by_the_next_interims(
    events: list[AccountingEvent], weather: Weather, count: int
) -> None:
    """Nothing of them is on disk, not even when they took an address from somebody registered. So an older word
    that comes after the crash may have it back, until the NAS says again who is there."""
    registered = frozenset(SUBSCRIBERS[:count])

    async def scenario(clock: ManualClock) -> None:
        world = world_of(clock, events, weather, registered)
        await world.tell_all(events)
        said_again = next_interims(events, float(int(clock()) + 1))
        await world.tell_again(said_again)
        assert world.gateway.bound() == of(registered, replay(events + said_again))
        assert await world.gateway.programmed() == world.gateway.bound()

    with Time(BEGIN_S) as time:
        time.run(scenario(time.clock))
