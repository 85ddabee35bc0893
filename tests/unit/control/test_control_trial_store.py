"""The record of changes on disk: what a start finds, and a disk that fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.control.trial_store import FILE_NAME, RECORD_DAMAGED, TrialStore
from gatewayd.model.policy import Stage
from gatewayd.trial.record import VERSION, encode_state
from gatewayd.trial.state import Instant, Order, Trial, TrialState, Trip
from tests.support.refusing_disk import RefusingDisk
from tests.unit.trial.test_trial_record import sealed

OBSERVE, REJECT = Stage("observe"), Stage("reject", 10)
NOW = Instant(1_800_000_000.0, 100.0, "boot-1")
TRIAL = Trial("t1", "confirm", OBSERVE, REJECT, 0.0, 600.0, "boot-1", 0.0, 600.0, "uid 0", is_applied=True)
PENDING = TrialState(TRIAL)
TRIPPED = TrialState(trip=Trip("late_admissions", 0.0, 75, 60))


@pytest.fixture
def disk() -> RefusingDisk:
    return RefusingDisk()


@pytest.fixture
def store(tmp_path: Path, disk: RefusingDisk) -> TrialStore:
    return TrialStore(tmp_path, replace_file=disk.replace)


def on_disk(directory: Path, now: Instant = NOW) -> TrialState:
    """As a later run finds it."""
    found = TrialStore(directory)
    return found.recall(OBSERVE, now, "reject")


def names_in(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


async def test_a_state_is_there_for_the_next_run(tmp_path: Path, store: TrialStore) -> None:
    assert on_disk(tmp_path) == TrialState()
    await store.save_first(PENDING)
    assert (store.state, on_disk(tmp_path)) == (TrialState(), PENDING)
    store.take(TRIPPED)
    assert not store.is_saved
    assert await store.save()
    assert store.is_saved
    assert on_disk(tmp_path) == TRIPPED
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o007 == 0


async def test_nothing_to_keep_is_no_file_and_needs_no_room(
    tmp_path: Path, store: TrialStore, disk: RefusingDisk
) -> None:
    await store.save_first(PENDING)
    disk.fill()
    assert await store.save()
    assert names_in(tmp_path) == []


async def test_a_full_disk_refuses_what_is_to_arm_and_leaves_the_record(
    tmp_path: Path, store: TrialStore, disk: RefusingDisk
) -> None:
    store.take(TRIPPED)
    await store.save()
    disk.fill()
    with pytest.raises(OSError, match="No space left on device"):
        await store.save_first(PENDING)
    assert on_disk(tmp_path) == TRIPPED


async def test_a_full_disk_does_not_leave_a_record_that_would_arm(
    tmp_path: Path, store: TrialStore, disk: RefusingDisk
) -> None:
    await store.save_first(PENDING)
    store.take(TRIPPED)
    disk.fill()
    assert not await store.save()
    assert store.error == "No space left on device"
    assert on_disk(tmp_path) == TrialState()
    disk.mend()
    assert await store.save()
    assert (store.error, on_disk(tmp_path)) == (None, TRIPPED)


async def test_a_record_that_arms_nothing_stays_where_a_newer_one_cannot_be_written(
    tmp_path: Path, store: TrialStore, disk: RefusingDisk
) -> None:
    store.take(TRIPPED)
    await store.save()
    disk.fill()
    store.take(replace(TRIPPED, order=Order(OBSERVE, REJECT, 0.0, "uid 0")))
    assert not await store.save()
    assert on_disk(tmp_path) == TRIPPED


@pytest.mark.parametrize("content", [b"", b"rubbish", b"x" * 70_000, encode_state(PENDING)[:-9]])
def test_a_damaged_record_is_set_aside_and_nothing_is_armed_on_a_guess(
    tmp_path: Path, store: TrialStore, content: bytes
) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    store.recall(REJECT, NOW, "reject")
    assert store.state.trip is not None
    assert store.state.trip.cause == RECORD_DAMAGED
    assert names_in(tmp_path) == ["trial.damaged"]


async def test_a_record_of_a_later_version_is_left_untouched(tmp_path: Path, store: TrialStore) -> None:
    content = sealed(f'{{"version":{VERSION + 1},"state":{{}}}}')
    (tmp_path / FILE_NAME).write_bytes(content)
    store.recall(REJECT, NOW, "reject")
    assert store.state.trip is not None
    with pytest.raises(OSError, match="later version"):
        await store.save_first(PENDING)
    store.take(TrialState())
    assert not await store.save()
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_record_that_cannot_be_read_arms_nothing(tmp_path: Path, store: TrialStore) -> None:
    (tmp_path / FILE_NAME).mkdir()
    store.recall(REJECT, NOW, "reject")
    assert store.state.trip is not None


async def test_without_a_directory_all_is_in_memory(disk: RefusingDisk) -> None:
    disk.fill()
    store = TrialStore(None, replace_file=disk.replace)
    assert store.recall(OBSERVE, NOW, None) == TrialState()
    await store.save_first(PENDING)
    store.take(PENDING)
    assert await store.save()
