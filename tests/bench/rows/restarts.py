"""Registered packets lost while the daemon is killed, stopped, reloaded and resynced again and again."""

from __future__ import annotations

import gzip
import time
import uuid
from itertools import cycle, islice

from gatewayd.lab.stream import Stream
from gatewayd.model import Flow
from tests.bench.daemon import BenchDaemon, fed_daemon
from tests.bench.material import packed_snapshot, snapshot
from tests.bench.registrants import registered_flow, registered_sources
from tests.bench.registry import Registry
from tests.bench.row import Context, Figures, Measure, Row, Subject
from tests.support.churn import Churn

SIZE = 31_000
RESTARTS, MAX_S = 100, 240.0
RATE_PPS = 400.0
STEADY, FRESH = 50, 16_000
"""Flows that last, and flows of a packet: a fresh one comes again after 80 s, when the gateway has forgotten it."""


class SessionRegistry(Registry):
    """Begins sessions, in which by turns some registrations are not, and are again. Those that may speak WireGuard
    always are."""

    def __init__(self, context: Context) -> None:
        super().__init__(context.material, context.scratch, SIZE)
        lines = snapshot(context.material, SIZE).read_bytes().splitlines(keepends=True)
        fewer = [line for number, line in enumerate(lines) if number % 50 or b'"wireguard"' in line]
        whole = packed_snapshot(context.material, SIZE).read_bytes()
        self._snapshots = cycle([(gzip.compress(b"".join(fewer), 6), len(fewer)), (whole, len(lines))])

    def begin_session(self) -> None:
        publisher = self._publisher
        publisher.begin_session(str(uuid.uuid4()))
        publisher.serial, publisher.issued_at = 1, max(publisher.issued_at + 0.001, time.time() - 1.0)
        publisher.issue_file(*next(self._snapshots))
        self._write()


def traffic(sources: list[str]) -> list[Flow]:
    """A lasting flow and a fresh one by turns."""
    steady = cycle([registered_flow(source, 10_000) for source in sources[:STEADY]])
    fresh = [
        registered_flow(source, 20_000 + number) for number, source in enumerate(islice(cycle(sources), FRESH))
    ]
    return [flow for pair in zip(steady, fresh, strict=False) for flow in pair]


def churn(daemon: BenchDaemon, registry: SessionRegistry, stream: Stream) -> Churn:
    def reconfigure(number: int) -> None:
        daemon.configure(sources=daemon.sources, policy={"drain": f"{2 + number % 2}s"})

    return Churn(daemon, stream, registry.begin_session, reconfigure)


def gatewayd(context: Context) -> Figures:
    """At 31 k registrations, half of the packets the first of their flow."""
    registry = SessionRegistry(context)
    flows = traffic(registered_sources(context.material, SIZE, FRESH))
    with fed_daemon(context, registry) as daemon:
        daemon.start_ready()
        daemon.wait_saved()
        with Stream(daemon.lab, flows, rate_pps=RATE_PPS) as stream:
            done = churn(daemon, registry, stream).run(RESTARTS, MAX_S)
            report = stream.stop()
    return {
        "restarts": done,
        "packets": report.sent,
        "lost": len(report.lost),
        "gap_s": report.longest_gap_s,
    }


RESTARTS_ROW = Row(
    "restarts",
    "registered packets lost over kills, stops, reloads and full resyncs in turns, 31 k registrations",
    (
        Measure("restarts", "", "restarts, reloads, resyncs"),
        Measure("packets", "", "packets"),
        Measure("lost", "", "lost"),
        Measure("gap_s", "s", "longest gap"),
    ),
    (Subject("gatewayd", gatewayd),),
    sizes=False,
    max_runs=1,
)
