"""When the elements of bindings are asserted again; pure.

They go by themselves `element_timeout_s` after the daemon has died. While it lives, a round goes through all
of them in a third of that time, a piece at a time and not quite evenly, so that an element is never older than two
thirds. The first round is at once: how old the elements are that a restart found, nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil

from gatewayd.model.transaction import RefreshElements, Transaction
from gatewayd.reconcile.set_state import SetState
from gatewayd.reconcile.tracker import SetTracker

PIECE = 512
"""Elements asserted in one transaction: under a millisecond."""
ROUNDS = 3


class ElementTimeout:
    """`spread`: a number from 0 to 1 each time it is called, for pauses that do not fall together."""

    def __init__(self, tracker: SetTracker, *, spread: Callable[[], float]) -> None:
        self._tracker = tracker
        self._spread = spread
        self._round: Iterator[tuple[SetState, list[bytes]]] | None = None
        self._begun_at = self._due_at = 0.0
        self._pause_s = 0.0
        self.is_first = True
        self.refreshed = 0

    def start_over(self) -> None:
        """Nothing is known of what is in the kernel: a round at once, as soon as it is known again."""
        self._round, self.is_first, self._due_at = None, True, 0.0

    def next_piece(self, now: float) -> Transaction | None:
        """What is to be asserted now; None if nothing is due yet, or nothing is there."""
        period_s = self._tracker.element_timeout_s / ROUNDS
        while now >= self._due_at:
            if self._round is None:
                self._begin(now, period_s)
            assert self._round is not None
            state, piece = next(self._round, (None, []))
            if state is None:
                self._round, self.is_first = None, False
                self._due_at = max(now, self._begun_at + period_s * (1 - self._spread() / 4))
                return None
            if not any(state is known for known in self._tracker.set_states()):
                self.start_over()  # all was read anew meanwhile
                continue
            wanted = self._tracker.desired.keys(state.mask)
            keys = [key for key in piece if key in wanted and key not in state.missing]
            if keys:
                # More pieces than were counted, or a halt of ours: at its end a round waits no more.
                end = 0.0 if self.is_first else self._begun_at + period_s
                self._due_at = min(end, now + self._pause_s * (0.5 + self._spread()))
                self.refreshed += len(keys)
                return Transaction((RefreshElements(state.name, keys),), "refresh bindings")
        return None

    def _begin(self, now: float, period_s: float) -> None:
        bound = [state for state in self._tracker.set_states() if state.mask.is_bound and state.exists]
        pieces = sum(ceil(len(self._tracker.desired.keys(state.mask)) / PIECE) for state in bound)
        self._begun_at = now
        self._pause_s = period_s / (2 * max(pieces, 1))
        self._round = self._tracker.known_in_slices(lambda _: PIECE, bound)
