"""The last good of every source in `state_dir`: loaded before the network is asked, saved after every change.

    state_dir/registry/NAME.sqlite3   a source, see `last_good_file`
    state_dir/guard                   what the guard knows

What cannot be saved is logged, counted and tried again later; nothing that is in force waits for a disk, and no
save raises. What is damaged is logged too, and whatever of it is whole is used: the caller asks the registry
again, and until it answers the kernel is left as it was found.

The signature of a feed was verified before its registrations came here, and is not verified again: what a restart
takes is what this daemon wrote, by its hash, in a directory that is its own.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar, cast

from gatewayd.errors import LastGoodDamaged, LastGoodNotSaved
from gatewayd.filesystem import read_ours
from gatewayd.log import RateLimited, get_logger
from gatewayd.model import Registration
from gatewayd.model.registration import RejectedRecord, Slices
from gatewayd.sources.files import in_thread, replace_file
from gatewayd.sources.last_good import Reached, Restored
from gatewayd.sources.last_good_file import FAILURES, Connect, SourceFile, reason_of
from gatewayd.sources.update import FeedPosition, SourceUpdate

log = get_logger(__name__)

SUFFIX: Final = ".sqlite3"
RETRY_S: Final = 60.0
"""After a failure, how soon all of a source may be written anew."""
LOG_EVERY_S: Final = 300.0
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Content:
    """A reading as it goes to disk."""

    update: SourceUpdate
    registrations: Mapping[str, Registration]
    reached: Reached
    listed: Sequence[RejectedRecord]


@dataclass(slots=True)
class _Entry:
    """One source's file, and how saving it went. `is_behind`: what is in force is not what is on disk.

    `waiting`: the reading that is to be there, then.
    """

    file: SourceFile
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_behind: bool = False
    waiting: _Content | None = None
    retry_at_s: float = 0.0
    failures: int = 0
    error: LastGoodNotSaved | None = None

    def is_at(self, position: FeedPosition | None) -> bool:
        head = self.file.head
        if head is None or self.is_behind or position is None:
            return False
        latest = head.latest.position
        return (latest.session, latest.serial) == (position.session, position.serial)

    @property
    def needs_rewrite(self) -> bool:
        """Nothing is on disk, it is behind, or its deltas outweigh it."""
        return self.file.head is None or self.is_behind or self.file.head.is_outweighed


class LastGood:
    """All sources' last good. One task at a time a source; what comes meanwhile waits.

    `monotonic`: seconds that never go back. `connect`, `replace`: the ways to the disk.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        connect: Connect = sqlite3.connect,
        replace: Callable[[Path, bytes], None] = replace_file,
    ) -> None:
        self._root = state_dir / "registry"
        self._clock = clock
        self._monotonic = monotonic
        self._connect = connect
        self.guard_file = GuardFile(state_dir / "guard", replace)
        self._entries: dict[str, _Entry] = {}
        self._limited = RateLimited(log, LOG_EVERY_S, monotonic)

    # -- read ----------------------------------------------------------------------------------------------

    async def read_times(self, source: str) -> tuple[float | None, float | None]:
        """When a source's last good was issued and saved; None where `load` finds none. Nothing is written."""
        with suppress(LastGoodDamaged):
            head = await in_thread(self._entry(source).file.read_head)
            if head is not None:
                return head.latest.position.issued_at_s, head.latest.saved_at_s
        return None, None

    async def load(self, source: str, *, tidies: bool = True) -> Restored:
        """What there is of a source; call it before anything else of the source, or never. Never raises for what
        is on disk. `tidies` False: nothing is written, and nothing may be saved afterwards."""
        entry = self._entry(source)
        async with entry.lock:
            try:
                restored = await _in_steps(entry.file.load(tidies=tidies))
            except LastGoodDamaged as error:
                restored = Restored({}, damage=error)
        if (damage := restored.damage) is not None:
            used = len(restored.registrations)
            log.warning("store.damaged", source=source, file=damage.file, error=damage.why, used=used)
        return restored

    async def log_unused(self, configured: Collection[str]) -> None:
        """Name the last good of sources that are not configured. It is left alone: a slip of the pen in the
        configuration must not cost it."""
        try:
            names = await in_thread(os.listdir, self._root)
        except OSError:
            return
        for name in sorted(names):
            source = name.removesuffix(SUFFIX)
            if source != name and source not in configured:
                log.info("store.unused", source=source, file=str(self._root / name))

    # -- write ---------------------------------------------------------------------------------------------

    async def save(self, update: SourceUpdate, listed: Sequence[RejectedRecord] = ()) -> None:
        """Make the content of an update the source's last good. A disk that fails is logged, and tried again with
        a later update, also with one that only confirms the content.

        `listed`: the rejected records of the source, all that are known now.
        """
        entry = self._entry(update.source)
        async with entry.lock:
            if update.registrations is not None:
                content = _Content(update, update.registrations, Reached(update.reached, self._clock()), listed)
                await self._save(entry, content, is_due=not content.reached.position.session)
            elif entry.waiting is not None:
                await self._save(entry, entry.waiting, is_due=False)

    async def _save(self, entry: _Entry, content: _Content, *, is_due: bool) -> None:
        """`is_due`: without the pause after a failure."""
        update, reached, listed = content.update, content.reached, content.listed
        if update.changes is not None and entry.is_at(update.before):
            await self._write(entry, entry.file.append(update.changes, reached, update.rejected, listed))
        else:
            entry.is_behind = True
        if (is_due or self._monotonic() >= entry.retry_at_s) and entry.needs_rewrite:
            rewriting = entry.file.rewrite(content.registrations, reached, update.rejected, listed)
            await self._write(entry, rewriting)
        entry.waiting = content if entry.is_behind else None

    def error_of(self, source: str) -> str | None:
        """Why the latest save failed, of the source or of the guard, so that what is on disk is old; else None."""
        error = self._entry(source).error
        return str(error) if error is not None else self.guard_file.error

    async def _write(self, entry: _Entry, steps: Slices[None]) -> None:
        source = entry.file.source
        try:
            await _in_steps(steps)
        except FAILURES as error:
            entry.error = LastGoodNotSaved(source, reason_of(error))
            entry.failures += 1
            entry.is_behind = True
            entry.retry_at_s = self._monotonic() + RETRY_S
            self._limited.error("store.failed", source=source, error=entry.error.why, failures=entry.failures)
            return
        if entry.error is not None:
            log.info("store.recovered", source=source, failures=entry.failures)
        entry.error, entry.is_behind = None, False

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            self._entries[name] = _Entry(SourceFile(self._root / f"{name}{SUFFIX}", name, self._connect))
        return self._entries[name]


async def _in_steps(steps: Slices[_T]) -> _T:
    """The result of a generator, each of its steps run in a thread and the loop turning in between."""

    def step() -> tuple[bool, _T | None]:
        try:
            next(steps)
        except StopIteration as stop:
            return True, stop.value
        return False, None

    try:
        while True:
            is_over, result = await in_thread(step)
            if is_over:
                return cast(_T, result)
    finally:
        await in_thread(steps.close)


class GuardFile:
    """One file of `state_dir`: what the guard knows. Written only when its content is another; no disk makes it
    raise."""

    def __init__(self, path: Path, replace: Callable[[Path, bytes], None]) -> None:
        self.path = path
        self.error: str | None = None
        """Why the latest save failed; None if it did not."""
        self._replace = replace
        self._saved: bytes | None = None
        self._saving = asyncio.Lock()
        self._is_left = False

    async def load(self) -> bytes | None:
        """What was saved; None if there is nothing that can be read."""
        try:
            self._saved = await in_thread(read_ours, self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("guard.unreadable", file=str(self.path), error=reason_of(error))
            return None
        return self._saved

    def leave(self, why: str) -> None:
        """It is not to be written from now on: a later version of gatewayd wrote it."""
        self._is_left, self.error = True, why

    async def save(self, content: bytes) -> bool:
        """Make it durable, after what was to be saved before; whether it is."""
        async with self._saving:
            if self._is_left:
                return False
            if content == self._saved:
                return True
            try:
                await in_thread(self._replace, self.path, content)
            except OSError as error:
                why = reason_of(error)
                if why != self.error:
                    log.error("guard.not_saved", file=str(self.path), error=why)
                self.error = why
                return False
            self._saved, self.error = content, None
            return True
