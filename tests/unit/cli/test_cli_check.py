"""`gatewayd check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatewayd.cli.check import DEFAULT_CONFIG, command

LAB = 'registry: {sources: [{name: lab, url: "file:/lab.csv", allow_unsigned: true}]}\n'


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(LAB)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(LAB + "statedir: /x\nlog: 1\n")
    return str(path)


@pytest.mark.parametrize("option", [[], ["--config"]])
def test_a_good_file_is_summed_up_in_one_line(good: str, option: list[str]) -> None:
    result = CliRunner().invoke(command, [*option, good])
    assert result.exit_code == 0
    assert result.stdout == (
        f"{good}: ok (1 source, mode observe, scope ipsec wireguard openvpn pptp l2tp, "
        "table gatewayd, http 127.0.0.1:9480)\n"
    )


def test_every_fault_goes_to_stderr(bad: str) -> None:
    result = CliRunner().invoke(command, [bad])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"{bad}:2:1: statedir: unknown key, expected state_dir\n"
        f"{bad}:3:6: log: is a single value, expected a mapping of level, format\n"
    )


def test_json_says_ok(good: str) -> None:
    result = CliRunner().invoke(command, ["--json", good])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"ok": True, "faults": []}


def test_json_has_the_faults(bad: str) -> None:
    result = CliRunner().invoke(command, ["--json", "--config", bad])
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert [fault.partition(": ")[2] for fault in answer["faults"]] == [
        "statedir: unknown key, expected state_dir",
        "log: is a single value, expected a mapping of level, format",
    ]


def test_a_file_that_cannot_be_read_is_exit_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "none.yaml: cannot be read: No such file or directory" in result.stderr


def test_two_files_are_one_too_many(good: str) -> None:
    result = CliRunner().invoke(command, [good, "--config", good])
    assert result.exit_code == 2
    assert "give PATH or --config, not both" in result.stderr


def test_without_a_path_the_installed_file_is_checked(monkeypatch: pytest.MonkeyPatch, good: str) -> None:
    monkeypatch.setattr("gatewayd.cli.check.DEFAULT_CONFIG", good)
    assert DEFAULT_CONFIG == "/etc/gatewayd/gatewayd.yaml"
    assert CliRunner().invoke(command, []).stdout.startswith(f"{good}: ok (")
