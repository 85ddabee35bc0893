"""The live sessions, and every index of them: how one enters and ends, and how all are rebuilt after a restart.

The rules by which records of a NAS change them are in `sessions`, which is the one owner of a SessionIndex.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from math import inf
from typing import Final

from gatewayd.allowlist import BindingTable
from gatewayd.model.accounting import NasIdentity
from gatewayd.model.prefix import Prefix, mask_address
from gatewayd.model.registration import Binding, Ports
from gatewayd.subscribers.journal_rows import (
    AddressRow,
    EndedRow,
    NasRow,
    Row,
    SessionRow,
    ended_key,
    key_of,
)
from gatewayd.subscribers.radius.attributes import SHORTEST_IPV4_LENGTH, SHORTEST_IPV6_LENGTH
from gatewayd.subscribers.sessions.changes import PendingChanges, Update
from gatewayd.subscribers.sessions.naming import Naming
from gatewayd.subscribers.sessions.nas import (
    Nas,
    NasTable,
    SameName,
    identity_of_key,
    key_of_identity,
)
from gatewayd.subscribers.sessions.restoring import sort_rows
from gatewayd.subscribers.sessions.session import (
    JITTER,
    Expiry,
    PassedOver,
    Randomness,
    Session,
    SessionCounts,
    Terms,
)
from gatewayd.subscribers.sessions.tombstones import Tombstone, Tombstones, short_id

BATCH: Final = 250
"""Sessions that one call of `handle_timer` ends; 10 µs each at a million."""
MAX_OF_SUBSCRIBER: Final = 64
"""Sessions of one subscriber; a phone has a dozen bearers."""

ADDRESSES_OF_SESSION: Final = 4
"""On the average of all sessions: IPv4, a prefix of the link, one delegated, and one more. 260 bytes each."""

USUAL_TERMS: Final = Terms()


class SessionIndex:
    """`registered`: digests that some registration knows; live, the caller's. `bindings`: filled here alone.

    Beyond `max_sessions`, and `max_addresses` of all of them (None: ADDRESSES_OF_SESSION each), only registered
    subscribers open sessions and get addresses, each at most MAX_OF_SUBSCRIBER sessions. Of `max_nas` one without
    registered subscribers makes room for a new one that reports such. Tombstones of registered subscribers have a
    bound of their own.
    """

    def __init__(
        self,
        registered: Container[bytes],
        bindings: BindingTable,
        *,
        randomness: Randomness,
        terms_of: Callable[[str], Terms] = lambda _: USUAL_TERMS,
        max_sessions: int = 1_000_000,
        max_addresses: int | None = None,
        max_nas: int = 10_000,
        max_tombstones: int = 250_000,
        tombstone_s: float = 900.0,
    ) -> None:
        self.counts = SessionCounts()
        self._registered = registered
        self._randomness = randomness
        self._terms_of = terms_of
        self._most_sessions = max_sessions
        self._nas = NasTable(max_nas)
        self._count = 0
        self._of_subscriber: dict[bytes, Session | tuple[Session, ...]] = {}
        self._expiry = Expiry()
        self._ended: Tombstones[tuple[str, str]] = Tombstones(keep_s=tombstone_s, most=max_tombstones)
        self._last_named: Tombstones[Prefix] = Tombstones(keep_s=tombstone_s, most=max_tombstones)
        self._changes = PendingChanges(
            registered, bindings, self._nas.by_key, keep_s=tombstone_s, most=max_tombstones
        )
        self._naming = Naming(
            self._changes,
            self.counts,
            self._last_named,
            registered,
            ADDRESSES_OF_SESSION * max_sessions if max_addresses is None else max_addresses,
        )
        self._restarted: dict[str, Nas] = {}
        self._scanning: list[Session] = []
        self._now = 0.0
        self._ends = 0
        self._passed_over: tuple[PassedOver, ...] = ()
        self._same_named: Nas | None = None

    def __len__(self) -> int:
        """Live sessions."""
        return self._count

    @property
    def tombstones(self) -> int:
        """Ended sessions and released addresses that are remembered."""
        return len(self._ended) + len(self._last_named)

    @property
    def tombstones_lost(self) -> int:
        """Forgotten before their time, for the bound."""
        return self._ended.lost + self._last_named.lost

    def sessions_of(self, subscriber: bytes | None) -> tuple[Session, ...]:
        """Live ones; none for None."""
        held = self._of_subscriber.get(subscriber, ()) if subscriber is not None else ()
        return held if isinstance(held, tuple) else (held,)

    def confirmed(self, binding: Binding) -> Binding | None:
        """A binding in force, as it is now confirmed; None if it is in force no more."""
        return self._changes.confirmed(binding)

    def recheck(self, subscriber: bytes) -> None:
        """`registered` may say something else of this subscriber than before."""
        self._changes.touch_subscriber(subscriber, self.sessions_of(subscriber))

    def next_changes(self) -> Update:
        """What the kernel and the journal are to hold otherwise than after the last call; to be called after every
        other call, or what was touched gathers. The rows of an event are to be on disk before its answer."""
        return self._changes.take()

    def touch_every_row(self) -> None:
        """The next changes have all rows that were given before: the journal had to begin anew."""
        self._changes.touch_all()

    def restore(self, rows: Iterable[Row], now: float) -> int:
        """What the journal held; once, before anything else. Returns how many sessions live.

        What ran out meanwhile ends, is counted, and is never bound. A session of a subscriber whom no registration
        knows (yet) waits for it: see `forget_unregistered`. Some 20 µs a session, so rather in a thread.
        """
        self._now = now
        found = sort_rows(rows, now, self._terms_of)
        for nas_row in found.nas:
            self._restore_nas(nas_row)
        for stone_row in found.stones:
            self._restore_stone(stone_row)
        for session_row in found.sessions:
            self._restore_session(session_row)
        holds = [(hold, row) for row in found.sessions for hold in row.holds]
        for hold, row in sorted(holds, key=lambda each: each[0].named_s):
            if (session := self._live(row)) is not None:
                self._naming.restore(session, row.subscriber, hold, now)
        for row in found.sessions:
            self._naming.keep_bound(self.sessions_of(row.subscriber), now)
            session = self._live(row)
            if session is not None and row.due_s is not None and row.due_s <= now:
                self._run_out(session)
        self._changes.touch_keys(found.changed)
        self._restarted = {nas.key: nas for nas in self._nas if nas.has_restarted and nas.sessions}
        return self._count

    @property
    def restored(self) -> int:
        """Live sessions that no record confirmed since a restart."""
        return len(self._changes.restored)

    def last_record_s(self, nas: str, session: str) -> float | None:
        """Event time of the last record of a live session; the latest of those that NAS of one name have."""
        found = [each.sessions.get(session) for each in self._nas.of_name(nas)]
        return max((each.at_s for each in found if each is not None), default=None)

    def knows(self, prefix: Prefix, ports: Ports) -> bool:
        """Whether a session has the address, or any of these ports of it, or it is remembered whose it was last.
        The prefix may be a part of what the session has."""
        shortest = SHORTEST_IPV4_LENGTH if prefix.family == 4 else SHORTEST_IPV6_LENGTH
        for length in range(prefix.length, min(shortest, prefix.length) - 1, -1):
            around = prefix if length == prefix.length else Prefix(mask_address(prefix.packed, length), length)
            if any(hold.overlaps(ports) for hold in self._changes.ownership.holds_at(around)):
                return True
            if self._naming.last_named(around) is not None:
                return True
        return False

    def same_names(self) -> tuple[SameName, ...]:
        """Names that several NAS use for sessions of the same ids."""
        return self._nas.same_names()

    def forget_unregistered(self) -> None:
        """The registry is whole: rows go of subscribers who were registered before the restart, and are not now."""
        self._changes.forget_unregistered()

    # What sessions does with it

    def _nas_of(self, identity: NasIdentity, subscriber: bytes | None) -> Nas | None:
        """`subscriber`: of whom it reports. None where there is no room for it."""
        nas = self._nas.find(identity) or self._add_nas(key_of_identity(identity), identity)
        if nas is None and subscriber is not None and subscriber in self._registered and self._evict_nas():
            return self._add_nas(key_of_identity(identity), identity)
        return nas

    def _evict_nas(self) -> bool:
        """Ends all sessions of a NAS that reports none of a registered subscriber, so that it makes room. 3 ms at
        10,000 NAS."""
        registered = self._registered
        nas = self._nas.smallest(
            lambda each: (
                not any(
                    session.subscriber is not None and session.subscriber in registered
                    for session in each.sessions.values()
                )
            )
        )
        if nas is None:
            return False
        self.counts.nas_evicted += 1
        for session in list(nas.sessions.values()):
            self._end(session)
        return True

    def _stone(self, nas: str, session: str) -> Tombstone | None:
        """Of an ended session. Of registered subscribers also where the bound of all has cost it."""
        stone = self._ended.get((nas, short_id(session)))
        if stone is None and self._ended.lost:
            return self._changes.stone(ended_key(nas, session))
        return stone

    def _nas_of_key(self, key: str) -> Nas | None:
        return self._nas.by_key.get(key) or self._add_nas(key, identity_of_key(key))

    def _add_nas(self, key: str, identity: NasIdentity) -> Nas | None:
        nas, gone = self._nas.add(key, identity)
        for idle in gone:
            self._changes.touch_nas(idle.key)
        return nas

    def _enlist(self, session: Session, subscriber: bytes) -> None:
        others = self.sessions_of(subscriber)
        if len(others) >= MAX_OF_SUBSCRIBER:
            self.counts.over_limit += 1
            self._end(min(others, key=lambda each: each.at_s))
            others = self.sessions_of(subscriber)
        self._of_subscriber[subscriber] = (*others, session) if others else session

    def _run_out(self, session: Session) -> None:
        if session.at_s < session.nas.restarted_s:
            self.counts.ended_by_restart += 1
        else:
            self.counts.expired += 1
        self._end(session)

    def _end(self, session: Session) -> None:
        self._ends += 1
        self._changes.touch(session)
        self._changes.restored.discard(session)
        for hold in session.holds:
            self._naming.release(hold, self._now)
        del session.nas.sessions[session.id]
        self._count -= 1
        self._expiry.forget(session)
        subscriber = session.subscriber
        if subscriber is not None:
            others = tuple(each for each in self.sessions_of(subscriber) if each is not session)
            if others:
                self._of_subscriber[subscriber] = others[0] if len(others) == 1 else others
            else:
                del self._of_subscriber[subscriber]

    # A restart of a NAS

    def _restarting(self, nas: Nas) -> list[Nas]:
        """Those that a restart of it is of: itself, and what lists say of its names, if no other has its name."""
        others = self._nas.namesakes(nas)
        is_alone = nas.source is not None and all(each.source is None for each in others)
        return [nas, *others] if is_alone else [nas]

    def _restart(self, nas: Nas, at_s: float) -> None:
        self._changes.touch_nas(nas.key)
        if at_s > nas.restarted_s:
            nas.restarted_s = at_s
            if nas.sessions:
                self._restarted[nas.key] = nas

    def _scan(self) -> None:
        """A batch of the sessions of a NAS that restarted. One that restarts meanwhile comes again after."""
        if not self._scanning and self._restarted:
            nas = self._restarted.pop(next(iter(self._restarted)))
            self._scanning = list(nas.sessions.values())
        for session in self._scanning[-BATCH:]:
            self._outlive_restart(session)
        del self._scanning[-BATCH:]

    def _outlive_restart(self, session: Session) -> None:
        nas = session.nas
        grace_s = self._terms_of(nas.name).restart_grace_s
        if nas.sessions.get(session.id) is not session:
            return
        if session.at_s >= nas.restarted_s:
            if not grace_s:
                self._outlive(session, nas.restarted_s)
        elif grace_s:
            self._expiry.hasten(session, self._now + grace_s * self._randomness.uniform(1, 1 + JITTER))
            self._changes.touch(session)
        else:
            self.counts.ended_by_restart += 1
            self._end(session)

    def _outlive(self, session: Session, from_s: float) -> None:
        """An earlier life of its id ended before `from_s`: only what was named since stays."""
        if session.since_s < from_s:
            session.since_s = session.at_s
            self._changes.touch(session)
        for hold in session.holds:
            if hold.named_s < from_s:
                self._naming.release(hold, self._now)

    # What was before a restart of ours

    def _restore_nas(self, row: NasRow) -> None:
        nas = self._nas_of_key(row.nas)
        self._changes.restore(row)
        if nas is None:
            self._changes.touch_keys([key_of(row)])
        else:
            nas.resume(row, self._now)

    def _restore_stone(self, row: EndedRow | AddressRow) -> None:
        others_s = row.others_s if isinstance(row, AddressRow) else -inf
        stone = Tombstone(row.at_s, row.buried_s, row.subscriber, others_s)
        if self._ended.is_over(stone, self._now):
            self._changes.restore(row)
            self._changes.touch_keys([key_of(row)])
            return
        self._changes.restore(row, stone)
        if isinstance(row, EndedRow):
            self._ended.put_back((row.nas, short_id(row.session)), stone)
        else:
            self._last_named.put_back(row.prefix, stone)

    def _live(self, row: SessionRow) -> Session | None:
        """The session of the row, unless there was no room for it."""
        nas = self._nas.by_key.get(row.nas)
        return nas.sessions.get(row.session) if nas is not None else None

    def _restore_session(self, row: SessionRow) -> None:
        nas = self._nas_of_key(row.nas)
        self._changes.restore(row)
        if nas is None:
            self._changes.touch_keys([key_of(row)])
            return
        session = Session(
            row.session,
            nas,
            row.subscriber,
            row.since_s,
            row.at_s,
            row.snapshot_s,
            row.ipv4_s,
            nas.same_interim_s(row.interim_s),
            is_lingering=row.is_lingering,
        )
        nas.sessions[session.id] = session
        self._count += 1
        self._enlist(session, row.subscriber)
        self._expiry.extend(session, inf if row.due_s is None else row.due_s)
        self._changes.restored.add(session)
