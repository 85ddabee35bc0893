"""Samples of the counters for the plots of the last day."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from gatewayd.api.history import HistoryView
from gatewayd.control.history_keeper import HistoryKeeper
from gatewayd.control.vitals import Vitals
from gatewayd.model.transaction import CounterReading


class Parts:
    """What is read: `minute` sets the counters as they stand then."""

    def __init__(self, *, has_radius: bool = True) -> None:
        self.now = 0.0
        self.vitals = Vitals(lambda: self.now)
        self.stats = SimpleNamespace(repairs=0)
        self.watch = SimpleNamespace(late_admissions=0)
        self.listener = SimpleNamespace(stats=SimpleNamespace(requests=0)) if has_radius else None
        controller: Any = SimpleNamespace(reconciler=SimpleNamespace(stats=self.stats), watch=self.watch)
        subscribers: Any = SimpleNamespace(listener=self.listener)
        self.keeper = HistoryKeeper(controller, self.vitals, subscribers)

    def minute(
        self, at_s: float, registered: int, unregistered: int, repairs: int, late: int, requests: int
    ) -> None:
        self.now = at_s
        self.vitals.counters = {
            "registered_flows": CounterReading(registered, 0),
            "unregistered_flows": CounterReading(unregistered, 0),
        }
        self.stats.repairs, self.watch.late_admissions = repairs, late
        if self.listener is not None:
            self.listener.stats.requests = requests
        self.keeper.look()


def test_each_minute_has_what_came_in_it() -> None:
    parts = Parts()
    parts.minute(60, 1000, 10, 1, 2, 500)
    parts.minute(120, 1250, 11, 1, 3, 700)
    assert parts.keeper.view() == HistoryView(60, (120,), (250,), (1,), (0,), (1,), (200,))


def test_without_radius_or_before_the_counters_were_read_nothing_is_made_up() -> None:
    parts = Parts(has_radius=False)
    parts.keeper.look()
    parts.minute(60, 1_000_000, 10, 0, 0, 0)
    view = parts.keeper.view()
    assert (view.registered, view.accounting, view.repairs) == ((None,), (None,), (0,))


async def test_a_sample_is_taken_at_the_end_of_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, naps, asleep = Parts(), [], asyncio.Event()

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        parts.now += seconds
        parts.vitals.counters = {"registered_flows": CounterReading(len(naps), 0)} if len(naps) > 1 else {}
        if len(naps) == 5:
            asleep.set()
            await asyncio.Event().wait()

    monkeypatch.setattr("gatewayd.control.history_keeper.asyncio.sleep", sleep)
    parts.now = 1_000_011.5
    task = asyncio.ensure_future(parts.keeper.run())
    await asleep.wait()
    assert naps == [1, 1, 6.5, 60, 60]
    assert parts.keeper.view().at == (1_000_020, 1_000_080)
    assert parts.keeper.view().registered == (1, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
