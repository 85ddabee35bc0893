"""The last good of a source as values ↔ rows of a database (`last_good_file` has them).

    head   0       where in the feed the rest is, and how many rows there are
    chunk  0, 1 …  up to CHUNK registrations each, all of the source as it was read whole
    delta  0, 1 …  what changed since, in the order of its coming

A row begins with a sha256 of its content, its kind, its number and the token of its file. SQLite has no checksum of
a page: so a flipped bit is noticed, and so is a row that is missing, of another place, or of an earlier file.

Registrations stand in columns, and what many of them share (category, peers, services, window) once a chunk. So a
million load in a quarter of the time that NDJSON takes, and share their parts in memory as the readers' do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeVar, cast

import msgspec

from gatewayd.errors import LastGoodDamaged
from gatewayd.feed.canonical import Damaged, Newer
from gatewayd.model import Extension, Prefix, Registration, Service
from gatewayd.model.decoding import UNDECODABLE, why_undecodable
from gatewayd.model.registration import Changes, RejectedRecord, Status
from gatewayd.sources.update import FeedPosition

CHUNK: Final = 1024
"""Registrations a row: some 2 ms to encode or decode."""
MAX_SHARED: Final = 65_536
"""Different parts that a reader remembers, to share them."""
MIN_COMPACTED_BYTES: Final = 1 << 20
_DIGEST_BYTES: Final = 32
_LENGTHS: Final = tuple(bytes((length,)) for length in range(129))

RowKind = Literal["head", "chunk", "delta"]
_T = TypeVar("_T")


MAX_KEPT_REJECTIONS: Final = 200
"""Rejected records that are on disk with their place: some 10 kB, written with each delta."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The last good of a source as it was loaded. `position` None: there is nothing that could be used.

    `saved_at_s`: the last that is known of when the source confirmed it. `damage`: what was found not to be whole.
    """

    registrations: dict[str, Registration]
    position: FeedPosition | None = None
    saved_at_s: float | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    damage: LastGoodDamaged | None = None
    has_endpoints: bool = False
    rejections: tuple[RejectedRecord, ...] = ()

    @property
    def is_feed(self) -> bool:
        """Whether it is the last good of a signed feed."""
        return self.position is not None and bool(self.position.session)

    def without_endpoints(self) -> Restored:
        """As it is when the source may not bring endpoints."""
        if not self.has_endpoints:
            return self
        left = {id: each for id, each in self.registrations.items() if not each.endpoints}
        return replace(self, registrations=left, has_endpoints=False)

    @property
    def is_lost(self) -> bool:
        """Whether some of what was the last good cannot be used."""
        return self.position is None or self.damage is not None


class Reached(msgspec.Struct, frozen=True):
    """Where registrations stand, and when they were saved."""

    position: FeedPosition
    saved_at_s: float


class Head(msgspec.Struct, frozen=True):
    """What counts. `token`: of this file alone. `base` is where the chunks stand, `latest` where the deltas lead.
    `rejected`: as in Restored. `count`: registrations in the chunks; `chunk_bytes`, `delta_bytes`: of the rows.
    `rejections`: the first MAX_KEPT_REJECTIONS."""

    format: Literal[1]  # _FORMAT
    token: str
    base: Reached
    latest: Reached
    rejected: Mapping[str, int]
    chunks: int
    count: int
    chunk_bytes: int
    deltas: int = 0
    delta_bytes: int = 0
    rejections: tuple[RejectedRecord, ...] = ()

    @property
    def is_outweighed(self) -> bool:
        """The deltas are more than what they lead on from."""
        return self.delta_bytes > max(self.chunk_bytes, MIN_COMPACTED_BYTES)


class _Kind(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What registrations share."""

    category: str
    status: Status
    peers: tuple[Prefix, ...]
    services: tuple[Service, ...]
    valid_from_s: float
    valid_until_s: float


_Extension = tuple[str | None, bool, tuple[Prefix, ...]]
"""Members of an Extension."""


class _Chunk(msgspec.Struct, frozen=True, array_like=True):
    """`kinds[which[n]]` is that of the registration `ids[n]`. A client prefix is its address, and its length in a
    byte. `extensions[extended[n] - 1]` is that of the registration, and 0 none; both lists are empty where none has
    one, as in every file of gatewayd before it knew of them."""

    ids: list[str]
    which: list[int]
    kinds: list[_Kind]
    clients: list[list[bytes]]
    subscribers: list[bytes | None]
    extensions: list[_Extension] = []
    extended: list[int] = []


class DeltaRow(msgspec.Struct, frozen=True, array_like=True):
    """A part of a change. `reached`: with this part; None: the next row goes on. `upserts`: as a chunk."""

    reached: Reached | None
    withdrawals: list[str]
    upserts: bytes


_FORMAT: Final = 1
_decode_head = msgspec.msgpack.Decoder(Head).decode
_decode_chunk = msgspec.msgpack.Decoder(_Chunk).decode
_decode_delta = msgspec.msgpack.Decoder(DeltaRow).decode


def seal(kind: RowKind, number: int, token: str, content: bytes) -> bytes:
    """The content of a row, with the digest that binds it to its place."""
    return _digest_of(kind, number, token, content) + content


def unseal(kind: RowKind, number: int, token: str, row: object) -> bytes:
    """The content. Raises Damaged."""
    if type(row) is not bytes:
        raise Damaged(f"{kind} {number} is no bytes")
    content = row[_DIGEST_BYTES:]
    if row[:_DIGEST_BYTES] != _digest_of(kind, number, token, content):
        raise Damaged(f"the hash of {kind} {number} is wrong")
    return content


def _digest_of(kind: RowKind, number: int, token: str, content: bytes) -> bytes:
    digest = hashlib.sha256(f"{kind} {number} {token}\n".encode())
    digest.update(content)
    return digest.digest()


def encode_head(head: Head) -> bytes:
    """A row. The head says which token the file has, so its own digest is without."""
    return seal("head", 0, "", msgspec.msgpack.encode(head))


class _Format(msgspec.Struct):
    format: int


def decode_head(row: object) -> Head:
    """Raises Damaged, Newer."""
    content = unseal("head", 0, "", row)
    try:
        return _decode_head(content)
    except UNDECODABLE as error:  # whole, and of another version of gatewayd
        found = _FORMAT
        with suppress(*UNDECODABLE):
            found = msgspec.msgpack.decode(content, type=_Format).format
        if found > _FORMAT:
            raise Newer(f"a newer gatewayd wrote it (format {found}, and {_FORMAT} is read)") from None
        raise Damaged(f"is of another format: {why_undecodable(error)}") from None


def encode_chunk(chunk: Sequence[Registration]) -> bytes:
    """The content of a row."""
    kinds: dict[tuple[object, ...], int] = {}
    which = [
        kinds.setdefault(
            (each.category, each.status, each.peers, each.services, each.valid_from_s, each.valid_until_s),
            len(kinds),
        )
        for each in chunk
    ]
    clients = [[prefix.packed + _LENGTHS[prefix.length] for prefix in each.clients] for each in chunk]
    ids, subscribers = [each.id for each in chunk], [each.subscriber for each in chunk]
    columns = ids, which, list(kinds), clients, subscribers
    if all(each.extension is None for each in chunk):
        return msgspec.msgpack.encode(columns)
    extensions: dict[Extension, int] = {}
    extended = [
        0 if (each := registration.extension) is None else extensions.setdefault(each, len(extensions) + 1)
        for registration in chunk
    ]
    members = [(each.registrant, each.is_provisional, each.endpoints) for each in extensions]
    return msgspec.msgpack.encode((*columns, members, extended))


def encode_changes(changes: Changes, reached: Reached) -> Iterator[bytes]:
    """The contents of rows, up to CHUNK registrations and ids in each; none if nothing changed."""
    for start in range(0, max(len(changes.upserts), len(changes.withdrawals)), CHUNK):
        end = start + CHUNK
        is_last = end >= max(len(changes.upserts), len(changes.withdrawals))
        upserts = encode_chunk(changes.upserts[start:end])
        row = DeltaRow(reached if is_last else None, list(changes.withdrawals[start:end]), upserts)
        yield msgspec.msgpack.encode(row)


class ChunkReader:
    """Contents of rows → registrations that share their parts.

    The kinds of a chunk are not remembered: few are met again, and 30,000 of them took 20 MB."""

    def __init__(self) -> None:
        self._parts: dict[object, object] = {}
        self._extensions: dict[Extension, Extension] = {}
        self.has_endpoints = False
        """Some registration has had some."""

    def read_chunk(self, content: bytes) -> list[Registration]:
        """Raises Damaged: whole, and of another version of gatewayd."""
        chunk = _decoded(_decode_chunk, content)
        kinds = [self._share(kind) for kind in chunk.kinds]
        extensions = [None, *(self._share_extension(Extension(*members)) for members in chunk.extensions)]
        extended = chunk.extended or [0] * len(chunk.ids)
        rows = zip(chunk.ids, chunk.which, chunk.clients, chunk.subscribers, extended, strict=True)
        try:
            return self._registrations(rows, kinds, extensions)
        except (IndexError, ValueError):
            raise Damaged("is of another format: its columns do not fit one another") from None

    @staticmethod
    def _registrations(
        rows: Iterable[tuple[str, int, list[bytes], bytes | None, int]],
        kinds: Sequence[_Kind],
        extensions: Sequence[Extension | None],
    ) -> list[Registration]:
        return [
            Registration(
                id,
                (kind := kinds[which]).category,
                kind.status,
                tuple([Prefix(prefix[:-1], prefix[-1]) for prefix in clients]),
                subscriber,
                kind.peers,
                kind.services,
                kind.valid_from_s,
                kind.valid_until_s,
                extensions[extension],
            )
            for id, which, clients, subscriber, extension in rows
        ]

    def _share_extension(self, extension: Extension) -> Extension:
        if len(self._extensions) >= MAX_SHARED:
            self._extensions.clear()
        self.has_endpoints = self.has_endpoints or bool(extension.endpoints)
        return self._extensions.setdefault(extension, extension)

    def _share(self, kind: _Kind) -> _Kind:
        if len(self._parts) >= MAX_SHARED:
            self._parts.clear()
        part = self._part
        return _Kind(
            part(kind.category),
            kind.status,
            part(kind.peers),
            part(kind.services),
            part(kind.valid_from_s),
            part(kind.valid_until_s),
        )

    def _part(self, part: _T) -> _T:
        return cast(_T, self._parts.setdefault(part, part))

    def read_delta(self, content: bytes) -> tuple[DeltaRow, list[Registration]]:
        """The row, and the registrations in it. Raises Damaged, as above."""
        row = _decoded(_decode_delta, content)
        return row, self.read_chunk(row.upserts)


def _decoded(decode: Callable[[bytes], _T], content: bytes) -> _T:
    try:
        return decode(content)
    except UNDECODABLE as error:
        raise Damaged(f"is of another format: {why_undecodable(error)}") from None
