"""`gatewayd report`: as text, as JSON, as CSV of every registration, and as one page."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from gatewayd.api.report import ActivityPage, ActivityView, ReportView
from gatewayd.cli import main
from gatewayd.model.moment import parse_time
from gatewayd.state_file.file import StateFileUnusable
from tests.support.fake_queries import FakeQueries, serving_in_a_thread
from tests.unit.api.test_api_report_page import FULL

Run = Callable[..., Result]


@pytest.fixture
def queries() -> FakeQueries:
    queries = FakeQueries()
    queries.report_view = FULL
    return queries


@pytest.fixture
def run(queries: FakeQueries, tmp_path: Path) -> Iterator[Run]:
    with serving_in_a_thread(queries, tmp_path / "api.sock"):

        def invoke(*arguments: str) -> Result:
            return CliRunner().invoke(main, ["report", *arguments, "--socket", str(tmp_path / "api.sock")])

        yield invoke


def test_the_text_says_first_what_is_not_known(run: Run) -> None:
    lines = run("--since", "2024-09-04T00:00:00Z").stdout.splitlines()
    assert lines[:3] == [
        "2024-09-04T00:00:00Z to 2024-10-04T00:00:00Z; days of UTC",
        "known since 2024-09-20 only",
        "no daemon watched from 2024-10-01T00:00:00Z to 2024-10-02T00:00:00Z",
    ]
    text = "\n".join(lines)
    assert "registered                 4" in text
    assert "of these never seen        1" in text
    assert "hbl              3              1     1           4      1.0 MiB" in text
    assert "the newest 1 of 9; --json or --html for more" in text


def test_a_report_without_lists_has_no_tables(run: Run, queries: FakeQueries) -> None:
    queries.report_view = msgspec.structs.replace(
        FULL,
        groups=(),
        unseen=(),
        provisional=(),
        near_misses=(),
        rejected=(),
        rejected_records=(),
        holds=(),
        changes=(),
    )
    assert "\n\n" not in run().stdout


def test_json_is_the_answer_of_the_api(run: Run, queries: FakeQueries) -> None:
    found = run("--json", "--since", "2024-09-04T00:00:00Z").stdout
    assert msgspec.json.decode(found, type=ReportView) == FULL
    assert queries.asked == [parse_time("2024-09-04T00:00:00Z")]


def test_csv_has_every_registration_page_by_page(run: Run, queries: FakeQueries) -> None:
    items = tuple(
        ActivityView(f"r{number}", "hbl", "bank", "active", False, True, 1, 2, 3, None) for number in range(1500)
    )
    queries.activity_page = ActivityPage(1500, 0, items)
    rows = list(csv.DictReader(run("--csv").stdout.splitlines()))
    assert [row["id"] for row in rows] == [each.id for each in items]
    assert rows[0]["days_used"] == "3"


def test_a_page_is_one_file(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    found = run("--html", str(page))
    assert found.stdout == f"{page} is written\n"
    assert "<h1>Registrations and their use</h1>" in page.read_text()
    missing = run("--html", str(tmp_path / "none" / "report.html"))
    assert missing.exit_code == 1
    assert "No such file or directory" in missing.stderr


def test_one_form_at_a_time(run: Run) -> None:
    found = run("--csv", "--json")
    assert found.exit_code == 2
    assert "give one of" in found.stderr


def test_a_file_that_cannot_be_read_is_said(run: Run, queries: FakeQueries) -> None:
    queries.activity_page = StateFileUnusable("activity.sqlite", "database disk image is malformed")
    found = run("--csv")
    assert found.exit_code == 1
    assert "activity.sqlite: database disk image is malformed" in found.stderr


def test_a_time_that_is_none_is_a_fault_of_usage(run: Run) -> None:
    assert run("--since", "yesterday").exit_code == 2
    assert json.loads(run("--json").stdout)["counts"]["registered"] == 4
