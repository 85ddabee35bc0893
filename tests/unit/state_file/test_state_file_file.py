# ruff: noqa: ASYNC240 - a test may touch its own small files
"""Files of the state directory: what is wrong with one costs its content, is said, and nothing else."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from gatewayd.state_file.file import Schema, StateFile, StateFileUnusable, put_aside, read_state_file
from gatewayd.state_file.view import StateFileView
from tests.support.newer import contents_of, make_newer

SCHEMA = Schema(2, ("CREATE TABLE number (value INTEGER)",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "numbers.sqlite"


@pytest.fixture
async def file(path: Path) -> AsyncGenerator[StateFile, None]:
    file = StateFile(path, SCHEMA, StateFileView("numbers"))
    yield file
    await file.close()


def put(value: int) -> object:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO number VALUES (?)", (value,))

    return work


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [value for (value,) in connection.execute("SELECT value FROM number ORDER BY value")]


async def write(file: StateFile, *values: int) -> None:
    for value in values:
        await file.use(put(value))  # type: ignore[arg-type]


async def test_what_is_written_is_there_after_a_restart(file: StateFile, path: Path) -> None:
    await write(file, 1, 2)
    assert await file.use(numbers) == [1, 2]
    assert await file.use(numbers, reads=True) == [1, 2]
    assert (file.view.state, file.view.writes, file.view.last_error) == ("ok", 3, None)
    assert file.view.size_bytes > 0
    assert path.stat().st_mode & 0o777 == 0o600
    await file.close()
    again = StateFile(path, SCHEMA, StateFileView("numbers"))
    assert await again.use(numbers) == [1, 2]
    await again.close()
    assert read_state_file(path, SCHEMA, numbers) == [1, 2]


async def test_a_call_that_fails_leaves_nothing_of_it(file: StateFile) -> None:
    await write(file, 1)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO number VALUES (2)")
        raise KeyError("a fault of the caller")

    with pytest.raises(KeyError):
        await file.use(half)
    assert await file.use(numbers) == [1]
    assert file.view.failures == 0


@pytest.mark.parametrize("damage", ["no database", "cut", "page"])
async def test_a_damaged_file_is_set_aside_and_begun_again(file: StateFile, path: Path, damage: str) -> None:
    for value in range(500):
        await file.use(put(value))  # type: ignore[arg-type]
    await file.close()
    content = path.read_bytes()
    if damage == "no database":
        path.write_bytes(b"no database" * 1000)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:4096] + os.urandom(4096) + content[8192:])
    again = StateFile(path, SCHEMA, StateFileView("numbers"))
    await again.use(put(7))  # type: ignore[arg-type]
    assert await again.use(numbers) == [7]
    assert (again.view.state, again.view.set_aside) == ("ok", 1)
    assert path.with_name("numbers.sqlite.damaged-1").exists()
    await again.close()


@pytest.mark.parametrize("killed", [False, True])
async def test_a_file_of_a_newer_version_is_left_as_it_is(path: Path, *, killed: bool) -> None:
    newer = StateFile(path, Schema(3, SCHEMA.statements), StateFileView("numbers"))
    await write(newer, 1)
    await newer.close()
    if killed:
        make_newer(path, ["PRAGMA journal_mode = WAL", "INSERT INTO number VALUES (7)"], killed=True)
    before = contents_of(path.parent)
    file = StateFile(path, SCHEMA, StateFileView("numbers"))
    for _ in range(2):
        with pytest.raises(StateFileUnusable, match="a newer gatewayd wrote it"):
            await file.use(numbers)
    assert (file.view.state, file.view.failures, file.view.set_aside) == ("newer", 2, 0)
    await file.close()
    assert contents_of(path.parent) == before
    with pytest.raises(StateFileUnusable, match="newer"):
        read_state_file(path, SCHEMA, numbers)


async def test_a_file_of_an_older_version_or_a_foreign_one_is_set_aside(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (value)")
    file = StateFile(path, SCHEMA, StateFileView("numbers"))
    await write(file, 1)
    assert file.view.set_aside == 1
    await file.close()


async def test_a_disk_that_fails_is_said_and_tried_again(
    file: StateFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(file, 1)

    def full(_: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with pytest.raises(StateFileUnusable, match="disk is full"):
        await file.use(full)
    assert (file.view.state, file.view.last_error) == ("failing", "database or disk is full")
    assert await file.use(numbers, reads=True) == [1]
    assert file.view.state == "failing"  # that it can be read says nothing
    await write(file, 2)
    assert await file.use(numbers) == [1, 2]
    assert (file.view.state, file.view.last_error, file.view.failures) == ("ok", None, 1)


async def test_a_file_that_another_process_has_is_left_alone(
    file: StateFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.state_file.file.BUSY_TIMEOUT_S", 0.001)
    await write(file, 1)
    second = StateFile(path, SCHEMA, StateFileView("numbers"))
    with pytest.raises(StateFileUnusable, match="locked"):
        await second.use(numbers)
    with pytest.raises(StateFileUnusable, match="locked"):
        read_state_file(path, SCHEMA, numbers)
    await second.close()
    assert second.view.set_aside == 0


async def test_a_file_removed_under_us_is_begun_again(file: StateFile, path: Path) -> None:
    await write(file, 1)
    path.unlink()
    await write(file, 2)
    assert await file.use(numbers) == [2]


async def test_a_directory_in_its_place_is_set_aside(file: StateFile, path: Path) -> None:
    path.mkdir()
    await write(file, 1)
    assert path.with_name("numbers.sqlite.damaged-1").is_dir()


async def test_a_directory_that_cannot_be_made_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    file = StateFile(tmp_path / "state" / "numbers.sqlite", SCHEMA, StateFileView("numbers"))
    with pytest.raises(StateFileUnusable, match="File exists"):
        await file.use(numbers)
    await file.close()


def test_a_command_that_finds_no_file_makes_none(path: Path) -> None:
    with pytest.raises(StateFileUnusable, match="No such file"):
        read_state_file(path, SCHEMA, numbers)
    assert not path.exists()


def test_of_files_set_aside_the_newest_stay(path: Path) -> None:
    for number in range(4):
        path.write_text(str(number))
        Path(f"{path}-wal").write_text(str(number))
        put_aside(path)
    left = sorted(each.name for each in path.parent.iterdir())
    assert left == [f"numbers.sqlite.damaged-{end}" for end in ("3", "3-wal", "4", "4-wal")]


async def test_a_directory_that_is_not_there_is_made_as_for_the_last_good(tmp_path: Path) -> None:
    """As on a first start by hand; systemd makes the directory of the unit."""
    path = tmp_path / "state" / "numbers.sqlite"
    file = StateFile(path, SCHEMA, StateFileView("numbers"))
    await write(file, 1)
    assert (file.view.state, file.view.failures) == ("ok", 0)
    assert path.parent.stat().st_mode & 0o777 == 0o750
    await file.close()
