"""Runs the subjects, each in a fresh process in a fresh network namespace, and keeps what they say."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.bench.row import Figures, Outcome, Row, Subject
from tests.bench.worker import CANNOT

PATIENCE_S = 900.0
MAX_REASON = 160
FAILED = "failed"
"""How the reason begins where a subject was to be measured and gave an error."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run. `missing`: why it gave no figures."""

    figures: Figures | None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """`missing`: peer → why it cannot be run here."""

    rows: Sequence[Row]
    sizes: Sequence[int]
    runs: int
    material: Path
    missing: Mapping[str, str]


def cells(plan: Plan) -> Iterator[tuple[Row, int]]:
    """Each row at each size that means something to it."""
    for row in plan.rows:
        if row.own_sizes:
            yield from ((row, size) for size in row.own_sizes)
        elif row.sizes:
            yield from ((row, size) for size in plan.sizes if size >= row.least_size)
        else:
            yield row, max(plan.sizes)


def count_runs(plan: Plan) -> int:
    return sum(len(row.subjects) * min(plan.runs, row.max_runs) for row, _ in cells(plan))


def run_plan(plan: Plan, note: Callable[[str], None]) -> Iterator[Outcome]:
    """Every cell's outcomes as soon as they are known. `note` is told before each run what it is."""
    for row, size in cells(plan):
        yield from run_cell(row, size, plan, note)


def run_cell(row: Row, size: int, plan: Plan, note: Callable[[str], None]) -> Iterator[Outcome]:
    """The runs alternate between the subjects: what disturbs the machine meanwhile disturbs all of them."""
    taken: dict[str, list[Figures]] = {subject.name: [] for subject in row.subjects}
    ignored = {subject.name: _why_not(subject, size, plan.missing) for subject in row.subjects}
    count = min(plan.runs, row.max_runs)
    for number in range(count):
        for subject in row.subjects:
            note(f"{row.name} {size:,}: {subject.name} ({number + 1}/{count})")
            if ignored[subject.name]:
                continue
            attempt = run_subject(row, subject, size, plan.material)
            if attempt.figures is None:
                ignored[subject.name] = attempt.missing
            else:
                taken[subject.name].append(attempt.figures)
    for subject in row.subjects:
        yield Outcome(row.name, subject.name, size, tuple(taken[subject.name]), ignored[subject.name])


def run_subject(row: Row, subject: Subject, size: int, material: Path) -> Attempt:
    scratch = Path(tempfile.mkdtemp(prefix="gatewayd-bench-"))
    worker = [sys.executable, "-m", "tests.bench.worker", row.name, subject.name, str(size)]
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--", *worker, str(material), str(scratch)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return Attempt(None, f"not done after {PATIENCE_S:.0f} s")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if done.returncode == 0:
        return Attempt(msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, float]))
    words = (done.stderr.strip().splitlines() or ["no word"])[-1][:MAX_REASON]
    return Attempt(None, words if done.returncode == CANNOT else f"{FAILED}: {words}")


def _why_not(subject: Subject, size: int, missing: Mapping[str, str]) -> str:
    if subject.most is not None and size > subject.most:
        return subject.why
    return missing.get(subject.needs, "") if subject.needs is not None else ""
