"""What goes into and comes out of the client of a signed feed (`feed`), as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from gatewayd.errors import FeedRefused
from gatewayd.feed.notification import DeltaRef, SnapshotRef
from gatewayd.feed.reading import Rejection
from gatewayd.model import Registration

FileKind = Literal["notification", "snapshot", "delta"]

SnapshotReason = Literal[
    "first_time", "new_session", "serial_reused", "serial_gap", "delta_missing", "delta_mutated",
    "too_many_deltas", "delta_failed", "delta_digest", "delta_damaged", "delta_malformed", "delta_conflict",
]  # fmt: skip

SNAPSHOT_REASONS: Final[dict[SnapshotReason, str]] = {
    "first_time": "Nothing is held yet.",
    "new_session": "The registry began anew: its deltas do not lead from what is held.",
    "serial_reused": "The serial that is held was issued again, later and with other content.",
    "serial_gap": "What is held is older than the first delta that is offered.",
    "delta_missing": "A delta of the chain is not listed, or is not there.",
    "delta_mutated": "A delta that was applied is listed with another hash now.",
    "too_many_deltas": "The chain has more deltas, or more bytes, than the limit.",
    "delta_failed": "The chain could not be fetched several times over.",
    "delta_digest": "A delta does not have the size or the hash that is stated.",
    "delta_damaged": "A delta is not whole gzip, or is larger than the limit once it is undone.",
    "delta_malformed": "A line of a delta is no operation.",
    "delta_conflict": "A delta withdraws what is not held.",
}
"""Why a snapshot was taken rather than deltas: stable words (a metric label), and sentences for people."""


class FeedPosition(msgspec.Struct, frozen=True):
    """Where in the feed the registrations that are held stand; to be kept beside them over a restart.

    `delta_hashes`: serial and sha256 of the deltas up to `serial`. `is_exact`: no record was rejected since
    the snapshot. `etag`, `last_modified`: of the notification. 0 as `refresh`, `retry`, `expire`: not stated.
    """

    session: str
    serial: int
    issued_at: float
    snapshot_sha256: str
    delta_hashes: tuple[tuple[int, str], ...] = ()
    refresh: int = 0
    retry: int = 0
    expire: int = 0
    is_exact: bool = True
    etag: str | None = None
    last_modified: str | None = None


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


@dataclass(frozen=True, slots=True)
class Unchanged:
    """What is held is what the feed has. `is_reissued`: by a notification that was not seen before."""

    position: FeedPosition
    is_reissued: bool


@dataclass(frozen=True, slots=True)
class SnapshotRead:
    """A whole snapshot, verified. `registrations` belongs to whoever takes it and never changes."""

    position: FeedPosition
    registrations: dict[str, Registration]
    rejected: Mapping[str, int]
    rejections: tuple[Rejection, ...]
    reason: SnapshotReason
    kept: int = 0


@dataclass(frozen=True, slots=True)
class DeltaRead:
    """A chain of deltas, verified, as one change. `upserts` are new or differ from before; both may be empty.

    `registrations`: what is held now, a mapping that never changes.
    """

    position: FeedPosition
    upserts: tuple[Registration, ...]
    withdrawals: tuple[str, ...]
    registrations: Mapping[str, Registration]
    rejected: Mapping[str, int]
    rejections: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing changed, for this reason."""

    error: FeedRefused


Outcome = Unchanged | SnapshotRead | DeltaRead | Refused
