"""The file of what the guard knows, on a disk that refuses now and then."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gatewayd.sources.disk import GuardFile
from tests.support.fed_gateway import RefusingFiles


async def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "guard"
    assert await GuardFile(RefusingFiles(), path).load() is None
    assert await GuardFile(RefusingFiles(), path).save(b"one")
    again = GuardFile(RefusingFiles(), path)
    assert await again.load() == b"one"
    assert [each.name for each in path.parent.iterdir()] == ["guard"]


async def test_what_is_on_disk_is_not_written_again(tmp_path: Path) -> None:
    file = GuardFile(RefusingFiles(), tmp_path / "guard")
    assert await file.save(b"one")
    inode = file.path.stat().st_ino
    assert await file.save(b"one")
    assert file.path.stat().st_ino == inode
    again = GuardFile(RefusingFiles(), tmp_path / "guard")
    await again.load()
    assert await again.save(b"one")
    assert file.path.stat().st_ino == inode


async def test_a_disk_that_refuses_is_said_and_what_was_there_stays(tmp_path: Path) -> None:
    disk = RefusingFiles()
    file = GuardFile(disk, tmp_path / "guard")
    assert await file.save(b"one")
    disk.fill()
    assert not await file.save(b"two")
    assert not await file.save(b"two")
    assert file.error == "No space left on device"
    assert file.path.read_bytes() == b"one"
    disk.mend()
    assert await file.save(b"two")
    assert file.error is None
    assert file.path.read_bytes() == b"two"


async def test_saves_at_once_end_with_the_last_of_them(tmp_path: Path) -> None:
    file = GuardFile(RefusingFiles(), tmp_path / "guard")
    contents = [b"%d" % number for number in range(20)]
    assert all(await asyncio.gather(*(file.save(content) for content in contents)))
    assert file.path.read_bytes() == contents[-1]


async def test_what_cannot_be_read_is_as_if_there_were_nothing(tmp_path: Path) -> None:
    (tmp_path / "guard").mkdir()
    assert await GuardFile(RefusingFiles(), tmp_path / "guard").load() is None
