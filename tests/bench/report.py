"""The table: on the terminal, as Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.figures import figure_of
from tests.bench.goals import Verdict
from tests.bench.row import Machine, Measure, Outcome, Row

if TYPE_CHECKING:
    from tests.bench.plots import Plot


def cell(outcome: Outcome, measure: Measure) -> str:
    """Median with unit, and the span of the runs where there were several."""
    values, median = outcome.values(measure.name), outcome.median(measure.name)
    if median is None:
        return ""
    return figure_of(values, median, measure.unit)


def short_size(size: int) -> str:
    return f"{size // 1_000_000} M" if size % 1_000_000 == 0 else f"{size // 1000} k" if size >= 1000 else str(size)


def lines_of(row: Row, outcomes: Sequence[Outcome]) -> Iterator[tuple[str, ...]]:
    """Size, subject, then the measures; * where there are none."""
    for outcome in outcomes:
        size = short_size(outcome.size) if row.sizes else "–"
        cells = [cell(outcome, measure) for measure in row.measures]
        yield (size, outcome.subject, *(["*", *cells[1:]] if outcome.missing else cells))


def notes_of(outcomes: Sequence[Outcome]) -> list[str]:
    """Why some have no figures."""
    return list(
        dict.fromkeys(
            f"{each.subject} at {short_size(each.size)}: {each.missing}" for each in outcomes if each.missing
        )
    )


def print_row(console: Console, row: Row, outcomes: Sequence[Outcome]) -> None:
    table = Table(title=f"{row.name}: {row.title}", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for heading in ("N", "", *(measure.title for measure in row.measures)):
        table.add_column(heading, overflow="fold")
    for line in lines_of(row, outcomes):
        table.add_row(*map(Text, line), style="bold" if line[1].startswith("gatewayd") else "")
    console.print(table)
    for note in notes_of(outcomes):
        console.print(Text(f"  * {note}", style="yellow"))


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    table = Table(title="the numbers to reach", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for heading in ("what", "goal", "measured", ""):
        table.add_column(heading)
    for each in verdicts:
        style = {True: "green", False: "red", None: "yellow"}[each.is_met]
        table.add_row(each.what, each.goal, each.measured, each.word, style=style)
    console.print(table)
    for note in whys_of(verdicts):
        console.print(Text(f"  {note}", style="yellow"))


def whys_of(verdicts: Iterable[Verdict]) -> list[str]:
    """What is known of the reasons why goals were not met."""
    return [f"{each.what}: {each.why}" for each in verdicts if each.why]


def markdown(
    rows: Sequence[Row],
    outcomes: Sequence[Outcome],
    verdicts: Sequence[Verdict],
    machine: Machine,
    plots: Sequence[Plot] = (),
) -> str:
    """The whole report; the files of the plots lie beside it."""
    parts = [f"# Benchmark\n\n{describe(machine)}\n", "## The numbers to reach\n"]
    parts.append(_table(("what", "goal", "measured", ""), [(v.what, v.goal, v.measured, v.word) for v in verdicts]))
    parts.extend(f"- {note}\n" for note in whys_of(verdicts))
    for row in rows:
        mine = [each for each in outcomes if each.row == row.name]
        if mine:
            parts.append(f"## {row.title}\n")
            parts.append(_table(("N", "", *(m.title for m in row.measures)), list(lines_of(row, mine))))
            parts.extend(f"\\* {note}\n" for note in notes_of(mine))
            parts.extend(f"![{plot.title}]({plot.file})\n" for plot in plots if plot.row == row.name)
    return "\n".join(parts)


def describe(machine: Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"{machine.cores} cores of {machine.processor}, {machine.memory_gib:g} GiB, Linux {machine.kernel}, "
        f"{versions}; {machine.taken_at}, {machine.commit}. Medians; smallest and largest run in brackets."
    )


def encode(outcomes: Sequence[Outcome], verdicts: Sequence[Verdict], machine: Machine) -> bytes:
    """bench.json."""
    whole = {"machine": machine, "outcomes": outcomes, "goals": verdicts}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


def _table(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    texts = [heading, ["---"] * len(heading), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in texts)
