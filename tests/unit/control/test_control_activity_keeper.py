"""Use of registrations, on disk once a minute: nothing twice, nothing lost that memory can keep."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest

from gatewayd.activity import store
from gatewayd.activity.days import DAY_S, Note, day_of
from gatewayd.activity.rows import Activity, Run, Span
from gatewayd.api.standing import StepView
from gatewayd.control import activity_keeper
from gatewayd.control.activity_keeper import ActivityKeeper
from gatewayd.log.ring import EventRing, FollowedEvent
from gatewayd.log.tap import EventTap
from gatewayd.model import Flow, Registration, parse_prefix
from gatewayd.model.flow import ConnectionEvent
from gatewayd.model.registration import Changes
from gatewayd.registry.history import History
from gatewayd.state_file.file import Schema, StateFile
from gatewayd.state_file.view import StateFileView
from gatewayd.watch.attribute import Attribution

NOW = 1_764_504_000.0  # 2025-11-30T12:00:00Z
TODAY = day_of(NOW)
EVER = Span(0, 10**6)


def registration(id: str) -> Registration:
    return Registration(id, "bank", "active", (parse_prefix("10.0.0.0/24"),))


class Scene:
    def __init__(self, directory: Path) -> None:
        self.now = NOW
        self.attribution = Attribution()
        self.attribution.begin_resync()
        self.attribution.finish_resync()
        self.history = History()
        self.tap = EventTap(EventRing(7), lambda: self.now)
        self.directory = directory
        self.flows = 0
        self.keeper = self.begin()

    def begin(self) -> ActivityKeeper:
        """As at a start of the daemon."""
        self.keeper = ActivityKeeper(
            self.directory, self.attribution, self.history, self.tap, clock=lambda: self.now
        )
        return self.keeper

    def use(self, id: str, size_bytes: int) -> None:
        self.flows += 1
        event = ConnectionEvent(
            "new", Flow(17, b"\x0a\0\0\1", b"\xc6\x33\x64\x07", self.flows, 500), 1, self.flows,
            1, size_bytes, 0, 0, b"tuple" + self.flows.to_bytes(4, "big"), 0,
        )  # fmt: skip
        self.attribution.opened(event, (registration(id),), self.now)

    async def used(self, span: Span = EVER) -> dict[str, Activity]:
        return await self.keeper.read(store.read_span, span)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncGenerator[Scene, None]:
    scene = Scene(tmp_path)
    yield scene
    await scene.keeper.close()


async def test_what_is_used_is_on_disk_and_after_a_restart_goes_on(scene: Scene) -> None:
    scene.use("bank", 100)
    assert await scene.keeper.flush()
    scene.use("bank", 50)
    scene.now += 60
    await scene.keeper.close()
    scene.now += 600
    scene.begin()
    scene.use("bank", 7)
    assert await scene.used() == {"bank": Activity(3, 157, 1, int(NOW) + 660)}
    assert await scene.keeper.read(store.read_runs) == [
        Run(int(NOW), int(NOW) + 60), Run(int(NOW) + 660, int(NOW) + 660),
    ]  # fmt: skip


async def test_what_is_used_before_midnight_counts_before_it(scene: Scene) -> None:
    scene.use("bank", 100)
    scene.now = (TODAY + 1) * DAY_S  # the flush at midnight
    assert await scene.used(Span(TODAY, TODAY)) == {"bank": Activity(1, 100, 1, int(NOW))}
    scene.use("bank", 11)
    assert await scene.used(Span(TODAY + 1, TODAY + 1)) == {"bank": Activity(1, 11, 1, (TODAY + 1) * DAY_S)}


async def test_a_minute_ends_with_the_day(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
            scene.now += seconds
            if len(slept) == 3:
                raise asyncio.CancelledError
        await real(0)

    monkeypatch.setattr("gatewayd.control.activity_keeper.asyncio.sleep", sleep)
    scene.now = (TODAY + 1) * DAY_S - 80
    with pytest.raises(asyncio.CancelledError):
        await scene.keeper.run()
    assert slept == [60, 20, 60]


async def test_steps_of_the_registry_and_events_are_kept_once(scene: Scene) -> None:
    many = Changes(tuple(registration(f"r{number}") for number in range(150)), ("gone",))
    scene.history.note(many, lambda id: id == "gone", "national", 7, NOW)
    scene.tap.take("guard.held", {"cause": "national", "serial": 7, "removals": 3, "reason": "many"})
    scene.tap.take("late_admission", {"id": "bank"})
    assert await scene.keeper.flush()
    assert await scene.keeper.flush()
    scene.history.note(Changes((), ("r1",)), lambda _: True, "config/accepted", 7, NOW + 60, by="uid 0")
    step, held, accepted = await scene.keeper.read(store.read_notes, 0.0, 1e12)
    assert (step.at_s, step.kind, held.kind) == (NOW, "registry.step", "guard.held")
    view = msgspec.json.decode(step.body, type=StepView)
    assert (len(view.came), view.went, view.omitted) == (100, ("gone",), 50)
    assert msgspec.json.decode(held.body, type=FollowedEvent).fields["removals"] == 3
    assert msgspec.json.decode(accepted.body, type=StepView).by == "uid 0"


async def test_while_the_disk_fails_all_waits_and_comes_when_it_is_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as disk:
        disk.setattr(store, "write", full)
        for size_bytes in (100, 10):
            scene.use("bank", size_bytes)
            scene.tap.take("guard.held", {})
            assert not await scene.keeper.flush()
        assert await scene.used() == {}
    assert (scene.keeper.view.state, scene.keeper.view.last_error) == ("failing", "database or disk is full")
    scene.use("bank", 1)
    assert (await scene.used())["bank"].size_bytes == 111
    assert len(await scene.keeper.read(store.read_notes, 0.0, 1e12)) == 2
    assert (scene.keeper.view.state, scene.keeper.view.lost) == ("ok", 0)


async def test_notes_that_wait_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(activity_keeper, "MAX_WAITING_NOTES", 2)
    with monkeypatch.context() as disk:
        disk.setattr(store, "write", full)
        for serial in range(5):
            scene.tap.take("guard.held", {"serial": serial})
            await scene.keeper.flush()
    notes: list[Note] = await scene.keeper.read(store.read_notes, 0.0, 1e12)
    assert [msgspec.json.decode(each.body)["fields"]["serial"] for each in notes] == [3, 4]
    assert scene.keeper.view.lost == 3


async def test_a_file_of_a_newer_version_gets_nothing_and_nothing_waits_for_it(
    scene: Scene, tmp_path: Path
) -> None:
    await scene.keeper.close()
    newer = StateFile(tmp_path / store.FILE_NAME, Schema(99, ()), StateFileView("x"))
    (tmp_path / store.FILE_NAME).unlink(missing_ok=True)
    await newer.use(lambda connection: connection.execute("CREATE TABLE x (y)"))
    await newer.close()
    scene.begin()
    scene.use("bank", 100)
    assert not await scene.keeper.flush()
    assert (scene.keeper.view.state, scene.keeper.view.lost) == ("newer", 1)
    assert not await scene.keeper.flush()
    assert scene.keeper.view.lost == 1


async def test_a_file_that_was_removed_is_begun_again_with_its_run(scene: Scene, tmp_path: Path) -> None:
    scene.use("bank", 100)
    await scene.keeper.flush()
    (tmp_path / store.FILE_NAME).unlink()
    scene.use("bank", 5)
    assert (await scene.used())["bank"].size_bytes == 5
    assert len(await scene.keeper.read(store.read_runs)) == 1


async def test_a_caller_that_is_cancelled_loses_nothing(scene: Scene) -> None:
    scene.use("bank", 100)
    task = asyncio.create_task(scene.keeper.flush())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await scene.used())["bank"].size_bytes == 100


async def test_days_past_the_bound_are_said(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "prune", lambda _: 2)
    with caplog.at_level("INFO", "gatewayd"):
        await scene.keeper.flush()
        await scene.keeper.flush()
    assert [each.message for each in caplog.records] == ["activity.days_dropped"]


@pytest.mark.parametrize("seen_s", [float("-inf"), 0.0, NOW + 1e9])
async def test_a_time_in_doubt_is_one_of_the_minute(scene: Scene, seen_s: float) -> None:
    """A scan of flows goes by the time for windows: the earliest that it may be."""
    scene.now = seen_s
    scene.use("bank", 100)
    scene.now = NOW + 60
    (used,) = (await scene.used()).values()
    assert NOW <= used.last_seen_s <= NOW + 60
