"""IO: files with secrets: the pepper of the numbers, and what is shared with a RADIUS client.

No message repeats anything of what is in a file.
"""

from __future__ import annotations

import codecs
import ctypes
import os
import stat
from typing import Final

from gatewayd.errors import MissingPrerequisite, PepperUnusable, SecretFileUnusable
from gatewayd.model.msisdn import pepper_of
from gatewayd.settings import open_regular

_PR_SET_DUMPABLE: Final = 4


def forbid_core_dumps() -> None:
    """For this process, from now on: not even to a program that collects them, which RLIMIT_CORE does not stop
    (prctl(2) PR_SET_DUMPABLE, core(5)). Nor can another process of the same user read its memory (ptrace(2)).

    Raises MissingPrerequisite where the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        why = os.strerror(ctypes.get_errno())
        raise MissingPrerequisite(f"core dumps cannot be turned off ({why})", "allow prctl in the sandbox")


MAX_FILE_BYTES: Final = 64 * 1024
MAX_SECRET_BYTES: Final = 253
"""No RFC has a bound. What is longer is hardly a secret that a NAS takes."""
MAX_SECRETS: Final = 8
"""Of one client. Each is tried on a packet that fits none, and anyone can send such packets."""

_BLANKS: Final = b" \t\r"
_COMMENT: Final = b"#"


def read_pepper(path: str | os.PathLike[str]) -> bytes:
    """The pepper, as `gatewayd registry --pepper-file` takes it from the same file. Blocking.

    Raises SecretFileUnusable.
    """
    try:
        return pepper_of(_read(path))
    except PepperUnusable as error:
        raise SecretFileUnusable(os.fspath(path), str(error)) from None


def read_secrets(path: str | os.PathLike[str]) -> tuple[bytes, ...]:
    """One secret a line, in order, without repeats, 1..MAX_SECRETS. Blocking. Raises SecretFileUnusable.

    Blanks around a secret are not part of it. Empty lines and lines that begin with # are left out, so no secret
    can begin with #.
    """
    secrets: dict[bytes, None] = {}
    lines = _read(path).removeprefix(codecs.BOM_UTF8).split(b"\n")
    for number, line in enumerate(lines, 1):
        secret = line.strip(_BLANKS)
        if not secret or secret.startswith(_COMMENT):
            continue
        if len(secret) > MAX_SECRET_BYTES:
            raise SecretFileUnusable(os.fspath(path), f"line {number} is longer than {MAX_SECRET_BYTES} bytes")
        if any(byte < 0x20 or byte == 0x7F for byte in secret):
            raise SecretFileUnusable(os.fspath(path), f"line {number} has control characters")
        secrets[secret] = None
    if not secrets:
        raise SecretFileUnusable(os.fspath(path), "holds no secret; a line that begins with # is a comment")
    if len(secrets) > MAX_SECRETS:
        raise SecretFileUnusable(os.fspath(path), f"holds {len(secrets)} secrets, more than {MAX_SECRETS}")
    return tuple(secrets)


def is_exposed(path: str | os.PathLike[str]) -> bool:
    """Whether every user of this host may read or change the file. False where it is not there to be asked."""
    try:
        return bool(os.stat(path).st_mode & (stat.S_IROTH | stat.S_IWOTH))
    except (OSError, ValueError):
        return False


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(open_regular(path), "rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise SecretFileUnusable(os.fspath(path), getattr(error, "strerror", None) or str(error)) from None
    if len(raw) > MAX_FILE_BYTES:
        raise SecretFileUnusable(os.fspath(path), f"is larger than {MAX_FILE_BYTES} bytes")
    return raw
