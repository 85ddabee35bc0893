"""`gatewayd run` in time that passes faster: python -m tests.support.hurried FACTOR WALL MONOTONIC --config FILE

Both of the daemon's clocks run FACTOR times as fast as the host's from one moment on, and whatever its event loop
waits for comes as much sooner: refresh, retry, back-off, the time limits of HTTP. So an hour of the daemon's goes
by in a minute with nothing left out. The moment is an argument, so that the test, its registry and a daemon that
was killed and started again all have the same time.

What waits for the kernel, or only looks at it, goes by the host's time: the kernel is no faster than ever.
"""

from __future__ import annotations

import asyncio
import queue  # noqa: F401 - it and threading take their clock when they are imported: the host's
import selectors
import sys
import threading  # noqa: F401
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OF_THE_KERNEL = ("gatewayd.kernel.", "gatewayd.reconcile.", "gatewayd.daemon")
"""Every constant of such modules that is seconds goes by the host's time."""

_host_monotonic = time.monotonic


@dataclass(frozen=True, slots=True)
class HurriedClock:
    """Unix seconds: `wall` when the host's monotonic clock showed `began`, and `factor` times as fast from then."""

    factor: float
    wall: float
    began: float

    @classmethod
    def starting_now(cls, factor: float) -> HurriedClock:
        return cls(factor, time.time(), _host_monotonic())

    def __call__(self) -> float:
        return self.wall + (_host_monotonic() - self.began) * self.factor

    def monotonic(self) -> float:
        return _host_monotonic() * self.factor

    def sleep(self, seconds: float) -> None:
        """So many of its own."""
        time.sleep(max(0.0, seconds) / self.factor)

    def arguments(self) -> list[str]:
        """For another process, on the same host since the same boot."""
        return [repr(self.factor), repr(self.wall), repr(self.began)]

    def rule(self) -> None:
        """This process has no other time from now on. Before any of gatewayd is imported."""
        time.time = self
        time.time_ns = lambda: int(self() * 1e9)
        time.monotonic = self.monotonic
        time.monotonic_ns = lambda: int(self.monotonic() * 1e9)
        time.clock_gettime = lambda _: self.monotonic()  # only CLOCK_BOOTTIME is asked for


class _Selector(selectors.DefaultSelector):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout / self._factor if timeout is not None and timeout > 0 else timeout)


def hurried_loop(clock: HurriedClock) -> asyncio.AbstractEventLoop:
    """A loop of a process in which the clock rules: its time is `time.monotonic`."""
    return asyncio.SelectorEventLoop(_Selector(clock.factor))


def main(arguments: list[str]) -> None:
    factor, wall, monotonic, option, path = arguments
    assert option == "--config"
    clock = HurriedClock(float(factor), float(wall), float(monotonic))
    clock.rule()
    from gatewayd.daemon import run_daemon
    from gatewayd.settings import read_settings

    for module in [module for name, module in sys.modules.items() if name.startswith(OF_THE_KERNEL)]:
        for constant in [name for name in vars(module) if name.isupper() and name.endswith("_S")]:
            setattr(module, constant, getattr(module, constant) * clock.factor)

    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=lambda: hurried_loop(clock)) as runner:
            runner.run(work)

    run_daemon(read_settings(path), Path(path), run)


if __name__ == "__main__":
    main(sys.argv[1:])
