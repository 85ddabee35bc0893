"""The `nft` command: the few rules go to the kernel as readable text, in one transaction (DESIGN §4)."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from contextlib import suppress

from gatewayd.errors import MissingPrerequisite, RulesetRefused

OLDEST_VERSION = (1, 0, 2)
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


async def run_script(nft: str, script: str) -> None:
    """Run `nft -f -`: all of the script or, with RulesetRefused, nothing of it."""
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
    try:
        _, stderr = await process.communicate(script.encode())
    except asyncio.CancelledError:
        # The transaction is the kernel's or it is not; nft must not outlive us half written.
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RulesetRefused(stderr.decode("utf-8", "replace"))
