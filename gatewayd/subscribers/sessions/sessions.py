"""The table of sessions: accounting events in, changes of bindings and rows out (RFC 2866, RFC 2869). Pure.

`receive`, `handle_timer`, `get_timer`, `next_changes`, and `recheck` when a registration comes or goes; `restore`
at the start. `now` is in Unix seconds by a clock that is never set (the wall clock at the start plus a monotonic
clock), so that setting the wall clock ends no session.

Records are ordered by when a thing happened by the NAS, not by when they came; at the same second, the last that
came counts.

- *Start* opens a session. One of a session that lives is taken as an Interim; if it is somebody else's, the id was
  used again and the former session is over.
- *Interim* of an unknown session opens it (we were restarted). It confirms, and names addresses: a snapshot
  (`is_snapshot`) names all, what is absent is gone; else an IPv4 address replaces the former (RFC 2865 §5.44: at
  most one) and IPv6 prefixes (RFC 3162 §2.3, RFC 4818 §3: any number) and port blocks are added. One that names
  none says nothing of them. Records of the same second are united: a BNG sends the IPv6 prefixes in Interims of the
  second of its Start.
- *Stop* ends its own session and nothing else; its tombstone keeps older records from raising it, in whatever order
  they come. If it is of one bearer (3GPP TS 29.061 §16.4.7), the addresses stay until another session of the
  subscriber has them, the final Stop, or the end of their time.
- *On*, *Off*: what a NAS reported before counts no longer; its sessions end after a grace, in batches (RFC 2866
  §5.1).
- Two NAS of one name are two (`nas`): a record of one ends, evicts by id, or restarts nothing of the other. One
  that comes by another way than before is the same: a session that one of its name has with this id, of the same
  subscriber or address, is its own from then on. Where that is not known, both stay until their time is over.
- An address belongs to the subscriber to whom the last record gives it; a subscriber has the union of the addresses
  of its sessions (dual stack, bearers, Acct-Multi-Session-Id). Class (RFC 2865 §5.25) says nothing of identity.
- A session that no record confirms runs out: by the event's age, not its arrival, so a replay of old events
  prolongs nothing. The age leaves out what the NAS's clock is behind.
- Everything is bounded. An address that a record names is taken from older records of other subscribers even where
  the session is over already, or there is no room for it.

Session ids of a restarted NAS may repeat (RFC 2866 §5.5); the lives differ by time: the On, the Stop.

Times of the NAS are put right before anything is compared (`nas`), so none is later than now. A NAS whose clock was
set back is found out by its next records; what it reported meanwhile is then taken again, as of when it came.
"""

from __future__ import annotations

from math import inf, nextafter
from typing import Final

from gatewayd.model.accounting import AccountingEvent, NasIdentity
from gatewayd.subscribers.sessions.index import BATCH, SessionIndex
from gatewayd.subscribers.sessions.naming import are_two, is_of, ports_of, shares
from gatewayd.subscribers.sessions.nas import Nas
from gatewayd.subscribers.sessions.session import FOLLOWED, JITTER, Outcome, PassedOver, Session
from gatewayd.subscribers.sessions.tombstones import Tombstone, short_id

INTERIM_AFTER_STOP_S: Final = 2.0
"""An Interim that crossed the Stop on its way out of the NAS does not raise the session."""


class Sessions(SessionIndex):
    """The rules. What is held, and the call for changes, are the SessionIndex's."""

    def receive(self, event: AccountingEvent, now: float) -> Outcome:
        """Take what happened. Raises nothing; what is not followed is counted."""
        self._now = now
        self._ends = 0
        nas = self._nas_of(event.identity or NasIdentity(event.nas), event.subscriber)
        if nas is None:
            self._note("nas_refused")
        elif event.is_by_our_clock:
            self._take(nas, event, min(event.at_s, event.received_at_s))
        else:
            self._take_by_its_clock(nas, event)
        if not (self._ends or self._passed_over or self._same_named):
            return FOLLOWED
        same_name = self._nas.same_name(self._same_named.name) if self._same_named is not None else None
        outcome = Outcome(self._passed_over, self._ends, same_name)
        self._passed_over, self._same_named = (), None
        return outcome

    def _take_by_its_clock(self, nas: Nas, event: AccountingEvent) -> None:
        known_s = nas.clock.whole_s
        again = nas.clock.observe(event)
        if nas.clock.whole_s != known_s:
            self._changes.touch_nas(nas.key)
        for each in again:
            self._take(nas, each, nas.clock.time_of(each), is_again=True)
        self._take(nas, event, nas.clock.time_of(event))

    def _take(self, nas: Nas, event: AccountingEvent, at_s: float, *, is_again: bool = False) -> None:
        """`at_s`: when it happened, by our clock. `is_again`: it was taken before, as of another time."""
        kind = event.kind
        if is_again:
            self.counts.taken_again += 1
        elif kind == "start":
            self.counts.starts += 1
        elif kind == "interim":
            self.counts.interims += 1
        elif kind == "stop":
            self.counts.stops += 1
        else:
            self.counts.restarts += 1
        if kind in ("on", "off"):
            if is_again or (not event.is_replay and nas.admit_restart(event.authenticator, self._now)):
                for each in self._restarting(nas):
                    self._restart(each, at_s)
            else:
                self._note("replayed")
        elif event.is_replay and not self._changes_nothing(nas, event):
            self._note("replayed")
        else:
            self._receive_record(nas, event, at_s)

    def get_timer(self) -> float | None:
        """When `handle_timer` is next due; the past if it has left something over, None if nothing is ahead."""
        if self._scanning or self._restarted:
            return self._now
        times = (each.next_due() for each in (self._expiry, self._ended, self._last_named, self._changes))
        return min((time for time in times if time is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """One batch of what is due; ask `get_timer` again after it."""
        self._now = now
        self._scan()
        for session in self._expiry.due(now, BATCH):
            self._run_out(session)
        self._ended.prune(now, BATCH)
        self._last_named.prune(now, BATCH)
        self._changes.prune(now, BATCH)

    # A session

    def _changes_nothing(self, nas: Nas, event: AccountingEvent) -> bool:
        """Whether a record that came again says what is known of its session, and no more than that it lives."""
        session = nas.sessions.get(event.session)
        return (
            event.kind != "stop"
            and session is not None
            and event.subscriber in (None, session.subscriber)
            and session.at_s >= nas.restarted_s
            and not session.is_lingering
            and not (event.is_snapshot and len(event.addresses) < len(session.holds))
            and all(session.hold_of(prefix, ports_of(event, prefix)) for prefix in event.addresses)
        )

    def _receive_record(self, nas: Nas, event: AccountingEvent, at_s: float) -> None:
        if event.is_by_our_clock:
            age_s = max(event.received_at_s - event.at_s, 0.0)
        else:
            age_s = min(nas.age_s(event.at_s, event.received_at_s), event.received_at_s - at_s)
        is_before_restart = at_s < nas.restarted_s
        if is_before_restart and event.received_at_s - age_s >= nas.restarted_s:
            at_s = nas.restarted_s
            is_before_restart = False
        if event.kind == "stop":
            self._stop(nas, event, at_s)
            return
        if is_before_restart:
            self._pass_over("before_restart", nas, event, at_s)
        else:
            self._follow(nas, event, at_s, age_s)

    def _follow(self, nas: Nas, event: AccountingEvent, at_s: float, age_s: float) -> None:
        """A Start or an Interim."""
        others = self._nas.namesakes(nas)
        session = nas.sessions.get(event.session) or (self._taken_over(nas, others, event) if others else None)
        stone = self._stone_of(nas, others, event)
        if stone is not None:
            slack_s = INTERIM_AFTER_STOP_S if session is None and event.kind == "interim" else 0.0
            if at_s <= stone.at_s + slack_s:
                self._pass_over("tombstoned", nas, event, at_s)
                return
        if session is not None and self._is_over(session, event, at_s):
            self._end(session)
            session = self._taken_over(nas, others, event)
        elif session is not None and are_two(session.subscriber, event.subscriber):
            self._pass_over("before_restart", nas, event, at_s)
            return
        is_opening = session is None
        if session is None and others and self._is_for_a_namesake(nas, others, event, age_s):
            return
        interim_s = event.interim_s
        if session is not None and (interim_s is None or at_s < session.at_s):
            interim_s = session.interim_s
        lifetime_s = self._terms_of(nas.name).lifetime_s(interim_s)
        if session is None:
            if age_s >= lifetime_s:
                self._pass_over("stale", nas, event, at_s)
                return
            session = self._open(nas, event, at_s)
            if session is None:
                return
        else:
            self.counts.repeated += at_s <= session.at_s
        session.interim_s = nas.same_interim_s(interim_s)
        self._confirm(session, event, at_s, is_opening)
        if nas.sessions.get(session.id) is not session:
            return  # it was lingering, had lost all its addresses, and this record was older than that
        due_s = self._now - age_s + lifetime_s * self._randomness.uniform(1, 1 + JITTER)
        self._expiry.extend(session, due_s)
        self._changes.touch(session)

    # Sessions of namesakes

    def _taken_over(self, nas: Nas, others: list[Nas], event: AccountingEvent) -> Session | None:
        """The session of the record that a namesake reported until now: one NAS that comes by another way. From now
        on it belongs to the one that reported last."""
        session = self._at_namesake(nas, others, event)
        if session is None:
            return None
        self._changes.touch(session)
        del session.nas.sessions[session.id]
        session.nas = nas
        nas.sessions[session.id] = session
        self._changes.touch(session)
        return session

    def _at_namesake(self, nas: Nas, others: list[Nas], event: AccountingEvent) -> Session | None:
        found = [each.sessions.get(event.session) for each in others]
        sessions = [each for each in found if each is not None]
        if len(sessions) == 1 and not are_two(sessions[0].subscriber, event.subscriber):
            (session,) = sessions
            is_alone = session.nas.source is None and all(each.source is None for each in others)
            if nas.source is None or is_alone:
                return session  # one of the two is a list's, which means the only one that there is
        return next((each for each in sessions if is_of(each, event)), None)

    def _is_for_a_namesake(self, nas: Nas, others: list[Nas], event: AccountingEvent, age_s: float) -> bool:
        """Whether the record, which would open a session, names no subscriber and no address, and a namesake has a
        session of this id: it may be of that one, and so prolongs it. Else a session of the id that a namesake has
        is another's: two NAS have one name, which is noted."""
        found = [each.sessions.get(event.session) for each in others]
        sessions = [each for each in found if each is not None]
        if sessions and event.kind == "interim" and event.subscriber is None and not event.addresses:
            for session in sessions:
                lifetime_s = self._terms_of(session.nas.name).lifetime_s(session.interim_s)
                self._expiry.extend(session, self._now - age_s + lifetime_s)
                self._changes.touch(session)
            return True
        if any(are_two(each.subscriber, event.subscriber) for each in sessions):
            self.counts.same_name += 1
            self._nas.note_same_name(nas)
            self._same_named = nas
        return False

    def _stone_of(self, nas: Nas, others: list[Nas], event: AccountingEvent) -> Tombstone | None:
        """Of the session, if it ended; by a namesake's record only if it was of the same subscriber."""
        stone = self._stone(nas.key, event.session)
        if stone is None and event.subscriber is not None:
            for other in others:
                found = self._stone(other.key, event.session)
                if found is not None and found.subscriber == event.subscriber:
                    return found
        return stone

    def _pass_over(self, reason: PassedOver, nas: Nas, event: AccountingEvent, at_s: float) -> None:
        """A record of a session that is over: it opens nothing, and its addresses were no older session's then."""
        self._note(reason)
        if event.subscriber is not None:
            session = Session(event.session, nas, event.subscriber, at_s, at_s)
            self._naming.evict(session, event.addresses, event.ports, at_s, self._now)

    def _note(self, reason: PassedOver) -> None:
        setattr(self.counts, reason, getattr(self.counts, reason) + 1)
        if reason not in self._passed_over:
            self._passed_over += (reason,)

    def _is_over(self, session: Session, event: AccountingEvent, at_s: float) -> bool:
        """Whether a record shows that its id has begun another life; counted."""
        nas = session.nas
        if session.at_s < nas.restarted_s:
            is_over = event.kind == "start" or not self._terms_of(nas.name).restart_grace_s
            self.counts.ended_by_restart += is_over
            return is_over
        if at_s <= session.at_s:
            return False
        if event.subscriber is None:
            is_over = (
                event.kind == "start"
                and session.subscriber is not None
                and bool(event.addresses)
                and not any(hold.prefix in event.addresses for hold in session.holds)
            )
        else:
            is_over = are_two(session.subscriber, event.subscriber)
        self.counts.missed_stops += is_over
        return is_over

    def _open(self, nas: Nas, event: AccountingEvent, at_s: float) -> Session | None:
        """A new session; None where there is no room for it. What it names is taken from others all the same."""
        session = Session(event.session, nas, event.subscriber, at_s, at_s)
        self.counts.interims_first += event.kind == "interim"
        is_registered = event.subscriber is not None and event.subscriber in self._registered
        if self._count >= self._most_sessions and not is_registered:
            self._note("refused")
            self._naming.evict(
                session, event.addresses, event.ports, at_s, self._now, takes_ties=event.kind == "start"
            )
            return None
        nas.sessions[session.id] = session
        self._count += 1
        if session.subscriber is not None:
            self._enlist(session, session.subscriber)
        return session

    def _confirm(self, session: Session, event: AccountingEvent, at_s: float, is_opening: bool) -> None:
        if at_s > session.at_s:
            self._move_on(session, at_s)
            session.is_lingering = False
        elif at_s < session.since_s:
            session.since_s = at_s
        if session.subscriber is None and event.subscriber is not None:
            self._enlist(session, event.subscriber)
            self._naming.identify(session, event.subscriber)
        self._naming.name(session, event, at_s, self._now, is_opening and event.kind == "start")
        if event.addresses and self._terms_of(session.nas.name).single_session:
            self._naming.keep_latest(self.sessions_of(session.subscriber), self._now)
        sessions = self.sessions_of(session.subscriber)
        if len(sessions) > 1:
            self._naming.keep_bound(sessions, self._now)
        for other in sessions:
            if other.is_lingering and self._naming.is_covered(other):
                self._end(other)

    def _move_on(self, session: Session, at_s: float) -> None:
        """A record later than all that it reported, before a restart of ours too."""
        session.at_s = at_s
        self._changes.restored.discard(session)

    def _stop(self, nas: Nas, event: AccountingEvent, at_s: float) -> None:
        session = nas.sessions.get(event.session)
        if session is None or are_two(session.subscriber, event.subscriber):
            session = self._at_namesake(nas, self._nas.namesakes(nas), event) or session
        if session is not None:
            nas = session.nas
        places = {(prefix, ports_of(event, prefix)) for prefix in event.addresses}
        subscriber = event.subscriber
        if session is not None:
            places.update((hold.prefix, hold.ports) for hold in session.holds)
            subscriber = subscriber or session.subscriber
        if not event.is_final_stop:
            self.counts.bearer_stops += 1
            self._stop_bearer(session, at_s)
            return
        self._ended.bury((nas.key, short_id(event.session)), at_s, self._now, subscriber)
        own = session.subscriber if session is not None else None
        self._changes.bury_session(nas.key, event.session, at_s, self._now, own, event.subscriber)
        if session is None:
            self.counts.unknown_stops += 1
        elif (
            session.since_s > at_s
            or session.at_s > at_s + INTERIM_AFTER_STOP_S
            or (session.at_s > at_s and are_two(session.subscriber, event.subscriber))
        ):
            self.counts.late_stops += 1
            self._outlive(session, nextafter(at_s, inf))
        else:
            self._end(session)
        for other in self.sessions_of(subscriber):
            if other.is_lingering and other.nas is nas and other.at_s <= at_s and shares(other, places):
                self._end(other)

    def _stop_bearer(self, session: Session | None, at_s: float) -> None:
        if session is None or at_s < session.at_s:
            return
        self._move_on(session, at_s)
        session.is_lingering = True
        self._changes.touch(session)
        if self._naming.is_covered(session):
            self._end(session)
