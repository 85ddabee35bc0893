"""The live sessions, and every index of them: how one enters and ends, and how all are rebuilt after a restart.

The rules by which records of a NAS change them are in `sessions`, which is the one owner of a SessionIndex.

Rows of a journal are put right for the present before. A wall clock that was set between two runs must not make
anything last for ever: no time is ahead of `now`, and no session runs out later than if it had just been reported,
with or without an interval. Where that changes a row, it is to be written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from msgspec.structs import replace

from gatewayd.allowlist import BindingTable
from gatewayd.model.accounting import NasIdentity
from gatewayd.model.prefix import Prefix, mask_address
from gatewayd.model.registration import Binding, Ports
from gatewayd.subscribers.journal_rows import (
    AddressRow,
    EndedRow,
    HoldRow,
    Key,
    NasRow,
    Row,
    SessionRow,
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
    name_of_key,
)
from gatewayd.subscribers.sessions.session import (
    JITTER,
    TICK_S,
    Expiry,
    PassedOver,
    Randomness,
    Session,
    SessionCounts,
    Terms,
    Tombstone,
    Tombstones,
)

MAX_OF_SUBSCRIBER: Final = 64
"""Sessions of one subscriber; a phone has a dozen bearers."""

USUAL_TERMS: Final = Terms()


class SessionIndex:
    """`registered`: digests that some registration knows; live, the caller's. `bindings`: filled here alone.

    Beyond `max_sessions` only registered subscribers open sessions, each at most MAX_OF_SUBSCRIBER.
    """

    def __init__(
        self,
        registered: Container[bytes],
        bindings: BindingTable,
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
        self._last_named: Tombstones[Prefix] = Tombstones(keep_s=tombstone_s, most=max_tombstones)
        self._changes = PendingChanges(
            registered, bindings, self._nas.by_key, keep_s=tombstone_s, most=max_tombstones
        )
        self._naming = Naming(self._changes, self.counts, self._last_named)
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
        found = _sort_rows(rows, now, self._terms_of)
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
            if self._last_named.get(around) is not None:
                return True
        return False

    def same_names(self) -> tuple[SameName, ...]:
        """Names that several NAS use for sessions of the same ids."""
        return self._nas.same_names()

    def forget_unregistered(self) -> None:
        """The registry is whole: rows go of subscribers who were registered before the restart, and are not now."""
        self._changes.forget_unregistered()

    # What sessions does with it

    def _nas_of(self, identity: NasIdentity) -> Nas | None:
        return self._nas.find(identity) or self._add_nas(key_of_identity(identity), identity)

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

    # What was before a restart of ours

    def _restore_nas(self, row: NasRow) -> None:
        nas = self._nas_of_key(row.nas)
        self._changes.restore(row)
        if nas is None:
            self._changes.touch_keys([key_of(row)])
        else:
            nas.resume(row.restarted_s, row.ahead_s, self._now)

    def _restore_stone(self, row: EndedRow | AddressRow) -> None:
        others_s = row.others_s if isinstance(row, AddressRow) else -inf
        stone = Tombstone(row.at_s, row.buried_s, row.subscriber, others_s)
        if self._ended.is_over(stone, self._now):
            self._changes.restore(row)
            self._changes.touch_keys([key_of(row)])
            return
        self._changes.restore(row, stone)
        if isinstance(row, EndedRow):
            self._ended.put_back((row.nas, row.session), stone)
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


@dataclass(frozen=True, slots=True)
class _SortedRows:
    """`sessions`: by their beginning. `stones`: by when they were buried. `changed`: keys of those put right."""

    nas: list[NasRow]
    stones: list[EndedRow | AddressRow]
    sessions: list[SessionRow]
    changed: list[Key]


def _sort_rows(rows: Iterable[Row], now: float, terms_of: Callable[[str], Terms]) -> _SortedRows:
    """Rows without a value are left out."""
    found = _SortedRows([], [], [], [])
    latest_s = now
    for row in rows:
        value = row.value
        if isinstance(value, SessionRow):
            session = _tame_session(value, latest_s, now + _longest_s(value, terms_of))
            found.sessions.append(session)
            is_changed = session is not value
        elif isinstance(value, NasRow):
            found.nas.append(replace(value, restarted_s=min(value.restarted_s, latest_s)))
            is_changed = value.restarted_s > latest_s
        elif value is not None:
            stone = _tame_stone(value, latest_s, now)
            found.stones.append(stone)
            is_changed = stone is not value
        else:
            continue
        if is_changed:
            found.changed.append(row.key)
    found.sessions.sort(key=lambda each: each.since_s)
    found.stones.sort(key=lambda each: each.buried_s)
    return found


def _longest_s(row: SessionRow, terms_of: Callable[[str], Terms]) -> float:
    """How far ahead a session can run out by what the NAS may have said of its interval, now or earlier; an
    interval that became shorter shortens no life. `due_s` of a row is a tick rounded up."""
    terms = terms_of(name_of_key(row.nas))
    lifetimes = {terms.lifetime_s(row.interim_s), terms.lifetime_s(None)}
    if row.due_s is not None and len(lifetimes) > 1:
        lifetimes.discard(inf)
    return max(lifetimes) * (1 + JITTER) + TICK_S


def _tame_session(row: SessionRow, latest_s: float, last_due_s: float) -> SessionRow:
    """The row itself where nothing is wrong with it."""
    due_s = inf if row.due_s is None else row.due_s
    newest_s = max(row.at_s, row.since_s, row.snapshot_s, row.ipv4_s)
    if (
        due_s <= last_due_s
        and newest_s <= latest_s
        and all(hold.named_s <= latest_s and hold.since_s <= latest_s for hold in row.holds)
    ):
        return row
    return replace(
        row,
        since_s=min(row.since_s, latest_s),
        at_s=min(row.at_s, latest_s),
        snapshot_s=min(row.snapshot_s, latest_s),
        ipv4_s=min(row.ipv4_s, latest_s),
        due_s=min(due_s, last_due_s),
        holds=tuple(
            HoldRow(hold.prefix, hold.ports, min(hold.named_s, latest_s), min(hold.since_s, latest_s))
            for hold in row.holds
        ),
    )


def _tame_stone(row: EndedRow | AddressRow, latest_s: float, now: float) -> EndedRow | AddressRow:
    if row.at_s <= latest_s and row.buried_s <= now:
        return row
    at_s, buried_s = min(row.at_s, latest_s), min(row.buried_s, now)
    if isinstance(row, EndedRow):
        return replace(row, at_s=at_s, buried_s=buried_s)
    return replace(row, at_s=at_s, buried_s=buried_s, others_s=min(row.others_s, latest_s))
