"""The paths of the page: `/`, the files that it loads, and `/v1/overview`, which has the same as JSON.

Read only, and for the port alone. The files are read once; a browser asks whether they are still the same.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from importlib.resources import files
from typing import Final

import msgspec
from aiohttp import hdrs, web

from gatewayd.api.middleware import Gate, reply
from gatewayd.api.queries import Queries
from gatewayd.errors import AllowlistIncomplete
from gatewayd.model import parse_prefix
from gatewayd.page.answer import (
    MAX_LISTED,
    Answer,
    answer_flow,
    answer_registration,
    answer_search,
    refuse,
)
from gatewayd.page.html import render
from gatewayd.page.overview import Overview, overview_of
from gatewayd.page.problems import MAX_OF_KIND, Findings
from gatewayd.page.question import (
    PRIVATE,
    AddressQuestion,
    DigestQuestion,
    FlowQuestion,
    IdQuestion,
    NoQuestion,
    Question,
    read_question,
)

POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
REFUSED: Final = "refused"
"""A parameter of the page: what was asked cannot be repeated."""
_TYPES: Final = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


class PageView(msgspec.Struct, frozen=True):
    """`answer`: None where nothing was asked."""

    overview: Overview
    answer: Answer | None


class Pages:
    """`host`: the name of the gateway, in the first line."""

    def __init__(self, queries: Queries, host: str) -> None:
        self._queries = queries
        self._host = host
        self._files = _read_files()

    def add_to(self, app: web.Application, short: Gate, lists: Gate) -> None:
        """`short`: what is answered in one turn; `lists`: what walks through all registrations."""
        page, overview = short.one_at_a_time(self._page), short.one_at_a_time(self._overview)
        page_with_walk, overview_with_walk = lists.one_at_a_time(self._page), lists.one_at_a_time(self._overview)

        async def serve_page(request: web.Request) -> web.StreamResponse:
            return await (page_with_walk if _walks(request) else page)(request)

        async def serve_overview(request: web.Request) -> web.StreamResponse:
            return await (overview_with_walk if _walks(request) else overview)(request)

        app.router.add_get("/", serve_page)
        app.router.add_get("/v1/overview", serve_overview)
        app.router.add_get("/page/{file}", self._file)

    async def _page(self, request: web.Request) -> web.Response:
        if _refused(request):
            # The address of a page is kept by browsers: a number leaves it before anything is shown.
            raise web.HTTPSeeOther(f"/?{REFUSED}=number")
        answer = await self._answer(request)
        # Twenty milliseconds, most of them for the plots: not in the loop, which admits flows meanwhile.
        body = await asyncio.to_thread(render, self._view(), answer, self._queries.history())
        headers = {hdrs.CACHE_CONTROL: "no-store", "Content-Security-Policy": POLICY}
        return web.Response(text=body, content_type="text/html", headers=headers)

    async def _overview(self, request: web.Request) -> web.Response:
        answer = await self._answer(request)
        return reply(request, PageView(self._view(), answer))

    async def _file(self, request: web.Request) -> web.Response:
        found = self._files.get(request.match_info["file"])
        if found is None:
            raise web.HTTPNotFound
        content_type, tag, body = found
        headers = {hdrs.CACHE_CONTROL: "no-cache", hdrs.ETAG: tag}
        if request.headers.get(hdrs.IF_NONE_MATCH) == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

    def _view(self) -> Overview:
        queries = self._queries
        listed = MAX_OF_KIND + 1
        findings = Findings(
            queries.held(0, listed),
            queries.rejected(None, 0, listed),
            queries.near_misses(0, listed, with_acknowledged=False),
        )
        return overview_of(self._host, queries.status(), findings)

    async def _answer(self, request: web.Request) -> Answer | None:
        text = request.query.get("q", "")
        asked = PRIVATE if REFUSED in request.query else read_question(text)
        return None if asked is None else await self._ask(text.strip(), asked)

    async def _ask(self, q: str, asked: Question) -> Answer:
        queries = self._queries
        match asked:
            case FlowQuestion(flow):
                try:
                    return answer_flow(q, queries.explain(flow))
                except AllowlistIncomplete as error:
                    return refuse(q, str(error))
            case AddressQuestion(text):
                found = await queries.registrations(None, None, text, 0, MAX_LISTED)
                return answer_search(q, text, found, queries.bindings(None, parse_prefix(text), 0, MAX_LISTED))
            case DigestQuestion(text):
                found = await queries.registrations(None, None, text, 0, MAX_LISTED)
                bindings = None
                if found.items:
                    bindings = queries.bindings(found.items[0].id, None, 0, MAX_LISTED)
                return answer_search(q, "the digest of a number", found, bindings)
            case IdQuestion(text):
                return await self._ask_id(q, text)
            case NoQuestion(why, is_private):
                return refuse("" if is_private else q, why)

    async def _ask_id(self, q: str, text: str) -> Answer:
        queries = self._queries
        view = queries.registration(text)
        if view is not None:
            bindings = queries.bindings(text, None, 0, MAX_LISTED) if view.subscriber else None
            return answer_registration(q, queries.status().now, view, bindings, queries.flows(text, 0, MAX_LISTED))
        return answer_search(q, text, await queries.registrations(None, None, text, 0, MAX_LISTED), None)


def _refused(request: web.Request) -> bool:
    asked = read_question(request.query.get("q", ""))
    return isinstance(asked, NoQuestion) and asked.is_private


def _walks(request: web.Request) -> bool:
    return isinstance(read_question(request.query.get("q", "")), AddressQuestion | IdQuestion)


def _read_files() -> dict[str, tuple[str, str, bytes]]:
    """By name: its type, its tag (RFC 9110 §8.8.3) and its bytes."""
    found = {}
    for folder in ("static", "vendor"):
        for each in files("gatewayd.page").joinpath(folder).iterdir():
            content_type = _TYPES.get(each.name.rpartition(".")[2])
            if content_type is not None:
                body = each.read_bytes()
                found[each.name] = content_type, f'"{sha256(body).hexdigest()[:32]}"', body
    return found
