"""How long draining flows have left, on disk: a restart goes on with it, after a kill too.

A time is of the monotonic clock, and counts within its boot. So a clock that is set makes no drain shorter or
longer, and after a reboot there are no connections that it could be of. Nothing waits for the disk. Without the
file a drain begins again with the restart, which cuts no flow early. A flow is there as a digest: no address is on
disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from gatewayd.reconcile.connections import MAX_DRAINING, ConnectionScanner
from gatewayd.state_file.file import Schema, StateFile, StateFileUnusable
from gatewayd.state_file.view import StateFileView

PAUSE_S: Final = 0.2
"""Between two writes."""
RETRY_S: Final = 10.0
FILE: Final = "drains.sqlite"
SCHEMA: Final = Schema(1, ("CREATE TABLE drain (flow BLOB PRIMARY KEY, boot TEXT, due_s REAL) WITHOUT ROWID",))
_DIGEST_BYTES: Final = 16
_PUT: Final = "INSERT OR REPLACE INTO drain VALUES (?, ?, ?)"
_DELETE: Final = "DELETE FROM drain WHERE flow = ?"

Due = Mapping[bytes, float]
"""When each flow's drain is over: by its tuple in memory, by a digest of that on disk."""


class DrainKeeper:
    """`boot_id`: of the host's present boot; where it is not known, nothing is kept."""

    def __init__(self, directory: Path, scanner: ConnectionScanner, *, boot_id: str) -> None:
        self.view = StateFileView("drains")
        self._file = StateFile(directory / FILE, SCHEMA, self.view)
        self._scanner = scanner
        self._boot_id = boot_id
        self._saved: dict[bytes, float] = {}

    async def open(self) -> None:
        """Before the scanner runs. Raises nothing."""
        with suppress(StateFileUnusable):
            self._saved = await self._file.use(partial(_read, self._boot_id))
            earlier, boot_id = self._saved, self._boot_id
            if earlier:
                self._scanner.restore_drains(lambda flow: earlier.get(_digest_of(boot_id, flow)))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._scanner.drains_changed.wait()
            self._scanner.drains_changed.clear()
            if not await self.save():
                self._scanner.drains_changed.set()
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(PAUSE_S)

    async def save(self) -> bool:
        """Whether the disk has what is due now."""
        due = dict(self._scanner.drains) if self._boot_id else {}
        try:
            self._saved = await self._file.use(partial(_write, self._boot_id, self._saved, due))
        except StateFileUnusable:
            return False
        return True

    async def close(self) -> None:
        """After the scanner's end."""
        await self.save()
        await self._file.close()


def _digest_of(boot_id: str, flow: bytes) -> bytes:
    return hashlib.blake2b(flow, digest_size=_DIGEST_BYTES, key=boot_id.encode()).digest()


def _read(boot_id: str, connection: sqlite3.Connection) -> dict[bytes, float]:
    """What is of another boot goes."""
    connection.execute("DELETE FROM drain WHERE boot != ?", (boot_id,))
    rows = connection.execute("SELECT flow, due_s FROM drain LIMIT ?", (MAX_DRAINING,))
    return {flow: due_s for flow, due_s in rows if isinstance(flow, bytes) and isinstance(due_s, float)}


def _write(boot_id: str, before: Due, due: Due, connection: sqlite3.Connection) -> dict[bytes, float]:
    """What the file has then."""
    now = {_digest_of(boot_id, flow): due_s for flow, due_s in due.items()}
    connection.executemany(_DELETE, [(flow,) for flow in before if flow not in now])
    changed = [(flow, boot_id, due_s) for flow, due_s in now.items() if before.get(flow) != due_s]
    connection.executemany(_PUT, changed)
    return now
