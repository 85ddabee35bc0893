from __future__ import annotations

from collections import Counter
from itertools import permutations, product
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gatewayd.compile import DesiredSets, compile_bound, compile_elements, count_elements
from gatewayd.compile.desired import MAX_PREPARED, elements_of
from gatewayd.compile.masks import MAX_BOUND_ELEMENTS, MAX_ELEMENTS
from gatewayd.model import BoundRegistration, Extension, Registration, Service, parse_prefix, parse_services
from gatewayd.model.mask import ENDPOINT, Mask
from gatewayd.model.prefix import Prefix
from gatewayd.model.service import UDP
from tests.support.reconciling import bound_at, subscribed
from tests.support.strategies import prefixes, registrations

unhurried = settings(deadline=None)


def registration(id: str = "PK-1", clients: str = "203.0.113.0/28", services: str = "") -> Registration:
    return Registration(
        id,
        "bank",
        "active",
        tuple(sorted(map(parse_prefix, clients.split()))),
        services=parse_services(services.split()),
    )


def keys_of(sets: DesiredSets) -> set[tuple[Mask, bytes]]:
    return {(mask, key) for mask in sets.masks() for key in sets.keys(mask)}


def drop_unused(sets: DesiredSets) -> list[Mask]:
    dropped = sets.unused()
    for mask in dropped:
        sets.drop(mask)
    return dropped


C4_28 = Mask(4, 28)
KEY = parse_prefix("203.0.113.0/28").packed


def test_nothing_is_desired_at_first() -> None:
    sets = DesiredSets()
    assert (sets.masks(), sets.count(), sets.unprogrammed(), sets.count_unprogrammed()) == ([], 0, {}, 0)
    assert C4_28 not in sets
    assert drop_unused(sets) == []


def test_what_was_added_is_desired_until_it_is_removed() -> None:
    sets = DesiredSets()
    held = registration()
    assert sets.add(held) == [(C4_28, KEY)]
    assert C4_28 in sets
    assert sets.keys(C4_28) == {KEY}
    assert sets.count() == 1
    assert sets.remove(held) == [(C4_28, KEY)]
    assert sets.count() == 0


def test_an_element_that_two_want_stays_until_both_are_gone() -> None:
    sets = DesiredSets()
    one, other = registration("PK-1"), registration("PK-2")
    assert sets.add(one) == [(C4_28, KEY)]
    assert sets.add(other) == []
    assert sets.remove(one) == []
    assert sets.keys(C4_28) == {KEY}
    assert sets.remove(other) == [(C4_28, KEY)]
    assert sets.keys(C4_28) == set()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_an_element_that_many_want_goes_with_the_last_of_them(order: tuple[int, ...]) -> None:
    sets = DesiredSets()
    held = [registration(f"PK-{number}") for number in range(3)]
    for each in held:
        sets.add(each)
    gone = [sets.remove(held[number]) for number in order]
    assert gone == [[], [], [(C4_28, KEY)]]


def test_overlapping_prefixes_are_elements_of_their_own() -> None:
    sets = DesiredSets()
    wide, host = registration("PK-1", "203.0.113.0/24"), registration("PK-2", "203.0.113.9")
    sets.add(wide)
    sets.add(host)
    assert [str(mask) for mask in sets.masks()] == ["c4_24", "c4_32"]
    assert sets.remove(wide) == [(Mask(4, 24), parse_prefix("203.0.113.0/24").packed)]
    assert sets.keys(Mask(4, 32)) == {parse_prefix("203.0.113.9").packed}


def test_replacing_a_registration_never_takes_what_both_forms_want() -> None:
    sets = DesiredSets()
    old = registration("PK-1", "203.0.113.0/28 198.51.100.0/24")
    new = registration("PK-1", "203.0.113.0/28 192.0.2.0/24")
    sets.add(old)
    fresh = sets.add(new)
    gone = sets.remove(old)
    assert fresh == [(Mask(4, 24), parse_prefix("192.0.2.0/24").packed)]
    assert gone == [(Mask(4, 24), parse_prefix("198.51.100.0/24").packed)]
    assert keys_of(sets) == set(compile_elements(new))


def test_masks_without_keys_are_kept_until_they_are_dropped() -> None:
    """A mask that empties and fills again keeps its kernel set."""
    sets = DesiredSets()
    one, other = registration("PK-1"), registration("PK-2", "203.0.113.9")
    sets.add(one)
    sets.add(other)
    sets.remove(one)
    assert C4_28 in sets
    assert drop_unused(sets) == [C4_28]
    assert C4_28 not in sets
    assert sets.masks() == [Mask(4, 32)]
    assert drop_unused(sets) == []
    assert sets.add(one) == [(C4_28, KEY)]


def too_many_elements(id: str = "PK-9") -> Registration:
    services = tuple(Service(UDP, port, port) for port in range(1, MAX_ELEMENTS + 2))
    return Registration(id, "bank", "active", (parse_prefix("203.0.113.9"),), services=services)


def test_a_registration_of_too_many_elements_is_reported_and_wants_nothing() -> None:
    sets = DesiredSets()
    monster = too_many_elements()
    assert sets.add(monster) == []
    assert (sets.count(), sets.masks(), sets.count_unprogrammed()) == (0, [], 1)
    assert sets.unprogrammed() == {"PK-9": f"needs {MAX_ELEMENTS + 1} elements, at most {MAX_ELEMENTS} are made"}
    assert sets.remove(monster) == []
    assert sets.unprogrammed() == {}


def test_the_very_largest_number_of_elements_is_programmed() -> None:
    services = tuple(Service(UDP, port, port) for port in range(1, MAX_ELEMENTS + 1))
    held = Registration("PK-9", "bank", "active", (parse_prefix("203.0.113.9"),), services=services)
    sets = DesiredSets()
    assert len(sets.add(held)) == sets.count() == MAX_ELEMENTS
    assert sets.unprogrammed() == {}


def test_a_registration_past_the_bound_of_masks_is_reported_and_leaves_no_trace() -> None:
    sets = DesiredSets(max_masks=2)
    sets.add(registration("PK-1", "203.0.113.0/28 198.51.100.0/24"))
    beyond = registration("PK-2", "203.0.113.0/28 192.0.2.1")
    assert sets.add(beyond) == []
    assert sets.unprogrammed() == {"PK-2": "needs 1 new masks for IPv4, 2 of at most 2 are in use"}
    assert [str(mask) for mask in sets.masks()] == ["c4_24", "c4_28"]
    # Its part of a shared element was never counted: taking it back must not take another's.
    assert sets.remove(beyond) == []
    assert sets.keys(C4_28) == {KEY}


def test_at_the_bound_masks_in_use_still_take_registrations() -> None:
    sets = DesiredSets(max_masks=1)
    sets.add(registration("PK-1"))
    assert sets.add(registration("PK-2", "198.51.100.16/28")) != []
    assert sets.unprogrammed() == {}


def test_the_bound_of_masks_is_each_familys_own() -> None:
    sets = DesiredSets(max_masks=1)
    assert sets.add(registration("PK-1", "203.0.113.9")) != []
    assert sets.add(registration("PK-2", "2001:db8::/32")) != []
    assert sets.add(registration("PK-3", "2001:db8::/48")) == []
    assert sets.unprogrammed() == {"PK-3": "needs 1 new masks for IPv6, 1 of at most 1 are in use"}


def test_dropped_masks_make_room_under_the_bound() -> None:
    sets = DesiredSets(max_masks=1)
    first, second = registration("PK-1"), registration("PK-2", "203.0.113.9")
    sets.add(first)
    sets.remove(first)
    assert sets.add(second) == []
    assert sets.remove(second) == []
    drop_unused(sets)
    assert sets.add(second) != []


def test_a_form_past_a_bound_and_one_within_it_are_told_apart_while_one_replaces_the_other() -> None:
    sets = DesiredSets()
    small, monster = registration("PK-9"), too_many_elements("PK-9")
    sets.add(small)
    sets.add(monster)
    assert sets.remove(small) == [], "it stays: the new form is past a bound"
    assert (set(sets.unprogrammed()), sets.in_former_form()) == ({"PK-9"}, ["PK-9"])
    sets.add(small)
    assert sets.remove(monster) == []
    assert (sets.unprogrammed(), sets.in_former_form()) == ({}, [])
    assert sets.keys(C4_28) == {KEY}
    assert sets.remove(small) == [(C4_28, KEY)]


# -- bound -------------------------------------------------------------------------------------------------

B4_32, C4_32 = Mask(4, 32, source_bits=0), Mask(4, 32)


def test_what_was_granted_is_desired_until_an_equal_bound_registration_is_taken_back() -> None:
    sets = DesiredSets()
    element = (B4_32, parse_prefix("100.64.0.1").packed)
    assert sets.add(bound_at(subscribed("PK-1"), "100.64.0.1")) == [element]
    assert (sets.masks(), sets.count()) == ([B4_32], 1)
    assert sets.remove(bound_at(subscribed("PK-1"), "100.64.0.1")) == [element]
    assert sets.count() == 0


def test_an_address_that_a_client_and_a_subscriber_have_is_an_element_of_each() -> None:
    sets = DesiredSets()
    sets.add(registration("PK-1", "100.64.0.1"))
    sets.add(bound_at(subscribed("PK-2"), "100.64.0.1"))
    assert sets.masks() == [C4_32, B4_32]
    assert sets.remove(bound_at(subscribed("PK-2"), "100.64.0.1")) == [(B4_32, parse_prefix("100.64.0.1").packed)]
    assert sets.keys(C4_32) == {parse_prefix("100.64.0.1").packed}


def test_an_element_that_two_registrations_are_granted_stays_until_both_are_gone() -> None:
    sets = DesiredSets()
    one, other = bound_at(subscribed("PK-1"), "100.64.0.1"), bound_at(subscribed("PK-2"), "100.64.0.1")
    assert sets.add(one) != []
    assert sets.add(other) == []
    assert sets.remove(one) == []
    assert sets.remove(other) == compile_bound(other)


def test_two_blocks_of_an_address_that_share_a_part_share_its_element() -> None:
    """While one is taking the place of the other."""
    sets = DesiredSets()
    held = subscribed("PK-1", services=["ipsec"])
    old, new = bound_at(held, "100.64.0.1", (1024, 2047)), bound_at(held, "100.64.0.1", (1024, 2303))
    sets.add(old)
    assert sets.add(new) == [(Mask(4, 32, -1, "ipsec", 8), bytes((100, 64, 0, 1, 8, 0, 0, 0)))]
    assert sets.remove(old) == []
    assert keys_of(sets) == set(compile_bound(new))


def test_a_bound_registration_past_the_bound_of_masks_is_reported_and_leaves_no_trace() -> None:
    sets = DesiredSets(max_bound_masks=1)
    sets.add(bound_at(subscribed("PK-1"), "100.64.0.1"))
    beyond = bound_at(subscribed("PK-2"), "100.64.0.1", (1024, 2047))
    assert sets.add(beyond) == []
    assert sets.unprogrammed() == {"PK-2": "needs 1 new masks for IPv4, 1 of at most 1 are in use"}
    assert sets.remove(bound_at(subscribed("PK-2"), "100.64.0.1", (1024, 2047))) == []
    assert (sets.unprogrammed(), sets.masks()) == ({}, [B4_32])


def test_bindings_that_come_first_take_no_mask_from_registrations_by_address() -> None:
    """After a reboot nothing is found in the kernel, and a journal is loaded before the registry."""
    sets = DesiredSets(max_masks=1, max_bound_masks=1, protected_masks=1, protected={"bank"})
    for prefix in ("100.64.0.1", "100.64.3.0/24", "100.0.0.0/16"):
        sets.add(bound_at(subscribed(f"PK-{prefix}"), prefix))
    assert len(sets.unprogrammed()) == 2
    sets.add(registration("other", "198.51.100.0/24"))
    assert sets.add(registration("bank")) == [(C4_28, KEY)]
    assert {each for each in sets.unprogrammed() if not each.startswith("PK-")} == set()


def test_who_all_had_masks_has_them_in_any_order_after_a_reboot() -> None:
    """Masks of protected categories count for nobody else."""
    banks = [registration(f"bank-{length}", f"10.0.0.0/{length}") for length in (8, 9)]
    others = [
        replace(registration(f"bpo-{length}", f"10.0.0.0/{length}"), category="bpo") for length in (9, 10, 11)
    ]
    for order in permutations([*banks, *others]):
        sets = DesiredSets(max_masks=3, protected_masks=1, protected={"bank"})
        for each in order:
            sets.add(each)
        assert sets.unprogrammed() == {}
        assert sets.add(replace(registration("bpo-12", "10.0.0.0/12"), category="bpo")) == []
        assert sets.add(registration("bank-13", "10.0.0.0/13")) == []
        for each in (*banks, *others):
            sets.remove(each)
        assert len(drop_unused(sets)) == 4
        for each in (*others, *banks):
            sets.add(each)
        assert "bank-8" not in sets.unprogrammed()


def test_masks_of_others_and_protected_ones_are_bounded_together() -> None:
    sets = DesiredSets(max_masks=2, protected_masks=1, protected={"bank"})
    for length in (8, 9, 10):
        assert sets.add(registration(f"bank-{length}", f"10.0.0.0/{length}")) != []
    other = replace(registration("bpo-11", "10.0.0.0/11"), category="bpo")
    assert sets.add(other) == []
    assert sets.unprogrammed() == {"bpo-11": "needs 1 new masks for IPv4, 3 of at most 3 are in use"}
    assert sets.add(replace(registration("bpo-8", "10.0.0.0/8"), category="bpo")) == []
    assert len(sets.masks()) == 3


def test_a_registration_past_a_bound_at_two_addresses_is_reported_once_and_comes_back_at_both() -> None:
    sets = DesiredSets(max_bound_masks=1)
    held = bound_at(subscribed("PK-1"), "100.64.3.0/24")
    sets.add(held)
    beyond = [bound_at(subscribed("PK-2"), f"100.64.0.{number}") for number in (1, 2)]
    for each in beyond:
        assert sets.add(each) == []
    assert (list(sets.unprogrammed()), sets.count_unprogrammed()) == (["PK-2"], 2)
    sets.remove(held)
    assert drop_unused(sets) == [Mask(4, 24, source_bits=0)]
    assert sets.take_unprogrammed() == beyond
    for each in beyond:
        assert sets.add(each) == compile_bound(each)
    assert sets.unprogrammed() == {}


def test_a_bound_registration_of_too_many_elements_is_reported() -> None:
    services = tuple(Service(UDP, port, port) for port in range(1, 200))
    held = Registration("PK-9", "freelancer", "active", (), bytes(32), services=services)
    sets = DesiredSets()
    assert sets.add(bound_at(held, "100.64.0.1")) != []
    monster = bound_at(held, "100.64.0.1", (1, 65534))
    assert sets.add(monster) == []
    reason = f"needs {199 * 104} elements, at most {MAX_BOUND_ELEMENTS} are made"
    assert sets.unprogrammed() == {"PK-9": reason}
    assert sets.remove(monster) == []
    assert sets.remove(bound_at(held, "100.64.0.1")) != []
    assert (sets.count(), sets.count_unprogrammed()) == (0, 0)


def test_a_bound_registration_without_any_element_comes_and_goes() -> None:
    sets = DesiredSets()
    nothing = bound_at(subscribed("PK-1", services=["esp"]), "100.64.0.1", (1024, 2047))
    assert sets.add(nothing) == sets.remove(nothing) == []
    assert (sets.masks(), sets.unprogrammed()) == ([], {})


# -- masks for what is to come -----------------------------------------------------------------------------


def test_a_prepared_mask_is_in_use_and_stays_without_a_key() -> None:
    sets = DesiredSets()
    assert sets.prepare(B4_32)
    assert sets.prepare(B4_32)
    assert sets.masks() == [B4_32]
    held = bound_at(subscribed("PK-1"), "100.64.0.1")
    sets.add(held)
    sets.remove(held)
    assert drop_unused(sets) == []
    assert sets.masks() == [B4_32]


def test_a_mask_in_use_may_be_prepared_and_then_outlives_its_keys() -> None:
    sets = DesiredSets()
    held = bound_at(subscribed("PK-1"), "100.64.0.1")
    sets.add(held)
    assert sets.prepare(B4_32)
    sets.remove(held)
    assert drop_unused(sets) == []


def test_no_mask_is_prepared_past_the_bound_of_masks() -> None:
    sets = DesiredSets(max_bound_masks=1)
    b4_24 = Mask(4, 24, source_bits=0)
    sets.add(bound_at(subscribed("PK-1"), "100.64.3.0/24"))
    assert not sets.prepare(B4_32)
    assert sets.prepare(Mask(6, 64, source_bits=0))
    assert sets.masks() == [b4_24, Mask(6, 64, source_bits=0)]


def test_what_is_prepared_has_a_bound_of_its_own() -> None:
    sets = DesiredSets()
    masks = [Mask(6, length, source_bits=0) for length in range(16, 16 + MAX_PREPARED)]
    assert all(sets.prepare(mask) for mask in masks)
    assert not sets.prepare(Mask(6, 128, source_bits=0))
    assert sets.prepare(masks[0])
    sets.add(bound_at(subscribed("PK-1"), "100.64.0.1"))
    assert sets.prepare(B4_32), "it is in use; that it is not kept is another matter"
    assert sets.masks() == [B4_32, *masks]


class Oracle:
    """The dumb version: how many want each element."""

    def __init__(self) -> None:
        self.wanted: Counter[tuple[Mask, bytes]] = Counter()

    def change(self, held: Registration | BoundRegistration, by: int) -> set[tuple[Mask, bytes]]:
        before = set(+self.wanted)
        for element in elements_of(held):
            self.wanted[element] += by
        return before ^ set(+self.wanted)


def wanted() -> st.SearchStrategy[Registration | BoundRegistration]:
    """Of either kind; blocks few enough to meet; within the bound of elements."""
    ports = st.none() | st.sampled_from([(1024, 2047), (1024, 3071), (1024, 2023)])
    bound_registrations = st.builds(BoundRegistration, registrations(), prefixes(), ports)
    return registrations() | bound_registrations.filter(
        lambda each: count_elements(each) <= MAX_BOUND_ELEMENTS // 8
    )


@unhurried
@given(st.lists(wanted(), max_size=12), st.data())
def test_any_order_of_additions_and_removals_wants_what_a_count_says(
    some: list[Registration | BoundRegistration], data: st.DataObject
) -> None:
    sets, oracle = DesiredSets(), Oracle()
    held: list[Registration | BoundRegistration] = []
    steps = list(some)
    while steps or held:
        if steps and (not held or data.draw(st.booleans(), label="add")):
            held.append(steps.pop())
            fresh = sets.add(held[-1])
            assert set(fresh) == oracle.change(held[-1], 1)
        else:
            gone_one = held.pop(data.draw(st.integers(0, len(held) - 1), label="which"))
            fresh = sets.remove(gone_one)
            assert set(fresh) == oracle.change(gone_one, -1)
        assert len(fresh) == len(set(fresh))
        assert keys_of(sets) == set(+oracle.wanted)
        assert sets.count() == len(+oracle.wanted)
    drop_unused(sets)
    assert sets.masks() == []


@unhurried
@given(st.lists(wanted(), min_size=1, max_size=8, unique=True), st.integers(0, 3))
def test_what_is_past_the_bound_of_masks_comes_and_goes_without_harm_to_the_rest(
    some: list[Registration | BoundRegistration], most: int
) -> None:
    sets = DesiredSets(most, max_bound_masks=most, protected_masks=0)
    programmed = []
    for each in some:
        before = sets.count_unprogrammed()
        sets.add(each)
        if sets.count_unprogrammed() == before:
            programmed.append(each)
        for kind in product((4, 6), (True, False)):
            assert sum((mask.family, mask.is_bound) == kind for mask in sets.masks()) <= most
    assert keys_of(sets) == {element for each in programmed for element in elements_of(each)}
    for each in some:
        sets.remove(each)
    assert (sets.count(), sets.count_unprogrammed()) == (0, 0)


# -- no bound takes away what is in force ------------------------------------------------------------------


def test_bindings_and_registrations_by_address_have_masks_of_their_own() -> None:
    sets = DesiredSets(1, max_bound_masks=1)
    assert sets.add(bound_at(subscribed("PK-1"), "100.64.0.1")) != []
    assert sets.add(registration("PK-2", "203.0.113.9")) != []
    assert sets.unprogrammed() == {}


def test_which_categories_are_protected_may_be_told_later() -> None:
    sets = DesiredSets(0, protected_masks=1)
    bank = registration()
    assert sets.add(bank) == []
    assert sets.is_unprogrammed(bank)
    sets.protect(["bank"])
    (again,) = sets.take_unprogrammed()
    assert sets.add(again) == [(C4_28, KEY)]
    assert not sets.is_unprogrammed(bank)


def test_an_element_wanted_by_itself_may_be_wanted_by_a_registration_too() -> None:
    sets = DesiredSets()
    sets.adopt(C4_28)
    sets.want(C4_28, KEY)
    assert not sets.is_wanted_twice(C4_28, KEY)
    sets.add(registration())
    assert sets.is_wanted_twice(C4_28, KEY)


@pytest.mark.parametrize("protected_first", [True, False])
def test_some_masks_are_left_for_protected_categories_whatever_comes_first(protected_first: bool) -> None:
    sets = DesiredSets(2, protected_masks=1, protected={"bank"})
    others = [
        Registration(f"PK-{length}", "bpo", "active", (parse_prefix(f"10.0.0.0/{length}"),))
        for length in range(20, 24)
    ]
    bank = registration("bank")
    for each in [bank, *others] if protected_first else [*others, bank]:
        sets.add(each)
    assert "bank" not in sets.unprogrammed()
    assert len(sets.masks()) == 3


def test_those_of_protected_categories_come_back_first() -> None:
    sets = DesiredSets(0, protected_masks=0, protected={"bank"})
    some = [Registration(f"PK-{kind}", kind, "active", (parse_prefix("10.0.0.0/20"),)) for kind in ("bpo", "bank")]
    for each in some:
        sets.add(each)
    assert sets.take_unprogrammed() == some[::-1]


def test_masks_that_the_kernel_has_are_kept_before_anything_new_gets_one() -> None:
    """After a restart the order of arrival is another."""
    old, new = registration("old"), registration("new", "10.0.0.0/20")
    sets = DesiredSets(1, protected_masks=0)
    sets.reserve([C4_28])
    sets.add(new)
    sets.add(old)
    assert set(sets.unprogrammed()) == {"new"}
    assert keys_of(sets) == {(C4_28, KEY)}


def test_sets_of_an_earlier_versions_bindings_take_nobodys_place() -> None:
    sets = DesiredSets(max_bound_masks=1)
    sets.reserve([Mask(4, 32, source_bits=6), Mask(6, 60, source_bits=0), Mask(4, 29, source_bits=0)])
    assert sets.add(bound_at(subscribed("PK-1"), "100.64.0.1")) != []
    assert [str(mask) for mask in drop_unused(sets)] == ["b4_32_s6", "b6_60", "b4_29"]
    assert sets.add(bound_at(subscribed("PK-2"), "100.64.0.0/24")) == []
    assert set(sets.unprogrammed()) == {"PK-2"}


def test_a_former_form_goes_once_the_new_one_has_room() -> None:
    sets = DesiredSets(1, protected_masks=0)
    one, old, new = registration("one"), registration("PK-1", "203.0.113.16/28"), registration("PK-1", "10.0.0.1")
    for each in (one, old, new):
        sets.add(each)
    assert sets.remove(old) == []
    assert sets.in_former_form() == ["PK-1"]
    assert sets.keys(C4_28) == {KEY, old.clients[0].packed}
    sets.reserve([C4_32])
    (waiting,) = sets.take_unprogrammed()
    assert sets.add(waiting) == [(C4_32, new.clients[0].packed)]
    assert sets.take_superseded() == [(C4_28, old.clients[0].packed)]
    assert (sets.take_superseded(), sets.in_former_form(), sets.unprogrammed()) == ([], [], {})


def test_a_former_form_goes_with_its_registration_and_not_before_the_last_form_past_a_bound() -> None:
    sets = DesiredSets()
    small, one, other = registration("PK-9"), too_many_elements("PK-9"), too_many_elements("PK-9")
    for each in (small, one):
        sets.add(each)
    sets.remove(small)
    sets.add(other)
    assert sets.remove(one) == []
    assert sets.in_former_form() == ["PK-9"]
    assert sets.remove(other) == [(C4_28, KEY)]
    assert (sets.count(), sets.in_former_form()) == (0, [])


def test_what_a_start_finds_of_the_addresses_of_one_past_a_bound_is_kept() -> None:
    sets = DesiredSets(0, protected_masks=0)
    sets.reserve([C4_32, C4_28])
    here, elsewhere = parse_prefix("203.0.113.9").packed, parse_prefix("198.51.100.9").packed
    assert sets.keep_found([(C4_32, here)]) == []
    new = registration("PK-1", "203.0.113.8/29")
    sets.add(new)
    assert sets.keep_found([(C4_32, here), (C4_32, elsewhere)]) == [(C4_32, here)]
    assert sets.keep_found([(C4_28, KEY)]) == [(C4_28, KEY)]
    assert sets.in_former_form() == ["PK-1"]
    assert set(sets.remove(new)) == {(C4_32, here), (C4_28, KEY)}


def provider(id: str = "VPN-1", endpoints: str = "203.0.113.0/28", services: str = "ipsec") -> Registration:
    extension = Extension(endpoints=tuple(sorted(map(parse_prefix, endpoints.split()))))
    return Registration(
        id, "provider", "active", (), services=parse_services(services.split()), extension=extension
    )


def test_endpoints_have_masks_of_their_own_and_a_budget_of_their_own() -> None:
    sets = DesiredSets(1, max_endpoint_masks=1, protected_masks=0)
    assert len(sets.add(provider())) == len(sets.add(registration())) == 1
    sets.add(provider("VPN-2", "203.0.113.0/29"))
    sets.add(registration("PK-2", "203.0.113.0/29"))
    reason = "needs 1 new masks for IPv4, 1 of at most 1 are in use"
    assert sets.unprogrammed() == {"VPN-2": reason, "PK-2": reason}
    assert [str(mask) for mask in sets.masks()] == ["c4_28", "e4_28_ipsec"]
    assert not sets.adopt(Mask(4, 29, source_bits=ENDPOINT))


def test_what_a_start_finds_of_one_role_is_not_kept_for_the_other() -> None:
    """An element of an endpoint opens its address to every client."""
    sets = DesiredSets(0, max_endpoint_masks=0, protected_masks=0)
    of_endpoints = Mask(4, 28, -1, "ipsec", ENDPOINT)
    sets.reserve([C4_28, of_endpoints])
    sets.add(registration("PK-1", "203.0.113.0/29"))
    assert sets.keep_found([(of_endpoints, KEY), (C4_28, KEY)]) == [(C4_28, KEY)]
    other = DesiredSets(0, max_endpoint_masks=0, protected_masks=0)
    other.reserve([C4_28, of_endpoints])
    other.add(provider("VPN-1", "203.0.113.0/29"))
    assert other.keep_found([(C4_28, KEY), (of_endpoints, KEY)]) == [(of_endpoints, KEY)]


def test_what_a_start_finds_of_a_subscriber_past_a_bound_is_kept() -> None:
    sets = DesiredSets(max_bound_masks=0, protected_masks=0)
    former = Mask(4, 32, source_bits=0)
    sets.reserve([former])
    sets.add(bound_at(subscribed("PK-1", services=("esp",)), "100.64.0.9"))
    here = parse_prefix("100.64.0.9").packed
    assert sets.keep_found([(former, here), (former, KEY)]) == [(former, here)]


@unhurried
@given(st.lists(registrations(), min_size=1, max_size=4), st.lists(prefixes(), max_size=8))
def test_what_is_kept_of_a_start_overlaps_an_address_of_one_past_a_bound(
    waiting: list[Registration], found: list[Prefix]
) -> None:
    sets = DesiredSets(0, protected_masks=0)
    for each in waiting:
        sets.add(each)
    clients = [client for each in waiting if elements_of(each) for client in each.clients]
    elements = {(Mask(each.family, each.length), each.packed): each for each in found}
    sets.reserve(mask for mask, _ in elements)
    kept = sets.keep_found(elements)
    assert kept == [
        element
        for element, prefix in elements.items()
        if any(client.covers(prefix.packed) or prefix.covers(client.packed) for client in clients)
    ]


def test_what_a_start_finds_is_held_against_many_past_a_bound_in_one_turn() -> None:
    """To compare each with each took half a minute."""
    sets = DesiredSets(0, protected_masks=0)
    for number in range(5000):
        sets.add(registration(f"PK-{number}", f"10.{number >> 8}.{number & 255}.0/24"))
    sets.reserve([C4_32])
    strangers = [(C4_32, bytes((11, 0, *divmod(number, 256)))) for number in range(4096)]
    before_s = process_time()
    assert sets.keep_found(strangers) == []
    assert process_time() - before_s < 1.0


def test_an_element_says_by_how_many_it_is_wanted() -> None:
    sets = DesiredSets()
    assert sets.count_wanting(C4_28, KEY) == 0
    for number in range(1, 4):
        sets.add(registration(f"PK-{number}"))
        assert sets.count_wanting(C4_28, KEY) == number
    assert sets.count_wanting(C4_28, parse_prefix("203.0.114.0/28").packed) == 0


@given(st.lists(registrations(), max_size=12), st.integers(0, 3), st.integers(0, 2))
@unhurried
def test_a_refusal_is_foretold_as_it_comes(some: list[Registration], most: int, protected: int) -> None:
    sets = DesiredSets(max_masks=most, protected_masks=protected, protected={"bank"})
    for each in some:
        foretold = sets.refusal_of(each, ())
        sets.add(each)
        reason = sets.unprogrammed().get(each.id) if sets.is_unprogrammed(each) else None
        assert (foretold is None) == (reason is None)


def test_a_refusal_counts_what_else_is_to_come_into_use() -> None:
    sets = DesiredSets(max_masks=1, protected_masks=0)
    wanted = registration(clients="10.0.0.0/30")
    assert sets.refusal_of(wanted, ()) is None
    assert sets.refusal_of(wanted, {Mask(4, 30)}) is None
    assert sets.refusal_of(wanted, {Mask(4, 31)}) == "needs 2 new masks for IPv4, 0 of at most 1 are in use"
    wide = Registration("WIDE", "bank", "active", (), subscriber=bytes(32))
    many = BoundRegistration(replace(wide, services=(Service(UDP, 1, 65534),)), Prefix(bytes(16), 33))
    assert str(sets.refusal_of(many, ())).endswith(f"at most {MAX_BOUND_ELEMENTS} are made")
