from __future__ import annotations

import sys
from math import inf

import msgspec
import pytest
from hypothesis import settings

from gatewayd.model import Extension, Registration, Status, parse_prefix
from gatewayd.model.registration import SLICE, Changes, changes_in_slices, run_slices, with_endpoints

unhurried = settings(deadline=None)


def registration(status: Status = "active", opens: float = -inf, closes: float = inf) -> Registration:
    clients = (parse_prefix("203.0.113.0/28"),)
    return Registration("PK-1", "bank", status, clients, valid_from_s=opens, valid_until_s=closes)


def test_without_a_window_an_active_registration_is_always_effective() -> None:
    for now in (-1e12, 0.0, 1e12):
        assert registration().is_effective(now)


def test_a_window_begins_at_its_first_second_and_has_ended_at_its_last() -> None:
    window = registration(opens=10.0, closes=20.0)
    assert [now for now in (9.9, 10.0, 19.9, 20.0) if window.is_effective(now)] == [10.0, 19.9]


@pytest.mark.parametrize("status", ["suspended", "revoked"])
def test_suspended_and_revoked_are_never_effective(status: Status) -> None:
    held = registration(status, opens=10.0, closes=20.0)
    for now in (0.0, 10.0, 15.0, 20.0):
        assert not held.is_effective(now)


def test_a_registration_cannot_be_changed_and_lists_default_to_any() -> None:
    held = registration()
    assert (held.subscriber, held.peers, held.services) == (None, (), ())
    with pytest.raises(AttributeError):
        held.status = "revoked"  # type: ignore[misc]
    assert msgspec.structs.replace(held, status="revoked") != held


# From one registry to the next


def named(id: str, category: str = "bank") -> Registration:
    return Registration(id, category, "active", (parse_prefix("203.0.113.0/28"),))


def registry(*registrations: Registration) -> dict[str, Registration]:
    return {each.id: each for each in registrations}


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        (registry(), registry(named("a")), Changes((named("a"),), ())),
        (registry(named("a")), registry(), Changes((), ("a",))),
        (registry(named("a")), registry(named("a", "isp")), Changes((named("a", "isp"),), ())),
        (registry(named("a"), named("b")), registry(named("b"), named("c")), Changes((named("c"),), ("a",))),
        (registry(named("a"), named("b")), registry(named("b"), named("a")), None),
        (registry(), registry(), None),
    ],
)
def test_changes_lead_from_one_registry_to_the_next(
    old: dict[str, Registration], new: dict[str, Registration], changes: Changes | None
) -> None:
    assert run_slices(changes_in_slices(old, new)) == changes


def test_a_registry_does_not_differ_from_itself() -> None:
    same = registry(named("a"))
    assert run_slices(changes_in_slices(same, same)) is None


def test_long_comparisons_are_cut_into_slices() -> None:
    old = {str(number): named(str(number)) for number in range(2 * SLICE)}
    new = dict(list(old.items())[SLICE:])
    slices = changes_in_slices(old, new)
    turns = 0
    for _ in slices:
        turns += 1
    assert turns == 1 + 2, "one of the new registry, two of the old"


def test_what_few_registrations_have_is_one_member_and_costs_no_memory() -> None:
    plain = named("a")
    assert (plain.extension, plain.registrant, plain.is_provisional, plain.endpoints) == (None, None, False, ())
    endpoint = parse_prefix("198.51.100.0/24")
    other = msgspec.structs.replace(plain, extension=Extension("co-17", is_provisional=True, endpoints=(endpoint,)))
    assert (other.registrant, other.is_provisional, other.endpoints) == ("co-17", True, (endpoint,))
    assert sys.getsizeof(plain) <= 96  # the allocator gives multiples of 16


def test_other_endpoints_leave_all_else_of_a_registration_as_it_was() -> None:
    one, two = parse_prefix("198.51.100.0/24"), parse_prefix("2400:cb00::/32")
    provider = Registration(
        "PK-9", "provider", "active", (), extension=Extension("co-17", is_provisional=True, endpoints=(one, two))
    )
    fewer = with_endpoints(provider, (two,))
    assert (fewer.endpoints, fewer.registrant, fewer.is_provisional) == ((two,), "co-17", True)
    assert provider.endpoints == (one, two)
    assert with_endpoints(fewer, (one, two)) == provider
