"""Grants for tests: what they are in the kernel, and a rig that wants grants beside registrations.

What tests/support/reconciling.py is for registrations' own clients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Sequence

from gatewayd.compile.desired import elements_of
from gatewayd.compile.ruleset import RULE_SETS
from gatewayd.model.binding import BoundRegistration
from gatewayd.model.flow import Flow, reverse_flow
from gatewayd.model.mask import Mask, parse_set_name
from gatewayd.model.policy import Policy
from gatewayd.model.prefix import parse_prefix
from gatewayd.model.registration import Registration
from gatewayd.model.service import parse_services
from gatewayd.reconcile import Reconciler
from tests.support import reconciling
from tests.support.planes import TABLE
from tests.support.reconciling import FAR_END, Rig, Stopwatch, WatchedTables

Wanted = Registration | BoundRegistration
ELEMENT_TIMEOUT_S = 7200


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


def granted(registration: Registration, prefix: str, ports: tuple[int, int] | None = None) -> BoundRegistration:
    return BoundRegistration(registration, parse_prefix(prefix), ports)


def bound_hosts(count: int, start: int = 1) -> list[BoundRegistration]:
    """Subscribers with an address each, from 100.64.0.0/16."""
    return [
        granted(subscribed(f"sub-{number}"), f"100.64.{number >> 8}.{number & 255}")
        for number in range(start, start + count)
    ]


def oracle(wanted: Iterable[Wanted]) -> dict[Mask, set[bytes]]:
    """Every mask's keys, from nothing but what is wanted."""
    found: dict[Mask, set[bytes]] = {}
    for each in wanted:
        for mask, key in elements_of(each):
            found.setdefault(mask, set()).add(key)
    return found


def probes(wanted: Iterable[Wanted]) -> list[Flow]:
    """As reconciling.probes; of a grant from the first and the last port of its block, whoever speaks first."""
    flows: list[Flow] = []
    for each in wanted:
        if isinstance(each, Registration):
            flows += reconciling.probes([each])
            continue
        registration, family = each.registration, each.prefix.family
        peers = [peer.packed for peer in registration.peers if peer.family == family]
        if not registration.peers:
            peers = [FAR_END[family]]
        for peer in peers:
            for service in registration.services or parse_services(("udp/51820",)):
                for port in each.ports or (4000,):
                    flow = Flow(service.protocol, each.prefix.packed, peer, port, service.low)
                    flows += [flow, reverse_flow(flow)]
    return flows


class BoundTables(WatchedTables):
    """WatchedTables whose elements with a timeout go by a monotonic clock."""

    def __init__(self, monotonic: Callable[[], float] = lambda: 0.0, *, tells_counts: bool = True) -> None:
        super().__init__(tells_counts=tells_counts)
        self._monotonic = monotonic

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


class BoundRig(Rig):
    """A Rig that wants grants too; `wanted` is by id, of grants with prefix and ports."""

    def __init__(
        self,
        fake: BoundTables | None = None,
        *,
        monotonic: Stopwatch | None = None,
        element_timeout_s: int = ELEMENT_TIMEOUT_S,
        spread: Callable[[], float] = lambda: 0.5,
        wanted: Iterable[Wanted] = (),
    ) -> None:
        self.element_timeout_s, self.spread = element_timeout_s, spread
        self.desires: dict[Hashable, Wanted] = {_name_of(each): each for each in wanted}
        watch = monotonic or Stopwatch()
        bound = fake or BoundTables(watch)
        bound.goes_by(watch)
        super().__init__(bound, watch)

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
        for each in self.desires.values():
            made.add(each)
        return made

    def copy_kernel(self) -> BoundTables:
        copied = BoundTables(self.monotonic, tells_counts=self.fake.tells_counts)
        copied.table, copied.generation = copy.deepcopy(self.fake.table), self.fake.generation
        return copied

    def want(self, wanted: Iterable[Wanted], policy: Policy | None = None) -> None:
        """Move to these in the owner's way: what is new before what is old."""
        new = {_name_of(each): each for each in wanted}
        for name, each in new.items():
            old = self.desires.get(name)
            if old != each:
                self.reconciler.add(each)
                if old is not None:
                    self.reconciler.remove(old)
                self.desires[name] = each
        for name in [name for name in self.desires if name not in new]:
            self.reconciler.remove(self.desires.pop(name))
        if policy is not None:
            self.policy = policy
        self.reconciler.want_policy(self.policy)

    def is_in_sync(self) -> bool:
        reconciler, table = self.reconciler, self.fake.table
        return (
            reconciler.unready() is None
            and table is not None
            and reconciler.tracker.count_surplus() == 0
            and not reconciler.tracker.retired
            and set(table.sets) - RULE_SETS == table.used - RULE_SETS
            and self.elements() == oracle(self.desires.values())
            and reconciler.tracker.rules.tag is not None
            and table.rules == self.expected_rules()
        )


def _name_of(wanted: Wanted) -> Hashable:
    if isinstance(wanted, BoundRegistration):
        return wanted.registration.id, wanted.prefix, wanted.ports
    return wanted.id


def hooked_masks(fake: WatchedTables) -> Sequence[Mask]:
    """Masks of the sets that the rules look into."""
    names = fake.table.used - RULE_SETS if fake.table is not None else frozenset()
    return sorted(parsed[0] for name in names if (parsed := parse_set_name(name)) is not None)
