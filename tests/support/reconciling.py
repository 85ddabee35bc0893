"""A reconciler on a fake kernel that watches every write: which flows pass now, and whether any is lost.

Desired are registrations and, at a subscriber's address, registrations of subscribers. `oracle` is the dumb version
of the elements that shall be in the kernel; `passes` of what the rules do with a flow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache, lru_cache
from itertools import product
from typing import Any

from gatewayd.compile.desired import elements_of
from gatewayd.compile.rule_sets import RULE_SETS
from gatewayd.compile.ruleset import compile_ruleset, policy_digest
from gatewayd.kernel.fake import FakeSet, FakeTable, FakeTables
from gatewayd.model.flow import Flow, reverse_flow
from gatewayd.model.mask import ANY_PEER, Mask, parse_set_name
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.prefix import Prefix, mask_address, parse_address, parse_prefix
from gatewayd.model.registration import BoundRegistration, Registration
from gatewayd.model.service import BUNDLES, PROTOCOLS_WITH_PORTS, parse_services
from gatewayd.model.transaction import Ruleset, TableReading, Transaction
from gatewayd.reconcile import Reconciler
from gatewayd.reconcile.tracker import ELEMENT_TIMEOUT_S
from tests.support.planes import TABLE

GUARD_S = 60
"""A test that has not come to an end by then hangs."""
FAR_END = {4: parse_address("192.0.2.1"), 6: parse_address("2001:db8:ffff::1")}

Wanted = Registration | BoundRegistration
Write = Transaction | Ruleset
Element = tuple[Mask, bytes]


def registered(id: str, *clients: str, peers: Iterable[str] = (), services: Iterable[str] = ()) -> Registration:
    return Registration(
        id,
        "bank",
        "active",
        tuple(sorted(parse_prefix(text) for text in clients)),
        None,
        tuple(sorted(parse_prefix(text) for text in peers)),
        parse_services(services),
    )


def hosts(count: int, start: int = 1, name: str = "host") -> list[Registration]:
    return [
        registered(f"{name}-{number}", f"10.0.{number >> 8}.{number & 255}")
        for number in range(start, start + count)
    ]


def subscribed(id: str, *, peers: Iterable[str] = (), services: Iterable[str] = ()) -> Registration:
    """A registration of a subscriber, without an address of its own."""
    return Registration(
        id,
        "freelancer",
        "active",
        (),
        id.encode().rjust(32, b"\0"),
        tuple(sorted(parse_prefix(text) for text in peers)),
        parse_services(services),
    )


def bound_at(registration: Registration, prefix: str, ports: tuple[int, int] | None = None) -> BoundRegistration:
    return BoundRegistration(registration, parse_prefix(prefix), ports)


def bound_hosts(count: int, start: int = 1) -> list[BoundRegistration]:
    """Subscribers with an address each, from 100.64.0.0/16."""
    return [
        bound_at(subscribed(f"sub-{number}"), f"100.64.{number >> 8}.{number & 255}")
        for number in range(start, start + count)
    ]


def policy(mode: Any = "observe", scope: Sequence[str] = ("ipsec", "wireguard"), mask: int = 0xFF000000) -> Policy:
    return Policy(mode, parse_services(scope), MarkLayout(mask))


OBSERVE = policy()


def oracle(wanted: Iterable[Wanted]) -> dict[Mask, set[bytes]]:
    """Every mask's keys, from nothing but what is desired."""
    found: dict[Mask, set[bytes]] = {}
    for each in wanted:
        for mask, key in elements_of(each):
            found.setdefault(mask, set()).add(key)
    return found


def probes(wanted: Iterable[Wanted]) -> list[Flow]:
    """A flow of each client to each peer with each service, from the first addresses. At a subscriber's address it
    is from the first and the last port of its block, whichever end speaks first."""
    flows: list[Flow] = []
    for each in wanted:
        if isinstance(each, Registration):
            for client in each.clients:
                flows += _from(each, client, 4000)
            for endpoint in each.endpoints:
                there = FAR_END[endpoint.family]
                flows += [Flow(one.protocol, there, endpoint.packed, 4000, one.low) for one in each.services]
        else:
            for port in each.ports or (4000,):
                for flow in _from(each.registration, each.prefix, port):
                    flows += [flow, reverse_flow(flow)]
    return flows


def _from(registration: Registration, client: Prefix, port: int) -> list[Flow]:
    peers = [peer.packed for peer in registration.peers if peer.family == client.family]
    if not registration.peers:
        peers = [FAR_END[client.family]]
    services = registration.services or parse_services(("udp/51820",))
    return [
        Flow(service.protocol, client.packed, peer, port, service.low) for peer in peers for service in services
    ]


def looks_up(mask: Mask, keys: set[bytes], flow: Flow) -> bool:
    """What the rules say of a flow by one set: in both roles, with the service at the port of either end, and a
    block of ports at the client's."""
    return not keys.isdisjoint(keys_asked(mask, flow))


@lru_cache(1 << 16)
def keys_asked(mask: Mask, flow: Flow) -> frozenset[bytes]:
    """The keys that the rules ask the mask's set for."""
    if mask.family != (4 if len(flow.source) == 4 else 6):
        return frozenset()
    if flow.protocol not in PROTOCOLS_WITH_PORTS and (mask.source_bits > 0 or mask.port_length):
        return frozenset()
    asked = set()
    near, far = (flow.source, flow.source_port), (flow.destination, flow.destination_port)
    roles, services = ((near, far), (far, near)), (far[1], near[1])
    if mask.is_endpoint:  # only what is sent to it
        roles, services = ((far, near), (far, near)), (far[1], far[1])
    for ((client, own_port), (peer, _)), service in product(roles, services):
        members = BUNDLES.get(mask.selector, ())
        if members and not any(each.matches(flow.protocol, service) for each in members):
            continue
        key = mask_address(client, mask.client_length)
        if mask.peer_length != ANY_PEER:
            key += mask_address(peer, mask.peer_length)
        if mask.has_protocol:
            key += bytes((flow.protocol, 0, 0, 0))
        for bits, port in ((mask.port_length, service), (mask.source_bits, own_port)):
            if bits > 0:
                key += (port & (0xFFFF << (16 - bits))).to_bytes(2, "big") + b"\0\0"
        asked.add(key)
    return frozenset(asked)


@cache
def _mask_of(name: str) -> Mask | None:
    """Of the set with this name. There are few names, and each is asked for a million times."""
    parsed = parse_set_name(name)
    return None if parsed is None else parsed[0]


class WatchedTables(FakeTables):
    """A fake that remembers its writes. `after_write`, like `before_write`, may raise: then the write was done.

    `monotonic`: by which elements with a timeout go.
    """

    def __init__(self, monotonic: Callable[[], float] = lambda: 0.0, *, tells_counts: bool = True) -> None:
        super().__init__(tells_counts=tells_counts, monotonic=monotonic)
        self.writes: list[Write] = []
        self.after_write: Callable[[Write], None] = lambda _: None
        self._waiting: list[asyncio.Future[None]] = []

    async def activity(self) -> None:
        """Until the reconciler next asks for something; it looks at the generation all the time."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _touched(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    async def read_generation(self) -> int:
        self._touched()
        return await super().read_generation()

    async def read_table(self) -> TableReading:
        self._touched()
        return await super().read_table()

    async def commit(self, transaction: Transaction) -> None:
        await super().commit(transaction)
        await asyncio.sleep(0)
        self._touched()
        self.writes.append(transaction)
        self.after_write(transaction)

    async def replace_rules(self, ruleset: Ruleset) -> None:
        await super().replace_rules(ruleset)
        await asyncio.sleep(0)
        self.writes.append(ruleset)
        self.after_write(ruleset)

    def looked_into(self) -> dict[Mask, set[bytes]]:
        """Keys by mask, of the sets that the rules use."""
        found: dict[Mask, set[bytes]] = {}
        for name in self.table.used - RULE_SETS if self.table is not None else ():
            mask = _mask_of(name)
            assert mask is not None
            assert self.table is not None
            found.setdefault(mask, set()).update(self.table.sets[name].keys)
        return found

    def sets_of(self, mask: Mask) -> list[set[bytes]]:
        """The contents of all sets of a mask, looked into or not."""
        sets = self.table.sets if self.table is not None else {}
        return [found.keys for name, found in sets.items() if _mask_of(name) == mask]

    def passes(self, flow: Flow) -> bool:
        return flow in self.passing([flow])

    def passing(self, flows: Iterable[Flow]) -> set[Flow]:
        """Those of the flows that the rules find registered."""
        looked_into = self.looked_into().items()
        return {flow for flow in flows if any(looks_up(mask, keys, flow) for mask, keys in looked_into)}

    def hooked_masks(self) -> list[Mask]:
        """Masks of the sets that the rules look into."""
        return sorted(self.looked_into())

    def goes_by(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic

    def ages_s(self) -> dict[tuple[str, bytes], float]:
        """How long ago each element with a timeout was put there or asserted again."""
        now = self._monotonic()
        sets = self.table.sets if self.table is not None else {}
        return {
            (name, key): now - (until_s - each.timeout_s)
            for name, each in sets.items()
            for key, until_s in each.until.items()
        }

    def causes(self) -> list[str]:
        return ["rules" if isinstance(write, Ruleset) else write.cause for write in self.writes]


def allowlist_sets(table: FakeTable | None) -> dict[str, FakeSet]:
    """Those that are not the rules' own."""
    return {} if table is None else {name: each for name, each in table.sets.items() if name not in RULE_SETS}


class MonotonicClock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """One fake kernel, the desires and policy, and a reconciler that may be thrown away.

    `wanted`: by id, at a subscriber's address with prefix and ports.
    """

    def __init__(
        self,
        fake: WatchedTables | None = None,
        *,
        policy: Policy = OBSERVE,
        monotonic: MonotonicClock | None = None,
        element_timeout_s: int = ELEMENT_TIMEOUT_S,
        spread: Callable[[], float] = lambda: 0.5,
        wanted: Iterable[Wanted] = (),
    ) -> None:
        self.element_timeout_s, self.spread = element_timeout_s, spread
        self.wanted: dict[Hashable, Wanted] = {_name_of(each): each for each in wanted}
        self.policy = policy
        self.in_sync = 0
        self.monotonic = monotonic or MonotonicClock()
        self.fake = fake or WatchedTables()
        self.fake.goes_by(self.monotonic)
        self._task: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self.reconciler = self._make()

    def _make(self) -> Reconciler:
        made = Reconciler(
            self.fake,
            TABLE,
            clock=lambda: 5000.0,
            monotonic=self.monotonic,
            element_timeout_s=self.element_timeout_s,
            spread=self.spread,
            on_in_sync=self._on_in_sync,
        )
        for each in self.wanted.values():
            made.add(each)
        return made

    def _on_in_sync(self, _: int) -> None:
        assert self.reconciler.tracker.count_missing() == 0
        self.in_sync += 1
        self._stirred.set()

    def copy_kernel(self) -> WatchedTables:
        copied = WatchedTables(self.monotonic, tells_counts=self.fake.tells_counts)
        copied.table = self.fake.table and self.fake.table.copy()
        copied.generation = self.fake.generation
        return copied

    def want(self, wanted: Iterable[Wanted], policy: Policy | None = None) -> None:
        """Move to these in the controller's way: upserts (new before old), then withdrawals."""
        new = {_name_of(each): each for each in wanted}
        for name, each in new.items():
            old = self.wanted.get(name)
            if old != each:
                self.reconciler.add(each)
                if old is not None:
                    self.reconciler.remove(old)
                self.wanted[name] = each
        for name in [name for name in self.wanted if name not in new]:
            self.reconciler.remove(self.wanted.pop(name))
        if policy is not None:
            self.policy = policy
        self.reconciler.want_policy(self.policy)

    async def settle(self) -> None:
        """Run until the kernel is as desired. An error that ends the task is raised."""
        self.reconciler.want_policy(self.policy)
        task = self._task = self._task or asyncio.create_task(self.reconciler.run())
        async with asyncio.timeout(GUARD_S):
            while not self.is_in_sync():
                self._stirred.clear()
                woken = asyncio.create_task(self._stirred.wait())
                await asyncio.wait([woken, task], return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                if task.done():
                    self._task = None
                    task.result()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look again whenever the reconciler did something."""
        async with asyncio.timeout(GUARD_S):
            while not condition():
                await self.fake.activity()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def restart(self) -> None:
        """A new process: no memory but the registry."""
        await self.stop()
        self.reconciler = self._make()

    def is_in_sync(self) -> bool:
        reconciler, table = self.reconciler, self.fake.table
        return (
            reconciler.unready() is None
            and table is not None
            and reconciler.tracker.count_surplus() == 0
            and not reconciler.tracker.retired
            and set(table.sets) - RULE_SETS == table.used - RULE_SETS
            and self.elements() == oracle(self.wanted.values())
            and reconciler.tracker.rules.tag is not None
            and table.rules == self.expected_rules()
        )

    def elements(self) -> dict[Mask, set[bytes]]:
        return {mask: keys for mask, keys in self.fake.looked_into().items() if keys}

    def expected_rules(self) -> str:
        """Into the largest sets first."""
        table = self.fake.table
        assert table is not None
        parsed = [(each[0], name) for name in table.used if (each := parse_set_name(name)) is not None]
        parsed.sort(key=lambda each: (-table.sets[each[1]].capacity, -each[0].client_length, each[0]))
        return _rules_of(self.policy, tuple(parsed), self.reconciler.epoch)


@lru_cache(maxsize=1024)
def _rules_of(policy: Policy, hooks: tuple[tuple[Mask, str], ...], epoch: int) -> str:
    """Asked for after each write, and mostly the same as before."""
    return compile_ruleset(TABLE, policy, dict(hooks), epoch).text


def _name_of(wanted: Wanted) -> Hashable:
    if isinstance(wanted, BoundRegistration):
        return wanted.registration.id, wanted.prefix, wanted.ports
    return wanted.id


class Witness:
    """Says of every write whether a flow that passed before and is registered after was lost by it."""

    def __init__(self, rig: Rig, after: Sequence[Wanted]) -> None:
        self.rig = rig
        flows = probes([*rig.wanted.values(), *after])
        still = oracle(after)
        self.protected = [
            flow
            for flow in flows
            if rig.fake.passes(flow) and any(looks_up(mask, keys, flow) for mask, keys in still.items())
        ]
        self.wanted = still
        tag = rig.reconciler.tracker.rules.tag
        self.policy = tag.policy if tag is not None else ""

    def look(self, write: Write) -> None:
        lost = [flow for flow in self.protected if not self.rig.fake.passes(flow)]
        assert not lost, f"lost by {write}"
        if isinstance(write, Ruleset) and write.policy != self.policy:
            self.policy = write.policy
            there = self.rig.fake.looked_into()
            partial = [mask for mask, keys in self.wanted.items() if not keys <= there.get(mask, set())]
            assert not partial, f"a new policy over a partial allowlist: {partial}"
            assert write.policy == policy_digest(self.rig.policy)
