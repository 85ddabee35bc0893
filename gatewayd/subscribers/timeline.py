"""The time of the sessions: Unix seconds by a clock that is never set, and that goes on over a restart. Pure.

The wall clock is set by NTP, by hand, by an empty battery; no session must end for it, and no old word seem new.
So time is the wall's at the very first start, and from then on what the monotonic clock counts. The journal has a
moment of it by all clocks, and the next run goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

MAX_AWAY_S: Final = 30 * 86400.0
"""A gateway that was off for longer is taken for one whose clock is wrong."""


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """One moment by the timeline, the wall clock and the monotonic clock, which counts within one boot alone."""

    time_s: float
    wall_s: float
    monotonic_s: float
    boot: str


class Timeline:
    """`clock`: the wall's; `monotonic clock`: the monotonic; `boot`: what tells this boot from others, if it is
    known."""

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float], boot: str = "") -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._boot = boot
        self._began_at_s = clock() - monotonic()

    def time_s(self) -> float:
        return self._began_at_s + self._monotonic()

    def wall_is_ahead_s(self) -> float:
        """Of the timeline: the wall clock was set since, or was wrong at the start."""
        return self._clock() - self.time_s()

    def moment(self) -> Moment:
        """Now."""
        return Moment(self.time_s(), self._clock(), self._monotonic(), self._boot)

    def go_on_from(self, moment: Moment) -> None:
        """Of an earlier run. Within one boot the monotonic clock says how long ago it was. Else the wall clock does
        as far as it can be believed: neither less than nothing nor more than MAX_AWAY_S."""
        away_s = self._monotonic() - moment.monotonic_s
        if not self._boot or self._boot != moment.boot or away_s < 0:
            away_s = self._clock() - moment.wall_s
            away_s = away_s if 0 <= away_s <= MAX_AWAY_S else 0.0
        self._began_at_s = moment.time_s + away_s - self._monotonic()
