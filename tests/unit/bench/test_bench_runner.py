"""Which runs there are, in which order, and what becomes of a subject that cannot be run or fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.bench import runner
from tests.bench.row import Context, Figures, Row, Subject
from tests.bench.runner import FAILED, Attempt, Plan, cells, count_runs, run_plan


def nothing(_: Context) -> Figures:
    return {}


def row(name: str = "fill", *, subjects: tuple[Subject, ...] | None = None, **more: Any) -> Row:
    return Row(name, name, (), subjects or (Subject("gatewayd", nothing), Subject("peer", nothing)), **more)


def plan(
    *rows: Row, sizes: tuple[int, ...] = (10, 20), runs: int = 2, missing: dict[str, str] | None = None
) -> Plan:
    return Plan(rows, sizes, runs, Path(), missing or {})


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """The runs that were made; a subject named `broken` fails."""
    runs: list[tuple[str, str, int]] = []

    def run_subject(row: Row, subject: Subject, size: int, material: Path) -> Attempt:
        runs.append((row.name, subject.name, size))
        if subject.name == "broken":
            return Attempt(None, f"{FAILED}: no luck")
        return Attempt({"s": float(len(runs))})

    monkeypatch.setattr(runner, "run_subject", run_subject)
    return runs


def silent(_: str) -> None: ...


def test_a_row_is_run_at_each_size_that_means_something_to_it() -> None:
    rows = row("all"), row("large", least_size=20), row("once", sizes=False), row("masks", own_sizes=(1, 64))
    assert [(each.name, size) for each, size in cells(plan(*rows))] == [
        ("all", 10), ("all", 20), ("large", 20), ("once", 20), ("masks", 1), ("masks", 64),
    ]  # fmt: skip


def test_the_runs_alternate_between_the_subjects(ran: list[tuple[str, str, int]]) -> None:
    told: list[str] = []
    (ours, theirs) = run_plan(plan(row(), sizes=(1000,)), told.append)
    assert [subject for _, subject, _ in ran] == ["gatewayd", "peer"] * 2
    assert told[:2] == ["fill 1,000: gatewayd (1/2)", "fill 1,000: peer (1/2)"]
    assert (ours.values("s"), theirs.values("s")) == ([1.0, 3.0], [2.0, 4.0])


def test_every_run_that_was_counted_is_told_of(ran: list[tuple[str, str, int]]) -> None:
    told: list[str] = []
    rows = row("short", max_runs=1), row("long"), row("poor", subjects=(Subject("peer", nothing, needs="x"),))
    whole = plan(*rows, missing={"x": "not installed"})
    list(run_plan(whole, told.append))
    assert count_runs(whole) == len(told) == 4 + 8 + 4
    assert len(ran) == 12


def test_a_subject_whose_peer_is_missing_is_named_with_the_reason(ran: list[tuple[str, str, int]]) -> None:
    subjects = Subject("gatewayd", nothing), Subject("peer", nothing, needs="ipset")
    outcomes = list(run_plan(plan(row(subjects=subjects), missing={"ipset": "not installed"}), silent))
    assert [each.missing for each in outcomes] == ["", "not installed"] * 2
    assert {subject for _, subject, _ in ran} == {"gatewayd"}


def test_a_subject_is_left_out_beyond_its_largest_size_for_the_reason_given(
    ran: list[tuple[str, str, int]],
) -> None:
    subjects = (Subject("peer", nothing, most=10, why="3 h"),)
    outcomes = list(run_plan(plan(row(subjects=subjects)), silent))
    assert [(each.size, len(each.runs), each.missing) for each in outcomes] == [(10, 2, ""), (20, 0, "3 h")]


def test_what_failed_once_is_not_tried_again_at_that_size(ran: list[tuple[str, str, int]]) -> None:
    subjects = Subject("broken", nothing), Subject("gatewayd", nothing)
    outcomes = list(run_plan(plan(row(subjects=subjects), sizes=(10,), runs=3), silent))
    assert [(each.subject, len(each.runs), each.missing) for each in outcomes] == [
        ("broken", 0, "failed: no luck"),
        ("gatewayd", 3, ""),
    ]
    assert [subject for _, subject, _ in ran].count("broken") == 1
