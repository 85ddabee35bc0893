"""The numbers to reach, each held against what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.figures import figure
from tests.bench.row import Outcome
from tests.bench.rows.accounting import RATE, REGISTRATIONS
from tests.bench.rows.counting import ALONE
from tests.bench.rows.flows import FLOODED
from tests.bench.rows.ready import INTERVAL, LAST_GOOD


@dataclass(frozen=True, slots=True)
class Verdict:
    """`is_met` None: not measured this time, or not at the size that the goal is about. `why`: of one not met."""

    what: str
    goal: str
    measured: str
    is_met: bool | None
    why: str = ""

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
    """`judge` returns what was measured, in words, and whether that is enough; None: not measured. `why`: what is
    known of the reason, where it was not met."""

    what: str
    goal: str
    judge: Callable[[Results], tuple[str, bool] | None]
    why: str = ""

    def verdict(self, results: Results) -> Verdict:
        measured, is_met = self.judge(results) or ("", None)
        return Verdict(self.what, self.goal, measured, is_met, self.why if is_met is False else "")


MILLION = 1_000_000
SOME = 31_000
HOST = (
    "a host that shares its cores takes them away for up to 0.2 s at a time when both are busy, as two processes "
    "that only look at the clock can see, and a hundredth of some hundred tries is one or two"
)
"""Of tails of a few milliseconds."""


def ratio(
    row: str, size: int, peer: str, measure: str, least: float, subject: str = "gatewayd"
) -> Callable[[Results], tuple[str, bool] | None]:
    """The peer's figure over gatewayd's is at least so much."""

    def judge(results: Results) -> tuple[str, bool] | None:
        ours, theirs = (results.median(row, who, size, measure) for who in (subject, peer))
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


def at_least(
    row: str, size: int, measure: str, least: float, unit: str, subject: str = "gatewayd"
) -> Callable[[Results], tuple[str, bool] | None]:
    def judge(results: Results) -> tuple[str, bool] | None:
        value = results.median(row, subject, size, measure)
        return None if value is None else (figure(value, unit), value >= least)

    return judge


def _lost_over_restarts(results: Results) -> tuple[str, bool] | None:
    for size in results.sizes("restarts"):
        restarts, packets, lost = (
            results.median("restarts", "gatewayd", size, each) for each in ("restarts", "packets", "lost")
        )
        if restarts is not None and packets is not None and lost is not None:
            return f"{lost:.0f} of {packets:,.0f} over {restarts:.0f}", lost == 0 and restarts >= 100
    return None


def _within_kernel(results: Results) -> tuple[str, bool] | None:
    whole = results.median("hosts", "gatewayd", MILLION, "s")
    kernel = results.median("hosts", "gatewayd", MILLION, "kernel_s")
    return None if whole is None or kernel is None else (f"{whole / kernel:.2f} ×", whole / kernel <= 1.5)


def _unanswered(results: Results) -> tuple[str, bool] | None:
    rate, lost, repeats = (
        results.median("accounting", "gatewayd", REGISTRATIONS, each) for each in ("rate", "unanswered", "repeats")
    )
    if rate is None or lost is None or repeats is None:
        return None
    return f"{lost:.0f} at {rate:,.0f} /s, {repeats:.0f} repeated", lost == 0 and rate >= 0.99 * RATE


GOALS: tuple[Goal, ...] = (
    Goal(
        "1 M registrations on disk to kernel filled, read back and armed, against nft -f of an interval set",
        "faster, aim for half the time",
        ratio("ready", MILLION, INTERVAL, "s", 1.0, subject=LAST_GOOD),
        "four fifths of the time are Python's: a million records are checked one by one and put into the radix "
        "tree; nft is given bare prefixes, and reading and checking records is not in its time",
    ),
    Goal(
        "encode and commit of 1 M host elements, against nft -f of the same set",
        "at least 4 × faster",
        ratio("hosts", MILLION, "nft -f, hash set", "s", 4.0),
    ),
    Goal("the same, against the kernel's own commit time", "within 1.5 ×", _within_kernel),
    Goal(
        "one element added among 1 M, p99",
        "under 1 ms",
        at_most("change", MILLION, "p99_s", 0.001),
    ),
    Goal(
        "loop stall while a snapshot of 1 M is read, p99",
        "under 50 ms",
        at_most("snapshot", MILLION, "stall_s", 0.050),
    ),
    Goal(
        "the health port while the whole daemon loads 1 M, p99",
        "under 50 ms",
        at_most("ready", MILLION, "health_p99_s", 0.050),
    ),
    Goal(
        "one registration changed among 1 M, delta published to committed, p99",
        "under 20 ms",
        at_most("change_whole", MILLION, "p99_s", 0.020),
    ),
    Goal(
        "new flows matched among 31 k and attributed, on one core",
        "at least 100 k/s",
        at_least("flows", 31_000, "per_core", 100_000, "/s"),
        "of some 10 µs a flow, the look-up in the radix tree is 3, one recv(2) for each event 2, decoding 1.5",
    ),
    Goal(
        "new flows matched among 1 M and attributed, on one core",
        "at least 100 k/s",
        at_least("flows", MILLION, "per_core", 100_000, "/s"),
        "a million registrations over the prefixes announced in one country lie eight deep over every address, and "
        "each of the eight is looked at; at 31,000 it is one or two",
    ),
    Goal(
        "events of new flows lost unreported in a flood",
        "none",
        at_most("flows", MILLION, "unreported", 0, "", subject=FLOODED),
    ),
    Goal(
        "late admission among 1 M, event to committed, p99",
        "under 2 ms",
        at_most("late", MILLION, "p99_s", 0.002),
        HOST,
    ),
    Goal(
        "RADIUS Start sent to packets passing, at 2,000 other requests/s, journalled before the answer, p99",
        "under 10 ms",
        at_most("starts", REGISTRATIONS, "p99_s", 0.010),
        HOST + "; of the median, two thirds are the wakeups of four tasks and the kernel's commit",
    ),
    Goal(
        "RADIUS accounting, 5,000 requests/s for 20 s",
        "none unanswered",
        _unanswered,
    ),
    Goal(
        "forwarding of registered flows among 1 M, against plain connection tracking",
        "at least 97 %",
        at_least("forwarding", MILLION, "share", 97.0, "%"),
    ),
    Goal(
        "counting of an unregistered new flow, against the same rules without it",
        "at least 90 %",
        at_least("counting", SOME, "share", 90.0, "%", subject=ALONE),
    ),
    Goal(
        "resident memory at 31 k registrations",
        "under 120 MB",
        at_most("ready", 31_000, "rss_mb", 120, "MB"),
    ),
    Goal(
        "resident memory at 1 M registrations",
        "under 700 MB",
        at_most("ready", MILLION, "rss_mb", 700, "MB"),
    ),
    Goal(
        "registered packets lost over 100 restarts, reloads and full resyncs",
        "0",
        _lost_over_restarts,
    ),
)


def judge_all(outcomes: Sequence[Outcome]) -> list[Verdict]:
    results = Results(outcomes)
    return [goal.verdict(results) for goal in GOALS]
