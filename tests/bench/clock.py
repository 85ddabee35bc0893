"""Times and peaks of what runs."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK_EVERY_S = 0.01
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)
"""proc(5). Not getrusage(2): its peak counts what the process was before execve(2)."""


class Stopwatch:
    """Seconds since it was made, or since `lap` was asked the last time."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        took_s, self._started = now - self._started, now
        return took_s


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended well: how long it took, and its resident memory at its highest."""

    took_s: float
    peak_mb: float


def run_command(command: Sequence[str], stdin: Path | None = None) -> Ran:
    """Raises RuntimeError with its last words if it does not exit 0."""
    watch = Stopwatch()
    peak = 0.0
    with (stdin or Path("/dev/null")).open("rb") as source:
        child = subprocess.Popen(command, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while True:
        peak = max(peak, peak_mb(child.pid))
        try:
            _, words = child.communicate(timeout=_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            continue
        took_s = watch.lap()
        if child.returncode != 0:
            last = words.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
            raise RuntimeError(f"{command[0]} exits {child.returncode}: {last[0][:200]}")
        return Ran(took_s, peak)


def peak_mb(process: int | str = "self") -> float:
    """Resident memory of a process at its highest, 10^6 bytes; 0 if it has ended."""
    try:
        found = _PEAK.search(Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` (0..1) of all are not above."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(part * len(ranked)))]
