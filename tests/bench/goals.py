"""The numbers to reach, each held against what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.figures import figure
from tests.bench.row import Outcome


@dataclass(frozen=True, slots=True)
class Verdict:
    """`is_met` None: not measured this time, or not at the size that the goal is about."""

    what: str
    goal: str
    measured: str
    is_met: bool | None

    @property
    def word(self) -> str:
        return {True: "met", False: "not met", None: "not measured"}[self.is_met]


class Results:
    """Medians by row, subject, size and measure."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes = {(each.row, each.subject, each.size): each for each in outcomes}

    def sizes(self, row: str) -> list[int]:
        return sorted({size for name, _, size in self._outcomes if name == row})

    def median(self, row: str, subject: str, size: int, measure: str) -> float | None:
        outcome = self._outcomes.get((row, subject, size))
        return outcome.median(measure) if outcome is not None else None


@dataclass(frozen=True, slots=True)
class Goal:
    """`judge` returns what was measured, in words, and whether that is enough; None: not measured."""

    what: str
    goal: str
    judge: Callable[[Results], tuple[str, bool] | None]

    def verdict(self, results: Results) -> Verdict:
        judged = self.judge(results)
        return Verdict(self.what, self.goal, *(judged if judged is not None else ("", None)))


MILLION = 1_000_000


def ratio(
    row: str, size: int, peer: str, measure: str, least: float
) -> Callable[[Results], tuple[str, bool] | None]:
    """The peer's figure over gatewayd's is at least so much."""

    def judge(results: Results) -> tuple[str, bool] | None:
        ours, theirs = (results.median(row, who, size, measure) for who in ("gatewayd", peer))
        if ours is None or theirs is None:
            return None
        return f"{theirs / ours:.1f} × ({figure(ours, 's')} against {figure(theirs, 's')})", theirs / ours >= least

    return judge


def at_most(
    row: str, size: int, measure: str, most: float, unit: str = "s", subject: str = "gatewayd"
) -> Callable[[Results], tuple[str, bool] | None]:
    def judge(results: Results) -> tuple[str, bool] | None:
        value = results.median(row, subject, size, measure)
        return None if value is None else (figure(value, unit), value <= most)

    return judge


def _within_kernel(results: Results) -> tuple[str, bool] | None:
    whole = results.median("hosts", "gatewayd", MILLION, "s")
    kernel = results.median("hosts", "gatewayd", MILLION, "kernel_s")
    return None if whole is None or kernel is None else (f"{whole / kernel:.2f} ×", whole / kernel <= 1.5)


GOALS: tuple[Goal, ...] = (
    Goal(
        "encode and commit of 1 M host elements, against nft -f of the same set",
        "at least 4 × faster",
        ratio("hosts", MILLION, "nft -f, hash set", "s", 4.0),
    ),
    Goal("the same, against the kernel's own commit time", "within 1.5 ×", _within_kernel),
    Goal(
        "loop stall while a snapshot of 1 M is read, p99",
        "under 50 ms",
        at_most("snapshot", MILLION, "stall_s", 0.050),
    ),
)


def judge_all(outcomes: Sequence[Outcome]) -> list[Verdict]:
    results = Results(outcomes)
    return [goal.verdict(results) for goal in GOALS]
