"""The host's clocks: asked, said, kept; and the kernel's word."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from gatewayd.control import host_time
from gatewayd.control.host_time import FILE_NAME, KEEP_EVERY_S, HostTime, open_host_time
from gatewayd.control.trusted_time import ALONE, WELL, KeptTime
from gatewayd.sources.files import temporary
from tests.support.manual_clock import START_S, ManualClock, until

YEAR_S = 365 * 86400.0


class Asked:
    """The kernel's word, and how often it was asked for."""

    def __init__(self) -> None:
        self.is_synced = False
        self.times = 0

    def __call__(self, wall_s: float) -> bool:
        self.times += 1
        return self.is_synced


def host_of(clock: ManualClock, asked: Asked, directory: Path | None = None) -> HostTime:
    return HostTime(
        has_signed=False,
        wall=clock,
        elapsed=clock.monotonic,
        is_synced=asked,
        boot_id="boot",
        directory=directory,
    )


def test_the_kernel_is_asked_once_a_second_and_whenever_the_clock_was_set() -> None:
    clock, asked = ManualClock(), Asked()
    host = host_of(clock, asked)
    for _ in range(5):
        host()
    assert asked.times == 1
    clock.advance(1.0)
    host()
    assert asked.times == 2
    asked.is_synced = True
    clock.set_by(YEAR_S)
    assert host() == START_S + 1.0 + YEAR_S
    assert asked.times == 3


def test_a_step_of_a_synced_clock_by_hand_is_not_believed_for_a_moment() -> None:
    """The kernel clears its word when the clock is set, and it is asked before the new time is used."""
    clock, asked = ManualClock(), Asked()
    host = host_of(clock, asked)
    asked.is_synced = True
    assert host.moment() == START_S
    asked.is_synced = False
    clock.set_by(YEAR_S)
    assert host.moment() == START_S
    assert not host.moment() > START_S
    assert host() == START_S


async def test_what_is_known_is_kept_when_it_changes_now_and_then_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host_time, "LOOK_EVERY_S", 0.01)
    clock, asked, path = ManualClock(), Asked(), tmp_path / FILE_NAME

    def kept() -> KeptTime:
        return msgspec.json.decode(path.read_bytes(), type=KeptTime)

    host = host_of(clock, asked, tmp_path)
    keeping = asyncio.ensure_future(host.keep())
    await until(path.exists, within_s=60)
    assert (kept().strength, kept().boot_id) == (ALONE, "boot")
    asked.is_synced = True
    clock.advance(1.0)
    await until(lambda: kept().strength == WELL, within_s=60)
    clock.advance(KEEP_EVERY_S / 2)
    first = kept().at_s
    await asyncio.sleep(0.1)
    assert kept().at_s == first
    clock.advance(KEEP_EVERY_S / 2)
    await until(lambda: kept().at_s == clock(), within_s=60)
    clock.advance(10.0)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert kept().at_s == clock()

    again = host_of(clock, Asked(), tmp_path)
    again.recall()
    clock.set_by(-6 * YEAR_S)
    assert again() == pytest.approx(clock() + 6 * YEAR_S)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"boot_id":1}', b"[" * 9999])
def test_a_file_that_is_of_no_use_costs_what_it_knew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    clock = ManualClock()
    host = host_of(clock, Asked(), tmp_path)
    host.recall()
    assert host() == START_S


async def test_the_file_is_not_for_every_user_and_is_not_written_through_a_link(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / FILE_NAME
    victim.write_bytes(b"theirs")
    for link in (path, temporary(path)):
        link.symlink_to(victim)
    keeping = asyncio.ensure_future(host_of(ManualClock(), Asked(), tmp_path).keep())
    await until(lambda: not path.is_symlink(), within_s=60)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert victim.read_bytes() == b"theirs"
    assert path.stat().st_mode & 0o777 == 0o640


async def test_a_disk_that_fails_costs_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_time, "LOOK_EVERY_S", 0.01)
    asked = Asked()
    no_directory = tmp_path / "missing"
    no_directory.write_bytes(b"")
    host = host_of(ManualClock(), asked, no_directory)
    keeping = asyncio.ensure_future(host.keep())
    await asyncio.sleep(0.1)
    assert not keeping.done()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping


def test_this_hosts_clock_is_believed_at_a_first_start(tmp_path: Path) -> None:
    host = open_host_time(tmp_path, has_signed=False)
    assert abs(host() - time.time()) < 5
    assert host.doubt() is None
