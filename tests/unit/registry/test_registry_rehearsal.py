"""A change that is rehearsed comes to what the change itself comes to, and leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gatewayd.model.registration import run_slices
from gatewayd.registry.guard_record import encode_record
from gatewayd.registry.layers import SourceSet
from gatewayd.registry.rehearsal import Rehearsed, _changes, _names_of, fork_registry, rehearse_in_slices
from gatewayd.registry.state import RegistryState
from gatewayd.sources.update import FeedPosition, SourceUpdate
from tests.support.guarding import BANK, NOW, OTHERS, InForce, overrides, registration, registry

FILTER = overrides("filters: [{prefix: 203.0.113.0/24, comment: why}]")
PIN = overrides("pins: [{id: P, category: bpo, clients: [203.0.113.9/32], comment: why}]")
FULL = (BANK, *OTHERS)


def holding() -> InForce:
    """Two sources, a pin, and a bank that the guard holds."""
    it = InForce("national", "desk")
    it.use_overrides(PIN)
    it.read("national", *FULL)
    it.read("desk", registration("d", "bpo", "198.51.100.0/24"))
    it.read("national", *OTHERS)
    assert it.held()
    return it


def reading(state: RegistryState) -> SourceUpdate:
    return SourceUpdate("national", NOW, registrations=registry(BANK), position=FeedPosition("session", 99, NOW))


CALLS: dict[str, Rehearsed] = {
    "accept": lambda state: state.accept(state.guard.held().serial, NOW),  # type: ignore[union-attr]
    "filters": lambda state: state.use_overrides((PIN, FILTER), NOW),
    "no files": lambda state: state.use_overrides((), NOW),
    "one source": lambda state: state.use_sources(["desk"], NOW),
    "another order": lambda state: state.use_sources(["desk", "national"], NOW),
    "a new source": lambda state: state.use_sources(["national", "desk", "new"], NOW),
    "a reading": lambda state: state.apply(reading(state), NOW),
    "windows": lambda state: state.end_windows(NOW),
}


def look(state: RegistryState) -> tuple[Any, ...]:
    return (
        encode_record(state.record()),
        dict(state.merged.registrations),
        state.override_counts(),
        state.history.since(),
        list(state.sources),
        state.unread(),
        state.budget.elements,
        state.held() and dict(state.held().versions),  # type: ignore[union-attr]
    )


@pytest.mark.parametrize("name", CALLS)
def test_a_rehearsal_says_what_comes_of_the_change(name: str) -> None:
    it = holding()
    before = look(it.state)
    fork = fork_registry(it.state)
    assert look(fork) == before
    said = run_slices(rehearse_in_slices(fork, [CALLS[name]]))
    assert look(it.state) == before
    done = it.take(CALLS[name](it.state))
    assert said == (() if done is None else (done,))
    assert look(it.state) == look(fork)


def test_changes_follow_each_other() -> None:
    it = holding()
    fork = fork_registry(it.state)
    first, second = run_slices(rehearse_in_slices(fork, [CALLS["accept"], CALLS["no files"]]))
    assert (first.withdrawals, second.withdrawals) == (("b",), ("P",))


def shared(one: object, other: object, seen: set[int]) -> Iterator[object]:
    """Containers and objects that both have and that may change."""
    if not _changes(one) or id(one) in seen:
        return
    seen.add(id(one))
    if one is other:
        yield one
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one:
            yield from shared(one[key], other[key], seen)
    for name in _names_of(one):
        if name != "_rest" and not (isinstance(one, SourceSet) and name == "_readings"):
            yield from shared(getattr(one, name), getattr(other, name), seen)


def test_nothing_that_changes_is_shared() -> None:
    state = holding().state
    assert list(shared(state, fork_registry(state), set())) == []


def test_readings_and_registrations_are_not_copied() -> None:
    state = holding().state
    fork = fork_registry(state)
    assert fork.merged is state.merged
    assert fork._readings.reading_of("desk") is state._readings.reading_of("desk")
    held, other = state.held(), fork.held()
    assert held is not None
    assert other is not None
    assert held.versions["b"] is other.versions["b"]
