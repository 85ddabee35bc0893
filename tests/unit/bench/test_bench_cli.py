"""`python -m tests.bench`: what it takes, and one real run of it, small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tests.bench.__main__ import SIZES, main, parse_rows, parse_sizes
from tests.bench.goals import GOALS, Verdict
from tests.bench.row import Machine, Outcome, Row
from tests.bench.rows import ROWS, find_row

ROOT = Path(__file__).parents[3]
MAX_S = 900


class Report(msgspec.Struct):
    """bench.json."""

    machine: Machine
    outcomes: list[Outcome]
    goals: list[Verdict]


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("1k", [1000]),
        ("1M,31k", [31_000, 1_000_000]),
        (" 5 , 2K ", [5, 2000]),
        ("3,3", [3]),
        (SIZES, [1000, 31_000, 100_000, 1_000_000]),
    ],
)
def test_sizes_are_read_and_sorted(text: str, sizes: list[int]) -> None:
    assert parse_sizes(None, None, text) == sizes


@pytest.mark.parametrize("text", ["", "0", "0k", "1.5k", "-1", "1G", "1k,", "many"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    result = CliRunner().invoke(main, ["--sizes", text])
    assert result.exit_code == 2
    assert "is no size such as 31k or 1M" in " ".join(result.stderr.split())


def test_without_a_choice_all_rows_are_run() -> None:
    assert parse_rows(None, None, None) == list(ROWS)


def test_rows_are_chosen_by_name_in_the_order_asked_for() -> None:
    assert [row.name for row in parse_rows(None, None, "change,hosts")] == ["change", "hosts"]


def test_a_row_that_is_not_there_is_refused_with_those_that_are() -> None:
    result = CliRunner().invoke(main, ["--rows", "hosts,speed"])
    assert result.exit_code == 2
    assert "no row 'speed'; there are" in " ".join(result.stderr.split())


@pytest.mark.parametrize("runs", ["0", "100", "few"])
def test_runs_are_a_small_number(runs: str) -> None:
    assert CliRunner().invoke(main, ["--runs", runs]).exit_code == 2


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_names_its_measures_and_subjects_once_and_has_gatewayd_first(row: Row) -> None:
    measures, subjects = ([each.name for each in several] for several in (row.measures, row.subjects))
    assert len(set(measures)) == len(measures)
    assert len(set(subjects)) == len(subjects)
    assert subjects[0].startswith("gatewayd")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_whoever_is_left_out_beyond_a_size_has_a_reason(row: Row) -> None:
    assert [each.name for each in row.subjects if each.most is not None and not each.why] == []


@pytest.mark.kernel
def test_a_real_run_has_each_subject_with_figures_or_with_a_reason(tmp_path: Path) -> None:
    rows = [find_row(name) for name in ("hosts", "delta")]
    options = ["--sizes", "1k", "--runs", "1", "--rows", "hosts,delta", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=MAX_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr

    report = msgspec.json.decode((tmp_path / "bench.json").read_bytes(), type=Report)
    expected = [(row.name, subject.name) for row in rows for subject in row.subjects]
    assert [(each.row, each.subject) for each in report.outcomes] == expected
    assert [each.what for each in report.goals] == [goal.what for goal in GOALS]
    table = (tmp_path / "bench.md").read_text()
    for outcome in report.outcomes:
        assert bool(outcome.runs) != bool(outcome.missing), outcome
        assert all(value >= 0 for run in outcome.runs for value in run.values()), outcome
        assert f"| 1 k | {outcome.subject} | " in table
    ours = [each for each in report.outcomes if each.subject == "gatewayd"]
    assert [each.missing for each in ours] == ["", ""]
    assert list(tmp_path.glob("*.svg")) == []
