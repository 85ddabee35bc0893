"""A file of registrations → the database (CSV or NDJSON, plain or gzip).

Read by the readers of `registry.reading`, so that what the registry takes is what a gateway would take. What is
rejected is listed and the rest is stored. A file with rejected rows withdraws nothing, and neither does an
empty one: a row that cannot be read is not one that was taken out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from gatewayd.authority.database import Applied, RegistryDatabase
from gatewayd.authority.readers import Hashing, ImportReader, import_reader
from gatewayd.errors import RecordRejected, SourceUnreadable, SourceUnusable
from gatewayd.feed.canonical import Canonicaliser
from gatewayd.feed.files import GzipDamaged, Inflater
from gatewayd.feed.reading import Format, Rejection, format_of
from gatewayd.feed.record import parse_record
from gatewayd.model import Status

CHUNK_BYTES: Final = 256 * 1024

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, of how much (0 = not known)."""


def no_progress(step: str, done: int, of: int) -> None:
    """For those who do not watch."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """`rejections`: the first of them, `rejected`: how many by code. `held`: why nothing was withdrawn."""

    file: str
    format: Format
    records: int
    applied: Applied
    rejections: tuple[Rejection, ...]
    rejected: dict[str, int]
    held: str | None


class FileImport:
    """One reading of a file. `hashing`: for a `mobile` field; None = it has none."""

    def __init__(
        self,
        file: Path,
        *,
        format: Format | None = None,
        hashing: Hashing | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self._file = file
        self._format = format
        self._hashing = hashing
        self._progress = progress
        self._reader: ImportReader | None = None

    def store(
        self,
        database: RegistryDatabase,
        *,
        at_s: float,
        actor: str,
        replace: bool = False,
        reactivates: bool = False,
        dry_run: bool = False,
    ) -> ImportReport:
        """Reads and stores, all or nothing. Raises SourceFailed, PepperUnusable, RegistryUnusable.

        `replace`: registrations that the file does not have are withdrawn. `reactivates`: what is suspended or
        revoked becomes active where the file says so. `dry_run`: nothing is kept.
        """
        applied = database.apply(
            self._records(),
            at_s=at_s,
            action="import",
            actor=actor,
            is_all=lambda: replace and self._why_not_all() is None,
            reactivates=reactivates,
            dry_run=dry_run,
        )
        assert self._reader is not None
        assert self._format is not None
        return ImportReport(
            str(self._file),
            self._format,
            self._reader.records,
            applied,
            tuple(self._reader.rejections),
            dict(sorted(self._reader.rejected.items())),
            self._why_not_all() if replace else None,
        )

    def _why_not_all(self) -> str | None:
        """Why the file must not be taken for the whole registry; None = it may."""
        reader = self._reader
        assert reader is not None
        if reader.rejected:
            return f"{reader.rejected.total()} rejected: mend them and import again"
        return None if reader.registrations else "the file has no registration"

    def _records(self) -> Iterator[tuple[str, str]]:
        for chunk in self._chunks():
            if self._reader is None:
                self._format = self._format or format_of(str(self._file), None, chunk)
                self._reader = import_reader(self._format, str(self._file), self._hashing)
            yield from self._reader.write(self._reader.feed(chunk))
        if self._reader is None:
            raise SourceUnusable(str(self._file), "is empty")
        yield from self._reader.write(self._reader.finish())
        self._progress("storing", 0, 0)

    def _chunks(self) -> Iterator[bytes]:
        """The content, decompressed. Raises SourceUnreadable, SourceUnusable."""
        inflater = Inflater()
        done = 0
        try:
            with self._file.open("rb") as stream:
                size_bytes = os.fstat(stream.fileno()).st_size
                while raw := stream.read(CHUNK_BYTES):
                    done += len(raw)
                    self._progress("reading", done, size_bytes)
                    yield from inflater.feed(raw)
        except OSError as error:
            raise SourceUnreadable(str(self._file), error.strerror or str(error)) from None
        except GzipDamaged as error:
            raise SourceUnusable(str(self._file), str(error)) from None
        if tail := inflater.finish():
            yield tail
        if not inflater.is_whole():
            raise SourceUnusable(str(self._file), "is cut short: the gzip stream has no end")


def written_record(raw: bytes, hashing: Hashing | None = None) -> tuple[str, str]:
    """(id, canonical record) of one JSON object, on as many lines as it likes.

    Raises RecordRejected, PepperUnusable.
    """
    reader = import_reader("ndjson", "the record", hashing)
    line = b" ".join(raw.splitlines()) + b"\n"
    written = list(reader.write(reader.feed(line)))
    if written:
        return written[0]
    if reader.rejections:
        rejection = reader.rejections[0]
        raise RecordRejected(rejection.code, rejection.field, rejection.detail)
    raise RecordRejected("not_json", "", "there is no record")


def with_status(record: str, status: Status) -> str:
    """A canonical record with another status."""
    registration = parse_record(record.encode())
    return Canonicaliser().line(msgspec.structs.replace(registration, status=status))
