"""Accounting to bindings: takes events, keeps the table of sessions, tells what follows from them.

    event ─► sessions ─► bindings ─► grants ─► kernel     at once, in the turn in which it came
                  └────► journal ─► answer                when it is on disk; of nobody registered: at once

What was not answered is sent again by the NAS, and taken again: nothing that was answered is lost by a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from msgspec import structs

from gatewayd.control.programmer import Programmer
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.binding import Binding
from gatewayd.subscribers.journal import Journal
from gatewayd.subscribers.journal_rows import Key, Row
from gatewayd.subscribers.radius.accounting import SET_S
from gatewayd.subscribers.sessions.sessions import Sessions
from gatewayd.subscribers.sessions.terms import Randomness, Terms
from gatewayd.subscribers.timeline import Timeline

log = get_logger(__name__)

MAX_SLEEP_S = 1.0
"""Events move the table's timer; it is looked at this often."""
SAY_AGAIN_S = 60.0
SLICE = 500
"""Events of a list taken between two turns of the loop."""


class Bindings:
    """Owns the table of sessions. `clock`: the wall's; `monotonic clock`: is never set, so to set the wall ends
    none; `timeline`: made of both, if not given."""

    def __init__(
        self,
        programmer: Programmer,
        journal: Journal,
        *,
        terms_of: Callable[[str], Terms],
        max_sessions: int,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        randomness: Randomness,
        timeline: Timeline | None = None,
    ) -> None:
        self.journal = journal
        self.unanswered = 0
        """Events that were taken and not answered, as the journal had no room for what follows from them."""
        self.is_restored = False
        self._programmer = programmer
        self._terms_of = terms_of
        self._timeline = timeline or Timeline(clock, monotonic)
        self._owed: dict[Key, Row] = {}
        self._timer_moved = asyncio.Event()
        self._said_same_name = RateLimited(log, SAY_AGAIN_S, monotonic)
        self.sessions = Sessions(
            programmer.active.allowlist.subscribers,
            randomness=randomness,
            terms_of=lambda nas: self._terms_of(nas),
            max_sessions=max_sessions,
        )

    @property
    def conflicting(self) -> int:
        """Times that an address was bound which lies in another registrant's own prefix."""
        return self._programmer.conflicting

    def use(self, terms_of: Callable[[str], Terms]) -> None:
        """How long each NAS is believed from now on."""
        self._terms_of = terms_of

    def now(self) -> float:
        """The table's time: Unix seconds by a clock that is never set, and goes on over a restart."""
        return self._timeline.time_s()

    def told_by_wall(self, event: AccountingEvent) -> AccountingEvent:
        """The event, whose times are the wall's, by the table's clock."""
        set_by_s = self._timeline.wall_is_ahead_s()
        if abs(set_by_s) <= SET_S:
            return event
        return structs.replace(event, at_s=event.at_s - set_by_s, received_at_s=event.received_at_s - set_by_s)

    async def restore(self) -> None:
        """Begin with what the journal has. It costs bindings if it is damaged, never the start."""
        rows = await self.journal.open()
        if self.journal.last_moment is not None:
            self._timeline.go_on_from(self.journal.last_moment)
        # Half a second for 31,000 sessions; until it is done nobody else touches the table.
        await asyncio.to_thread(self.sessions.restore, rows, self.now())
        self.is_restored = True
        self._programmer.leave_unless(self.sessions.knows)
        self._tell()
        log.info("bindings.restored", sessions=len(self.sessions))

    async def take_list(self, events: Iterable[AccountingEvent]) -> int:
        """A list of live sessions, and how many: each word is as old as it says, and loses to what is newer."""
        count = 0
        for event in events:
            self._programmer.hear(event.addresses)
            self.sessions.receive(self.told_by_wall(event), self.now())
            count += 1
            if count % SLICE == 0:
                self._tell()
                await asyncio.sleep(0)
        self._tell()
        return count

    def on_event(self, event: AccountingEvent, answer: Callable[[], None]) -> None:
        """Take an event; `answer` is called when a crash could not undo it any more. Before `restore` nothing is
        taken, and nothing answered."""
        if not self.is_restored:
            return
        if event.addresses:
            self._programmer.hear(event.addresses)
        same_name = self.sessions.counts.same_name
        self.sessions.receive(event, self.now())
        if self.sessions.counts.same_name > same_name and (found := self.sessions.same_names()):
            self._said_same_name.warning("nas.same_name", name=found[-1].name, sources=" ".join(found[-1].sources))
        if event.kind in ("on", "off"):
            self._timer_moved.set()
        self._tell(answer)
        self._let_go(event)

    def _let_go(self, event: AccountingEvent) -> None:
        """Of what a start left in the kernel: whoever had the address, it is somebody's by now, or nobody's."""
        for prefix in event.addresses if self._programmer.left else ():
            ports = event.ports if prefix.family == 4 else None
            if event.kind == "stop" or self.sessions.knows(prefix, ports):
                self._programmer.let_go(prefix, ports)

    async def run(self) -> None:
        """Sessions end on time. Until cancelled."""
        while True:
            timer = self.sessions.get_timer()
            now = self.now()
            if timer is not None and timer <= now:
                self.sessions.handle_timer(now)
                self._tell()
                await asyncio.sleep(0)
            else:
                pause_s = MAX_SLEEP_S if timer is None else timer - now
                if self._owed:
                    self._tell()
                self._timer_moved.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(pause_s, MAX_SLEEP_S)):
                        await self._timer_moved.wait()

    def forget_unregistered(self) -> None:
        """The allowlist is complete: what was restored of subscribers whom nobody registers any more goes from the
        journal."""
        self.sessions.recheck_restored()
        self._tell()

    def confirmed(self, binding: Binding) -> Binding:
        """The binding as the last word of its session has it, its times by the wall clock."""
        found = self.sessions.binding_at(binding.subscriber, binding.prefix, binding.ports) or binding
        set_by_s = self._timeline.wall_is_ahead_s()
        if abs(set_by_s) <= SET_S:
            return found
        return structs.replace(found, since_s=found.since_s + set_by_s, confirmed_s=found.confirmed_s + set_by_s)

    def write_all(self) -> None:
        """The journal begins anew: its file was damaged, or taken away."""
        self.journal.write(self.sessions.every_row(), None)

    def recheck(self, subscriber: bytes) -> None:
        """A registration names this digest now, or none any more."""
        self.sessions.recheck(subscriber)
        self._tell()

    def _tell(self, answer: Callable[[], None] | None = None) -> None:
        """The kernel's side first, then the disk, then the sender."""
        self._programmer.take(self.sessions.next_changes())
        rows = self.sessions.next_rows()
        if self._owed:
            rows = (*self._owed.values(), *rows)
        if not rows:
            if answer is not None:
                answer()
        elif self.journal.write(rows, answer):
            self._owed.clear()
        else:
            self.unanswered += answer is not None
            self._owed.update((row.key, row) for row in rows)
