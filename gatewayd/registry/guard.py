"""The shrink guard: what of a source's changes is let through, and what waits for an operator (DESIGN §6).

Additions always apply at once. Removals (see `loss`) are judged as one: within the limits all of them apply,
beyond any limit none does, so that `accept` is one decision. What is held stays in force:

- a registration that the source has withdrawn, under its own id;
- one that was replaced by less, beside its replacement, under its id and `#held`: no id of a registry has a
  `#`, and the two together pass exactly what either of them passes.

While something is held, further removals join it, under the serial of the latest reading: a source that has
just shrunk past belief is not believed in small things either (a local filter drops a registration whatever
is held). At every reading all that is pending is judged anew; what the source has again is held no longer,
and when the rest is within the limits it applies.

Removals let through are remembered for WINDOW_S, and may not sum up to more than WINDOW_FACTOR times a limit:
a registry that loses 4 % a minute is noticed too. What an operator accepted does not count. A window that
closes on time is no removal and never comes here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal

import msgspec

from gatewayd.errors import SerialNotHeld
from gatewayd.model import Registration
from gatewayd.registry.loss import is_loss
from gatewayd.registry.merge import Changes, Slices
from gatewayd.settings.model import ShrinkGuardSettings

SLICE: Final = 1024
"""Changes looked at between two yields: some 5 ms."""
WINDOW_S: Final = 86400.0
WINDOW_FACTOR: Final = 3
BUCKET_S: Final = 3600.0
"""What was let through is remembered by the hour."""

Reason = Literal["", "too_many", "protected", "trickle"]
Versions = tuple[Registration, ...]
_Touched = dict[str, tuple[Versions, Registration | None]]
"""Ids of the source whose removals are looked at: what of them is held from now on, and what the source has."""


@dataclass(frozen=True, slots=True)
class GuardDecision:
    """`removed` and `limit` are those of the limit that was passed, or of the whole. `category`: of a
    protected one. `reason` is empty when nothing is held, and stable: a metric label."""

    is_held: bool
    reason: Reason
    removed: int
    limit: int
    category: str = ""

    def __str__(self) -> str:
        noun = "registration" if self.removed == 1 else "registrations"
        what = f"{self.removed} {noun}{self.category and f' of category {self.category}'} removed"
        match self.reason:
            case "":
                return f"{what}, within the limit of {self.limit}"
            case "trickle":
                return f"{what} in {WINDOW_S / 3600:g} h, more than {self.limit}"
            case _:
                return f"{what} at once, more than {self.limit}"


@dataclass(frozen=True, slots=True)
class Guarded:
    """`changes` to what is in force (None: nothing changes), and what was decided on the removals."""

    changes: Changes | None
    decision: GuardDecision


@dataclass(frozen=True, slots=True)
class HeldRemovals:
    """What is held of one source. `serial`: of the reading that last lacked it (a reading number where the
    source has no serials). `versions`: by id of the registry, the registrations kept in force, oldest first."""

    serial: int
    since_s: float
    decision: GuardDecision
    versions: Mapping[str, Versions]


_NOTHING_REMOVED: Final = GuardDecision(False, "", 0, 0)


def guard_changes(
    total: int,
    by_category: Mapping[str, int],
    removals: Sequence[Registration],
    settings: ShrinkGuardSettings,
    recent: Mapping[str, int] | None = None,
) -> GuardDecision:
    """Whether these removals are let through, out of `total` and `by_category` in force before them.

    `recent`: removals let through in the last WINDOW_S, by category.
    """
    removed = Counter(registration.category for registration in removals)
    return judge_removals(total, by_category, removed, settings, recent or {})


def judge_removals(
    total: int,
    by_category: Mapping[str, int],
    removed: Mapping[str, int],
    settings: ShrinkGuardSettings,
    recent: Mapping[str, int],
) -> GuardDecision:
    """`guard_changes` over counts by category."""
    for protected in settings.protected:
        category = protected.category
        limit = protected.max_removed.allowed_of(by_category.get(category, 0))
        count = removed.get(category, 0)
        decision = _judge(count, count and recent.get(category, 0), limit, "protected", category)
        if decision.is_held:
            return decision
    count = sum(removed.values())
    limit = max(settings.max_removed.allowed_of(total), settings.min_removed)
    return _judge(count, count and sum(recent.values()), limit, "too_many", "")


def _judge(count: int, recent: int, limit: int, reason: Reason, category: str) -> GuardDecision:
    if count > limit:
        return GuardDecision(True, reason, count, limit, category)
    if count + recent > limit * WINDOW_FACTOR:
        return GuardDecision(True, "trickle", count + recent, limit * WINDOW_FACTOR, category)
    return GuardDecision(False, "", count, limit, category)


def held_id(id: str, place: int) -> str:
    """The id in force of an older version beside its replacement; `place` counts from 0."""
    return f"{id}#held" if place == 0 else f"{id}#held-{place + 1}"


class RemovalGuard:
    """The guard of one source. Owned by one task.

    Readings are the source's own, as published; what is in force is a reading and `in_force` of it. The cost
    of a reading is that of its changes. Generators of slices are run to their end before the next call.
    """

    def __init__(self, held: HeldRemovals | None = None, recent: Mapping[int, Mapping[str, int]] | None = None):
        """`recent`: removals let through, by hour (Unix seconds / BUCKET_S) and category."""
        self._versions: dict[str, Versions] = dict(held.versions) if held else {}
        self._serial = held.serial if held else 0
        self._since_s = held.since_s if held else 0.0
        self._decision = held.decision if held else _NOTHING_REMOVED
        self._counts = _count_categories(self._versions.values())
        self._recent = {hour: Counter(counts) for hour, counts in (recent or {}).items()}

    def __len__(self) -> int:
        """How many ids are held."""
        return len(self._versions)

    def held(self) -> HeldRemovals | None:
        """A view, as of now; None if nothing is held."""
        if not self._versions:
            return None
        return HeldRemovals(self._serial, self._since_s, self._decision, self._versions)

    def held_by_category(self) -> dict[str, int]:
        """A copy, for metrics."""
        return dict(self._counts)

    def recent(self) -> Mapping[int, Mapping[str, int]]:
        """As given to the constructor."""
        return self._recent

    def in_force(self, reading: Mapping[str, Registration]) -> dict[str, Registration]:
        """What is in force beside `reading`; ids of the reading are never among it."""
        shown: dict[str, Registration] = {}
        for id, versions in self._versions.items():
            shown |= _shown(id, reading.get(id), versions)
            if id in reading:
                del shown[id]
        return shown

    def take_in_slices(
        self,
        old: Mapping[str, Registration],
        changes: Changes,
        serial: int,
        *,
        total: int,
        by_category: Mapping[str, int],
        settings: ShrinkGuardSettings,
        now: float,
    ) -> Slices[Guarded]:
        """A new reading: `changes` lead to it from `old`, and `serial` is its own.

        `old` is asked for the ids of `changes` and for those held. `total`, `by_category`: in force before.
        No changes at all are fine, and judge what is held by new settings.
        """
        protected = frozenset(each.category for each in settings.protected)
        counts = Counter(self._counts)
        touched: _Touched = {}
        for done, (id, new) in enumerate(_pairs_of(changes), 1):
            held, before = self._versions.get(id, ()), old.get(id)
            if held or (before is not None and is_loss(before, new, now, protected)):
                lost = _versions_lost(held, before, new, now, protected)
                touched[id] = lost, new
                for version in held:
                    counts[version.category] -= 1
                for version in lost:
                    counts[version.category] += 1
            if done % SLICE == 0:
                yield
        counts = +counts
        self._expire(now)
        decision = judge_removals(total, by_category, counts, settings, self._recent_by_category())
        if not decision.is_held:
            self._remember(counts, now)
            touched = yield from self._release_in_slices(old, touched)
        self._since_s = self._since_s if self._versions else now
        result = yield from self._settle_in_slices(old, changes, touched)
        self._serial, self._decision, self._counts = serial, decision, _if_held(decision, counts)
        return Guarded(result, decision)

    def accept_in_slices(self, serial: int, reading: Mapping[str, Registration]) -> Slices[Changes | None]:
        """Let go of everything that is held; `reading` is the latest. Raises SerialNotHeld at once."""
        if not self._versions or serial != self._serial:
            raise SerialNotHeld(serial, self._serial if self._versions else None)
        return self._accept_in_slices(reading)

    def _accept_in_slices(self, reading: Mapping[str, Registration]) -> Slices[Changes | None]:
        touched = yield from self._release_in_slices(reading, {})
        result = yield from self._settle_in_slices(reading, Changes((), ()), touched)
        self._counts = Counter()
        self._recent = {}
        self._decision = _NOTHING_REMOVED
        return result

    def _release_in_slices(self, old: Mapping[str, Registration], touched: _Touched) -> Slices[_Touched]:
        """What is held, to be held no longer."""
        released: _Touched = {}
        for done, id in enumerate(self._versions, 1):
            released[id] = (), touched[id][1] if id in touched else old.get(id)
            if done % SLICE == 0:
                yield
        return released

    def _settle_in_slices(
        self, old: Mapping[str, Registration], changes: Changes, touched: _Touched
    ) -> Slices[Changes | None]:
        """Hold what is in `touched` from now on, and say what is to change of what is in force.

        What is added under a `#held` id comes first: nobody shall take its elements away in between.
        """
        if not touched:
            return changes if changes.upserts or changes.withdrawals else None
        beside: list[Registration] = []
        upserts: list[Registration] = []
        withdrawals: list[str] = []
        for done, (id, (versions, new)) in enumerate(touched.items(), 1):
            before = _shown(id, old.get(id), self._versions.pop(id, ()))
            after = _shown(id, new, versions)
            if versions:
                self._versions[id] = versions
            for shown_id, registration in after.items():
                if before.get(shown_id) != registration:
                    (upserts if shown_id == id else beside).append(registration)
            withdrawals += [shown_id for shown_id in before if shown_id not in after]
            if done % SLICE == 0:
                yield
        for done, registration in enumerate(changes.upserts, 1):
            if registration.id not in touched:
                upserts.append(registration)
            if done % SLICE == 0:
                yield
        withdrawals += [id for id in changes.withdrawals if id not in touched]
        if not (beside or upserts or withdrawals):
            return None
        return Changes((*beside, *upserts), tuple(withdrawals))

    def _recent_by_category(self) -> Counter[str]:
        summed: Counter[str] = Counter()
        for counts in self._recent.values():
            summed.update(counts)
        return summed

    def _remember(self, counts: Counter[str], now: float) -> None:
        if counts:
            self._recent.setdefault(int(now // BUCKET_S), Counter()).update(counts)

    def _expire(self, now: float) -> None:
        """Also what lies ahead, after the wall clock was set back: it would never run out."""
        hour = now // BUCKET_S
        first = (now - WINDOW_S) // BUCKET_S
        self._recent = {at: counts for at, counts in self._recent.items() if first < at <= hour}


def _if_held(decision: GuardDecision, counts: Counter[str]) -> Counter[str]:
    return counts if decision.is_held else Counter()


def _pairs_of(changes: Changes) -> Iterable[tuple[str, Registration | None]]:
    upserts = ((registration.id, registration) for registration in changes.upserts)
    return chain(upserts, ((id, None) for id in changes.withdrawals))


def _count_categories(held: Iterable[Versions]) -> Counter[str]:
    return Counter(version.category for versions in held for version in versions)


def _versions_lost(
    held: Versions,
    old: Registration | None,
    new: Registration | None,
    now: float,
    protected: frozenset[str],
) -> Versions:
    """What must stay in force of one id, oldest first, when `new` replaces `old`."""
    lost = [version for version in held if is_loss(version, new, now, protected)]
    if (
        old is not None
        and is_loss(old, new, now, protected)
        and all(is_loss(old, version, now, protected) for version in lost)
    ):
        lost.append(old)
    return tuple(lost)


def _shown(id: str, current: Registration | None, versions: Versions) -> dict[str, Registration]:
    """What is in force of one id of the source: `current`, and `versions` that are held."""
    if current is None and versions:
        current, versions = versions[-1], versions[:-1]
    shown = {} if current is None else {id: current}
    for place, version in enumerate(versions):
        beside = held_id(id, place)
        shown[beside] = msgspec.structs.replace(version, id=beside)
    return shown
