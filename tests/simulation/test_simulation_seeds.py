"""Ten thousand runs of the program against all that may happen around it, and each that once broke it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.simulation.kept import KEPT, Kept
from tests.simulation.loop import Dice
from tests.simulation.runs import Failure, run, run_all
from tests.simulation.script import make_script
from tests.simulation.small import small_world
from tests.simulation.world import World

SEEDS = 10_000
PIECE = 250
SAME = range(3, 60, 8)


@pytest.fixture(autouse=True, scope="module")
def _world() -> Iterator[None]:
    with small_world():
        yield


@pytest.mark.parametrize("first", range(0, SEEDS, PIECE))
def test_who_is_registered_passes_between_any_two_writes(first: int) -> None:
    counts = run_all(range(first, first + PIECE))
    print(counts)
    assert counts.runs == PIECE
    # A search that does nothing finds nothing.
    assert counts.commits > 8 * PIECE
    assert counts.lives > PIECE
    assert len(counts.events) > 15
    assert counts.answers["delta"] > PIECE / 2


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.name)
def test_what_once_broke_it_holds(kept: Kept) -> None:
    outcome = run(kept.seed, kept.script)
    assert not isinstance(outcome, Failure), f"{kept.reason}\n{outcome}"


def test_a_seed_is_the_same_run_in_every_process() -> None:
    script = "from tests.simulation.test_simulation_seeds import digests; print(digests())"
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {digests()}


def digests() -> str:
    found = []
    with small_world():
        for seed in SAME:
            world = World(seed)
            world.run()
            found.append(world.digest()[:16])
    return " ".join(found)


def test_other_seeds_are_other_runs() -> None:
    assert len(set(digests().split())) == len(SAME)
    assert make_script(Dice(1)) != make_script(Dice(2))
