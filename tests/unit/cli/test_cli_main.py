from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

import gatewayd.cli
from gatewayd import __version__
from gatewayd.cli import COMMANDS, main, service
from gatewayd.errors import (
    DaemonNotReachable,
    GatewaydError,
    MissingPrerequisite,
    SettingsInvalid,
    SourceUnreadable,
)


def raise_in_a_command(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes `gatewayd status` end in `error`."""

    @click.command("status")
    def command() -> None:
        raise error

    monkeypatch.setattr(gatewayd.cli, "import_module", lambda name: SimpleNamespace(command=command))


def test_the_help_lists_every_command_with_a_line() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name, line in COMMANDS.items():
        assert f"  {name:<13}  {line}\n" in result.stdout


def test_the_help_imports_no_command_and_nothing_heavy() -> None:
    program = (
        "import sys\nfrom gatewayd.cli import main\ntry:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = ('aiohttp', 'asyncio', 'msgspec', 'prometheus_client', 'rich', 'yaml', 'gatewayd.cli.')\n"
        "print(sorted(name for name in sys.modules if name.startswith(heavy)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_the_version_is_the_package_s() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout == f"gatewayd, version {__version__}\n"


@pytest.mark.parametrize(
    "name", ["check", "status", "explain", "registrations", "flows", "bindings", "sync", "accept", "registry"]
)
def test_the_short_help_agrees_with_a_command_that_is_there(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {name} ")


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["sttaus"])
    assert result.exit_code == 2
    assert "No such command 'sttaus'" in result.stderr


@pytest.mark.parametrize(
    ("error", "status", "stderr"),
    [
        (SourceUnreadable("lab", "gone"), 1, "gatewayd: source lab: gone\n"),
        (MissingPrerequisite("no nft", "install nftables"), 2, "gatewayd: no nft; install nftables\n"),
        (SettingsInvalid(("a:1:1: x", "a:2:1: y")), 2, "a:1:1: x\na:2:1: y\n"),
        (DaemonNotReachable("/x", "refused"), 3, "gatewayd: no gatewayd answers at /x: refused\n"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
    ],
)
def test_the_exit_status_follows_the_error(
    monkeypatch: pytest.MonkeyPatch, error: GatewaydError, status: int, stderr: str
) -> None:
    raise_in_a_command(monkeypatch, error)
    result = CliRunner().invoke(main, ["status"])
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", stderr)


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_a_teardown_without_a_yes_removes_nothing(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gatewayd.yaml"
    config.write_text(f"registry: {{sources: [], local: {tmp_path}}}\nhttp: {{socket: {tmp_path}/api.sock}}\n")
    monkeypatch.setattr(service, "claimed_table", lambda *_: nullcontext())
    monkeypatch.setattr(service, "tear_down", None)
    result = CliRunner().invoke(main, ["teardown", "--config", str(config)], input=answer)
    assert result.exit_code == 1
    assert result.stderr.endswith("Error: nothing is removed\n")


def test_a_teardown_with_a_faulty_file_says_the_way_out(tmp_path: Path) -> None:
    config = tmp_path / "gatewayd.yaml"
    config.write_text("policy: {mode: refuse}\n")
    result = CliRunner().invoke(main, ["teardown", "--yes", "--config", str(config)])
    *faults, last = result.stderr.splitlines()
    assert (result.exit_code, bool(faults)) == (2, True)
    assert last == "gatewayd: nothing is removed; mend the file, or: nft delete table inet NAME (kernel.table)"
