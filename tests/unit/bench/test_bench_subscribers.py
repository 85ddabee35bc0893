"""The rows about subscribers, each subject of them run once, small, as the bench runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.accounting import Sent
from tests.bench.peers import missing_peers
from tests.bench.row import Row, Subject
from tests.bench.rows import find_row
from tests.bench.rows.accounting import REGISTRATIONS, STEP_P50_S, STEPS, is_kept_up, scale_of
from tests.bench.runner import run_subject

SIZES = {"accounting": 300, "starts": 300, "sessions": 640, "bindings": 100, "reboot": 300}
EVERY = [(find_row(name), subject) for name in SIZES for subject in find_row(name).subjects]
NONE_OF_PEERS = {"accounting": {"groups"}}
"""Measures that only gatewayd has."""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("material")


@pytest.mark.kernel
@pytest.mark.parametrize(("row", "subject"), EVERY, ids=[f"{row.name}-{subject.name}" for row, subject in EVERY])
def test_a_small_run_gives_every_figure(row: Row, subject: Subject, material: Path) -> None:
    reason = missing_peers().get(subject.needs or "", "")
    if reason:
        assert row.subjects[0] is not subject, f"gatewayd itself cannot be run: {reason}"
        return
    attempt = run_subject(row, subject, SIZES[row.name], material)
    assert attempt.figures is not None, attempt.missing
    expected = {measure.name for measure in row.measures}
    if not subject.name.startswith("gatewayd"):
        expected -= NONE_OF_PEERS.get(row.name, set())
    assert set(attempt.figures) == expected
    assert min(attempt.figures.values()) >= 0.0
    assert attempt.figures.get("unanswered", 0.0) == 0.0


def test_at_the_size_of_the_goal_it_is_the_goals_rate_and_below_it_little() -> None:
    whole, small = scale_of(REGISTRATIONS), scale_of(300)
    assert (whole.rate, whole.seconds, whole.subscribers) == (5000, 20.0, 1_000_000)
    assert whole.rate in STEPS
    assert list(STEPS) == sorted(STEPS)
    assert small.rate * small.seconds < 1000
    assert small.subscribers < 10_000


def test_a_rate_that_only_fills_buffers_is_not_kept_up_with() -> None:
    def sent(*, unanswered: int = 0, repeats: int = 0, p50_s: float = 0.001) -> Sent:
        answered = 100 - unanswered
        return Sent(100, 100, answered, unanswered, 0, repeats, 0, 0, 1.0, p50_s, p50_s, p50_s)

    assert is_kept_up(sent())
    assert not is_kept_up(sent(unanswered=1))
    assert not is_kept_up(sent(repeats=1))
    assert not is_kept_up(sent(p50_s=2 * STEP_P50_S))
