"""SIGKILL at random moments of loading, changing and repairing; no registered packet may be missing."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gatewayd.errors import DaemonNotReachable
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import probe
from tests.soak.sight import Sight, is_as_wanted
from tests.soak.subscribers import Cgnat
from tests.soak.world import Registry, World, handshakes, inbound, registry_of, stranger, traffic
from tests.support.lab_daemon import LabDaemon, holds

RATE_PPS = 400.0
LEG = 25
"""Rounds to a stream: a stream remembers every packet of its own."""
_PACKETS = 240_000
"""Of a stream before a fresh flow comes again: ten minutes."""
_START_UP_S = 1.5
"""The daemon reads, loads and arms within this time."""
_SETTLE_PACKETS = 20


@dataclass
class Stats:
    """`stages`: kills by what was in the kernel then. `converged_s`: from a start to the kernel as desired."""

    seed: int
    rounds: int = 0
    kills: int = 0
    deeds: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    lost: int = 0
    fresh: int = 0
    refused: int = 0
    """Packets and handshakes of new flows that the gateway answered with a refusal, or that came to nothing."""
    probed: int = 0
    converged_s: list[float] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)


class Churn:
    """`daemon`: configured by us alone, in a gateway with nothing in its kernel. `note`: told of every round."""

    def __init__(
        self,
        daemon: LabDaemon,
        sight: Sight,
        *,
        seed: int,
        registrations: int = 1500,
        note: Callable[[Stats], None] = lambda _: None,
    ) -> None:
        self.stats = Stats(seed)
        self._daemon, self._lab, self._sight, self._note = daemon, daemon.lab, sight, note
        self._chance = random.Random(seed)
        self._world = World(self._chance, registrations)
        self._cgnat = Cgnat(daemon, self._chance)
        self._registry = Registry([], {})
        self._mode = "observe"
        self._events: list[tuple[int, str]] = []
        self._stream: Stream | None = None
        self._started = 0.0

    def run(self, rounds: int, max_s: float = float("inf")) -> Stats:
        """As many rounds as there is time for, and the kernel as desired at the end. Raises AssertionError when it
        does not come to be, or the daemon says that something went wrong; losses are in the tally."""
        deadline = time.monotonic() + max_s
        done = 0
        self._change_registry()
        self._change_mode()
        self._start()
        self._daemon.wait_ready()
        self._cgnat.start()
        # An answer says that the journal has a block; the kernel has it some milliseconds later. Nobody is there to
        # give it one after a kill in between, and the traffic of the first round is registered by these blocks.
        self._wait_converged()
        self._kill("in peace")
        while done < rounds and time.monotonic() < deadline:
            with self._watched():
                for _ in range(min(LEG, rounds - done)):
                    if time.monotonic() >= deadline:
                        break
                    self._round()
                    done += 1
                self._converge()
                self._kill("in peace")
        assert "Traceback" not in self._daemon.log_text(), self._where()
        return self.stats

    # -- a round -------------------------------------------------------------------------------------------

    def _round(self) -> None:
        """Whatever happens while nobody is there, and then a life that is cut as it starts or at work."""
        chance = self._chance
        for deed, odds in ((self._change_registry, 0.6), (self._change_mode, 0.4), (self._tamper, 0.4)):
            if chance.random() < odds:
                deed()
        if chance.random() < 0.55:
            self._start()
            self._wait_moment(_START_UP_S)
            self._kill("starting")
        else:
            self._converge()
            deeds = (self._change_registry, self._change_both, self._change_mode, self._tamper)
            chance.choice([*deeds, *(self._change_blocks,) * 2])()
            self._wait_moment(0.3)
            self._kill("at work")
        self.stats.rounds += 1
        self._note(self.stats)

    def _wait_moment(self, max_s: float) -> None:
        """A moment anywhere, or shortly after the next commit: a load of milliseconds would seldom be hit."""
        if self._chance.random() < 0.6:
            since = self._sight.generation()
            pause_s = self._chance.uniform(0.0, 0.06)
            self._sight.wait_commit(since, max_s)
        else:
            pause_s = self._chance.uniform(0.0, max_s)
        time.sleep(pause_s)

    def _start(self) -> None:
        self._started = time.monotonic()
        self._daemon.start()

    def _kill(self, when: str) -> None:
        """And look at what is there while nobody can change it."""
        self._daemon.end(signal.SIGKILL)
        stage = self._sight.stage(self._registry.keys)
        self.stats.kills += 1
        self.stats.stages[stage] += 1
        self._event(f"killed {when}: {stage}")
        self._probe()

    def _converge(self) -> None:
        self._start()
        self._daemon.wait_ready()
        self._wait_converged()
        self.stats.converged_s.append(time.monotonic() - self._started)
        self._event(f"converged in {self._mode}")
        outcome = "rejected" if self._mode == "reject" else "passed"
        assert probe(self._lab, [stranger()]) == [outcome], self._where()
        self._probe()

    def _wait_converged(self) -> None:
        assert holds(self._is_converged), f"does not converge\n{self._where()}\n{self._daemon.log_text()[-3000:]}"

    def _is_converged(self) -> bool:
        try:
            status = self._daemon.status()
        except DaemonNotReachable:
            return False
        if status["mode"] != self._mode or status["kernel"]["surplus"]:
            return False
        return is_as_wanted(self._sight.contents(), self._registry.keys)

    # -- deeds ---------------------------------------------------------------------------------------------

    def _change_registry(self) -> None:
        self._registry = self._world.registry(self._cgnat.bound_registrations())
        self._daemon.write_registry("national", self._registry.records)
        self._did("registry", f"{len(self._registry.records)} registrations")

    def _change_mode(self) -> None:
        self._mode = self._world.mode()
        verify_every = self._chance.choice(["1s", "3s", "5m"])
        self._daemon.configure(self._mode, kernel={"verify_every": verify_every}, subscribers=self._cgnat.section)
        if self._daemon.is_running():
            self._daemon.reload()
        self._did("mode", self._mode)

    def _change_blocks(self) -> None:
        told = self._cgnat.change()
        self._registry = registry_of(self._registry.records, self._cgnat.bound_registrations())
        self._did("blocks", told)

    def _change_both(self) -> None:
        self._change_registry()
        self._change_mode()

    def _tamper(self) -> None:
        """Nothing that leaves rules without what they look for; see tests/soak/damage.py."""
        # Half of them leave nothing: the next daemon loads all from the start.
        name = "flush ruleset" if self._chance.random() < 0.4 else self._chance.choice([*_TAMPERINGS])
        self._lab.gateway.run(["nft", _TAMPERINGS[name]], check=False)
        self._did(name)

    def _did(self, name: str, details: str = "") -> None:
        self.stats.deeds[name] += 1
        self._event(f"{name} {details}".rstrip())

    # -- packets -------------------------------------------------------------------------------------------

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Under a stream, of which every packet is accounted for at the end."""
        self._events.clear()
        with Stream(self._lab, traffic(_PACKETS), rate_pps=RATE_PPS) as stream:
            self._stream = stream
            assert stream.wait_for_arrivals(_SETTLE_PACKETS), "no traffic arrives"
            yield
            assert stream.wait_for_arrivals(_SETTLE_PACKETS), self._where()
        report = stream.stop()
        stats = self.stats
        stats.sent += report.sent
        stats.fresh += report.sent // 2
        stats.lost += len(report.lost)
        stats.refused += sum(number % 2 for number in report.lost)
        for number in report.lost[:3]:
            fate = "refused" if number in report.rejected else "neither arrived nor refused"
            stats.losses.append(f"packet {number}, {fate}\n{self._where(number)}")

    def _probe(self) -> None:
        """What a stream cannot: handshakes, and flows that the far end opens."""
        outcomes = [*probe(self._lab, handshakes()), *probe(self._lab, inbound(), start="internet")]
        failed = [each for each in outcomes if each != "passed"]
        self.stats.probed += len(outcomes)
        self.stats.refused += len(failed)
        if failed:
            self.stats.losses.append(f"probes {outcomes}\n{self._where()}")

    def _event(self, text: str) -> None:
        sent = self._stream.sent if self._stream is not None else 0
        self._events.append((sent, f"round {self.stats.rounds + 1}: {text}"))

    def _where(self, number: int | None = None) -> str:
        """What had just happened at a packet, or now, and what came next."""
        at = sum(sent <= number for sent, _ in self._events) if number is not None else len(self._events)
        lines = [f"  packet {sent}: {text}" for sent, text in self._events[max(0, at - 6) : at + 3]]
        return "\n".join([f"--seed {self.stats.seed}", *lines])


_TAMPERINGS = {
    "flush ruleset": "flush ruleset",
    "delete table": "delete table inet gatewayd",
    "add element": "add element inet gatewayd c4_32 { 192.0.2.77 }",
    "add set": "add set inet gatewayd c4_31 { type ipv4_addr; flags interval; }",
    "flush forward": "flush chain inet gatewayd forward",
}
