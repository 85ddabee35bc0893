"""A place that reads bytes of the world, and the rules for what may come out of it."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

CORPUS = Path(__file__).parent / "corpus"
MAX_CPU_S = 20.0
"""Of one input; usual is a thousandth. Processor time, so a busy machine is no fault."""
MAX_MEMORY_BYTES = 768 << 20
"""More than the process had before."""
MAX_LINE = 2048
"""Characters of a line of an error's message. Settings and overrides list all their faults, one a line."""

NUMBER = "923009876543"
NAME = "Zulaikha Bano"
"""Planted in seeds where identity may stand; in no message. One word of a name alone may be an id, or a field."""


class TooLong(BaseException):
    """No handler of the code under test takes it for an error of its own."""


@dataclass(frozen=True)
class Finding:
    """Why an input broke a rule, in one line, the same for the same fault."""

    target: str
    why: str
    raw: bytes


@dataclass(frozen=True)
class Target:
    """`run` is fed, and checks for itself what must hold of a result (AssertionError). `errors`: all that it may
    raise. `words`: put into inputs. `cost`: of one execution, where 1 is 100 µs; the bounded round has fewer of
    what costs more."""

    name: str
    run: Callable[[bytes], None]
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], Sequence[bytes]]
    words: tuple[bytes, ...] = ()
    cost: float = 1.0

    def corpus(self, *more: Path) -> list[bytes]:
        """Seeds, and the files kept for it here and in other directories."""
        found = dict.fromkeys(self.seeds())
        for directory in (CORPUS, *more):
            found.update(dict.fromkeys(path.read_bytes() for path in sorted((directory / self.name).glob("*"))))
        return list(found)

    def execute(self, raw: bytes) -> Finding | None:
        """None, or the rule that `raw` broke."""
        try:
            with bounded_time():
                self.run(raw)
        except self.errors as error:
            return self._judge_message(str(error), raw)
        except TooLong:
            return Finding(self.name, f"more than {MAX_CPU_S:g} s of processor time", raw)
        except MemoryError:
            return Finding(self.name, "more memory than there is for it", raw)
        except Exception as error:
            said = f": {error}" if isinstance(error, AssertionError) and error.args else ""
            return Finding(self.name, f"{type(error).__name__} {_place_of(error)}{said}"[:200], raw)
        return None

    def _judge_message(self, text: str, raw: bytes) -> Finding | None:
        why = fault_of_message(text)
        return None if why is None else Finding(self.name, why, raw)


def fault_of_message(text: str) -> str | None:
    """None, or why people should not see it."""
    lines = text.split("\n")
    if max(map(len, lines)) > MAX_LINE:
        return "a message without a bound"
    if not all(line.isprintable() for line in lines):
        return "raw bytes in a message"
    if f"+{NUMBER}" in text or NAME in text:
        return "identity in a message"
    return None


def _place_of(error: BaseException) -> str:
    """The innermost line of ours, or of a target's check."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/gatewayd/" in file or "/tests/fuzz/" in file:
            place = f"{Path(file).name}:{trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return place


@contextmanager
def bounded_time() -> Iterator[None]:
    """Raises TooLong in the main thread, where signals arrive; elsewhere there is no bound."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def bounded_memory() -> Iterator[None]:
    """MemoryError where the address space grows past MAX_MEMORY_BYTES more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MAX_MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
