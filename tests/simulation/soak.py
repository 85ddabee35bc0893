"""A great many runs, in as many processes as there are cores: what `./run soak --simulate N` does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from multiprocessing import get_context

from rich.console import Console
from rich.table import Table

from tests.simulation.life import small_world
from tests.simulation.runs import Failure, run, shortened
from tests.simulation.world import Counts

PIECE = 200
"""Seeds that a process takes at a time."""


def _take(seeds: range) -> tuple[Counts, list[str]]:
    total, failures = Counts(), []
    with small_world():
        for seed in seeds:
            outcome = run(seed)
            if isinstance(outcome, Failure):
                failures.append(str(shortened(outcome)))
            else:
                total.add(outcome)
    return total, failures


def simulate(first: int, count: int) -> int:
    """Runs `count` seeds from `first` on; the exit status."""
    console, began = Console(), time.monotonic()
    pieces = [range(start, min(start + PIECE, first + count)) for start in range(first, first + count, PIECE)]
    total, failures = Counts(), list[str]()
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        for counts, found in pool.imap_unordered(_take, pieces):
            total.add(counts)
            failures += found
            for each in found:
                console.print(each, style="red", markup=False, highlight=False)
    console.print(_table(total, len(failures), count / (time.monotonic() - began)))
    return 1 if failures else 0


def _table(total: Counts, failed: int, seeds_s: float) -> Table:
    table = Table("what", "how many")
    table.columns[1].justify = "right"
    rows: Iterable[tuple[str, object]] = (
        ("seeds that hold", total.runs),
        ("seeds that fail", failed),
        ("seeds a second", f"{seeds_s:.0f}"),
        ("commits", total.commits),
        ("rulesets", total.rulesets),
        ("larger sets", total.grown),
        ("lives", total.lives),
        ("kills, power cuts and old disks", total.cuts),
        ("calls that fail", total.failures),
        ("records of accounting", total.records),
        *((f"  {name}", number) for name, number in sorted(total.events.items())),
    )
    for name, value in rows:
        table.add_row(name, str(value))
    return table
