"""The journal's SQLite file: opened or created again, read, written. One connection, used by one thread.

What is written is on disk when `write` returns: write-ahead log, synchronous=FULL. The file is ours alone
(locking_mode=EXCLUSIVE), which spares the shared memory file as well; a second gatewayd finds it locked. What is
deleted is overwritten (secure_delete).

A file that is damaged, or of an older version, is set aside under another name and a new one is begun. A file of a
newer version of gatewayd is left as it is, and so is one that cannot be opened for another reason (locked, disk
full, no permission). Of a damaged file each row that can be read is kept. What was written and is not there any
more is noticed by a mark beside it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar
from zlib import crc32

import msgspec

from gatewayd.filesystem import open_ours, read_ours
from gatewayd.log import get_logger
from gatewayd.model.decoding import UNDECODABLE
from gatewayd.state_file.file import (
    BESIDE,
    BUSY_TIMEOUT_S,
    FILE_ERRORS,
    FileNewer,
    FileUnfit,
    inode_of,
    is_damage,
    prepare,
    put_aside,
    reason_of,
    refuse_newer,
    sync_directory,
)
from gatewayd.subscribers.journal_rows import (
    VERSION,
    ClockMark,
    JournalStats,
    Key,
    Row,
    decode_row,
    encode_key,
    encode_value,
)

MODE: Final = 0o600

_MARK_BYTES: Final = 80
"""Of two numbers of twenty digits, a token of 16, a checksum of 8: a line is written over the one before."""
_PUT: Final = "INSERT INTO row (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_PUT_META: Final = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
_DELETE: Final = "DELETE FROM row WHERE key = ?"

logger = get_logger(__name__)


class Written(msgspec.Struct, frozen=True, array_like=True):
    """Groups, and rows put or deleted, since the file was begun."""

    groups: int = 0
    rows: int = 0


def _read_mark(path: Path) -> tuple[str, Written] | None:
    """Of the file beside the database: its token, and what was written to it last."""
    with suppress(OSError, ValueError):
        token, groups, rows, checksum = read_ours(path).decode("ascii").split()
        if checksum == _checksum_of(f"{token} {groups} {rows}"):
            return token, Written(int(groups), int(rows))
    return None


def _put_mark(path: Path, token: str, written: Written) -> None:
    """After the group was on disk, and not synced, so it may be older than the database, but not newer. Raises
    nothing: without it a loss goes unseen."""
    text = f"{token} {written.groups} {written.rows}"
    line = f"{text} {_checksum_of(text)}".ljust(_MARK_BYTES - 1) + "\n"
    with suppress(OSError):
        descriptor = open_ours(path, os.O_WRONLY | os.O_CREAT, MODE)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(line.encode())


def _checksum_of(text: str) -> str:
    return f"{crc32(text.encode()):08x}"


class JournalFile:
    """`was_recreated`: the rows that `open` returned are not in the file any more, or what was in it is not known.
    It is empty but for what was written since. The caller that has written everything again sets it to False.
    `last_moment`: when the last group was written that `open` found."""

    def __init__(self, path: Path, stats: JournalStats | None = None) -> None:
        self.stats = stats or JournalStats()
        self.was_recreated = False
        self.last_moment: ClockMark | None = None
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self._token: str | None = None
        self._written = Written()
        self._mark = Path(f"{path}.mark")

    def open(self) -> tuple[Row, ...]:
        """What it holds; nothing, if it had to be begun. Raises sqlite3.Error or OSError: nothing was changed.

        On a disk that takes no writes, which SQLite needs for reading too, it is read in a copy elsewhere.
        """
        try:
            rows = self._open()
        except FILE_ERRORS as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise
            copied = self._read_copy()
            if copied is None:
                raise
            logger.warning("journal.read_in_copy", reason=reason_of(error))
            rows = copied
        if (stats := self.stats).lost_groups or stats.lost_rows:
            logger.error(
                "journal.lost",
                file=str(self._path),
                groups=stats.lost_groups,
                rows=stats.lost_rows,
                whole=stats.lost_whole,
                salvaged=stats.salvaged,
            )
        return rows

    def _open(self) -> tuple[Row, ...]:
        try:
            connection, self._token = self._connect()
            try:
                rows = self._read_rows(connection)
                self._look_for_loss()
                return rows
            except (FileUnfit, sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not isinstance(error, FileUnfit) and not is_damage(error):
                    raise
                rows, reached = _salvage(connection)
                self._put_aside(error)
            _, self._token = self._connect()
            self.was_recreated = bool(rows)
            self._look_for_loss(len(rows), reached)
            return rows
        except BaseException:
            self.close()
            self._token = None
            raise

    def write(self, rows: Iterable[Row], moment: ClockMark | None = None) -> None:
        """All, or none; on disk afterwards. Raises sqlite3.Error or OSError: none, and the next call opens the file
        again."""
        try:
            connection = self._opened()
            written = _write_rows(connection, rows, moment, self._written)
        except FILE_ERRORS as error:
            if is_damage(error):
                self._put_aside(error)
            self.close()
            raise
        self._written = written
        _put_mark(self._mark, self._token or "", written)

    def close(self) -> None:
        """Raises nothing. What was written stays written."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                logger.warning("journal.not_closed", error=reason_of(error))

    def _opened(self) -> sqlite3.Connection:
        """The connection; another one after a failure, or if the file was removed or replaced under it."""
        if self._connection is not None:
            if inode_of(self._path) == self._inode:
                return self._connection
            logger.warning("journal.file_replaced", file=str(self._path))
            self.close()
            # SQLite leaves the log of a file that was moved, and would take it for that of the next file.
            for suffix in BESIDE[1:]:
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        connection, token = self._connect()
        if token != self._token:
            connection.execute("DELETE FROM row")
            self._token = token
            self._written = Written()
            self.was_recreated = True
        return connection

    def _connect(self) -> tuple[sqlite3.Connection, str]:
        """A connection to a sound file, and the file's token."""
        try:
            return self._connect_once()
        except FileNewer:
            raise
        except FileUnfit as error:
            self._put_aside(error)
        return self._connect_once()

    def _connect_once(self) -> tuple[sqlite3.Connection, str]:
        refuse_newer(self._path, _check_version)
        prepare(self._path, MODE)
        self._connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            token = _read_token(self._connection)
            if token is None:
                token = _begin(self._connection)
                sync_directory(self._path.parent)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if is_damage(error) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
                raise FileUnfit(reason_of(error)) from error
            raise
        self._inode = inode_of(self._path)
        return self._connection, token

    def _read_rows(self, connection: sqlite3.Connection) -> tuple[Row, ...]:
        ((verdict,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise FileUnfit(str(verdict).replace("\n", " "))
        found = [
            decode_row(key, value) if type(key) is type(value) is bytes else None
            for key, value in connection.execute("SELECT key, value FROM row")
        ]
        rows = tuple(row for row in found if row is not None)
        self.stats.skipped = len(found) - len(rows)
        self.last_moment = _read_meta(connection, "moment", ClockMark)
        self._written = _read_meta(connection, "written", Written) or Written()
        return rows

    def _look_for_loss(self, salvaged: int = 0, reached: Written | None = None) -> None:
        """SQLite cuts off a write-ahead log at the first frame that is damaged, and says nothing. What was written
        later by the mark is lost. `salvaged`: rows of a file set aside; `reached`: written to it, if known."""
        mark = _read_mark(self._mark)
        if mark is None:
            return
        token, marked = mark
        is_tail = token == self._token
        before = self._written if is_tail else Written(reached.groups if reached else 0, salvaged)
        groups, rows = max(marked.groups - before.groups, 0), max(marked.rows - before.rows, 0)
        if groups or (rows and not is_tail):
            self.stats.lost_groups, self.stats.lost_rows = groups, rows
            self.stats.lost_whole, self.stats.salvaged = not is_tail, salvaged

    def _read_copy(self) -> tuple[Row, ...] | None:
        """None if that is not possible either, or there is nothing whole to be read."""
        try:
            with TemporaryDirectory(prefix="gatewayd-") as directory:
                copy = JournalFile(Path(directory) / self._path.name)
                for suffix in ("", "-wal", ".mark"):
                    if (source := Path(f"{self._path}{suffix}")).is_file():
                        shutil.copyfile(source, f"{copy._path}{suffix}")
                rows = copy._open()
                copy.close()
        except FILE_ERRORS:
            return None
        if copy.stats.set_aside or not (rows or copy.stats.lost_groups or copy.stats.lost_rows):
            return None
        self._token, self._written, self.last_moment = copy._token, copy._written, copy.last_moment
        for each in fields(JournalStats):
            setattr(self.stats, each.name, getattr(copy.stats, each.name))
        return rows

    def _put_aside(self, reason: Exception) -> None:
        self.close()
        self.stats.set_aside += 1
        target = put_aside(self._path)
        logger.error("journal.set_aside", file=str(self._path), to=target.name, reason=str(reason))


def _read_token(connection: sqlite3.Connection) -> str | None:
    """What the file was named when it was begun; None for one that is empty."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not tables:
        return None
    if not {"meta", "row"} <= tables:
        raise FileUnfit("it has other tables")
    _check_version(connection)
    ((token,),) = connection.execute("SELECT value FROM meta WHERE name = 'token'").fetchall() or ((None,),)
    return str(token)


def _check_version(connection: sqlite3.Connection) -> None:
    """Raises FileUnfit: it is of another version. Raises sqlite3.Error where there is no table of it."""
    ((version,),) = connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchall() or ((None,),)
    if type(version) is int and version > VERSION:
        raise FileNewer(f"a newer gatewayd wrote it (version {version}, and {VERSION} is read)")
    if version != VERSION:
        raise FileUnfit(f"it is of version {version!r}, and {VERSION} is read")


_Meta = TypeVar("_Meta", ClockMark, Written)


def _read_meta(connection: sqlite3.Connection, name: str, type_: type[_Meta]) -> _Meta | None:
    """What was written with the last group; None if there is nothing, or nothing that can be read."""
    for (value,) in connection.execute("SELECT value FROM meta WHERE name = ?", (name,)):
        with suppress(TypeError, *UNDECODABLE):
            return msgspec.msgpack.decode(value, type=type_)
    return None


def _begin(connection: sqlite3.Connection) -> str:
    token = os.urandom(8).hex()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
    connection.execute("CREATE TABLE row (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    connection.executemany("INSERT INTO meta VALUES (?, ?)", [("version", VERSION), ("token", token)])
    connection.execute("COMMIT")
    return token


def _write_rows(
    connection: sqlite3.Connection, rows: Iterable[Row], moment: ClockMark | None, before: Written
) -> Written:
    """What was written with it."""
    puts, deletions = [], []
    for row in rows:
        key = encode_key(row.key)
        if row.value is None:
            deletions.append((key,))
        else:
            puts.append((key, encode_value(key, row.value)))
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_DELETE, deletions)
    connection.executemany(_PUT, puts)
    if moment is not None:
        connection.execute(_PUT_META, ("moment", msgspec.msgpack.encode(moment)))
    written = Written(before.groups + 1, before.rows + len(puts) + len(deletions))
    connection.execute(_PUT_META, ("written", msgspec.msgpack.encode(written)))
    connection.execute("COMMIT")
    return written


def _salvage(connection: sqlite3.Connection) -> tuple[tuple[Row, ...], Written | None]:
    """What can be read of a damaged file, from either end; each row has a checksum of its own. And what it says was
    written to it."""
    found: dict[Key, Row] = {}
    for order in ("ASC", "DESC"):
        with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
            for key, value in connection.execute(f"SELECT key, value FROM row ORDER BY key {order}"):
                row = decode_row(key, value) if type(key) is type(value) is bytes else None
                if row is not None:
                    found[row.key] = row
    reached = None
    with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        reached = _read_meta(connection, "written", Written)
    return tuple(found.values()), reached
