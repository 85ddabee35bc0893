"""Connections of an HTTP server, bounded in number and time: of the daemon's API, and of `registry serve`.

Connections are accepted here and not by the loop, which has no bound: a local user could open them until no file is
left for the rest of the daemon. At a bound the connection that has waited longest makes room. So a fresh request is
served while others hold connections without an end. When files run out, the daemon gives back some that it keeps
for its Unix socket.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket  # noqa: TID251 - accepting is all this module is for
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import itemgetter
from struct import Struct
from typing import Any, Final, Protocol

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from gatewayd.log import RateLimited, get_logger

RESERVED_FILES: Final = 8
_TEND_S: Final = 1.0
_PAUSE_S: Final = 0.1
"""Before the next connection is accepted, where there was no file for this one."""
_LOG_INTERVAL_S: Final = 60.0
_CREDENTIALS: Final = Struct("3i")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """`of_peer`: of one IPv4 address or IPv6 /64. `wait_s`: for the whole header of a request, for the next
    request, and for a client that does not read. `answer_s`: for the handler of a request; None: no bound."""

    connections: int = 128
    of_peer: int = 64
    wait_s: float = 10.0
    answer_s: float | None = 60.0


class ConnectionStats(Protocol):
    """What is counted of a listener; `gatewayd.api.process.ListenerView` has the meanings."""

    is_listening: bool
    connections: int
    accepted: int
    timed_out: int
    evicted: int
    refused: int
    malformed: int
    paused: int

    @property
    def name(self) -> str: ...


class HttpLog(logging.LoggerAdapter[logging.Logger]):
    """The log of aiohttp for a listener. Bytes that are no HTTP request are the client's fault: they are counted.

    aiohttp would log a traceback for each, with some of the bytes. So any client could fill the log, or put a
    mobile number there.
    """

    def __init__(self, stats: ConnectionStats) -> None:
        super().__init__(logging.getLogger("aiohttp.server"))
        self._stats = stats

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """debug() and exception() come by here."""
        if isinstance(kwargs.get("exc_info"), HttpProcessingError | RequestPayloadError):
            self._stats.malformed += 1
        else:
            super().log(level, msg, *args, **kwargs)


class HttpProtocol(web.RequestHandler):
    """aiohttp's, without the bytes of a client in the answer that they are no request: a number may be in them."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        return super().handle_error(request, status, exc, message and "not an HTTP request\n")


class ReservedFiles:
    """Descriptors that are open for nothing, to be given back where no other is to be had."""

    def __init__(self, number: int = RESERVED_FILES) -> None:
        self._number = number
        self._held: list[int] = []
        self.restore()

    def lend(self) -> bool:
        """Whether a file may be opened now."""
        if self._held:
            os.close(self._held.pop())
            return True
        return False

    def restore(self) -> None:
        """Take back what was given, as far as there are files."""
        with suppress(OSError):
            while len(self._held) < self._number:
                self._held.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        self._number = 0
        while self.lend():
            pass


@dataclass(slots=True)
class _Connection:
    """`since_s`: when it began to wait, or the answer began; by the monotonic clock."""

    transport: asyncio.Transport
    peer: str
    user_id: int | None
    since_s: float
    is_answered: bool = False
    has_end: bool = True


class Connections:
    """The open connections of one listener, within its limits. `stats` are this object's to change."""

    def __init__(self, limits: ConnectionLimits, stats: ConnectionStats) -> None:
        self._limits = limits
        self._stats = stats
        self._open: dict[object, _Connection] = {}

    @contextmanager
    def answering(self, protocol: object, *, has_end: bool = True) -> Iterator[int | None]:
        """While a request of this connection is handled. The client's user id, where the kernel says it.

        `has_end`: False of an answer that bounds itself, as a stream does."""
        connection = self._open.get(protocol)
        if connection is not None:
            connection.since_s, connection.is_answered = time.monotonic(), True
            connection.has_end = has_end
        try:
            yield None if connection is None else connection.user_id
        finally:
            if connection is not None:
                connection.since_s, connection.is_answered = time.monotonic(), False

    def add(self, protocol: object, transport: asyncio.Transport, peer: str, user_id: int | None) -> None:
        self._open[protocol] = _Connection(transport, peer, user_id, time.monotonic())
        self._stats.connections = len(self._open)
        self._stats.accepted += 1

    def make_room(self, peer: str) -> bool:
        """Whether one more may be served. The connection that has waited longest gives way, of this peer first."""
        rivals = [(each.since_s, name) for name, each in self._open.items() if each.peer == peer]
        if len(rivals) < self._limits.of_peer:
            if len(self._open) < self._limits.connections:
                return True
            rivals = [(each.since_s, name) for name, each in self._open.items()]
        waiting = [rival for rival in rivals if not self._open[rival[1]].is_answered]
        if not waiting:
            self._stats.refused += 1
            return False
        self._stats.evicted += 1
        self._drop(min(waiting, key=itemgetter(0))[1])
        return True

    def end_late(self, now_s: float) -> None:
        """End the connections whose time is over."""
        for protocol, each in list(self._open.items()):
            limit_s = self._limits.answer_s if each.is_answered else self._limits.wait_s
            if each.is_answered and not each.has_end:
                continue
            if limit_s is not None and now_s - each.since_s > limit_s:
                self._stats.timed_out += 1
                self._drop(protocol)

    def keep(self, protocols: Iterable[object]) -> None:
        """Forget those that are closed; these are not."""
        self._open = {name: self._open[name] for name in protocols if name in self._open}
        self._stats.connections = len(self._open)

    def _drop(self, protocol: object) -> None:
        self._open.pop(protocol).transport.abort()


class Acceptor:
    """Accepts the connections of a listening socket for `server`. `reserve`: files for when there are no others."""

    def __init__(
        self,
        listener: socket.socket,
        server: web.Server,
        connections: Connections,
        stats: ConnectionStats,
        reserve: ReservedFiles | None,
        keepalive_s: float,
    ) -> None:
        self._listener = listener
        self._server = server
        self._keepalive_s = keepalive_s
        self._connections = connections
        self._stats = stats
        self._reserve = reserve
        stats.is_listening = True
        self._log = RateLimited(log, _LOG_INTERVAL_S, time.monotonic)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(self._listener)
            except OSError as error:
                await self._pause(error)
            else:
                await self._take(accepted, _peer_of(address))

    def close(self) -> None:
        """Listen no more; `run` has ended."""
        self._stats.is_listening = False
        self._listener.close()

    async def tend(self) -> None:
        """End connections on time, and take files back. Until cancelled."""
        while True:
            await asyncio.sleep(_TEND_S)
            self._connections.keep(self._server.connections)
            self._connections.end_late(time.monotonic())
            if self._reserve is not None:
                self._reserve.restore()

    async def _take(self, accepted: socket.socket, peer: str) -> None:
        self._connections.keep(self._server.connections)
        if not self._connections.make_room(peer):
            accepted.close()
            return
        accepted.setblocking(False)
        user_id = _user_of(accepted)
        try:
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.connect_accepted_socket(self._protocol, accepted)
        except OSError:  # it is gone already
            accepted.close()
            return
        self._connections.add(protocol, transport, peer, user_id)

    def _protocol(self) -> HttpProtocol:
        options: dict[str, Any] = {
            "keepalive_timeout": self._keepalive_s,
            "access_log": None,
            "logger": HttpLog(self._stats),
        }
        return HttpProtocol(self._server, loop=asyncio.get_running_loop(), **options)

    async def _pause(self, error: OSError) -> None:
        if error.errno == errno.ECONNABORTED:
            return
        self._stats.paused += 1
        self._log.error("api.no_files", listener=self._stats.name, error=error.strerror or str(error))
        if self._reserve is None or not self._reserve.lend():
            await asyncio.sleep(_PAUSE_S)


def _user_of(accepted: socket.socket) -> int | None:
    """Of a Unix socket: who connected, as the kernel knows it (unix(7), SO_PEERCRED: pid, uid, gid)."""
    if accepted.family != socket.AF_UNIX:
        return None
    found = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user_id: int = _CREDENTIALS.unpack(found)[1]
    return user_id


def _peer_of(address: object) -> str:
    """Those that share a bound: an IPv4 address, an IPv6 /64; all of a Unix socket."""
    if not isinstance(address, tuple):
        return ""
    found = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if found.version == 4 or found.ipv4_mapped is not None:
        return str(found)
    return str(ipaddress.IPv6Network((found, 64), strict=False))
