"""What is measured, as values: rows, their subjects, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Figures = Mapping[str, float]
"""Measure → value, of one run of one subject."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a subject is given. `size`: registrations. `material`: a directory that outlives the run, for what every
    run would otherwise make anew; `scratch`: one that does not."""

    size: int
    material: Path
    scratch: Path


@dataclass(frozen=True, slots=True)
class Subject:
    """`name`: as in the table; those of gatewayd begin with `gatewayd`. `measure` runs in a process of its own.

    `most`: beyond this size it is left out, for the reason `why`, which the table prints. `needs`: the peer
    (peers.py) without which it cannot be run.
    """

    name: str
    measure: Callable[[Context], Figures]
    needs: str | None = None
    most: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """A column. `name` is the key in Figures; of `unit` "s" the table makes ms and µs. `of_size`: drawn over the
    size in a plot."""

    name: str
    unit: str
    title: str
    more_is_better: bool = False
    of_size: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """`name`: one word, for `--rows`. `sizes`: False where the question does not depend on how many there are.

    `own_sizes`: what N is where it is not registrations. `max_runs`: fewer runs than asked for, of what takes
    minutes. `least_size`: smaller ones say nothing.
    """

    name: str
    title: str
    measures: tuple[Measure, ...]
    subjects: tuple[Subject, ...]
    sizes: bool = True
    own_sizes: tuple[int, ...] = ()
    max_runs: int = 99
    least_size: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The runs of a subject at a size. `missing`: why there are none."""

    row: str
    subject: str
    size: int
    runs: tuple[Figures, ...] = ()
    missing: str = ""

    def values(self, measure: str) -> list[float]:
        """Sorted; empty where it was not measured."""
        return sorted(run[measure] for run in self.runs if measure in run)

    def median(self, measure: str) -> float | None:
        values = self.values(measure)
        return values[(len(values) - 1) // 2] if len(values) % 2 else _mean(values) if values else None


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured."""

    cores: int
    processor: str
    memory_gib: float
    kernel: str
    versions: Mapping[str, str] = field(default_factory=dict)
    taken_at: str = ""
    commit: str = ""


def check(is_right: bool, what: str) -> None:
    """A subject that did not do what it is measured for has no figure. Raises RuntimeError."""
    if not is_right:
        raise RuntimeError(f"did not do its work: {what}")


def _mean(values: list[float]) -> float:
    middle = len(values) // 2
    return (values[middle - 1] + values[middle]) / 2
