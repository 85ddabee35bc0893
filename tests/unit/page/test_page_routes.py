"""The paths of the page over HTTP: what it answers to whatever is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import aiohttp
import msgspec
import pytest

from gatewayd.api.app import ApiServer
from gatewayd.errors import AllowlistIncomplete
from gatewayd.page.routes import POLICY, Pages, PageView
from gatewayd.page.routes import __file__ as ROUTES
from tests.support.fake_queries import BANK, MOBILE, FakeQueries, serving

DIGEST = f"hmac-sha256:{'d2' * 32}"


def request_of(path: bytes, host: str = "localhost") -> bytes:
    return b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (path, host.encode())


class Answer(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]

    @property
    def view(self) -> PageView:
        return msgspec.json.decode(self.text, type=PageView)

    @property
    def title(self) -> str:
        answer = self.view.answer
        assert answer is not None
        return answer.title


class Client:
    def __init__(self, server: ApiServer, socket_path: Path) -> None:
        self._url = f"http://127.0.0.1:{server.port}"
        self._socket_path = socket_path

    async def get(
        self, target: str, *, unix: bool = False, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> Answer:
        connector = aiohttp.UnixConnector(str(self._socket_path)) if unix else aiohttp.TCPConnector()
        async with (
            aiohttp.ClientSession(self._url, connector=connector) as session,
            session.request(method, target, headers=headers) as answer,
        ):
            return Answer(answer.status, await answer.text(), dict(answer.headers))

    async def ask(self, question: str) -> Answer:
        return await self.get(f"/v1/overview?q={quote(question, safe='')}")

    async def send(self, request: bytes) -> bytes:
        """As it stands, and all that comes back."""
        host, port = self._url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


@pytest.fixture
def queries() -> FakeQueries:
    made = FakeQueries()
    made.bind()
    return made


@pytest.fixture
async def client(queries: FakeQueries, tmp_path: Path) -> AsyncGenerator[Client, None]:
    async with serving(queries, tmp_path / "api.sock", Pages(queries, "gw-1").add_to) as server:
        yield Client(server, tmp_path / "api.sock")


async def test_the_page_is_html_that_loads_from_here_alone(client: Client) -> None:
    answer = await client.get("/")
    assert answer.status == 200
    assert answer.text.startswith("<!DOCTYPE html>")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert POLICY.startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await client.get("/", method="HEAD")).status == 200


@pytest.mark.parametrize("path", ["/v1/status", "/healthz", "/metrics", "/nowhere", "/v1/trial/report", "/page/x"])
async def test_every_answer_of_the_port_is_protected(client: Client, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


async def test_its_files_have_their_types_and_are_not_sent_twice(client: Client) -> None:
    types = {"page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}
    loaded = {"uPlot.iife.min.js", "uPlot.min.css", "htm-preact-standalone.module.js", *types}
    page = (await client.get("/")).text + (Path(ROUTES).parent / "static" / "page.js").read_text()
    for name in sorted(loaded):
        assert f"/page/{name}" in page
        answer = await client.get(f"/page/{name}")
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith(types.get(name, "text/"))
        again = await client.get(f"/page/{name}", headers={"If-None-Match": answer.headers["Etag"]})
        assert (again.status, again.text) == (304, "")


@pytest.mark.parametrize(
    "name", ["VENDORED.toml", "LICENSE.htm", "..%2fhtml.py", "%2e%2e/routes.py", "", "x" * 3000]
)
async def test_no_other_file_is_served(client: Client, name: str) -> None:
    assert (await client.get(f"/page/{name}")).status in (403, 404)


async def test_the_socket_of_the_commands_has_no_page(client: Client) -> None:
    assert (await client.get("/", unix=True)).status == 404
    assert (await client.get("/v1/overview", unix=True)).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/v1/overview", "/v1/history", "/page/page.js"])
async def test_nothing_of_it_can_be_changed(client: Client, path: str, method: str) -> None:
    assert (await client.get(path, method=method)).status == 405


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("203.0.113.5 198.51.100.7 udp/51820", "PASSES: it is registered and in the kernel"),
        ("192.0.2.1 198.51.100.7 udp/51820", "it is only observed"),
        (BANK.id, f"{BANK.id} is in force and in the kernel"),
        ("PK-2024", "PK-2024: 3 registrations"),
        ("no-such-id", "no-such-id: no registration and no binding has it"),
        ("10.1.2.3", "10.1.2.3: 1 binding"),
        ("<b>", "<b>: no registration and no binding has it"),
        ("1.2.3.4.5 x", "a flow is SRC DST SERVICE"),
    ],
)
async def test_the_box_takes_a_flow_an_id_a_part_of_one_and_an_address(
    client: Client, question: str, title: str
) -> None:
    assert title in (await client.ask(question)).title
    page = (await client.get(f"/?q={quote(question)}")).text
    assert title.replace("<", "&lt;").replace(">", "&gt;") in page


async def test_the_digest_of_a_number_leads_to_its_registration_and_addresses(
    client: Client, queries: FakeQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    search = queries.registrations

    async def registrations(category: None, status: None, text: str | None, offset: int, limit: int):  # type: ignore[no-untyped-def]
        asked.append(text)
        return await search(category, status, MOBILE.id, offset, limit)

    monkeypatch.setattr(queries, "registrations", registrations)
    view = (await client.ask(DIGEST)).view.answer
    assert view is not None
    assert asked == [DIGEST]
    assert view.title == "the digest of a number: 1 registration and 2 bindings"
    assert [table.rows[0][0] for table in view.tables] == [MOBILE.id, "10.1.2.3/32"]


async def test_a_mobile_number_is_nowhere_in_the_answer(client: Client) -> None:
    for number in ("03001234567", "+92 300 1234567"):
        asked = await client.send(request_of(f"/?q={quote(number)}".encode()))
        assert asked.startswith(b"HTTP/1.1 303 ")
        assert b"\r\nLocation: /?refused=number\r\n" in asked
        page = await client.get(f"/?q={quote(number)}")
        assert "ask by its digest" in page.text
        assert "1234567" not in page.text + (await client.ask(number)).text + asked.decode()


async def test_before_every_source_was_read_the_box_says_so(client: Client, queries: FakeQueries) -> None:
    def explain(*_: object) -> None:
        raise AllowlistIncomplete("source lab is being read")

    queries.explain = explain  # type: ignore[assignment]
    assert "source lab is being read" in (await client.ask("203.0.113.5 198.51.100.7 esp")).title


@pytest.mark.parametrize(
    "query",
    [
        "q=",
        "q=%00",
        "q=%ff%fe",
        "q=%3Cscript%3Ealert(1)%3C/script%3E",
        "q=a&q=b",
        "utm=1",
        "q=" + "x" * 5000,
        "&&=",
        "%",
    ],
)
async def test_any_query_gets_a_page(client: Client, query: str) -> None:
    answer = (await client.send(request_of(f"/?{query}".encode()))).decode()
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert "<script>" not in answer
    assert answer.endswith("</html>\n")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9480", "127.0.0.1.evil.example", "", "localhost.evil.example", "a b"],
)
async def test_a_page_of_another_name_gets_nothing(tmp_path: Path, queries: FakeQueries, host: str) -> None:
    server = ApiServer(
        queries,
        "127.0.0.1",
        0,
        str(tmp_path / "a.sock"),
        names=("gw-1.example",),
        pages=Pages(queries, "gw-1").add_to,
    )
    await server.start()
    try:
        client = Client(server, tmp_path / "a.sock")
        for path in ("/", "/v1/overview", "/page/page.js"):
            answer = await client.send(request_of(path.encode(), host))
            assert answer.split(b" ")[1] in (b"400", b"421")
            assert b"READY" not in answer
        assert (await client.get("/", headers={"Host": "gw-1.example"})).status == 200
        assert (await client.get("/", headers={"Host": "[::1]:9480"})).status == 200
    finally:
        await server.stop()


@pytest.mark.parametrize(
    "path",
    [
        "//",
        "/../../etc/passwd",
        "/%2e%2e/",
        "/index.html",
        "/page/../page.js",
        "/a%0d%0aSet-Cookie:x=1",
        "/\xff",
        "/v1/overview/",
    ],
)
async def test_any_other_path_is_not_found_and_is_not_markup(client: Client, path: str) -> None:
    answer = await client.send(request_of(path.encode("latin-1")))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] in (b"400", b"404")
    assert b"Set-Cookie: x" not in head
    assert b"text/html" not in head
    assert body
