"""A progress bar for what takes more than a second, on a terminal; nothing anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE_S: Final = 1.0


class Meter:
    """Called with a step, how much of it is done and of how much (0 = not known)."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun_s = time.monotonic()
        self._bar: Progress | None = None
        self._step = ""

    def __call__(self, step: str, done: int, of: int) -> None:
        if self._bar is None:
            if not self._console.is_terminal or time.monotonic() - self._begun_s < PATIENCE_S:
                return
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
        if step != self._step:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(step, total=of or None)
            self._step = step
        self._bar.update(self._bar.task_ids[0], completed=done, total=of or None)

    def stop(self) -> None:
        """Takes the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def metered() -> Iterator[Meter]:
    """A meter on stderr, so that what is printed stays clean."""
    meter = Meter(Console(stderr=True))
    try:
        yield meter
    finally:
        meter.stop()
