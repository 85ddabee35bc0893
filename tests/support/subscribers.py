"""Subscribers from the datagram to the kernel, in one process and one event loop.

    async with subscriber_gateway(tmp_path) as gateway:
        nas = gateway.nas("bng-1")
        await nas.says(START, "s1", ALI, "10.0.0.1")
        assert await gateway.settled() == {"10.0.0.1/32": ALI}

Real are SubscriberService, its UDP sockets on the loopback and its SQLite journal; the allowlist, ActiveSet and the
Reconciler. The kernel is the fake one. Time is the test's: `pass_time` lets it pass, `clock.set_by` sets the wall
clock alone. Nothing waits for real time to pass; GUARD_S ends a test that hangs.

A subscriber is a small number: ALI is 1. Each registered one has a service of its own, so that an element in the
kernel tells whose it is.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from msgspec import structs

from gatewayd.allowlist.allowlist import ActiveSet
from gatewayd.compile.near import NearClients
from gatewayd.control.core import Programmer
from gatewayd.model.mask import Mask
from gatewayd.model.msisdn import subscriber_digest
from gatewayd.model.prefix import Prefix, parse_prefix
from gatewayd.model.registration import Binding, Registration
from gatewayd.model.service import parse_services
from gatewayd.near_miss.keeper import NearMissKeeper
from gatewayd.reconcile import Reconciler
from gatewayd.reconcile.scan_requests import Grace, ScanRequests
from gatewayd.settings import (
    ListenAddress,
    NasSettings,
    ProfileSettings,
    RadiusClient,
    RadiusSettings,
    SubscriberSettings,
)
from gatewayd.subscribers.journal_file import JournalFile
from gatewayd.subscribers.journal_rows import AddressRow, Key, Row, Value
from gatewayd.subscribers.radius.senders import ListenerStats
from gatewayd.subscribers.service import JOURNAL_NAME, SubscriberService
from gatewayd.subscribers.sessions.nas import name_of_key
from gatewayd.subscribers.sessions.session import SessionCounts
from tests.support.accounting import NoJitter, confirmed
from tests.support.manual_clock import START_S, ManualClock, until
from tests.support.nas import ON, Nas
from tests.support.planes import TABLE
from tests.support.radius import SECRET, accounting_request, integer, is_response, status_server
from tests.support.reconciling import WatchedTables, oracle, policy

GUARD_S = 60.0
"""Of real time. What has not happened by then does not happen."""
PEPPER = b"the pepper of these tests"
ALI, BANO, CHAND = 1, 2, 3
PROFILE = ProfileSettings(country_code="92")
FIRST_PORT = 10_000
ELEMENT_TIMEOUT_S = 10**7
"""Longer than any test: what goes from the kernel is what the gateway takes out."""
STRIDE_S = 600.0
"""Time passes in such steps, as the tasks of a daemon see it."""

MONITOR_HOST = "127.0.0.200"
"""It asks whether the gateway is there, and nothing else."""


def number(subscriber: int) -> str:
    """Its mobile number, E.164 without +."""
    return f"92300{subscriber:07}"


def digest(subscriber: int) -> bytes:
    return subscriber_digest(number(subscriber), PEPPER)


def registration(subscriber: int) -> Registration:
    service = FIRST_PORT + subscriber
    return Registration(
        f"PK-{subscriber}", "freelancer", "active", (), digest(subscriber), (), parse_services((f"udp/{service}",))
    )


def bank(*clients: str) -> Registration:
    """Somebody with addresses of his own."""
    return Registration("PK-BANK", "bank", "active", tuple(sorted(map(parse_prefix, clients))), None, (), ())


async def eventually(condition: Callable[[], bool]) -> None:
    """Turns of the loop until it holds."""
    await until(condition, within_s=GUARD_S, step_s=0.001)


@dataclass(frozen=True)
class SetTracker:
    """All that accounting can change. `rows`: of the journal, as they are on disk."""

    bound: frozenset[tuple[str, bytes]]
    elements: dict[Mask, frozenset[bytes]]
    rows: dict[Key, Value | None]
    sessions: int


class SpeakingNas(Nas):
    """A NAS with a socket of its own, on `host`. `gateway` may crash and come back elsewhere."""

    def __init__(self, gateway: SubscriberGateway, name: str, host: str, secret: bytes) -> None:
        self.name = name
        self.repeats = 0
        self._secret = secret
        self._gateway = gateway
        self._identifiers = itertools.cycle(range(256))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind((host, 0))

    def word(
        self, status: int, session: str, subscriber: int | str, *addresses: str, ago: int | None = 0, **more: Any
    ) -> bytes:
        """A request. `ago`: seconds since it happened, for the Event-Timestamp; None: it has none. `more` as in
        Nas.encode."""
        at = None if ago is None else int(self._gateway.clock()) - ago
        spelling = f"+{number(subscriber)}" if isinstance(subscriber, int) else subscriber
        return self.encode(status, session, spelling, *addresses, at=at, **more)

    async def says(self, status: int, session: str, subscriber: int | str, *addresses: str, **more: Any) -> bytes:
        """As `word`, sent; the answer."""
        return await self.ask(self.word(status, session, subscriber, *addresses, **more))

    async def restart_now(self) -> bytes:
        """Accounting-On, of now."""
        return await self.ask(self.request(integer(40, ON), integer(55, int(self._gateway.clock()))))

    async def asks_plainly(self, *attributes: bytes) -> tuple[bytes, bytes]:
        """A request without a NAS-Identifier: the answer, and the request."""
        request = accounting_request(*attributes, secret=self._secret, identifier=next(self._identifiers))
        return await self.ask(request), request

    def send(self, request: bytes) -> None:
        self._socket.sendto(request, self._gateway.address)

    async def ask(self, request: bytes) -> bytes:
        """Send once; its answer, checked. Others that come meanwhile are dropped."""
        self.send(request)
        async with asyncio.timeout(GUARD_S):
            while True:
                response = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
                if is_response(response, request, self._secret):
                    return response

    def received(self) -> list[bytes]:
        """What has come and was not looked at."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096))
            except BlockingIOError:
                return found

    async def gets_no_answer(self, request: bytes) -> bool:
        """Whether the gateway has read it, is done with it, and has not answered."""
        self.received()
        self.send(request)
        await self._gateway.has_read_all()
        await self._gateway.in_sync()
        return self.received() == []


class SubscriberGateway:
    """`clock` is the wall's, and its `monotonic clock`. `fake`: the kernel."""

    def __init__(self, directory: Path, registrations: Iterable[Registration], settings: dict[str, Any]) -> None:
        self.clock = ManualClock(settings.pop("start_s", START_S))
        self.fake = WatchedTables(self.clock.monotonic)
        self.registrations = {each.id: each for each in registrations}
        self._directory = directory
        self._runs = itertools.count(1)
        self._nas: list[SpeakingNas] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._disk_is_free = threading.Event()
        self._disk_is_free.set()
        pepper, secret = directory / "pepper", directory / "secret"
        for path, raw in ((pepper, PEPPER), (secret, SECRET)):
            path.write_bytes(raw + b"\n")
            path.chmod(0o600)
        clients = tuple(
            RadiusClient(parse_prefix(each), str(secret)) for each in ("127.0.0.1/32", f"{MONITOR_HOST}/32")
        )
        clients += tuple(settings.pop("clients", ()))
        radius = RadiusSettings(clients, (ListenAddress("127.0.0.1", 0),))
        self.settings = SubscriberSettings(str(pepper), radius=radius, **{"profile": PROFILE} | settings)
        self._monitor = self.nas("monitor", host=MONITOR_HOST)

    # -- the run of a daemon -----------------------------------------------------------------------------------

    async def start(self, *, journal_of: Path | None = None, waits: bool = True) -> None:
        """A new process; its registry is complete at once."""
        self.directory = self._directory / f"run-{next(self._runs)}"
        self.directory.mkdir()
        if journal_of is not None:
            _copy_journal(journal_of, self.directory)
        clock = self.clock
        self.reconciler = Reconciler(
            self.fake,
            TABLE,
            clock=clock,
            monotonic=clock.monotonic,
            element_timeout_s=ELEMENT_TIMEOUT_S,
        )
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
        for each in self.registrations.values():
            self.programmer.upsert(each, clock())
        # What is forbidden there is forbidden for ever, and other tests of this process look into /proc.
        with patch("gatewayd.subscribers.service.forbid_core_dumps"):
            self.service = SubscriberService(
                self.settings,
                self.directory,
                self.active.allowlist,
                self.programmer,
                clock=clock,
                monotonic=clock.monotonic,
            )
        journal: Any = self.service.journal
        journal._stall_s = GUARD_S
        write = journal._file.write

        def held_write(*arguments: Any) -> None:
            self._disk_is_free.wait(GUARD_S)
            write(*arguments)

        journal._file.write = held_write
        self.service.open()
        await self.service.start()
        self.service.forget_unregistered()
        self.reconciler.want_policy(policy("reject"))
        self._tasks = [asyncio.create_task(self.reconciler.run()), asyncio.create_task(self.service.run())]
        if waits:
            await self.in_sync()

    async def crash(self) -> None:
        """The process is gone; what is on disk stays, and what is in the kernel. Answers under way get lost."""
        assert self.service.listener is not None
        if self._disk_is_free.is_set():
            await self._journal_is_idle()
        self.service.listener.close()
        saved = self.directory / "saved"
        saved.mkdir()
        _copy_journal(self.directory, saved)
        await self._end()

    async def come_back(self, *, forgetting: bool = False, waits: bool = True) -> None:
        """After a crash. `forgetting`: the disk was lost too. `waits`: until all is settled."""
        await self.start(journal_of=None if forgetting else self.directory / "saved", waits=waits)

    async def close(self) -> None:
        await self._end()
        for each in self._nas:
            each.__exit__()

    async def _end(self) -> None:
        self._disk_is_free.set()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for task in self._tasks:
            assert task.cancelled(), task
        self._tasks = []
        await self.service.close()

    def hold_disk(self) -> None:
        """Nothing that is written from now on is on disk, until `free_disk` or the crash."""
        self._disk_is_free.clear()

    def free_disk(self) -> None:
        self._disk_is_free.set()

    # -- the world ---------------------------------------------------------------------------------------------

    def nas(self, name: str = "bng-1", *, host: str = "127.0.0.1", secret: bytes = SECRET) -> SpeakingNas:
        made = SpeakingNas(self, name, host, secret)
        self._nas.append(made)
        return made

    def register(self, registered: Registration) -> None:
        self.registrations[registered.id] = registered
        self._recheck(self.programmer.upsert(registered, self.clock()))

    def withdraw(self, registered: Registration) -> None:
        del self.registrations[registered.id]
        self._recheck(self.programmer.withdraw(registered.id))

    def _recheck(self, subscribers: Iterable[bytes]) -> None:
        for subscriber in subscribers:
            self.service.recheck(subscriber)

    async def pass_time(self, seconds: float) -> None:
        """The tasks see it pass, and do what is due."""
        end_s = self.clock.elapsed_s + seconds
        while self.clock.elapsed_s < end_s:
            self.clock.advance(min(STRIDE_S, end_s - self.clock.elapsed_s))
            await self.do_what_is_due()
        await self.in_sync()

    async def do_what_is_due(self) -> None:
        """The service's run sleeps by the loop's time; begun anew, it looks at the table's timer at once."""
        task = self._tasks.pop()
        task.cancel()
        await asyncio.wait({task})
        self._tasks.append(asyncio.create_task(self.service.run()))
        await until(lambda: not self._is_due(), within_s=GUARD_S, step_s=0)

    def _is_due(self) -> bool:
        timer = self.service.sessions.get_timer()
        return timer is not None and timer <= self.service.now()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self.service.listener is not None
        return self.service.listener.addresses[0]

    # -- what there is -----------------------------------------------------------------------------------------

    @property
    def counts(self) -> SessionCounts:
        """Since the start of this run."""
        return self.service.sessions.counts

    @property
    def stats(self) -> ListenerStats:
        assert self.service.listener is not None
        return self.service.listener.stats

    def confirmed(self) -> list[Binding]:
        """Those in force, as they are now confirmed."""
        return confirmed(self.service.sessions, self.active.allowlist.bindings)

    def bound(self) -> dict[str, int | None]:
        """Place → subscriber, as the allowlist has it; None for one of an unknown number. The table of sessions has
        the same, whatever else is registered."""
        told = {(each.prefix, each.ports, each.subscriber) for each in self.confirmed()}
        held = {(each.prefix, each.ports, each.subscriber) for each in self.active.allowlist.bindings}
        assert held == told
        known = {each.subscriber: int(id[3:]) for id, each in self.registrations.items() if each.subscriber}
        return {_place(prefix, ports): known.get(subscriber) for prefix, ports, subscriber in held}

    def kernel(self) -> dict[str, int]:
        """Address, or address and source ports → subscriber: the elements that the rules look into."""
        found: dict[str, int] = {}
        blocks: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for mask, keys in self.fake.looked_into().items():
            for key in keys if mask.is_bound else ():
                width = 4 if mask.family == 4 else 16
                prefix = str(Prefix(key[:width], mask.client_length))
                whose = int.from_bytes(key[width + 4 : width + 6], "big") - FIRST_PORT
                if mask.source_bits:
                    first = int.from_bytes(key[-4:-2], "big")
                    blocks.setdefault((prefix, whose), []).append((first, first + (1 << 16 - mask.source_bits) - 1))
                else:
                    assert found.setdefault(prefix, whose) == whose, f"two have {prefix}"
        for (prefix, whose), parts in blocks.items():
            for ports in _joined(parts):
                assert found.setdefault(_ported(prefix, ports), whose) == whose
        return found

    async def in_sync(self) -> dict[str, int]:
        """What the kernel holds, once it holds what is bound and nothing else, and the journal is on disk."""
        if self._disk_is_free.is_set():
            await self._journal_is_idle()
        self.reconciler.prepare(())
        await eventually(self._is_in_sync)
        kernel = self.kernel()
        assert kernel == self.bound()
        return kernel

    async def read_back(self) -> dict[str, int]:
        """What the kernel holds, once the reconciler has read it and done what it has to. What is left there of
        bindings that nobody knows of any more is in it too."""
        await eventually(lambda: self.reconciler.unready() is None)
        return self.kernel()

    async def has_read_all(self) -> None:
        """Every datagram that was sent before was read and dealt with: the socket gives them in order."""
        await self._monitor.ask(status_server())

    async def rows(self) -> dict[Key, Value | None]:
        """The journal as it is on disk; a NAS is called by its name in it, as here no two have one name."""
        await self._journal_is_idle()
        copied = self.directory / "copy"
        copied.mkdir()
        _copy_journal(self.directory, copied)
        file = JournalFile(copied / JOURNAL_NAME)
        try:
            return dict(_by_name(row) for row in file.open())
        finally:
            file.close()
            shutil.rmtree(copied)

    async def tracker(self) -> SetTracker:
        await self.in_sync()
        return SetTracker(
            frozenset(
                (_place(each.prefix, each.ports), each.subscriber) for each in self.active.allowlist.bindings
            ),
            {mask: frozenset(keys) for mask, keys in self.fake.looked_into().items()},
            await self.rows(),
            len(self.service.sessions),
        )

    def _is_in_sync(self) -> bool:
        for task in self._tasks:
            if task.done():
                task.result()
        allowlist = self.active.allowlist
        bound_registrations = [bound for each in allowlist for bound in allowlist.bound_registrations_of(each)]
        looked_into = {mask: keys for mask, keys in self.fake.looked_into().items() if keys}
        return self.reconciler.unready() is None and looked_into == oracle([*allowlist, *bound_registrations])

    async def _journal_is_idle(self) -> None:
        """Behind all that was given to it, even where nobody waits for an answer."""
        written = asyncio.get_running_loop().create_future()
        await eventually(lambda: self.service.journal.has_room)
        assert self.service.journal.write((), lambda: written.set_result(None))
        async with asyncio.timeout(GUARD_S):
            await written
        assert self.service.journal.suspended_for is None


@asynccontextmanager
async def subscriber_gateway(
    directory: Path, *, registered: Iterable[int] = (ALI, BANO), more: Iterable[Registration] = (), **settings: Any
) -> AsyncIterator[SubscriberGateway]:
    """`registered`: subscribers; `more`: other registrations. `settings`: fields of SubscriberSettings; `clients`
    are beside the one of 127.0.0.1. And `start_s`, the wall clock's time."""
    gateway = SubscriberGateway(directory, [*map(registration, registered), *more], settings)
    async with AsyncExitStack() as stack:
        await gateway.start()
        stack.push_async_callback(gateway.close)
        yield gateway


def bare_service(
    programmer: Programmer,
    journal: Any,
    clock: Callable[[], float],
    monotonic: Callable[[], float],
    **settings: Any,
) -> SubscriberService:
    """A service without sockets and files, with this journal, whose sessions live no longer than they must. The
    caller rechecks subscribers. `settings`: fields of SubscriberSettings."""
    with (
        patch("gatewayd.subscribers.service.forbid_core_dumps"),
        patch("gatewayd.subscribers.service.read_pepper", return_value=PEPPER),
    ):
        made = SubscriberService(
            SubscriberSettings("/nowhere", **{"max_sessions": 1000} | settings),
            Path("/nowhere"),
            programmer.active.allowlist,
            programmer,
            clock=clock,
            monotonic=monotonic,
        )
    made.journal = journal
    made.sessions._randomness = NoJitter()
    return made


def named(name: str, **profile: Any) -> NasSettings:
    """A NAS with a profile of its own."""
    return NasSettings(name, ProfileSettings(**{"country_code": "92"} | profile))


def _copy_journal(source: Path, target: Path) -> None:
    for suffix in ("", "-wal", ".mark"):
        if (path := source / f"{JOURNAL_NAME}{suffix}").exists():
            shutil.copy(path, target)


def _by_name(row: Row) -> tuple[Key, Value | None]:
    value = row.value
    assert value is not None
    if isinstance(value, AddressRow):
        return row.key, value
    kind, nas, of = row.key
    return (kind, name_of_key(nas), of), structs.replace(value, nas=name_of_key(value.nas))


def _place(prefix: Prefix, ports: tuple[int, int] | None) -> str:
    return str(prefix) if ports is None else _ported(str(prefix), ports)


def _ported(prefix: str, ports: tuple[int, int]) -> str:
    return f"{prefix} {ports[0]}-{ports[1]}"


def _joined(parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Blocks that follow one another, as one."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(parts):
        if found and found[-1][1] + 1 == first:
            found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    return found
