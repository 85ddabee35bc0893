"""Docker's tables, ufw, iptables-nft and firewalld beside us, under registered traffic of both families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import StreamReport
from gatewayd.lab.traffic import probe
from gatewayd.model import Flow
from gatewayd.model.service import GRE
from tests.support.lab_daemon import LabDaemon
from tests.support.neighbours import (
    ADMIT,
    CALLED,
    OPENED,
    Firewalld,
    Ufw,
    examine,
    iptables,
    new_flows,
    restore,
    start,
    start_docker,
    traffic,
)

pytestmark = pytest.mark.kernel

FIREWALL = f"""
*filter
:FORWARD DROP
-A FORWARD {ADMIT}
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
COMMIT
"""
"""As many have it, with our mark before all else."""


@pytest.fixture
def gateway(daemon: LabDaemon) -> Lab:
    return start(daemon)


def dropping(daemon: LabDaemon) -> list[str]:
    """Commands of the doctor's for chains that drop registered flows."""
    return [each.command or "" for each in examine(daemon).get("dropping-chain", [])]


def type_commands(daemon: LabDaemon, run: Callable[[str], object]) -> None:
    commands = dropping(daemon)
    assert commands
    for each in commands:
        run(each)
    assert dropping(daemon) == []


# -- Docker --------------------------------------------------------------------------------------------------------


def test_docker_starts_and_nothing_is_lost_where_its_users_chain_accepts_the_mark(
    daemon: LabDaemon, gateway: Lab
) -> None:
    iptables(gateway.gateway, "-N DOCKER-USER")
    iptables(gateway.gateway, f"-I DOCKER-USER {ADMIT}")
    with traffic(gateway) as flows:
        for _ in range(3):  # dockerd adds its rules again where they are missing
            start_docker(gateway)
            flows.goes_on(10)
        flows.refuses()
        flows.is_whole()
    assert dropping(daemon) == []


def test_docker_drops_new_registered_flows_until_what_the_doctor_says_is_typed(
    daemon: LabDaemon, gateway: Lab
) -> None:
    start_docker(gateway)
    assert set(probe(gateway, new_flows()[:2], deadline_s=0.5)) == {"lost"}
    type_commands(daemon, lambda line: gateway.gateway.run(["sh", "-ec", line]))
    with traffic(gateway) as flows:
        start_docker(gateway)
        flows.refuses()
        flows.is_whole()


# -- ufw and iptables-nft ------------------------------------------------------------------------------------------


def test_ufw_is_enabled_and_reloaded_and_nothing_is_lost_where_forward_accepts_the_mark_first(
    daemon: LabDaemon, gateway: Lab, tmp_path: Path
) -> None:
    with Ufw(gateway.gateway, tmp_path, "before.init") as ufw, traffic(gateway) as flows:
        ufw.run("ufw --force enable")
        flows.goes_on()
        ufw.run("ufw reload")
        flows.refuses()
        flows.goes_on()
        assert dropping(daemon) == []
        ufw.run("ufw --force disable")
        flows.is_whole()


def test_what_the_doctor_says_of_ufw_keeps_through_its_reloads(
    daemon: LabDaemon, gateway: Lab, tmp_path: Path
) -> None:
    with Ufw(gateway.gateway, tmp_path) as ufw:
        ufw.run("ufw --force enable")
        assert set(probe(gateway, new_flows()[:2], deadline_s=0.5)) == {"lost"}
        type_commands(daemon, ufw.run)
        with traffic(gateway) as flows:
            ufw.run("ufw reload")
            flows.refuses()
            flows.is_whole()


def test_ufw_empties_its_own_chains_first_so_a_rule_there_is_not_enough_for_a_reload(
    daemon: LabDaemon, gateway: Lab, tmp_path: Path
) -> None:
    with Ufw(gateway.gateway, tmp_path, "before.rules") as ufw:
        ufw.run("ufw --force enable")
        assert dropping(daemon) == []
        with traffic(gateway) as flows:
            ufw.run("ufw reload")
            flows.goes_on()
            assert any(each.lost for each in flows.reports().values())


def test_rules_of_iptables_are_restored_again_and_again_and_nothing_is_lost(
    daemon: LabDaemon, gateway: Lab
) -> None:
    with traffic(gateway) as flows:
        for _ in range(5):
            restore(gateway.gateway, FIREWALL)
            flows.goes_on(10)
        flows.refuses()
        flows.is_whole()
    assert dropping(daemon) == []


# -- firewalld -----------------------------------------------------------------------------------------------------


def test_firewalld_is_reloaded_and_no_flow_that_both_ends_spoke_in_loses_a_packet(
    daemon: LabDaemon, gateway: Lab, tmp_path: Path
) -> None:
    iptables(gateway.gateway, f"-I FORWARD {ADMIT}")
    with Firewalld(gateway.gateway, tmp_path) as firewalld:
        assert "connmark" not in gateway.gateway.run(["iptables-nft", "-S"]).stdout
        assert set(probe(gateway, new_flows()[:2], deadline_s=0.5)) == {"rejected"}
        type_commands(daemon, firewalld.run)
        assert "invalid-drop" in examine(daemon)
        with traffic(gateway) as flows:
            firewalld.run("firewall-cmd --reload")
            flows.refuses()
            flows.goes_on()
            reports = flows.reports()
        assert lost(reports["opened"], OPENED) == set()
        assert reports["new"].lost
        assert lost(reports["called"], CALLED) <= {each for each in CALLED if each.protocol == GRE}
        with traffic(gateway) as flows:
            flows.refuses()
            flows.is_whole()


def lost(report: StreamReport, flows: Sequence[Flow]) -> set[Flow]:
    return {flows[number % len(flows)] for number in report.lost}
