"""Desired against observed, set by set, without a second copy of either.

What is desired lives in `DesiredSets`. What was observed is kept as the two differences: `missing` (desired, not
known to be in the kernel) and `surplus` (known to be there, not desired). So "is it in the kernel" is "desired
and not missing", and a set that is as it should be costs nothing.

Observed means read or acknowledged, never sent. Desires may change while a transaction is under way; the
acknowledgement looks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.ruleset import RULE_SETS
from gatewayd.model.mask import Mask, parse_set_name, set_name
from gatewayd.model.registration import Registration
from gatewayd.model.transaction import ObservedSet, RulesTag, TableReading

SMALLEST_CAPACITY = 1024


def choose_capacity(count: int) -> int:
    """Room for a new set: a power of two at least twice the elements, so that growth is rare."""
    return max(SMALLEST_CAPACITY, 1 << (2 * max(count, 1) - 1).bit_length())


@dataclass(slots=True)
class SetState:
    """One kernel set. `exists`: seen or acknowledged. `hooked`: the rules in force look into it.

    `unread`: elements that it had when it was seen and whose keys were not read; any of them may be desired.
    """

    name: str
    mask: Mask
    generation: int
    capacity: int
    exists: bool = False
    hooked: bool = False
    unread: int = 0
    missing: set[bytes] = field(default_factory=set)
    surplus: set[bytes] = field(default_factory=set)

    def has_room(self, desired: int, more: int) -> int:
        """How many of `more` new elements are sure to fit, `desired` being the wanted ones."""
        if self.capacity == 0:
            return more
        inside = desired - len(self.missing) + len(self.surplus) + self.unread
        return max(0, min(more, self.capacity - inside))


@dataclass(slots=True)
class MaskState:
    """The set of a mask, and its larger successor while that is being filled."""

    current: SetState
    successor: SetState | None = None

    def states(self) -> Iterator[SetState]:
        yield self.current
        if self.successor is not None:
            yield self.successor

    @property
    def newest(self) -> SetState:
        return self.successor or self.current


class Picture:
    """What we know of the table, against what is desired. Pure; owned by the reconciler."""

    def __init__(self, desired: DesiredSets) -> None:
        self.desired = desired
        self.table_present = False
        self.masks: dict[Mask, MaskState] = {}
        self.retired: set[str] = set()
        self.rules: str | None = None
        """Text of the ruleset in force, None if it is not known to be ours."""
        self.rules_seen = ""
        """Fingerprint that the kernel gave for the rules in force."""
        self.tag: RulesTag | None = None
        self.last_tag: RulesTag | None = None
        """The latest tag known. Marks outlive the table, so an epoch counts on where the rules are gone."""
        self.urgent: dict[tuple[Mask, bytes], None] = {}

    # -- desires -------------------------------------------------------------------------------------------

    def add(self, registration: Registration) -> None:
        """Desire a registration's elements."""
        for mask, key in self.desired.add(registration):
            self._mask_state(mask)
            for state in self.masks[mask].states():
                if key in state.surplus:
                    state.surplus.remove(key)
                else:
                    state.missing.add(key)

    def remove(self, registration: Registration) -> None:
        """Desire them no longer."""
        for mask, key in self.desired.remove(registration):
            for state in self.masks[mask].states():
                if key in state.missing:
                    state.missing.remove(key)
                else:
                    state.surplus.add(key)
            self.urgent.pop((mask, key), None)

    def urge(self, elements: Iterable[tuple[Mask, bytes]]) -> int:
        """Put the elements ahead of all others; returns how many of them are missing.

        Those believed to be in the kernel are put there again: what asks for them has seen that they are not.
        """
        missing = 0
        for mask, key in elements:
            state = self.masks.get(mask)
            if state is not None and key in self.desired.keys(mask):
                self.urgent[(mask, key)] = None
                missing += key in state.current.missing
        return missing

    def retire_unused(self) -> None:
        """Give up masks that no registration needs any more; their sets go once no rule looks into them.

        That makes room under the bound of masks for registrations that were past it.
        """
        unused = self.desired.drop_unused()
        for mask in unused:
            for state in self.masks.pop(mask).states():
                if state.exists:
                    self.retired.add(state.name)
        if unused:
            for registration in self.desired.take_unprogrammed():
                self.add(registration)

    def grow_where_full(self) -> None:
        """Start a larger successor for every set that has no room for what is missing in it.

        What is surplus counts: it goes only after the last desired element came, or an address that moves from
        one mask to another would lose its place in between.
        """
        for mask, state in self.masks.items():
            count = len(self.desired.keys(mask))
            newest = state.newest
            if newest.has_room(count, len(newest.missing)) == len(newest.missing):
                continue
            if not newest.exists:
                newest.capacity = choose_capacity(count)
                continue
            if state.successor is not None:
                self.retired.add(state.successor.name)
            generation = newest.generation + 1
            while set_name(mask, generation) in self.retired:
                generation += 1
            name = set_name(mask, generation)
            state.successor = SetState(name, mask, generation, choose_capacity(count))
            state.successor.missing = set(self.desired.keys(mask))

    def hooks(self) -> dict[Mask, str]:
        """The set that the rules shall look into for each mask: the successor as soon as it is complete."""
        chosen = {}
        for mask, state in self.masks.items():
            successor = state.successor
            ready = successor is not None and successor.exists and not successor.missing
            chosen[mask] = successor.name if successor is not None and ready else state.current.name
        return chosen

    def count_missing(self) -> int:
        """Elements of registrations that are not known to be in a set that the rules look into."""
        return sum(
            len(state.current.missing) if state.current.hooked else len(self.desired.keys(mask))
            for mask, state in self.masks.items()
        )

    def count_surplus(self) -> int:
        return sum(len(state.surplus) for mask in self.masks.values() for state in mask.states())

    def holds(self, mask: Mask, key: bytes) -> bool:
        """Whether a desired element is known to be in a set that the rules look into."""
        state = self.masks.get(mask)
        return state is not None and state.current.hooked and key not in state.current.missing

    # -- observations --------------------------------------------------------------------------------------

    def start_reading(
        self, reading: TableReading, hooked: frozenset[str] = frozenset()
    ) -> list[tuple[SetState, ObservedSet]]:
        """Begin anew from a reading; returns the sets whose content is still to be observed.

        `hooked`: the sets that the rules are known to look into. Of several sets of a mask the hooked one stays
        until the newest, its successor, is complete; where none is known to be hooked, the newest is taken.
        Anything else in the table is retired.
        """
        self.table_present = reading.present
        self.retired = set()
        self.rules_seen = reading.rules
        self.tag = reading.tag
        self.last_tag = reading.tag or self.last_tag
        found_sets: dict[Mask, list[tuple[int, ObservedSet]]] = {}
        for found in reading.sets:
            if found.name in RULE_SETS:
                continue
            parsed = parse_set_name(found.name) if found.regular else None
            if parsed is None or parsed[0] not in self.desired:
                self.retired.add(found.name)
                continue
            found_sets.setdefault(parsed[0], []).append((parsed[1], found))
        self.masks = {}
        pending = []
        for mask in self.desired.masks():
            candidates = sorted(found_sets.get(mask, ()), key=lambda pair: pair[0])
            newest = candidates[-1:]
            current = [pair for pair in candidates if pair[1].name in hooked] or newest
            self.retired.update(found.name for _, found in candidates)
            if not current:
                self._mask_state(mask).current.missing = set(self.desired.keys(mask))
                continue
            adopted = [self._adopt(mask, *current[0])]
            self.masks[mask] = MaskState(adopted[0][0])
            if newest[0][0] > current[0][0]:
                adopted.append(self._adopt(mask, *newest[0]))
                self.masks[mask].successor = adopted[1][0]
            pending += adopted
        return pending

    def _adopt(self, mask: Mask, generation: int, found: ObservedSet) -> tuple[SetState, ObservedSet]:
        self.retired.remove(found.name)
        state = SetState(found.name, mask, generation, found.capacity, exists=True)
        state.unread = found.count or 0
        state.missing = set(self.desired.keys(mask))
        return state, found

    def observe_elements(self, state: SetState, keys: set[bytes]) -> int:
        """The set's content, all of it, as just read; how many keys somebody else added or removed."""
        wanted = self.desired.keys(state.mask) if state.mask in self.desired else set()
        missing, surplus = wanted - keys, keys - wanted
        strange = 0 if state.unread else len(missing - state.missing) + len(surplus - state.surplus)
        state.missing, state.surplus, state.unread = missing, surplus, 0
        return strange

    def expected_count(self, state: SetState) -> int:
        """How many elements the kernel must have if our picture is right."""
        return len(self.desired.keys(state.mask)) - len(state.missing) + len(state.surplus)

    def set_states(self) -> list[SetState]:
        return [state for mask in self.masks.values() for state in mask.states()]

    # -- acknowledgements ----------------------------------------------------------------------------------

    def added(self, state: SetState, keys: Sequence[bytes]) -> None:
        """The kernel has taken the keys."""
        wanted = self.desired.keys(state.mask) if state.mask in self.desired else frozenset[bytes]()
        state.missing.difference_update(keys)
        state.surplus.update(key for key in keys if key not in wanted)
        if self.urgent and state is self.masks[state.mask].current:
            for key in keys:
                self.urgent.pop((state.mask, key), None)

    def removed(self, state: SetState, keys: Sequence[bytes]) -> None:
        """The kernel has dropped the keys."""
        wanted = self.desired.keys(state.mask) if state.mask in self.desired else frozenset[bytes]()
        state.surplus.difference_update(keys)
        state.missing.update(key for key in keys if key in wanted)

    def hooked(self, names: frozenset[str], text: str, tag: RulesTag | None) -> None:
        """The rules in force now look into the sets named; what was replaced is retired."""
        self.rules, self.tag, self.rules_seen = text, tag, ""
        self.last_tag = tag or self.last_tag
        for state in self.masks.values():
            successor = state.successor
            if successor is not None and successor.name in names:
                self.retired.add(state.current.name)
                state.current, state.successor = successor, None
            state.current.hooked = state.current.name in names

    def _mask_state(self, mask: Mask) -> MaskState:
        state = self.masks.get(mask)
        if state is None:
            generation = 0
            while set_name(mask, generation) in self.retired:
                generation += 1
            capacity = choose_capacity(len(self.desired.keys(mask)))
            state = MaskState(SetState(set_name(mask, generation), mask, generation, capacity))
            self.masks[mask] = state
        return state
