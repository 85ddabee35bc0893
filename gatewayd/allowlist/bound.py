"""The bindings in force, by address and by subscriber, and what else is kept by subscriber.

A subscriber has few of each, nearly always one, so one is held bare and several in a tuple, as in `radix`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, cast

from gatewayd.allowlist.radix import Radix
from gatewayd.model import Binding, Prefix
from gatewayd.model.binding import Ports

_Value = TypeVar("_Value")


class BindingTable:
    """The one holder of bindings: the table of sessions fills it, the allowlist reads it.

    There is at most one binding of a subscriber at a prefix and ports. It is as it was when it was made: what
    confirms it later, every few minutes, is in the sessions.
    """

    __slots__ = ("_by_subscriber", "_radix", "covering", "size")

    def __init__(self) -> None:
        self._by_subscriber: BySubscriber[Binding] = BySubscriber()
        self._radix: Radix[Binding] = Radix()
        self.covering: Callable[[bytes], Sequence[Binding]] = self._radix.covering
        """Those whose prefix covers the address, longest prefix first, at one prefix in order of arrival."""
        self.size = 0
        """Bindings."""

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Binding]:
        """All bindings, those of a subscriber together; not to be mixed with changes."""
        for subscriber in self._by_subscriber.held:
            yield from self._by_subscriber.of(subscriber)

    def put(self, binding: Binding) -> None:
        """The caller does not put two of one subscriber at one prefix and ports."""
        self._by_subscriber.add(binding.subscriber, binding)
        self._radix.insert(binding.prefix, binding)
        self.size += 1

    def remove(self, binding: Binding) -> None:
        """The very object; KeyError, and nothing changed, if it is not there."""
        self._by_subscriber.remove(binding.subscriber, binding)
        self._radix.remove(binding.prefix, binding)
        self.size -= 1

    def get(self, subscriber: bytes, prefix: Prefix, ports: Ports) -> Binding | None:
        for binding in self._by_subscriber.of(subscriber):
            if binding.prefix == prefix and binding.ports == ports:
                return binding
        return None

    def of(self, subscriber: bytes) -> tuple[Binding, ...]:
        """Of this subscriber, in order of arrival."""
        return self._by_subscriber.of(subscriber)


class BySubscriber(Generic[_Value]):
    """Digest → values, compared by identity, in order of arrival. `held`: one value bare, several in a tuple."""

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
