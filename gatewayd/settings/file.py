"""IO: a path → Settings. What cannot be read is a fault like any other."""

from __future__ import annotations

import os

from gatewayd.errors import SettingsInvalid
from gatewayd.settings.load import load_settings
from gatewayd.settings.model import Settings

MAX_FILE_BYTES = 1 << 20


def read_settings(path: str | os.PathLike[str]) -> Settings:
    """Settings of the file at `path`. Raises SettingsInvalid, also for a file that cannot be read."""
    return load_settings(read_text(path), os.fspath(path))


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a YAML file of at most MAX_FILE_BYTES. Raises SettingsInvalid, with the fault's place."""
    filename = os.fspath(path)
    try:
        with open(filename, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or str(error)
        raise SettingsInvalid((f"{filename}: cannot be read: {why}, expected a YAML file",)) from None
    if len(content) > MAX_FILE_BYTES:
        what = f"is too large, expected at most {MAX_FILE_BYTES} bytes"
        raise SettingsInvalid((f"{filename}: {what}",))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        what = f"the byte 0x{content[error.start]:02x} is not UTF-8, expected UTF-8 text"
        raise SettingsInvalid((f"{filename}:{line}:{column}: (file): {what}",)) from None
