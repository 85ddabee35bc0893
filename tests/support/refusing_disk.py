"""A disk that refuses when it is told to, as the last good's way to it."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

from gatewayd.sources.files import replace_file, temporary


class RefusingDisk:
    """The host's, until it is told to be full or read-only. `connect` and `replace` are for LastGood."""

    def __init__(self) -> None:
        self._refusal: tuple[int, str] | None = None

    def fill(self) -> None:
        self._refusal = errno.ENOSPC, "database or disk is full"

    def make_read_only(self) -> None:
        """As the kernel: a file that is there is not written, and a new one is not made."""
        self._refusal = errno.EROFS, "attempt to write a readonly database"

    def mend(self) -> None:
        self._refusal = None

    def replace(self, path: Path, content: bytes) -> None:
        if self._refusal is not None:
            raise OSError(self._refusal[0], os.strerror(self._refusal[0]))
        replace_file(path, content)

    def connect(self, name: str, **options: Any) -> sqlite3.Connection:
        if self._refusal is not None and self._refusal[0] == errno.EROFS and temporary(Path("x")).suffix in name:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        connection: _Connection = sqlite3.connect(name, factory=_Connection, **options)
        connection.disk = self
        return connection

    def check(self, statement: str) -> None:
        if self._refusal is not None and not statement.startswith(("SELECT", "PRAGMA", "BEGIN")):
            raise sqlite3.OperationalError(self._refusal[1])


class _Connection(sqlite3.Connection):
    disk: RefusingDisk

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.disk.check(statement)
        return super().execute(statement, parameters)
