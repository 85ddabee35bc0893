from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from gatewayd.authority.serving import ServerCounts, serve_until, serving
from gatewayd.errors import RegistryUnusable
from gatewayd.listen.connections import ConnectionLimits

SESSION = "0b0f6a3e-6d0c-4b7e-9a53-1f2d3c4b5a69"
SNAPSHOT = f"/{SESSION}/1/snapshot.ndjson.gz"
HEAD = b"GET /notification.jws HTTP/1.1\r\nHost: x\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BODY = gzip.compress(b'{"id":"a"}\n' * 100)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "feed"
    (directory / SESSION / "1").mkdir(parents=True)
    (directory / "notification.jws").write_bytes(b"a.b.c")
    (directory / SNAPSHOT[1:]).write_bytes(BODY)
    (directory / SESSION / "1" / ".snapshot.ndjson.gz.tmp").write_bytes(b"half")
    (directory / "index.html").write_text("x")
    (tmp_path / "secret").write_text("x")
    return directory


@pytest.fixture
async def client(directory: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        serving(directory, "127.0.0.1", 0) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}", auto_decompress=False) as client,
    ):
        yield client


async def test_the_notification_is_asked_for_anew_each_time(client: aiohttp.ClientSession) -> None:
    async with client.get("/notification.jws") as answer:
        assert (answer.status, await answer.read()) == (200, b"a.b.c")
        assert answer.headers["Content-Type"] == "application/jose"
        assert answer.headers["Cache-Control"] == "no-cache"
        etag = answer.headers["ETag"]
    async with client.get("/notification.jws", headers={"If-None-Match": etag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


async def test_data_files_are_sent_as_they_are(client: aiohttp.ClientSession) -> None:
    async with client.get(SNAPSHOT, headers={"Accept-Encoding": "gzip, br"}) as answer:
        assert (answer.status, await answer.read()) == (200, BODY)
        assert answer.headers["Content-Type"] == "application/gzip"
        assert "Content-Encoding" not in answer.headers


async def test_a_download_can_be_taken_up_again(client: aiohttp.ClientSession) -> None:
    async with client.get(SNAPSHOT, headers={"Range": "bytes=10-"}) as answer:
        assert (answer.status, await answer.read()) == (206, BODY[10:])
        assert answer.headers["Content-Range"] == f"bytes 10-{len(BODY) - 1}/{len(BODY)}"


async def test_head_tells_the_size(client: aiohttp.ClientSession) -> None:
    async with client.head(SNAPSHOT) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(BODY)))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        f"/{SESSION}/",
        f"/{SESSION}/1/",
        "/index.html",
        f"/{SESSION}/2/snapshot.ndjson.gz",
        f"/{SESSION}/1/delta.ndjson.gz",
        f"/{SESSION}/1/.snapshot.ndjson.gz.tmp",
        f"/{SESSION}/01/snapshot.ndjson.gz",
        "/../secret",
        "/%2e%2e/secret",
        f"/{SESSION}/1/..%2f..%2f..%2fsecret",
        f"/{SESSION}/%2e%2e/notification.jws",
    ],
)
async def test_nothing_else_is_there(directory: Path, path: str) -> None:
    async with serving(directory, "127.0.0.1", 0) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] in (b"404", b"400")
        writer.close()


async def test_only_reading_is_possible(client: aiohttp.ClientSession) -> None:
    async with client.post("/notification.jws") as answer:
        assert answer.status == 405


async def test_a_directory_without_a_feed_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnusable, match=r"has no notification.jws; `gatewayd registry publish`"):
        await serving(tmp_path, "127.0.0.1", 0).__aenter__()


async def test_an_address_that_is_taken_is_said_to_be_so(directory: Path) -> None:
    async with serving(directory, "127.0.0.1", 0) as (host, port):
        with pytest.raises(RegistryUnusable, match=f"{host}:{port}: "):
            await serving(directory, host, port).__aenter__()


async def test_a_server_stops_when_told_and_lets_downloads_end(directory: Path) -> None:
    stop = asyncio.Event()
    ready: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(
        serve_until(directory, "127.0.0.1", 0, stop, lambda host, port: ready.set_result((host, port)))
    )
    host, port = await ready
    async with aiohttp.ClientSession(f"http://{host}:{port}") as client, client.get(SNAPSHOT) as answer:
        stop.set()
        assert await answer.read() == BODY
    await server
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)


@pytest.mark.parametrize("request_line", [b"GET /a b HTTP/1.1\r\n\r\n", b"GET / HTTP/9.1\r\n\r\n", b"\0\r\n\r\n"])
async def test_bytes_that_are_no_request_do_not_fill_the_log(
    directory: Path, caplog: pytest.LogCaptureFixture, request_line: bytes
) -> None:
    caplog.set_level("DEBUG", "aiohttp.server")
    async with serving(directory, "127.0.0.1", 0) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request_line)
        assert b" 400 " in await reader.read()
        writer.close()
    assert "aiohttp.server" not in {record.name for record in caplog.records}


async def test_a_link_in_the_directory_leads_nowhere(directory: Path, tmp_path: Path) -> None:
    """A file that was put there by another hand, to the private key perhaps; and a pipe, which would never end."""
    outside = tmp_path / "outside"
    (outside / "3").mkdir(parents=True)
    (outside / "3" / "snapshot.ndjson.gz").write_bytes(b"key")
    (directory / SESSION / "1" / "delta.ndjson.gz").symlink_to(tmp_path / "secret")
    (directory / SESSION / "3").symlink_to(outside / "3")
    (directory / SESSION / "4").mkdir()
    os.mkfifo(directory / SESSION / "4" / "snapshot.ndjson.gz")
    async with serving(directory, "127.0.0.1", 0) as (host, port), aiohttp.ClientSession() as client:
        for path in ("1/delta.ndjson.gz", "3/snapshot.ndjson.gz", "4/snapshot.ndjson.gz"):
            async with client.get(f"http://{host}:{port}/{SESSION}/{path}") as answer:
                assert answer.status in (403, 404), path
                assert b"key" not in await answer.read()


# -- under attack ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def under_attack(
    directory: Path, limits: ConnectionLimits
) -> AsyncIterator[tuple[ServerCounts, Callable[..., Awaitable[Streams]]]]:
    counts, opened = ServerCounts(), list[asyncio.StreamWriter]()
    async with serving(directory, "127.0.0.1", 0, limits, counts) as (host, port):

        async def connect(sent: bytes = b"", source: str = "127.0.0.1") -> Streams:
            streams = await asyncio.open_connection(host, port, local_addr=(source, 0), limit=4096)
            streams[1].write(sent)
            opened.append(streams[1])
            return streams

        try:
            yield counts, connect
        finally:
            for writer in opened:
                writer.close()


async def is_closed(streams: Streams) -> bool:
    with suppress(ConnectionError):
        return await streams[0].read() == b""
    return True


async def status_of(streams: Streams) -> int:
    return int((await streams[0].readline()).split()[1])


async def test_connections_without_a_request_keep_no_gateway_out(directory: Path) -> None:
    async with under_attack(directory, ConnectionLimits(connections=8, of_peer=6)) as (counts, connect):
        for number in range(200):
            await connect(HEAD if number % 2 else b"", source=f"127.0.0.{2 + number % 3}")
        assert await status_of(await connect(HEAD + b"\r\n")) == 200
        assert counts.connections <= 8
        assert counts.evicted >= 192


async def test_a_header_that_does_not_end_is_closed_in_time_and_in_size(directory: Path) -> None:
    async with under_attack(directory, ConnectionLimits(wait_s=0.2)) as (counts, connect):
        assert await is_closed(await connect(HEAD))
        assert await is_closed(await connect())
        assert await status_of(await connect(HEAD + b"X: " + b"y" * 100_000)) == 400
        assert counts.malformed == 1


async def test_a_body_is_not_read(directory: Path) -> None:
    async with under_attack(directory, ConnectionLimits()) as (_, connect):
        post = HEAD.replace(b"GET", b"POST") + b"Content-Length: 1000000000\r\n\r\n"
        assert await status_of(await connect(post)) == 405


async def test_a_client_that_reads_nothing_is_let_go_and_its_file_is_closed(directory: Path) -> None:
    (directory / SNAPSHOT[1:]).write_bytes(os.urandom(32 << 20))
    get = HEAD.replace(b"/notification.jws", SNAPSHOT.encode()) + b"\r\n"
    files = len(os.listdir("/proc/self/fd"))
    async with under_attack(directory, ConnectionLimits(answer_s=3, of_peer=4)) as (counts, connect):
        held = [await connect(get) for _ in range(4)]
        assert [await status_of(each) for each in held] == [200] * 4
        # Answers under way do not make room: a download is not cut for another one of the same peer.
        assert await is_closed(await connect(HEAD + b"\r\n"))
        assert counts.refused == 1
        assert await status_of(await connect(HEAD + b"\r\n", source="127.0.0.2")) == 200
        while counts.connections > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await status_of(await connect(HEAD + b"\r\n")) == 200
    assert len(os.listdir("/proc/self/fd")) <= files + 1
