"""What leaves force waits for an operator, whatever brings it about: on packets, with a real daemon."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from gatewayd.demo.cast import BANK, ELSEWHERE, EMBASSY, FAR, FREELANCER, SOFTWARE_HOUSE, STRANGER
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow
from tests.support.lab_daemon import LabDaemon, holds

pytestmark = pytest.mark.kernel

CAST = [BANK, SOFTWARE_HOUSE, EMBASSY, FREELANCER]
ONE = [dict(SOFTWARE_HOUSE, id="ONE", clients=["39.47.0.0/28"])]
GUARD = {"max_removed": "5%", "min_removed": 100, "protected": {"bank": 0, "embassy": 0}}
_ports = count(30000)


def registered() -> list[Flow]:
    return [
        flow_of("39.32.64.10", ELSEWHERE, "udp/51820", next(_ports)),
        flow_of("39.32.0.5", FAR, "udp/4500", next(_ports)),
        flow_of("39.32.0.6", FAR, "esp"),
        flow_of("2400:adc0:100::10", "2001:db8:99::1", "udp/51820", next(_ports)),
    ]


def one() -> Flow:
    return flow_of("39.47.0.3", ELSEWHERE, "udp/51820", next(_ports))


def configure(daemon: LabDaemon, *sources: str, **registry: Any) -> None:
    daemon.configure("reject", sources=sources, registry={"shrink_guard": GUARD} | registry)


def start(daemon: LabDaemon) -> Lab:
    daemon.write_registry("national", CAST)
    configure(daemon, "national")
    daemon.start()
    daemon.wait_ready()
    return daemon.lab


@contextmanager
def undisturbed(lab: Lab) -> Iterator[None]:
    with Stream(lab, registered(), rate_pps=400.0) as stream:
        assert stream.wait_for_arrivals(50, 20)
        yield
        assert stream.wait_for_arrivals(50, 20)
    assert stream.report().lost == ()


def check_held(daemon: LabDaemon, cause: str) -> int:
    """Everything passes, the daemon is ready and says what waits; the number to accept it under."""
    daemon.wait(lambda: bool(daemon.status()["held"]), "held")
    daemon.wait_ready()
    (held,) = daemon.status()["held"]
    assert set(held["by_cause"]) == {cause}
    assert probe(daemon.lab, [*registered(), one()]) == ["passed"] * 5
    assert probe(daemon.lab, [flow_of(STRANGER, ELSEWHERE, "udp/51820", next(_ports))]) == ["rejected"]
    assert f"gatewayd accept {held['serial']}" in daemon.ask("status").stdout
    told = daemon.ask("held").stdout
    assert f"gatewayd accept {held['serial']} lets them go" in told
    assert ("DEMO-BANK " in told) == (cause != "kernel/elements"), told
    return int(held["serial"])


def accept(daemon: LabDaemon, serial: int) -> None:
    assert daemon.ask("accept", str(serial)).returncode == 0
    bank = flow_of("39.32.0.5", FAR, "udp/4500", next(_ports))
    assert holds(lambda: probe(daemon.lab, [bank]) == ["rejected"])
    assert daemon.status()["held"] == []
    assert daemon.ask("held").stdout == "Nothing is held.\n"
    assert probe(daemon.lab, [one()]) == ["passed"]


def test_a_source_that_a_reload_renames(daemon: LabDaemon) -> None:
    lab = start(daemon)
    with undisturbed(lab):
        daemon.write_registry("other", ONE)
        configure(daemon, "other")
        daemon.reload()
        serial = check_held(daemon, "other")
    accept(daemon, serial)
    told = daemon.ask("changes").stdout
    assert f"operator/accept, serial {serial}, accepted by uid {os.getuid()}" in told
    assert "DEMO-BANK" in told


@pytest.mark.parametrize("way", ["SIGTERM", "SIGKILL"])
def test_a_source_that_a_restart_renames(daemon: LabDaemon, way: str) -> None:
    lab = start(daemon)
    with undisturbed(lab):
        daemon.wait(lambda: (daemon.directory / "guard").exists(), "saved")
        assert holds(lambda: (daemon.directory / "registry/national.sqlite3").exists())
        daemon.end(signal.Signals[way])
        daemon.write_registry("other", ONE)
        configure(daemon, "other")
        daemon.start()
        check_held(daemon, "other")
        daemon.end(signal.Signals[way])
        daemon.start()
        serial = check_held(daemon, "other")
    accept(daemon, serial)


def test_a_state_directory_that_is_lost(daemon: LabDaemon) -> None:
    lab = start(daemon)
    with undisturbed(lab):
        daemon.end()
        shutil.rmtree(daemon.directory / "registry", ignore_errors=True)
        (daemon.directory / "guard").unlink(missing_ok=True)
        daemon.write_registry("national", ONE)
        daemon.start()
        serial = check_held(daemon, "kernel/elements")
    accept(daemon, serial)


def test_a_filter_over_a_whole_network_by_a_slip_of_the_pen(daemon: LabDaemon) -> None:
    lab = start(daemon)
    with undisturbed(lab):
        daemon.write_registry("national", CAST + ONE)
        daemon.wait_in_kernel(one())
        assert holds(lambda: daemon.sync()["registrations"] == 5)
        local = daemon.directory / "local.d"
        local.mkdir()
        (local / "desk.yaml").write_text('filters:\n  - {prefix: 39.0.0.0/8, comment: "a slip"}\n')
        daemon.end()
        configure(daemon, "national", local=str(local))
        daemon.start()
        check_held(daemon, "config/local")


def test_a_registrant_whom_a_local_filter_cuts_is_found_with_the_filter(daemon: LabDaemon) -> None:
    lab = start(daemon)
    local = daemon.directory / "local.d"
    local.mkdir()
    daemon.end()
    configure(daemon, "national", local=str(local))
    daemon.start()
    daemon.wait_ready()
    (local / "desk.yaml").write_text("filters:\n  - {id: DEMO-BANK, comment: stolen}\n")
    bank = flow_of("39.32.0.5", FAR, "udp/4500", next(_ports))
    assert holds(lambda: probe(lab, [bank]) == ["rejected"])
    override = "filter of DEMO-BANK in desk.yaml:2 (stolen)"
    explained = daemon.ask("explain", "39.32.0.5", FAR, "udp/4500").stdout
    assert f"but the {override} takes it away" in explained
    assert "inside0 to outside0, by the routing table" in explained
    for words in (("registrations", "DEMO-BANK"), ("registrations", "--search", "39.32.0.5")):
        assert "dropped by a filter" in daemon.ask(*words).stdout
    assert override in daemon.ask("registrations", "DEMO-BANK").stdout


def test_a_reload_at_any_moment_of_the_start(daemon: LabDaemon) -> None:
    """Other sources, renamed sources, more and fewer; the daemon neither ends nor loses a packet."""
    randomness = random.Random(20260918)
    many = [dict(SOFTWARE_HOUSE, id=f"M-{n}", clients=[f"39.44.{n >> 8}.{n & 255}/32"]) for n in range(8000)]
    for name in ("national", "other", "desk"):
        daemon.write_registry(name, CAST + many)
    configure(daemon, "national", "desk")
    daemon.start()
    daemon.wait_ready()
    listed: tuple[str, ...] = ("national", "desk")
    with undisturbed(daemon.lab):
        for number in range(10):
            daemon.end()
            daemon.start()
            daemon.wait_log("daemon.started", number + 2)
            time.sleep(randomness.uniform(0.0, 0.6))
            listed = randomness.choice(
                [("other",), ("desk", "other"), ("other", "national"), ("national", "desk"), ("desk",)]
            )
            configure(daemon, *listed)
            daemon.reload()
            daemon.wait_log("reload.done", number + 1)
            daemon.wait_ready()
            assert [each["name"] for each in daemon.status()["sources"]] == list(listed)
    assert "Traceback" not in daemon.log_text()
