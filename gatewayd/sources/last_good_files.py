"""The directory of one source in `state_dir`: what `kept` says, read from and written to disk. Blocking.

Nothing that counts is ever written over. What is new gets a name of its own and is made durable first; then
one rename of index.json, or one appended frame, makes it count; what no longer counts goes last.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import Final

from gatewayd.errors import LastGoodDamaged
from gatewayd.feed.canonical import Damaged
from gatewayd.feed.inflate import GzipDamaged, Inflater
from gatewayd.sources.disk import Files, remove_others, write_durably
from gatewayd.sources.last_good import (
    FileMark,
    Frame,
    FrameHead,
    Index,
    Position,
    decode_frame,
    decode_index,
    encode_frame,
    encode_index,
)

INDEX: Final = "index.json"
READ_BYTES: Final = 256 * 1024

_number_of = re.compile(r"[a-z]+-([0-9]{1,15})(?:\..*)?").fullmatch


class Same(Enum):
    """What is held is what was held."""

    SAME = "same"


SAME: Final = Same.SAME
Held = bytes | Same | None


class SourceDirectory:
    """One source's files. `index`, `head` and `deltas_bytes` say what is on disk and counts; None: nothing.

    `incoming`: names of files that are being written and not to be tidied away. One call at a time, but for
    `create` and `discard`.
    """

    def __init__(self, files: Files, path: Path, source: str) -> None:
        self.files = files
        self.path = path
        self.source = source
        self.index: Index | None = None
        self.head: FrameHead | None = None
        self.deltas_bytes = 0
        self.incoming: set[str] = set()
        self._held_before: FileMark | None = None
        self._last_number = 0
        self._numbering = Lock()

    # -- read ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Read the index, and clean up what a crash left. Raises LastGoodDamaged."""
        self.index = self.head = None
        self.deltas_bytes = 0
        try:
            names = self.files.list(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unreadable(str(self.path), error) from None
        for name in names:
            if name.endswith(".tmp"):
                with suppress(OSError):
                    self.files.unlink(self.path / name)
            elif (match := _number_of(name)) is not None:
                self._last_number = max(self._last_number, int(match[1]))
        if not any(name == INDEX or _number_of(name) for name in names):
            return
        self.index = self.read_index()
        self.head = FrameHead(self.index.position, self.index.saved_at_s, self.index.held)

    def read_index(self) -> Index:
        """What index.json says; nothing is changed. Raises LastGoodDamaged, also where there is none."""
        try:
            return decode_index(self._read_whole(INDEX))
        except Damaged as error:
            raise LastGoodDamaged(self.source, INDEX, str(error)) from None

    def check(self, mark: FileMark) -> None:
        """Raises LastGoodDamaged unless the file is what the mark says."""
        digest, size_bytes = hashlib.sha256(), 0
        for chunk in self._chunks(mark.name):
            digest.update(chunk)
            size_bytes += len(chunk)
        self._compare(mark, size_bytes, digest.hexdigest())

    def plain_pieces(self, mark: FileMark) -> Iterator[bytes]:
        """The gunzipped content of a file, in bounded pieces. Raises LastGoodDamaged."""
        try:
            yield from _inflate(self._chunks(mark.name))
        except GzipDamaged as error:
            raise LastGoodDamaged(self.source, mark.name, str(error)) from None

    def frames(self) -> Iterator[Frame]:
        """The frames that were appended. Raises LastGoodDamaged where they cease to be whole. There is an index."""
        assert self.index is not None
        name = self.index.deltas
        try:
            if name not in self.files.list(self.path):
                return
        except OSError as error:
            raise self._unreadable(str(self.path), error) from None
        content = self._read_whole(name)
        offset = 0
        while offset < len(content):
            try:
                frame = decode_frame(content, offset)
            except Damaged as error:
                raise LastGoodDamaged(self.source, name, str(error)) from None
            yield frame
            offset = frame.end

    def use_frame(self, frame: Frame) -> None:
        """This frame counts, and so do those before it."""
        if self.head is not None and self.head.held != frame.head.held:
            self._held_before = self.head.held
        self.head, self.deltas_bytes = frame.head, frame.end

    def read_held(self) -> bytes | None:
        """What is held, None for nothing. Raises LastGoodDamaged."""
        mark = self.head.held if self.head is not None else None
        if mark is None:
            return None
        content = self._read_whole(mark.name)
        self._compare(mark, len(content), hashlib.sha256(content).hexdigest())
        return content

    # -- write (each raises OSError, and what counted before still does) -------------------------------------

    def commit(self, incoming: FileMark, count: int, position: Position, saved_at_s: float, held: Held) -> None:
        """Make a whole new file, durable under the name of `incoming`, the snapshot that counts."""
        number = self._take_number()
        snapshot = FileMark(f"snapshot-{number}.gz", incoming.size_bytes, incoming.sha256)
        held_mark = self._keep_held(held)
        self.files.rename(self.path / incoming.name, self.path / snapshot.name)
        self.incoming.discard(incoming.name)
        self.files.sync_directory(self.path)
        index = Index(1, number, position, saved_at_s, count, snapshot, held_mark)
        write_durably(self.files, self.path / INDEX, encode_index(index))
        self.files.sync_directory(self.path)
        self.index, self.head = index, FrameHead(position, saved_at_s, held_mark)
        self.deltas_bytes, self._held_before = 0, None
        keep = {INDEX, snapshot.name, index.deltas} | frozenset(self.incoming)
        remove_others(self.files, self.path, keep | ({held_mark.name} if held_mark else set()))

    def append(self, content: bytes, position: Position, saved_at_s: float, held: Held) -> None:
        """Make a delta (empty: none), a position and what is held count. There is an index."""
        assert self.index is not None
        assert self.head is not None
        mark = self._keep_held(held)
        head = FrameHead(position, saved_at_s, mark)
        frame = encode_frame(head, content)
        descriptor = self.files.open_at(self.path / self.index.deltas, self.deltas_bytes)
        try:
            self.files.write(descriptor, frame)
            self.files.sync(descriptor)
        finally:
            self.files.close(descriptor)
        if not self.deltas_bytes:
            self.files.sync_directory(self.path)
        self.deltas_bytes += len(frame)
        before, self.head = self.head.held, head
        if mark != before:
            # The one before stays: it is what counts should this frame be found damaged.
            gone, self._held_before = self._held_before, before
            if gone is not None and gone != mark:
                with suppress(OSError):
                    self.files.unlink(self.path / gone.name)

    def create(self) -> tuple[str, int]:
        """A new file to be written, and its descriptor."""
        make_durable_directory(self.files, self.path)
        name = f"incoming-{self._take_number()}.tmp"
        self.incoming.add(name)  # first, lest a commit in another thread tidies it away
        try:
            return name, self.files.create(self.path / name)
        except OSError:
            self.incoming.discard(name)
            raise

    def discard(self, name: str) -> None:
        """Take away a file of `create`, as far as that can be done."""
        self.incoming.discard(name)
        with suppress(OSError):
            self.files.unlink(self.path / name)

    def _take_number(self) -> int:
        with self._numbering:
            self._last_number += 1
            return self._last_number

    def _keep_held(self, held: Held) -> FileMark | None:
        before = self.head.held if self.head is not None else None
        if held is SAME:
            return before
        if held is None:
            return None
        digest = hashlib.sha256(held).hexdigest()
        if before is not None and before.sha256 == digest:
            return before
        mark = FileMark(f"held-{self._take_number()}", len(held), digest)
        write_durably(self.files, self.path / mark.name, held)
        self.files.sync_directory(self.path)
        return mark

    # -- help ----------------------------------------------------------------------------------------------

    def _read_whole(self, name: str) -> bytes:
        return b"".join(self._chunks(name))

    def _chunks(self, name: str) -> Iterator[bytes]:
        with self._damage_of(name):
            descriptor = self.files.open_to_read(self.path / name)
            try:
                while chunk := self.files.read(descriptor, READ_BYTES):
                    yield chunk
            finally:
                self.files.close(descriptor)

    @contextmanager
    def _damage_of(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unreadable(name, error) from None

    def _unreadable(self, name: str, error: OSError) -> LastGoodDamaged:
        return LastGoodDamaged(self.source, name, f"cannot be read: {error.strerror or error}")

    def _compare(self, mark: FileMark, size_bytes: int, sha256: str) -> None:
        if size_bytes != mark.size_bytes:
            why = f"has {size_bytes} bytes, and {mark.size_bytes} were written"
            raise LastGoodDamaged(self.source, mark.name, why)
        if sha256 != mark.sha256:
            raise LastGoodDamaged(self.source, mark.name, "its hash is wrong")


def inflate_whole(content: bytes) -> Iterator[bytes]:
    """The plain bytes of whole gzip, in bounded pieces. Raises GzipDamaged."""
    return _inflate(iter((content,)))


def _inflate(chunks: Iterator[bytes]) -> Iterator[bytes]:
    inflater = Inflater(must_be_gzip=True)
    for chunk in chunks:
        yield from inflater.feed(chunk)
    if not inflater.is_whole():
        raise GzipDamaged


def make_durable_directory(files: Files, path: Path) -> None:
    """The directory of a source; nothing happens if it is there."""
    try:
        files.list(path)
    except FileNotFoundError:
        files.make_directory(path)
        files.sync_directory(path.parent)
        files.sync_directory(path.parent.parent)
