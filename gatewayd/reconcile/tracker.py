"""Desired against observed, set by set, without a second copy of either. Pure.

Desired keys live in `DesiredSets`. Observations are kept as the two differences: `missing` (desired, not known to
be in the kernel) and `surplus` (known to be there, not desired). So "is it in the kernel" is "desired and not
missing", and a set that is as it should be costs nothing.

Observed means read or acknowledged, never sent. Desires change meanwhile, so each acknowledgement looks again.

A mask goes when nothing is desired of it and its sets are known to be empty. `set_state` decides which sets the
rules look into, `findings` which elements stay that nothing desires.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial

from gatewayd.compile.desired import DesiredSets, Element
from gatewayd.compile.keys import Keys, MissingKeys
from gatewayd.compile.masks import keys_of
from gatewayd.compile.rule_sets import RULE_SETS
from gatewayd.model.flow import Flow
from gatewayd.model.mask import Mask, parse_set_name, set_name
from gatewayd.model.registration import BoundRegistration, Registration, run_slices
from gatewayd.model.transaction import ElementChange, ObservedSet, RulesTag, TableReading
from gatewayd.reconcile.findings import Findings
from gatewayd.reconcile.set_state import (
    KnownRules,
    MaskState,
    SetState,
    choose_capacity,
    choose_hooks,
    choose_sets,
    compare_in_slices,
    free_generation,
    is_complete,
    known_pieces,
    masks_of,
)

ELEMENT_TIMEOUT_S = 7200


class SetTracker:
    """The state of the table as we know it, against the desired one. Owned by the reconciler."""

    def __init__(self, desired: DesiredSets, element_timeout_s: int = ELEMENT_TIMEOUT_S) -> None:
        self.desired = desired
        self.findings = Findings(desired)
        self.element_timeout_s = element_timeout_s
        """After so long elements of bindings go by themselves, unless they are refreshed."""
        self.table_present = False
        self.masks: dict[Mask, MaskState] = {}
        self.retired: set[str] = set()
        """Sets that are to go when no rule looks into them."""
        self.rules = KnownRules()
        self.retiring = False
        """Masks out of use are to go as soon as their sets are empty."""
        self.urgent: dict[Element, None] = {}
        self.doubted = True
        """The kernel may be in another state until it is read again."""
        self._is_read = False
        """Read at least once. Before that, desires are only gathered: a million of them in half the time."""

    # -- desires -------------------------------------------------------------------------------------------

    def timeout_s(self, mask: Mask) -> int:
        """Of the elements of a set; 0 = they stay."""
        return self.element_timeout_s if mask.is_bound else 0

    def use_element_timeout(self, seconds: int) -> None:
        self.element_timeout_s = seconds

    def reserve(self, reading: TableReading) -> None:
        """Before anything is desired: the kernel's masks are kept before anything new gets one."""
        self.rules.see_tag(reading.tag)
        self.desired.reserve(masks_of(reading))

    def prepare(self, masks: Iterable[Mask]) -> None:
        """Have sets and look-ups for these masks before there is an element, as far as the bound lets it."""
        for mask in masks:
            if self.desired.prepare(mask) and self._is_read:
                self._mask_state(mask)

    def add(self, wanted: Registration | BoundRegistration) -> None:
        """Desire the elements of a registration, or of a subscriber's registration at an address."""
        fresh = self.desired.add(wanted)
        # A form past a bound may be programmed by now: elements of the former one are desired no longer.
        for mask, key in self.desired.take_superseded():
            if self._is_read:
                self._unwanted(mask, key)
        for mask, key in fresh if self._is_read else ():
            self._desire(mask, key)
            if mask.is_bound:
                self.findings.leftovers.drop(mask, key)

    def remove(self, wanted: Registration | BoundRegistration) -> None:
        """Desire them no longer."""
        gone = self.desired.remove(wanted)
        for mask, key in gone if self._is_read else ():
            self._unwanted(mask, key)

    def take_near(self, came: Iterable[Element], went: Iterable[Element]) -> None:
        """Elements that make no flow registered (compile.near) and that nothing else wants."""
        for mask, key in came:
            self.desired.adopt(mask, past_bound=True)
            self.desired.want(mask, key)
            if self._is_read:
                self._desire(mask, key)
        for mask, key in went:
            self.desired.unwant(mask, key)
            if self._is_read:
                self._unwanted(mask, key)

    def _desire(self, mask: Mask, key: bytes) -> None:
        known = self.masks.get(mask) or self._mask_state(mask)
        for state in (known.current,) if known.successor is None else known.states():
            state.desire(key)

    def _unwanted(self, mask: Mask, key: bytes) -> None:
        for state in self.masks[mask].states():
            if not state.missing.forget(key):
                state.surplus.add(key)
        self.urgent.pop((mask, key), None)

    def release(self, most: int) -> int:
        """Desire retained elements no longer, at most so many of them; how many these were."""
        released, gone = self.findings.release(most)
        for mask, key in gone:
            self._unwanted(mask, key)
        if released and not self.findings.count_retained():
            self.retire_unused()
        return released

    def prioritise(self, elements: Iterable[Element]) -> int:
        """Put the elements ahead of all others; returns how many of them are missing.

        Those believed to be in the kernel are put there again: an event that asks for them shows that they are not.
        """
        missing = 0
        for mask, key in elements:
            state = self.masks.get(mask)
            if state is not None and key in self.desired.keys(mask):
                self.urgent[(mask, key)] = None
                missing += key in state.current.missing
        return missing

    def make_room(self) -> None:
        """`retire_unused`, where registrations wait for a mask."""
        if self.desired.count_unprogrammed():
            self.retire_unused()

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
        """Start a larger successor for every set that has no room for the keys missing in it.

        Surplus counts: it goes only after the last desired element came, so an address that moves to another mask
        is in one at least.
        """
        for mask, state in self.masks.items():
            count = len(self.desired.keys(mask))
            newest = state.newest
            if newest.has_room_for(count) and not newest.has_former_timeout:
                continue
            if not newest.exists:
                newest.capacity = choose_capacity(mask, count)
                continue
            if state.successor is not None:
                self.retired.add(state.successor.name)
            generation = free_generation(mask, newest.generation + 1, self.retired)
            state.successor = self._make_state(mask, generation, choose_capacity(mask, count))

    # -- facts ---------------------------------------------------------------------------------------------

    def hooks(self) -> dict[Mask, str]:
        """The set that the rules shall look into now, for each mask."""
        return choose_hooks(self.masks, self.rules.hooks)

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
            if not mask.is_near
        )

    def count_surplus(self) -> int:
        """Elements that are to go; not those that are left."""
        return sum(
            len(state.surplus) - sum(key in state.surplus for key in self.left(state.mask))
            for state in self.set_states()
        )

    def left(self, mask: Mask) -> set[bytes]:
        """Elements of bindings that nothing explains, which go by themselves; not to be changed by the caller."""
        return self.findings.leftovers.of(mask)

    def holds(self, mask: Mask, key: bytes) -> bool:
        """Whether a desired element is known to be in a set that the rules look into."""
        state = self.masks.get(mask)
        return state is not None and state.current.hooked and key not in state.current.missing

    def element_for(self, flow: Flow) -> Element | None:
        """By which the kernel is known to pass the flow, desired or not."""
        for mask, known in self.masks.items():
            for key in keys_of(mask, flow) if known.current.hooked else ():
                if key in known.current.surplus or (key in self.desired.keys(mask) and self.holds(mask, key)):
                    return mask, key
        return None

    def set_states(self) -> list[SetState]:
        return [state for mask in self.masks.values() for state in mask.states()]

    def expected_count(self, state: SetState) -> int:
        """How many elements the kernel must have in the set."""
        return len(self.desired.keys(state.mask)) - len(state.missing) + len(state.surplus)

    def known_in_slices(
        self, max_keys: Callable[[int], int], states: Iterable[SetState] | None = None
    ) -> Iterator[tuple[SetState, list[bytes]]]:
        """All that is known to be in the kernel, or in some sets of it, in pieces of one set; `max_keys` of a key
        length in each. Desires may change between two pieces (set_state.known_pieces)."""
        for state in self.set_states() if states is None else states:
            size = max_keys(state.mask.key_length)
            for piece in known_pieces(state, self._wanted(state.mask), size):
                yield state, piece

    # -- observations --------------------------------------------------------------------------------------

    def doubt(self) -> None:
        """Nothing is known of the kernel any more; it will be read."""
        self.doubted = True

    def read_again(self, reading: TableReading) -> list[tuple[SetState, ObservedSet]]:
        """As `start_reading`; the rules are still ours if the kernel lists them as it did."""
        if self.rules.text is None or not reading.rules or reading.rules != self.rules.fingerprint:
            # A set is known to be looked into only by rules that we know.
            self.rules.forget(reading.tag)
        return self.start_reading(reading, frozenset(self.rules.hooks.values()))

    def start_reading(
        self, reading: TableReading, hooked: frozenset[str] = frozenset()
    ) -> list[tuple[SetState, ObservedSet]]:
        """Begin anew from a reading; returns the sets whose content is still to be observed.

        `hooked`: the sets that the rules are known to look into. They stay in use until their successor is complete
        (set_state.choose_sets); while elements are retained, so does the oldest of a mask. A set of ours whose
        elements have another time is followed by one with ours. Anything else in the table is retired.
        """
        if not self._is_read and not self.findings.retaining:
            self._end_reservation()
        self.table_present, self.doubted, self._is_read = reading.present, False, True
        self.rules.read(reading, hooked)
        self.retired = {found.name for found in reading.sets} - RULE_SETS
        found_sets: dict[Mask, list[tuple[int, ObservedSet]]] = {}
        for found in reading.sets:
            parsed = parse_set_name(found.name) if found.regular else None
            if parsed is None:
                continue
            if self.findings.keeps_set(parsed[0]) or found.name in hooked:
                self.desired.adopt(parsed[0], past_bound=True)
            if parsed[0] in self.desired:
                found_sets.setdefault(parsed[0], []).append((parsed[1], found))
        self.masks = {}
        pending = []
        for mask in self.desired.masks():
            chosen = choose_sets(found_sets.get(mask, ()), hooked, keeps_oldest=self.findings.retaining)
            adopted = [(self._adopt(mask, *each), each[1]) for each in chosen]
            if adopted:
                self.masks[mask] = MaskState(*(state for state, _ in adopted))
            else:
                self._mask_state(mask)
            pending += adopted
        return pending

    def _adopt(self, mask: Mask, generation: int, found: ObservedSet) -> SetState:
        self.retired.remove(found.name)
        state = self._make_state(mask, generation, found.capacity)
        state.exists = True
        state.hooked = found.name in self.rules.hooks.values()
        state.has_former_timeout = found.timeout_s != self.timeout_s(mask)
        state.unread = found.count or 0
        if found.count is not None:
            self.findings.note_count(state, found.count)
        return state

    def _end_reservation(self) -> None:
        """All that is desired is known: unneeded masks of the kernel go, after a look for former forms."""
        self.retiring = self.desired.count_unprogrammed() > 0
        for mask in () if self.retiring else self.desired.unused():
            self.desired.drop(mask)

    def observe_elements(self, state: SetState, keys: Iterable[bytes]) -> int:
        """The set's content, all of it, as just read; how many keys another program added or removed."""
        return run_slices(self.observe_in_slices(state, Keys(keys)))

    def observe_in_slices(self, state: SetState, keys: Keys) -> Generator[None, None, int]:
        """As `observe_elements`. Desires may change between two slices, the kernel may not."""
        strange = yield from compare_in_slices(state, self._wanted(state.mask), keys, self._sorting(state))
        if (known := self.masks.get(state.mask)) is not None and known.current is state:
            self.findings.drop_expired(state.mask, keys)
        self.findings.note_count(state, len(keys))
        return strange

    def observe_some(self, state: SetState, keys: Keys) -> None:
        """Keys that were in the set at some moment of a reading that never came to a good end."""
        wanted, sort_found = self._wanted(state.mask), self._sorting(state)
        for found, desired in zip(keys.parts, wanted.parts, strict=True):
            state.surplus.update(sort_found(found - desired))

    def _sorting(self, state: SetState) -> Callable[[set[bytes]], set[bytes]]:
        return partial(self.findings.sort, self.masks.get(state.mask) or MaskState(state), state)

    def observe_changes(self, changes: Iterable[ElementChange]) -> tuple[int, int]:
        """Element changes of other programs: how many desired ones went, how many others came."""
        states, went, came = {state.name: state for state in self.set_states()}, 0, 0
        for change in changes:
            state, key = states.get(change.set_name), change.key
            if state is None or len(key) != state.mask.key_length:
                continue
            if state.changed(key, self._wanted(state.mask), present=change.present):
                went, came = went + (not change.present), came + change.present
        return went, came

    def forget_rules(self, tag: RulesTag | None) -> None:
        """The rules are not ours any more, or not all of them: nothing is known to be looked into."""
        self.rules.forget(tag)
        for state in self.set_states():
            state.hooked = False

    # -- acknowledgements ----------------------------------------------------------------------------------

    def created_table(self) -> None:
        self.table_present = True

    def created(self, state: SetState | None, name: str, capacity: int) -> None:
        """The kernel has made the set; if it is not in use any more it is to go again."""
        if state is None:
            self.retired.add(name)
        else:
            state.exists, state.capacity = True, capacity

    def added(self, state: SetState, keys: Sequence[bytes]) -> None:
        """The kernel has taken the keys."""
        state.added(keys, self._wanted(state.mask))
        if self.urgent and state is self.masks[state.mask].current:
            for key in keys:
                self.urgent.pop((state.mask, key), None)

    def removed(self, state: SetState, keys: Sequence[bytes]) -> None:
        state.removed(keys, self._wanted(state.mask))

    def hooked(self, names: frozenset[str], text: str, tag: RulesTag | None) -> None:
        """The rules in force now look into the sets named; a set that was replaced is retired."""
        self.rules.put(names, text, tag)
        for state in self.masks.values():
            self.retired.update(state.hook(names))

    def _mask_state(self, mask: Mask) -> MaskState:
        state = self.masks.get(mask)
        if state is None:
            capacity = choose_capacity(mask, len(self.desired.keys(mask)))
            state = MaskState(self._make_state(mask, free_generation(mask, 0, self.retired), capacity))
            self.masks[mask] = state
        return state

    def _make_state(self, mask: Mask, generation: int, capacity: int) -> SetState:
        """A set of which everything is missing."""
        missing = MissingKeys(self.desired.keys(mask), whole=True)
        return SetState(set_name(mask, generation), mask, generation, capacity, missing=missing)

    def _wanted(self, mask: Mask) -> Keys:
        return self.desired.keys(mask) if mask in self.desired else Keys()
