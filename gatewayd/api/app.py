"""HTTP: read only on TCP; on the Unix socket also what changes something.

Every answer is JSON but the metrics and the stream of events, errors included: `{"error": …}`, with `parameter`
where one is to blame.
Both listeners are bound before either serves, so a fault at start leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from gatewayd.api.arming_routes import add_changes, add_reads
from gatewayd.api.listening import bind_tcp, bind_unix, identity_of
from gatewayd.api.middleware import (
    EVENTS_PATH,
    MAX_BODY_BYTES,
    Gate,
    add_security_headers,
    answer_faults,
    check_host,
    client_user,
    note_answers,
    reply,
)
from gatewayd.api.plan_routes import add_plan
from gatewayd.api.process import ListenerView
from gatewayd.api.queries import (
    ParameterRejected,
    Queries,
    read_end,
    read_entries,
    read_flag,
    read_page,
    read_parameters,
    read_until,
)
from gatewayd.api.reads import NO_SUBSCRIBERS, Reads
from gatewayd.api.report_routes import add_report_reads
from gatewayd.api.streaming import EventStreams
from gatewayd.errors import (
    GatewaydError,
    SessionsNotKept,
)
from gatewayd.listen.connections import Acceptor, ConnectionLimits, Connections, ReservedFiles
from gatewayd.log import get_logger
from gatewayd.log.tap import TAP, EventTap

PORT_RETRY_S: Final = 2.0
SHORT_WAITING: Final = 64
LISTS_WAITING: Final = 16
LIMITS: Final = ConnectionLimits()
_SHUTDOWN_TIMEOUT_S: Final = 1.0
_PAGE: Final = ("offset", "limit")
_FLOW: Final = ("src", "dst", "service", "sport", "source_port")
_MAX_SERIAL_DIGITS: Final = 19
_NO_FLOWS: Final = "unregistered flows are not kept: watch.unregistered is not `flows`"

log = get_logger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
AddPages = Callable[[web.Application, Gate, Gate], None]
"""Takes the app, the gate of what is short, and that of lists."""


def make_read_app(
    queries: Queries,
    stats: ListenerView,
    names: Sequence[str] | None = None,
    events: EventTap = TAP,
    pages: AddPages | None = None,
) -> web.Application:
    """What anyone who reaches the port may have; GET and HEAD alone. `names`: of this host; None: any is taken.
    `pages`: adds paths for people.

    A list may be a scan: one is made at a time, and one of what is short. A flood leaves others their turn.
    """
    streams = EventStreams(events, stats)
    short, lists = Gate(SHORT_WAITING, stats), Gate(LISTS_WAITING, stats)
    checks = [] if names is None else [check_host(names)]
    app = web.Application(middlewares=[answer_faults, *checks], client_max_size=MAX_BODY_BYTES)
    reads = Reads(queries)
    app.router.add_get("/healthz", reads.healthz)
    app.router.add_get("/readyz", reads.readyz)
    app.router.add_get("/metrics", short.one_at_a_time(reads.metrics))
    app.router.add_get("/v1/status", short.one_at_a_time(reads.status))
    app.router.add_get("/v1/history", short.one_at_a_time(reads.history))
    app.router.add_get("/v1/explain", short.one_at_a_time(reads.explain))
    app.router.add_get("/v1/registrations", lists.one_at_a_time(reads.registrations))
    app.router.add_get("/v1/registrations/{id}", short.one_at_a_time(reads.registration))
    app.router.add_get("/v1/held", lists.one_at_a_time(reads.held))
    app.router.add_get("/v1/changes", lists.one_at_a_time(reads.changes))
    app.router.add_get("/v1/rejected", lists.one_at_a_time(reads.rejected))
    app.router.add_get("/v1/near-misses", lists.one_at_a_time(reads.near_misses))
    app.router.add_get("/v1/flows", lists.one_at_a_time(reads.flows))
    app.router.add_get("/v1/impact", lists.one_at_a_time(reads.impact))
    app.router.add_get("/v1/bindings", lists.one_at_a_time(reads.bindings))
    add_reads(app, queries.arming)
    add_report_reads(app, queries, lists)
    app.router.add_get(EVENTS_PATH, streams.serve, allow_head=False)
    if pages is not None:
        pages(app, short, lists)
    app.on_response_prepare.append(add_security_headers)
    app.on_shutdown.append(streams.close)
    return app


def make_control_app(queries: Queries, stats: ListenerView, events: EventTap = TAP) -> web.Application:
    """The read app and what changes something; for the Unix socket."""
    app = make_read_app(queries, stats, events=events)

    async def sync(request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        try:
            return reply(request, await queries.sync())
        except GatewaydError as error:
            return reply(request, {"error": str(error)}, 503)

    async def unregistered_flows(request: web.Request) -> web.Response:
        page = read_page(read_parameters(request.query.items(), _PAGE))
        found = queries.unregistered_flows(page.offset, page.limit)
        return reply(request, {"error": _NO_FLOWS}, 404) if found is None else reply(request, found)

    async def reload(request: web.Request) -> web.Response:
        is_forced = read_flag(read_parameters(request.query.items(), ("force",)), "force")
        return reply(request, await queries.reload(f"uid {client_user()}", is_forced=is_forced))

    async def accept(request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), ("serial", "force"))
        serial, is_forced = _read_serial(parameters), read_flag(parameters, "force")
        try:
            return reply(request, await queries.accept(serial, f"uid {client_user()}", is_forced=is_forced))
        except GatewaydError as error:
            return reply(request, {"error": str(error)}, 409)

    async def put_bindings(request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        return await _answer_change(request, queries.put_bindings(read_entries(await request.read())))

    async def delete_binding(request: web.Request) -> web.Response:
        end = read_end(await request.read(), request.query.items())
        change = queries.delete_binding(end.get("nas"), end.get("session"), end.get("at"))
        return await _answer_change(request, change)

    app.router.add_get("/v1/flows/unregistered", unregistered_flows)
    app.router.add_put("/v1/bindings", put_bindings)
    app.router.add_delete("/v1/bindings", delete_binding)
    app.router.add_post("/v1/sync", sync)
    app.router.add_post("/v1/reload", reload)
    add_plan(app, queries)
    app.router.add_post("/v1/accept", accept)
    app.router.add_post("/v1/near-misses/acknowledge", partial(_acknowledge, queries))
    add_changes(app, queries.arming)
    return app


async def _acknowledge(queries: Queries, request: web.Request) -> web.Response:
    parameters = read_parameters(request.query.items(), ("id", "until"))
    if "id" not in parameters:
        raise ParameterRejected("id", "missing, expected the id of a registration")
    outcome = await queries.acknowledge(parameters["id"], read_until(parameters), f"uid {client_user()}")
    if outcome["lines"]:
        return reply(request, outcome)
    return reply(request, {"error": f"no near misses of {parameters['id'][:64]!r} are known"}, 404)


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
        return reply(request, {"error": str(error)}, 503)
    if outcome is None:
        return reply(request, {"error": NO_SUBSCRIBERS}, 409)
    return reply(request, outcome)


class ApiServer:
    """Serves `queries` on TCP (read only) and on a Unix socket. `port` 0: the kernel chooses one.

    A port that another program has is tried again and again: that program keeps the answers away, not the daemon.
    Started and stopped once, by its owner.
    """

    def __init__(
        self,
        queries: Queries,
        host: str,
        port: int,
        socket_path: str,
        *,
        names: Sequence[str] = (),
        limits: ConnectionLimits = LIMITS,
        listeners: tuple[ListenerView, ListenerView] | None = None,
        events: EventTap = TAP,
        pages: AddPages | None = None,
    ) -> None:
        """`names`: host names that a request on TCP may be for, beside addresses and localhost. `pages`: adds paths
        for people, to TCP alone."""
        self._pages = pages
        self._events = events
        self._queries = queries
        self._address = (host, port)
        self._socket_path = Path(socket_path)
        self._names = names
        self._limits = limits
        self._tcp, self._unix = listeners or (ListenerView("tcp"), ListenerView("unix"))
        self._reserve = ReservedFiles()
        self._runners: list[web.AppRunner] = []
        self._acceptors: list[Acceptor] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._socket_identity: tuple[int, int] | None = None

    @property
    def port(self) -> int:
        """The TCP port that is bound; after `start`."""
        return self._address[1]

    async def start(self) -> None:
        """Raises MissingPrerequisite when an address cannot be had; nothing listens then."""
        unix = bind_unix(self._socket_path)
        self._socket_identity = identity_of(self._socket_path)
        tcp: socket.socket | None = None
        try:
            tcp = bind_tcp(*self._address)
            patient = replace(self._limits, answer_s=None)  # a sync asks sources, and waits for the kernel
            await self._serve(make_control_app(self._queries, self._unix, self._events), unix, patient, self._unix)
            if tcp is None:
                log.error("api.port_taken", host=self._address[0], port=self._address[1])
                self._tasks.append(asyncio.create_task(self._wait_for_port(), name="api port"))
            else:
                await self._serve_tcp(tcp)
        except BaseException:
            unix.close()
            if tcp is not None:
                tcp.close()
            await self.stop()
            raise

    async def _wait_for_port(self) -> None:
        while (tcp := bind_tcp(*self._address)) is None:  # noqa: ASYNC110 - there is no event of a free port
            await asyncio.sleep(PORT_RETRY_S)
        await self._serve_tcp(tcp)

    async def _serve_tcp(self, tcp: socket.socket) -> None:
        self._address = (self._address[0], tcp.getsockname()[1])
        app = make_read_app(self._queries, self._tcp, self._names, self._events, self._pages)
        await self._serve(app, tcp, self._limits, self._tcp)
        log.info("api.listening", host=self._address[0], port=self.port, socket=str(self._socket_path))

    async def _serve(
        self, app: web.Application, listener: socket.socket, limits: ConnectionLimits, stats: ListenerView
    ) -> None:
        connections = Connections(limits, stats)
        app.middlewares.insert(0, note_answers(connections))
        runner = web.AppRunner(app, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        self._runners.append(runner)
        await runner.setup()
        assert runner.server is not None
        reserve = self._reserve if stats is self._unix else None
        acceptor = Acceptor(listener, runner.server, connections, stats, reserve, limits.wait_s)
        self._acceptors.append(acceptor)
        self._tasks.append(asyncio.create_task(acceptor.run(), name=f"api {stats.name}"))
        self._tasks.append(asyncio.create_task(acceptor.tend(), name=f"api {stats.name} connections"))

    async def stop(self) -> None:
        """Stop listening, let answers that are under way finish for a moment, remove our socket."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()
        if self._socket_identity and identity_of(self._socket_path) == self._socket_identity:
            self._socket_path.unlink(missing_ok=True)
        self._socket_identity = None
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()
        self._reserve.close()
