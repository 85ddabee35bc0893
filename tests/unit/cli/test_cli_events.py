"""`gatewayd events`: a line each, gaps said, and followed over a restart of the daemon."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gatewayd.api.event_stream import GapView
from gatewayd.cli import events, main
from gatewayd.cli.client import Endpoint
from gatewayd.errors import DaemonNotReachable
from gatewayd.log.tap import TAP
from tests.support.fake_queries import FakeQueries, serving_in_a_thread


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with serving_in_a_thread(FakeQueries(), tmp_path / "api.sock"):
        yield tmp_path / "api.sock"


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["events", "--socket", str(path), *arguments])


def place() -> str:
    """Of the event that came last in this process."""
    batch = TAP.after(None, 100_000)
    return str(batch.entries[-1].position if batch.entries else batch.after)


def test_events_are_lines_with_their_fields(path: Path) -> None:
    since = place()
    TAP.take("guard.held", {"cause": "national", "serial": 7, "removals": 412, "reason": "5 % at once"})
    found = run(path, "--since", since)
    assert found.exit_code == 0
    (line,) = found.stdout.splitlines()
    assert line.split("  ", 1)[0].endswith("Z guard.held")
    assert line.endswith('cause=national serial=7 removals=412 reason="5 % at once"')


def test_json_is_an_object_a_line(path: Path) -> None:
    since = place()
    TAP.take("reload.done", {"by": "uid 0"})
    TAP.take("source.failed", {"source": "a", "error": "x" * 20_000})
    lines = [json.loads(line) for line in run(path, "--json", "--since", since).stdout.splitlines()]
    assert [(each["event"], each["fields"]) for each in lines] == [
        ("reload.done", {"by": "uid 0"}), ("source.failed", {"source": "a"}),
    ]  # fmt: skip
    assert "(error too long)" in run(path, "--since", since).stdout


def test_missing_events_are_said(path: Path) -> None:
    TAP.take("reload.done", {"by": "uid 0"})
    first, *_ = run(path, "--since", "1-1").stdout.splitlines()
    assert "the daemon was started since" in first
    first, *_ = run(path, "--json", "--since", "400d").stdout.splitlines()
    assert json.loads(first)["gap"]["reason"] in ("restart", "overrun")
    assert events.describe_gap(GapView("overrun", 1)) == "1 event missed: forgotten for newer ones"
    assert events.describe_gap(GapView("overrun")) == "events missed: forgotten for newer ones"


def test_a_time_that_is_none_is_a_fault_of_usage(path: Path) -> None:
    found = run(path, "--since", "yesterday")
    assert found.exit_code == 2
    assert "neither an id nor a time" in found.stderr


def test_a_daemon_that_is_not_there_is_said(tmp_path: Path) -> None:
    for arguments in ((), ("-f",)):
        found = run(tmp_path / "none", *arguments)
        assert found.exit_code == 3
        assert "is the service running?" in found.stderr


def test_another_program_is_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stream(*_: object) -> AsyncGenerator[bytes, None]:
        yield b"x" * 100_000

    monkeypatch.setattr(Endpoint, "stream", stream)
    found = CliRunner().invoke(main, ["events"])
    assert found.exit_code == 3
    assert "not this gatewayd" in found.stderr


def test_following_goes_on_over_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run is asked with the last id of the first."""
    body = b'data: {"id":"7-1","at":"T","level":"info","event":"daemon.%s"}\n\n'
    runs: list[Any] = [
        [b"id: 7-1\n" + body % b"stopping"],
        DaemonNotReachable("here", "gone"),
        DaemonNotReachable("here", "gone"),
        [b'id: 8-0\nevent: gap\ndata: {"reason":"restart"}\n\nid: 8-1\n' + body % b"started"],
        KeyboardInterrupt(),
    ]
    asked: list[object] = []

    async def stream(
        _: Endpoint, __: str, parameters: object, headers: object, silence_s: float
    ) -> AsyncGenerator[bytes, None]:
        asked.append(headers)
        found = runs.pop(0)
        if isinstance(found, BaseException):
            raise found
        for chunk in found:
            yield chunk

    monkeypatch.setattr(Endpoint, "stream", stream)
    monkeypatch.setattr(events, "RETRY_S", 0.0)
    found = CliRunner().invoke(main, ["events", "--follow"])
    assert found.exit_code == 130
    assert [line.split()[-1] for line in found.stdout.splitlines()] == [
        "daemon.stopping",
        "alone",
        "daemon.started",
    ]
    assert found.stderr.count("asking again") == 1
    assert found.stderr.count("answers again") == 1
    assert asked == [
        {}, *[{"Last-Event-ID": "7-1"}] * 3, {"Last-Event-ID": "8-1"},
    ]  # fmt: skip


def test_following_prints_what_comes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    since, came = place(), threading.Event()
    lines: list[Sequence[str]] = []

    def note(*line: str) -> None:
        lines.append(line)
        came.set()

    monkeypatch.setattr(events, "print_event", note)

    async def follow() -> None:
        task = asyncio.create_task(events._show(Endpoint(str(path)), since, False, follow=True))
        TAP.take("reload.done", {"by": "uid 0"})
        while not came.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(follow())
    assert [line[1:3] for line in lines] == [("reload.done", 'by="uid 0"')]
