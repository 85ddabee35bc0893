"""The last good of every source in `state_dir`: loaded before the network is asked, saved after every change.

    state_dir/registry/NAME/   see `kept`

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

import msgspec

from gatewayd.errors import FeedRefused, LastGoodDamaged, LastGoodNotSaved, SourceFailed
from gatewayd.feed.files import Changes, DeltaReader
from gatewayd.feed.reading import NdjsonReader, ReadLimits
from gatewayd.log import RateLimited, get_logger
from gatewayd.model import Registration
from gatewayd.model.changes import SLICE
from gatewayd.sources.disk import Files, RealFiles
from gatewayd.sources.guard_file import GuardFile
from gatewayd.sources.last_good import FileMark, Frame, Position
from gatewayd.sources.last_good_files import SAME, Held, SourceDirectory, inflate_whole
from gatewayd.sources.last_good_sink import BATCH_BYTES, FileSink, Packer, in_thread
from gatewayd.sources.sources import SLICE_BYTES

log = get_logger(__name__)

BATCH: Final = 2048
"""Registrations encoded by one hop to a thread: some 10 ms."""
RETRY_S: Final = 60.0
"""After a failure, how soon everything may be written anew."""
SAY_EVERY_S: Final = 300.0
LEAST_COMPACTED_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Restored:
    """`position` None: there is nothing that could be used. `damage`: what was found not to be whole.

    `held`: what an earlier version of gatewayd held, for `held.decode_versions`; may be there without
    registrations. `saved_at_s`: the last that is known of when the source confirmed it.
    """

    registrations: dict[str, Registration]
    position: Position | None = None
    saved_at_s: float | None = None
    held: bytes | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    damage: LastGoodDamaged | None = None

    @property
    def is_lost(self) -> bool:
        """Whether some of what was the last good cannot be used."""
        return self.position is None or self.damage is not None


@dataclass(frozen=True, slots=True)
class KeptState:
    """For status and metrics. `error`: why the latest save failed, so that what is kept is old; else None."""

    position: Position | None = None
    saved_at_s: float | None = None
    snapshot_bytes: int = 0
    deltas_bytes: int = 0
    failures: int = 0
    error: LastGoodNotSaved | None = None


class LastGood:
    """All sources' last good. One task at a time a source; what comes meanwhile waits.

    `monotonic clock`: seconds that never go back.
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
        self._sources: dict[str, _Source] = {}
        self._said = RateLimited(log, SAY_EVERY_S, monotonic)

    # -- read ----------------------------------------------------------------------------------------------

    async def read_times(self, source: str) -> tuple[float | None, float | None]:
        """When a source's last good was issued and saved, by its index alone; None where `load` finds none."""
        with suppress(LastGoodDamaged):
            index = await in_thread(SourceDirectory(self._files, self._root / source, source).read_index)
            return index.position.issued_at_s, index.saved_at_s
        return None, None

    async def load(self, source: str) -> Restored:
        """What there is of a source; call it before anything else of the source, or never. Never raises for what
        is on disk."""
        kept = self._source(source)
        async with kept.lock:
            kept.is_known = True
            try:
                await in_thread(kept.directory.open)
            except LastGoodDamaged as error:
                log.warning("store.damaged", source=source, file=error.file, error=error.why)
                return Restored({}, damage=error)
            if kept.directory.index is None:
                return Restored({})
            restored = await self._restore(kept)
        if restored.damage is not None:
            log.warning(
                "store.damaged", source=source, file=restored.damage.file, error=restored.damage.why,
                used=len(restored.registrations),
            )  # fmt: skip
        return restored

    async def _restore(self, kept: _Source) -> Restored:
        directory = kept.directory
        reader = NdjsonReader(kept.name, self._limits)
        damage: LastGoodDamaged | None = None
        registrations: dict[str, Registration] | None = reader.registrations
        try:
            await self._read_snapshot(directory, reader)
        except LastGoodDamaged as error:
            damage, registrations = error, None
        try:
            await self._read_deltas(directory, registrations)
        except LastGoodDamaged as error:
            damage = damage or error
        if registrations is None:
            directory.index = None  # and what is held stays until the next commit
        held, held_damage = await self._read_held(directory)
        damage = damage or held_damage
        if registrations is None or directory.head is None:
            return Restored({}, held=held, damage=damage)
        return Restored(
            registrations,
            directory.head.position,
            directory.head.saved_at_s,
            held,
            dict(reader.rejected),
            damage,
        )

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

    async def _read_deltas(self, directory: SourceDirectory, registrations: dict[str, Registration] | None) -> None:
        """Into `registrations`; None where only what is held is still of use."""
        frames = directory.frames()
        while (frame := await in_thread(next, frames, None)) is not None:
            if frame.content and registrations is not None:
                await self._apply(directory, frame, registrations)
            directory.use_frame(frame)

    async def _apply(
        self, directory: SourceDirectory, frame: Frame, registrations: dict[str, Registration]
    ) -> None:
        changes: Changes = {}
        serial = frame.head.position.serial
        reader = DeltaReader(directory.source, serial, self._limits, registrations, changes, is_exact=False)
        try:
            await _feed(reader, inflate_whole(frame.content))
        except (ValueError, FeedRefused, SourceFailed) as error:
            raise LastGoodDamaged(directory.source, f"delta {serial}", str(error)) from None
        for done, (id, registration) in enumerate(changes.items(), 1):
            if registration is None:
                registrations.pop(id, None)
            else:
                registrations[id] = registration
            if done % SLICE == 0:
                await asyncio.sleep(0)

    async def _read_held(self, directory: SourceDirectory) -> tuple[bytes | None, LastGoodDamaged | None]:
        try:
            return await in_thread(directory.read_held), None
        except LastGoodDamaged as error:
            if directory.head is not None:
                directory.head = msgspec.structs.replace(directory.head, held=None)
            return None, error

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

    async def open(self, source: str) -> FileSink:
        """See Keeper."""
        kept = self._source(source)
        await self._look(kept)
        sink = FileSink(kept.directory)
        await sink.begin()
        return sink

    async def _look(self, kept: _Source) -> None:
        """A source that a reload brought back was not loaded: what there is of it is only not to be mixed with
        what comes now."""
        async with kept.looking:
            if not kept.is_known:
                with suppress(LastGoodDamaged):
                    await in_thread(kept.directory.open)
                kept.directory.index = kept.directory.head = None
                kept.is_known = True

    async def save_snapshot(
        self, source: str, kept_file: FileMark | None, count: int, position: Position, held: Held = SAME
    ) -> bool:
        """What a Sink committed counts from now on. Says whether it does; False too for None."""
        kept = self._source(source)
        async with kept.lock:
            if kept_file is None:
                kept.is_behind = True
                return False
            return await self._commit(kept, kept_file, count, position, held)

    async def _commit(self, kept: _Source, kept_file: FileMark, count: int, position: Position, held: Held) -> bool:
        try:
            await in_thread(kept.directory.commit, kept_file, count, position, self._clock(), held)
        except OSError as error:
            await in_thread(kept.directory.discard, kept_file.name)
            return self._fail(kept, error)
        return self._succeed(kept)

    async def discard(self, source: str, kept_file: FileMark) -> None:
        """What a Sink committed is not to count after all."""
        await in_thread(self._source(source).directory.discard, kept_file.name)

    async def save_reading(
        self, source: str, registrations: Mapping[str, Registration], position: Position, held: Held = SAME
    ) -> bool:
        """All registrations, written anew; `registrations` must not change meanwhile. Says whether it counts.

        For a source without files of its own, and to compact (`needs_reading`).
        """
        kept = self._source(source)
        async with kept.lock:
            sink = await self.open(source)
            try:
                packer = Packer()
                iterator = iter(registrations.values())
                while chunk := await in_thread(packer.pack, list(islice(iterator, BATCH))):
                    await sink.write(chunk)
                    if sink.error is not None:
                        break
                kept_file = await sink.commit()
            except BaseException:
                await sink.abort()
                raise
            if kept_file is None:
                return self._fail(kept, sink.error)
            return await self._commit(kept, kept_file, len(registrations), position, held)

    async def save_delta(
        self, source: str, content: bytes, position: Position, *, after: Position, held: Held = SAME
    ) -> bool:
        """A change from `after` to `position`: gzip NDJSON of operations, one file or several end to end, or
        `kept.encode_delta`; nothing if only the position or what is held is another. Costs what it changes.

        False if it does not count: the disk failed, now or before, or `after` is not what is kept; then
        `needs_reading` says when to write everything anew.
        """
        kept = self._source(source)
        async with kept.lock:
            if not kept.is_at(after):
                kept.is_behind = True
                return False
            try:
                await in_thread(kept.directory.append, content, position, self._clock(), held)
            except OSError as error:
                return self._fail(kept, error)
            return self._succeed(kept)

    async def save_held(self, source: str, held: bytes | None) -> bool:
        """What the guard holds changed by itself (`accept`). As save_delta."""
        kept = self._source(source)
        head = kept.directory.head
        if head is None:
            return False
        return await self.save_delta(source, b"", head.position, after=head.position, held=held)

    def needs_reading(self, source: str) -> bool:
        """Whether `save_reading` is wanted: nothing is kept, it is behind, or its deltas outweigh it."""
        kept = self._source(source)
        if self._monotonic() < kept.retry_at_s:
            return False
        directory = kept.directory
        if directory.index is None or kept.is_behind:
            return True
        return directory.deltas_bytes > max(directory.index.snapshot.size_bytes, LEAST_COMPACTED_BYTES)

    def state_of(self, source: str) -> KeptState:
        kept = self._source(source)
        directory = kept.directory
        if directory.index is None or directory.head is None:
            return KeptState(failures=kept.failures, error=kept.error)
        return KeptState(
            directory.head.position,
            directory.head.saved_at_s,
            directory.index.snapshot.size_bytes,
            directory.deltas_bytes,
            kept.failures,
            kept.error,
        )

    # -- help ----------------------------------------------------------------------------------------------

    def _source(self, name: str) -> _Source:
        if name not in self._sources:
            self._sources[name] = _Source(name, SourceDirectory(self._files, self._root / name, name))
        return self._sources[name]

    def _fail(self, kept: _Source, error: OSError | None) -> bool:
        why = (error.strerror or str(error)) if error is not None else "unknown"
        kept.error = LastGoodNotSaved(kept.name, why)
        kept.failures += 1
        kept.is_behind = True
        kept.retry_at_s = self._monotonic() + RETRY_S
        self._said.error("store.failed", source=kept.name, error=kept.error.why, failures=kept.failures)
        return False

    def _succeed(self, kept: _Source) -> bool:
        if kept.error is not None:
            log.info("store.recovered", source=kept.name, failures=kept.failures)
        kept.error = None
        kept.is_behind = False
        return True


@dataclass(slots=True)
class _Source:
    """One source's directory, and how saving it went. `is_known`: what is in it was looked at. `is_behind`: what
    is in force is not what is kept."""

    name: str
    directory: SourceDirectory
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_known: bool = False
    is_behind: bool = False
    retry_at_s: float = 0.0
    failures: int = 0
    error: LastGoodNotSaved | None = None

    def is_at(self, position: Position) -> bool:
        head = self.directory.head
        if self.directory.index is None or head is None or self.is_behind:
            return False
        return (head.position.session, head.position.serial) == (position.session, position.serial)


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
