"""A daemon that is killed, stopped, reloaded and sent through full resyncs, one after another, under traffic."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle

from gatewayd.lab.stream import Stream
from tests.support.lab_daemon import LabDaemon

MOMENTS_S = tuple(number * 0.25 for number in range(1, 9))
"""After the start of the process: while it imports, reads, indexes, compiles, looks at the kernel."""
SETTLE_PACKETS = 40
"""Of the stream after each deed, for what it may have hurt."""


@dataclass
class Churn:
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
            if not self.stream.wait_for_arrivals(SETTLE_PACKETS):
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
