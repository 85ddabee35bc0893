"""What is to survive a restart of the sessions, on disk before it is answered: rows in, group commits out.

One group is written at a time, in a thread of its own; what comes meanwhile is the next group, and is written as
soon as the thread is free. Rows of the same key in a group are one row, the last. `done` of a write is called on
the loop when its group is on disk.

While the disk does not take what is written (full, failing, locked, read-only, or no answer for `stall_s`) the
journal is *suspended*: `done` is called at once, which is to say accounted but not durable, because a full disk
must not cut anybody who is registered. The rows are kept, the last of each key, and written when the disk is back:
nothing is lost unless we die meanwhile.

A `done` may come early in a suspension alone, and a write is never refused then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gatewayd.log import RateLimited, get_logger
from gatewayd.subscribers.journal_file import JournalFile
from gatewayd.subscribers.journal_rows import ClockMark, JournalStats, Key, Row

STALL_S: Final = 3.0
"""A write that takes longer suspends; a NAS sends again after three to five seconds."""
RETRY_S: Final = (1.0, 30.0)
"""The first pause after a failure, doubled each time, and the longest."""
CLOSE_S: Final = 10.0
"""For the last group; a disk that hangs must not keep us from ending."""

_SAY_AGAIN_S: Final = 60.0

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JournalState:
    """`suspended_for`: why what is answered is not durable at present; None if it is.

    `was_recreated`: the file is a new one, because the former was damaged or taken away while we ran. It holds
    what was written since alone, so all rows are to be written again. Said once.
    """

    suspended_for: str | None
    was_recreated: bool = False


class Journal:
    """`path`: the file, in a directory that exists. `max_waiting`: calls of `done` that may wait; rows are
    bounded by the keys that there are. `on_state` is called on the loop whenever something of it changes. `moment`:
    the present, which is written with each group."""

    def __init__(
        self,
        path: Path,
        *,
        max_waiting: int = 10_000,
        on_state: Callable[[JournalState], None] | None = None,
        retry_s: tuple[float, float] = RETRY_S,
        stall_s: float = STALL_S,
        clock: Callable[[], float] = time.monotonic,
        moment: Callable[[], ClockMark] | None = None,
    ) -> None:
        self.stats = JournalStats()
        self._file = JournalFile(path, self.stats)
        self._most_waiting = max_waiting
        self._on_state = on_state
        self._retry_s = retry_s
        self._stall_s = stall_s
        self._clock = clock
        self._moment = moment
        self.last_moment: ClockMark | None = None
        """When the last group was written that was found at the start."""
        self._limited = RateLimited(logger, _SAY_AGAIN_S, clock)
        self._thread = ThreadPoolExecutor(1, "journal")
        self._rows: dict[Key, Row] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._in_flight: list[Callable[[], None]] = []
        self._suspended_for: str | None = None
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def suspended_for(self) -> str | None:
        """Why what is answered is not durable at present; None if it is."""
        return self._suspended_for

    @property
    def waiting(self) -> int:
        """Calls of `done` that are to come."""
        return len(self._callbacks) + len(self._in_flight)

    @property
    def waiting_rows(self) -> int:
        """Rows that are not on disk, but for those that are being written."""
        return len(self._rows)

    @property
    def has_room(self) -> bool:
        """Whether a write with a `done` would be taken now."""
        return self._suspended_for is not None or self.waiting < self._most_waiting

    def report(self) -> JournalStats:
        """The state as it is now, and the counts since the start."""
        return replace(
            self.stats,
            state="ok" if self._suspended_for is None else "suspended",
            suspended_for=self._suspended_for,
            waiting=self.waiting,
            waiting_rows=self.waiting_rows,
        )

    async def open(self) -> tuple[Row, ...]:
        """What was kept; from then on writes go to disk. Raises nothing: without a file it begins suspended."""
        loop = asyncio.get_running_loop()
        rows: tuple[Row, ...] = ()
        try:
            rows = await loop.run_in_executor(self._thread, self._file.open)
        except Exception as error:  # whatever it is, it costs bindings and never the start
            self._fail(error)
        self.last_moment = self._file.last_moment
        if self.stats.skipped:
            logger.warning("journal.rows_skipped", rows=self.stats.skipped)
        self._task = loop.create_task(self._run(), name="journal")
        return rows

    def write(self, rows: Iterable[Row], done: Callable[[], None] | None) -> bool:
        """Take rows, each newer than any before of its key. False: there is no room, nothing was taken, and the
        caller still owes these rows. Without `done` they are always taken."""
        if done is not None and not self.has_room:
            self.stats.refused += 1
            return False
        self._rows.update((row.key, row) for row in rows)
        if done is not None and self._suspended_for is not None:
            asyncio.get_running_loop().call_soon(self._call, done)
        elif done is not None:
            self._callbacks.append(done)
        self._wake.set()
        return True

    async def close(self) -> None:
        """Write what there is, once more if the disk failed, and end. No write after it."""
        self._ending.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_S)
            if not self._task.done():
                self._task.cancel()
        lost = len(self._rows)
        if lost or (self._task is not None and not self._task.done()):
            logger.error("journal.rows_lost", rows=lost, error=self.stats.last_error)
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        await asyncio.wait({closing}, timeout=CLOSE_S)
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        delay_s, longest_s = self._retry_s
        while not (self._ending.is_set() and not self._rows and not self._callbacks):
            await self._wake.wait()
            self._wake.clear()
            while self._rows or self._callbacks:
                if await self._write_group():
                    delay_s = self._retry_s[0]
                    continue
                if self._ending.is_set():
                    return
                await self._pause(delay_s)
                delay_s = min(2 * delay_s, longest_s)

    async def _write_group(self) -> bool:
        """Whether it is on disk; else its rows wait again, behind what is newer."""
        rows, self._rows = self._rows, {}
        self._in_flight, self._callbacks = self._callbacks, []
        began_s = self._clock()
        loop = asyncio.get_running_loop()
        moment = () if self._moment is None else (self._moment(),)
        writing = loop.run_in_executor(self._thread, self._file.write, rows.values(), *moment)
        try:
            await asyncio.wait({writing}, timeout=self._stall_s)
            if not writing.done():
                self._suspend(f"no answer from the disk for {self._stall_s:g} s")
            await writing
        except Exception as error:  # the task's boundary: whatever it is, the next group may fare better
            self._rows = rows | self._rows
            self._fail(error)
            return False
        took_s = self._clock() - began_s
        self.stats.groups += 1
        self.stats.rows += len(rows)
        self.stats.write_seconds += took_s
        self.stats.longest_write_seconds = max(self.stats.longest_write_seconds, took_s)
        self._settle()
        callbacks, self._in_flight = self._in_flight, []
        for done in callbacks:
            self._call(done)
        return True

    async def _pause(self, seconds: float) -> None:
        """Cut short by the end."""
        try:
            await asyncio.wait_for(self._ending.wait(), seconds)
        except TimeoutError:
            return

    def _fail(self, error: Exception) -> None:
        self.stats.failures += 1
        self.stats.last_error = f"{type(error).__name__}: {error}"
        self._suspend(self.stats.last_error)

    def _suspend(self, reason: str) -> None:
        """The senders that wait are answered all the same."""
        if self._suspended_for is None:
            self._limited.error("journal.suspended", reason=reason, rows=len(self._rows))
        is_news = self._suspended_for != reason
        self._suspended_for = reason
        if is_news:
            self._tell(JournalState(reason))
        callbacks = self._in_flight + self._callbacks
        self._in_flight, self._callbacks = [], []
        for done in callbacks:
            self._call(done)

    def _settle(self) -> None:
        """After a group that is on disk."""
        has_resumed = self._suspended_for is not None
        self._suspended_for = None
        if has_resumed:
            self._limited.info("journal.resumed", failures=self.stats.failures)
        was_recreated, self._file.was_recreated = self._file.was_recreated, False
        if was_recreated:
            logger.warning("journal.recreated")
        if has_resumed or was_recreated:
            self._tell(JournalState(None, was_recreated))

    def _tell(self, state: JournalState) -> None:
        if self._on_state is not None:
            try:
                self._on_state(state)
            except Exception:
                logger.exception("journal.callback_failed")

    def _call(self, done: Callable[[], None]) -> None:
        """One that fails must not keep the others from being called."""
        try:
            done()
        except Exception:
            logger.exception("journal.callback_failed")
