"""Who has an address: the last word on it, by event time.

Holds of one address that overlap (all do, but for disjoint port blocks of CGNAT) belong to one subscriber. A
session of another subscriber that names it later takes it, and what was held before is *evicted* for good: it does
not come back when the newcomer ends, only when its own session names the address again. At the same second a Start
takes what an Interim keeps (RFC 2869 §5.3: Event-Timestamp counts seconds).

Prefixes are compared as they are: a /128 inside another subscriber's /64 is not seen as the same address.
"""

from __future__ import annotations

from gatewayd.model.prefix import Prefix
from gatewayd.subscribers.session import Hold, Ports, Session


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
