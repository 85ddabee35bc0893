"""A web server for a published directory, for labs and for an origin behind a CDN.

It answers for the names that a feed has (layout.py) and for nothing else, so there is no listing, no way out of
the directory and no temporary file to be had. aiohttp's FileResponse does ETag, If-None-Match, Range and HEAD.
Nothing is compressed on the way and the data files have no Content-Encoding: their hashes are of what is sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from gatewayd.authority.layout import FILE_PATTERN, NOTIFICATION, SERIAL_PATTERN, SESSION_PATTERN
from gatewayd.errors import RegistryUnusable

NOTIFICATION_HEADERS: Final = {"Content-Type": "application/jose", "Cache-Control": "no-cache"}
"""RFC 7515 §9.2.1. To be asked for anew each time, by caches too; the ETag makes that cheap."""
DATA_HEADERS: Final = {"Content-Type": "application/gzip", "Cache-Control": "public, max-age=3600"}
"""RFC 6713. As long as the grace period: what is cached longer than it is there helps nobody."""

STOP_TIMEOUT_S: Final = 10.0
"""For downloads that are under way when the server is told to stop."""


class HttpLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's, without bytes that are no HTTP request: a traceback for each would let any client fill the log."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """debug() and exception() come by here."""
        if not isinstance(kwargs.get("exc_info"), HttpProcessingError):
            super().log(level, msg, *args, **kwargs)


def make_app(directory: Path) -> web.Application:
    """Serves `directory` as it is at each request."""

    async def notification(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(directory / NOTIFICATION, headers=NOTIFICATION_HEADERS)

    async def data_file(request: web.Request) -> web.StreamResponse:
        parts = request.match_info
        return web.FileResponse(
            directory / parts["session"] / parts["serial"] / parts["file"], headers=DATA_HEADERS
        )

    app = web.Application()
    app.router.add_get(f"/{NOTIFICATION}", notification)
    app.router.add_get(
        f"/{{session:{SESSION_PATTERN}}}/{{serial:{SERIAL_PATTERN}}}/{{file:{FILE_PATTERN}}}", data_file
    )
    return app


@asynccontextmanager
async def serving(directory: Path, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """A running server and the address it listens on (`port` 0: any). On leaving, downloads may end.

    Raises RegistryUnusable if it cannot listen or there is nothing published.
    """
    if not (directory / NOTIFICATION).is_file():
        raise RegistryUnusable(str(directory), f"has no {NOTIFICATION}; `gatewayd registry publish` makes one")
    http_log = HttpLog(logging.getLogger("aiohttp.server"))
    app = make_app(directory)
    runner = web.AppRunner(app, access_log=None, logger=http_log, shutdown_timeout=STOP_TIMEOUT_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise RegistryUnusable(f"{host}:{port}", error.strerror or str(error)) from None
        bound = runner.addresses[0]
        yield str(bound[0]), int(bound[1])
    finally:
        await runner.cleanup()


async def serve_until(
    directory: Path, host: str, port: int, stop: asyncio.Event, on_ready: Callable[[str, int], None]
) -> None:
    """Serves until `stop` is set; `on_ready` is called with the address once it listens."""
    async with serving(directory, host, port) as (bound_host, bound_port):
        on_ready(bound_host, bound_port)
        await stop.wait()
