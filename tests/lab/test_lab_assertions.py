"""Assertions on packets, with a real daemon: refused changes, forced ones, and what the kernel says."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gatewayd.demo.cast import BANK, ELSEWHERE, FREELANCER, SOFTWARE_HOUSE, STRANGER
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow
from tests.support.lab_daemon import TABLE, LabDaemon

pytestmark = pytest.mark.kernel

CAST = [BANK, SOFTWARE_HOUSE, FREELANCER]
CUSTOMER, OFFICE = "39.32.64.10", STRANGER
_ports = count(31000)


def customer() -> Flow:
    return flow_of(CUSTOMER, ELSEWHERE, "udp/51820", next(_ports))


def office() -> Flow:
    return flow_of(OFFICE, ELSEWHERE, "udp/51820", next(_ports))


def asserted(name: str, source: str, kind: str = "must_pass", service: str = "udp/51820") -> str:
    line = f"name: {name}, source: {source}, destination: {ELSEWHERE}, service: {service}, comment: 'call them'"
    return f"{kind}:\n  - {{{line}}}\n"


def begin(daemon: LabDaemon, local: Path, mode: str = "observe", **files: str) -> None:
    local.mkdir()
    for name, text in files.items():
        (local / f"{name}.yaml").write_text(text)
    daemon.write_registry("national", CAST)
    configure(daemon, local, mode)
    daemon.start()
    daemon.wait_ready()


def configure(daemon: LabDaemon, local: Path, mode: str, **policy: Any) -> None:
    daemon.configure(mode, registry={"local": str(local)}, policy=policy)


def failing(daemon: LabDaemon) -> list[str]:
    return [each["name"] for each in daemon.status()["assertions"]["examples"]]


def test_a_mode_that_would_cut_a_named_customer_is_refused(daemon: LabDaemon, tmp_path: Path) -> None:
    local = tmp_path / "local.d"
    begin(daemon, local, customers=asserted("office", OFFICE))
    daemon.wait(lambda: failing(daemon) == ["office"], "said in observe")
    assert daemon.ask("status").stdout.startswith("FAILING ASSERTION: office; READY")
    with Stream(daemon.lab, [office(), customer()], rate_pps=200.0) as stream:
        assert stream.wait_for_arrivals(50, 20)
        configure(daemon, local, "reject")
        result = daemon.ask("reload")
        assert result.returncode == 1
        assert (
            "WOULD BREAK    must_pass office (customers.yaml:2): udp/51820: no registration covers" in result.stdout
        )
        assert "and mode reject refuses it; it is there for: call them" in result.stdout
        assert stream.wait_for_arrivals(50, 20)
    assert stream.report().lost == ()
    assert daemon.status()["mode"] == "observe"
    assert daemon.ask("reload", "--force").returncode == 0
    daemon.wait_mode("reject")
    assert probe(daemon.lab, [customer(), office()]) == ["passed", "rejected"]
    daemon.wait_log("assertion.forced")


def test_local_files_that_cut_a_named_customer_wait(daemon: LabDaemon, tmp_path: Path) -> None:
    local = tmp_path / "local.d"
    begin(daemon, local, "reject", customers=asserted("house", CUSTOMER))
    with Stream(daemon.lab, [customer()], rate_pps=200.0) as stream:
        assert stream.wait_for_arrivals(50, 20)
        (local / "filters.yaml").write_text("filters: [{prefix: 39.32.64.0/24, comment: a slip}]\n")
        daemon.wait_log("assertion.refused")
        daemon.wait(lambda: bool(daemon.status()["overrides"]["faults"]), "said in the status")
        assert stream.wait_for_arrivals(50, 20)
    assert stream.report().lost == ()
    assert probe(daemon.lab, [customer()]) == ["passed"]
    assert daemon.ask("reload").returncode == 1
    assert probe(daemon.lab, [customer()]) == ["passed"]
    assert daemon.ask("reload", "--force").returncode == 0
    daemon.wait(lambda: probe(daemon.lab, [customer()]) == ["rejected"], "forced")
    daemon.wait(lambda: failing(daemon) == ["house"], "said")
    # No trip undoes what somebody did knowingly.
    assert daemon.status()["mode"] == "reject"
    assert "trip.tripped" not in daemon.log_text()


def test_what_is_held_is_not_accepted_over_an_assertion(daemon: LabDaemon, tmp_path: Path) -> None:
    local = tmp_path / "local.d"
    local.mkdir()
    (local / "customers.yaml").write_text(asserted("house", CUSTOMER))
    daemon.write_registry("national", CAST)
    guard = {"max_removed": "5%", "min_removed": 100, "protected": {"software_house": 0}}
    daemon.configure("reject", registry={"local": str(local), "shrink_guard": guard})
    daemon.start()
    daemon.wait_ready()
    daemon.write_registry("national", [BANK, FREELANCER])
    daemon.wait(lambda: bool(daemon.status()["held"]), "held")
    serial = daemon.status()["held"][0]["serial"]
    result = daemon.ask("accept", str(serial))
    assert result.returncode == 1
    assert "must_pass house (customers.yaml:2): udp/51820: no registration covers" in result.stderr
    assert probe(daemon.lab, [customer()]) == ["passed"]
    assert daemon.ask("accept", str(serial), "--force").returncode == 0
    daemon.wait(lambda: probe(daemon.lab, [customer()]) == ["rejected"], "forced")


def test_the_registry_is_followed_and_the_failure_is_said_at_once(daemon: LabDaemon, tmp_path: Path) -> None:
    local = tmp_path / "local.d"
    fraud = asserted("fraud", "39.32.0.5", "must_not_pass", "udp/4500")
    begin(daemon, local, "reject", customers=asserted("house", CUSTOMER), fraud=fraud)
    # The bank is registered for one peer: to this far end it is not.
    daemon.wait(lambda: daemon.status()["assertions"]["looked_at"] is not None, "looked at")
    assert failing(daemon) == []
    daemon.write_registry("national", [FREELANCER, dict(BANK, peers=[])])
    daemon.wait(lambda: failing(daemon) == ["house", "fraud"], "both fail")
    assert probe(daemon.lab, [customer(), flow_of("39.32.0.5", ELSEWHERE, "udp/4500", next(_ports))]) == [
        "rejected",
        "passed",
    ]
    daemon.write_registry("national", CAST)
    daemon.wait(lambda: failing(daemon) == [], "both hold")
    daemon.wait_log("assertion.passing", 2)


def test_a_restart_is_never_refused_and_a_killed_daemon_leaves_nothing(daemon: LabDaemon, tmp_path: Path) -> None:
    local = tmp_path / "local.d"
    begin(daemon, local, "reject", customers=asserted("house", CUSTOMER))
    (local / "filters.yaml").write_text("filters: [{prefix: 39.32.64.0/24, comment: a slip}]\n")
    daemon.wait_log("assertion.refused")
    daemon.stop_for_good()
    assert probe(daemon.lab, [customer()]) == ["passed"]
    daemon.start()
    daemon.wait_ready()
    daemon.wait(lambda: failing(daemon) == ["house"], "in force after a restart, and said")
    assert probe(daemon.lab, [customer()]) == ["rejected"]


def test_another_program_that_takes_the_element_out_is_seen_and_undone(daemon: LabDaemon, tmp_path: Path) -> None:
    local = tmp_path / "local.d"
    begin(daemon, local, "reject", customers=asserted("house", CUSTOMER))
    daemon.wait(lambda: daemon.status()["assertions"]["looked_at"] is not None, "looked at")
    daemon.lab.gateway.run(["nft", "flush", "table", "inet", TABLE])
    daemon.wait(lambda: daemon.status()["kernel"]["repairs"] > 0, "repaired")
    daemon.wait(lambda: probe(daemon.lab, [customer()]) == ["passed"], "passes")
    before = daemon.status()["assertions"]["looked_at"]
    daemon.wait(lambda: daemon.status()["assertions"]["looked_at"] > before, "looked at again")
    assert failing(daemon) == []


def test_a_plan_says_of_live_flows_what_the_mode_then_does(daemon: LabDaemon, tmp_path: Path) -> None:
    local = tmp_path / "local.d"
    begin(daemon, local)
    ours = [customer() for _ in range(3)]
    theirs = [office() for _ in range(2)]
    assert probe(daemon.lab, [*ours, *theirs]) == ["passed"] * 5
    done = daemon.cli("plan", "--config", str(daemon.config_path), "--mode", "reject")
    assert done.returncode == 0
    assert "observe → reject" in done.stdout
    assert "live flows     3 registered, which pass; unregistered: 2 refused" in done.stdout
    moved = "filters: [{id: DEMO-SOFTWARE-HOUSE, comment: a test}]\npins:\n"
    pin = f"  - {{id: OFFICE, category: bpo, clients: [{OFFICE}/32], comment: a test}}\n"
    draft = tmp_path / "draft.d"
    draft.mkdir()
    (draft / "a.yaml").write_text(moved + pin)
    in_force = daemon.config_path.read_text()
    configure(daemon, draft, "reject")
    done = daemon.cli("plan", "--config", str(daemon.config_path))
    assert "come           1 registration: OFFICE" in done.stdout
    assert "go             1 registration: DEMO-SOFTWARE-HOUSE" in done.stdout
    assert "3 flows would be registered no longer" in done.stdout
    assert "2 flows would become registered" in done.stdout
    assert "live flows     2 registered, which pass; unregistered: 3 refused" in done.stdout
    # Nothing was changed by asking.
    assert daemon.status()["mode"] == "observe"
    assert probe(daemon.lab, [customer(), office()]) == ["passed"] * 2
    assert in_force != daemon.config_path.read_text()
    assert daemon.ask("reload").returncode == 0
    daemon.wait_mode("reject")
    daemon.wait(lambda: probe(daemon.lab, [customer(), office()]) == ["rejected", "passed"], "as planned")


def test_the_command_mode_is_refused_while_a_named_customer_would_be_cut(daemon: LabDaemon, tmp_path: Path) -> None:
    begin(daemon, tmp_path / "local.d", customers=asserted("office", OFFICE))
    result = daemon.ask("mode", "reject")
    assert result.returncode == 1
    assert "must_pass office (customers.yaml:2)" in result.stderr + result.stdout
    assert daemon.status()["mode"] == "observe"
    assert probe(daemon.lab, [office()]) == ["passed"]
    assert daemon.ask("mode", "observe").returncode == 0
    assert daemon.ask("mode", "reject", "--confirm", "10m", "--force").returncode == 0
    daemon.wait_mode("reject")
    assert probe(daemon.lab, [customer(), office()]) == ["passed", "rejected"]
    daemon.wait_log("assertion.forced")


def test_what_is_out_of_scope_passes_and_is_said_with_its_place(daemon: LabDaemon, tmp_path: Path) -> None:
    local = tmp_path / "local.d"
    outside = asserted("web", OFFICE, "must_pass", "udp/4433")
    never = asserted("never", OFFICE, "must_not_pass", "udp/4433")
    begin(daemon, local, "reject", outside=outside, never=never)
    daemon.wait(lambda: failing(daemon) == ["never"], "must_not_pass cannot hold")
    (example,) = daemon.status()["assertions"]["examples"]
    assert example["reason"].startswith("udp/4433: udp/4433 is outside the scope")
    assert probe(daemon.lab, [flow_of(OFFICE, ELSEWHERE, "udp/4433", next(_ports)), office()]) == [
        "passed",
        "rejected",
    ]
    done = daemon.cli("check", "--user", "root", "--config", str(daemon.config_path))
    assert done.returncode == 0
    for place, what in (("outside.yaml:2", "registered or not"), ("never.yaml:2", "so the assertion fails")):
        said = [line for line in done.stderr.splitlines() if place in line]
        assert len(said) == 1
        assert f"udp/4433 is not in policy.scope and passes in every mode, {what}" in said[0]
    # To bring it into the scope would cut it: nobody registered it.
    configure(daemon, local, "reject", scope=["ipsec", "wireguard", "openvpn", "pptp", "udp/4433"])
    done = daemon.ask("reload")
    assert done.returncode == 1
    assert "must_pass web (outside.yaml:2)" in done.stdout
    done = daemon.cli("check", "--user", "root", "--config", str(daemon.config_path))
    assert "gatewayd reload would be refused, as an assertion would break: must_pass web" in done.stderr


def test_ends_that_are_both_inside_are_said(daemon: LabDaemon, tmp_path: Path) -> None:
    local = tmp_path / "local.d"
    local.mkdir()
    ends = f"source: {OFFICE}, destination: {CUSTOMER}, service: udp/51820, comment: 'call them'"
    (local / "a.yaml").write_text(f"must_pass:\n  - {{name: both, {ends}}}\n")
    configure(daemon, local, "observe", interfaces={"inside": ["inside0"], "outside": ["outside0"]})
    done = daemon.cli("check", "--user", "root", "--config", str(daemon.config_path))
    assert done.returncode == 0
    assert (
        f"{local}/a.yaml:2: warning: must_pass both: by the routes of this host its packets go between"
        in done.stderr
    )
