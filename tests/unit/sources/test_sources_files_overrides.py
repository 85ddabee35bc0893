"""The directory of local overrides, read again and again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gatewayd.sources import files as dir_module
from gatewayd.sources.files import OverridesDir, OverridesReading, read_overrides

GOOD = "filters: [{id: a, comment: c}]\n"
OTHER = "filters: [{id: b, comment: c}]\n"


def ids_of(reading: OverridesReading) -> list[str | None]:
    return [each.id for file in reading.files for each in file.filters]


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_every_yaml_file_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "2.yaml", GOOD)
    write(tmp_path / "1.yaml", OTHER)
    write(tmp_path / "3.yml", "filters: [{id: c, comment: c}]\n")
    for name in ("4.yaml.bak", ".5.yaml"):
        write(tmp_path / name, "nonsense")
    reading = await OverridesDir(tmp_path).read()
    assert [file.name for file in reading.files] == ["1.yaml", "2.yaml", "3.yml"]
    assert ids_of(reading) == ["b", "a", "c"]
    assert reading.faults == ()
    assert read_overrides(tmp_path) == reading


async def test_a_fifo_holds_nobody_up_and_is_named(tmp_path: Path) -> None:
    write(tmp_path / "1.yaml", GOOD)
    os.mkfifo(tmp_path / "2.yaml")
    reading = await OverridesDir(tmp_path).read()
    assert ids_of(reading) == ["a"]
    assert reading.faults == (f"{tmp_path}/2.yaml: cannot be read: not a regular file, expected a YAML file",)


async def test_a_faulty_file_changes_nothing_that_was_in_force_from_it(tmp_path: Path) -> None:
    directory = OverridesDir(tmp_path)
    write(tmp_path / "1.yaml", GOOD)
    write(tmp_path / "2.yaml", OTHER)
    await directory.read()
    write(tmp_path / "1.yaml", "filters: [{id: zz}]\n")
    write(tmp_path / "2.yaml", "pins: x\n")
    write(tmp_path / "3.yaml", "filters: [{id: c, comment: c}]\n")
    reading = await directory.read()
    assert ids_of(reading) == ["a", "b", "c"]
    assert [fault.removeprefix(f"{tmp_path}/").split(":")[:3] for fault in reading.faults] == [
        ["1.yaml", "1", "11"],
        ["2.yaml", "1", "7"],
    ]
    assert await directory.read() == reading
    (tmp_path / "1.yaml").unlink()
    write(tmp_path / "2.yaml", GOOD + "# mended\n")
    reading = await directory.read()
    assert ids_of(reading) == ["a", "c"]
    assert reading.faults == ()


async def test_a_file_that_cannot_be_read_is_a_fault_of_it(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").symlink_to("nowhere")
    (tmp_path / "2.yaml").write_bytes(b"# \xff\n")
    write(tmp_path / "3.yaml", GOOD)
    reading = await OverridesDir(tmp_path).read()
    assert ids_of(reading) == ["a"]
    assert len(reading.faults) == 2


async def test_no_directory_is_no_override_and_one_that_vanishes_takes_nothing_with_it(tmp_path: Path) -> None:
    path = tmp_path / "local.d"
    directory = OverridesDir(path)
    assert await directory.read() == OverridesReading(())
    path.mkdir()
    write(path / "1.yaml", GOOD)
    assert ids_of(await directory.read()) == ["a"]
    path.rename(tmp_path / "elsewhere")
    reading = await directory.read()
    assert ids_of(reading) == ["a"]
    assert "cannot be read: No such file" in reading.faults[0]
    path.mkdir()
    assert await directory.read() == OverridesReading(())


async def test_what_is_no_directory_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "local.d", GOOD)
    reading = await OverridesDir(tmp_path / "local.d").read()
    assert (reading.files, len(reading.faults)) == ((), 1)


async def test_too_many_files_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dir_module, "MAX_FILES", 1)
    directory = OverridesDir(tmp_path)
    write(tmp_path / "2.yaml", GOOD)
    await directory.read()
    write(tmp_path / "1.yaml", OTHER)
    reading = await directory.read()
    assert ids_of(reading) == ["a"]
    assert "has 2 files, expected at most 1" in reading.faults[0]


@asynccontextmanager
async def watching(path: Path) -> AsyncGenerator[asyncio.Queue[OverridesReading], None]:
    delivered: asyncio.Queue[OverridesReading] = asyncio.Queue()
    task = asyncio.create_task(OverridesDir(path).watch(delivered.put, debounce_ms=10, recheck_s=0.1))
    try:
        yield delivered
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(delivered: asyncio.Queue[OverridesReading], ids: list[str]) -> OverridesReading:
    """Waits for a reading; states in between may be told too."""
    async with asyncio.timeout(20):
        while ids_of(reading := await delivered.get()) != ids:
            pass
    return reading


async def test_the_watch_tells_every_change(tmp_path: Path) -> None:
    path = tmp_path / "local.d"
    async with watching(path) as delivered:
        await until(delivered, [])
        path.mkdir()
        write(path / "1.yaml", GOOD)
        await until(delivered, ["a"])
        write(path / "new", OTHER)
        (path / "new").replace(path / "2.yaml")
        await until(delivered, ["a", "b"])
        (path / "1.yaml").unlink()
        await until(delivered, ["b"])
        path.rename(tmp_path / "old")
        while not (await until(delivered, ["b"])).faults:
            pass
        path.mkdir()
        write(path / "1.yaml", GOOD)
        await until(delivered, ["a"])
