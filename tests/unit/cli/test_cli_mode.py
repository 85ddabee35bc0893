"""`gatewayd mode`, `confirm`, `revert`, `trial`, `rearm`: what they ask, print and exit with."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from gatewayd.api.arming import ModeRequest
from gatewayd.cli import main
from gatewayd.model.policy import Stage
from gatewayd.trial.state import ChangeRefused
from gatewayd.trial.views import ArmingView, NoticeView, OrderView, TrialView, TripView
from tests.support.fake_queries import FakeQueries, serving_in_a_thread

OBSERVE, REJECT = Stage("observe"), Stage("reject", 10)
PENDING = TrialView(
    "t1", "confirm", OBSERVE, REJECT, "2027-01-15T08:00:00Z", "2027-01-15T08:10:00Z", 552, "uid 0", "order 17", True
)
FILE = """\
# our gateway
registry:
  sources:
    - {name: lab,   url: "file:/lab.csv", allow_unsigned: true}
policy:
  mode: observe   # until the order
"""

Run = Callable[..., Result]


@pytest.fixture
def queries() -> FakeQueries:
    return FakeQueries()


@pytest.fixture
def run(queries: FakeQueries, tmp_path: Path) -> Iterator[Run]:
    path = tmp_path / "api.sock"

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--socket", str(path)])

    with serving_in_a_thread(queries, path):
        yield run


def test_a_mode_is_asked_for_in_seconds_and_shares(run: Run, queries: FakeQueries) -> None:
    queries.arming.shown = ArmingView(mode="reject", wanted=REJECT, pending=PENDING)
    result = run("mode", "reject", "--canary", "10%", "--confirm", "10m", "--comment", "order 17")
    assert result.exit_code == 0, result.output
    assert queries.arming.asked == [ModeRequest("reject", 10, 600, None, "order 17", False, "uid 0")]
    assert result.stdout.splitlines() == [
        "mode           reject, canary 10%",
        "TRIAL          of reject, canary 10%: reverts to observe in 9m 12s, unless gatewayd confirm; by uid 0"
        " (order 17), until 2027-01-15T08:10:00Z",
    ]


def test_confirm_without_a_time_is_ten_minutes(run: Run, queries: FakeQueries) -> None:
    assert run("mode", "limit", "--confirm", "--canary", "1%").exit_code == 0
    assert run("mode", "limit", "--for", "2h", "--force").exit_code == 0
    assert run("mode", "observe").exit_code == 0
    assert queries.arming.asked == [
        ModeRequest("limit", 1, 600, None, "", False, "uid 0"),
        ModeRequest("limit", None, None, 7200, "", True, "uid 0"),
        ModeRequest("observe", None, None, None, "", False, "uid 0"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("mode", "refuse"),
        ("mode", "--confirm", "10m"),
        ("mode", "reject", "--confirm", "soon"),
        ("mode", "reject", "--canary", "10"),
        ("mode", "reject", "--confirm", "10m", "--for", "1h"),
        ("mode", "reject", "--write"),
        ("mode", "reject", "--for", "1000d"),
    ],
)
def test_a_wrong_command_is_status_2_and_asks_nothing(
    run: Run, queries: FakeQueries, arguments: tuple[str, ...]
) -> None:
    assert run(*arguments).exit_code == 2
    assert queries.arming.asked == []


def test_a_refusal_is_status_1_and_one_sentence(run: Run, queries: FakeQueries) -> None:
    queries.arming.refusal = ChangeRefused("no trial is pending")
    for command in (("confirm",), ("revert",), ("rearm",), ("trial", "--ack"), ("mode", "reject")):
        result = run(*command)
        assert (result.exit_code, result.stderr) == (1, "Error: no trial is pending\n")


def test_trial_says_by_its_status_whether_one_is_pending(run: Run, queries: FakeQueries) -> None:
    result = run("trial")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (1, "trial          none is pending")
    queries.arming.shown = ArmingView(pending=PENDING)
    assert run("trial").exit_code == 0
    assert json.loads(run("trial", "--json").stdout)["pending"]["from"] == {
        "mode": "observe",
        "canary_percent": 100,
    }


def test_what_came_back_a_trip_and_a_disk_that_fails_are_said(run: Run, queries: FakeQueries) -> None:
    notice = NoticeView("reverted", "t1", "2027-01-15T08:10:00Z", REJECT, OBSERVE, "uid 0", "")
    trip = TripView("late_admissions", "2027-01-15T08:00:10Z", 75, 60, (), "75 late admissions within a minute")
    queries.arming.shown = ArmingView(
        wanted=REJECT, notices=(notice, msgspec.structs.replace(notice, kind="ended")), trip=trip,
        reverting=OBSERVE, not_saved="No space left on device",
        order=OrderView(REJECT, "2027-01-15T08:00:00Z", "uid 0", "", False), differs=True,
    )  # fmt: skip
    lines = run("mode").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "mode", "TRIPPED", "REVERTING", "REVERTED", "ended", "order", "NOT",
    ]  # fmt: skip
    queries.arming.shown = ArmingView(mode="observe", wanted=REJECT)
    assert "wanted is reject, canary 10%: see gatewayd status" in run("mode").stdout


def test_the_status_has_it_in_its_first_line(run: Run, queries: FakeQueries) -> None:
    shown = ArmingView(mode="reject", wanted=REJECT, pending=PENDING)
    queries.view = msgspec.structs.replace(queries.view, arming=shown)
    first, _, third, *_ = run("status").stdout.splitlines()
    assert first.startswith(
        "READY; TRIAL of reject, canary 10%: reverts to observe in 9m 12s, unless gatewayd confirm"
    )
    assert third.startswith("TRIAL")


def test_a_report_is_written_when_the_trial_has_ended(run: Run, queries: FakeQueries, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert run("trial", "--report", str(file)).exit_code == 1
    queries.arming.page = b"<!doctype html>"
    assert run("trial", "--report", str(file)).exit_code == 0
    assert file.read_bytes() == b"<!doctype html>"
    timed = msgspec.structs.replace(PENDING, kind="timed")
    queries.arming.shown = ArmingView(pending=timed, report_of="t1")
    assert run("mode", "reject", "--for", "2h", "--report", str(file)).exit_code == 0
    assert run("mode", "reject", "--report", str(file)).exit_code == 2
    assert run("trial", "--report", str(tmp_path / "none" / "x")).exit_code == 1


# -- the file --------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gatewayd.yaml"
    path.write_text(FILE)
    path.chmod(0o640)
    return path


def confirmed(file: Path) -> ArmingView:
    order = OrderView(REJECT, "2027-01-15T08:00:00Z", "uid 0", "", False)
    return ArmingView(mode="reject", wanted=REJECT, order=order, differs=True, path=str(file))


def test_after_confirm_the_difference_to_the_file_is_printed(run: Run, queries: FakeQueries, file: Path) -> None:
    queries.arming.shown = confirmed(file)
    lines = run("confirm").stdout.splitlines()
    assert lines[1].endswith("the file says observe; a restart makes it observe; gatewayd mode --write")
    assert [line[15:] for line in lines if line[15:16] in "+-" and "yaml" not in line] == [
        "-  mode: observe   # until the order", "+  canary: 10%", "+  mode: reject   # until the order",
    ]  # fmt: skip
    assert file.read_text() == FILE


def test_write_changes_those_words_and_has_the_file_read_again(run: Run, queries: FakeQueries, file: Path) -> None:
    queries.arming.shown = confirmed(file)
    result = run("mode", "--write")
    assert result.exit_code == 0, result.output
    assert file.read_text() == FILE.replace("  mode: observe ", "  canary: 10%\n  mode: reject ")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [each.name for each in file.parent.iterdir() if each.suffix != ".sock"] == [file.name]
    assert "+  mode: reject   # until the order" in result.stdout
    assert "reload         done" in result.stdout
    assert "says reject, canary 10% already" in run("mode", "--write").stdout


def test_write_follows_a_link_and_leaves_a_file_that_it_cannot_edit(
    run: Run, queries: FakeQueries, file: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    queries.arming.shown = confirmed(link)
    assert run("mode", "--write").exit_code == 0
    assert link.is_symlink()
    assert "mode: reject" in file.read_text()
    file.write_text(FILE + "...\n")
    before = file.read_text()
    queries.arming.shown = confirmed(link)
    assert run("mode", "--write", "--config", str(tmp_path / "none.yaml")).exit_code == 2
    assert file.read_text() == before


def test_write_is_refused_while_a_trial_is_pending(run: Run, queries: FakeQueries, file: Path) -> None:
    queries.arming.shown = ArmingView(pending=PENDING, path=str(file))
    result = run("mode", "--write")
    assert (result.exit_code, result.stderr) == (
        1, "Error: a trial is pending: gatewayd confirm first, or gatewayd revert\n",
    )  # fmt: skip


def test_a_reload_that_is_refused_is_status_1(run: Run, queries: FakeQueries, file: Path) -> None:
    queries.arming.shown = confirmed(file)
    queries.reload_outcome = {"reloaded": False, "mode": "reject", "faults": ["x: y"]}
    assert run("mode", "--write").exit_code == 1
