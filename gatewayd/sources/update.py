"""What came of asking a source, as one value: the one shape of a reading, a delta, a confirmation and a failure.

A source is read from an `Origin`: a place that is opened and gives chunks of bytes. An origin raises SourceFailed
and nothing else of its own, and a body that ends without an error is whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from gatewayd.errors import SourceFailed
from gatewayd.feed.reading import Rejection
from gatewayd.model import Registration
from gatewayd.model.registration import Changes, RejectedRecord

SnapshotReason = Literal[
    "first_time", "new_session", "serial_reused", "serial_gap", "delta_missing", "delta_mutated",
    "too_many_deltas", "delta_failed", "delta_digest", "delta_damaged", "delta_malformed", "delta_conflict",
]  # fmt: skip
"""Why a snapshot was taken rather than deltas."""

LARGE = 10_000
"""Registrations that take 10 ms of the processor to be written to disk."""


class FeedPosition(msgspec.Struct, frozen=True):
    """Where in a feed the registrations of a source stand; saved beside them for a restart.

    `session` "": the source is no feed, and `serial` is the second of its reading. `issued_at`: Unix seconds.
    `delta_hashes`: serial and sha256 of the deltas up to `serial`. `is_exact`: no record was rejected since the
    snapshot. `etag`, `last_modified`: of the notification. 0 as `refresh`, `retry`, `expire`: not stated.
    """

    session: str
    serial: int
    issued_at: float = 0.0
    snapshot_sha256: str = ""
    delta_hashes: tuple[tuple[int, str], ...] = ()
    refresh: int = 0
    retry: int = 0
    expire: int = 0
    is_exact: bool = True
    etag: str | None = None
    last_modified: str | None = None

    @property
    def issued_at_s(self) -> float | None:
        """None where nobody says."""
        return self.issued_at if self.session else None


@dataclass(frozen=True, slots=True)
class SourceUpdate:
    """A failure has an `error`, a confirmation has neither that nor `registrations`; the rest is of content.

    `registrations`: all of the source now; it never changes. `changes` leads there from `before`; None: the source
    was read whole. Both may be empty: then only the position went on. `position`: in the feed, None: there is none.
    `rejected` counts records that are not usable by reason code, of a delta those of its own; `rejections` lists
    the first of them. `retained`: how many of them stay in `registrations` as they were.
    `reason`: why a feed was read whole.
    """

    source: str
    at_s: float
    error: SourceFailed | None = None
    registrations: Mapping[str, Registration] | None = None
    changes: Changes | None = None
    position: FeedPosition | None = None
    before: FeedPosition | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    rejections: tuple[Rejection, ...] = ()
    retained: int = 0
    reason: SnapshotReason | None = None

    @property
    def is_large(self) -> bool:
        """Whether the processor is busy for long while it is written to disk."""
        return self.changes is None and self.registrations is not None and len(self.registrations) > LARGE

    def rejected_records(self) -> tuple[RejectedRecord, ...]:
        """Those of `rejections`."""
        serial, is_delta = self.reached.serial, self.changes is not None
        return tuple(
            RejectedRecord(serial, each.line, each.id, each.code, each.field, is_delta) for each in self.rejections
        )

    @property
    def reached(self) -> FeedPosition:
        """Where the registrations stand, also where there is no feed."""
        return self.position or FeedPosition("", int(self.at_s))


Deliver = Callable[[SourceUpdate], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Body:
    """The opened content of a source.

    `validator` says which content it is, to be given to the next `open`; None where the origin cannot say.
    `chunks` raises SourceFailed if the content is cut short; only what ends without an error may be used.
    """

    chunks: AsyncGenerator[bytes, None]
    validator: Hashable | None = None
    content_type: str | None = None


class Origin(Protocol):
    """A place from which a source is read again and again. `place` names it for people, without secrets."""

    @property
    def place(self) -> str: ...

    def open(self, previous: Hashable | None) -> AbstractAsyncContextManager[Body | None]:
        """Opens the content; None if it is still that of the `previous` validator. Raises SourceFailed."""
        ...
