"""A search is worth what it finds: each fault that is planted is found, and the number of runs is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.planted import PLANTED, Planted
from tests.simulation.runs import Failure, run, runs_until_found, shortened
from tests.simulation.small import small_world


@pytest.fixture(autouse=True, scope="module")
def _world() -> Iterator[None]:
    with small_world():
        yield


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_planted_fault_is_found(planted: Planted) -> None:
    with planted.plant():
        found = runs_until_found(planted.within)
    print(f"{planted.name}: found in run {found}")
    assert found is not None, f"{planted.within} runs do not find it"


def test_a_failure_is_told_by_the_shortest_script_that_has_it() -> None:
    with PLANTED[0].plant():
        failures = (each for each in map(run, range(100)) if isinstance(each, Failure))
        failure = next(each for each in failures if "lost" in each.reason)
        short = shortened(failure)
    assert 0 < len(short.script) <= len(failure.script)
    assert "lost" in short.reason
    assert "script:" in str(short)
    assert "trace:" in str(short)
    assert not isinstance(run(short.seed, short.script), Failure)
