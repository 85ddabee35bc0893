"""The decisions of a feed's client: what to ask for, when, and whether an answer may be used.

A notification is refused, says nothing new, or leads on by a chain of deltas or by the snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urldefrag, urljoin, urlsplit

import msgspec

from gatewayd.errors import (
    AnswerUnexpected,
    DeltaConflict,
    DeltaMalformed,
    FeedRefused,
    FileDamaged,
    FileTooLarge,
    ForeignOrigin,
    HashMismatch,
    IssuedAtWentBackwards,
    IssuedInFuture,
    NotificationStale,
    SerialReused,
    SerialWentBackwards,
    SizeMismatch,
)
from gatewayd.feed.notification import MAX_BYTES, DeltaRef, Notification, SnapshotRef, is_url_text
from gatewayd.model.moment import earliest_of, latest_of
from gatewayd.sources.update import FeedPosition, SnapshotReason

FileKind = Literal["notification", "snapshot", "delta"]

_MARKUP_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
_FILE_ENCODINGS: Final = frozenset({"identity", "gzip", "x-gzip"})
"""For a file that is gzip in itself, servers that say so by Content-Encoding serve the same bytes."""
_MAX_VALIDATOR: Final = 256


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """`max_bytes` holds for a file as served and again for what it decompresses to, and for a whole chain."""

    max_bytes: int = 1 << 30
    max_records: int = 4_000_000
    max_deltas: int = 1000
    ahead_tolerance_s: float = 300.0


@dataclass(frozen=True, slots=True)
class FeedRequest:
    """A GET that the machine wants. `ref`: what the notification states of the file; None for itself.

    `session`, `serial`: of the content; "" and 0 while they are not known. The URL is absolute and has the
    origin of the feed.
    """

    kind: FileKind
    url: str
    headers: Mapping[str, str]
    ref: SnapshotRef | DeltaRef | None = None
    session: str = ""
    serial: int = 0

    def __str__(self) -> str:
        return f"delta {self.serial}" if self.kind == "delta" else self.kind


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
    if request.ref is None and int(length) > MAX_BYTES:
        raise FileTooLarge(what, MAX_BYTES, "bytes")
    if request.ref is not None and int(length) != request.ref.size:
        raise SizeMismatch(what, request.ref.size, int(length))


def validators_of(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """ETag and Last-Modified, of a length that is worth keeping."""
    etag, last_modified = (_short_enough(headers.get(name)) for name in ("etag", "last-modified"))
    return etag, last_modified


def _short_enough(value: str | None) -> str | None:
    return value if value is not None and len(value) <= _MAX_VALIDATOR else None


MIN_REFRESH_S: Final = 10.0
"""A notification cannot make us ask more often, unless the operator's own refresh is shorter."""
MAX_REFRESH_S: Final = 86400.0
MIN_RETRY_S: Final = 1.0
MIN_EXPIRE_S: Final = 60.0


def back_off_s(failures: int, retry_s: float, max_s: float) -> float:
    """After so many failures (from 1) in a row: `retry_s`, doubled each time, up to `max_s`."""
    return min(retry_s * 2.0 ** min(failures - 1, 30), max_s)


@dataclass(frozen=True, slots=True)
class FeedIntervals:
    """The operator's, in seconds, for where the notification says nothing (0)."""

    refresh_s: float = 60.0
    retry_s: float = 10.0
    expire_s: float = 7 * 86400.0

    def wait_s(self, failures: int, stated_refresh: int = 0, stated_retry: int = 0) -> float:
        """Before the next attempt, without jitter: `refresh`, or after failures a back-off from `retry`."""
        refresh_s, retry_s = self.refresh_s, self.retry_s
        if stated_refresh:
            refresh_s = max(stated_refresh, min(MIN_REFRESH_S, refresh_s))
        refresh_s = min(refresh_s, MAX_REFRESH_S)
        if not failures:
            return refresh_s
        if stated_retry:
            retry_s = max(stated_retry, min(MIN_RETRY_S, retry_s))
        return back_off_s(failures, retry_s, max(refresh_s, self.retry_s))

    def holds_s(self, stated_expire: int) -> float:
        """From the time of issue."""
        return max(float(stated_expire), MIN_EXPIRE_S) if stated_expire else self.expire_s


FALLBACKS: Final[dict[type[FeedRefused], SnapshotReason]] = {
    SizeMismatch: "delta_digest",
    HashMismatch: "delta_digest",
    FileDamaged: "delta_damaged",
    FileTooLarge: "delta_damaged",
    DeltaMalformed: "delta_malformed",
    DeltaConflict: "delta_conflict",
}
"""What is wrong with the content of a delta; another error of it may be over at the next attempt."""

MAX_CHAIN_FAILURES: Final = 3

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Plan(msgspec.Struct, frozen=True):
    """`reason`: why the snapshot; None: `chain` leads there, first delta first, empty if there is nothing to do."""

    reason: SnapshotReason | None = None
    chain: tuple[DeltaRef, ...] = ()


def check_age(issued_at: float, expire_s: float, now: float) -> None:
    """Raises NotificationStale, once that is certain."""
    age_s = earliest_of(now) - issued_at
    if age_s > expire_s:
        raise NotificationStale(age_s, expire_s)


def check_not_ahead(issued_at: float, now: float, limits: FeedLimits) -> None:
    """Raises IssuedInFuture, unless it may be our clock that is wrong."""
    ahead_s = issued_at - latest_of(now)
    if ahead_s > limits.ahead_tolerance_s:
        raise IssuedInFuture(ahead_s)


def check_snapshot_size(new: Notification, limits: FeedLimits) -> None:
    """Raises FileTooLarge for a snapshot that could not be read in any case."""
    if new.snapshot.size > limits.max_bytes:
        raise FileTooLarge("snapshot", limits.max_bytes, "bytes")
    if new.snapshot.count > limits.max_records:
        raise FileTooLarge("snapshot", limits.max_records, "records")


def plan(current: FeedPosition | None, new: Notification, limits: FeedLimits, chain_failures: int) -> Plan:
    """What leads from `current` to `new`. Raises SerialWentBackwards, IssuedAtWentBackwards, SerialReused."""
    if current is None:
        return Plan("first_time")
    if new.session != current.session:
        if new.issued_at <= current.issued_at:
            raise IssuedAtWentBackwards(current.issued_at, new.issued_at)
        return Plan("new_session")
    if new.serial < current.serial:
        raise SerialWentBackwards(current.serial, new.serial)
    if new.issued_at < current.issued_at:
        raise IssuedAtWentBackwards(current.issued_at, new.issued_at)
    if new.serial > current.serial:
        return _plan_chain(current, new, limits, chain_failures)
    if new.snapshot.sha256 == current.snapshot_sha256:
        return Plan()
    if new.issued_at == current.issued_at:
        raise SerialReused(new.serial)
    return Plan("serial_reused")


def _plan_chain(current: FeedPosition, new: Notification, limits: FeedLimits, chain_failures: int) -> Plan:
    offered = {delta.serial: delta for delta in new.deltas}
    for serial, sha256 in current.delta_hashes:
        if serial in offered and offered[serial].sha256 != sha256:
            return Plan("delta_mutated")
    if not offered or current.serial + 1 < min(offered):
        return Plan("serial_gap")
    if new.serial - current.serial > limits.max_deltas:
        return Plan("too_many_deltas")
    wanted = range(current.serial + 1, new.serial + 1)
    chain = tuple(offered[serial] for serial in wanted if serial in offered)
    if len(chain) < len(wanted):
        return Plan("delta_missing")
    if sum(delta.size for delta in chain) > limits.max_bytes:
        return Plan("too_many_deltas")
    return Plan("delta_failed") if chain_failures >= MAX_CHAIN_FAILURES else Plan(chain=chain)


def resolve(what: str, home: str, base: str, reference: str) -> str:
    """`reference`, resolved against `base`, if it has the origin of `home`. Raises ForeignOrigin."""
    try:
        if not is_url_text(reference):
            raise ValueError
        url = urldefrag(urljoin(base, reference)).url
        is_ours = _origin_of(url) == _origin_of(home)
    except ValueError:
        raise ForeignOrigin(what, "(no URL)") from None
    if not is_ours:
        raise ForeignOrigin(what, _shown_origin(url))
    return url


def _origin_of(url: str) -> tuple[str, str | None, int | None]:
    """RFC 6454 §4. ValueError for what is no URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _shown_origin(url: str) -> str:
    """Scheme, host and port, without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
