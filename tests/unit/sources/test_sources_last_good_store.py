"""The last good on disk: what is saved is loaded, whenever we end, and damage is noticed and said."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import json
import logging
import os
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import LastGoodDamaged
from gatewayd.feed.canonical import Damaged
from gatewayd.feed.reading import ReadLimits
from gatewayd.model import Registration, parse_prefix
from gatewayd.model.registration import Changes
from gatewayd.sources import last_good_store as store
from gatewayd.sources.disk import RealFiles
from gatewayd.sources.last_good import (
    FrameHead,
    Index,
    Restored,
    decode_frame,
    decode_index,
    encode_frame,
    encode_index,
)
from gatewayd.sources.last_good_files import BATCH_BYTES
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.update import FeedPosition, FileMark, SourceUpdate
from tests.support.fake_files import STATE, Ended, FakeFiles
from tests.support.feeds import encode_delta
from tests.support.strategies import registrations

SESSION = "6b9a7f0e-0000-4000-8000-000000000001"


def at(serial: int) -> FeedPosition:
    return FeedPosition(SESSION, serial, 1000.0 + serial, "ab" * 32, etag=f'"{serial}"')


def registration(id: str, client: str = "203.0.113.0/28") -> Registration:
    return Registration(id, "bank", "active", (parse_prefix(client),))


def registry(*ids: str) -> dict[str, Registration]:
    return {id: registration(id) for id in ids}


def lines_of(all: dict[str, Registration]) -> bytes:
    return b"".join(
        json.dumps(
            {"id": each.id, "category": each.category, "status": each.status, "clients": [str(each.clients[0])]}
        ).encode()
        + b"\n"
        for each in all.values()
    )


def delta_of(upserts: dict[str, Registration], *withdrawals: str) -> bytes:
    return encode_delta(upserts.values(), withdrawals)


class Stopwatch:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


AnyFiles = FakeFiles | RealFiles


def last_good(files: AnyFiles, state_dir: Path = STATE, monotonic: Stopwatch | None = None) -> LastGood:
    return LastGood(state_dir, clock=lambda: 5000.0, monotonic=monotonic or Stopwatch(), files=files)


async def load(files: AnyFiles, state_dir: Path = STATE) -> Restored:
    return await last_good(files, state_dir).load("lab")


Save = Callable[[LastGood], Awaitable[object]]
State = tuple[dict[str, Registration], FeedPosition | None]


def state_of(restored: Restored) -> State:
    return restored.registrations, restored.position


async def keep_served(kept: LastGood, content: bytes, position: FeedPosition) -> bool:
    sink = await kept.open("lab")
    await sink.write(content[:7])
    await sink.write(content[7:])
    file = await sink.commit()
    assert file is not None
    return await kept.save_snapshot("lab", file, position)


ONE, TWO, THREE = registry("a", "b"), registry("a", "c"), registry("a", "c", "d")


async def save_one(kept: LastGood) -> None:
    assert await kept.save_reading("lab", ONE, at(1))


async def save_two(kept: LastGood) -> None:
    content = gzip.compress(lines_of(TWO))
    assert await keep_served(kept, content, at(2))


async def save_delta(kept: LastGood) -> None:
    delta = delta_of(registry("c"), "b")
    assert await kept.save_delta("lab", delta, at(2), after=at(1))


async def save_further_delta(kept: LastGood) -> None:
    assert await kept.save_delta("lab", delta_of(registry("d")), at(3), after=at(2))


async def move_on(kept: LastGood) -> None:
    assert await kept.save_delta("lab", b"", at(2), after=at(1))


NOTHING: State = ({}, None)
FIRST: State = (ONE, at(1))
SECOND: State = (TWO, at(2))
STEPS: dict[str, tuple[list[Save], Save, State, State]] = {
    "first reading": ([], save_one, NOTHING, FIRST),
    "first snapshot": ([], save_two, NOTHING, SECOND),
    "snapshot over reading": ([save_one], save_two, FIRST, SECOND),
    "snapshot over deltas": ([save_one, save_delta, save_further_delta], save_one,
                             (THREE, at(3)), FIRST),
    "delta": ([save_one], save_delta, FIRST, SECOND),
    "further delta": ([save_one, save_delta], save_further_delta, SECOND, (THREE, at(3))),
    "position alone": ([save_one], move_on, FIRST, (ONE, at(2))),
}  # fmt: skip


async def prepared(before: list[Save]) -> tuple[FakeFiles, LastGood]:
    files = FakeFiles()
    kept = last_good(files)
    await kept.load("lab")
    for save in before:
        await save(kept)
    return files, kept


@pytest.mark.parametrize("step", STEPS)
async def test_what_is_saved_is_what_is_loaded(step: str) -> None:
    before, save, old, new = STEPS[step]
    files, kept = await prepared(before)
    assert state_of(await load(files)) == old
    await save(kept)
    restored = await load(files)
    assert state_of(restored) == new
    assert (restored.damage, restored.saved_at_s) == (None, 5000.0)
    assert kept._entry("lab").directory.head.position == new[1]
    assert not kept.needs_reading("lab")


@pytest.mark.parametrize(
    "left_by",
    [FakeFiles.after_kill, FakeFiles.after_power_cut, FakeFiles.after_power_cut_out_of_order],
)
@pytest.mark.parametrize("step", STEPS)
async def test_whenever_we_end_the_old_or_the_new_is_there_whole(
    step: str, left_by: Callable[[FakeFiles], FakeFiles]
) -> None:
    before, save, old, new = STEPS[step]
    files, kept = await prepared(before)
    calls = files.calls
    await save(kept)
    ends = files.calls - calls
    assert ends >= 2
    seen = set()
    for end in range(ends):
        files, kept = await prepared(before)
        files.ends_after = files.calls + end
        with pytest.raises(Ended):
            await save(kept)
        left = left_by(files)
        again = last_good(left)
        restored = await again.load("lab")
        assert state_of(restored) in (old, new), f"ended in call {end} of {ends}"
        seen.add("new" if state_of(restored) == new else "old")
        assert not [name for name in left.list_all() if name.endswith(".tmp")]
        # And from there everything goes on as ever.
        if restored.position is None or not await again.save_delta("lab", b"", at(9), after=restored.position):
            await again.save_reading("lab", restored.registrations, at(9))
        followed = await load(left)
        assert state_of(followed) == (restored.registrations, at(9))
        assert followed.damage is None
    assert "old" in seen


async def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert await load(RealFiles(), tmp_path / "absent") == Restored({})


async def test_a_snapshot_is_kept_exactly_as_served(tmp_path: Path) -> None:
    content = gzip.compress(lines_of(ONE) + b"nonsense\n")
    kept = last_good(RealFiles(), tmp_path)
    assert await keep_served(kept, content, at(1))
    (snapshot,) = (tmp_path / "registry" / "lab").glob("snapshot-*")
    assert snapshot.read_bytes() == content
    restored = await load(RealFiles(), tmp_path)
    assert restored.registrations == ONE
    assert restored.rejected == {"not_json": 1}


async def test_several_deltas_as_served_are_one_change(tmp_path: Path) -> None:
    kept = last_good(RealFiles(), tmp_path)
    await save_one(kept)
    served = delta_of(registry("c")) + delta_of(registry("d"), "b")
    assert await kept.save_delta("lab", served, at(3), after=at(1))
    assert state_of(await load(RealFiles(), tmp_path)) == (THREE, at(3))


async def test_what_a_sink_took_may_be_dropped(tmp_path: Path) -> None:
    kept = last_good(RealFiles(), tmp_path)
    sink = await kept.open("lab")
    await sink.write(b"x" * (BATCH_BYTES + 1))
    await sink.abort()
    sink = await kept.open("lab")
    mark = await sink.commit()
    assert mark is not None
    await kept.discard(SourceUpdate("lab", 0.0, served=mark))
    assert list((tmp_path / "registry" / "lab").iterdir()) == []


async def test_a_commit_leaves_a_file_alone_that_is_being_received(tmp_path: Path) -> None:
    kept = last_good(RealFiles(), tmp_path)
    sink = await kept.open("lab")
    await sink.write(gzip.compress(lines_of(TWO)))
    await save_one(kept)
    mark = await sink.commit()
    assert mark is not None
    assert await kept.save_snapshot("lab", mark, at(2))
    assert state_of(await load(RealFiles(), tmp_path)) == (TWO, at(2))


async def test_only_what_counts_stays_on_disk(tmp_path: Path) -> None:
    kept = last_good(RealFiles(), tmp_path)
    await save_one(kept)
    await save_delta(kept)
    await save_further_delta(kept)
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "registry" / "lab").iterdir())
    assert names == ["deltas", "index.json", "snapshot"]
    await save_two(kept)
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "registry" / "lab").iterdir())
    assert names == ["index.json", "snapshot"]


async def test_an_update_is_saved_as_it_was_served_or_else_as_it_is(tmp_path: Path) -> None:
    kept = last_good(RealFiles(), tmp_path)
    plain = SourceUpdate("lab", 7.9, registrations=ONE)
    await kept.save(plain)
    assert state_of(await load(RealFiles(), tmp_path)) == (ONE, FeedPosition("", 7))
    sink = await kept.open("lab")
    await sink.write(gzip.compress(lines_of(ONE)))
    await kept.save(SourceUpdate("lab", 8.0, registrations=ONE, position=at(1), served=await sink.commit()))
    assert state_of(await load(RealFiles(), tmp_path)) == FIRST
    await kept.save(replace(MOVE, served=delta_of(registry("c"), "b")))
    assert state_of(await load(RealFiles(), tmp_path)) == SECOND
    assert one_file(tmp_path, "deltas-*").exists()


async def test_deltas_too_large_to_be_passed_on_are_not_missing_from_the_last_good(tmp_path: Path) -> None:
    kept = last_good(RealFiles(), tmp_path)
    await save_one(kept)
    await kept.save(MOVE)
    assert state_of(await load(RealFiles(), tmp_path)) == SECOND


MOVE = SourceUpdate("lab", 9.0, registrations=TWO, changes=Changes((), ()), position=at(2), before=at(1))


# -- damage ------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = [flip, truncate, empty, remove, replace_by_directory, replace_by_fifo]


def one_file(state_dir: Path, pattern: str) -> Path:
    return sorted((state_dir / "registry" / "lab").glob(pattern))[-1]


async def saved(state_dir: Path) -> None:
    kept = last_good(RealFiles(), state_dir)
    await kept.load("lab")
    await save_one(kept)
    await save_delta(kept)
    await save_further_delta(kept)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", ["index.json", "snapshot-*"])
async def test_without_a_whole_snapshot_there_is_nothing_and_it_is_said(
    tmp_path: Path, pattern: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    await saved(tmp_path)
    path = one_file(tmp_path, pattern)
    damage(path)
    with caplog.at_level(logging.WARNING):
        restored = await load(RealFiles(), tmp_path)
    assert (restored.registrations, restored.position) == ({}, None)
    assert isinstance(restored.damage, LastGoodDamaged)
    assert restored.damage.file == path.name
    assert restored.damage.source == "lab"
    assert [record.message for record in caplog.records] == ["store.damaged"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", ["index.json", "snapshot-*", "deltas-*"])
async def test_damage_is_mended_by_the_next_reading(
    tmp_path: Path, pattern: str, damage: Callable[[Path], None]
) -> None:
    await saved(tmp_path)
    path = one_file(tmp_path, pattern)
    damage(path)
    kept = last_good(RealFiles(), tmp_path)
    await kept.load("lab")
    if path.is_dir():
        path.rmdir()
    assert await kept.save_reading("lab", TWO, at(7))
    restored = await load(RealFiles(), tmp_path)
    assert (*state_of(restored), restored.damage) == (TWO, at(7), None)


async def test_a_damaged_snapshot_is_not_gone_on_from(tmp_path: Path) -> None:
    kept = last_good(RealFiles(), tmp_path)
    await save_one(kept)
    await save_delta(kept)
    flip(one_file(tmp_path, "snapshot-*"))
    kept = last_good(RealFiles(), tmp_path)
    restored = await kept.load("lab")
    assert (restored.registrations, restored.position) == ({}, None)
    assert not await kept.save_delta("lab", b"", at(3), after=at(2))
    assert kept.needs_reading("lab")
    assert await kept.save_reading("lab", TWO, at(7))
    assert state_of(await load(RealFiles(), tmp_path)) == (TWO, at(7))


@pytest.mark.parametrize("damage", [flip, truncate])
async def test_deltas_up_to_the_damage_are_used_and_the_next_takes_the_place_of_the_rest(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    await saved(tmp_path)
    path = one_file(tmp_path, "deltas-*")
    content = path.read_bytes()
    first = decode_frame(content, 0).end
    tail = tmp_path / "tail"
    tail.write_bytes(content[first:])
    damage(tail)
    path.write_bytes(content[:first] + tail.read_bytes())
    kept = last_good(RealFiles(), tmp_path)
    restored = await kept.load("lab")
    assert state_of(restored) == SECOND
    assert restored.damage is not None
    assert restored.damage.file == path.name
    await save_further_delta(kept)
    assert state_of(await load(RealFiles(), tmp_path)) == (THREE, at(3))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no gzip", "not gzip"),
        (gzip.compress(b'{"op":"nothing"}\n'), "line 1: is no operation"),
        (gzip.compress(b'{"op":"upsert","registration":'), "cut off|no operation"),
        (delta_of(registry("x"))[:-4], "not gzip, or damaged"),
    ],
)
async def test_a_delta_that_cannot_be_applied_counts_as_damage(tmp_path: Path, content: bytes, why: str) -> None:
    kept = last_good(RealFiles(), tmp_path)
    await save_one(kept)
    await kept.save_delta("lab", content, at(2), after=at(1))
    restored = await load(RealFiles(), tmp_path)
    assert state_of(restored) == FIRST
    with pytest.raises(LastGoodDamaged, match=why):
        raise restored.damage or AssertionError


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (gzip.compress(b"x\ny\n"), "none of its 2 records is usable"),
        (gzip.compress(lines_of(ONE))[:-4], "not gzip, or damaged"),
        (b"plain", "not gzip, or damaged"),
        (gzip.compress(lines_of(ONE) + b'{"id"'), "cut off"),
    ],
)
async def test_a_snapshot_without_registrations_is_never_an_empty_allowlist(
    tmp_path: Path, content: bytes, why: str
) -> None:
    await keep_served(last_good(RealFiles(), tmp_path), content, at(1))
    restored = await load(RealFiles(), tmp_path)
    assert (restored.registrations, restored.position) == ({}, None)
    assert restored.damage is not None
    assert why in restored.damage.why


async def test_more_than_the_limits_is_damage(tmp_path: Path) -> None:
    await save_one(last_good(RealFiles(), tmp_path))
    kept = LastGood(tmp_path, clock=lambda: 0.0, monotonic=Stopwatch(), limits=ReadLimits(max_bytes=10))
    restored = await kept.load("lab")
    assert restored.damage is not None
    assert "more than 10 bytes" in restored.damage.why


@pytest.mark.parametrize("call", ["list", "open_to_read"])
async def test_files_that_we_may_not_read_are_damage(call: str) -> None:
    files, _ = await prepared([save_one])
    files.refuse = lambda each: errno.EACCES if each == call else None
    restored = await load(files)
    assert (restored.registrations, restored.position) == ({}, None)
    assert restored.damage is not None
    assert "Permission denied" in restored.damage.why


async def test_a_directory_that_fails_between_two_reads_is_damage(tmp_path: Path) -> None:
    await saved(tmp_path)
    kept = last_good(RealFiles(), tmp_path)
    directory = kept._entry("lab").directory
    directory.open()
    files = FakeFiles()
    files.refuse = lambda call: errno.EIO
    directory.files = files
    with pytest.raises(LastGoodDamaged, match="Input/output error"):
        next(directory.frames())


# -- a disk that takes nothing -----------------------------------------------------------------------------

CHANGING = ["make_directory", "create", "open_at", "write", "sync", "rename", "sync_directory"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", CHANGING)
async def test_a_disk_that_takes_nothing_is_said_and_what_was_there_stays(
    call: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    files, _ = await prepared([save_one])
    monotonic = Stopwatch()
    kept = last_good(files, monotonic=monotonic)
    await kept.load("lab")
    files.refuse = lambda each: number if each == call else None
    with caplog.at_level(logging.INFO):
        outcomes = [
            await kept.save_delta("lab", delta_of(registry("c"), "b"), at(2), after=at(1)),
            await kept.save_reading("lab", TWO, at(2)),
            await kept.save_reading("lab", TWO, at(2)),
        ]
        said = [record.message for record in caplog.records]
        assert said.count("store.failed") == (not all(outcomes))
        if all(outcomes):
            assert call in ("make_directory",)
            return
        files.refuse = lambda each: None
        assert state_of(await load(files)) in (FIRST, SECOND)
        if not outcomes[-1]:
            assert os.strerror(number) in (kept.error_of("lab") or "")
            assert not kept.needs_reading("lab")
            monotonic.now += store.RETRY_S
            assert kept.needs_reading("lab")
        assert await kept.save_reading("lab", TWO, at(2))
    assert kept.error_of("lab") is None
    assert not kept.needs_reading("lab")
    assert state_of(await load(files)) == SECOND
    assert [record.message for record in caplog.records].count("store.recovered") == 1


async def test_a_state_directory_that_cannot_be_made_is_a_failure_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("a file")
    kept = last_good(RealFiles(), tmp_path)
    restored = await kept.load("lab")
    assert restored.position is None
    assert not await kept.save_reading("lab", ONE, at(1))
    sink = await kept.open("lab")
    await sink.write(b"x")
    assert await sink.commit() is None
    await sink.abort()
    assert kept._entry("lab").failures == 1


async def test_a_source_that_comes_back_begins_anew(tmp_path: Path) -> None:
    """It was not configured at the start, so nothing of it was loaded; then a reload brought it back."""
    for save in (save_one, save_delta):
        before = last_good(RealFiles(), tmp_path)
        await before.load("lab")
        await save(before)
    now = last_good(RealFiles(), tmp_path)
    assert not await now.save_delta("lab", delta_of(registry("d")), at(3), after=at(2))
    assert await now.save_reading("lab", THREE, at(9))
    assert state_of(await load(RealFiles(), tmp_path)) == (THREE, at(9))
    assert len(os.listdir(tmp_path / "registry" / "lab")) == 2


async def test_a_source_that_comes_back_to_damage_begins_anew(tmp_path: Path) -> None:
    await save_one(last_good(RealFiles(), tmp_path))
    (tmp_path / "registry" / "lab" / "index.json").write_bytes(b"{")
    assert await last_good(RealFiles(), tmp_path).save_reading("lab", TWO, at(9))
    assert state_of(await load(RealFiles(), tmp_path)) == (TWO, at(9))


async def test_its_times_are_read_before_it_is_loaded_and_nothing_is_touched(tmp_path: Path) -> None:
    await save_one(last_good(RealFiles(), tmp_path))
    written = tmp_path / "registry" / "lab" / "incoming-9.tmp"
    written.touch()
    kept = last_good(RealFiles(), tmp_path)
    assert await kept.read_times("lab") == (1001.0, 5000.0)
    assert await kept.read_times("another") == (None, None)
    assert written.exists()
    assert not (tmp_path / "registry" / "another").exists()
    (tmp_path / "registry" / "lab" / "index.json").write_bytes(b"{")
    assert await kept.read_times("lab") == (None, None)


async def test_what_is_kept_of_sources_that_are_not_configured_is_named_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kept = last_good(RealFiles(), tmp_path)
    await kept.say_unused(["lab"])
    for name in ("lab", "old", "another"):
        await kept.save_reading(name, ONE, at(1))
    await kept.say_unused(["lab", "national"])
    said = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "store.unused"]
    root = tmp_path / "registry"
    assert said == [{"source": name, "directory": str(root / name)} for name in ("another", "old")]
    assert state_of(await load(RealFiles(), tmp_path)) == (ONE, at(1))


async def test_a_delta_to_what_is_not_kept_is_not_kept(tmp_path: Path) -> None:
    kept = last_good(RealFiles(), tmp_path)
    assert kept.needs_reading("lab")
    await save_one(kept)
    other = msgspec.structs.replace(at(1), session="another")
    for after in (at(2), other):
        kept._entry("lab").is_behind = False
        assert not await kept.save_delta("lab", delta_of(registry("c")), at(3), after=after)
        assert kept.needs_reading("lab")
    assert not await kept.save_delta("lab", delta_of(registry("c")), at(2), after=at(1))
    assert state_of(await load(RealFiles(), tmp_path)) == FIRST


async def test_deltas_that_outweigh_the_snapshot_want_everything_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MIN_COMPACTED_BYTES", 100)
    kept = last_good(RealFiles(), tmp_path)
    await save_one(kept)
    assert not kept.needs_reading("lab")
    await save_delta(kept)
    assert kept.needs_reading("lab")
    directory = kept._entry("lab").directory
    assert directory.index is not None
    assert directory.deltas_bytes > directory.index.snapshot.size_bytes
    assert await kept.save_reading("lab", TWO, at(2))
    assert not kept.needs_reading("lab")
    assert state_of(await load(RealFiles(), tmp_path)) == SECOND


# -- many, and ends ----------------------------------------------------------------------------------------


async def test_many_are_read_and_written_while_the_loop_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SLICE", 100)
    many = registry(*(str(number) for number in range(10_000)))
    few = registry(*(str(number) for number in range(5000)))
    kept = last_good(RealFiles(), tmp_path)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    assert await kept.save_reading("lab", many, at(1))
    assert await kept.save_delta("lab", delta_of({}, *(many.keys() - few.keys())), at(2), after=at(1))
    restored = await load(RealFiles(), tmp_path)
    counting.cancel()
    assert restored.registrations == few
    assert turns > 50


class TellingFiles(RealFiles):
    """Says when a call has been made; `told` is awaited."""

    def __init__(self, call: str) -> None:
        self.told = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._call = call

    def _tell(self, call: str) -> None:
        if call == self._call:
            self._loop.call_soon_threadsafe(self.told.set)

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._tell("create")
        return descriptor

    def write(self, descriptor: int, content: bytes) -> None:
        super().write(descriptor, content)
        self._tell("write")

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self._tell("sync")


@pytest.mark.parametrize("call", ["create", "write", "sync"])
async def test_a_cancelled_save_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path, call: str) -> None:
    many = registry(*(str(number) for number in range(20_000)))
    await save_one(last_good(RealFiles(), tmp_path))
    files = TellingFiles(call)
    kept = last_good(files, tmp_path)
    await kept.load("lab")
    task = asyncio.create_task(kept.save_reading("lab", many, at(2)))
    async with asyncio.timeout(30):
        await files.told.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list((tmp_path / "registry" / "lab").glob("*.tmp"))
    assert state_of(await load(RealFiles(), tmp_path)) == FIRST
    await save_delta(kept)


async def test_a_window_beyond_the_calendar_is_left_out(tmp_path: Path) -> None:
    far = msgspec.structs.replace(registration("far"), valid_from_s=1e15)
    kept = last_good(RealFiles(), tmp_path)
    assert await kept.save_reading("lab", {**ONE, "far": far}, at(1))
    assert (await load(RealFiles(), tmp_path)).registrations == ONE


@given(st.lists(registrations(), max_size=5, unique_by=lambda each: each.id))
def test_registrations_come_back_as_they_were(some: list[Registration]) -> None:
    valid = {each.id: each for each in some if each.valid_from_s < each.valid_until_s}

    async def there_and_back() -> Restored:
        files = FakeFiles()
        kept = last_good(files)
        await kept.save_reading("lab", {}, at(1))
        await kept.save_delta("lab", encode_delta(valid.values(), []), at(2), after=at(1))
        first = await load(files)
        await kept.save_reading("lab", valid, at(3))
        second = await load(files)
        assert first.registrations == second.registrations
        return second

    assert asyncio.run(there_and_back()).registrations == valid


# -- bytes -------------------------------------------------------------------------------------------------

INDEX = Index(1, 4, at(1), 5000.0, FileMark("snapshot-4.gz", 100, "ab" * 32))


def signed(line: bytes) -> bytes:
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"{}", "its hash is wrong"),
        (encode_index(INDEX)[:-1], "its hash is wrong"),
        (encode_index(INDEX) + b"\n", "its hash is wrong"),
        (signed(b"{}"), "is of another format"),
        (signed(b"\xff"), "is of another format"),
        (encode_index(INDEX).replace(b'"format":1', b'"format":2'), "its hash is wrong"),
    ],
)
def test_an_index_that_is_not_ours_is_damaged(content: bytes, why: str) -> None:
    with pytest.raises(Damaged, match=why):
        decode_index(content)


def test_an_index_is_whole_and_names_its_deltas() -> None:
    assert decode_index(encode_index(INDEX)) == INDEX
    assert INDEX.deltas == "deltas-4"


FRAME = encode_frame(FrameHead(at(2), 5000.0), b"content")


def test_every_cut_and_every_flipped_bit_of_a_frame_is_noticed() -> None:
    assert decode_frame(b"before" + FRAME, 6) == (FrameHead(at(2), 5000.0), b"content", 6 + len(FRAME))
    for end in range(len(FRAME)):
        with pytest.raises(Damaged):
            decode_frame(FRAME[:end], 0)
    for place in range(len(FRAME)):
        flipped = bytearray(FRAME)
        flipped[place] ^= 0x01
        with pytest.raises(Damaged):
            decode_frame(bytes(flipped), 0)


@pytest.mark.parametrize(
    ("head", "why"),
    [(b"{}", "of another format"), (b"\xff", "of another format"), (b" " * (1 << 20) + b"{}", "no frame at 0")],
)
def test_a_frame_of_another_format_is_damaged(head: bytes, why: str) -> None:
    packed = struct.pack(">4sIQ32s", b"gwdD", len(head), 0, hashlib.sha256(head).digest())
    with pytest.raises(Damaged, match=why):
        decode_frame(packed + head, 0)


async def test_real_files_are_created_closed_and_read_back(tmp_path: Path) -> None:
    files = RealFiles()
    path = tmp_path / "x"
    descriptor = files.open_at(path, 0)
    files.write(descriptor, b"0123456789")
    files.close(descriptor)
    descriptor = files.open_at(path, 4)
    files.write(descriptor, b"x")
    files.sync(descriptor)
    files.close(descriptor)
    assert path.read_bytes() == b"0123x"
    with pytest.raises(OSError, match="Invalid argument"):
        files.open_at(path, -1)
    assert path.stat().st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
