"""The tables of `activity.sqlite`, and what is asked of them. Each function runs in the file's thread.

`activity` is ordered by day, so that what is written in a minute lies together, and a day goes in one piece. `seen`
of a registration says whether it was ever used, without a look at 400 days.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from gatewayd.activity.days import MAX_DAYS, DayRow, Note
from gatewayd.activity.rows import Activity, DayTotal, Run, Span
from gatewayd.state_file.file import Schema

FILE_NAME: Final = "activity.sqlite"
MAX_BYTES: Final = 1 << 30
"""Past it the oldest days go."""
MAX_NOTES: Final = 100_000
MAX_RUNS: Final = 10_000
_IDS_AT_ONCE: Final = 500

SCHEMA: Final = Schema(
    1,
    (
        "CREATE TABLE registration (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
        " first_day INTEGER NOT NULL, last_day INTEGER NOT NULL)",
        "CREATE TABLE activity (day INTEGER NOT NULL, registration INTEGER NOT NULL, flows INTEGER NOT NULL,"
        " bytes INTEGER NOT NULL, last_seen_s INTEGER NOT NULL, PRIMARY KEY (day, registration)) WITHOUT ROWID",
        "CREATE TABLE run (number INTEGER PRIMARY KEY AUTOINCREMENT, began_s INTEGER NOT NULL,"
        " until_s INTEGER NOT NULL)",
        "CREATE TABLE note (number INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, kind TEXT NOT NULL,"
        " body BLOB NOT NULL)",
        "CREATE INDEX note_at ON note (at_s)",
    ),
)

_SEEN: Final = (
    "INSERT INTO registration (id, first_day, last_day) VALUES (?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET last_day = excluded.last_day WHERE last_day <> excluded.last_day"
)
_USED: Final = (
    "INSERT INTO activity SELECT ?, number, ?, ?, ? FROM registration WHERE id = ?"
    " ON CONFLICT (day, registration) DO UPDATE SET flows = flows + excluded.flows,"
    " bytes = bytes + excluded.bytes, last_seen_s = excluded.last_seen_s"
)


def begin_run(connection: sqlite3.Connection, began_s: float, until_s: float) -> int:
    """The number of a new run."""
    connection.execute("INSERT INTO run (began_s, until_s) VALUES (?, ?)", (int(began_s), int(until_s)))
    ((number,),) = connection.execute("SELECT max(number) FROM run")
    connection.execute("DELETE FROM run WHERE number <= ?", (number - MAX_RUNS,))
    return int(number)


def extend_run(connection: sqlite3.Connection, run: int, until_s: float) -> bool:
    """Whether the file knows the run."""
    return connection.execute("UPDATE run SET until_s = ? WHERE number = ?", (int(until_s), run)).rowcount > 0


def write(connection: sqlite3.Connection, rows: Sequence[DayRow], notes: Sequence[Note]) -> None:
    connection.executemany(_SEEN, ((each.id, each.day, each.day) for each in rows))
    connection.executemany(
        _USED, ((each.day, each.flows, each.size_bytes, each.last_seen_s, each.id) for each in rows)
    )
    connection.executemany("INSERT INTO note (at_s, kind, body) VALUES (?, ?, ?)", notes)


def prune(connection: sqlite3.Connection, max_bytes: int = MAX_BYTES, max_days: int = MAX_DAYS) -> int:
    """Take away what is beyond the bounds; how many days went. The newest day stays."""
    days = list_days(connection)
    oldest, gone = days[:max_days], 0
    for day in days[max_days:]:
        gone += 1
        _delete_day(connection, day)
    while len(oldest) > 1 and _used_bytes(connection) > max_bytes:
        gone += 1
        _delete_day(connection, oldest.pop())
    if gone and oldest:
        connection.execute("DELETE FROM registration WHERE last_day < ?", (oldest[-1],))
    ((newest,),) = connection.execute("SELECT coalesce(max(number), 0) FROM note")
    connection.execute("DELETE FROM note WHERE number <= ?", (newest - MAX_NOTES,))
    return gone


def list_days(connection: sqlite3.Connection) -> list[int]:
    """Days that have anything, the newest first: one look-up for each."""
    found: list[int] = []
    day = _one(connection, "SELECT max(day) FROM activity")
    while day is not None:
        found.append(day)
        day = _one(connection, "SELECT max(day) FROM activity WHERE day < ?", day)
    return found


def read_span(connection: sqlite3.Connection, span: Span) -> dict[str, Activity]:
    """Every registration that was used in the span, by id."""
    rows = connection.execute(
        "SELECT id, sum(flows), sum(bytes), count(*), max(last_seen_s) FROM activity"
        " JOIN registration ON number = registration WHERE day BETWEEN ? AND ? GROUP BY registration",
        span,
    )
    return {id: Activity(*values) for id, *values in rows}


def read_activity(connection: sqlite3.Connection, span: Span, ids: Iterable[str]) -> dict[str, Activity]:
    """As `read_span`, of these alone: some look-ups for each day that has anything."""
    days = [day for day in list_days(connection) if span.first <= day <= span.last]
    found: dict[str, Activity] = {}
    each = iter(ids)
    while piece := tuple(islice(each, _IDS_AT_ONCE)):
        rows = connection.execute(
            "SELECT id, sum(flows), sum(bytes), count(*), max(last_seen_s) FROM registration"
            f" JOIN activity ON registration = number WHERE id IN ({_marks(piece)}) AND day IN ({_marks(days)})"
            " GROUP BY number",
            (*piece, *days),
        )
        found |= {id: Activity(*values) for id, *values in rows}
    return found


def read_last_seen(connection: sqlite3.Connection, ids: Sequence[str] | None, now_s: float) -> dict[str, int]:
    """When each of these (None: all) was last seen, Unix seconds; not later than now, as a clock may have been
    ahead."""
    found: dict[str, int] = {}
    pieces = [None] if ids is None else [ids[at : at + _IDS_AT_ONCE] for at in range(0, len(ids), _IDS_AT_ONCE)]
    for piece in pieces:
        where = "" if piece is None else f" WHERE id IN ({_marks(piece)})"
        rows = connection.execute(
            "SELECT id, last_seen_s FROM registration JOIN activity ON registration = number AND day = last_day"
            + where,
            piece or (),
        )
        found |= {id: min(last_seen_s, int(now_s)) for id, last_seen_s in rows}
    return found


def read_seen(connection: sqlite3.Connection) -> dict[str, int]:
    """The last day of every registration that was ever used, by id."""
    return dict(connection.execute("SELECT id, last_day FROM registration"))


def read_days(connection: sqlite3.Connection, span: Span) -> list[DayTotal]:
    """The days of the span that have anything, the oldest first."""
    rows = connection.execute(
        "SELECT day, count(*), sum(flows), sum(bytes) FROM activity WHERE day BETWEEN ? AND ? GROUP BY day", span
    )
    return [DayTotal(*row) for row in rows]


def read_first_day(connection: sqlite3.Connection) -> int | None:
    return _one(connection, "SELECT min(day) FROM activity")


def read_notes(connection: sqlite3.Connection, since_s: float, until_s: float) -> list[Note]:
    """The oldest first."""
    rows = connection.execute(
        "SELECT at_s, kind, body FROM note WHERE at_s BETWEEN ? AND ? ORDER BY number", (since_s, until_s)
    )
    return [Note(*row) for row in rows]


def read_runs(connection: sqlite3.Connection) -> list[Run]:
    """In the order of their starts."""
    return [Run(*row) for row in connection.execute("SELECT began_s, until_s FROM run ORDER BY number")]


def _delete_day(connection: sqlite3.Connection, day: int) -> None:
    connection.execute("DELETE FROM activity WHERE day = ?", (day,))


def _used_bytes(connection: sqlite3.Connection) -> int:
    """Of the pages in use; those of what was deleted are free, and are used again."""
    pages = _one(connection, "PRAGMA page_count") or 0
    free = _one(connection, "PRAGMA freelist_count") or 0
    return (pages - free) * (_one(connection, "PRAGMA page_size") or 0)


def _one(connection: sqlite3.Connection, query: str, *values: object) -> int | None:
    ((found,),) = connection.execute(query, values).fetchall()
    return None if found is None else int(found)


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
