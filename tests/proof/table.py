"""Rows as JSON, and as the tables of README and docs/proof.md between their markers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

import click
import msgspec

from tests.bench.machine import describe_machine
from tests.bench.row import Machine
from tests.proof.harness import Row

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "docs" / "proof"
README: Final = ROOT / "README.md"
PROOF: Final = ROOT / "docs" / "proof.md"
FAULTS: Final = "faults"
_FIGURES: Final = ("packets", "lost", "refused", "repaired after")
_SIGNS: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Results:
    """Of one run on one machine."""

    machine: Machine
    rows: tuple[Row, ...]


def machine_of_run() -> Machine:
    """With the commit that is measured. What the run itself writes is no other commit."""
    return describe_machine([str(each.relative_to(ROOT)) for each in (RESULTS, README, PROOF)])


class Named(Protocol):
    @property
    def name(self) -> str: ...


_N = TypeVar("_N", bound=Named)


def with_renewed(kept: Sequence[_N], made: Sequence[_N], all_: Sequence[Named]) -> tuple[_N, ...]:
    """In the order of all, each as it was made now or else as it was kept."""
    found = {each.name: each for each in (*kept, *made)}
    return tuple(found[each.name] for each in all_ if each.name in found)


def assert_same(kept: Machine, now: Machine) -> None:
    """Rows of one table are of one machine and one commit. Raises ClickException."""
    pairs = ((kept.commit, now.commit), (kept.kernel, now.kernel), (kept.processor, now.processor))
    for former, latter in pairs:
        if former != latter:
            raise click.ClickException(f"the table is of {former}, and this is {latter}: make all of its rows")


def save(name: str, results: object) -> None:
    """`name`: of the file under docs/proof."""
    raw = msgspec.json.encode(results)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_bytes(msgspec.json.format(raw, indent=1) + b"\n")


def load() -> Results:
    """Of the faults."""
    return msgspec.json.decode((RESULTS / f"{FAULTS}.json").read_bytes(), type=Results)


def save_faults(results: Results) -> None:
    """And the tables of it."""
    save(FAULTS, results)
    renew(README, FAULTS, table_of(results))
    renew(PROOF, FAULTS, table_of(results, explained=True))


def table_of(results: Results, *, explained: bool = False) -> str:
    """Markdown: the machine, a line a row, and why where a loss cannot be avoided.

    `explained`: with what happens in each row.
    """
    heading = ("fault", *(("what happens",) * explained), *_FIGURES, "what the operator sees")
    lines = ["---", *(("---",) * explained), *("---:" for _ in _FIGURES), "---"]
    parts = [f"{describe(results.machine)}\n\n", _line(heading), _line(lines)]
    bounded = [each for each in results.rows if each.bounded]
    for row in results.rows:
        sign = f" {_sign_of(bounded.index(row))}" if row.bounded else ""
        told = ", ".join(f"`{each}`" if re.fullmatch(r"[\w.]+", each) else each for each in row.told)
        figures = (f"{row.sent:,}", f"{row.lost:,}", f"{row.refused:,}", f"{row.repaired_s:.1f} s")
        parts.append(_line((row.name + sign, *((row.why,) * explained), *figures, told)))
    parts.extend(f"\n{_sign_of(number)} {row.name}. {row.bounded}\n" for number, row in enumerate(bounded))
    return "".join(parts)


def _sign_of(number: int) -> str:
    return str(number + 1).translate(_SIGNS)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def describe(machine: Machine) -> str:
    return (
        f"{machine.cores} cores of {machine.processor}, {machine.memory_gib:g} GiB, Linux {machine.kernel}; "
        f"{machine.taken_at}, {machine.commit}."
    )


def renew(path: Path, name: str, table: str) -> None:
    """Between `<!-- proof: NAME -->` and `<!-- proof: end -->` of this file."""
    path.write_text(renewed(path.read_text(encoding="utf-8"), name, table), encoding="utf-8")


def renewed(text: str, name: str, table: str) -> str:
    """Raises AssertionError where the text has no such markers."""
    pattern = re.compile(rf"(<!-- proof: {name} -->\n).*?(<!-- proof: end -->)", re.DOTALL)
    whole, count = pattern.subn(lambda match: f"{match[1]}\n{table}\n{match[2]}", text)
    assert count == 1, f"no markers of {name}, or several"
    return whole
