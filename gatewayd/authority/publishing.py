"""The database → a directory that any web server can serve (docs/feed.md).

The order is what makes it safe to be killed: data files, then a note in the database of what is about to be
announced, then the notification by rename, which is the moment it becomes true for clients, then the deletion
of what nobody has been told of for the grace period. Cut anywhere, the directory is one that a client can use,
and the next publication brings it up to date: files that are damaged or missing are written anew or left out.

A publication reads one moment of the database; imports go on meanwhile and are in the next one.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from gatewayd.authority.database import Publication, PublishedFile, RegistryDatabase
from gatewayd.authority.disk import TEMPORARY_SUFFIX, Disk, locked
from gatewayd.authority.importing import Progress, no_progress
from gatewayd.authority.layout import NOTIFICATION, Served, history_within, is_data_path, path_of, read_served
from gatewayd.errors import RegistryUnusable
from gatewayd.feed.canonical import upsert_line, withdraw_line
from gatewayd.feed.notification import DeltaRef, Notification, SigningKey, SnapshotRef, sign_notification
from gatewayd.filesystem import open_ours, read_ours

MAX_AHEAD_S: Final = 300.0
"""A last issue further ahead of the clock than this was a fault of the clock, and clients refused it."""

_LINES_A_PIECE: Final = 2048
_HASH_CHUNK: Final = 1 << 20
_GZIP_WINDOW: Final = 31
"""zlib's wbits for a gzip stream; zlib writes no time and no name into its header."""
_GZIP_LEVEL: Final = 6

Outcome = Literal["new_session", "new_serial", "reissued"]


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """`refresh`, `retry`, `expire`: seconds, as in the notification. `grace_s`: for files no longer in it."""

    refresh: int = 60
    retry: int = 10
    expire: int = 604800
    grace_s: float = 3600.0
    max_deltas: int = 200
    new_session: bool = False
    allow_empty: bool = False


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What clients are told now. `deleted`: old files; `repaired`: files that were missing or damaged."""

    outcome: Outcome
    why: str
    notification: Notification
    upserts: int
    withdrawals: int
    deleted: tuple[str, ...]
    repaired: tuple[str, ...]


def publish(
    database: RegistryDatabase,
    directory: Path,
    key: SigningKey,
    options: PublishOptions,
    *,
    now: float,
    fresh_session: str,
    disk: Disk | None = None,
    progress: Progress = no_progress,
) -> PublishReport:
    """Brings `directory` up to date. `fresh_session`: a UUID to be used if a new session is due.

    Raises RegistryUnusable; what is served stays as it was then.
    """
    try:
        with locked(directory):
            return _Publisher(database, directory, key, options, now, disk or Disk(), progress).run(fresh_session)
    except OSError as error:
        raise RegistryUnusable(str(error.filename or directory), error.strerror or str(error)) from None


class _Publisher:
    def __init__(
        self,
        database: RegistryDatabase,
        directory: Path,
        key: SigningKey,
        options: PublishOptions,
        now: float,
        disk: Disk,
        progress: Progress,
    ) -> None:
        self._database = database
        self._directory = directory
        self._key = key
        self._options = options
        self._now = now
        self._disk = disk
        self._progress = progress
        self._known = database.files()
        self._changes: list[tuple[str, str | None]] = []
        self._upserts = self._withdrawals = 0
        self._repaired: list[str] = []

    def run(self, fresh_session: str) -> PublishReport:
        previous = self._database.last_publication()
        served = self._served()
        why = self._why_new_session(previous, served)
        with self._database.one_moment():
            count = self._database.count()
            if not count and not self._options.allow_empty:
                raise RegistryUnusable(
                    str(self._database.path), "holds no registration; --allow-empty publishes that"
                )
            issued_at_s = self._issued_at(previous, served)
            publication, outcome = self._next(previous, fresh_session if why else None, issued_at_s, count)
            snapshot, newest = self._write_data(publication, outcome, count)
        deltas = self._history(publication, newest, snapshot.size)
        notification = self._notification(publication, snapshot, deltas)
        raw = sign_notification(notification, self._key)
        announced = (snapshot, *(file for _, file in deltas))
        retired = self._retired({file.path for file in announced}, served)
        if not self._database.note_publication(previous, publication, (*announced, *retired)):
            raise RegistryUnusable(str(self._database.path), "another publish went ahead of this one")
        self._disk.write(self._directory / NOTIFICATION, (raw,))
        deleted = self._prune(retired)
        return PublishReport(
            outcome,
            why or "",
            notification,
            self._upserts,
            self._withdrawals,
            deleted,
            tuple(self._repaired),
        )

    # What comes next

    def _served(self) -> Served | None:
        try:
            return read_served(read_ours(self._directory / NOTIFICATION))
        except FileNotFoundError:
            return None

    def _why_new_session(self, previous: Publication | None, served: Served | None) -> str | None:
        if previous is None:
            return "first publication of this database"
        if self._options.new_session:
            return "asked for"
        if served is not None and served.session == previous.session and served.serial > previous.serial:
            return f"serial {served.serial} is served and {previous.serial} is the database's: was it restored?"
        return None

    def _next(
        self, previous: Publication | None, new_session: str | None, issued_at_s: float, count: int
    ) -> tuple[Publication, Outcome]:
        """The publication that is due. Counts the changes since the last one, and collects `count` of them."""
        sequence = self._database.sequence()
        if previous is None or new_session is not None:
            assert new_session is not None
            return Publication(new_session, 1, issued_at_s, sequence), "new_session"
        for id, record in self._database.changes_since(previous.sequence):
            self._upserts += record is not None
            self._withdrawals += record is None
            # A delta of more lines than the snapshot has would not be offered.
            if len(self._changes) <= count:
                self._changes.append((id, record))
        serial = previous.serial + 1 if self._changes else previous.serial
        outcome: Outcome = "new_serial" if self._changes else "reissued"
        return Publication(previous.session, serial, issued_at_s, sequence), outcome

    def _issued_at(self, previous: Publication | None, served: Served | None) -> float:
        """Now, to the millisecond, but after the last issue: clients refuse a time that goes backwards."""
        now = round(self._now, 3)
        issued = [previous.issued_at_s] if previous is not None else []
        if served is not None:
            issued.append(served.issued_at.timestamp())
        believed = (round(last_s + 0.001, 3) for last_s in issued if last_s <= now + MAX_AHEAD_S)
        return max([now, *believed])

    def _notification(
        self, publication: Publication, snapshot: PublishedFile, deltas: list[tuple[int, PublishedFile]]
    ) -> Notification:
        return Notification(
            session=publication.session,
            serial=publication.serial,
            issued_at=publication.issued_at_s,
            refresh=self._options.refresh,
            retry=self._options.retry,
            expire=self._options.expire,
            snapshot=SnapshotRef(snapshot.path, snapshot.sha256, snapshot.size, snapshot.count),
            deltas=tuple(DeltaRef(serial, file.path, file.sha256, file.size) for serial, file in deltas),
        )

    # Data files

    def _write_data(
        self, publication: Publication, outcome: Outcome, count: int
    ) -> tuple[PublishedFile, PublishedFile | None]:
        """The snapshot, and the delta of this serial if it has just been written."""
        path = path_of(publication.session, publication.serial, "snapshot")
        if outcome == "reissued" and self._is_intact(path):
            return replace(self._known[path], retired_at_s=None), None
        if outcome == "reissued":
            self._repaired.append(path)
        snapshot = self._write_lines(path, self._database.records(), count, "snapshot")
        if outcome != "new_serial" or len(self._changes) > count:
            return snapshot, None
        lines = (withdraw_line(id) if record is None else upsert_line(record) for id, record in self._changes)
        delta_path = path_of(publication.session, publication.serial, "delta")
        return snapshot, self._write_lines(delta_path, lines, len(self._changes), "delta")

    def _write_lines(self, path: str, lines: Iterable[str], count: int, step: str) -> PublishedFile:
        """gzip NDJSON, of which the same lines always give the same bytes."""
        sha256, size, written = hashlib.sha256(), 0, 0

        def pieces() -> Iterator[bytes]:
            nonlocal size, written
            for piece, number in _compressed(lines):
                sha256.update(piece)
                size += len(piece)
                written += number
                self._progress(step, written, count)
                yield piece

        self._disk.write(self._directory / path, pieces())
        return PublishedFile(path, sha256.hexdigest(), size, written)

    def _history(
        self, publication: Publication, newest: PublishedFile | None, limit_bytes: int
    ) -> list[tuple[int, PublishedFile]]:
        """The deltas on offer, oldest first: those that lead to this serial without a gap."""
        files: list[PublishedFile] = []
        serial = publication.serial
        while len(files) < self._options.max_deltas:
            path = path_of(publication.session, serial, "delta")
            if newest is not None and serial == publication.serial:
                files.append(newest)
            elif path not in self._known:
                break
            elif self._is_intact(path):
                files.append(replace(self._known[path], retired_at_s=None))
            else:
                self._repaired.append(path)
                break
            serial -= 1
        kept = history_within([file.size for file in files], limit_bytes, self._options.max_deltas)
        return [(publication.serial - back, files[back]) for back in reversed(range(kept))]

    def _is_intact(self, path: str) -> bool:
        """Whether the file is on the disk as it was written."""
        known = self._known.get(path)
        if known is None or not known.size:
            return False
        sha256 = hashlib.sha256()
        with suppress(OSError), open(open_ours(self._directory / path), "rb") as stream:
            while chunk := stream.read(_HASH_CHUNK):
                sha256.update(chunk)
        return sha256.hexdigest() == known.sha256

    # What is no longer announced

    def _retired(self, announced: set[str], served: Served | None) -> list[PublishedFile]:
        """Files that are there and are not announced now, with the time since when.

        What the notification that is about to be replaced names is retired now, whatever was noted before.
        """
        retained = set(served.paths()) if served is not None else set()
        retired = []
        for path in sorted(self._known.keys() | self._on_disk()):
            if path in announced:
                continue
            file = self._known.get(path, PublishedFile(path, "", 0, 0))
            if file.retired_at_s is None or path in retained:
                file = replace(file, retired_at_s=self._now)
            retired.append(file)
        return retired

    def _on_disk(self) -> set[str]:
        """Data files below the directory, those of other sessions and of cut publications included."""
        found = (path.relative_to(self._directory).as_posix() for path in self._directory.glob("*/*/*.gz"))
        return {path for path in found if is_data_path(path)}

    def _prune(self, retired: list[PublishedFile]) -> tuple[str, ...]:
        """Deletes what was retired longer ago than the grace period, and what a cut publication left half."""
        paths = tuple(
            file.path
            for file in retired
            if file.retired_at_s is not None and file.retired_at_s <= self._now - self._options.grace_s
        )
        for path in paths:
            self._disk.remove(self._directory / path)
            with suppress(OSError):
                (self._directory / path).parents[1].rmdir()
        for pattern in ("", "*/*/"):
            for leftover in self._directory.glob(f"{pattern}.*{TEMPORARY_SUFFIX}"):
                self._disk.remove(leftover)
        self._database.forget_files(paths)
        return paths


def _compressed(lines: Iterable[str]) -> Iterator[tuple[bytes, int]]:
    """Pieces of the gzip stream, each with the number of lines that went into it."""
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    rest = iter(lines)
    while some := list(islice(rest, _LINES_A_PIECE)):
        some.append("")
        yield compressor.compress("\n".join(some).encode("ascii")), len(some) - 1
    yield compressor.flush(), 0
