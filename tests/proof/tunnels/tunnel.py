"""The shape of a tunnel kind: programs at both ends, addresses inside, handshakes, an end by process id.

A kind says how it begins at each end and how it counts its handshakes. The rest is the same for all: it is up when
a numbered datagram has gone through it and another has come back.
"""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from gatewayd.lab.lab import Lab
from gatewayd.lab.namespace import Namespace
from gatewayd.model import Family
from tests.proof.tunnels.hosts import Host
from tests.proof.tunnels.numbered import WAYS, Numbered, Way

UP_S: Final = 60.0
_ASK_EVERY_S: Final = 0.05
_OWN_RUN: Final = 'mount --bind "$0" /run && exec "$@"'
"""Sockets and files of the program go to a directory of ours; unshare(1) makes the mount private."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Addresses of tunnel `number` (0 to 99). The customer moves from `client` to `moved`; `stray` is in no
    registration."""

    number: int
    family: Family

    def _choose(self, ipv4: str, ipv6: str) -> str:
        return ipv4 if self.family == 4 else ipv6

    @property
    def client(self) -> str:
        return self._choose(f"39.38.{self.number}.1", f"2400:adc0:{0x300 + self.number:x}::1")

    @property
    def moved(self) -> str:
        return self._choose(f"39.38.{self.number}.9", f"2400:adc0:{0x300 + self.number:x}::9")

    @property
    def stray(self) -> str:
        return self._choose(f"39.39.{self.number}.1", f"2400:adc1:{0x300 + self.number:x}::1")

    @property
    def far(self) -> str:
        return self._choose(f"198.51.100.{self.number + 100}", f"2001:db8:{0x100 + self.number:x}::7")

    @property
    def registered(self) -> str:
        """The prefix of the customer."""
        return self._choose(f"39.38.{self.number}.0/28", f"2400:adc0:{0x300 + self.number:x}::/64")

    @property
    def inside(self) -> tuple[str, str]:
        return f"10.77.{self.number}.1", f"10.77.{self.number}.2"


class Tunnel(ABC):
    """One tunnel, from a host behind the customers' end to one behind the internet's. `begin` starts both ends;
    close it, or use `with`.

    `outer`: the address that the customer uses at first; None = that of the plan.
    """

    kind: ClassVar[str]
    services: ClassVar[Sequence[str]]
    """As a registration has them."""

    def __init__(
        self, lab: Lab, plan: Plan, directory: Path, numbered: Numbered, *, outer: str | None = None
    ) -> None:
        self.lab, self.plan, self.numbered = lab, plan, numbered
        self.outer = outer or plan.client
        self.directory = directory / self.name.replace(" ", "-").replace(",", "")
        self.directory.mkdir(parents=True)
        self.comes_up_s: float | None = None
        self._launched: dict[str, subprocess.Popen[bytes]] = {}
        self.near = Host(lab.inside, plan.number, [self.outer])
        try:
            self.far = Host(lab.outside, plan.number, [plan.far])
        except BaseException:
            self.near.close()
            raise

    @property
    def name(self) -> str:
        return f"{self.kind}, IPv{self.plan.family}"

    def registration(self) -> dict[str, Any]:
        return {
            "id": f"TUNNEL-{self.plan.number}", "category": "bank", "status": "active",
            "clients": [self.plan.registered], "services": list(self.services),
        }  # fmt: skip

    @abstractmethod
    def begin(self) -> None:
        """The far end first, then the customer's."""

    @abstractmethod
    def handshakes(self) -> int | None:
        """How many there were, without those by which a protocol renews its keys in time; None: it has none."""

    def last_handshake(self) -> str:
        """What the programs said of the last one, where they say why it was."""
        return ""

    def finish(self) -> None:  # noqa: B027, most kinds are programs alone
        """End more than the programs."""

    def start(self) -> None:
        self._began_s = time.monotonic()
        self.begin()
        self.numbered.add(self.name, self.near.namespace, self.far.namespace, self.plan.inside)

    def is_up(self, deadline_s: float = UP_S) -> bool:
        """Whether a datagram goes through it, and one comes back, before the deadline."""
        deadline = time.monotonic() + deadline_s
        first = self.numbered.marks()
        missing: list[Way] = list(WAYS)
        while missing:
            for way in missing:
                self.numbered.once(self.name, way)
            if time.monotonic() > deadline:
                return False
            time.sleep(_ASK_EVERY_S)
            missing = [way for way in missing if not self.numbered.any_of(self.name, way, first[self.name, way])]
        if self.comes_up_s is None:
            self.comes_up_s = time.monotonic() - self._began_s
        return True

    def log(self, side: str) -> str:
        path = self.directory / f"{side}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def launch(
        self, side: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A program of this tunnel, on the host of `side`, with a /run of its own; its output is the side's log."""
        run = self.run_of(side)
        run.mkdir(exist_ok=True)
        with (self.directory / f"{side}.log").open("ab") as log:
            wrapped = ["unshare", "--mount", "sh", "-c", _OWN_RUN, str(run), *command]
            self._launched[side] = self.host(side).popen(wrapped, stdout=log, stderr=log, env=env)
        return self._launched[side]

    def run_of(self, side: str) -> Path:
        return self.directory / f"{side}.run"

    def ask(self, side: str, command: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command that talks to the program of that side by its /run."""
        mount = f"--mount=/proc/{self._launched[side].pid}/ns/mnt"
        return self.host(side).run(["nsenter", mount, "--", *command], check=check)

    def host(self, side: str) -> Namespace:
        return (self.near if side == "near" else self.far).namespace

    def close(self) -> None:
        for program in self._launched.values():
            # A polite end would wait for an answer of the other end, which may be gone or refused.
            program.kill()
        self.finish()
        self.near.close()
        self.far.close()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def until(condition: Callable[[], bool], what: str, deadline_s: float = UP_S) -> None:
    """Wait for the condition, which is asked again and again. Raises AssertionError where it stays false."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {deadline_s:g} s"
        time.sleep(_ASK_EVERY_S)
