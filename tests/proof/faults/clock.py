"""A wall clock that is a day off, while registrations have windows of half a day around now."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime

from tests.proof.harness import Fault, World
from tests.support.wrong_clock import LIBRARY, NOT_INSTALLED, WrongClock

DAY_S = 86_400
HALF_DAY_S = DAY_S / 2


@contextmanager
def windows(world: World) -> Iterator[None]:
    """Every registration began half a day ago, and ends in half a day."""
    assert LIBRARY is not None, NOT_INSTALLED
    world.clock = WrongClock(world.directory / "faketime")
    world.daemon.environment = world.clock.environment
    window = {"valid_from": _moment(-HALF_DAY_S), "valid_until": _moment(HALF_DAY_S)}
    world.records = tuple(each | window for each in world.records)
    yield


def _moment(in_s: float) -> str:
    return datetime.fromtimestamp(time.time() + in_s, UTC).isoformat().replace("+00:00", "Z")


def set_by(seconds: int) -> Callable[[World], AbstractContextManager[None]]:
    @contextmanager
    def make(world: World) -> Iterator[None]:
        """While it runs, and at a start."""
        world.clock.set_by(seconds)
        world.hears("clock.doubted")
        world.cgnat.change()
        world.expect()
        world.daemon.end(signal.SIGKILL)
        world.daemon.start()
        world.daemon.wait_ready()
        world.sees("clock", lambda status: bool(status["clock"]["doubt"]))
        yield
        world.clock.set_by(0)
        world.hears("clock.trusted")

    return make


FAULTS = tuple(
    Fault(
        f"clock a day {word}",
        f"The host's clock is a day {word}; each registration ends in twelve hours, and began twelve hours ago.",
        set_by(seconds),
        prepare=windows,
        lasts=True,
    )
    for word, seconds in (("ahead", DAY_S), ("behind", -DAY_S))
)
