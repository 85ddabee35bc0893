"""The UDP sockets that accounting comes in on (RFC 2866): receive, open, count, hand on, answer.

The owner of an event answers it: at once where nothing has to be written, later where the journal must have it
first, never where it could not be written. The sender repeats what is not answered (RFC 2866 §2), so back-pressure
needs no queue here: what we do not keep up with waits in the sockets' buffers, and what they lose comes again.

A datagram that is not believed leaves a count and nothing else. What waits in a socket is taken in batches, so
that a burst of old accounting (a proxy that was cut off keeps it all) holds up nothing else of the loop for long.

A flood of one sender leaves room to the others: `flood` has the bounds.
"""

from __future__ import annotations

import asyncio
import socket  # noqa: TID251 - accounting comes in by UDP, and this module is its shell
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias

from msgspec import structs

from gatewayd.errors import AccountingRejected, RadiusRejected
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.prefix import Family, Prefix, format_address
from gatewayd.subscribers.radius.accounting import read_event, read_nas
from gatewayd.subscribers.radius.clients import Client, ClientTable, Profiles, plain_source
from gatewayd.subscribers.radius.flood import SHIELD_S, Shield, SourceRates, filter_of
from gatewayd.subscribers.radius.packet import (
    HEADER_BYTES,
    MAX_BYTES,
    MESSAGE_AUTHENTICATOR,
    PENDING,
    AccountingRequest,
    Replays,
    Responses,
    StatusServer,
    encode_response,
    open_request,
)
from gatewayd.subscribers.radius.senders import ListenerStats, Refusals, RefusedSource
from gatewayd.subscribers.radius.sockets import (
    ANCILLARY_BYTES,
    Ancillary,
    SocketAddress,
    answer_ancillary,
    attach_filter,
    bind_udp,
    detach_filter,
    dropped_datagrams,
)

TURN_S: Final = 0.0025
"""The loop has its turn after so long, in which a Start before goes to the kernel. A request takes some 150 µs,
with the kernel's share; one that is refused takes 10. A wakeup costs less than one request."""
DATAGRAMS_PER_TURN: Final = 256
LOG_INTERVAL_S: Final = 60.0
MAX_REFUSED_SOURCES: Final = 5
"""Senders of refused datagrams that a report names."""

Send: TypeAlias = Callable[[bytes], None]
"""Sends an answer to who asked, from the address that was asked. Raises OSError."""


class AccountingListener:
    """Listens on `addresses` (IP address and port; port 0: the kernel chooses one).

    `on_event(event, answer)` comes from the loop, once for each request that is new. The owner calls `answer()`
    from the loop when the sender may forget what it sent; another call does nothing. `clock`: that of the sessions,
    Unix seconds that are never set; `wall`: the wall's; `monotonic`: seconds that never go back.
    """

    def __init__(
        self, addresses: Iterable[tuple[str, int]], *,
        clients: ClientTable, profiles: Profiles, pepper: bytes,
        on_event: Callable[[AccountingEvent, Callable[[], None]], object],
        clock: Callable[[], float], monotonic: Callable[[], float], wall: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self.stats = ListenerStats()
        self.refusals = Refusals()
        self.unused = Refusals()
        """What of authentic requests is not used."""
        self.responses = Responses()
        self.replays = Replays()
        self._rates = SourceRates()
        self._shield = Shield()
        self._addresses = tuple(addresses)
        self._pepper = pepper
        self._on_event = on_event
        self._clock = clock
        self._wall = wall or clock
        self._monotonic = monotonic
        self._logs: dict[str, RateLimited] = {}
        self._intakes: list[_Intake] = []
        self._clients = clients
        self._profiles = profiles

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, with the ports that the kernel chose."""
        return [intake.address for intake in self._intakes]

    def report(self) -> ListenerStats:
        """The counts since the start, with its addresses and the senders that are refused most."""
        return replace(
            self.stats,
            addresses=tuple(
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses
            ),
            responses_lost=self.responses.lost,
            replays_lost=self.replays.lost,
            refused_unlisted=self.refusals.others,
            max_refused=_worst(self.refusals),
            max_unused=_worst(self.unused),
        )

    def open(self) -> None:
        """Bind; datagrams gather from now on. Raises MissingPrerequisite; nothing stays open then."""
        try:
            for host, port in self._addresses:
                self._intakes.append(_Intake(bind_udp(host, port), self.handle, self.stats, self._monotonic))
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Begin to read, from the running loop."""
        loop = asyncio.get_running_loop()
        for intake in self._intakes:
            intake.start(loop)

    def close(self) -> None:
        """Read no more and close. Answers that come later are counted as unsent; open() may be called again."""
        for intake in self._intakes:
            intake.close()
        self._intakes.clear()

    def use(self, clients: ClientTable, profiles: Profiles) -> None:
        """Who may send, and how their gear is to be understood, from the next datagram on."""
        self._clients = clients
        self._profiles = profiles
        self._shield = Shield()
        for intake in self._intakes:
            intake.lower_shield()

    def _raise_shield(self) -> None:
        """Strangers flood: their datagrams end in the kernel for a while."""
        shielded = [intake.raise_shield(self._clients.prefixes, SHIELD_S) for intake in self._intakes]
        self._log_of("flood").warning("radius.flood", shielded=all(shielded))

    def handle(self, raw: bytes, source: SocketAddress, now: float, send: Send) -> None:
        """One datagram that was read at `now`, by the monotonic clock. Whatever it is, nothing but what `on_event`
        raises is raised for it."""
        stats = self.stats
        stats.requests += 1
        host = source[0]
        address = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
        client = self._clients.find(address)
        if client is None:
            stats.unknown_client += 1
            self._refuse(address, host, "unknown_client")
            if self._shield.count(now):
                self._raise_shield()
            return
        if not self._rates.admit(address, now):
            stats.over_rate += 1
            self._refuse(address, host, "over_rate")
            return
        try:
            request = _open(raw, client)
        except RadiusRejected as rejected:
            stats.rejected[rejected.code] += 1
            self._refuse(address, host, rejected.code)
            return
        if isinstance(request, StatusServer):
            stats.status_server += 1
            self._send(encode_response(request), send)
            return
        # The header of an authentic request has a digest of all the rest. Bytes keep their hash, tuples do not.
        key = raw[:HEADER_BYTES] + source[1].to_bytes(2, "big") + address
        response = self.responses.admit(key, now)
        if response is None:
            answer = _Answer(self, key, request, client.response_message_authenticator, send, now)
            self._take(request, client, address, host, answer)
        elif response is PENDING:
            stats.pending_duplicates += 1
        else:
            stats.duplicates += 1
            self._send(response, send)

    def _take(self, request: AccountingRequest, client: Client, address: bytes, host: str, answer: _Answer) -> None:
        """A request that is new, or that comes again when no sender repeats it any more."""
        permission = client.permission
        try:
            identity = read_nas(request, plain_source(address), permission, is_proxied=client.is_proxy)
            profile = self._profiles.profile_of(client, identity.name)
            event = read_event(
                request, address, profile, self._pepper, self._clock(), identity, self._wall(), permission
            )
            if event.is_by_our_clock:
                answer.replay_key = request.authenticator + address
                if self.replays.knows(answer.replay_key, self._monotonic()):
                    event = structs.replace(event, is_replay=True)
        except AccountingRejected as rejected:
            self.stats.unusable[rejected.code] += 1
            self.unused.count(address, rejected.code)
            self._log_of(rejected.code).warning("radius.unusable", source=host, reason=rejected.code)
            answer()
            return
        self._profiles.remember(client, identity.name)
        self.stats.events += 1
        for reason in event.ignored:
            self.stats.ignored[reason] += 1
            self.unused.count(address, reason)
        self._on_event(event, answer)

    def respond(self, key: bytes, response: bytes, send: Send, since: float, replay_key: bytes = b"") -> None:
        """The first answer to what was read at `since`; repeats get the same from now on. `replay_key`: as
        `Replays` has it, of a request without a time of its own."""
        now = self._monotonic()
        self.responses.keep(key, response, now)
        if replay_key:
            self.replays.keep(replay_key, now)
        self._send(response, send)
        self.stats.response_times.observe(now - since)

    def _send(self, response: bytes, send: Send) -> None:
        try:
            send(response)
        except OSError:
            self.stats.unsent += 1
        else:
            self.stats.responses += 1

    def _refuse(self, address: bytes, host: str, reason: str) -> None:
        self.refusals.count(address, reason)
        self._log_of(reason).warning("radius.refused", source=host, reason=reason)

    def _log_of(self, reason: str) -> RateLimited:
        """One for each reason, so that a flood of one kind does not hide another."""
        log = self._logs.get(reason)
        if log is None:
            log = self._logs[reason] = RateLimited(get_logger(__name__), LOG_INTERVAL_S, self._monotonic)
        return log


class _Answer:
    """Answers one request when it is called, once."""

    __slots__ = ("_is_signed", "_key", "_listener", "_request", "_send", "_since", "replay_key")

    def __init__(
        self, listener: AccountingListener, key: bytes, request: AccountingRequest, is_signed: bool, send: Send,
        since: float,
    ) -> None:  # fmt: skip
        self._listener = listener
        self._key = key
        self._request: AccountingRequest | None = request
        self._is_signed = is_signed
        self._send = send
        self._since = since
        self.replay_key = b""

    def __call__(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            response = encode_response(request, is_signed=self._is_signed)
            self._listener.respond(self._key, response, self._send, self._since, self.replay_key)


class _Intake:
    """One socket, of one family."""

    def __init__(
        self, opened: socket.socket, handle: Callable[[bytes, SocketAddress, float, Send], None],
        stats: ListenerStats, monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self._socket = opened
        self._handle = handle
        self._stats = stats
        self._monotonic = monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drops = 0
        self._lowering: asyncio.TimerHandle | None = None
        """While the kernel drops what is of no client: when it stops."""

    @property
    def address(self) -> tuple[str, int]:
        host, port, *_ = self._socket.getsockname()
        return host, port

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._receive)

    def close(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
            self.lower_shield()
        self._loop = None
        self._socket.close()

    def raise_shield(self, prefixes: Iterable[Prefix], seconds: float) -> bool:
        """For so long the kernel drops what is not from these prefixes. False where it cannot."""
        family: Family = 6 if self._socket.family == socket.AF_INET6 else 4
        program = filter_of(prefixes, family)
        self._count_drops()
        if self._loop is None or program is None or not attach_filter(self._socket, program):
            return False
        self._lowering = self._loop.call_later(seconds, self.lower_shield)
        return True

    def lower_shield(self) -> None:
        """Everything comes in again; nothing happens where everything does."""
        if self._lowering is not None:
            self._count_drops()
            self._lowering.cancel()
            self._lowering = None
            detach_filter(self._socket)

    def _receive(self) -> None:
        """One batch. What is left wakes the loop again; bytes behind MAX_BYTES can only be padding."""
        until_s = self._monotonic() + TURN_S
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                raw, ancillary, _, source = self._socket.recvmsg(MAX_BYTES, ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except OSError:
                self._stats.receive_errors += 1
                break
            now = self._monotonic()
            self._handle(raw, source, now, partial(self._send, source, ancillary))
            if self._loop is None:
                return
            if now >= until_s:
                break
        self._count_drops()

    def _count_drops(self) -> None:
        drops = dropped_datagrams(self._socket)
        lost = (drops - self._drops) & 0xFFFFFFFF
        self._drops = drops
        if self._lowering is None:
            self._stats.kernel_drops += lost
        else:
            self._stats.flood_drops += lost

    def _send(self, to: SocketAddress, ancillary: Ancillary, response: bytes) -> None:
        self._socket.sendmsg((response,), answer_ancillary(ancillary), 0, to)


def _worst(refusals: Refusals) -> tuple[RefusedSource, ...]:
    return tuple(
        RefusedSource(format_address(plain_source(each.source)), each.total, each.reasons)
        for each in refusals.worst(MAX_REFUSED_SOURCES)
    )


def _open(raw: bytes, client: Client) -> AccountingRequest | StatusServer:
    """open_request, and the client's policy: a Status-Server always has a Message-Authenticator."""
    request = open_request(raw, client.secrets)
    if (
        client.require_message_authenticator
        and isinstance(request, AccountingRequest)
        and not request.values(MESSAGE_AUTHENTICATOR)
    ):
        raise RadiusRejected("missing_message_authenticator", "this client's requests must have one")
    return request
