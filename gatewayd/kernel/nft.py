"""The `nft` command: the few rules go to the kernel as readable text, in one transaction (DESIGN §4)."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress

from gatewayd.errors import MissingPrerequisite, ReplyMissing, RulesetRefused

OLDEST_VERSION = (1, 0, 2)
TIMEOUT_S = 30.0
"""Our script takes some 10 ms; 25 ms beside a million elements. Another program's commit holds the same lock."""
KILL_TIMEOUT_S = 5.0
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_PATH = os.defpath + ":/usr/sbin:/sbin"


def find_nft() -> str:
    """Path of the command. Raises MissingPrerequisite."""
    path = shutil.which("nft", path=os.environ.get("PATH", "") + ":" + _PATH)
    if path is None:
        raise MissingPrerequisite("the nft command is not installed", "install the package nftables")
    return path


async def check_nft_version(nft: str) -> None:
    """Raises MissingPrerequisite for an nft too old to write our rules (masked concatenations)."""
    process = await asyncio.create_subprocess_exec(nft, "--version", stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    match = _VERSION.search(output.decode("utf-8", "replace"))
    if match is None or tuple(map(int, match.groups())) < OLDEST_VERSION:
        raise MissingPrerequisite(
            f"nft is {output.decode('utf-8', 'replace').strip() or 'of an unknown version'}",
            "install nftables {}.{}.{} or newer".format(*OLDEST_VERSION),
        )


async def run_script(nft: str, script: str, on_started: Callable[[int], None] = lambda _: None) -> None:
    """Run `nft -f -`: all of the script or, with RulesetRefused, nothing of it.

    `on_started` is told the process id before nft has read anything. Raises ReplyMissing when nft does not come
    to an end in TIMEOUT_S; the kernel may have taken the script or not.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            nft,
            "-f",
            "-",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        # The package may be upgraded, or memory short, at this moment.
        raise RulesetRefused(f"{nft} cannot be run: {error.strerror}") from None
    on_started(process.pid)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, stderr = await process.communicate(script.encode())
    except TimeoutError:
        await _end(process)
        raise ReplyMissing("replace the rules", f"nft did not end within {TIMEOUT_S:g} s") from None
    except asyncio.CancelledError:
        # The transaction is the kernel's or it is not; nft must not outlive us half written.
        await _end(process)
        raise
    if process.returncode:
        raise RulesetRefused(stderr.decode("utf-8", "replace"))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it. Inside a commit even that takes until the kernel is through; it is not waited for long."""
    with suppress(ProcessLookupError):
        process.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(KILL_TIMEOUT_S):
            await process.wait()
