"""How the last good of a source lies on disk, as bytes ↔ values (the files themselves: `store`).

    index.json       one line of JSON, one with its sha256: which files count, and where in the feed they are
    snapshot-N.gz    gzip NDJSON of registrations, as served or as written by us
    deltas-N         what came since, appended: frames, each with its own hash and the position after it
    held-N           what the guard of an earlier version of gatewayd held (now: `guard_file`)

Whoever replaces index.json replaces everything at once; whoever appends a whole frame moves on by one delta.
A frame cut short by a crash is no frame, and what stands before it counts.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

import msgspec

from gatewayd.feed.canonical import Damaged, LineWriter, upsert_line, withdraw_line
from gatewayd.model import Registration

_MAGIC: Final = b"gwdD"
_FRAME: Final = struct.Struct(">4sIQ32s")
"""Magic, bytes of the head, bytes of the content, sha256 of both."""
MAX_HEAD_BYTES: Final = 1 << 20


class Position(msgspec.Struct, frozen=True):
    """Where in a source its registrations are. `serial`: of the feed, or the number of the reading for a source
    without `session`. `issued_at_s`: Unix seconds, None if nobody says. `etag`, `last_modified`: to ask with.
    `resume`: what the source's client needs besides to go on from here; nobody else looks into it."""

    session: str | None
    serial: int
    issued_at_s: float | None = None
    etag: str | None = None
    last_modified: str | None = None
    resume: bytes = b""


class FileMark(msgspec.Struct, frozen=True):
    """One file of the source's directory: its name, and what must be in it. `sha256` in hex."""

    name: str
    size_bytes: int
    sha256: str


class Index(msgspec.Struct, frozen=True):
    """What counts. `number`: the N of the snapshot and the deltas. `saved_at_s`: Unix seconds."""

    format: Literal[1]
    number: int
    position: Position
    saved_at_s: float
    count: int
    snapshot: FileMark
    held: FileMark | None = None

    @property
    def deltas(self) -> str:
        """The name of the file of frames; not there until there is one."""
        return f"deltas-{self.number}"


class FrameHead(msgspec.Struct, frozen=True):
    """What is true once the frame's delta was applied; a frame without content changes nothing else."""

    position: Position
    saved_at_s: float
    held: FileMark | None = None


class Frame(NamedTuple):
    """One frame of a file. `end`: the offset after it."""

    head: FrameHead
    content: bytes
    end: int


_decode_index = msgspec.json.Decoder(Index).decode
_decode_head = msgspec.json.Decoder(FrameHead).decode


def encode_index(index: Index) -> bytes:
    """The content of index.json."""
    line = msgspec.json.encode(index)
    return b"%s\n%s\n" % (line, hashlib.sha256(line).hexdigest().encode())


def decode_index(content: bytes) -> Index:
    """Raises Damaged."""
    if not content:
        raise Damaged("is empty")
    line, _, check = content.partition(b"\n")
    if check != hashlib.sha256(line).hexdigest().encode() + b"\n":
        raise Damaged("its hash is wrong")
    try:
        return _decode_index(line)
    except msgspec.DecodeError as error:  # whole, and of another version of gatewayd
        raise Damaged(f"is of another format: {error}") from None


def encode_delta(upserts: Iterable[Registration], withdrawals: Iterable[str]) -> bytes:
    """A delta as the feed has them, for a change whose bytes as served are not at hand."""
    lines = [upsert_line(record) for record in LineWriter().lines(upserts)]
    lines += [withdraw_line(id) for id in withdrawals]
    return gzip.compress("\n".join([*lines, ""]).encode(), 1, mtime=0)


def encode_frame(head: FrameHead, content: bytes) -> bytes:
    """One frame, to be appended."""
    line = msgspec.json.encode(head)
    digest = hashlib.sha256(line + content).digest()
    return b"".join((_FRAME.pack(_MAGIC, len(line), len(content), digest), line, content))


def decode_frame(content: bytes, offset: int) -> Frame:
    """The frame at an offset before the end. Raises Damaged."""
    if len(content) - offset < _FRAME.size:
        raise Damaged(f"is cut off at {len(content)}")
    magic, head_bytes, content_bytes, digest = _FRAME.unpack_from(content, offset)
    if magic != _MAGIC or head_bytes > MAX_HEAD_BYTES:
        raise Damaged(f"has no frame at {offset}")
    begin = offset + _FRAME.size
    middle, end = begin + head_bytes, begin + head_bytes + content_bytes
    if end > len(content):
        raise Damaged(f"is cut off at {len(content)}")
    if hashlib.sha256(memoryview(content)[begin:end]).digest() != digest:
        raise Damaged(f"has a frame with a wrong hash at {offset}")
    try:
        head = _decode_head(content[begin:middle])
    except msgspec.DecodeError as error:  # as above
        raise Damaged(f"has a frame of another format at {offset}: {error}") from None
    return Frame(head, content[middle:end], end)
