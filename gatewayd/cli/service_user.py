"""Files as the service's user finds them: `check` runs as root, which may read all, and the daemon does not.

The kernel is asked, by a shell that runs as that user (test(1): faccessat(2), so ACLs count too). Not by a fork of
this process: it has threads. Not by the modes alone: they say nothing of ACLs.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from pathlib import PurePosixPath
from typing import Final

import click

DEFAULT_USER: Final = "gatewayd"
"""`User=` of the unit."""
HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What the unit hides from the service, whatever the modes say (ProtectHome=, PrivateTmp=)."""

_ASK: Final = 'for a do if test "-${a%%/*}" "/${a#*/}"; then printf 1; else printf 0; fi; done'
"""Each argument is a letter of test(1) and an absolute path: `r/etc/file`."""


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """Whose rights count. `is_other`: not those of this process. `missing`: the user that is not there."""

    name: str
    group: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    is_other: bool
    missing: str | None = None

    def refused(self, files: Iterable[str]) -> Mapping[str, str]:
        """Why the user cannot read a file, with the cure, by path. A file that is not there is not among them."""
        steps = {file: tuple(_steps(file)) for file in dict.fromkeys(files)}
        asked = tuple(dict.fromkeys(step for each in steps.values() for step in each))
        allowed = frozenset(compress(asked, self._ask(asked)))
        found: dict[str, str] = {}
        for file, each in steps.items():
            first = next((step for step in each if step not in allowed), None)
            if self.is_other and (hidden := _hidden_by(file)) and _is_there(file):
                where = "move the file, for example below /etc/gatewayd"
                found[file] = f"the unit hides {hidden} from the service (ProtectHome=, PrivateTmp=); {where}"
            elif first is not None and _is_there(first[1:]):
                found[file] = self._why(first, file)
        return found

    def _ask(self, steps: tuple[str, ...]) -> Iterator[bool]:
        if not self.is_other:
            modes = {"r": os.R_OK, "x": os.X_OK}
            return (os.access(step[1:], modes[step[0]], effective_ids=True) for step in steps)
        ran = subprocess.run(
            ["/bin/sh", "-c", _ASK, "sh", *steps], stdout=subprocess.PIPE, check=True, cwd="/",
            user=self.uid, group=self.gid, extra_groups=self.groups,
        )  # fmt: skip
        return (answer == ord("1") for answer in ran.stdout)

    def _why(self, step: str, file: str) -> str:
        path = step[1:]
        if path != os.path.realpath(file):
            move = (
                ""
                if os.path.realpath(file).startswith("/etc/gatewayd/")
                else ", or move the file below /etc/gatewayd"
            )
            return f"user {self.name} cannot enter {path}; chmod o+x {path}{move}"
        if os.path.isdir(path):
            return f"user {self.name} cannot read it; chgrp {self.group} {path}; chmod 750 {path}"
        return f"user {self.name} cannot read it; chgrp {self.group} {path}; chmod 640 {path}"


def find_user(name: str | None) -> ServiceUser:
    """The user of that name; None: the service's where this is root, else that of this process.

    Raises click.UsageError: a user that is not there, or another one where this is not root.
    """
    own = os.geteuid()
    try:
        entry = pwd.getpwnam(name or DEFAULT_USER) if name is not None or own == 0 else None
    except KeyError:
        if name is not None:
            raise click.UsageError(f"--user: there is no user {name!r}") from None
        return _self(missing=DEFAULT_USER)
    if entry is None or entry.pw_uid == own:
        return _self()
    if own != 0:
        raise click.UsageError("--user: root alone can check what another user may read")
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return ServiceUser(entry.pw_name, _group(entry.pw_gid), entry.pw_uid, entry.pw_gid, groups, is_other=True)


def _self(missing: str | None = None) -> ServiceUser:
    uid, gid = os.geteuid(), os.getegid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return ServiceUser(name, _group(gid), uid, gid, tuple(os.getgroups()), is_other=False, missing=missing)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _steps(file: str) -> Iterator[str]:
    """What has to be allowed on the way to a file: each directory entered, and the file read."""
    real = os.path.realpath(file)
    for path in (file, real):
        yield from (f"x{directory}" for directory in reversed(PurePosixPath(path).parents))
    yield f"r{real}"
    if os.path.isdir(real):
        yield f"x{real}"


def _is_there(path: str) -> bool:
    """As far as this process can see; what it cannot see may well be there."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def _hidden_by(file: str) -> str | None:
    return next((each for each in HIDDEN if file.startswith(f"{each}/")), None)
