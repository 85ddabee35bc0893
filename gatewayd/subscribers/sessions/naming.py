"""The effect of a session's records on addresses: named, kept, replaced, taken from another subscriber.

Records are taken in any order. A session has the addresses that its records give in the order of their times. The
subscriber of an address follows from `named_s` of the holds and, for a while after a hold is gone, from the last
record that named it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from heapq import nsmallest
from typing import Final

from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Ports
from gatewayd.subscribers.journal_rows import HoldRow, address_key
from gatewayd.subscribers.sessions.changes import PendingChanges
from gatewayd.subscribers.sessions.session import Hold, Session, SessionCounts
from gatewayd.subscribers.sessions.tombstones import Tombstone, Tombstones

MAX_ADDRESSES: Final = 64
"""Of one session; the one that is unconfirmed for longest goes first."""
MAX_ADDRESSES_OF_SUBSCRIBER: Final = 128
"""Of all sessions of one subscriber; as above. What one address costs grows with their number."""


class Naming:
    """`last_named`: the last record that named an address which no session has now. `takes_ties`: of a Start that
    opens its session. Beyond `max_addresses` of all sessions only `registered` subscribers get more."""

    def __init__(
        self,
        changes: PendingChanges,
        counts: SessionCounts,
        last_named: Tombstones[Prefix],
        registered: Container[bytes],
        max_addresses: int,
    ) -> None:
        self._registered = registered
        self._most_addresses = max_addresses
        self._changes = changes
        self._ownership = changes.ownership
        self._counts = counts
        self._last_named = last_named

    def name(self, session: Session, event: AccountingEvent, at_s: float, now: float, takes_ties: bool) -> None:
        """The session's record names its addresses: its own and other subscribers' holds are put right."""
        if not event.addresses:
            return
        if at_s < session.snapshot_s:
            self.evict(session, event.addresses, event.ports, at_s, now)
            return
        if event.is_snapshot:
            session.snapshot_s = at_s
        has_ipv4 = False
        for prefix in event.addresses:
            ports = ports_of(event, prefix)
            is_single = prefix.family == 4 and ports is None
            if is_single and at_s < session.ipv4_s:
                self.evict(session, (prefix,), ports, at_s, now)
                continue
            if is_single:
                has_ipv4 = True
                session.ipv4_s = at_s
            self._claim(session, prefix, ports, at_s, now, takes_ties)
        for hold in session.holds:
            if hold.named_s < at_s and (event.is_snapshot or (has_ipv4 and _is_single(hold))):
                self.release(hold, now)
        while len(session.holds) > MAX_ADDRESSES:
            self._counts.over_limit += 1
            self.release(min(session.holds, key=lambda hold: hold.named_s), now)

    def keep_bound(self, sessions: Iterable[Session], now: float) -> None:
        """Of one subscriber: the addresses that are unconfirmed for longest go."""
        holds = [hold for session in sessions for hold in session.holds]
        excess = len(holds) - MAX_ADDRESSES_OF_SUBSCRIBER
        if excess > 0:
            self._counts.over_limit += excess
            for hold in nsmallest(excess, holds, key=lambda hold: hold.named_s):
                self.release(hold, now)

    def last_named(self, prefix: Prefix) -> Tombstone | None:
        """The last record of an address that no session has. Of registered subscribers also where the bound of all
        has cost it."""
        stone = self._last_named.get(prefix)
        if stone is None and self._last_named.lost:
            return self._changes.stone(address_key(prefix))
        return stone

    def keep_latest(self, sessions: Iterable[Session], now: float) -> None:
        """Of one subscriber's sessions, those that began last keep their addresses, of each family."""
        holds = [hold for session in sessions for hold in session.holds]
        for family in (4, 6):
            found = [hold for hold in holds if hold.prefix.family == family]
            latest_s = max((hold.session.since_s for hold in found), default=0.0)
            for hold in found:
                if hold.session.since_s < latest_s:
                    self.release(hold, now)

    def evict(
        self,
        session: Session,
        addresses: tuple[Prefix, ...],
        ports: Ports,
        at_s: float,
        now: float,
        takes_ties: bool = False,
    ) -> None:
        """What the session named then and does not hold: it was no other session's, whatever became of it since."""
        for prefix in addresses:
            own_ports = ports if prefix.family == 4 else None
            self._take(session, prefix, own_ports, at_s, now, takes_ties)
            self._remember(prefix, own_ports, at_s, now, session.subscriber)

    def identify(self, session: Session, subscriber: bytes) -> None:
        """A later record says whose session it is."""
        session.subscriber = subscriber
        for hold in session.holds:
            self._changes.touch_hold(hold)

    def restore(self, session: Session, subscriber: bytes, row: HoldRow, now: float) -> None:
        """A hold from before a restart; the rows come in the order of `named_s`. What overlaps is taken as ever."""
        for rival in self._ownership.rivals(session, row.prefix, row.ports):
            self.release(rival, now)
        hold = Hold(row.prefix, row.ports, session, row.named_s)
        self._ownership.add(hold)
        self._changes.restore_hold(hold, subscriber, row.since_s)

    def release(self, hold: Hold, now: float) -> None:
        """Its session has this no more."""
        self._ownership.remove(hold)
        self._changes.touch_hold(hold)
        self._remember(hold.prefix, hold.ports, hold.named_s, now, hold.session.subscriber)

    def _remember(self, prefix: Prefix, ports: Ports, at_s: float, now: float, subscriber: bytes | None) -> None:
        """The last record that named a whole address; port blocks are too many, and given out anew too soon."""
        if ports is None:
            self._last_named.bury(prefix, at_s, now, subscriber)
            self._changes.bury_address(prefix, at_s, now, subscriber)

    def _claim(
        self, session: Session, prefix: Prefix, ports: Ports, at_s: float, now: float, takes_ties: bool
    ) -> None:
        own = session.hold_of(prefix, ports)
        if own is not None:
            own.named_s = max(own.named_s, at_s)
        elif not self._take(session, prefix, ports, at_s, now, takes_ties):
            self._counts.superseded += 1
            self._remember(prefix, ports, at_s, now, session.subscriber)
        elif self._ownership.count >= self._most_addresses and not self._is_registered(session):
            self._counts.addresses_refused += 1
            self._remember(prefix, ports, at_s, now, session.subscriber)
        else:
            hold = Hold(prefix, ports, session, at_s)
            self._ownership.add(hold)
            self._changes.touch_hold(hold)

    def _is_registered(self, session: Session) -> bool:
        return session.subscriber is not None and session.subscriber in self._registered

    def _take(
        self, session: Session, prefix: Prefix, ports: Ports, at_s: float, now: float, takes_ties: bool
    ) -> bool:
        """Evict from an address each subscriber that was given it earlier; False if another was given it later."""
        stone = self.last_named(prefix) if ports is None else None
        is_latest = stone is None or stone.last_but_of(session.subscriber) <= at_s
        for rival in self._ownership.rivals(session, prefix, ports):
            if rival.named_s > at_s or (rival.named_s == at_s and not takes_ties):
                is_latest = False
                continue
            self._counts.evictions += 1
            self.release(rival, now)
            self._counts.missed_stops += not rival.session.holds
        return is_latest

    def is_covered(self, session: Session) -> bool:
        """Whether other sessions of its subscriber, that do not linger, have all its addresses."""
        return all(
            any(
                other.ports == hold.ports
                and other.session.subscriber == session.subscriber
                and not other.session.is_lingering
                for other in self._ownership.holds_at(hold.prefix)
            )
            for hold in session.holds
        )


def ports_of(event: AccountingEvent, prefix: Prefix) -> Ports:
    """Only IPv4 addresses are shared by ports."""
    return event.ports if prefix.family == 4 else None


def are_two(one: bytes | None, other: bytes | None) -> bool:
    """Whether two records are known to be of two subscribers."""
    return one is not None and other is not None and one != other


def is_of(session: Session, event: AccountingEvent) -> bool:
    """Whether a record of a session id is of this session, which a namesake reported: of the same subscriber, or at
    the same address where one of the two names no subscriber."""
    if are_two(session.subscriber, event.subscriber):
        return False
    if shares(session, {(prefix, ports_of(event, prefix)) for prefix in event.addresses}):
        return True
    if session.subscriber is None or event.subscriber is None:
        return False
    has_other = event.ports is None and any(prefix.family == 4 for prefix in event.addresses)
    return not (has_other and any(map(_is_single, session.holds)))


def shares(session: Session, places: set[tuple[Prefix, Ports]]) -> bool:
    """Whether the session has one of them."""
    return any((hold.prefix, hold.ports) in places for hold in session.holds)


def _is_single(hold: Hold) -> bool:
    """Of these, without a snapshot, a session has one (RFC 2865 §5.44: Framed-IP-Address 0-1)."""
    return hold.ports is None and hold.prefix.family == 4
