"""What the process says of itself, and that a fault in saying it ends nothing."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gatewayd.control import vitals
from gatewayd.control.vitals import START_PATIENCE_S, Pulse, Vitals
from gatewayd.model.policy import Stage
from gatewayd.systemd import Notifier
from gatewayd.trial.views import ArmingView
from tests.support.fake_queries import FakeQueries


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


# -- readiness, as the service manager hears it ------------------------------------------------------------------


async def test_the_start_ends_when_ready_or_when_patience_is_at_an_end(tmp_path: Path) -> None:
    now, queries = [0.0], FakeQueries()
    queries.reasons = ("source national is being read",)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        clock: Any = SimpleNamespace(doubt=lambda: None)
        pulse = Pulse(queries, Vitals(lambda: 0.0), notifier, clock, range(7), lambda: now[0])
        pulse.look()
        assert manager.recv(4096) == b"STATUS=not ready: source national is being read"
        now[0] = START_PATIENCE_S - 0.1
        pulse.look()
        assert not notifier.said_ready
        now[0] = START_PATIENCE_S
        pulse.look()
        assert manager.recv(4096) == b"READY=1\nSTATUS=not ready: source national is being read"
        pulse.look()
        queries.reasons = ()
        pulse.look()
        assert manager.recv(4096) == b"READY=1\nSTATUS=7 registrations in the kernel"
        queries.arming.shown = ArmingView(reverting=Stage("observe"))
        pulse.look()
        pulse.look()
        assert manager.recv(4096) == b"STATUS=7 registrations in the kernel; REVERTING to observe"
        queries.arming.shown = ArmingView()
        pulse.look()
        assert manager.recv(4096) == b"STATUS=7 registrations in the kernel"
        notifier.close()
