"""The bound on the elements of all registrations."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gatewayd.errors import SourceTooLarge
from gatewayd.model import Registration, parse_prefix
from gatewayd.model.registration import SLICE, Changes, run_slices
from gatewayd.registry.budget import ElementBudget
from gatewayd.sources.update import SourceUpdate


def registration(id: str, clients: int) -> Registration:
    return Registration(
        id, "bank", "active", tuple(parse_prefix(f"203.0.113.{number}") for number in range(clients))
    )


def mapping(*some: Registration) -> dict[str, Registration]:
    return {each.id: each for each in some}


def budget(max_elements: int) -> ElementBudget:
    return ElementBudget(lambda each: len(each.clients), max_elements)


def reading(name: str, *some: Registration) -> SourceUpdate:
    return SourceUpdate(name, 1.0, registrations=mapping(*some))


def delta(
    name: str, after: Iterable[Registration], upserts: Iterable[Registration], *withdrawals: str
) -> SourceUpdate:
    return SourceUpdate(
        name, 1.0, registrations=mapping(*after), changes=Changes(tuple(upserts), tuple(withdrawals))
    )


A, B, BIG = registration("a", 2), registration("b", 3), registration("big", 9)


def test_all_sources_together_have_the_bound() -> None:
    it = budget(10)
    assert run_slices(it.admit(reading("national", A, B), None)) is False
    assert it.elements == 5
    with pytest.raises(SourceTooLarge) as caught:
        run_slices(it.admit(reading("desk", A, BIG), None))
    assert caught.value.why == (
        "its registrations come to 11 elements, beside 5 of other sources, and registry.max_elements is 10; "
        "the largest is big with 9"
    )
    assert it.elements == 5
    run_slices(it.admit(reading("desk", B), None))
    assert it.elements == 8
    it.use(["desk"])
    assert it.elements == 3


def test_a_delta_is_counted_by_what_it_changes() -> None:
    it, old = budget(10), mapping(A, B)
    run_slices(it.admit(reading("national", A, B), None))
    larger = registration("a", 6)
    assert run_slices(it.admit(delta("national", [larger], [larger], "b", "z"), old)) is True
    assert it.elements == 6
    with pytest.raises(SourceTooLarge, match=r"15 elements, and .* is 10; the largest is big with 9"):
        run_slices(it.admit(delta("national", [larger, BIG], [BIG]), mapping(larger)))
    assert it.elements == 6


def test_after_a_reading_that_was_refused_the_next_delta_is_read_whole() -> None:
    it, old = budget(10), mapping(A)
    run_slices(it.admit(reading("national", A), None))
    with pytest.raises(SourceTooLarge):
        run_slices(it.admit(delta("national", [A, BIG], [BIG]), old))
    # The feed goes on from what was refused: its changes do not lead there from what is in force.
    assert run_slices(it.admit(delta("national", [A, B], [B], "big"), old)) is False
    assert it.elements == 5
    assert run_slices(it.admit(delta("national", [A], [], "b"), mapping(A, B))) is True


def test_a_last_good_past_the_bound_is_of_no_use() -> None:
    it = budget(4)
    run_slices(it.restore("desk", mapping(A)))
    with pytest.raises(SourceTooLarge, match="the largest is b with 3"):
        run_slices(it.restore("national", mapping(B)))
    assert it.elements == 2
    run_slices(it.restore("empty", {}))


def test_what_is_long_comes_in_slices() -> None:
    it = budget(10**9)
    many = mapping(*(registration(str(number), 1) for number in range(2 * SLICE)))
    assert len(list(it.restore("national", many))) == 2
