"""What changed since it was last asked: bindings for the kernel, and rows for the journal. Never a log of events.

Desired against in force: only what was touched is looked at, several touches of one thing are one change, and what
went and came back in between is none. What is not of a registered subscriber costs a look into a set or two.

The bindings in force are in the BindingTable, which has no other writer. What a restart may know of ended
sessions and released addresses is kept here a second time, for registered subscribers alone: in the tables that
`sessions` works with, all records are united, and a time in them may be of a subscriber that no registration knows.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from gatewayd.allowlist import BindingTable
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Binding, BindingChange, Ports
from gatewayd.subscribers.journal_rows import (
    AddressRow,
    EndedRow,
    HoldRow,
    Key,
    NasRow,
    Row,
    SessionRow,
    Value,
    address_key,
    ended_key,
    key_of,
    nas_key,
    prefix_of,
    session_key,
)
from gatewayd.subscribers.sessions.nas import Nas
from gatewayd.subscribers.sessions.session import TICK_S, Hold, Ownership, Session
from gatewayd.subscribers.sessions.tombstones import Tombstone, Tombstones

_NO_SUBSCRIBER = b""
"""Whose the row of a NAS is."""


class Place(NamedTuple):
    """What one binding is of."""

    subscriber: bytes
    prefix: Prefix
    ports: Ports


class Update(NamedTuple):
    """`bindings`: all that was added, then all that was removed. `rows`: each key at most once, in no order; those
    of a later update are newer."""

    bindings: list[BindingChange]
    rows: list[Row]


class PendingChanges:
    """`registered` and `nas` (by key) are the caller's, and live; who changes `registered` calls
    `touch_subscriber`. `keep_s`, `most`: of ends and last records.

    `restored`: live sessions that no record confirmed since a restart; in a set, as a field of each of a million
    sessions costs 16 bytes, and only those of registered subscribers are ever restored.
    """

    def __init__(
        self,
        registered: Container[bytes],
        bindings: BindingTable,
        nas: Mapping[str, Nas],
        *,
        keep_s: float,
        most: int,
    ) -> None:
        self.ownership = Ownership()
        self.restored: set[Session] = set()
        self._registered = registered
        self._bindings = bindings
        self._nas = nas
        self._dirty: dict[Place | Key, None] = {}
        self._restored_since: dict[Place, float] = {}
        self._given: dict[Key, bytes] = {}
        self._of_subscriber: dict[bytes, set[Key]] = {}
        self._stones: Tombstones[Key] = Tombstones(keep_s=keep_s, most=most, on_forgotten=self._touch_key)

    # -- what is touched -----------------------------------------------------------------------------------

    def touch(self, session: Session) -> None:
        """The session is about to change, or has changed."""
        subscriber = session.subscriber
        if subscriber is not None and (subscriber in self._registered or subscriber in self._of_subscriber):
            self._dirty[session_key(session.nas.key, session.id)] = None

    def touch_hold(self, hold: Hold) -> None:
        """The hold came or went, and its session changed by it."""
        session = hold.session
        subscriber = session.subscriber
        if subscriber is not None and (subscriber in self._registered or subscriber in self._of_subscriber):
            self._dirty[Place(subscriber, hold.prefix, hold.ports)] = None
            self._dirty[session_key(session.nas.key, session.id)] = None

    def touch_nas(self, key: str) -> None:
        """It restarted, its clock is known to be off by more or less, or it is known no more."""
        self._dirty[nas_key(key)] = None

    def touch_subscriber(self, subscriber: bytes, sessions: Iterable[Session]) -> None:
        """A registration of this subscriber came or went; `sessions` are those it has."""
        self.touch_keys(self._of_subscriber.get(subscriber, ()))
        for binding in self._bindings.of(subscriber):
            self._dirty[Place(subscriber, binding.prefix, binding.ports)] = None
        for session in sessions:
            self.touch(session)
            for hold in session.holds:
                self._dirty[Place(subscriber, hold.prefix, hold.ports)] = None

    def touch_keys(self, keys: Iterable[Key]) -> None:
        self._dirty.update(dict.fromkeys(keys))

    def touch_all(self) -> None:
        """Every row that was given is to be given again."""
        self.touch_keys(self._given)

    def forget_unregistered(self) -> None:
        """The registry is whole: rows go of subscribers that no registration knows, and bindings that are made from
        now on are new, whose ever the address was before the restart."""
        for subscriber, keys in self._of_subscriber.items():
            if subscriber != _NO_SUBSCRIBER and subscriber not in self._registered:
                self.touch_keys(keys)
        self._restored_since.clear()

    def bury_session(self, nas: str, session: str, at_s: float, now: float, *subscribers: bytes | None) -> None:
        """A Stop of the session; its own subscriber and the one that the Stop names."""
        for subscriber in subscribers:
            self._bury(ended_key(nas, session), at_s, now, subscriber)

    def bury_address(self, prefix: Prefix, at_s: float, now: float, subscriber: bytes | None) -> None:
        """The last record that named an address."""
        self._bury(address_key(prefix), at_s, now, subscriber)

    def stone(self, key: Key) -> Tombstone | None:
        """What is remembered of the end or the last record, if it was of a registered subscriber."""
        return self._stones.get(key)

    def next_due(self) -> float | None:
        """When `prune` is next due."""
        return self._stones.next_due()

    def prune(self, now: float, most: int) -> None:
        self._stones.prune(now, most)

    def restore(self, value: Value, stone: Tombstone | None = None) -> None:
        """The row is on disk; it is not given before it is touched. `stone`: of an EndedRow or AddressRow."""
        key = key_of(value)
        self._give(key, _subscriber_of(value))
        if stone is not None:
            self._stones.put_back(key, stone)

    def restore_hold(self, hold: Hold, subscriber: bytes, since_s: float) -> None:
        """A hold from before a restart, by which there was a binding since `since_s`. Its row is on disk."""
        place = Place(subscriber, hold.prefix, hold.ports)
        self._restored_since[place] = since_s
        if subscriber in self._registered:
            self._dirty[place] = None

    # -- what follows from it ------------------------------------------------------------------------------

    def take(self) -> Update:
        """Since the last call."""
        if not self._dirty:
            return Update([], [])
        dirty, self._dirty = self._dirty, {}
        added: list[BindingChange] = []
        removed: list[BindingChange] = []
        keys: list[Key] = []
        for each in dirty:
            if isinstance(each, Place):
                self._settle(each, added, removed)
            else:
                keys.append(each)
        return Update(added + removed, self._rows(keys))

    def confirmed(self, binding: Binding) -> Binding | None:
        """The binding in force of the same subscriber at the same place, as the last record has it; None if no
        session holds it."""
        in_force = self._bindings.get(binding.subscriber, binding.prefix, binding.ports)
        hold = self.ownership.holder(binding.subscriber, binding.prefix, binding.ports)
        return (
            self._binding(in_force.subscriber, hold, in_force.since_s)
            if in_force is not None and hold is not None
            else None
        )

    def _settle(self, place: Place, added: list[BindingChange], removed: list[BindingChange]) -> None:
        subscriber, prefix, ports = place
        in_force = self._bindings.get(subscriber, prefix, ports)
        hold = None
        since_s = None
        if subscriber in self._registered:
            hold = self.ownership.holder(subscriber, prefix, ports)
            since_s = self._restored_since.pop(place, None) if self._restored_since else None
        if in_force is None and hold is not None:
            binding = self._binding(subscriber, hold, hold.named_s if since_s is None else since_s)
            self._bindings.put(binding)
            added.append(BindingChange("added", binding))
        elif in_force is not None and hold is None:
            self._bindings.remove(in_force)
            removed.append(BindingChange("removed", in_force))

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

    def _rows(self, keys: list[Key]) -> list[Row]:
        rows: list[Row] = []
        for key in keys:
            value = self._value(key)
            if value is not None:
                self._give(key, _subscriber_of(value))
                rows.append(Row(key, value))
            elif key in self._given:
                self._ungive(key)
                rows.append(Row(key, None))
        return rows

    def _touch_key(self, key: Key) -> None:
        self._dirty[key] = None

    def _bury(self, key: Key, at_s: float, now: float, subscriber: bytes | None) -> None:
        if subscriber is not None and subscriber in self._registered:
            self._stones.bury(key, at_s, now, subscriber)
            self._dirty[key] = None

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

    def _value(self, key: Key) -> Value | None:
        """As it is now; None for what is not, or is not to be on disk."""
        kind, name, session = key
        if kind == "session":
            nas = self._nas.get(name)
            live = nas.sessions.get(session) if nas is not None else None
            return self._session_row(live) if live is not None else None
        if kind == "nas":
            nas = self._nas.get(name)
            if nas is None or not (nas.has_restarted or nas.clock.whole_s):
                return None
            return NasRow(name, nas.restarted_s, nas.clock.whole_s, nas.restarts)
        stone = self._stones.get(key)
        if stone is None or stone.subscriber is None:
            return None
        if stone.subscriber not in self._registered:
            self._stones.drop(key)
            return None
        if kind == "ended":
            return EndedRow(name, session, stone.subscriber, stone.at_s, stone.buried_s)
        return AddressRow(prefix_of(key), stone.subscriber, stone.at_s, stone.buried_s, stone.others_s)

    def _session_row(self, session: Session) -> SessionRow | None:
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
            holds=tuple([self._hold_row(subscriber, hold) for hold in session.holds]),
        )

    def _hold_row(self, subscriber: bytes, hold: Hold) -> HoldRow:
        binding = self._bindings.get(subscriber, hold.prefix, hold.ports)
        return HoldRow(hold.prefix, hold.ports, hold.named_s, hold.named_s if binding is None else binding.since_s)


def _subscriber_of(value: Value) -> bytes:
    return _NO_SUBSCRIBER if isinstance(value, NasRow) else value.subscriber
