"""The handlers of what only reads, on either listener: parameters in, a view out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web
from prometheus_client import ProcessCollector

from gatewayd.api.metrics import choose_type, render_metrics
from gatewayd.api.middleware import reply
from gatewayd.api.queries import (
    ParameterRejected,
    Queries,
    read_flag,
    read_flow,
    read_impact_question,
    read_page,
    read_parameters,
    read_prefix,
    read_since,
    read_status,
)
from gatewayd.errors import AllowlistIncomplete, GatewaydError

_PAGE: Final = ("offset", "limit")
_SELECTION: Final = ("category", "status", "q", "registrant", "ending", "provisional", *_PAGE)
_MAX_ENDING_S: Final = 100 * 366 * 86_400
_FLOW: Final = ("src", "dst", "service", "sport", "source_port")
NO_SUBSCRIBERS: Final = "the configuration has no section `subscribers`, so there are no bindings"


class Reads:
    """One handler a path: parameters in, a view out."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._process = ProcessCollector(registry=None)

    async def healthz(self, request: web.Request) -> web.Response:
        reason = self._queries.is_alive()
        if reason is None:
            return reply(request, {"status": "ok"})
        return reply(request, {"status": "failing", "reason": reason}, 503)

    async def readyz(self, request: web.Request) -> web.Response:
        reasons = self._queries.outage()
        if not reasons:
            return reply(request, {"ready": True})
        return reply(request, {"ready": False, "reasons": reasons}, 503)

    async def metrics(self, request: web.Request) -> web.Response:
        content_type = choose_type(request.headers.get(hdrs.ACCEPT, ""))
        body = render_metrics(self._queries.status(), content_type, self._process)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    async def status(self, request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        return reply(request, self._queries.status())

    async def history(self, request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        return reply(request, self._queries.history())

    async def explain(self, request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), (*_FLOW, "in", "out"))
        flow = read_flow(parameters)
        try:
            return reply(request, self._queries.explain(flow, parameters.get("in"), parameters.get("out")))
        except AllowlistIncomplete as error:
            return reply(request, {"error": str(error)}, 503)

    async def registrations(self, request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), _SELECTION)
        page = read_page(parameters)
        return reply(
            request,
            await self._queries.registrations(
                parameters.get("category"),
                read_status(parameters),
                parameters.get("q"),
                page.offset,
                page.limit,
                registrant=parameters.get("registrant"),
                ending_s=_read_ending(parameters),
                provisional=read_flag(parameters, "provisional"),
            ),
        )

    async def registration(self, request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        registration_id = request.match_info["id"]
        view = self._queries.registration(registration_id)
        if view is None:
            return reply(request, {"error": f"no registration has the id {registration_id[:64]!r}"}, 404)
        return reply(request, view)

    async def held(self, request: web.Request) -> web.Response:
        page = read_page(read_parameters(request.query.items(), _PAGE))
        return reply(request, self._queries.held(page.offset, page.limit))

    async def changes(self, request: web.Request) -> web.Response:
        since_s = read_since(read_parameters(request.query.items(), ("since",)))
        return reply(request, self._queries.changes(since_s))

    async def rejected(self, request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), ("source", *_PAGE))
        page = read_page(parameters)
        return reply(request, self._queries.rejected(parameters.get("source"), page.offset, page.limit))

    async def near_misses(self, request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), ("all", *_PAGE))
        page = read_page(parameters)
        with_acknowledged = parameters.get("all", "0") != "0"
        found = self._queries.near_misses(page.offset, page.limit, with_acknowledged=with_acknowledged)
        return reply(request, found)

    async def flows(self, request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), ("registration", *_PAGE))
        page = read_page(parameters)
        return reply(request, self._queries.flows(parameters.get("registration"), page.offset, page.limit))

    async def impact(self, request: web.Request) -> web.Response:
        question = read_impact_question(read_parameters(request.query.items(), ("since", "top", "canary")))
        try:
            return reply(request, await self._queries.impact(*question))
        except GatewaydError as error:
            return reply(request, {"error": str(error)}, 503)

    async def bindings(self, request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), ("registration", "address", *_PAGE))
        page = read_page(parameters)
        found = self._queries.bindings(
            parameters.get("registration"), read_prefix(parameters, "address"), page.offset, page.limit
        )
        if found is None:
            return reply(request, {"error": NO_SUBSCRIBERS}, 404)
        return reply(request, found)


def _read_ending(parameters: Mapping[str, str]) -> float | None:
    """`ending` in seconds; None: not asked. Raises ParameterRejected."""
    text = parameters.get("ending")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= _MAX_ENDING_S:
        raise ParameterRejected("ending", f"{text[:20]!r} is no number of seconds")
    return float(text)
