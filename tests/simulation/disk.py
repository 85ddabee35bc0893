"""A state directory in memory, as it was after each write: a restart may find it as of any of them.

`Store`, `Trials`, `Journal` are what the daemon has of it: the last good and the guard's file, the record of
trials, the journal. The bytes and the rows are the daemon's own; SQLite and the file system are left out.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from gatewayd.control.trial_store import TrialStore
from gatewayd.model.registration import RejectedRecord
from gatewayd.sources.last_good import Restored
from gatewayd.sources.update import SourceUpdate
from gatewayd.subscribers.journal_rows import ClockMark, Key, Row
from gatewayd.trial.record import decode_state, encode_state
from gatewayd.trial.state import Instant, TrialState
from tests.simulation.loop import Dice

Files = dict[str, Any]
GUARD, TRIAL, JOURNAL, DRAINS = "guard", "trial", "journal", "drains"
LONGEST_WRITE_S: Final = 0.05
RETRY_S: Final = 1.0


class Disk:
    """`images`: the files after each write, the empty directory first. `is_full`: no write is taken."""

    def __init__(self, dice: Dice) -> None:
        self.files: Files = {}
        self.images: list[Files] = [{}]
        self.is_full = False
        self._dice = dice

    def put(self, name: str, content: object) -> None:
        """Raises OSError. None: the file goes."""
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.files = {**self.files, name: content}
        if content is None:
            del self.files[name]
        self.images.append(self.files)

    def fill(self, is_full: bool) -> None:
        self.is_full = is_full

    async def wait(self) -> None:
        """What a write takes."""
        await asyncio.sleep(self._dice.random() * LONGEST_WRITE_S)

    def go_back(self, writes: int) -> None:
        """To what it was so many writes ago."""
        self.files = self.images[max(0, len(self.images) - 1 - writes)]
        self.images = [self.files]


class _GuardFile:
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.path = Path("guard")
        self.error: str | None = None

    async def load(self) -> bytes | None:
        content: bytes | None = self._disk.files.get(GUARD)
        return content

    def leave(self, why: str) -> None:
        raise AssertionError(why)

    async def save(self, content: bytes) -> bool:
        await self._disk.wait()
        try:
            self._disk.put(GUARD, content)
        except OSError as error:
            self.error = str(error)
            return False
        self.error = None
        return True


class Store:
    """In the place of sources.last_good_store.LastGood."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.guard_file = _GuardFile(disk)
        self._waiting: dict[str, Restored] = {}

    async def load(self, source: str, *, tidies: bool = True) -> Restored:
        await self._disk.wait()
        found: Restored | None = self._disk.files.get(f"source {source}")
        return found or Restored({})

    async def save(self, update: SourceUpdate, listed: Sequence[RejectedRecord] = ()) -> None:
        """A confirmation has what a full disk did not take written again."""
        await self._disk.wait()
        content = self._waiting.pop(update.source, None)
        if update.registrations is not None:
            content = Restored(dict(update.registrations), update.reached, update.at_s, has_endpoints=True)
        if content is None:
            return
        try:
            self._disk.put(f"source {update.source}", content)
        except OSError:
            self._waiting[update.source] = content

    async def log_unused(self, configured: Collection[str]) -> None:
        pass

    def error_of(self, source: str) -> str | None:
        return None


class Trials(TrialStore):
    def __init__(self, disk: Disk) -> None:
        super().__init__(Path("/nowhere"))
        self._disk = disk

    def _read(self, now: Instant) -> TrialState:
        content = self._disk.files.get(TRIAL)
        if content is None:
            return TrialState()
        self._saved = decode_state(content)
        return self._saved

    def _write(self, state: TrialState) -> None:
        self._disk.put(TRIAL, None if state == TrialState() else encode_state(state))

    def _remove_what_arms(self, state: TrialState) -> None:
        may_arm = self._saved is None or (self._saved.trial is not None and self._saved.trial != state.trial)
        if may_arm and TRIAL in self._disk.files:
            self._disk.files = {name: each for name, each in self._disk.files.items() if name != TRIAL}
            self._disk.images.append(self._disk.files)
            self._saved = None


class Journal:
    """In the place of subscribers.journal.Journal: groups, and answers when they are on disk."""

    def __init__(self, disk: Disk) -> None:
        self.moment: Callable[[], ClockMark] | None = None
        self.last_moment: ClockMark | None = None
        self.suspended_for: str | None = None
        self.has_room = True
        self._disk = disk
        self._rows: dict[Key, Row] = {}
        self._waiting: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> tuple[Row, ...]:
        await self._disk.wait()
        rows, self.last_moment = self._disk.files.get(JOURNAL, ({}, None))
        return tuple(rows.values())

    def write(self, rows: Iterable[Row], done: Callable[[], None] | None) -> bool:
        self._rows.update((row.key, row) for row in rows)
        if done is not None:
            self._waiting.append(done)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return True

    async def _run(self) -> None:
        while self._rows or self._waiting:
            rows, self._rows = self._rows, {}
            waiting, self._waiting = self._waiting, []
            await self._disk.wait()
            kept = {**self._disk.files.get(JOURNAL, ({}, None))[0], **rows}
            assert self.moment is not None
            try:
                self._disk.put(
                    JOURNAL, ({key: row for key, row in kept.items() if row.value is not None}, self.moment())
                )
            except OSError:
                self._rows = rows | self._rows
            for done in waiting:  # a full disk answers too: it must cut no subscriber
                done()
            if self._rows and self._disk.is_full:
                await asyncio.sleep(RETRY_S)
        self._task = None

    async def close(self) -> None:
        pass
