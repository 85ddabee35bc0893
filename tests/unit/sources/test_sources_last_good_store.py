"""The last good on disk: what is saved is loaded, whenever we end, and damage is noticed and logged."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gatewayd.control.guard_keeper import read_last_good
from gatewayd.errors import LastGoodDamaged
from gatewayd.model import Registration, parse_prefix
from gatewayd.model.registration import Changes, RejectedRecord, changes_in_slices, run_slices
from gatewayd.registry.guard import RemovalGuard
from gatewayd.registry.guard_record import GuardRecord, encode_record
from gatewayd.sources import last_good as rows
from gatewayd.sources import last_good_file
from gatewayd.sources import last_good_store as store
from gatewayd.sources.last_good import CHUNK, MAX_KEPT_REJECTIONS, Restored
from gatewayd.sources.last_good_file import Connect
from gatewayd.sources.last_good_store import GuardFile, LastGood
from gatewayd.sources.update import FeedPosition, SourceUpdate
from tests.support.newer import contents_of, make_newer_last_good, newer_guard
from tests.support.refusing_disk import RefusingDisk

ROOT = Path(__file__).parents[3]
SESSION = "6b9a7f0e-0000-4000-8000-000000000001"


def at(serial: int) -> FeedPosition:
    return FeedPosition(SESSION, serial, 1000.0 + serial, "ab" * 32, etag=f'"{serial}"')


def registry(*ids: str) -> dict[str, Registration]:
    return {id: Registration(id, "bank", "active", (parse_prefix("203.0.113.0/28"),)) for id in ids}


class ManualMonotonic:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def last_good(
    state_dir: Path, connect: Connect = sqlite3.connect, monotonic: ManualMonotonic | None = None
) -> LastGood:
    return LastGood(state_dir, clock=lambda: 5000.0, monotonic=monotonic or ManualMonotonic(), connect=connect)


async def load(state_dir: Path) -> Restored:
    return await last_good(state_dir).load("lab")


def file_in(state_dir: Path) -> Path:
    return state_dir / "registry" / "lab.sqlite3"


def reading(registrations: dict[str, Registration], serial: int) -> SourceUpdate:
    return SourceUpdate("lab", 9.0, registrations=registrations, position=at(serial))


def delta(before: dict[str, Registration], after: dict[str, Registration], serial: int) -> SourceUpdate:
    """From the serial before."""
    changes = run_slices(changes_in_slices(before, after)) or Changes((), ())
    return SourceUpdate(
        "lab", 9.0, registrations=after, changes=changes, position=at(serial), before=at(serial - 1)
    )


ONE, TWO, THREE = registry("a", "b"), registry("a", "c"), registry("a", "c", "d")
READ_ONE, READ_TWO = reading(ONE, 1), reading(TWO, 2)
TO_TWO, TO_THREE, MOVED_ON = delta(ONE, TWO, 2), delta(TWO, THREE, 3), delta(ONE, ONE, 2)

State = tuple[dict[str, Registration], FeedPosition | None]
NOTHING: State = ({}, None)
FIRST: State = (ONE, at(1))
SECOND: State = (TWO, at(2))
THIRD: State = (THREE, at(3))
STEPS: dict[str, tuple[list[SourceUpdate], SourceUpdate, State, State]] = {
    "first reading": ([], READ_ONE, NOTHING, FIRST),
    "reading over reading": ([READ_ONE], READ_TWO, FIRST, SECOND),
    "reading over deltas": ([READ_ONE, TO_TWO, TO_THREE], READ_ONE, THIRD, FIRST),
    "delta": ([READ_ONE], TO_TWO, FIRST, SECOND),
    "further delta": ([READ_ONE, TO_TWO], TO_THREE, SECOND, THIRD),
    "position alone": ([READ_ONE], MOVED_ON, FIRST, (ONE, at(2))),
}


def state_of(restored: Restored) -> State:
    return restored.registrations, restored.position


async def prepared(state_dir: Path, before: list[SourceUpdate], connect: Connect = sqlite3.connect) -> LastGood:
    kept = last_good(state_dir, connect)
    await kept.load("lab")
    for update in before:
        await kept.save(update)
    assert kept.error_of("lab") is None
    return kept


@pytest.mark.parametrize("step", STEPS)
async def test_what_is_saved_is_what_is_loaded(step: str, tmp_path: Path) -> None:
    before, update, old, new = STEPS[step]
    kept = await prepared(tmp_path, before)
    assert state_of(await load(tmp_path)) == old
    await kept.save(update)
    restored = await load(tmp_path)
    assert state_of(restored) == new
    assert (restored.damage, restored.saved_at_s) == (None, 5000.0)
    assert [each.name for each in file_in(tmp_path).parent.iterdir()] == ["lab.sqlite3"]


class Ends:
    """Copies the directory before every statement of SQLite and every call to the file system: what a kill there
    would leave."""

    def __init__(self, state_dir: Path, copies: Path, patch: pytest.MonkeyPatch) -> None:
        self.copies: list[Path] = []
        self._from, self._to = state_dir, copies
        for name in ("create_temporary", "put_in_place", "remove"):
            patch.setattr(last_good_file, name, self._before(getattr(last_good_file, name)))
        patch.setattr(os, "rename", self._before(os.rename))

    def _before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def copied(*arguments: Any) -> Any:
            self.copy()
            return call(*arguments)

        return copied

    def copy(self) -> None:
        copy = self._to / str(len(self.copies))
        shutil.copytree(self._from, copy)
        self.copies.append(copy)

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = sqlite3.connect(*arguments, **options)
        connection.set_trace_callback(lambda _: self.copy())
        return connection


@pytest.mark.parametrize("step", STEPS)
async def test_whenever_we_end_the_old_or_the_new_is_there_whole(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, update, old, new = STEPS[step]
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    await prepared(state_dir, before)
    with monkeypatch.context() as patch:
        ends = Ends(state_dir, tmp_path / "copies", patch)
        kept = await prepared(state_dir, [], ends.connect)
        await kept.save(update)
        ends.copy()
    assert len(ends.copies) > 5
    seen = set()
    for copy in ends.copies:
        again = last_good(copy)
        restored = await again.load("lab")
        assert state_of(restored) in (old, new)
        assert restored.damage is None
        seen.add("new" if state_of(restored) == new else "old")
        # And from there everything goes on as ever.
        await again.save(reading(THREE, 9))
        assert state_of(await load(copy)) == (THREE, at(9))
    assert seen == {"old", "new"}


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.unit.sources.test_sources_last_good_store import *

async def save_for_ever():
    kept = last_good(Path(sys.argv[1]))
    serial = (await kept.load("lab")).position.serial
    while True:
        serial += 1
        update = delta(of_serial(serial - 1), of_serial(serial), serial)
        if serial % 7 == 0:
            update = reading(of_serial(serial), serial)
        await kept.save(update)
        assert kept.error_of("lab") is None
        print(serial, flush=True)

asyncio.run(save_for_ever())
"""


def of_serial(serial: int) -> dict[str, Registration]:
    """As many as the serial says, and a change of the first at each."""
    return registry(*(f"r{number}" for number in range(serial % 50)), f"serial-{serial}")


def test_a_killed_daemon_finds_what_it_saved_last_or_what_came_after(tmp_path: Path) -> None:
    asyncio.run(last_good(tmp_path).save(reading(of_serial(1), 1)))
    for saves in (1, 6, 13):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
            assert child.stdout is not None
            for _ in range(saves):
                saved = int(child.stdout.readline())
            child.kill()
        restored = asyncio.run(load(tmp_path))
        assert restored.damage is None
        assert restored.position is not None
        assert restored.position.serial >= saved
        assert restored.registrations == of_serial(restored.position.serial)


async def test_nothing_is_nothing(tmp_path: Path) -> None:
    kept = last_good(tmp_path / "absent")
    assert await kept.load("lab") == Restored({})
    await kept.save(SourceUpdate("lab", 9.0))
    assert not (tmp_path / "absent").exists()


async def test_a_source_that_is_no_feed_is_saved_with_the_second_of_its_reading(tmp_path: Path) -> None:
    kept = last_good(tmp_path)
    for at_s, registrations in ((7.9, ONE), (8.2, TWO)):
        await kept.save(SourceUpdate("lab", at_s, registrations=registrations))
        assert state_of(await load(tmp_path)) == (registrations, FeedPosition("", int(at_s)))


async def test_what_was_rejected_is_still_known(tmp_path: Path) -> None:
    kept = last_good(tmp_path)
    await kept.save(replace(READ_ONE, rejected={"not_json": 2, "bad_id": 1}))
    await kept.save(replace(TO_TWO, rejected={"bad_id": 1}))
    assert (await load(tmp_path)).rejected == {"not_json": 2, "bad_id": 2}


async def test_rejected_records_are_kept_with_their_place_within_a_bound(tmp_path: Path) -> None:
    listed = tuple(RejectedRecord(1, line, f"id-{line}", "bad_time", "valid_from") for line in range(300))
    before, disk = registry("a"), last_good(tmp_path)
    await disk.save(reading(before, 1), listed)
    assert (await load(tmp_path)).rejections == listed[:MAX_KEPT_REJECTIONS]
    await disk.save(delta(before, registry("a", "b"), 2), listed[:2])
    assert (await load(tmp_path)).rejections == listed[:2]
    await disk.save(reading(before, 3))
    assert (await load(tmp_path)).rejections == ()


async def test_many_are_read_and_written_while_the_loop_turns(tmp_path: Path) -> None:
    many = registry(*(str(number) for number in range(10_000)))
    few = registry(*(str(number) for number in range(5000)))
    kept = last_good(tmp_path)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await kept.save(reading(many, 1))
    await kept.save(delta(many, few, 2))
    restored = await load(tmp_path)
    counting.cancel()
    assert restored.registrations == few
    assert turns > 20


# -- damage ------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4096])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite(path: Path) -> None:
    path.write_bytes(b"no database" * 500)


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other_table(path: Path) -> None:
    edit(path, "ALTER TABLE row RENAME TO column")


def schema_that_is_no_text(path: Path) -> None:
    """SQLite's own sentence on it has the name of the table in it."""
    whole = path.read_bytes()
    assert b"tablerowrow" in whole
    path.write_bytes(
        whole.replace(b"tablerowrow", b"table\x80\x80\x80row").replace(b"CREATE TABLE", b"CREATE TAXXX")
    )


def no_head(path: Path) -> None:
    edit(path, "DELETE FROM row WHERE kind = 'head'")


def no_chunk(path: Path) -> None:
    edit(path, "DELETE FROM row WHERE kind = 'chunk'")


def flipped_chunk(path: Path) -> None:
    edit(path, "UPDATE row SET content = CAST(replace(content, 'bank', 'bonk') AS BLOB) WHERE kind = 'chunk'")


def text_for_chunk(path: Path) -> None:
    edit(path, "UPDATE row SET content = 'text' WHERE kind = 'chunk'")


def edit(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement).rowcount in (-1, 1)
    connection.close()


async def saved(state_dir: Path) -> Path:
    await prepared(state_dir, [READ_ONE, TO_TWO, TO_THREE])
    return file_in(state_dir)


DAMAGES = [
    truncate, empty, overwrite, replace_by_fifo, replace_by_directory, other_table, no_head, no_chunk,
    flipped_chunk, text_for_chunk, schema_that_is_no_text,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_is_damaged_is_nothing_is_logged_and_is_mended_by_the_next_reading(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = await saved(tmp_path)
    damage(path)
    kept = last_good(tmp_path)
    with caplog.at_level(logging.WARNING):
        restored = await kept.load("lab")
    assert (restored.registrations, restored.position) == ({}, None)
    assert isinstance(restored.damage, LastGoodDamaged)
    assert (restored.damage.file, restored.damage.source) == ("lab.sqlite3", "lab")
    assert [record.message for record in caplog.records] == ["store.damaged"]
    if path.is_dir():
        path.rmdir()
    await kept.save(TO_THREE)
    restored = await load(tmp_path)
    assert (*state_of(restored), restored.damage) == (*THIRD, None)


async def test_every_flipped_bit_of_a_file_is_harmless_or_noticed(tmp_path: Path) -> None:
    """Whatever passes is one of what was there, whole."""
    path = await saved(tmp_path)
    content, passed, step = path.read_bytes(), 0, 97
    for place in range(0, len(content), step):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place // step % 8)
        path.write_bytes(flipped)
        restored = await load(tmp_path)
        assert state_of(restored) in (NOTHING, FIRST, SECOND, THIRD)
        assert (restored.damage is None) == (state_of(restored) == THIRD)
        passed += restored.damage is None
    assert 0 < passed < len(content) / step


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM row WHERE kind = 'delta' AND number = 1",
        "UPDATE row SET content = zeroblob(90) WHERE kind = 'delta' AND number = 1",
    ],
)
async def test_deltas_up_to_the_damage_are_used_and_the_next_takes_the_place_of_the_rest(
    tmp_path: Path, statement: str
) -> None:
    edit(await saved(tmp_path), statement)
    kept = last_good(tmp_path)
    restored = await kept.load("lab")
    assert state_of(restored) == SECOND
    assert restored.damage is not None
    assert restored.is_lost
    await kept.save(TO_THREE)
    restored = await load(tmp_path)
    assert (*state_of(restored), restored.damage) == (*THIRD, None)


async def test_of_a_delta_of_several_rows_all_or_nothing_is_used(tmp_path: Path) -> None:
    many = registry(*(str(number) for number in range(3 * CHUNK)))
    await prepared(tmp_path, [READ_ONE, delta(ONE, many, 2)])
    assert state_of(await load(tmp_path)) == (many, at(2))
    edit(file_in(tmp_path), "DELETE FROM row WHERE kind = 'delta' AND number = 2")
    assert state_of(await load(tmp_path)) == FIRST


async def test_rows_of_two_ids_alike_are_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_good_file, "encode_chunk", lambda each: rows.encode_chunk([*each, each[0]]))
    many = registry(*(str(number) for number in range(3)))
    await last_good(tmp_path).save(reading(many, 1))
    connection = sqlite3.connect(file_in(tmp_path))
    connection.close()
    assert (await load(tmp_path)).damage is None
    monkeypatch.setattr(last_good_file, "encode_chunk", lambda each: rows.encode_chunk(each[1:]))
    await last_good(tmp_path).save(reading(many, 2))
    damage = (await load(tmp_path)).damage
    assert damage is not None
    assert "has 2 registrations, and 3 were written" in damage.why


async def test_a_file_that_somebody_put_in_its_place_is_not_gone_on_from(tmp_path: Path) -> None:
    kept, monotonic = await prepared(tmp_path, [READ_ONE]), ManualMonotonic()
    other = tmp_path / "other"
    await last_good(other).save(READ_ONE)
    kept = last_good(tmp_path, monotonic=monotonic)
    await kept.load("lab")
    for change in (lambda: shutil.copy(file_in(other), file_in(tmp_path)), lambda: file_in(tmp_path).unlink()):
        change()
        await kept.save(TO_TWO)
        assert "is not the file that was written" in (kept.error_of("lab") or "")
        monotonic.now += store.RETRY_S
        await kept.save(READ_ONE)
        assert kept.error_of("lab") is None
        assert state_of(await load(tmp_path)) == FIRST


def test_the_journal_of_an_earlier_file_is_not_taken_for_that_of_the_next(tmp_path: Path) -> None:
    path = asyncio.run(saved(tmp_path))
    journal = Path(f"{path}-journal")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.execute("UPDATE row SET content = zeroblob(100000)")
    left = journal.read_bytes()
    connection.execute("ROLLBACK")
    connection.close()
    journal.write_bytes(left)
    asyncio.run(last_good(tmp_path).save(READ_ONE))
    assert not journal.exists()
    assert state_of(asyncio.run(load(tmp_path))) == FIRST


async def test_what_may_only_be_read_is_read_and_nothing_is_written(tmp_path: Path) -> None:
    path = await saved(tmp_path)
    path.with_name("lab.sqlite3.new").touch()
    names = sorted(each.name for each in path.parent.iterdir())
    content, status = path.read_bytes(), path.stat()
    kept = last_good(tmp_path)
    assert await kept.read_times("lab") == (1003.0, 5000.0)
    assert await kept.read_times("another") == (None, None)
    assert state_of(await kept.load("lab", tidies=False)) == THIRD
    assert sorted(each.name for each in path.parent.iterdir()) == names
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, status.st_mtime_ns)
    assert path.stat().st_mode & 0o777 == 0o640
    overwrite(path)
    assert await kept.read_times("lab") == (None, None)
    await kept.load("lab")
    assert [each.name for each in path.parent.iterdir()] == ["lab.sqlite3"]


# -- a disk that takes nothing -----------------------------------------------------------------------------


@pytest.mark.parametrize("refuse", [RefusingDisk.fill, RefusingDisk.make_read_only])
async def test_a_disk_that_takes_nothing_is_logged_and_what_was_there_stays(
    refuse: Callable[[RefusingDisk], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refusing, monotonic = RefusingDisk(), ManualMonotonic()
    await prepared(tmp_path, [READ_ONE])
    kept = last_good(tmp_path, refusing.connect, monotonic)
    await kept.load("lab")
    refuse(refusing)
    with caplog.at_level(logging.INFO):
        for update in (TO_TWO, READ_TWO, TO_THREE):
            await kept.save(update)
        assert [record.message for record in caplog.records] == ["store.failed"]
        assert "disk is full" in (kept.error_of("lab") or "") or "readonly" in (kept.error_of("lab") or "")
        assert state_of(await load(tmp_path)) == FIRST
        refusing.mend()
        await kept.save(TO_THREE)
        assert state_of(await load(tmp_path)) == FIRST, "tried again too soon"
        monotonic.now += store.RETRY_S
        await kept.save(TO_THREE)
    assert kept.error_of("lab") is None
    assert state_of(await load(tmp_path)) == THIRD
    assert [record.message for record in caplog.records].count("store.recovered") == 1
    assert [each.name for each in file_in(tmp_path).parent.iterdir()] == ["lab.sqlite3"]


@pytest.mark.parametrize("refused", [READ_TWO, TO_TWO])
async def test_what_a_disk_refused_is_written_once_the_source_is_asked_again_and_says_nothing_new(
    refused: SourceUpdate, tmp_path: Path
) -> None:
    refusing, monotonic = RefusingDisk(), ManualMonotonic()
    await prepared(tmp_path, [READ_ONE])
    kept = last_good(tmp_path, refusing.connect, monotonic)
    await kept.load("lab")
    confirmation = SourceUpdate("lab", 10.0)
    refusing.fill()
    await kept.save(refused)
    await kept.save(confirmation)
    refusing.mend()
    await kept.save(confirmation)
    assert state_of(await load(tmp_path)) == FIRST, "tried again too soon"
    monotonic.now += store.RETRY_S
    await kept.save(confirmation)
    assert kept.error_of("lab") is None
    assert state_of(await load(tmp_path)) == SECOND
    file_in(tmp_path).unlink()
    await kept.save(confirmation)
    assert not file_in(tmp_path).exists(), "what is on disk is not written again"


async def test_a_state_directory_that_cannot_be_made_is_a_failure_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("a file")
    kept = last_good(tmp_path)
    restored = await kept.load("lab")
    assert restored.position is None
    assert restored.damage is not None
    await kept.save(READ_ONE)
    assert "lab: " in (kept.error_of("lab") or "")


async def test_a_source_that_comes_back_begins_anew(tmp_path: Path) -> None:
    """It was not configured at the start, so nothing of it was loaded; then a reload brought it back."""
    await prepared(tmp_path, [READ_ONE, TO_TWO])
    now = last_good(tmp_path)
    await now.save(TO_THREE)
    assert state_of(await load(tmp_path)) == THIRD


async def test_a_delta_to_what_is_not_there_is_a_reading(tmp_path: Path) -> None:
    kept = await prepared(tmp_path, [READ_ONE])
    await kept.save(TO_THREE)
    assert state_of(await load(tmp_path)) == THIRD
    head = kept._entry("lab").file.head
    assert head is not None
    assert (head.chunks, head.deltas) == (1, 0)


async def test_deltas_that_outweigh_the_reading_have_everything_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await prepared(tmp_path, [READ_ONE, TO_TWO])
    monkeypatch.setattr(rows, "MIN_COMPACTED_BYTES", 10)
    await kept.save(TO_THREE)
    assert state_of(await load(tmp_path)) == THIRD
    head = kept._entry("lab").file.head
    assert head is not None
    assert (head.deltas, head.delta_bytes) == (0, 0)


async def test_a_cancelled_save_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    many = registry(*(str(number) for number in range(20_000)))
    await prepared(tmp_path, [READ_ONE])
    has_written, loop = asyncio.Event(), asyncio.get_running_loop()

    class Telling(sqlite3.Connection):
        def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
            if statement.startswith("INSERT"):
                loop.call_soon_threadsafe(has_written.set)
            return super().execute(statement, parameters)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*arguments, factory=Telling, **options)

    for update in (reading(many, 2), delta(ONE, many, 2)):
        kept = last_good(tmp_path, connect)
        await kept.load("lab")
        has_written.clear()
        task = asyncio.create_task(kept.save(update))
        await has_written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state_of(await load(tmp_path)) == FIRST
        assert [each.name for each in file_in(tmp_path).parent.iterdir()] == ["lab.sqlite3"]
    await kept.save(TO_TWO)
    assert state_of(await load(tmp_path)) == SECOND


async def test_what_is_kept_of_sources_that_are_not_configured_is_named_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kept = last_good(tmp_path)
    await kept.log_unused(["lab"])
    for name in ("lab", "old", "another"):
        await kept.save(SourceUpdate(name, 9.0, registrations=ONE, position=at(1)))
    await kept.log_unused(["lab", "national"])
    unused = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "store.unused"]
    root = tmp_path / "registry"
    assert unused == [{"source": name, "file": str(root / f"{name}.sqlite3")} for name in ("another", "old")]
    assert state_of(await load(tmp_path)) == FIRST


# -- the guard ---------------------------------------------------------------------------------------------


def guard_file(path: Path, refusing: RefusingDisk | None = None) -> GuardFile:
    return GuardFile(path, (refusing or RefusingDisk()).replace)


async def test_what_was_saved_of_the_guard_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "guard"
    assert await guard_file(path).load() is None
    assert await guard_file(path).save(b"one")
    again = guard_file(path)
    assert await again.load() == b"one"
    assert [each.name for each in path.parent.iterdir()] == ["guard"]


async def test_what_is_on_disk_is_not_written_again(tmp_path: Path) -> None:
    file = guard_file(tmp_path / "guard")
    assert await file.save(b"one")
    inode = file.path.stat().st_ino
    assert await file.save(b"one")
    assert file.path.stat().st_ino == inode
    again = guard_file(tmp_path / "guard")
    await again.load()
    assert await again.save(b"one")
    assert file.path.stat().st_ino == inode


async def test_a_disk_that_refuses_is_logged_and_what_was_there_stays(tmp_path: Path) -> None:
    refusing = RefusingDisk()
    file = guard_file(tmp_path / "guard", refusing)
    assert await file.save(b"one")
    refusing.fill()
    assert not await file.save(b"two")
    assert not await file.save(b"two")
    assert file.error == "No space left on device"
    assert file.path.read_bytes() == b"one"
    refusing.mend()
    assert await file.save(b"two")
    assert file.error is None
    assert file.path.read_bytes() == b"two"


async def test_saves_at_once_end_with_the_last_of_them(tmp_path: Path) -> None:
    file = guard_file(tmp_path / "guard")
    contents = [b"%d" % number for number in range(20)]
    assert all(await asyncio.gather(*(file.save(content) for content in contents)))
    assert file.path.read_bytes() == contents[-1]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
async def test_what_cannot_be_read_is_as_if_there_were_nothing(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "guard")
    assert await guard_file(tmp_path / "guard").load() is None


async def test_a_last_good_of_a_newer_version_is_left_byte_for_byte_and_said(tmp_path: Path) -> None:
    await last_good(tmp_path).save(reading(registry("a", "b"), 1))
    make_newer_last_good(file_in(tmp_path))
    before = contents_of(tmp_path)
    monotonic = ManualMonotonic()
    made = last_good(tmp_path, monotonic=monotonic)
    restored = await made.load("lab")
    assert restored.registrations == {}
    assert restored.damage is not None
    assert "a newer gatewayd wrote it (format 2, and 1 is read)" in str(restored.damage)
    for serial in (2, 3):
        await made.save(reading(registry("a"), serial))
        assert "a newer gatewayd wrote it" in (made.error_of("lab") or "")
        monotonic.now += store.RETRY_S
    assert contents_of(tmp_path) == before
    file_in(tmp_path).rename(tmp_path / "aside")
    await made.save(reading(registry("a"), 4))
    assert made.error_of("lab") is None
    assert (await load(tmp_path)).registrations.keys() == {"a"}


async def test_what_a_newer_guard_knew_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "guard").write_bytes(newer_guard(encode_record(GuardRecord(RemovalGuard(), ("lab",)))))
    before = contents_of(tmp_path)
    made = last_good(tmp_path)
    record, _ = await read_last_good(made, [])
    assert record.sources is None
    assert not await made.guard_file.save(b"other")
    assert "a newer gatewayd wrote it (format 2, and 1 is read)" in (made.error_of("lab") or "")
    assert contents_of(tmp_path) == before
