"""`./run bench [--sizes 1k,31k] [--rows hosts,delta] [--runs 3] [--output DIR]`."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench.goals import judge_all
from tests.bench.machine import describe_machine
from tests.bench.peers import missing_peers
from tests.bench.plots import draw_plots
from tests.bench.report import describe, encode, markdown, print_row, print_verdicts
from tests.bench.row import Outcome, Row
from tests.bench.rows import ROWS, find_row
from tests.bench.runner import FAILED, Plan, count_runs, run_plan

SIZES = "1k,31k,100k,1M"
_UNITS = {"": 1, "k": 1000, "m": 1_000_000}


def parse_sizes(_context: object, _parameter: object, text: str) -> list[int]:
    sizes = []
    for word in text.split(","):
        found = re.fullmatch(r"(\d+)([km]?)", word.strip().lower())
        if found is None or int(found[1]) == 0:
            raise click.BadParameter(f"{word!r} is no size such as 31k or 1M")
        sizes.append(int(found[1]) * _UNITS[found[2]])
    return sorted(set(sizes))


def parse_rows(_context: object, _parameter: object, text: str | None) -> list[Row]:
    try:
        return [find_row(name) for name in text.split(",")] if text else list(ROWS)
    except KeyError as error:
        raise click.BadParameter(error.args[0]) from None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--sizes", default=SIZES, show_default=True, callback=parse_sizes, help="Registrations, comma between."
)
@click.option("--rows", callback=parse_rows, help=f"Some of {', '.join(row.name for row in ROWS)}; else all.")
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1, 99), help="Of each, for the median.")
@click.option(
    "--output",
    default="bench-results",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where bench.json, bench.md and the plots go.",
)
def main(sizes: list[int], rows: list[Row], runs: int, output: Path) -> None:
    """Measure gatewayd beside what users would pick instead."""
    console = Console()
    machine = describe_machine()
    missing = missing_peers()
    console.print(describe(machine), style="dim")
    for name, why in missing.items():
        console.print(f"{name}: {why}", style="yellow")
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="gatewayd-bench-") as material:
        plan = Plan(rows, sizes, runs, Path(material), missing)
        with _progress() as progress:
            task = progress.add_task("", total=count_runs(plan))

            def note(text: str) -> None:
                progress.update(task, description=text)
                progress.advance(task)

            for outcome in run_plan(plan, note):
                outcomes.append(outcome)
    for row in rows:
        print_row(console, row, [each for each in outcomes if each.row == row.name])
    verdicts = judge_all(outcomes)
    print_verdicts(console, verdicts)
    output.mkdir(parents=True, exist_ok=True)
    (output / "bench.json").write_bytes(encode(outcomes, verdicts, machine))
    plots = draw_plots(rows, outcomes, output)
    (output / "bench.md").write_text(markdown(rows, outcomes, verdicts, machine, plots))
    written = ["bench.json", "bench.md", *(plot.file for plot in plots)]
    console.print(f"written: {', '.join(f'{output}/{name}' for name in written)}", style="dim")
    sys.exit(1 if any(each.missing.startswith(FAILED) for each in outcomes) else 0)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


if __name__ == "__main__":
    main()
