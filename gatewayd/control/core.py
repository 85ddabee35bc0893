"""The parts between the registry and the kernel, wired once for the daemon, the tests and the bench."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gatewayd.allowlist.active import ActiveSet
from gatewayd.control.host_time import WindowClock
from gatewayd.control.programmer import Programmer
from gatewayd.model.policy import MarkLayout
from gatewayd.reconcile import Reconciler
from gatewayd.reconcile.connections import Connections, ConnectionScanner
from gatewayd.reconcile.dataplane import Dataplane
from gatewayd.reconcile.grace import Grace
from gatewayd.reconcile.scan_requests import ScanRequests
from gatewayd.reconcile.tracker import ELEMENT_TIMEOUT_S
from gatewayd.settings import Settings
from gatewayd.subscribers.service import longest_unreported_s
from gatewayd.watch.aggregate import UnregisteredAggregate
from gatewayd.watch.attribute import Attribution
from gatewayd.watch.handler import FlowClassifier, WatchHandler


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

    def note_in_sync(epoch: int) -> None:
        requests.settle(epoch)
        wake.set()

    subscribers = settings.subscribers
    grace_s = 0.0 if subscribers is None else longest_unreported_s(subscribers)
    timeout_s = ELEMENT_TIMEOUT_S if subscribers is None else int(subscribers.element_timeout_s)
    reconciler = Reconciler(
        dataplane,
        settings.kernel.table,
        clock=clock.likely,
        monotonic=monotonic,
        verify_every_s=settings.kernel.verify_every_s,
        element_timeout_s=timeout_s,
        spread=spread,
        on_in_sync=note_in_sync,
    )
    active, grace, attribution = ActiveSet(), Grace(grace_s), Attribution()
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
    watch = WatchHandler(
        classifier, reconciler, scanner, requests, attribution, aggregate, moment=clock.moment, clock=clock.likely
    )
    programmer = Programmer(active, reconciler, requests, grace, prepares=subscribers is not None)
    return Core(reconciler, programmer, requests, scanner, watch, attribution, aggregate, clock, wake)
