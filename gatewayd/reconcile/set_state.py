"""One kernel set as we know it, and the set of a mask with the larger one that is to follow it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from gatewayd.compile.keys import Keys
from gatewayd.model.mask import Mask
from gatewayd.reconcile.missing import MissingKeys

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
