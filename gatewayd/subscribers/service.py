"""All behind the section `subscribers`, built, started, reloaded and stopped as one. IO.

    event ─► sessions ─► bindings ─► kernel     at once, in the turn in which it came
                  └────► journal ─► answer      when it is on disk; without rows, as of the unregistered: at once

An event that was not answered is sent again by the NAS, and taken again: a crash loses nothing that was answered.

Start: secrets are read and sockets bound; the journal is restored; only then is anything read from the sockets, so
that a record that came meanwhile meets the session that it is of. Stop: the sockets first, then the journal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final, Protocol

import msgspec

from gatewayd.allowlist import Allowlist
from gatewayd.errors import MissingPrerequisite, SecretFileUnusable
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Binding, BindingChange, Ports
from gatewayd.settings import open_regular
from gatewayd.settings.subscribers import RadiusClient, SubscriberSettings
from gatewayd.subscribers.journal import Journal, JournalState
from gatewayd.subscribers.journal_rows import Key, Row, Timeline
from gatewayd.subscribers.radius.accounting import SET_S
from gatewayd.subscribers.radius.clients import Client, ClientTable, client_of, profiles_of, terms_of_profile
from gatewayd.subscribers.radius.listener import AccountingListener
from gatewayd.subscribers.secret_files import forbid_core_dumps, is_exposed, read_pepper, read_secrets
from gatewayd.subscribers.session_list import SessionList, end_events, entry_event, read_sessions
from gatewayd.subscribers.sessions.session import Outcome, Terms
from gatewayd.subscribers.sessions.sessions import Sessions

log = get_logger(__name__)

JOURNAL_NAME: Final = "sessions.sqlite"
MAX_UNREPORTED_S: Final = 86_400.0
MAX_FAULTS_LOGGED: Final = 5
"""Of a list of sessions."""
MAX_SLEEP_S: Final = 1.0
"""Events move the timer of the sessions; it is looked at this often."""
LOG_INTERVAL_S: Final = 60.0
SLICE: Final = 500
"""Events of a list taken between two turns of the loop."""


class KernelSide(Protocol):
    """What follows from bindings in the kernel."""

    @property
    def left(self) -> int:
        """Elements that a start found and that no registration or binding wants."""

    def hear(self, prefixes: Iterable[Prefix]) -> None:
        """The addresses in an accounting record, of whatever subscriber."""

    def take(self, changes: Iterable[BindingChange]) -> None:
        """Bindings came and went; those that came are first."""

    def leave_unless(self, explains: Callable[[Prefix, Ports], bool]) -> None:
        """What a start finds of bindings stays until its time is over, unless `explains` knows the place."""

    def let_go(self, prefix: Prefix, ports: Ports) -> None:
        """A record names a session that has the place, or ends the one that had it."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What came of an event. `conflicting`: addresses that were bound and lie in another registrant's own prefix.
    `will_be_answered`: False where the journal had no room for what follows from it."""

    outcome: Outcome
    conflicting: int = 0
    will_be_answered: bool = True


_NOT_TAKEN: Final = Receipt(Outcome(), will_be_answered=False)


class SubscriberService:
    """Owns the table of sessions, which fills `allowlist.bindings`. `listener` is None where bindings come by the
    API and lists alone. `clock`: the wall's; `monotonic`: never set, so to set the wall clock ends no session.
    """

    def __init__(
        self, settings: SubscriberSettings, state_dir: Path, allowlist: Allowlist, kernel: KernelSide, *,
        clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Raises MissingPrerequisite: without the pepper no subscriber is known from another."""
        forbid_core_dumps()
        try:
            self.pepper = read_pepper(settings.pepper_file)
        except SecretFileUnusable as error:
            raise MissingPrerequisite(str(error), "put the pepper that the registry was made with there") from None
        warn_if_exposed(settings.pepper_file)
        self.profiles = profiles_of(settings)
        self.is_restored = False
        self.unanswered = 0
        """Events that were taken and not answered, as the journal had no room for what follows from them."""
        self.conflicting = 0
        """Times that an address was bound which lies in another registrant's own prefix."""
        self._settings = settings
        self._allowlist = allowlist
        self._kernel = kernel
        self._clock = clock
        self._timeline = Timeline(clock, monotonic, read_boot_id())
        self._owed: dict[Key, Row] = {}
        self._timer_moved = asyncio.Event()
        self._same_name_log = RateLimited(log, LOG_INTERVAL_S, monotonic)
        self._conflict_log = RateLimited(log, LOG_INTERVAL_S, monotonic)
        self.journal = Journal(state_dir / JOURNAL_NAME, on_state=self._on_journal, moment=self._timeline.moment)
        self.sessions = Sessions(
            allowlist.subscribers,
            allowlist.bindings,
            randomness=Random(),
            terms_of=self._terms_of,
            max_sessions=settings.max_sessions,
        )
        self._clients: dict[Prefix, Client] = {}
        self.listener: AccountingListener | None = None
        if settings.radius is not None:
            clients, _ = self._read_clients(settings.radius.clients)
            self.listener = AccountingListener(
                [(each.host, each.port) for each in settings.radius.listen],
                clients=clients,
                profiles=self.profiles,
                pepper=self.pepper,
                on_event=self.receive,
                clock=self.now,
                monotonic=monotonic,
                wall=clock,
            )

    # -- life ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Bind; datagrams wait from now on. Raises MissingPrerequisite."""
        if self.listener is not None:
            self.listener.open()

    async def start(self) -> None:
        """Restore the sessions of the journal, take the list, then listen. A damaged journal costs bindings, never
        the start."""
        rows = await self.journal.open()
        if self.journal.last_moment is not None:
            self._timeline.go_on_from(self.journal.last_moment)
        # Half a second for 31,000 sessions; until it is done nothing else touches the table.
        await asyncio.to_thread(self.sessions.restore, rows, self.now())
        self.is_restored = True
        self._kernel.leave_unless(self.sessions.knows)
        self._pass_on()
        log.info("bindings.restored", sessions=len(self.sessions))
        if self._settings.sessions_file is not None:
            await self._read_list(Path(self._settings.sessions_file))
        if self.listener is not None:
            self.listener.start()
            for host, port in self.listener.addresses:
                log.info("radius.listening", host=host, port=port)

    async def run(self) -> None:
        """Sessions end on time. Until cancelled."""
        while True:
            timer = self.sessions.get_timer()
            now = self.now()
            if timer is not None and timer <= now:
                self.sessions.handle_timer(now)
                self._pass_on()
                await asyncio.sleep(0)
            else:
                pause_s = MAX_SLEEP_S if timer is None else timer - now
                if self._owed:
                    self._pass_on()
                self._timer_moved.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(pause_s, MAX_SLEEP_S)):
                        await self._timer_moved.wait()

    def reload(self, settings: SubscriberSettings) -> tuple[str, ...]:
        """Clients, secrets and profiles as they are now. Returns the faults of files that cannot be read; of these
        the former content stays in use."""
        self._settings = settings
        self.profiles = profiles_of(settings)
        faults: tuple[str, ...] = ()
        if self.listener is not None and settings.radius is not None:
            clients, faults = self._read_clients(settings.radius.clients)
            self.listener.use(clients, self.profiles)
        return faults

    async def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
        await self.journal.close()

    # -- events --------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The sessions' time: Unix seconds by a clock that is never set, and goes on over a restart."""
        return self._timeline.time_s()

    def receive(self, event: AccountingEvent, answer: Callable[[], None]) -> Receipt:
        """Take an event; `answer` is called when a crash could not undo it any more. Before the journal is restored
        nothing is taken, and nothing answered."""
        if not self.is_restored:
            return _NOT_TAKEN
        if event.addresses:
            self._kernel.hear(event.addresses)
        outcome = self.sessions.receive(event, self.now())
        same_name = outcome.same_name
        if same_name is not None:
            self._same_name_log.warning("nas.same_name", name=same_name.name, sources=" ".join(same_name.sources))
        if event.kind in ("on", "off"):
            self._timer_moved.set()
        conflicting, will_be_answered = self._pass_on(answer)
        if self._kernel.left:
            self._let_go(event)
        return Receipt(outcome, conflicting, will_be_answered)

    async def take_list(self, events: Iterable[AccountingEvent]) -> int:
        """A list of live sessions, and how many: each entry is as old as it says, and loses to a newer record."""
        count = 0
        for event in events:
            self._kernel.hear(event.addresses)
            self.sessions.receive(self.to_timeline(event), self.now())
            count += 1
            if count % SLICE == 0:
                self._pass_on()
                await asyncio.sleep(0)
        self._pass_on()
        return count

    def recheck(self, subscriber: bytes) -> None:
        """A registration names the subscriber now, or none does any longer."""
        self.sessions.recheck(subscriber)
        self._pass_on()

    def forget_unregistered(self) -> None:
        """The allowlist is complete: the journal forgets what was restored of unregistered subscribers."""
        self.sessions.forget_unregistered()
        self._pass_on()

    # -- sessions of the API -------------------------------------------------------------------------------

    def read_session(self, entry: object) -> AccountingEvent:
        """What an entry says. Raises SessionEntryInvalid."""
        profile_of, now_s = self.profiles.profile_by_name, self._clock()
        return self.to_timeline(entry_event(entry, pepper=self.pepper, profile_of=profile_of, now_s=now_s))

    def read_end(self, nas: object, session: object, at: object) -> list[AccountingEvent]:
        """The end of a session, under each id that it may have. Raises SessionEntryInvalid."""
        profile_of, now_s = self.profiles.profile_by_name, self._clock()
        ends = end_events(nas, session, pepper=self.pepper, profile_of=profile_of, now_s=now_s, at=at)
        return [self.to_timeline(each) for each in ends]

    # -- times of the wall clock ---------------------------------------------------------------------------

    def to_timeline(self, event: AccountingEvent) -> AccountingEvent:
        """The event, whose times are the wall's, by the sessions' clock."""
        set_by_s = self._timeline.wall_is_ahead_s()
        if abs(set_by_s) <= SET_S:
            return event
        return msgspec.structs.replace(
            event, at_s=event.at_s - set_by_s, received_at_s=event.received_at_s - set_by_s
        )

    def confirmed(self, binding: Binding) -> Binding:
        """The binding as the last record of its session has it, its times by the wall clock."""
        found = self.sessions.confirmed(binding) or binding
        set_by_s = self._timeline.wall_is_ahead_s()
        if abs(set_by_s) <= SET_S:
            return found
        return msgspec.structs.replace(
            found, since_s=found.since_s + set_by_s, confirmed_s=found.confirmed_s + set_by_s
        )

    # -- within --------------------------------------------------------------------------------------------

    def _pass_on(self, answer: Callable[[], None] | None = None) -> tuple[int, bool]:
        """The kernel's side first, then the disk, then the sender. How many bindings conflict, and whether there is
        or will be an answer."""
        changes, rows = self.sessions.next_changes()
        conflicting = 0
        if changes:
            self._kernel.take(changes)
            conflicting = self._count_conflicting(changes)
        if self._owed:
            rows = [*self._owed.values(), *rows]
        if not rows:
            if answer is not None:
                answer()
        elif self.journal.write(rows, answer):
            self._owed.clear()
        else:
            self.unanswered += answer is not None
            self._owed.update((row.key, row) for row in rows)
            return conflicting, False
        return conflicting, True

    def _count_conflicting(self, changes: list[BindingChange]) -> int:
        count = 0
        for change in changes:
            if change.kind == "added" and (others := self._allowlist.owners_around(change.binding)):
                count += 1
                self._conflict_log.warning("bindings.conflicting", nas=change.binding.nas, id=others[0].id)
        self.conflicting += count
        return count

    def _let_go(self, event: AccountingEvent) -> None:
        """Of what a start left in the kernel: a session has the address by now, or none."""
        for prefix in event.addresses:
            ports = event.ports if prefix.family == 4 else None
            if event.kind == "stop" or self.sessions.knows(prefix, ports):
                self._kernel.let_go(prefix, ports)

    def _terms_of(self, nas: str) -> Terms:
        """As a reload has left them."""
        return self.profiles.terms_of(nas)

    def _on_journal(self, state: JournalState) -> None:
        """A file that was damaged, or taken away, was created again: every row is written."""
        if state.was_recreated and self.is_restored:
            self.sessions.touch_every_row()
            self._pass_on()

    def _read_clients(self, wanted: tuple[RadiusClient, ...]) -> tuple[ClientTable, tuple[str, ...]]:
        """And the faults, which the log has too. A client whose file cannot be read keeps the secrets that it had;
        one that had none is not believed."""
        faults = []
        clients: dict[Prefix, Client] = {}
        for each in wanted:
            try:
                secrets = read_secrets(each.secret_file)
                warn_if_exposed(each.secret_file)
            except SecretFileUnusable as error:
                faults.append(str(error))
                log.error("radius.secret_unusable", fault=str(error))
                known = self._clients.get(each.address)
                secrets = known.secrets if known is not None else ()
            clients[each.address] = client_of(each, secrets)
        self._clients = clients
        return ClientTable(clients.values()), tuple(faults)

    async def _read_list(self, path: Path) -> None:
        """A list that cannot be read costs what is in it, never the start."""

        def read() -> SessionList:
            with open(open_regular(path), "rb") as file:
                content = file.read()
            profile_of = self.profiles.profile_by_name
            return read_sessions(content, pepper=self.pepper, profile_of=profile_of, now_s=self._clock())

        try:
            events, faults, faulty = await asyncio.to_thread(read)
        except OSError as error:
            log.error("sessions_file.unusable", path=str(path), error=error.strerror or str(error))
            return
        for fault in faults[:MAX_FAULTS_LOGGED]:
            log.warning("sessions_file.refused", path=str(path), fault=str(fault))
        taken = await self.take_list(events)
        log.info("sessions_file.read", path=str(path), sessions=taken, refused=faulty)


def read_boot_id() -> str:
    """Differs from boot to boot (random(4)); empty if it is not known."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def longest_unreported_s(settings: SubscriberSettings) -> float:
    """How long the NAS of these profiles may not report a session that is alive: then all were reported, or are
    over. At most MAX_UNREPORTED_S, where a profile has no bound or a long one."""
    clients = settings.radius.clients if settings.radius is not None else ()
    profiles = [settings.profile, *(each.profile for each in settings.nas), *(each.profile for each in clients)]
    longest_s = max(terms_of_profile(each).lifetime_s(None) for each in profiles if each is not None)
    return min(longest_s, MAX_UNREPORTED_S)


def warn_if_exposed(path: str) -> None:
    if is_exposed(path):
        log.warning("secret.exposed", path=path, hint="chmod o-rw")
