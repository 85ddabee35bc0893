"""A host boots with the files that it had: first our rules, then the network, which nothing of ours holds up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatewayd.demo.cast import registered_flows
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of
from tests.support.booted import BootedHost, booted
from tests.support.host_gateway import (
    CONFIGURATION,
    RATE_PPS,
    STRANGER,
    configure,
    has_restarted,
    is_ready,
    publish,
    refuses_strangers,
    start,
)
from tests.support.lab_daemon import holds

pytestmark = pytest.mark.host

NETWORKING = """
[Unit]
DefaultDependencies=no
Wants=network.target
After=local-fs.target network-pre.target systemd-sysctl.service
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sh -c 'nft list ruleset >/run/rules-before-the-network'
ExecStart=sysctl net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"""
"""Ordered as ifupdown's networking.service and systemd-networkd are; it turns forwarding on, as that may."""
CLOUD_INIT = """
[Unit]
DefaultDependencies=no
After=networking.service
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
"""
"""It waits for the network, and all else waits for it."""
CHRONY = """
[Unit]
After=network.target
Wants=time-sync.target
Before=time-sync.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
"""
UNITS = {"networking": NETWORKING, "cloud-init": CLOUD_INIT, "chrony": CHRONY}


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """The units of a usual host, enabled, and room for the state of ours."""
    units = tmp_path / "etc/systemd/system"
    for directory in ("multi-user.target.wants", "sysinit.target.wants"):
        (units / directory).mkdir(parents=True)
    for name, text in UNITS.items():
        (units / f"{name}.service").write_text(text)
    for unit, target in (
        ("networking", "multi-user"),
        ("chrony", "multi-user"),
        ("cloud-init", "sysinit"),
    ):
        (units / f"{target}.target.wants/{unit}.service").symlink_to(f"/etc/systemd/system/{unit}.service")
    wanted = units / "multi-user.target.wants/gatewayd.service"
    wanted.symlink_to("/usr/lib/systemd/system/gatewayd.service")
    return tmp_path


@contextmanager
def rebooted(layer: Path, installed: list[Path], network: Lab, first: BootedHost) -> Iterator[BootedHost]:
    """Another boot of the host in a network as new, with the files of ours that `first` had."""
    for path in ("etc/gatewayd", "var/lib/gatewayd"):
        if (first.root / path).exists():
            (layer / path).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", first.root / path, layer / path], check=True)
    with booted(network, [layer, *installed]) as host:
        yield host


def network_is_up(host: BootedHost) -> bool:
    states = host.run("systemctl", "is-active", *(f"{name}.service" for name in UNITS), status=None)
    return states.split() == ["active"] * len(UNITS)


def test_the_last_good_is_in_the_kernel_before_a_packet_is_forwarded(
    host: BootedHost, lab: Lab, second_lab: Lab, installed: list[Path], layer: Path
) -> None:
    start(host)
    flows = registered_flows(30_000)
    strangers = [flow_of(*STRANGER, port) for port in range(20_000, 20_100)]
    with (
        Stream(second_lab, strangers, rate_pps=RATE_PPS) as refused,
        Stream(second_lab, flows, rate_pps=RATE_PPS) as passing,
        rebooted(layer, installed, second_lab, host) as again,
    ):
        assert network_is_up(again)
        assert passing.wait_for_arrivals(len(flows), 60)
        assert is_ready(again)
        assert "39.32.0.0" in again.read("/run/rules-before-the-network")
        assert "ordering cycle" not in again.run("journalctl", "--no-pager")
        assert refused.sent > 0
        assert refused.arrived == 0
    assert refuses_strangers(second_lab)


@pytest.mark.parametrize("fault", ["no last good", "faults in the configuration"])
def test_the_network_comes_up_where_we_do_not(
    host: BootedHost, second_lab: Lab, installed: list[Path], layer: Path, fault: str
) -> None:
    configure(host, "reject")
    if fault == "faults in the configuration":
        publish(host)
        host.write(CONFIGURATION, "policy: {mode: block}\n")
    with rebooted(layer, installed, second_lab, host) as again:
        assert network_is_up(again)
        assert "inet gatewayd" not in again.read("/run/rules-before-the-network")
        # And it goes on trying.
        configure(again, "reject")
        publish(again)
        assert holds(lambda: is_ready(again), 60)
        assert has_restarted(again, 0) is (fault == "no last good")
