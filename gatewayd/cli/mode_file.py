"""The configuration file after a change of the mode: the difference, and the stage written into it."""

from __future__ import annotations

import os
from difflib import unified_diff
from pathlib import Path

from gatewayd.errors import GatewaydError
from gatewayd.filesystem import put_whole
from gatewayd.model.policy import Stage
from gatewayd.settings import read_text
from gatewayd.settings.edit import set_stage


class FileNotWritten(GatewaydError):
    """The file is as it was."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}, so the file is as it was", why)


def difference(path: str, stage: Stage) -> list[str]:
    """What `write_stage` would change, as `diff -u` says it; empty = nothing. Raises GatewaydError."""
    text = read_text(path)
    return list(_diff(text, set_stage(text, stage, path), path))


def write_stage(path: str, stage: Stage) -> list[str]:
    """Write the stage into the file, whole or not at all, with its owner and its rights; returns the difference.

    Raises GatewaydError.
    """
    text = read_text(path)
    edited = set_stage(text, stage, path)
    if edited != text:
        try:
            _put(Path(os.path.realpath(path)), edited)
        except OSError as error:
            raise FileNotWritten(path, error.strerror or str(error)) from None
    return list(_diff(text, edited, path))


def _diff(before: str, after: str, path: str) -> list[str]:
    lines = unified_diff(before.splitlines(), after.splitlines(), path, path, lineterm="", n=1)
    return list(lines)


def _put(path: Path, text: str) -> None:
    rights = path.stat()

    def keep_rights(descriptor: int) -> None:
        os.fchown(descriptor, rights.st_uid, rights.st_gid)
        os.fchmod(descriptor, rights.st_mode & 0o7777)

    put_whole(path, [text.encode()], 0o600, keep_rights)
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
