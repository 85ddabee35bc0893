"""Facts to findings: every check, the worst first. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from gatewayd.doctor import host_checks, neighbour_checks, settings_checks
from gatewayd.doctor.facts import Facts, Version
from gatewayd.doctor.findings import MAX_FINDINGS, SEVERITIES, Finding, HostView

Check = Callable[[Facts], Iterator[Finding]]
CHECKS: Final[dict[str, Check]] = {**settings_checks.CHECKS, **neighbour_checks.CHECKS, **host_checks.CHECKS}
"""By name, in the order of the report."""


_PLAIN: Final = re.compile(r"[\w./@:+-]+", re.ASCII)


def diagnose(facts: Facts, at: str) -> HostView:
    """`at`: when the facts were read, RFC 3339."""
    odd = odd_names(facts)
    findings = [_typeable(finding, odd) for check in CHECKS.values() for finding in check(facts)]
    findings.sort(key=lambda each: SEVERITIES.index(each.severity))
    return HostView(at, tuple(findings[:MAX_FINDINGS]), facts.others[:MAX_FINDINGS], _versions(facts))


def odd_names(facts: Facts) -> frozenset[str]:
    """Names of the host that a shell, nft or YAML would read as more than a name. Who may name an interface, a
    table or a service shall not write root's commands."""
    names = [name for link in facts.links or () for name in (link.name, link.master)]
    names += [name for each in facts.chains for name in (each.table, each.name)]
    names += [name for each in facts.rules for name in (each.table, each.chain, each.flowtable)]
    names += [name for each in facts.flowtables for name in (each.table, each.name, *each.devices)]
    names += [name for each in facts.legacy for name in (each.table, *each.dropping)]
    names += [each.unit for each in facts.listeners]
    return frozenset(name for name in names if name and not _PLAIN.fullmatch(name))


def _typeable(finding: Finding, odd: frozenset[str]) -> Finding:
    """Without a command or setting that has such a name in it."""

    def kept(text: str | None) -> str | None:
        return None if text is None or any(name in text for name in odd) else text

    return msgspec.structs.replace(finding, command=kept(finding.command), setting=kept(finding.setting))


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
