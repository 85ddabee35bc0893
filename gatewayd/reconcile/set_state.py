"""One kernel set as we know it, the set of a mask with its larger successor, and which sets the rules look into:
the invariant of make before break. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gatewayd.compile.keys import PARTS, Keys, MissingKeys
from gatewayd.model.mask import Mask, parse_set_name, set_name
from gatewayd.model.transaction import ObservedSet, RulesTag, TableReading

MIN_CAPACITY = 1024
SLICE = 16384
"""Keys compared in one turn of the loop: some 2 ms."""


def choose_capacity(mask: Mask, count: int) -> int:
    """Room for a new set: a power of two at least twice the elements, so that growth is rare.

    None is stated of a set with timeouts: the kernel's table for those grows by itself.
    """
    if mask.is_bound:
        return 0
    return max(MIN_CAPACITY, 1 << (2 * max(count, 1) - 1).bit_length())


@dataclass(slots=True)
class SetState:
    """One kernel set. `exists`: seen or acknowledged. `hooked`: the rules in force look into it.

    `unread`: elements that it had when it was seen and whose keys were not read; any of them may be desired.
    `has_former_timeout`: its elements have another time than ours; a set can only be made with it.
    """

    name: str
    mask: Mask
    generation: int
    capacity: int
    exists: bool = False
    hooked: bool = False
    unread: int = 0
    has_former_timeout: bool = False
    missing: MissingKeys = field(default_factory=lambda: MissingKeys(Keys()))
    surplus: Keys = field(default_factory=Keys)

    @property
    def may_have_surplus(self) -> bool:
        """Whether there may be elements in it that are not desired."""
        return bool(self.surplus) or self.unread > 0

    def note_unread(self, count: int) -> None:
        """So many of its elements are not known by their keys; 0 = all are."""
        self.unread = count

    def desire(self, key: bytes) -> None:
        """The key is desired from now on."""
        if key in self.surplus:
            self.surplus.discard(key)
            if not self.mask.is_bound:
                self.missing.discard(key)
                return
        # One of a binding may be about to go by itself: it is put there again.
        self.missing.add(key)

    def added(self, keys: Sequence[bytes], wanted: Keys) -> None:
        """The kernel has taken the keys."""
        if self.missing.difference_update(keys) < len(keys):
            self.surplus.update(key for key in keys if key not in wanted)

    def removed(self, keys: Sequence[bytes], wanted: Keys) -> None:
        """The kernel has dropped the keys."""
        self.surplus.difference_update(keys)
        for key in keys:
            if key in wanted:
                self.missing.add(key)

    def changed(self, key: bytes, wanted: Keys, *, present: bool) -> bool:
        """Another program's change came in; whether a desired key went, or another came.

        It may be older than our own changes since. So a desired key that went is put there again, which harms
        nothing where it is there, and one that came stays missing until we ourselves have put it there.
        """
        if key in wanted:
            if present or key in self.missing:
                return False
            self.missing.add(key)
            return True
        is_new = present and key not in self.surplus
        if present:
            self.surplus.add(key)
        else:
            self.surplus.discard(key)
        return is_new

    def has_room_for(self, desired: int) -> bool:
        """Whether what is missing of so many wanted elements fits beside what is there."""
        inside = desired + len(self.surplus) + self.unread
        return self.capacity == 0 or self.capacity >= inside or not self.missing

    def has_room(self, desired: int, more: int) -> int:
        """How many of `more` new elements are sure to fit, `desired` being the wanted ones."""
        if self.capacity == 0:
            return more
        inside = desired - len(self.missing) + len(self.surplus) + self.unread
        return max(0, min(more, self.capacity - inside))


def known_pieces(state: SetState, wanted: Keys, size: int) -> Iterator[list[bytes]]:
    """The desired keys that are known to be in the set, `size` of them at a time.

    Desires may change between two pieces, and the piece then holds a key that is desired no longer.
    """
    waiting: deque[bytes] = deque()
    for number in range(PARTS):
        missing = state.missing.part(number)
        if missing is not wanted.parts[number]:
            waiting.extend(wanted.parts[number] - missing)
        while len(waiting) >= size:
            yield [waiting.popleft() for _ in range(size)]
    if waiting:
        yield list(waiting)


def compare_in_slices(
    state: SetState, wanted: Keys, keys: Keys, sort_found: Callable[[set[bytes]], set[bytes]]
) -> Generator[None, None, int]:
    """The set's content is `keys`, as just read; how many keys another program added or removed.

    `sort_found`: which of the keys that are not desired are surplus. Desires may change between two slices, the
    kernel may not.
    """
    strange = looked_at = 0
    for number in range(PARTS):
        missing = wanted.parts[number] - keys.parts[number]
        surplus = keys.parts[number] - wanted.parts[number]
        if surplus:
            surplus = sort_found(surplus)
        strange += len(missing - state.missing.part(number)) + len(surplus - state.surplus.parts[number])
        state.missing.replace_part(number, missing)
        state.surplus.replace_part(number, surplus)
        looked_at += len(wanted.parts[number]) + len(keys.parts[number])
        if looked_at > SLICE:
            looked_at = 0
            yield
    strange, state.unread = 0 if state.unread else strange, 0
    return strange


def masks_of(reading: TableReading) -> list[Mask]:
    """Masks of the sets that are laid out as ours are."""
    parsed = (parse_set_name(found.name) for found in reading.sets if found.regular)
    return [each[0] for each in parsed if each is not None]


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

    def hook(self, names: Container[str]) -> list[str]:
        """The rules in force look into the sets named now; the name of the set that was replaced, if one was."""
        replaced = []
        if self.successor is not None and self.successor.name in names:
            replaced = [self.current.name]
            self.current, self.successor = self.successor, None
        self.current.hooked = self.current.name in names
        return replaced

    @property
    def successor_is_whole(self) -> bool:
        """Whether there is a successor, with all that is desired."""
        return self.successor is not None and self.successor.exists and not self.successor.missing

    @property
    def successor_has_all(self) -> bool:
        """Whether there is a successor, with all that is desired and all else that the set may have."""
        return self.successor_is_whole and not self.current.may_have_surplus


def free_generation(mask: Mask, generation: int, taken: Container[str]) -> int:
    """The first from this one on whose set is not about to go."""
    while set_name(mask, generation) in taken:
        generation += 1
    return generation


def choose_sets(
    found: Iterable[tuple[int, ObservedSet]], hooked: Container[str], *, keeps_oldest: bool
) -> list[tuple[int, ObservedSet]]:
    """Of the sets of a mask that a reading found, with their generations: the one in use, and the newest as its
    successor if that is another.

    The hooked one stays in use. Where none is known to be hooked it is the newest; with `keeps_oldest`, the oldest.
    """
    candidates = sorted(found, key=lambda pair: pair[0])
    newest = candidates[-1:]
    current = [pair for pair in candidates if pair[1].name in hooked] or (candidates if keeps_oldest else newest)
    return current[:1] + [pair for pair in newest if pair[0] > current[0][0]]


def is_complete(masks: Mapping[Mask, MaskState]) -> bool:
    """Whether every desired element is known to be in a set that `choose_hooks` would then take."""
    return all(not state.current.missing or state.successor_is_whole for state in masks.values())


def choose_hooks(masks: Mapping[Mask, MaskState], in_force: Mapping[Mask, str]) -> dict[Mask, str]:
    """The set that the rules shall look into now, for each mask; `in_force`: the sets that they are known to look
    into.

    In order of capacity, the largest first: where most registrations are, most flows are found. It changes only
    with the sets, so an element more or less never asks for other rules.
    """
    complete = is_complete(masks)
    chosen: list[tuple[int, Mask, str]] = []
    for mask, state in masks.items():
        hooked = in_force.get(mask)
        best = state.successor if state.successor is not None and state.successor_is_whole else state.current
        if complete or hooked is None or (hooked == state.current.name and state.successor_has_all):
            chosen.append((best.capacity, mask, best.name))
        else:
            chosen.append((state.current.capacity, mask, hooked))
    if not complete:
        chosen += [(0, mask, name) for mask, name in in_force.items() if mask not in masks]
    chosen.sort(key=lambda each: (-each[0], -each[1].client_length, each[1]))
    return {mask: name for _, mask, name in chosen}


def hooks_of(names: Iterable[str]) -> dict[Mask, str]:
    """The masks of sets that rules look into, which are one a mask."""
    return {parsed[0]: name for name in names if (parsed := parse_set_name(name)) is not None}


@dataclass(slots=True)
class KnownRules:
    """The rules in the kernel. `text`, `hooks` (the set that is looked into, by mask): None and none where they are
    not known to be ours. `fingerprint`: how the kernel lists them; "" if that was not seen since they were put.

    `last_tag`: the latest known. Marks outlive the table, so an epoch counts on where the rules are gone.
    """

    text: str | None = None
    hooks: dict[Mask, str] = field(default_factory=dict)
    fingerprint: str = ""
    tag: RulesTag | None = None
    last_tag: RulesTag | None = None

    def put(self, names: Iterable[str], text: str, tag: RulesTag | None) -> None:
        """The kernel has taken rules that look into the sets named."""
        self.text, self.hooks, self.fingerprint = text, hooks_of(names), ""
        self.see_tag(tag)

    def see_tag(self, tag: RulesTag | None) -> None:
        """The rules in the kernel carry this tag."""
        self.tag = tag
        self.last_tag = tag or self.last_tag

    def see_fingerprint(self, fingerprint: str) -> None:
        """How the kernel lists these rules; "" where that is to be looked at again."""
        self.fingerprint = fingerprint

    def forget(self, tag: RulesTag | None) -> None:
        """They are not ours any more, or not all of them."""
        self.text, self.hooks, self.fingerprint = None, {}, ""
        self.see_tag(tag)

    def read(self, reading: TableReading, hooked: Iterable[str]) -> None:
        """All is read again. `hooked`: the sets that they are known to look into."""
        self.hooks, self.fingerprint = hooks_of(hooked), reading.rules
        self.see_tag(reading.tag)

    def recognise(self, reading: TableReading) -> None:
        """A reading came. Rules with the tag of those that we put are these, if it was not seen yet how the kernel
        lists them."""
        if self.text is not None and not self.fingerprint and reading.tag == self.tag:
            self.fingerprint = reading.rules

    def differ(self, reading: TableReading) -> bool:
        """Whether the kernel has other rules than those that we put, or none."""
        return self.text is not None and (reading.rules != self.fingerprint or reading.tag != self.tag)
