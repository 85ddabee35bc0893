"""Changes of the mode over HTTP: what is pending is for all who may read, and what changes it on the Unix socket
alone. Each change answers with all of it, as it is then; a refusal is 409 and one sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, cast, get_args

from aiohttp import web

from gatewayd.api.arming import ArmingQueries, ModeRequest
from gatewayd.api.middleware import client_user, reply
from gatewayd.api.queries import ParameterRejected, read_parameters
from gatewayd.errors import InputRejected
from gatewayd.model import Mode
from gatewayd.model.msisdn import may_name_person

MAX_CANARY: Final = 100
MAX_TIMER_S: Final = 366 * 86400
_MODE: Final = ("mode", "canary", "confirm", "for", "comment", "force")

_Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_reads(app: web.Application, arming: ArmingQueries) -> None:
    async def trial(request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        return reply(request, arming.view())

    async def report(request: web.Request) -> web.Response:
        read_parameters(request.query.items(), ())
        page = await arming.report()
        if page is None:
            return reply(request, {"error": "no trial has ended unconfirmed, so there is no report"}, 404)
        return web.Response(body=page, content_type="text/html", charset="utf-8")

    app.router.add_get("/v1/trial", trial)
    app.router.add_get("/v1/trial/report", report)


def add_changes(app: web.Application, arming: ArmingQueries) -> None:
    async def answer(request: web.Request, change: Awaitable[None]) -> web.Response:
        try:
            await change
        except ParameterRejected:
            raise
        except InputRejected as error:
            return reply(request, {"error": str(error)}, 409)
        return reply(request, arming.view())

    async def mode(request: web.Request) -> web.Response:
        return await answer(request, arming.set_mode(read_mode(request.query.items(), f"uid {client_user()}")))

    def command(change: Callable[[str], Awaitable[None]]) -> _Answer:
        async def handler(request: web.Request) -> web.Response:
            read_parameters(request.query.items(), ())
            return await answer(request, change(f"uid {client_user()}"))

        return handler

    app.router.add_post("/v1/mode", mode)
    app.router.add_post("/v1/confirm", command(arming.confirm))
    app.router.add_post("/v1/revert", command(arming.revert))
    app.router.add_post("/v1/rearm", command(arming.rearm))
    app.router.add_post("/v1/trial/ack", command(arming.acknowledge))


def read_mode(pairs: Iterable[tuple[str, str]], by: str) -> ModeRequest:
    """Raises ParameterRejected."""
    parameters = read_parameters(pairs, _MODE)
    text = parameters.get("mode", "")
    if text not in get_args(Mode):
        raise ParameterRejected("mode", f"{text!r} is none of {', '.join(get_args(Mode))}")
    if "confirm" in parameters and "for" in parameters:
        raise ParameterRejected("for", "confirm is given too, and a trial has one end")
    comment = parameters.get("comment", "")
    if not comment.isprintable():
        raise ParameterRejected("comment", "has characters that cannot be printed")
    if may_name_person(comment):
        raise ParameterRejected(
            "comment", "has a number of a person or an e-mail address, and it would be kept and logged"
        )
    return ModeRequest(
        cast("Mode", text),
        _number(parameters, "canary", 0, MAX_CANARY),
        _number(parameters, "confirm", 1, MAX_TIMER_S),
        _number(parameters, "for", 1, MAX_TIMER_S),
        comment,
        parameters.get("force") == "1",
        by,
    )


def _number(parameters: Mapping[str, str], name: str, lowest: int, highest: int) -> int | None:
    text = parameters.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not lowest <= int(text) <= highest:
        raise ParameterRejected(name, f"{text!r} is not a number from {lowest} to {highest}")
    return int(text)
