"""A drain that began goes on over a restart of the daemon, with real flows."""

from __future__ import annotations

import os
import time
from itertools import count
from signal import SIGTERM
from typing import Any

import pytest

from gatewayd.demo.cast import BANK, EMBASSY, FAR, SOFTWARE_HOUSE
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of
from gatewayd.model import Flow
from tests.support.events import flush_connections
from tests.support.lab_daemon import LabDaemon, holds

pytestmark = pytest.mark.kernel

CAST: list[dict[str, Any]] = [BANK, SOFTWARE_HOUSE, EMBASSY]
DRAIN_S = 16.0
_ports = count(20000)


def run(daemon: LabDaemon, drain: str = f"{DRAIN_S:g}s") -> Lab:
    daemon.write_registry("national", CAST)
    daemon.configure("reject", policy={"drain": drain})
    daemon.start()
    daemon.wait_ready()
    return daemon.lab


def house_flow() -> Flow:
    return flow_of("39.32.64.10", FAR, "udp/51820", next(_ports))


def withdraw_house(daemon: LabDaemon) -> float:
    """The moment before the drain began; it has begun when this returns, and it is on disk."""
    began = time.monotonic()
    daemon.write_registry("national", [BANK, EMBASSY])
    assert holds(lambda: daemon.status()["marks"]["draining"] >= 1)
    assert holds(lambda: all(each["state"] == "ok" for each in files_of(daemon, "drains")))
    assert holds(lambda: all(each["writes"] >= 2 for each in files_of(daemon, "drains")))
    return began


def files_of(daemon: LabDaemon, name: str) -> list[dict[str, Any]]:
    return [each for each in daemon.status()["state_files"] if each["name"] == name]


def is_cut(stream: Stream) -> bool:
    return not stream.wait_for_arrivals(1, 0.5)


@pytest.mark.parametrize("signal", ["kill", "term"])
def test_a_restart_keeps_what_is_left_of_a_drain(daemon: LabDaemon, signal: str) -> None:
    lab = run(daemon)
    flow, stays = house_flow(), flow_of("39.33.7.5", FAR, "udp/51820", next(_ports))
    with Stream(lab, [stays], rate_pps=100) as other, Stream(lab, [flow], rate_pps=100) as stream:
        assert stream.wait_for_arrivals(20)
        began = withdraw_house(daemon)
        assert holds(lambda: time.monotonic() - began > DRAIN_S / 2)
        assert stream.wait_for_arrivals(20)
        if signal == "term":
            os.kill(daemon.pid, SIGTERM)
            assert holds(lambda: not daemon.is_running())
        daemon.stop_for_good()
        daemon.start()
        daemon.wait_ready()
        restarted = time.monotonic()
        assert holds(lambda: is_cut(stream))
        cut = time.monotonic()
        assert other.wait_for_arrivals(20)
    assert other.report().lost == ()
    # It was not shortened; and it did not begin again with the restart.
    assert cut - began >= DRAIN_S
    assert cut < restarted + DRAIN_S - 2


def test_without_connections_there_is_nothing_left_to_drain(daemon: LabDaemon) -> None:
    """As after a reboot: a flow with the same addresses and ports is another, and it is judged like any other."""
    lab = run(daemon)
    flow = house_flow()
    with Stream(lab, [flow], rate_pps=100) as stream:
        assert stream.wait_for_arrivals(20)
        withdraw_house(daemon)
        daemon.stop_for_good()
        flush_connections(lab.gateway)
        assert holds(lambda: is_cut(stream))
        daemon.write_registry("national", CAST)
        daemon.start()
        daemon.wait_ready()
        # Registered again, and no time of before counts against it.
        assert stream.wait_for_arrivals(20)
        assert holds(lambda: daemon.status()["marks"]["draining"] == 0)


def test_a_drain_of_nothing_cuts_at_the_restart_what_was_left(daemon: LabDaemon) -> None:
    lab = run(daemon, drain="10m")
    flow = house_flow()
    with Stream(lab, [flow], rate_pps=100) as stream:
        assert stream.wait_for_arrivals(20)
        withdraw_house(daemon)
        daemon.stop_for_good()
        daemon.configure("reject", policy={"drain": "0s"})
        daemon.start()
        daemon.wait_ready()
        assert holds(lambda: is_cut(stream))
