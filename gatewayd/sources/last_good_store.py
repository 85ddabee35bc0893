"""The last good of every source in `state_dir`: loaded before the network is asked, saved after every change.

    state_dir/registry/NAME/   see `last_good`
    state_dir/guard            what the guard knows

What cannot be saved is said, counted and tried again later; nothing that is in force waits for a disk, and no
save raises. What is damaged is said too, and whatever of it is whole is used: the caller asks the registry
again, and until it answers the kernel is left as it was found.

The signature of a feed was verified before its files came here, and is not verified again: what a restart
takes is what this daemon wrote, by its hash, in a directory that is its own. A million registrations are read
and written in slices, file calls and gzip in a thread, the event loop turning in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from gatewayd.errors import FeedRefused, LastGoodDamaged, LastGoodNotSaved, SourceFailed
from gatewayd.feed.files import SLICE_BYTES, DeltaReader, Pending
from gatewayd.feed.reading import NdjsonReader, ReadLimits
from gatewayd.log import RateLimited, get_logger
from gatewayd.model import Registration
from gatewayd.model.registration import SLICE
from gatewayd.sources.disk import Files, GuardFile, RealFiles, in_thread
from gatewayd.sources.last_good import Frame, Restored
from gatewayd.sources.last_good_files import BATCH_BYTES, FileSink, Packer, SourceDirectory, inflate_whole
from gatewayd.sources.update import FeedPosition, FileMark, SourceUpdate

log = get_logger(__name__)

BATCH: Final = 2048
"""Registrations encoded by one hop to a thread: some 10 ms."""
RETRY_S: Final = 60.0
"""After a failure, how soon everything may be written anew."""
SAY_EVERY_S: Final = 300.0
MIN_COMPACTED_BYTES: Final = 1 << 20


@dataclass(slots=True)
class _Entry:
    """One source's directory, and how saving it went. `is_known`: its content was looked at. `is_behind`: what is
    in force is not what is on disk."""

    name: str
    directory: SourceDirectory
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_known: bool = False
    is_behind: bool = False
    retry_at_s: float = 0.0
    failures: int = 0
    error: LastGoodNotSaved | None = None

    def is_at(self, position: FeedPosition) -> bool:
        head = self.directory.head
        if self.directory.index is None or head is None or self.is_behind:
            return False
        return (head.position.session, head.position.serial) == (position.session, position.serial)


class LastGood:
    """All sources' last good. One task at a time a source; what comes meanwhile waits.

    `monotonic`: seconds that never go back.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        files: Files | None = None,
        limits: ReadLimits | None = None,
    ) -> None:
        self._root = state_dir / "registry"
        self._clock = clock
        self._monotonic = monotonic
        self._files = files or RealFiles()
        self.guard_file = GuardFile(self._files, state_dir / "guard")
        self._limits = limits or ReadLimits()
        self._entries: dict[str, _Entry] = {}
        self._said = RateLimited(log, SAY_EVERY_S, monotonic)

    # -- read ----------------------------------------------------------------------------------------------

    async def read_times(self, source: str) -> tuple[float | None, float | None]:
        """When a source's last good was issued and saved, by its index alone; None where `load` finds none."""
        with suppress(LastGoodDamaged):
            index = await in_thread(SourceDirectory(self._files, self._root / source, source).read_index)
            return index.position.issued_at_s, index.saved_at_s
        return None, None

    async def load(self, source: str, *, tidies: bool = True) -> Restored:
        """What there is of a source; call it before anything else of the source, or never. Never raises for what
        is on disk. `tidies` False: nothing is written, and nothing may be saved afterwards."""
        entry = self._entry(source)
        async with entry.lock:
            entry.is_known = True
            try:
                await in_thread(lambda: entry.directory.open(tidies=tidies))
            except LastGoodDamaged as error:
                log.warning("store.damaged", source=source, file=error.file, error=error.why)
                return Restored({}, damage=error)
            if entry.directory.index is None:
                return Restored({})
            restored = await self._restore(entry)
        if restored.damage is not None:
            log.warning(
                "store.damaged", source=source, file=restored.damage.file, error=restored.damage.why,
                used=len(restored.registrations),
            )  # fmt: skip
        return restored

    async def _restore(self, entry: _Entry) -> Restored:
        directory = entry.directory
        reader = NdjsonReader(entry.name, self._limits)
        damage: LastGoodDamaged | None = None
        try:
            await self._read_snapshot(directory, reader)
        except LastGoodDamaged as error:
            directory.index = directory.head = None
            return Restored({}, damage=error)
        try:
            await self._read_deltas(directory, reader.registrations)
        except LastGoodDamaged as error:
            damage = error
        assert directory.head is not None
        head, rejected = directory.head, dict(reader.rejected)
        return Restored(reader.registrations, head.position, head.saved_at_s, rejected, damage)

    async def _read_snapshot(self, directory: SourceDirectory, reader: NdjsonReader) -> None:
        index = directory.index
        assert index is not None
        try:
            await in_thread(directory.check, index.snapshot)
            await _feed(reader, directory.plain_pieces(index.snapshot))
        except LastGoodDamaged:
            raise
        except SourceFailed as error:
            raise LastGoodDamaged(directory.source, index.snapshot.name, error.why) from None
        if reader.rejections and not reader.registrations:
            why = f"none of its {reader.records} records is usable; line {reader.rejections[0]}"
            raise LastGoodDamaged(directory.source, index.snapshot.name, why)

    async def _read_deltas(self, directory: SourceDirectory, registrations: dict[str, Registration]) -> None:
        frames = directory.frames()
        while (frame := await in_thread(next, frames, None)) is not None:
            if frame.content:
                await self._apply(directory, frame, registrations)
            directory.use_frame(frame)

    async def _apply(
        self, directory: SourceDirectory, frame: Frame, registrations: dict[str, Registration]
    ) -> None:
        pending: Pending = {}
        serial = frame.head.position.serial
        reader = DeltaReader(directory.source, serial, self._limits, registrations, pending, is_exact=False)
        try:
            await _feed(reader, inflate_whole(frame.content))
        except (ValueError, FeedRefused, SourceFailed) as error:
            raise LastGoodDamaged(directory.source, f"delta {serial}", str(error)) from None
        for done, (id, registration) in enumerate(pending.items(), 1):
            if registration is None:
                registrations.pop(id, None)
            else:
                registrations[id] = registration
            if done % SLICE == 0:
                await asyncio.sleep(0)

    async def say_unused(self, configured: Collection[str]) -> None:
        """Name the last good of sources that are not configured. It is left alone: a slip of the pen in the
        configuration must not cost it."""
        try:
            names = await in_thread(self._files.list, self._root)
        except OSError:
            return
        for name in sorted(set(names) - set(configured)):
            log.info("store.unused", source=name, directory=str(self._root / name))

    # -- write ---------------------------------------------------------------------------------------------

    async def save(self, update: SourceUpdate) -> None:
        """Make the content of an update the source's last good. A disk that fails is said, and tried again."""
        source, position = update.source, update.reached
        must_write = False
        if isinstance(update.served, FileMark):
            await self.save_snapshot(source, update.served, position)
        elif update.served is not None and update.before is not None:
            await self.save_delta(source, update.served, position, after=update.before)
        else:
            self._entry(source).is_behind = True
            must_write = not position.session
        if update.registrations is not None and (must_write or self.needs_reading(source)):
            await self.save_reading(source, update.registrations, position)

    async def discard(self, update: SourceUpdate) -> None:
        """The content of an update is not to be the last good."""
        if isinstance(update.served, FileMark):
            await in_thread(self._entry(update.source).directory.discard, update.served.name)

    async def open(self, source: str) -> FileSink:
        """See LastGoodWriter."""
        entry = self._entry(source)
        await self._look(entry)
        sink = FileSink(entry.directory)
        await sink.begin()
        return sink

    async def _look(self, entry: _Entry) -> None:
        """A source that a reload brought back was not loaded: what there is of it is only not to be mixed with
        what comes now."""
        async with entry.looking:
            if not entry.is_known:
                with suppress(LastGoodDamaged):
                    await in_thread(entry.directory.open)
                entry.directory.index = entry.directory.head = None
                entry.is_known = True

    async def save_snapshot(self, source: str, file: FileMark, position: FeedPosition) -> bool:
        """What a Sink committed counts from now on. Says whether it does."""
        entry = self._entry(source)
        async with entry.lock:
            return await self._commit(entry, file, position)

    async def _commit(self, entry: _Entry, file: FileMark, position: FeedPosition) -> bool:
        try:
            await in_thread(entry.directory.commit, file, position, self._clock())
        except OSError as error:
            await in_thread(entry.directory.discard, file.name)
            return self._fail(entry, error)
        return self._succeed(entry)

    async def save_reading(
        self, source: str, registrations: Mapping[str, Registration], position: FeedPosition
    ) -> bool:
        """All registrations, written anew; `registrations` must not change meanwhile. Says whether it counts.

        For a source without files of its own, and to compact (`needs_reading`).
        """
        entry = self._entry(source)
        async with entry.lock:
            sink = await self.open(source)
            try:
                packer = Packer()
                iterator = iter(registrations.values())
                while chunk := await in_thread(packer.pack, list(islice(iterator, BATCH))):
                    await sink.write(chunk)
                    if sink.error is not None:
                        break
                file = await sink.commit()
            except BaseException:
                await sink.abort()
                raise
            if file is None:
                return self._fail(entry, sink.error)
            return await self._commit(entry, file, position)

    async def save_delta(self, source: str, content: bytes, position: FeedPosition, *, after: FeedPosition) -> bool:
        """A change from `after` to `position`: gzip NDJSON of operations, one file or several end to end; nothing
        if only the position is another. Costs what it changes.

        False if it does not count: the disk failed, now or before, or `after` is not what is on disk; then
        `needs_reading` says when to write everything anew.
        """
        entry = self._entry(source)
        async with entry.lock:
            if not entry.is_at(after):
                entry.is_behind = True
                return False
            try:
                await in_thread(entry.directory.append, content, position, self._clock())
            except OSError as error:
                return self._fail(entry, error)
            return self._succeed(entry)

    def needs_reading(self, source: str) -> bool:
        """Whether `save_reading` is wanted: nothing is on disk, it is behind, or its deltas outweigh it."""
        entry = self._entry(source)
        if self._monotonic() < entry.retry_at_s:
            return False
        directory = entry.directory
        if directory.index is None or entry.is_behind:
            return True
        return directory.deltas_bytes > max(directory.index.snapshot.size_bytes, MIN_COMPACTED_BYTES)

    def error_of(self, source: str) -> str | None:
        """Why the latest save failed, of the source or of the guard, so that what is on disk is old; else None."""
        error = self._entry(source).error
        return str(error) if error is not None else self.guard_file.error

    # -- help ----------------------------------------------------------------------------------------------

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            self._entries[name] = _Entry(name, SourceDirectory(self._files, self._root / name, name))
        return self._entries[name]

    def _fail(self, entry: _Entry, error: OSError | None) -> bool:
        why = (error.strerror or str(error)) if error is not None else "unknown"
        entry.error = LastGoodNotSaved(entry.name, why)
        entry.failures += 1
        entry.is_behind = True
        entry.retry_at_s = self._monotonic() + RETRY_S
        self._said.error("store.failed", source=entry.name, error=entry.error.why, failures=entry.failures)
        return False

    def _succeed(self, entry: _Entry) -> bool:
        if entry.error is not None:
            log.info("store.recovered", source=entry.name, failures=entry.failures)
        entry.error = None
        entry.is_behind = False
        return True


def _next_batch(pieces: Iterator[bytes]) -> list[bytes]:
    batch, size_bytes = [], 0
    for piece in pieces:
        batch.append(piece)
        size_bytes += len(piece)
        if size_bytes >= BATCH_BYTES:
            break
    return batch


async def _feed(reader: NdjsonReader, pieces: Iterator[bytes]) -> None:
    """All of it, to the end; `pieces` are made in a thread."""
    while batch := await in_thread(_next_batch, pieces):
        for piece in batch:
            for start in range(0, len(piece), SLICE_BYTES):
                reader.feed(piece[start : start + SLICE_BYTES])
                await asyncio.sleep(0)
    reader.finish()
