"""A file system in memory for the last good: it may end us in any call, refuse one, and lose its power."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

STATE = Path("/state")
"""The one directory that is there at first."""


class Ended(BaseException):
    """The process was killed here."""


class FakeFiles:
    """A file system in memory that may end us after any call, and knows what a power cut would leave.

    `ends_after`: calls that change something until the end. What a power cut leaves: names as of the last
    `sync_directory`, contents as of the last `sync`; a name that was made durable before its content is empty.
    """

    def __init__(self) -> None:
        self.names: dict[Path, int] = {}
        self.durable_names: dict[Path, int] = {}
        self.contents: dict[int, bytes] = {}
        self.durable: dict[int, bytes] = {}
        self.directories: set[Path] = {STATE}
        self.latest: Path | None = None
        self.calls = 0
        self.ends_after: int | None = None
        self.refuse: Callable[[str], int | None] = lambda call: None
        self._open: dict[int, tuple[int, int]] = {}
        self._next = 3

    def _change(self, call: str) -> bool:
        """Whether this call is the one in the middle of which we end."""
        number = self.refuse(call)
        if number is not None:
            raise OSError(number, os.strerror(number))
        if self.ends_after is not None and self.calls >= self.ends_after:
            if self.calls > self.ends_after:
                raise Ended
            self.calls += 1
            if call == "write":
                return True
            raise Ended
        self.calls += 1
        return False

    def after_power_cut(self) -> FakeFiles:
        left = FakeFiles()
        left.names = dict(self.durable_names)
        left.contents = {inode: self.durable.get(inode, b"") for inode in left.names.values()}
        return left._in_sync(self)

    def after_power_cut_out_of_order(self) -> FakeFiles:
        """The latest name reached the disk before those that were given earlier."""
        left = self.after_power_cut()
        if self.latest is not None and self.latest in self.names:
            inode = self.names[self.latest]
            left.names[self.latest] = inode
            left.contents[inode] = self.durable.get(inode, b"")
        return left._in_sync(self)

    def after_kill(self) -> FakeFiles:
        left = FakeFiles()
        left.names, left.contents = dict(self.names), dict(self.contents)
        return left._in_sync(self)

    def _in_sync(self, before: FakeFiles) -> FakeFiles:
        self.durable_names, self.durable = dict(self.names), dict(self.contents)
        self.directories = set(before.directories)
        self._next = before._next
        return self

    def _path_of(self, path: Path) -> int:
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.names[path]

    def _fresh(self) -> int:
        self._next += 1
        return self._next

    def make_directory(self, path: Path) -> None:
        self._change("make_directory")
        self.directories |= {path, *path.parents}

    def list(self, directory: Path) -> list[str]:
        number = self.refuse("list")
        if number is not None:
            raise OSError(number, os.strerror(number))
        if directory not in self.directories:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return [path.name for path in self.names if path.parent == directory]

    def list_all(self) -> tuple[str, ...]:
        return tuple(path.name for path in self.names)

    def create(self, path: Path) -> int:
        self._change("create")
        return self._opened(path, b"")

    def open_at(self, path: Path, size_bytes: int) -> int:
        self._change("open_at")
        inode = self.names.get(path)
        before = b"" if inode is None else self.contents[inode]
        return self._opened(path, before[:size_bytes], inode)

    def _opened(self, path: Path, content: bytes, inode: int | None = None) -> int:
        inode = self._fresh() if inode is None else inode
        self.names[path] = inode
        self.latest = path
        self.contents[inode] = content
        descriptor = self._fresh()
        self._open[descriptor] = (inode, 0)
        return descriptor

    def write(self, descriptor: int, content: bytes) -> None:
        is_cut = self._change("write")
        inode, _ = self._open[descriptor]
        self.contents[inode] += content[: len(content) // 2] if is_cut else content
        if is_cut:
            raise Ended

    def sync(self, descriptor: int) -> None:
        self._change("sync")
        inode, _ = self._open[descriptor]
        self.durable[inode] = self.contents[inode]

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def rename(self, old: Path, new: Path) -> None:
        self._change("rename")
        self.names[new] = self.names.pop(old)
        self.latest = new

    def sync_directory(self, path: Path) -> None:
        self._change("sync_directory")
        here = {name: inode for name, inode in self.names.items() if name.parent == path}
        elsewhere = {name: inode for name, inode in self.durable_names.items() if name.parent != path}
        self.durable_names = elsewhere | here

    def unlink(self, path: Path) -> None:
        self._change("unlink")
        self._path_of(path)
        del self.names[path]

    def open_to_read(self, path: Path) -> int:
        number = self.refuse("open_to_read")
        if number is not None:
            raise OSError(number, os.strerror(number))
        descriptor = self._fresh()
        self._open[descriptor] = (self._path_of(path), 0)
        return descriptor

    def read(self, descriptor: int, size_bytes: int) -> bytes:
        inode, offset = self._open[descriptor]
        content = self.contents[inode][offset : offset + size_bytes]
        self._open[descriptor] = (inode, offset + len(content))
        return content
