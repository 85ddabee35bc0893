"""Puts what registrations have used on disk, once a minute, and what happened to the registry.

Nothing waits for it. A file that cannot be written costs nothing while memory has room: what would be in it waits,
and is written with the next minute. A kill or a power failure costs what came since the last write.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from gatewayd.activity import store
from gatewayd.activity.days import DayRow, Note, Used, Waiting, day_of, is_kept, moment_of, seconds_to_midnight
from gatewayd.api.standing import step_view
from gatewayd.log import get_logger
from gatewayd.log.ring import FollowedEvent, Position
from gatewayd.log.tap import EventTap
from gatewayd.registry.history import History
from gatewayd.state_file.file import CLOSE_S, StateFile, StateFileUnusable
from gatewayd.state_file.view import StateFileView
from gatewayd.watch.attribute import Attribution

EVERY_S: Final = 60.0
SLICE: Final = 2000
"""Registrations looked at between two turns of the loop: 1 ms."""
MAX_WAITING_NOTES: Final = 20_000
MAX_IDS: Final = 100
"""Of each list of a step that is kept; the others are counted."""
_EVENTS_AT_ONCE: Final = 500
_T = TypeVar("_T")

log = get_logger(__name__)


class ActivityKeeper:
    """`clock`: the likely time. `history`: of the registry in force."""

    def __init__(
        self,
        directory: Path,
        attribution: Attribution,
        history: History,
        tap: EventTap,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.view = StateFileView("activity")
        self._file = StateFile(directory / store.FILE_NAME, store.SCHEMA, self.view)
        self._attribution = attribution
        self._history = history
        self._tap = tap
        self._clock = clock
        self._began_s = clock()
        self._gathered_s = self._began_s
        self._day = day_of(self._began_s)
        self._waiting = Waiting()
        self._notes: list[Note] = []
        self._notes_lost = 0
        self._position: Position | None = None
        self._steps_seen = 0
        self._run: int | None = None
        self._pruned_on: int | None = None
        self._writing = asyncio.Lock()
        self._flushing: asyncio.Task[bool] | None = None

    async def run(self) -> None:
        """Until cancelled. A minute ends with the day, so that what was used before midnight counts before it.

        The file is opened, and looked through for damage, when the start is over.
        """
        while True:
            await asyncio.sleep(min(EVERY_S, seconds_to_midnight(self._clock())))
            await self.flush()

    async def close(self) -> None:
        """What there is, once more, and the end. A disk that hangs holds nothing up for long."""
        last = asyncio.create_task(self.flush(), name="activity end")
        await asyncio.wait({last}, timeout=CLOSE_S)
        await self._file.close()

    async def flush(self) -> bool:
        """Take what is new and write it; whether it is on disk. It goes on where the caller is cancelled."""
        self._flushing = asyncio.create_task(self._flush(), name="activity flush")
        return await asyncio.shield(self._flushing)

    async def _flush(self) -> bool:
        async with self._writing:
            await self._gather()
            rows, notes, now = self._waiting.take(), self._notes, self._clock()
            self._notes = []
            try:
                await self._file.use(partial(self._write, rows, notes, now))
            except StateFileUnusable:
                if self.view.state == "newer":  # it will never take them
                    self._notes_lost += len(rows) + len(notes)
                    return False
                self._waiting.put_back(rows)
                self._keep_notes(notes + self._notes)
                return False
            finally:
                self._file.note_lost(self._waiting.lost + self._notes_lost)
            return True

    async def read(self, work: Callable[..., _T], *arguments: object, flushes: bool = True) -> _T:
        """Ask the file, after what happened until now was written, if that can be. Raises StateFileUnusable."""
        if flushes:
            await self.flush()
        return await self._file.use(lambda connection: work(connection, *arguments), reads=True)

    async def _gather(self) -> None:
        before_s, now = self._gathered_s, self._clock()
        for found in self._attribution.take_traffic(SLICE):
            # A scan goes by the time for windows, which may be far behind while the clock is in doubt.
            used = (
                Used(each.registration_id, each.flows, each.size_bytes, min(max(each.last_seen_s, before_s), now))
                for each in found
            )
            self._waiting.add(self._day, used)
            await asyncio.sleep(0)
        self._gathered_s, self._day = now, day_of(now)
        notes: list[Note] = []
        steps, self._steps_seen = self._history.after(self._steps_seen), self._history.total
        for step in steps:
            body = msgspec.json.encode(step_view(step.cut(MAX_IDS)))
            notes.append(Note(step.at_s, "registry.step", body))
        while (batch := self._tap.after(self._position, _EVENTS_AT_ONCE)).entries:
            self._notes_lost += batch.missed or 0
            self._position = batch.entries[-1].position
            for entry in batch.entries:
                event = msgspec.json.decode(entry.body, type=FollowedEvent)
                if is_kept(event.event):
                    notes.append(Note(moment_of(event.at), event.event, entry.body))
        self._keep_notes(self._notes + notes)

    def _keep_notes(self, notes: list[Note]) -> None:
        """The newest stay."""
        self._notes_lost += max(0, len(notes) - MAX_WAITING_NOTES)
        self._notes = notes[-MAX_WAITING_NOTES:]

    def _write(
        self, rows: Sequence[DayRow], notes: Sequence[Note], now: float, connection: sqlite3.Connection
    ) -> None:
        """In the file's thread. A file that was begun again does not know the run."""
        if self._run is None or not store.extend_run(connection, self._run, now):
            self._run = store.begin_run(connection, self._began_s, now)
        store.write(connection, rows, notes)
        if self._pruned_on != self._day:
            self._pruned_on = self._day
            days = store.prune(connection)
            if days:
                log.info("activity.days_dropped", days=days)
