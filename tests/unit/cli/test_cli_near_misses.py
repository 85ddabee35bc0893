"""`gatewayd impact near-misses` and `impact ack`, over the API."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from gatewayd.api.near_misses import NearMissLineView
from gatewayd.cli import main
from tests.support.fake_queries import FakeQueries, serving_in_a_thread

Run = Callable[..., Result]
SEEN = "2024-11-04T02:56:00Z"
LINE = NearMissLineView(
    "BANK-1", "bank", "service_not_listed", "udp/51820 is not among its services",
    "registry: add the service udp/51820 to BANK-1", "udp/51820", "198.51.100.0/24", 1234, SEEN, SEEN,
)  # fmt: skip
OFF = msgspec.structs.replace(LINE, id="BANK-2", for_good=True)


@pytest.fixture
def queries() -> FakeQueries:
    return FakeQueries()


@pytest.fixture
def run(queries: FakeQueries, tmp_path: Path) -> Iterator[Run]:
    with serving_in_a_thread(queries, tmp_path / "api.sock"):

        def invoke(*arguments: str) -> Result:
            return CliRunner().invoke(main, [*arguments, "--socket", str(tmp_path / "api.sock")])

        yield invoke


def test_no_near_misses_are_good_news(run: Run) -> None:
    assert run("impact", "near-misses").stdout == "No near misses.\n"


def test_each_line_has_the_change_that_mends_it(run: Run, queries: FakeQueries) -> None:
    until = msgspec.structs.replace(LINE, id="BANK-3", acknowledged_until="2099-01-01T00:00:00Z", last_seen=None)
    queries.near_miss_lines = [LINE, OFF, until]
    lines = run("impact", "near-misses", "--limit", "1").stdout.splitlines()
    assert lines[0] == "2 lines of near misses, the latest first"
    assert re.split(r"  +", lines[2]) == ["-", "BANK-1", "bank", "1,234", SEEN, SEEN, LINE.why, LINE.mend]
    assert lines[3] == "1 of 2 shown; --limit or --offset for others"
    shown = run("impact", "near-misses", "--all").stdout
    assert f"{LINE.why} (acknowledged) " in shown
    assert f"{LINE.why} (acknowledged until 2099-01-01T00:00:00Z) " in shown
    assert json.loads(run("impact", "near-misses", "--json").stdout)["items"][0]["flows"] == 1234


def test_lines_of_a_company_stand_together(run: Run, queries: FakeQueries) -> None:
    queries.near_miss_lines = [
        msgspec.structs.replace(LINE, id=id, registrant=company)
        for id, company in (("A", "HBL"), ("B", None), ("C", "UBL"), ("D", None), ("E", "HBL"))
    ]
    rows = run("impact", "near-misses").stdout.splitlines()[2:]
    assert [row.split()[:2] for row in rows] == [["HBL", "A"], ["HBL", "E"], ["-", "B"], ["UBL", "C"], ["-", "D"]]


def test_an_acknowledgement_is_for_good_or_for_a_time(run: Run, queries: FakeQueries) -> None:
    queries.near_miss_lines = [LINE]
    assert run("impact", "ack", "BANK-1").stdout == "The near misses of BANK-1 are off the list.\n"
    assert json.loads(run("impact", "ack", "BANK-1", "--until", "7d", "--json").stdout)["lines"] == 1
    run("impact", "ack", "BANK-1", "--until", "2099-01-01T00:00:00Z")
    by = f"uid {os.getuid()}"
    (first, second, third) = queries.acknowledged
    assert (first, third) == (("BANK-1", None, by), ("BANK-1", 4070908800.0, by))
    assert second[1] is not None
    assert abs(second[1] - time.time() - 7 * 86400) < 60


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["ack", "OTHER"], 1, "no near misses of 'OTHER' are known"),
        (["ack", "BANK-1", "--until", "soon"], 2, "'soon' is no time"),
        (["ack"], 2, "Missing argument 'ID'"),
        (["near-misses", "--limit", "0"], 2, "--limit"),
    ],
)
def test_what_cannot_be_done_is_said(
    run: Run, queries: FakeQueries, arguments: list[str], status: int, told: str
) -> None:
    queries.near_miss_lines = [LINE]
    result = run("impact", *arguments)
    assert (result.exit_code, told in result.stderr) == (status, True), result.stderr
    assert queries.acknowledged == []
