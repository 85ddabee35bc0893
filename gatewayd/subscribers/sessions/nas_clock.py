"""The offset of a NAS's clock to ours, found by its records. Pure.

A stamp less the offset is when a thing happened by our clock. It is never
later than the arrival.

- A stamp cannot be from the future: one that is later than the offset allows shows that the NAS is further ahead.
- A NAS that was ahead, and whose stamp is of our time again, was put right (NTP sets it to the time that we have).
- A stamp older than the offset allows is of an old record (a proxy's queue, repeats), or the NAS was set back. One
  record does not show which, unless it says for how long it was on its way (Acct-Delay-Time). Old records come as
  fast as they are taken, and their age falls. By a clock that was set, each next record is as old as the one
  before. Until that is seen, the record counts as old, and is remembered. Then it counts again, as of when it came.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

from gatewayd.model.accounting import AccountingEvent

NEAR_S: Final = 5.0
"""An age that needs no reason: stamps are of whole seconds, and ways take time."""
SAME_S: Final = 2.0
"""Two ages that differ by so much at most are one."""
REPEATED_S: Final = 120.0
"""So old a NAS's own repeats can be: up to here more proof is wanted."""
PROOF_S: Final = 5.0
PROOF_OF_SHORT_S: Final = 60.0
PROOF_WITH_RESTART_S: Final = 1.0
"""For how long records must be of one age. Clocks go wrong when a NAS boots."""
MAX_UNDECIDED: Final = 256
"""Records of one NAS that are remembered meanwhile."""


class NasClock:
    """`ahead_s`: how far the NAS is ahead of us; less than 0: behind."""

    __slots__ = ("_age_s", "_count_of_age", "_has_restart", "_since_s", "_undecided", "ahead_s")

    def __init__(self, ahead_s: float = 0.0) -> None:
        self.ahead_s = ahead_s
        self._age_s = inf
        self._since_s = 0.0
        self._count_of_age = 0
        self._has_restart = False
        self._undecided: deque[AccountingEvent] | None = None

    @property
    def whole_s(self) -> int:
        """`ahead_s` as a restart of ours is to know it: stamps are of whole seconds."""
        return round(self.ahead_s)

    def time_of(self, event: AccountingEvent) -> float:
        """When it happened, by our clock."""
        return min(event.at_s - self.ahead_s, event.received_at_s)

    def observe(self, event: AccountingEvent) -> tuple[AccountingEvent, ...]:
        """Follow the clock by a record. Returns records before it that count anew, as the clock was set back."""
        stamp_s, received_s = event.at_s, event.received_at_s
        ahead_s = stamp_s - received_s
        age_s = self.ahead_s - ahead_s
        if age_s <= 0 or (self.ahead_s > 1.0 and -SAME_S <= ahead_s <= 1.0):
            self.ahead_s = max(ahead_s, 0.0) if age_s > 0 else ahead_s
            self._settle()
        elif age_s <= NEAR_S:
            self._settle()
        elif age_s > event.delay_s + NEAR_S:
            return self._doubt(event, age_s)
        return ()

    def _doubt(self, event: AccountingEvent, age_s: float) -> tuple[AccountingEvent, ...]:
        if age_s > self._age_s + SAME_S:
            return ()  # older still than the others: that one is a repeat, or from a queue
        if self._undecided is None or age_s < self._age_s - SAME_S:
            self._undecided = deque(maxlen=MAX_UNDECIDED)
            self._age_s, self._since_s, self._count_of_age, self._has_restart = age_s, event.received_at_s, 0, False
        self._age_s = min(self._age_s, age_s)
        self._count_of_age += 1
        self._has_restart |= event.kind in ("on", "off")
        self._undecided.append(event)
        if not self._is_proven(event.received_at_s):
            return ()
        self.ahead_s -= self._age_s
        *before, _ = self._undecided
        self._settle()
        return tuple(before)

    def _is_proven(self, now_s: float) -> bool:
        lasted_s = now_s - self._since_s
        if self._age_s <= REPEATED_S:
            return self._count_of_age > 2 and lasted_s >= PROOF_OF_SHORT_S
        return self._count_of_age > 1 and lasted_s >= (PROOF_WITH_RESTART_S if self._has_restart else PROOF_S)

    def _settle(self) -> None:
        """The record is of the time that the offset gives it."""
        self._undecided, self._age_s = None, inf
