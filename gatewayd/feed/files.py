"""The files of a signed feed, as they come: gzip NDJSON of registrations, or of operations on them.

`Inflater` undoes gzip in pieces of bounded size, with an eye on its end (RFC 1952). `FileReading` checks the bytes
as served against what the notification states of them, undoes gzip within the limits and hands lines to a reader.
`DeltaReader` is the reader of operations; that of registrations is `reading.NdjsonReader`. A delta is applied to
`LayeredRegistrations`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, Literal

import msgspec

from gatewayd.errors import (
    DeltaConflict,
    DeltaMalformed,
    FeedRefused,
    FileDamaged,
    FileTooLarge,
    HashMismatch,
    RecordRejected,
    SizeMismatch,
    SourceTooLarge,
    SourceUnusable,
)
from gatewayd.feed.notification import DeltaRef, SnapshotRef
from gatewayd.feed.reading import NdjsonReader, ReadLimits
from gatewayd.feed.record import MAX_LINE_BYTES, id_of_line, is_id, is_id_text
from gatewayd.model import Registration
from gatewayd.model.decoding import UNDECODABLE
from gatewayd.model.registration import SLICE, Changes, Slices

SLICE_BYTES: Final = 16 * 1024
"""Plain bytes given to a reader between two yields: half a millisecond, 20 at the very worst."""

Pending = dict[str, Registration | None]
"""What is to become of an id: its registration, or None for a withdrawal."""


PIECE_BYTES: Final = 64 * 1024
GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31
"""zlib's wbits: gzip alone, with the largest window."""


class LayeredRegistrations(Mapping[str, Registration]):
    """A snapshot and the changes since, as one mapping that never changes; a delta makes the next one.

    So a delta of one costs what it changes and not what there is, and an earlier mapping stays as it
    is. `flatten` makes a snapshot of it, once `is_deep`.
    """

    __slots__ = ("_base", "_changes", "_size")

    def __init__(self, base: Mapping[str, Registration], changes: Pending, size: int) -> None:
        self._base = base
        self._changes = changes
        self._size = size

    @classmethod
    def of(cls, registrations: Mapping[str, Registration]) -> LayeredRegistrations:
        """`registrations` must not change from now on."""
        if isinstance(registrations, LayeredRegistrations):
            return registrations
        return cls(registrations, {}, len(registrations))

    @property
    def is_deep(self) -> bool:
        """There are so many changes that copying them at every delta costs more than a copy of all, shared out."""
        return len(self._changes) > max(SLICE, len(self._base) // 64)

    def changed(self, changes: Pending) -> LayeredRegistrations:
        """These with `changes` applied."""
        size = self._size
        for id, registration in changes.items():
            size += (registration is not None) - (id in self)
        return LayeredRegistrations(self._base, {**self._changes, **changes}, size)

    def flatten(self) -> Slices[LayeredRegistrations]:
        """The same without layers, yielding now and then."""
        flat: dict[str, Registration] = {}
        base = iter(self._base.items())
        while piece := dict(islice(base, SLICE)):
            flat.update(piece)
            yield
        for id, registration in self._changes.items():
            if registration is None:
                flat.pop(id, None)
            else:
                flat[id] = registration
        return LayeredRegistrations.of(flat)

    def __getitem__(self, id: str) -> Registration:
        registration = self._changes[id] if id in self._changes else self._base.get(id)
        if registration is None:
            raise KeyError(id)
        return registration

    def __contains__(self, id: object) -> bool:
        if id in self._changes:
            return self._changes[id] is not None
        return id in self._base

    def __iter__(self) -> Iterator[str]:
        changes = self._changes
        for id in self._base:
            if id not in changes:
                yield id
        for id, registration in changes.items():
            if registration is not None:
                yield id

    def __len__(self) -> int:
        return self._size


def net_changes(before: Mapping[str, Registration], pending: Pending) -> Slices[tuple[Pending, Changes]]:
    """What of `pending` is not so already, by id and as a change."""
    net: Pending = {}
    upserts: list[Registration] = []
    withdrawals: list[str] = []
    items = iter(pending.items())
    while piece := list(islice(items, SLICE)):
        for id, registration in piece:
            if registration is before.get(id):
                continue
            net[id] = registration
            if registration is None:
                withdrawals.append(id)
            else:
                upserts.append(registration)
        yield
    return net, Changes(tuple(upserts), tuple(withdrawals))


class _Operation(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    op: Literal["upsert", "withdraw"]
    registration: msgspec.Raw = msgspec.Raw()
    id: str | None = None


_decode_operation = msgspec.json.Decoder(_Operation).decode


class DeltaReader(NdjsonReader):
    """Reads one operation a line into `pending`, which the deltas of a chain share.

    An upsert whose registration is rejected leaves the old one in force, and is counted and listed. A line that
    is no operation, or a withdrawal of what is not there, is a fault of the whole delta: `finish` raises it. A
    registry may withdraw what we had to reject, so where `is_exact` is False (some record was rejected since
    the snapshot) such a withdrawal is no fault.
    """

    def __init__(
        self,
        source: str,
        serial: int,
        limits: ReadLimits,
        before: Mapping[str, Registration],
        pending: Pending,
        *,
        is_exact: bool,
        allows_endpoints: bool = True,
    ) -> None:
        super().__init__(source, limits, allows_endpoints=allows_endpoints)
        self.is_exact = is_exact
        self._serial = serial
        self._before = before
        self._pending = pending
        self._fault: FeedRefused | None = None

    def finish(self) -> list[Registration]:
        """Raises DeltaMalformed, DeltaConflict, and what the base class raises."""
        fresh = super().finish()
        if self._fault is not None:
            raise self._fault
        return fresh

    def _take_overlong(self, head: bytes) -> None:
        self._malformed(f"longer than {MAX_LINE_BYTES} bytes")

    def _take(self, line: bytes, fresh: list[Registration]) -> None:
        if self._fault is not None or not line.strip():
            return
        self._count_record()
        try:
            operation = _decode_operation(line)
        except UNDECODABLE:
            self._malformed("is no operation")
            return
        record, id = bytes(operation.registration), operation.id
        if operation.op == "upsert" and record and id is None:
            self._upsert(record)
        elif operation.op == "withdraw" and not record and id is not None and is_id_text(id):
            self._withdraw(id)
        else:
            self._malformed("is not an upsert with a registration or a withdrawal with an id")

    def _upsert(self, record: bytes) -> None:
        try:
            registration = self._parser.parse(record)
        except RecordRejected as error:
            self.is_exact = False
            self._reject(self._line, id_of_line(record), error.code, error.field, error.detail)
            return
        before = self._before.get(registration.id)
        self._pending[registration.id] = before if before == registration else registration

    def _withdraw(self, id: str) -> None:
        is_there = self._pending[id] is not None if id in self._pending else id in self._before
        if is_there:
            self._pending[id] = None
        elif self.is_exact:
            self._fault = DeltaConflict(self._serial, self._line, id if is_id(id) else "(not shown)")

    def _malformed(self, why: str) -> None:
        self._fault = self._fault or DeltaMalformed(self._serial, self._line, why)


class GzipDamaged(ValueError):
    """The bytes are not gzip, or its check sum is wrong."""

    def __init__(self) -> None:
        super().__init__("not gzip, or damaged")


class Inflater:
    """Turns gzip (one member or several, end to end) into plain bytes; what is not gzip passes as it is.

    With `must_be_gzip` anything else is GzipDamaged. However much a piece of input stands for, it comes out
    in pieces of at most PIECE_BYTES, so the caller can stop at its limit.
    """

    def __init__(self, must_be_gzip: bool = False) -> None:
        self._head = b""
        self._is_plain: bool | None = False if must_be_gzip else None
        self._member: zlib._Decompress | None = None
        self._has_members = False

    def feed(self, raw: bytes) -> Iterator[bytes]:
        """The plain bytes of the next input; to be iterated to its end. Raises GzipDamaged."""
        if self._is_plain is None:
            raw = self._head + raw
            if len(raw) < 2 and GZIP_MAGIC.startswith(raw):
                self._head = raw
                return
            self._is_plain = not raw.startswith(GZIP_MAGIC)
        if self._is_plain:
            yield raw
        else:
            yield from self._inflate(raw)

    def finish(self) -> bytes:
        """What was held back to tell gzip from plain bytes (at most one byte)."""
        return self._head if self._is_plain is None else b""

    def is_whole(self) -> bool:
        """Whether the input so far could end here: no gzip member is open (plain bytes cannot tell)."""
        return self._is_plain is not False or (self._has_members and self._member is None)

    def _inflate(self, raw: bytes) -> Iterator[bytes]:
        piece = b""
        while raw or (self._member is not None and len(piece) == PIECE_BYTES):
            if self._member is None:
                self._member = zlib.decompressobj(_GZIP_WINDOW)
                self._has_members = True
            try:
                piece = self._member.decompress(raw, PIECE_BYTES)
            except zlib.error:
                raise GzipDamaged from None
            if self._member.eof:
                raw, self._member = self._member.unused_data, None
            else:
                raw = self._member.unconsumed_tail
            if piece:
                yield piece


class FileReading:
    """One file as it comes over the wire. `what` names it in errors.

    Nothing that `reader` made of it is to be used before `finish` has returned.
    """

    def __init__(self, what: str, ref: SnapshotRef | DeltaRef, reader: NdjsonReader, limits: ReadLimits) -> None:
        self.reader = reader
        self._what = what
        self._ref = ref
        self._limits = limits
        self._inflater = Inflater(must_be_gzip=True)
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self._plain_bytes = 0
        self._damage: str | None = None

    def feed(self, raw: bytes) -> Slices[None]:
        """Takes the next bytes, yielding now and then. Raises SizeMismatch, FileTooLarge.

        `finish` reports damage, so that the hash shows bytes that were changed on the way.
        """
        self._size_bytes += len(raw)
        if self._size_bytes > self._ref.size:
            raise SizeMismatch(self._what, self._ref.size, self._size_bytes)
        self._hash.update(raw)
        if self._damage is not None:
            return
        try:
            for piece in self._inflater.feed(raw):
                self._plain_bytes += len(piece)
                if self._plain_bytes > self._limits.max_bytes:
                    raise FileTooLarge(self._what, self._limits.max_bytes, "bytes")
                for start in range(0, len(piece), SLICE_BYTES):
                    self.reader.feed(piece[start : start + SLICE_BYTES])
                    yield
        except GzipDamaged as error:
            self._damage = str(error)
        except SourceTooLarge:
            raise FileTooLarge(self._what, self._limits.max_records, "records") from None
        except SourceUnusable as error:
            self._damage = error.why

    def finish(self) -> None:
        """Raises SizeMismatch, HashMismatch, FileDamaged, FileTooLarge, and what `reader` finds at its end."""
        if self._size_bytes != self._ref.size:
            raise SizeMismatch(self._what, self._ref.size, self._size_bytes)
        digest = self._hash.hexdigest()
        if digest != self._ref.sha256:
            raise HashMismatch(self._what, self._ref.sha256, digest)
        if self._damage is None and not self._inflater.is_whole():
            self._damage = "its gzip has no end"
        if self._damage is not None:
            raise FileDamaged(self._what, self._damage)
        try:
            self.reader.finish()
        except SourceTooLarge:
            raise FileTooLarge(self._what, self._limits.max_records, "records") from None
        except SourceUnusable as error:
            raise FileDamaged(self._what, error.why) from None
