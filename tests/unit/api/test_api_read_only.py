"""The port changes nothing, whatever it is asked with. The app itself says its routes, so each is tried."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import quote

import pytest
from aiohttp import web

from gatewayd.api.app import ApiServer, make_control_app, make_read_app
from gatewayd.api.process import ListenerView
from gatewayd.page.routes import Pages
from tests.support.fake_queries import BANK, FakeQueries, serving

ODD_METHODS: Final = (
    "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "PURGE", "QUERY", "LINK", "get",
    "post",
)  # fmt: skip
TRICKS: Final = (
    "X-HTTP-Method-Override: {method}\r\n",
    "X-HTTP-Method: {method}\r\nX-Method-Override: {method}\r\n",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n",
    "Expect: 100-continue\r\n",
)


def routes(app: web.Application) -> set[tuple[str, str]]:
    return {(each.method, each.resource.canonical) for each in app.router.routes() if each.resource}


def changes() -> list[tuple[str, str]]:
    """Routes of the Unix socket that are not for reading."""
    found = routes(make_control_app(FakeQueries(), ListenerView("unix")))
    return sorted((method, path) for method, path in found if method not in ("GET", "HEAD"))


def paths_of_all() -> list[str]:
    found = {path for _, path in routes(make_control_app(FakeQueries(), ListenerView("unix")))}
    return sorted(found | {path for _, path in routes(read_app())})


def read_app() -> web.Application:
    queries = FakeQueries()
    return make_read_app(queries, ListenerView("tcp"), (), pages=Pages(queries, "gw").add_to)


class Reached(AssertionError):
    """A command came through."""


@pytest.fixture
def commands() -> list[str]:
    """Those that reached what is behind the API."""
    return []


@pytest.fixture
def queries(commands: list[str], monkeypatch: pytest.MonkeyPatch) -> FakeQueries:
    made = FakeQueries()

    def watch(owner: object, name: str) -> None:
        def reached(*_: object, **__: object) -> NoReturn:
            commands.append(name)
            raise Reached(name)

        monkeypatch.setattr(owner, name, reached)

    for name in ("sync", "reload", "accept", "put_bindings", "delete_binding", "acknowledge", "plan"):
        watch(made, name)
    for name in ("set_mode", "confirm", "revert", "rearm", "acknowledge"):
        watch(made.arming, name)
    return made


@pytest.fixture
async def server(queries: FakeQueries, tmp_path: Path) -> AsyncGenerator[ApiServer, None]:
    async with serving(queries, tmp_path / "api.sock", pages=Pages(queries, "gw").add_to) as made:
        yield made


async def say(server: ApiServer, raw: bytes, *, until_closed: bool = True) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(raw)
    found = b""
    with suppress(ConnectionError):
        found = await reader.read() if until_closed else await reader.readline()
    writer.close()
    return found


def request(method: str, target: str, more: str = "", body: str = "") -> bytes:
    return (
        f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {len(body)}\r\n"
        f"Connection: close\r\n\r\n{body}"
    ).encode()


def status_of(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.[01] ([0-9]{3}) ", answer)
    return int(found[1]) if found else 0


def test_every_route_of_the_port_reads() -> None:
    assert {method for method, _ in routes(read_app())} <= {"GET", "HEAD"}
    assert len(changes()) >= 10


async def test_each_change_is_one_on_the_socket(server: ApiServer, commands: list[str], tmp_path: Path) -> None:
    """The watch over the commands sees them where they are allowed."""
    entry = '{"nas":"n","session":"s","number":"03001234567","addresses":["10.1.2.3"]}'
    parameters = {"/v1/mode": "?mode=reject", "/v1/accept": "?serial=17", "/v1/near-misses/acknowledge": "?id=a"}
    for method, path in changes():
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
        body = {"PUT": entry, "DELETE": '{"nas":"n","session":"s"}'}.get(method, "")
        writer.write(request(method, path + parameters.get(path, ""), body=body))
        await reader.read()
        writer.close()
    assert len(commands) == len(changes())


async def test_no_route_takes_another_method(server: ApiServer, commands: list[str]) -> None:
    for path in paths_of_all():
        target = path.replace("{id}", BANK.id).replace("{file}", "app.js")
        for method in ODD_METHODS:
            answer = await say(server, request(method, target, body="{}"))
            assert status_of(answer) in (400, 404, 405), (method, target, answer[:200])
    assert commands == []


async def test_nothing_that_a_request_carries_turns_it_into_a_change(
    server: ApiServer, commands: list[str]
) -> None:
    for method, path in changes():
        for target in (
            path,
            f"http://localhost{path}",
            f"{path}/",
            f"{path}?method={method}",
            f"//localhost{path}",
        ):
            for trick in TRICKS:
                answer = await say(server, request("GET", target, trick.format(method=method), "{}"))
                assert status_of(answer) in (100, 200, 400, 404, 405, 417, 421, 503), (target, answer[:200])
        for raw in (
            request("GET", "/healthz").replace(b"Connection: close\r\n", b"") + request(method, path, body="{}"),
            # A body that is a request, and lengths that contradict each other.
            request("GET", "/healthz", body=request(method, path).decode()),
            request(
                "GET", "/healthz", "Transfer-Encoding: chunked\r\n", f"0\r\n\r\n{request(method, path).decode()}"
            ),
            request("GET", f"/healthz%20HTTP/1.1%0d%0a%0d%0a{method}%20{path}"),
        ):
            answer = await say(server, raw)
            statuses = [int(each) for each in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", answer)]
            assert set(statuses) <= {200, 400, 404, 405}, (method, path, answer[:300])
    assert commands == []


async def test_every_route_checks_the_host(server: ApiServer) -> None:
    for path in paths_of_all():
        target = path.replace("{id}", BANK.id).replace("{file}", "app.js")
        for host in (
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "[evil",
            "localhost@evil",
        ):
            raw = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            assert status_of(await say(server, raw)) in (400, 421), (target, host)
    # An absolute target is for its own host (RFC 9112 §3.2.2); the Host is asked for none the less.
    raw = b"GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert status_of(await say(server, raw)) == 421
    assert status_of(await say(server, b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")) in (400, 421)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /healthz?" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 70_000 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
    ids=["target", "field", "fields", "length", "lengths"],
)
async def test_a_header_is_bounded(server: ApiServer, raw: bytes) -> None:
    assert status_of(await say(server, raw)) in (0, 400, 431)
    assert status_of(await say(server, request("GET", "/healthz"))) == 200


async def test_parameters_are_few_and_short(server: ApiServer) -> None:
    many = "&".join(f"q{number}=1" for number in range(900))
    assert status_of(await say(server, request("GET", f"/v1/registrations?{many}"))) == 400
    assert status_of(await say(server, request("GET", f"/v1/registrations?q={'a' * 2000}"))) == 400


async def test_an_answer_to_no_request_repeats_nothing_of_it(server: ApiServer) -> None:
    for raw in (
        b"03459876541 /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/03459876541\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n0345 9876541\r\n\r\n",
        b"03459876541\r\n\r\n",
    ):
        answer = await say(server, raw)
        assert status_of(answer) == 400
        assert b"9876541" not in answer


@pytest.mark.parametrize(
    "word", ["+923459876541", "03459876541", "0345 9876541", "42201-7654321-9", "zara@a.example"]
)
async def test_an_error_repeats_no_person_that_was_asked_for(server: ApiServer, word: str) -> None:
    for target in (
        f"/v1/explain?src={quote(word)}&dst=198.51.100.7&service=esp",
        f"/v1/registrations/{quote(word)}",
        f"/v1/status?{quote(word)}=1",
        f"/{quote(word)}",
        f"/v1/registrations?status={quote(word)}",
    ):
        answer = await say(server, request("GET", target))
        assert status_of(answer) in (400, 404)
        assert word.encode() not in answer
        assert quote(word).encode() not in answer
        assert b"is not repeated" in answer
