"""Answers about subscribers: their bindings, and the sessions behind them; sessions that come by the API."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final

import msgspec

from gatewayd.api import views
from gatewayd.api.status import SameNameView, SubscribersView
from gatewayd.control.controller import Controller
from gatewayd.control.explain import Subscribers, are_all_in_kernel
from gatewayd.errors import SessionEntryInvalid, SessionsNotKept
from gatewayd.model import Binding, BoundRegistration, Prefix
from gatewayd.model.accounting import AccountingEvent
from gatewayd.subscribers.identity import session_digest
from gatewayd.subscribers.session_list import end_event, entry_event

KEPT_PATIENCE_S: Final = 5.0
"""How long whoever tells us of a session waits for the disk."""
SLICE: Final = 100
"""Entries between two turns of the loop: some 5 ms."""
_PASSED_OVER: Final = ("tombstoned", "before_restart", "stale", "refused", "nas_refused")
"""Counts of the table, of which an event that opens or confirms nothing raises one."""


class SubscriberQueries:
    """Over the allowlist and the table of sessions. `clock`: the wall's."""

    def __init__(self, controller: Controller, subscribers: Subscribers, clock: Callable[[], float]) -> None:
        self._controller = controller
        self._reconciler = controller.reconciler
        self._allowlist = controller.allowlist
        self._subscribers = subscribers
        self._clock = clock

    # -- bindings ------------------------------------------------------------------------------------------

    def page(
        self, registration_id: str | None, prefix: Prefix | None, offset: int, limit: int
    ) -> views.BindingPage:
        """Of one registration, and covering `prefix`, where these are given. Registered subscribers' alone."""
        if registration_id is None and prefix is None:
            total = self._allowlist.count_bindings()
            found = list(islice(self._allowlist.bindings(), offset, offset + limit))
        else:
            matches = list(self._search(registration_id, prefix))
            total, found = len(matches), matches[offset : offset + limit]
        now = self._controller.moment()
        return views.BindingPage(total, offset, tuple(self._view(each, now) for each in found))

    def _search(self, registration_id: str | None, prefix: Prefix | None) -> Iterator[Binding]:
        subscriber = None
        if registration_id is not None:
            registration = self._allowlist.get(registration_id)
            subscriber = registration.subscriber if registration is not None else None
            if subscriber is None:
                return
        if prefix is None:
            assert subscriber is not None
            yield from self._allowlist.bindings_of(subscriber)
            return
        for each in self._allowlist.bindings_at(prefix.packed):
            if each.prefix.length <= prefix.length and subscriber in (None, each.subscriber):
                yield each

    def _view(self, binding: Binding, now: float) -> views.BindingView:
        registrations = self._allowlist.registrations_of(binding.subscriber)
        bound_registrations = [
            BoundRegistration(each, binding.prefix, binding.ports)
            for each in registrations
            if each.is_effective(now)
        ]
        return views.binding_view(
            self._subscribers.bindings.confirmed(binding),
            now,
            registrations=tuple(each.id for each in registrations),
            in_kernel=are_all_in_kernel(self._reconciler, bound_registrations),
            also_of=tuple(each.id for each in self._allowlist.owners_around(binding)),
        )

    # -- status --------------------------------------------------------------------------------------------

    def status(self) -> SubscribersView:
        bindings, listener = self._subscribers.bindings, self._subscribers.listener
        sessions = bindings.sessions
        return SubscribersView(
            sessions=len(sessions),
            bindings=self._allowlist.count_bindings(),
            restored=sessions.restored,
            unanswered=bindings.unanswered,
            conflicting=bindings.conflicting,
            left=self._reconciler.count_leftovers(),
            same_names=tuple(SameNameView(each.name, each.sources) for each in sessions.same_names()),
            refreshed=self._reconciler.refreshed,
            tombstones=sessions.tombstones,
            tombstones_lost=sessions.tombstones_lost,
            counts=sessions.counts,
            journal=bindings.journal.report(),
            listener=None if listener is None else listener.report(),
        )

    # -- changes -------------------------------------------------------------------------------------------

    async def put(self, entries: Sequence[object]) -> Mapping[str, object]:
        """Live sessions, all taken or none; when it returns they are on disk.

        In the outcome, `conflicting`: times that an address was bound which another registrant's own prefix has.

        Raises SessionEntryInvalid for the first that cannot be used, and SessionsNotKept.
        """
        now, subscribers = self._clock(), self._subscribers
        profile_of = subscribers.profiles.profile_by_name
        events = []
        for number, entry in enumerate(entries):
            try:
                event = entry_event(entry, pepper=subscribers.pepper, profile_of=profile_of, now_s=now)
            except SessionEntryInvalid as invalid:
                if len(entries) == 1:
                    raise
                raise SessionEntryInvalid(invalid.field, invalid.code, invalid.why, number) from None
            events.append(subscribers.bindings.told_by_wall(event))
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        conflicting = subscribers.bindings.conflicting
        passed_over, _ = await self._tell(events)
        return {
            "sessions": len(events) - passed_over.total(),
            "passed_over": passed_over,
            "conflicting": subscribers.bindings.conflicting - conflicting,
        }

    async def delete(self, nas: object, session: object, at: object) -> Mapping[str, object]:
        """The session is over: since `at`, else now, whatever its NAS's clock says. It may be called as accounting
        calls it, or as `page` shows it. Raises as `put`."""
        event = self._subscribers.bindings.told_by_wall(end_event(nas, session, self._clock(), at))
        events = [event]
        if self._subscribers.profiles.profile_by_name(event.nas).session_ids == "digest":
            hashed = session_digest(event.session, self._subscribers.pepper)
            events.append(msgspec.structs.replace(event, session=hashed))
        if at is None:
            sessions = self._subscribers.bindings.sessions
            last_words = [sessions.last_word_s(each.nas, each.session) or each.at_s for each in events]
            events = [
                msgspec.structs.replace(each, at_s=max(each.at_s, last_s))
                for each, last_s in zip(events, last_words, strict=True)
            ]
        _, ended = await self._tell(events)
        return {"sessions": ended}

    async def _tell(self, events: Iterable[AccountingEvent]) -> tuple[Counter[str], int]:
        """Take the events and wait until all are on disk. How many were passed over, and why; and by how many
        there were fewer sessions after an event than before."""
        bindings = self._subscribers.bindings
        sessions, counts = bindings.sessions, bindings.sessions.counts
        if not bindings.is_restored:
            raise SessionsNotKept("nothing was taken: the journal is still being read")
        if not bindings.journal.has_room:
            raise SessionsNotKept("nothing was taken: the journal has no room")
        kept: list[asyncio.Future[None]] = []
        passed_over: Counter[str] = Counter()
        ended = 0
        for number, event in enumerate(events, 1):
            answered = asyncio.get_running_loop().create_future()
            kept.append(answered)
            live, unanswered = len(sessions), bindings.unanswered
            before = [getattr(counts, reason) for reason in _PASSED_OVER]
            bindings.on_event(event, partial(_resolve, answered))
            passed_over.update(
                reason for reason, old in zip(_PASSED_OVER, before, strict=True) if getattr(counts, reason) > old
            )
            ended += max(live - len(sessions), 0)
            if bindings.unanswered > unanswered:
                raise SessionsNotKept("taken in part, and not on disk yet: the journal has no room")
            if number % SLICE == 0:
                await asyncio.sleep(0)
        try:
            async with asyncio.timeout(KEPT_PATIENCE_S):
                await asyncio.gather(*kept)
        except TimeoutError:
            why = f"the disk has not answered for {KEPT_PATIENCE_S:g} s"
            raise SessionsNotKept(f"in force, but not on disk yet: {why}") from None
        return passed_over, ended


def _resolve(answered: asyncio.Future[None]) -> None:
    """Whoever waited may have gone."""
    if not answered.done():
        answered.set_result(None)
