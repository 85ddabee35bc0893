"""The live sessions, and every index of them: how one enters and ends, what is told of it, how all is rebuilt.

The rules by which words of a NAS change them are in `sessions`, which is the one owner of a SessionIndex.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from math import inf
from typing import Final

from gatewayd.model.accounting import NasIdentity
from gatewayd.model.binding import Binding, BindingChange
from gatewayd.model.prefix import Prefix, mask_address
from gatewayd.subscribers.journal_rows import EndedRow, NasRow, Row, SessionRow, WordRow, key_of
from gatewayd.subscribers.radius.attributes import SHORTEST_IPV4_LENGTH, SHORTEST_IPV6_LENGTH
from gatewayd.subscribers.sessions.naming import Naming
from gatewayd.subscribers.sessions.nas_table import NasTable, SameName, identity_of_key, key_of_identity
from gatewayd.subscribers.sessions.restoring import sort_rows
from gatewayd.subscribers.sessions.row_changes import RowChanges
from gatewayd.subscribers.sessions.session import Expiry, Nas, Ports, Session
from gatewayd.subscribers.sessions.terms import Randomness, SessionCounts, Terms
from gatewayd.subscribers.sessions.tombstones import Tombstone, Tombstones

MAX_OF_SUBSCRIBER: Final = 64
"""Sessions of one subscriber; a phone has a dozen bearers."""

USUAL_TERMS: Final = Terms()


class SessionIndex:
    """`registered`: digests that some registration knows; live, the caller's.

    Beyond `max_sessions` only registered subscribers open sessions, each at most MAX_OF_SUBSCRIBER.
    """

    def __init__(
        self,
        registered: Container[bytes],
        *,
        randomness: Randomness,
        terms_of: Callable[[str], Terms] = lambda _: USUAL_TERMS,
        max_sessions: int = 1_000_000,
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
        self._last_words: Tombstones[Prefix] = Tombstones(keep_s=tombstone_s, most=max_tombstones)
        self._row_changes = RowChanges(registered, self._nas.by_key, keep_s=tombstone_s, most=max_tombstones)
        self._naming = Naming(registered, self.counts, self._last_words, self._row_changes)
        self._restarted: dict[str, Nas] = {}
        self._scanning: list[Session] = []
        self._now = 0.0

    def __len__(self) -> int:
        """Live sessions."""
        return self._count

    @property
    def tombstones(self) -> int:
        """Ended sessions and released addresses that are remembered."""
        return len(self._ended) + len(self._last_words)

    @property
    def tombstones_lost(self) -> int:
        """Forgotten before their time, for the bound."""
        return self._ended.lost + self._last_words.lost

    def sessions_of(self, subscriber: bytes | None) -> tuple[Session, ...]:
        """Live ones; none of nobody."""
        held = self._of_subscriber.get(subscriber, ()) if subscriber is not None else ()
        return held if isinstance(held, tuple) else (held,)

    def bindings(self) -> Iterator[Binding]:
        """Those that `next_changes` has told of, as they are now confirmed."""
        return self._naming.changes.bindings()

    def binding_at(self, subscriber: bytes, prefix: Prefix, ports: Ports) -> Binding | None:
        """The binding of exactly this, if `next_changes` has told of it and it holds, as it is now confirmed."""
        return self._naming.changes.binding_at(subscriber, prefix, ports)

    def recheck(self, subscriber: bytes) -> None:
        """`registered` may say something else of this subscriber than before."""
        sessions = self.sessions_of(subscriber)
        self._naming.changes.touch_subscriber(subscriber, sessions)
        self._row_changes.touch_subscriber(subscriber, sessions)

    def next_changes(self) -> list[BindingChange]:
        """Since the last call: all that is to be added, then all that is to be removed."""
        return self._naming.changes.take()

    def next_rows(self) -> tuple[Row, ...]:
        """What the journal is to hold otherwise than after the last call; to be called after every other call, or
        what was touched gathers. Before the answer to an event they are to be on disk."""
        return self._row_changes.take(self._naming.changes)

    def every_row(self) -> tuple[Row, ...]:
        """As `next_rows`, and all that were given before: for a journal that had to begin anew."""
        self._row_changes.touch_all()
        return self.next_rows()

    def restore(self, rows: Iterable[Row], now: float) -> int:
        """What the journal held; once, before anything else. Returns how many sessions live.

        What ran out meanwhile ends, is counted, and is never bound. A session of a subscriber whom no registration
        knows (yet) waits for it: see `recheck_restored`. Some 20 µs a session, so rather in a thread.
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
            session = self._live(row)
            if session is not None and row.due_s is not None and row.due_s <= now:
                self._run_out(session)
        self._row_changes.touch_keys(found.changed)
        self._restarted = {nas.key: nas for nas in self._nas if nas.has_restarted and nas.sessions}
        return self._count

    @property
    def restored(self) -> int:
        """Live sessions that no word confirmed since a restart."""
        return len(self._naming.changes.restored)

    def last_word_s(self, nas: str, session: str) -> float | None:
        """Event time of the last word of a live session; the latest of those that NAS of one name have."""
        found = [each.sessions.get(session) for each in self._nas.of_name(nas)]
        return max((each.at_s for each in found if each is not None), default=None)

    def knows(self, prefix: Prefix, ports: Ports) -> bool:
        """Whether a session has the address, or any of these ports of it, or it is remembered whose it was last.
        The prefix may be a part of what the session has."""
        shortest = SHORTEST_IPV4_LENGTH if prefix.family == 4 else SHORTEST_IPV6_LENGTH
        for length in range(prefix.length, min(shortest, prefix.length) - 1, -1):
            around = prefix if length == prefix.length else Prefix(mask_address(prefix.packed, length), length)
            if any(hold.overlaps(ports) for hold in self._naming.ownership.holds_at(around)):
                return True
            if self._last_words.get(around) is not None:
                return True
        return False

    def same_names(self) -> tuple[SameName, ...]:
        """Names that several NAS use for sessions of the same ids."""
        return self._nas.same_names()

    def recheck_restored(self) -> None:
        """The registry is whole: rows go of subscribers who were registered before the restart, and are not now."""
        self._row_changes.touch_unregistered()
        self._naming.changes.forget_restored()

    # What sessions does with it

    def _nas_of(self, identity: NasIdentity) -> Nas | None:
        return self._nas.find(identity) or self._add_nas(key_of_identity(identity), identity)

    def _nas_of_key(self, key: str) -> Nas | None:
        return self._nas.by_key.get(key) or self._add_nas(key, identity_of_key(key))

    def _add_nas(self, key: str, identity: NasIdentity) -> Nas | None:
        nas, gone = self._nas.add(key, identity)
        for idle in gone:
            self._row_changes.touch_nas(idle.key)
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
        self._row_changes.touch(session)
        self._naming.changes.restored.discard(session)
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

    # What was before a restart of ours

    def _restore_nas(self, row: NasRow) -> None:
        nas = self._nas_of_key(row.nas)
        self._row_changes.restore(row)
        if nas is None:
            self._row_changes.touch_keys([key_of(row)])
        else:
            nas.resume(row.restarted_s, row.ahead_s, self._now)

    def _restore_stone(self, row: EndedRow | WordRow) -> None:
        others_s = row.others_s if isinstance(row, WordRow) else -inf
        stone = Tombstone(row.at_s, row.buried_s, row.subscriber, others_s)
        if self._ended.is_over(stone, self._now):
            self._row_changes.restore(row)
            self._row_changes.touch_keys([key_of(row)])
            return
        self._row_changes.restore(row, stone)
        if isinstance(row, EndedRow):
            self._ended.put_back((row.nas, row.session), stone)
        else:
            self._last_words.put_back(row.prefix, stone)

    def _live(self, row: SessionRow) -> Session | None:
        """The session of the row, unless there was no room for it."""
        nas = self._nas.by_key.get(row.nas)
        return nas.sessions.get(row.session) if nas is not None else None

    def _restore_session(self, row: SessionRow) -> None:
        nas = self._nas_of_key(row.nas)
        self._row_changes.restore(row)
        if nas is None:
            self._row_changes.touch_keys([key_of(row)])
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
        self._naming.changes.restored.add(session)
