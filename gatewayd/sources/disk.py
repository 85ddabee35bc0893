"""The few calls to the file system that the last good is made of, so that a test can end us after each.

Blocking: `store` makes them in a thread. Whatever fails is an OSError.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

MODE: Final = 0o640
DIRECTORY_MODE: Final = 0o750


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


def remove_others(files: Files, directory: Path, keep: Iterable[str]) -> None:
    """Unlink what is in `directory` and not to be kept, as far as that can be done."""
    kept = frozenset(keep)
    with suppress(OSError):
        for name in files.list(directory):
            if name not in kept:
                with suppress(OSError):
                    files.unlink(directory / name)
