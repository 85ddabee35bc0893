"""The UDP sockets that accounting comes in on (RFC 2866): receive, open, count, hand on, answer.

The owner of an event answers it: at once where nothing has to be written, later where the journal must have it
first, never where it could not be written. The sender repeats what is not answered (RFC 2866 §2), so back-pressure
needs no queue here: what we do not keep up with waits in the sockets' buffers, and what they lose comes again.

A datagram that is not believed leaves a count and nothing else. What waits in a socket is taken in batches, so
that a burst of old accounting (a proxy that was cut off keeps it all) holds up nothing else of the loop for long.

A gateway has many addresses, and a sender takes an answer only from the one that it asked. So each answer leaves
from the address that its request came to: IP_PKTINFO and IPV6_RECVPKTINFO say which (ip(7), RFC 3542 §6.2).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket  # noqa: TID251 - accounting comes in by UDP, and this module is its shell
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from gatewayd.errors import AccountingRejected, MissingPrerequisite, RadiusRejected
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.prefix import format_address
from gatewayd.subscribers.radius.accounting import read_event, read_nas
from gatewayd.subscribers.radius.clients import Client, ClientTable, Profiles, plain_source
from gatewayd.subscribers.radius.packet import (
    HEADER_BYTES,
    MAX_BYTES,
    MESSAGE_AUTHENTICATOR,
    PENDING,
    AccountingRequest,
    Responses,
    StatusServer,
    encode_response,
    open_request,
)
from gatewayd.subscribers.radius.senders import ListenerStats, Refusals, RefusedSource

DATAGRAMS_PER_WAKEUP: Final = 16
"""A request takes some 150 µs, what the kernel does for it included: the loop has its turn after 2.5 ms, in which a
Start before goes to the kernel. A wakeup costs less than one request."""
RECEIVE_BUFFER_BYTES: Final = 8 << 20
"""The kernel doubles it and charges a request of 300 bytes with 1280 (loopback, 6.18): room for some 13 000."""
LOG_INTERVAL_S: Final = 60.0
MAX_REFUSED_SOURCES: Final = 5
"""Senders of refused datagrams that a report names."""

_IP_PKTINFO, _SO_RCVBUFFORCE, _SO_MEMINFO, _SK_MEMINFO_DROPS = 8, 33, 55, 8
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(20)
"""One in_pktinfo (12) or in6_pktinfo (20)."""
_MULTICAST, _LINK_LOCAL = 0xFF, 0xFE

SocketAddress: TypeAlias = tuple[Any, ...]
"""As the socket module has it: (host, port) or (host, port, flow, scope); host is an IP address."""
Send: TypeAlias = Callable[[bytes], None]
"""Sends an answer to who asked, from the address that was asked. Raises OSError."""
_Ancillary: TypeAlias = list[tuple[int, int, bytes]]


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
        self.responses = Responses()
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
            refused_unlisted=self.refusals.others,
            max_refused=tuple(
                RefusedSource(format_address(plain_source(each.source)), each.total, each.reasons)
                for each in self.refusals.worst(MAX_REFUSED_SOURCES)
            ),
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

    def _take(
        self, request: AccountingRequest, client: Client, address: bytes, host: str, answer: Callable[[], None]
    ) -> None:
        """A request that is new."""
        identity = read_nas(request, plain_source(address), is_proxied=client.is_proxy)
        profile = self._profiles.profile_of(client, identity.name)
        try:
            event = read_event(request, address, profile, self._pepper, self._clock(), identity, self._wall())
        except AccountingRejected as rejected:
            self.stats.unusable[rejected.code] += 1
            self._log_of(rejected.code).warning("radius.unusable", source=host, reason=rejected.code)
            answer()
            return
        self.stats.events += 1
        for reason in event.ignored:
            self.stats.ignored[reason] += 1
        self._on_event(event, answer)

    def respond(self, key: bytes, response: bytes, send: Send, since: float) -> None:
        """The first answer to what was read at `since`; repeats get the same from now on."""
        now = self._monotonic()
        self.responses.keep(key, response, now)
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

    __slots__ = ("_is_signed", "_key", "_listener", "_request", "_send", "_since")

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

    def __call__(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            response = encode_response(request, is_signed=self._is_signed)
            self._listener.respond(self._key, response, self._send, self._since)


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
        self._loop = None
        self._socket.close()

    def _receive(self) -> None:
        """One batch. What is left wakes the loop again; bytes behind MAX_BYTES can only be padding."""
        for _ in range(DATAGRAMS_PER_WAKEUP):
            try:
                raw, ancillary, _, source = self._socket.recvmsg(MAX_BYTES, _ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except OSError:
                self._stats.receive_errors += 1
                break
            self._handle(raw, source, self._monotonic(), partial(self._send, source, ancillary))
            if self._loop is None:
                return
        drops = _dropped_datagrams(self._socket)
        self._stats.kernel_drops += (drops - self._drops) & 0xFFFFFFFF
        self._drops = drops

    def _send(self, to: SocketAddress, ancillary: _Ancillary, response: bytes) -> None:
        self._socket.sendmsg((response,), answer_ancillary(ancillary), 0, to)


def bind_udp(host: str, port: int) -> socket.socket:
    """A bound, non-blocking UDP socket that reports where datagrams came to. Raises MissingPrerequisite.

    IPv6 is IPv6 alone, so that `0.0.0.0` and `::` may both be listened on.
    """
    is_ipv6 = ":" in host
    shown = f"[{host}]:{port}" if is_ipv6 else f"{host}:{port}"
    try:
        opened = socket.socket(
            socket.AF_INET6 if is_ipv6 else socket.AF_INET,
            socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        )
    except OSError as error:
        raise _cannot_listen(shown, error) from None
    try:
        if is_ipv6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        raise _cannot_listen(shown, error) from None
    return opened


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


def answer_ancillary(ancillary: _Ancillary) -> _Ancillary:
    """What sendmsg needs for the answer to leave from the address that the request came to.

    The interface is left to routing, as the way back may be another; not so for a link-local address, which means
    nothing without one. No answer can leave from a multicast address: routing chooses.
    """
    for level, kind, packed in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return [(level, kind, bytes(4) + packed[4:8] + bytes(4))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and packed[0] != _MULTICAST:
            is_link_local = packed[0] == _LINK_LOCAL and packed[1] & 0xC0 == 0x80
            return [(level, kind, packed if is_link_local else packed[:16] + bytes(4))]
    return []


def _dropped_datagrams(opened: socket.socket) -> int:
    """sock_diag(7), SK_MEMINFO_DROPS, modulo 2³². Asked once a batch; SO_RXQ_OVFL would be a message more with
    each datagram, and silent after the last."""
    size = 4 * (_SK_MEMINFO_DROPS + 1)
    return int(struct.unpack("=9I", opened.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, size))[_SK_MEMINFO_DROPS])


def _cannot_listen(shown: str, error: OSError) -> MissingPrerequisite:
    remedy = "change subscribers.radius.listen"
    if error.errno == errno.EADDRINUSE:
        return MissingPrerequisite(
            f"{shown} (RADIUS accounting) is in use by another program (a RADIUS server, another gatewayd)",
            f"stop it or {remedy}",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return MissingPrerequisite(
            f"{shown} (RADIUS accounting) is no address of this host", f"give it to an interface or {remedy}"
        )
    if error.errno == errno.EACCES:
        return MissingPrerequisite(
            f"{shown} (RADIUS accounting): a port below 1024 needs CAP_NET_BIND_SERVICE", f"use 1813 or {remedy}"
        )
    why = os.strerror(error.errno) if error.errno is not None else str(error)
    return MissingPrerequisite(f"cannot listen on {shown} (RADIUS accounting): {why}", remedy)
