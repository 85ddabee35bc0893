"""The power goes: the kernel is empty, and the state directory is as of some earlier write."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatewayd.lab.traffic import probe
from tests.proof.faults.host import extras
from tests.proof.harness import Fault, World
from tests.proof.recording import Recorder, State, torn
from tests.soak import subscribers
from tests.soak.world import Registry, inbound, registry_of
from tests.support.lab_daemon import clean, holds

WHOLE, TORN = 40, 20
"""States that are started on, of those recorded and of those with a write that is half done."""
LOST = ("journal.lost", "journal.rows_skipped", "store.damaged", "state_file.set_aside", "guard.damaged")
"""What is said where something is lost; nothing that was acknowledged may be."""
_LIFE = 200_000
"""Another part of the subscribers' flows than the streams have."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Between these two moments all that accounting had said was answered, and bound this."""

    since_s: float
    until_s: float
    bound: Registry


@contextmanager
def lose_power(world: World) -> Iterator[None]:
    quiet: list[Quiet] = []
    with Recorder(world.daemon.state_dir, world.directory / "states", world.daemon.pid) as recorder:
        for _ in _life(world, recorder):
            bound = registry_of([], world.cgnat.bound_registrations())
            since = time.monotonic()
            time.sleep(0.1)
            quiet.append(Quiet(since, time.monotonic(), bound))
    world.daemon.end(signal.SIGKILL)
    assert len(recorder.states) > WHOLE, len(recorder.states)
    chance = random.Random(7)
    chosen = _spread(recorder.states, WHOLE)
    broken = list(torn(recorder.states, world.directory / "torn"))
    chosen += chance.sample(broken, min(TORN, len(broken)))
    for number, state in enumerate(chosen):
        _reboot(world, state, quiet, is_registry_away=number % 2 == 1)
    world.learns(f"{len(chosen)} starts, each ready", is_told=True)
    clean(world.lab)
    world.mark()
    _start_on(world, recorder.states[-1])
    yield
    world.hears("bindings.restored")
    world.hears("source.restored")


def _spread(states: list[State], count: int) -> list[State]:
    return [states[number * (len(states) - 1) // (count - 1)] for number in range(count)]


def _life(world: World, recorder: Recorder) -> Iterator[str]:
    """All that writes to the directory: accounting, another registry, an end, a kill and two starts."""
    daemon = world.daemon
    for number in range(4):
        world.cgnat.change()
        yield "accounting"
        world.write(*world.constant, *extras(10 * (number + 1)))
        daemon.sync()
        yield "registry"
    daemon.end(signal.SIGTERM)
    daemon.start()
    recorder.follow(daemon.pid)
    daemon.wait_ready()
    world.cgnat.change()
    yield "an end"
    daemon.end(signal.SIGKILL)
    daemon.start()
    recorder.follow(daemon.pid)
    daemon.wait_ready()
    world.cgnat.change()
    world.write(*world.constant, *extras(30))
    daemon.sync()
    yield "a kill"


def _start_on(world: World, state: State) -> None:
    """A copy of it, so that the record stays."""
    place = Path(tempfile.mkdtemp(prefix="on-", dir=world.directory))
    shutil.copytree(state.path, place, dirs_exist_ok=True)
    world.daemon.move_state(place)
    world.configure()
    world.daemon.start()


def _reboot(world: World, state: State, quiet: list[Quiet], *, is_registry_away: bool) -> None:
    """Ready again, with each binding that had been answered; with the file of the registry and without."""
    file, away = world.directory / "national.ndjson", world.directory / "away.ndjson"
    clean(world.lab)
    if is_registry_away:
        file.rename(away)
    begins = len(world.daemon.log_text())
    try:
        _start_on(world, state)
        world.daemon.wait_ready()
        flows = [subscribers.flow(_LIFE + number) for number in range(len(subscribers.RECORDS))]
        outcomes = probe(world.lab, flows) + probe(world.lab, inbound(), start="internet")
        assert set(outcomes) == {"passed"}, f"on {_name(state)}: {outcomes}"
        known = next((each.bound for each in quiet if each.since_s <= state.taken_s <= each.until_s), None)
        if known is not None and not state.torn:
            assert holds(lambda: _has(world, known)), f"on {_name(state)}: an answered binding is not there"
            said = world.daemon.log_text()[begins:]
            assert [each for each in LOST if f'"{each}"' in said] == [], f"on {_name(state)}: {said}"
    finally:
        world.daemon.end(signal.SIGKILL)
        if is_registry_away:
            away.rename(file)


def _has(world: World, bound: Registry) -> bool:
    found = frozenset[bytes]().union(*world.sight.contents().values())
    return all(keys <= found for keys in bound.keys.values())


def _name(state: State) -> Path:
    return Path(state.path.parent.name, state.path.name, state.torn)


FAULTS = (
    Fault(
        "power cut",
        f"The kernel is empty; the state directory is as of {WHOLE} earlier writes, and {TORN} half-done ones.",
        lose_power,
    ),
)
