"""What changed of the bindings since it was last asked: desired against told, never a log of events.

Only what was touched is looked at. Something that went and came back in between is no change.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from gatewayd.model.binding import Binding, BindingChange
from gatewayd.model.prefix import Prefix
from gatewayd.subscribers.sessions.session import Hold, Ports, Session


class Ownership:
    """Every address that a live session holds. An address with one hold, as nearly all have, costs no list."""

    __slots__ = ("_holds",)

    def __init__(self) -> None:
        self._holds: dict[Prefix, Hold | tuple[Hold, ...]] = {}

    def __len__(self) -> int:
        """Addresses held."""
        return len(self._holds)

    def holds_at(self, prefix: Prefix) -> tuple[Hold, ...]:
        held = self._holds.get(prefix)
        if held is None:
            return ()
        return (held,) if isinstance(held, Hold) else held

    def holder(self, subscriber: bytes, prefix: Prefix, ports: Ports) -> Hold | None:
        """The hold, of the latest word, by which the subscriber has exactly this."""
        own = [
            hold for hold in self.holds_at(prefix) if hold.ports == ports and hold.session.subscriber == subscriber
        ]
        return max(own, key=lambda hold: hold.named_s, default=None)

    def rivals(self, session: Session, prefix: Prefix, ports: Ports) -> list[Hold]:
        """Holds of other subscribers that overlap. A subscriber that is not known is another than any."""
        return [
            hold
            for hold in self.holds_at(prefix)
            if hold.session is not session
            and (hold.session.subscriber is None or hold.session.subscriber != session.subscriber)
            and hold.overlaps(ports)
        ]

    def add(self, hold: Hold) -> None:
        held = self._holds.get(hold.prefix)
        if held is None:
            self._holds[hold.prefix] = hold
        else:
            self._holds[hold.prefix] = (held, hold) if isinstance(held, Hold) else (*held, hold)
        session = hold.session
        session.held = (*session.holds, hold) if session.holds else hold

    def remove(self, hold: Hold) -> None:
        """From its address and its session; raises KeyError or ValueError if it is in neither."""
        held = self._holds[hold.prefix]
        others = () if isinstance(held, Hold) else tuple(each for each in held if each is not hold)
        if not others:
            del self._holds[hold.prefix]
        else:
            self._holds[hold.prefix] = others[0] if len(others) == 1 else others
        kept = tuple(each for each in hold.session.holds if each is not hold)
        hold.session.held = kept[0] if len(kept) == 1 else kept


_Place = tuple[Prefix, Ports]


class Changes:
    """`registered` is the caller's, and live: who changes it calls `touch_subscriber`.

    `restored`: live sessions that no word confirmed since a restart; in a set, as a field of each of a million
    sessions costs 16 bytes, and only those of registered subscribers are ever restored.
    """

    __slots__ = ("_ownership", "_registered", "_restored_since", "_told", "_touched", "restored")

    def __init__(self, registered: Container[bytes], ownership: Ownership) -> None:
        self._registered = registered
        self._ownership = ownership
        self._told: dict[bytes, dict[_Place, Binding]] = {}
        self._touched: dict[bytes, dict[_Place, None]] = {}
        self._restored_since: dict[bytes, dict[_Place, float]] = {}
        self.restored: set[Session] = set()

    def touch(self, hold: Hold, subscriber: bytes | None) -> None:
        """The hold came or went. Costs nothing for a subscriber whom no registration knows."""
        if subscriber is not None and (subscriber in self._registered or subscriber in self._told):
            self._touched.setdefault(subscriber, {})[hold.prefix, hold.ports] = None

    def restore(self, hold: Hold, subscriber: bytes, since_s: float) -> None:
        """As `touch`, of a hold from before a restart, by which there was a binding since `since_s`."""
        self._restored_since.setdefault(subscriber, {})[hold.prefix, hold.ports] = since_s
        self.touch(hold, subscriber)

    def forget_restored(self) -> None:
        """Bindings that are made from now on are new, whoever had them before the restart."""
        self._restored_since.clear()

    def since_s(self, subscriber: bytes, hold: Hold) -> float:
        """Since when there is the binding by this hold; if it was not told yet, since when there will be."""
        binding = self._told.get(subscriber, {}).get((hold.prefix, hold.ports))
        if binding is not None:
            return binding.since_s
        return self._restored_since.get(subscriber, {}).get((hold.prefix, hold.ports), hold.named_s)

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
            since = self._restored_since.get(subscriber, {}) if is_registered else {}
            for place in places:
                hold = self._ownership.holder(subscriber, *place) if is_registered else None
                if hold is not None and place not in told:
                    told[place] = self._binding(subscriber, hold, since.pop(place, hold.named_s))
                    added.append(BindingChange("added", told[place]))
                elif hold is None and place in told:
                    removed.append(BindingChange("removed", told.pop(place)))
                if hold is None:
                    since.pop(place, None)
            if not told:
                del self._told[subscriber]
        self._touched.clear()
        return added + removed

    def bindings(self) -> Iterator[Binding]:
        """Those that were told and hold, as they are now confirmed."""
        for subscriber, places in self._told.items():
            for place in places:
                binding = self.binding_at(subscriber, *place)
                if binding is not None:
                    yield binding

    def binding_at(self, subscriber: bytes, prefix: Prefix, ports: Ports) -> Binding | None:
        """One of `bindings`."""
        told = self._told.get(subscriber, {}).get((prefix, ports))
        hold = self._ownership.holder(subscriber, prefix, ports) if told is not None else None
        return self._binding(subscriber, hold, told.since_s) if told is not None and hold is not None else None

    def _binding(self, subscriber: bytes, hold: Hold, since_s: float) -> Binding:
        return Binding(
            subscriber=subscriber,
            prefix=hold.prefix,
            ports=hold.ports,
            since_s=since_s,
            confirmed_s=hold.named_s,
            nas=hold.session.nas.label,
            session=hold.session.id,
            is_restored=hold.session in self.restored,
        )
