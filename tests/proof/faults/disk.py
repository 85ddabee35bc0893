"""A state directory that is full, read-only, or as it was at some earlier write when the power went."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.proof.faults.host import extras
from tests.proof.harness import Fault, World
from tests.support.hurried_lab import SmallDisk


@contextmanager
def small_disk(world: World) -> Iterator[None]:
    """For the state. The source is asked often: an answer of it writes what the disk refused."""
    world.sections["registry"] = {"refresh": "5s"}
    disk = SmallDisk(world.lab, world.directory / "disk")
    world.disk = disk
    world.daemon.move_state(world.directory / "disk")
    world.daemon.wrapper = tuple(disk.wrapper)
    try:
        yield
    finally:
        disk.close()


def _go_on_without(world: World) -> None:
    """Killed and started there; then registry and accounting change."""
    world.daemon.end(signal.SIGKILL)
    world.daemon.start()
    world.daemon.wait_ready()
    world.write(*world.constant, *extras(500))
    world.cgnat.change()
    world.expect()
    world.hears("registry.applied")
    world.hears("journal.suspended")
    world.hears("store.failed")


@contextmanager
def fill_disk(world: World) -> Iterator[None]:
    world.disk.fill()
    _go_on_without(world)
    yield
    world.disk.mend()
    world.hears("journal.resumed")
    world.hears("store.recovered")


@contextmanager
def make_read_only(world: World) -> Iterator[None]:
    world.disk.make_read_only()
    _go_on_without(world)
    yield
    world.disk.mend()
    world.hears("journal.resumed")
    world.hears("store.recovered")


FAULTS = (
    Fault(
        "disk full",
        "The state directory is full: at a start, and while registry and accounting change.",
        fill_disk,
        prepare=small_disk,
        lasts=True,
    ),
    Fault(
        "state directory read-only",
        "As a file system is after an error: at a start, and while registry and accounting change.",
        make_read_only,
        prepare=small_disk,
        lasts=True,
    ),
)
