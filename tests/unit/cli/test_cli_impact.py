"""`gatewayd impact`: on a terminal, as JSON, as CSV, as a page."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gatewayd.cli import main
from gatewayd.state_file.file import StateFileUnusable
from tests.support.fake_queries import FakeQueries, serving_in_a_thread
from tests.support.impact import ASKED, PEACE, report_of

Run = Callable[..., Result]


@pytest.fixture
def queries() -> FakeQueries:
    return FakeQueries()


@pytest.fixture
def run(queries: FakeQueries, tmp_path: Path) -> Iterator[Run]:
    with serving_in_a_thread(queries, tmp_path / "api.sock"):

        def invoke(*arguments: str) -> Result:
            return CliRunner().invoke(main, ["impact", *arguments, "--socket", str(tmp_path / "api.sock")])

        yield invoke


def test_it_says_what_happened_and_what_a_policy_would_do(run: Run) -> None:
    shown = run().stdout
    assert shown.splitlines()[0].endswith("watched since 2025-06-14T15:06:40Z")
    for line in (
        "unregistered flows            30",
        "reject would refuse           30",
        "  of them with canary: 10%    20",
    ):
        assert line in shown
    for title in ("By service", "By inside interface", "By client prefix"):
        assert title in shown
    assert "10.0.1.0/24" in shown
    assert "2 prefixes; --top" not in shown


def test_it_asks_for_the_time_the_prefixes_and_the_canary_that_are_given(run: Run, queries: FakeQueries) -> None:
    run("--since", "2025-06-01T00:00:00Z", "--top", "1", "--canary", "25%")
    assert queries.asked[-1] == (1_748_736_000.0, 1, 25)
    run("--json")
    assert isinstance(queries.asked[-1], tuple)
    assert queries.asked[-1][1:] == (1000, 10)


def test_prefixes_that_are_not_shown_are_said(run: Run, queries: FakeQueries) -> None:

    queries.impact_report = report_of(PEACE, replace(ASKED, top=1))
    assert "1 of 2 prefixes; --top for more" in run().stdout


def test_json_is_the_apis(run: Run) -> None:
    found = json.loads(run("--json").stdout)
    assert found["flows"] == 30
    assert len(found["buckets"]) == 100


def test_csv_has_services_interfaces_and_prefixes(run: Run) -> None:
    rows = list(csv.DictReader(StringIO(run("--csv").stdout)))
    assert [row["kind"] for row in rows].count("prefix") == 2
    assert rows[0] == {
        "kind": "service", "name": "udp/51820", "service": "udp/51820", "flows": "20", "in_canary": "20",
    }  # fmt: skip


def test_a_page_is_one_file_without_anything_from_elsewhere(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "impact.html"
    assert run("--html", str(file)).stdout == f"{file} is written\n"
    text = file.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "10.0.1.0/24" in text
    assert "<script" not in text


def test_a_page_that_cannot_be_written_is_a_fault(run: Run, tmp_path: Path) -> None:
    result = run("--html", str(tmp_path / "nowhere" / "impact.html"))
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr


def test_one_form_at_a_time(run: Run, tmp_path: Path) -> None:
    assert run("--csv", "--json").exit_code == 2
    assert run("--csv", "--html", str(tmp_path / "a")).exit_code == 2


@pytest.mark.parametrize(
    "arguments", [("--since", "soon"), ("--since", "1y"), ("--canary", "101%"), ("--canary", "25"), ("--top", "0")]
)
def test_what_is_no_time_and_no_number_is_a_fault_of_usage(run: Run, arguments: tuple[str, str]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_file_that_fails_is_said_with_its_reason(run: Run, queries: FakeQueries) -> None:
    queries.failure = StateFileUnusable("impact.sqlite", "disk is full")
    result = run()
    assert result.exit_code == 1
    assert "impact.sqlite: disk is full" in result.stderr
