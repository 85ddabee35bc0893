"""What a run says while it goes on: each row with the time of the run and the time that it took. A row or a part
that fails ends neither the others nor the run; its name stands at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from rich.console import Console

_T = TypeVar("_T")
SLOWEST: Final = 5
"""Rows that are named at the end of a part."""


@dataclass(frozen=True, slots=True)
class Failure:
    """`part` and `row` as in the table; `why`: several lines where a log is in it."""

    part: str
    row: str
    why: str


class Progress:
    """`failures`: rows without figures, rows with a loss that could be saved, and parts that ended early."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures: list[Failure] = []
        self.console = console
        self._clock = clock
        self._began_s = clock()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What ends it is a failure."""
        began_s = self._clock()
        self._say(f"{name} begin")
        try:
            yield
        except Exception as error:
            self.fail(name, "the part", _words_of(error))
        self._say(f"{name} took {_as_time(self._clock() - began_s)}")

    def rows(self, part: str, works: Sequence[tuple[str, Callable[[], _T]]]) -> Iterator[_T]:
        """What each work returns, by the name of its row; none for one that raises."""
        took: list[tuple[float, str]] = []
        for number, (name, work) in enumerate(works, 1):
            self._say(f"{part} {number}/{len(works)} {name} ", end="")
            began_s = self._clock()
            found: list[_T] = []
            try:
                found.append(work())
            except Exception as error:
                self.console.print("fails", style="red")
                self.fail(part, name, _words_of(error))
            else:
                self.console.print(f"{self._clock() - began_s:.0f} s", style="dim", highlight=False)
            took.append((self._clock() - began_s, name))
            yield from found
        slowest = sorted(took, reverse=True)[:SLOWEST]
        if len(took) > SLOWEST:
            self._say("slowest: " + ", ".join(f"{name} {seconds:.0f} s" for seconds, name in slowest))

    def note(self, text: str, *, is_wrong: bool = False) -> None:
        self.console.print(text, style="red" if is_wrong else "dim", markup=False, highlight=False)

    def fail(self, part: str, row: str, why: str) -> None:
        self.failures.append(Failure(part, row, why))
        self.note(f"{part}, {row}: {why}", is_wrong=True)

    def end(self) -> int:
        """The exit status; says what failed."""
        self._say("all done" if not self.failures else f"{len(self.failures)} failed:")
        for each in self.failures:
            self.note(f"{each.part}, {each.row}: {each.why.splitlines()[0]}", is_wrong=True)
        return 1 if self.failures else 0

    def _say(self, text: str, end: str = "\n") -> None:
        passed = _as_time(self._clock() - self._began_s)
        self.console.print(f"{passed} {text}", style="dim", end=end, markup=False, highlight=False)


def _words_of(error: Exception) -> str:
    """With what a command printed that failed."""
    printed = getattr(error, "stderr", None)
    return f"{type(error).__name__}: {error}" + (f"\n{printed}" if isinstance(printed, str) else "")


def _as_time(seconds: float) -> str:
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"
