"""The rows, in the order of the table."""

from __future__ import annotations

from tests.bench.row import Row
from tests.bench.rows.feed import DELTA, SNAPSHOT
from tests.bench.rows.hosts import HOSTS

ROWS: tuple[Row, ...] = (HOSTS, SNAPSHOT, DELTA)


def find_row(name: str) -> Row:
    """Raises KeyError with the names there are."""
    for row in ROWS:
        if row.name == name:
            return row
    raise KeyError(f"no row {name!r}; there are {', '.join(row.name for row in ROWS)}")
