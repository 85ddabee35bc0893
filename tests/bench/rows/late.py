"""Late admission: a packet of a registrant whose element is not in the kernel, and how soon it is.

Controller, reconciler, event socket and kernel are the real ones, in this process. The element is taken away behind
the reconciler's back, and the kernel's generation counted back, so that nothing but the packet tells of it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import uvloop

from gatewayd.compile.masks import compile_elements
from gatewayd.control.controller import Controller
from gatewayd.control.core import build_core
from gatewayd.control.host_time import WindowClock
from gatewayd.feed.record import registration_of
from gatewayd.kernel.conntrack import Conntrack
from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.lab import Lab
from gatewayd.lab.tap import Tap
from gatewayd.model import Flow, Registration
from gatewayd.model.mask import parse_set_name
from gatewayd.model.transaction import RemoveElements, Transaction
from gatewayd.sources.update import SourceUpdate
from gatewayd.watch.source import EventSource, PacketLog
from tests.bench.clock import percentile
from tests.bench.material import SEED, snapshot
from tests.bench.registrants import registered_flow, registered_sources
from tests.bench.row import Context, Figures, Measure, Row, Subject
from tests.support.owning import LAYOUT, settings_of

ADMISSIONS = 1000
GROUP = 9480
PAUSE_S = 0.005
"""Between two: a gateway logs so many refused packets a second, and no more."""
PATIENCE_S = 5.0


class _Tables(KernelTables):
    """`admitted_at`: when the latest late admission was acknowledged, which sets `admitted`."""

    taken = 0
    admitted_at = 0.0
    admitted: asyncio.Event

    async def commit(self, transaction: Transaction) -> None:
        await super().commit(transaction)
        if transaction.cause == "late admission":
            self.admitted_at = time.perf_counter()
            self.admitted.set()

    async def read_generation(self) -> int:
        return await super().read_generation() - self.taken

    async def take_away(self, operations: Sequence[RemoveElements]) -> None:
        await super().commit(Transaction(tuple(operations), "bench"))
        self.taken += 1


class _Gateway:
    """What of the daemon a late admission goes through."""

    def __init__(self) -> None:
        self.heard_at = 0.0
        settings = settings_of("national")
        self.tables = _Tables.open("gatewayd")
        self.tables.admitted = asyncio.Event()
        conntrack = Conntrack()
        conntrack.open()
        core = build_core(settings, self.tables, conntrack, WindowClock(time.time), monotonic=time.monotonic)
        self.reconciler, self.scanner, self.watch = core.reconciler, core.scanner, core.watch
        self.controller = Controller(settings, core)
        self.events = EventSource(
            logs=(PacketLog("nflog", GROUP, self._on_packets), PacketLog("near", GROUP + 1, self._on_near)),
            mark=LAYOUT.registered,
            mask=LAYOUT.registered,
            on_connections=self.watch.on_connections,
            on_lost=self.watch.on_lost,
        )
        self.events.open()

    def _on_packets(self, flows: list[Flow]) -> int:
        self.heard_at = time.perf_counter()
        return self.watch.on_packets(flows)

    def _on_near(self, flows: list[Flow]) -> int:
        self.heard_at = time.perf_counter()
        return self.watch.on_near(flows)

    def set_names(self) -> dict[object, str]:
        """Mask → the set that the rules look into."""
        names = (state.name for state in self.reconciler.tracker.set_states())
        return {parsed[0]: name for name in names if (parsed := parse_set_name(name)) is not None}

    async def admit(self, tap: Tap, flow: Flow, operations: Sequence[RemoveElements]) -> tuple[float, float]:
        """Seconds to the acknowledgement, from the packet sent and from its event."""
        await self.tables.take_away(operations)
        self.tables.admitted.clear()
        began = time.perf_counter()
        tap.send(flow, b"late")
        async with asyncio.timeout(PATIENCE_S):
            await self.tables.admitted.wait()
        return self.tables.admitted_at - began, self.tables.admitted_at - self.heard_at


@asynccontextmanager
async def _running(gateway: _Gateway, registrations: dict[str, Registration]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(work)
            for work in (gateway.reconciler.run(), gateway.scanner.run(), gateway.controller.keep_time())
        ]
        gateway.events.start()
        await gateway.controller.deliver(SourceUpdate("national", time.time(), registrations=registrations))
        while gateway.reconciler.unready() is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield
        gateway.events.close()
        for task in tasks:
            task.cancel()


async def _measure(lab: Lab, context: Context) -> Figures:
    gateway = _Gateway()
    lines = snapshot(context.material, context.size).read_bytes().splitlines()
    registrations = {each.id: each for each in map(registration_of, map(msgspec.json.decode, lines))}
    sources = registered_sources(context.material, context.size, ADMISSIONS)
    from_packet_s, from_event_s = [], []
    async with _running(gateway, registrations):
        names = gateway.set_names()
        with Tap(lab.inside) as tap:
            for number in range(ADMISSIONS):
                flow = registered_flow(random.Random(SEED + number).choice(sources), 20000 + number)
                matching = gateway.controller.allowlist.matching(flow, time.time())
                elements = dict.fromkeys(each for one in matching for each in compile_elements(one))
                taken = [RemoveElements(names[mask], [key]) for mask, key in elements]
                packet_s, event_s = await gateway.admit(tap, flow, taken)
                from_packet_s.append(packet_s)
                from_event_s.append(event_s)
                await asyncio.sleep(PAUSE_S)
    gateway.tables.close()
    return {
        "p50_s": percentile(from_event_s, 0.5),
        "p99_s": percentile(from_event_s, 0.99),
        "packet_p50_s": percentile(from_packet_s, 0.5),
        "packet_p99_s": percentile(from_packet_s, 0.99),
    }


def gatewayd(context: Context) -> Figures:
    """One packet at a time; in between the daemon sleeps."""
    with Lab() as lab, lab.gateway.entered():
        return uvloop.run(_measure(lab, context))


LATE = Row(
    "late",
    "late admission among N: from the event of a refused packet to its element in the kernel",
    (
        Measure("p50_s", "s", "event to committed p50"),
        Measure("p99_s", "s", "p99"),
        Measure("packet_p50_s", "s", "packet sent to committed p50"),
        Measure("packet_p99_s", "s", "p99"),
    ),
    (Subject("gatewayd", gatewayd),),
    max_runs=3,
)
