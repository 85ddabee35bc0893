"""Files that are whole or not there: temporary name, fsync, rename, fsync of the directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from gatewayd.errors import RegistryUnusable
from gatewayd.filesystem import create_new, refuse_other

TEMPORARY_SUFFIX: Final = ".tmp"


class Disk:
    """What is done to the disk, in steps. A test overrides `step` and ends the world at one of them."""

    def step(self, what: str, path: Path) -> None:
        """Called before each step."""

    def write(self, path: Path, pieces: Iterable[bytes], mode: int = 0o644) -> None:
        """Replaces `path`, making directories that are missing. Raises OSError; what was there stays then. So does
        what is no regular file.

        What is written again within a second is dated a second later: the ETag of nginx is size and second.
        """
        self._make_directory(path.parent)
        temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
        try:
            self.step("open", temporary)
            refuse_other(path)
            descriptor = create_new(temporary, mode)
            with open(descriptor, "wb") as stream:
                for piece in pieces:
                    self.step("write", temporary)
                    stream.write(piece)
                stream.flush()
                self.step("fsync", temporary)
                os.fsync(descriptor)
                _date_after(path, descriptor)
            self.step("rename", path)
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        self._sync_directory(path.parent)

    def remove(self, path: Path) -> None:
        """Deletes a file, and the directory it was the last in. What is gone already is no error."""
        self.step("unlink", path)
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()

    def _make_directory(self, path: Path) -> None:
        if path.is_dir():
            return
        self._make_directory(path.parent)
        self.step("mkdir", path)
        path.mkdir(exist_ok=True)
        self._sync_directory(path.parent)

    def _sync_directory(self, path: Path) -> None:
        self.step("fsync", path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _date_after(path: Path, descriptor: int) -> None:
    """The open file is of a later second than what is at `path`."""
    with suppress(FileNotFoundError):
        after_s = int(path.stat().st_mtime) + 1
        if os.fstat(descriptor).st_mtime < after_s:
            os.utime(descriptor, (after_s, after_s))


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds `directory`, which is made if need be, against another publisher. Raises RegistryUnusable."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RegistryUnusable(str(directory), error.strerror or str(error)) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RegistryUnusable(str(directory), "another publish is at work there") from None
        yield
    finally:
        os.close(descriptor)
