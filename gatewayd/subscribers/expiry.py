"""When sessions run out that nobody confirmed (RFC 2866 §4.1: a Stop may be lost for good).

A wheel of buckets, one a tick: a million sessions cost a pointer each, and what is due comes in helpings. Late by
up to a tick, never early.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import ceil, inf

from gatewayd.subscribers.session import Bucket, Session

TICK_S = 10


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
