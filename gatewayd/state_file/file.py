"""A SQLite file in the state directory: opened or begun, set aside when it is damaged, used in a thread of its own.

Nothing that is in such a file is needed for traffic: whatever is wrong with it costs what it would have kept. The
caller is told, goes on, and tries again with its next write.

- Write-ahead log, synchronous=FULL: what `use` has done is on disk when it returns.
- The file is ours alone (locking_mode=EXCLUSIVE), which spares the shared memory file; a second gatewayd finds it
  locked.
- A file that is damaged is renamed (`.damaged-1`, the newest two stay), and a new one begun.
- A file of a newer version of gatewayd is left as it is, and nothing is kept. So is one that cannot be opened for
  another reason: locked, disk full, no permission.

The functions are for files with an opening of their own (subscribers.journal_file).
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from gatewayd.errors import GatewaydError
from gatewayd.filesystem import create_new, is_strange_link
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.decoding import printable
from gatewayd.state_file.view import StateFileView

MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o750
MAX_SET_ASIDE: Final = 2
"""Files that are kept of those found damaged; the oldest go."""
BUSY_TIMEOUT_S: Final = 2.0
"""How long to wait for another process that has the file locked, such as a gatewayd that is about to end."""
CLOSE_S: Final = 10.0
"""For the last write; a disk that hangs must not keep the daemon from ending."""
BESIDE: Final = ("", "-wal", "-shm", "-journal")
"""What SQLite has beside a file; a log left behind would be taken for that of the next file."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SAY_AGAIN_S: Final = 600.0
_T = TypeVar("_T")

log = get_logger(__name__)


FILE_ERRORS: Final = (sqlite3.Error, OSError, UnicodeDecodeError)
"""What comes of a file. SQLite's sentence on a damaged schema has bytes of it, which Python 3.11 cannot decode."""


class StateFileUnusable(GatewaydError):
    """Nothing of this call is in the file; the next one tries again."""

    def __init__(self, file: str, why: str) -> None:
        self.file = file
        super().__init__(f"{file}: {why}", why)


class FileUnfit(OSError):
    """The file is not one of ours, or not whole; says why."""


class FileNewer(FileUnfit):
    """A newer version of gatewayd wrote it."""


@dataclass(frozen=True, slots=True)
class Schema:
    """`version`: 1 or more, PRAGMA user_version. `statements`: make the tables of an empty file."""

    version: int
    statements: tuple[str, ...]


class StateFile:
    """One file, with a thread of its own. `view` is what the status says of it.

    `use` is called from one loop; calls wait for each other. Raises nothing but StateFileUnusable for the file's
    faults; the transaction is undone then, and the next call opens the file again.
    """

    def __init__(self, path: Path, schema: Schema, view: StateFileView) -> None:
        self.view = view
        self._path = path
        self._schema = schema
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1, view.name)
        self._said = RateLimited(log, _SAY_AGAIN_S, time.monotonic)

    async def use(self, work: Callable[[sqlite3.Connection], _T], *, reads: bool = False) -> _T:
        """Run `work` in the thread, in one transaction. Raises StateFileUnusable, and what `work` raises itself.

        `reads`: it writes nothing, so that it says nothing of a disk that is full.
        """
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._use, work)
        except FILE_ERRORS as error:
            self._fail(error)
            raise StateFileUnusable(self._path.name, reason_of(error)) from None
        if reads:
            return found
        if self.view.state != "ok" and self.view.last_error is not None:
            log.info("state_file.recovered", file=self._path.name, failures=self.view.failures)
        self.view.state, self.view.last_error = "ok", None
        self.view.writes += 1
        return found

    def note_lost(self, total: int) -> None:
        """How many rows the caller has lost for want of room, since the start."""
        self.view.lost = total

    async def close(self) -> None:
        """After the last `use`. Raises nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        await asyncio.wait({closing}, timeout=CLOSE_S)
        self._thread.shutdown(wait=False)

    def _fail(self, error: Exception) -> None:
        view = self.view
        view.failures += 1
        is_news = view.last_error is None
        view.state, view.last_error = "newer" if isinstance(error, FileNewer) else "failing", reason_of(error)
        if is_news:
            self._said.warning("state_file.failed", file=self._path.name, error=view.last_error)

    # -- in the thread -------------------------------------------------------------------------------------

    def _use(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            found = work(connection)
            connection.execute("COMMIT")
            ((pages,),) = connection.execute("PRAGMA page_count")
            ((page_bytes,),) = connection.execute("PRAGMA page_size")
            self.view.size_bytes = pages * page_bytes
            return found
        except BaseException as error:
            self._close()  # which undoes the transaction
            if isinstance(error, Exception) and is_damage(error):
                self._put_aside(error)
            raise

    def _opened(self) -> sqlite3.Connection:
        """The connection; another one after a failure, or if the file was removed or replaced under it."""
        if self._connection is not None:
            if inode_of(self._path) == self._inode:
                return self._connection
            self._close()
            # SQLite leaves the log of a file that was moved, and would take it for that of the next file.
            for suffix in BESIDE[1:]:
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        try:
            return self._connect()
        except FileUnfit as error:
            self._close()
            if isinstance(error, FileNewer):
                raise
            self._put_aside(error)
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
        refuse_newer(self._path, lambda connection: check_version(connection, self._schema))
        prepare(self._path, MODE)
        # One thread uses it, which is another one when the last call comes from the end of the daemon.
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._connection = connection
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            if self._check(connection):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
            else:
                self._begin(connection)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if is_damage(error):
                raise FileUnfit(reason_of(error)) from error
            raise
        self._inode = inode_of(self._path)
        return connection

    def _check(self, connection: sqlite3.Connection) -> bool:
        """Whether something is in it. Raises FileUnfit."""
        check_version(connection, self._schema)
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return False
        ((verdict,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise FileUnfit(str(verdict).replace("\n", " "))
        return True

    def _begin(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in self._schema.statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {self._schema.version}")
        connection.execute("COMMIT")
        sync_directory(self._path.parent)

    def _put_aside(self, reason: Exception) -> None:
        target = put_aside(self._path)
        self.view.set_aside += 1
        log.error("state_file.set_aside", file=self._path.name, to=target.name, reason=reason_of(reason))

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def read_state_file(path: Path, schema: Schema, work: Callable[[sqlite3.Connection], _T]) -> _T:
    """For a command, while no daemon has the file. Writes nothing. Raises StateFileUnusable."""
    try:
        os.stat(path)
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None
        )
        try:
            check_version(connection, schema)
            return work(connection)
        finally:
            connection.close()
    except FILE_ERRORS as error:
        raise StateFileUnusable(path.name, reason_of(error)) from None


def check_version(connection: sqlite3.Connection, schema: Schema) -> None:
    """Raises FileUnfit: it is of another version."""
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    if version > schema.version:
        raise FileNewer(f"a newer gatewayd wrote it (version {version}, and {schema.version} is read)")
    if version != schema.version and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise FileUnfit(f"it is of version {version}, and {schema.version} is read")


def refuse_newer(path: Path, check: Callable[[sqlite3.Connection], object]) -> None:
    """Before it is opened for writing: `check` the file as it lies. Raises FileNewer, and nothing else."""
    connection = None
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return  # a pipe would keep the opening waiting
        connection = sqlite3.connect(address_to_read(path), uri=True, timeout=0, isolation_level=None)
        check(connection)
    except FileNewer:
        raise
    except FILE_ERRORS:
        return  # the opening that follows says what is wrong
    finally:
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def address_to_read(path: Path) -> str:
    """For a connection that leaves the file and its log byte for byte. One that may write changes them by opening
    and closing, where a log of an earlier run lies. One that may only read makes a log where there is none."""
    has_log = any(inode_of(Path(f"{path}{suffix}")) != (0, 0) for suffix in ("-wal", "-journal"))
    return f"file:{quote(str(path))}?mode=ro{'' if has_log else '&immutable=1'}"


def reason_of(error: Exception) -> str:
    """In words. SQLite's sentence has bytes of the file where these are no SQL."""
    if isinstance(error, UnicodeDecodeError):
        return "its schema is damaged"
    return printable((error.strerror if isinstance(error, OSError) else None) or str(error))


def is_damage(error: Exception) -> bool:
    """Whether it is the file that is wrong, and not the disk, the rights or the moment."""
    return isinstance(error, UnicodeDecodeError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def prepare(path: Path, mode: int) -> None:
    """A file of this mode is there. Raises FileUnfit: something that is no file is; OSError."""
    if is_strange_link(path):
        raise FileUnfit("it is a link of another user")
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if path.is_symlink():  # of an operator, to a disk that is not there yet
            raise OSError(errno.ENOENT, "it is a link to nothing") from None
        os.close(create_new(path, mode))
        return
    if not stat.S_ISREG(status.st_mode):
        raise FileUnfit("it is not a file")
    if stat.S_IMODE(status.st_mode) != mode:
        with suppress(OSError):
            os.chmod(path, mode)


def inode_of(path: Path) -> tuple[int, int]:
    """Device and inode; zeros where nothing is."""
    with suppress(FileNotFoundError):
        status = os.stat(path)
        return status.st_dev, status.st_ino
    return 0, 0


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_aside(path: Path) -> Path:
    """Rename it, with what SQLite has beside it, to the first free name after those there are. Of these the latest
    are kept. Raises OSError."""
    name = re.compile(re.escape(path.name) + r"\.damaged-([0-9]+)", re.ASCII)
    former = sorted((int(found[1]), each) for each in path.parent.iterdir() if (found := name.fullmatch(each.name)))
    target = path.with_name(f"{path.name}.damaged-{former[-1][0] + 1 if former else 1}")
    for suffix in BESIDE:
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{target}{suffix}")
    for _, old in former[: len(former) + 1 - MAX_SET_ASIDE]:
        for suffix in BESIDE:
            with suppress(OSError):
                os.unlink(f"{old}{suffix}")
    return target
