"""What the guard remembers of the last day: what went, and how few there were.

A share is taken of the fewest that were in force in the last WINDOW_S: what was added since does not make a
removal small. Both are kept by the hour and by category; WHOLE stands for all of them together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

WINDOW_S: Final = 86400.0
BUCKET_S: Final = 3600.0
WHOLE: Final = ""
"""No category has this name."""

ByHour = Mapping[int, Mapping[str, int]]


class DayMemory:
    """`removed`: removals let through, by hour (Unix seconds / BUCKET_S) and category. `fewest`: the smallest
    number in force of each category in an hour in which it changed. Costs what changes; 25 hours at most."""

    def __init__(self, removed: ByHour | None = None, fewest: ByHour | None = None) -> None:
        self.removed = {hour: Counter(counts) for hour, counts in (removed or {}).items()}
        self.fewest = {hour: dict(counts) for hour, counts in (fewest or {}).items()}
        self.changes = 0
        """Goes up with every change that a restart has to know of."""

    def expire(self, now: float) -> None:
        """Also what lies ahead, after the wall clock was set back: it would never run out."""
        first, hour = (now - WINDOW_S) // BUCKET_S, now // BUCKET_S
        self.removed = {at: counts for at, counts in self.removed.items() if first < at <= hour}
        self.fewest = {at: counts for at, counts in self.fewest.items() if first < at <= hour}

    def note_removed(self, counts: Mapping[str, int], now: float) -> None:
        """Removals were let through; by category alone."""
        if counts:
            self.changes += 1
            self.removed.setdefault(int(now // BUCKET_S), Counter()).update(counts)

    def note_size(self, name: str, before: int, after: int, now: float) -> None:
        """How many are in force of a category, before and after a change. Where there were none, nothing can have
        been taken away: these count at once."""
        fewest = self.fewest.setdefault(int(now // BUCKET_S), {})
        least = min(before or after, after, fewest.get(name, after))
        self.changes += fewest.get(name) != least
        fewest[name] = least

    def forget(self) -> None:
        """An operator has looked at it: the day begins now."""
        self.changes += 1
        self.removed, self.fewest = {}, {}

    def removed_by_category(self) -> Counter[str]:
        """In all of the window."""
        summed: Counter[str] = Counter()
        for counts in self.removed.values():
            summed.update(counts)
        return summed

    def fewest_of(self, name: str, size: int) -> int:
        """The fewest of a category in the window; `size`: how many there are now."""
        return min([size, *(counts.get(name, size) for counts in self.fewest.values())])
