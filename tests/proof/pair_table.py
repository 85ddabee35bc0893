"""The rows of a pair of gateways: run, as JSON, and as the table of docs/proof.md between its markers."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.table import Table

from tests.bench.row import Machine
from tests.proof.pair import PairCase, PairRow, row_of
from tests.proof.pair_cases import CASES
from tests.proof.progress import Progress
from tests.proof.table import PROOF, RESULTS, describe, renew, save, with_renewed
from tests.support.pair import missing_for_pair

_HEADING: Final = (
    "case",
    "what happens",
    "packets",
    "lost with VRRP alone",
    "lost in VRRP's gap",
    "lost beyond it",
    "refused",
    "connections",
    "broken",
    "what is seen",
)
_SIGNS: Final = "¹²³⁴⁵⁶⁷⁸⁹"


@dataclass(frozen=True, slots=True)
class PairResults:
    """Of one run on one machine."""

    machine: Machine
    rows: tuple[PairRow, ...]


def make_pair(names: Sequence[str], progress: Progress, machine: Machine, *, is_renewed: bool = False) -> None:
    """Without names all cases are made, and go into the documents. `is_renewed`: those with names go there too."""
    if reason := missing_for_pair():
        raise click.ClickException(reason)
    cases = [each for each in CASES if not names or each.name in names]
    rows = list(progress.rows("pair", [(each.name, partial(_made, each)) for each in cases]))
    progress.console.print(_shown(rows))
    for row in rows:
        for note in row.notes:
            progress.note(f"{row.name}: {note}", is_wrong=not row.is_good)
        if not row.is_good:
            progress.fail("pair", row.name, ", ".join(row.notes) or "nothing is seen")
    if not names or is_renewed:
        kept = load().rows if names else ()
        results = PairResults(machine, with_renewed(kept, rows, CASES))
        save("pair", results)
        renew(PROOF, "pair", table_of(results))


def _made(case: PairCase) -> PairRow:
    with tempfile.TemporaryDirectory(prefix="gatewayd-pair-") as directory:
        return row_of(Path(directory), case)


def load() -> PairResults:
    return msgspec.json.decode((RESULTS / "pair.json").read_bytes(), type=PairResults)


def table_of(results: PairResults) -> str:
    """Markdown: the machine, a line a row, and why where a loss cannot be avoided."""
    signs = ("---", "---", *("---:" for _ in _HEADING[2:-1]), "---")
    parts = [f"{describe(results.machine)}\n\n", _line(_HEADING), _line(signs)]
    bounded = [each for each in results.rows if each.bounded]
    for row in results.rows:
        sign = f" {_SIGNS[bounded.index(row)]}" if row.bounded else ""
        parts.append(_line((row.name + sign, row.why, *_figures(row), ", ".join(map(_as_code, row.seen)))))
    parts.extend(f"\n{_SIGNS[number]} {row.name}: {row.bounded}\n" for number, row in enumerate(bounded))
    return "".join(parts)


def _figures(row: PairRow) -> tuple[str, ...]:
    vrrp, gap = (
        f"{lost:,} ({seconds:.2f} s)" if lost else "0"
        for lost, seconds in ((row.vrrp_lost, row.vrrp_s), (row.gap_lost, row.gap_s))
    )
    counts = (row.beyond, row.refused, row.connections, row.broken)
    return (f"{row.sent:,}", vrrp, gap, *(f"{each:,}" for each in counts))


def _as_code(seen: str) -> str:
    return f"`{seen}`" if re.fullmatch(r"\w+\.\w+", seen) else seen


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _shown(rows: Sequence[PairRow]) -> Table:
    table = Table("case", "packets", "VRRP alone", "gap", "beyond", "refused", "connections", "broken")
    for row in rows:
        table.add_row(row.name, *_figures(row), style="" if row.is_good else "red")
    return table
