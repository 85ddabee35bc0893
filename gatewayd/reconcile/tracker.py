"""Desired against observed, set by set, without a second copy of either.

What is desired lives in `DesiredSets`. What was observed is kept as the two differences: `missing` (desired, not
known to be in the kernel) and `surplus` (known to be there, not desired). So "is it in the kernel" is "desired
and not missing", and a set that is as it should be costs nothing.

Observed means read or acknowledged, never sent. Desires may change while a transaction is under way; the
acknowledgement looks again.

A mask goes from here when nothing is desired of it and its sets are known to be empty; which sets the rules look
into is decided in hooks.py.

After a restart the registry on disk may be older than the kernel's content: a disk that was full, a kill between
applying and saving. Until every source has been read, what is found in the kernel and not desired is *spared*: it
is desired like everything else, and let go by `release`. What a start finds of bindings and nothing explains is
*left* to its own time (leftovers.py): it counts as surplus that is not removed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence

from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.keys import PARTS, Keys, MissingKeys
from gatewayd.compile.masks import keys_of
from gatewayd.compile.ruleset import RULE_SETS
from gatewayd.model.binding import BoundRegistration
from gatewayd.model.external import ElementChange
from gatewayd.model.flow import Flow
from gatewayd.model.mask import Mask, parse_set_name, set_name
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Registration
from gatewayd.model.transaction import ObservedSet, RulesTag, TableReading
from gatewayd.reconcile.leftovers import Leftovers, Ports, place_of
from gatewayd.reconcile.set_state import (
    MaskState,
    SetState,
    choose_capacity,
    choose_hooks,
    hooks_of,
    is_complete,
)

ELEMENT_TIMEOUT_S = 7200
SLICE = 16384
"""Keys compared in one turn of the loop: some 2 ms."""


def masks_of(reading: TableReading) -> list[Mask]:
    """Masks of the sets that are laid out as ours are."""
    parsed = (parse_set_name(found.name) for found in reading.sets if found.regular)
    return [each[0] for each in parsed if each is not None]


class SetTracker:
    """What we know of the table, against what is desired. Pure; owned by the reconciler."""

    def __init__(self, desired: DesiredSets, element_timeout_s: int = ELEMENT_TIMEOUT_S) -> None:
        self.desired = desired
        self.element_timeout_s = element_timeout_s
        """After so long elements of bindings go by themselves, unless they are refreshed."""
        self.table_present = False
        self.masks: dict[Mask, MaskState] = {}
        self.retired: set[str] = set()
        self.rules: str | None = None
        """Text of the ruleset in force, None if it is not known to be ours."""
        self.in_force: dict[Mask, str] = {}
        """The sets that the rules in force look into; none if they are not known to be ours."""
        self.retiring = False
        """Masks out of use are to go as soon as their sets are empty."""
        self.rules_seen = ""
        """Fingerprint that the kernel gave for the rules in force."""
        self.tag: RulesTag | None = None
        self.last_tag: RulesTag | None = None
        """The latest tag known. Marks outlive the table, so an epoch counts on where the rules are gone."""
        self.urgent: dict[tuple[Mask, bytes], None] = {}
        self.sparing = False
        self.found: dict[str, int] = {}
        """While sparing: elements of registrations that sets had when they were first seen, by set."""
        self._retained: list[tuple[Mask, bytes]] = []
        self.leftovers = Leftovers()
        self.explains: Callable[[Prefix, Ports], bool] | None = None
        """While it is there, what is found in sets of bindings and not desired is left if this says False of it."""
        self.doubted = True
        """What is said here of the kernel may be wrong until it is read again."""
        self.is_first = True
        """No reading has come to its end yet."""
        self._is_read = False
        """Read at least once. Before that, desires are only gathered: a million of them in half the time."""

    # -- desires -------------------------------------------------------------------------------------------

    def timeout_s(self, mask: Mask) -> int:
        """Of the elements of a set; 0 = they stay."""
        return self.element_timeout_s if mask.is_bound else 0

    def prepare(self, masks: Iterable[Mask]) -> None:
        """Have sets and look-ups for these masks before there is an element, as far as the bound lets it."""
        for mask in masks:
            if self.desired.prepare(mask) and self._is_read:
                self._mask_state(mask)

    def add(self, wanted: Registration | BoundRegistration) -> None:
        """Desire the elements of a registration, or of a subscriber's registration at an address."""
        fresh = self.desired.add(wanted)
        self._forget_superseded()
        for mask, key in fresh if self._is_read else ():
            known = self.masks.get(mask) or self._mask_state(mask)
            for state in (known.current,) if known.successor is None else known.states():
                if key in state.surplus and not mask.is_bound:
                    state.surplus.discard(key)
                    state.missing.discard(key)
                else:
                    # One of a binding may be about to go by itself: it is put there anew.
                    state.surplus.discard(key)
                    state.missing.add(key)
                    self.leftovers.drop(mask, key)

    def remove(self, wanted: Registration | BoundRegistration) -> None:
        """Desire them no longer."""
        gone = self.desired.remove(wanted)
        for mask, key in gone if self._is_read else ():
            self._unwanted(mask, key)

    def _forget_superseded(self) -> None:
        """A form past a bound was programmed after all: what was kept of the former one is desired no longer."""
        for mask, key in self.desired.take_superseded():
            if self._is_read:
                self._unwanted(mask, key)

    def _unwanted(self, mask: Mask, key: bytes) -> None:
        for state in self.masks[mask].states():
            if not state.missing.forget(key):
                state.surplus.add(key)
        self.urgent.pop((mask, key), None)

    def release(self, most: int) -> int:
        """Desire spared elements no longer, at most so many of them; how many they were."""
        self.sparing = False
        released, self._retained = self._retained[:most], self._retained[most:]
        gone = [element for element in released if self.desired.unwant(*element)]
        kept = set(self.desired.keep_found(gone))
        for mask, key in gone:
            if (mask, key) not in kept:
                self._unwanted(mask, key)
        if released and not self._retained:
            self.retire_unused()
        return len(released)

    def sort_retained_in_slices(self, explained: Container[tuple[Mask, bytes]]) -> Generator[None, None, int]:
        """Put ahead what may go unasked: elements of bindings, those that a registration wants by now, and those of
        `explained`. How many are left. Nothing more is spared from now on."""
        self.sparing = False
        going: list[tuple[Mask, bytes]] = []
        staying: list[tuple[Mask, bytes]] = []
        for done, (mask, key) in enumerate(self._retained, 1):
            goes = mask.is_bound or self.desired.is_wanted_twice(mask, key) or (mask, key) in explained
            (going if goes else staying).append((mask, key))
            if done % SLICE == 0:
                yield
        self._retained = [*going, *staying]
        return len(staying)

    def prioritise(self, elements: Iterable[tuple[Mask, bytes]]) -> int:
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

    def retire_unused(self) -> bool:
        """Give up masks that no registration needs any more; whether any went.

        They go when nothing is missing anywhere and their sets are known to be empty, now or later; the sets, once
        no rule looks into them. That makes room under the bound of masks for registrations that were past it.
        """
        self.retiring, retired = not self.is_complete(), False
        for mask in () if self.retiring else self.desired.unused():
            known = self.masks.get(mask)
            states = list(known.states()) if known is not None else []
            if any(state.may_have_surplus for state in states):
                self.retiring = True
                continue
            self.masks.pop(mask, None)
            self.desired.drop(mask)
            self.retired.update(state.name for state in states if state.exists)
            retired = True
        if retired:
            for each in self.desired.take_unprogrammed():
                self.add(each)
        return retired

    def grow_where_full(self) -> None:
        """Start a larger successor for every set that has no room for what is missing in it.

        What is surplus counts: it goes only after the last desired element came, or an address that moves from
        one mask to another would lose its place in between.
        """
        for mask, state in self.masks.items():
            count = len(self.desired.keys(mask))
            newest = state.newest
            if newest.has_room_for(count) and not newest.outdated:
                continue
            if not newest.exists:
                newest.capacity = choose_capacity(mask, count)
                continue
            if state.successor is not None:
                self.retired.add(state.successor.name)
            generation = newest.generation + 1
            while set_name(mask, generation) in self.retired:
                generation += 1
            state.successor = self._make_state(mask, generation, choose_capacity(mask, count))

    def hooks(self) -> dict[Mask, str]:
        """The set that the rules shall look into now, for each mask; see hooks.py."""
        return choose_hooks(self.masks, self.in_force)

    def is_complete(self) -> bool:
        """Whether every desired element is known to be in a set that `hooks` has: only then may anything go."""
        return is_complete(self.masks)

    def count_missing(self) -> int:
        """Elements of registrations that are not known to be in a set that the rules look into."""
        if self.doubted:
            return self.desired.count()
        return sum(
            len(state.current.missing) if state.current.hooked else len(self.desired.keys(mask))
            for mask, state in self.masks.items()
        )

    def count_surplus(self) -> int:
        """Elements that are to go; not those that are left."""
        return sum(
            len(state.surplus) - sum(key in state.surplus for key in self.leftovers.of(state.mask))
            for mask in self.masks.values()
            for state in mask.states()
        )

    def count_retained(self) -> int:
        return len(self._retained)

    def holds(self, mask: Mask, key: bytes) -> bool:
        """Whether a desired element is known to be in a set that the rules look into."""
        state = self.masks.get(mask)
        return state is not None and state.current.hooked and key not in state.current.missing

    def element_for(self, flow: Flow) -> tuple[Mask, bytes] | None:
        """By which the kernel is known to pass the flow, desired or not."""
        for mask, known in self.masks.items():
            for key in keys_of(mask, flow) if known.current.hooked else ():
                if key in known.current.surplus or (key in self.desired.keys(mask) and self.holds(mask, key)):
                    return mask, key
        return None

    # -- observations --------------------------------------------------------------------------------------

    def start_reading(
        self, reading: TableReading, hooked: frozenset[str] = frozenset()
    ) -> list[tuple[SetState, ObservedSet]]:
        """Begin anew from a reading; returns the sets whose content is still to be observed.

        `hooked`: the sets that the rules are known to look into. They stay in use. Of several sets of a mask the
        hooked one stays until the newest, its successor, is complete; where none is known to be hooked, the newest
        is taken, or while we spare what is there the oldest too. A set of ours whose elements have another time is
        followed by one with ours. Anything else in the table is retired.
        """
        if not self._is_read and not self.sparing:
            self._end_reservation()
        self.table_present, self.doubted, self._is_read = reading.present, False, True
        self.in_force = hooks_of(hooked)
        self.retired = set()
        self.rules_seen = reading.rules
        self.tag = reading.tag
        self.last_tag = reading.tag or self.last_tag
        found_sets: dict[Mask, list[tuple[int, ObservedSet]]] = {}
        for found in reading.sets:
            if found.name in RULE_SETS:
                continue
            parsed = parse_set_name(found.name) if found.regular else None
            if parsed is not None and (self._keeps(parsed[0]) or found.name in hooked):
                self.desired.adopt(parsed[0], past_bound=True)
            if parsed is None or parsed[0] not in self.desired:
                self.retired.add(found.name)
                continue
            found_sets.setdefault(parsed[0], []).append((parsed[1], found))
        self.masks = {}
        pending = []
        for mask in self.desired.masks():
            candidates = sorted(found_sets.get(mask, ()), key=lambda pair: pair[0])
            newest = candidates[-1:]
            current = [pair for pair in candidates if pair[1].name in hooked]
            current = current or (candidates[:1] if self.sparing else newest)
            self.retired.update(found.name for _, found in candidates)
            if not current:
                self._mask_state(mask)
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
        state = self._make_state(mask, generation, found.capacity)
        state.exists = True
        state.hooked = found.name in self.in_force.values()
        state.outdated = found.timeout_s != self.timeout_s(mask)
        state.unread = found.count or 0
        if self.sparing and not mask.is_bound and found.count is not None:
            self.found.setdefault(found.name, found.count)
        return state, found

    def observe_elements(self, state: SetState, keys: Iterable[bytes]) -> int:
        """The set's content, all of it, as just read; how many keys somebody else added or removed."""
        slices = self.observe_in_slices(state, Keys(keys))
        while True:
            try:
                next(slices)
            except StopIteration as end:
                return int(end.value)

    def observe_in_slices(self, state: SetState, keys: Keys) -> Generator[None, None, int]:
        """As `observe_elements`. Desires may change between two slices, the kernel may not."""
        strange = looked_at = 0
        wanted = self._wanted(state.mask)
        for number in range(PARTS):
            missing = wanted.parts[number] - keys.parts[number]
            surplus = keys.parts[number] - wanted.parts[number]
            if surplus:
                surplus = self._keep(state, surplus)
            strange += len(missing - state.missing.part(number)) + len(surplus - state.surplus.parts[number])
            state.missing.replace_part(number, missing)
            state.surplus.replace_part(number, surplus)
            looked_at += len(wanted.parts[number]) + len(keys.parts[number])
            if looked_at > SLICE:
                looked_at = 0
                yield
        known = self.masks.get(state.mask)
        if known is not None and known.current is state:
            for key in [key for key in self.leftovers.of(state.mask) if key not in keys]:
                self.leftovers.drop(state.mask, key)  # its time was over
        strange, state.unread = 0 if state.unread else strange, 0
        if self.sparing and not state.mask.is_bound:
            self.found.setdefault(state.name, sum(len(part) for part in keys.parts))
        return strange

    def observe_some(self, state: SetState, keys: Keys) -> None:
        """Keys that were in the set at some moment of a reading that never came to a good end."""
        wanted = self._wanted(state.mask)
        for number in range(PARTS):
            surplus = keys.parts[number] - wanted.parts[number]
            state.surplus.update(self._keep(state, surplus))

    def _keep(self, state: SetState, keys: set[bytes]) -> set[bytes]:
        """Of what was found and is not desired: all but what is spared, and so desired from now on."""
        if self.explains is not None and state.mask.is_bound:
            for key in keys - state.surplus:
                if not self.explains(*place_of(state.mask, key)):
                    self.leftovers.add(state.mask, key)
        left = keys & self.leftovers.of(state.mask)
        rest = keys - left if left else keys
        if self.sparing:
            rest = self._retain(state, rest)
        elif self.is_first:
            rest -= self._keep_former(state, rest)
        return left | rest if left else rest

    def _keeps(self, mask: Mask) -> bool:
        """Whether a set of this mask that a reading found stays, wanted or not."""
        return self.sparing or (mask.is_bound and (self.explains is not None or bool(self.leftovers.of(mask))))

    def _retain(self, state: SetState, keys: set[bytes]) -> set[bytes]:
        """Desire what was found in a set; returns what we ourselves are about to remove from it."""
        found = keys - state.surplus
        for key in found:
            self.desired.want(state.mask, key)
            self._retained.append((state.mask, key))
            for other in self.masks[state.mask].states():
                if other is not state:
                    other.missing.add(key)
        return keys - found

    def _keep_former(self, state: SetState, keys: set[bytes]) -> set[bytes]:
        """Of what a start found and nobody wants: that of registrations whose present form is past a bound."""
        kept = {key for _, key in self.desired.keep_found((state.mask, key) for key in keys)}
        for other in self.masks[state.mask].states() if kept else ():
            if other is not state:
                other.missing |= kept
        return kept

    def _end_reservation(self) -> None:
        """All that is desired is known: masks that the kernel has and nobody needs are given up, or looked into for
        former forms first."""
        self.retiring = self.desired.count_unprogrammed() > 0
        for mask in () if self.retiring else self.desired.unused():
            self.desired.drop(mask)

    def observe_changes(self, changes: Iterable[ElementChange]) -> tuple[int, int]:
        """What somebody else did to elements: how many wanted ones went, how many unwanted ones came.

        The news may be older than what we did since. So a wanted key that went is put there again, which harms
        nothing where it is there, and one that came stays missing until we ourselves have put it there.
        """
        states = {state.name: state for state in self.set_states()}
        went = came = 0
        for change in changes:
            state, key = states.get(change.set_name), change.key
            if state is None or len(key) != state.mask.key_length:
                continue
            wanted = key in self._wanted(state.mask)
            if change.present and not wanted and key not in state.surplus:
                state.surplus.add(key)
                came += 1
            elif not change.present and not wanted:
                state.surplus.discard(key)
            elif not change.present and key not in state.missing:
                state.missing.add(key)
                went += 1
        return went, came

    def forget_rules(self, tag: RulesTag | None) -> None:
        """The rules are not ours any more, or not all of them: nothing is known to be looked into."""
        self.rules, self.rules_seen, self.tag, self.in_force = None, "", tag, {}
        self.last_tag = tag or self.last_tag
        for state in self.set_states():
            state.hooked = False

    def known_in_slices(
        self, max_keys: Callable[[int], int], states: Iterable[SetState] | None = None
    ) -> Iterator[tuple[SetState, list[bytes]]]:
        """All that is known to be in the kernel, or in some sets of it, in pieces of one set; `max_keys` of a key
        length in each.

        Desires may change between two pieces, and the piece then holds a key that is wanted no longer.
        """
        for state in self.set_states() if states is None else states:
            wanted = self._wanted(state.mask)
            waiting: deque[bytes] = deque()
            size = max_keys(state.mask.key_length)
            for number in range(PARTS):
                missing = state.missing.part(number)
                if missing is not wanted.parts[number]:
                    waiting.extend(wanted.parts[number] - missing)
                while len(waiting) >= size:
                    yield state, [waiting.popleft() for _ in range(size)]
            if waiting:
                yield state, list(waiting)

    def expected_count(self, state: SetState) -> int:
        """How many elements the kernel must have if our picture is right."""
        return len(self.desired.keys(state.mask)) - len(state.missing) + len(state.surplus)

    def set_states(self) -> list[SetState]:
        return [state for mask in self.masks.values() for state in mask.states()]

    # -- acknowledgements ----------------------------------------------------------------------------------

    def added(self, state: SetState, keys: Sequence[bytes]) -> None:
        """The kernel has taken the keys."""
        wanted = self._wanted(state.mask)
        if state.missing.difference_update(keys) < len(keys):
            state.surplus.update(key for key in keys if key not in wanted)
        if self.urgent and state is self.masks[state.mask].current:
            for key in keys:
                self.urgent.pop((state.mask, key), None)

    def removed(self, state: SetState, keys: Sequence[bytes]) -> None:
        """The kernel has dropped the keys."""
        wanted = self._wanted(state.mask)
        state.surplus.difference_update(keys)
        for key in keys:
            if key in wanted:
                state.missing.add(key)

    def hooked(self, names: frozenset[str], text: str, tag: RulesTag | None) -> None:
        """The rules in force now look into the sets named; what was replaced is retired."""
        self.rules, self.tag, self.rules_seen = text, tag, ""
        self.last_tag = tag or self.last_tag
        self.in_force = hooks_of(names)
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
            capacity = choose_capacity(mask, len(self.desired.keys(mask)))
            state = MaskState(self._make_state(mask, generation, capacity))
            self.masks[mask] = state
        return state

    def _make_state(self, mask: Mask, generation: int, capacity: int) -> SetState:
        """A set of which everything is missing."""
        missing = MissingKeys(self.desired.keys(mask), whole=True)
        return SetState(set_name(mask, generation), mask, generation, capacity, missing=missing)

    def _wanted(self, mask: Mask) -> Keys:
        """The keys desired of a mask; none if it is not in use."""
        return self.desired.keys(mask) if mask in self.desired else Keys()
