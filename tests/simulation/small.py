"""The program made small and quick for a great many runs: bounds, pauses, and what it would work out again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final
from unittest.mock import patch

from gatewayd.compile import keys, ruleset
from gatewayd.control import assertion_watch, trial_keeper
from gatewayd.control import controller as controller_module
from gatewayd.control import reload as reload_module
from gatewayd.log.logger import Logger
from gatewayd.reconcile import loop, set_state, steps, verify
from gatewayd.subscribers import service as service_module
from tests.simulation.life import STAGE
from tests.support.subscribers import PEPPER

MAX_KEPT: Final = 4096
"""Results of one function that are not worked out again, run after run."""
YOUNG_OBJECTS: Final = 50_000
"""Between two collections of garbage: a run leaves next to none in a circle."""


class SortedKeys(set[bytes]):
    """A set whose order no seed of Python's hashes decides: a run is the same in every process."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(sorted(super().__iter__()))

    def __sub__(self, other: Any) -> Any:
        found = super().__sub__(other)
        return found if found is NotImplemented else SortedKeys(found)

    def __and__(self, other: Any) -> Any:
        found = super().__and__(other)
        return found if found is NotImplemented else SortedKeys(found)

    def __or__(self, other: Any) -> Any:
        found = super().__or__(other)
        return found if found is NotImplemented else SortedKeys(found)


@contextmanager
def _equal_work_once() -> Iterator[None]:
    """The same few policies, sets and prefixes come in every run: what is made of them is kept. Pure functions."""

    def kept(function: Any) -> Any:
        return lru_cache(maxsize=MAX_KEPT)(getattr(function, "__wrapped__", function))

    parts = ("counting_chains", "registered_chain", "unregistered_chains", "policy_digest")
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    try:
        with (
            patch.multiple(ruleset, **{name: kept(getattr(ruleset, name)) for name in parts}),
            patch.multiple(steps, _compile=kept(steps._compile), _policy_digest=kept(steps._policy_digest)),
        ):
            yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@contextmanager
def small_world() -> Iterator[None]:
    """Bounds and pauses such that a handful of registrations meets every one of them. For any number of runs."""

    def quiet(self: Logger, number: int, event: str, fields: dict[str, object], *, exc_info: bool = False) -> None:
        STAGE.note(event, fields)

    with (
        _equal_work_once(),
        patch.object(Logger, "log", quiet),
        patch.multiple(keys, create=True, set=SortedKeys, hash=lambda _: 0),
        patch.multiple(keys, PARTS=1, _begin_part=lambda key: SortedKeys((key,))),
        patch.multiple(set_state, PARTS=1, MIN_CAPACITY=2),
        patch.object(steps, "MAX_BYTES", 64),
        patch.multiple(loop, GENERATION_POLL_S=1.0, MAX_RETRY_S=1.0, HURRIED_RETRY_S=0.3),
        patch.object(assertion_watch, "POLL_S", 2.0),
        patch.object(verify, "COMPARE_AT_MOST_S", 3.0),
        patch.multiple(controller_module, MAX_SLEEP_S=2.0, SLICE=1),
        patch.multiple(trial_keeper, LOOK_EVERY_S=2.0, _PAUSE_S=0.2, APPLY_PATIENCE_S=10.0),
        patch.object(reload_module, "setup_logging", lambda *_: None),
        patch.object(reload_module, "read_settings", lambda _: STAGE.settings),
        patch.object(service_module, "forbid_core_dumps", lambda: None),
        patch.object(service_module, "warn_if_exposed", lambda _: None),
        patch.object(service_module, "read_pepper", lambda _: PEPPER),
    ):
        yield
