"""Marks that no longer say what is true: live flows are looked up anew after the registry changed.

Two kinds, both found by a dump that the kernel filters by mark:

- *judged unregistered*, and registered by now: the mark is cleared and the flow's next packet is classified;
- *registered*, and no longer so: left alone for `drain_s`, then cleared likewise. That a flow is no
  longer registered is seen here, whatever the reason, also if no daemon was running when it happened. How much of
  its drain is over, an earlier run tells (`restore_drains`). One that came so and was never known here waits for
  accounting first (scan_requests.Grace).

Marks come from elsewhere too: with a connection that conntrackd carried over, or from another program's rules. A
mark that contradicts the registry is not believed. Connections that a program makes are reported by events at once;
all others are gone through every `AUDIT_EVERY_S`, for at most a `AUDIT_REST`th of the time.

A mark is cleared only when the kernel would judge the flow rightly: what was registered waits for `settle`, which
says that the kernel is as desired. `look` is for what needs no waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from math import inf
from typing import Protocol

from gatewayd.errors import KernelError
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.flow import ConnectionEvent, ConnectionKey, Flow, reverse_flow
from gatewayd.model.policy import MarkLayout
from gatewayd.model.registration import Registration
from gatewayd.model.service import GRE
from gatewayd.reconcile.scan_requests import MAX_BOUND, MAX_LATE, Grace, ScanRequests, monotonic

log = get_logger(__name__)

RETRY_S = 1.0
MAX_DRAINING = 200_000
"""Flows whose drain is timed; more are found again by the next scan."""
REST = 4
"""After a search so many times as long as it took passes before the next: it goes through the kernel's whole table,
and addresses change all the time."""
REMEMBER_S = 86_400.0
"""How long it is told that flows came registered which nothing here explained."""

AUDIT_EVERY_S = 30.0
"""How often all marks are held against the registry, though nothing was registered or withdrawn."""
AUDIT_REST = 50
"""After such an audit so many times as long as it took passes before the next: 2 % of one core at most. 100,000
judged flows take 0.6 s (0.45 s of processor time, 6.18)."""


class Connections(Protocol):
    """What the scanner needs of connection tracking (kernel.conntrack). Each request may raise KernelError."""

    def dump(
        self, *, mark: int, mask: int, source: bytes | None = None, answered_by: bytes | None = None
    ) -> AsyncGenerator[list[ConnectionEvent], None]:
        """Connections with `ct mark & mask == mark`, piece by piece; of one address at an end, if it is given."""
        ...

    async def change_marks(self, connections: Iterable[ConnectionKey], value: int, mask: int) -> int:
        """Set the bits of `mask` in each mark to `value`; how many were there to change."""
        ...

    async def change_known_marks(
        self, connections: Iterable[ConnectionKey], value: int, mask: int
    ) -> list[ConnectionKey]:
        """As `change_marks`; returns those that were not there."""
        ...

    def key_of(self, flow: Flow) -> ConnectionKey | None:
        """What the flow's connection is found by; None where a flow does not say it (GRE)."""
        ...


class Classifier(Protocol):
    """What a flow is by the registry (watch.handler)."""

    def matching(self, flow: Flow, now: float) -> Sequence[Registration]:
        """The registrations that make it registered."""
        ...

    def programmed(self, flow: Flow, now: float) -> Sequence[Registration]:
        """As `matching`, without registrations that the kernel cannot be told of: a mark judged for want of those
        would be judged again, for ever."""
        ...

    def is_in_scope(self, flow: Flow) -> bool:
        """Of the policy in force; what is out of it nobody here has judged."""
        ...


class FlowTable(Protocol):
    """Told of every live registered flow that a scan meets (watch.attribute)."""

    def begin_resync(self) -> None: ...

    def listed(self, event: ConnectionEvent, registrations: Sequence[Registration], now: float) -> None: ...

    def finish_resync(self) -> int: ...

    def knows(self, event: ConnectionEvent) -> bool: ...


class ConnectionScanner:
    """Owns the drain times, which no clock that is set makes shorter or longer. `clock`: for `matching`, and for
    what is told of flows."""

    def __init__(
        self,
        conntrack: Connections,
        layout: MarkLayout,
        classifier: Classifier,
        requests: ScanRequests,
        *,
        clock: Callable[[], float],
        flow_table: FlowTable,
        grace: Grace,
    ) -> None:
        self._conntrack = conntrack
        self._layout = layout
        self._classifier = classifier
        self._requests = requests
        self._clock = clock
        self._flow_table = flow_table
        self.grace = grace
        self._external: dict[ConnectionKey, bool] = {}
        """Put in judged, and wrongly so; whether it is registered."""
        self._said = RateLimited(log, interval_s=60.0, clock=monotonic)
        self._said_waiting = RateLimited(log, interval_s=600.0, clock=monotonic)
        self._draining: dict[bytes, float] = {}
        self.drains_changed = asyncio.Event()
        self._due_of: Callable[[bytes], float | None] | None = None
        """Until all flows were gone through once."""
        self._late_to_find: set[Flow] = set()
        self._search_at = -inf
        self._audit_at = inf
        self._owed = False
        """It was woken while it rested."""
        self.scans = 0
        self.reclassified = 0
        self.drained = 0
        self.audits = 0
        self.not_believed = 0
        """Judged marks that came from elsewhere, on flows that are registered here: cleared."""
        self.carried = 0
        """Connections with a mark of ours that another program put in."""
        self.unexplained = 0
        """Flows marked registered that nothing here explains, as of the latest scan."""
        self._strange = 0
        self._strange_until = -inf

    @property
    def strange(self) -> int:
        """Connections that another program put in marked registered, and that nothing here explained then: how many
        since there was a day without any."""
        return self._strange if monotonic() < self._strange_until else 0

    @property
    def draining(self) -> int:
        """Flows whose drain runs."""
        return len(self._draining)

    @property
    def drains(self) -> Mapping[bytes, float]:
        """When each of them is over, by the monotonic clock. Live."""
        return self._draining

    def restore_drains(self, due_of: Callable[[bytes], float | None]) -> None:
        """`due_of` an identity: when its drain is over, if one of an earlier run in this boot goes on."""
        self._due_of = due_of

    def note_carried(self, event: ConnectionEvent) -> bool:
        """Another program put in this connection, and its mark has bits of ours. Whether these say registered."""
        self.carried += 1
        epoch = self._requests.epoch
        is_judged = epoch and event.mark & self._layout.mask == self._layout.judged(epoch)
        if is_judged and len(self._external) < MAX_LATE and self._note_misjudged(event, self._external):
            self._requests.wake.set()
        return bool(event.mark & self._layout.registered)

    def note_strange(self) -> None:
        """Another program put in a connection marked registered, and nothing here explains it. Without subscribers
        nothing that could is on its way: it drains."""
        self._strange = self.strange + 1
        self._strange_until = monotonic() + REMEMBER_S
        if not self.grace.longest_s:
            self._said_waiting.warning("connections.unexplained", flows=self._strange, at_most_s=0.0)

    def note_ended_early(self, event: ConnectionEvent) -> None:
        """The kernel itself has just let this flow pass as registered, and by now it is not: it drains."""
        if not self._requests.epoch:  # the registry in force is not known: the first scan tells
            self._requests.note_removed()
        elif len(self._draining) < MAX_DRAINING:
            self._draining.setdefault(event.identity, monotonic() + self._requests.drain_s)
            self.drains_changed.set()
            self._requests.wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wait()
            self._requests.wake.clear()
            if self._audit_at == inf and self._requests.epoch:
                self._audit_at = monotonic() + AUDIT_EVERY_S
            try:
                await self._admit_late()
                await self._clear_foreign()
                self._owed = monotonic() < self._search_at
                if not self._owed:
                    await self._search()
            except KernelError as error:
                log.warning("connections.failed", error=str(error), retry_in_s=RETRY_S)
                self._requests.look_at_all()
                await asyncio.sleep(RETRY_S)
                self._requests.wake.set()

    async def _search(self) -> None:
        """What is due of that which goes through the kernel's table; then it is to rest."""
        requests, began = self._requests, monotonic()
        is_audit = began >= self._audit_at
        if requests.take_reclassify():
            await self._clear_judged()
        else:
            for address in requests.take_bound():
                await self._clear_judged(address)
        if self._late_to_find and self._requests.epoch:
            await self._find_late()
        elif is_audit:
            await self._audit_judged()
        if requests.scan or is_audit or self._next_due() <= began:
            requests.drop_scan()
            await self._scan_registered()
        ended = monotonic()
        self._search_at = ended + REST * (ended - began)
        if is_audit:
            self.audits += 1
            self._audit_at = ended + max(AUDIT_EVERY_S, AUDIT_REST * (ended - began))

    async def _wait(self) -> None:
        while not self._requests.wake.is_set():
            due_s = (self._search_at if self._owed else self._next_due()) - monotonic()
            audit_s = self._audit_at - monotonic()
            try:
                async with asyncio.timeout(min(max(0.0, min(due_s, audit_s)), 60.0)):
                    await self._requests.wake.wait()
            except TimeoutError:
                if self._owed or min(self._next_due(), self._audit_at) <= monotonic():
                    return

    def _next_due(self) -> float:
        # Before the registry in force is known, no flow can be told from one that is registered no more.
        drains = self._draining.values() if self._requests.epoch else ()
        return min(self._requests.unbound_at, min(drains, default=inf))

    async def _admit_late(self) -> None:
        """By the tuple that the packet had, either way round: it is one of the connection's two, unless it was
        translated at both ends. What is not found so is looked for."""
        late, key_of = self._requests.take_late(), self._conntrack.key_of
        wanted = {key: flow for flow in late if (key := key_of(flow)) is not None}
        to_find = {flow for flow in late if flow.protocol == GRE}
        count = len(wanted)
        if wanted:
            missing = await self._conntrack.change_known_marks(wanted, 0, self._layout.epoch_mask)
            turned = {key: wanted[each] for each in missing if (key := key_of(reverse_flow(wanted[each])))}
            if turned:
                missing = await self._conntrack.change_known_marks(turned, 0, self._layout.epoch_mask)
                to_find.update(turned[key] for key in missing)
            self.reclassified += count - len(missing)
        self._late_to_find |= to_find

    async def _find_late(self) -> None:
        """Connections whose packets were logged, among all that were judged."""
        late, self._late_to_find = self._late_to_find, set()
        wanted = late | {reverse_flow(flow) for flow in late}
        openers = {flow.source for flow in wanted}
        found: list[ConnectionKey] = []
        for opener in openers if len(openers) <= MAX_BOUND else [None]:
            async for event in self._judged(source=opener):
                if event.flow in wanted:
                    found.append(event.key)
        if found:
            self.reclassified += await self._conntrack.change_marks(found, 0, self._layout.epoch_mask)

    async def _clear_judged(self, address: bytes | None = None) -> None:
        """Flows judged in this epoch that are registered now; those of older epochs are judged anew anyway.

        `address`: those alone that it opened or answers.
        """
        found: dict[bytes, ConnectionKey] = {}
        for end in ({"source": address}, {"answered_by": address}) if address is not None else ({},):
            async for event in self._judged(**end):
                if self._classifier.matching(event.flow, self._clock()):
                    found[event.identity] = event.key
        if found:
            count = await self._conntrack.change_marks(found.values(), 0, self._layout.epoch_mask)
            self.reclassified += count
            log.info("connections.reclassified", flows=count)

    async def _clear_foreign(self) -> None:
        """Connections that were put in judged, and are registered here or out of scope."""
        external, self._external = self._external, {}
        await self._disbelieve(external)

    async def _audit_judged(self) -> None:
        """Judged marks of flows that are registered or out of scope, though nothing was registered since the last
        time."""
        found: dict[ConnectionKey, bool] = {}
        async for event in self._judged():
            self._note_misjudged(event, found)
        # What was registered meanwhile is not in the kernel yet: its flows are judged rightly until it is.
        if not self._requests.is_waiting:
            await self._disbelieve(found)

    def _note_misjudged(self, event: ConnectionEvent, found: dict[ConnectionKey, bool]) -> bool:
        """Put a flow that nobody here can have judged so into `found`, with whether it is registered. Says whether
        it is one."""
        is_registered = bool(self._classifier.programmed(event.flow, self._clock()))
        if not is_registered and self._classifier.is_in_scope(event.flow):
            return False
        found[event.key] = is_registered
        return True

    async def _disbelieve(self, found: dict[ConnectionKey, bool]) -> None:
        """Clear their marks, and count the registered. What is out of scope by its tuple may be AH over IPv6:
        judged here, and tracked under the protocol inside."""
        for is_counted in (True, False):
            keys = [key for key, is_registered in found.items() if is_registered is is_counted]
            count = await self._conntrack.change_marks(keys, 0, self._layout.epoch_mask) if keys else 0
            if is_counted and count:
                self.not_believed += count
                self._said.warning("connections.not_believed", flows=count, total=self.not_believed)

    async def _judged(
        self, source: bytes | None = None, answered_by: bytes | None = None
    ) -> AsyncIterator[ConnectionEvent]:
        """Connections judged unregistered in this epoch; the loop gets its turn between batches."""
        mark, mask = self._layout.judged(self._requests.epoch), self._layout.mask
        dump = self._conntrack.dump(mark=mark, mask=mask, source=source, answered_by=answered_by)
        async with aclosing(dump) as batches:
            async for events in batches:
                await asyncio.sleep(0)
                for event in events:
                    yield event

    async def _scan_registered(self) -> None:
        now = self._clock()
        self._flow_table.begin_resync()
        self.grace.begin()
        unexplained: dict[bytes, ConnectionEvent] = {}
        lost: dict[bytes, ConnectionKey] = {}
        mark = self._layout.registered
        async with aclosing(self._conntrack.dump(mark=mark, mask=mark)) as batches:
            async for events in batches:
                await asyncio.sleep(0)
                for event in events:
                    registrations = self._classifier.matching(event.flow, now)
                    if registrations:
                        self._flow_table.listed(event, registrations, now)
                    elif self._is_draining(event.identity) or self._flow_table.knows(event):
                        lost[event.identity] = event.key
                    else:
                        unexplained[event.identity] = event
        self.scans += 1
        self._due_of = None
        self._flow_table.finish_resync()
        for key, event in unexplained.items():
            if not self.grace.holds(key, event.flow, monotonic()):
                lost[key] = event.key
        self.grace.finish()
        self.unexplained = len(unexplained)
        if self.grace.waiting:
            self._said_waiting.warning(
                "connections.unexplained", flows=self.grace.waiting, at_most_s=self.grace.longest_s
            )
        await self._drain(lost)

    def _is_draining(self, identity: bytes) -> bool:
        """Also where an earlier run began it."""
        due_s = self._due_of(identity) if self._due_of is not None else None
        if due_s is not None:
            self._draining.setdefault(identity, due_s)
        return identity in self._draining

    async def _drain(self, lost: dict[bytes, ConnectionKey]) -> None:
        # Never longer than the drain is now: it may have been shortened.
        began = monotonic()
        latest = began + self._requests.drain_s
        deadlines = {key: min(self._draining.get(key, latest), latest) for key in lost}
        due = [lost[key] for key, at_s in deadlines.items() if at_s <= began]
        later = [(key, at_s) for key, at_s in deadlines.items() if at_s > began]
        before, self._draining = self._draining, dict(later[:MAX_DRAINING])
        if self._draining != before:
            self.drains_changed.set()
        if due:
            count = await self._conntrack.change_marks(due, 0, self._layout.mask)
            self.drained += count
            log.info("connections.drained", flows=count)
