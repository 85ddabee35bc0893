from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gatewayd.errors import (
    AnswerUnexpected,
    FeedFailed,
    FeedRefused,
    ForeignOrigin,
    IssuedInFuture,
    KeysUnusable,
    NotificationStale,
    TransferFailed,
    UnknownKey,
)
from gatewayd.feed.notification import generate_key
from gatewayd.feed.record import registration_of
from gatewayd.model import Registration
from gatewayd.model.registration import Changes
from gatewayd.registry.freshness import SourceState
from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.fetch import FetchLimits, Session, open_session
from gatewayd.sources.last_good import Restored
from gatewayd.sources.runner import FeedRunner, Tools
from gatewayd.sources.update import FeedPosition, SourceUpdate
from tests.support.feeds import KEY, NOW, Publisher, sha256, upsert, withdraw

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Feed:
    """A publisher behind a web server, and whatever a runner delivers. `now`: the clock of both."""

    directory: Path
    publisher: Publisher = field(default_factory=Publisher)
    special: dict[str, Handler] = field(default_factory=dict)
    requests: list[web.Request] = field(default_factory=list)
    delivered: list[SourceUpdate] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    now: float = NOW
    url: str = ""
    session: Session = field(init=False)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        name = request.path.removeprefix("/feed/")
        if name in self.special:
            return await self.special[name](request)
        raw = self.publisher.files.get(name)
        if raw is None:
            raise web.HTTPNotFound
        etag = f'"{sha256(raw)}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        return web.Response(body=raw, headers={"ETag": etag}, content_type="application/octet-stream")

    async def deliver(self, what: SourceUpdate) -> None:
        self.delivered.append(what)
        self.arrived.set()

    def write_key(self, text: str | bytes, name: str = "national.pub") -> Path:
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def runner(
        self,
        *,
        url: str = "",
        keys: Sequence[Path] | None = None,
        time: Any = None,
        resume: FeedPosition | None = None,
        previous: Any = None,
        restored: Restored | None = None,
        refresh_s: float = 60.0,
        fetch_limits: FetchLimits | None = None,
        **source: Any,
    ) -> FeedRunner:
        keys = [self.write_key(KEY.public_text())] if keys is None else keys
        settings = SourceSettings("national", url or self.url, tuple(map(str, keys)), **source)
        return FeedRunner(
            settings,
            RegistrySettings((settings,), refresh_s),
            Tools(self.session, lambda: self.now, time, Random(7)),
            self.deliver,
            restored or Restored(previous or {}, resume),
            fetch_limits,
        )

    def reading(self) -> SourceUpdate:
        last = self.delivered[-1]
        assert last.registrations is not None, last
        assert last.changes is None, last
        return last

    def delta(self) -> SourceUpdate:
        last = self.delivered[-1]
        assert last.changes is not None, last
        return last

    def cause(self) -> FeedRefused:
        last = self.delivered[-1].error
        assert isinstance(last, FeedFailed), last
        return last.cause


@pytest.fixture
async def feed(tmp_path: Path) -> AsyncIterator[Feed]:
    feed = Feed(tmp_path)
    app = web.Application()
    app.router.add_get("/{path:.*}", feed.handle)
    server = web.AppRunner(app, shutdown_timeout=0.1)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    feed.url = f"http://127.0.0.1:{server.addresses[0][1]}/feed/notification.jws"
    feed.publisher.publish(upsert("a"), upsert("b"), upsert("c"))
    async with open_session() as session:
        feed.session = session
        yield feed
    await server.cleanup()


async def test_a_snapshot_and_then_deltas_are_delivered(feed: Feed) -> None:
    runner = feed.runner()
    assert runner.client.position is None
    await runner.attempt()
    reading = feed.reading()
    assert reading.registrations == feed.publisher.registrations()
    assert (reading.source, runner.place, reading.at_s) == ("national", feed.url, NOW)
    assert (where(reading), reading.reason) == ((feed.publisher.session, 1), "first_time")
    before = runner.client.position
    feed.publisher.publish(upsert("d"), withdraw("a"))
    feed.publisher.publish(withdraw("b"))
    feed.now += 5
    await runner.attempt()
    delta = feed.delta()
    assert delta.changes is not None
    assert [each.id for each in delta.changes.upserts] == ["d"]
    assert (delta.changes.withdrawals, where(delta)) == (("a", "b"), (feed.publisher.session, 3))
    assert delta.registrations == feed.publisher.registrations()
    assert (delta.before, delta.position) == (before, runner.client.position)
    assert delta.position is not None
    assert (delta.position.issued_at, delta.at_s) == (feed.publisher.issued_at, NOW + 5)
    assert runner.client.stale_after == feed.publisher.issued_at + 604800
    assert 54 <= runner.next_attempt_at - feed.now <= 60
    assert [request.path for request in feed.requests][3:] == ["/feed/delta-2.gz", "/feed/delta-3.gz"]


async def test_files_are_asked_for_as_they_are_and_what_did_not_change_is_said_to_be_so(feed: Feed) -> None:
    runner = feed.runner()
    await runner.attempt()
    feed.now += 60
    await runner.attempt()
    assert feed.delivered[1:] == [SourceUpdate("national", NOW + 60, position=runner.client.position)]
    assert {request.headers["Accept-Encoding"] for request in feed.requests} == {"identity"}
    assert "If-None-Match" in feed.requests[-1].headers


async def test_a_notification_signed_anew_is_delivered_as_an_empty_change(feed: Feed) -> None:
    runner = feed.runner()
    await runner.attempt()
    feed.publisher.edit(issued_at=NOW)
    await runner.attempt()
    delta = feed.delta()
    assert delta.changes == Changes((), ())
    assert delta.position is not None
    assert delta.position.issued_at == NOW
    assert delta.registrations == feed.publisher.registrations()


class Witnessed:
    """Takes down what a feed says of the time."""

    def __init__(self) -> None:
        self.said: list[tuple[float, float, bool]] = []
        self.moment: float = NOW

    def feed_moment(self) -> float:
        return self.moment

    def witness(self, issued_at_s: float, holds_s: float, since_s: float | None) -> None:
        self.said.append((issued_at_s, holds_s, since_s is not None))


async def test_what_a_feed_says_of_the_time_is_told(feed: Feed) -> None:
    witnessed = Witnessed()
    runner = feed.runner(time=witnessed)
    issued_at = feed.publisher.issued_at
    await runner.attempt()
    await runner.attempt()
    assert witnessed.said == [(issued_at, 604800.0, False)] * 2  # read, and found unchanged
    feed.publisher.edit(issued_at=NOW)
    await runner.attempt()
    assert witnessed.said[2:] == [(NOW, 604800.0, True)]  # it was not there at the last question
    witnessed.moment = NOW + 604801
    await runner.attempt()
    assert isinstance(feed.cause(), NotificationStale)
    witnessed.moment = NOW
    feed.publisher.edit(issued_at=NOW + 5)
    await runner.attempt()
    assert witnessed.said[3:] == [(NOW + 5, 604800.0, False)]  # after a failure nobody knows since when


async def test_a_feed_that_goes_on_from_disk_says_nothing_of_when_it_came_out(feed: Feed) -> None:
    first = feed.runner()
    await first.attempt()
    reading = feed.reading()
    feed.publisher.edit(issued_at=NOW)
    witnessed = Witnessed()
    again = feed.runner(time=witnessed, resume=reading.position, previous=reading.registrations)
    await again.attempt()
    assert witnessed.said == [(NOW, 604800.0, False)]


async def test_an_error_is_delivered_as_what_it_is_and_tried_again_sooner(feed: Feed) -> None:
    runner = feed.runner()
    feed.now = 0
    for failures, wait_s in enumerate((10, 20, 40, 60, 60), 1):
        await runner.attempt()
        assert isinstance(feed.cause(), IssuedInFuture)
        assert (runner.failures, runner.client.failures) == (failures, failures)
        assert wait_s * 0.9 <= runner.next_attempt_at <= wait_s
    feed.now = NOW
    await runner.attempt()
    assert (runner.failures, feed.delivered[-1].error) == (0, None)


async def test_a_position_from_disk_goes_on_with_deltas(feed: Feed) -> None:
    await feed.runner().attempt()
    first = feed.reading()
    feed.publisher.publish(upsert("d"))
    runner = feed.runner(resume=first.position, previous=first.registrations)
    assert runner.client.position == first.position
    await runner.attempt()
    delta = feed.delta()
    assert delta.changes is not None
    assert [each.id for each in delta.changes.upserts] == ["d"]


async def test_a_source_that_was_no_feed_before_takes_the_snapshot(feed: Feed) -> None:
    runner = feed.runner(resume=FeedPosition("", 7), previous=feed.publisher.registrations())
    await runner.attempt()
    assert feed.reading().reason == "first_time"


def where(update: SourceUpdate) -> tuple[str, int]:
    return update.reached.session, update.reached.serial


async def test_an_attempt_that_is_cancelled_delivers_nothing_and_the_next_begins_anew(feed: Feed) -> None:
    runner = feed.runner()
    path = feed.publisher.notification.snapshot.url
    stuck = asyncio.Event()

    async def stick(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(feed.publisher.files[path][:10])
        stuck.set()
        await asyncio.sleep(3600)
        return response

    feed.special[path] = stick
    task = asyncio.create_task(runner.attempt())
    await stuck.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert feed.delivered == []
    del feed.special[path]
    await runner.attempt()
    assert len(feed.reading().registrations or ()) == 3


async def test_a_wrong_delta_leads_to_the_snapshot(feed: Feed) -> None:
    runner = feed.runner()
    await runner.attempt()
    feed.publisher.publish(upsert("d"))
    del feed.publisher.files["delta-2.gz"]
    await runner.attempt()
    assert feed.reading().reason == runner.client.snapshot_reason == "delta_missing"
    assert len(feed.reading().registrations or ()) == 4


async def test_rejections_are_counted_on_until_the_next_snapshot(feed: Feed) -> None:
    feed.publisher.records["x"] = {"id": "x"}
    feed.publisher.publish()
    runner = feed.runner()
    await runner.attempt()
    state = SourceState()
    state.take(feed.reading())
    assert state.rejected == {"missing_field": 1}
    feed.publisher.publish_lines(b'{"op":"upsert","registration":{"id":"y"}}\n' * 2)
    await runner.attempt()
    state.take(feed.delta())
    assert state.rejected == {"missing_field": 3}
    assert feed.delta().rejected == {"missing_field": 2}


async def test_endpoints_are_rejected_unless_the_source_may_bring_them(feed: Feed) -> None:
    feed.publisher.records["p"] = {
        "id": "p", "category": "provider", "status": "active", "services": ["ipsec"],
        "endpoints": ["198.51.100.0/24"],
    }  # fmt: skip
    feed.publisher.publish()
    runner = feed.runner()
    await runner.attempt()
    first = feed.reading()
    found = dict(first.registrations or {})
    assert (list(found), first.rejected) == (["a", "b", "c"], {"endpoints_not_allowed": 1})
    restored = Restored(found, first.position, NOW, first.rejected)
    allowed = feed.runner(restored=restored, allow_endpoints=True)
    await allowed.attempt()  # the same serial: what was rejected is in no delta
    assert feed.reading().registrations == found | {"p": registration_of(feed.publisher.records["p"])}
    await feed.runner(restored=restored).attempt()
    assert feed.delivered[-1].registrations is None


# -- keys ----------------------------------------------------------------------------------------------------


async def test_changed_key_files_are_picked_up(feed: Feed) -> None:
    runner = feed.runner()
    await runner.attempt()
    feed.publisher.key = generate_key("national-2")
    feed.publisher.publish(upsert("d"))
    await runner.attempt()
    assert isinstance(feed.cause(), UnknownKey)
    feed.write_key(feed.publisher.key.public_text())
    await runner.attempt()
    assert feed.delta().reached.serial == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff", "not UTF-8"),
        (b"PUBLIC KEY", "not JSON"),
        (KEY.private_text().encode(), "private key"),
        (generate_key("national-1").public_text().encode(), "another key in another file"),
        (b" " * 70_000, "not JSON"),
    ],
)
async def test_a_key_file_that_is_none(feed: Feed, content: bytes, why: str) -> None:
    keys = [feed.write_key(KEY.public_text()), feed.write_key(content, "second.pub")]
    await feed.runner(keys=keys).attempt()
    error = feed.cause()
    assert isinstance(error, KeysUnusable)
    assert why in error.why
    assert error.path.endswith("second.pub")
    assert not feed.requests


async def test_a_key_file_that_is_not_there(feed: Feed) -> None:
    await feed.runner(keys=[feed.directory / "none"]).attempt()
    assert "No such file" in str(feed.cause())


# -- the network ---------------------------------------------------------------------------------------------

SHORT = FetchLimits(connect_timeout_s=5.0, read_timeout_s=0.05, total_timeout_s=0.2)


async def test_slow_body(feed: Feed) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b"A")
                await asyncio.sleep(0.01)
        return response

    async def silence(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    for handler in (trickle, silence):
        feed.special["notification.jws"] = handler
        await feed.runner(fetch_limits=SHORT).attempt()
        error = feed.cause()
        assert isinstance(error, TransferFailed)
        assert error.why == "no answer in time"


async def test_cut_body(feed: Feed) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"A" * 500)
        assert request.transport is not None
        request.transport.close()
        return response

    feed.special["notification.jws"] = cut
    await feed.runner().attempt()
    assert isinstance(feed.cause(), TransferFailed)
    assert "cut short" in str(feed.cause())


async def test_no_server(feed: Feed) -> None:
    await feed.runner(url="http://127.0.0.1:1/notification.jws").attempt()
    assert isinstance(feed.cause(), TransferFailed)


async def test_a_proxy_is_asked_and_its_failure_told(feed: Feed) -> None:
    origin = feed.url.removesuffix("/feed/notification.jws")
    await feed.runner(url="http://registry.invalid/feed/notification.jws", proxy=origin).attempt()
    assert feed.requests[0].url.host == "registry.invalid"
    assert feed.reading().registrations == feed.publisher.registrations()
    await feed.runner(proxy="http://127.0.0.1:1").attempt()
    assert isinstance(feed.cause(), TransferFailed)


async def test_a_ca_file_that_is_none(feed: Feed) -> None:
    for path in (feed.directory / "none.pem", feed.write_key(b"x", "x.pem")):
        await feed.runner(ca_file=str(path)).attempt()
        assert isinstance(feed.cause(), TransferFailed)
        assert str(path) in str(feed.cause())


async def test_redirects_and_login_pages(feed: Feed) -> None:
    async def away(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://127.0.0.1:1/feed/notification.jws")

    async def login(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>log in</html>", content_type="text/html")

    feed.special["notification.jws"] = away
    await feed.runner().attempt()
    assert isinstance(feed.cause(), ForeignOrigin)
    feed.special["notification.jws"] = login
    await feed.runner().attempt()
    assert isinstance(feed.cause(), AnswerUnexpected)


async def test_a_url_with_secrets_is_not_shown(feed: Feed) -> None:
    url = feed.url.replace("127.0.0.1", "joe:secret@127.0.0.1") + "?token=secret"
    runner = feed.runner(url=url)
    assert runner.place == feed.url
    feed.special["notification.jws"] = lambda request: _status(500)
    await runner.attempt()
    assert "secret" not in str(feed.delivered[-1].error)


async def _status(status: int) -> web.StreamResponse:
    return web.Response(status=status)


async def test_it_is_asked_again_and_again_and_when_told_to(feed: Feed) -> None:
    feed.publisher.intervals = (0, 0, 604800)
    feed.publisher.publish()
    runner = feed.runner(refresh_s=3600.0)
    task = asyncio.create_task(runner.run())
    async with asyncio.timeout(30):
        for number in range(3):
            await feed.arrived.wait()
            feed.arrived.clear()
            feed.publisher.publish(upsert(f"n{number}"))
            runner.request_now()
        await feed.arrived.wait()
    task.cancel()
    await asyncio.wait({task})
    assert feed.delta().registrations == feed.publisher.registrations()


async def test_it_is_asked_again_by_itself(feed: Feed) -> None:
    feed.publisher.intervals = (0, 0, 604800)
    feed.publisher.publish()
    runner = feed.runner(refresh_s=0.001)
    task = asyncio.create_task(runner.run())
    async with asyncio.timeout(30):
        await feed.arrived.wait()
        feed.arrived.clear()
        feed.publisher.publish(upsert("n"))
        await feed.arrived.wait()
    task.cancel()
    await asyncio.wait({task})
    assert feed.delta().reached.serial == 3


async def test_two_attempts_at_once_take_turns(feed: Feed) -> None:
    runner = feed.runner()
    await asyncio.gather(runner.attempt(), runner.attempt())
    assert [each.registrations is not None for each in feed.delivered] == [True, False]


async def test_a_session_that_undoes_gzip_by_itself_is_refused(feed: Feed) -> None:
    async with aiohttp.ClientSession() as session:
        feed.session, ours = session, feed.session
        with pytest.raises(ValueError, match="open_session"):
            feed.runner()
        feed.session = ours


async def test_equal_registrations_keep_their_objects_over_a_restart(feed: Feed) -> None:
    previous: dict[str, Registration] = feed.publisher.registrations()
    runner = feed.runner(previous=previous)
    await runner.attempt()
    again = feed.reading().registrations
    assert again is not None
    assert again["a"] is previous["a"]
