"""`gatewayd registrations --rejected`, over the API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gatewayd.api.standing import RejectedView
from gatewayd.cli import main
from tests.support.fake_queries import FakeQueries, serving_in_a_thread

Run = Callable[..., Result]


@pytest.fixture
def queries() -> FakeQueries:
    return FakeQueries()


@pytest.fixture
def run(queries: FakeQueries, tmp_path: Path) -> Iterator[Run]:
    with serving_in_a_thread(queries, tmp_path / "api.sock"):

        def invoke(*arguments: str) -> Result:
            return CliRunner().invoke(main, ["registrations", *arguments, "--socket", str(tmp_path / "api.sock")])

        yield invoke


def test_no_rejected_record_is_said(run: Run) -> None:
    assert run("--rejected").stdout == "No record is rejected.\n"


def test_rejected_records_are_listed_by_their_place(run: Run, queries: FakeQueries) -> None:
    queries.rejected_views = [
        RejectedView("national", 7, 12, "BANK-1", "bad_time", "valid_from", False),
        RejectedView("national", 9, 2, None, "not_json", "", True),
        RejectedView("lab", 1, 3, "LAB-1", "bad_id", "id", False),
    ]
    queries.rejected_total = 40
    lines = run("--rejected", "--limit", "2").stdout.splitlines()
    assert lines[0] == "40 records rejected since each source was last read whole"
    rows = [re.split(r"  +", line) for line in lines[2:4]]
    assert rows[0] == ["national", "line 12, serial 7", "BANK-1", "bad_time", "valid_from"]
    assert rows[1] == ["national", "line 2, a delta to serial 9", "-", "not_json", "-"]
    assert lines[4:] == [
        "2 of 3 shown; --limit or --offset for others",
        "37 are counted and not listed, or mended since",
    ]
    body = json.loads(run("--rejected", "--source", "lab", "--json").stdout)
    assert [each["id"] for each in body["items"]] == ["LAB-1"]


@pytest.mark.parametrize(
    "arguments", [("--rejected", "BANK-1"), ("--rejected", "--status", "active"), ("--source", "lab")]
)
def test_what_does_not_go_together_is_a_fault_of_usage(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
