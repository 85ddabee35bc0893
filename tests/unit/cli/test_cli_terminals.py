"""Every command where the terminal is narrow, dumb, without colour, without UTF-8, or is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatewayd.cli import COMMANDS, main, write_likeness
from gatewayd.cli.completions import root_context, walk
from tests.support.fake_queries import TROUBLE, FakeQueries, serving_in_a_thread
from tests.support.terminal import terminal

REGISTRY = """\
{"id": "PK-1", "category": "bank", "status": "active", "clients": ["203.0.113.5/32"], "peers": []}
{"id": "PK-\N{SNOWMAN}", "category": "bank", "clients": ["203.0.113.5/33"]}
"""
TRIED: dict[str, tuple[str, ...]] = {
    "run": ("run --config NONE", "run --config \udcff"),
    "check": ("check CONFIG", "check NONE", "check \udcff", "check --print-example", "check CONFIG --json"),
    "plan": ("plan --config NONE", "plan --mode reject"),
    "status": ("status", "status --json", "status --watch"),
    "top": ("top",),
    "explain": ("explain 203.0.113.5 198.51.100.7 udp/51820", "explain \udcff x …"),
    "doctor": ("doctor", "doctor --config NONE"),
    "registrations": (
        "registrations",
        "registrations PK-2024-000123",
        "registrations …",
        "registrations --rejected",
    ),
    "flows": ("flows", "flows --unregistered", "flows --registration ☃"),
    "bindings": ("bindings",),
    "sync": ("sync",),
    "held": ("held",),
    "reload": ("reload",),
    "mode": ("mode", "mode rejct", "mode mark --comment …"),
    "confirm": ("confirm",),
    "revert": ("revert",),
    "trial": ("trial",),
    "rearm": ("rearm",),
    "accept": ("accept 99",),
    "changes": ("changes --since 1h",),
    "impact": ("impact", "impact near-misses", "impact ack \udcff"),
    "report": ("report --since 1d",),
    "events": ("events",),
    "registry": (
        "registry check FILE",
        "registry check \udcff",
        "registry verify",
        "registry list --database NONE",
    ),
    "teardown": ("teardown --config NONE",),
    "demo": ("demo --help",),
}
PROGRAM = """\
import sys
from gatewayd.cli import main
for line in sys.argv[1:]:
    try:
        main([word for word in line.split(" ")])
    except SystemExit as end:
        sys.stdout.flush()
        print("=", line.encode("ascii", "replace").decode(), end.code, file=sys.stderr, flush=True)
"""
PLACES = {
    "narrow": {"COLUMNS": "40"},
    "no colour": {"NO_COLOR": "1"},
    "dumb": {"TERM": "dumb"},
    "C": {"LC_ALL": "C", "LANG": "C"},
    "ascii": {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("files")
    (directory / "config.yaml").write_text("registry: {sources: […]}\nlög: {}\n")
    (directory / "registry.ndjson").write_text(REGISTRY)
    words = {"CONFIG": "config.yaml", "NONE": "none.yaml", "FILE": "registry.ndjson"}
    helps = [" ".join([*inside.command_path.split()[1:], "--help"]) for _, inside in walk(main, root_context(main))]
    tried = [line for each in TRIED.values() for line in each]
    for word, name in words.items():
        tried = [line.replace(word, str(directory / name)) for line in tried]
    return helps + tried


def test_every_command_is_tried() -> None:
    assert set(TRIED) == set(COMMANDS)


def check(text: str, lines: list[str]) -> None:
    """Each command came to its end, and none by a fault of ours."""
    assert "Traceback" not in text, text[-3000:]
    ended = dict(re.findall(r"^= (.*) (\d+)\r?$", text, re.MULTILINE))
    assert len(ended) == len({line.encode("ascii", "replace").decode() for line in lines})
    assert set(ended.values()) <= {"0", "1", "2", "3"}


@pytest.mark.parametrize("place", PLACES)
def test_every_command_in_a_terminal(place: str, lines: list[str], tmp_path: Path) -> None:
    lines = [line for line in lines if place == "dumb" or line not in ("status --watch", "top")]
    queries = FakeQueries()
    queries.view = TROUBLE
    socket = tmp_path / "api.sock"
    changed = PLACES[place] | {"GATEWAYD_SOCKET": str(socket)}
    with (
        serving_in_a_thread(queries, socket),
        terminal([sys.executable, "-c", PROGRAM, *lines], columns=40, changed=changed) as screen,
    ):
        assert screen.wait() == 0, screen.text[-3000:]
    check(screen.text, lines)
    colours = re.findall(rb"\x1b\[[\d;]*?(?:3\d|4\d|9\d)[\d;]*m", screen.raw)
    assert bool(colours) == (place not in ("no colour", "dumb"))
    assert (b"\x1b" in screen.raw) == (place != "dumb")


def test_every_command_without_a_terminal(lines: list[str], tmp_path: Path) -> None:
    socket = tmp_path / "api.sock"
    environment = os.environ | {"GATEWAYD_SOCKET": str(socket), "PYTHONIOENCODING": "latin-1", "LC_ALL": "C"}
    with serving_in_a_thread(FakeQueries(), socket):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *lines],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    check(done.stdout.decode("latin-1"), lines)
    assert b"\x1b" not in done.stdout


def test_help_is_ascii() -> None:
    """It is what a person reads first on a strange terminal."""
    for command, context in walk(main, root_context(main)):
        assert command.get_help(context).isascii(), context.command_path


@pytest.mark.parametrize(
    ("text", "written"),
    [("…", b"..."), ("a\N{REPLACEMENT CHARACTER}b", b"a?b"), ("☃", rb"\u2603"), ("\udcff", rb"\udcff")],
)
def test_a_sign_has_a_likeness(text: str, written: bytes) -> None:
    main(["--version"], standalone_mode=False)
    assert text.encode("ascii", "gatewayd.likeness") == written


def test_bytes_that_are_read_have_none() -> None:
    with pytest.raises(UnicodeDecodeError):
        write_likeness(UnicodeDecodeError("ascii", b"\xff", 0, 1, "not ASCII"))


@pytest.mark.parametrize("line", ["registrations", "impact ack"])
def test_an_argument_that_is_no_text_is_a_usage_error(line: str, tmp_path: Path) -> None:
    with serving_in_a_thread(FakeQueries(), tmp_path / "api.sock"):
        result = CliRunner().invoke(main, [*line.split(), "PK-\udcff", "--socket", str(tmp_path / "api.sock")])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is not UTF-8 text" in result.stderr


def test_an_output_on_a_full_disk_is_a_line_and_no_traceback() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gatewayd", "check", "--print-example"], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr == b"gatewayd: the output cannot be written: No space left on device\n"
