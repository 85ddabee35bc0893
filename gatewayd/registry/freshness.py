"""How old what we know of a source is, and what that means for the mode. Nothing is removed.

A source is confirmed when it gave content or said that it has no other. A signed feed also says when it was
issued: an answer that was issued long ago, from a cache that no longer asks or from somebody who replays it,
confirms nothing newer than itself. So a registry issues its notification anew well within `expire`, whether
or not anything changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from gatewayd.model import Mode
from gatewayd.settings.model import OnStale

FreshnessWord = Literal["fresh", "overdue", "stale"]

MISSED_REFRESHES: Final = 3
"""A source that was not confirmed for so many refreshes is overdue: worth a warning, and nothing else."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """`since_s`: when this began, -inf where there never was anything. `changes_at_s`: when it will be worse
    if nothing comes, inf = never. `reason` is for people, empty when fresh."""

    word: FreshnessWord
    since_s: float
    changes_at_s: float
    reason: str = ""


def judge_freshness(
    confirmed_at_s: float | None,
    issued_at_s: float | None,
    now: float,
    *,
    refresh_s: float,
    expire_s: float,
) -> Freshness:
    """`confirmed_at_s`: when the source last gave or confirmed what is in force, in this run or, as the last
    good knows, an earlier one; None = never. `issued_at_s`: as signed, None where nobody says."""
    if confirmed_at_s is None:
        return Freshness("stale", -inf, inf, "never read")
    known_at_s = confirmed_at_s if issued_at_s is None else min(confirmed_at_s, issued_at_s)
    overdue_at_s, stale_at_s = confirmed_at_s + MISSED_REFRESHES * refresh_s, known_at_s + expire_s
    if now >= stale_at_s:
        what = "issued" if known_at_s < confirmed_at_s else "confirmed"
        return Freshness("stale", stale_at_s, inf, f"last {what} {now - known_at_s:.0f} s ago")
    if now >= overdue_at_s:
        reason = f"last confirmed {now - confirmed_at_s:.0f} s ago"
        return Freshness("overdue", overdue_at_s, stale_at_s, reason)
    return Freshness("fresh", confirmed_at_s, min(overdue_at_s, stale_at_s))


def mode_by_freshness(mode: Mode, sources: Mapping[str, Freshness], on_stale: OnStale) -> Mode:
    """The mode to be in force: observe if the operator chose so and any source is stale."""
    if on_stale == "observe" and any(each.word == "stale" for each in sources.values()):
        return "observe"
    return mode


def reasons_of(sources: Mapping[str, Freshness]) -> tuple[str, ...]:
    """One line for each source that is not fresh, in their order."""
    return tuple(f"source {name} is {each.word}: {each.reason}" for name, each in sources.items() if each.reason)


def next_freshness_change(sources: Mapping[str, Freshness]) -> float:
    """When the first of the sources gets worse if nothing comes; inf = never."""
    return min((each.changes_at_s for each in sources.values()), default=inf)
