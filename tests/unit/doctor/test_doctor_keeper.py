"""The daemon's look at its host: a process of its own that may fail, hang or talk nonsense."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from gatewayd.doctor import keeper
from gatewayd.doctor.findings import Finding, HostView
from gatewayd.doctor.keeper import HostKeeper
from gatewayd.settings import Settings, load_settings

WRONG = HostView("2026-01-01T00:00:00Z", (Finding("forwarding", "fault", "what", "why", "sysctl -w a=1"),))


CONFIG = 'registry: {sources: [{name: any, url: "file:/any", allow_unsigned: true}]}'


@dataclass(frozen=True)
class Configured:
    settings: Settings


CONFIGURED = Configured(load_settings(CONFIG, "test"))


def wait_for_pid(file: Path) -> None:
    while not file.exists() or not file.read_text():
        time.sleep(0.01)


def is_running(file: Path) -> bool:
    """Whether the process whose id is in the file is there; it may not have got so far."""
    pid = file.read_text().strip() if file.exists() else ""
    return bool(pid) and Path(f"/proc/{pid}").exists()


def keeper_of(script: str) -> HostKeeper:
    return HostKeeper(CONFIGURED, ("sh", "-c", script))


def answering(view: HostView) -> str:
    return f"cat > /dev/null; echo '{msgspec.json.encode(view).decode()}'"


async def test_a_look_is_what_the_process_said(capsys: pytest.CaptureFixture[str]) -> None:
    made = keeper_of(answering(WRONG))
    await made.look()
    assert made.view == WRONG


async def test_the_process_is_asked_about_the_settings_in_force(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    await keeper_of(f"cat > {asked}; echo '{{}}'").look()
    question = msgspec.json.decode(asked.read_bytes())
    assert (question["table"], question["is_daemon"], question["groups"]) == ("gatewayd", True, [])


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo first >&2; echo last >&2; exit 3", "last"),
        ("exit 3", "it ended with status 3"),
        ("echo nonsense", "JSON is malformed: invalid character (byte 4)"),
    ],
)
async def test_a_look_that_fails_leaves_the_findings_of_before(script: str, error: str) -> None:
    made = keeper_of(answering(WRONG))
    await made.look()
    made._command = ("sh", "-c", script)
    await made.look()
    assert made.view == msgspec.structs.replace(WRONG, error=error)
    made._command = ("sh", "-c", answering(HostView("2026-01-01T00:05:00Z")))
    await made.look()
    assert made.view == HostView("2026-01-01T00:05:00Z")


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    made = HostKeeper(CONFIGURED, (str(tmp_path / "none"),))
    await made.look()
    assert made.view.error is not None
    assert "No such file" in made.view.error


async def test_a_look_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "TIMEOUT_S", 0.2)
    made = keeper_of(f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    await made.look()
    assert made.view.error == "no answer in 0 s"
    assert not is_running(tmp_path / "pid")


async def test_a_daemon_that_stops_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "FIRST_LOOK_S", 0.0)
    made = keeper_of(f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    running = asyncio.create_task(made.run())
    await asyncio.to_thread(wait_for_pid, tmp_path / "pid")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not is_running(tmp_path / "pid")


async def test_this_host_is_examined_by_the_module_itself() -> None:
    made = HostKeeper(CONFIGURED)
    assert made._command == (sys.executable, "-m", "gatewayd.doctor")
    await made.look()
    assert made.view.error is None
    assert made.view.at is not None
    assert "python" in made.view.versions
