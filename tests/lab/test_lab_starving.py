"""Thousands of registrations at one prefix, and a flood of new flows from it, leave the daemon its time."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from gatewayd.lab.tap import Tap
from gatewayd.model import Flow, format_address
from tests.support.lab_daemon import LabDaemon, holds

pytestmark = pytest.mark.kernel

REGISTRATIONS, FLOWS = 5000, 1500
HOME = bytes((39, 32, 8, 0))


def crowd(count: int) -> list[dict[str, Any]]:
    """Registrations of one /28, each for a peer of its own."""
    return [
        {
            "id": f"BRANCH-{number}",
            "category": "bank",
            "status": "active",
            "clients": ["39.32.8.0/28"],
            "peers": [format_address((0x2D00_0000 + number).to_bytes(4, "big"))],
            "services": ["wireguard"],
        }
        for number in range(count)
    ]


def strange_flows(count: int) -> list[Flow]:
    """From the same /28, to addresses that are nobody's peer."""
    chance = random.Random(1)
    return [
        Flow(
            17, HOME[:3] + bytes((chance.randrange(16),)), bytes((198, 51, 100, chance.randrange(256))), port, 51820
        )
        for port in range(20000, 20000 + count)
    ]


def processor_s(daemon: LabDaemon) -> float:
    """What the daemon has used so far, however busy the machine is with something else."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_flows_of_a_crowded_prefix_cost_what_others_cost(daemon: LabDaemon) -> None:
    daemon.write_registry("national", crowd(REGISTRATIONS))
    daemon.configure("observe", kernel={"nflog_rate": 100000, "near_miss_rate": 100000})
    daemon.start()
    daemon.wait_ready()
    before = processor_s(daemon)
    with Tap(daemon.lab.inside) as inside:
        for flow in strange_flows(FLOWS):
            inside.send(flow, b"new")
        assert holds(lambda: daemon.status()["watch"]["packets"] >= FLOWS)
        assert holds(lambda: sum(each["flows"] for each in daemon.status()["unregistered"]) >= FLOWS)
    # By going through all of them it was 2 ms a flow.
    assert processor_s(daemon) - before < FLOWS * 0.001
    assert daemon.status()["watch"]["overruns"] == 0
