"""A handler that never blocks its caller: a thread writes, and what an output does not take in time is lost.

The event loop logs. A pipe that no program reads, a stopped terminal or a full disk must not stand it.
"""

from __future__ import annotations

import logging
import queue
import threading
from abc import abstractmethod
from typing import Generic, TextIO, TypeVar

MAX_WAITING = 1000
"""Records that wait for an output; past it they are lost, and counted."""
CLOSE_S = 2.0
"""At the end, for so long the records that wait are still written."""

_Entry = TypeVar("_Entry")


class LostRecords:
    """Records that no output took, of the whole process. `total`: since the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.total = 0

    def add(self, number: int) -> None:
        with self._lock:
            self.total += number


LOST = LostRecords()


class QueuedHandler(logging.Handler, Generic[_Entry]):
    """Writes records from a thread of its own. `lost`: records that were lost since the last that was written."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.lost = 0
        self._waiting: queue.Queue[_Entry | None] = queue.Queue(MAX_WAITING)
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._write_all, name=name, daemon=True)
        self._thread.start()

    @abstractmethod
    def entry_of(self, record: logging.LogRecord) -> _Entry:
        """The record as it is written; in the caller's thread, as its fields may change later."""

    @abstractmethod
    def write(self, entry: _Entry, lost: int) -> None:
        """Blocks as long as the output does. `lost`: records before it. Raises OSError, ValueError: it is lost."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.put_nowait(self.entry_of(record))
        except queue.Full:
            self._lose(1)
        except Exception:  # as logging.StreamHandler.emit: a record that cannot be formatted is no reason to fail
            self.handleError(record)

    @property
    def is_stuck(self) -> bool:
        """The output takes nothing, and records are being lost."""
        return self._waiting.full()

    def flush(self) -> None:
        """Wait until all is written, for at most CLOSE_S."""
        done = self._waiting.all_tasks_done
        with done:
            done.wait_for(lambda: not self._waiting.unfinished_tasks, CLOSE_S)

    def close(self) -> None:
        """Write the records that wait, for at most CLOSE_S."""
        super().close()
        if self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=CLOSE_S)
            except queue.Full:
                return
            self._thread.join(CLOSE_S)

    def end(self) -> None:
        """The thread has written all; nothing comes any more."""

    def _lose(self, number: int) -> None:
        LOST.add(number)
        with self._counting:
            self.lost += number

    def _write_all(self) -> None:
        for entry in iter(self._waiting.get, None):
            with self._counting:
                lost, self.lost = self.lost, 0
            try:
                self.write(entry, lost)
            except (OSError, ValueError):
                self._lose(1)
                with self._counting:
                    self.lost += lost
            self._waiting.task_done()
        self._waiting.task_done()
        self.end()


class StreamHandler(QueuedHandler[str]):
    """Lines to a text stream; the formatter makes them."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        super().__init__("log")

    def entry_of(self, record: logging.LogRecord) -> str:
        return f"{self.format(record)}\n"

    def write(self, entry: str, lost: int) -> None:
        self.stream.write(entry)
        self.stream.flush()


def is_any_stuck() -> bool:
    """Some output takes nothing at present."""
    return any(each.is_stuck for each in logging.getLogger().handlers if isinstance(each, QueuedHandler))
