"""What happens to the process, and to the machine that it runs on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.proof.harness import Fault, World

STOPPED_S = 60.0


@contextmanager
def kill(world: World) -> Iterator[None]:
    world.daemon.end(signal.SIGKILL)
    world.daemon.start()
    yield
    world.hears("daemon.started")
    world.hears("daemon.ready")


@contextmanager
def stop_a_minute(world: World) -> Iterator[None]:
    """What accounting tells meanwhile waits in the socket; the NAS repeats it."""
    os.kill(world.daemon.pid, signal.SIGSTOP)
    try:
        time.sleep(STOPPED_S)
    finally:
        world.mark()
        os.kill(world.daemon.pid, signal.SIGCONT)
    yield


FAULTS = (Fault("SIGKILL", "The process is killed, and started again by the service manager.", kill),)
