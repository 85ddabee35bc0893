"""The `nft` command: the few rules go to the kernel as readable text, in one transaction.

Whatever the command does is one of three: it ended well, RulesetRefused, ReplyMissing. That the rules are in the
kernel is not believed of its exit status; kernel/tables.py reads them back.

The script is nft's standard input as a file without a name. A pipe of asyncio is a socket pair under uvloop, which
nft 1.0.9 (Ubuntu 24.04) refuses to open as /dev/stdin; and a command that ends before it has read a pipe breaks it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from gatewayd.errors import MissingPrerequisite, ReplyMissing, RulesetRefused

OLDEST_VERSION = (1, 0, 2)
TIMEOUT_S = 30.0
"""Our script takes some 10 ms; 25 ms beside a million elements. Another program's commit holds the same lock."""
KILL_TIMEOUT_S = 5.0
MAX_SAID_BYTES = 4096
"""Of what the command says; the rest is read and dropped."""
_PIPE_BYTES = 65536
_MFD_NOEXEC_SEAL = 0x8
"""include/uapi/linux/memfd.h, from 6.3 on: with the sysctl vm.memfd_noexec=2 there is no memfd without it."""
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_PATH = os.defpath + ":/usr/sbin:/sbin"


def find_nft() -> str:
    """Path of the command. Raises MissingPrerequisite."""
    path = shutil.which("nft", path=os.environ.get("PATH", "") + ":" + _PATH)
    if path is None:
        raise MissingPrerequisite("the nft command is not installed", "install the package nftables")
    return path


async def check_nft_version(nft: str) -> None:
    """Raises MissingPrerequisite for an nft too old to write our rules (masked concatenations), or of no use."""
    try:
        status, said = await _run("ask nft for its version", nft, "--version", wants_stdout=True)
    except (RulesetRefused, ReplyMissing) as error:
        raise MissingPrerequisite(f"nft is of no use ({error})", "reinstall the package nftables") from None
    match = _VERSION.search(said)
    if status != 0 or match is None or tuple(map(int, match.groups())) < OLDEST_VERSION:
        raise MissingPrerequisite(
            f"nft is {said.strip() or 'of an unknown version'}",
            "install nftables {}.{}.{} or newer".format(*OLDEST_VERSION),
        )


async def run_script(nft: str, script: str, on_started: Callable[[int], None] = lambda _: None) -> None:
    """Run `nft -f -`: all of the script or, with RulesetRefused, nothing of it.

    `on_started` is told the process id before nft has read anything. Raises ReplyMissing when nft does not come
    to an end in TIMEOUT_S; the kernel may have taken the script or not.
    """
    with _file_of(script) as file:
        status, said = await _run("replace the rules", nft, "-f", "-", stdin=file, on_started=on_started)
    if status:
        raise RulesetRefused(_why(status, said))


async def check_script(nft: str, script: str, *before: str) -> None:
    """Run `nft -c -f -`: the kernel is asked and takes nothing. Raises RulesetRefused, ReplyMissing.

    `before`: a command that runs this one, such as `unshare -Urn`.
    """
    with _file_of(script) as file:
        status, said = await _run("check the rules", *before, nft, "-c", "-f", "-", stdin=file)
    if status:
        raise RulesetRefused(_why(status, said))


def _why(status: int, said: str) -> str:
    if status < 0:
        return f"it was ended by signal {-status}"
    return said if said.strip() else f"it ended with status {status} and said nothing"


@contextmanager
def _file_of(script: str) -> Iterator[int]:
    """A descriptor of a file in memory that reads as the script. Raises RulesetRefused for want of memory or of
    descriptors."""
    with _refusing("there is no file for the script"):
        descriptor = _memory_file()
    try:
        with _refusing("the script cannot be written"), open(descriptor, "wb", closefd=False) as file:
            file.write(script.encode())
            file.seek(0)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _refusing(why: str) -> Iterator[None]:
    """An OSError in it is a RulesetRefused: memory, descriptors and processes come back, and the rules are put in
    again."""
    try:
        yield
    except OSError as error:
        raise RulesetRefused(f"{why}: {error.strerror}") from None


def _memory_file() -> int:
    try:
        return os.memfd_create("gatewayd-rules", os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create("gatewayd-rules", os.MFD_CLOEXEC)


class _Output:
    """What a command says, on a pipe of ours: it may say megabytes, and may leave a child behind that holds it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        with _refusing("there is no pipe for what nft says"):
            self._reading, self.descriptor = os.pipe()
        os.set_blocking(self._reading, False)
        self._said = bytearray()
        self._loop.add_reader(self._reading, self._take)

    def _take(self) -> None:
        # We have an end to write on too, so that there is no end of file before `close`.
        with suppress(BlockingIOError):
            self._said += os.read(self._reading, _PIPE_BYTES)[: MAX_SAID_BYTES - len(self._said)]

    def close(self) -> str:
        """All that was said, as far as it is kept, without what is not for a terminal."""
        os.close(self.descriptor)
        # What the command left in the pipe is one batch; output of its children does not keep us here.
        self._take()
        self._loop.remove_reader(self._reading)
        os.close(self._reading)
        text = self._said.decode("utf-8", "replace")
        return "".join(
            each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text
        )


async def _run(
    operation: str,
    *command: str,
    stdin: int = asyncio.subprocess.DEVNULL,
    wants_stdout: bool = False,
    on_started: Callable[[int], None] = lambda _: None,
) -> tuple[int, str]:
    """Exit status (negative: the signal) and what was said. Raises RulesetRefused when it cannot be run, and
    ReplyMissing when it does not end."""
    output = _Output()
    try:
        with _refusing(f"{command[0]} cannot be run"):  # the package may be upgraded at this moment
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin,
                stdout=output.descriptor if wants_stdout else asyncio.subprocess.DEVNULL,
                stderr=output.descriptor,
            )
        on_started(process.pid)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status = await process.wait()
        except TimeoutError:
            await _end(process)
            raise ReplyMissing(operation, f"nft did not end within {TIMEOUT_S:g} s") from None
        except asyncio.CancelledError:
            # The transaction is the kernel's or it is not; nft must not outlive us half written.
            await _end(process)
            raise
    finally:
        said = output.close()
    return status, said


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it. Inside a commit even that takes until the kernel is through; it is not waited for long."""
    with suppress(ProcessLookupError):
        process.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(KILL_TIMEOUT_S):
            await process.wait()


async def find_refusal(script: str) -> str | None:
    """Why this host's nft and kernel would refuse the script; None where they would not, or cannot be asked.

    They can without nft and without a kernel for it, and without privileges where not even a user namespace is
    allowed: such a host refuses the simplest of scripts.
    """
    try:
        nft = find_nft()
    except MissingPrerequisite:
        return None
    for before in ((), ("unshare", "-Urn")):
        try:
            await check_script(nft, "add table inet gatewayd_rehearsal\n", *before)
        except RulesetRefused:
            continue
        except ReplyMissing:
            return None
        try:
            await check_script(nft, script, *before)
        except RulesetRefused as error:
            return error.stderr.strip()
        except ReplyMissing:
            pass
        return None
    return None
