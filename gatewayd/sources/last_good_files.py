"""The directory of one source in `state_dir`: what `last_good` says, read from and written to disk.

Nothing that counts is ever written over. What is new gets a name of its own and is made durable first; then
one rename of index.json, or one appended frame, makes it count; what no longer counts goes last. `SourceDirectory`
blocks; a `FileSink` takes a snapshot on its way there, and a `Packer` makes one of registrations.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final, Protocol

from gatewayd.errors import LastGoodDamaged
from gatewayd.feed.canonical import Damaged, LineWriter
from gatewayd.feed.inflate import GzipDamaged, Inflater
from gatewayd.model import Registration
from gatewayd.sources.disk import READ_BYTES, Files, in_thread, remove_others, write_durably
from gatewayd.sources.last_good import (
    Frame,
    FrameHead,
    Index,
    decode_frame,
    decode_index,
    encode_frame,
    encode_index,
)
from gatewayd.sources.update import FeedPosition, FileMark

INDEX: Final = "index.json"
BATCH_BYTES: Final = 1 << 20
"""Read or written by one hop to a thread."""
_GZIP: Final = 31
_FASTEST: Final = 1

_number_of = re.compile(r"[a-z]+-([0-9]{1,15})(?:\..*)?").fullmatch


class SourceDirectory:
    """One source's files. `index`, `head` and `deltas_bytes` say what is on disk and counts; None: nothing.

    `incoming`: names of files that are being written and not to be tidied away. One call at a time, but for
    `create` and `discard`.
    """

    def __init__(self, files: Files, path: Path, source: str) -> None:
        self.files = files
        self.path = path
        self.source = source
        self.index: Index | None = None
        self.head: FrameHead | None = None
        self.deltas_bytes = 0
        self.incoming: set[str] = set()
        self._last_number = 0
        self._numbering = Lock()

    # -- read ----------------------------------------------------------------------------------------------

    def open(self, *, tidies: bool = True) -> None:
        """Read the index, and clean up what a crash left. Raises LastGoodDamaged.

        `tidies` False: nothing is written, for it may be another process that is writing.
        """
        self.index = self.head = None
        self.deltas_bytes = 0
        try:
            names = self.files.list(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unreadable(str(self.path), error) from None
        for name in names:
            if name.endswith(".tmp") and tidies:
                with suppress(OSError):
                    self.files.unlink(self.path / name)
            elif (match := _number_of(name)) is not None:
                self._last_number = max(self._last_number, int(match[1]))
        if not any(name == INDEX or _number_of(name) for name in names):
            return
        self.index = self.read_index()
        self.head = FrameHead(self.index.position, self.index.saved_at_s)

    def read_index(self) -> Index:
        """What index.json says; nothing is changed. Raises LastGoodDamaged, also where there is none."""
        try:
            return decode_index(self._read_whole(INDEX))
        except Damaged as error:
            raise LastGoodDamaged(self.source, INDEX, str(error)) from None

    def check(self, mark: FileMark) -> None:
        """Raises LastGoodDamaged unless the file is what the mark says."""
        digest, size_bytes = hashlib.sha256(), 0
        for chunk in self._chunks(mark.name):
            digest.update(chunk)
            size_bytes += len(chunk)
        self._compare(mark, size_bytes, digest.hexdigest())

    def plain_pieces(self, mark: FileMark) -> Iterator[bytes]:
        """The gunzipped content of a file, in bounded pieces. Raises LastGoodDamaged."""
        try:
            yield from _inflate(self._chunks(mark.name))
        except GzipDamaged as error:
            raise LastGoodDamaged(self.source, mark.name, str(error)) from None

    def frames(self) -> Iterator[Frame]:
        """The frames that were appended. Raises LastGoodDamaged where they cease to be whole. There is an index."""
        assert self.index is not None
        name = self.index.deltas
        try:
            if name not in self.files.list(self.path):
                return
        except OSError as error:
            raise self._unreadable(str(self.path), error) from None
        content = self._read_whole(name)
        offset = 0
        while offset < len(content):
            try:
                frame = decode_frame(content, offset)
            except Damaged as error:
                raise LastGoodDamaged(self.source, name, str(error)) from None
            yield frame
            offset = frame.end

    def use_frame(self, frame: Frame) -> None:
        """This frame counts, and so do those before it."""
        self.head, self.deltas_bytes = frame.head, frame.end

    # -- write (each raises OSError, and what counted before still does) -------------------------------------

    def commit(self, incoming: FileMark, position: FeedPosition, saved_at_s: float) -> None:
        """Make a whole new file, durable under the name of `incoming`, the snapshot that counts."""
        number = self._take_number()
        snapshot = FileMark(f"snapshot-{number}.gz", incoming.size_bytes, incoming.sha256)
        self.files.rename(self.path / incoming.name, self.path / snapshot.name)
        self.incoming.discard(incoming.name)
        self.files.sync_directory(self.path)
        index = Index(1, number, position, saved_at_s, snapshot)
        write_durably(self.files, self.path / INDEX, encode_index(index))
        self.files.sync_directory(self.path)
        self.index, self.head = index, FrameHead(position, saved_at_s)
        self.deltas_bytes = 0
        remove_others(self.files, self.path, {INDEX, snapshot.name, index.deltas} | frozenset(self.incoming))

    def append(self, content: bytes, position: FeedPosition, saved_at_s: float) -> None:
        """Make a delta (empty: none) and a position count. There is an index."""
        assert self.index is not None
        head = FrameHead(position, saved_at_s)
        frame = encode_frame(head, content)
        descriptor = self.files.open_at(self.path / self.index.deltas, self.deltas_bytes)
        try:
            self.files.write(descriptor, frame)
            self.files.sync(descriptor)
        finally:
            self.files.close(descriptor)
        if not self.deltas_bytes:
            self.files.sync_directory(self.path)
        self.deltas_bytes += len(frame)
        self.head = head

    def create(self) -> tuple[str, int]:
        """A new file to be written, and its descriptor."""
        make_durable_directory(self.files, self.path)
        name = f"incoming-{self._take_number()}.tmp"
        self.incoming.add(name)  # first, lest a commit in another thread tidies it away
        try:
            return name, self.files.create(self.path / name)
        except OSError:
            self.incoming.discard(name)
            raise

    def discard(self, name: str) -> None:
        """Take away a file of `create`, as far as that can be done."""
        self.incoming.discard(name)
        with suppress(OSError):
            self.files.unlink(self.path / name)

    def _take_number(self) -> int:
        with self._numbering:
            self._last_number += 1
            return self._last_number

    # -- help ----------------------------------------------------------------------------------------------

    def _read_whole(self, name: str) -> bytes:
        return b"".join(self._chunks(name))

    def _chunks(self, name: str) -> Iterator[bytes]:
        with self._damage_of(name):
            descriptor = self.files.open_to_read(self.path / name)
            try:
                while chunk := self.files.read(descriptor, READ_BYTES):
                    yield chunk
            finally:
                self.files.close(descriptor)

    @contextmanager
    def _damage_of(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unreadable(name, error) from None

    def _unreadable(self, name: str, error: OSError) -> LastGoodDamaged:
        return LastGoodDamaged(self.source, name, f"cannot be read: {error.strerror or error}")

    def _compare(self, mark: FileMark, size_bytes: int, sha256: str) -> None:
        if size_bytes != mark.size_bytes:
            why = f"has {size_bytes} bytes, and {mark.size_bytes} were written"
            raise LastGoodDamaged(self.source, mark.name, why)
        if sha256 != mark.sha256:
            raise LastGoodDamaged(self.source, mark.name, "its hash is wrong")


def inflate_whole(content: bytes) -> Iterator[bytes]:
    """The plain bytes of whole gzip, in bounded pieces. Raises GzipDamaged."""
    return _inflate(iter((content,)))


def _inflate(chunks: Iterator[bytes]) -> Iterator[bytes]:
    inflater = Inflater(must_be_gzip=True)
    for chunk in chunks:
        yield from inflater.feed(chunk)
    if not inflater.is_whole():
        raise GzipDamaged


def make_durable_directory(files: Files, path: Path) -> None:
    """The directory of a source; nothing happens if it is there."""
    try:
        files.list(path)
    except FileNotFoundError:
        files.make_directory(path)
        files.sync_directory(path.parent)
        files.sync_directory(path.parent.parent)


# -- on the way there ---------------------------------------------------------------------------------------


class Sink(Protocol):
    """Takes the bytes of a snapshot as they come. Never raises for the disk's sake."""

    async def write(self, chunk: bytes) -> None: ...
    async def commit(self) -> FileMark | None:
        """The whole is durable, and counts once `save_snapshot` was given this; None: it could not be."""

    async def abort(self) -> None:
        """Nothing of it stays."""


class LastGoodWriter(Protocol):
    """Where a client of a feed leaves what it receives."""

    async def open(self, source: str) -> Sink: ...


class FileSink:
    """A Sink to a file of a source's directory. `error`: why nothing more is written."""

    def __init__(self, directory: SourceDirectory) -> None:
        self.error: OSError | None = None
        self._directory = directory
        self._name: str | None = None
        self._descriptor: int | None = None
        self._buffer = bytearray()
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    async def begin(self) -> None:
        try:
            await in_thread(self._create)
        except OSError as error:
            self.error = error
        except asyncio.CancelledError:
            await self.abort()
            raise

    def _create(self) -> None:
        self._name, self._descriptor = self._directory.create()

    async def write(self, chunk: bytes) -> None:
        if self.error is None:
            self._buffer += chunk
            if len(self._buffer) >= BATCH_BYTES:
                await self._flush()

    async def commit(self) -> FileMark | None:
        await self._flush()
        await self._end(is_whole=self.error is None)
        if self._name is None:
            return None
        return FileMark(self._name, self._size_bytes, self._hash.hexdigest())

    async def abort(self) -> None:
        await self._end(is_whole=False)

    async def _flush(self) -> None:
        content = bytes(self._buffer)
        self._buffer.clear()
        if self.error is None and content:
            try:
                await in_thread(self._write, content)
            except OSError as error:
                self.error = error

    def _write(self, content: bytes) -> None:
        assert self._descriptor is not None
        self._hash.update(content)
        self._size_bytes += len(content)
        self._directory.files.write(self._descriptor, content)

    async def _end(self, *, is_whole: bool) -> None:
        try:
            await in_thread(self._close, is_whole)
        except OSError as error:
            self.error = error
            is_whole = False
        if not is_whole and self._name is not None:
            await in_thread(self._directory.discard, self._name)
            self._name = None

    def _close(self, is_whole: bool) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                if is_whole:
                    self._directory.files.sync(descriptor)
            finally:
                self._directory.files.close(descriptor)


class Packer:
    """Registrations → gzip NDJSON, batch by batch; an empty batch ends it, and the one after gives nothing."""

    def __init__(self) -> None:
        self._lines = LineWriter().lines
        self._gzip: zlib._Compress | None = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP)

    def pack(self, batch: list[Registration]) -> bytes:
        if self._gzip is None:
            return b""
        if not batch:
            rest, self._gzip = self._gzip.flush(), None
            return rest
        packed = self._gzip.compress("\n".join([*self._lines(batch), ""]).encode())
        return packed or self._gzip.flush(zlib.Z_SYNC_FLUSH)
