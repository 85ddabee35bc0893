"""How the last good of a source lies on disk, as bytes ↔ values (the files themselves: `last_good_files`).

    index.json       one line of JSON, one with its sha256: which files count, and where in the feed they are
    snapshot-N.gz    gzip NDJSON of registrations, as served or as written by us
    deltas-N         what came since, appended: frames, each with its own hash and the position after it

To replace index.json is to replace everything at once; to append a whole frame is to move on by one delta.
A frame cut short by a crash is no frame, and what stands before it counts.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import msgspec

from gatewayd.errors import LastGoodDamaged
from gatewayd.feed.canonical import Damaged
from gatewayd.model import Registration
from gatewayd.sources.update import FeedPosition, FileMark

_MAGIC: Final = b"gwdD"
_FRAME: Final = struct.Struct(">4sIQ32s")
"""Magic, bytes of the head, bytes of the content, sha256 of both."""
MAX_HEAD_BYTES: Final = 1 << 20


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

    @property
    def is_lost(self) -> bool:
        """Whether some of what was the last good cannot be used."""
        return self.position is None or self.damage is not None


class Index(msgspec.Struct, frozen=True):
    """What counts. `number`: the N of the snapshot and the deltas. `saved_at_s`: Unix seconds."""

    format: Literal[1]
    number: int
    position: FeedPosition
    saved_at_s: float
    snapshot: FileMark

    @property
    def deltas(self) -> str:
        """The name of the file of frames; not there until there is one."""
        return f"deltas-{self.number}"


class FrameHead(msgspec.Struct, frozen=True):
    """What is true once the frame's delta was applied; a frame without content changes nothing else."""

    position: FeedPosition
    saved_at_s: float


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
