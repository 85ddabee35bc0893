"""All behind the section `subscribers`: built, started, reloaded and stopped as one.

Start: secrets are read and sockets bound; the journal is restored; only then is anything read from the sockets, so
that a word that came meanwhile meets the session that it is of. Stop: the sockets first, then the journal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from gatewayd.control.bindings import Bindings
from gatewayd.control.programmer import Programmer
from gatewayd.errors import MissingPrerequisite, SecretFileUnusable
from gatewayd.log import get_logger
from gatewayd.model.prefix import Prefix
from gatewayd.settings import RadiusClient, SubscriberSettings
from gatewayd.subscribers.journal import Journal, JournalState
from gatewayd.subscribers.journal_file import read_boot_id
from gatewayd.subscribers.radius.clients import Client, ClientTable, client_of, profiles_of, terms_of_profile
from gatewayd.subscribers.radius.listener import AccountingListener
from gatewayd.subscribers.secret_files import forbid_core_dumps, is_exposed, read_pepper, read_secrets
from gatewayd.subscribers.session_list import SessionList, read_sessions
from gatewayd.subscribers.timeline import Timeline

log = get_logger(__name__)

JOURNAL_NAME = "sessions.sqlite"
MAX_UNHEARD_S = 86_400.0
MAX_FAULTS_SAID = 5
"""Of a list of sessions, in the log."""


class SubscriberService:
    """`listener` is None where bindings come by the API and lists alone."""

    def __init__(
        self, settings: SubscriberSettings, state_dir: Path, programmer: Programmer, *,
        clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Raises MissingPrerequisite: without the pepper nobody can be told from anybody."""
        self._settings = settings
        self._clock = clock
        forbid_core_dumps()
        try:
            self.pepper = read_pepper(settings.pepper_file)
        except SecretFileUnusable as error:
            raise MissingPrerequisite(str(error), "put the pepper that the registry was made with there") from None
        warn_if_exposed(settings.pepper_file)
        self.profiles = profiles_of(settings)
        timeline = Timeline(clock, monotonic, read_boot_id())
        self.bindings = Bindings(
            programmer,
            Journal(state_dir / JOURNAL_NAME, on_state=self._on_journal, moment=timeline.moment),
            terms_of=self.profiles.terms_of,
            max_sessions=settings.max_sessions,
            clock=clock,
            monotonic=monotonic,
            randomness=Random(),
            timeline=timeline,
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
                on_event=self.bindings.on_event,
                clock=self.bindings.now,
                monotonic=monotonic,
                wall=clock,
            )

    def open(self) -> None:
        """Bind; datagrams wait from now on. Raises MissingPrerequisite."""
        if self.listener is not None:
            self.listener.open()

    async def start(self) -> None:
        """Restore what was known, then listen."""
        await self.bindings.restore()
        if self._settings.sessions_file is not None:
            await self._take_list(Path(self._settings.sessions_file))
        if self.listener is not None:
            self.listener.start()
            for host, port in self.listener.addresses:
                log.info("radius.listening", host=host, port=port)

    def reload(self, settings: SubscriberSettings) -> tuple[str, ...]:
        """Clients, secrets and profiles as they are now; what could not be read, and so stays as it was."""
        self._settings = settings
        self.profiles = profiles_of(settings)
        self.bindings.use(self.profiles.terms_of)
        faults: tuple[str, ...] = ()
        if self.listener is not None and settings.radius is not None:
            clients, faults = self._read_clients(settings.radius.clients)
            self.listener.use(clients, self.profiles)
        return faults

    async def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
        await self.bindings.journal.close()

    def _on_journal(self, state: JournalState) -> None:
        if state.was_recreated and self.bindings.is_restored:
            self.bindings.write_all()

    def _read_clients(self, wanted: tuple[RadiusClient, ...]) -> tuple[ClientTable, tuple[str, ...]]:
        """And what could not be read, which the log says too. A client whose file cannot be read keeps the secrets
        that it had; one that had none is not believed."""
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

    async def _take_list(self, path: Path) -> None:
        """Sessions that somebody else knows of. A list that cannot be read costs what is in it, never the start."""

        def read() -> SessionList:
            return read_sessions(
                path.read_bytes(), pepper=self.pepper, profile_of=self.profiles.profile_by_name, now_s=self._clock()
            )

        try:
            events, faults, faulty = await asyncio.to_thread(read)
        except OSError as error:
            log.error("sessions_file.unusable", path=str(path), error=error.strerror or str(error))
            return
        for fault in faults[:MAX_FAULTS_SAID]:
            log.warning("sessions_file.refused", path=str(path), fault=str(fault))
        taken = await self.bindings.take_list(events)
        log.info("sessions_file.read", path=str(path), sessions=taken, refused=faulty)


def longest_unheard_s(settings: SubscriberSettings) -> float:
    """How long the NAS of these profiles may not speak of a session that is alive: then all were heard of, or are
    over. At most MAX_UNHEARD_S, where a profile has no bound or a long one."""
    clients = settings.radius.clients if settings.radius is not None else ()
    profiles = [settings.profile, *(each.profile for each in settings.nas), *(each.profile for each in clients)]
    longest_s = max(terms_of_profile(each).lifetime_s(None) for each in profiles if each is not None)
    return min(longest_s, MAX_UNHEARD_S)


def warn_if_exposed(path: str) -> None:
    if is_exposed(path):
        log.warning("secret.exposed", path=path, hint="chmod o-rw")
