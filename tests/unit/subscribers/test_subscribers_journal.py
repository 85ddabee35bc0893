"""The journal on real files: what is on disk when, and what becomes of it when the disk, the file or we fail."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gatewayd.state_file.file import BUSY_TIMEOUT_S
from gatewayd.subscribers.journal import Journal, JournalState
from gatewayd.subscribers.journal_file import JournalFile
from gatewayd.subscribers.journal_rows import ClockMark, NasRow, Row, key_of
from tests.support.newer import contents_of, make_newer

REPOSITORY = Path(__file__).parents[3]
SOON = (0.001, 0.01)
"""Pauses between attempts that no test waits for."""


def row(number: int, at_s: float = 1.0) -> Row:
    value = NasRow(f"bng-{number:06d}-{'x' * 100}", at_s)
    return Row(key_of(value), value)


def gone(number: int) -> Row:
    return Row(row(number).key, None)


def in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda each: each.key)


async def until(condition: Callable[[], object]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come to be")


async def written(journal: Journal, *rows: Row) -> None:
    """On disk, or in a suspension accounted."""
    done = asyncio.Event()
    assert journal.write(rows, done.set)
    await asyncio.wait_for(done.wait(), 20)


@asynccontextmanager
async def opened(path: Path, **more: Any) -> AsyncIterator[tuple[Journal, list[JournalState]]]:
    states: list[JournalState] = []
    journal = Journal(path, on_state=states.append, retry_s=SOON, **more)
    await journal.open()
    try:
        yield journal, states
    finally:
        await journal.close()


async def read(path: Path) -> list[Row]:
    journal = Journal(path)
    rows = await journal.open()
    assert journal.suspended_for is None
    await journal.close()
    return in_order(rows)


def as_after_a_crash(path: Path, to: Path) -> Path:
    """The files as they are now, under another name."""
    to.mkdir(mode=0o700)
    for suffix in ("", "-wal", ".mark"):
        if Path(f"{path}{suffix}").exists():
            shutil.copy(f"{path}{suffix}", to / f"{path.name}{suffix}")
    return to / path.name


def modes(directory: Path) -> dict[str, int]:
    return {each.name: each.stat().st_mode & 0o777 for each in directory.iterdir()}


class Gate:
    """Writes of a journal's file wait until it is opened, and then for as many as are let through."""

    def __init__(self, journal: Journal) -> None:
        self.began = 0
        self.groups: list[list[Row]] = []
        self._write = journal._file.write
        self._tickets = threading.Semaphore(0)
        journal._file.write = self.write  # type: ignore[method-assign]

    def write(self, rows: Iterable[Row], moment: ClockMark | None = None) -> None:
        self.began += 1
        assert self._tickets.acquire(timeout=60)
        self.groups.append(list(rows))
        self._write(rows)

    def let(self, count: int = 1) -> None:
        self._tickets.release(count)


class Failing:
    """Writes fail with `error` while it is not None."""

    def __init__(self, journal: Journal, error: Exception | None) -> None:
        self.error = error
        self.attempts = 0
        self._write = journal._file.write
        journal._file.write = self.write  # type: ignore[method-assign]

    def write(self, rows: Iterable[Row], moment: ClockMark | None = None) -> None:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        self._write(rows)


# What is written is on disk


async def test_what_is_done_is_on_disk_and_is_read_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    async with opened(path) as (journal, states):
        await written(journal, row(1), row(2), row(3))
        copy = as_after_a_crash(path, tmp_path / "crash")
        assert await read(copy) == [row(1), row(2), row(3)]
        await written(journal, gone(2), row(3, at_s=9.0))
        assert modes(tmp_path) == {
            "sessions.sqlite": 0o600,
            "sessions.sqlite-wal": 0o600,
            "sessions.sqlite.mark": 0o600,
            "crash": 0o700,
        }
    assert await read(path) == [row(1), row(3, at_s=9.0)]
    assert states == []
    assert (journal.stats.groups, journal.stats.rows, journal.stats.failures) == (2, 5, 0)
    assert journal.stats.longest_write_seconds <= journal.stats.write_seconds


async def test_at_the_end_everything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    done: list[int] = []
    async with opened(path) as (journal, _):
        for number in range(50):
            journal.write([row(number)], partial(done.append, number))
        journal.write([gone(0)], None)
    assert done == list(range(50))
    assert len(await read(path)) == 49


async def test_a_journal_that_was_never_opened_can_be_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "sessions.sqlite")
    await journal.close()
    assert modes(tmp_path) == {}


async def test_what_comes_while_a_group_is_written_is_one_group_and_a_key_one_row(tmp_path: Path) -> None:
    async with opened(tmp_path / "sessions.sqlite", stall_s=60.0) as (journal, _):
        gate = Gate(journal)
        done: list[int] = []
        journal.write([row(0)], lambda: done.append(0))
        await until(lambda: gate.began == 1)
        for number in range(1, 9):
            journal.write([row(7, at_s=float(number)), row(8)], partial(done.append, number))
        journal.write([gone(8)], None)
        assert (journal.waiting, journal.waiting_rows) == (9, 2)
        gate.let()
        await until(lambda: gate.began == 2)
        assert done == [0], "the second group is not on disk"
        gate.let()
        await until(lambda: len(done) == 9)
        assert done == list(range(9))
        assert gate.groups == [[row(0)], [row(7, at_s=8.0), gone(8)]]
        assert journal.waiting == 0


async def test_beyond_what_may_wait_nothing_is_taken_but_rows_that_nobody_waits_for(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    async with opened(path, max_waiting=2, stall_s=60.0) as (journal, _):
        gate = Gate(journal)
        done: list[int] = []
        for number in range(2):
            assert journal.write([row(number)], partial(done.append, number))
            await until(lambda: gate.began == 1)
        assert not journal.has_room
        assert not journal.write([row(2)], lambda: done.append(2))
        assert journal.write([row(3)], None)
        assert journal.stats.refused == 1
        gate.let(2)
        await until(lambda: done == [0, 1])
        assert journal.has_room
        gate.let(9)
    assert await read(path) == [row(0), row(1), row(3)]


async def test_a_done_that_fails_keeps_no_other_from_being_called(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise ValueError

    journal = Journal(tmp_path / "sessions.sqlite", on_state=fail, retry_s=SOON)
    await journal.open()
    journal.write([row(1)], fail)
    await written(journal, row(2))
    Failing(journal, OSError("gone")).error = None
    journal._suspend("for a test")
    await written(journal, row(3))
    await journal.close()
    assert journal.stats.groups >= 2


# The disk fails


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk full"), OSError(5, "I/O"), ValueError("a bug")])
async def test_while_the_disk_fails_all_are_answered_and_nothing_is_lost(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "sessions.sqlite"
    async with opened(path, max_waiting=2) as (journal, states):
        await written(journal, row(0))
        failing = Failing(journal, error)
        for number in range(20):
            await written(journal, row(number % 5, at_s=float(number)))
        await written(journal, gone(4))
        assert journal.suspended_for == f"{type(error).__name__}: {error}"
        assert journal.has_room
        report = journal.report()
        assert (report.state, report.suspended_for) == ("suspended", journal.suspended_for)
        assert report.waiting_rows == journal.waiting_rows > 0
        await until(lambda: failing.attempts > 3)
        assert journal.stats.failures >= 3
        failing.error = None
        await until(lambda: journal.suspended_for is None)
        assert states == [JournalState(f"{type(error).__name__}: {error}"), JournalState(None)]
        assert (journal.report().state, journal.report().suspended_for) == ("ok", None)
    assert await read(path) == [row(number, at_s=15.0 + number) for number in range(4)]


async def test_a_disk_that_does_not_answer_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    async with opened(path, stall_s=0.001) as (journal, states):
        gate = Gate(journal)
        await written(journal, row(1))
        assert journal.suspended_for == "no answer from the disk for 0.001 s"
        await written(journal, row(2))
        assert gate.groups == []
        gate.let(9)
        await until(lambda: not journal.waiting_rows and journal.suspended_for is None)
    assert await read(path) == [row(1), row(2)]
    assert states[-1] == JournalState(None)


async def test_at_the_end_a_disk_that_failed_is_tried_once_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sessions.sqlite"
    journal = Journal(path, retry_s=(3600.0, 3600.0))
    await journal.open()
    failing = Failing(journal, OSError(5, "I/O"))
    await written(journal, row(1))
    failing.error = None
    await journal.close()
    assert await read(path) == [row(1)]
    journal = Journal(path, retry_s=(3600.0, 3600.0))
    await journal.open()
    Failing(journal, OSError(5, "I/O"))
    await written(journal, row(2))
    await journal.close()
    assert await read(path) == [row(1)]
    assert "journal.rows_lost" in caplog.text


async def test_pauses_grow_to_the_longest_and_begin_anew_after_a_success(tmp_path: Path) -> None:
    pauses: list[float] = []
    journal = Journal(tmp_path / "sessions.sqlite", retry_s=(1.0, 30.0))
    failing = Failing(journal, OSError(28, "full"))

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        failing.error = None if len(pauses) in (7, 9) else OSError(28, "full")
        await asyncio.sleep(0)

    journal._pause = pause  # type: ignore[method-assign]
    await journal.open()
    journal.write([row(1)], None)
    await until(lambda: len(pauses) == 7 and journal.suspended_for is None)
    failing.error = OSError(28, "full")
    journal.write([row(2)], None)
    await until(lambda: len(pauses) == 9 and journal.suspended_for is None)
    await journal.close()
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 1.0, 2.0]


def in_a_small_disk(tmp_path: Path, scenario: Callable[[Path], Any]) -> None:
    """Run `scenario` of this file with a tmpfs of 256 KiB, in a mount namespace that ends with it."""
    program = f"""
import asyncio, pathlib
from tests.unit.subscribers.test_subscribers_journal import {scenario.__name__}
asyncio.run({scenario.__name__}(pathlib.Path({str(tmp_path)!r})))
"""
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    mount = f"mount -t tmpfs -o size=256k,mode=700 tmpfs {tmp_path}"
    done = subprocess.run(
        [*unshare, "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def fill(path: Path) -> None:
    """Take what is left of a disk."""
    with path.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"\0" * 4096)
        except OSError:
            return


def remount(directory: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(directory)], check=True)


async def disk_full_and_back(directory: Path) -> None:
    path, ballast = directory / "sessions.sqlite", directory / "ballast"
    async with opened(path) as (journal, states):
        await written(journal, row(0), row(1))
        fill(ballast)
        for number in range(300):
            await written(journal, row(number, at_s=5.0), gone(1))
        assert journal.suspended_for is not None
        assert "full" in journal.suspended_for
        ballast.unlink()
        await until(lambda: journal.suspended_for is None and not journal.waiting_rows)
        assert states[-1] == JournalState(None)
    assert await read(path) == [row(number, at_s=5.0) for number in range(300) if number != 1]


async def disk_full_at_the_start(directory: Path) -> None:
    path, ballast = directory / "sessions.sqlite", directory / "ballast"
    async with opened(path) as (journal, _):
        await written(journal, row(0))
    fill(ballast)
    journal = Journal(path, retry_s=SOON)
    assert await journal.open() == (row(0),)
    await written(journal, *map(row, range(1, 200)))
    assert journal.suspended_for
    ballast.unlink()
    await until(lambda: journal.suspended_for is None)
    await journal.close()
    assert await read(path) == [row(number) for number in range(200)]
    path.unlink()
    fill(ballast)
    async with opened(path) as (journal, states):
        await written(journal, row(1))
        assert journal.suspended_for
        ballast.unlink()
        await until(lambda: journal.suspended_for is None)
        assert states[-1] == JournalState(None, was_recreated=True)
    assert await read(path) == [row(1)]


async def disk_read_only(directory: Path) -> None:
    path = directory / "sessions.sqlite"
    async with opened(path) as (journal, _):
        await written(journal, row(0))
    remount(directory, "ro")
    journal = Journal(path, retry_s=SOON)
    assert await journal.open() == (row(0),)
    await written(journal, row(1))
    assert journal.suspended_for
    remount(directory, "rw")
    await until(lambda: journal.suspended_for is None)
    await journal.close()
    assert await read(path) == [row(0), row(1)]
    async with opened(path) as (journal, _):
        await written(journal, row(2))
        copy = as_after_a_crash(path, directory / "crash")
    async with opened(directory / "empty.sqlite"):
        pass
    remount(directory, "ro")
    journal = Journal(copy, retry_s=SOON)
    assert in_order(await journal.open()) == [row(0), row(1), row(2)], "with what was in the log alone"
    await journal.close()
    assert journal.stats.lost_rows == 0
    async with opened(directory / "empty.sqlite") as (journal, _):
        assert journal.suspended_for is not None
    remount(directory, "rw")
    flip(copy.with_name(f"{copy.name}-wal"), 0.5)
    remount(directory, "ro")
    groups, rows, found = await lost(copy)
    assert (groups, rows, found) == (1, 1, 2), "of a log that is damaged too"


@pytest.mark.parametrize("scenario", [disk_full_and_back, disk_full_at_the_start, disk_read_only])
def test_on_a_real_disk_that_is_full_or_read_only(tmp_path: Path, scenario: Callable[[Path], Any]) -> None:
    in_a_small_disk(tmp_path, scenario)


async def test_a_file_that_another_has_locked_is_left_alone_and_taken_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BUSY_TIMEOUT_S > 0
    monkeypatch.setattr("gatewayd.subscribers.journal_file.BUSY_TIMEOUT_S", 0.001)
    path = tmp_path / "sessions.sqlite"
    first = Journal(path)
    await first.open()
    await written(first, row(1))
    async with opened(path) as (second, states):
        assert second.suspended_for is not None
        assert "locked" in second.suspended_for
        await written(second, row(2))
        await first.close()
        await until(lambda: second.suspended_for is None)
        assert states[-1] == JournalState(None, was_recreated=True)
    assert await read(path) == [row(2)], "nobody read what was in it"
    assert set(modes(tmp_path)) == {"sessions.sqlite", "sessions.sqlite.mark"}


# The file fails


async def full_journal(path: Path, rows: int = 2000) -> None:
    async with opened(path) as (journal, _):
        await written(journal, *map(row, range(rows)))


def overwrite(path: Path, from_octet: int) -> None:
    """With zeros to the end, in place."""
    with path.open("r+b") as file:
        file.seek(from_octet)
        file.write(bytes(path.stat().st_size - from_octet))


@pytest.mark.parametrize("keep", [99, 100, 4096, 5000, 100_000])
async def test_a_file_that_was_cut_is_set_aside(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "sessions.sqlite"
    await full_journal(path)
    os.truncate(path, keep)
    async with opened(path) as (journal, _):
        assert journal.suspended_for is None
        assert journal.stats.set_aside == 1
        await written(journal, row(1))
    assert await read(path) == [row(1)]
    assert (tmp_path / "sessions.sqlite.damaged-1").stat().st_size == keep


@pytest.mark.parametrize("seed", range(8))
async def test_random_bytes_in_the_middle_cost_rows_and_never_the_start(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "sessions.sqlite"
    await full_journal(path)
    noise = random.Random(seed)
    raw = bytearray(path.read_bytes())
    size = noise.choice([1, 16, 4096, 20_000])
    at = noise.randrange(len(raw) - size)
    raw[at : at + size] = noise.randbytes(size)
    path.write_bytes(raw)
    journal = Journal(path)
    found = await journal.open()
    assert set(found) <= {row(number) for number in range(2000)}
    assert journal.suspended_for is None
    await written(journal, row(1))
    await journal.close()
    assert row(1) in await read(path)


# What was written and is not there


async def killed(tmp_path: Path, groups: int = 10) -> Path:
    """The files of a journal that was killed after so many groups of three rows."""
    path = tmp_path / "sessions.sqlite"
    async with opened(path) as (journal, _):
        for group in range(groups):
            await written(journal, *map(row, range(3 * group, 3 * group + 3)))
        return as_after_a_crash(path, tmp_path / "crash")


def flip(path: Path, part: float) -> None:
    """A bit, so far into it."""
    raw = bytearray(path.read_bytes())
    raw[int(part * len(raw))] ^= 1
    path.write_bytes(raw)


def remove(path: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink()


def spoil(mark: Path, content: bytes | None) -> None:
    """None: something that is no file."""
    if content is None:
        mark.unlink()
        mark.mkdir()
    else:
        mark.write_bytes(content)


async def lost(path: Path) -> tuple[int, int, int]:
    """Groups and rows that the journal says are lost, and rows that it found."""
    journal = Journal(path)
    rows = await journal.open()
    await journal.close()
    return journal.stats.lost_groups, journal.stats.lost_rows, len(rows)


async def test_a_sound_journal_has_lost_nothing(tmp_path: Path) -> None:
    path = await killed(tmp_path)
    assert await lost(path) == (0, 0, 30)
    assert await lost(path) == (0, 0, 30)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
async def test_a_bit_in_the_log_costs_what_comes_after_it_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, part: float
) -> None:
    path = await killed(tmp_path)
    flip(path.with_name(f"{path.name}-wal"), part)
    groups, rows, found = await lost(path)
    assert groups > 0
    assert (rows, found) == (3 * groups, 30 - 3 * groups)
    assert "journal.lost" in caplog.text


async def test_a_log_or_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    path = await killed(tmp_path)
    remove(path, "-wal")
    groups, rows, found = await lost(path)
    assert (groups, rows) == (10, 30)
    assert found == 0
    again = tmp_path / "again"
    again.mkdir()
    path = await killed(again)
    remove(path, "", "-wal")
    assert await lost(path) == (10, 30, 0)


async def test_it_is_said_once_as_then_the_mark_is_of_what_there_is(tmp_path: Path) -> None:
    path = await killed(tmp_path)
    remove(path, "-wal")
    async with opened(path) as (journal, _):
        assert journal.stats.lost_groups == 10
        await written(journal, row(1))
    assert await lost(path) == (0, 0, 1)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"a b c d", b"\xff" * 80, None])
async def test_without_a_mark_that_can_be_read_nothing_is_said_and_all_goes_on(
    tmp_path: Path, content: bytes | None
) -> None:
    path = await killed(tmp_path)
    spoil(path.with_name(f"{path.name}.mark"), content)
    async with opened(path) as (journal, states):
        assert journal.stats.lost_groups == 0
        await written(journal, row(99))
        assert states == []
    assert len(await read(path)) == 31


def without_free_pages(raw: bytes) -> bytes:
    """The list of free pages is nonsense: quick_check refuses the file, and every row can be read."""
    return raw[:32] + (5).to_bytes(4, "big") + (9).to_bytes(4, "big") + raw[40:]


def without_a_page(raw: bytes) -> bytes:
    return raw[: 8 * 4096] + bytes(4096) + raw[9 * 4096 :]


@pytest.mark.parametrize("damage", [without_free_pages, without_a_page])
async def test_of_a_file_that_was_set_aside_what_could_be_read_is_not_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "sessions.sqlite"
    async with opened(path) as (journal, _):
        for start in (0, 1000, 2000):
            await written(journal, *map(row, range(start, start + 1000)))
    path.write_bytes(damage(path.read_bytes()))
    journal = Journal(path)
    found = len(await journal.open())
    await journal.close()
    stats = journal.stats
    assert (stats.set_aside, stats.lost_rows) == (1, 3000 - found)
    assert found > 1000
    assert (found == 3000) == (damage is without_free_pages) == ("journal.lost" not in caplog.text)
    assert (stats.lost_whole, stats.salvaged) == ((False, 0) if found == 3000 else (True, found))


async def test_of_a_damaged_file_the_rows_that_can_be_read_are_kept_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    await full_journal(path)
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2 // 4096 * 4096
    raw[middle : middle + 4096] = bytes(4096)
    path.write_bytes(raw)
    async with opened(path) as (journal, states):
        assert journal.stats.set_aside == 1
        await written(journal, row(1))
        assert states == [JournalState(None, was_recreated=True)]


async def test_a_row_that_cannot_be_read_is_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sessions.sqlite"
    async with opened(path) as (journal, _):
        await written(journal, row(1), row(2), row(3))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE row SET value = x'00112233445566' WHERE key = (SELECT min(key) FROM row)")
        connection.execute("INSERT INTO row VALUES ('text', 5)")
    connection.close()
    async with opened(path) as (journal, _):
        assert journal.stats.skipped == 2
        assert "journal.rows_skipped" in caplog.text
    assert await read(path) == [row(2), row(3)]


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    path.touch(mode=0o644)
    async with opened(path) as (journal, _):
        assert journal.stats.set_aside == 0
        await written(journal, row(1))
        assert path.stat().st_mode & 0o777 == 0o600
    assert await read(path) == [row(1)]


@pytest.mark.parametrize("killed", [False, True])
async def test_a_journal_of_a_newer_version_is_left_byte_for_byte_and_accounting_is_answered(
    tmp_path: Path, *, killed: bool
) -> None:
    path = tmp_path / "sessions.sqlite"
    await full_journal(path)
    newer = ["PRAGMA journal_mode = WAL", "UPDATE meta SET value = 2 WHERE name = 'version'"]
    make_newer(path, newer, killed=killed)
    before = contents_of(tmp_path)
    assert (f"{path.name}-wal" in before) is killed
    async with opened(path) as (journal, states):
        answered = asyncio.Event()
        assert journal.write([row(9)], answered.set)
        await answered.wait()
        assert journal.suspended_for is not None
        assert "a newer gatewayd wrote it (version 2, and 1 is read)" in journal.suspended_for
        assert states[0].suspended_for == journal.suspended_for
        assert contents_of(tmp_path) == before
        # As an operator who will not go back to it.
        (tmp_path / "aside").mkdir()
        for each in (path, *path.parent.glob(f"{path.name}-*")):
            each.rename(tmp_path / "aside" / each.name)
        await until(lambda: journal.suspended_for is None)
    assert await read(path) == [row(9)]
    assert contents_of(tmp_path / "aside") == {
        name: content for name, content in before.items() if "mark" not in name
    }


@pytest.mark.parametrize("kind", ["directory", "pipe", "text", "version", "other", "columns"])
async def test_what_is_no_journal_of_this_version_is_set_aside(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sessions.sqlite"
    match kind:
        case "directory":
            path.mkdir()
            (path / "kept").touch()
        case "pipe":
            os.mkfifo(path)
        case "text":
            path.write_text("not a database, but long enough to be taken for one" * 100)
        case "version":
            await full_journal(path)
            with sqlite3.connect(path) as connection:
                connection.execute("UPDATE meta SET value = 0 WHERE name = 'version'")
            connection.close()
        case _:
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE meta (x)")
                connection.execute("CREATE TABLE " + ("row (x)" if kind == "columns" else "other (x)"))
            connection.close()
    async with opened(path) as (journal, states):
        await written(journal, row(1))
        assert journal.stats.set_aside == 1
    assert states == []
    assert await read(path) == [row(1)]
    assert (tmp_path / "sessions.sqlite.damaged-1").exists()
    assert kind != "directory" or (tmp_path / "sessions.sqlite.damaged-1" / "kept").exists()


async def test_at_most_two_damaged_files_are_kept_the_last(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    (tmp_path / "sessions.sqlite.damaged-by-hand").touch()
    for number in range(5):
        path.write_text(f"{number} is no database" * 100)
        assert await read(path) == []
    assert set(modes(tmp_path)) == {
        "sessions.sqlite",
        "sessions.sqlite.damaged-4",
        "sessions.sqlite.damaged-5",
        "sessions.sqlite.damaged-by-hand",
    }


async def test_a_file_that_is_found_damaged_while_we_run_is_recreated_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    more_than_is_cached = 20_000
    await full_journal(path, more_than_is_cached)
    async with opened(path) as (journal, states):
        overwrite(path, 8192)
        await written(journal, *(row(number, at_s=2.0) for number in range(0, more_than_is_cached, 10)))
        await until(lambda: states and states[-1].was_recreated)
        await written(journal, *map(row, range(100)))
    found = await read(path)
    assert set(map(row, range(100))) <= set(found)
    assert len(found) == 100 + (more_than_is_cached - 100) // 10, "what was written since, and nothing else"
    assert journal.stats.set_aside == 1


@pytest.mark.parametrize("is_replaced", [True, False])
async def test_a_file_that_is_taken_away_while_we_run_is_recreated_and_says_so(
    tmp_path: Path, is_replaced: bool
) -> None:
    path = tmp_path / "sessions.sqlite"
    await full_journal(tmp_path / "other.sqlite")
    async with opened(path) as (journal, states):
        await written(journal, row(1))
        path.unlink()
        if is_replaced:
            (tmp_path / "other.sqlite").rename(path)
        await written(journal, row(2))
        assert states == [JournalState(None, was_recreated=True)]
        await written(journal, row(3))
        assert len(states) == 1, "said once"
    assert await read(path) == [row(2), row(3)]


async def test_without_the_directory_it_begins_suspended_and_goes_on_when_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "state" / "sessions.sqlite"
    async with opened(path) as (journal, _):
        assert journal.suspended_for is not None
        await written(journal, row(1))
        path.parent.mkdir()
        await until(lambda: journal.suspended_for is None)
    assert await read(path) == [row(1)]


async def test_nothing_that_the_file_does_keeps_us_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> tuple[Row, ...]:
        raise ValueError("a bug")

    path = tmp_path / "sessions.sqlite"
    await full_journal(path)
    monkeypatch.setattr(JournalFile, "_read_rows", fail)
    async with opened(path) as (journal, states):
        assert journal.suspended_for == "ValueError: a bug"
        await written(journal, row(1))
        await until(lambda: journal.suspended_for is None)
        assert states[-1].was_recreated
    monkeypatch.undo()
    assert await read(path) == [row(1)]


async def test_a_disk_that_fails_at_the_start_leaves_the_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> tuple[Row, ...]:
        raise sqlite3.OperationalError("disk I/O error")  # of the copy too

    path = tmp_path / "sessions.sqlite"
    await full_journal(path)
    monkeypatch.setattr(JournalFile, "_read_rows", fail)
    async with opened(path) as (journal, _):
        assert journal.suspended_for == "OperationalError: disk I/O error"
    monkeypatch.undo()
    assert len(await read(path)) == 2000


async def test_at_the_end_nobody_waits_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.subscribers.journal.CLOSE_S", 0.01)
    journal = Journal(tmp_path / "sessions.sqlite", stall_s=0.001)
    await journal.open()
    gate = Gate(journal)
    await written(journal, row(1))
    await journal.close()
    assert journal.stats.groups == 0
    gate.let()


def test_a_failure_to_close_is_no_failure(tmp_path: Path) -> None:
    class Stubborn:
        def close(self) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    file = JournalFile(tmp_path / "sessions.sqlite")
    file._connection = Stubborn()  # type: ignore[assignment]
    file.close()
    assert file.open() == ()
    file.close()


# We fail


WRITER = """
import asyncio, pathlib, sys
from gatewayd.subscribers.journal import Journal
from gatewayd.subscribers.journal_rows import NasRow, Row, key_of

def put(client, number):
    value = NasRow(f"{client}", float(number))
    return Row(key_of(value), value)

async def main():
    journal = Journal(pathlib.Path(sys.argv[1]))
    await journal.open()
    async def client(name):
        for number in range(1_000_000):
            done = asyncio.get_running_loop().create_future()
            journal.write([put(name, number)], lambda: done.set_result(None))
            await done
            sys.stdout.write(f"{name} {number}\\n")
            sys.stdout.flush()
    await asyncio.gather(*(client(name) for name in range(5)))

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 40, 3000])
def test_what_was_done_is_there_after_a_kill(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "sessions.sqlite"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        last: dict[str, int] = {}
        for _ in range(lines):
            name, number = writer.stdout.readline().split()
            last[name] = int(number)
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout:
            if line.endswith("\n"):
                name, number = line.split()
                last[name] = int(number)
    kept = {
        row.value.nas: row.value.restarted_s for row in asyncio.run(read(path)) if isinstance(row.value, NasRow)
    }
    for name, at_s in last.items():
        assert kept[name] >= at_s
