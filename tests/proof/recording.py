"""A directory as it was after each write of a process: what a disk may hold when the power goes."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.support.background import Background

# include/uapi/linux/inotify.h
IN_NONBLOCK: Final = os.O_NONBLOCK
IN_CHANGES: Final = 0x2 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200
"""Modified, closed after writing, moved from and to, created, deleted."""
MAX_STATES: Final = 1000

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class State:
    """A copy of the directory, as it was at `taken_s` (monotonic). `torn`: the file with half a write."""

    path: Path
    taken_s: float
    torn: str = ""


class Recorder(Background):
    """Copies `watched`, and the directories in it, into `copies` at each change by the process `pid`, which stands
    still meanwhile. Use `with`; then `states` are all."""

    def __init__(self, watched: Path, copies: Path, pid: int) -> None:
        super().__init__("recorder")
        self.states: list[State] = []
        self._watched, self._copies = watched, copies
        copies.mkdir()
        self._changes = _libc.inotify_init1(IN_NONBLOCK)
        assert self._changes >= 0, os.strerror(ctypes.get_errno())
        for each in (watched, *(path for path in watched.iterdir() if path.is_dir())):
            assert _libc.inotify_add_watch(self._changes, os.fsencode(each), IN_CHANGES) >= 0
        self._process = os.pidfd_open(pid)
        self._pid = pid
        self._following = threading.Lock()
        self._last: object = None

    def follow(self, pid: int) -> None:
        """Another process writes there from now on."""
        with self._following:
            os.close(self._process)
            self._process, self._pid = os.pidfd_open(pid), pid

    def _run(self) -> None:
        while not self._stopping.is_set():
            if select.select([self._changes], [], [], 0.02)[0]:
                with self._following:
                    self._take()

    def _take(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGSTOP)
            self._wait_still()
        try:
            with suppress(BlockingIOError):
                while os.read(self._changes, 1 << 16):
                    pass
            found = _look(self._watched)
            if found != self._last and len(self.states) < MAX_STATES:
                self._last = found
                path = self._copies / f"{len(self.states):04}"
                shutil.copytree(self._watched, path)
                self.states.append(State(path, time.monotonic()))
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGCONT)

    def _wait_still(self) -> None:
        """Until each thread has stopped, or is gone."""
        while any(state not in "TtZX" for state in _states_of(self._pid)):
            time.sleep(0.0005)

    def _close(self) -> None:
        os.close(self._changes)
        os.close(self._process)


def _states_of(pid: int) -> Iterator[str]:
    """Of its threads: proc_pid_stat(5)."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for each in os.listdir(f"/proc/{pid}/task"):
            with suppress(FileNotFoundError, ProcessLookupError):
                yield Path(f"/proc/{pid}/task/{each}/stat").read_text().rpartition(")")[2].split()[0]


def _look(directory: Path) -> list[tuple[str, int, int]]:
    found = []
    for path in sorted(directory.rglob("*")):
        status = path.stat()
        found.append((str(path), status.st_size, status.st_mtime_ns))
    return found


def torn(states: list[State], copies: Path) -> Iterator[State]:
    """States in which the last write of a log of SQLite came to the disk in part: it ends in the middle of what is
    new, or its second half is zeros. Nothing of such a write was acknowledged."""
    copies.mkdir()
    numbers = iter(range(1 << 30))
    for before, after in pairwise(states):
        for path in after.path.rglob("*-wal"):
            name = path.relative_to(after.path)
            former = before.path / name
            size, new_size = former.stat().st_size if former.exists() else 0, path.stat().st_size
            if new_size <= size:
                continue
            raw, middle = path.read_bytes(), (size + new_size) // 2
            for content in (raw[:middle], raw[:middle] + bytes(new_size - middle)):
                target = copies / f"{next(numbers):04}"
                shutil.copytree(after.path, target)
                (target / name).write_bytes(content)
                yield State(target, after.taken_s, str(name))
