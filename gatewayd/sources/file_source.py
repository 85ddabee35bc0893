"""Files as sources: read in chunks off the event loop, and watched for change.

Replace a source by rename (`mv new.ndjson lab.ndjson`), never by writing into it: a file that changes while
it is read is refused and read again, but one that a writer left half-done cannot be told from a whole one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from watchfiles import awatch

from gatewayd.errors import SourceUnreadable
from gatewayd.sources.disk import in_thread, open_regular
from gatewayd.sources.update import Body

CHUNK_BYTES: Final = 1 << 20
"""Read at a time: a hop to a thread costs about as much as reading this much."""


class FileSignature(NamedTuple):
    """What tells one content of a file from another without reading it."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


class FileSource:
    """A file as an Origin; `name` is the source's in errors. The validator is the file's FileSignature."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path

    @property
    def place(self) -> str:
        return str(self.path)

    @asynccontextmanager
    async def open(self, previous: Hashable | None = None) -> AsyncIterator[Body | None]:
        """See Origin. Raises SourceUnreadable: no such file, no permission, not a regular file, changing."""
        try:
            descriptor = await in_thread(open_regular, self.path)
        except OSError as error:
            raise self._unreadable(error) from None
        try:
            signature = _signature(os.fstat(descriptor))
            yield None if signature == previous else Body(self._chunks(descriptor, signature), signature)
        finally:
            os.close(descriptor)

    async def _chunks(self, descriptor: int, signature: FileSignature) -> AsyncGenerator[bytes, None]:
        try:
            while chunk := await in_thread(os.read, descriptor, CHUNK_BYTES):
                yield chunk
        except OSError as error:
            raise self._unreadable(error) from None
        status = os.fstat(descriptor)  # not the ctime: a rename over the file changes it, and harms nothing
        if (status.st_size, status.st_mtime_ns) != (signature.size_bytes, signature.modified_ns):
            raise SourceUnreadable(self.name, f"{self.path}: changed while it was being read")

    def _unreadable(self, error: OSError) -> SourceUnreadable:
        return SourceUnreadable(self.name, f"{self.path}: {error.strerror}")


def signature_of(path: Path) -> FileSignature | None:
    """The signature of what `path` leads to, symlinks followed; None if there is nothing to be read."""
    try:
        return _signature(path.stat())
    except OSError:
        return None


async def watch_file(
    path: Path, debounce_ms: int = 50, recheck_s: float = 5.0
) -> AsyncGenerator[FileSignature | None, None]:
    """Yields what `path` leads to, at once and whenever it is another content than before; None: nothing.

    The directories of the path and of where its symlinks lead are watched, so renames over it, its creation
    and removal, and swapped symlinks are noticed at once. What no event tells (the directory itself appearing
    or being replaced, network file systems, no inotify watch left) is noticed after `recheck_s`.
    """
    seen = await asyncio.to_thread(signature_of, path)
    yield seen
    while True:
        directories = await asyncio.to_thread(_directories, path)
        async with aclosing(_wakes(directories, debounce_ms, recheck_s)) as wakes:
            async for _ in wakes:
                signature = await asyncio.to_thread(signature_of, path)
                if signature != seen:
                    seen = signature
                    yield signature
                if await asyncio.to_thread(_directories, path) != directories:
                    break


async def _wakes(directories: dict[str, int], debounce_ms: int, recheck_s: float) -> AsyncGenerator[None, None]:
    """Yields at every event in the directories, and at least every `recheck_s`."""
    try:
        if directories:
            events = awatch(
                *directories,
                watch_filter=None,
                debounce=debounce_ms,
                step=min(debounce_ms, 10),
                rust_timeout=max(1, int(recheck_s * 1000)),
                yield_on_timeout=True,
                recursive=False,
            )
            async with aclosing(events):
                async for _ in events:
                    yield
    except (OSError, RuntimeError):  # a directory went away, or the host has no inotify watch left
        pass
    await asyncio.sleep(recheck_s)
    yield


def _directories(path: Path) -> dict[str, int]:
    """The directories, with their inodes, in which an event may change what `path` leads to."""
    found = {}
    for directory in (os.path.abspath(path.parent), os.path.dirname(os.path.realpath(path))):
        with suppress(OSError):
            found[directory] = os.stat(directory).st_ino
    return found


def _signature(status: os.stat_result) -> FileSignature:
    return FileSignature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
