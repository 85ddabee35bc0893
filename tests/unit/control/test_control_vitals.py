"""What the process says of itself, and that a fault in saying it ends nothing."""

from __future__ import annotations

import asyncio

import pytest

from gatewayd.control import vitals
from gatewayd.control.vitals import Vitals


async def test_a_task_that_only_reports_goes_on_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "RETRY_S", 0.0)
    numbers = Vitals(lambda: 0.0)
    runs, went_on = iter(range(3)), asyncio.Event()

    async def report() -> None:
        if next(runs) < 2:
            raise OSError(24, "Too many open files")
        went_on.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(numbers.go_on("pulse", report))
    await went_on.wait()
    assert numbers.report_failures == {"pulse": 2}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
