"""A finding: what is wrong with the host, why it matters, and what changes it. Pure."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from gatewayd.doctor.facts import Chain
from gatewayd.model.metric import gauge

Severity = Literal["fault", "warning", "note"]
"""*fault*: customers' traffic or the whole service is hurt now. *warning*: it will be, or some of it. *note*: worth
knowing."""
SEVERITIES: Final[tuple[Severity, ...]] = ("fault", "warning", "note")
MAX_FINDINGS: Final = 200
"""Of one examination: a firewall of thousands of rules must not fill the screen."""


class Finding(msgspec.Struct, frozen=True):
    """`check`: its name, for scripts. `command`: what root types to change it, where there is such a command.
    `setting`: a key of the configuration file and a value that does it too, where the host may stay as it is."""

    check: str
    severity: Severity
    what: str
    why: str
    command: str | None = None
    setting: str | None = None


def count_wrong(findings: tuple[Finding, ...]) -> int:
    """Faults and warnings."""
    return sum(each.severity != "note" for each in findings)


class HostView(msgspec.Struct, frozen=True):
    """The host around the gateway, as of `at`; None before the first look. `chains`: of other programs, in the
    order in which a forwarded packet meets them. `error`: why the latest look failed."""

    at: str | None = None
    findings: Annotated[tuple[Finding, ...], gauge("host_findings",
        "Findings about the host that the daemon can see (faults and warnings), as `gatewayd doctor` names them.",
        "`> 0` for 15 min: `gatewayd doctor` names each with its command",
        read=count_wrong)] = ()  # fmt: skip
    chains: tuple[Chain, ...] = ()
    versions: dict[str, str] = {}
    error: str | None = None

    @property
    def has_findings(self) -> bool:
        """Whether anything is wrong: notes are not."""
        return count_wrong(self.findings) > 0


def names_of(findings: tuple[Finding, ...]) -> str:
    """The checks that found faults and warnings: `forwarding, rp-filter`."""
    return ", ".join(dict.fromkeys(each.check for each in findings if each.severity != "note"))
