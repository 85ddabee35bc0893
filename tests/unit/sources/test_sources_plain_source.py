from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from aiohttp import web

from gatewayd.errors import SourceFailed, SourceTooLarge, SourceUnreadable, SourceUnusable
from gatewayd.model import Registration
from gatewayd.model.registration import changes_in_slices, run_slices
from gatewayd.registry.layers import SourceSet
from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.fetch import open_session
from gatewayd.sources.plain_source import SourceRunner, open_origin
from gatewayd.sources.runner import Tools, run_in_slices
from gatewayd.sources.update import SourceUpdate


def lines_of(*ids: str, client: str = "203.0.113.0/28") -> bytes:
    fields = {"category": "bank", "status": "active", "clients": [client]}
    return b"".join(json.dumps({"id": id, **fields}).encode() + b"\n" for id in ids)


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def rename(path: Path, target: Path) -> None:
    path.replace(target)


def remove(path: Path) -> None:
    path.unlink()


@dataclass
class Delivered:
    """Collects what a runner delivers; `now` is its clock."""

    now: float = 1000.0
    all: list[SourceUpdate] = field(default_factory=list)
    arrived: asyncio.Queue[SourceUpdate] = field(default_factory=asyncio.Queue)

    async def deliver(self, what: SourceUpdate) -> None:
        self.all.append(what)
        self.arrived.put_nowait(what)

    def registrations(self) -> Mapping[str, Registration]:
        found = self.all[-1].registrations
        assert found is not None
        return found

    def error(self) -> SourceFailed:
        error = self.all[-1].error
        assert error is not None
        return error

    def runner(
        self, path: Path, previous: dict[str, Registration] | None = None, allow_empty: bool = False
    ) -> SourceRunner:
        source = SourceSettings("lab", f"file:{path}", max_bytes=100_000, allow_empty=allow_empty)
        tools = Tools(clock=lambda: self.now, randomness=Random(7))
        return SourceRunner(source, RegistrySettings((source,), 60, 10), tools, self.deliver, previous)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab.ndjson"


async def test_a_reading_is_delivered_whole(path: Path) -> None:
    write(path, lines_of("a", "b") + b"x\n" + lines_of("c"))
    delivered = Delivered()
    runner = delivered.runner(path)
    await runner.attempt()
    (reading,) = delivered.all
    assert list(delivered.registrations()) == ["a", "b", "c"]
    assert reading.rejected == {"not_json": 1}
    assert [rejection.line for rejection in reading.rejections] == [3]
    assert (reading.source, reading.at_s, reading.changes, reading.error) == ("lab", 1000.0, None, None)
    assert 1054 <= runner.next_attempt_at <= 1060
    assert runner.place == str(path)


async def test_csv_is_found_out_and_a_configured_format_wins(path: Path) -> None:
    path = path.with_suffix(".csv")
    write(path, b"id,category,status,clients\na,bank,active,203.0.113.0/28\n")
    delivered = Delivered()
    await delivered.runner(path).attempt()
    assert list(delivered.registrations()) == ["a"]
    source = SourceSettings("lab", f"file:{path}", format="ndjson")
    runner = SourceRunner(source, RegistrySettings((source,)), Tools(), delivered.deliver)
    await runner.attempt()
    assert "none of its 2 records is usable; line 1: -: not_json" in delivered.error().why


async def test_content_that_did_not_change_is_confirmed_and_not_delivered_again(path: Path) -> None:
    write(path, lines_of("a"))
    delivered = Delivered()
    runner = delivered.runner(path)
    await runner.attempt()
    delivered.now = 1060.0
    await runner.attempt()
    assert delivered.all[1:] == [SourceUpdate("lab", 1060.0)]


async def test_registrations_that_did_not_change_are_the_same_objects(path: Path) -> None:
    write(path, lines_of("a", "b"))
    delivered = Delivered()
    runner = delivered.runner(path)
    await runner.attempt()
    first = delivered.registrations()
    write(path, lines_of("a") + lines_of("b", client="203.0.113.16/28"))
    await runner.attempt()
    second = delivered.registrations()
    assert second["a"] is first["a"]
    assert second["b"] != first["b"]
    assert len(first) == 2


async def test_waits_after_failures_double_up_to_the_refresh_and_begin_anew_after_success(path: Path) -> None:
    delivered = Delivered()
    runner = delivered.runner(path)
    for number, wait_s in enumerate([10, 20, 40, 60, 60], 1):
        await runner.attempt()
        assert isinstance(delivered.error(), SourceUnreadable)
        assert runner.failures == number
        assert wait_s * 0.9 <= runner.next_attempt_at - 1000.0 <= wait_s
    write(path, lines_of("a"))
    await runner.attempt()
    assert (delivered.all[-1].error, runner.failures) == (None, 0)
    remove(path)
    await runner.attempt()
    assert runner.next_attempt_at - 1000.0 <= 10


@pytest.mark.parametrize(
    ("content", "error", "why"),
    [
        (b"", SourceUnusable, "is empty and had 2 registrations before"),
        (b"\n\n", SourceUnusable, "is empty and had 2"),
        (b"x\ny\n", SourceUnusable, "none of its 2 records is usable; line 1: -: not_json"),
        (lines_of("a", "b")[:-20], SourceUnusable, "cut off"),
        (lines_of(*map(str, range(2000))), SourceTooLarge, "100000 bytes"),
    ],
)
async def test_a_bad_content_is_an_error_and_the_next_good_one_a_reading(
    path: Path, content: bytes, error: type[SourceFailed], why: str
) -> None:
    write(path, lines_of("a", "b"))
    delivered = Delivered()
    runner = delivered.runner(path)
    await runner.attempt()
    write(path, content)
    await runner.attempt()
    assert type(delivered.error()) is error
    assert why in delivered.error().why
    write(path, lines_of("a", "b", "c"))
    await runner.attempt()
    assert len(delivered.registrations()) == 3


async def test_an_empty_file_is_accepted_of_a_source_that_never_had_more(path: Path) -> None:
    write(path, b"")
    delivered = Delivered()
    await delivered.runner(path, allow_empty=True).attempt()
    assert delivered.registrations() == {}
    await delivered.runner(path, allow_empty=True, previous={"a": _registration()}).attempt()
    assert isinstance(delivered.error(), SourceUnusable)


async def test_an_empty_file_is_a_failure_unless_it_is_said_that_it_may_be(path: Path) -> None:
    write(path, b"")
    delivered = Delivered()
    await delivered.runner(path).attempt()
    assert "allow_empty" in str(delivered.error())


def _registration() -> Registration:
    return Registration("a", "bank", "active", ())


async def test_a_file_that_changes_is_read_at_once_and_a_request_is_heeded(path: Path) -> None:
    write(path, lines_of("a"))
    delivered = Delivered()
    runner = delivered.runner(path)
    task = asyncio.create_task(runner.run())
    async with asyncio.timeout(30):
        assert (await delivered.arrived.get()).registrations
        new = path.with_name("new")
        write(new, lines_of("a", "b"))
        rename(new, path)
        while len(delivered.registrations()) != 2:
            await delivered.arrived.get()
        remove(path)
        runner.request_now()
        while not isinstance(delivered.all[-1].error, SourceUnreadable):
            await delivered.arrived.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_url_is_asked_again_and_again() -> None:
    asked = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if request.headers.get("If-None-Match") == '"1"' and asked < 4:
            return web.Response(status=304)
        return web.Response(body=lines_of(*"abc"[: asked or 1]), headers={"ETag": '"1"'})

    app = web.Application()
    app.router.add_get("/", handler)
    server = web.AppRunner(app, shutdown_timeout=0.1)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    delivered = Delivered()
    async with open_session() as session:
        source = SourceSettings("lab", f"http://127.0.0.1:{server.addresses[0][1]}/")
        runner = SourceRunner(source, RegistrySettings((source,), 0.001), Tools(session), delivered.deliver)
        task = asyncio.create_task(runner.run())
        async with asyncio.timeout(30):
            first, *_, second = [await delivered.arrived.get() for _ in range(4)]
        task.cancel()
        await asyncio.wait({task})
    await server.cleanup()
    assert asked >= 4
    assert [len(each.registrations or ()) for each in (first, second)] == [1, 3]


@pytest.mark.parametrize("url", ["ftp://registry/x", "lab.ndjson", "http://registry/x"])
def test_other_urls_or_http_without_session_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="source lab"):
        open_origin(SourceSettings("lab", url), None)


@pytest.mark.parametrize("url", ["file:/etc/a%20b.csv", "file:///etc/a%20b.csv"])
def test_file_urls_are_paths(url: str) -> None:
    assert open_origin(SourceSettings("lab", url), None).place == "/etc/a b.csv"


async def test_slices_run_in_turns_of_the_event_loop() -> None:
    sources = SourceSet(["lab"])
    sources.put("lab", {str(n): _registration() for n in range(20_000)})
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    changes = await run_in_slices(changes_in_slices({}, run_slices(sources.merge_in_slices()).registrations))
    counting.cancel()
    assert changes is not None
    assert len(changes.upserts) == 20_000
    assert turns >= 2
