"""Floods of the accounting port, by senders that are no clients, by forgers, and by a NAS itself."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gatewayd.lab.world import mobile_number
from tests.proof.harness import Fault, World
from tests.support.nas import INTERIM, START, Nas

FLOOD_S = 10
STRANGERS_PER_S, FORGED_PER_S = 20_000, 2_000
VALID_PER_S = 5_000
PORT = 1813
_SESSIONS = 20_000


@contextmanager
def forge(world: World) -> Iterator[None]:
    """From changing addresses, and as a client with a wrong authenticator."""
    words = (str(PORT), str(FLOOD_S), str(STRANGERS_PER_S), str(FORGED_PER_S))
    command = [sys.executable, "-m", "tests.support.flooding", *words]
    flood = world.lab.gateway.popen(command, stdout=subprocess.DEVNULL)
    while flood.poll() is None:
        world.cgnat.change()
    world.expect()
    world.mark()
    yield
    world.hears("radius.refused")
    world.sees("listener.rejected", lambda status: sum(status["subscribers"]["listener"]["rejected"].values()) > 0)


class ValidFlood:
    """Authentic accounting of subscribers that are not registered, as fast as a machine can."""

    def __init__(self, world: World) -> None:
        self._nas = Nas(world.lab.gateway, "bng-9")
        self._requests = [
            self._nas.encode(status, f"flood-{number}", f"+{mobile_number(100_000 + number)}", _address(number))
            for status in (START, INTERIM)
            for number in range(_SESSIONS)
        ]
        self._thread = threading.Thread(target=self._run, name="flood", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        sent, began = 0, time.monotonic()
        while (passed_s := time.monotonic() - began) < FLOOD_S:
            while sent < passed_s * VALID_PER_S:
                self._nas.send(self._requests[sent % len(self._requests)])
                sent += 1
            time.sleep(0.002)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def close(self) -> None:
        self._thread.join()
        self._nas.__exit__()


def _address(number: int) -> str:
    return f"39.42.{number >> 8}.{number & 255}"


@contextmanager
def flood_validly(world: World) -> Iterator[None]:
    flood = ValidFlood(world)
    try:
        while not flood.is_over:
            world.cgnat.change()
    finally:
        flood.close()
    world.expect()
    world.mark()
    yield
    world.sees("listener.requests", lambda status: status["subscribers"]["listener"]["requests"] > _SESSIONS)


FAULTS = (
    Fault(
        "RADIUS flood, forged",
        f"{STRANGERS_PER_S:,} datagrams a second of strangers and {FORGED_PER_S:,} of forgers; the NAS goes on.",
        forge,
    ),
    Fault(
        "RADIUS flood, valid",
        f"{VALID_PER_S:,} authentic records a second of subscribers that are not registered; the NAS goes on.",
        flood_validly,
    ),
)
