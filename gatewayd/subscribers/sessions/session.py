"""A live session: its subscriber, its addresses and its time.

There may be a million. Sessions and holds are mutable, and changed by `sessions`, `naming` and Expiry alone.
Compared by identity. None is seen by the garbage collector, so the code that ends a session takes it out of its
NAS, its addresses and its bucket.

Measured with 1,000,000 sessions of 20 NAS (Python 3.11, ids of 24 characters, one in 32 registered): 580 bytes a
session with one IPv4 address, indexes included; 9 µs an Interim, 11 µs a Start, making the event included. A dict
that grows at that size takes up to 76 ms, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from math import ceil, inf
from typing import Annotated, Final, Literal, Protocol

import msgspec

from gatewayd.model.metric import counter
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Ports
from gatewayd.subscribers.sessions.nas import Nas, SameName

TICK_S: Final = 10
"""Sessions run out together that would within so many seconds."""

JITTER: Final = 0.1
"""A session lives up to this part longer than its time, so that those of one second do not run out together."""


class Randomness(Protocol):
    """The part of random.Random that lifetimes are spread with."""

    def uniform(self, a: float, b: float, /) -> float: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a NAS is believed, in seconds, and of how much.

    `interim_s`: the interval that it is configured with; None = what its packets say (RFC 2869 §5.16), if they do.
    A session runs out after `missed_interims` of it, and not before `min_session_timeout_s`. One of which no
    interval is known, as of a NAS that sends no interim updates, runs out after `session_timeout_s`; inf = never.
    After Accounting-On or -Off sessions stay for `restart_grace_s` unless confirmed: a proxy may have sent it; 0 =
    they end at once.

    `single_session`: of a subscriber's sessions only the one that began last, as far as it was reported, has
    addresses of a family; else all of them together, as of a phone with bearers.
    """

    interim_s: int | None = None
    missed_interims: float = 3.0
    min_session_timeout_s: float = 900.0
    session_timeout_s: float = 86400.0
    restart_grace_s: float = 120.0
    single_session: bool = False

    def lifetime_s(self, interim_s: int | None) -> float:
        """Of a session, after a record of it that had this interval."""
        interval_s = interim_s or self.interim_s
        return (
            self.session_timeout_s
            if interval_s is None
            else max(self.missed_interims * interval_s, self.min_session_timeout_s)
        )


_EVENTS: Final = counter(
    "session_events",
    "Records that came, sessions that ended, and records that were not followed.",
    "missed_stops, refused, nas_refused, over_limit or replayed rises",
    label="kind",
)


@dataclass(slots=True)
class SessionCounts:
    """Since the start: records that came; ends and their reasons; records that were not followed; the cost of the
    bounds."""

    starts: Annotated[int, _EVENTS.of(meaning="Starts of sessions, by Acct-Status-Type.")] = 0
    interims: Annotated[int, _EVENTS.of(meaning="Interim updates; live sessions of lists and of the API.")] = 0
    stops: Annotated[int, _EVENTS.of(meaning="Stops, and ends that the API reported.")] = 0
    restarts: Annotated[int, _EVENTS.of(meaning="Accounting-On and Accounting-Off.")] = 0

    evictions: Annotated[int, _EVENTS.of(meaning="Addresses that went to another subscriber.")] = 0
    missed_stops: Annotated[int, _EVENTS.of(meaning="Sessions whose addresses or id another session got.")] = 0
    expired: Annotated[int, _EVENTS.of(meaning="Sessions that had no record for too long.")] = 0
    ended_by_restart: Annotated[int, _EVENTS.of(meaning="Sessions that ended as their NAS restarted.")] = 0

    repeated: Annotated[int, _EVENTS.of(meaning="Records not newer than the last of their session.")] = 0
    interims_first: Annotated[int, _EVENTS.of(meaning="Interim updates of unknown sessions, taken as Starts.")] = 0
    unknown_stops: Annotated[int, _EVENTS.of(meaning="Stops of unknown sessions.")] = 0
    late_stops: Annotated[int, _EVENTS.of(meaning="Stops of an earlier session of the same id.")] = 0
    bearer_stops: Annotated[int, _EVENTS.of(meaning="Stops of one bearer of several (3GPP).")] = 0
    tombstoned: Annotated[int, _EVENTS.of(meaning="Records of sessions that had ended.")] = 0
    before_restart: Annotated[int, _EVENTS.of(meaning="Records from before the last restart of their NAS.")] = 0
    superseded: Annotated[int, _EVENTS.of(meaning="Addresses that a newer record had given to another.")] = 0
    stale: Annotated[int, _EVENTS.of(meaning="Records of sessions that had run out when they came.")] = 0

    taken_again: Annotated[int, _EVENTS.of(meaning="Records taken late: the clock of their NAS was set back.")] = 0
    same_name: Annotated[int, _EVENTS.of(meaning="Sessions whose id another NAS of the same name has.")] = 0

    replayed: Annotated[int, _EVENTS.of(meaning="Records that came again, and would have changed something.")] = 0

    refused: Annotated[int, _EVENTS.of(meaning="Unregistered sessions beyond `subscribers.max_sessions`.")] = 0
    over_limit: Annotated[int, _EVENTS.of(meaning="Sessions or addresses beyond the bound of a subscriber.")] = 0
    addresses_refused: Annotated[int, _EVENTS.of(
        meaning="Addresses of unregistered sessions beyond the bound of all.")] = 0  # fmt: skip
    nas_refused: Annotated[int, _EVENTS.of(meaning="Records of a NAS beyond the bound.")] = 0
    nas_evicted: Annotated[int, _EVENTS.of(
        meaning="NAS without registered subscribers that made room for one with such.")] = 0  # fmt: skip


PassedOver = Literal["nas_refused", "tombstoned", "before_restart", "stale", "refused", "replayed"]
"""Why an event opens and confirms no session; SessionCounts has a count of each."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What came of an event. `passed_over`: each reason once; of records that were taken again with it too.
    `ended`: sessions that it ended. `same_name`: another NAS of this name has a session of this id, for another
    subscriber.
    """

    passed_over: tuple[PassedOver, ...] = ()
    ended: int = 0
    same_name: SameName | None = None


FOLLOWED: Final = Outcome()


class Bucket(msgspec.Struct, gc=False, eq=False):
    """Sessions that run out in one tick. `gone`: how many of the list have left it since."""

    number: int
    sessions: list[Session] = []
    gone: int = 0


class Hold(msgspec.Struct, gc=False, eq=False):
    """One address of one session. `named_s`: event time of the session's last record that named it."""

    prefix: Prefix
    ports: Ports
    session: Session
    named_s: float

    def overlaps(self, ports: Ports) -> bool:
        mine = self.ports
        return mine is None or ports is None or (mine[0] <= ports[1] and ports[0] <= mine[1])


class Session(msgspec.Struct, gc=False, eq=False):
    """`since_s`, `at_s`: event times of the first and the last record. `snapshot_s`: of the last that named all
    addresses. `ipv4_s`: of the last that named a whole IPv4 address.

    `bucket`: None for a session that never runs out, and for one that has ended. `is_lingering`: one of its
    bearers stopped, and no other session is known yet that has its addresses.
    """

    id: str
    nas: Nas
    subscriber: bytes | None
    since_s: float
    at_s: float
    snapshot_s: float = -inf
    ipv4_s: float = -inf
    interim_s: int | None = None
    held: Hold | tuple[Hold, ...] = ()
    bucket: Bucket | None = None
    is_lingering: bool = False

    @property
    def holds(self) -> tuple[Hold, ...]:
        """Its addresses; the one that most have is kept without a tuple around it, 64 bytes."""
        return (self.held,) if isinstance(self.held, Hold) else self.held

    def hold_of(self, prefix: Prefix, ports: Ports) -> Hold | None:
        for hold in self.holds:
            if hold.prefix == prefix and hold.ports == ports:
                return hold
        return None


class Ownership:
    """Every address that a live session holds. An address with one hold, as nearly all have, costs no list.
    `count`: of holds."""

    __slots__ = ("_holds", "count")

    def __init__(self) -> None:
        self._holds: dict[Prefix, Hold | tuple[Hold, ...]] = {}
        self.count = 0

    def __len__(self) -> int:
        """Addresses held."""
        return len(self._holds)

    def holds_at(self, prefix: Prefix) -> tuple[Hold, ...]:
        held = self._holds.get(prefix)
        if held is None:
            return ()
        return (held,) if isinstance(held, Hold) else held

    def holder(self, subscriber: bytes, prefix: Prefix, ports: Ports) -> Hold | None:
        """The hold, of the latest record, by which the subscriber has exactly this."""
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
        self.count += 1
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
        self.count -= 1
        kept = tuple(each for each in hold.session.holds if each is not hold)
        hold.session.held = kept[0] if len(kept) == 1 else kept


class Expiry:
    """A session is in one bucket, or in none. One that left its bucket stays in the list until the bucket comes
    up or half of it has left, so that the memory is bounded by the sessions that live."""

    __slots__ = ("_buckets", "_order")

    def __init__(self) -> None:
        self._buckets: dict[int, Bucket] = {}
        self._order: list[int] = []

    def extend(self, session: Session, due_s: float) -> None:
        """It lives until `due_s` at least; inf = for ever."""
        if due_s == inf:
            self.forget(session)
        elif session.bucket is None or session.bucket.number < ceil(due_s / TICK_S):
            self._put(session, due_s)

    def hasten(self, session: Session, due_s: float) -> None:
        """It lives until `due_s` at most."""
        if session.bucket is None or session.bucket.number > ceil(due_s / TICK_S):
            self._put(session, due_s)

    def forget(self, session: Session) -> None:
        """It runs out no more: it ended, or lives for ever."""
        bucket = session.bucket
        if bucket is None:
            return
        session.bucket = None
        bucket.gone += 1
        if 2 * bucket.gone > len(bucket.sessions):
            bucket.sessions = [each for each in bucket.sessions if each.bucket is bucket]
            bucket.gone = 0

    def next_due(self) -> float | None:
        """When to ask for what is due; there may be nothing then."""
        while self._order and not self._buckets[self._order[0]].sessions:
            del self._buckets[heappop(self._order)]
        return self._order[0] * TICK_S if self._order else None

    def due(self, now: float, most: int) -> list[Session]:
        """At most `most` sessions that ran out; they are in no bucket then. `next_due` says if more are waiting."""
        sessions: list[Session] = []
        while self._order and self._order[0] * TICK_S <= now and most > 0:
            bucket = self._buckets[self._order[0]]
            while bucket.sessions and most > 0:
                most -= 1
                session = bucket.sessions.pop()
                if session.bucket is bucket:
                    session.bucket = None
                    sessions.append(session)
                else:
                    bucket.gone -= 1
            if not bucket.sessions:
                del self._buckets[heappop(self._order)]
        return sessions

    def _put(self, session: Session, due_s: float) -> None:
        self.forget(session)
        number = ceil(due_s / TICK_S)
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = Bucket(number)
            heappush(self._order, number)
        bucket.sessions.append(session)
        session.bucket = bucket
