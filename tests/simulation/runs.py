"""Many runs, and what is told of one that failed: the shortest script that still fails, and its trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.simulation.loop import CircleFound
from tests.simulation.script import Script
from tests.simulation.told import Broken, Counts
from tests.simulation.world import World

MAX_ATTEMPTS = 300
"""Of making a script shorter."""
MAX_LINES = 120
"""Of a trace that are shown: the last."""


@dataclass(frozen=True, slots=True)
class Failure:
    """`script`: None where the seed's own is meant; `reason`: what does not hold."""

    seed: int
    script: Script
    reason: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.reason}", "", "script:", *map(str, self.script), "", "trace:"]
        return "\n".join([*lines, *self.trace[-MAX_LINES:]])


def run(seed: int, script: Script | None = None) -> Counts | Failure:
    """One run: what it did, or what broke."""
    world = World(seed, script)
    try:
        return world.run()
    except (Broken, CircleFound) as error:
        return Failure(seed, world.script, str(error), tuple(world.trace.lines))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Failure(seed, world.script, reason, tuple(world.trace.lines))


def run_all(seeds: Iterable[int], on_run: Callable[[Counts], None] = lambda _: None) -> Counts:
    """Raises Broken with the shortest form of the first that fails."""
    total = Counts()
    for seed in seeds:
        outcome = run(seed)
        if isinstance(outcome, Failure):
            raise Broken(str(shortened(outcome)))
        total.add(outcome)
        on_run(outcome)
    return total


def shortened(failure: Failure) -> Failure:
    """The same seed with fewer events, as long as the same breaks. Events after the failure go first."""
    best, attempts, kind = failure, 0, failure.reason.partition(":")[0]
    is_shorter = True
    while is_shorter and attempts < MAX_ATTEMPTS:
        is_shorter = False
        for number in reversed(range(len(best.script))):
            script = best.script[:number] + best.script[number + 1 :]
            attempts += 1
            outcome = run(best.seed, script)
            if isinstance(outcome, Failure) and outcome.reason.partition(":")[0] == kind:
                best, is_shorter = outcome, True
    return best


def runs_until_found(most: int) -> int | None:
    """How many runs it takes to find something that does not hold; None: `most` find nothing."""
    return next((seed + 1 for seed in range(most) if isinstance(run(seed), Failure)), None)
