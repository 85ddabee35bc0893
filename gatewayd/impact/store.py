"""The counts in `state_dir/impact.sqlite`: a step of counting goes in whole, with the baseline that follows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from gatewayd.impact.buckets import (
    RESOLUTIONS,
    Resolution,
    bound_interfaces,
    bound_prefixes,
    bound_services,
    resolution_for,
)
from gatewayd.impact.counting import Baseline, Element, PrefixService, Seen, ServiceBucket, Step
from gatewayd.impact.report import Run, Sums, flows_of
from gatewayd.state_file.file import Schema, StateFile
from gatewayd.state_file.view import StateFileView

FILE: Final = "impact.sqlite"
MAX_RUNS: Final = 1000
"""Daemons whose begin and end are kept: the latest, and the first."""
_BYTES: Final = "bytes:"

SCHEMA: Final = Schema(
    1,
    (
        "CREATE TABLE counter (name TEXT PRIMARY KEY, packets INTEGER, bytes INTEGER) WITHOUT ROWID",
        "CREATE TABLE incarnation (one INTEGER PRIMARY KEY, name TEXT)",
        "CREATE TABLE element (number INTEGER, key BLOB, flows INTEGER, expires REAL,"
        " PRIMARY KEY (number, key)) WITHOUT ROWID",
        "CREATE TABLE total (step INTEGER, start INTEGER, name TEXT, count INTEGER,"
        " PRIMARY KEY (step, start, name)) WITHOUT ROWID",
        "CREATE TABLE prefix (step INTEGER, start INTEGER, prefix BLOB, protocol INTEGER, port INTEGER,"
        " count INTEGER, PRIMARY KEY (step, start, prefix, protocol, port)) WITHOUT ROWID",
        "CREATE TABLE service (step INTEGER, start INTEGER, protocol INTEGER, port INTEGER, bucket INTEGER,"
        " count INTEGER, PRIMARY KEY (step, start, protocol, port, bucket)) WITHOUT ROWID",
        "CREATE TABLE interface (step INTEGER, start INTEGER, name TEXT, count INTEGER,"
        " PRIMARY KEY (step, start, name)) WITHOUT ROWID",
        "CREATE TABLE run (began REAL PRIMARY KEY, ended REAL, found INTEGER, is_new_table INTEGER)",
    ),
)
_COUNTED: Final = ("total", "prefix", "service", "interface")


class ImpactStore:
    """Each call may raise StateFileUnusable: then nothing of it is in the file."""

    def __init__(self, state_dir: Path) -> None:
        self.view = StateFileView("impact")
        self._file = StateFile(state_dir / FILE, SCHEMA, self.view)

    async def load(self) -> Baseline:
        """What has been counted."""
        return await self._file.use(_load)

    async def write(self, step: Step, run: Run, at_s: float, whole: Callable[[], Baseline]) -> None:
        """`run`: this daemon's, until now. `at_s`: when what came is said to have come. `whole`: the baseline
        before the step, for a file that was begun again."""
        await self._file.use(lambda connection: _write(connection, step, run, at_s, whole))

    async def read(self, since_s: float, until_s: float) -> Sums:
        """`since_s` is taken as the begin of its hour, or of its day."""
        return await self._file.use(lambda connection: _read(connection, since_s, until_s))

    async def close(self) -> None:
        """After the last call."""
        await self._file.close()


def _load(connection: sqlite3.Connection) -> Baseline:
    names = connection.execute("SELECT name FROM incarnation").fetchall()
    counters = connection.execute("SELECT name, packets, bytes FROM counter").fetchall()
    elements: dict[Element, Seen] = {
        (number, key): Seen(flows, expires)
        for number, key, flows, expires in connection.execute("SELECT number, key, flows, expires FROM element")
    }
    return Baseline(
        names[0][0] if names else None,
        {name: packets for name, packets, _ in counters},
        {name: size_bytes for name, _, size_bytes in counters},
        elements,
    )


def _write(
    connection: sqlite3.Connection, step: Step, run: Run, at_s: float, whole: Callable[[], Baseline]
) -> None:
    if step.is_new_table:
        connection.execute("DELETE FROM element")
    elif not connection.execute("SELECT 1 FROM incarnation").fetchone():
        _put_elements(connection, whole().elements.items())
    _put_elements(connection, step.changed.items())
    connection.executemany("DELETE FROM element WHERE number = ? AND key = ?", step.gone)
    connection.execute("INSERT OR REPLACE INTO incarnation VALUES (1, ?)", (step.incarnation,))
    packets, size_bytes = step.counters.packets, step.counters.size_bytes
    connection.executemany(
        "INSERT OR REPLACE INTO counter VALUES (?, ?, ?)",
        [(name, count, size_bytes[name]) for name, count in packets.items()],
    )
    connection.execute(
        "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?)", (run.began_s, run.ended_s, run.found, run.is_new_table)
    )
    connection.execute(
        "DELETE FROM run WHERE began NOT IN (SELECT began FROM run ORDER BY began DESC LIMIT ?)"
        " AND began > (SELECT min(began) FROM run)",
        (MAX_RUNS,),
    )
    for resolution in RESOLUTIONS:
        _add(connection, step, resolution, resolution.start_of(at_s))
        for table in _COUNTED:
            connection.execute(
                f"DELETE FROM {table} WHERE step = ? AND start < ?",
                (resolution.step_s, resolution.first_kept(at_s)),
            )


def _put_elements(connection: sqlite3.Connection, elements: Iterable[tuple[Element, Seen]]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO element VALUES (?, ?, ?, ?)", [(*element, *seen) for element, seen in elements]
    )


def _add(connection: sqlite3.Connection, step: Step, resolution: Resolution, start: int) -> None:
    at = (resolution.step_s, start)
    totals = [*step.packets.items(), *((_BYTES + name, count) for name, count in step.size_bytes.items())]
    connection.executemany(_upsert("total", 3), [(*at, name, count) for name, count in totals])
    prefixes = bound_prefixes(
        step.prefixes,
        [
            PrefixService(*row)
            for row in connection.execute(
                "SELECT prefix, protocol, port FROM prefix WHERE step = ? AND start = ?", at
            )
        ],
        resolution.max_prefixes,
    )
    connection.executemany(_upsert("prefix", 5), [(*at, *key, count) for key, count in prefixes.items()])
    services = bound_services(
        step.services,
        connection.execute(
            "SELECT DISTINCT protocol, port FROM service WHERE step = ? AND start = ?", at
        ).fetchall(),
        resolution.max_services,
    )
    connection.executemany(_upsert("service", 5), [(*at, *key, count) for key, count in services.items()])
    interfaces = bound_interfaces(
        step.interfaces,
        [name for (name,) in connection.execute("SELECT name FROM interface WHERE step = ? AND start = ?", at)],
        resolution.max_interfaces,
    )
    connection.executemany(_upsert("interface", 3), [(*at, *item) for item in interfaces.items()])


def _upsert(table: str, keys: int) -> str:
    places = ", ".join("?" * (keys + 1))
    return f"INSERT INTO {table} VALUES ({places}) ON CONFLICT DO UPDATE SET count = count + excluded.count"


def _read(connection: sqlite3.Connection, since_s: float, until_s: float) -> Sums:
    resolution = resolution_for(until_s - since_s)
    within = (resolution.step_s, resolution.start_of(since_s), until_s)
    where = "WHERE step = ? AND start >= ? AND start <= ?"
    totals: dict[str, int] = {}
    steps: dict[int, dict[str, int]] = {}
    for start, name, count in connection.execute(f"SELECT start, name, count FROM total {where}", within):
        totals[name] = totals.get(name, 0) + count
        steps.setdefault(start, {})[name] = count
    prefixes = connection.execute(
        f"SELECT prefix, protocol, port, sum(count) FROM prefix {where} GROUP BY 1, 2, 3", within
    )
    services = connection.execute(
        f"SELECT protocol, port, bucket, sum(count) FROM service {where} GROUP BY 1, 2, 3", within
    )
    interfaces = connection.execute(f"SELECT name, sum(count) FROM interface {where} GROUP BY 1", within)
    return Sums(
        packets={name: count for name, count in totals.items() if not name.startswith(_BYTES)},
        size_bytes={name.removeprefix(_BYTES): count for name, count in totals.items() if name.startswith(_BYTES)},
        prefixes={PrefixService(prefix, protocol, port): count for prefix, protocol, port, count in prefixes},
        services={ServiceBucket(protocol, port, bucket): count for protocol, port, bucket, count in services},
        interfaces=dict(interfaces.fetchall()),
        steps=[(start, flows_of(names)) for start, names in sorted(steps.items())],
        runs=[
            Run(began, ended, found, bool(is_new_table))
            for began, ended, found, is_new_table in connection.execute(
                "SELECT began, ended, found, is_new_table FROM run ORDER BY began"
            )
        ],
    )
