"""The diagnosis: all checks, the worst finding first, within bounds."""

from __future__ import annotations

import pytest

from gatewayd.doctor import diagnosis
from gatewayd.doctor.diagnosis import CHECKS, diagnose
from gatewayd.doctor.facts import BaseChain, Versions
from tests.support.facts import facts


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
    many = (("one", "why"), ("other", "why"))
    assert len(diagnose(facts(unread=many), "now").findings) == 1
