"""The first hour of docs/operations.md, typed on a host with nothing but the package, with the demo's traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count

from gatewayd.demo.cast import lines
from gatewayd.lab.lab import Lab
from gatewayd.lab.traffic import probe
from tests.soak.manual import Command, Day, File
from tests.support.booted import BootedHost
from tests.support.host_gateway import status
from tests.support.lab_daemon import holds

SECTION = "First hour"
CUSTOMERS = ("bank", "software house", "embassy")
"""Of the demo's cast, those in the list of the documents."""


class Hour:
    """`look`: at the page, as the browser of the operator sees it."""

    def __init__(self, host: BootedHost, parts: Sequence[Day], look: Callable[[], None]) -> None:
        self.host = host
        self.lab: Lab = host.lab
        self.look = look
        self._parts = parts
        self._ports = count(20_000)
        self._steps: Iterator[Command | File] = iter(())

    def run(self) -> None:
        """Raises AssertionError where something is not as the documents say."""
        assert [part.title for part in self._parts] == [*PARTS]
        for part in self._parts:
            self._steps = iter(part.steps)
            PARTS[part.title](self)
            assert next(self._steps, None) is None, part.title

    def type(self, line: str, *, status: int = 0) -> str:
        """The command that comes next in the documents, in a shell of root's, and what it prints."""
        step = next(self._steps, None)
        assert step == Command(line), f"{step} in the documents, {line!r} here"
        return self.host.run("sh", "-c", line, status=status)

    def write(self, path: str) -> None:
        """The file that comes next in the documents."""
        step = next(self._steps, None)
        assert isinstance(step, File), f"{step} in the documents, the file {path} here"
        assert step.path == path, f"{step.path} in the documents, {path} here"
        self.host.write(path, step.content)

    def send(self) -> None:
        """Every flow of the demo, each a new one; in observe all of them pass."""
        flows = [line.flow for line in lines(next(self._ports)) if line.start == "customers"]
        assert set(probe(self.lab, flows)) == {"passed"}


def install(hour: Hour) -> None:
    printed = hour.type("apt-get install ./gatewayd_*.deb")
    assert "not configured yet" in printed
    assert hour.host.property("ActiveState") == "inactive"
    # The host has no NTP, and the doctor has a command for that.
    assert "timedatectl set-ntp true" in hour.type("gatewayd doctor", status=1)


def configure(hour: Hour) -> None:
    hour.write("/etc/gatewayd/gatewayd.yaml")
    hour.write("/etc/gatewayd/national.csv")
    assert "ok (" in hour.type("gatewayd check")
    assert "usable 3" in hour.type("gatewayd registry check /etc/gatewayd/national.csv")
    assert "would be made" in hour.type("gatewayd plan")
    assert "gatewayd" not in hour.host.run("nft", "list", "tables")


def start(hour: Hour) -> None:
    hour.send()
    hour.type("systemctl start gatewayd")
    printed = hour.type("gatewayd status")
    assert printed.startswith("READY\n")
    assert "observe, nothing is blocked" in printed
    hour.send()


def look_at_the_page(hour: Hour) -> None:
    expected = [line for line in lines(20_000) if line.who in CUSTOMERS and line.expected == "registered"]

    def has_counted() -> bool:
        counted = status(hour.host).get("counters", {}).get("registered_flows", {})
        return int(counted.get("packets", 0)) >= len(expected) - 1

    assert holds(has_counted)
    hour.look()


def ask(hour: Hour) -> None:
    assert "PASSES: it is registered" in hour.type("gatewayd explain 39.32.0.5 198.51.100.7 udp/500")
    assert "not registered" in hour.type("gatewayd explain 39.40.9.9 203.0.113.99 udp/51820")
    assert "KHYBER-BANK" in hour.type("gatewayd explain 39.32.0.5 203.0.113.99 udp/500")


def see_who_would_be_affected(hour: Hour) -> None:
    def counts() -> bool:
        hour.send()
        return "39.40.9.0/24" in hour.host.run("gatewayd", "impact")

    assert holds(counts, 120)
    impact = hour.type("gatewayd impact")
    assert "39.40.9.0/24" in impact, impact
    near = hour.type("gatewayd impact near-misses")
    assert "KHYBER-BANK" in near, near


def go_back(hour: Hour) -> None:
    hour.type("systemctl stop gatewayd")
    assert "gatewayd" in hour.host.run("nft", "list", "tables")
    hour.type("gatewayd teardown --yes")
    assert "gatewayd" not in hour.host.run("nft", "list", "tables")
    hour.send()


PARTS: dict[str, Callable[[Hour], None]] = {
    "Install, and look at the host": install,
    "Say where customers are, and who is registered": configure,
    "Start, in observe": start,
    "Look at the page": look_at_the_page,
    "Ask about a customer": ask,
    "See who would be affected": see_who_would_be_affected,
    "The way back, at any time": go_back,
}
"""By their titles in the documents."""
