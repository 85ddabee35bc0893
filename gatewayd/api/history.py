"""The last day, minute by minute, for plots: a bounded ring in memory. Nothing of it is on disk. Pure."""

from __future__ import annotations

from array import array
from dataclasses import astuple, dataclass, fields
from typing import Final

import msgspec

STEP_S: Final = 60
MAX_MINUTES: Final = 24 * 60
_NOT_KNOWN: Final = -1


class HistoryView(msgspec.Struct, frozen=True):
    """`at`: the end of each minute, Unix seconds, rising; a minute without a sample is not there. The others have a
    number for each: what was counted in that minute. None: it is not known.

    `registered`, `unregistered`: flows that the rules judged. `repairs`:
    changes by other programs that were undone. `accounting`: RADIUS requests."""

    step_s: int = STEP_S
    at: tuple[int, ...] = ()
    registered: tuple[int | None, ...] = ()
    unregistered: tuple[int | None, ...] = ()
    repairs: tuple[int | None, ...] = ()
    late_admissions: tuple[int | None, ...] = ()
    accounting: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters as they stand. None: cannot be read now."""

    registered: int | None
    unregistered: int | None
    repairs: int | None
    late_admissions: int | None
    accounting: int | None


class History:
    """The latest `most` minutes, eight bytes a number."""

    def __init__(self, most: int = MAX_MINUTES) -> None:
        self._most = most
        self._at = array("q")
        self._columns = tuple(array("q") for _ in fields(Reading))
        self._before: tuple[int | None, ...] = (None,) * len(self._columns)

    def note(self, at_s: int, reading: Reading) -> None:
        """The counters at `at_s`, Unix seconds; the first reading is what the next one is compared with.

        A clock that was set back forgets what lies ahead of it. A second reading of the same minute counts with the
        next: a sleep may end a little before the minute does, and is short then."""
        if self._at and self._at[-1] == at_s:
            return
        now = astuple(reading)
        before, self._before = self._before, now
        if all(each is None for each in before):
            return
        while self._at and self._at[-1] >= at_s:
            self._drop(-1)
        self._at.append(at_s)
        for column, earlier, later in zip(self._columns, before, now, strict=True):
            column.append(_NOT_KNOWN if earlier is None or later is None else _difference(earlier, later))
        if len(self._at) > self._most:
            self._drop(0)

    def view(self) -> HistoryView:
        columns = (tuple(None if each == _NOT_KNOWN else each for each in column) for column in self._columns)
        return HistoryView(STEP_S, tuple(self._at), *columns)

    def _drop(self, place: int) -> None:
        for column in (self._at, *self._columns):
            column.pop(place)


def _difference(earlier: int, later: int) -> int:
    """A counter that went down began again at 0, as those of the kernel do with a new table."""
    return later - earlier if later >= earlier else later
