"""What the guard counts, and how much of it is let through: losses, the last day in numbers, the limits.

A loss is a flow that the old registration makes registered, now or later in its window, and the new one does
not. In doubt it is a loss: held for an operator's word, and never cut by mistake.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from gatewayd.model import Prefix, Registration, Service
from gatewayd.settings.model import ShrinkGuardSettings
from gatewayd.settings.values import RemovalLimit

WINDOW_S: Final = 86400.0
BUCKET_S: Final = 3600.0
WHOLE: Final = ""
"""No category has this name."""
WINDOW_FACTOR: Final = 3
MAX_CATEGORIES: Final = 1000
OTHER: Final = "other categories"
"""No category has this name."""

Reason = Literal["", "too_many", "protected", "category", "trickle"]

ByHour = Mapping[int, Mapping[str, int]]


class CategoryNames:
    """Categories with a count of their own: the first MAX_CATEGORIES, and those that are named. The others are
    counted together, as OTHER."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def keep(self, categories: Iterable[str]) -> None:
        """These have a count of their own."""
        self._known.update(categories)

    def of(self, category: str) -> str:
        """The name under which a category is counted."""
        if category not in self._known:
            if len(self._known) >= MAX_CATEGORIES:
                return OTHER
            self._known.add(category)
        return category


class DayMemory:
    """`removed`: removals let through, by hour (Unix seconds / BUCKET_S) and category. `fewest`: the smallest
    number in force of each category in an hour in which it changed. Costs what changes; 25 hours at most."""

    def __init__(self, removed: ByHour | None = None, fewest: ByHour | None = None) -> None:
        self.removed = {hour: Counter(counts) for hour, counts in (removed or {}).items()}
        self.fewest = {hour: dict(counts) for hour, counts in (fewest or {}).items()}
        self.changes = 0
        """Goes up with every change that a restart has to know of."""

    def expire(self, now: float) -> None:
        """Also what lies ahead, after the wall clock was set back: it would never run out."""
        first, hour = (now - WINDOW_S) // BUCKET_S, now // BUCKET_S
        self.removed = {at: counts for at, counts in self.removed.items() if first < at <= hour}
        self.fewest = {at: counts for at, counts in self.fewest.items() if first < at <= hour}

    def note_removed(self, counts: Mapping[str, int], now: float) -> None:
        """Removals were let through; by category alone."""
        if counts:
            self.changes += 1
            self.removed.setdefault(int(now // BUCKET_S), Counter()).update(counts)

    def note_size(self, name: str, before: int, after: int, now: float) -> None:
        """How many are in force of a category, before and after a change. Where there were none, nothing can have
        been taken away: these count at once."""
        fewest = self.fewest.setdefault(int(now // BUCKET_S), {})
        least = min(before or after, after, fewest.get(name, after))
        self.changes += fewest.get(name) != least
        fewest[name] = least

    def forget(self) -> None:
        """An operator has looked at it: the day begins now."""
        self.changes += 1
        self.removed, self.fewest = {}, {}

    def removed_by_category(self) -> Counter[str]:
        """In all of the window."""
        summed: Counter[str] = Counter()
        for counts in self.removed.values():
            summed.update(counts)
        return summed

    def fewest_of(self, name: str, size: int) -> int:
        """The fewest of a category in the window; `size`: how many there are now."""
        return min([size, *(counts.get(name, size) for counts in self.fewest.values())])


# -- the limits ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GuardDecision:
    """`removed` and `limit` are those of the limit that was passed, or of the whole. `category`: whose limit it
    was. `reason` is empty when nothing is held, and stable: a metric label. `base`: what the limit is a part of,
    the fewest in force in a day."""

    is_held: bool
    reason: Reason
    removed: int
    limit: int
    category: str = ""
    base: int = field(default=0, compare=False)

    def __str__(self) -> str:
        noun = "registration" if self.removed == 1 else "registrations"
        what = f"{self.removed} {noun}{self.category and f' of category {self.category}'} removed"
        limit = f"{self.limit} of {self.base}" if self.base else f"{self.limit}"
        match self.reason:
            case "":
                return f"{what}, within the limit of {limit}"
            case "trickle":
                return f"{what} in 24 h, more than {limit}"
            case _:
                return f"{what} at once, more than {limit}"


NOTHING_REMOVED: Final = GuardDecision(False, "", 0, 0)


def judge_removals(
    base: Mapping[str, int], removed: Mapping[str, int], settings: ShrinkGuardSettings, recent: Mapping[str, int]
) -> GuardDecision:
    """Whether these removals are let through. All by category: `base` in force before them, WHOLE too; `recent` let
    through in the last day."""
    protected = {each.category for each in settings.protected}
    for each in settings.protected:
        if lets_all_go(each.max_removed):
            continue
        category = each.category
        size, count = base.get(category, 0), removed.get(category, 0)
        limit = each.max_removed.allowed_of(size)
        of_day = count and recent.get(category, 0)
        decision = _judge(count, of_day, limit, limit * WINDOW_FACTOR, "protected", category, size)
        if decision.is_held:
            return decision
    count = sum(removed.values())
    whole = _judge_share(base.get(WHOLE, 0), count, count and sum(recent.values()), settings, "too_many", "")
    if whole.is_held:
        return whole
    for category in sorted(removed):
        if category not in protected and removed[category]:
            sizes = base.get(category, 0), removed[category], recent.get(category, 0)
            decision = _judge_share(*sizes, settings, "category", category)
            if decision.is_held:
                return decision
    return whole


def judge_remainder(found: int, unwanted: int, settings: ShrinkGuardSettings, *, lost_files: bool) -> GuardDecision:
    """Whether what the kernel was found with and nobody registers any more may go, counted in elements.

    `lost_files`: nobody knows whose they are. They may be all that there is of a protected category.
    """
    if lost_files and settings.protected:
        limit = min(each.max_removed.allowed_of(unwanted) for each in settings.protected)
        if unwanted > limit:
            return GuardDecision(True, "protected", unwanted, limit, base=found)
    return _judge_share(found, unwanted, 0, settings, "too_many", "")


def _judge_share(
    base: int, count: int, recent: int, settings: ShrinkGuardSettings, reason: Reason, category: str
) -> GuardDecision:
    """`min_removed` never lets go of more than half, at once or in a day. One of a category may always go."""
    share, floor, of_day = settings.max_removed, settings.min_removed, base + recent
    minimum = 1 if category else 0
    if lets_all_go(share):
        return GuardDecision(False, "", count, base, category, base)
    at_once = max(share.allowed_of(base), min(floor, base // 2), minimum)
    by_day = max(
        min(share.allowed_of(base) * WINDOW_FACTOR, _most_of(share, of_day)),
        min(floor * WINDOW_FACTOR, of_day // 2),
        minimum,
    )
    return _judge(count, recent, at_once, by_day, reason, category, base)


def lets_all_go(limit: RemovalLimit) -> bool:
    """Of 100 %: no limit at once, and none of a day. A part of what is in force by now would be one."""
    return limit.fraction == 1.0


def _most_of(share: RemovalLimit, total: int) -> int:
    """Half, or what `max_removed` itself lets go of at once."""
    return max(total // 2, share.allowed_of(total))


def _judge(
    count: int, recent: int, limit: int, limit_of_day: int, reason: Reason, category: str, base: int
) -> GuardDecision:
    if count > limit:
        return GuardDecision(True, reason, count, limit, category, base)
    if count + recent > limit_of_day:
        return GuardDecision(True, "trickle", count + recent, limit_of_day, category, base + recent)
    return GuardDecision(False, "", count, limit, category, base)


# -- losses -------------------------------------------------------------------------------------------------

_Span = tuple[int, int, int]
"""A kind (width of the address in bytes, or protocol) and the numbers from low to high."""


def is_loss(
    old: Registration, new: Registration | None, now: float, protected: Container[str] = frozenset()
) -> bool:
    """Whether `new` (None: withdrawn) covers less than `old` in clients, peers, services, endpoints, window or
    status, has another subscriber, or leaves a category of `protected`.

    Nothing is lost of a registration that is suspended or revoked or whose window has closed by `now`. A
    prefix split in two, or ports listed in two ranges, is covered as before.
    """
    if old.status != "active" or old.valid_until_s <= now:
        return False
    if new is None or new.status != "active":
        return True
    return (
        (new.valid_from_s > now and new.valid_from_s > old.valid_from_s)
        or new.valid_until_s < old.valid_until_s
        or (old.subscriber is not None and new.subscriber != old.subscriber)
        or (new.category != old.category and old.category in protected)
        or not _covers_prefixes(new.clients, old.clients)
        or not _covers_peers(new.peers, old.peers)
        or not _covers_services(new.services, old.services)
        or not _covers_prefixes(new.endpoints, old.endpoints)
    )


def opens_more(new: Registration, old: Registration | None, now: float) -> bool:
    """Whether `new` has an endpoint or a service there that `old` does not open: the door is another one. A longer
    window is none."""
    if new.status != "active" or new.valid_until_s <= now or not new.endpoints:
        return False
    if old is None or old.status != "active" or old.valid_until_s <= now or not old.endpoints:
        return True
    return (
        (old.valid_from_s > now and old.valid_from_s > new.valid_from_s)
        or not _covers_prefixes(old.endpoints, new.endpoints)
        or not _covers_services(old.services, new.services)
    )


def _covers_prefixes(new: tuple[Prefix, ...], old: tuple[Prefix, ...]) -> bool:
    return new == old or _lie_within(_prefix_spans(old), _prefix_spans(new))


def _covers_peers(new: tuple[Prefix, ...], old: tuple[Prefix, ...]) -> bool:
    """No peers are any peers."""
    return not new or (bool(old) and _covers_prefixes(new, old))


def _covers_services(new: tuple[Service, ...], old: tuple[Service, ...]) -> bool:
    """No services are any services."""
    return not new or new == old or (bool(old) and _lie_within(_service_spans(old), _service_spans(new)))


def _prefix_spans(prefixes: Iterable[Prefix]) -> list[_Span]:
    spans = []
    for prefix in prefixes:
        width, low = len(prefix.packed), int.from_bytes(prefix.packed, "big")
        spans.append((width, low, low | ((1 << (width * 8 - prefix.length)) - 1)))
    return spans


def _service_spans(services: Iterable[Service]) -> list[_Span]:
    return [(service.protocol, service.low, service.high) for service in services]


def _lie_within(inner: Iterable[_Span], outer: Iterable[_Span]) -> bool:
    merged: list[_Span] = []
    for kind, low, high in sorted(outer):
        if merged and merged[-1][0] == kind and low <= merged[-1][2] + 1:
            kind, low, high = kind, merged[-1][1], max(merged.pop()[2], high)
        merged.append((kind, low, high))
    for kind, low, high in inner:
        place = bisect_right(merged, (kind, low), key=lambda span: span[:2]) - 1
        if place < 0 or merged[place][0] != kind or merged[place][2] < high:
            return False
    return True
