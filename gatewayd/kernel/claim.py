"""One daemon keeps a table: the lock that tells it from a second one, which would undo what the first does.

A table belongs to a network namespace, so the file is named for both. It is locked (flock(2)) and not only there:
the lock goes with the process, however that ends, and a file that stays behind is locked again. In the directory
no other user can make, lock or replace files.

A child that a daemon forked just before it was killed has the lock, and all sockets, until it becomes nft. So the
next daemon waits for the lock of a process that is gone: with it, the group of the log and the ports are free too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gatewayd.errors import MissingPrerequisite

RUNTIME_DIRECTORY: Final = "/run/gatewayd"
"""The unit's RuntimeDirectory=."""
_NAMESPACE: Final = "/proc/self/ns/net"
_ATTEMPTS: Final = 10
_PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 0.02
_HINT: Final = "stop it first (systemctl stop gatewayd)"


@contextmanager
def claimed_table(table: str, fallback: Path, directory: Path = Path(RUNTIME_DIRECTORY)) -> Iterator[None]:
    """The table of this network namespace is ours. `fallback`: the directory where `directory` cannot be had, for a
    user who may not write there.

    Raises MissingPrerequisite: another daemon has it, or the directory is not safe.
    """
    place = _made(directory, fallback)
    name = f"{table}-{os.stat(_NAMESPACE).st_ino}.lock"
    handle = _open_directory(place)
    try:
        lock = _lock(handle, name, place, table)
        try:
            yield
        finally:
            os.unlink(name, dir_fd=handle)
            os.close(lock)
    finally:
        os.close(handle)


def _made(directory: Path, fallback: Path) -> Path:
    try:
        directory.mkdir(mode=0o750)
    except FileExistsError:
        pass
    except OSError:
        return fallback
    return directory if os.access(directory, os.W_OK | os.X_OK, effective_ids=True) else fallback


def _open_directory(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise MissingPrerequisite(
            f"the directory {path} cannot be used: {error.strerror}", "create it (systemd: RuntimeDirectory=)"
        ) from None
    found = os.fstat(handle)
    # root may work in the directory of the service's user; that user trusts root and itself.
    is_trusted = os.geteuid() == 0 or found.st_uid in (0, os.geteuid())
    if not is_trusted or found.st_mode & stat.S_IWOTH:
        os.close(handle)
        why = "every user may write to it" if is_trusted else "it belongs to another user"
        raise MissingPrerequisite(f"the directory {path} of the lock is not safe: {why}", "give it mode 0750")
    return handle


def _lock(directory: int, name: str, place: Path, table: str) -> int:
    """The locked file, which is the one of that name: a daemon that ends removes it between our two steps."""
    deadline = time.monotonic() + _PATIENCE_S
    for _ in range(_ATTEMPTS):
        lock = _open(directory, name, place)
        while not _is_taken(lock):
            owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
            if not _is_gone(owner) or time.monotonic() > deadline:
                os.close(lock)
                process = f" (process {owner})" if owner.isdigit() else ""
                raise MissingPrerequisite(f"another gatewayd keeps table inet {table}{process}", _HINT)
            time.sleep(_PAUSE_S)
        if _is_still(lock, directory, name):
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            return lock
        os.close(lock)
    raise MissingPrerequisite(f"another gatewayd keeps table inet {table}", _HINT)


def _is_taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_gone(owner: str) -> bool:
    """Whether the process with this number has ended. One whose number is not known has not."""
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError, PermissionError):
        pass
    return False


def _open(directory: int, name: str, place: Path) -> int:
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode=0o600, dir_fd=directory)
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be opened: {error.strerror}"
        raise MissingPrerequisite(f"{place / name} {why}", "remove it if no gatewayd runs") from None
    if os.geteuid() == 0:
        # What root leaves behind (kill -9) must not keep the service's user out.
        owner = os.fstat(directory)
        os.fchown(lock, owner.st_uid, owner.st_gid)
    return lock


def _is_still(lock: int, directory: int, name: str) -> bool:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(lock))
