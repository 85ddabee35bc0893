"""The head of an answer of a feed's server: whether its body can be what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gatewayd.errors import AnswerUnexpected, FileTooLarge, SizeMismatch
from gatewayd.registry.feed_outcome import FeedRequest
from gatewayd.registry.notification import LARGEST_BYTES

_MARKUP_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
_FILE_ENCODINGS: Final = frozenset({"identity", "gzip", "x-gzip"})
"""For a file that is gzip in itself, servers that say so by Content-Encoding serve the same bytes."""
_LONGEST_VALIDATOR: Final = 256


def check_head(request: FeedRequest, status: int, headers: Mapping[str, str]) -> None:
    """`headers`: names in lower case. Raises AnswerUnexpected, FileTooLarge, SizeMismatch."""
    what = str(request)
    if status != 200:
        raise AnswerUnexpected(what, status, f"HTTP status {status}")
    if headers.get("content-type", "").partition(";")[0].strip().lower() in _MARKUP_TYPES:
        raise AnswerUnexpected(what, status, "the server sends a page for people (a login page?)")
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in (("identity",) if request.ref is None else _FILE_ENCODINGS):
        raise AnswerUnexpected(what, status, "the server uses a content encoding that was not asked for")
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit() and len(length) < 19):
        return
    if request.ref is None and int(length) > LARGEST_BYTES:
        raise FileTooLarge(what, LARGEST_BYTES, "bytes")
    if request.ref is not None and int(length) != request.ref.size:
        raise SizeMismatch(what, request.ref.size, int(length))


def validators_of(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """ETag and Last-Modified, of a length that is worth keeping."""
    etag, last_modified = (_short_enough(headers.get(name)) for name in ("etag", "last-modified"))
    return etag, last_modified


def _short_enough(value: str | None) -> str | None:
    return value if value is not None and len(value) <= _LONGEST_VALIDATOR else None
