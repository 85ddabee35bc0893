"""What a start finds of bindings and nothing explains."""

from __future__ import annotations

import pytest

from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.masks import compile_bound
from gatewayd.model.mask import ANY_PEER, NEAR, Mask
from gatewayd.model.prefix import Prefix, parse_prefix
from gatewayd.model.transaction import ObservedSet, TableReading
from gatewayd.reconcile import findings as findings_module
from gatewayd.reconcile.findings import Leftovers, place_of
from gatewayd.reconcile.set_state import SetState
from gatewayd.reconcile.tracker import SetTracker
from tests.support.reconciling import bound_at, registered, subscribed

ALI = subscribed("ALI", services=("udp/51820",))


def test_the_place_of_an_element_is_that_of_its_binding() -> None:
    for prefix, ports in (("100.64.0.1", None), ("2001:db8::/56", None), ("203.0.113.7", (2048, 2303))):
        for mask, key in compile_bound(bound_at(ALI, prefix, ports)):
            assert place_of(mask, key) == (parse_prefix(prefix), ports)


def test_what_is_at_an_address_goes_together_and_of_ports_those_that_overlap() -> None:
    left = Leftovers()
    assert not left
    whole = compile_bound(bound_at(ALI, "100.64.0.1")) + compile_bound(bound_at(ALI, "100.64.0.2"))
    blocks = compile_bound(bound_at(ALI, "203.0.113.7", (1024, 1279))) + compile_bound(
        bound_at(ALI, "203.0.113.7", (2048, 2303))
    )
    for mask, key in whole + blocks:
        left.add(mask, key)
    assert len(left) == 4
    assert left.masks() == {mask for mask, _ in whole + blocks}
    assert left.drop_at(parse_prefix("100.64.0.1"), None) == 1
    assert left.drop_at(parse_prefix("100.64.0.9"), None) == 0
    assert left.drop_at(parse_prefix("203.0.113.7"), (2100, 2110)) == 1
    assert left.drop_at(parse_prefix("203.0.113.7"), (2100, 2110)) == 0
    assert left.drop_at(parse_prefix("203.0.113.7"), None) == 1
    mask, key = whole[1]
    assert left.of(mask) == {key}
    left.drop(mask, key)
    left.drop(mask, key)
    assert not left
    assert left.of(mask) == set()


def test_a_prefix_that_is_in_the_kernel_in_pieces_goes_whole() -> None:
    left = Leftovers()
    for piece in ("2001:db8:0:10::/64", "2001:db8:0:1f::/64", "2001:db8:0:20::/64"):
        for mask, key in compile_bound(bound_at(ALI, piece)):
            left.add(mask, key)
    assert left.drop_at(parse_prefix("2001:db8:0:10::/60"), None) == 2
    assert left.drop_at(parse_prefix("2001:db8:0:20::/64"), None) == 1
    assert not left


BOUND = Mask(4, 32, source_bits=0)


def leaving(explained: set[Prefix], *keys: bytes) -> tuple[SetTracker, SetState]:
    """A set of bindings with these keys as it was found."""
    tracker = SetTracker(DesiredSets())
    tracker.findings.leave_unless(lambda prefix, _: prefix in explained)
    tracker.start_reading(TableReading(True, (ObservedSet("b4_32", 4, 0, True, len(keys), 7200),)))
    state = tracker.masks[BOUND].current
    tracker.observe_elements(state, keys)
    return tracker, state


def test_elements_of_bindings_that_nothing_explains_are_left_and_the_others_are_surplus() -> None:
    one, two = parse_prefix("100.64.0.1/32"), parse_prefix("100.64.0.2/32")
    tracker, state = leaving({two}, one.packed, two.packed)
    findings = tracker.findings
    assert (tracker.left(BOUND), tracker.count_surplus(), findings.is_leaving) == ({one.packed}, 1, True)
    assert findings.keeps_set(BOUND)
    assert not findings.keeps_set(Mask(4, 32))
    assert (findings.finish_leaving(), findings.finish_leaving()) == (1, 0)
    assert not findings.is_leaving
    assert findings.keeps_set(BOUND), "while an element is left"
    tracker.observe_elements(state, [two.packed])
    assert len(findings.leftovers) == 0, "its time was over"
    assert not findings.keeps_set(BOUND)


def test_what_is_left_stays_so_when_it_is_read_again_and_what_we_removed_is_not_left() -> None:
    one, two = parse_prefix("100.64.0.1/32"), parse_prefix("100.64.0.2/32")
    tracker, state = leaving(set(), one.packed)
    tracker.observe_elements(state, [one.packed, two.packed])
    assert tracker.left(BOUND) == {one.packed, two.packed}
    tracker.findings.leftovers.drop_at(two, None)
    tracker.observe_elements(state, [one.packed, two.packed])
    assert tracker.left(BOUND) == {one.packed}, "the other is surplus already: it is about to go"


def test_a_former_form_is_kept_by_the_first_reading_alone_and_goes_into_a_successor() -> None:
    tracker = SetTracker(DesiredSets(max_masks=1))
    tracker.add(registered("bank", "10.0.0.0/25"))
    tracker.add(registered("embassy", "10.1.0.0/24"))
    tracker.desired.reserve([Mask(4, 24)])
    key = parse_prefix("10.1.0.0/24").packed
    first, second = ObservedSet("c4_24", 4, 8, True, 1), ObservedSet("c4_24_g1", 4, 8, True, 0)
    tracker.start_reading(TableReading(True, (first, second)), frozenset({"c4_24"}))
    states = list(tracker.masks[Mask(4, 24)].states())
    tracker.observe_elements(states[0], [key])
    assert key in states[1].missing
    tracker.findings.finish_reading()
    tracker.observe_elements(states[0], [key, parse_prefix("10.1.1.0/24").packed])
    assert tracker.desired.in_former_form() == ["embassy"]


def test_elements_that_make_no_flow_registered_are_surplus_also_while_others_are_retained() -> None:
    near, key = Mask(4, 32, ANY_PEER, NEAR), bytes((10, 0, 0, 1))
    tracker = SetTracker(DesiredSets())
    tracker.findings.retain()
    sets = (ObservedSet("c4_32", 4, 1024, True, 1), ObservedSet("c4_32_near", 4, 1024, True, 1))
    for state, _ in tracker.start_reading(TableReading(True, sets)):
        tracker.observe_elements(state, [key])
    assert tracker.masks[near].current.surplus == {key}
    assert not tracker.masks[Mask(4, 32)].current.surplus
    assert (tracker.findings.count(), tracker.findings.count_retained()) == (1, 1)


def test_retained_elements_are_sorted_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings_module, "SLICE", 2)
    tracker = SetTracker(DesiredSets())
    tracker.findings.retain()
    tracker.start_reading(TableReading(True, (ObservedSet("c4_32", 4, 1024, True, 5),)))
    tracker.observe_elements(tracker.masks[Mask(4, 32)].current, [bytes((10, 0, 0, n)) for n in range(5)])
    slices = tracker.findings.sort_retained_in_slices({(Mask(4, 32), bytes((10, 0, 0, 3)))})
    assert (next(slices), next(slices)) == (None, None)
    with pytest.raises(StopIteration) as end:
        next(slices)
    assert end.value.value == 4
