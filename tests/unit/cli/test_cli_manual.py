"""The man pages and completions that a package carries: complete, the same each time, and read by real programs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd.cli import COMMANDS, main
from gatewayd.cli.completions import FILES, bash, completables, fish, root_context, walk, zsh
from gatewayd.cli.manual import write
from gatewayd.settings.load import write_example

ALL = completables(main)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("share")
    write(directory)
    return directory


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_same_source_writes_the_same_bytes(written: Path, tmp_path: Path) -> None:
    changed = {"PYTHONHASHSEED": "7", "TZ": "Asia/Karachi", "LC_ALL": "C", "COLUMNS": "40", "PYTHONUTF8": "0"}
    program = [sys.executable, "-m", "gatewayd.cli.manual", str(tmp_path)]
    subprocess.run(program, env=os.environ | changed, check=True)
    assert files_of(tmp_path) == files_of(written)


def test_without_a_directory_it_says_what_it_needs() -> None:
    done = subprocess.run([sys.executable, "-m", "gatewayd.cli.manual"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "usage: python -m gatewayd.cli.manual DIR\n")


def test_every_command_has_a_page(written: Path) -> None:
    pages = {path.name for path in (written / "man/man8").iterdir()}
    assert pages == {"gatewayd.8", *(f"gatewayd-{name}.8" for name in COMMANDS)}


def test_groff_finds_nothing_wrong_with_a_page(written: Path) -> None:
    """In ASCII, where a sign without a likeness would be a warning."""
    for page in sorted((written / "man").rglob("*.*")):
        if page.is_file():
            done = subprocess.run(
                ["groff", "-man", "-Tascii", "-ww", "-z", str(page)], capture_output=True, text=True
            )
            assert (page.name, done.returncode, done.stderr) == (page.name, 0, "")


def rendered(page: Path) -> str:
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-c", "-P-b", "-P-u", "-rLL=200n", str(page)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return " ".join(done.stdout.split())


def test_a_page_has_each_option_with_its_line(written: Path) -> None:
    for command, context in walk(main, root_context(main)):
        name = "-".join(context.command_path.split()[:2])
        text = rendered(written / f"man/man8/{name}.8")
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and parameter.param_type_name == "option":
                assert " ".join(record[0].split()) in text
                words = " ".join(record[1].replace("`", "").replace("…", "...").split())
                assert words in text, name


def test_the_page_of_the_file_has_every_key_of_the_example(written: Path) -> None:
    text = rendered(written / "man/man5/gatewayd.yaml.5")
    keys = re.findall(r"^[# -]*([a-z_]+):", write_example(), re.MULTILINE)
    assert len(set(keys)) > 70
    assert {key for key in keys if f"{key}:" not in text and f"{key} " not in text} == set()


def test_a_dot_that_begins_a_line_is_no_request_to_groff(written: Path) -> None:
    text = rendered(written / "man/man5/gatewayd.yaml.5")
    assert "mark passed, with on_unregistered.dscp and .mark set for boxes downstream" in text


# -- bash, by bash ---------------------------------------------------------------------------------------------


def complete(script: Path, *words: str, directory: Path | None = None) -> list[str]:
    """What bash offers for the last of the words."""
    program = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gatewayd; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", str(script), "gatewayd", *words],
        capture_output=True, text=True, check=True, cwd=directory,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture(scope="module")
def script(written: Path) -> Path:
    return written / "bash-completion/completions/gatewayd"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("stat",), ["status"]),
        (("",), list(COMMANDS)),
        (("re",), ["registrations", "reload", "revert", "rearm", "report", "registry"]),
        (("plan", "--mode", ""), ["observe", "mark", "limit", "reject"]),
        (("plan", "--mode", "=", "l"), ["limit"]),
        (("plan", "--mode", "="), ["observe", "mark", "limit", "reject"]),
        (("mode", "re"), ["reject"]),
        (("mode", "--conf"), ["--config", "--confirm"]),
        (("registry", "im"), ["import"]),
        (("registry", "import", "--ac"), ["--actor"]),
        (("explain", "--sp"), ["--sport"]),
        (("flows", "--registration", ""), []),
        (("--vers",), ["--version"]),
        (("nonsense", "--sock"), []),
    ],
)
def test_bash_completes(script: Path, words: tuple[str, ...], offered: list[str]) -> None:
    assert complete(script, *words) == offered


def test_bash_offers_each_command_its_own_options(script: Path) -> None:
    for each in ALL:
        _, *path = each.name.split()
        assert complete(script, *path, "-") == [word for word, _ in each.words], each.name


def test_bash_is_told_where_a_file_stands(script: Path) -> None:
    text = script.read_text()
    for name in ("plan --config", "check", "status --socket", "registry check"):
        assert re.search(rf"'gatewayd {name}'[^)]*\) words='@files'", text), name


# -- the others, by their text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [bash(ALL), zsh(ALL), fish(ALL)], ids=["bash", "zsh", "fish"])
def test_each_shell_has_every_command_and_option_in_ascii(text: str) -> None:
    assert text.isascii()
    for each in ALL:
        assert each.name in text
        for word, _ in each.words:
            assert word.lstrip("-") in text


def test_a_configuration_file_is_completed_as_a_file_by_every_command() -> None:
    found = {each.name: values for each in ALL for word, _, values in each.options if word == "--config"}
    assert len(found) >= 6
    assert set(found.values()) == {FILES}


def test_fish_has_a_line_for_each_word() -> None:
    lines = fish(ALL).splitlines()
    for each in ALL:
        start = f'complete -c gatewayd -n "__gatewayd_here {each.name}" '
        own = [line for line in lines if line.startswith(start)]
        assert len(own) == len(each.words) + len(each.commands) + bool(each.arguments)
