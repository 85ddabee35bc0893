"""Marks that no longer say what is true: live flows are looked up anew after the registry changed.

Two kinds, both found by a dump that the kernel filters by mark:

- *judged unregistered*, and registered by now: the mark is cleared and the flow's next packet is classified;
- *registered*, and no longer so: left alone for `drain_s`, then cleared likewise. That a flow is no
  longer registered is seen here, whatever the reason and whoever was running when it happened, so a restart
  needs no memory of it. One that came so and was never known here waits for accounting first (gatewayd.grace).

Marks come from elsewhere too: with a connection that conntrackd carried over, or from another program's rules. A
mark that contradicts the registry is not believed. Connections that a program makes are told by events at once; all
others are gone through every `AUDIT_EVERY_S`, for at most a `AUDIT_REST`th of the time.

A mark is cleared only when the kernel would judge the flow rightly: what was registered waits for `settle`, which
says that the kernel is as desired. `look` is for what needs no waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from math import inf
from typing import Protocol

from gatewayd.errors import KernelError
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.kernel.conntrack_codec import ConnectionEvent, ConnectionKey, key_of_flow
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.flow import Flow, reverse_flow
from gatewayd.model.policy import MarkLayout
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Registration
from gatewayd.model.service import GRE
from gatewayd.reconcile.grace import Grace

log = get_logger(__name__)

RETRY_S = 1.0
MAX_DRAINING = 200_000
"""Flows whose drain is timed; more are found again by the next survey."""
MAX_BOUND = 16
"""Addresses whose flows are asked for one by one; beyond, all that were judged are gone through."""
MAX_UNBOUND_S = 30.0
"""How long a survey waits for more addresses that subscribers lost; at most a 20th of the drain."""
REST = 4
"""After a search so many times as long as it took passes before the next: it goes through the kernel's whole table,
and addresses change all the time."""
REMEMBER_S = 86_400.0
"""How long it is told that flows came registered which nothing here explained."""
MAX_LATE = 10_000
"""Late flows remembered by their tuples; more are found by going through all that were judged."""

AUDIT_EVERY_S = 30.0
"""How often all marks are held against the registry, though nothing was registered or withdrawn."""
AUDIT_REST = 50
"""After such a audit so many times as long as it took passes before the next: 2 % of one core at most. 100,000
judged flows take 0.6 s (0.45 s of processor time, 6.18)."""

Matching = Callable[[Flow, float], Sequence[Registration]]


class FlowTable(Protocol):
    """Who is told of every live registered flow that a survey meets (watch.attribute)."""

    def begin_resync(self) -> None: ...

    def listed(self, event: ConnectionEvent, registrations: Sequence[Registration], now: float) -> None: ...

    def finish_resync(self) -> int: ...

    def knows(self, event: ConnectionEvent) -> bool: ...


class ConnectionScanner:
    """Owns the drain times, which no clock that is set makes shorter or longer. `clock`: for `matching`, and for
    what is told of flows."""

    def __init__(
        self,
        conntrack: Conntrack,
        layout: MarkLayout,
        matching: Matching,
        *,
        clock: Callable[[], float],
        drain_s: float,
        flow_table: FlowTable,
        programmed: Matching | None = None,
        in_scope: Callable[[Flow], bool] = lambda _: True,
    ) -> None:
        """`programmed`: as `matching`, without registrations that the kernel cannot be told of: a mark judged for
        want of those would be judged again, for ever. `in_scope`: of the policy in force; what is out of it nobody
        here has judged."""
        self._conntrack = conntrack
        self.layout = layout
        self._matching = matching
        self._clock = clock
        self._programmed = programmed or matching
        self._in_scope = in_scope
        self._flow_table = flow_table
        self.grace = Grace()
        self._external: dict[ConnectionKey, bool] = {}
        """Put in judged, and wrongly so; whether it is registered."""
        self._said = RateLimited(log, interval_s=60.0, clock=_monotonic)
        self._said_waiting = RateLimited(log, interval_s=600.0, clock=_monotonic)
        self._draining: dict[bytes, float] = {}
        self._late: list[Flow] = []
        self._late_in_kernel: list[Flow] = []
        self._late_to_find: set[Flow] = set()
        self._bound: set[bytes] = set()
        self._bound_in_kernel: set[bytes] = set()
        self._unbound_at = inf
        self._search_at = -inf
        self._audit_at = inf
        self._owed = False
        """It was woken while it rested."""
        self._added = self._reclassify = self._scan = False
        self._wake = asyncio.Event()
        self.drain_s = drain_s
        self.epoch = 0
        self.scans = 0
        self.reclassified = 0
        self.drained = 0
        self.audits = 0
        self.not_believed = 0
        """Judged marks that came from elsewhere, on flows that are registered here: cleared."""
        self.carried = 0
        """Connections with a mark of ours that another program put in."""
        self.unexplained = 0
        """Flows marked registered that nothing here explains, as of the latest survey."""
        self._strange = 0
        self._strange_until = -inf

    @property
    def strange(self) -> int:
        """Connections that another program put in marked registered, and that nothing here explained then: how many
        since there was a day without any."""
        return self._strange if _monotonic() < self._strange_until else 0

    @property
    def draining(self) -> int:
        """Flows whose drain runs."""
        return len(self._draining)

    def note_added(self) -> None:
        """Something was registered: flows judged before may be registered now."""
        self._added = True

    def note_removed(self) -> None:
        """Something was withdrawn, or flow events were lost: look at the registered flows."""
        self._scan = True

    def note_bound(self, prefix: Prefix) -> None:
        """A registered subscriber has this address now; flows of it may have been judged a moment before."""
        if prefix.length == 8 * len(prefix.packed) and len(self._bound) < MAX_BOUND:
            self._bound.add(prefix.packed)
        else:
            self._added = True

    def note_unbound(self) -> None:
        """A subscriber lost an address: its flows begin to drain, and no hurry is in that."""
        if self.drain_s:
            self._unbound_at = min(self._unbound_at, _monotonic() + min(MAX_UNBOUND_S, self.drain_s / 20))
        else:
            self._scan = True

    def note_late(self, flow: Flow, *, in_kernel: bool = False) -> None:
        """This very flow was judged unregistered a moment too early. `in_kernel`: it would not be now."""
        late = self._late_in_kernel if in_kernel else self._late
        if len(late) < MAX_LATE:
            late.append(flow)
        elif in_kernel:
            self._reclassify = True
        else:
            self._added = True
        if in_kernel:
            self._wake.set()

    def note_carried(self, event: ConnectionEvent) -> None:
        """Another program put in this connection, and its mark has bits of ours."""
        self.carried += 1
        is_judged = event.mark & self.layout.mask == self.layout.judged(self.epoch)
        has_room = len(self._external) < MAX_LATE
        if is_judged and self.epoch and has_room and self._note_misjudged(event, self._external):
            self._wake.set()

    def note_strange(self) -> None:
        """Another program put in a connection marked registered, and nothing here explains it. Without subscribers
        nothing that could is on its way: it drains."""
        self._strange = self.strange + 1
        self._strange_until = _monotonic() + REMEMBER_S
        if not self.grace.longest_s:
            self._said_waiting.warning("connections.unexplained", flows=self._strange, at_most_s=0.0)

    def note_ended_early(self, event: ConnectionEvent) -> None:
        """The kernel itself has just let this flow pass as registered, and by now it is not: it drains."""
        if len(self._draining) < MAX_DRAINING:
            self._draining.setdefault(event.tuple_bytes, _monotonic() + self.drain_s)
            self._wake.set()

    def settle(self, epoch: int) -> None:
        """The kernel is as desired, in this epoch: now a new judgement gives the right result."""
        # The number of a new epoch may have been in use before, and flows may carry it from then.
        self._reclassify = self._reclassify or self._added or epoch != self.epoch
        self._added = False
        self._late_in_kernel += self._late
        self._late = []
        self._bound_in_kernel |= self._bound
        self._bound = set()
        self.epoch = epoch
        if self._audit_at == inf:
            self._audit_at = _monotonic() + AUDIT_EVERY_S
        self._wake.set()

    def look(self) -> None:
        """Survey now if something was removed; what was added goes on to wait for the kernel."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wait()
            self._wake.clear()
            try:
                await self._admit_late()
                await self._clear_foreign()
                self._owed = _monotonic() < self._search_at
                if not self._owed:
                    await self._search()
            except KernelError as error:
                log.warning("connections.failed", error=str(error), retry_in_s=RETRY_S)
                self._reclassify = self._scan = True
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def _search(self) -> None:
        """What is due of that which goes through the kernel's table; then it is to rest."""
        began = _monotonic()
        is_audit = began >= self._audit_at
        if self._reclassify and self.epoch:
            self._reclassify, self._bound_in_kernel = False, set()
            await self._clear_judged()
        elif self._bound_in_kernel and self.epoch:
            addresses, self._bound_in_kernel = self._bound_in_kernel, set()
            for address in addresses:
                await self._clear_judged(address)
        if self._late_to_find and self.epoch:
            await self._find_late()
        elif is_audit:
            await self._audit_judged()
        if self._scan or is_audit or self._next_due() <= began:
            self._scan, self._unbound_at = False, inf
            await self._scan_registered()
        ended = _monotonic()
        self._search_at = ended + REST * (ended - began)
        if is_audit:
            self.audits += 1
            self._audit_at = ended + max(AUDIT_EVERY_S, AUDIT_REST * (ended - began))

    async def _wait(self) -> None:
        while not self._wake.is_set():
            due_s = (self._search_at if self._owed else self._next_due()) - _monotonic()
            audit_s = self._audit_at - _monotonic()
            try:
                async with asyncio.timeout(min(max(0.0, min(due_s, audit_s)), 60.0)):
                    await self._wake.wait()
            except TimeoutError:
                if self._owed or min(self._next_due(), self._audit_at) <= _monotonic():
                    return

    def _next_due(self) -> float:
        return min(self._unbound_at, min(self._draining.values(), default=inf))

    async def _admit_late(self) -> None:
        """By the tuple that the packet had, either way round: it is one of the connection's two, unless it was
        translated at both ends. What is not found so is looked for."""
        late, self._late_in_kernel = self._late_in_kernel, []
        wanted = {key: flow for flow in late if (key := key_of_flow(flow)) is not None}
        to_find = {flow for flow in late if flow.protocol == GRE}
        count = len(wanted)
        if wanted:
            missing = await self._conntrack.change_known_marks(wanted, 0, self.layout.mask)
            turned = {key: wanted[each] for each in missing if (key := key_of_flow(reverse_flow(wanted[each])))}
            if turned:
                missing = await self._conntrack.change_known_marks(turned, 0, self.layout.mask)
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
            self.reclassified += await self._conntrack.change_marks(found, 0, self.layout.mask)

    async def _clear_judged(self, address: bytes | None = None) -> None:
        """Flows judged in this epoch that are registered now; those of older epochs are judged anew anyway.

        `address`: those alone that it opened or answers.
        """
        found: dict[bytes, ConnectionKey] = {}
        for end in ({"source": address}, {"answered_by": address}) if address is not None else ({},):
            async for event in self._judged(**end):
                if self._matching(event.flow, self._clock()):
                    found[event.tuple_bytes + event.zone.to_bytes(2, "big")] = event.key
        if found:
            count = await self._conntrack.change_marks(found.values(), 0, self.layout.mask)
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
        if not (self._added or self._bound or self._late):
            await self._disbelieve(found)

    def _note_misjudged(self, event: ConnectionEvent, found: dict[ConnectionKey, bool]) -> bool:
        """Put a flow that nobody here can have judged so into `found`, with whether it is registered. Says whether
        it is one."""
        is_registered = bool(self._programmed(event.flow, self._clock()))
        if not is_registered and self._in_scope(event.flow):
            return False
        found[event.key] = is_registered
        return True

    async def _disbelieve(self, found: dict[ConnectionKey, bool]) -> None:
        """Clear their marks, and count the registered. What is out of scope by its tuple may be AH over IPv6:
        judged here, and tracked under the protocol inside."""
        for is_counted in (True, False):
            keys = [key for key, is_registered in found.items() if is_registered is is_counted]
            count = await self._conntrack.change_marks(keys, 0, self.layout.mask) if keys else 0
            if is_counted and count:
                self.not_believed += count
                self._said.warning("connections.not_believed", flows=count, total=self.not_believed)

    async def _judged(
        self, source: bytes | None = None, answered_by: bytes | None = None
    ) -> AsyncIterator[ConnectionEvent]:
        """Connections judged unregistered in this epoch; the loop gets its turn between batches."""
        mark, mask = self.layout.judged(self.epoch), self.layout.mask
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
        mark = self.layout.registered
        async with aclosing(self._conntrack.dump(mark=mark, mask=mark)) as batches:
            async for events in batches:
                await asyncio.sleep(0)
                for event in events:
                    registrations = self._matching(event.flow, now)
                    if registrations:
                        self._flow_table.listed(event, registrations, now)
                    elif event.tuple_bytes in self._draining or self._flow_table.knows(event):
                        lost[event.tuple_bytes] = event.key
                    else:
                        unexplained[event.tuple_bytes] = event
        self.scans += 1
        self._flow_table.finish_resync()
        for key, event in unexplained.items():
            if not self.grace.holds(key, event.flow, _monotonic()):
                lost[key] = event.key
        self.grace.finish()
        self.unexplained = len(unexplained)
        if self.grace.waiting:
            self._said_waiting.warning(
                "connections.unexplained", flows=self.grace.waiting, at_most_s=self.grace.longest_s
            )
        await self._drain(lost)

    async def _drain(self, lost: dict[bytes, ConnectionKey]) -> None:
        # Never longer than the drain is now: it may have been shortened.
        began = _monotonic()
        latest = began + self.drain_s
        deadlines = {key: min(self._draining.get(key, latest), latest) for key in lost}
        due = [lost[key] for key, at_s in deadlines.items() if at_s <= began]
        later = [(key, at_s) for key, at_s in deadlines.items() if at_s > began]
        self._draining = dict(later[:MAX_DRAINING])
        if due:
            count = await self._conntrack.change_marks(due, 0, self.layout.mask)
            self.drained += count
            log.info("connections.drained", flows=count)


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
