"""What is known of a source beside its registrations, and how a reading of it is kept on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from gatewayd.model.registration import Registration
from gatewayd.registry.feed_source import FeedReading, SourceDelta, kept_position, resumed_position
from gatewayd.registry.kept import Position
from gatewayd.registry.merge import SLICE, Changes, Slices
from gatewayd.registry.sources import SourceReading
from gatewayd.registry.store import LastGood, Restored


@dataclass(slots=True)
class SourceFacts:
    """`error`: of the latest attempt, None if it succeeded. `read_at`, `confirmed_at`, `restored_at`: Unix
    seconds. `serial`: of the feed, or the second of the reading for a source that has none. `expire_s`: as the
    feed says, 0 if it does not. `by_category`: of the latest reading."""

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
    by_category: Counter[str] = field(default_factory=Counter)

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


def held_name(source: str) -> str:
    """The name under which what the guard holds of a source is merged; no source can have it."""
    return f"{source}#held"


def merge_order(sources: Iterable[str]) -> list[str]:
    """What is held of a source comes right before the source."""
    return [name for source in sources for name in (held_name(source), source)]


def count_categories(registrations: Mapping[str, Registration]) -> Slices[Counter[str]]:
    counts: Counter[str] = Counter()
    for done, registration in enumerate(registrations.values(), 1):
        counts[registration.category] += 1
        if done % SLICE == 0:
            yield
    return counts


def recount_categories(counts: Counter[str], old: Mapping[str, Registration], changes: Changes) -> Slices[None]:
    """Bring `counts` of `old` up to date with what leads to the next reading."""
    for done, registration in enumerate(changes.upserts, 1):
        before = old.get(registration.id)
        if before is not None:
            counts[before.category] -= 1
        counts[registration.category] += 1
        if done % SLICE == 0:
            yield
    for registration_id in changes.withdrawals:
        counts[old[registration_id].category] -= 1


async def keep(store: LastGood, result: SourceReading | SourceDelta, held: bytes | None) -> None:
    """Make the reading the source's last good. A disk that fails is the store's to tell."""
    position = Position(None, int(result.read_at))
    if isinstance(result, SourceDelta):
        position = kept_position(result.position)
        if result.content is not None:
            after = kept_position(result.after)
            await store.save_delta(result.name, result.content, position, after=after, held=held)
    elif isinstance(result, FeedReading):
        position = kept_position(result.position)
        await store.save_snapshot(result.name, result.kept_file, result.count, position, held)
    else:
        await store.save_reading(result.name, result.registrations, position, held)
    if store.needs_reading(result.name):
        await store.save_reading(result.name, result.registrations, position, held)
