"""The lines of the list in `state_dir/near_misses.sqlite`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from gatewayd.errors import PrefixInvalid
from gatewayd.model import Service, parse_prefix
from gatewayd.model.decoding import UNDECODABLE
from gatewayd.near_miss.findings import MAX_LINES, Key, Line
from gatewayd.near_miss.reasons import Reason
from gatewayd.state_file.file import Schema, StateFile
from gatewayd.state_file.view import StateFileView

FILE: Final = "near_misses.sqlite"
_SCHEMA: Final = Schema(
    1,
    (
        "CREATE TABLE line (id TEXT, reason TEXT, last_s REAL, content TEXT, PRIMARY KEY (id, reason))"
        " WITHOUT ROWID",
    ),
)
_PUT: Final = "INSERT OR REPLACE INTO line VALUES (?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM line WHERE id = ? AND reason = ?"
_READ: Final = "SELECT content FROM line ORDER BY last_s DESC LIMIT ?"


class _Content(msgspec.Struct, frozen=True):
    """JSON of a row. `acknowledged_until_s`: None = for good."""

    id: str
    category: str
    reason: Reason
    first_seen_s: float
    last_seen_s: float
    flows: int
    service: tuple[int, int, int]
    far: str
    acknowledged_until_s: float | None


_DECODE: Final = msgspec.json.Decoder(_Content).decode


class LineStore:
    """Each call may raise StateFileUnusable. `view`: what the status says of the file."""

    def __init__(self, state_dir: Path, view: StateFileView) -> None:
        self._file = StateFile(state_dir / FILE, _SCHEMA, view)

    async def load(self) -> list[Line]:
        """What there is; rows that are not ours are left out."""
        rows = await self._file.use(lambda connection: connection.execute(_READ, (MAX_LINES,)).fetchall())
        return [line for (content,) in rows if (line := decode_line(content)) is not None]

    async def save(self, changes: Mapping[Key, Line | None]) -> None:
        """None: the line is gone."""
        gone = [key for key, line in changes.items() if line is None]
        there = [(*key, line.last_seen_s, encode_line(line)) for key, line in changes.items() if line is not None]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_DELETE, gone)
            connection.executemany(_PUT, there)

        await self._file.use(write)

    async def close(self) -> None:
        """After the last call."""
        await self._file.close()


def encode_line(line: Line) -> str:
    service = line.service
    until_s = line.acknowledged_until_s
    content = _Content(
        line.registration_id,
        line.category,
        line.reason,
        line.first_seen_s,
        line.last_seen_s,
        line.flows,
        (service.protocol, service.low, service.high),
        str(line.far),
        None if until_s == float("inf") else until_s,
    )
    return msgspec.json.encode(content).decode()


def decode_line(content: object) -> Line | None:
    """None where it is not a line as we write them."""
    try:
        found = _DECODE(str(content))
        far = parse_prefix(found.far)
    except (PrefixInvalid, *UNDECODABLE):
        return None
    until_s = found.acknowledged_until_s
    return Line(
        found.id,
        found.category,
        found.reason,
        found.first_seen_s,
        found.last_seen_s,
        found.flows,
        Service(*found.service),
        far,
        float("inf") if until_s is None else until_s,
    )
