"""A live libnftables process (libnftables_child.py), from our side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.bench.clock import Ran, run_command
from tests.bench.peers import PYTHON

_CHILD = Path(__file__).with_name("libnftables_child.py")


@dataclass(frozen=True, slots=True)
class Changes:
    """Seconds of each."""

    added: list[float]
    removed: list[float]


def fill(flags: str, elements: Sequence[str], scratch: Path) -> Ran:
    """Makes the set `hosts`. `flags`: `interval` or `size=N`."""
    figures = _run(scratch, elements, "fill", flags)
    return msgspec.json.decode(figures, type=Ran)


def change(set_name: str, elements: Sequence[str], count: int, budget_s: float, scratch: Path) -> Changes:
    """Adds and removes `elements`, one after another, in a set that is there."""
    return msgspec.json.decode(_run(scratch, elements, "change", str(count), str(budget_s), set_name), type=Changes)


def _run(scratch: Path, elements: Sequence[str], *words: str) -> bytes:
    file, figures = scratch / "elements.txt", scratch / "figures.json"
    file.write_text("\n".join(elements))
    run_command([PYTHON, str(_CHILD), *words, str(file), str(figures)])
    return figures.read_bytes()
