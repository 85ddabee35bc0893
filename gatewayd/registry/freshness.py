"""The state of a source, how old it is, and what that means for the mode. Nothing is removed.

A source is confirmed when it gave content or said that it has no other. A signed feed also says when it was
issued: an answer that was issued long ago, from a cache that no longer asks or from somebody who replays it,
confirms nothing newer than itself. So a registry issues its notification anew well within `expire`, whether
or not anything changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal

from gatewayd.feed.reading import MAX_REJECTIONS_LISTED
from gatewayd.model import Mode
from gatewayd.model.registration import RejectedRecord
from gatewayd.settings.model import OnStale, RegistrySettings
from gatewayd.sources.last_good import Restored
from gatewayd.sources.update import FeedPosition, SourceUpdate

FreshnessWord = Literal["fresh", "overdue", "stale"]

MISSED_REFRESHES: Final = 3
"""A source that was not confirmed for so many refreshes is overdue: worth a warning, and nothing else."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """`since_s`: when this began, -inf where there never was anything."""

    word: FreshnessWord
    since_s: float


@dataclass(slots=True)
class SourceState:
    """All that is known of a source beside its registrations; `registrations` counts them.

    `error`: of the latest attempt, None if it succeeded. `read_at`, `confirmed_at`, `restored_at`: Unix seconds.
    `rejected`: records that are not usable, by reason code, since the source was last read whole; `retained`: how
    many of them are in force as they were. `rejections`: the first MAX_REJECTIONS_LISTED of those that no later
    delta has mended.
    """

    registrations: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rejections: tuple[RejectedRecord, ...] = ()
    retained: int = 0
    read_at: float = 0.0
    error: str | None = None
    restored_at: float | None = None
    confirmed_at: float = -inf
    position: FeedPosition | None = None
    refused: int = 0
    """Readings that came to too many elements, since the start."""
    has_answered: bool = False
    """In this run."""

    def take(self, update: SourceUpdate) -> None:
        """What came of asking the source."""
        if update.error is not None:
            self.error = update.error.why
            return
        self.error, self.has_answered = None, True
        if update.registrations is None:
            self.confirmed_at = max(self.confirmed_at, update.at_s)
            return
        self.registrations = len(update.registrations)
        self.read_at = self.confirmed_at = update.at_s
        self.restored_at = None
        self.position = update.reached
        if update.changes is None:
            self.rejected, self.retained = dict(update.rejected), update.retained
            self.rejections = update.rejected_records()
            return
        if update.rejected:
            self.rejected = dict(Counter(self.rejected) + Counter(update.rejected))
        if self.rejections:
            mended = {*(each.id for each in update.changes.upserts), *update.changes.withdrawals}
            self.rejections = tuple(each for each in self.rejections if each.id not in mended)
        self.rejections = (*self.rejections, *update.rejected_records())[:MAX_REJECTIONS_LISTED]

    def rejection_of(self, id: str) -> RejectedRecord | None:
        """The latest of the id that is listed."""
        return next((each for each in reversed(self.rejections) if each.id == id), None)

    def restore(self, found: Restored) -> None:
        """The last good of an earlier run."""
        if found.position is None:
            return
        self.registrations = len(found.registrations)
        self.rejected, self.position = dict(found.rejected), found.position
        self.rejections = found.rejections
        self.restored_at = found.saved_at_s
        self.confirmed_at = found.saved_at_s if found.saved_at_s is not None else -inf

    def set_back(self, now: float) -> None:
        """The clock was set back: nothing was confirmed later than now."""
        self.confirmed_at = min(self.confirmed_at, now)

    @property
    def serial(self) -> int:
        """Of the feed, or the second of the reading where there is none; 0: nothing was read."""
        return 0 if self.position is None else self.position.serial

    @property
    def session(self) -> str | None:
        """Of a signed feed; None for another source."""
        return (self.position.session or None) if self.position is not None else None

    @property
    def issued_at(self) -> float | None:
        """As signed, in Unix seconds."""
        return self.position.issued_at_s if self.position is not None else None

    def freshness(self, settings: RegistrySettings, now: float) -> Freshness:
        """How old it is. What the feed says of its own expiry goes before the settings."""
        stated_s = float(self.position.expire) if self.position is not None else 0.0
        return judge_freshness(
            self.confirmed_at if self.confirmed_at > -inf else None,
            self.issued_at,
            now,
            refresh_s=settings.refresh_s,
            expire_s=stated_s or settings.expire_s,
        )


def rejections_of(sources: Mapping[str, SourceState], name: str) -> tuple[RejectedRecord, ...]:
    """Those that are listed of a source; none where it is not configured any more."""
    return sources[name].rejections if name in sources else ()


def judge_freshness(
    confirmed_at_s: float | None,
    issued_at_s: float | None,
    now: float,
    *,
    refresh_s: float,
    expire_s: float,
) -> Freshness:
    """`confirmed_at_s`: when the source last gave or confirmed what is in force, in this run or, as the last
    good knows, an earlier one; None = never. `issued_at_s`: as signed, None where nobody says."""
    if confirmed_at_s is None:
        return Freshness("stale", -inf)
    known_at_s = confirmed_at_s if issued_at_s is None else min(confirmed_at_s, issued_at_s)
    overdue_at_s, stale_at_s = confirmed_at_s + MISSED_REFRESHES * refresh_s, known_at_s + expire_s
    if now >= stale_at_s:
        return Freshness("stale", stale_at_s)
    if now >= overdue_at_s:
        return Freshness("overdue", overdue_at_s)
    return Freshness("fresh", confirmed_at_s)


def mode_by_freshness(mode: Mode, sources: Mapping[str, Freshness], on_stale: OnStale) -> Mode:
    """The mode to be in force: observe if the operator chose so and any source is stale."""
    if on_stale == "observe" and any(each.word == "stale" for each in sources.values()):
        return "observe"
    return mode
