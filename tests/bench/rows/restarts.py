"""Registered packets lost while the daemon is killed, stopped, reloaded and resynced again and again."""

from __future__ import annotations

import gzip
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice

from gatewayd.lab.stream import Stream
from gatewayd.model import Flow
from tests.bench.daemon import BenchDaemon, fed_daemon
from tests.bench.material import packed_snapshot, snapshot
from tests.bench.registrants import registered_flow, registered_sources
from tests.bench.registry import Registry
from tests.bench.row import Context, Figures, Measure, Row, Subject
from tests.support.lab_daemon import LabDaemon

SIZE = 31_000
RESTARTS, MAX_S = 100, 240.0
RATE_PPS = 400.0
STEADY, FRESH = 50, 16_000
"""Flows that last, and flows of a packet: a fresh one comes again after 80 s, when the gateway has forgotten it."""
MOMENTS_S = tuple(number * 0.25 for number in range(1, 9))
"""After the start of the process: while it imports, reads, indexes, compiles, looks at the kernel."""
PACKETS_AFTER = 40
"""Of the stream after each deed, for what it may have hurt."""


@dataclass
class Restarts:
    """`daemon`: ready. `resync`: the registry begins a new session. `reconfigure`: writes the configuration anew,
    with the number of the deed. `deeds`: how many of each there were."""

    daemon: LabDaemon
    stream: Stream
    resync: Callable[[], None]
    reconfigure: Callable[[int], None]
    deeds: dict[str, int] = field(default_factory=dict)

    def run(self, count: int, max_s: float, note: Callable[[str, int], None] = lambda *_: None) -> int:
        """So many deeds, all four in turns, as long as there is time. Returns how many were done.

        `note` is told of each before it is done. Raises AssertionError when the daemon did not take one as it
        should, RuntimeError when the traffic stands still.
        """
        deadline = time.monotonic() + max_s
        works = {"kill": self._kill, "stop": self._stop, "reload": self._reload, "resync": self._resync}
        names = cycle(works)
        done = 0
        while done < count and time.monotonic() < deadline:
            name = next(names)
            note(name, done)
            works[name]()
            if not self.stream.wait_for_arrivals(PACKETS_AFTER):
                raise RuntimeError(f"no traffic arrives after {name} {done}")
            self.deeds[name] = self.deeds.get(name, 0) + 1
            done += 1
        return done

    def _kill(self) -> None:
        """When it is at rest, and again at some moment of its start."""
        self.daemon.end(signal.SIGKILL)
        self.daemon.start()
        time.sleep(MOMENTS_S[self.deeds.get("kill", 0) % len(MOMENTS_S)])
        self.daemon.end(signal.SIGKILL)
        self._start()

    def _stop(self) -> None:
        assert self.daemon.end(signal.SIGTERM) == 0, self.daemon.last_words()
        self._start()

    def _start(self) -> None:
        self.daemon.start()
        self.daemon.wait_ready()

    def _reload(self) -> None:
        before = self.daemon.log_text().count("reload.done")
        self.reconfigure(sum(self.deeds.values()))
        self.daemon.reload()
        self.daemon.wait_log("reload.done", before + 1)
        assert self.daemon.status()["reload_error"] is None, self.daemon.last_words()
        self.daemon.wait_ready()

    def _resync(self) -> None:
        before = self.daemon.source()["session"]
        self.resync()
        answer = self.daemon.sync()
        assert not answer["errors"], str(answer["errors"])
        assert self.daemon.source()["session"] != before, "the old session is still in force"
        self.daemon.wait_in_sync()


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


def restarts(daemon: BenchDaemon, registry: SessionRegistry, stream: Stream) -> Restarts:
    def reconfigure(number: int) -> None:
        daemon.configure(sources=daemon.sources, policy={"drain": f"{2 + number % 2}s"})

    return Restarts(daemon, stream, registry.begin_session, reconfigure)


def gatewayd(context: Context) -> Figures:
    """At 31 k registrations, half of the packets the first of their flow."""
    registry = SessionRegistry(context)
    flows = traffic(registered_sources(context.material, SIZE, FRESH))
    with fed_daemon(context, registry) as daemon:
        daemon.start_ready()
        daemon.wait_saved()
        with Stream(daemon.lab, flows, rate_pps=RATE_PPS) as stream:
            done = restarts(daemon, registry, stream).run(RESTARTS, MAX_S)
            report = stream.stop()
    return {
        "restarts": done,
        "packets": report.sent,
        "lost": len(report.lost),
        "gap_s": report.max_gap_s,
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
