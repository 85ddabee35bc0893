"""`gatewayd impact` of a real daemon, against the sender's own count: 50,000 new flows a second, and restarts."""

from __future__ import annotations

import csv
import shutil
import signal
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from gatewayd.compile.effects import canary_bucket
from gatewayd.lab.lab import Lab
from gatewayd.model import parse_address
from tests.bench.burst import Burst
from tests.bench.registrants import PORT
from tests.support.lab_daemon import LabDaemon, decode

pytestmark = pytest.mark.kernel

RATE = 50_000
SOURCES = [f"39.32.{third}.{number}" for third in range(40) for number in range(1, 21)]
INTERFACES = {"inside": ["inside0"], "outside": ["outside0"]}
BANK = {"id": "BANK", "category": "bank", "status": "active", "clients": ["39.33.0.0/24"]}


@pytest.fixture
def burst(shared_lab: Lab, tmp_path: Path) -> Burst:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    return Burst(shared_lab, tmp_path, SOURCES)


def begin(daemon: LabDaemon, mode: str = "observe", **policy: Any) -> None:
    daemon.write_registry("national", [BANK])
    daemon.configure(mode, policy={"interfaces": INTERFACES, **policy})
    daemon.start()
    daemon.wait_ready()
    impact(daemon)


def impact(daemon: LabDaemon, *arguments: str) -> Any:
    done = daemon.ask("impact", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return decode(done.stdout)


def wait_flows(daemon: LabDaemon, flows: int) -> Any:
    """The report once it has so many."""
    found: list[Any] = []

    def has() -> bool:
        found[:] = [impact(daemon)]
        return bool(found[0]["flows"] >= flows)

    daemon.wait(has, f"{flows} flows")
    return found[0]


def sent_by_prefix(flows: int) -> dict[str, int]:
    """As the sender does: flow n is from source n modulo their number."""
    sent: Counter[str] = Counter()
    for number, source in enumerate(SOURCES):
        each = flows // len(SOURCES) + (number < flows % len(SOURCES))
        sent[source.rpartition(".")[0] + ".0/24"] += each
    return {prefix: count for prefix, count in sent.items() if count}


def sent_by_bucket(flows: int) -> list[int]:
    sent = [0] * 100
    for number, source in enumerate(SOURCES):
        sent[canary_bucket(parse_address(source))] += flows // len(SOURCES) + (number < flows % len(SOURCES))
    return sent


def test_it_counts_every_flow_at_50_000_new_flows_a_second(daemon: LabDaemon, burst: Burst) -> None:
    begin(daemon)
    flows = 3 * RATE
    burst.send(flows, RATE)
    found = wait_flows(daemon, flows)
    assert found["flows"] == flows
    assert {line["prefix"]: line["flows"] for line in found["prefixes"]} == sent_by_prefix(flows)
    assert [(line["service"], line["flows"]) for line in found["services"]] == [(f"udp/{PORT}", flows)]
    assert [(line["interface"], line["flows"]) for line in found["interfaces"]] == [("inside0", flows)]
    assert found["buckets"] == sent_by_bucket(flows)
    assert found["lost"] == {"prefixes": 0, "services": 0, "interfaces": 0, "uncertain_packets": 0}


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_neither_loses_nor_doubles_a_flow(
    daemon: LabDaemon, shared_lab: Lab, tmp_path: Path, end: signal.Signals
) -> None:
    bursts = [part_of(shared_lab, tmp_path / str(number), SOURCES[number::3]) for number in range(3)]
    begin(daemon)
    bursts[0].send(5000, RATE)
    wait_flows(daemon, 5000)
    bursts[1].send(2000, RATE)  # of a reading that does not come any more
    daemon.end(end)
    bursts[2].send(1000, RATE)
    daemon.start()
    daemon.wait_ready()
    found = wait_flows(daemon, 8000)
    assert found["flows"] == sum(line["flows"] for line in found["prefixes"]) == 8000
    assert [gap["flows"] for gap in found["gaps"]] == [3000]


def part_of(lab: Lab, scratch: Path, sources: list[str]) -> Burst:
    scratch.mkdir()
    return Burst(lab, scratch, sources)


def test_it_is_text_csv_and_a_page_that_can_be_mailed(daemon: LabDaemon, burst: Burst, tmp_path: Path) -> None:
    begin(daemon)
    burst.send(800, RATE)
    wait_flows(daemon, 800)
    assert f"{'unregistered flows':<30}800" in daemon.ask("impact").stdout
    rows = list(csv.DictReader(StringIO(daemon.ask("impact", "--csv").stdout)))
    assert sum(int(row["flows"]) for row in rows if row["kind"] == "prefix") == 800
    page = tmp_path / "impact.html"
    assert daemon.ask("impact", "--since", "30d", "--html", str(page)).returncode == 0
    assert "39.32.0.0/24" in page.read_text()
    kept = (tmp_path / "impact.sqlite").read_bytes()
    assert not [source for source in SOURCES if source.encode() in kept or parse_address(source) in kept]
