"""When windows of held registrations close, the earliest first.

A registration that is held no more leaves its entry behind: a heap cannot find it. A registry that withdraws and
restores the same registrations again and again leaves one each time. So entries are dropped once most are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
from math import inf
from typing import Final

from gatewayd.model import Registration
from gatewayd.model.registration import Slices

Versions = tuple[Registration, ...]

SLICE: Final = 1024
"""Entries looked at between two yields."""


class WindowEnds:
    """`add` and `drop` go together, as the versions of an id are held and held no more; a window without an end is
    none. Some entries may be of what is not held."""

    __slots__ = ("_heap", "_left")

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._left = 0

    def __len__(self) -> int:
        """Entries, at most SLICE more than twice those of what is held."""
        return len(self._heap)

    def add(self, id: str, versions: Versions) -> None:
        """These are held."""
        for each in versions:
            if each.valid_until_s < inf:
                heappush(self._heap, (each.valid_until_s, id))

    def drop(self, versions: Versions) -> None:
        """These are held no more."""
        self._left += sum(each.valid_until_s < inf for each in versions)

    def next_end(self) -> float:
        """inf: none."""
        return self._heap[0][0] if self._heap else inf

    def pop(self) -> str:
        """The id whose window closes first."""
        return heappop(self._heap)[1]

    def prune_in_slices(self, held: Mapping[str, Versions]) -> Slices[None]:
        """Once most entries are left ones, keep those of what is held."""
        if 2 * self._left <= len(self._heap) + SLICE:
            return
        kept: set[tuple[float, str]] = set()
        heap: list[tuple[float, str]] = []
        for done, entry in enumerate(self._heap, 1):
            end_s, id = entry
            if entry not in kept and any(each.valid_until_s == end_s for each in held.get(id, ())):
                kept.add(entry)
                heappush(heap, entry)
            if done % SLICE == 0:
                yield
        self._heap, self._left = heap, 0
