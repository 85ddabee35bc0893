"""The report of weeks and months: which registrations are used, which never were, what changed and what was held.

It has ids of registrations and keys of registrants; no address, no subscriber, nothing of unregistered traffic.
Times are RFC 3339 in UTC, days `2026-11-30`. Lists are bounded, each with the number of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypeVar

import msgspec

from gatewayd.activity.days import DAY_S, Note, day_text
from gatewayd.activity.rows import Activity, DayTotal, Run
from gatewayd.activity.verify import Verdict
from gatewayd.api.near_misses import NearMissLineView
from gatewayd.api.standing import RejectedView, StepView
from gatewayd.log.ring import FollowedEvent
from gatewayd.model import Registration
from gatewayd.model.decoding import UNDECODABLE
from gatewayd.model.moment import format_time, parse_time

MAX_ITEMS: Final = 1000
"""Of each list."""
MIN_GAP_S: Final = 90
"""A shorter time between two runs is a restart that a minute's write explains."""
_T = TypeVar("_T")
STEP: Final = "registry.step"
DRAINED: Final = "connections.drained"


class CountsView(msgspec.Struct, frozen=True):
    """Registrations now in force. `active`: used in the time of the report. `unseen`: effective, and not used in
    it. `never_seen`: of these, not used since the file began."""

    registered: int = 0
    effective: int = 0
    provisional: int = 0
    active: int = 0
    unseen: int = 0
    never_seen: int = 0


class GroupView(msgspec.Struct, frozen=True):
    """The registrations of one company. `registrant` None: of those that name none."""

    registrant: str | None
    registrations: int
    active: int
    never_seen: int
    flows: int
    bytes: int
    last_seen_at: str | None


class UnseenView(msgspec.Struct, frozen=True):
    """`last_seen_on`: None: never."""

    id: str
    registrant: str | None
    category: str
    last_seen_on: str | None


class ProvisionalView(msgspec.Struct, frozen=True):
    """A registration for a while. `used`: in the time of the report."""

    id: str
    registrant: str | None
    category: str
    ends_at: str | None
    used: bool


class RejectedCountView(msgspec.Struct, frozen=True):
    """How many records of a source are not usable, since it was last read whole, by reason."""

    source: str
    total: int
    by_code: dict[str, int]


class MissView(msgspec.Struct, frozen=True):
    """Registered clients whose flows nothing let pass. `far`: the /24 or /48 of the far end."""

    id: str
    reason: str
    why: str
    service: str
    far: str
    flows: int
    first_seen: str | None
    last_seen: str | None


class UseView(msgspec.Struct, frozen=True):
    """A day: registrations that were used, their flows and bytes. A flow of two registrations counts for both."""

    day: str
    registrations: int
    flows: int
    bytes: int


class UnwatchedView(msgspec.Struct, frozen=True):
    """No daemon watched: what registrations used then is not known."""

    since: str | None
    until: str | None


class ChangeCountsView(msgspec.Struct, frozen=True):
    """Steps of the registry in force, and registrations in them."""

    steps: int = 0
    came: int = 0
    went: int = 0
    changed: int = 0
    not_listed: int = 0


class EventView(msgspec.Struct, frozen=True):
    """Something that changed the effect on traffic."""

    at: str
    event: str
    fields: dict[str, object]


class ReportView(msgspec.Struct, frozen=True):
    """`known_since`: the first day that the file has; None: it has none. `notes`: what the reader must know of the
    numbers. `flows_drained`: live flows that lost their mark after the drain of their registration."""

    since: str | None
    until: str | None
    known_since: str | None
    counts: CountsView
    groups: tuple[GroupView, ...] = ()
    groups_total: int = 0
    unseen: tuple[UnseenView, ...] = ()
    provisional: tuple[ProvisionalView, ...] = ()
    near_misses: tuple[MissView, ...] = ()
    rejected: tuple[RejectedCountView, ...] = ()
    rejected_records: tuple[RejectedView, ...] = ()
    change_counts: ChangeCountsView = ChangeCountsView()
    changes: tuple[StepView, ...] = ()
    holds: tuple[EventView, ...] = ()
    events: tuple[EventView, ...] = ()
    flows_drained: int = 0
    days: tuple[UseView, ...] = ()
    unwatched: tuple[UnwatchedView, ...] = ()
    notes: tuple[str, ...] = ()


class ActivityView(msgspec.Struct, frozen=True):
    """Of one registration in the time of the report. `days`: on which it was used. `last_seen_at`: as far as the
    file goes back; None: never."""

    id: str
    registrant: str | None
    category: str
    status: str
    provisional: bool
    effective: bool
    flows: int
    bytes: int
    days: int
    last_seen_at: str | None


class ActivityPage(msgspec.Struct, frozen=True):
    """`total`: registrations, of which `items` begins at `offset`."""

    total: int
    offset: int
    items: tuple[ActivityView, ...]


class VerifyPage(msgspec.Struct, frozen=True):
    """`total`: registrations, of which `items` begins at `offset`. `notes`: what the reader must know."""

    total: int
    offset: int
    items: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """What the file has. `used`: in the time of the report; `seen`: the last day of every registration that was
    ever used."""

    used: Mapping[str, Activity] = field(default_factory=dict)
    seen: Mapping[str, int] = field(default_factory=dict)
    days: Sequence[DayTotal] = ()
    first_day: int | None = None
    notes: Sequence[Note] = ()
    runs: Sequence[Run] = ()


@dataclass(slots=True)
class _Group:
    registrations: int = 0
    active: int = 0
    never_seen: int = 0
    flows: int = 0
    size_bytes: int = 0
    last_seen_s: int = 0


class ReportBuilder:
    """Takes each registration once, as many at a time as the caller likes; then `build`."""

    def __init__(self, kept: Kept, since_s: float, until_s: float) -> None:
        self._kept = kept
        self._since_s = since_s
        self._until_s = until_s
        self._groups: dict[str | None, _Group] = {}
        self._unseen: list[UnseenView] = []
        self._provisionals: list[ProvisionalView] = []
        self._registered = self._effective = self._provisional = self._active = 0
        self._unseen_count = self._never_seen = 0

    def take(self, registration: Registration, now: float) -> None:
        """`now`: the moment, for its window."""
        used = self._kept.used.get(registration.id)
        seen = self._kept.seen.get(registration.id)
        group = self._groups.setdefault(registration.registrant, _Group())
        is_effective = registration.is_effective(now)
        self._registered += 1
        self._effective += is_effective
        self._provisional += registration.is_provisional
        group.registrations += 1
        if registration.is_provisional and len(self._provisionals) < MAX_ITEMS:
            ends_at = format_time(registration.valid_until_s)
            self._provisionals.append(
                ProvisionalView(
                    registration.id, registration.registrant, registration.category, ends_at, used is not None
                )
            )
        if used is not None:
            self._active += 1
            group.active += 1
            group.flows += used.flows
            group.size_bytes += used.size_bytes
            group.last_seen_s = max(group.last_seen_s, used.last_seen_s)
        elif is_effective:
            self._unseen_count += 1
            self._never_seen += seen is None
            group.never_seen += seen is None
            if len(self._unseen) < MAX_ITEMS:
                last_day = None if seen is None else day_text(seen)
                self._unseen.append(
                    UnseenView(registration.id, registration.registrant, registration.category, last_day)
                )

    def build(
        self,
        rejected: Iterable[RejectedCountView],
        records: Iterable[RejectedView],
        misses: Iterable[NearMissLineView],
        notes: Iterable[str],
    ) -> ReportView:
        kept = self._kept
        changes = _decoded([each for each in kept.notes if each.kind == STEP], StepView)
        found = _decoded([each for each in kept.notes if each.kind != STEP], FollowedEvent)
        events = [EventView(each.at, each.event, each.fields) for each in found]
        groups = sorted(self._groups.items(), key=lambda each: (-each[1].size_bytes, -each[1].registrations))
        return ReportView(
            since=format_time(self._since_s),
            until=format_time(self._until_s),
            known_since=None if kept.first_day is None else day_text(kept.first_day),
            counts=CountsView(
                self._registered, self._effective, self._provisional, self._active, self._unseen_count,
                self._never_seen,
            ),
            groups=tuple(_group(registrant, group) for registrant, group in groups[:MAX_ITEMS]),
            groups_total=len(groups),
            unseen=tuple(self._unseen),
            provisional=tuple(sorted(self._provisionals, key=lambda each: each.ends_at or "")),
            near_misses=tuple(_miss(each) for each in misses if _is_since(each.last_seen, self._since_s)),
            rejected=tuple(rejected),
            rejected_records=tuple(records),
            change_counts=_count_changes(changes),
            changes=tuple(changes[-MAX_ITEMS:]),
            holds=tuple(each for each in events if each.event.startswith("guard."))[-MAX_ITEMS:],
            events=tuple(each for each in events if not each.event.startswith("guard."))[-MAX_ITEMS:],
            flows_drained=sum(_whole(each.fields.get("flows")) for each in events if each.event == DRAINED),
            days=tuple(UseView(day_text(each.day), each.registrations, each.flows, each.size_bytes)
                       for each in kept.days),
            unwatched=tuple(find_unwatched(kept.runs, self._since_s, self._until_s)),
            notes=(*notes, *self._caveats(len(kept.notes) - len(changes) - len(events))),
        )  # fmt: skip

    def _caveats(self, damaged: int) -> Iterable[str]:
        kept = self._kept
        if damaged:
            yield f"{damaged} events of activity.sqlite are damaged and left out"
        if kept.first_day is None:
            yield "activity.sqlite has no day yet: nothing was seen so far, or it was begun just now"
        elif kept.first_day * DAY_S > self._since_s + DAY_S:
            yield f"activity is known since {day_text(kept.first_day)} only; who was last used before is not known"
        flows = sum(each.flows for each in kept.days)
        if flows and not any(each.size_bytes for each in kept.days):
            yield "the kernel counts no bytes: net.netfilter.nf_conntrack_acct is 0"


def find_unwatched(runs: Sequence[Run], since_s: float, until_s: float) -> Iterable[UnwatchedView]:
    """Times between two runs of the daemon, as far as they are in the time of the report."""
    for former, latter in pairwise(sorted(runs)):
        begin, end = max(former.until_s, since_s), min(latter.began_s, until_s)
        if end - begin > MIN_GAP_S:
            yield UnwatchedView(format_time(begin), format_time(end))


def activity_view(
    registration: Registration, used: Activity | None, last_seen_s: float | None, now: float
) -> ActivityView:
    return ActivityView(
        registration.id, registration.registrant, registration.category, registration.status,
        registration.is_provisional, registration.is_effective(now),
        *((0, 0, 0) if used is None else (used.flows, used.size_bytes, used.days)),
        format_time(last_seen_s),
    )  # fmt: skip


def _is_since(at: str | None, since_s: float) -> bool:
    return at is not None and parse_time(at) >= since_s


def _miss(line: NearMissLineView) -> MissView:
    return MissView(
        line.id, line.reason, line.why, line.service, line.far, line.flows, line.first_seen, line.last_seen
    )


def _group(registrant: str | None, group: _Group) -> GroupView:
    return GroupView(
        registrant, group.registrations, group.active, group.never_seen, group.flows, group.size_bytes,
        format_time(group.last_seen_s) if group.last_seen_s else None,
    )  # fmt: skip


def _decoded(notes: Iterable[Note], kind: type[_T]) -> list[_T]:
    """Those that can be read: a row may be damaged, and the others are worth a report."""
    found = []
    for note in notes:
        with suppress(*UNDECODABLE):
            found.append(msgspec.json.decode(note.body, type=kind))
    return found


def _count_changes(steps: Sequence[StepView]) -> ChangeCountsView:
    return ChangeCountsView(
        len(steps), sum(len(each.came) for each in steps), sum(len(each.went) for each in steps),
        sum(len(each.changed) for each in steps), sum(each.omitted for each in steps),
    )  # fmt: skip


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
