"""What changed of the bindings since it was last asked: desired against told, never a log of events.

Only what was touched is looked at. Something that went and came back in between is no change.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from gatewayd.model.binding import Binding, BindingChange
from gatewayd.model.prefix import Prefix
from gatewayd.subscribers.ownership import Ownership
from gatewayd.subscribers.session import Hold, Ports, Session

_Place = tuple[Prefix, Ports]


class Changes:
    """`registered` is the caller's, and live: who changes it calls `touch_subscriber`."""

    __slots__ = ("_ownership", "_registered", "_told", "_touched")

    def __init__(self, registered: Container[bytes], ownership: Ownership) -> None:
        self._registered = registered
        self._ownership = ownership
        self._told: dict[bytes, dict[_Place, Binding]] = {}
        self._touched: dict[bytes, dict[_Place, None]] = {}

    def touch(self, hold: Hold, subscriber: bytes | None) -> None:
        """The hold came or went. Costs nothing for a subscriber whom no registration knows."""
        if subscriber is not None and (subscriber in self._registered or subscriber in self._told):
            self._touched.setdefault(subscriber, {})[hold.prefix, hold.ports] = None

    def touch_subscriber(self, subscriber: bytes, sessions: Iterable[Session]) -> None:
        """A registration of this subscriber came or went; `sessions` are those it has."""
        touched = self._touched.setdefault(subscriber, {})
        touched.update(dict.fromkeys(self._told.get(subscriber, ())))
        for session in sessions:
            touched.update(((hold.prefix, hold.ports), None) for hold in session.holds)

    def take(self) -> list[BindingChange]:
        """All that was added, then all that was removed."""
        added: list[BindingChange] = []
        removed: list[BindingChange] = []
        for subscriber, places in self._touched.items():
            is_registered = subscriber in self._registered
            told = self._told.setdefault(subscriber, {})
            for place in places:
                hold = self._ownership.holder(subscriber, *place) if is_registered else None
                if hold is not None and place not in told:
                    told[place] = _binding(subscriber, hold, hold.named_s)
                    added.append(BindingChange("added", told[place]))
                elif hold is None and place in told:
                    removed.append(BindingChange("removed", told.pop(place)))
            if not told:
                del self._told[subscriber]
        self._touched.clear()
        return added + removed

    def bindings(self) -> Iterator[Binding]:
        """Those that were told and hold, as they are now confirmed."""
        for subscriber, places in self._told.items():
            for place, binding in places.items():
                hold = self._ownership.holder(subscriber, *place)
                if hold is not None:
                    yield _binding(subscriber, hold, binding.since_s)


def _binding(subscriber: bytes, hold: Hold, since_s: float) -> Binding:
    return Binding(
        subscriber=subscriber,
        prefix=hold.prefix,
        ports=hold.ports,
        since_s=since_s,
        confirmed_s=hold.named_s,
        nas=hold.session.nas.name,
        session=hold.session.id,
    )
