"""Answers about months: the report, and the use of each registration."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice
from math import isfinite
from typing import Final, TypeVar

from gatewayd.activity import store
from gatewayd.activity.days import day_of
from gatewayd.activity.rows import Activity, Span
from gatewayd.activity.verify import Overlaps, Verdict, Verifier, notes_of
from gatewayd.api.report import (
    MAX_ITEMS,
    ActivityPage,
    Kept,
    RejectedCountView,
    ReportBuilder,
    ReportView,
    VerifyPage,
    activity_view,
)
from gatewayd.control.activity_keeper import ActivityKeeper
from gatewayd.control.controller import Controller
from gatewayd.control.near_miss_queries import NearMissQueries
from gatewayd.control.registry_queries import RegistryQueries
from gatewayd.state_file.file import StateFileUnusable
from gatewayd.state_file.view import StateFileView

USUAL_S: Final = 30 * 86_400.0
_T = TypeVar("_T")
SLICE: Final = 500
"""Registrations looked at between two turns of the loop: 1 ms or 2."""


VERDICTS: Final = 100
"""As SLICE, of what is looked up in the radix too: 2 ms or 3."""


class ReportQueries:
    """`keeper`: None where activity is not kept. `clock`: the likely time."""

    def __init__(
        self, controller: Controller, keeper: ActivityKeeper | None, *, clock: Callable[[], float]
    ) -> None:
        self._controller = controller
        self._keeper = keeper
        self._clock = clock
        self._near_misses = NearMissQueries(controller, clock)
        self._registry = RegistryQueries(controller)
        self._overlaps: Overlaps | None = None

    async def report(self, since_s: float) -> ReportView:
        """Over all registrations in force, as they are now, in slices. Without the file, what the rest knows."""
        until_s, moment, notes = self._clock(), self._controller.moment(), self._notes()
        since_s = _since(since_s, until_s)
        kept = Kept()
        try:
            kept = await self._read(_read_kept, since_s, until_s)
        except StateFileUnusable as error:
            notes.append(f"nothing is known of activity: {error}")
        if self._keeper is not None:
            notes += _losses(self._keeper.view, is_read=bool(kept.runs))
        builder = ReportBuilder(kept, since_s, until_s)
        for number, registration in enumerate(tuple(self._controller.allowlist), 1):
            builder.take(registration, moment)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        misses = self._near_misses.page(0, MAX_ITEMS, with_acknowledged=True)
        records = self._registry.rejected(None, 0, MAX_ITEMS)
        return builder.build(self._rejected(), records.items, misses.items, notes)

    async def activity(self, since_s: float, id: str | None, offset: int, limit: int) -> ActivityPage:
        """`id`: of this one alone. Raises StateFileUnusable."""
        moment, allowlist = self._controller.moment(), self._controller.allowlist
        if id is None:
            total, page = len(allowlist), list(islice(allowlist, offset, offset + limit))
        else:
            found = allowlist.get(id)
            page = [] if found is None else [found]
            total = len(page)
        now, ids = self._clock(), [each.id for each in page]
        span = _span(_since(since_s, now), now)
        used: dict[str, Activity] = await self._read(store.read_activity, span, ids, flushes=not offset)
        seen: dict[str, int] = await self._read(store.read_last_seen, ids, now, flushes=False)
        items = tuple(activity_view(each, used.get(each.id), seen.get(each.id), moment) for each in page)
        return ActivityPage(total, offset, items)

    async def verify(self, since_s: float, offset: int, limit: int) -> VerifyPage:
        """Overlaps are found among all registrations, in slices, with the first page; later pages use them."""
        now, moment, allowlist = self._clock(), self._controller.moment(), self._controller.allowlist
        isp, since_s = self._controller.settings.isp, _since(since_s, now)
        if not offset or self._overlaps is None:
            self._overlaps = await self._find_overlaps()
        page = list(islice(allowlist, offset, offset + limit))
        seen, first_day, notes = dict[str, int](), None, self._notes()
        try:
            ids = [each.id for each in page]
            seen = await self._read(store.read_last_seen, ids, now, flushes=not offset)
            first_day = await self._read(store.read_first_day, flushes=False)
        except StateFileUnusable as error:
            notes.append(str(error))
        notes += notes_of(isp.prefixes, isp.pools, first_day, since_s)
        verifier = Verifier(isp.prefixes, isp.pools, self._overlaps, since_s)
        items = list[Verdict]()
        for number, each in enumerate(page, 1):
            items.append(verifier.judge(each, seen.get(each.id), moment))
            if number % VERDICTS == 0:
                await asyncio.sleep(0)
        return VerifyPage(len(allowlist), offset, tuple(items), tuple(notes))

    async def _find_overlaps(self) -> Overlaps:
        overlaps = Overlaps(self._controller.allowlist.covering)
        for number, registration in enumerate(tuple(self._controller.allowlist), 1):
            overlaps.take(registration)
            if number % VERDICTS == 0:
                await asyncio.sleep(0)
        return overlaps

    def _notes(self) -> list[str]:
        return [] if self._controller.loaded else ["the registry is not loaded yet: registrations are missing here"]

    async def _read(self, work: Callable[..., _T], *arguments: object, flushes: bool = True) -> _T:
        if self._keeper is None:
            raise StateFileUnusable(store.FILE_NAME, "it is not kept")
        return await self._keeper.read(work, *arguments, flushes=flushes)

    def _rejected(self) -> tuple[RejectedCountView, ...]:
        sources = self._controller.sources.items()
        return tuple(
            RejectedCountView(name, sum(each.rejected.values()), dict(each.rejected)) for name, each in sources
        )


def _losses(view: StateFileView, *, is_read: bool) -> Iterator[str]:
    if is_read and view.last_error is not None:
        yield f"the latest activity is not in it, as {store.FILE_NAME} is not written: {view.last_error}"
    if view.lost:
        yield f"{view.lost:,} rows were lost while {store.FILE_NAME} could not be written"


def _since(since_s: float, until_s: float) -> float:
    """Without a time: 30 days."""
    return max(0.0, since_s) if isfinite(since_s) else until_s - USUAL_S


def _span(since_s: float, until_s: float) -> Span:
    """A row of a day to come was made by a clock that was ahead."""
    return Span(day_of(since_s), day_of(until_s))


def _read_kept(connection: sqlite3.Connection, since_s: float, until_s: float) -> Kept:
    """In the file's thread."""
    span = _span(since_s, until_s)
    return Kept(
        used=store.read_span(connection, span),
        seen=store.read_seen(connection),
        days=store.read_days(connection, span),
        first_day=store.read_first_day(connection),
        notes=store.read_notes(connection, since_s, until_s),
        runs=store.read_runs(connection),
    )
