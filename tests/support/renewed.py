"""Files that follow from declarations. `python -m tests.support.renewed` writes them again; tests compare them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from gatewayd.log.events import events_table
from gatewayd.settings.load import write_example

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "gatewayd.example.yaml"
OPERATIONS = ROOT / "docs" / "operations.md"
METRICS = ROOT / "docs" / "metrics.md"
RULES = ROOT / "config" / "prometheus" / "gatewayd.rules.yml"

_EVENTS = re.compile(r"^\| event \| level .*?(?=\n\n)", re.MULTILINE | re.DOTALL)
_ALERTS = re.compile(r"(^\| alert \| severity .*?\n.*?\n).*?(?=^\n)", re.MULTILINE | re.DOTALL)


def operations_of(text: str) -> str:
    """The text of docs/operations.md with the table of log events as it is declared."""
    renewed, count = _EVENTS.subn(lambda _: events_table().rstrip("\n"), text)
    assert count == 1, "docs/operations.md has no table of log events, or several"
    return renewed


def metrics_of(text: str) -> str:
    """The text of docs/metrics.md with the table of alerts as the rules have them."""
    lines = []
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            said = re.sub(r"^\{\{ \$labels.instance \}\}:? ", "", rule["annotations"]["summary"])
            said = re.sub(r"\{\{ \$value.*?\}\}", "N", re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", said))
            anchor = rule["annotations"]["runbook_url"].partition("#")[2]
            words = (f"`{rule['alert']}`", rule["labels"]["severity"], rule["for"], said)
            lines.append(f"| {' | '.join(words)} | [{anchor.replace('-', ' ')}](operations.md#{anchor}) |\n")
    renewed, count = _ALERTS.subn(lambda match: match[1] + "".join(lines), text)
    assert count == 1, "docs/metrics.md has no table of alerts, or several"
    return renewed


if __name__ == "__main__":
    EXAMPLE.write_text(write_example(), encoding="utf-8")
    OPERATIONS.write_text(operations_of(OPERATIONS.read_text(encoding="utf-8")), encoding="utf-8")
    METRICS.write_text(metrics_of(METRICS.read_text(encoding="utf-8")), encoding="utf-8")
