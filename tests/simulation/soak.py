"""A great many runs, in as many processes as there are cores: what `./run soak --simulate N` does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import get_context

from rich.console import Console
from rich.table import Table

from tests.simulation.runs import Failure, run, shortened
from tests.simulation.small import small_world
from tests.simulation.told import Counts

PIECE = 200
"""Seeds that a process takes at a time."""
SAY_EVERY_S = 30.0


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
    """Runs `count` seeds from `first` on; the exit status. Says every while up to which seed all are done: another
    run can go on from there."""
    console, began = Console(), time.monotonic()
    pieces = [range(start, min(start + PIECE, first + count)) for start in range(first, first + count, PIECE)]
    total, failures, said_at = Counts(), list[str](), began
    with get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool, suppress(KeyboardInterrupt):
        for piece, (counts, found) in zip(pieces, pool.imap(_take, pieces), strict=True):
            total.add(counts)
            failures += found
            for each in found:
                console.print(each, style="red", markup=False, highlight=False)
            now = time.monotonic()
            if now - said_at >= SAY_EVERY_S or piece is pieces[-1]:
                said_at, done = now, total.runs + len(failures)
                console.print(
                    f"seeds {first} to {piece[-1]} done: {done:,} of {count:,}, {len(failures)} failed, "
                    f"{done / (now - began):.0f} a second",
                    highlight=False,
                )
    done = total.runs + len(failures)
    console.print(_table(total, len(failures), done / (time.monotonic() - began)))
    if done < count:
        console.print(f"go on with --seed {first + done} --simulate {count - done}", highlight=False)
    return 1 if failures or done < count else 0


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
        *((f"answers of sources: {name}", number) for name, number in sorted(total.answers.items())),
        *((f"  {name}", number) for name, number in sorted(total.events.items())),
    )
    for name, value in rows:
        table.add_row(name, str(value))
    return table
