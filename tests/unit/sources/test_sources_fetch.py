from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from gatewayd.errors import SourceFailed, SourceTooLarge, SourceUnreadable, SourceUnusable
from gatewayd.sources.fetch import FetchLimits, HttpSource, HttpValidator, open_session

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LINES = b'{"id":"a"}\n' * 1000


@asynccontextmanager
async def serving(handler: Handler) -> AsyncGenerator[str, None]:
    """The origin of a server on 127.0.0.1 that answers everything with `handler`."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_bytes(answer: bytes) -> AsyncGenerator[str, None]:
    """The origin of a server that sends `answer`, whatever it is asked, and closes."""

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def fetch(
    url: str, previous: HttpValidator | None = None, limits: FetchLimits | None = None
) -> tuple[bytes, object] | None:
    async with (
        open_session() as session,
        HttpSource("lab", url, session, limits or FetchLimits()).open(previous) as body,
    ):
        if body is None:
            return None
        return b"".join([chunk async for chunk in body.chunks]), body.validator


async def failure(url: str, limits: FetchLimits | None = None) -> SourceFailed:
    with pytest.raises(SourceFailed) as caught:
        await fetch(url, None, limits)
    assert caught.value.source == "lab"
    return caught.value


async def test_a_body_comes_with_its_validator() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=LINES, headers={"ETag": '"1"', "Last-Modified": "Fri, 01 Nov 2024 00:00:00 GMT"})

    async with serving(handler) as origin:
        assert await fetch(origin) == (LINES, HttpValidator('"1"', "Fri, 01 Nov 2024 00:00:00 GMT"))


async def test_content_that_is_still_the_same_is_not_sent_again() -> None:
    asked: list[tuple[str | None, str | None]] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((request.headers.get("If-None-Match"), request.headers.get("If-Modified-Since")))
        return web.Response(status=304)

    async with serving(handler) as origin:
        assert await fetch(origin, HttpValidator('"1"', None)) is None
        assert await fetch(origin, HttpValidator(None, "yesterday")) is None
    assert asked == [('"1"', None), (None, "yesterday")]


async def test_a_server_without_validators_is_asked_for_everything() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=LINES)

    async with serving(handler) as origin:
        assert await fetch(origin) == (LINES, None)


@pytest.mark.parametrize("status", [204, 304, 404, 503])
async def test_any_other_status_is_unreadable_and_named(status: int) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status)

    async with serving(handler) as origin:
        error = await failure(origin + "/feed?token=secret")
    assert isinstance(error, SourceUnreadable)
    assert error.why.startswith(f"{origin}/feed: HTTP status {status}")


@pytest.mark.parametrize("has_length", [True, False])
async def test_gzip_is_decompressed(has_length: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "gzip"
        if has_length:
            return web.Response(body=gzip.compress(LINES), headers={"Content-Encoding": "gzip"})
        response = web.Response(body=LINES)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with serving(handler) as origin:
        assert await fetch(origin) == (LINES, None)


async def test_a_gzip_file_is_decompressed_too() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(LINES), content_type="application/gzip")

    async with serving(handler) as origin:
        assert await fetch(origin + "/lab.ndjson.gz") == (LINES, None)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
GZIPPED = gzip.compress(LINES)


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 100\r\n\r\n" + LINES[:50],
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n32\r\n" + LINES[:50] + b"\r\n",
        HEAD + b"Content-Encoding: gzip\r\n\r\n" + GZIPPED[:-9],
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + GZIPPED[:20],
        HEAD + b"Content-Length: 20\r\n\r\n" + GZIPPED[:20],
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_body_that_is_cut_is_unreadable(answer: bytes) -> None:
    async with serving_bytes(answer) as origin:
        error = await failure(origin)
    assert isinstance(error, SourceUnreadable)
    assert "cut short" in error.why


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HEAD + b"\r\n" + LINES, "states no length"),
        (HEAD + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc", "content encoding"),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "not gzip"),
        (HEAD + b"Content-Length: 17\r\n\r\n \n<!doctype html>", "markup"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_said_to_be_so(answer: bytes, why: str) -> None:
    async with serving_bytes(answer) as origin:
        error = await failure(origin)
    assert isinstance(error, SourceUnusable)
    assert why in error.why


async def test_a_gzip_stream_needs_no_length_for_it_has_its_own_end() -> None:
    async with serving_bytes(HEAD + b"Content-Encoding: gzip\r\n\r\n" + GZIPPED) as origin:
        assert await fetch(origin) == (LINES, None)


async def test_a_body_of_one_byte_that_may_begin_gzip_is_that_byte() -> None:
    async with serving_bytes(HEAD + b"Content-Length: 1\r\n\r\n\x1f") as origin:
        assert await fetch(origin) == (b"\x1f", None)


async def test_a_page_for_people_is_unusable() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="please log in", content_type="text/html")

    async with serving(handler) as origin:
        error = await failure(origin)
    assert isinstance(error, SourceUnusable)
    assert "text/html" in error.why


async def test_a_slow_server_is_unreadable() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.Event().wait()
        return response

    async with serving(handler) as origin:
        error = await failure(origin, FetchLimits(read_timeout_s=0.05))
    assert isinstance(error, SourceUnreadable)
    assert "no answer in time" in error.why


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}, {"Transfer-Encoding": "chunked"}], ids=str)
async def test_too_many_bytes_are_refused_however_they_come(headers: dict[str, str]) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if "Content-Encoding" in headers:
            return web.Response(body=gzip.compress(bytes(50_000_000)), headers=headers)
        if not headers:
            return web.Response(body=bytes(300_000))
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while True:
            await response.write(bytes(50_000))

    async with serving(handler) as origin:
        assert isinstance(await failure(origin, FetchLimits(max_bytes=200_000)), SourceTooLarge)


async def test_redirects_within_the_origin_are_followed() -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/old":
            raise web.HTTPFound("/new")
        return web.Response(body=LINES)

    async with serving(handler) as origin:
        assert await fetch(origin + "/old") == (LINES, None)


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://127.0.0.2/elsewhere?token=secret", "another origin, http://127.0.0.2; refused"),
        ("mailto:registry", "another origin"),
        ("/again", "more than 5 times"),
    ],
)
async def test_other_redirects_are_refused(location: str, why: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": location})

    async with serving(handler) as origin:
        error = await failure(origin)
    assert isinstance(error, SourceUnreadable)
    assert why in error.why


async def test_a_server_that_is_not_there_is_unreadable() -> None:
    async with serving_bytes(b"") as origin:
        assert isinstance(await failure(origin), SourceUnreadable)
    error = await failure(origin.replace("http://", "http://user:secret@") + "/feed?token=secret")
    assert isinstance(error, SourceUnreadable)
    assert "secret" not in str(error)


async def test_an_answer_that_is_not_http_is_unreadable() -> None:
    async with serving_bytes(b"SSH-2.0-OpenSSH\r\n\r\n") as origin:
        assert isinstance(await failure(origin), SourceUnreadable)


async def test_a_url_without_host_is_a_mistake() -> None:
    async with open_session() as session:
        with pytest.raises(ValueError, match="names no host"):
            HttpSource("lab", "http:///feed", session, FetchLimits())


async def test_a_session_that_decompresses_by_itself_is_a_mistake() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ValueError, match="open_session"):
            HttpSource("lab", "http://127.0.0.1/", session, FetchLimits())
