"""HTTP: read only on TCP; on the Unix socket also what changes something.

Every answer is JSON but the metrics, errors included: `{"error": …}`, with `parameter` where one is to blame.
Both listeners are bound before either serves, so a fault at start leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import hdrs, web
from prometheus_client import ProcessCollector

from gatewayd.api.metrics import choose_type, render_metrics
from gatewayd.api.queries import (
    ParameterRejected,
    Queries,
    read_end,
    read_entries,
    read_flow,
    read_page,
    read_parameters,
    read_prefix,
    read_status,
)
from gatewayd.errors import (
    AllowlistIncomplete,
    GatewaydError,
    MissingPrerequisite,
    SessionEntryInvalid,
    SessionsNotKept,
)
from gatewayd.log import get_logger

SOCKET_MODE: Final = 0o660
_SHUTDOWN_TIMEOUT_S: Final = 1.0
_BACKLOG: Final = 128
_PAGE: Final = ("offset", "limit")
_MAX_SERIAL_DIGITS: Final = 19
MAX_BODY_BYTES: Final = 2 << 20
_NO_SUBSCRIBERS: Final = "the configuration has no section `subscribers`, so there are no bindings"

log = get_logger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_read_app(queries: Queries) -> web.Application:
    """What anyone who reaches the port may have; GET and HEAD alone."""
    app = web.Application(middlewares=[_answer_faults], client_max_size=MAX_BODY_BYTES)
    reads = _Reads(queries)
    app.router.add_get("/healthz", reads.healthz)
    app.router.add_get("/readyz", reads.readyz)
    app.router.add_get("/metrics", reads.metrics)
    app.router.add_get("/v1/status", reads.status)
    app.router.add_get("/v1/explain", reads.explain)
    app.router.add_get("/v1/registrations", reads.registrations)
    app.router.add_get("/v1/registrations/{id}", reads.registration)
    app.router.add_get("/v1/flows", reads.flows)
    app.router.add_get("/v1/bindings", reads.bindings)
    return app


def make_control_app(queries: Queries) -> web.Application:
    """The read app and what changes something; for the Unix socket."""
    app = make_read_app(queries)

    async def sync(request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        try:
            return _reply(request, await queries.sync())
        except GatewaydError as error:
            return _reply(request, {"error": str(error)}, 503)

    async def accept(request: web.Request) -> web.Response:
        serial = _read_serial(read_parameters(request.query.items(), ("serial",)))
        try:
            return _reply(request, await queries.accept(serial))
        except GatewaydError as error:
            return _reply(request, {"error": str(error)}, 409)

    async def put_bindings(request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        return await _answer_change(request, queries.put_bindings(read_entries(await request.read())))

    async def delete_binding(request: web.Request) -> web.Response:
        end = read_end(await request.read(), request.query.items())
        change = queries.delete_binding(end.get("nas"), end.get("session"), end.get("at"))
        return await _answer_change(request, change)

    app.router.add_put("/v1/bindings", put_bindings)
    app.router.add_delete("/v1/bindings", delete_binding)
    app.router.add_post("/v1/sync", sync)
    app.router.add_post("/v1/accept", accept)
    return app


def _read_serial(parameters: Mapping[str, str]) -> int:
    """The serial that an operator names. Raises ParameterRejected."""
    text = parameters.get("serial")
    if text is None:
        raise ParameterRejected("serial", "missing, expected for example serial=17")
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_SERIAL_DIGITS:
        raise ParameterRejected("serial", f"{text!r} is not the serial of a reading, `gatewayd status` shows it")
    return int(text)


async def _answer_change(request: web.Request, change: Awaitable[Mapping[str, object] | None]) -> web.Response:
    """What came of a change of bindings."""
    try:
        outcome = await change
    except SessionsNotKept as error:
        return _reply(request, {"error": str(error)}, 503)
    if outcome is None:
        return _reply(request, {"error": _NO_SUBSCRIBERS}, 409)
    return _reply(request, outcome)


class _Reads:
    """One handler a path: parameters in, a view out."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._process = ProcessCollector(registry=None)

    async def healthz(self, request: web.Request) -> web.Response:
        reason = self._queries.is_alive()
        if reason is None:
            return _reply(request, {"status": "ok"})
        return _reply(request, {"status": "failing", "reason": reason}, 503)

    async def readyz(self, request: web.Request) -> web.Response:
        reasons = self._queries.readiness()
        if not reasons:
            return _reply(request, {"ready": True})
        return _reply(request, {"ready": False, "reasons": reasons}, 503)

    async def metrics(self, request: web.Request) -> web.Response:
        content_type = choose_type(request.headers.get(hdrs.ACCEPT, ""))
        body = render_metrics(self._queries.status(), content_type, self._process)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    async def status(self, request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        return _reply(request, self._queries.status())

    async def explain(self, request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), ("src", "dst", "service", "sport", "source_port"))
        flow = read_flow(parameters)
        try:
            return _reply(request, self._queries.explain(flow))
        except AllowlistIncomplete as error:
            return _reply(request, {"error": str(error)}, 503)

    async def registrations(self, request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), ("category", "status", "q", *_PAGE))
        page = read_page(parameters)
        return _reply(
            request,
            self._queries.registrations(
                parameters.get("category"),
                read_status(parameters),
                parameters.get("q"),
                page.offset,
                page.limit,
            ),
        )

    async def registration(self, request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        registration_id = request.match_info["id"]
        view = self._queries.registration(registration_id)
        if view is None:
            return _reply(request, {"error": f"no registration has the id {registration_id[:64]!r}"}, 404)
        return _reply(request, view)

    async def flows(self, request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), ("registration", *_PAGE))
        page = read_page(parameters)
        return _reply(request, self._queries.flows(parameters.get("registration"), page.offset, page.limit))

    async def bindings(self, request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), ("registration", "address", *_PAGE))
        page = read_page(parameters)
        found = self._queries.bindings(
            parameters.get("registration"), read_prefix(parameters, "address"), page.offset, page.limit
        )
        if found is None:
            return _reply(request, {"error": _NO_SUBSCRIBERS}, 404)
        return _reply(request, found)


@web.middleware
async def _answer_faults(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """The boundary: what goes wrong below becomes JSON; what is our fault also goes to the log."""
    try:
        return await handler(request)
    except ParameterRejected as error:
        return _reply(request, {"error": str(error), "parameter": error.parameter}, 400)
    except SessionEntryInvalid as error:
        fault = {"error": str(error), "field": error.field, "reason": error.code}
        return _reply(request, fault if error.entry is None else fault | {"entry": error.entry}, 400)
    except web.HTTPRequestEntityTooLarge:
        return _reply(request, {"error": f"the body has more than {MAX_BODY_BYTES} bytes"}, 413)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        answer = _reply(request, {"error": f"{error.method} is not allowed here, expected {allowed}"}, 405)
        answer.headers[hdrs.ALLOW] = allowed
        return answer
    except web.HTTPNotFound:
        return _reply(request, {"error": f"there is no {request.path[:200]}"}, 404)
    except web.HTTPException:
        raise
    except Exception:
        log.exception("api.request_failed", method=request.method, path=request.path[:500])
        return _reply(request, {"error": "gatewayd failed to answer; its log says why"}, 500)


def _reply(request: web.Request, value: object, status: int = 200) -> web.Response:
    body = msgspec.json.encode(value)
    if "pretty" in request.query:
        body = msgspec.json.format(body, indent=2) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")


class ApiServer:
    """Serves `queries` on TCP (read only) and on a Unix socket. `port` 0: the kernel chooses one.

    Started and stopped once, by its owner.
    """

    def __init__(self, queries: Queries, host: str, port: int, socket_path: str) -> None:
        self._queries = queries
        self._host = host
        self._port = port
        self._socket_path = Path(socket_path)
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self._socket_identity: tuple[int, int] | None = None

    @property
    def port(self) -> int:
        """The TCP port that is bound; after `start`."""
        return self._port

    async def start(self) -> None:
        """Raises MissingPrerequisite when an address cannot be had; nothing listens then."""
        # TCP first: its port is the lock that keeps a second daemon off the socket of the first.
        tcp = bind_tcp(self._host, self._port)
        try:
            self._port = tcp.getsockname()[1]
            unix = bind_unix(self._socket_path)
        except BaseException:
            tcp.close()
            raise
        self._socket_identity = _identity(self._socket_path)
        loop = asyncio.get_running_loop()
        try:
            read = await self._run(make_read_app(self._queries))
            control = await self._run(make_control_app(self._queries))
            self._servers.append(await loop.create_server(read, sock=tcp))
            self._servers.append(await loop.create_unix_server(control, sock=unix))
        except BaseException:
            await self.stop()
            tcp.close()
            unix.close()
            raise

    async def stop(self) -> None:
        """Stop listening, let answers that are under way finish for a moment, remove our socket."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._socket_identity and _identity(self._socket_path) == self._socket_identity:
            self._socket_path.unlink(missing_ok=True)
        self._socket_identity = None
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _run(self, app: web.Application) -> web.Server:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        self._runners.append(runner)
        await runner.setup()
        assert runner.server is not None
        return runner.server


def bind_tcp(host: str, port: int) -> socket.socket:
    """A bound socket, listening. `host` is an IP address. Raises MissingPrerequisite."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise MissingPrerequisite(
                f"{shown} is in use by another program (perhaps another gatewayd)",
                "stop it or change http.listen",
            ) from None
        raise MissingPrerequisite(f"cannot listen on {shown}: {_why(error)}", "change http.listen") from None
    listener.setblocking(False)
    return listener


def bind_unix(path: Path) -> socket.socket:
    """A bound socket of mode SOCKET_MODE. One that nobody answers on is replaced. Raises MissingPrerequisite."""
    if not path.parent.is_dir():
        raise MissingPrerequisite(
            f"the directory {path.parent} of the socket {path} does not exist",
            "create it (systemd: RuntimeDirectory=) or change http.socket",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        # Before anyone can connect: until `listen` a connection is refused.
        path.chmod(SOCKET_MODE)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise MissingPrerequisite(
            f"cannot listen on {path}: {_why(error)}", "mend it or change http.socket"
        ) from None
    except MissingPrerequisite:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Take away a socket left behind by a daemon that is gone; never one that is answered, nor another file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise MissingPrerequisite(f"{path} exists and is not a socket", "move it away or change http.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody is there
    raise MissingPrerequisite(
        f"another program (perhaps another gatewayd) answers on {path}", "stop it or change http.socket"
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _why(error: OSError) -> str:
    """asyncio and `bind` make errors without an errno too (a path too long for sun_path)."""
    return os.strerror(error.errno) if error.errno else str(error)
