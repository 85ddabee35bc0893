"""The way to a server, walked by both kinds of source: a plain one and a signed feed."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.fetch import (
    CaFileUnusable,
    FetchLimits,
    Route,
    describe_failure,
    load_authorities,
    open_session,
    shown_url,
)
from gatewayd.sources.plain_source import make_runner
from gatewayd.sources.runner import Tools
from gatewayd.sources.update import SourceUpdate
from tests.support.authority import Authority
from tests.support.feeds import KEY, Publisher, line_of, upsert

NAME = "registry.invalid"
"""What no resolver knows: who is asked for it is a proxy."""
PATHS = {"plain": "/feed/all.ndjson", "signed": "/feed/notification.jws"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(params=PATHS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def registry(request: web.Request) -> web.StreamResponse:
    """One registration, as both kinds of source."""
    publisher = Publisher(issued_at=time.time() - 100.0)
    publisher.publish(upsert("a"))
    files = {"all.ndjson": b"".join(map(line_of, publisher.records.values())), **publisher.files}
    name = request.path.removeprefix("/feed/")
    return web.Response(body=files[name], content_type="application/octet-stream")


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None, handler: Handler = registry) -> AsyncGenerator[int, None]:
    """The port of a server on 127.0.0.1."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Proxy:
    """A forward proxy (RFC 9110 §3.7, §9.3.6). Whatever host is asked for is a server on 127.0.0.1.

    `asked`: the first lines of what it was asked.
    """

    def __init__(self, refusal: bytes = b"") -> None:
        self.asked: list[str] = []
        self._refusal = refusal

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, _, rest = head.partition(b"\r\n")
        self.asked.append(line.decode())
        method, target, version = line.split()
        if self._refusal:
            writer.write(self._refusal)
            writer.close()
            return
        url = URL(target.decode() if method != b"CONNECT" else f"https://{target.decode()}")
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", url.port)
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            far_writer.write(b" ".join((method, url.raw_path_qs.encode(), version)) + b"\r\n" + rest)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._carry(reader, far_writer))
            group.create_task(self._carry(far_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while raw := await reader.read(65536):
                writer.write(raw)
                await writer.drain()
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[str, None]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def read(kind: str, origin: str, tmp_path: Path, **settings: Any) -> list[str] | str:
    """The ids of what a source at this origin gives, or why it gives nothing. `query`: of its URL."""
    results: list[SourceUpdate] = []

    async def deliver(result: SourceUpdate) -> None:
        results.append(result)

    key = tmp_path / "national.pub"
    key.write_text(KEY.public_text())
    url = origin + PATHS[kind] + settings.pop("query", "")
    source = SourceSettings(
        "national", url, keys=() if kind == "plain" else (str(key),), allow_unsigned=kind == "plain", **settings
    )
    async with open_session() as session:
        runner = make_runner(source, RegistrySettings((source,)), Tools(session), deliver)
        await runner.attempt()
    [result] = results
    assert "secret" not in runner.place
    return list(result.registrations or ()) if result.error is None else str(result.error)


# -- authorities -------------------------------------------------------------------------------------------------


async def test_a_server_of_a_private_authority_is_trusted_if_that_is_said(
    kind: str, authority: Authority, tmp_path: Path
) -> None:
    async with serving(authority.server_context()) as port:
        origin = f"https://127.0.0.1:{port}"
        assert await read(kind, origin, tmp_path, ca_file=str(authority.ca_file)) == ["a"]
        assert "certificate verify failed" in await read(kind, origin, tmp_path)
        other = Authority(tmp_path, "other")
        assert "certificate verify failed" in await read(kind, origin, tmp_path, ca_file=str(other.ca_file))


async def test_a_file_of_authorities_that_is_of_no_use_is_named(kind: str, tmp_path: Path) -> None:
    async with serving() as port:
        for name, content, why in (("none.pem", None, "cannot be read: No such file"), ("x.pem", b"x", "holds no")):
            path = tmp_path / name
            if content is not None:
                path.write_bytes(content)
            told = await read(kind, f"http://127.0.0.1:{port}", tmp_path, ca_file=str(path))
            assert f"ca_file {path} {why}" in told


async def test_a_file_of_authorities_is_read_anew_when_it_changes(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(Authority(tmp_path, "other").ca_file.read_bytes())
    async with serving(authority.server_context()) as port, open_session() as session:
        route = Route(session, FetchLimits().timeout(), ca_file=str(path))
        url = URL(f"https://127.0.0.1:{port}/feed/all.ndjson")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await route.get(url, {})
        fresh = tmp_path / "fresh.pem"
        fresh.write_bytes(authority.ca_file.read_bytes())
        fresh.replace(path)
        for _ in range(2):
            async with await route.get(url, {}) as response:
                assert response.status == 200


def test_authorities_of_a_directory_are_none(tmp_path: Path) -> None:
    with pytest.raises(CaFileUnusable, match=f"ca_file {tmp_path} "):
        load_authorities(tmp_path)


# -- proxy -------------------------------------------------------------------------------------------------------


async def test_a_proxy_is_asked_for_the_whole_url(kind: str, tmp_path: Path) -> None:
    proxy = Proxy()
    async with serving() as port, proxy.running() as url:
        assert await read(kind, f"http://{NAME}:{port}", tmp_path, proxy=url) == ["a"]
    assert proxy.asked[0] == f"GET http://{NAME}:{port}{PATHS[kind]} HTTP/1.1"


async def test_tls_goes_through_a_proxy_to_the_server_itself(
    kind: str, authority: Authority, tmp_path: Path
) -> None:
    """The certificate is for the name that only the proxy knows how to reach."""
    proxy = Proxy()
    async with serving(authority.server_context(NAME)) as port, proxy.running() as url:
        told = await read(kind, f"https://{NAME}:{port}", tmp_path, proxy=url, ca_file=str(authority.ca_file))
    assert told == ["a"]
    assert set(proxy.asked) == {f"CONNECT {NAME}:{port} HTTP/1.1"}


async def test_a_proxy_that_is_not_there_or_refuses_is_told(kind: str, tmp_path: Path) -> None:
    assert "127.0.0.1:1" in await read(kind, f"http://{NAME}", tmp_path, proxy="http://127.0.0.1:1")
    refusal = b"HTTP/1.1 403 Forbidden by policy\r\nContent-Length: 0\r\n\r\n"
    async with Proxy(refusal).running() as url:
        told = await read(kind, f"https://{NAME}", tmp_path, proxy=url)
    assert "the proxy answers 403 Forbidden" in told
    assert "by policy" not in told


# -- words -------------------------------------------------------------------------------------------------------


async def status_500(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


async def elsewhere(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(f"http://joe:secret@127.0.0.1:1{request.path}?token=secret")


async def in_circles(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(request.path_qs)


async def login(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>log in</html>", content_type="text/html")


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"{")
    assert request.transport is not None
    request.transport.close()
    return response


async def nothing(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    raise asyncio.CancelledError


@pytest.mark.parametrize("handler", [status_500, elsewhere, in_circles, login, cut, nothing])
async def test_no_failure_tells_a_secret_of_the_url(kind: str, handler: Handler, tmp_path: Path) -> None:
    async with serving(handler=handler) as port:
        told = await read(kind, f"http://joe:secret@127.0.0.1:{port}", tmp_path, query="?token=secret")
    assert isinstance(told, str)
    assert f"http://127.0.0.1:{port}{PATHS[kind]}: " in told
    assert "secret" not in told
    assert "joe" not in told


async def test_no_failure_to_connect_tells_a_secret_of_the_url(kind: str, tmp_path: Path) -> None:
    for origin in ("http://joe:secret@127.0.0.1:1", f"http://joe:secret@{NAME}", "https://joe:secret@127.0.0.1:1"):
        told = await read(kind, origin, tmp_path, query="?token=secret")
        assert isinstance(told, str)
        assert "secret" not in told


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://joe:secret@registry.example:8443/feed?token=secret#top", "https://registry.example:8443/feed"),
        ("https://joe:secret@registry.example", "https://registry.example"),
        ("file:/secret", "(no HTTP URL)"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_url(URL(url)) == shown


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TimeoutError(), "no answer in time"),
        (aiohttp.ClientPayloadError("…"), "the body was cut short"),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (CaFileUnusable("ca_file x holds no certificate"), "ca_file x holds no certificate"),
        (aiohttp.InvalidURL("https://registry.example/?token=secret"), "InvalidURL"),
    ],
)
def test_a_failure_in_words(error: Exception, why: str) -> None:
    assert describe_failure(error) == why


async def test_a_session_that_undoes_gzip_by_itself_is_refused() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ValueError, match="open_session"):
            Route(session, FetchLimits().timeout())
