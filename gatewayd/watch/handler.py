"""What follows from events of the kernel: late admission, attribution, counts of unregistered flows, losses.

One turn without await for a whole batch: no verdict waits for it but that of a registered flow that was refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from gatewayd.allowlist import Allowlist, in_scope
from gatewayd.log import RateLimited, get_logger
from gatewayd.model import Flow, reverse_flow
from gatewayd.model.flow import ConnectionEvent
from gatewayd.model.registration import BoundRegistration, Registration
from gatewayd.reconcile import Reconciler
from gatewayd.reconcile.connections import ConnectionScanner
from gatewayd.reconcile.scan_requests import ScanRequests
from gatewayd.watch.aggregate import UnregisteredAggregate
from gatewayd.watch.attribute import Attribution
from gatewayd.watch.repeats import Repeats

log = get_logger(__name__)

MAX_LATE_IDS = 8
"""Registrations that were admitted late, for who asks why."""
TURN_S = 0.005
"""Of events in one turn of the loop, then others have theirs; an event that takes longer ends it."""


class FlowClassifier:
    """What a flow is by the registry, and what of that the kernel can be told (reconcile.connections)."""

    __slots__ = ("_allowlist", "_reconciler", "matching")

    def __init__(self, allowlist: Allowlist, reconciler: Reconciler) -> None:
        self._allowlist = allowlist
        self._reconciler = reconciler
        self.matching = allowlist.matching_connection
        """Of connections: it does not matter whose packet made one."""

    def programmed(self, flow: Flow, now: float) -> tuple[Registration, ...]:
        """As `matching`, without registrations that the kernel cannot be told of at the flow's addresses: to the
        kernel these are not registered, and telling it again changes nothing. Without providers', whose endpoints
        are for packets from inside: that it came from there only the kernel knows."""
        registrations = self._allowlist.matching(flow, now)
        if not registrations:
            return registrations
        if self._allowlist.has_providers:
            registrations = tuple(each for each in registrations if not each.endpoints)
        unprogrammed = self._reconciler.unprogrammed()
        if not unprogrammed:
            return registrations
        is_unprogrammed = self._reconciler.is_unprogrammed
        return tuple(
            each
            for each in registrations
            if each.id not in unprogrammed or not all(map(is_unprogrammed, self.wanted_at(each, flow)))
        )

    def providers(self, flow: Flow, now: float) -> tuple[Registration, ...]:
        """Of endpoints, those that make the flow registered if it came from inside."""
        if not self._allowlist.has_providers:
            return ()
        is_unprogrammed = self._reconciler.is_unprogrammed
        found = self._allowlist.matching(flow, now)
        return tuple(each for each in found if each.endpoints and not is_unprogrammed(each))

    def is_to_provider(self, flow: Flow) -> bool:
        """Whether a provider has the destination, whatever its status."""
        return self._allowlist.has_providers and bool(self._allowlist.endpoints_at(flow.destination))

    def wanted_at(self, registration: Registration, flow: Flow) -> Iterator[Registration | BoundRegistration]:
        """The registration, and what it is given, where they have an end of the flow."""
        ends = flow.source, flow.destination
        if any(client.covers(end) for client in registration.clients for end in ends) or any(
            endpoint.covers(flow.destination) for endpoint in registration.endpoints
        ):
            yield registration
        for bound in self._allowlist.bound_registrations_of(registration):
            if any(map(bound.prefix.covers, ends)):
                yield bound

    def is_in_scope(self, flow: Flow) -> bool:
        """By the port of either end: the far end may have spoken first."""
        policy = self._reconciler.policy_in_force
        return policy is None or in_scope(policy.scope, flow) or in_scope(policy.scope, reverse_flow(flow))


class WatchHandler:
    """`moment`: the time for windows (model.moment); `clock`: the likely time, for what is told of flows;
    `monotonic`: a clock that is never set. `near_miss` is told of flows from near a client of a registration, and
    of the time for windows."""

    def __init__(
        self,
        classifier: FlowClassifier,
        reconciler: Reconciler,
        scanner: ConnectionScanner,
        requests: ScanRequests,
        attribution: Attribution,
        aggregate: UnregisteredAggregate,
        near_miss: Callable[[Flow, float], bool],
        *,
        moment: Callable[[], float],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._classifier = classifier
        self._reconciler = reconciler
        self._scanner = scanner
        self._requests = requests
        self._attribution = attribution
        self._aggregate = aggregate
        self._near_miss = near_miss
        self._moment = moment
        self._clock = clock
        self._monotonic = monotonic
        self._said_late = RateLimited(log, interval_s=10.0, clock=clock)
        self._said_lost = RateLimited(log, interval_s=10.0, clock=clock)
        self.late_admissions = 0
        self.late_flows, self.near_flows = Repeats(), Repeats()
        """Of registered flows, and of near misses: a client that tries again counts once."""
        self.late_ids: deque[str] = deque(maxlen=MAX_LATE_IDS)
        self.resyncs = 0

    def on_packets(self, flows: Sequence[Flow]) -> int:
        """Packets in scope that matched nothing in the kernel. A registered one is admitted late, at once.

        Returns how many were looked at: as many as there is time for in a turn, one at least.
        """
        return self._look_at(flows, is_near=False)

    def on_near(self, flows: Sequence[Flow]) -> int:
        """As `on_packets`, from prefixes that clients of registrations lie in: near misses are among them."""
        return self._look_at(flows, is_near=True)

    def _look_at(self, flows: Sequence[Flow], *, is_near: bool) -> int:
        now, moment, monotonic = self._clock(), self._moment(), self._monotonic
        end = monotonic() + TURN_S
        for number, flow in enumerate(flows, 1):
            registrations = self._classifier.programmed(flow, moment)
            if registrations:
                self._admit_late(flow, registrations)
            elif not self._admit_to_endpoint(flow, moment):
                self._aggregate.seen(flow, now)
                if is_near and self._near_miss(flow, moment):
                    self.near_flows.note(flow, monotonic())
                elif not is_near and self._classifier.is_to_provider(flow):
                    self._near_miss(flow, moment)  # a stranger's, and a provider whom to call
            if monotonic() > end:
                return number
        return len(flows)

    def _admit_late(self, flow: Flow, registrations: tuple[Registration, ...]) -> None:
        wanted = [each for one in registrations for each in self._classifier.wanted_at(one, flow)]
        # If none is missing they are in the kernel by now, and only the flow's mark is out of date.
        self._note_late(flow, registrations, in_kernel=not self._reconciler.prioritise(wanted))

    def _admit_to_endpoint(self, flow: Flow, moment: float) -> bool:
        """Whether the kernel does not have the endpoint that it is to. If it has, the packet came from outside."""
        providers = self._classifier.providers(flow, moment)
        if not (providers and self._reconciler.prioritise(providers)):
            return False
        self._note_late(flow, providers, in_kernel=False)
        return True

    def _note_late(self, flow: Flow, registrations: tuple[Registration, ...], *, in_kernel: bool) -> None:
        self.late_admissions += 1
        if self.late_flows.note(flow, self._monotonic()):
            self.late_ids.append(registrations[0].id)
        self._requests.note_late(flow, in_kernel=in_kernel)
        self._said_late.info("late_admission", id=registrations[0].id)

    def on_connections(self, events: Sequence[ConnectionEvent]) -> int:
        """Begin and end of flows that the kernel knows as registered; flows that another program put in.

        Returns how many were looked at, as `on_packets` does.
        """
        now, moment, monotonic = self._clock(), self._moment(), self._monotonic
        matching, opened, closed = self._classifier.matching, self._attribution.opened, self._attribution.closed
        end = monotonic() + TURN_S
        for number, event in enumerate(events, 1):
            if monotonic() > end and number > 1:
                return number - 1
            if event.sender_port and event.kind == "new" and not self._scanner.note_carried(event):
                continue
            if event.kind == "destroy":
                closed(event, now)
            else:
                registrations = matching(event.flow, moment)
                opened(event, registrations, now)
                if not registrations and not event.sender_port:
                    self._scanner.note_ended_early(event)
                elif not registrations and event.kind == "new" and self._reconciler.has_allowlist:
                    self._scanner.note_strange()
        return len(events)

    def on_lost(self, source: str) -> None:
        """Events were lost: what there is now comes from a dump."""
        self._said_lost.warning("watch.overrun", source=source)
        if source == "conntrack":
            self.resyncs += 1
            self._requests.note_removed()
            if self._reconciler.has_allowlist:
                self._requests.look()
