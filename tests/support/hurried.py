"""`gatewayd run` in time that passes faster: python -m tests.support.hurried CLOCK --config FILE

Both of the daemon's clocks run faster than the host's, and whatever its event loop waits for comes as much sooner:
refresh, retry, back-off, the time limits of HTTP. So an hour of the daemon's goes by in a minute with nothing left
out. CLOCK is a file, so that the test, its registry and a daemon that was killed and started again all have the
same time. Its pace can change: a night passes faster than what a person does by day.

What waits for the kernel, or only looks at it, goes by the host's time: the kernel is no faster than ever. Where
the pace changes, it goes by `kernel_factor`.
"""

from __future__ import annotations

import asyncio
import mmap
import queue  # noqa: F401 - it and threading take their clock when they are imported: the host's
import selectors
import struct
import sys
import threading  # noqa: F401
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

OF_THE_KERNEL = ("gatewayd.kernel.", "gatewayd.reconcile.", "gatewayd.daemon")
"""Every constant of such modules that is seconds goes by the host's time."""

_host_monotonic, _host_clock_gettime = time.monotonic, time.clock_gettime
_LAYOUT = struct.Struct("=QddddQ")
"""A number, `factor`, `wall`, `began`, `monotonic`, and the number again: another one while it is being written."""


class HurriedClock:
    """Unix seconds: `wall` when the host's monotonic clock showed `began`, and `factor` times as fast from then.

    `kernel_factor`: of the constants of OF_THE_KERNEL, once for the whole life of a process.
    """

    def __init__(self, path: Path, kernel_factor: float) -> None:
        self.path, self.kernel_factor = path, kernel_factor
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _LAYOUT.size)

    @classmethod
    def starting_now(cls, path: Path, factor: float, kernel_factor: float | None = None) -> HurriedClock:
        began = _host_monotonic()
        path.write_bytes(_LAYOUT.pack(0, factor, time.time(), began, began * factor, 0))
        return cls(path, factor if kernel_factor is None else kernel_factor)

    def _read(self) -> tuple[float, float, float, float]:
        while True:
            first, *values, last = _LAYOUT.unpack_from(self._shared)
            if first == last:
                factor, wall, began, monotonic = values
                return factor, wall, began, monotonic

    def _clock_gettime(self, clock: int) -> float:
        """CLOCK_MONOTONIC is asked for where the kernel's own timeouts are meant, and these are not faster."""
        return _host_clock_gettime(clock) if clock == time.CLOCK_MONOTONIC else self.monotonic()

    @property
    def factor(self) -> float:
        return self._read()[0]

    def __call__(self) -> float:
        factor, wall, began, _ = self._read()
        return wall + (_host_monotonic() - began) * factor

    def monotonic(self) -> float:
        factor, _, began, monotonic = self._read()
        return monotonic + (_host_monotonic() - began) * factor

    def pace(self, factor: float) -> None:
        """From now on, for each process that has this clock."""
        before, wall, began, monotonic = self._read()
        now = _host_monotonic()
        passed = (now - began) * before
        (number,) = struct.unpack_from("=Q", self._shared)
        values = factor, wall + passed, now, monotonic + passed
        _LAYOUT.pack_into(self._shared, 0, number + 1, *values, number)
        _LAYOUT.pack_into(self._shared, 0, number + 1, *values, number + 1)

    def sleep(self, seconds: float) -> None:
        """So many of its own."""
        time.sleep(max(0.0, seconds) / self.factor)

    def arguments(self) -> list[str]:
        """For another process, on the same host since the same boot."""
        return [f"{self.kernel_factor!r}:{self.path}"]

    def rule(self) -> None:
        """This process has no other time from now on. Before any of gatewayd is imported."""
        time.time = self
        time.time_ns = lambda: int(self() * 1e9)
        time.monotonic = self.monotonic
        time.monotonic_ns = lambda: int(self.monotonic() * 1e9)
        time.clock_gettime = self._clock_gettime


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: HurriedClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout / self._clock.factor if timeout is not None and timeout > 0 else timeout)


def hurried_loop(clock: HurriedClock) -> asyncio.AbstractEventLoop:
    """A loop of a process in which the clock rules: its time is `time.monotonic`."""
    return asyncio.SelectorEventLoop(_Selector(clock))


def main(arguments: list[str]) -> None:
    place, option, path = arguments
    assert option == "--config"
    kernel_factor, _, file = place.partition(":")
    clock = HurriedClock(Path(file), float(kernel_factor))
    clock.rule()
    from gatewayd.daemon import run_daemon
    from gatewayd.settings import read_settings

    for module in [module for name, module in sys.modules.items() if name.startswith(OF_THE_KERNEL)]:
        for constant in [name for name in vars(module) if name.isupper() and name.endswith("_S")]:
            setattr(module, constant, getattr(module, constant) * clock.kernel_factor)

    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=lambda: hurried_loop(clock)) as runner:
            runner.run(work)

    run_daemon(read_settings(path), Path(path), run)


if __name__ == "__main__":
    main(sys.argv[1:])
