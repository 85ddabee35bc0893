"""The configuration's YAML as typed values, and every fault of a file in one go.

    text ─ load ─► tree (scalars, lists, mappings, each with its place) ─ schema + readers ─► Settings

- `model`    one frozen section a class; each key declared once: default, kind, range, sentence, restart.
- `subscribers`  the sections of accounting and sessions, likewise.
- `schema`   how a key is declared; the kinds of values; the checks across keys; the keys that need a restart.
- `readers`  a document's nodes, and readers of them, which collect faults and never stop at the first.
- `values`   one scalar's text → value, or ValueError that says what is wrong.
- `load`     text → nodes → Settings, and declarations → the example file. It knows yaml, and `edit` does.
- `edit`     the mode written into the text of a file, and nothing else of it.
- here       the one shell: a path → text → Settings.

Scalars are read from their text, and not as YAML 1.1 takes them. `off` stays a word. `0xff000000` and
`"0xff000000"` are the same. `010` and `1:30` are faults rather than 8 and 90.

Review notes: has the new key a sentence that an operator understands, and the unit in its field's name? Is the
example file renewed (`gatewayd check --print-example`)? Does a fault say what is wrong *and* what is expected? Can
a value pass that a later package would have to check again? Could a fault repeat a secret? Can a reload change the
key, and if not, is it declared with `restart`?
"""

from __future__ import annotations

import errno
import os
import stat

from gatewayd.errors import SettingsInvalid
from gatewayd.settings.load import load_settings
from gatewayd.settings.model import (
    SETTINGS,
    HttpSettings,
    KernelSettings,
    PolicySettings,
    ProtectedCategory,
    RegistrySettings,
    Settings,
    ShrinkGuardSettings,
    SourceSettings,
)
from gatewayd.settings.schema import CREDENTIAL, keys_that_need_restart
from gatewayd.settings.subscribers import (
    NasSettings,
    ProfileSettings,
    RadiusClient,
    RadiusSettings,
    SubscriberSettings,
)
from gatewayd.settings.values import ListenAddress, RateLimit, RemovalLimit

__all__ = [
    "HttpSettings",
    "KernelSettings",
    "ListenAddress",
    "NasSettings",
    "PolicySettings",
    "ProfileSettings",
    "ProtectedCategory",
    "RadiusClient",
    "RadiusSettings",
    "RateLimit",
    "RegistrySettings",
    "RemovalLimit",
    "Settings",
    "ShrinkGuardSettings",
    "SourceSettings",
    "SubscriberSettings",
    "load_settings",
    "open_regular",
    "path_of_file",
    "read_settings",
    "read_text",
    "settings_that_need_restart",
]

MAX_FILE_BYTES = 1 << 20


def read_settings(path: str | os.PathLike[str]) -> Settings:
    """Settings of the file at `path`. Raises SettingsInvalid, also for a file that cannot be read."""
    return load_settings(read_text(path), os.fspath(path))


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a YAML file of at most MAX_FILE_BYTES. Raises SettingsInvalid, with the fault's place."""
    filename = os.fspath(path)
    try:
        with open(open_regular(filename), "rb") as file:
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


def path_of_file(path: str | os.PathLike[str]) -> str:
    """Of `credential:NAME`, where systemd put it for this process. Raises FileNotFoundError where it put none."""
    text = os.fspath(path)
    if not text.startswith(CREDENTIAL):
        return text
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory is None:
        raise FileNotFoundError(errno.ENOENT, "only the service has it (LoadCredential=)", text)
    return os.path.join(directory, text.removeprefix(CREDENTIAL))


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor to read from. Raises OSError, also for what is no file. O_NONBLOCK, so that a FIFO in the place
    of one does not hold the caller for ever."""
    descriptor = os.open(path_of_file(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(number, os.strerror(number) if number == errno.EISDIR else "not a regular file")


def settings_that_need_restart(old: Settings, new: Settings) -> tuple[str, ...]:
    """Keys that differ between `old` and `new` and take effect only at a restart; in the file's order.

    The kernel or other programs hold on to what they name, or all bindings were made with it.
    """
    return tuple(keys_that_need_restart(SETTINGS, old, new))
