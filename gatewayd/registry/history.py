"""What changed of the registry in force, and by whom: the latest steps, within a bound.

A step is what one event changed: a reading of a source, other local files, an operator's word, a closed window.
A removal that the guard holds is no step before it is accepted. The history begins with the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from typing import Final

from gatewayd.model.registration import Changes

MAX_IDS_A_STEP: Final = 1000
"""Of each list; what is beyond it is counted."""
MAX_IDS: Final = 20_000
"""Of all steps together, a step counted as one at least: some 2 MB. Beyond it the oldest steps are dropped."""


@dataclass(frozen=True, slots=True)
class Step:
    """`at_s`: Unix seconds. `cause`: the name of a source, or a word with a `/`. `serial`: of its reading, or the
    one that was accepted. `by`: who accepted, else "". `omitted`: ids that are counted and not listed."""

    at_s: float
    cause: str
    serial: int
    by: str
    came: tuple[str, ...]
    went: tuple[str, ...]
    changed: tuple[str, ...]
    omitted: int = 0

    def __len__(self) -> int:
        return max(1, len(self.came) + len(self.went) + len(self.changed))

    def cut(self, max_ids: int) -> Step:
        """With so many ids of each list at most; the others are counted."""
        lists = [each[:max_ids] for each in (self.came, self.went, self.changed)]
        omitted = self.omitted + len(self.came) + len(self.went) + len(self.changed) - sum(map(len, lists))
        return replace(self, came=lists[0], went=lists[1], changed=lists[2], omitted=omitted)


class History:
    """The latest steps, the oldest first. `dropped`: how many older ones are forgotten."""

    def __init__(self, max_ids: int = MAX_IDS) -> None:
        self.dropped = 0
        self._max_ids = max_ids
        self._size = 0
        self._steps: deque[Step] = deque()

    @property
    def total(self) -> int:
        """Steps of this run, those that are forgotten included."""
        return self.dropped + len(self._steps)

    def after(self, total: int) -> tuple[Step, ...]:
        """The steps since there were so many, the oldest first; those that are forgotten are not among them."""
        return tuple(islice(self._steps, max(0, total - self.dropped), None))

    def note(
        self, changes: Changes, was_there: Callable[[str], bool], cause: str, serial: int, now: float, by: str = ""
    ) -> None:
        """Changes of what is in force; `was_there`: whether an id was in force. Ids with a `#` are the
        guard's own, and no news. Costs the ids that are listed."""
        upserts = _listed(each.id for each in changes.upserts)
        went = _listed(id for id in changes.withdrawals if was_there(id))
        came = tuple(id for id in upserts if not was_there(id))
        changed = tuple(id for id in upserts if was_there(id))
        if upserts or went:
            omitted = max(0, len(changes.upserts) - MAX_IDS_A_STEP) + max(
                0, len(changes.withdrawals) - MAX_IDS_A_STEP
            )
            step = Step(now, cause, serial, by, came, went, changed, omitted)
            self._steps.append(step)
            self._size += len(step)
        while self._size > self._max_ids and len(self._steps) > 1:
            self._size -= len(self._steps.popleft())
            self.dropped += 1

    def since(self, at_s: float = -inf) -> tuple[Step, ...]:
        """Steps at that time or later, the oldest first."""
        return tuple(step for step in self._steps if step.at_s >= at_s)


def _listed(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(islice((id for id in ids if "#" not in id), MAX_IDS_A_STEP))
