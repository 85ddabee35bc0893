from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from gatewayd.cli import registry

CONFIG = Path(__file__).parents[3] / "config"


def check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(registry.command, ["check", *map(str, arguments)])


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    path = tmp_path / "lab.csv"
    path.write_text("id,category,status,clients\na,bank,active,203.0.113.0/28\nb,bank,active,203.0.113.1/28\n")
    return path


def test_a_good_file_is_counted_and_exits_0() -> None:
    result = check(CONFIG / "registry.example.ndjson")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:3] == ["records 12", "usable 12", "category bank 3"]


def test_a_rejection_is_shown_with_its_place_and_exits_1(faulty: Path) -> None:
    result = check(faulty)
    assert result.exit_code == 1
    first, *rest = result.stdout.splitlines()
    assert first.startswith(f"{faulty}:3: b: prefix_host_bits: clients: 203.0.113.1/28: host bits are set")
    assert rest == ["records 2", "usable 1", "category bank 1", "rejected prefix_host_bits 1"]


def test_json_holds_the_same(faulty: Path) -> None:
    result = check("--json", faulty)
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (document["format"], document["records"], document["usable"]) == ("csv", 2, 1)
    assert document["categories"] == {"bank": 1}
    assert document["rejected"] == {"prefix_host_bits": 1}
    assert document["rejections"][0]["line"] == 3
    assert document["rejections"][0]["id"] == "b"


def test_a_file_that_is_not_there_exits_2(tmp_path: Path) -> None:
    result = check(tmp_path / "none")
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path / 'none'}: No such file or directory\n"


def test_a_file_that_is_unusable_as_a_whole_exits_2(tmp_path: Path) -> None:
    path = tmp_path / "lab.csv"
    path.write_text("id,category,status,cnic\n")
    result = check(path, "--json")
    assert result.exit_code == 2
    assert "identity" in json.loads(result.stdout)["error"]


def test_a_given_format_wins(faulty: Path) -> None:
    result = check("--format", "ndjson", faulty)
    assert result.exit_code == 1
    assert "rejected not_json 3" in result.stdout


def test_rejections_that_are_not_listed_are_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "lab.ndjson"
    path.write_text("x\n" * 1200)
    assert f"{path}: 200 more rejected records are not listed" in check(path).stdout


def test_a_terminal_gets_a_table(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "Console", lambda: Console(force_terminal=True, width=100))
    result = check(faulty)
    assert result.exit_code == 1
    assert "prefix_host_bits" in result.stdout
    assert result.stdout.splitlines()[1].split() == ["what", "which", "records"]
