"""A program in a terminal of its own: a pty of a size, what came to its screen, and keys."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

PATIENCE_S = 30.0
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-_]|\][^\x07]*\x07|\([A-Z0-9])")
GATEWAYD = (sys.executable, "-m", "gatewayd")


class Terminal:
    """`raw`: all that the program has written so far."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self.raw = b""

    @property
    def text(self) -> str:
        """Without escape sequences; a screen that was drawn again is in it again."""
        return ESCAPE.sub("", self.raw.decode(errors="replace"))

    def press(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def read(self) -> bool:
        """A little more; False: the program has closed its end."""
        if not select.select([self._descriptor], [], [], 0.1)[0]:
            return True
        try:
            chunk = os.read(self._descriptor, 65536)
        except OSError:  # Linux says EIO when the last holder of the other end is gone
            return False
        self.raw += chunk
        return bool(chunk)

    def wait_for(self, what: str | Callable[[str], bool], since: int = 0) -> None:
        """`since`: so many signs of `text` are of before."""
        until = time.monotonic() + PATIENCE_S
        while not (what in self.text[since:] if isinstance(what, str) else what(self.text[since:])):
            assert time.monotonic() < until, f"not seen: {what}\n{self.text[-3000:]}"
            assert self.read() or self.process.poll() is None, f"it ended: {self.text[-3000:]}"

    def wait(self) -> int:
        """The exit status, once all was read."""
        until = time.monotonic() + PATIENCE_S
        while self.read():
            assert time.monotonic() < until, self.text[-3000:]
        return self.process.wait(PATIENCE_S)


@contextmanager
def terminal(
    program: Sequence[str], *, columns: int = 80, lines: int = 24, changed: Mapping[str, str] | None = None
) -> Generator[Terminal, None, None]:
    """`changed`: of the environment; the terminal is xterm, without a hint of its colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "CI")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    process = subprocess.Popen(
        program,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | {"TERM": "xterm"} | dict(changed or {}),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)
