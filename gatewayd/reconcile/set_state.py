"""One kernel set as we know it, the set of a mask with its larger successor, and which sets the rules look into:
the invariant of make before break. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gatewayd.compile.keys import Keys, MissingKeys
from gatewayd.model.mask import Mask, parse_set_name

SMALLEST_CAPACITY = 1024


def choose_capacity(mask: Mask, count: int) -> int:
    """Room for a new set: a power of two at least twice the elements, so that growth is rare.

    None is stated of a set with timeouts: the kernel's table for those grows by itself.
    """
    if mask.is_bound:
        return 0
    return max(SMALLEST_CAPACITY, 1 << (2 * max(count, 1) - 1).bit_length())


@dataclass(slots=True)
class SetState:
    """One kernel set. `exists`: seen or acknowledged. `hooked`: the rules in force look into it.

    `unread`: elements that it had when it was seen and whose keys were not read; any of them may be desired.
    `outdated`: its elements have another time than ours; a set can only be made with it.
    """

    name: str
    mask: Mask
    generation: int
    capacity: int
    exists: bool = False
    hooked: bool = False
    unread: int = 0
    outdated: bool = False
    missing: MissingKeys = field(default_factory=lambda: MissingKeys(Keys()))
    surplus: Keys = field(default_factory=Keys)

    @property
    def may_have_surplus(self) -> bool:
        """Whether there may be elements in it that are not desired."""
        return bool(self.surplus) or self.unread > 0

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

    @property
    def successor_is_whole(self) -> bool:
        """Whether there is a successor, with all that is desired."""
        return self.successor is not None and self.successor.exists and not self.successor.missing

    @property
    def successor_has_all(self) -> bool:
        """Whether there is a successor, with all that is desired and all else that the set may have."""
        return self.successor_is_whole and not self.current.may_have_surplus


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
