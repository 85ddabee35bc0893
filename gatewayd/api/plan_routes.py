"""A plan over HTTP: on the Unix socket alone, for it takes time of the daemon."""

from __future__ import annotations

from aiohttp import web

from gatewayd.api.middleware import reply
from gatewayd.api.queries import Queries, read_parameters, read_plan
from gatewayd.errors import GatewaydError


def add_plan(app: web.Application, queries: Queries) -> None:
    async def plan(request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        asked = read_plan(await request.read())
        try:
            return reply(request, await queries.plan(asked))
        except GatewaydError as error:
            return reply(request, {"error": str(error)}, 503)

    app.router.add_post("/v1/plan", plan)
