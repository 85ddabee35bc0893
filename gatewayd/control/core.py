"""The parts between the registry and the kernel, wired once for the daemon, the tests and the bench.

The programmer stands between them: it performs what the active set desires, each change in one turn without await.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Protocol

from gatewayd.allowlist.allowlist import ActiveSet, Desired
from gatewayd.compile import ELEMENT_BYTES, KERNEL_ELEMENT_BYTES, compile_bound, count_programmed
from gatewayd.compile.near import NearClients, near_mask
from gatewayd.control.host_time import WindowClock
from gatewayd.log import get_logger
from gatewayd.model.policy import MarkLayout
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import BindingChange, BoundRegistration, Registration
from gatewayd.near_miss.keeper import NearMissKeeper
from gatewayd.reconcile import Reconciler
from gatewayd.reconcile.connections import Connections, ConnectionScanner
from gatewayd.reconcile.dataplane import Dataplane
from gatewayd.reconcile.scan_requests import Grace, ScanRequests
from gatewayd.reconcile.tracker import ELEMENT_TIMEOUT_S
from gatewayd.registry.budget import ElementBudget
from gatewayd.registry.state import RegistryState
from gatewayd.settings import RegistrySettings, Settings
from gatewayd.subscribers.service import longest_unreported_s
from gatewayd.watch.aggregate import UnregisteredAggregate
from gatewayd.watch.attribute import Attribution
from gatewayd.watch.handler import FlowClassifier, WatchHandler

log = get_logger(__name__)

_USUAL_ADDRESSES = (Prefix(bytes(4), 32), Prefix(bytes(16), 64))
"""What a phone gets: an IPv4 address, an IPv6 /64 (3GPP TS 23.401 §5.3.1.2)."""


def make_registry(settings: RegistrySettings) -> RegistryState:
    """The registry of the daemon and of `plan`, with the same bound on its elements."""
    return RegistryState(settings, ElementBudget(count_programmed, max_elements_of(settings)))


def max_elements_of(settings: RegistrySettings) -> int:
    """As configured; else half of the memory that this process may have, in elements here and in the kernel."""
    if settings.max_elements is not None:
        return settings.max_elements
    return memory_bytes() // 2 // (ELEMENT_BYTES + KERNEL_ELEMENT_BYTES)


def memory_bytes() -> int:
    """Of this host, or of the smallest cgroup (v2) around this process."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError):
        path = Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().partition("0::/")[2].strip()
        for each in (path, *path.parents):
            with suppress(OSError, ValueError):  # no such file, or "max"
                limits.append(int((each / "memory.max").read_text()))
    return min(limits)


class WindowLog:
    """A line for each window that opens or closes, within a bound: a category may begin or end with the year."""

    MAX_LINES = 100
    EVERY_S = 60.0

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since_s = -inf
        self._lines = 0

    def opened(self, id: str) -> None:
        if self._has_room():
            log.info("window.opened", id=id)

    def closed(self, id: str) -> None:
        if self._has_room():
            log.info("window.closed", id=id)

    def _has_room(self) -> bool:
        now_s = self._monotonic()
        if now_s - self._since_s >= self.EVERY_S:
            self._since_s, self._lines = now_s, 0
        self._lines += 1
        if self._lines == self.MAX_LINES + 1:
            log.info("window.not_listed", lines=self.MAX_LINES, interval_s=self.EVERY_S)
        return self._lines <= self.MAX_LINES


class Programmer:
    """`prepares`: have sets ready for addresses that subscribers may get. What `upsert` and `withdraw` return are
    digests of subscribers that a registration names now, or none any more."""

    def __init__(
        self,
        active: ActiveSet,
        reconciler: Reconciler,
        requests: ScanRequests,
        grace: Grace,
        near_misses: NearMissKeeper,
        *,
        prepares: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.active = active
        self._allowlist = active.allowlist
        self._reconciler = reconciler
        self._requests = requests
        self._grace = grace
        self._near_misses = near_misses
        self._prepares = prepares
        self._window_log = WindowLog(monotonic)

    def upsert(self, registration: Registration, now: float) -> tuple[bytes, ...]:
        old = self._allowlist.get(registration.id)
        subscribers = self._perform(self.active.upsert(registration, now))
        self._near_misses.replaced(old, registration)
        return subscribers

    def withdraw(self, registration_id: str) -> tuple[bytes, ...]:
        self._near_misses.replaced(self._allowlist.get(registration_id), None)
        return self._perform(self.active.withdraw(registration_id))

    def refresh(self, registration_id: str, now: float) -> None:
        """A window may have opened or closed."""
        desired = self.active.refresh(registration_id, now)
        if desired.add:
            self._window_log.opened(registration_id)
        elif desired.remove:
            self._window_log.closed(registration_id)
        self._perform(desired)

    def _perform(self, desired: Desired) -> tuple[bytes, ...]:
        add, remove = desired.add, desired.remove
        if add:
            for wanted in add:
                self._reconciler.add(wanted)
            if self._prepares and isinstance(add[0], Registration):
                self._prepare(add[0])
            self._requests.note_added()
        if remove:
            for wanted in remove:
                self._reconciler.remove(wanted)
            self._requests.note_removed()
        return desired.subscribers

    def _prepare(self, registration: Registration) -> None:
        if registration.subscriber is not None:
            self._reconciler.prepare(near_mask(each.family, each.length) for each in _USUAL_ADDRESSES)
            for prefix in _USUAL_ADDRESSES:
                self._reconciler.prepare(mask for mask, _ in compile_bound(BoundRegistration(registration, prefix)))

    # -- for the table of sessions -------------------------------------------------------------------------

    def take(self, changes: Iterable[BindingChange]) -> None:
        """Bindings came and went; those that came are first."""
        for change in changes:
            binding = change.binding
            if change.kind == "added":
                self._near_misses.bound(binding)
                for bound in self.active.bind(binding):
                    self._reconciler.add(bound)
                    self._requests.note_bound(binding.prefix)
            else:
                self._near_misses.unbound(binding, self._allowlist.registrations_of(binding.subscriber))
                for bound in self.active.unbind(binding):
                    self._reconciler.remove(bound)
                    self._requests.note_unbound()

    def hear(self, prefixes: Iterable[Prefix]) -> None:
        """Accounting has named these addresses, whosever they are."""
        self._grace.hear(prefixes)

    def wait_for_accounting(self, longest_s: float) -> None:
        """For how long a session may not be heard of, from now on (Grace)."""
        self._grace.wait_for(longest_s)

    def leave_unless(self, explains: Callable[[Prefix, tuple[int, int] | None], bool]) -> None:
        """What a start finds in the kernel of bindings, and this does not know of, stays until its time is over."""
        self._reconciler.leave_unless(explains)

    @property
    def left(self) -> int:
        """Elements that are left so."""
        return self._reconciler.count_left()

    def let_go(self, prefix: Prefix, ports: tuple[int, int] | None) -> None:
        """Accounting says of a place who has it, or that no subscriber has it any more."""
        self._reconciler.let_go(prefix, ports)


class Subscribers(Protocol):
    """What the table of sessions is told of the registry."""

    def recheck(self, subscriber: bytes) -> None:
        """A registration names this digest now, or none any more."""
        ...

    def forget_unregistered(self) -> None:
        """The registry is known for what it is now."""
        ...


class InSync:
    """When the kernel was last known to be as desired. The element of an address that changes hands is there in a
    moment: no reason to take a gateway out of service."""

    GRACE_S = 1.0
    MAX_WAIT_S = 30.0

    def __init__(self, monotonic: Callable[[], float], requests: ScanRequests, wake: asyncio.Event) -> None:
        self._monotonic = monotonic
        self._requests = requests
        self._wake = wake
        self._at_s = -inf
        self._synced = asyncio.Event()
        self.epoch = 0
        """Of the rules with which the kernel was last read back as desired."""

    def settle(self, epoch: int) -> None:
        """The kernel has just come to be as desired."""
        self.epoch = epoch
        self.note()
        self._requests.settle(epoch)
        self._wake.set()
        self._synced.set()

    async def wait(self) -> None:
        """Until the kernel next comes to be as desired, MAX_WAIT_S at most."""
        self._synced.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.MAX_WAIT_S):
                await self._synced.wait()

    def note(self) -> None:
        """It is as desired."""
        self._at_s = self._monotonic()

    def is_recent(self) -> bool:
        return self._monotonic() - self._at_s <= self.GRACE_S


@dataclass(frozen=True, slots=True)
class Core:
    """`wake`: something happened that the controller's clock has to look at before its time."""

    reconciler: Reconciler
    programmer: Programmer
    requests: ScanRequests
    scanner: ConnectionScanner
    watch: WatchHandler
    attribution: Attribution
    aggregate: UnregisteredAggregate
    clock: WindowClock
    wake: asyncio.Event
    in_sync: InSync
    near_misses: NearMissKeeper


def build_core(
    settings: Settings,
    dataplane: Dataplane,
    conntrack: Connections,
    clock: WindowClock,
    *,
    monotonic: Callable[[], float],
    spread: Callable[[], float] = lambda: 0.5,
) -> Core:
    """`spread`: 0..1, anew each time (reconcile.element_timeout)."""
    wake, requests = asyncio.Event(), ScanRequests(settings.policy.drain_s)
    in_sync = InSync(monotonic, requests, wake)
    subscribers = settings.subscribers
    grace_s = 0.0 if subscribers is None else longest_unreported_s(subscribers)
    timeout_s = ELEMENT_TIMEOUT_S if subscribers is None else int(subscribers.element_timeout_s)
    active, grace, attribution, near = ActiveSet(), Grace(grace_s), Attribution(), NearClients()
    reconciler = Reconciler(
        dataplane,
        settings.kernel.table,
        clock=clock.likely,
        monotonic=monotonic,
        near=near,
        verify_every_s=settings.kernel.verify_every_s,
        element_timeout_s=timeout_s,
        spread=spread,
        on_in_sync=in_sync.settle,
    )
    classifier = FlowClassifier(active.allowlist, reconciler)
    scanner = ConnectionScanner(
        conntrack,
        MarkLayout(settings.kernel.ct_mark_mask),
        classifier,
        requests,
        clock=clock.moment,
        flow_table=attribution,
        grace=grace,
    )
    aggregate = UnregisteredAggregate(settings.watch.unregistered)
    near_parts = active.allowlist, near, reconciler.want_near
    near_misses = NearMissKeeper(*near_parts, clock=clock.likely, monotonic=monotonic)
    watch = WatchHandler(
        classifier, reconciler, scanner, requests, attribution, aggregate, near_misses.seen,
        moment=clock.moment, clock=clock.likely, monotonic=monotonic,
    )  # fmt: skip
    programmer = Programmer(
        active, reconciler, requests, grace, near_misses, prepares=subscribers is not None, monotonic=monotonic
    )
    return Core(
        reconciler, programmer, requests, scanner, watch, attribution, aggregate, clock, wake, in_sync, near_misses
    )
