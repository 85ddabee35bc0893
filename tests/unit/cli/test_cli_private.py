"""No command repeats a person's number that stands among its words, wherever it stands; each command has a case."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatewayd.cli import main
from gatewayd.cli.private import NOT_REPEATED, without_persons
from tests.support.leaks import find
from tests.support.planting import ALL, feed_lines
from tests.support.planting_commands import CASES, SOCKET, WORDS, Leaf, asked, leaves

TOUCHES_THE_HOST = frozenset({"doctor"})
"""Answers of the host that runs the tests; asked in the lab."""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "national.ndjson").write_bytes(feed_lines())
    config = tmp_path / "gatewayd.yaml"
    config.write_text(f"registry: {{sources: [], local: null}}\nstate_dir: {tmp_path}\n")
    return {"directory": str(tmp_path), "socket": str(tmp_path / "api.sock"), "config": str(config)}


def test_every_command_has_a_case() -> None:
    assert {leaf.name for leaf in leaves()} == CASES.keys()


@pytest.mark.parametrize("leaf", list(leaves()), ids=lambda leaf: leaf.name)
def test_no_command_repeats_a_person(leaf: Leaf, places: dict[str, str]) -> None:
    """Without a daemon; `lab/test_lab_secrets.py` asks one."""
    refused = 0
    for label, words in asked(leaf, places):
        if leaf.name in TOUCHES_THE_HOST and label in (leaf.name, f"{leaf.name} --json"):
            continue
        done = CliRunner().invoke(main, list(words))
        assert done.exception is None or isinstance(done.exception, SystemExit), label
        assert find(ALL, done.output.encode()) == [], label
        refused += done.exit_code != 0
    assert refused >= 4
    assert leaf.name == "registry keygen" or not list(Path(places["directory"]).glob("*[0-9]*"))


def test_the_words_are_asked_in_every_parameter() -> None:
    by_name = {leaf.name: leaf for leaf in leaves()}
    places = {"directory": "d", "socket": "s", "config": "c"}
    explain = [words for _, words in asked(by_name["explain"], places)]
    for at in (1, 2, 3):
        assert any(words[at : at + 1] and words[at] in WORDS for words in explain)
    assert any(
        word.startswith("--search=") for _, words in asked(by_name["registrations"], places) for word in words
    )
    assert set(SOCKET) & set(CASES["rearm"])


def test_a_fault_keeps_all_but_the_person() -> None:
    said = "Invalid value for '--limit': 3001234567 is not in the range"
    assert (
        without_persons(said, ("flows", "--limit", "0300-1234567"))
        == f"Invalid value for '--limit': {NOT_REPEATED} is not in the range"
    )
    assert without_persons("'a@b.example' is no id", ("show", "--id=a@b.example")) == f"'{NOT_REPEATED}' is no id"
    assert without_persons("no id 'PK-2024-000123'", ("show", "PK-2024-000123")) == "no id 'PK-2024-000123'"


def test_a_file_is_named_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = f"{tmp_path}/20261130120000.csv: cannot be read"
    assert without_persons(said, ("check", f"{tmp_path}/20261130120000.csv")) == said
    Path("0300-1234567.csv").touch()
    assert (
        without_persons("0300-1234567.csv: cannot be read", ("check", "0300-1234567.csv"))
        == "0300-1234567.csv: cannot be read"
    )
    assert os.path.lexists("0300-1234567.csv")


def test_a_text_of_another_program_moves_no_cursor() -> None:
    assert (
        without_persons("branch: \x1b[2Jgone\nnext: \x9b\u202e", ()) == "branch: \ufffd[2Jgone\nnext: \ufffd\ufffd"
    )
