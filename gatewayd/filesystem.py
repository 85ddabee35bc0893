"""Files that are opened and put in place whatever lies there: a link, a pipe, a device, a directory.

Such a thing comes from an operator's mistake, or from a user who may write to the directory: `--html FILE` of root
in /tmp. What a link leads to stays as it is, a pipe holds no call up, and a file is whole or as it was. Its
directory decides who may do more: a user who may write there can remove what was written.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

_PERMISSIONS = 0o777


def open_ours(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """A descriptor of a file that this program wrote, or is to begin with O_CREAT. Raises OSError, also for a link
    and for what is no file. O_NONBLOCK, so that a pipe does not hold the caller."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_ours(path: Path) -> bytes:
    """All of a file that this program wrote. Raises OSError as `open_ours`."""
    with open(open_ours(path), "rb") as file:
        return file.read()


def create_new(path: Path, mode: int) -> int:
    """A descriptor to write a new file of this mode (umask(2) applies). What a former attempt left is removed.
    Raises OSError."""
    with suppress(OSError):
        os.unlink(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def refuse_other(path: Path) -> os.stat_result | None:
    """What is at `path`; None: nothing. Raises OSError where it is no regular file: a rename would take the place
    of /dev/stdout."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, "is a symbolic link, name the file that it leads to", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return found


def write_output(path: Path, pieces: Iterable[bytes]) -> None:
    """A file for an operator, whole or as it was. One of his own keeps its permissions. Raises OSError, also for
    what is no regular file."""
    former = refuse_other(path)

    def keep_permissions(descriptor: int) -> None:
        if former is not None and former.st_uid == os.geteuid():
            os.fchmod(descriptor, former.st_mode & _PERMISSIONS)

    put_whole(path, pieces, 0o666, keep_permissions)


def put_whole(path: Path, pieces: Iterable[bytes], mode: int, prepare: Callable[[int], None]) -> None:
    """In the place of `path`, or not at all. `prepare`: the descriptor of the new file, before its content. Raises
    OSError, and as `prepare` and `pieces`."""
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")
    descriptor = create_new(temporary, mode)
    try:
        with open(descriptor, "wb") as file:
            prepare(descriptor)
            file.writelines(pieces)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def is_strange_link(path: Path) -> bool:
    """Whether a symbolic link is there that belongs to another user: not root, not this one, not the owner of the
    directory. An operator may have put a file elsewhere, on another disk, by a link."""
    try:
        found, directory = path.lstat(), path.parent.stat()
    except OSError:
        return False
    return stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid(), directory.st_uid)
