"""Answers about subscribers: their bindings, and the sessions behind them; sessions that come by the API."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Final

import msgspec

from gatewayd.api import views
from gatewayd.api.status import SameNameView, SubscribersView
from gatewayd.control.controller import Controller
from gatewayd.control.explain import are_all_in_kernel
from gatewayd.errors import SessionEntryInvalid, SessionsNotKept
from gatewayd.model import Binding, BoundRegistration, Prefix
from gatewayd.model.accounting import AccountingEvent
from gatewayd.subscribers.service import Receipt, SubscriberService

KEPT_PATIENCE_S: Final = 5.0
"""How long the sender of a session waits for the disk."""
SLICE: Final = 100
"""Entries between two turns of the loop: some 5 ms."""


class SubscriberQueries:
    """Over the allowlist and the table of sessions."""

    def __init__(self, controller: Controller, subscribers: SubscriberService) -> None:
        self._controller = controller
        self._reconciler = controller.reconciler
        self._allowlist = controller.allowlist
        self._bindings = controller.allowlist.bindings
        self._subscribers = subscribers

    # -- bindings ------------------------------------------------------------------------------------------

    def page(
        self, registration_id: str | None, prefix: Prefix | None, offset: int, limit: int
    ) -> views.BindingPage:
        """Of one registration, and covering `prefix`, where these are given. Registered subscribers' alone."""
        if registration_id is None and prefix is None:
            total = len(self._bindings)
            found = list(islice(iter(self._bindings), offset, offset + limit))
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
            yield from self._bindings.of(subscriber)
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
            self._subscribers.confirmed(binding),
            now,
            registrations=tuple(each.id for each in registrations),
            in_kernel=are_all_in_kernel(self._reconciler, bound_registrations),
            also_of=tuple(each.id for each in self._allowlist.owners_around(binding)),
        )

    # -- status --------------------------------------------------------------------------------------------

    def status(self) -> SubscribersView:
        subscribers = self._subscribers
        sessions, listener = subscribers.sessions, subscribers.listener
        return SubscribersView(
            sessions=len(sessions),
            bindings=len(self._bindings),
            restored=sessions.restored,
            unanswered=subscribers.unanswered,
            conflicting=subscribers.conflicting,
            left=self._reconciler.count_left(),
            same_names=tuple(SameNameView(each.name, each.sources) for each in sessions.same_names()),
            refreshed=self._reconciler.refreshed,
            tombstones=sessions.tombstones,
            tombstones_lost=sessions.tombstones_lost,
            counts=sessions.counts,
            journal=subscribers.journal.report(),
            listener=None if listener is None else listener.report(),
        )

    # -- changes -------------------------------------------------------------------------------------------

    async def put(self, entries: Sequence[object]) -> Mapping[str, object]:
        """Live sessions, all taken or none; when it returns they are on disk.

        In the outcome, `conflicting`: times that an address was bound which another registrant's own prefix has.

        Raises SessionEntryInvalid for the first that cannot be used, and SessionsNotKept.
        """
        events = []
        for number, entry in enumerate(entries):
            try:
                events.append(self._subscribers.read_session(entry))
            except SessionEntryInvalid as invalid:
                if len(entries) == 1:
                    raise
                raise SessionEntryInvalid(invalid.field, invalid.code, invalid.why, number) from None
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        receipts = await self._take(events)
        passed_over = Counter(chain.from_iterable(each.outcome.passed_over for each in receipts))
        return {
            "sessions": len(events) - passed_over.total(),
            "passed_over": passed_over,
            "conflicting": sum(each.conflicting for each in receipts),
        }

    async def delete(self, nas: object, session: object, at: object) -> Mapping[str, object]:
        """The session is over: since `at`, else now, whatever its NAS's clock says. It may be called as accounting
        calls it, or as `page` shows it. Raises as `put`."""
        events = self._subscribers.read_end(nas, session, at)
        if at is None:
            sessions = self._subscribers.sessions
            last_s_of = [sessions.last_record_s(each.nas, each.session) or each.at_s for each in events]
            events = [
                msgspec.structs.replace(each, at_s=max(each.at_s, last_s))
                for each, last_s in zip(events, last_s_of, strict=True)
            ]
        return {"sessions": sum(each.outcome.ended for each in await self._take(events))}

    async def _take(self, events: Iterable[AccountingEvent]) -> list[Receipt]:
        """Take the events and wait until all are on disk. Raises SessionsNotKept."""
        subscribers = self._subscribers
        if not subscribers.is_restored:
            raise SessionsNotKept("nothing was taken: the journal is still being read")
        if not subscribers.journal.has_room:
            raise SessionsNotKept("nothing was taken: the journal has no room")
        kept: list[asyncio.Future[None]] = []
        receipts: list[Receipt] = []
        for number, event in enumerate(events, 1):
            answered = asyncio.get_running_loop().create_future()
            kept.append(answered)
            receipts.append(subscribers.receive(event, partial(_resolve, answered)))
            if not receipts[-1].will_be_answered:
                raise SessionsNotKept("taken in part, and not on disk yet: the journal has no room")
            if number % SLICE == 0:
                await asyncio.sleep(0)
        try:
            async with asyncio.timeout(KEPT_PATIENCE_S):
                await asyncio.gather(*kept)
        except TimeoutError:
            why = f"the disk has not answered for {KEPT_PATIENCE_S:g} s"
            raise SessionsNotKept(f"in force, but not on disk yet: {why}") from None
        return receipts


def _resolve(answered: asyncio.Future[None]) -> None:
    """Its waiter may have gone."""
    if not answered.done():
        answered.set_result(None)
