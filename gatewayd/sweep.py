"""Marks that no longer say what is true: live flows are looked up anew after the registry changed.

Two kinds, both found by a dump that the kernel filters by mark:

- *judged unregistered*, and registered by now: the mark is cleared and the flow's next packet is classified;
- *registered*, and no longer so: left alone for `drain_s` (DESIGN §7), then cleared likewise. That a flow is no
  longer registered is seen here, whatever the reason and whoever was running when it happened, so a restart
  needs no memory of it.

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
from gatewayd.log import get_logger
from gatewayd.model.flow import Flow
from gatewayd.model.policy import MarkLayout
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Registration
from gatewayd.model.service import GRE

log = get_logger(__name__)

RETRY_S = 1.0
MOST_DRAINING = 200_000
"""Flows whose drain is timed; more are found again by the next survey."""
MOST_BOUND = 16
"""Addresses whose flows are asked for one by one; beyond, all that were judged are gone through."""
LONGEST_UNBOUND_S = 30.0
"""How long a survey waits for more addresses that subscribers lost; at most a 20th of the drain."""
REST = 4
"""After a search so many times as long as it took passes before the next: it goes through the kernel's whole table,
and addresses change all the time."""
MOST_LATE = 10_000
"""Late flows remembered by their tuples; more are found by going through all that were judged."""

Matching = Callable[[Flow, float], Sequence[Registration]]


class FlowTable(Protocol):
    """Who is told of every live registered flow that a survey meets (watch.attribute)."""

    def begin_resync(self) -> None: ...

    def listed(self, event: ConnectionEvent, registrations: Sequence[Registration], now: float) -> None: ...

    def finish_resync(self) -> int: ...


class Sweeper:
    """Owns the drain times."""

    def __init__(
        self,
        conntrack: Conntrack,
        layout: MarkLayout,
        matching: Matching,
        *,
        clock: Callable[[], float],
        drain_s: float,
        flow_table: FlowTable,
    ) -> None:
        self._conntrack = conntrack
        self._layout = layout
        self._matching = matching
        self._clock = clock
        self._flow_table = flow_table
        self._draining: dict[bytes, float] = {}
        self._late: list[Flow] = []
        self._late_in_kernel: list[Flow] = []
        self._late_to_find: set[Flow] = set()
        self._bound: set[bytes] = set()
        self._bound_in_kernel: set[bytes] = set()
        self._unbound_at = inf
        self._search_at = -inf
        self._owed = False
        """It was woken while it rested."""
        self._added = self._rejudge = self._survey = False
        self._wake = asyncio.Event()
        self.drain_s = drain_s
        self.epoch = 0
        self.surveys = 0
        self.rejudged = 0
        self.drained = 0

    def note_added(self) -> None:
        """Something was registered: flows judged before may be registered now."""
        self._added = True

    def note_removed(self) -> None:
        """Something was withdrawn, or flow events were lost: look at the registered flows."""
        self._survey = True

    def note_bound(self, prefix: Prefix) -> None:
        """A registered subscriber has this address now; flows of it may have been judged a moment before."""
        if prefix.length == 8 * len(prefix.packed) and len(self._bound) < MOST_BOUND:
            self._bound.add(prefix.packed)
        else:
            self._added = True

    def note_unbound(self) -> None:
        """A subscriber lost an address: its flows begin to drain, and no hurry is in that."""
        if self.drain_s:
            self._unbound_at = min(self._unbound_at, self._clock() + min(LONGEST_UNBOUND_S, self.drain_s / 20))
        else:
            self._survey = True

    def note_late(self, flow: Flow, *, in_kernel: bool = False) -> None:
        """This very flow was judged unregistered a moment too early. `in_kernel`: it would not be now."""
        late = self._late_in_kernel if in_kernel else self._late
        if len(late) < MOST_LATE:
            late.append(flow)
        elif in_kernel:
            self._rejudge = True
        else:
            self._added = True
        if in_kernel:
            self._wake.set()

    def settle(self, epoch: int) -> None:
        """The kernel is as desired, in this epoch: now a new judgement gives the right result."""
        # The number of a new epoch may have been in use before, and flows may carry it from then.
        self._rejudge = self._rejudge or self._added or epoch != self.epoch
        self._added = False
        self._late_in_kernel += self._late
        self._late = []
        self._bound_in_kernel |= self._bound
        self._bound = set()
        self.epoch = epoch
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
                self._owed = _stopwatch() < self._search_at
                if not self._owed:
                    await self._search()
            except KernelError as error:
                log.warning("sweep.failed", error=str(error), retry_in_s=RETRY_S)
                self._rejudge = self._survey = True
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def _search(self) -> None:
        """What is due of that which goes through the kernel's table; then it is to rest."""
        began, now = _stopwatch(), self._clock()
        if self._rejudge and self.epoch:
            self._rejudge, self._bound_in_kernel = False, set()
            await self._clear_judged()
        elif self._bound_in_kernel and self.epoch:
            addresses, self._bound_in_kernel = self._bound_in_kernel, set()
            for address in addresses:
                await self._clear_judged(address)
        if self._late_to_find and self.epoch:
            await self._find_late()
        if self._survey or self._next_due() <= now:
            self._survey, self._unbound_at = False, inf
            await self._survey_registered()
        ended = _stopwatch()
        self._search_at = ended + REST * (ended - began)

    async def _wait(self) -> None:
        while not self._wake.is_set():
            # The clock may be set; look again at least every so often.
            due_s = self._search_at - _stopwatch() if self._owed else self._next_due() - self._clock()
            try:
                async with asyncio.timeout(min(max(0.0, due_s), 60.0)):
                    await self._wake.wait()
            except TimeoutError:
                if self._owed or self._next_due() <= self._clock():
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
            missing = await self._conntrack.change_known_marks(wanted, 0, self._layout.mask)
            turned = {key: wanted[each] for each in missing if (key := key_of_flow(_reverse(wanted[each])))}
            if turned:
                missing = await self._conntrack.change_known_marks(turned, 0, self._layout.mask)
                to_find.update(turned[key] for key in missing)
            self.rejudged += count - len(missing)
        self._late_to_find |= to_find

    async def _find_late(self) -> None:
        """Connections whose packets were logged, among all that were judged."""
        late, self._late_to_find = self._late_to_find, set()
        wanted = late | {_reverse(flow) for flow in late}
        openers = {flow.source for flow in wanted}
        found: list[ConnectionKey] = []
        for opener in openers if len(openers) <= MOST_BOUND else [None]:
            async for event in self._judged(source=opener):
                if event.flow in wanted:
                    found.append(event.key)
        if found:
            self.rejudged += await self._conntrack.change_marks(found, 0, self._layout.mask)

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
            count = await self._conntrack.change_marks(found.values(), 0, self._layout.mask)
            self.rejudged += count
            log.info("sweep.rejudged", flows=count)

    async def _judged(
        self, source: bytes | None = None, answered_by: bytes | None = None
    ) -> AsyncIterator[ConnectionEvent]:
        """Connections judged unregistered in this epoch; the loop gets its turn between batches."""
        mark, mask = self._layout.judged(self.epoch), self._layout.mask
        dump = self._conntrack.dump(mark=mark, mask=mask, source=source, answered_by=answered_by)
        async with aclosing(dump) as batches:
            async for events in batches:
                await asyncio.sleep(0)
                for event in events:
                    yield event

    async def _survey_registered(self) -> None:
        now = self._clock()
        self._flow_table.begin_resync()
        lost: dict[bytes, ConnectionKey] = {}
        mark = self._layout.registered
        async with aclosing(self._conntrack.dump(mark=mark, mask=mark)) as batches:
            async for events in batches:
                await asyncio.sleep(0)
                for event in events:
                    registrations = self._matching(event.flow, now)
                    if registrations:
                        self._flow_table.listed(event, registrations, now)
                    else:
                        lost[event.tuple_bytes] = event.key
        self.surveys += 1
        self._flow_table.finish_resync()
        # Never longer than the drain is now: it may have been shortened, or the clock set back.
        latest = now + self.drain_s
        deadlines = {key: min(self._draining.get(key, latest), latest) for key in lost}
        due = [lost[key] for key, at_s in deadlines.items() if at_s <= now]
        later = [(key, at_s) for key, at_s in deadlines.items() if at_s > now]
        self._draining = dict(later[:MOST_DRAINING])
        if due:
            count = await self._conntrack.change_marks(due, 0, self._layout.mask)
            self.drained += count
            log.info("sweep.drained", flows=count)


def _reverse(flow: Flow) -> Flow:
    return Flow(flow.protocol, flow.destination, flow.source, flow.destination_port, flow.source_port)


def _stopwatch() -> float:
    return asyncio.get_running_loop().time()
