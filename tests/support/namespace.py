"""One anonymous network namespace for a test that wants a real kernel.

It needs no name, no directory and no process of its own: a thread that ends at once makes it and an open
descriptor keeps it. Works as root and under `unshare -Urn`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import pytest

CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40
_OWN_NAMESPACE = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


class Namespace:
    """A fresh network namespace with `lo` up. Sockets made inside `entered()` stay in it for good.

    Raises OSError (EPERM) where the caller may not make one. Close it, or use it in `with`.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        failures: list[OSError] = []

        def make() -> None:
            try:
                _check(_libc.unshare(CLONE_NEWNET), "unshare")
                self._descriptor = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    request = struct.pack("16sH14x", b"lo", _IFF_UP | _IFF_RUNNING)
                    fcntl.ioctl(probe.fileno(), _SIOCSIFFLAGS, request)
            except OSError as error:
                failures.append(error)

        maker = threading.Thread(target=make)
        maker.start()
        maker.join()
        if failures:
            self.close()
            raise failures[0]

    @property
    def path(self) -> str:
        """For `nsenter --net=` and `ip link set … netns`, as long as this object is open."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in the namespace until the block ends; never await inside."""
        back = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(self._descriptor, CLONE_NEWNET), "setns")
            try:
                yield
            finally:
                _check(_libc.setns(back, CLONE_NEWNET), "setns back")
        finally:
            os.close(back)

    def run(self, command: Sequence[str], stdin: str = "", timeout_s: float = 30) -> str:
        """Standard output of a command run inside. Raises CalledProcessError with its standard error."""
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *command],
            input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def nft(self, script: str) -> None:
        """Apply an nft script inside, in one transaction."""
        self.run(["nft", "-f", "-"], stdin=script)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Namespace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def namespace_or_skip(*scripts: str) -> Namespace:
    """A namespace in which each nft script has been applied, or pytest.skip with what is missing."""
    try:
        namespace = Namespace()
    except OSError as error:
        pytest.skip(f"cannot make a network namespace: {error}")
    try:
        for script in scripts:
            namespace.nft(script)
    except (AssertionError, OSError) as error:
        namespace.close()
        pytest.skip(f"nft in a namespace does not work here: {error}")
    return namespace
