from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gatewayd.authority.serving import HttpLog, serve_until, serving
from gatewayd.errors import RegistryUnusable

SESSION = "0b0f6a3e-6d0c-4b7e-9a53-1f2d3c4b5a69"
SNAPSHOT = f"/{SESSION}/1/snapshot.ndjson.gz"
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


def test_a_fault_of_ours_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    HttpLog(logging.getLogger("aiohttp.server")).exception("Unhandled exception", exc_info=RuntimeError("ours"))
    assert "ours" in caplog.text
