"""The few calls to the file system that the last good is made of, so that a test can end us after each.

Blocking calls: `in_thread` makes them. Whatever fails is an OSError. `GuardFile` is one file, replaced whole.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

from gatewayd.log import get_logger

log = get_logger(__name__)

MODE: Final = 0o640
DIRECTORY_MODE: Final = 0o750
READ_BYTES: Final = 256 * 1024

_T = TypeVar("_T")


class Files(Protocol):
    """Descriptors are ints of the implementation's own."""

    def make_directory(self, path: Path) -> None:
        """With its parents; nothing happens if it is there."""

    def list(self, directory: Path) -> list[str]:
        """The names in it."""

    def create(self, path: Path) -> int:
        """Opened for writing, empty, whatever was there before."""

    def open_at(self, path: Path, size_bytes: int) -> int:
        """Opened for writing at its end, cut to this size first; created if it is not there."""

    def write(self, descriptor: int, content: bytes) -> None:
        """All of it."""

    def sync(self, descriptor: int) -> None: ...
    def close(self, descriptor: int) -> None: ...
    def rename(self, old: Path, new: Path) -> None: ...
    def sync_directory(self, path: Path) -> None: ...
    def unlink(self, path: Path) -> None: ...

    def open_to_read(self, path: Path) -> int:
        """A regular file; anything else is an OSError."""

    def read(self, descriptor: int, size_bytes: int) -> bytes:
        """Up to so many bytes; none at the end."""


class RealFiles:
    """The host's file system."""

    def make_directory(self, path: Path) -> None:
        path.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)

    def list(self, directory: Path) -> list[str]:
        return os.listdir(directory)

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)

    def open_at(self, path: Path, size_bytes: int) -> int:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        try:
            os.ftruncate(descriptor, size_bytes)
            os.lseek(descriptor, size_bytes, os.SEEK_SET)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def write(self, descriptor: int, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def open_to_read(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("not a regular file")
        return descriptor

    def read(self, descriptor: int, size_bytes: int) -> bytes:
        return os.read(descriptor, size_bytes)


def write_durably(files: Files, path: Path, content: bytes) -> None:
    """Replace `path` whole: temp, fsync, rename. The name is durable after `sync_directory`."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = files.create(temporary)
    try:
        files.write(descriptor, content)
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    files.rename(temporary, path)


def remove_others(files: Files, directory: Path, names: Iterable[str]) -> None:
    """Unlink what is in `directory` and not among `names`, as far as that can be done."""
    kept = frozenset(names)
    with suppress(OSError):
        for name in files.list(directory):
            if name not in kept:
                with suppress(OSError):
                    files.unlink(directory / name)


async def in_thread(call: Callable[..., _T], *arguments: object) -> _T:
    """The result of a blocking call. A cancelled one is waited for: its files are still in use."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


class GuardFile:
    """One file of `state_dir`: what the guard knows. Written only when its content is another; no disk makes it
    raise."""

    def __init__(self, files: Files, path: Path) -> None:
        self.path = path
        self.error: str | None = None
        """Why the latest save failed; None if it did not."""
        self._files = files
        self._saved: bytes | None = None
        self._saving = asyncio.Lock()

    async def load(self) -> bytes | None:
        """What was saved; None if there is nothing that can be read."""
        try:
            self._saved = await in_thread(self._read)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("guard.unreadable", file=str(self.path), error=error.strerror or str(error))
            return None
        return self._saved

    async def save(self, content: bytes) -> bool:
        """Make it durable, after what was to be saved before; whether it is."""
        async with self._saving:
            if content == self._saved:
                return True
            try:
                await in_thread(self._write, content)
            except OSError as error:
                why = error.strerror or str(error)
                if why != self.error:
                    log.error("guard.not_saved", file=str(self.path), error=why)
                self.error = why
                return False
            self._saved, self.error = content, None
            return True

    def _read(self) -> bytes:
        descriptor = self._files.open_to_read(self.path)
        try:
            chunks = []
            while chunk := self._files.read(descriptor, READ_BYTES):
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            self._files.close(descriptor)

    def _write(self, content: bytes) -> None:
        self._files.make_directory(self.path.parent)
        write_durably(self._files, self.path, content)
        self._files.sync_directory(self.path.parent)
