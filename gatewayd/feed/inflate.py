"""gzip undone in pieces of bounded size, with an eye on its end (RFC 1952)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

PIECE_BYTES: Final = 64 * 1024
GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31
"""zlib's wbits: gzip alone, with the largest window."""


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
