"""What a run of the proof does when a row or a part of it fails, and which commit it says that it measured."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import pytest
from rich.console import Console

from tests.bench.machine import describe_machine
from tests.proof.faults import FAULTS
from tests.proof.harness import Row
from tests.proof.progress import Progress
from tests.proof.table import assert_same, load, with_renewed

ROW = Row("", "", 1, 0, 0, 0.1, ("by the test",))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def progress_with(clock: Clock) -> tuple[Progress, io.StringIO]:
    written = io.StringIO()
    return Progress(Console(file=written, width=200), clock), written


def returning(clock: Clock, seconds: float, value: str) -> Callable[[], str]:
    def work() -> str:
        clock.now += seconds
        return value

    return work


def failing() -> str:
    raise AssertionError("not repaired\nand a log")


def test_each_row_has_its_time_and_one_that_fails_ends_no_other() -> None:
    progress, written = progress_with(clock := Clock())
    rows = [("first", returning(clock, 61.0, "a")), ("second", failing), ("third", returning(clock, 3.0, "c"))]
    assert list(progress.rows("faults", rows)) == ["a", "c"]
    text = written.getvalue()
    assert "00:00 faults 1/3 first 61 s" in text
    assert "01:01 faults 2/3 second fails" in text
    assert "01:01 faults 3/3 third 3 s" in text
    assert [(each.part, each.row) for each in progress.failures] == [("faults", "second")]


def test_a_part_that_fails_ends_no_other_and_the_end_names_all() -> None:
    progress, written = progress_with(Clock())
    with progress.part("faults"):
        raise OSError("no lab")
    with progress.part("pair"):
        list(progress.rows("pair", [("box gone", failing)]))
    begins = len(written.getvalue())
    assert progress.end() == 1
    assert written.getvalue()[begins:].splitlines() == [
        "00:00 2 failed:",
        "faults, the part: OSError: no lab",
        "pair, box gone: AssertionError: not repaired",
    ]


def test_a_run_without_failures_ends_well() -> None:
    progress, written = progress_with(Clock())
    with progress.part("pair"):
        pass
    assert progress.end() == 0
    assert "all done" in written.getvalue()


def test_a_renewed_row_stands_where_the_former_stood() -> None:
    kept = [replace(ROW, name=name) for name in ("table deleted", "SIGKILL")]
    made = [replace(ROW, name="table deleted", sent=9), replace(ROW, name="disk full")]
    found = with_renewed(kept, made, FAULTS)
    assert [(row.name, row.sent) for row in found] == [("SIGKILL", 1), ("disk full", 1), ("table deleted", 9)]


def test_a_row_of_another_commit_is_not_put_beside_the_others() -> None:
    machine = load().machine
    assert_same(machine, replace(machine, taken_at="2000-01-01"))
    with pytest.raises(click.ClickException, match="make all of its rows"):
        assert_same(machine, replace(machine, commit="other"))


def test_an_interrupt_ends_the_run() -> None:
    progress, _ = progress_with(Clock())
    with pytest.raises(KeyboardInterrupt), progress.part("pair"):
        raise KeyboardInterrupt


def test_what_a_run_writes_makes_no_other_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *words], check=True)
    (tmp_path / "docs" / "proof").mkdir(parents=True)
    files = [tmp_path / name for name in ("README.md", "docs/proof.md", "docs/proof/faults.json", "code.py")]
    for each in files:
        each.write_text("1")
    written = ("docs/proof", "README.md", "docs/proof.md")
    subprocess.run(["git", "add", "."], check=True)
    assert describe_machine(written).commit.endswith("-dirty")
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "y"], check=True)
    for each in files[:3]:
        each.write_text("2")
    assert not describe_machine(written).commit.endswith("-dirty")
    assert describe_machine().commit.endswith("-dirty")
    files[3].write_text("2")
    assert describe_machine(written).commit.endswith("-dirty")
