from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gatewayd.errors import SourceUnreadable
from gatewayd.sources import files
from gatewayd.sources.files import FileSignature, FileSource, in_thread, signature_of, watch_file


async def content_of(source: FileSource) -> bytes:
    async with source.open() as body:
        assert body is not None
        return b"".join([chunk async for chunk in body.chunks])


async def test_a_file_is_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 3)
    path = tmp_path / "lab.ndjson"
    path.write_bytes(b"0123456789")
    source = FileSource("lab", path)
    async with source.open() as body:
        assert body is not None
        assert [chunk async for chunk in body.chunks] == [b"012", b"345", b"678", b"9"]
        assert body.validator == signature_of(path)
    assert source.place == str(path)


async def test_a_file_that_is_still_the_same_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "lab.ndjson"
    path.write_bytes(b"one")
    source = FileSource("lab", path)
    async with source.open(signature_of(path)) as body:
        assert body is None


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "not a regular file|Is a directory"),
        (lambda path: os.mkfifo(path), "not a regular file"),
    ],
)
async def test_what_is_not_a_readable_file_is_unreadable(
    tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    path = tmp_path / "lab.ndjson"
    make(path)
    with pytest.raises(SourceUnreadable, match=why):
        await content_of(FileSource("lab", path))


async def test_a_read_error_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, size_bytes: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    path = tmp_path / "lab.ndjson"
    path.write_bytes(b"one")
    with pytest.raises(SourceUnreadable, match="Input/output error"):
        await content_of(FileSource("lab", path))


async def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lab.ndjson"
    path.write_bytes(b"one\n")
    async with FileSource("lab", path).open() as body:
        assert body is not None
        assert await anext(body.chunks) == b"one\n"
        with path.open("ab") as stream:
            stream.write(b"two\n")
        with pytest.raises(SourceUnreadable, match="changed while it was being read"):
            [chunk async for chunk in body.chunks]


async def test_a_rename_over_the_file_while_it_is_read_does_not_matter(tmp_path: Path) -> None:
    path, other = tmp_path / "lab.ndjson", tmp_path / "new"
    path.write_bytes(b"one\n")
    other.write_bytes(b"two\n")
    async with FileSource("lab", path).open() as body:
        assert body is not None
        other.replace(path)
        assert [chunk async for chunk in body.chunks] == [b"one\n"]


async def test_a_cancelled_read_leaves_no_thread_with_a_closed_descriptor(tmp_path: Path) -> None:
    reading_end, writing_end = os.pipe()
    task = asyncio.create_task(in_thread(os.read, reading_end, 1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    os.write(writing_end, b"x")
    with pytest.raises(asyncio.CancelledError):
        await task
    os.close(reading_end)
    os.close(writing_end)


@asynccontextmanager
async def watching(path: Path) -> AsyncGenerator[asyncio.Queue[FileSignature | None], None]:
    """A queue of what the watch yields."""
    changes: asyncio.Queue[FileSignature | None] = asyncio.Queue()

    async def watch() -> None:
        async for signature in watch_file(path, debounce_ms=10, recheck_s=0.1):
            changes.put_nowait(signature)

    task = asyncio.create_task(watch())
    try:
        assert await asyncio.wait_for(changes.get(), 20) == signature_of(path)
        yield changes
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until_seen(changes: asyncio.Queue[FileSignature | None], path: Path) -> None:
    """Waits until the watch has told what is there now; it may tell states in between."""
    async with asyncio.timeout(20):
        while await changes.get() != signature_of(path):
            pass


async def test_the_watch_sees_creation_writing_renames_and_removal(tmp_path: Path) -> None:
    path, other = tmp_path / "lab.ndjson", tmp_path / "new"
    other.write_bytes(b"old")
    other.replace(path)
    async with watching(path) as changes:
        path.unlink()
        async with asyncio.timeout(20):
            while await changes.get() is not None:
                pass
        path.write_bytes(b"one")
        await until_seen(changes, path)
        other.write_bytes(b"another")
        other.replace(path)
        await until_seen(changes, path)
        path.write_bytes(b"longer than before")
        await until_seen(changes, path)


async def test_the_watch_sees_swapped_symlinks(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lab.ndjson").write_bytes(name.encode() * 3)
    (tmp_path / "current").symlink_to("v1")
    path = tmp_path / "lab.ndjson"
    path.symlink_to("current/lab.ndjson")
    async with watching(path) as changes:
        (tmp_path / "swap").symlink_to("v2")
        (tmp_path / "swap").replace(tmp_path / "current")
        await until_seen(changes, path)
        (tmp_path / "v2" / "lab.ndjson").write_bytes(b"changed where the links lead")
        await until_seen(changes, path)


async def test_the_watch_waits_for_a_directory_that_does_not_exist_yet(tmp_path: Path) -> None:
    path = tmp_path / "later" / "lab.ndjson"
    async with watching(path) as changes:
        path.parent.mkdir()
        path.write_bytes(b"one")
        await until_seen(changes, path)
        path.unlink()
        path.parent.rmdir()
        assert await asyncio.wait_for(changes.get(), 20) is None
        path.parent.mkdir()
        path.write_bytes(b"two!")
        await until_seen(changes, path)


async def test_events_that_change_nothing_are_not_told(tmp_path: Path) -> None:
    path = tmp_path / "lab.ndjson"
    path.write_bytes(b"one")
    async with watching(path) as changes:
        for number in range(20):
            (tmp_path / "other").write_bytes(bytes(number))
        path.write_bytes(b"two!")
        await until_seen(changes, path)
        assert changes.empty()


async def test_without_inotify_watches_the_file_is_looked_at_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: Any) -> AsyncGenerator[None, None]:
        raise OSError(28, "OS file watch limit reached")
        yield

    monkeypatch.setattr(files, "awatch", refuse)
    path = tmp_path / "lab.ndjson"
    async with watching(path) as changes:
        path.write_bytes(b"one")
        await until_seen(changes, path)
