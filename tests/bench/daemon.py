"""The whole daemon, for the rows that need it: in the lab's gateway, on a signed feed of the gateway's loopback."""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from gatewayd.errors import DaemonNotReachable
from gatewayd.lab.lab import Lab
from tests.bench.clock import percentile
from tests.bench.registry import Registry, served
from tests.bench.row import Context, check
from tests.support.lab_daemon import LabDaemon

PORT = 9480
ASK_EVERY_S = 0.05
READY_WITHIN_S = 300.0
SHORTEST_PAUSE_S, MAX_PAUSE_S = 0.01, 0.2
_ANSWER_WITHIN_S = 30.0
_KILOBYTES = re.compile(r"^(Vm\w+):\s+(\d+) kB", re.MULTILINE)
_LAG = re.compile(r'^gatewayd_loop_lag_seconds\{kind="max"\} (\S+)', re.MULTILINE)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class MeasuredDaemon(LabDaemon):
    """Says what it costs. `configure` it before it is started."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        super().__init__(lab, directory, port=PORT)

    @property
    def pid(self) -> int:
        """Of the daemon itself: what enters the namespace becomes it by execve(2)."""
        assert self._process is not None
        return self._process.pid

    def start_ready(self, *, wrapper: Sequence[str] = ()) -> float:
        """Seconds from the start of the process to ready and armed.

        Asked less often the longer it takes: answers cost it time.
        """
        started = time.perf_counter()
        self.start(wrapper=wrapper)
        while not self._is_ready():
            check(self.is_running(), f"the daemon ended: {self.last_words()}")
            waited_s = time.perf_counter() - started
            check(waited_s < READY_WITHIN_S, f"not ready after {waited_s:.0f} s: {self.last_words()}")
            time.sleep(min(MAX_PAUSE_S, max(SHORTEST_PAUSE_S, waited_s * 0.01)))
        took_s = time.perf_counter() - started
        status = self.status()
        check(status["armed"] and status["mode"] == "reject", f"mode {status['mode']}")
        return took_s

    def _is_ready(self) -> bool:
        try:
            return bool(self.get("/readyz").get("ready"))
        except DaemonNotReachable:
            return False

    def memory_mb(self) -> dict[str, float]:
        """proc(5): VmRSS, and VmHWM, its highest, in 10^6 bytes."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return {name: int(kilobytes) * 1024 / 1e6 for name, kilobytes in _KILOBYTES.findall(text)}

    def cpu_s(self) -> float:
        return cpu_of(self.pid)

    def longest_lag_s(self) -> float:
        """By the daemon's own metrics, since its start."""
        with self.lab.gateway.entered():
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=_ANSWER_WITHIN_S)
            connection.connect()
        connection.request("GET", "/metrics")
        found = _LAG.search(connection.getresponse().read().decode())
        connection.close()
        check(found is not None, "no gatewayd_loop_lag_seconds")
        assert found is not None
        return float(found[1])


class BenchDaemon(MeasuredDaemon):
    """In mode reject on one registry, its state in a directory of its own below `directory`."""

    def __init__(self, lab: Lab, directory: Path, registry: Registry) -> None:
        super().__init__(lab, directory)
        self.registry = registry
        self.sources = [{"name": "national", "url": registry.url, "keys": [str(registry.key_file)]}]
        self.configure(sources=self.sources)

    @property
    def state_path(self) -> Path:
        """What it keeps of its sources."""
        return self.directory / "registry"

    def wait_saved(self) -> None:
        """Until the last good is on disk: a sync waits for the attempt that is under way, its saving included."""
        self.wait(lambda: not self.sync()["errors"], "the last good is on disk")
        error = self.source()["store_error"]
        check(error is None, str(error))


class HealthWatch:
    """Asks the health port every 50 ms from a thread of its own, from its first answer to `stop`.

    The questions keep to their times: those that fall due while one is waited for count as asked when they were
    due, so that a stall weighs as much as it lasts.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._answers_s: list[float] = []
        self._refused = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def figures(self) -> dict[str, float]:
        check(self._refused == 0, f"{self._refused} questions to the health port without an answer")
        return {"health_p99_s": percentile(self._answers_s, 0.99), "health_max_s": max(self._answers_s)}

    def _run(self) -> None:
        with self._lab.gateway.entered():
            due_s = time.perf_counter()
            while not self._stopping.is_set():
                is_answered = self._ask()
                now = time.perf_counter()
                if not is_answered:
                    self._refused += bool(self._answers_s)
                    due_s = now + ASK_EVERY_S
                elif not self._answers_s:
                    self._answers_s.append(now - due_s)
                    due_s = now + ASK_EVERY_S
                while is_answered and due_s <= now:
                    self._answers_s.append(now - due_s)
                    due_s += ASK_EVERY_S
                self._stopping.wait(max(0.0, due_s - time.perf_counter()))

    def _ask(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=_ANSWER_WITHIN_S)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def cpu_of(process: int) -> float:
    """Processor time of all its threads so far, its own and the kernel's for it (proc(5), stat), in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


@contextmanager
def fed_daemon(context: Context, registry: Registry | None = None, **lab: Any) -> Iterator[BenchDaemon]:
    """Configured and not started, in a lab of its own. `registry`: else one of as many registrations as asked
    for. `lab`: for Lab."""
    registry = registry or Registry(context.material, context.scratch, context.size)
    directory = context.scratch / "daemon"
    directory.mkdir()
    with ExitStack() as stack:
        made = stack.enter_context(Lab(**lab))
        with made.gateway.entered():
            stack.enter_context(served(registry))
        daemon = BenchDaemon(made, directory, registry)
        stack.callback(daemon.stop_for_good)
        yield daemon
