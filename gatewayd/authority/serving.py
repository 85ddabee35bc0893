"""A web server for a published directory, for labs and for an origin behind a CDN.

It answers for the names that a feed has (layout.py) and for nothing else, so there is no listing, no way out of
the directory and no temporary file to be had. aiohttp's FileResponse does ETag, If-None-Match, Range and HEAD.
Nothing is compressed on the way and the data files have no Content-Encoding: their hashes are of what is sent.

Connections, requests and answers are bounded as those of the daemon's API are (`listen.connections`). So a client
that sends no request, or does not read, holds a connection for a while and no other client up.
"""

from __future__ import annotations

import asyncio
import os
import socket  # noqa: TID251 - the listening socket, whose connections are bounded
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gatewayd.authority.layout import FILE_PATTERN, NOTIFICATION, SERIAL_PATTERN, SESSION_PATTERN
from gatewayd.errors import RegistryUnusable
from gatewayd.listen.connections import Acceptor, ConnectionLimits, Connections

NOTIFICATION_HEADERS: Final = {"Content-Type": "application/jose", "Cache-Control": "no-cache"}
"""RFC 7515 §9.2.1. To be asked for anew each time, by caches too; the ETag makes that cheap."""
DATA_HEADERS: Final = {"Content-Type": "application/gzip", "Cache-Control": "public, max-age=3600"}
"""RFC 6713. As long as the grace period: what is cached longer than it is there helps nobody."""

STOP_TIMEOUT_S: Final = 10.0
"""For downloads that are under way when the server is told to stop."""


LIMITS: Final = ConnectionLimits(connections=256, of_peer=32, wait_s=10.0, answer_s=600.0)
"""A download may take as long as a gateway waits for one. Some gateways may stand behind one address."""
MAX_BODY_BYTES: Final = 1024
"""Of a request; none of those that are answered has a body."""
_BACKLOG: Final = 128


@dataclass(slots=True)
class ServerCounts:
    """As `listen.connections.ConnectionStats` has them."""

    name: str = "registry"
    is_listening: bool = False
    connections: int = 0
    accepted: int = 0
    timed_out: int = 0
    evicted: int = 0
    refused: int = 0
    malformed: int = 0
    paused: int = 0


class _Download(web.FileResponse):
    """A file that is sent within `limit_s`; a client that does not read it by then is let go."""

    def __init__(
        self, path: Path, headers: dict[str, str], connections: Connections, limit_s: float | None
    ) -> None:
        super().__init__(path, headers=headers)
        self._connections = connections
        self._limit_s = limit_s

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Sends all of it. The time is bounded here: `Connections` would close the socket under sendfile(2)."""
        with self._connections.answering(request.protocol, has_end=False):
            try:
                async with asyncio.timeout(self._limit_s):
                    return await super().prepare(request)
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError("the client did not read the file in time") from None


def make_app(directory: Path, connections: Connections, limit_s: float | None = None) -> web.Application:
    """Serves `directory` as it is at each request. `limit_s`: for one download."""

    def download(relative: str, headers: dict[str, str]) -> web.StreamResponse:
        path = directory.resolve() / relative
        if path.resolve() != path:  # a link leads out of what was published, to the key perhaps
            raise web.HTTPNotFound
        return _Download(path, headers, connections, limit_s)

    async def notification(_: web.Request) -> web.StreamResponse:
        return download(NOTIFICATION, NOTIFICATION_HEADERS)

    async def data_file(request: web.Request) -> web.StreamResponse:
        parts = request.match_info
        return download(f"{parts['session']}/{parts['serial']}/{parts['file']}", DATA_HEADERS)

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_get(f"/{NOTIFICATION}", notification)
    app.router.add_get(
        f"/{{session:{SESSION_PATTERN}}}/{{serial:{SERIAL_PATTERN}}}/{{file:{FILE_PATTERN}}}", data_file
    )
    return app


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise RegistryUnusable(f"{host}:{port}", os.strerror(error.errno) if error.errno else str(error)) from None
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def serving(
    directory: Path, host: str, port: int, limits: ConnectionLimits = LIMITS, counts: ServerCounts | None = None
) -> AsyncIterator[tuple[str, int]]:
    """A running server and the address it listens on (`port` 0: any). On leaving, downloads may end.

    `limits.answer_s`: for one download. Raises RegistryUnusable if it cannot listen or there is nothing published.
    """
    if not (directory / NOTIFICATION).is_file():
        raise RegistryUnusable(str(directory), f"has no {NOTIFICATION}; `gatewayd registry publish` makes one")
    counts = counts or ServerCounts()
    connections = Connections(limits, counts)
    runner = web.AppRunner(
        make_app(directory, connections, limits.answer_s), access_log=None, shutdown_timeout=STOP_TIMEOUT_S
    )
    await runner.setup()
    assert runner.server is not None
    tasks: list[asyncio.Task[None]] = []
    try:
        listener = _listening(host, port)
        acceptor = Acceptor(listener, runner.server, connections, counts, None, limits.wait_s)
        tasks += [asyncio.create_task(acceptor.run()), asyncio.create_task(acceptor.tend())]
        bound = listener.getsockname()
        try:
            yield str(bound[0]), int(bound[1])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            acceptor.close()
    finally:
        await runner.cleanup()


async def serve_until(
    directory: Path, host: str, port: int, stop: asyncio.Event, on_ready: Callable[[str, int], None]
) -> None:
    """Serves until `stop` is set; `on_ready` is called with the address once it listens."""
    async with serving(directory, host, port) as (bound_host, bound_port):
        on_ready(bound_host, bound_port)
        await stop.wait()
