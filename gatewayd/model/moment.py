"""A time that is not known exactly: what it may be, and what it must be.

`earliest` ≤ the true time ≤ `latest`. A `Moment` is a float, its earliest, so that all that compares a time with a
boundary works on it, each comparison in the sense that takes nothing from anybody:

    boundary <= moment      the boundary may have passed: a window opens
    moment < boundary       the boundary may lie ahead: a window stays open

Of one boundary both may hold. Whatever must be certain (a source is stale, a policy is armed, a loss is none) asks
`earliest_of`. Where the time is known both ends are one, and it is a plain float.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Self


class Moment(float):
    """`earliest`, as float. Sums and differences are of the earliest."""

    __slots__ = ("latest",)
    latest: float

    def __new__(cls, earliest: float, latest: float) -> Self:
        made = super().__new__(cls, earliest)
        made.latest = latest
        return made

    # `boundary <= moment` asks this one, as its class is the narrower of the two.
    def __ge__(self, boundary: float, /) -> bool:
        return self.latest >= boundary

    def __gt__(self, boundary: float, /) -> bool:
        return self.latest > boundary

    def __repr__(self) -> str:
        return f"Moment({float(self)!r}, {self.latest!r})"


def earliest_of(now: float) -> float:
    """The time that has certainly come."""
    return float(now)


def latest_of(now: float) -> float:
    """The time that may have come."""
    return now.latest if isinstance(now, Moment) else now


def between(one: float, other: float) -> float:
    """The time is one of the two or in between; a plain float if they are the same."""
    return one if one == other else Moment(min(one, other), max(one, other))


def went_back_s(before: float, now: float) -> float:
    """By how much an end of it is earlier than it was; 0 = neither is."""
    ends = ((earliest_of(before), earliest_of(now)), (latest_of(before), latest_of(now)))
    return max((was - end for was, end in ends if was > end), default=0.0)


def format_time(at_s: float | None) -> str | None:
    """RFC 3339 in UTC to the millisecond, whole seconds without a fraction; None for None and ∓inf."""
    if at_s is None or not isfinite(at_s):
        return None
    moment = datetime.fromtimestamp(round(at_s, 3), UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="milliseconds").removesuffix(".000") + "Z"


def parse_time(text: str) -> float:
    """Unix seconds of what format_time made."""
    return datetime.fromisoformat(text).timestamp()
