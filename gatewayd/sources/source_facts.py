"""What is known of a source beside its registrations, and how a reading of it is kept on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from gatewayd.log import get_logger
from gatewayd.sources.feed_source import FeedReading, SourceDelta, kept_position, resumed_position
from gatewayd.sources.last_good import Position
from gatewayd.sources.last_good_store import LastGood, Restored
from gatewayd.sources.sources import SourceReading

log = get_logger(__name__)


@dataclass(slots=True)
class SourceFacts:
    """`error`: of the latest attempt, None if it succeeded. `read_at`, `confirmed_at`, `restored_at`: Unix
    seconds. `serial`: of the feed, or the second of the reading for a source that has none. `expire_s`: as the
    feed says, 0 if it does not."""

    url: str
    registrations: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    read_at: float = 0.0
    error: str | None = None
    restored_at: float | None = None
    confirmed_at: float = -inf
    session: str | None = None
    serial: int = 0
    issued_at: float | None = None
    expire_s: float = 0.0
    kept: int = 0

    def take(self, result: SourceReading | SourceDelta) -> None:
        """A reading that is complete."""
        self.error = None
        self.registrations = len(result.registrations)
        self.rejected = dict(result.rejected)
        self.read_at = self.confirmed_at = result.read_at
        self.restored_at = None
        self.serial = int(result.read_at)
        self.kept = result.kept if isinstance(result, SourceReading) else self.kept
        if isinstance(result, SourceDelta | FeedReading):
            position = result.position
            self.session, self.serial = position.session, position.serial
            self.issued_at, self.expire_s = position.issued_at, float(position.expire)

    def confirm(self, checked_at: float) -> None:
        """The source has nothing else than before."""
        self.error = None
        self.confirmed_at = max(self.confirmed_at, checked_at)

    def set_back(self, now: float) -> None:
        """The clock was set back: nothing was confirmed later than now."""
        self.confirmed_at = min(self.confirmed_at, now)

    def restore(self, restored: Restored) -> None:
        """The last good of an earlier run."""
        position = restored.position
        if position is None:
            return
        self.registrations = len(restored.registrations)
        self.restored_at = restored.saved_at_s
        self.confirmed_at = restored.saved_at_s if restored.saved_at_s is not None else -inf
        self.session, self.serial, self.issued_at = position.session, position.serial, position.issued_at_s
        known = resumed_position(position)
        self.expire_s = float(known.expire) if known is not None else 0.0


async def keep(store: LastGood, result: SourceReading | SourceDelta) -> None:
    """Make the reading the source's last good. A disk that fails is the store's to tell."""
    position = Position(None, int(result.read_at))
    if isinstance(result, SourceDelta):
        position = kept_position(result.position)
        if result.content is not None:
            after = kept_position(result.after)
            await store.save_delta(result.name, result.content, position, after=after, held=None)
    elif isinstance(result, FeedReading):
        position = kept_position(result.position)
        await store.save_snapshot(result.name, result.kept_file, result.count, position, None)
    else:
        await store.save_reading(result.name, result.registrations, position, None)
    if store.needs_reading(result.name):
        await store.save_reading(result.name, result.registrations, position, None)


async def discard(store: LastGood, result: SourceReading | SourceDelta) -> None:
    """The reading is not to be the last good."""
    if isinstance(result, FeedReading) and result.kept_file is not None:
        await store.discard(result.name, result.kept_file)
