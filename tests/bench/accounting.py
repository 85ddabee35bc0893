"""RADIUS accounting by the thousand a second: the sender (radius_sender.c), and what came of it.

Servers and the sender have a core each, where there are two: what is measured is the server, not how the scheduler
shares out a core.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import msgspec

from tests.bench.numbered import UNLISTED
from tests.bench.row import check
from tests.support.radius import SECRET

SOURCE = Path(__file__).with_name("radius_sender.c")
NAS = 20
PATIENCE_S = 600.0
_END_S = 60.0

Place = Callable[[Sequence[str]], list[str]]
"""A command → the same, run in the network namespace of the server."""


def here(command: Sequence[str]) -> list[str]:
    """The namespace of this process; it dies with who starts it."""
    return ["setpriv", "--pdeathsig", "KILL", *command]


def build_radius_sender(material: Path) -> Path:
    """The sender, compiled once."""
    program = material / "radius_sender"
    if not program.exists():
        fresh = program.with_suffix(".new")
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", str(fresh), str(SOURCE)], check=True)
        fresh.replace(program)
    return program


def on_server_core() -> list[str]:
    return ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]


def on_sender_core() -> list[str]:
    return ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))]


@dataclass(frozen=True, slots=True)
class Load:
    """What the sender takes, see radius_sender.c. `rate` 0: each subscriber's Start, once, as fast as `window`
    unanswered requests allow; else so many requests a second for `seconds`. `share`: of 1000 requests so many are
    of `numbers`."""

    subscribers: int
    numbers: Path | None = None
    rate: int = 0
    seconds: float = 0.0
    share: int = 30
    window: int = 256
    first_nas: int = 0
    nas: int = NAS
    give_up_ms: int = 10_000
    repeat_ms: int = 2000
    unlisted: int = UNLISTED
    place: int = 0
    seed: int = 1
    port: int = 1813

    def words(self) -> list[str]:
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return [*(f"{name}={value}" for name, value in values.items()), f"secret={SECRET.decode()}"]


class Sent(msgspec.Struct, frozen=True):
    """What the sender says. Each of `asked` is in one of `answered` and `unanswered`.

    `held`: of the unanswered, not sent. `bad`: answers that were not what they should be. `refused`: sendings that
    the kernel refused. `seconds`: that it took to send, and in the closed loop to be answered. Response times are
    those of the answered.
    """

    asked: int
    sent: int
    answered: int
    unanswered: int
    held: int
    repeats: int
    bad: int
    refused: int
    seconds: float
    p50_s: float
    p99_s: float
    longest_s: float


class Sending:
    """A sender that runs. `stop` it, or `wait`; or use `with`, which ends it."""

    def __init__(self, program: Path, place: Place, load: Load) -> None:
        command = place([*on_sender_core(), str(program), *load.words()])
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._sent: Sent | None = None

    def wait(self, patience_s: float = PATIENCE_S) -> Sent:
        """Until all is sent, and answered or given up."""
        if self._sent is None:
            try:
                words, faults = self._process.communicate(timeout=patience_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
                raise RuntimeError(f"the sender was not done in {patience_s:g} s") from None
            check(self._process.returncode == 0, f"the sender: {faults.decode(errors='replace').strip()}")
            self._sent = msgspec.json.decode(words, type=Sent)
            check(self._sent.bad == 0, f"{self._sent.bad} answers were wrong")
        return self._sent

    def stop(self) -> Sent:
        """Send nothing new, wait for what is under way."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait(_END_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def send(program: Path, place: Place, load: Load) -> Sent:
    with Sending(program, place, load) as sending:
        return sending.wait(load.seconds + PATIENCE_S)


def fill(program: Path, place: Place, load: Load) -> Sent:
    """All the subscribers' sessions. Raises RuntimeError if one was not answered."""
    sent = send(program, place, load)
    check(sent.answered == load.subscribers, f"{sent.unanswered} of {load.subscribers} sessions were not taken")
    return sent
