"""What changed of the rows for the journal since it was last asked: desired against given, never a log of events.

Only what was touched is looked at, and what is not of a registered subscriber costs a look into a set or two.
Rows are made when they are asked for, so that several touches of one thing are one row, as it is then.

What a restart may know of ended sessions and released addresses is kept here a second time, for registered
subscribers alone: in the tables that `sessions` works with, all words are united, and a time in them may be of
somebody whom no registration knows.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from gatewayd.model.prefix import Prefix
from gatewayd.subscribers.journal_rows import (
    EndedRow,
    HoldRow,
    Key,
    NasRow,
    Row,
    SessionRow,
    Value,
    WordRow,
    ended_key,
    key_of,
    nas_key,
    prefix_of,
    session_key,
    word_key,
)
from gatewayd.subscribers.sessions.changes import Changes
from gatewayd.subscribers.sessions.session import TICK_S, Nas, Session
from gatewayd.subscribers.sessions.tombstones import Tombstone, Tombstones

_NOBODY = b""
"""Whose the row of a NAS is."""


class RowChanges:
    """`registered` and `nas` (by key) are the caller's, and live; who changes `registered` calls
    `touch_subscriber`. `keep_s`, `most`: of ends and last words."""

    __slots__ = ("_given", "_nas", "_of_subscriber", "_registered", "_stones", "_touched")

    def __init__(self, registered: Container[bytes], nas: Mapping[str, Nas], *, keep_s: float, most: int) -> None:
        self._registered = registered
        self._nas = nas
        self._touched: dict[Key, None] = {}
        self._given: dict[Key, bytes] = {}
        self._of_subscriber: dict[bytes, set[Key]] = {}
        self._stones: Tombstones[Key] = Tombstones(keep_s=keep_s, most=most, on_forgotten=self._touch_key)

    def touch(self, session: Session) -> None:
        """The session is about to change, or has changed."""
        subscriber = session.subscriber
        if subscriber is not None and (subscriber in self._registered or subscriber in self._of_subscriber):
            self._touched[session_key(session.nas.key, session.id)] = None

    def touch_nas(self, key: str) -> None:
        """It restarted, its clock is known to be off by more or less, or it is known no more."""
        self._touched[nas_key(key)] = None

    def touch_subscriber(self, subscriber: bytes, sessions: Iterable[Session]) -> None:
        """A registration of this subscriber came or went; `sessions` are those it has."""
        self._touched.update(dict.fromkeys(self._of_subscriber.get(subscriber, ())))
        for session in sessions:
            self.touch(session)

    def touch_unregistered(self) -> None:
        """What was given, or restored, of subscribers that no registration knows is to go."""
        for subscriber, keys in self._of_subscriber.items():
            if subscriber != _NOBODY and subscriber not in self._registered:
                self._touched.update(dict.fromkeys(keys))

    def touch_keys(self, keys: Iterable[Key]) -> None:
        self._touched.update(dict.fromkeys(keys))

    def touch_all(self) -> None:
        """Everything that was given is to be given again."""
        self._touched.update(dict.fromkeys(self._given))

    def bury_session(self, nas: str, session: str, at_s: float, now: float, *subscribers: bytes | None) -> None:
        """A Stop of the session; its own subscriber and the one that the Stop names."""
        for subscriber in subscribers:
            if subscriber is not None and subscriber in self._registered:
                key = ended_key(nas, session)
                self._stones.bury(key, at_s, now, subscriber)
                self._touched[key] = None

    def bury_word(self, prefix: Prefix, at_s: float, now: float, subscriber: bytes | None) -> None:
        """The last word on an address."""
        if subscriber is not None and subscriber in self._registered:
            key = word_key(prefix)
            self._stones.bury(key, at_s, now, subscriber)
            self._touched[key] = None

    def next_due(self) -> float | None:
        """When `prune` is next due."""
        return self._stones.next_due()

    def prune(self, now: float, most: int) -> None:
        self._stones.prune(now, most)

    def restore(self, value: Value, stone: Tombstone | None = None) -> None:
        """The row is on disk; it is not given before it is touched. `stone`: of an EndedRow or WordRow."""
        key = key_of(value)
        self._give(key, _NOBODY if isinstance(value, NasRow) else value.subscriber)
        if stone is not None:
            self._stones.put_back(key, stone)

    def take(self, changes: Changes) -> tuple[Row, ...]:
        """Each at most once, in no order; two calls give the same row in the order of the calls."""
        if not self._touched:
            return ()
        rows: list[Row] = []
        for key in self._touched:
            value = self._value(key, changes)
            if value is not None:
                self._give(key, _NOBODY if isinstance(value, NasRow) else value.subscriber)
                rows.append(Row(key, value))
            elif key in self._given:
                self._ungive(key)
                rows.append(Row(key, None))
        self._touched.clear()
        return tuple(rows)

    def _touch_key(self, key: Key) -> None:
        self._touched[key] = None

    def _give(self, key: Key, subscriber: bytes) -> None:
        before = self._given.get(key)
        if before != subscriber:
            if before is not None:
                self._ungive(key)
            self._given[key] = subscriber
            self._of_subscriber.setdefault(subscriber, set()).add(key)

    def _ungive(self, key: Key) -> None:
        subscriber = self._given.pop(key)
        keys = self._of_subscriber[subscriber]
        keys.remove(key)
        if not keys:
            del self._of_subscriber[subscriber]

    def _value(self, key: Key, changes: Changes) -> Value | None:
        """As it is now; None for what is not, or not to be told."""
        kind, name, session = key
        if kind == "session":
            nas = self._nas.get(name)
            live = nas.sessions.get(session) if nas is not None else None
            return self._session_row(live, changes) if live is not None else None
        if kind == "nas":
            nas = self._nas.get(name)
            if nas is None or not (nas.has_restarted or nas.clock.whole_s):
                return None
            return NasRow(name, nas.restarted_s, nas.clock.whole_s)
        stone = self._stones.get(key)
        if stone is None or stone.subscriber is None:
            return None
        if stone.subscriber not in self._registered:
            self._stones.drop(key)
            return None
        if kind == "ended":
            return EndedRow(name, session, stone.subscriber, stone.at_s, stone.buried_s)
        return WordRow(prefix_of(key), stone.subscriber, stone.at_s, stone.buried_s, stone.others_s)

    def _session_row(self, session: Session, changes: Changes) -> SessionRow | None:
        subscriber = session.subscriber
        if subscriber is None or subscriber not in self._registered:
            return None
        return SessionRow(
            nas=session.nas.key,
            session=session.id,
            subscriber=subscriber,
            since_s=session.since_s,
            at_s=session.at_s,
            due_s=None if session.bucket is None else float(session.bucket.number * TICK_S),
            interim_s=session.interim_s,
            is_lingering=session.is_lingering,
            snapshot_s=session.snapshot_s,
            ipv4_s=session.ipv4_s,
            holds=tuple(
                HoldRow(hold.prefix, hold.ports, hold.named_s, changes.since_s(subscriber, hold))
                for hold in session.holds
            ),
        )
