"""Facts to findings: every check, the worst first. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from gatewayd.doctor import host_checks, neighbour_checks, settings_checks
from gatewayd.doctor.facts import Facts, Version
from gatewayd.doctor.findings import MAX_FINDINGS, SEVERITIES, Finding, HostView

Check = Callable[[Facts], Iterator[Finding]]
CHECKS: Final[dict[str, Check]] = {**settings_checks.CHECKS, **neighbour_checks.CHECKS, **host_checks.CHECKS}
"""By name, in the order of the report."""


def diagnose(facts: Facts, at: str) -> HostView:
    """`at`: when the facts were read, RFC 3339."""
    findings = [finding for check in CHECKS.values() for finding in check(facts)]
    findings.sort(key=lambda each: SEVERITIES.index(each.severity))
    return HostView(at, tuple(findings[:MAX_FINDINGS]), facts.others[:MAX_FINDINGS], _versions(facts))


def _versions(facts: Facts) -> dict[str, str]:
    found = facts.versions
    words = {
        "kernel": found.release,
        "nft": _text(found.nft),
        "python": _text(found.python),
        "systemd": "" if found.systemd is None else str(found.systemd),
    }
    return {name: word for name, word in words.items() if word}


def _text(version: Version | None) -> str:
    return "" if version is None else ".".join(map(str, version))
