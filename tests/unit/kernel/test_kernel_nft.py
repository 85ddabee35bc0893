"""The nft command: found, old or new, refusing, missing, cut short. A shell script stands in for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import uvloop

from gatewayd.errors import KernelError, MissingPrerequisite, ReplyMissing, RulesetRefused
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

        async def wait(self) -> int:
            raise asyncio.CancelledError

        def kill(self) -> None:
            raise ProcessLookupError

    async def start(*_: object, **__: Any) -> Ended:
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
    fifo = tmp_path / "fifo"
    pids: list[int] = []
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


# -- an nft that misbehaves, under either event loop ---------------------------------------------------------------

SCRIPT = "x" * 1_000_000
"""More than a pipe holds."""
NOISE = "head -c 3000000 /dev/zero | tr '\\0' 'z'"


class Run(Protocol):
    def __call__(self, deed: Coroutine[Any, Any, None], /) -> None: ...


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner.run


def test_the_script_comes_from_a_file_that_can_be_opened_by_name(tmp_path: Path, run: Run) -> None:
    """nft 1.0.9 opens /dev/stdin, which no socket lets it do."""
    seen = tmp_path / "seen"
    run(nft.run_script(stand_in(tmp_path, f"[ -S /dev/stdin ] && exit 1; cat /dev/stdin > {seen}"), SCRIPT))
    assert seen.read_text() == SCRIPT


MISBEHAVES: dict[str, tuple[str, type[KernelError], str]] = {
    "refuses sockets": ("[ -f /dev/stdin ] || exit 0; echo 'a file' >&2; exit 1", RulesetRefused, "a file"),
    "ends before reading": ("exit 1", RulesetRefused, "it ended with status 1 and said nothing"),
    "closes its input": ("exec <&-; exit 3", RulesetRefused, "it ended with status 3"),
    "reads a little": ("head -c 10 > /dev/null; echo half >&2; exit 1", RulesetRefused, "half"),
    "is killed": ("kill -9 $$", RulesetRefused, "it was ended by signal 9"),
    "says megabytes": (f"{NOISE} >&2; exit 1", RulesetRefused, "z{4096}$"),
    "says megabytes elsewhere": (f"{NOISE}; echo refused >&2; exit 1", RulesetRefused, "refused"),
    "says garbage": (
        r"printf '\033[2J\377\000no' >&2; exit 1",
        RulesetRefused,
        "^nft refused the ruleset: �.2J��no$",
    ),
    "leaves a child that holds its output": ("sleep 60 & echo refused >&2; exit 1", RulesetRefused, "refused"),
    "sleeps": ("exec sleep 60", ReplyMissing, "nft did not end within"),
    "sleeps and cannot be ended by a signal that it may ignore": (
        "trap '' TERM INT HUP; while :; do :; done",
        ReplyMissing,
        "nft did not end within",
    ),
    "says megabytes for ever": ("exec cat /dev/zero >&2", ReplyMissing, "nft did not end within"),
}


@pytest.mark.parametrize("case", MISBEHAVES)
def test_whatever_the_command_does_is_an_error_of_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, case: str
) -> None:
    body, error, said = MISBEHAVES[case]
    if error is ReplyMissing:
        monkeypatch.setattr(nft, "TIMEOUT_S", 0.05)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(error, match=said) as caught:
        run(nft.run_script(stand_in(tmp_path, body), SCRIPT))
    assert len(str(caught.value)) < 5000
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 2, "descriptors of a child watcher, at most"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\x7fELF and no more", "Exec format error|not found"), (b"#!/no/such/shell\n", "No such file or directory")],
)
def test_a_file_that_is_no_program_is_a_refusal(tmp_path: Path, run: Run, content: bytes, said: str) -> None:
    path = tmp_path / "nft"
    path.write_bytes(content)
    path.chmod(0o755)
    with pytest.raises(RulesetRefused, match=said):
        run(nft.run_script(str(path), SCRIPT))


def test_no_memory_for_a_file_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    def full(*_: object) -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "memfd_create", full)
    with pytest.raises(RulesetRefused, match="Cannot allocate memory"):
        run(nft.run_script(stand_in(tmp_path, "true"), SCRIPT))


def test_a_script_that_memory_has_no_room_for_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    # As a memfd without room: a write to it fails.
    monkeypatch.setattr(os, "memfd_create", lambda *_: os.open("/dev/full", os.O_RDWR))
    with pytest.raises(RulesetRefused, match="No space left on device"):
        run(nft.run_script(stand_in(tmp_path, "true"), SCRIPT))


def test_no_descriptor_for_what_it_says_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    def none_left() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe", none_left)
    with pytest.raises(RulesetRefused, match="Too many open files"):
        run(nft.run_script(stand_in(tmp_path, "true"), SCRIPT))


def test_a_kernel_that_knows_no_file_that_is_never_run_gives_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """Before 6.3 the flag is refused; with vm.memfd_noexec=2 its absence is."""
    really = os.memfd_create

    def old(name: str, flags: int) -> int:
        if flags & ~os.MFD_CLOEXEC:
            raise OSError(22, "Invalid argument")
        return really(name, flags)

    monkeypatch.setattr(os, "memfd_create", old)
    seen = tmp_path / "seen"
    run(nft.run_script(stand_in(tmp_path, f"cat > {seen}"), SCRIPT))
    assert seen.read_text() == SCRIPT


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("exec sleep 60", "did not end within"),
        ("kill -9 $$", "of an unknown version"),
        (f"{NOISE}; echo v9.9.9", "nft is z+;"),
        ("exit 1", "of an unknown version"),
        ("echo v1.0.6; exit 1", "nft is v1.0.6"),
    ],
)
def test_a_version_that_cannot_be_asked_for_is_a_missing_prerequisite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, body: str, said: str
) -> None:
    if "sleep" in body:
        monkeypatch.setattr(nft, "TIMEOUT_S", 0.05)
    with pytest.raises(MissingPrerequisite, match=said):
        run(nft.check_nft_version(stand_in(tmp_path, body)))


def test_a_version_of_a_command_that_went_is_a_missing_prerequisite(tmp_path: Path, run: Run) -> None:
    with pytest.raises(MissingPrerequisite, match="cannot be run"):
        run(nft.check_nft_version(str(tmp_path / "nft")))


def test_a_check_asks_and_says_what_is_refused(tmp_path: Path, run: Run) -> None:
    seen = tmp_path / "seen"
    run(nft.check_script(stand_in(tmp_path, f'[ "$*" = "-c -f -" ] && cat > {seen}'), "flush ruleset"))
    assert seen.read_text() == "flush ruleset"
    with pytest.raises(RulesetRefused, match="syntax"):
        run(nft.check_script(stand_in(tmp_path, "echo syntax >&2; exit 1"), "x"))


def test_a_check_may_be_run_by_another_command(tmp_path: Path, run: Run) -> None:
    with pytest.raises(RulesetRefused, match="via the other"):
        run(nft.check_script(stand_in(tmp_path, 'echo "via $OTHER" >&2; exit 1'), "x", "env", "OTHER=the other"))
