"""The week of docs/operations.md, its steps word for word, in time that passes faster, under registered traffic.

By day the clock runs SLOW times as fast as that of the host, so that a command is done within the times that the
documents name. The rest of a day passes at QUICK. Packets and the kernel are real, and so are the commands.
"""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatewayd.demo.cast import BANK, ELSEWHERE, EMBASSY, FAR, FREELANCER, SOFTWARE_HOUSE, registration
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow
from tests.soak.manual import Command, Day, File
from tests.support.hurried import HurriedClock
from tests.support.lab_daemon import LabDaemon, clean, forget_locks, holds

DAY_S = 86_400.0
SLOW, QUICK, OF_THE_KERNEL = 20.0, 1500.0, 150.0
RATE_PPS = 300.0
ROOT = Path(__file__).parents[2]
CONFIGURATION = "/etc/gatewayd"
WITH_CONFIG = ("check", "plan", "teardown")
"""Commands that read the file."""

OWN = """state_dir: {directory}/state
http: {{socket: {directory}/api.sock}}
"""
"""The places of a daemon in the lab."""
BRANCH = registration("WEEK-BRANCH", "bpo", ["39.36.9.0/29"], services=["wireguard"])
"""Its registration is revoked in the course of the week."""
REGISTERED = [
    flow_of("39.32.64.10", ELSEWHERE, "udp/51820", 31001),
    flow_of("39.32.0.5", FAR, "udp/4500", 31002),
    flow_of("39.32.0.6", FAR, "esp"),
    flow_of("39.33.7.30", ELSEWHERE, "udp/1701", 31003),
    flow_of("39.34.55.123", ELSEWHERE, "udp/51950", 31004),
]
"""Registered all week."""

ACME = ("39.37.4.5", ELSEWHERE, "udp/51820")
"""A customer whom nobody has registered on Monday."""
BRANCH_FLOW = ("39.36.9.2", ELSEWHERE, "udp/51820")
UNLISTED = [(f"39.32.0.{number % 16}", f"203.0.113.{number}", "udp/4500") for number in range(64)]
"""Of the bank, to peers that its registration does not name."""
STRANGERS = [(f"39.4{number}.9.9", ELSEWHERE, "udp/51820") for number in range(4)]


class PacedDaemon(LabDaemon):
    """`gatewayd run` by a clock whose pace changes."""

    def __init__(self, lab: Lab, directory: Path, clock: HurriedClock) -> None:
        super().__init__(lab, directory)
        self.clock = clock

    def start(self, **_: Any) -> None:
        arguments = [*self.clock.arguments(), "--config", str(self.config_path)]
        with self.log_path.open("ab") as output:
            self._process = self.lab.gateway.popen(
                [sys.executable, "-m", "tests.support.hurried", *arguments],
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
            )


@contextmanager
def paced_daemon_in(lab: Lab, directory: Path, clock: HurriedClock) -> Iterator[PacedDaemon]:
    """A daemon of a gateway as good as new; whatever it leaves goes afterwards."""
    daemon = PacedDaemon(lab, directory, clock)
    try:
        yield daemon
    finally:
        daemon.stop_for_good()
        clean(lab)
        forget_locks(lab)


@dataclass
class Bill:
    """`sent`: packets of registered flows; `lost`: those that did not arrive. `losses`: the first, in words."""

    days: int = 0
    steps: int = 0
    probed: int = 0
    sent: int = 0
    lost: int = 0
    losses: list[str] = field(default_factory=list)


class Week:
    """`note`: told of each day and step."""

    def __init__(self, daemon: PacedDaemon, days: Sequence[Day], note: Callable[[str], None]) -> None:
        self.bill = Bill()
        self.daemon, self.lab, self.clock = daemon, daemon.lab, daemon.clock
        self.registry = {each["id"]: each for each in (BANK, SOFTWARE_HOUSE, EMBASSY, FREELANCER, BRANCH)}
        self._days, self._note = days, note
        self._steps: Iterator[Command | File] = iter(())
        self._ports = itertools.count(40_000)
        self._streams = ExitStack()
        self._running: list[tuple[str, Stream]] = []

    def run(self) -> Bill:
        """Raises AssertionError where something is not as the documents say."""
        assert [day.title for day in self._days] == [*DAYS]
        self.publish()
        with self._streams:
            self.watch("registered all week", REGISTERED)
            for day in self._days:
                self._live(day)
            for name, stream in self._running:
                self._settle(name, stream)
        assert "Traceback" not in self.daemon.log_text(), self.daemon.log_text()[-3000:]
        return self.bill

    def _live(self, day: Day) -> None:
        self._note(day.title)
        ends_s = self.clock() + DAY_S
        self._steps = iter(day.steps)
        DAYS[day.title](self)
        assert next(self._steps, None) is None, day.title
        self.pass_time(ends_s - self.clock())
        self.bill.days += 1

    # -- the world -----------------------------------------------------------------------------------------

    def watch(self, name: str, flows: Sequence[Flow]) -> None:
        """These are registered from now on: no packet of them may be lost."""
        stream = self._streams.enter_context(Stream(self.lab, flows, rate_pps=RATE_PPS))
        assert stream.wait_for_arrivals(len(flows)), name
        self._running.append((name, stream))

    def unwatch(self, name: str) -> None:
        """They are registered no more."""
        for each in [each for each in self._running if each[0] == name]:
            self._running.remove(each)
            self._settle(*each)

    def _settle(self, name: str, stream: Stream) -> None:
        report = stream.stop()
        self.bill.sent += report.sent
        self.bill.lost += len(report.lost)
        self.bill.losses += [f"{name}: packet {number} of {report.sent}" for number in report.lost[:3]]

    def try_flows(self, flows: Iterable[tuple[str, str, str]], outcome: str) -> None:
        """A new flow of each (source, destination, service)."""
        found = probe(self.lab, [flow_of(*each, next(self._ports)) for each in flows])
        self.bill.probed += len(found)
        assert set(found) == {outcome}, (found, outcome)

    def publish(self, *, without: Iterable[str] = ()) -> None:
        """The registry's file as it is now."""
        left = [record for id, record in self.registry.items() if id not in without]
        self.daemon.write_registry("national", left)

    def pass_time(self, seconds: float) -> None:
        """At the pace of a night."""
        self.clock.pace(QUICK)
        self.clock.sleep(seconds)
        self.clock.pace(SLOW)

    # -- the operator --------------------------------------------------------------------------------------

    def type(self, line: str, *, status: int = 0) -> str:
        """The command that comes next in the documents, and what it prints."""
        step = next(self._steps, None)
        assert step == Command(line), f"{step} in the documents, {line!r} here"
        self._note(line)
        self.bill.steps += 1
        words = shlex.split(line)
        ran = self._systemctl(words) if words[0] == "systemctl" else self._command(words[1:])
        assert ran.returncode == status, f"{line}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    def write(self, path: str) -> None:
        """The file that comes next in the documents."""
        step = next(self._steps, None)
        assert isinstance(step, File), f"{step} in the documents, the file {path} here"
        assert step.path == path, f"{step.path} in the documents, {path} here"
        self.bill.steps += 1
        here = self.daemon.directory / path.removeprefix(f"{CONFIGURATION}/")
        here.parent.mkdir(exist_ok=True)
        own = OWN.format(directory=self.daemon.directory) if here == self.daemon.config_path else ""
        here.write_text(step.content.replace(CONFIGURATION, str(self.daemon.directory)) + own)

    def _command(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        config = ["--config", str(self.daemon.config_path)] if words[0] in WITH_CONFIG else []
        return self.daemon.cli(*words, *config, wrapper=["env", f"GATEWAYD_SOCKET={self.daemon.socket_path}"])

    def _systemctl(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        verb = words[1]
        if verb in ("stop", "restart"):
            self.daemon.end(signal.SIGTERM)
        if verb in ("start", "restart"):
            self.daemon.start()
            self.daemon.wait_ready()
        return subprocess.CompletedProcess(words, 0, "", "")

    def wait_status(self, **wanted: object) -> dict[str, Any]:
        """The status, once it has these values."""
        found: dict[str, Any] = {}

        def is_as_wanted() -> bool:
            found.update(self.daemon.status())
            return all(found.get(name) == value for name, value in wanted.items())

        assert holds(is_as_wanted), f"{wanted} never came: {found}\n{self.daemon.log_text()[-3000:]}"
        return found


# -- the days ----------------------------------------------------------------------------------------------


def observe(week: Week) -> None:
    week.write("/etc/gatewayd/gatewayd.yaml")
    week.type("gatewayd check")
    week.type("systemctl start gatewayd")
    assert "observe" in week.type("gatewayd status")
    week.try_flows([ACME, *STRANGERS], "passed")
    week.try_flows(UNLISTED[:1], "passed")


def see_who_is_affected(week: Week) -> None:
    impact = week.type("gatewayd impact --since 1d")
    assert "39.37.4.0/24" in impact, impact
    assert "DEMO-BANK" in week.type("gatewayd impact near-misses")
    assert "unregistered" in week.type("gatewayd explain 39.37.4.5 203.0.113.99 udp/51820")
    week.write("/etc/gatewayd/local.d/acme.yaml")
    week.type("gatewayd check")
    week.type("gatewayd reload")
    assert "ACME" in week.type("gatewayd explain 39.37.4.5 203.0.113.99 udp/51820")
    week.watch("pinned on Tuesday", [flow_of(*ACME, 31005)])


def try_a_canary(week: Week) -> None:
    week.type("gatewayd plan --mode reject --canary 10%")
    week.type('gatewayd mode reject --canary 10% --confirm 30m --comment "order 2026-118"')
    week.type("gatewayd trial")
    week.type("gatewayd confirm")
    week.wait_status(mode="reject")


def arm_and_forget(week: Week) -> None:
    week.type("gatewayd mode reject --canary 100% --confirm 30m")
    week.wait_status(mode="reject")
    week.try_flows(STRANGERS, "rejected")
    week.pass_time(31 * 60)
    week.daemon.wait_log("mode.stepped_back")
    week.type("gatewayd trial", status=1)
    week.type("gatewayd trial --ack")
    week.type("gatewayd mode reject --canary 100% --confirm 30m")
    week.publish(without=["DEMO-EMBASSY", "DEMO-SOFTWARE-HOUSE", "DEMO-FREELANCER"])
    week.daemon.wait_log("guard.held")
    assert "DEMO-EMBASSY" in week.type("gatewayd held")
    week.publish()
    week.type("gatewayd confirm")
    week.type("gatewayd mode --write")
    week.type("gatewayd check")
    assert "until the order" in week.daemon.config_path.read_text()


def trip(week: Week) -> None:
    week.try_flows(STRANGERS, "rejected")
    week.try_flows(UNLISTED, "rejected")
    week.daemon.wait_log("trip.tripped")
    week.wait_status(mode="observe")
    week.try_flows(STRANGERS, "passed")
    assert "near" in week.type("gatewayd trial", status=1)
    week.type("gatewayd impact near-misses")
    week.type("gatewayd impact ack DEMO-BANK --until 7d")
    week.type("gatewayd rearm")
    week.wait_status(mode="reject")
    week.try_flows(STRANGERS, "rejected")


def revoke(week: Week) -> None:
    flow = flow_of(*BRANCH_FLOW, 31006)
    week.watch("revoked on Saturday", [flow])
    del week.registry["WEEK-BRANCH"]
    week.publish()
    week.type("gatewayd sync")
    week.try_flows([BRANCH_FLOW], "rejected")
    week.unwatch("revoked on Saturday")
    assert "WEEK-BRANCH" in week.type("gatewayd changes --since 1d")
    week.type("gatewayd reload")
    week.type("gatewayd report --since 7d")


def restart_and_go_back(week: Week) -> None:
    week.type("systemctl restart gatewayd")
    week.wait_status(mode="reject")
    week.try_flows(STRANGERS, "rejected")
    week.type("gatewayd mode observe")
    week.wait_status(mode="observe")
    week.try_flows(STRANGERS, "passed")
    week.type("systemctl stop gatewayd")
    week.type("gatewayd teardown --yes")
    assert "gatewayd" not in week.lab.gateway.run(["nft", "list", "tables"]).stdout


DAYS: dict[str, Callable[[Week], None]] = {
    "Monday: observe": observe,
    "Tuesday: see who is affected": see_who_is_affected,
    "Wednesday: try it on a canary": try_a_canary,
    "Thursday: arm, and forget to confirm": arm_and_forget,
    "Friday: the gateway trips": trip,
    "Saturday: a registration is revoked": revoke,
    "Sunday: restart, and the way back": restart_and_go_back,
}
"""By their titles in the documents."""
