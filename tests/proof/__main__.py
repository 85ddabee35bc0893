"""`./run proof [faults | tunnels | pair | NAME...] [--list]`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from gatewayd.lab.lab import Lab, missing_for_lab
from tests.bench.row import Machine
from tests.proof.faults import FAULTS
from tests.proof.harness import Fault, Row, proof_lab, row_of
from tests.proof.pair_cases import CASES
from tests.proof.pair_table import load as load_pair
from tests.proof.pair_table import make_pair
from tests.proof.progress import Progress
from tests.proof.table import Results, assert_same, load, machine_of_run, save_faults, with_renewed
from tests.proof.tunnels.rounds import Rounds
from tests.proof.tunnels.table import Results as TunnelResults
from tests.proof.tunnels.table import save_tunnels
from tests.proof.tunnels.table import shown as tunnels_shown
from tests.soak.sight import Sight

GROUPS = ("faults", "tunnels", "pair")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1)
@click.option("--list", "is_list", is_flag=True, help="Only show which rows there are.")
@click.option("--renew", "is_renewed", is_flag=True, help="Put named rows into the documents too.")
def main(names: tuple[str, ...], *, is_list: bool, is_renewed: bool) -> None:
    """Make faults under registered traffic. NAMES: `faults`, `tunnels`, `pair`, or rows; all where none is given.

    `tunnels` makes them under real tunnels. `pair` lets one of two gateways take over from the other. Whole groups
    are written to docs/proof, docs/proof.md and README, each when it is done. A row that fails is named at the end;
    the exit status is 1 then, or if a packet is lost that could be saved.
    """
    if is_list:
        for fault in FAULTS:
            click.echo(f"{fault.name:32}  {fault.why}")
        for case in CASES:
            click.echo(f"pair {case.name:27}  {case.why}")
        return
    if reason := missing_for_lab():
        raise click.ClickException(reason)
    progress, machine = Progress(Console()), machine_of_run()
    if names[:1] == ("pair",):
        if is_renewed:
            assert_same(load_pair().machine, machine)
        with progress.part("pair"):
            make_pair(names[1:], progress, machine, is_renewed=is_renewed)
        sys.exit(progress.end())
    wanted = [each for each in names if each not in GROUPS]
    if unknown := [each for each in wanted if each not in {fault.name for fault in FAULTS}]:
        raise click.UsageError(f"no such row: {', '.join(unknown)}")
    faults = [each for each in FAULTS if not wanted or each.name in wanted]
    if is_renewed:
        if "tunnels" in names:
            raise click.UsageError("the tunnels stay up through all faults: their rows are made together")
        assert_same(load().machine, machine)
    is_written = not wanted or is_renewed
    if not names or "faults" in names or (wanted and "tunnels" not in names):
        with progress.part("faults"):
            make_faults(faults, progress, machine if is_written else None)
    if not names or "tunnels" in names:
        with progress.part("tunnels"):
            make_tunnels(faults, progress, machine if is_written else None)
    if not names:
        with progress.part("pair"):
            make_pair((), progress, machine)
    sys.exit(progress.end())


def make_faults(faults: Sequence[Fault], progress: Progress, machine: Machine | None) -> None:
    """`machine`: None where it does not go into the documents."""
    with FreshLab() as lab:
        rows = list(progress.rows("faults", [(each.name, partial(lab.row_of, each)) for each in faults]))
    progress.console.print(_shown(rows))
    for row in rows:
        for note in row.notes:
            progress.note(f"{row.name}: {note}", is_wrong=not row.bounded)
        if not row.is_good:
            progress.fail("faults", row.name, f"{row.lost} lost, {row.refused} refused")
    if machine is not None:
        kept = () if len(faults) == len(FAULTS) else load().rows
        save_faults(Results(machine, with_renewed(kept, rows, FAULTS)))


def make_tunnels(faults: Sequence[Fault], progress: Progress, machine: Machine | None) -> None:
    """As `make_faults`."""
    rounds = Rounds(progress)
    rounds.run(faults)
    progress.console.print(_shown(rounds.faults))
    Console(width=max(progress.console.width, 160)).print(tunnels_shown(rounds.rows))
    for name, why in rounds.wrong():
        progress.fail("tunnels", name, why)
    if machine is not None:
        save_tunnels(TunnelResults(machine, tuple(rounds.rows), tuple(rounds.faults)))


class FreshLab:
    """One for all rows, and another after a row that failed: nobody knows how that one left it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._made: tuple[Lab, Sight] | None = None

    def row_of(self, fault: Fault) -> Row:
        if self._made is None:
            self._made = self._stack.enter_context(proof_lab())
        lab, sight = self._made
        with tempfile.TemporaryDirectory(prefix="gatewayd-proof-") as directory:
            try:
                return row_of(lab, sight, Path(directory), fault)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        self._made = None
        self._stack.close()

    def __enter__(self) -> FreshLab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _shown(rows: Sequence[Row]) -> Table:
    table = Table("fault", "packets", "lost", "refused", "repaired", "told")
    for row in rows:
        figures = (f"{row.sent:,}", f"{row.lost:,}", f"{row.refused:,}", f"{row.repaired_s:.2f} s")
        table.add_row(row.name, *figures, ", ".join(row.told), style="" if row.is_good else "red")
    return table


if __name__ == "__main__":
    main()
