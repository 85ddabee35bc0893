"""`gatewayd doctor`: the host around the gateway, with the command that mends each finding."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Final

import click

from gatewayd.cli.check import DEFAULT_CONFIG, config_option, refusal_of_rules
from gatewayd.cli.output import (
    BAD,
    DOUBTFUL,
    GOOD,
    Line,
    count,
    print_headline,
    print_lines,
    print_table,
    print_value,
)
from gatewayd.doctor.diagnosis import diagnose
from gatewayd.doctor.facts import Chain, question_of
from gatewayd.doctor.findings import SEVERITIES, Finding, HostView, Severity
from gatewayd.doctor.readings import read_facts
from gatewayd.model.moment import format_time
from gatewayd.settings import load_settings, read_settings

_DEFAULTS: Final = 'registry: {sources: [{name: none, url: "file:/none", allow_unsigned: true}]}\n'
_STYLES: Final[dict[Severity, str]] = {"fault": BAD, "warning": DOUBTFUL, "note": ""}
_SYSCTL: Final = "sysctl -w"


@click.command("doctor")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(config_path: str, as_json: bool) -> None:
    """Examine the host: what keeps traffic from passing or us from seeing it.

    Run it as root; the daemon may run or not. It looks at forwarding, connection tracking, NFLOG, chains, rules and
    flowtables of other programs, interfaces, bridges, clock, disk, versions and known faults of the kernel. It
    changes nothing. Each finding says what is wrong, why it matters, and the command that changes it.

    Exit status 0 when nothing is wrong (notes are not), 1 when there is a fault or a warning, 2 for a configuration
    that cannot be used. Without the file the defaults are taken.
    """
    is_default = config_path == DEFAULT_CONFIG and not os.path.lexists(config_path)
    settings = load_settings(_DEFAULTS, "defaults") if is_default else read_settings(config_path)
    view = diagnose(read_facts(question_of(settings), refusal_of_rules(settings)), format_time(time.time()) or "")
    if as_json:
        print_value(view)
    else:
        if is_default:
            click.echo(f"There is no {config_path}; these are findings for the defaults.", err=True)
        _print(view)
    if view.has_findings:
        raise SystemExit(1)


def _print(view: HostView) -> None:
    numbers = {each: sum(one.severity == each for one in view.findings) for each in SEVERITIES}
    said = [count(number, severity) for severity, number in numbers.items() if number]
    style = BAD if numbers["fault"] else DOUBTFUL if numbers["warning"] else GOOD
    print_headline(", ".join(said) if view.has_findings else f"Nothing is wrong{_and(said)}", style)
    print_lines(Line(name, version) for name, version in view.versions.items())
    for finding in view.findings:
        click.echo()
        print_lines(describe_finding(finding))
    if any((each.command or "").startswith(_SYSCTL) for each in view.findings):
        click.echo("\nsysctl -w holds until the next boot; a file in /etc/sysctl.d holds for good.")
    if view.chains:
        click.echo("\nChains of other programs, in the order in which a forwarded packet meets them:")
        print_table(("hook", "priority", "chain", "to ours", "drops"), list(map(_row, view.chains)))


def _and(said: Sequence[str]) -> str:
    return f"; {', '.join(said)}" if said else ""


def describe_finding(finding: Finding) -> Iterator[Line]:
    """What, why and the change, a line each."""
    yield Line(finding.severity.upper(), f"{finding.what} ({finding.check})", _STYLES[finding.severity])
    yield Line("  why", finding.why)
    if finding.command:
        yield Line("  command", finding.command)
    if finding.setting:
        yield Line("  or, in file" if finding.command else "  in the file", finding.setting)


def _row(chain: Chain) -> tuple[str, ...]:
    drops = "all else" if chain.drops_all else f"{chain.drops} rules" if chain.drops else "-"
    return chain.hook, str(chain.priority), str(chain), chain.order, drops
