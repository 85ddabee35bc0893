"""The rows, in the order of the table."""

from __future__ import annotations

from tests.bench.row import Row
from tests.bench.rows.accounting import ACCOUNTING
from tests.bench.rows.change import CHANGE
from tests.bench.rows.codec import DECODE
from tests.bench.rows.counting import COUNTING
from tests.bench.rows.feed import DELTA, SNAPSHOT
from tests.bench.rows.flows import FLOWS_ROW
from tests.bench.rows.forwarding import FORWARDING, MASKS_IN_USE, NEW
from tests.bench.rows.hosts import HOSTS
from tests.bench.rows.late import LATE
from tests.bench.rows.prefixes import PREFIXES
from tests.bench.rows.ready import READY
from tests.bench.rows.restarts import RESTARTS_ROW
from tests.bench.rows.sessions import BINDINGS, REBOOT, SESSIONS_ROW
from tests.bench.rows.starts import STARTS_ROW
from tests.bench.rows.whole_change import CHANGE_WHOLE

ROWS: tuple[Row, ...] = (
    *(READY, HOSTS, PREFIXES, CHANGE, SNAPSHOT, DELTA, CHANGE_WHOLE),
    *(ACCOUNTING, STARTS_ROW, SESSIONS_ROW, BINDINGS, REBOOT),
    *(DECODE, FLOWS_ROW, LATE, FORWARDING, NEW, MASKS_IN_USE, COUNTING, RESTARTS_ROW),
)


def find_row(name: str) -> Row:
    """Raises KeyError with the names there are."""
    for row in ROWS:
        if row.name == name:
            return row
    raise KeyError(f"no row {name!r}; there are {', '.join(row.name for row in ROWS)}")
