"""`gatewayd registry list|show|export|history`, and what an import says of its changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gatewayd.cli import main

Run = Callable[..., Result]
HEADER = "id,category,status,clients,peers,valid_until\n"
EMBASSY = "EMB-1,embassy,active,203.0.113.0/28 198.51.100.0/28,192.0.2.7/32,\n"
BANK = "BANK-1,bank,active,203.0.113.16/28,,2099-01-01T00:00:00Z\n"
HOUSE = "HOUSE-1,software_house,active,203.0.113.32/28,,\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `gatewayd registry …` in a directory where `old.csv` has three registrations, all imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.csv").write_text(HEADER + EMBASSY + BANK + HOUSE)

    def invoke(*arguments: str | Path) -> Result:
        return CliRunner().invoke(main, ["registry", *map(str, arguments)])

    assert invoke("import", "old.csv").exit_code == 0
    return invoke


def status_of(run: Run, id: str) -> str:
    return str(json.loads(run("show", id, "--json").stdout)["record"]["status"])


@pytest.mark.parametrize("options", [[], ["--replace"], ["--dry-run"]])
@pytest.mark.parametrize("suspend", [[], ["--suspend"]])
def test_an_old_file_reactivates_nothing(run: Run, options: list[str], suspend: list[str]) -> None:
    run("revoke", "EMB-1", *suspend)
    status = "suspended" if suspend else "revoked"
    result = run("import", "old.csv", *options)
    assert result.exit_code == 1
    assert f"! EMB-1: stays {status}, and the file has it active (--reactivate)" in result.stdout.splitlines()
    assert result.stdout.splitlines()[-5:] == [
        "added 0", "changed 0", "unchanged 2", "withdrawn 0", "not_reactivated 1",
    ]  # fmt: skip
    assert status_of(run, "EMB-1") == status


def test_a_flag_reactivates_and_the_change_is_listed(run: Run) -> None:
    run("revoke", "EMB-1")
    result = run("import", "old.csv", "--reactivate")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "~ EMB-1: status revoked → active")
    assert status_of(run, "EMB-1") == "active"


def test_an_upsert_of_what_is_revoked_needs_the_flag_too(run: Run) -> None:
    run("revoke", "BANK-1")
    record = json.dumps({"id": "BANK-1", "category": "bank", "status": "active", "clients": ["10.1.0.0/28"]})
    result = run("upsert", record)
    assert result.exit_code == 1
    assert result.stderr == "gatewayd: BANK-1 is revoked and stays so; --reactivate makes it active again\n"
    assert status_of(run, "BANK-1") == "revoked"
    assert run("upsert", record, "--reactivate").stdout == "BANK-1 changed\n"
    assert status_of(run, "BANK-1") == "active"


def test_other_changes_of_what_is_revoked_are_taken(run: Run, tmp_path: Path) -> None:
    run("revoke", "EMB-1")
    (tmp_path / "new.csv").write_text(HEADER + EMBASSY.replace("active", "revoked").replace(" 198.51.100.0/28", ""))
    result = run("import", "new.csv")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "~ EMB-1: clients -198.51.100.0/28")


def test_each_change_of_an_import_is_listed(run: Run, tmp_path: Path) -> None:
    changed = EMBASSY.replace("198.51.100.0/28", "198.51.100.16/28").replace("192.0.2.7/32", "")
    later = BANK.replace("2099", "2098").replace("bank,", "ngo,")
    (tmp_path / "new.csv").write_text(HEADER + changed + later + "NEW-1,bank,active,10.1.0.0/28,,\n")
    result = run("import", "new.csv", "--replace", "--dry-run")
    assert result.stdout.splitlines()[:4] == [
        "~ BANK-1: category bank → ngo, valid_until 2099-01-01T00:00:00Z → 2098-01-01T00:00:00Z",
        "~ EMB-1: clients +198.51.100.16/28 -198.51.100.0/28, peers -192.0.2.7/32 (was some, is any)",
        "- HOUSE-1: software_house, active, 203.0.113.32/28",
        "+ NEW-1: bank, active, 10.1.0.0/28",
    ]
    document = json.loads(run("import", "new.csv", "--replace", "--dry-run", "--json").stdout)
    assert [(each["id"], each["after"] is None) for each in document["changes"]] == [
        ("BANK-1", False), ("EMB-1", False), ("HOUSE-1", True), ("NEW-1", False),
    ]  # fmt: skip
    assert document["applied"]["changed"] == 2


def test_many_additions_are_counted_and_hide_no_change(run: Run, tmp_path: Path) -> None:
    rows = "".join(
        f"A-{number:04},bank,active,10.{number // 256}.{number % 256}.0/28,,\n" for number in range(1500)
    )
    (tmp_path / "new.csv").write_text(HEADER + BANK.replace("2099", "2098") + rows)
    lines = run("import", "new.csv").stdout.splitlines()
    assert lines[0].startswith("~ BANK-1: valid_until")
    assert [line[0] for line in lines[1:21]] == ["+"] * 20
    assert lines[21] == "1,480 more changes not listed"


def test_registrations_are_listed_without_a_cut(run: Run) -> None:
    lines = run("list").stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:-1]] == [
        ["BANK-1", "bank", "active"], ["EMB-1", "embassy", "active"], ["HOUSE-1", "software_house", "active"],
    ]  # fmt: skip
    assert lines[-1] == "3 registrations"
    assert run("list", "--limit", "1").stdout.splitlines()[-1] == (
        "1 of 3 shown; --all, --limit or --search for others"
    )
    assert run("list", "--limit", "1", "--all").stdout.splitlines()[-1] == "3 registrations"


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--category", "bank"], ["BANK-1"]),
        (["--status", "revoked"], []),
        (["--search", "EMB"], ["EMB-1"]),
        (["--search", "192.0.2."], ["EMB-1"]),
        (["--search", "203.0.113."], ["BANK-1", "EMB-1", "HOUSE-1"]),
    ],
)
def test_a_list_is_of_those_that_are_meant(run: Run, options: list[str], ids: list[str]) -> None:
    document = json.loads(run("list", "--json", *options).stdout)
    assert (document["total"], [each["id"] for each in document["items"]]) == (len(ids), ids)


def test_one_registration_is_shown_with_its_history(run: Run) -> None:
    run("revoke", "EMB-1", "--actor", "Desk 4")
    lines = run("show", "EMB-1").stdout.splitlines()
    assert lines[0].split() == ["id", "EMB-1"]
    assert [line.split()[-1] for line in lines if line.startswith(("clients", "peers", "services"))] == [
        "198.51.100.0/28", "192.0.2.7/32", "any",
    ]  # fmt: skip
    assert lines[-2].endswith("revoke by Desk 4: status active → revoked")
    assert "import by" in lines[-1]


def test_one_that_was_withdrawn_is_in_the_history_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text(HEADER + BANK + HOUSE)
    run("import", "new.csv", "--replace")
    assert "withdrawn: it is in the history alone" in run("show", "EMB-1").stdout
    assert run("show", "EMB-2").stderr == "gatewayd: there is no registration 'EMB-2'\n"


@pytest.mark.parametrize(("name", "options"), [("all.csv", []), ("all.ndjson", []), ("all", ["--format", "csv"])])
def test_what_is_exported_is_imported_as_the_same(run: Run, tmp_path: Path, name: str, options: list[str]) -> None:
    digest = "hmac-sha256:" + "ab" * 32
    run("upsert", json.dumps({"id": "M-1", "category": "ngo", "status": "suspended", "subscriber": digest}))
    assert run("export", name, *options).stdout == f"{name}: 4 registrations\n"
    form = "csv" if "csv" in (name[-3:], *options) else "ndjson"
    again = run("import", name, "--format", form, "--replace", "--database", "other.db")
    assert (again.exit_code, again.stdout.splitlines()[-5]) == (0, "added 4")
    assert run("export").stdout == run("export", "--database", "other.db").stdout
    assert len(run("export").stdout.splitlines()) == 4


def test_an_export_that_cannot_be_written_is_an_error_in_words(run: Run) -> None:
    result = run("export", "/proc/none/all.csv")
    assert result.exit_code != 0
    assert result.stderr.startswith("gatewayd: ")
