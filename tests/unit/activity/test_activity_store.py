"""The tables of activity.sqlite: sums by day, bounds, and what is read of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from gatewayd.activity import store
from gatewayd.activity.days import DayRow, Note
from gatewayd.activity.rows import Activity, DayTotal, Run, Span
from gatewayd.activity.store import SCHEMA


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in SCHEMA.statements:
        connection.execute(statement)
    yield connection
    connection.close()


def test_rows_of_a_day_add_up_and_the_latest_is_last_seen(connection: sqlite3.Connection) -> None:
    store.write(connection, [DayRow(10, "a", 1, 100, 50), DayRow(10, "b", 1, 1, 51)], [])
    store.write(connection, [DayRow(10, "a", 2, 10, 60), DayRow(11, "a", 0, 7, 70)], [])
    assert store.read_span(connection, Span(10, 10)) == {"a": Activity(3, 110, 1, 60), "b": Activity(1, 1, 1, 51)}
    assert store.read_span(connection, Span(10, 11))["a"] == Activity(3, 117, 2, 70)
    assert store.read_span(connection, Span(12, 99)) == {}
    assert store.read_seen(connection) == {"a": 11, "b": 10}
    assert store.list_days(connection) == [11, 10]
    assert store.read_days(connection, Span(0, 99)) == [DayTotal(10, 2, 4, 111), DayTotal(11, 1, 0, 7)]
    assert store.read_first_day(connection) == 10


def test_a_clock_that_was_ahead_leaves_nothing_that_stays_ahead(connection: sqlite3.Connection) -> None:
    store.write(connection, [DayRow(900, "a", 1, 1, 900)], [])
    store.write(connection, [DayRow(10, "a", 1, 1, 10)], [])
    assert store.read_seen(connection) == {"a": 10}
    assert store.read_span(connection, Span(0, 10)) == {"a": Activity(1, 1, 1, 10)}


def test_some_registrations_are_asked_for_by_id(connection: sqlite3.Connection) -> None:
    ids = [f"r{number}" for number in range(1200)]
    store.write(connection, [DayRow(day, id, 1, 10, day) for day in (10, 11, 12) for id in ids], [])
    wanted = [*ids[::2], "unknown"]
    found = store.read_activity(connection, Span(11, 20), wanted)
    assert found == {id: Activity(2, 20, 2, 12) for id in ids[::2]}
    assert store.read_activity(connection, Span(11, 20), []) == {}
    assert store.read_activity(connection, Span(50, 60), wanted) == {}


def test_the_newest_days_stay_whatever_they_are_called(connection: sqlite3.Connection) -> None:
    """A clock that is ahead by years does not take the true days away."""
    store.write(connection, [DayRow(day, f"r{day}", 1, 1, day) for day in (*range(10, 20), 5000)], [])
    assert store.prune(connection, max_days=8) == 3
    assert store.list_days(connection) == [5000, *range(19, 12, -1)]
    assert set(store.read_seen(connection)) == {f"r{day}" for day in (*range(13, 20), 5000)}
    assert store.prune(connection, max_days=8) == 0


def test_days_go_past_the_bound_of_the_size_and_the_newest_stays(connection: sqlite3.Connection) -> None:
    rows = [DayRow(day, f"registration-{number}", 1, 1, day) for day in (10, 11, 12) for number in range(2000)]
    store.write(connection, rows, [])
    ((pages,),) = connection.execute("PRAGMA page_count")
    assert store.prune(connection, max_bytes=(pages - 5) * 4096) == 1
    assert store.list_days(connection) == [12, 11]
    assert store.prune(connection, max_bytes=1) == 1
    assert store.list_days(connection) == [12]
    assert store.prune(connection, max_bytes=1) == 0


def test_notes_are_read_by_time_and_the_newest_stay(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = [Note(float(at_s), "guard.held", b"{}") for at_s in range(10)]
    store.write(connection, [], notes)
    assert store.read_notes(connection, 3, 5) == notes[3:6]
    monkeypatch.setattr(store, "MAX_NOTES", 4)
    store.prune(connection)
    assert store.read_notes(connection, 0, 99) == notes[6:]


def test_a_run_is_from_its_start_to_its_last_write(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_RUNS", 2)
    first = store.begin_run(connection, 100.7, 101)
    assert store.extend_run(connection, first, 160.2)
    second = store.begin_run(connection, 200, 200)
    assert store.read_runs(connection) == [Run(100, 160), Run(200, 200)]
    assert not store.extend_run(connection, second + 1, 300)
    store.begin_run(connection, 300, 300)
    assert store.read_runs(connection) == [Run(200, 200), Run(300, 300)]


def test_when_registrations_were_last_seen(connection: sqlite3.Connection) -> None:
    ids = [f"r{number}" for number in range(1200)]
    store.write(connection, [DayRow(10, id, 1, 10, 100) for id in ids], [])
    store.write(connection, [DayRow(11, "r7", 1, 10, 200), DayRow(900, "r8", 1, 10, 90_000)], [])
    assert store.read_last_seen(connection, [*ids[::2], "r7", "unknown"], 1000) == {
        **dict.fromkeys(ids[::2], 100), "r7": 200, "r8": 1000,
    }  # fmt: skip
    assert store.read_last_seen(connection, None, 1000).keys() == set(ids)
    assert store.read_last_seen(connection, [], 1000) == {}
