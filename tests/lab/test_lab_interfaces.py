"""Interfaces that come and go under a real daemon."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.demo.cast import BANK, STRANGER
from gatewayd.lab.traffic import flow_of, probe
from tests.support.lab_daemon import LabDaemon

pytestmark = pytest.mark.kernel


def interfaces_of(daemon: LabDaemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["interfaces"]
    return found


def counts_of(daemon: LabDaemon) -> dict[str, int]:
    found = interfaces_of(daemon)
    return {each["pattern"]: each["count"] for each in (*found["inside"], *found["outside"])}


def test_lines_that_come_are_seen_and_a_side_without_any_is_a_reason_and_leaves_it_ready(daemon: LabDaemon) -> None:
    daemon.write_registry("national", [BANK])
    daemon.configure("reject", policy={"interfaces": {"inside": ["ppp*"], "outside": ["outside0"]}})
    daemon.start()
    daemon.wait_ready()
    lab = daemon.lab
    daemon.wait(lambda: counts_of(daemon) == {"ppp*": 0, "outside0": 1}, "the interfaces were read")
    reason = interfaces_of(daemon)["reason"]
    assert "no interface has a name of policy.interfaces.inside (ppp*)" in reason
    assert daemon.status()["warnings"][0] == reason
    assert daemon.status()["ready"] is True
    daemon.wait_log("interfaces.unmatched")
    script = "".join(f"link add ppp{number} type veth peer name far{number}\n" for number in range(1, 101))
    lab.gateway.run(["ip", "-batch", "-"], input=script)
    daemon.wait(lambda: counts_of(daemon)["ppp*"] == 100, "all lines are seen")
    assert interfaces_of(daemon)["reason"] is None
    daemon.wait_log("interfaces.matched")
    assert interfaces_of(daemon)["inside"][0]["names"] == [f"ppp{number}" for number in range(1, 6)]
    # What is watched is what the rules judge by: a line with the customers behind it.
    assert probe(lab, [flow_of(STRANGER, "203.0.113.7", "udp/51820", 30001)]) == ["passed"]
    script = "".join(f"link del ppp{number}\n" for number in range(1, 101))
    lab.gateway.run(["ip", "-batch", "-"], input=script)
    daemon.wait(lambda: counts_of(daemon)["ppp*"] == 0, "all lines are gone")
    lab.gateway.run(["ip", "link", "set", "inside0", "down"])
    lab.gateway.run(["ip", "link", "set", "inside0", "name", "ppp0"])
    lab.gateway.run(["ip", "link", "set", "ppp0", "up"])
    daemon.wait(lambda: counts_of(daemon)["ppp*"] == 1, "a line with another name is seen")
    assert daemon.status()["ready"] is True
