"""Calls to the file system: regular files alone, writes that are durable, and a thread for what blocks."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

MODE: Final = 0o640
DIRECTORY_MODE: Final = 0o750
TEMPORARY_SUFFIX: Final = ".new"

_T = TypeVar("_T")


async def in_thread(call: Callable[..., _T], *arguments: object) -> _T:
    """The result of a blocking call. A cancelled one is waited for: its files are still in use."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def open_regular(path: Path) -> int:
    """A descriptor to read from. O_NONBLOCK so that a FIFO in its place cannot hold the thread for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


def read_regular(path: Path) -> bytes:
    """All of it."""
    with open(open_regular(path), "rb") as file:
        return file.read()


def temporary(path: Path) -> Path:
    """Where the next content of a file is written, until `put_in_place`."""
    return path.with_name(path.name + TEMPORARY_SUFFIX)


def create_temporary(path: Path) -> Path:
    """An empty file of our mode, and the directory for it."""
    directory, new = path.parent, temporary(path)
    if not directory.is_dir():
        directory.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
        _sync(directory.parent)
    remove(new)
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE))
    return new


def put_in_place(path: Path) -> None:
    """What is at `temporary(path)` is durable, and then the file."""
    _sync(temporary(path))
    os.rename(temporary(path), path)
    _sync(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Durable, and all of it or nothing."""
    create_temporary(path).write_bytes(content)
    put_in_place(path)


def remove(path: Path) -> None:
    """As far as that can be done; nothing happens if it is not there."""
    with suppress(OSError):
        path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
