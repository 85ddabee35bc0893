"""Answers about months, over a real controller and a real file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gatewayd.control import report_queries
from gatewayd.control.activity_keeper import ActivityKeeper
from gatewayd.control.report_queries import ReportQueries
from gatewayd.log.ring import EventRing
from gatewayd.log.tap import EventTap
from gatewayd.model import Flow, Registration, parse_prefix
from gatewayd.model.flow import ConnectionEvent
from gatewayd.model.registration import Extension
from gatewayd.registry.history import History
from gatewayd.state_file.file import StateFileUnusable
from tests.support.fake_conntrack import FakeConntrack
from tests.support.manual_clock import ManualClock
from tests.support.owning import Owning, owning, settings_of

NOW = 1_764_504_000.0


def registration(id: str, client: str) -> Registration:
    return Registration(id, "bank", "active", (parse_prefix(client),), extension=Extension(f"of-{id}"))


@asynccontextmanager
async def asked(directory: Path, *, keeps: bool = True) -> AsyncIterator[tuple[Owning, ReportQueries]]:
    async with owning(ManualClock(NOW), settings_of("national"), conntrack=FakeConntrack()) as it:
        for each in (registration("a", "203.0.113.0/28"), registration("b", "203.0.113.0/24")):
            it.controller.allowlist.upsert(each)
        tap = EventTap(EventRing(7), lambda: NOW)
        keeper = ActivityKeeper(directory, it.controller.attribution, History(), tap, clock=lambda: NOW)
        event = ConnectionEvent(
            "new", Flow(17, b"\xcb\0\x71\1", b"\xc6\x33\x64\x07", 1, 500), 1, 1, 1, 60, 0, 0, b"tuple", 0
        )
        it.controller.attribution.opened(event, (registration("a", "203.0.113.0/28"),), NOW)
        try:
            yield it, ReportQueries(it.controller, keeper if keeps else None, clock=lambda: NOW)
        finally:
            await keeper.close()


async def test_the_report_has_what_was_used_just_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_queries, "SLICE", 1)
    async with asked(tmp_path) as (_, queries):
        found = await queries.report(float("-inf"))
        assert (found.since, found.until) == ("2025-10-31T12:00:00Z", "2025-11-30T12:00:00Z")
        assert (found.counts.registered, found.counts.active, found.counts.never_seen) == (2, 1, 1)
        assert [each.source for each in found.rejected] == ["national"]
        (one,) = (await queries.activity(NOW - 60, "a", 0, 1)).items
        assert (one.id, one.last_seen_at) == ("a", "2025-11-30T12:00:00Z")
        assert (await queries.activity(NOW - 60, "unknown", 0, 1)).total == 0
        page = await queries.activity(NOW - 60, None, 0, 1)
        assert (page.total, page.items[0].id, page.items[0].bytes) == (2, "a", 60)
        assert (await queries.activity(NOW - 60, None, 1, 9)).items[0].last_seen_at is None


async def test_verdicts_of_a_later_page_know_the_overlaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_queries, "SLICE", 1)
    async with asked(tmp_path) as (_, queries):
        later = await queries.verify(NOW - 60, 1, 1)
        assert [(each.id, each.overlaps, each.findings) for each in later.items] == [
            ("b", ("a",), ("overlap", "not_seen"))
        ]
        first = await queries.verify(NOW - 60, 0, 1)
        assert [(each.id, each.findings) for each in first.items] == [("a", ("overlap",))]
        assert first.total == 2
        assert "isp.prefixes is empty: whether an address is ours is not said" in first.notes


async def test_without_the_file_the_rest_is_answered(tmp_path: Path) -> None:
    async with asked(tmp_path, keeps=False) as (_, queries):
        report = await queries.report(0.0)
        assert report.counts.registered == 2
        assert "the registry is not loaded yet: registrations are missing here" in report.notes
        assert "nothing is known of activity: activity.sqlite: it is not kept" in report.notes
        assert "activity.sqlite: it is not kept" in (await queries.verify(0.0, 0, 9)).notes
        with pytest.raises(StateFileUnusable):
            await queries.activity(0.0, None, 0, 9)


async def test_a_disk_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with asked(tmp_path) as (_, queries):
        await queries.report(0.0)
        monkeypatch.setattr("gatewayd.activity.store.write", full)
        notes = (await queries.report(0.0)).notes
        assert any("activity.sqlite is not written: No space left on device" in each for each in notes)
