"""What subscribers have: one value of most, several of few."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

_Value = TypeVar("_Value")


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
