"""The nft command: found, old or new, refusing, missing, cut short. A shell script stands in for it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gatewayd.errors import MissingPrerequisite, ReplyMissing, RulesetRefused
from gatewayd.kernel import nft


def stand_in(scratch: Path, body: str) -> str:
    script = scratch / "nft"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return str(script)


def test_the_command_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stand_in(tmp_path, "true")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nft.find_nft() == path


def test_a_missing_command_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nft, "_PATH", str(tmp_path))
    with pytest.raises(MissingPrerequisite, match="install the package nftables"):
        nft.find_nft()


@pytest.mark.parametrize("text", ["nftables v1.0.2 (Lester Gooch)", "nftables v1.0.6", "nftables v1.1.0", "v2.0.0"])
async def test_a_version_that_can_write_our_rules_will_do(tmp_path: Path, text: str) -> None:
    await nft.check_nft_version(stand_in(tmp_path, f"echo '{text}'"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("nftables v0.9.8", "nft is nftables v0.9.8"), ("v1.0.1", "v1.0.1"), ("", "an unknown version")],
)
async def test_an_older_one_will_not(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(MissingPrerequisite, match=said) as caught:
        await nft.check_nft_version(stand_in(tmp_path, f"echo '{text}'"))
    assert caught.value.remedy == "install nftables 1.0.2 or newer"


async def test_a_script_is_run_from_its_standard_input(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    await nft.run_script(stand_in(tmp_path, f'[ "$1 $2" = "-f -" ] && cat > {seen}'), "flush ruleset\n")
    assert seen.read_text() == "flush ruleset\n"


async def test_a_refusal_carries_what_nft_said(tmp_path: Path) -> None:
    path = stand_in(tmp_path, "cat > /dev/null; echo 'Error: syntax error' >&2; exit 1")
    with pytest.raises(RulesetRefused) as caught:
        await nft.run_script(path, "x")
    assert caught.value.stderr == "Error: syntax error\n"


async def test_a_command_that_does_not_read_is_no_other_error(tmp_path: Path) -> None:
    with pytest.raises(RulesetRefused):
        await nft.run_script(stand_in(tmp_path, "exec <&-; exit 3"), "x" * 1_000_000)


async def test_a_command_that_went_missing_is_a_refusal(tmp_path: Path) -> None:
    """nftables may be upgraded under the daemon; the reconciler must live and try again."""
    with pytest.raises(RulesetRefused, match="No such file or directory"):
        await nft.run_script(str(tmp_path / "nft"), "x")


async def test_a_command_that_cannot_be_run_is_a_refusal(tmp_path: Path) -> None:
    path = stand_in(tmp_path, "true")
    os.chmod(path, 0o644)
    with pytest.raises(RulesetRefused, match="ermission denied"):
        await nft.run_script(path, "x")


async def test_cancellation_ends_the_command_and_is_passed_on(tmp_path: Path) -> None:
    fifo, started = tmp_path / "fifo", tmp_path / "started"
    os.mkfifo(fifo)
    os.mkfifo(started)
    path = stand_in(tmp_path, f"echo $$ > {started}; exec cat {fifo}")
    task = asyncio.create_task(nft.run_script(path, "x"))
    process = int(await asyncio.to_thread(started.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


async def test_cancellation_after_the_command_ended_is_cancellation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended:
        returncode = 0
        pid = 1

        async def communicate(self, _: bytes) -> tuple[bytes, bytes]:
            raise asyncio.CancelledError

        def kill(self) -> None:
            raise ProcessLookupError

        async def wait(self) -> int:
            return 0

    async def start(*_: object, **__: object) -> Ended:
        return Ended()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    with pytest.raises(asyncio.CancelledError):
        await nft.run_script("nft", "x")


async def test_who_asks_is_told_the_process_before_it_has_read_anything(tmp_path: Path) -> None:
    told: list[int] = []
    said = tmp_path / "pid"
    await nft.run_script(stand_in(tmp_path, f"cat > /dev/null; echo $$ > {said}"), "x", told.append)
    assert told == [int(said.read_text())]


@pytest.mark.parametrize("ends_when_killed", [True, False])
async def test_a_command_that_never_ends_is_killed_and_is_an_answer_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_when_killed: bool
) -> None:
    """One that waits inside the kernel ends when the kernel is through, and is not waited for."""
    monkeypatch.setattr(nft, "TIMEOUT_S", 0.01)
    monkeypatch.setattr(nft, "KILL_TIMEOUT_S", 0.01)
    fifo, pids = tmp_path / "fifo", []
    os.mkfifo(fifo)
    if not ends_when_killed:
        monkeypatch.setattr(asyncio.subprocess.Process, "kill", lambda _: None)
    with pytest.raises(ReplyMissing, match="nft did not end within"):
        await nft.run_script(stand_in(tmp_path, f"exec cat {fifo}"), "x", pids.append)
    if ends_when_killed:
        with pytest.raises(ProcessLookupError):
            os.kill(pids[0], 0)
    else:
        await asyncio.to_thread(fifo.write_bytes, b"")
        while True:
            try:
                os.kill(pids[0], 0)
            except ProcessLookupError:
                break
            await asyncio.sleep(0.001)
