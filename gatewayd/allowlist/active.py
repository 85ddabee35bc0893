"""What is active at a moment: registrations in their windows, and what their subscribers' bindings give them.

Each change returns what the kernel is to have more and less, to be performed in the same turn: additions before
removals, so an element that both an old and a new form want never leaves the kernel. Registrations and bindings
that overlap do not disturb each other: what any of them lets pass, passes. So one record costs what one record
costs, however many bindings lie within its addresses.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gatewayd.allowlist.allowlist import Allowlist
from gatewayd.allowlist.schedule import Schedule
from gatewayd.model import Binding, BoundRegistration, Registration

Wanted = Registration | BoundRegistration


class Desired(msgspec.Struct, frozen=True, gc=False):
    """What follows from one change. `subscribers`: digests that some registration names now, or none any more."""

    add: tuple[Wanted, ...] = ()
    remove: tuple[Wanted, ...] = ()
    subscribers: tuple[bytes, ...] = ()


NOTHING: Final = Desired()


class ActiveSet:
    """Owns the allowlist and the schedule. A caller that performs the result of each call has in force, at each
    moment, every effective registration, and each of these at every address of its subscriber."""

    __slots__ = ("_dormant", "_schedule", "allowlist")

    def __init__(self) -> None:
        self.allowlist = Allowlist()
        self._schedule = Schedule()
        self._dormant: set[str] = set()

    def count(self) -> int:
        """Registrations that are effective."""
        return len(self.allowlist) - len(self._dormant)

    def closed(self, now: float) -> list[Registration]:
        """Registrations whose window has closed."""
        found = [self.allowlist.get(id) for id in self._dormant]
        return [
            each for each in found if each is not None and each.status == "active" and each.valid_until_s <= now
        ]

    def upsert(self, registration: Registration, now: float) -> Desired:
        """Put it in the place of its id."""
        old = self.allowlist.upsert(registration)
        was_active = old is not None and registration.id not in self._dormant
        self._schedule.watch(registration, now)
        add: tuple[Wanted, ...] = ()
        if registration.is_effective(now):
            self._dormant.discard(registration.id)
            add = self._all_of(registration)
        else:
            self._dormant.add(registration.id)
        remove = self._all_of(old) if old is not None and was_active else ()
        return Desired(add, remove, self.allowlist.subscribers_changed(old, registration))

    def withdraw(self, registration_id: str) -> Desired:
        """Take it out, if it is there."""
        old = self.allowlist.withdraw(registration_id)
        self._schedule.forget(registration_id)
        was_dormant = registration_id in self._dormant
        self._dormant.discard(registration_id)
        if old is None:
            return NOTHING
        remove = () if was_dormant else self._all_of(old)
        return Desired((), remove, self.allowlist.subscribers_changed(old, None))

    def refresh(self, registration_id: str, now: float) -> Desired:
        """A window may have opened or closed; NOTHING if it did not, or the registration is not there."""
        registration = self.allowlist.get(registration_id)
        if registration is None:
            return NOTHING
        self._schedule.watch(registration, now)
        is_dormant = registration_id in self._dormant
        if registration.is_effective(now) and is_dormant:
            self._dormant.remove(registration_id)
            return Desired(add=self._all_of(registration))
        if not registration.is_effective(now) and not is_dormant:
            self._dormant.add(registration_id)
            return Desired(remove=self._all_of(registration))
        return NOTHING

    def watch_all(self, now: float) -> None:
        """The time went back: every boundary is looked for anew. A `refresh` of each registration comes after."""
        self._schedule.watch_all(self.allowlist, now)

    def due(self, now: float) -> list[str]:
        """Ids of the registrations whose windows opened or closed since the last call; to be refreshed."""
        return self._schedule.due(now)

    def due_in_s(self, now: float) -> float:
        """How long after `now` that is next so; inf = never."""
        return self._schedule.due_in_s(now)

    def next_change(self) -> float | None:
        """When a window next opens or closes, in Unix seconds; None if none does."""
        return self._schedule.next_change()

    def bind(self, binding: Binding) -> tuple[BoundRegistration, ...]:
        """A subscriber has a place: what that adds."""
        return self._effective(self.allowlist.bound_registrations_at(binding))

    def unbind(self, binding: Binding) -> tuple[BoundRegistration, ...]:
        """The subscriber has it no more: what that removes."""
        return self._effective(self.allowlist.bound_registrations_at(binding))

    def _all_of(self, registration: Registration) -> tuple[Wanted, ...]:
        if registration.subscriber is None:
            return (registration,)
        return (registration, *self.allowlist.bound_registrations_of(registration))

    def _effective(self, bound: tuple[BoundRegistration, ...]) -> tuple[BoundRegistration, ...]:
        dormant = self._dormant
        return tuple([each for each in bound if each.registration.id not in dormant]) if dormant else bound
