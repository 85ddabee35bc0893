"""The report of a trial: kept, replaced, and never in the way."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.control.trial_report import TrialReports, differences
from gatewayd.errors import OperationRefused
from gatewayd.impact.report import ImpactReport, Question, Sums, make_report
from gatewayd.model.policy import Stage
from gatewayd.model.transaction import CounterReading
from gatewayd.state_file.view import StateFileView
from gatewayd.trial.state import Trial

TRIAL = Trial(
    "t1", "timed", Stage("observe"), Stage("reject", 10), 1_800_000_000.0, 1_800_007_200.0, "boot", 0.0, 7200.0,
    "uid 0", "order 17", True,
)  # fmt: skip


class Kernel:
    """`packets`: that were rejected. `fails`: the next question of it does."""

    def __init__(self) -> None:
        self.packets = 40
        self.fails = False

    async def counters(self) -> dict[str, CounterReading]:
        if self.fails:
            raise OperationRefused("read", 16)
        return {"rejected_packets": CounterReading(self.packets, 0), "registered_packets": CounterReading(7, 0)}

    async def impact(self, since_s: float | None, top: int, percent: int) -> ImpactReport:
        assert since_s is not None
        asked = Question(since_s, since_s + 7200.0, 3600, top, percent, True, False)
        return make_report(Sums(), asked, StateFileView("impact"))


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def reports(tmp_path: Path, kernel: Kernel) -> TrialReports:
    return TrialReports(tmp_path, kernel.counters, kernel.impact)


async def test_a_report_says_what_was_tried_and_what_was_counted(reports: TrialReports, kernel: Kernel) -> None:
    assert await reports.read() is None
    await reports.begin(TRIAL)
    kernel.packets += 2
    await reports.end(TRIAL, 1_800_007_200.0, "by the end of trial t1")
    page = (await reports.read() or b"").decode()
    assert reports.of == "t1"
    for words in (
        "reject, canary 10%",
        "order 17",
        "by the end of trial t1",
        "2027-01-15T10:00:00Z",
        "rejected packets",
    ):
        assert words in page
    assert "registered packets" not in page


def names_in(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


async def test_the_latest_one_is_kept_also_for_the_next_run(
    reports: TrialReports, kernel: Kernel, tmp_path: Path
) -> None:
    await reports.end(TRIAL, 0.0, "x")
    await reports.end(replace(TRIAL, id="t2"), 0.0, "x")
    assert names_in(tmp_path) == ["trial-t2.html"]
    again = TrialReports(tmp_path, kernel.counters, kernel.impact)
    assert again.of == "t2"
    page = await again.read()
    assert page is not None
    assert b"restarted in the trial" in page


async def test_what_fails_is_logged_and_costs_the_report(
    reports: TrialReports, kernel: Kernel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    kernel.fails = True
    await reports.begin(TRIAL)
    kernel.fails = False
    await reports.begin(TRIAL)
    kernel.fails = True
    await reports.end(TRIAL, 0.0, "x")
    assert (reports.of, caplog.text.count("trial.report_failed")) == ("", 2)
    missing = TrialReports(tmp_path / "none", kernel.counters, kernel.impact)
    missing.of = "t9"
    assert await missing.read() is None


def test_a_counter_that_is_new_counts_whole() -> None:
    after = {"a": CounterReading(5, 0), "b": CounterReading(0, 0)}
    assert list(differences({}, after)) == [("a", 5)]
