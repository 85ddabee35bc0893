"""The diagnosis: all checks, the worst finding first, within bounds."""

from __future__ import annotations

import msgspec
import pytest

from gatewayd.doctor import diagnosis
from gatewayd.doctor.diagnosis import CHECKS, diagnose
from gatewayd.doctor.facts import (
    BaseChain,
    Disk,
    Facts,
    Flowtable,
    LegacyTable,
    Link,
    Listener,
    Rule,
    Versions,
)
from tests.support.facts import QUESTION, facts


def test_the_worst_comes_first_and_a_finding_has_the_name_of_its_check() -> None:
    found = diagnose(
        facts(
            sysctls={"net.ipv4.ip_forward": 0, "net.ipv4.icmp_ratelimit": 1000},
            is_synced=False,
            chains=(BaseChain("ip", "filter", "FORWARD", "forward", 0, True),),
            versions=Versions("6.1.0", None, (1, 0, 6), (3, 11, 7), 252),
        ),
        "2026-01-01T00:00:00Z",
    )
    assert [each.severity for each in found.findings] == ["fault", "warning", "warning", "warning"]
    assert {each.check for each in found.findings} <= CHECKS.keys()
    assert found.versions == {"kernel": "6.1.0", "nft": "1.0.6", "python": "3.11.7", "systemd": "252"}
    assert [each.name for each in found.chains] == ["FORWARD"]
    assert found.at == "2026-01-01T00:00:00Z"


def test_a_host_that_says_nothing_has_no_finding() -> None:
    found = diagnose(facts(links=None), "now")
    assert (found.findings, found.versions) == ((), {})


def test_findings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "MAX_FINDINGS", 1)
    many = (("one", "why", True), ("other", "why", False))
    assert len(diagnose(facts(unread=many), "now").findings) == 1


def test_who_may_name_things_writes_no_command_of_roots() -> None:
    evil = "x; reboot"
    named = Rule("ip", evil, evil, 3, deeds=frozenset({"drops", "notrack", "zone"}), writes=0xFF000000)
    leaks = Rule("ip", "mangle", evil, 4, leaks=0xFF000000, is_bare=True)
    offloads = Rule("ip", evil, evil, 5, deeds=frozenset({"offloads"}), flowtable=evil)
    question = msgspec.structs.replace(QUESTION, outside=("x*",))
    of_all = Facts(
        question,
        sysctls={"net.ipv4.ip_forward": 1, f"net.ipv4.conf.{evil}.forwarding": 0},
        links=(Link(evil, is_up=False, master=evil, master_kind="bridge"),),
        chains=(BaseChain("ip", evil, evil, "forward", 0, True), BaseChain("ip", evil, evil, "forward", -99, True)),
        rules=(named, leaks, offloads),
        flowtables=(Flowtable("ip", evil, evil, (evil,)),),
        legacy=(LegacyTable("ip", evil, 3, (evil,)),),
        listeners=(Listener(9480, 7, "program", evil),),
        disk=Disk("/var/it's mine", 100, 1, 1, 1),
    )
    found = diagnose(of_all, "now").findings
    assert {each.check for each in found} >= {
        "interface-forwarding",
        "interface-down",
        "interface-port",
        "dropping-chain",
        "flowtable",
        "mark-written",
        "mark-leaked",
        "conntrack-zone",
        "notrack",
        "nflog-group",
        "legacy-iptables",
        "disk",
    }
    said = [text for each in found for text in (each.command, each.setting) if text is not None]
    assert not [text for text in said if "reboot" in text]
    (disk,) = (each for each in found if each.check == "disk")
    assert disk.command is not None
    assert """'/var/it'"'"'s mine'""" in disk.command
