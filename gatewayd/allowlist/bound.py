"""Bindings by address and by subscriber, and the registrations of a subscriber: what binds the two.

A subscriber has few of each, nearly always one, so one is held bare and several in a tuple, as in `radix`.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Generic, TypeVar, cast

import msgspec

from gatewayd.allowlist.radix import Radix
from gatewayd.model import Binding, BoundRegistration, Prefix, Registration

Ports = tuple[int, int] | None
"""First and last port of a port block; None = the whole address."""

_Value = TypeVar("_Value")


class Bound:
    """What one subscriber has of both: registrations, of any status, and places. Either may be there alone.

    A *place* is a subscriber's prefix and ports; there is one binding at it, which is replaced where it is
    held: a session's word confirms it every few minutes, and the radix need not hear of that.
    """

    __slots__ = ("_places", "_radix", "_registrations", "_size", "subscribers")

    def __init__(self) -> None:
        self._registrations: _BySubscriber[Registration] = _BySubscriber()
        self._places: _BySubscriber[_Place] = _BySubscriber()
        self._radix: Radix[_Place] = Radix()
        self._size = 0
        self.subscribers: Container[bytes] = self._registrations.held.keys()
        """Live: digests that a registration names."""

    def __len__(self) -> int:
        """Bindings."""
        return self._size

    def __iter__(self) -> Iterator[Binding]:
        """All bindings, those of a subscriber together; not to be mixed with changes."""
        for subscriber in self._places.held:
            yield from self.bindings_of(subscriber)

    def enlist(self, registration: Registration) -> None:
        """Its subscriber has it; nothing for one that names none. The caller does not enlist it twice."""
        if registration.subscriber is not None:
            self._registrations.add(registration.subscriber, registration)

    def strike(self, registration: Registration) -> None:
        """The opposite, of the same object; KeyError if it is not enlisted."""
        if registration.subscriber is not None:
            self._registrations.remove(registration.subscriber, registration)

    def put(self, binding: Binding) -> bool:
        """The binding of its place. True if nothing was bound there before."""
        place = self._place(binding.subscriber, binding.prefix, binding.ports)
        if place is not None:
            place.binding = binding
            return False
        place = _Place(binding)
        self._places.add(binding.subscriber, place)
        self._radix.insert(binding.prefix, place)
        self._size += 1
        return True

    def take(self, subscriber: bytes, prefix: Prefix, ports: Ports) -> bool:
        """Nothing is bound at the place any more. False if nothing was."""
        place = self._place(subscriber, prefix, ports)
        if place is None:
            return False
        self._places.remove(subscriber, place)
        self._radix.remove(prefix, place)
        self._size -= 1
        return True

    def bindings_at(self, address: bytes) -> tuple[Binding, ...]:
        """Those whose prefix covers the address, longest prefix first, at one prefix in order of arrival."""
        places = self._radix.covering(address)
        return tuple([place.binding for place in places]) if places else ()

    def bindings_of(self, subscriber: bytes) -> tuple[Binding, ...]:
        return tuple([place.binding for place in self._places.of(subscriber)])

    def registrations_of(self, subscriber: bytes) -> tuple[Registration, ...]:
        return self._registrations.of(subscriber)

    def bound_registrations_at(
        self, subscriber: bytes, prefix: Prefix, ports: Ports
    ) -> tuple[BoundRegistration, ...]:
        """What a binding there gives to the subscriber's registrations, bound or not."""
        return tuple([BoundRegistration(each, prefix, ports) for each in self._registrations.of(subscriber)])

    def bound_registrations_of(self, registration: Registration) -> tuple[BoundRegistration, ...]:
        """What the bindings of its subscriber give to it, enlisted or not."""
        subscriber = registration.subscriber
        if subscriber is None:
            return ()
        return tuple(
            [BoundRegistration(registration, each.prefix, each.ports) for each in self.bindings_of(subscriber)]
        )

    def _place(self, subscriber: bytes, prefix: Prefix, ports: Ports) -> _Place | None:
        for place in self._places.of(subscriber):
            if place.binding.prefix == prefix and place.binding.ports == ports:
                return place
        return None


class _Place(msgspec.Struct, gc=False, eq=False):
    """Stays the same object while its binding is replaced by later words on the same place."""

    binding: Binding


class _BySubscriber(Generic[_Value]):
    """Digest → values, told apart by identity, in order of arrival. `held`: one value bare, several in a tuple."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: dict[bytes, _Value | tuple[_Value, ...]] = {}

    def of(self, subscriber: bytes) -> tuple[_Value, ...]:
        held = self.held.get(subscriber)
        if held is None:
            return ()
        return held if type(held) is tuple else (cast("_Value", held),)

    def add(self, subscriber: bytes, value: _Value) -> None:
        held = self.of(subscriber)
        self.held[subscriber] = (*held, value) if held else value

    def remove(self, subscriber: bytes, value: _Value) -> None:
        """KeyError, and nothing changed, if it is not there: a bug of the caller."""
        held = self.of(subscriber)
        rest = tuple([each for each in held if each is not value])
        if len(rest) == len(held):
            raise KeyError("no such value of this subscriber")
        if rest:
            self.held[subscriber] = rest if len(rest) > 1 else rest[0]
        else:
            del self.held[subscriber]
