"""Elements that a change would bring and take: the same as when it is made."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gatewayd.compile import DesiredSets
from gatewayd.compile.element_changes import ElementChanges, ElementSum, Wanted
from gatewayd.compile.masks import MAX_BOUND_ELEMENTS
from gatewayd.model import BoundRegistration, parse_prefix
from tests.support.owning import registration

BANK = registration("BANK", "203.0.113.0/28", services=("ipsec",))
TWIN = registration("TWIN", "203.0.113.0/28", services=("ipsec",))
HOUSE = registration("HOUSE", "39.32.64.8/29")


def sets_of(*wanted: Wanted, **bounds: Any) -> DesiredSets:
    sets = DesiredSets(**bounds)
    for each in wanted:
        sets.add(each)
    return sets


def sum_of(sets: DesiredSets, add: tuple[Wanted, ...], remove: tuple[Wanted, ...] = ()) -> ElementChanges:
    found = ElementSum(sets)
    found.add(add)
    found.remove(remove)
    return found.result()


def content(sets: DesiredSets) -> set[object]:
    return {(mask, key) for mask in sets.masks() for part in sets.keys(mask).parts for key in part}


@pytest.mark.parametrize(
    ("add", "remove"),
    [
        ((HOUSE,), ()),
        ((), (BANK,)),
        ((TWIN,), (BANK,)),
        ((), (BANK, TWIN)),
        ((registration("BANK", "203.0.113.0/28", "203.0.114.0/28"),), (BANK,)),
        ((BANK,), (BANK,)),
    ],
)
def test_what_is_counted_is_what_a_change_does(add: tuple[Wanted, ...], remove: tuple[Wanted, ...]) -> None:
    sets = sets_of(BANK, TWIN)
    before = content(sets)
    found = sum_of(sets, add, remove)
    assert content(sets) == before
    for each in add:
        sets.add(each)
    for each in remove:
        sets.remove(each)
    after = content(sets)
    assert found.added == Counter(mask for mask, _ in after - before)  # type: ignore[misc,has-type]
    assert found.removed == Counter(mask for mask, _ in before - after)  # type: ignore[misc,has-type]


def test_masks_that_are_new_are_named() -> None:
    found = sum_of(sets_of(BANK), (HOUSE, TWIN))
    assert list(map(str, found.new_masks)) == ["c4_29_wireguard"]
    assert found.unprogrammed == {}


def test_a_registration_past_a_bound_is_named_with_the_reason() -> None:
    bounds: dict[str, Any] = {"max_masks": 2, "max_bound_masks": 1, "protected_masks": 1, "protected": {"bank"}}
    sets = sets_of(BANK, **bounds)
    one, two = registration("ONE", "10.0.0.0/30"), registration("TWO", "10.0.0.0/31")
    guarded = registration("GUARDED", "10.0.0.0/31", category="bank")
    found = sum_of(sets, (one, two, guarded))
    assert found.unprogrammed == {"TWO": "needs 2 new masks for IPv4, 1 of at most 2 are in use"}
    assert len(found.new_masks) == 2
    subscriber = registration("SUB", subscriber=bytes(32), services=("wireguard", "openvpn"))
    bound = BoundRegistration(subscriber, parse_prefix("100.64.0.1/32"))
    assert "new masks for IPv4" in sum_of(sets, (bound,)).unprogrammed["SUB"]
    peers = tuple(f"198.51.{number >> 8}.{number & 255}/32" for number in range(4097))
    many = registration("MANY", "10.0.0.0/24", peers=peers)
    assert sum_of(sets, (many,)).unprogrammed == {"MANY": "needs 4097 elements, at most 4096 are made"}
    assert MAX_BOUND_ELEMENTS > 4096


def test_what_was_past_a_bound_takes_nothing_away() -> None:
    sets = sets_of(BANK, max_masks=1, protected_masks=0)
    one = registration("ONE", "10.0.0.0/30")
    sets.add(one)
    assert sets.is_unprogrammed(one)
    assert sum_of(sets, (), (one,)) == ElementChanges()
