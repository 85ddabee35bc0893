"""An allowlist with changes over it that were not made: what a change would come to, asked as the allowlist is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from gatewayd.allowlist import Allowlist
from gatewayd.assertions.judge import Broken, World, judge
from gatewayd.model.assertion import Assertion
from gatewayd.model.policy import Policy
from gatewayd.model.prefix import Prefix, mask_address
from gatewayd.model.registration import Binding, Changes, Registration, Slices

SLICE = 1024
"""Registrations looked at between two yields: some 5 ms."""


class Ends:
    """The addresses at both ends of some flows, and the subscribers that have them at present."""

    def __init__(self, base: Allowlist, assertions: Iterable[Assertion]) -> None:
        self._addresses = {end for each in assertions for end in (each.source, each.destination)}
        bound = (binding for end in self._addresses for binding in base.bindings_at(end))
        self._subscribers = {binding.subscriber for binding in bound}
        self._masked: dict[tuple[int, int], frozenset[bytes]] = {}

    def meet(self, registration: Registration) -> bool:
        """Whether it can be about any of them: a look-up for each client prefix."""
        prefixes = registration.clients or registration.endpoints
        return registration.subscriber in self._subscribers or any(map(self._lies_in, prefixes))

    def _lies_in(self, prefix: Prefix) -> bool:
        width, length = len(prefix.packed), prefix.length
        masked = self._masked.get((width, length))
        if masked is None:
            own = (each for each in self._addresses if len(each) == width)
            masked = self._masked[width, length] = frozenset(mask_address(each, length) for each in own)
        return prefix.packed in masked


class Overlaid:
    """`base` without `touched` ids, and with what is in `came`. Bindings stay as they are."""

    def __init__(self, base: Allowlist, touched: Set[str], came: Allowlist) -> None:
        self._base = base
        self._touched = touched
        self._came = came

    def covering(self, address: bytes) -> Sequence[Registration]:
        return [*self._left(self._base.covering(address)), *self._came.covering(address)]

    def facing(self, address: bytes, other: bytes) -> Sequence[Registration]:
        return [*self._left(self._base.facing(address, other)), *self._came.facing(address, other)]

    def endpoints_at(self, address: bytes) -> Sequence[Registration]:
        return [*self._left(self._base.endpoints_at(address)), *self._came.endpoints_at(address)]

    def bindings_at(self, address: bytes) -> Sequence[Binding]:
        return self._base.bindings_at(address)

    def bindings_facing(self, address: bytes, port: int) -> Sequence[Binding]:
        return self._base.bindings_facing(address, port)

    def registrations_of(self, subscriber: bytes) -> Sequence[Registration]:
        left = self._left(self._base.registrations_of(subscriber))
        return [*left, *self._came.registrations_of(subscriber)]

    def _left(self, found: Sequence[Registration]) -> list[Registration]:
        return [each for each in found if each.id not in self._touched]


def failing_of(
    registrations: Iterable[Registration], assertions: Sequence[Assertion], policy: Policy, now: float
) -> tuple[Broken, ...]:
    """Assertions that do not hold by these registrations alone."""
    ends, allowlist = Ends(Allowlist(), assertions), Allowlist()
    for registration in registrations if assertions else ():
        if ends.meet(registration):
            allowlist.upsert(registration)
    world = World(allowlist, policy, now)
    outcomes = ((each, judge(each, policy, world.state_of)) for each in assertions)
    return tuple(Broken(each, outcome.reason) for each, outcome in outcomes if not outcome.holds)


def overlay_in_slices(base: Allowlist, changes: Sequence[Changes], ends: Ends | None = None) -> Slices[Overlaid]:
    """`changes`: one after the other. With `ends`, of what came only that which can be about them."""
    touched: set[str] = set()
    came: dict[str, Registration] = {}
    for each in changes:
        for done, id in enumerate(each.withdrawals, 1):
            touched.add(id)
            came.pop(id, None)
            if done % SLICE == 0:
                yield
        for done, registration in enumerate(each.upserts, 1):
            touched.add(registration.id)
            if ends is None or ends.meet(registration):
                came[registration.id] = registration
            else:
                came.pop(registration.id, None)
            if done % SLICE == 0:
                yield
    found = Allowlist()
    for done, registration in enumerate(came.values(), 1):
        found.upsert(registration)
        if done % SLICE == 0:
            yield
    return Overlaid(base, touched, found)
