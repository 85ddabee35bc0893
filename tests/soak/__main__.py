"""`./run soak [--rounds 300 | --minutes 60] [--seed 7] [--registrations 1500] [--busy]`, `./run soak --week`,
`./run soak --fuzz 8`, `./run soak --simulate 1000000`."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gatewayd.errors import GatewaydError
from gatewayd.lab.lab import Lab, missing_for_lab
from gatewayd.model import parse_prefix
from tests.fuzz.campaign import run_campaign
from tests.simulation.soak import simulate
from tests.soak.damage import Bill, run_damages
from tests.soak.manual import OPERATIONS, read_days
from tests.soak.rounds import Churn, Stats
from tests.soak.sight import STAGES, sight_of
from tests.soak.week import OF_THE_KERNEL, SLOW, Week, paced_daemon_in
from tests.soak.world import MOST, ROUTED
from tests.support.busy import busy
from tests.support.hurried import HurriedClock
from tests.support.lab_daemon import clean, daemon_in

ROUNDS = 300
DAMAGES = 20


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1), help=f"How many; {ROUNDS} where no minutes are given.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="For so long.")
@click.option("--seed", type=click.IntRange(0), help="To repeat what was done; else another one every time.")
@click.option(
    "--registrations",
    default=1500,
    show_default=True,
    type=click.IntRange(1, MOST),
    help="That come and go besides the constant ones.",
)
@click.option("--busy", "is_busy", is_flag=True, help="With every core busy with something else.")
@click.option(
    "--simulate",
    "simulated",
    type=click.IntRange(1),
    help="So many runs of tests/simulation instead, from --seed on.",
)
@click.option("--week", "is_week", is_flag=True, help="The week of docs/operations.md, in time that passes faster.")
@click.option(
    "--fuzz", "fuzz_hours", type=click.FloatRange(0, min_open=True), help="Hostile bytes, for so many hours."
)
@click.option(
    "--inputs",
    default="fuzz-inputs",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where inputs of --fuzz go that reached something new, and findings.",
)
def main(
    rounds: int | None,
    minutes: float | None,
    seed: int | None,
    registrations: int,
    inputs: Path,
    simulated: int | None,
    *,
    is_busy: bool,
    is_week: bool,
    fuzz_hours: float | None,
) -> None:
    """Kill the daemon at random moments under registered traffic. Exit status 1 if a packet is lost, or if the
    kernel does not come to be as desired."""
    if simulated is not None:
        sys.exit(simulate(seed or 0, simulated))
    if rounds is not None and minutes is not None:
        raise click.UsageError("rounds or minutes, not both")
    if fuzz_hours is not None:
        sys.exit(_fuzz(fuzz_hours, inputs))
    if reason := missing_for_lab():
        raise click.ClickException(reason)
    if is_week:
        sys.exit(_week(is_busy=is_busy))
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    console = Console()
    console.print(f"--seed {seed} --registrations {registrations}{' --busy' * is_busy}", style="dim")
    most = sys.maxsize if minutes is not None else rounds or ROUNDS
    max_s = minutes * 60 if minutes is not None else float("inf")
    try:
        with busy() if is_busy else nullcontext():
            stats, bill = _soak(seed, registrations, most, max_s, total=rounds or (None if minutes else ROUNDS))
    except (AssertionError, GatewaydError) as error:
        console.print(f"--seed {seed}: {error}", style="red", markup=False)
        sys.exit(1)
    console.print(_table(stats, bill))
    for each in [*stats.losses, *bill.losses]:
        console.print(each, style="red", markup=False)
    sys.exit(1 if stats.lost or stats.refused or bill.lost else 0)


def _fuzz(hours: float, inputs: Path) -> int:
    """The exit status."""
    console = Console()
    say = partial(console.print, style="red", markup=False)
    executed, findings = run_campaign(hours, inputs, len(os.sched_getaffinity(0)), say)
    for name, count in executed.items():
        console.print(f"{name:26} {count:>12,}", markup=False)
    console.print(
        f"{executed.total():,} inputs of {len(executed)} targets, {findings} findings; inputs in {inputs}"
    )
    return 1 if findings else 0


def _week(*, is_busy: bool) -> int:
    """The exit status."""
    console = Console()
    days = read_days(OPERATIONS.read_text())
    with busy() if is_busy else nullcontext(), Lab() as lab, tempfile.TemporaryDirectory() as directory:
        clock = HurriedClock.starting_now(Path(directory, "clock"), SLOW, OF_THE_KERNEL)
        with paced_daemon_in(lab, Path(directory), clock) as daemon:
            try:
                bill = Week(daemon, days, console.print).run()
            except (AssertionError, GatewaydError) as error:
                console.print(str(error), style="red", markup=False)
                return 1
    console.print(
        f"{bill.days} days, {bill.steps} steps of the documents, {bill.probed} new flows tried; "
        f"{bill.lost} of {bill.sent} packets of registered flows lost"
    )
    for each in bill.losses:
        console.print(each, style="red", markup=False)
    return 1 if bill.lost else 0


def _soak(seed: int, registrations: int, most: int, max_s: float, *, total: int | None) -> tuple[Stats, Bill]:
    lab = Lab(map(parse_prefix, ROUTED))
    with lab, tempfile.TemporaryDirectory(prefix="gatewayd-soak-") as directory, sight_of(lab) as sight:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=total)

            def note(stats: Stats) -> None:
                text = f"{stats.kills} kills, {stats.lost} lost, {stats.refused} refused"
                progress.update(task, completed=stats.rounds, description=text)

            with daemon_in(lab, _subdirectory(directory, "churn")) as daemon:
                churn = Churn(daemon, sight, seed=seed, registrations=registrations, note=note)
                stats = churn.run(most, max_s)
            clean(lab)
            with daemon_in(lab, _subdirectory(directory, "damage")) as daemon:
                return stats, run_damages(daemon, sight, seed=seed, rounds=DAMAGES)


def _subdirectory(directory: str, name: str) -> Path:
    made = Path(directory, name)
    made.mkdir()
    return made


def _table(stats: Stats, bill: Bill) -> Table:
    times = sorted(stats.converged_s)
    table = Table("what", "how many", title=f"--seed {stats.seed}")
    table.columns[1].justify = "right"
    rows = {
        "rounds": stats.rounds,
        "kills": stats.kills,
        **{f"  found then: {stage}": stats.stages[stage] for stage in STAGES},
        **{f"done: {name}": count for name, count in sorted(stats.deeds.items())},
        "packets of registered flows": stats.sent,
        "  of them the first of their flow": stats.fresh,
        "  lost": stats.lost,
        "handshakes and flows from the far end": stats.probed,
        "new flows refused": stats.refused,
        "from start to converged, times": len(times),
        "  median": f"{times[len(times) // 2]:.2f} s" if times else "",
        "  longest": f"{times[-1]:.2f} s" if times else "",
        "sets or look-ups emptied behind its back": bill.rounds,
        "  new flows refused until repaired": bill.refused,
        "  the same, with the daemon killed before": bill.refused_while_dead,
        "  other packets lost": f"{bill.lost} of {bill.sent}",
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


if __name__ == "__main__":
    main()
