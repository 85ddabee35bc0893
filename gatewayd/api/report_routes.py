"""The paths about months: `/v1/report`, `/v1/activity`, `/v1/verify`. All of them are lists."""

from __future__ import annotations

from aiohttp import web

from gatewayd.api.middleware import Gate, reply
from gatewayd.api.queries import Queries, read_page, read_parameters, read_since
from gatewayd.errors import GatewaydError


def add_report_reads(app: web.Application, queries: Queries, lists: Gate) -> None:
    async def report(request: web.Request) -> web.Response:
        since_s = read_since(read_parameters(request.query.items(), ("since",)))
        return reply(request, await queries.report(since_s))

    async def activity(request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), ("since", "registration", "offset", "limit"))
        page, id = read_page(parameters), parameters.get("registration")
        try:
            return reply(request, await queries.activity(read_since(parameters), id, page.offset, page.limit))
        except GatewaydError as error:
            return reply(request, {"error": str(error)}, 503)

    async def verify(request: web.Request) -> web.Response:
        parameters = read_parameters(request.query.items(), ("since", "offset", "limit"))
        page = read_page(parameters)
        return reply(request, await queries.verify(read_since(parameters), page.offset, page.limit))

    app.router.add_get("/v1/report", lists.one_at_a_time(report))
    app.router.add_get("/v1/activity", lists.one_at_a_time(activity))
    app.router.add_get("/v1/verify", lists.one_at_a_time(verify))
