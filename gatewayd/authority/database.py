"""The reference registry's SQLite database: registrations, the audit of every change, publications.

One connection, used by one thread. Every change goes through `apply`, which compares, audits and stores in one
transaction: what is equal is no change and leaves no trace, and a change without its row in the audit cannot
be. WAL: a publication reads one moment of it for as long as it takes, while imports go on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from gatewayd.errors import RegistryUnusable
from gatewayd.feed.canonical import write_time

Action = Literal["import", "upsert", "revoke", "suspend", "withdraw"]

BUSY_TIMEOUT_S: Final = 60.0
"""How long a writer waits for another one; an import of a million holds the database for some ten seconds."""

MAX_LISTED: Final = 1000
"""Changes of one call that are listed; the audit has all of them."""

_AUDIT: Final = "sequence, at, action, actor, id, before, after"
_JOINED: Final = "FROM temp.incoming LEFT JOIN registrations ON registrations.id = incoming.id"
_ENDED: Final = """
coalesce(json_extract(registrations.record, '$.status') IN ('suspended', 'revoked')
         AND json_extract(incoming.record, '$.status') = 'active', 0)
"""
"""An end that was decided. A list that was made before it still says active."""

_INSTRUCTIONS_PER_TURN: Final = 1_000_000
"""Of SQLite's virtual machine, between two calls of `on_turn`."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One change. `before` None: added; `after` None: withdrawn."""

    sequence: int
    at: str
    action: Action
    actor: str
    id: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a list of records. `withdrawn` is 0 unless the list was to replace everything.

    `rows`: the first MAX_LISTED changes, additions last. `inactive`: ids that stay suspended or revoked, though the
    list has them active, with their status: the first MAX_LISTED of `not_reactivated`.
    """

    added: int
    changed: int
    unchanged: int
    withdrawn: int
    not_reactivated: int = 0
    rows: tuple[AuditRow, ...] = field(default=(), compare=False)
    inactive: tuple[tuple[str, str], ...] = ()

    @property
    def has_changes(self) -> bool:
        return self.added + self.changed + self.withdrawn > 0


@dataclass(frozen=True, slots=True)
class Publication:
    """One serial of a session. `issued_at_s`: of its latest notification. `sequence`: last audit row in it."""

    session: str
    serial: int
    issued_at_s: float
    sequence: int


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file of the feed. `path`: below the directory. `count`: lines. `retired_at_s`: None while in use."""

    path: str
    sha256: str
    size: int
    count: int
    retired_at_s: float | None = None


class RegistryDatabase:
    """Opens and, if need be, makes or migrates the database at `path`. Raises RegistryUnusable.

    `on_turn` is called now and then during long statements (for a progress bar).
    """

    def __init__(self, path: Path, *, may_create: bool = True, on_turn: Callable[[], None] | None = None) -> None:
        self.path = path
        if not may_create and not path.is_file():
            raise RegistryUnusable(str(path), "there is no such database; `gatewayd registry import` makes one")
        self._refuse_newer()
        try:
            self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        except sqlite3.Error as error:
            raise RegistryUnusable(str(path), str(error)) from None
        try:
            with self._faults():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise
        if on_turn is not None:
            call = on_turn
            self._connection.set_progress_handler(lambda: call() or 0, _INSTRUCTIONS_PER_TURN)

    def close(self) -> None:
        """Ends the connection; a transaction that is open is undone."""
        self._connection.close()

    def __enter__(self) -> RegistryDatabase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading

    @contextmanager
    def one_moment(self) -> Iterator[None]:
        """Everything read inside is of one moment, however long it takes and whatever others write."""
        with self._faults():
            self._connection.execute("BEGIN")
            try:
                self._connection.execute("SELECT count(*) FROM sqlite_schema")
                yield
            finally:
                self._connection.execute("ROLLBACK")  # nothing was written

    def count(self) -> int:
        """How many registrations there are, of every status."""
        return self._number("SELECT count(*) FROM registrations")

    def record_of(self, id: str) -> str | None:
        """The registration in canonical form; None if there is none."""
        with self._faults():
            row = self._connection.execute("SELECT record FROM registrations WHERE id = ?", (id,)).fetchone()
        return None if row is None else str(row[0])

    def records(self) -> Iterator[str]:
        """All registrations in canonical form, in order of id (of its bytes)."""
        for (record,) in self._connection.execute("SELECT record FROM registrations ORDER BY id"):
            yield record

    def sequence(self) -> int:
        """The last row of the audit; 0 = there is none."""
        return self._number("SELECT coalesce(max(sequence), 0) FROM audit")

    def changes_since(self, sequence: int) -> Iterator[tuple[str, str | None]]:
        """(id, record now) of all that differ from what they were after row `sequence`, in order of id.

        None: withdrawn. What changed and changed back is not among them. The cost is that of the changes, not of
        the registry.
        """
        rows = self._connection.execute(
            """
            SELECT touched.id, registrations.record
            FROM (SELECT id, min(sequence) AS first FROM audit WHERE sequence > ? GROUP BY id) AS touched
            JOIN audit ON audit.sequence = touched.first
            LEFT JOIN registrations ON registrations.id = touched.id
            WHERE registrations.record IS NOT audit.before
            ORDER BY touched.id
            """,
            (sequence,),
        )
        yield from rows

    def history(self, id: str | None = None, most: int = 100) -> list[AuditRow]:
        """The latest `most` changes, of one registration or of all; the latest first."""
        where, arguments = ("", ()) if id is None else ("WHERE id = ?", (id,))
        with self._faults():
            rows = self._connection.execute(
                f"SELECT {_AUDIT} FROM audit {where} ORDER BY sequence DESC LIMIT ?",
                (*arguments, most),
            )
            return [AuditRow(*row) for row in rows]

    def last_publication(self) -> Publication | None:
        """The latest; None before the first."""
        with self._faults():
            row = self._connection.execute(
                "SELECT session, serial, issued_at, sequence FROM publications ORDER BY number DESC LIMIT 1"
            ).fetchone()
        return None if row is None else Publication(*row)

    def files(self) -> dict[str, PublishedFile]:
        """The files of the feed that are or were in a notification, and are not deleted yet, by path."""
        with self._faults():
            rows = self._connection.execute("SELECT path, sha256, size, count, retired_at FROM files")
            return {row[0]: PublishedFile(*row) for row in rows}

    # Writing

    def apply(
        self,
        records: Iterable[tuple[str, str]],
        *,
        at_s: float,
        action: Action,
        actor: str,
        is_all: Callable[[], bool] = lambda: False,
        reactivates: bool = False,
        dry_run: bool = False,
    ) -> Applied:
        """Stores (id, canonical record) pairs, each id once, all or nothing.

        What is suspended or revoked stays so, whatever the pairs say of it, unless `reactivates`.
        `is_all`, asked when `records` is used up: what is not among them is withdrawn. `dry_run`: everything is
        done and then undone. Whatever `records` raises undoes it all too.
        """
        with self._faults(), self._transaction(keep=not dry_run):
            execute = self._connection.execute
            execute("CREATE TEMP TABLE incoming (id TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID")
            self._connection.executemany("INSERT INTO temp.incoming VALUES (?, ?)", records)
            incoming = self._number("SELECT count(*) FROM temp.incoming")
            stamp = (write_time(at_s), action, actor)
            first = self.sequence()
            differs = f"{_JOINED} WHERE registrations.record IS NOT incoming.record"
            ended = f"SELECT incoming.id, json_extract(registrations.record, '$.status') {differs} AND {_ENDED}"
            inactive = () if reactivates else tuple(execute(ended))
            execute(
                f"""
                INSERT INTO audit (at, action, actor, id, before, after)
                SELECT ?, ?, ?, incoming.id, registrations.record, incoming.record {differs} AND (? OR NOT {_ENDED})
                ORDER BY incoming.id
                """,
                (*stamp, reactivates),
            )
            added = self._number("SELECT count(*) FROM audit WHERE sequence > ? AND before IS NULL", first)
            changed = self._number("SELECT count(*) FROM audit WHERE sequence > ?", first) - added
            execute("INSERT OR REPLACE INTO registrations SELECT id, after FROM audit WHERE sequence > ?", (first,))
            withdrawn = self._withdraw_others(stamp) if is_all() else 0
            execute("DROP TABLE temp.incoming")
            order = f"ORDER BY before IS NULL, sequence LIMIT {MAX_LISTED}"
            rows = execute(f"SELECT {_AUDIT} FROM audit WHERE sequence > ? {order}", (first,))
            listed = tuple(AuditRow(*row) for row in rows)
        unchanged = incoming - added - changed - len(inactive)
        return Applied(added, changed, unchanged, withdrawn, len(inactive), listed, inactive[:MAX_LISTED])

    def _withdraw_others(self, stamp: tuple[str, str, str]) -> int:
        """Withdraws what is not in temp.incoming."""
        others = "FROM registrations WHERE id NOT IN (SELECT id FROM temp.incoming)"
        self._connection.execute(
            "INSERT INTO audit (at, action, actor, id, before, after) "
            f"SELECT ?, ?, ?, id, record, NULL {others} ORDER BY id",
            stamp,
        )
        return self._connection.execute(f"DELETE {others}").rowcount

    def note_publication(
        self, previous: Publication | None, publication: Publication, files: Iterable[PublishedFile]
    ) -> bool:
        """Writes down what is about to be announced; False, and nothing is, if `previous` is not the last one.

        The same session and serial as `previous`: it is issued anew.
        """
        with self._faults(), self._transaction():
            if self.last_publication() != previous:
                return False
            self._connection.execute(
                "INSERT INTO publications (session, serial, issued_at, sequence) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (session, serial) DO UPDATE "
                "SET issued_at = excluded.issued_at, sequence = excluded.sequence",
                (publication.session, publication.serial, publication.issued_at_s, publication.sequence),
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
                ((file.path, file.sha256, file.size, file.count, file.retired_at_s) for file in files),
            )
        return True

    def forget_files(self, paths: Iterable[str]) -> None:
        """These files are deleted."""
        with self._faults(), self._transaction():
            self._connection.executemany("DELETE FROM files WHERE path = ?", ((path,) for path in paths))

    # The connection

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA temp_store = MEMORY")
        self._connection.execute("PRAGMA cache_size = -65536")
        if self._number("PRAGMA user_version") < VERSION:
            with self._transaction():
                for version in range(self._number("PRAGMA user_version"), VERSION):
                    for statement in MIGRATIONS[version]:
                        self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {VERSION}")

    def _refuse_newer(self) -> None:
        """Before it is opened for writing, which changes a file where a log of a killed process lies beside it. One
        that may only read would make a log where there is none."""
        if not self.path.is_file():
            return
        has_log = Path(f"{self.path}-wal").exists()
        address = f"file:{quote(str(self.path))}?mode=ro{'' if has_log else '&immutable=1'}"
        found = 0
        with suppress(sqlite3.Error):  # the opening that follows says what is wrong
            connection = sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            with closing(connection):
                ((found,),) = connection.execute("PRAGMA user_version").fetchall()
        if found > VERSION:
            why = f"was written by a newer gatewayd (schema {found}, known up to {VERSION})"
            raise RegistryUnusable(str(self.path), why)

    def _number(self, statement: str, *arguments: object) -> int:
        return int(self._connection.execute(statement, arguments).fetchone()[0])

    @contextmanager
    def _transaction(self, keep: bool = True) -> Iterator[None]:
        """BEGIN IMMEDIATE, then COMMIT; ROLLBACK when it raises or is not to be kept."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT" if keep else "ROLLBACK")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """SQLite's errors as ours: a full disk, a file that is no database, a lock that is never released."""
        try:
            yield
        except sqlite3.Error as error:
            raise RegistryUnusable(str(self.path), str(error)) from None


MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """
        CREATE TABLE registrations (
            id TEXT NOT NULL PRIMARY KEY,
            record TEXT NOT NULL  -- canonical JSON (canonical.py)
        ) WITHOUT ROWID
        """,
        # The audit is the change log too: a delta is what stands after the `sequence` of the last publication.
        """
        CREATE TABLE audit (
            sequence INTEGER PRIMARY KEY AUTOINCREMENT,
            at TEXT NOT NULL,      -- RFC 3339, UTC
            action TEXT NOT NULL,  -- import, upsert, revoke, suspend, withdraw
            actor TEXT NOT NULL,
            id TEXT NOT NULL,
            before TEXT,           -- canonical JSON; NULL: there was none
            after TEXT             -- canonical JSON; NULL: withdrawn
        )
        """,
        "CREATE INDEX audit_by_id ON audit (id, sequence)",
        "CREATE TRIGGER audit_is_not_rewritten BEFORE UPDATE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit is only appended to'); END",
        "CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit is only appended to'); END",
        """
        CREATE TABLE publications (
            number INTEGER PRIMARY KEY,
            session TEXT NOT NULL,
            serial INTEGER NOT NULL,
            issued_at REAL NOT NULL,    -- Unix seconds, of the last notification with this serial
            sequence INTEGER NOT NULL,  -- the last row of the audit that is in it
            UNIQUE (session, serial)
        )
        """,
        """
        CREATE TABLE files (
            path TEXT NOT NULL PRIMARY KEY,  -- below the directory that is published
            sha256 TEXT NOT NULL,
            size INTEGER NOT NULL,
            count INTEGER NOT NULL,          -- lines
            retired_at REAL                  -- Unix seconds; NULL: in the notification
        ) WITHOUT ROWID
        """,
    ),
)
"""Statements of each step. The step from version n to n + 1 is `MIGRATIONS[n]`."""

VERSION: Final = len(MIGRATIONS)
