"""`./run proof [faults | tunnels | pair | NAME...] [--list]`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from gatewayd.errors import GatewaydError
from gatewayd.lab.lab import missing_for_lab
from tests.proof.faults import FAULTS
from tests.proof.harness import Fault, Row, proof_lab, row_of
from tests.proof.pair_cases import CASES
from tests.proof.pair_table import make_pair
from tests.proof.table import PROOF, README, load, renew, save, table_of
from tests.proof.tunnels.rounds import Rounds
from tests.proof.tunnels.table import renew_tables as renew_tunnels
from tests.proof.tunnels.table import save as save_tunnels
from tests.proof.tunnels.table import shown as tunnels_shown

GROUPS = ("faults", "tunnels", "pair")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1)
@click.option("--list", "is_list", is_flag=True, help="Only show which rows there are.")
def main(names: tuple[str, ...], *, is_list: bool) -> None:
    """Make faults under registered traffic. NAMES: `faults`, `tunnels`, `pair`, or rows; all where none is given.

    `tunnels` makes them under real tunnels. `pair` lets one of two gateways take over from the other. Whole groups
    are written to docs/proof, docs/proof.md and README. Exit status 1 if a packet is lost that could be saved.
    """
    if is_list:
        for fault in FAULTS:
            click.echo(f"{fault.name:32}  {fault.why}")
        for case in CASES:
            click.echo(f"pair {case.name:27}  {case.why}")
        return
    if reason := missing_for_lab():
        raise click.ClickException(reason)
    if names[:1] == ("pair",):
        sys.exit(0 if make_pair(names[1:], Console()) else 1)
    wanted = [each for each in names if each not in GROUPS]
    if unknown := [each for each in wanted if each not in {fault.name for fault in FAULTS}]:
        raise click.UsageError(f"no such row: {', '.join(unknown)}")
    console = Console()
    faults = [each for each in FAULTS if not wanted or each.name in wanted]
    is_good = True
    if not names or "faults" in names or (wanted and "tunnels" not in names):
        is_good &= make_faults(faults, console, is_whole=not wanted)
    if not names or "tunnels" in names:
        is_good &= make_tunnels(faults, console, is_whole=not wanted)
    if not names:
        is_good &= make_pair((), console)
    sys.exit(0 if is_good else 1)


def make_faults(faults: Sequence[Fault], console: Console, *, is_whole: bool) -> bool:
    """Whether all is well. `is_whole`: it goes into the documents."""
    rows, failures = run_faults(faults, console)
    if rows:
        console.print(_shown(rows))
    for each in failures:
        console.print(each, style="red", markup=False)
    if is_whole and not failures:
        save("faults", rows)
        results = load("faults")
        renew(README, "faults", table_of(results))
        renew(PROOF, "faults", table_of(results, explained=True))
    return not failures and all(row.is_good for row in rows)


def make_tunnels(faults: Sequence[Fault], console: Console, *, is_whole: bool) -> bool:
    """As `make_faults`."""
    rounds = Rounds(console)
    rounds.run(faults)
    if rounds.faults:
        console.print(_shown(rounds.faults))
    Console(width=max(console.width, 160)).print(tunnels_shown(rounds.rows))
    for each in (*rounds.failures, *rounds.wrong()):
        console.print(each, style="red", markup=False)
    if is_whole and not rounds.failures:
        save_tunnels(rounds.rows, rounds.faults)
        renew_tunnels()
    return not rounds.failures and not rounds.wrong()


def run_faults(faults: Sequence[Fault], console: Console) -> tuple[list[Row], list[str]]:
    """The rows, and why others have none."""
    rows, failures = [], []
    with proof_lab() as (lab, sight):
        for number, fault in enumerate(faults, 1):
            console.print(f"{number}/{len(faults)} {fault.name}", style="dim")
            with tempfile.TemporaryDirectory(prefix="gatewayd-proof-") as directory:
                try:
                    rows.append(row_of(lab, sight, Path(directory), fault))
                except (AssertionError, GatewaydError, OSError) as error:
                    failures.append(f"{fault.name}: {error}")
    for row in rows:
        for note in row.notes:
            console.print(f"{row.name}: {note}", style="dim" if row.bounded else "red", markup=False)
    return rows, failures


def _shown(rows: Sequence[Row]) -> Table:
    table = Table("fault", "packets", "lost", "refused", "repaired", "told")
    for row in rows:
        figures = (f"{row.sent:,}", f"{row.lost:,}", f"{row.refused:,}", f"{row.repaired_s:.2f} s")
        table.add_row(row.name, *figures, ", ".join(row.told), style="" if row.is_good else "red")
    return table


if __name__ == "__main__":
    main()
