"""What anyone may send to the port and to the socket: questions as text, and raw bytes to the real server."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl

from gatewayd.api.queries import (
    ParameterRejected,
    read_end,
    read_entries,
    read_flow,
    read_host,
    read_impact_question,
    read_page,
    read_parameters,
    read_plan,
    read_prefix,
    read_since,
    read_status,
    read_until,
)
from gatewayd.errors import SessionEntryInvalid
from tests.fuzz.target import NUMBER, Target, fault_of_message
from tests.support.fake_queries import FakeQueries, serving

KNOWN = (
    "src", "dst", "service", "sport", "source_port", "offset", "limit", "until", "since", "status", "at", "top",
    "canary",
)  # fmt: skip
_Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PATIENCE_S = 60.0
"""Spent where the server hangs, which is a finding."""


def questions(raw: bytes) -> None:
    """The parameters of a URL, by all that read some."""
    pairs = parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True)
    read_host(raw.decode("latin-1"))
    parameters = read_parameters(pairs, KNOWN)
    last: ParameterRejected | None = None
    for read in (read_flow, read_page, read_until, read_since, read_status, read_impact_question):
        try:
            read(parameters)
        except ParameterRejected as error:
            last = error
    read_prefix(parameters, "at")
    if last is not None:
        raise last


def bodies(raw: bytes) -> None:
    """Of requests on the socket."""
    last: Exception | None = None
    for read in (read_entries, read_plan, lambda body: read_end(body, ())):
        try:
            read(raw)
        except (ParameterRejected, SessionEntryInvalid) as error:
            fault = fault_of_message(str(error))
            assert fault is None, fault
            last = error
    if last is not None:
        raise last


class _Faults(logging.Handler):
    """What was logged with a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


class _Served:
    """The real server, on a port and on a socket. Its loop runs in the caller's thread, during a call alone: the
    lines that an input reaches are recorded, and the bounds of an input hold for them."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp())
        self._faults = _Faults()
        for name in ("asyncio", "aiohttp", "aiohttp.server", "aiohttp.web"):
            logger = logging.getLogger(name)
            logger.addHandler(self._faults)
            # A campaign is silent otherwise.
            logger.setLevel(logging.WARNING)
        queries = FakeQueries()
        queries.bind()
        self._loop = asyncio.new_event_loop()
        self._serving = serving(queries, self._directory / "api.sock")
        self._port = self._loop.run_until_complete(self._serving.__aenter__()).port
        atexit.register(self._close)

    def ask(self, raw: bytes, *, is_unix: bool) -> tuple[bytes, bytes, list[str]]:
        """What it answers to these bytes, what it answers to a question for its health, and what it logged."""
        answer, health = self._loop.run_until_complete(self._exchange(raw, is_unix=is_unix))
        found, self._faults.found = self._faults.found, []
        return answer, health, found

    async def _exchange(self, raw: bytes, *, is_unix: bool) -> tuple[bytes, bytes]:
        async with asyncio.timeout(PATIENCE_S):
            opened = await self._connect(is_unix=is_unix)
            opened[1].write(raw)
            # The loop has had its turn with these bytes once it has answered to others.
            other = await self._connect(is_unix=False)
            other[1].write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            health = await _rest(*other)
            return await _rest(*opened, is_over=True), health

    async def _connect(self, *, is_unix: bool) -> _Opened:
        if is_unix:
            return await asyncio.open_unix_connection(self._directory / "api.sock")
        return await asyncio.open_connection("127.0.0.1", self._port)

    def _close(self) -> None:
        self._loop.run_until_complete(self._serving.__aexit__(None, None, None))
        self._loop.close()
        shutil.rmtree(self._directory, ignore_errors=True)


async def _rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_over: bool = False) -> bytes:
    """What comes until the server has closed. `is_over`: it is told that nothing more follows."""
    answer = b""
    with suppress(ConnectionError):
        if is_over and not writer.is_closing():
            await writer.drain()
            writer.write_eof()
        while got := await reader.read(65536):
            answer += got
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return answer


@cache
def _served() -> _Served:
    """One for the process."""
    return _Served()


def server(raw: bytes) -> None:
    """To the port, or to the socket where the first byte is odd. It answers or closes, never with a 500, and it
    answers the next."""
    answer, health, found = _served().ask(raw[1:], is_unix=bool(raw[:1]) and bool(raw[0] & 1))
    for part in answer.split(b"HTTP/1.1 ")[1:]:
        assert not part.startswith(b"500"), "an internal error"
        assert b"Traceback" not in part, "a traceback"
        assert NUMBER.encode() not in part, "identity in an answer"
    assert health.startswith(b"HTTP/1.1 200"), "it does not answer any more"
    assert found == [], found[0][:200]


def _question_seeds() -> Sequence[bytes]:
    return [
        b"src=203.0.113.5&dst=198.51.100.7&service=udp/51820&sport=5", b"offset=5&limit=10&status=active&pretty=",
        b"since=2026-01-01T00:00:00Z&top=5&canary=10", b"until=2026-01-01T00:00:00Z&at=203.0.113.0/28",
    ]  # fmt: skip


def _body_seeds() -> Sequence[bytes]:
    entry = {"nas": "bng-1", "session": "s", "number": NUMBER, "addresses": ["10.0.0.1"], "ports": [1, 2]}
    plan = {"mode": "reject", "canary": 5}
    some = [entry, [entry, entry], plan, {"nas": "bng-1", "session": "8a01", "at": 5}]
    return [json.dumps(each).encode() for each in some]


def _requests() -> Sequence[bytes]:
    def request(line: bytes, body: bytes = b"", *more: bytes) -> bytes:
        size = b"Content-Length: %d" % len(body) if body else b"X: y"
        return b"\r\n".join((line + b" HTTP/1.1", b"Host: localhost", size, *more, b"", body))

    read = [b"/healthz", b"/metrics", b"/v1/status", b"/v1/flows?limit=5", b"/v1/registrations/PK-2024-000123"]
    explain = b"/v1/explain?src=203.0.113.5&dst=198.51.100.7&service=udp/51820"
    some = [b"\0" + request(b"GET " + each) for each in (*read, explain, b"/v1/events", b"/%ff%00", b"//x?y=%zz")]
    some += [b"\1" + request(b"PUT /v1/bindings", body) for body in _body_seeds()[:2]]
    some += [b"\1" + request(b"POST /v1/" + each) for each in (b"sync", b"accept?serial=17", b"reload", b"confirm")]
    some.append(b"\1" + request(b"POST /v1/mode", b'{"mode":"reject","kind":"confirm","seconds":600}'))
    some.append(b"\1" + request(b"DELETE /v1/bindings?nas=bng-1&session=8a01"))
    some.append(b"\1" + request(b"PUT /v1/bindings", b"5\r\n[1,2]\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"))
    some.append(b"\0" + request(b"GET /healthz") + request(b"GET /readyz"))
    return [
        *some,
        b"\0GET /healthz HTTP/1.0\r\n\r\n",
        b"\0\x16\x03\x01\x02\x00\x01",
        b"\0PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]


HTTP_WORDS = (
    b"\r\n", b"Host: ", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Range: bytes=0-\r\n", b"Content-Encoding: gzip\r\n", b"%00",
    b"%ff", b"Accept: text/html\r\n", b"Cookie: " + NUMBER.encode() + b"\r\n", b"?pretty=1", b"HEAD", b"OPTIONS",
    b"\r\n ",
)  # fmt: skip
TARGETS = (
    Target("http.questions", questions, (ParameterRejected,), _question_seeds,
           (b"&", b"=", b"src=", b"service=esp", b"%00", b"limit=", b"since=", b"9" * 20), cost=1),
    Target("http.bodies", bodies, (ParameterRejected, SessionEntryInvalid), _body_seeds,
           (b'"nas":', b"[", b"{", b'"mode":'), cost=0.5),
    Target("http.server", server, (), _requests, HTTP_WORDS, cost=6),
)  # fmt: skip
