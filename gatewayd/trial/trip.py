"""The trip: what rises by more than its threshold within a minute, while something is enforced.

Each cause is one number, of a counter that only rises or of a gauge. What counts is its rise: the number now, above
the lowest of the last minute. So what was there when a mode was armed is its ground and trips nothing, and a gauge
that stays high trips once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, Protocol

WINDOW_S: Final = 60.0
MAX_LOOKS: Final = 128
"""Kept of a minute; where more are taken the window is shorter."""
MAX_NAMES: Final = 5


class Evidence(Protocol):
    """The causes. `numbers`: of each that is counted. `thresholds`: None = it never trips. `names`: of what a cause
    is about (registrations, assertions), a few."""

    def numbers(self) -> Mapping[str, int]: ...

    def thresholds(self) -> Mapping[str, int | None]: ...

    def names(self, cause: str) -> tuple[str, ...]: ...


class TripWatch:
    """`look` once a second while something is enforced, `reset` while nothing is."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[str, int]]] = deque(maxlen=MAX_LOOKS)

    def reset(self) -> None:
        """What is there at the next look is the ground."""
        self._looks.clear()

    def look(
        self, elapsed_s: float, numbers: Mapping[str, int], thresholds: Mapping[str, int | None]
    ) -> str | None:
        """The first cause whose rise is past its threshold; None: none is. A cause that `numbers` lacks is not
        looked at."""
        while self._looks and self._looks[0][0] <= elapsed_s - WINDOW_S:
            self._looks.popleft()
        self._looks.append((elapsed_s, dict(numbers)))
        for cause, threshold in thresholds.items():
            if threshold is not None and cause in numbers and self.rise(cause) > threshold:
                return cause
        return None

    def rise(self, cause: str) -> int:
        """Of the last look, above the lowest of the window."""
        seen = [numbers[cause] for _, numbers in self._looks if cause in numbers]
        return seen[-1] - min(seen) if seen else 0
