"""The file of one source's last good: rows of `last_good` in SQLite, read and written by blocking calls.

All of a source goes into a new file, which takes the place of the old one by a rename; a delta is a transaction on
the file that is there. The journal of SQLite is the rollback journal: the file can be read where nothing can be
written, and there is no write-ahead log that the next file could find beside it.

A connection is opened for each call, and what it did not commit is undone. Generators yield every few milliseconds.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from gatewayd.errors import LastGoodDamaged
from gatewayd.feed.canonical import Damaged, Newer
from gatewayd.filesystem import is_strange_link
from gatewayd.model import Registration
from gatewayd.model.registration import Changes, RejectedRecord, Slices
from gatewayd.sources.files import create_temporary, put_in_place, remove, temporary
from gatewayd.sources.last_good import (
    CHUNK,
    MAX_KEPT_REJECTIONS,
    ChunkReader,
    Head,
    Reached,
    Restored,
    RowKind,
    decode_head,
    encode_changes,
    encode_chunk,
    encode_head,
    seal,
    unseal,
)

CHUNKS_A_STEP: Final = 4
"""Encoded or decoded between two yields: some 10 ms."""
BUSY_TIMEOUT_S: Final = 30.0
"""How long a delta waits for `gatewayd plan` to have read the file."""

_TABLE: Final = "CREATE TABLE row (kind TEXT, number INTEGER, content BLOB, PRIMARY KEY (kind, number))"
_PUT: Final = "INSERT OR REPLACE INTO row VALUES (?, ?, ?)"

Rejections = Sequence[RejectedRecord]
Connect = Callable[..., sqlite3.Connection]
FAILURES: Final = (OSError, sqlite3.Error, Damaged)
"""What `append` and `rewrite` raise."""


class SourceFile:
    """`head`: what counts in the file at `path`; None: nothing, or not known. One call at a time."""

    def __init__(self, path: Path, source: str, connect: Connect = sqlite3.connect) -> None:
        self.path = path
        self.source = source
        self.head: Head | None = None
        self._connect = connect

    def read_head(self) -> Head | None:
        """Of the file as it is; None: there is none. Raises LastGoodDamaged."""
        with self._damage(), self._opened(self.path, "ro") as connection:
            return None if connection is None else _head_of(connection)

    def load(self, *, tidies: bool) -> Slices[Restored]:
        """What there is. Raises LastGoodDamaged where none of it is usable. `tidies` False: nothing is written."""
        if tidies:
            remove(temporary(self.path))
        self.head = None
        with self._damage(), self._opened(self.path, "rw" if tidies else "ro") as connection:
            if connection is None:
                return Restored({})
            head, reader, registrations = _head_of(connection), ChunkReader(), dict[str, Registration]()
            for number, content in enumerate(_contents(connection, head.token, "chunk", head.chunks)):
                registrations.update((each.id, each) for each in reader.read_chunk(content))
                if number % CHUNKS_A_STEP == 0:
                    yield
            if len(registrations) != head.count:
                raise Damaged(f"has {len(registrations)} registrations, and {head.count} were written")
            self.head, error = yield from _load_deltas(connection, head, reader, registrations)
        latest = self.head.latest
        damage = None if error is None else LastGoodDamaged(self.source, self.path.name, reason_of(error))
        return Restored(
            registrations, latest.position, latest.saved_at_s, head.rejected, damage, reader.has_endpoints,
            head.rejections,
        )  # fmt: skip

    def append(
        self, changes: Changes, reached: Reached, rejected: Mapping[str, int], listed: Rejections = ()
    ) -> Slices[None]:
        """One transaction on the file that is there, after `load` or `rewrite`. Raises FAILURES. `listed`: rejected
        records, all that are known now."""
        head = self.head
        assert head is not None
        number, size_bytes = head.deltas, head.delta_bytes
        with self._opened(self.path, "rw") as connection:
            if connection is None or _head_of(connection).token != head.token:
                raise Damaged("is not the file that was written")
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("BEGIN IMMEDIATE")
            for content in encode_changes(changes, reached):
                connection.execute(_PUT, ("delta", number, seal("delta", number, head.token, content)))
                number, size_bytes = number + 1, size_bytes + len(content)
                yield
            summed = Counter(head.rejected) + Counter(rejected)
            head = msgspec.structs.replace(
                head, latest=reached, rejected=summed, deltas=number, delta_bytes=size_bytes,
                rejections=tuple(listed[:MAX_KEPT_REJECTIONS]),
            )  # fmt: skip
            connection.execute(_PUT, ("head", 0, encode_head(head)))
            connection.execute("COMMIT")
        self.head = head

    def rewrite(
        self,
        registrations: Mapping[str, Registration],
        reached: Reached,
        rejected: Mapping[str, int],
        listed: Rejections = (),
    ) -> Slices[None]:
        """A new file in the place of what is there, but for one of a later version: that raises Newer. Raises
        FAILURES."""
        self._refuse_newer()
        token, number, size_bytes = os.urandom(8).hex(), 0, 0
        new = create_temporary(self.path)
        try:
            with self._opened(new, "rw") as connection:
                assert connection is not None
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                # Each row is written once and not read again; of the usual 2 MB the allocator gives nothing back.
                connection.execute("PRAGMA cache_size = -256")
                connection.execute(_TABLE)
                connection.execute("BEGIN")
                each = iter(registrations.values())
                while chunk := list(islice(each, CHUNK)):
                    content = encode_chunk(chunk)
                    connection.execute(_PUT, ("chunk", number, seal("chunk", number, token, content)))
                    number, size_bytes = number + 1, size_bytes + len(content)
                    if number % CHUNKS_A_STEP == 0:
                        yield
                kept = tuple(listed[:MAX_KEPT_REJECTIONS])
                head = Head(
                    1, token, reached, reached, rejected, number, len(registrations), size_bytes, rejections=kept
                )
                connection.execute(_PUT, ("head", 0, encode_head(head)))
                connection.execute("COMMIT")
            remove(Path(f"{self.path}-journal"))  # it would be taken for that of the new file
            put_in_place(self.path)
        except BaseException:
            remove(new)
            raise
        self.head = head

    def _refuse_newer(self) -> None:
        try:
            with self._opened(self.path, "ro") as connection:
                if connection is not None:
                    _head_of(connection)
        except Newer:
            raise
        except FAILURES:
            return

    @contextmanager
    def _opened(self, path: Path, mode: str) -> Iterator[sqlite3.Connection | None]:
        """Opened, and closed in the end; None: nothing is there. Raises OSError, sqlite3.Error, Damaged. What is
        not committed by then is undone."""
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise Damaged("is not a regular file")
            if is_strange_link(path):
                raise Damaged("is a link of another user")
        except FileNotFoundError:
            yield None
            return
        connection = self._connect(
            f"file:{quote(str(path))}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            yield connection
        except UnicodeDecodeError:  # SQLite's sentence on a damaged schema has bytes of it (sqlite3, Python 3.11)
            raise Damaged("its schema is damaged") from None
        finally:
            connection.close()

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Raises LastGoodDamaged for each other error of reading."""
        try:
            yield
        except FAILURES as error:
            raise LastGoodDamaged(self.source, self.path.name, reason_of(error)) from None


def _head_of(connection: sqlite3.Connection) -> Head:
    """Raises sqlite3.Error, Damaged."""
    found = connection.execute("SELECT content FROM row WHERE kind = 'head' AND number = 0").fetchone()
    if found is None:
        raise Damaged("has no head")
    return decode_head(found[0])


def _contents(connection: sqlite3.Connection, token: str, kind: RowKind, count: int) -> Iterator[bytes]:
    """Of so many rows, in order. Raises sqlite3.Error, Damaged."""
    select = "SELECT content FROM row WHERE kind = ? AND number = ?"
    for number in range(count):
        found = connection.execute(select, (kind, number)).fetchone()
        if found is None:
            raise Damaged(f"has no {kind} {number} of {count}")
        yield unseal(kind, number, token, found[0])


def _load_deltas(
    connection: sqlite3.Connection, head: Head, reader: ChunkReader, registrations: dict[str, Registration]
) -> Slices[tuple[Head, Exception | None]]:
    """The changes of the deltas up to the first that is damaged, the head of what is whole, and the damage."""
    latest, rows = head.base, 0
    parts: list[tuple[list[str], list[Registration]]] = []
    try:
        for number, content in enumerate(_contents(connection, head.token, "delta", head.deltas), 1):
            row, upserts = reader.read_delta(content)
            parts.append((row.withdrawals, upserts))
            if row.reached is not None:
                for withdrawals, upserts in parts:
                    for id in withdrawals:
                        registrations.pop(id, None)
                    registrations.update((each.id, each) for each in upserts)
                parts, latest, rows = [], row.reached, number
            if number % CHUNKS_A_STEP == 0:
                yield
    except (sqlite3.Error, Damaged) as error:
        return msgspec.structs.replace(head, latest=latest, deltas=rows), error
    return head, None


def reason_of(error: Exception) -> str:
    """In words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
