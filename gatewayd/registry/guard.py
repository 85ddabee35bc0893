"""The shrink guard: what of the registry's changes is let through, and what waits for an operator.

It judges what would leave force, whatever brings it about: the registry as merged, with local pins and filters over
it, against what was in force. It knows no sources: a name, an order, a lost file are nothing to it.

Additions always apply at once. Removals (see `limits.is_loss`) are judged as one: within the limits all of them
apply, beyond any limit none does, so that `accept` is one decision. What is held stays in force:

- a registration that is registered no more, under its own id;
- one that was replaced by less, beside its replacement, under its id and `#held`: no id of a registry has a
  `#`, and the two together pass exactly what either of them passes.

While something is held, further removals join it: a registry that has just shrunk past belief is not believed in
small things either. At every change all that is pending is judged anew; what is registered again is held no longer,
and when the rest is within the limits it applies. What an operator names by its id in a local file is his word, and
is not held. A held registration whose window closes is held no longer.

A share is of the fewest in force in a day (`limits.DayMemory`), and removals of a day may not sum up to more than
WINDOW_FACTOR times a limit, nor to more than half, unless `max_removed` says so: a registry that loses 4 % a
minute is noticed too. What an operator accepted does not count. A window that closes on time is no removal and
never comes here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple

import msgspec

from gatewayd.errors import SerialNotHeld
from gatewayd.model import Registration
from gatewayd.model.registration import SLICE as COUNTED_SLICE
from gatewayd.model.registration import Changes, Slices
from gatewayd.registry.ends import Versions, WindowEnds
from gatewayd.registry.limits import (
    NOTHING_REMOVED,
    WHOLE,
    CategoryNames,
    DayMemory,
    GuardDecision,
    is_loss,
    judge_removals,
)
from gatewayd.registry.lookups import Lookup
from gatewayd.settings.model import ShrinkGuardSettings

SLICE: Final = 1024
"""Changes looked at between two yields: some 5 ms."""

_Touched = dict[str, tuple[Versions, Registration | None]]
"""Ids whose removals are looked at: what of them is held from now on, and what is registered."""


class Taken(NamedTuple):
    """What took an id away first: the name of a source, or another word; and when, in Unix seconds."""

    cause: str
    since_s: float


@dataclass(frozen=True, slots=True)
class HeldRemovals:
    """What is held. `serial`: the number under which it is accepted, that of the reading that last added to it.
    `versions`: by id of the registry, the registrations kept in force, oldest first. `by_cause`: how many ids each
    cause took away."""

    serial: int
    since_s: float
    decision: GuardDecision
    versions: Mapping[str, Versions]
    taken: Mapping[str, Taken] = field(default_factory=dict)
    by_cause: Mapping[str, int] = field(default_factory=dict)


def held_id(id: str, place: int) -> str:
    """The id in force of an older version beside its replacement; `place` counts from 0."""
    return f"{id}#held" if place == 0 else f"{id}#held-{place + 1}"


class RemovalGuard:
    """The guard of the registry. Owned by one task.

    What is in force is what is registered and `in_force` of it. The cost of a change is that of what it names.
    Generators of slices are run to their end before the next call.
    """

    def __init__(self, held: HeldRemovals | None = None, memory: DayMemory | None = None) -> None:
        self._versions: dict[str, Versions] = dict(held.versions) if held else {}
        self._taken: dict[str, Taken] = dict(held.taken) if held else {}
        self._by_cause = Counter(each.cause for each in self._taken.values())
        self._serial = held.serial if held else 0
        self._since_s = held.since_s if held else 0.0
        self.decision = held.decision if held else NOTHING_REMOVED
        """On all that is held; of the latest removals if nothing is."""
        self._names = CategoryNames()
        self._counts = self._count_versions()
        self._sizes: Counter[str] = Counter()
        """Active registrations by category, and WHOLE; what is held is not among them."""
        self._ends = WindowEnds()
        self.memory = memory or DayMemory()
        self._changes = 0
        for id, versions in self._versions.items():
            self._ends.add(id, versions)

    def __len__(self) -> int:
        """How many ids are held."""
        return len(self._versions)

    def holds(self, id: str) -> bool:
        """Whether something of the id is held."""
        return id in self._versions

    def count_of(self, category: str) -> int:
        """Active registrations of a category, held ones included."""
        return self._size_of(category, self._counts)

    @property
    def changes(self) -> tuple[int, int]:
        """Another one whenever there is something that a restart has to know of."""
        return self._changes, self.memory.changes

    def held(self) -> HeldRemovals | None:
        """A view, as of now; None if nothing is held."""
        if not self._versions:
            return None
        by_cause = dict(self._by_cause)
        return HeldRemovals(self._serial, self._since_s, self.decision, self._versions, self._taken, by_cause)

    def in_force(self, registered: Lookup) -> dict[str, Registration]:
        """What is in force beside what is registered; ids of the latter are never among it."""
        shown: dict[str, Registration] = {}
        for id, versions in self._versions.items():
            current = registered.get(id)
            shown |= _shown(id, current, versions)
            if current is not None:
                del shown[id]
        return shown

    def count_in_slices(self, registered: Iterable[Registration]) -> Slices[None]:
        """At the start: this is what is registered."""
        sizes: Counter[str] = Counter()
        for done, registration in enumerate(registered, 1):
            if registration.status == "active":
                sizes[self._names.of(registration.category)] += 1
            if done % COUNTED_SLICE == 0:
                yield
        sizes[WHOLE] = sum(sizes.values())
        self._sizes = sizes

    def take_in_slices(
        self,
        old: Lookup,
        changes: Changes,
        serial: int,
        *,
        cause: str,
        settings: ShrinkGuardSettings,
        now: float,
        is_asked: Callable[[str], bool] = lambda _: False,
        looks_at_all: bool = False,
    ) -> Slices[Changes | None]:
        """What is to change of what is in force, when `changes` lead from `old` to what is registered now.

        Afterwards `decision` is on the removals. `serial` and `cause` say what brought them about.

        `old` is asked for the ids of `changes` and for those held. `is_asked`: whether an operator has named an id.
        `looks_at_all`: what is held may be registered by now, though `changes` do not name it. No changes at all
        are fine: what is held is judged by new settings.
        """
        protected = frozenset(each.category for each in settings.protected)
        self._names.keep(protected)
        pairs = self._pairs_of(old, changes, looks_at_all)
        counts, grown, touched, has_more = yield from self._compare_in_slices(old, pairs, now, protected, is_asked)
        self.memory.expire(now)
        decision = self._judge(counts, settings)
        if not decision.is_held:
            self.memory.note_removed(counts, now)
            touched = yield from self._release_in_slices(old, touched)
        if not self._versions:
            self._since_s = now
        elif serial == self._serial:
            serial += 1  # of the same second; nobody shall accept more than he was shown
        result = yield from self._settle_in_slices(old, changes, touched, Taken(cause, now))
        if has_more:
            self._serial = serial
        counts = counts if decision.is_held else Counter()
        self._note_sizes(grown, counts, now)
        self.decision, self._counts = decision, counts
        return result

    def _compare_in_slices(
        self,
        old: Lookup,
        pairs: Iterable[tuple[str, Registration | None]],
        now: float,
        protected: frozenset[str],
        is_asked: Callable[[str], bool],
    ) -> Slices[tuple[Counter[str], Counter[str], _Touched, bool]]:
        """By category, the removals and the growth; the ids that lose something; whether more is lost than is
        held."""
        counts, grown = Counter(self._counts), Counter[str]()
        touched: _Touched = {}
        has_more = False
        for done, (id, new) in enumerate(pairs, 1):
            held, before = self._versions.get(id, ()), old.get(id)
            self._count(grown, before, -1)
            self._count(grown, new, +1)
            if held or (before is not None and is_loss(before, new, now, protected)):
                lost = () if is_asked(id) else _versions_lost(held, before, new, now, protected)
                touched[id] = lost, new
                has_more = has_more or bool(lost and lost != held)
                for version in held:
                    counts[self._names.of(version.category)] -= 1
                for version in lost:
                    counts[self._names.of(version.category)] += 1
            if done % SLICE == 0:
                yield
        return +counts, grown, touched, has_more

    def _pairs_of(
        self, old: Lookup, changes: Changes, looks_at_all: bool
    ) -> Iterable[tuple[str, Registration | None]]:
        """Ids to be looked at, and what is registered of them now."""
        upserts = ((registration.id, registration) for registration in changes.upserts)
        pairs = chain(upserts, ((id, None) for id in changes.withdrawals))
        if not looks_at_all or not self._versions:
            return pairs
        named = {each.id for each in changes.upserts} | set(changes.withdrawals)
        return chain(pairs, [(id, old.get(id)) for id in self._versions if id not in named])

    def _judge(self, counts: Counter[str], settings: ShrinkGuardSettings) -> GuardDecision:
        """Of the fewest that were in force in a day; what is held is in force."""
        if not counts:
            return NOTHING_REMOVED
        names = {WHOLE, *counts, *(each.category for each in settings.protected)}
        base = {name: self.memory.fewest_of(name, self._size_of(name, self._counts)) for name in names}
        return judge_removals(base, counts, settings, self.memory.removed_by_category())

    def _size_of(self, name: str, held: Counter[str]) -> int:
        return self._sizes[name] + (held[name] if name != WHOLE else held.total())

    def _note_sizes(self, grown: Counter[str], held: Counter[str], now: float) -> None:
        before = {name: self._size_of(name, self._counts) for name in grown}
        self._sizes.update(grown)
        for name in grown:
            after = self._size_of(name, held)
            self.memory.note_size(name, before[name], after, now)

    def _count(self, sizes: Counter[str], registration: Registration | None, change: int) -> None:
        if registration is not None and registration.status == "active":
            sizes[self._names.of(registration.category)] += change
            sizes[WHOLE] += change

    def _count_versions(self) -> Counter[str]:
        held = self._versions.values()
        return Counter(self._names.of(version.category) for versions in held for version in versions)

    def next_end(self) -> float:
        """When the window of something held closes, at the earliest; inf: never."""
        return self._ends.next_end()

    def end_in_slices(self, registered: Lookup, now: float) -> Slices[Changes | None]:
        """Hold no longer what has a window that closed: it passes nothing, and nobody need accept that."""
        touched: _Touched = {}
        looked_at = 0
        while self._ends and self._ends.next_end() <= now:
            id = self._ends.pop()
            looked_at += 1
            versions = self._versions.get(id, ())
            left = tuple(each for each in versions if each.valid_until_s > now)
            if len(left) < len(versions):
                touched[id] = left, registered.get(id)
            if looked_at % SLICE == 0:
                yield
        result = yield from self._settle_in_slices(registered, Changes((), ()), touched, None)
        self._counts = self._count_versions()
        return result

    def accept_in_slices(self, serial: int, registered: Lookup) -> Slices[Changes | None]:
        """Let go of everything that is held. Raises SerialNotHeld at once."""
        if not self._versions or serial != self._serial:
            raise SerialNotHeld(serial, self._serial if self._versions else None)
        return self._accept_in_slices(registered)

    def _accept_in_slices(self, registered: Lookup) -> Slices[Changes | None]:
        touched = yield from self._release_in_slices(registered, {})
        result = yield from self._settle_in_slices(registered, Changes((), ()), touched, None)
        self._counts = Counter()
        self.memory.forget()
        self.decision = NOTHING_REMOVED
        return result

    def _release_in_slices(self, old: Lookup, touched: _Touched) -> Slices[_Touched]:
        """What is held, to be held no longer."""
        released: _Touched = {}
        for done, id in enumerate(self._versions, 1):
            released[id] = (), touched[id][1] if id in touched else old.get(id)
            if done % SLICE == 0:
                yield
        return released

    def _note_taken(self, id: str, taken: Taken | None) -> None:
        """An id is held, for what took it away first; None: it is not."""
        if taken is not None and id not in self._taken:
            self._taken[id] = taken
            self._by_cause[taken.cause] += 1
        elif taken is None and id in self._taken:
            gone = self._taken.pop(id)
            self._by_cause[gone.cause] -= 1
            self._by_cause = +self._by_cause

    def _settle_in_slices(
        self, old: Lookup, changes: Changes, touched: _Touched, taken: Taken | None
    ) -> Slices[Changes | None]:
        """Hold what is in `touched` from now on, and say what is to change of what is in force.

        What is added under a `#held` id comes first: nobody shall take its elements away in between.
        """
        self._changes += bool(touched)
        if not touched:
            return changes if changes.upserts or changes.withdrawals else None
        beside: list[Registration] = []
        upserts: list[Registration] = []
        withdrawals: list[str] = []
        for done, (id, (versions, new)) in enumerate(touched.items(), 1):
            held = self._versions.pop(id, ())
            before = _shown(id, old.get(id), held)
            after = _shown(id, new, versions)
            if versions:
                self._versions[id] = versions
            if versions != held:
                self._ends.drop(held)
                self._ends.add(id, versions)
            if not versions or taken is not None:
                self._note_taken(id, taken if versions else None)
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
        yield from self._ends.prune_in_slices(self._versions)
        if not (beside or upserts or withdrawals):
            return None
        return Changes((*beside, *upserts), tuple(withdrawals))


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
