"""Snapshots on their way to disk: bytes as served, or registrations as we write them. File calls in a thread."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from gatewayd.feed.canonical import LineWriter
from gatewayd.model import Registration
from gatewayd.sources.last_good import FileMark
from gatewayd.sources.last_good_files import SourceDirectory

BATCH_BYTES: Final = 1 << 20
"""Read or written by one hop to a thread."""
_GZIP: Final = 31
_FASTEST: Final = 1

_T = TypeVar("_T")


class Sink(Protocol):
    """Takes the bytes of a snapshot as they come. Never raises for the disk's sake."""

    async def write(self, chunk: bytes) -> None: ...
    async def commit(self) -> FileMark | None:
        """The whole is durable, and counts once `save_snapshot` was given this; None: it could not be."""

    async def abort(self) -> None:
        """Nothing of it is kept."""


class Keeper(Protocol):
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
        await self._end(is_kept=self.error is None)
        if self._name is None:
            return None
        return FileMark(self._name, self._size_bytes, self._hash.hexdigest())

    async def abort(self) -> None:
        await self._end(is_kept=False)

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

    async def _end(self, *, is_kept: bool) -> None:
        try:
            await in_thread(self._close, is_kept)
        except OSError as error:
            self.error = error
            is_kept = False
        if not is_kept and self._name is not None:
            await in_thread(self._directory.discard, self._name)
            self._name = None

    def _close(self, is_kept: bool) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                if is_kept:
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


async def in_thread(call: Callable[..., _T], *arguments: object) -> _T:
    """The result of a blocking call. A cancelled one is waited for: its files are still in use."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
