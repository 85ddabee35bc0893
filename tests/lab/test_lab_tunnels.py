"""Real tunnels through the gateway of a real daemon: what is quickly shown. The rest is `./run proof tunnels`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.lab.lab import Lab
from tests.proof.faults import fault_named
from tests.proof.harness import planted_loss, proof_lab
from tests.proof.tunnels.fleet import Fleet, TunnelTraffic
from tests.proof.tunnels.openvpn import OpenVpnTcp
from tests.proof.tunnels.raw import Gre
from tests.proof.tunnels.rounds import row_under, world_of
from tests.proof.tunnels.unregistered import observed, refused, strays
from tests.proof.tunnels.wireguard import WireGuard
from tests.soak.sight import Sight

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        not all(map(shutil.which, ("openvpn", "wireguard-go", "wg"))), reason="no programs of tunnels"
    ),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this kernel has no tun devices"),
]


@pytest.fixture(scope="module")
def gateway(kernel: None) -> Iterator[tuple[Lab, Sight]]:
    with proof_lab() as made:
        yield made


@pytest.fixture(scope="module")
def fleet(gateway: tuple[Lab, Sight], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Of registered tunnels; they are up before there is a daemon, and outlive each."""
    with Fleet(gateway[0], tmp_path_factory.mktemp("tunnels"), (WireGuard, OpenVpnTcp), (4,)) as made:
        made.start()
        yield made


def test_tunnels_stay_up_while_the_daemon_is_killed(
    gateway: tuple[Lab, Sight], fleet: Fleet, tmp_path: Path
) -> None:
    before = fleet.handshakes()
    row = row_under(gateway[1], fleet, fault_named("SIGKILL"), TunnelTraffic(fleet))
    assert row.is_good, row.notes
    assert row.sent >= 200
    assert fleet.handshakes() == before


def test_a_planted_loss_is_found_by_name(gateway: tuple[Lab, Sight], fleet: Fleet, tmp_path: Path) -> None:
    row = row_under(gateway[1], fleet, planted_loss("ip saddr 39.38.0.1 drop"), TunnelTraffic(fleet))
    assert row.lost > 0
    assert [note.partition(":")[0] for note in row.notes] == [fleet.tunnels[0].name]


def test_who_brings_up_an_unregistered_tunnel_is_told(gateway: tuple[Lab, Sight], tmp_path: Path) -> None:
    with (
        world_of(*gateway) as world,
        strays(world, tmp_path / "reject", "reject", (OpenVpnTcp, Gre), (4,)) as (fleet, wire),
    ):
        told = refused(world, fleet, wire)
        assert told == {"OpenVPN over TCP, TLS, IPv4": "TCP reset", "GRE, IPv4": "ICMP"}


def test_an_unregistered_tunnel_that_is_observed_works_and_is_counted(
    gateway: tuple[Lab, Sight], tmp_path: Path
) -> None:
    with (
        world_of(*gateway) as world,
        strays(world, tmp_path / "observe", "observe", (WireGuard,), (6,)) as (fleet, _),
    ):
        assert observed(world, fleet)
        listed = {each["prefix"]: each["services"] for each in world.daemon.status()["unregistered"]}
        assert listed["2400:adc1:332::/48"] == ["udp/51820 (1)"]
