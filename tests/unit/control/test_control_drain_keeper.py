"""What is left of a drain, from one run to the next."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from gatewayd.control import drain_keeper
from gatewayd.control.drain_keeper import FILE, DrainKeeper
from gatewayd.reconcile.connections import ConnectionScanner
from gatewayd.reconcile.scan_requests import Grace, ScanRequests
from gatewayd.watch.attribute import Attribution
from tests.support.fake_conntrack import FakeConntrack
from tests.support.owning import LAYOUT, REGISTERED, flow


class Run:
    """A scanner of one run of the daemon, where nothing is registered."""

    def __init__(
        self, directory: Path, boot_id: str = "boot-1", drain_s: float = 600.0, grace_s: float = 0.0
    ) -> None:
        self.conntrack = FakeConntrack()
        self.requests = ScanRequests(drain_s)
        self.scanner = ConnectionScanner(
            self.conntrack, LAYOUT, self, self.requests, clock=lambda: 0.0, flow_table=Attribution(),
            grace=Grace(grace_s),
        )  # fmt: skip
        self.keeper = DrainKeeper(directory, self.scanner, boot_id=boot_id)

    def matching(self, *_: object) -> tuple[()]:
        return ()

    programmed = matching

    def is_in_scope(self, _: object) -> bool:
        return True

    async def scan(self) -> None:
        """Once, after all is in the kernel."""
        self.requests.note_removed()
        self.requests.settle(1)
        scans, task = self.scanner.scans, asyncio.create_task(self.scanner.run())
        while self.scanner.scans == scans:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


FLOW = flow("39.32.0.1")


async def left_in(directory: Path) -> dict[bytes, float]:
    """A run that begins a drain, and is killed once the file has it."""
    first = Run(directory)
    await first.keeper.open()
    first.conntrack.put(FLOW, REGISTERED)
    await first.scan()
    assert first.scanner.drains_changed.is_set()
    assert await first.keeper.save()
    await first.keeper._file.close()
    return dict(first.scanner.drains)


async def test_the_next_run_goes_on_with_what_is_left(tmp_path: Path) -> None:
    before = await left_in(tmp_path)
    second = Run(tmp_path, grace_s=3600.0)
    await second.keeper.open()
    second.conntrack.put(FLOW, REGISTERED)
    await second.scan()
    # As it was; it does not wait for accounting once more; and no address is in the file.
    assert FLOW.source not in (tmp_path / FILE).read_bytes() + (tmp_path / f"{FILE}-wal").read_bytes()
    assert second.scanner.drains == before
    assert second.scanner.grace.waiting == 0
    await second.keeper.close()


async def test_another_boot_knows_nothing_of_it(tmp_path: Path) -> None:
    await left_in(tmp_path)
    for boot_id in ("boot-2", "boot-1"):
        run = Run(tmp_path, boot_id)
        await run.keeper.open()
        run.conntrack.put(FLOW, REGISTERED)
        began = asyncio.get_running_loop().time()
        await run.scan()
        # It begins again.
        assert min(run.scanner.drains.values()) >= began + 600.0
        await run.keeper._file.close()


async def test_a_boot_without_an_id_keeps_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, boot_id="")
    await run.keeper.open()
    run.conntrack.put(FLOW, REGISTERED)
    await run.scan()
    assert run.scanner.draining == 1
    await run.keeper.close()
    connection = sqlite3.connect(tmp_path / FILE)
    assert connection.execute("SELECT count(*) FROM drain").fetchone() == (0,)
    connection.close()


async def test_a_drain_that_was_shortened_meanwhile_ends_sooner(tmp_path: Path) -> None:
    before = await left_in(tmp_path)
    second = Run(tmp_path, drain_s=0.0)
    await second.keeper.open()
    second.conntrack.put(FLOW, REGISTERED)
    await second.scan()
    assert before
    assert (second.scanner.draining, second.scanner.drained) == (0, 1)
    assert second.conntrack.mark_of(FLOW) == 0
    await second.keeper.close()


async def test_a_flow_that_ended_meanwhile_is_forgotten(tmp_path: Path) -> None:
    await left_in(tmp_path)
    second = Run(tmp_path)
    await second.keeper.open()
    await second.scan()
    assert second.scanner.drains == {}
    await second.keeper.close()
    connection = sqlite3.connect(tmp_path / FILE)
    assert connection.execute("SELECT count(*) FROM drain").fetchone() == (0,)
    connection.close()


async def test_before_the_registry_is_known_a_drain_that_is_over_cuts_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, drain_s=0.0)
    run.scanner.note_ended_early(run.conntrack.put(FLOW, REGISTERED))
    task = asyncio.create_task(run.scanner.run())
    await asyncio.sleep(0.01)
    assert (run.scanner.scans, run.conntrack.mark_of(FLOW)) == (0, REGISTERED)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_file_that_takes_nothing_is_tried_again_and_cuts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_keeper, "RETRY_S", 0.001)
    monkeypatch.setattr(drain_keeper, "PAUSE_S", 0.001)
    nowhere = tmp_path / "nowhere"
    nowhere.write_text("no directory")
    run = Run(nowhere)
    await run.keeper.open()
    run.conntrack.put(FLOW, REGISTERED)
    await run.scan()
    task = asyncio.create_task(run.keeper.run())
    while run.keeper.view.failures < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    nowhere.unlink()
    while run.keeper.view.state != "ok":  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert run.scanner.draining == 1
    await run.keeper.close()
