"""What the daemon may take for the time, by what the host's clock has said: the rules in short, for windows alone.

A clock that NTP keeps is right. One that was set, with nothing to confirm it, is believed or not: by what was
confirmed before, if it is not far from it or nothing else is known a window counts as open by either.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

NEAR_S: Final = 300.0
NOTICED_S: Final = 5.0
"""Within which the daemon looks at its clock again."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time is between the two, in seconds that are added to the true time. `until_s`: since boot, how long the
    process may go by it."""

    earliest_s: float
    latest_s: float
    until_s: float = inf


@dataclass(frozen=True, slots=True)
class Anchor:
    """A time that the process believed, by what its clock was ahead then."""

    ahead_s: float
    is_confirmed: bool


class HostClock:
    """`ahead_s`: of the true time. `is_synced`: NTP keeps it, so it is right."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.is_synced = True
        self._anchors: list[Anchor] = [Anchor(0.0, is_confirmed=True)]
        """One of these is the process's: it may have met NTP, or NTP went before it looked."""
        self._spans: tuple[Span, ...] = (Span(0.0, 0.0),)

    def spans(self, now: float) -> tuple[Span, ...]:
        """Those that the process may go by; the last is one of what it must go by in the end."""
        if len(self._spans) > 1:
            self._spans = tuple(each for each in self._spans if now < each.until_s)
        return self._spans

    def begin_life(self) -> None:
        """A process knows nothing of before: it believes what the clock says at first."""
        self._anchors = [Anchor(self.ahead_s, self.is_synced)]
        self._spans = self._current()

    def set_by(self, seconds: float, now: float) -> None:
        """By hand: the kernel's word that NTP keeps it ends with that (`timekeeping.c: TK_CLEAR_NTP`)."""
        self._change(self.ahead_s + seconds, False, now)

    def lose_ntp(self, now: float) -> None:
        self._change(self.ahead_s, False, now)

    def meet_ntp(self, now: float) -> None:
        """It puts the clock right, and keeps it."""
        self._anchors.append(Anchor(0.0, is_confirmed=True))
        self._change(0.0, True, now)

    def _change(self, ahead_s: float, is_synced: bool, now: float) -> None:
        self.ahead_s, self.is_synced = ahead_s, is_synced
        until_s = now + NOTICED_S
        earlier = (Span(each.earliest_s, each.latest_s, min(each.until_s, until_s)) for each in self.spans(now))
        self._spans = (*earlier, *self._current())

    def _current(self) -> tuple[Span, ...]:
        wall_s = self.ahead_s
        if self.is_synced:
            return (Span(wall_s, wall_s),)
        found = []
        for each in dict.fromkeys(self._anchors):
            if each.is_confirmed and abs(wall_s - each.ahead_s) > NEAR_S:
                found.append(Span(each.ahead_s, each.ahead_s))
            else:
                found.append(Span(min(wall_s, each.ahead_s), max(wall_s, each.ahead_s)))
        return tuple(found)
