"""Streams of events: resumed by id, few, and no burden for the other requests."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gatewayd.api.app import ApiServer
from gatewayd.api.event_stream import GAP, Message, StreamReader
from gatewayd.api.process import ListenerView
from gatewayd.api.streaming import MAX_STREAMS, EventStreams
from gatewayd.listen.connections import ConnectionLimits, Connections
from gatewayd.log.ring import EventRing
from gatewayd.log.tap import EventTap
from tests.support.fake_queries import FakeQueries

STREAM = b"GET /v1/events%s HTTP/1.0\r\nHost: localhost\r\n%s\r\n"
"""HTTP/1.0: the body comes without chunks."""


@pytest.fixture
def tap() -> EventTap:
    return EventTap(EventRing(7, max_events=50), lambda: 1_730_689_200.0)


@pytest.fixture
def stats() -> ListenerView:
    return ListenerView("tcp")


@asynccontextmanager
async def served(streams: EventStreams) -> AsyncIterator[int]:
    """The port of an application that has these streams alone."""
    app = web.Application()
    app.router.add_get("/v1/events", streams.serve, allow_head=False)
    app.on_shutdown.append(streams.close)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=60)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Reader:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self._parser = StreamReader()
        self._messages: list[Message] = []

    async def next(self) -> Message | None:
        """None: the stream has ended."""
        while not self._messages:
            chunk = await self.reader.read(4096)
            if not chunk:
                return None
            self._messages += self._parser.feed(chunk)
        return self._messages.pop(0)

    async def event(self) -> Any:
        message = await self.next()
        assert message is not None
        return json.loads(message.data)


@asynccontextmanager
async def reading(port: int, query: bytes = b"", header: bytes = b"") -> AsyncGenerator[Reader, None]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(STREAM % (query, header))
    found = Reader(reader, writer)
    found.head = await reader.readuntil(b"\r\n\r\n")
    try:
        yield found
    finally:
        writer.close()


def take(tap: EventTap, *numbers: int) -> None:
    for number in numbers:
        tap.take("registry.applied", {"upserts": number, "withdrawals": 0})


async def until_open(stats: ListenerView, count: int) -> None:
    while stats.streams != count:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_a_reader_gets_what_is_there_and_what_comes(tap: EventTap, stats: ListenerView) -> None:
    take(tap, 1)
    async with served(EventStreams(tap, stats)) as port, reading(port) as reader:
        assert b"200 OK" in reader.head
        assert b"Content-Type: text/event-stream\r\n" in reader.head
        assert b"Cache-Control: no-store\r\n" in reader.head
        assert (await reader.event())["fields"]["upserts"] == 1
        take(tap, 2)
        message = await reader.next()
        assert message is not None
        assert message.id == "7-2"
        assert stats.streams == 1


async def test_a_reader_that_comes_back_goes_on_where_it_was(tap: EventTap, stats: ListenerView) -> None:
    take(tap, 1, 2, 3)
    async with served(EventStreams(tap, stats)) as port:
        async with reading(port, b"?follow=no", b"Last-Event-ID: 7-2\r\n") as reader:
            assert (await reader.event())["fields"]["upserts"] == 3
            assert await reader.next() is None
        async with reading(port, b"?follow=no&since=7-1") as reader:
            assert (await reader.event())["fields"]["upserts"] == 2
        async with reading(port, b"?follow=no&since=2024-11-04T03:00:00Z") as reader:
            assert await reader.event() == {"reason": "restart", "missed": None}
            assert (await reader.event())["fields"]["upserts"] == 1
        async with reading(port, b"?follow=no&since=2030-01-01T00:00:00Z") as reader:
            assert await reader.next() is None


async def test_an_id_of_before_the_restart_is_told_of_the_gap(tap: EventTap, stats: ListenerView) -> None:
    take(tap, 1)
    async with (
        served(EventStreams(tap, stats)) as port,
        reading(port, b"?follow=no", b"Last-Event-ID: 6-900\r\n") as reader,
    ):
        message = await reader.next()
        assert message == Message(GAP, '{"reason":"restart","missed":null}', "7-0")
        assert (await reader.event())["fields"]["upserts"] == 1


async def test_a_client_that_is_too_slow_is_told_how_many_it_missed(tap: EventTap, stats: ListenerView) -> None:
    async with served(EventStreams(tap, stats)) as port:
        with socket.socket() as plug:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plug.setblocking(False)
            await asyncio.get_running_loop().sock_connect(plug, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=plug, limit=4096)
            writer.write(STREAM % (b"", b""))
            slow = Reader(reader, writer)
            slow.head = await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            sent = 0
            while stats.events_missed == 0:
                for _ in range(60):  # more than the ring holds, each of them long
                    sent += 1
                    tap.take("source.failed", {"source": "national", "error": "x" * 8000})
                if sent > 3000:
                    writer.transport.resume_reading()  # type: ignore[attr-defined]
                await asyncio.sleep(0.001)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            missed, got = 0, 0
            while missed + got < sent:
                message = await slow.next()
                assert message is not None
                if message.event == GAP:
                    missed += json.loads(message.data)["missed"]
                else:
                    got += 1
                assert message.id == f"7-{missed + got}"
            assert missed == stats.events_missed
            writer.close()


async def test_a_client_that_takes_nothing_is_let_go(tap: EventTap, stats: ListenerView) -> None:
    streams = EventStreams(tap, stats, stall_s=0.2)
    async with served(streams) as port, reading(port) as reader:
        reader.writer.transport.pause_reading()  # type: ignore[attr-defined]
        while not stats.stalled:
            tap.take("source.failed", {"source": "national", "error": "x" * 8000})
            await asyncio.sleep(0.001)
        await until_open(stats, 0)


async def test_streams_are_few_and_the_next_is_refused(tap: EventTap, stats: ListenerView) -> None:
    async with served(EventStreams(tap, stats, max_streams=1)) as port:
        async with reading(port):
            await until_open(stats, 1)
            async with reading(port) as refused:
                assert b" 503 " in refused.head
                assert b"Retry-After: 5" in refused.head
        await until_open(stats, 0)  # a client that has gone gives its place
        async with reading(port) as reader:
            assert b" 200 " in reader.head
    assert stats.streams_refused == 1


async def test_a_silent_stream_says_that_it_is_alive(tap: EventTap, stats: ListenerView) -> None:
    async with served(EventStreams(tap, stats, heartbeat_s=0.01)) as port, reading(port) as reader:
        assert (await reader.reader.readuntil(b":\n\n")).startswith(b"retry: ")


async def test_the_end_of_the_daemon_ends_the_streams_at_once(tap: EventTap, stats: ListenerView) -> None:
    """The runner would wait a minute."""
    async with asyncio.timeout(50), served(EventStreams(tap, stats)) as port:
        reader = await asyncio.open_connection("127.0.0.1", port)
        reader[1].write(STREAM % (b"", b""))
        await until_open(stats, 1)
    assert b"retry" in await reader[0].read()
    reader[1].close()
    assert stats.streams == 0


async def test_streams_keep_no_other_request_waiting(tmp_path: Path, tap: EventTap) -> None:
    tcp, unix = ListenerView("tcp"), ListenerView("unix")
    server = ApiServer(
        FakeQueries(), "127.0.0.1", 0, str(tmp_path / "s"), listeners=(tcp, unix), events=tap,
        limits=ConnectionLimits(connections=MAX_STREAMS + 2, of_peer=MAX_STREAMS + 2),
    )  # fmt: skip
    await server.start()
    writers = []
    try:
        for _ in range(MAX_STREAMS):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(STREAM % (b"", b""))
            writers.append(writer)
        await until_open(tcp, MAX_STREAMS)
        for path in (b"/v1/registrations", b"/v1/status", b"/healthz"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writers.append(writer)
            writer.write(b"GET " + path + b" HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.0 200")
        _, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writers.append(writer)
        writer.write(STREAM % (b"", b""))
        await until_open(unix, 1)
        assert tcp.streams == MAX_STREAMS
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writers.append(writer)
        writer.write(b"HEAD /v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b" 405 " in await reader.readline()
    finally:
        for writer in writers:
            writer.close()
        await server.stop()


class _Transport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize(("has_end", "aborted"), [(True, True), (False, False)])
def test_the_time_of_an_answer_is_no_bound_for_a_stream(stats: ListenerView, has_end: bool, aborted: bool) -> None:
    connections = Connections(ConnectionLimits(answer_s=60), stats)
    transport: Any = _Transport()
    connections.add("protocol", transport, "127.0.0.1", None)
    with connections.answering("protocol", has_end=has_end):
        connections.end_late(1e12)
        assert transport.aborted is aborted
