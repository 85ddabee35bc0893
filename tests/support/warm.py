"""Interpreters that have imported gatewayd already: a daemon or a command of the lab begins in milliseconds.

Half of the processor time of the lab's tests was Python that imports the same modules again. One process for each
worker of pytest imports them once, in a single thread, and forks for each daemon: the fork enters the namespace and
runs the same `main` with the same words, standard streams and working directory. What a fork cannot have (another
environment, a wrapper before it) goes the long way, and so do demo, soak, bench and the booted hosts.

`python -m tests.support.warm NUMBER` is that process; NUMBER is its end of the socket.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import IO, Final, NoReturn

import msgspec

from gatewayd.lab.namespace import enter

ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAX_MESSAGE: Final = 65_536
PR_SET_PDEATHSIG: Final = 1
"""include/uapi/linux/prctl.h."""


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Come with it: the namespace, and what becomes descriptors 0, 1 and 2."""

    arguments: tuple[str, ...]
    directory: str
    environment: dict[str, str]


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """How did this one end? The answer is null while it runs."""

    pid: int


_Request = Start | Ask


class WarmProcess:
    """As much of subprocess.Popen as the lab uses."""

    def __init__(self, starter: Starter, pid: int, arguments: Sequence[str]) -> None:
        self._starter, self.pid, self.args = starter, pid, tuple(arguments)
        self._ends = os.pidfd_open(pid)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._starter.ask(Ask(self.pid))
            if self.returncode is not None:
                os.close(self._ends)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        if self.poll() is None:
            select.select([self._ends], [], [], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        # The number of a process is its own until `poll` has taken its end.
        if self.poll() is None:
            os.kill(self.pid, number)


class Starter:
    """The process that forks. It ends, and its children with it, when this one does."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
            )

    def ask(self, request: _Request, descriptors: Sequence[int] = ()) -> int | None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._socket.sendmsg([msgspec.json.encode(request)], rights)
        return msgspec.json.decode(self._socket.recv(MAX_MESSAGE), type=int | None)

    def start(
        self,
        namespace: int,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
    ) -> WarmProcess:
        """`gatewayd ARGUMENTS...` in the namespace of this descriptor, with nothing to read."""
        outputs = [each if isinstance(each, int) else each.fileno() for each in (stdout, stderr)]
        with open(os.devnull, "rb") as nothing:
            request = Start(tuple(arguments), os.getcwd(), dict(environment))
            pid = self.ask(request, [namespace, nothing.fileno(), *outputs])
        assert pid is not None
        return WarmProcess(self, pid, arguments)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


_starters: list[Starter] = []


def can_be_warm(environment: Mapping[str, str]) -> bool:
    """Whether this environment says nothing to the loader or to the interpreter that it does not say here."""
    names = {name for name in {*environment, *os.environ} if name.startswith(("LD_", "PYTHON", "LANG", "LC_"))}
    return all(environment.get(name) == os.environ.get(name) for name in names)


def starter() -> Starter:
    """Of this process; begun at the first question."""
    if not _starters:
        _starters.append(Starter())
        atexit.register(_starters[0].close)
    return _starters[0]


def run_warm(namespace: int, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A command to its end, with its output."""
    with os.fdopen(os.memfd_create("stdout"), "w+b") as out, os.fdopen(os.memfd_create("stderr"), "w+b") as errors:
        status = starter().start(namespace, arguments, os.environ, stdout=out, stderr=errors).wait()
        texts = []
        for each in (out, errors):
            each.seek(0)
            texts.append(each.read().decode())
    return subprocess.CompletedProcess(["gatewayd", *arguments], status, *texts)


# -- the process that forks ----------------------------------------------------------------------------------------


def _serve(control: socket.socket) -> None:
    from gatewayd.cli import COMMANDS, main

    for name in COMMANDS:
        main.get_command(None, name)  # type: ignore[arg-type]
    for name in ("gatewayd.daemon", "uvloop"):
        import_module(name)
    gc.collect()
    gc.freeze()
    ended: dict[int, int] = {}
    while message := control.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(4 * 4))[:2]:
        payload, rights = message
        if not payload:
            return
        descriptors = array.array("i")
        for _, _, words in rights:
            descriptors.frombytes(words)
        request = msgspec.json.decode(payload, type=_Request)
        answer: int | None
        if isinstance(request, Start):
            answer = os.fork()
            if answer == 0:
                _become(request, list(descriptors), control)
        else:
            _reap(ended)
            answer = ended.pop(request.pid, None)
        for each in descriptors:
            os.close(each)
        control.send(msgspec.json.encode(answer))


def _reap(ended: dict[int, int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        ended[pid] = os.waitstatus_to_exitcode(status)


def _become(request: Start, descriptors: list[int], control: socket.socket) -> NoReturn:
    """The process that was asked for; as `python -m gatewayd` from there on."""
    from gatewayd.cli import main

    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        control.close()
        namespace, *streams = descriptors
        enter(namespace)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, 256)
        # As the interpreter makes them: those from before know what their descriptors were.
        for name, number in (("stdout", 1), ("stderr", 2)):
            old = getattr(sys, name)
            new = TextIOWrapper(os.fdopen(number, "wb", 0), old.encoding, old.errors, write_through=True)
            setattr(sys, name, new)
        os.chdir(request.directory)
        os.environ.clear()
        os.environ.update(request.environment)
        sys.argv = ["gatewayd", *request.arguments]
        time.tzset()
        main(list(request.arguments), prog_name="python -m gatewayd")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    # Who interrupts the tests ends the worker, and so this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(socket.socket(fileno=int(sys.argv[1])))
