"""Connections of the API: bounded in number and time, and a fresh request is served whatever the others do."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gatewayd.api.app import LISTS_WAITING, ApiServer
from gatewayd.api.process import ListenerView
from gatewayd.api.views import RegistrationPage
from gatewayd.listen.connections import ConnectionLimits, HttpLog, ReservedFiles
from tests.support.fake_queries import FakeQueries

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Scene:
    def __init__(self, server: ApiServer, path: Path, tcp: ListenerView, unix: ListenerView) -> None:
        self.server = server
        self.path = path
        self.tcp = tcp
        self.unix = unix
        self._open: list[asyncio.StreamWriter] = []

    async def connect(self, begin: bytes = b"", *, unix: bool = False, source: str = "127.0.0.1") -> Streams:
        if unix:
            reader, writer = await asyncio.open_unix_connection(str(self.path))
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port, local_addr=(source, 0))
        writer.write(begin)
        self._open.append(writer)
        return reader, writer

    async def healthz(self, *, unix: bool = False, source: str = "127.0.0.1") -> bytes:
        """The status line; empty where the connection was closed instead."""
        reader, _ = await self.connect(HEAD + b"Connection: close\r\n\r\n", unix=unix, source=source)
        with suppress(ConnectionError):
            return (await reader.read()).partition(b"\r\n")[0]
        return b""

    async def close(self) -> None:
        for writer in self._open:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def listening(
    directory: Path, limits: ConnectionLimits, queries: FakeQueries | None = None
) -> AsyncIterator[Scene]:
    path, tcp, unix = directory / "api.sock", ListenerView("tcp"), ListenerView("unix")
    server = ApiServer(queries or FakeQueries(), "127.0.0.1", 0, str(path), limits=limits, listeners=(tcp, unix))
    await server.start()
    scene = Scene(server, path, tcp, unix)
    try:
        yield scene
    finally:
        await scene.close()
        await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def is_closed(streams: Streams) -> bool:
    with suppress(ConnectionError):
        return await streams[0].read() == b""
    return True


async def test_at_the_bound_the_connection_that_waited_longest_makes_room(tmp_path: Path) -> None:
    async with listening(tmp_path, ConnectionLimits(connections=3, of_peer=3)) as scene:
        held = [await scene.connect(HEAD) for _ in range(3)]
        await until(lambda: scene.tcp.accepted == 3)
        assert await scene.healthz() == b"HTTP/1.1 200 OK"
        assert await is_closed(held[0])
        assert (scene.tcp.evicted, scene.tcp.refused) == (1, 0)
        held[1][1].write(b"\r\n")
        assert (await held[1][0].readline()).startswith(b"HTTP/1.1 200")


async def test_a_peer_makes_room_for_itself_before_others_do(tmp_path: Path) -> None:
    async with listening(tmp_path, ConnectionLimits(connections=10, of_peer=2)) as scene:
        other = await scene.connect(HEAD, source="127.0.0.2")
        held = [await scene.connect(HEAD) for _ in range(3)]
        await until(lambda: scene.tcp.accepted == 4)
        assert await is_closed(held[0])
        other[1].write(b"\r\n")
        assert (await other[0].readline()).startswith(b"HTTP/1.1 200")


async def test_hundreds_of_connections_leave_as_many_open_as_are_allowed(tmp_path: Path) -> None:
    async with listening(tmp_path, ConnectionLimits(connections=8, of_peer=8)) as scene:
        for _ in range(300):
            await scene.connect(HEAD)
        await until(lambda: scene.tcp.accepted == 300)
        assert scene.tcp.connections <= 8
        assert await scene.healthz() == b"HTTP/1.1 200 OK"
        assert await scene.healthz(unix=True) == b"HTTP/1.1 200 OK"


async def test_a_request_that_does_not_end_and_a_connection_without_one_are_closed_in_time(tmp_path: Path) -> None:
    async with listening(tmp_path, ConnectionLimits(wait_s=0.2)) as scene:
        assert await is_closed(await scene.connect(HEAD))
        assert await is_closed(await scene.connect())
        assert await is_closed(await scene.connect(HEAD, unix=True))
        await until(lambda: scene.tcp.connections == 0)


async def test_a_client_that_reads_nothing_is_not_waited_for(tmp_path: Path) -> None:
    async with listening(tmp_path, ConnectionLimits(wait_s=0.2)) as scene:
        _, writer = await scene.connect((HEAD.replace(b"/healthz", b"/metrics") + b"\r\n") * 2000)
        await until(lambda: scene.tcp.connections == 1)
        await until(lambda: scene.tcp.timed_out == 1 and scene.tcp.connections == 0)
        writer.close()


class SlowQueries(FakeQueries):
    """A sync that takes until `finished`."""

    def __init__(self) -> None:
        super().__init__()
        self.finished = asyncio.Event()

    async def sync(self) -> dict[str, object]:
        await self.finished.wait()
        return {}


async def test_an_answer_under_way_neither_makes_room_nor_ends_on_the_socket(tmp_path: Path) -> None:
    queries = SlowQueries()
    async with listening(tmp_path, ConnectionLimits(connections=1, of_peer=1, wait_s=0.1), queries) as scene:
        reader, _ = await scene.connect(
            b"POST /v1/sync HTTP/1.1\r\nHost: gatewayd\r\nConnection: close\r\n\r\n", unix=True
        )
        await until(lambda: scene.unix.accepted == 1)
        while scene.unix.refused == 0:
            await scene.healthz(unix=True)
        queries.finished.set()
        assert (await reader.read()).startswith(b"HTTP/1.1 200")


class CountingQueries(FakeQueries):
    """Lists that take until `finished`. `at_once`: the most that were under way."""

    def __init__(self) -> None:
        super().__init__()
        self.finished = asyncio.Event()
        self.under_way = self.at_once = 0

    async def registrations(self, *arguments: Any, **only: Any) -> RegistrationPage:
        self.under_way += 1
        self.at_once = max(self.at_once, self.under_way)
        await self.finished.wait()
        self.under_way -= 1
        return await super().registrations(*arguments, **only)


async def test_lists_are_made_one_at_a_time_and_the_rest_is_told_to_come_back(tmp_path: Path) -> None:
    queries = CountingQueries()
    async with listening(tmp_path, ConnectionLimits(), queries) as scene:
        request = b"GET /v1/registrations?q=x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        asked = [await scene.connect(request) for _ in range(LISTS_WAITING + 5)]
        await until(lambda: scene.tcp.busy == 5)
        # What is short, and what tells that the daemon lives, waits for no list.
        assert await scene.healthz() == b"HTTP/1.1 200 OK"
        short = await scene.connect(request.replace(b"/v1/registrations?q=x", b"/metrics"))
        assert (await short[0].readline()).startswith(b"HTTP/1.1 200")
        queries.finished.set()
        answers = [(await reader.read()).partition(b"\r\n\r\n")[0] for reader, _ in asked]
        refused = [each for each in answers if each.startswith(b"HTTP/1.1 503")]
        assert len(refused) == 5
        assert all(b"Retry-After: 1" in each for each in refused)
        assert queries.at_once == 1


async def test_without_files_the_socket_answers_and_the_port_waits(tmp_path: Path) -> None:
    async with listening(tmp_path, ConnectionLimits()) as scene:
        assert await scene.healthz() == b"HTTP/1.1 200 OK"
        unix, tcp = await scene.connect(unix=True), await scene.connect()
        await until(lambda: scene.unix.accepted == scene.tcp.connections == 1)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest_file() + 1, most[1]))
        held: list[int] = []
        try:
            with suppress(OSError):
                while True:
                    held.append(os.dup(0))
            os.close(held.pop())  # for the client
            assert await scene.healthz(unix=True) == b"HTTP/1.1 200 OK"
            assert scene.unix.paused > 0
            while scene.tcp.paused == 0:
                try:
                    await scene.connect(HEAD)
                    await asyncio.sleep(0.01)
                except OSError:
                    os.close(held.pop())
            for streams in (unix, tcp):
                streams[1].write(HEAD + b"\r\n")
                assert (await streams[0].readline()).startswith(b"HTTP/1.1 200")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, most)
            for each in held:
                os.close(each)
        await until(lambda: scene.tcp.accepted >= 3)


def highest_file() -> int:
    return max(map(int, os.listdir("/proc/self/fd")))


def test_reserved_files_are_lent_and_taken_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    reserve = ReservedFiles(2)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    assert [reserve.lend(), reserve.lend(), reserve.lend()] == [True, True, False]
    reserve.restore()
    assert reserve.lend()
    reserve.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("127.0.0.1:9480", 200), ("[::1]:9480", 200), ("GW-1.example.", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("", 421),
    ],
)  # fmt: skip
async def test_a_request_for_the_name_of_another_is_refused_on_the_port(
    tmp_path: Path, host: str, status: int
) -> None:
    server = ApiServer(FakeQueries(), "127.0.0.1", 0, str(tmp_path / "s"), names=("gw-1.example",))
    await server.start()
    scene = Scene(server, tmp_path / "s", ListenerView("tcp"), ListenerView("unix"))
    try:
        for unix, expected in ((False, status), (True, 200)):
            request = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            reader, _ = await scene.connect(request, unix=unix)
            assert (await reader.readline()).split()[1] == str(expected).encode()
    finally:
        await scene.close()
        await server.stop()


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /?q=03001234567\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /?q=0300 1234567 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nX 03001234567\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"03001234567\r\n\r\n",
        b"GET /?q=" + b"03001234567" * 900 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n03001",
    ],
    ids=["query", "space", "header", "no host", "no method", "too long", "body"],
)
async def test_bytes_that_are_no_request_are_counted_and_never_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, request_line: bytes
) -> None:
    caplog.set_level("DEBUG")
    async with listening(tmp_path, ConnectionLimits()) as scene:
        reader, _ = await scene.connect(request_line)
        assert (await reader.readline()).split()[1] in {b"400", b"405"}
        await until(lambda: scene.tcp.malformed == 1)
        assert await scene.healthz() == b"HTTP/1.1 200 OK"
    assert "aiohttp.server" not in {record.name for record in caplog.records}
    assert "0300" not in caplog.text


def test_a_fault_that_is_not_the_clients_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    stats = ListenerView("tcp")
    HttpLog(stats).exception("Unhandled exception", exc_info=RuntimeError("ours"))
    assert stats.malformed == 0
    assert "ours" in caplog.text
