"""What time it is, judged from this host's clock and from what contradicts or confirms it.

A gateway's clock is wrong more often than one thinks: no battery, the RTC in local time, a virtual machine that was
paused, a bad time server, a slip of the hand. Of such a clock no window closes and nothing is armed or stale. Where
nobody can tell which of two times is right, a window counts as open if it is open at either (`model.moment`): to
let a registered customer pass a little longer harms nobody, to cut one does.

    wall      this host's clock
    elapsed   a clock that is never set and goes on through sleep (CLOCK_BOOTTIME)
    synced    the kernel's word that an NTP daemon keeps the clock (adjtimex: not STA_UNSYNC)
    floor     a time that has certainly come, and what has elapsed since: the latest signed `issued_at`; a well
              confirmed time of before a reboot
    ceiling   a time that has not come yet: a registry issues anew within `expire`, so `issued_at` + `expire`, and
              what has elapsed since it was read
    saved     the time when we last ran before a reboot, by a clock that nobody had confirmed, or when a last good
              was saved; known before anybody asks the time
    anchor    a time that was believed, and what has elapsed since; *alone* if nothing confirmed it, *roughly* if a
              signed source put a floor and a ceiling around it, *well* if the kernel did, or a notification that
              came out between two questions of ours. It outlives a restart, not a reboot.

The rules, the first that fits. C: by this windows close, policies arm, sources are stale. O: by this windows open.
*Hardly far*: by less than a week. *Long enough*: the clock was not set for an hour, and of the signed sources, if
there are any, one first spoke an hour ago in this run: a registry that issues within the half hour has given a
tight witness by then. NTP, where there is any, has put the clock right.

| # | when | C | O | doubt, and what becomes of the anchor |
| --- | --- | --- | --- | --- |
| 1 | synced; at most a day below the floor, not above the ceiling | wall | wall | the wall, well |
| 2 | wall below the floor | the later of floor and anchor | C; with no anchor the ceiling, ∞ if unknown | behind |
| 3 | the anchor is within 5 minutes | the earlier | the later | – |
| 4 | the anchor is further away and confirmed | anchor | anchor | ahead, behind |
| 5 | the anchor is further away, hardly far, alone; long enough | wall | wall | the wall, alone |
| 6 | the anchor is further away, alone | the earlier | the later | ahead, behind |
| 7 | no anchor; nothing known, no signed source | wall | wall | the wall, alone |
| 8 | no anchor; plausible, long enough | wall | wall | the wall, *roughly* where a signed source has spoken |
| 9 | no anchor; plausible | floor, else saved, else −∞ | wall | – |
| 10 | no anchor; over a week past all that is known, or above the ceiling | floor, else saved | wall | ahead |
| 11 | no anchor; below `saved` | floor, else the wall | saved | behind |

*Plausible*: from `saved` (less 5 minutes) to a week past the later of floor and saved, and not above the ceiling.

A notification that was read or confirmed now, issued at I, moves floor and ceiling. It puts the true time between I
and I + `expire`, or, if it came out between two questions at most an hour apart, between I and I + that: *well*.
Five minutes either way are allowed for. If neither clock nor anchor lies there and the later is less than an hour
past it, a cache may have given it out late: it says the first, *roughly*. Then:

| what lies there | the anchor, if *well* | if *roughly* |
| --- | --- | --- |
| the anchor, not the wall | stays, *well* | stays, *roughly* at least |
| both | the later of wall and I | stays, *roughly* at least if they are within 5 minutes |
| the wall alone | the later of wall and I | none |
| neither | I | none |

So a right time after a false one is taken at once when the kernel or the registry says so, and holds nobody up
before: only closings wait. What has no such witness is believed within the hour.

An `issued_at` ahead of us is evidence, unless we know better (`latest_issue_s`): under rule 1 it may not be past
the wall; with a *well* confirmed anchor, past wall and the latest that the anchor may mean; else past ceiling and
wall. An anchor that is a notification alone, come out between two questions, may mean the later of them. The feed's
client refuses what is past: a registry that is ahead would shut itself out once it is put right.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Final, Literal

import msgspec

from gatewayd.model.moment import Moment, between

TOLERANCE_S: Final = 300.0
"""Two clocks this far apart are the same time: also how far ahead a notification may be."""
TIGHT_S: Final = 3600.0
"""Longest time between two questions that says when a notification came out."""
CACHED_S: Final = 3600.0
"""A cache may give a notification out so late, and that is no proof of a clock that is ahead."""
PLAUSIBLE_S: Final = 7 * 86400.0
PATIENCE_S: Final = 3600.0
SYNCED_BELOW_S: Final = 86400.0
"""The kernel's word against a signed one: a bad time server is off by years, a bad registry by minutes."""
SAME_S: Final = 0.5
"""Steps below this are no steps."""
REBOOT_MARGIN_S: Final = 2 * TOLERANCE_S + TIGHT_S
"""By what a well confirmed time may have been ahead."""

Strength = Literal[0, 1, 2]
ALONE: Final[Strength] = 0
ROUGHLY: Final[Strength] = 1
WELL: Final[Strength] = 2


@dataclass(frozen=True, slots=True)
class Reading:
    """The host's clocks in one turn: Unix seconds, seconds since boot, and whether the kernel says synced."""

    wall_s: float
    elapsed_s: float
    is_synced: bool = False


@dataclass(frozen=True, slots=True)
class Doubt:
    """The host's clock is not believed. `used_s`: what closings go by instead."""

    word: Literal["ahead", "behind"]
    wall_s: float
    used_s: float
    why: str

    @property
    def offset_s(self) -> float:
        """Positive where the clock is ahead of what is used."""
        return self.wall_s - self.used_s


@dataclass(frozen=True, slots=True)
class Judgement:
    """`earliest_s`, `latest_s`: C and O of the rules. `latest_issue_s`: a notification issued later (by more than
    the feed's own tolerance) is not believed. `is_confirmed`: somebody beside the clock itself says so."""

    wall_s: float
    earliest_s: float
    latest_s: float
    latest_issue_s: float
    doubt: Doubt | None
    is_confirmed: bool

    def likely(self) -> float:
        """One time, for ages and records: the host's clock, unless that is doubted."""
        return self.wall_s if self.doubt is None else self.doubt.used_s

    def moment(self) -> float:
        """For windows."""
        return between(self.earliest_s, self.latest_s)

    def feed_moment(self) -> float:
        """For a feed's client: is it stale (by the earliest), is it from the future (by the latest)?"""
        return Moment(self.earliest_s, max(self.latest_issue_s, self.earliest_s))


class KeptTime(msgspec.Struct, frozen=True):
    """What a later run may know of this one. `elapsed_s` has a meaning within the same boot alone. `boot_id`: empty
    where `at_s` is only when an earlier run ended."""

    boot_id: str
    elapsed_s: float
    at_s: float
    strength: int
    floor_s: float | None = None
    span_s: float = 0.0


class _Mark(msgspec.Struct, frozen=True):
    """It was `at_s` when `elapsed_s` had elapsed, or later by `span_s` at most."""

    at_s: float
    elapsed_s: float
    strength: Strength = ALONE
    span_s: float = 0.0

    def at(self, elapsed_s: float) -> float:
        return self.at_s + (elapsed_s - self.elapsed_s)


class TrustedTime:
    """Owned by one task; `take` with every reading that is to be believed or not. `has_signed`: whether there is a
    signed source, whose word is worth waiting for."""

    def __init__(self, *, has_signed: bool) -> None:
        self.has_signed = has_signed
        self._floor: _Mark | None = None
        self._ceiling: _Mark | None = None
        self._saved: _Mark | None = None
        self._anchor: _Mark | None = None
        self._offset_s: float | None = None
        self._steady_since_s = 0.0
        self._spoke_at_s: float | None = None
        """When a signed source first spoke in this run, in seconds elapsed."""

    # -- what is known from before ---------------------------------------------------------------------------

    def recall(self, kept: KeptTime, boot_id: str, elapsed_s: float) -> None:
        """What an earlier run knew."""
        if not (isfinite(kept.at_s) and isfinite(kept.elapsed_s) and isfinite(kept.span_s)):
            return
        if kept.floor_s is not None and isfinite(kept.floor_s):
            self.note_issued(kept.floor_s, elapsed_s)
        if boot_id and kept.boot_id == boot_id and kept.elapsed_s <= elapsed_s:
            strength: Strength = WELL if kept.strength == WELL else ROUGHLY if kept.strength == ROUGHLY else ALONE
            self._anchor = _Mark(kept.at_s, kept.elapsed_s, strength, kept.span_s)
        elif kept.strength == WELL:
            self.note_issued(kept.at_s - REBOOT_MARGIN_S, elapsed_s)
            self._note_saved(kept.at_s, elapsed_s)
        else:
            self._note_saved(kept.at_s, elapsed_s)

    def note_issued(self, issued_at_s: float, elapsed_s: float) -> None:
        """Signed then, read by an earlier run: the time has come."""
        if self._floor is None or issued_at_s > self._floor.at(elapsed_s):
            self._floor = _Mark(issued_at_s, elapsed_s)

    def note_last_good(self, issued_at_s: float | None, saved_at_s: float | None, elapsed_s: float) -> None:
        """A last good on disk: as signed, and when our clock said that it was saved."""
        if issued_at_s is not None:
            self.note_issued(issued_at_s, elapsed_s)
        if saved_at_s is not None and self._anchor is None:
            self._note_saved(saved_at_s, elapsed_s)

    def _note_saved(self, saved_at_s: float, elapsed_s: float) -> None:
        if self._saved is None or saved_at_s > self._saved.at(elapsed_s):
            self._saved = _Mark(saved_at_s, elapsed_s)

    def keep(self, reading: Reading, boot_id: str) -> KeptTime | None:
        """For a later run; None while there is nothing worth it. Of no boot while nothing is believed: `saved` goes
        on, as a last good saved meanwhile has the time of a clock that is doubted."""
        self.take(reading)
        anchor, floor, elapsed_s = self._anchor, self._floor, reading.elapsed_s
        floor_s = None if floor is None else floor.at(elapsed_s)
        if anchor is not None:
            return KeptTime(boot_id, elapsed_s, anchor.at(elapsed_s), anchor.strength, floor_s, anchor.span_s)
        return None if self._saved is None else KeptTime("", elapsed_s, self._saved.at(elapsed_s), ALONE, floor_s)

    # -- the rules -------------------------------------------------------------------------------------------

    def take(self, reading: Reading) -> Judgement:
        """Judge what the host's clock says now."""
        wall_s, elapsed_s = reading.wall_s, reading.elapsed_s
        self._note_step(wall_s, elapsed_s)
        floor_s = -inf if self._floor is None else self._floor.at(elapsed_s)
        ceiling_s = inf if self._ceiling is None else self._ceiling.at(elapsed_s)
        if reading.is_synced and floor_s - SYNCED_BELOW_S <= wall_s <= ceiling_s + TOLERANCE_S:  # 1
            return self._believe(reading, WELL)
        if wall_s < floor_s - TOLERANCE_S:  # 2
            return self._behind_floor(reading, floor_s, ceiling_s)
        if self._anchor is not None:
            return self._by_anchor(reading, self._anchor)
        return self._unanchored(reading, floor_s, ceiling_s)

    def _behind_floor(self, reading: Reading, floor_s: float, ceiling_s: float) -> Judgement:
        why = "signed or confirmed times are later"
        if self._anchor is None:
            return self._judge(reading, floor_s, max(ceiling_s, floor_s), "behind", why)
        used_s = max(floor_s, self._anchor.at(reading.elapsed_s))
        return self._judge(reading, used_s, used_s, "behind", why)

    def _by_anchor(self, reading: Reading, anchor: _Mark) -> Judgement:
        wall_s, anchor_s = reading.wall_s, anchor.at(reading.elapsed_s)
        distance_s = abs(wall_s - anchor_s)
        if distance_s <= SAME_S:
            return self._judge(reading, wall_s, wall_s)
        if distance_s <= TOLERANCE_S:  # 3
            return self._judge(reading, min(wall_s, anchor_s), max(wall_s, anchor_s))
        word: Literal["ahead", "behind"] = "ahead" if wall_s > anchor_s else "behind"
        why = "it was set, and nothing confirms the new time"
        if anchor.strength > ALONE:  # 4
            return self._judge(reading, anchor_s, anchor_s, word, why)
        if self._is_patience_over(reading) and distance_s <= PLAUSIBLE_S:  # 5
            return self._believe(reading, ALONE)
        return self._judge(reading, min(wall_s, anchor_s), max(wall_s, anchor_s), word, why)  # 6

    def _unanchored(self, reading: Reading, floor_s: float, ceiling_s: float) -> Judgement:
        wall_s = reading.wall_s
        saved_s = -inf if self._saved is None else self._saved.at(reading.elapsed_s)
        known_s = max(floor_s, saved_s)
        if known_s == -inf and not self.has_signed:  # 7
            return self._believe(reading, ALONE)
        if wall_s < saved_s - TOLERANCE_S:  # 11
            used_s = floor_s if floor_s > -inf else wall_s
            return self._judge(reading, used_s, saved_s, "behind", "this daemon ran later than that")
        used_s = floor_s if floor_s > -inf else min(saved_s, wall_s)
        used_s = min(used_s, wall_s)
        if wall_s > ceiling_s + TOLERANCE_S or (known_s > -inf and wall_s > known_s + PLAUSIBLE_S):  # 10
            why = "nothing confirms it, and nothing known is near it"
            return self._judge(reading, used_s, wall_s, "ahead", why)
        if self._is_patience_over(reading):  # 8
            return self._believe(reading, ALONE if self._ceiling is None else ROUGHLY)
        return self._judge(reading, used_s, max(wall_s, known_s))  # 9

    def _is_patience_over(self, reading: Reading) -> bool:
        since_s = self._steady_since_s
        if self.has_signed:
            since_s = inf if self._spoke_at_s is None else max(since_s, self._spoke_at_s)
        return reading.elapsed_s - since_s >= PATIENCE_S

    def _note_step(self, wall_s: float, elapsed_s: float) -> None:
        offset_s = wall_s - elapsed_s
        if self._offset_s is None or abs(offset_s - self._offset_s) > SAME_S:
            self._offset_s, self._steady_since_s = offset_s, elapsed_s

    def _believe(self, reading: Reading, strength: Strength) -> Judgement:
        self._anchor = _Mark(reading.wall_s, reading.elapsed_s, strength)
        self._saved = None
        return self._judge(reading, reading.wall_s, reading.wall_s, is_synced=strength == WELL)

    def _judge(
        self,
        reading: Reading,
        earliest_s: float,
        latest_s: float,
        word: Literal["ahead", "behind"] | None = None,
        why: str = "",
        *,
        is_synced: bool = False,
    ) -> Judgement:
        doubt = None if word is None else Doubt(word, reading.wall_s, earliest_s, why)
        strength = ALONE if self._anchor is None else self._anchor.strength
        ceiling_s = inf if self._ceiling is None else self._ceiling.at(reading.elapsed_s)
        if is_synced:
            issue_s = reading.wall_s
        elif self._anchor is not None and strength == WELL:
            issue_s = max(self._anchor.at(reading.elapsed_s) + self._anchor.span_s, reading.wall_s)
        else:
            issue_s = max(ceiling_s, reading.wall_s)
        return Judgement(reading.wall_s, earliest_s, latest_s, issue_s, doubt, strength > ALONE)

    # -- a witness -------------------------------------------------------------------------------------------

    def witness(self, reading: Reading, issued_at_s: float, holds_s: float, since_s: float | None) -> None:
        """A signed notification was read, or found unchanged, just now. `since_s`: it came out within these last
        seconds, None = it may have been there before."""
        elapsed_s = reading.elapsed_s
        self.note_issued(issued_at_s, elapsed_s)
        if self._spoke_at_s is None:
            self._spoke_at_s = elapsed_s
        self._ceiling = _Mark(issued_at_s + holds_s, elapsed_s)
        wall_s, anchor = reading.wall_s, self._anchor
        anchor_s = -inf if anchor is None else anchor.at(elapsed_s)
        span_s, strength = holds_s, ROUGHLY

        def fits(at_s: float) -> bool:
            return issued_at_s - TOLERANCE_S <= at_s <= issued_at_s + span_s + TOLERANCE_S

        if since_s is not None and since_s <= TIGHT_S:
            span_s, strength = since_s, WELL
            is_late = issued_at_s < max(wall_s, anchor_s) <= issued_at_s + since_s + CACHED_S
            if is_late and not fits(wall_s) and not fits(anchor_s):
                span_s, strength = holds_s, ROUGHLY
        if strength == WELL and (fits(wall_s) or anchor is None or not fits(anchor_s)):
            is_wall = fits(wall_s)
            at_s = max(wall_s, issued_at_s) if is_wall else issued_at_s
            self._anchor = _Mark(at_s, elapsed_s, WELL, 0.0 if is_wall else span_s)
        elif anchor is None or not fits(anchor_s):
            self._anchor = None
        elif strength > anchor.strength and (not fits(wall_s) or abs(wall_s - anchor_s) <= TOLERANCE_S):
            self._anchor = msgspec.structs.replace(anchor, strength=strength)
