from __future__ import annotations

import pytest

from gatewayd.allowlist import Bound
from gatewayd.model import Binding, BoundRegistration, Registration, parse_address, parse_prefix

ALI, BANO = b"\1" * 32, b"\2" * 32
HOME = parse_prefix("10.1.2.3/32")
ADDRESS = parse_address("10.1.2.3")


def mobile(id: str = "PK-1", subscriber: bytes | None = ALI) -> Registration:
    return Registration(id, "freelancer", "active", (), subscriber=subscriber)


def binding(
    subscriber: bytes = ALI, prefix: str = "10.1.2.3/32", ports: tuple[int, int] | None = None, confirmed: float = 2
) -> Binding:
    return Binding(
        subscriber=subscriber,
        prefix=parse_prefix(prefix),
        ports=ports,
        since_s=1.0,
        confirmed_s=confirmed,
        nas="bng-1",
        session="s1",
    )


def test_a_binding_is_found_by_address_and_by_subscriber() -> None:
    bound = Bound()
    one = binding()
    assert bound.put(one)
    assert bound.bindings_at(ADDRESS) == bound.bindings_of(ALI) == (one,)
    assert bound.bindings_at(parse_address("10.1.2.4")) == bound.bindings_of(BANO) == ()
    assert list(bound) == [one]
    assert len(bound) == 1


def test_all_bindings_that_cover_an_address_are_found_longest_first() -> None:
    bound = Bound()
    host, site, net = (binding(prefix=each) for each in ("2001:db8::1/128", "2001:db8::/56", "2001:db8::/64"))
    for each in (site, host, net):
        bound.put(each)
    assert bound.bindings_at(parse_address("2001:db8::1")) == (host, net, site)
    assert bound.bindings_at(parse_address("2001:db8:0:1::1")) == (site,)


def test_a_word_on_the_same_place_replaces_the_binding_where_it_is() -> None:
    bound = Bound()
    bound.put(binding(confirmed=2))
    bound.put(binding(BANO))
    later = binding(confirmed=9)
    assert not bound.put(later)
    assert bound.bindings_of(ALI) == (later,)
    assert bound.bindings_at(ADDRESS) == (later, binding(BANO))
    assert len(bound) == 2


def test_one_address_has_room_for_many_blocks_and_subscribers() -> None:
    bound = Bound()
    blocks = [
        binding(ALI, ports=(1024, 2047)),
        binding(ALI, ports=(2048, 3071)),
        binding(BANO, ports=(4096, 5119)),
        binding(BANO),
    ]
    assert all([bound.put(each) for each in blocks])
    assert bound.bindings_at(ADDRESS) == tuple(blocks)
    assert bound.take(ALI, HOME, (1024, 2047))
    assert bound.bindings_at(ADDRESS) == tuple(blocks[1:])
    assert bound.bindings_of(ALI) == (blocks[1],)


def test_what_is_taken_away_leaves_nothing_behind() -> None:
    bound = Bound()
    bound.put(binding())
    assert not bound.take(ALI, HOME, (1024, 2047))
    assert not bound.take(BANO, HOME, None)
    assert bound.take(ALI, HOME, None)
    assert not bound.take(ALI, HOME, None)
    assert bound.bindings_at(ADDRESS) == bound.bindings_of(ALI) == ()
    assert list(bound) == []
    assert len(bound) == 0


def test_three_of_one_subscriber_shrink_to_two_and_to_one() -> None:
    bound = Bound()
    one, two, three = (mobile(f"PK-{number}") for number in (1, 2, 3))
    for each in (one, two, three):
        bound.enlist(each)
    assert bound.registrations_of(ALI) == (one, two, three)
    bound.strike(two)
    assert bound.registrations_of(ALI) == (one, three)
    bound.strike(one)
    assert bound.registrations_of(ALI) == (three,)
    bound.strike(three)
    assert bound.registrations_of(ALI) == ()


def test_the_subscribers_are_live_and_those_that_registrations_name() -> None:
    bound = Bound()
    subscribers = bound.subscribers
    bound.put(binding(BANO))
    assert ALI not in subscribers
    assert BANO not in subscribers
    one, two = mobile("PK-1"), mobile("PK-2")
    bound.enlist(one)
    bound.enlist(two)
    bound.strike(one)
    assert ALI in subscribers
    bound.strike(two)
    assert ALI not in subscribers


def test_a_registration_without_subscriber_is_nowhere_and_is_given_nothing() -> None:
    bound = Bound()
    bound.put(binding())
    fixed = mobile(subscriber=None)
    bound.enlist(fixed)
    bound.strike(fixed)
    assert bound.bound_registrations_of(fixed) == ()


def test_bound_registrations_are_each_registration_at_each_place_of_its_subscriber() -> None:
    bound = Bound()
    one, two, other = mobile("PK-1"), mobile("PK-2"), mobile("PK-3", BANO)
    for each in (one, two, other):
        bound.enlist(each)
    site = parse_prefix("2001:db8::/56")
    bound.put(binding(ports=(1024, 2047)))
    bound.put(binding(prefix=str(site)))
    assert bound.bound_registrations_of(one) == (
        BoundRegistration(one, HOME, (1024, 2047)),
        BoundRegistration(one, site),
    )
    assert bound.bound_registrations_of(mobile("PK-9")) == (
        BoundRegistration(mobile("PK-9"), HOME, (1024, 2047)),
        BoundRegistration(mobile("PK-9"), site),
    )
    assert bound.bound_registrations_of(other) == ()
    assert bound.bound_registrations_at(ALI, HOME, None) == (
        BoundRegistration(one, HOME),
        BoundRegistration(two, HOME),
    )


def test_striking_what_is_not_enlisted_is_a_bug_and_changes_nothing() -> None:
    bound = Bound()
    one = mobile()
    bound.enlist(one)
    with pytest.raises(KeyError):
        bound.strike(mobile("PK-1"))
    with pytest.raises(KeyError):
        bound.strike(mobile("PK-1", BANO))
    assert bound.registrations_of(ALI) == (one,)


def test_an_error_shows_no_digest() -> None:
    with pytest.raises(KeyError) as raised:
        Bound().strike(mobile())
    assert repr(ALI)[2:-1] not in str(raised.value)
