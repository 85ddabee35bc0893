"""Days, the rows that wait for the file, and which events are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

MAX_DAYS: Final = 400
"""That have anything."""
MAX_WAITING: Final = 500_000
"""Rows that wait in memory while the file cannot be written: some 100 MB. What comes then is lost, and counted."""
DAY_S: Final = 86_400
_EPOCH: Final = date(1970, 1, 1)

_KEPT: Final = frozenset({"daemon.started", "reload.done", "connections.drained", "reconcile.disarmed"})
_KEPT_FAMILIES: Final = ("guard.", "policy.", "mode.", "trial.", "trip.", "assertion.", "provider.", "registrant.")


def day_of(at_s: float) -> int:
    """The number of a day of UTC since 1970."""
    return int(at_s // DAY_S)


def day_text(day: int) -> str:
    """`2026-11-30`."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def seconds_to_midnight(at_s: float) -> float:
    return DAY_S - at_s % DAY_S


def is_kept(event: str) -> bool:
    """Whether an event of the log is for the report of months: what changed the effect on traffic, and by whom."""
    return event in _KEPT or event.startswith(_KEPT_FAMILIES)


def moment_of(stamp: str) -> float:
    """Of an event's `at`, Unix seconds."""
    return datetime.fromisoformat(stamp).astimezone(UTC).timestamp()


class DayRow(NamedTuple):
    """What a registration used on a day, since the row before of that day."""

    day: int
    id: str
    flows: int
    size_bytes: int
    last_seen_s: int


class Used(NamedTuple):
    """What comes from attribution."""

    id: str
    flows: int
    size_bytes: int
    last_seen_s: float


class Note(NamedTuple):
    """Something that happened. `kind`: the name of an event, or `registry.step`. `body`: JSON."""

    at_s: float
    kind: str
    body: bytes


class Waiting:
    """Rows that are not in the file yet, one for each day and registration. `lost`: what had no room."""

    def __init__(self, max_rows: int = MAX_WAITING) -> None:
        self.lost = 0
        self._max_rows = max_rows
        self._rows: dict[tuple[int, str], DayRow] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, day: int, used: Iterable[Used]) -> None:
        for id, flows, size_bytes, last_seen_s in used:
            self._put(DayRow(day, id, flows, size_bytes, int(last_seen_s)))

    def take(self) -> Sequence[DayRow]:
        """All of them; the caller has them from now on."""
        rows, self._rows = self._rows, {}
        return list(rows.values())

    def put_back(self, rows: Iterable[DayRow]) -> None:
        """They could not be written. What came meanwhile is newer."""
        newer = self.take()
        for each in (*rows, *newer):
            self._put(each)

    def _put(self, row: DayRow) -> None:
        key = row.day, row.id
        known = self._rows.get(key)
        if known is not None:
            flows, size_bytes = known.flows + row.flows, known.size_bytes + row.size_bytes
            self._rows[key] = DayRow(row.day, row.id, flows, size_bytes, row.last_seen_s)
        elif len(self._rows) < self._max_rows:
            self._rows[key] = row
        else:
            self.lost += 1
