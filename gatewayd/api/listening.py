"""The sockets of the two listeners, bound. The file system says who may connect to the Unix socket."""

from __future__ import annotations

import errno
import os
import socket  # noqa: TID251 - binding is all this module is for
import stat
from pathlib import Path
from typing import Final

from gatewayd.errors import MissingPrerequisite
from gatewayd.listen.ahead import bind_ahead

SOCKET_MODE: Final = 0o660
_BACKLOG: Final = 128


def bind_tcp(host: str, port: int) -> socket.socket | None:
    """A bound socket, listening; None where another program has the port. `host` is an IP address. Raises
    MissingPrerequisite."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bind_ahead(listener, host, port)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            return None
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise MissingPrerequisite(f"cannot listen on {shown}: {_why(error)}", "change http.listen") from None
    listener.setblocking(False)
    return listener


def bind_unix(path: Path) -> socket.socket:
    """A bound socket of mode SOCKET_MODE, listening. One that nobody answers on is replaced. Raises
    MissingPrerequisite."""
    if not path.parent.is_dir():
        raise MissingPrerequisite(
            f"the directory {path.parent} of the socket {path} does not exist",
            "create it (systemd: RuntimeDirectory=) or change http.socket",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        # Before anyone can connect: until `listen` a connection is refused.
        path.chmod(SOCKET_MODE)
        listener.setblocking(False)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise MissingPrerequisite(
            f"cannot listen on {path}: {_why(error)}", "mend it or change http.socket"
        ) from None
    except MissingPrerequisite:
        listener.close()
        raise
    return listener


def identity_of(path: Path) -> tuple[int, int] | None:
    """Tells a file from its successor of the same name; None where there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remove_stale(path: Path) -> None:
    """Take away a socket left behind by a daemon that is gone; never one that is answered, nor another file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise MissingPrerequisite(f"{path} exists and is not a socket", "move it away or change http.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its backlog is full: a program is there
    raise MissingPrerequisite(
        f"another program (perhaps another gatewayd) answers on {path}", "stop it or change http.socket"
    )


def _why(error: OSError) -> str:
    """asyncio and `bind` make errors without an errno too (a path too long for sun_path)."""
    return os.strerror(error.errno) if error.errno else str(error)
