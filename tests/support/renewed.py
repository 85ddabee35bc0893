"""Files that follow from declarations. `python -m tests.support.renewed` writes them again; tests compare them."""

from __future__ import annotations

import re
from pathlib import Path

from gatewayd.log.events import events_table
from gatewayd.settings.load import write_example

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "gatewayd.example.yaml"
OPERATIONS = ROOT / "docs" / "operations.md"

_EVENTS = re.compile(r"^\| event \| level .*?(?=\n\n)", re.MULTILINE | re.DOTALL)


def operations_of(text: str) -> str:
    """The text of docs/operations.md with the table of log events as it is declared."""
    renewed, count = _EVENTS.subn(lambda _: events_table().rstrip("\n"), text)
    assert count == 1, "docs/operations.md has no table of log events, or several"
    return renewed


if __name__ == "__main__":
    EXAMPLE.write_text(write_example(), encoding="utf-8")
    OPERATIONS.write_text(operations_of(OPERATIONS.read_text(encoding="utf-8")), encoding="utf-8")
