"""Marks from elsewhere: another gateway's, another program's, and those of flows that no binding here explains."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest

from gatewayd.demo.cast import BANK, EMBASSY, FAR, SOFTWARE_HOUSE, STRANGER, registration
from gatewayd.lab.lab import Lab
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.lab.world import DEMO_PEPPER, mobile_number, subscriber_of
from gatewayd.model import Flow
from gatewayd.model.policy import MarkLayout
from tests.support.carrying import carry, change_mark
from tests.support.lab_daemon import LabDaemon, holds, mark_of
from tests.support.nas import Nas, write_secrets

pytestmark = pytest.mark.kernel

LAYOUT = MarkLayout(0xFF000000)
HOUSE, HOME = "39.32.64.10", "39.41.0.7"
FREELANCER = registration("PK-FREELANCER", "freelancer", [], subscriber=subscriber_of(1), services=["wireguard"])
NUMBER, SOMEBODY = (f"+{mobile_number(each)}" for each in (1, 3))
_ports = count(24000)


def wireguard(source: str = HOUSE, destination: str = FAR) -> Flow:
    return flow_of(source, destination, "udp/51820", next(_ports))


def run(daemon: LabDaemon, mode: str = "reject", **sections: Any) -> Lab:
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE, EMBASSY, FREELANCER])
    daemon.configure(mode, **sections)
    daemon.start()
    daemon.wait_ready()
    return daemon.lab


def marks(daemon: LabDaemon) -> Any:
    return daemon.status()["marks"]


# -- judged by somebody else ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["observe", "reject"])
def test_a_registered_flow_that_came_judged_is_believed_to_be_registered(daemon: LabDaemon, mode: str) -> None:
    lab = run(daemon, mode)
    judged = LAYOUT.judged(daemon.status()["epoch"])
    mine, theirs = wireguard(), wireguard(STRANGER)
    translated = wireguard()
    asked_for = msgspec.structs.replace(translated, destination=bytes([192, 0, 2, 9]))
    for each in (mine, theirs):
        carry(lab.gateway, each, judged | 0x5)
    carry(lab.gateway, translated, judged, asked_for=asked_for)
    assert holds(lambda: mark_of(lab, mine) == 0x5)
    assert holds(lambda: mark_of(lab, translated) == 0)
    assert mark_of(lab, theirs) == judged | 0x5
    assert probe(lab, [mine]) == ["passed"]
    assert mark_of(lab, mine) == LAYOUT.registered | 0x5
    daemon.wait(lambda: marks(daemon)["not_believed"] == 2, "two marks that are not believed")
    assert marks(daemon)["carried"] == 3
    daemon.wait_log("connections.not_believed")


def test_an_update_of_a_mark_is_found_by_the_scan(daemon: LabDaemon) -> None:
    """No event of ours tells of it."""
    lab = run(daemon, "mark")
    mine = wireguard()
    carry(lab.gateway, mine, LAYOUT.registered)  # it lives for longer than a flow of one packet
    judged = LAYOUT.judged(daemon.status()["epoch"])
    change_mark(lab.gateway, mine, judged)
    assert holds(lambda: mark_of(lab, mine) == 0, deadline_s=90)
    daemon.wait(lambda: marks(daemon)["not_believed"] == 1, "the mark that is not believed")


def test_a_rule_of_another_program_that_judges_everybody_is_named_and_refuses_nobody(daemon: LabDaemon) -> None:
    lab = run(daemon)
    epoch = daemon.status()["epoch"]
    lab.gateway.run(["nft", "add table inet other"])
    lab.gateway.run(["nft", "add chain inet other pre { type filter hook prerouting priority mangle ; }"])
    lab.gateway.run(["nft", f"add rule inet other pre ct mark set {LAYOUT.judged(epoch):#010x}"])
    lab.gateway.run(["nft", "add rule inet other pre meta mark set ct mark"])
    registered = [wireguard() for _ in range(5)]
    for _ in range(3):
        assert probe(lab, registered) == ["passed"] * 5
    assert probe(lab, [wireguard(STRANGER)]) == ["rejected"]
    assert holds(lambda: daemon.log_text().count("neighbours.found") == 2, deadline_s=90)
    status = daemon.status()
    assert (status["marks"]["writers"], status["marks"]["leakers"]) == (1, 1)
    assert [each["chain"] for each in status["marks"]["neighbours"]] == ["pre", "pre"]
    assert "inet other pre handle" in status["warnings"][0]
    assert "WARNING" in daemon.ask("status").stdout


def test_connection_tracking_is_counted(daemon: LabDaemon) -> None:
    lab = run(daemon)
    assert probe(lab, [wireguard() for _ in range(20)]) == ["passed"] * 20
    daemon.wait(lambda: (daemon.status()["conntrack"] or {}).get("entries", 0) >= 20, "the entries")
    assert daemon.status()["conntrack"]["max"] > 0


# -- registered by somebody else -----------------------------------------------------------------------------------


@pytest.fixture
def nas(daemon: LabDaemon) -> Iterator[Nas]:
    with Nas(daemon.lab.gateway) as made:
        yield made


def run_with_subscribers(daemon: LabDaemon, **sections: Any) -> Lab:
    return run(
        daemon, subscribers=write_secrets(daemon.directory, pepper=DEMO_PEPPER), policy={"drain": "0s"}, **sections
    )


def scan(daemon: LabDaemon) -> None:
    """What was withdrawn makes the daemon go through all registered flows."""
    before = daemon.log_text().count("registry.applied")
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE, FREELANCER])
    daemon.sync()
    daemon.wait_log("registry.applied", before + 1)


def test_a_live_tunnel_that_came_registered_is_not_cut_before_the_nas_was_heard(
    daemon: LabDaemon, nas: Nas
) -> None:
    lab = run_with_subscribers(daemon)
    mine, somebodys, silent = wireguard(HOME), wireguard("39.41.0.8"), wireguard("39.41.0.9")
    for each in (mine, somebodys, silent):
        carry(lab.gateway, each, LAYOUT.registered)
    scan(daemon)
    daemon.wait(lambda: marks(daemon)["waiting"] == 3, "three flows that wait")
    assert probe(lab, [mine, somebodys, silent]) == ["passed"] * 3
    warnings = daemon.status()["warnings"]
    assert any("accounting" in each for each in warnings), warnings
    daemon.wait_log("connections.unexplained")
    nas.start("s1", NUMBER, HOME)
    nas.start("s2", SOMEBODY, "39.41.0.8")
    # Of the one a binding is known now, of the other that nobody registered has the address.
    assert holds(lambda: mark_of(lab, somebodys) == 0, deadline_s=90)
    assert probe(lab, [somebodys]) == ["rejected"]
    assert mark_of(lab, mine) == mark_of(lab, silent) == LAYOUT.registered
    assert probe(lab, [mine, silent]) == ["passed"] * 2
    daemon.wait(lambda: marks(daemon)["waiting"] == 1, "one flow that waits")
    # And what is known here drains as ever: at once.
    nas.stop("s1", NUMBER, HOME)
    assert holds(lambda: mark_of(lab, mine) == 0, deadline_s=90)


def test_a_lost_journal_cuts_no_live_tunnel(daemon: LabDaemon, nas: Nas) -> None:
    """After a restart the mark is all that is left of a binding, until the NAS tells of the session again."""
    lab = run_with_subscribers(daemon)
    nas.start("s1", NUMBER, HOME)
    live = wireguard(HOME)
    assert holds(lambda: probe(lab, [live], answered=True) == ["passed"])
    daemon.end()
    for each in daemon.directory.glob("sessions.sqlite*"):
        each.unlink()
    daemon.start()
    daemon.wait_ready()
    daemon.wait(lambda: marks(daemon)["waiting"] == 1, "one flow that waits")
    assert probe(lab, [live], answered=True) == ["passed"]
    assert mark_of(lab, live) == LAYOUT.registered
    nas.interim("s1", NUMBER, HOME)
    assert holds(lambda: marks(daemon)["waiting"] == 0, deadline_s=90)
    assert mark_of(lab, live) == LAYOUT.registered


def test_without_subscribers_nothing_waits_and_it_is_said(daemon: LabDaemon) -> None:
    lab = run(daemon, policy={"drain": "0s"})
    theirs = wireguard(STRANGER)
    carry(lab.gateway, theirs, LAYOUT.registered)
    scan(daemon)
    assert holds(lambda: mark_of(lab, theirs) == 0)
    assert marks(daemon)["waiting"] == 0
    (warning,) = daemon.status()["warnings"]
    assert "no registration here explains them" in warning
    daemon.wait_log("connections.unexplained")
