"""What the figures were taken on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.row import Machine

_PROGRAMS = {
    "nft": ["nft", "--version"],
    "ipset": ["ipset", "--version"],
    "freeradius": ["freeradius", "-v"],
    "gcc": ["gcc", "-dumpfullversion"],
}


def describe_machine(written: Sequence[str] = ()) -> Machine:
    """`written`: files of the repository, and directories, in which a change makes the commit no other."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {"python": platform.python_version(), "pyrad": importlib.metadata.version("pyrad")}
    for name, command in _PROGRAMS.items():
        if shutil.which(command[0]) is not None:
            text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            found = re.search(r"\d+(\.\d+)+", text)
            versions[name] = found[0] if found else "?"
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        processor=model[1] if model else platform.machine(),
        memory_gib=round(memory, 1),
        kernel=platform.release(),
        versions=versions,
        taken_at=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        commit=_commit(written),
    )


def _commit(written: Sequence[str]) -> str:
    changes = [
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        *(f":(exclude){each}" for each in written),
    ]
    return _git("describe", "--always") + ("-dirty" if _git(*changes) else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()
