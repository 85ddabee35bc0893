"""When windows of what is held close, however often it was held before."""

from __future__ import annotations

from math import inf

import pytest

from gatewayd.registry import ends as ends_module
from gatewayd.registry.ends import SLICE, Versions, WindowEnds
from tests.support.guarding import registration


def until(*ends_s: float) -> Versions:
    return tuple(registration("x", valid_until_s=end_s) for end_s in ends_s)


def prune(ends: WindowEnds, held: dict[str, Versions]) -> int:
    """How many slices it took."""
    return sum(1 for _ in ends.prune_in_slices(held))


def test_the_window_that_closes_first_is_the_next() -> None:
    ends = WindowEnds()
    assert (ends.next_end(), bool(ends)) == (inf, False)
    ends.add("a", until(30.0, inf))
    ends.add("b", until(20.0))
    ends.add("c", until(inf))
    assert (ends.next_end(), len(ends)) == (20.0, 2)
    assert (ends.pop(), ends.next_end()) == ("b", 30.0)


def test_entries_of_what_is_held_no_more_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends_module, "SLICE", 4)
    ends, lasting = WindowEnds(), until(50.0, 60.0)
    ends.add("lasting", lasting)
    most = 0
    for number in range(100):
        versions = until(10.0 + number % 3, inf)
        ends.add("a", versions)
        prune(ends, {"lasting": lasting, "a": versions})
        most = max(most, len(ends))
        ends.drop(versions)
    assert most <= 2 * 3 + 4
    ends.drop(())
    prune(ends, {"lasting": lasting})
    while ends.next_end() < 50.0:
        assert ends.pop() == "a"
    assert [ends.pop(), ends.pop(), ends.next_end()] == ["lasting", "lasting", inf]


def test_of_entries_that_are_alike_one_is_kept() -> None:
    ends, versions = WindowEnds(), until(10.0)
    for _ in range(2 * SLICE):
        ends.add("a", versions)
        ends.drop(versions)
    assert prune(ends, {"a": versions}) == 2
    assert (len(ends), ends.pop()) == (1, "a")


def test_while_most_are_of_what_is_held_nothing_is_looked_at() -> None:
    ends, versions = WindowEnds(), until(10.0)
    for number in range(4 * SLICE):
        ends.add(str(number), versions)
    for _ in range(2 * SLICE):
        ends.drop(versions)
    assert (prune(ends, {}), len(ends)) == (0, 4 * SLICE)
