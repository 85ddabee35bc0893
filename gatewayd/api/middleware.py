"""What stands around every handler: faults become JSON, the Host is checked, and who asks is known."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Final

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from gatewayd.api.process import ListenerView
from gatewayd.api.queries import ParameterRejected, read_host
from gatewayd.errors import SessionEntryInvalid
from gatewayd.listen.connections import Connections
from gatewayd.log import get_logger
from gatewayd.model.msisdn import may_name_person

MAX_BODY_BYTES: Final = 2 << 20
CONTENT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Of what is no page; a report has its style in it."""
EVENTS_PATH: Final = "/v1/events"
"""Its answer has no end; it bounds itself."""
_USER: ContextVar[int | None] = ContextVar("_USER", default=None)

log = get_logger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def client_user() -> int | None:
    """The user id of the client whose request is handled, on the Unix socket."""
    return _USER.get()


class Gate:
    """Handlers of which one answers at a time. `waiting` requests wait at most; the next is told to come back.

    Between two answers the loop turns: a hundred requests at once are not one turn of a hundred answers.
    """

    def __init__(self, waiting: int, stats: ListenerView) -> None:
        self._most_waiting = waiting
        self._stats = stats
        self._waiting = 0
        self._lock = asyncio.Lock()

    def one_at_a_time(self, handler: _Handler) -> _Handler:
        async def gated(request: web.Request) -> web.StreamResponse:
            if self._waiting >= self._most_waiting:
                self._stats.busy += 1
                busy = reply(request, {"error": "too many requests wait; ask again in a second"}, 503)
                busy.headers[hdrs.RETRY_AFTER] = "1"
                return busy
            self._waiting += 1
            try:
                async with self._lock:
                    answer = await handler(request)
                    await asyncio.sleep(0)
                    return answer
            finally:
                self._waiting -= 1

        return gated


def check_host(names: Sequence[str]) -> Middleware:
    """A page in a browser of this network may ask for what only this network can reach, once the page's own name
    leads here (DNS rebinding). The Host is still the page's name: so an address or a name of ours is asked for.
    """
    known = {"localhost", *map(str.lower, names)}

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        name = read_host(request.headers.get(hdrs.HOST, ""))
        if name.lower() not in known and not _is_address(name):
            return reply(request, {"error": f"{name[:64]!r} is not a name of this host (http.names)"}, 421)
        return await handler(request)

    return check


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def note_answers(connections: Connections) -> Middleware:
    @web.middleware
    async def note(request: web.Request, handler: _Handler) -> web.StreamResponse:
        with connections.answering(request.protocol, has_end=request.path != EVENTS_PATH) as user_id:
            _USER.set(user_id)
            return await handler(request)

    return note


@web.middleware
async def answer_faults(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """The boundary: what goes wrong below becomes JSON; what is our fault also goes to the log."""
    try:
        return await handler(request)
    except ParameterRejected as error:
        return reply(request, {"error": str(error), "parameter": error.parameter}, 400)
    except SessionEntryInvalid as error:
        fault = {"error": str(error), "field": error.field, "reason": error.code}
        return reply(request, fault if error.entry is None else fault | {"entry": error.entry}, 400)
    except web.HTTPRequestEntityTooLarge:
        return reply(request, {"error": f"the body has more than {MAX_BODY_BYTES} bytes"}, 413)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        answer = reply(request, {"error": f"{error.method} is not allowed here, expected {allowed}"}, 405)
        answer.headers[hdrs.ALLOW] = allowed
        return answer
    except web.HTTPNotFound:
        return reply(request, {"error": f"there is no {request.path[:200]}"}, 404)
    except web.HTTPException:
        raise
    except ConnectionResetError:  # the client went before its body was whole, and reads no answer
        return reply(request, {"error": "the connection ended within the request"}, 400)
    except Exception:
        path = "(not repeated)" if is_private(request) else request.path[:500]
        log.exception("api.request_failed", method=request.method, path=path)
        return reply(request, {"error": "gatewayd failed to answer; its log says why"}, 500)


async def add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    """No answer is guessed to be what it is not, framed, or named to another site. A page has its own policy."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault("Content-Security-Policy", CONTENT_POLICY)


COUNTS: Final = frozenset({"offset", "limit", "since", "until", "serial", "sport", "source_port", "ending", "top"})
"""Parameters that are numbers, so that digits alone are no person's."""
NOT_REPEATED: Final = "what was asked may be a number of a person or an e-mail address, and is not repeated"


def is_private(request: web.BaseRequest) -> bool:
    """Whether a person may be named in its path, its parameters or its Host."""
    parts = [*request.path.split("/"), *request.query, read_host(request.headers.get(hdrs.HOST, ""))]
    return any(map(may_name_person, parts)) or any(
        may_name_person(text, is_count=name in COUNTS) for name, text in request.query.items()
    )


def reply(request: web.Request, value: object, status: int = 200) -> web.Response:
    """An error names what was asked, so it is without detail where that may be private."""
    if status >= 400 and isinstance(value, dict) and is_private(request):
        value = {"error": NOT_REPEATED} | {
            name: text for name, text in value.items() if name == "parameter" and not may_name_person(text)
        }
    body = msgspec.json.encode(value)
    if "pretty" in request.query:
        body = msgspec.json.format(body, indent=2) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")
