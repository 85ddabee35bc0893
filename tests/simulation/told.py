"""What a run tells: its trace, its counts, and what does not hold."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.loop import Clock


class Broken(AssertionError):
    """Something that must hold does not."""


@dataclass(slots=True)
class Counts:
    """What runs have done. `answers`: of sources, by what they were."""

    runs: int = 0
    events: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    rulesets: int = 0
    lives: int = 0
    cuts: int = 0
    failures: int = 0
    records: int = 0
    grown: int = 0
    turns: int = 0

    def add(self, other: Counts) -> None:
        self.events.update(other.events)
        self.answers.update(other.answers)
        for name in ("runs", "commits", "rulesets", "lives", "cuts", "failures", "records", "grown", "turns"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Trace:
    """`lines`: what happened and when, for people and for the digest of a run."""

    def __init__(self, clock: Clock) -> None:
        self.lines: list[str] = []
        self._clock = clock

    def say(self, what: str) -> None:
        self.lines.append(f"{self._clock.elapsed_s:.3f} {what}")

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
