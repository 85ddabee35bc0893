"""`gatewayd registry verify`: of the daemon, or from what is on disk."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gatewayd.activity import store
from gatewayd.activity.days import DayRow, day_of
from gatewayd.activity.verify import Verdict
from gatewayd.api.report import VerifyPage
from gatewayd.cli import main
from gatewayd.cli.registry_verify import COLUMNS, csv_row
from gatewayd.state_file.file import StateFile
from gatewayd.state_file.view import StateFileView
from tests.support.fake_queries import FakeQueries, serving_in_a_thread

Run = Callable[..., Result]
GOOD = Verdict("a", "hbl", "bank", "active", True, False, "addresses", ("203.0.113.0/28",), "yes")
BAD = Verdict(
    "b", None, "bpo", "active", True, True, "both", ("198.51.100.0/29",), "no", ("198.51.100.0/29",),
    ("198.51.100.0/24",), ("a", "c"), True, "2024-10-04T00:00:00Z", ("not_ours", "in_pool", "overlap"),
)  # fmt: skip
MOBILE = Verdict("m", None, "freelancer", "active", True, False, "subscriber")
PROVIDER = Verdict("p", None, "provider", "active", True, False, "provider")


@pytest.fixture
def queries() -> FakeQueries:
    queries = FakeQueries()
    queries.verify_page = VerifyPage(4, 0, (GOOD, BAD, MOBILE, PROVIDER), ("isp.pools is empty",))
    return queries


@pytest.fixture
def run(queries: FakeQueries, tmp_path: Path) -> Iterator[Run]:
    with serving_in_a_thread(queries, tmp_path / "api.sock"):

        def invoke(*arguments: str) -> Result:
            where = ("--socket", str(tmp_path / "api.sock"))
            return CliRunner().invoke(main, ["registry", "verify", *where, *arguments])

        yield invoke


def test_what_is_found_is_listed_with_its_meaning(run: Run) -> None:
    found = run()
    lines = found.stdout.splitlines()
    assert found.exit_code == 1
    assert lines[:2] == ["isp.pools is empty", "1 of 4 registrations to look at"]
    assert "        1  not_ours  a client prefix is not, or not whole, in isp.prefixes" in lines
    assert "        1  by subscriber alone: no addresses, so nothing is said of any" in lines
    assert "        1  licensed providers: endpoints, and no addresses of clients" in lines
    assert lines[-1].split("  ")[0:1] == ["b"]
    assert lines[-1].endswith("not ours: 198.51.100.0/29; pool 198.51.100.0/24; overlaps a c ...")


def test_nothing_found_is_said_and_is_status_0(run: Run, queries: FakeQueries) -> None:
    queries.verify_page = VerifyPage(1, 0, (GOOD,))
    found = run()
    assert (found.exit_code, found.stdout) == (0, "1 registration, nothing found\n")


def test_a_long_list_is_cut_on_a_terminal(run: Run, queries: FakeQueries) -> None:
    queries.verify_page = VerifyPage(1500, 0, (BAD,) * 1500)
    lines = run().stdout.splitlines()
    assert lines[0] == "1,500 of 1,500 registrations to look at"
    assert lines[-1] == "100 of 1,500 shown; --csv or --json for all"
    rows = list(csv.DictReader(run("--csv").stdout.splitlines()))
    assert len(rows) == 1500
    assert (rows[0]["findings"], rows[0]["registrant"]) == ("not_ours in_pool overlap", "")


def test_json_and_csv_have_every_registration(run: Run) -> None:
    found = json.loads(run("--json").stdout)
    assert [each["id"] for each in found["items"]] == ["a", "b", "m", "p"]
    assert found["notes"] == ["isp.pools is empty"]
    assert len(list(csv_row(GOOD))) == len(COLUMNS)
    assert run("--json", "--csv").exit_code == 2


def test_without_a_daemon_it_reads_what_is_on_disk(tmp_path: Path) -> None:
    async def use() -> None:
        file = StateFile(tmp_path / store.FILE_NAME, store.SCHEMA, StateFileView("activity"))
        row = DayRow(day_of(1e9), "PIN-1", 1, 1, int(1e9))
        await file.use(lambda connection: store.write(connection, [row], []))
        await file.close()

    import asyncio

    asyncio.run(use())
    (tmp_path / "local.d").mkdir()
    (tmp_path / "local.d" / "desk.yaml").write_text(
        "pins:\n- {id: PIN-1, category: bank, status: active, clients: [198.51.100.0/29], comment: by phone}\n"
    )
    config = tmp_path / "gatewayd.yaml"
    config.write_text(
        f"registry: {{sources: [], local: {tmp_path / 'local.d'}}}\nstate_dir: {tmp_path}\n"
        "isp: {prefixes: [203.0.113.0/24]}\n"
    )
    arguments = ["registry", "verify", "--socket", str(tmp_path / "none"), "--config", str(config)]
    found = CliRunner().invoke(main, [*arguments, "--json"])
    assert found.exit_code == 1, found.output
    assert "from the last good on disk" in found.stderr
    (item,) = json.loads(found.stdout)["items"]
    assert (item["id"], item["ours"], item["findings"]) == ("PIN-1", "no", ["not_ours", "not_seen"])
    assert item["last_seen_at"] == "2001-09-09T01:46:40Z"
    (tmp_path / store.FILE_NAME).unlink()
    found = CliRunner().invoke(main, [*arguments, "--json"])
    assert "activity.sqlite: No such file or directory" in json.loads(found.stdout)["notes"]
    assert CliRunner().invoke(main, [*arguments, "--since", "yesterday"]).exit_code == 2
