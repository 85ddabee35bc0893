from __future__ import annotations

from gatewayd.allowlist import Allowlist
from gatewayd.model import Binding, BoundRegistration, Flow, Registration, Status, parse_address, parse_prefix

ADDRESS = parse_address("10.1.2.3")
HOME = parse_prefix("10.1.2.3/32")
ALI, BANO = b"\1" * 32, b"\2" * 32


def registration(
    id: str = "PK-1", *clients: str, category: str = "bank", status: Status = "active"
) -> Registration:
    return Registration(id, category, status, tuple(sorted(map(parse_prefix, clients or ("10.1.2.0/24",)))))


def test_what_is_upserted_is_found_by_id_and_by_address() -> None:
    allowlist = Allowlist()
    one = registration("PK-1", "10.1.2.0/24", "2001:db8::/48")
    assert allowlist.upsert(one) is None
    assert allowlist.get("PK-1") is one
    assert "PK-1" in allowlist
    assert allowlist.covering(ADDRESS) == allowlist.covering(parse_address("2001:db8::1")) == (one,)
    assert list(allowlist) == [one]


def test_an_upsert_of_a_known_id_replaces_it_everywhere() -> None:
    allowlist = Allowlist()
    old = registration("PK-1", "10.1.2.0/24")
    new = registration("PK-1", "10.9.0.0/16", category="embassy", status="suspended")
    allowlist.upsert(old)
    assert allowlist.upsert(new) is old
    assert len(allowlist) == 1
    assert allowlist.covering(ADDRESS) == ()
    assert allowlist.covering(parse_address("10.9.9.9")) == (new,)
    assert allowlist.count_by_category() == {"embassy": 1}
    assert allowlist.count_by_status() == {"suspended": 1}


def test_an_upsert_of_an_equal_registration_keeps_the_old_object() -> None:
    allowlist = Allowlist()
    old = registration()
    allowlist.upsert(old)
    assert allowlist.upsert(registration()) is old
    assert allowlist.get("PK-1") is old
    assert allowlist.count_by_category() == {"bank": 1}


def test_a_withdrawal_leaves_nothing_behind() -> None:
    allowlist = Allowlist()
    one, other = registration("PK-1"), registration("PK-2")
    allowlist.upsert(one)
    allowlist.upsert(other)
    assert allowlist.withdraw("PK-1") is one
    assert allowlist.withdraw("PK-1") is None
    assert allowlist.get("PK-1") is None
    assert allowlist.covering(ADDRESS) == (other,)
    assert allowlist.count_by_category() == {"bank": 1}
    assert allowlist.withdraw("PK-2") is other
    assert len(allowlist) == 0
    assert allowlist.count_by_category() == allowlist.count_by_status() == {}


def test_a_registration_with_a_subscriber_alone_is_held_and_covers_no_address() -> None:
    allowlist = Allowlist()
    mobile = Registration("PK-9", "freelancer", "active", (), subscriber=b"\1" * 32)
    allowlist.upsert(mobile)
    assert list(allowlist) == [mobile]
    assert allowlist.covering(ADDRESS) == ()
    assert allowlist.withdraw("PK-9") is mobile


def test_nested_clients_of_one_registration_cover_once_in_the_longest_place() -> None:
    allowlist = Allowlist()
    nested = registration("PK-1", "10.0.0.0/8", "10.1.2.3/32")
    middle = registration("PK-2", "10.1.2.0/24")
    allowlist.upsert(middle)
    allowlist.upsert(nested)
    assert allowlist.covering(ADDRESS) == (nested, middle)


def test_matching_asks_at_the_moment_and_stores_nothing() -> None:
    allowlist = Allowlist()
    window = Registration(
        "PK-1", "bank", "active", (parse_prefix("10.1.2.0/24"),), valid_from_s=10, valid_until_s=20
    )
    allowlist.upsert(window)
    subject = Flow(50, ADDRESS, parse_address("198.51.100.1"))
    assert [allowlist.matching(subject, now) for now in (9.0, 10.0, 20.0, 15.0)] == [
        (),
        (window,),
        (),
        (window,),
    ]


def test_a_handed_out_count_is_a_copy() -> None:
    allowlist = Allowlist()
    allowlist.upsert(registration())
    allowlist.count_by_category().clear()
    assert allowlist.count_by_category() == {"bank": 1}


def mobile(id: str = "PK-7", subscriber: bytes | None = ALI, status: Status = "active") -> Registration:
    return Registration(id, "freelancer", status, (), subscriber=subscriber)


def binding(subscriber: bytes = ALI, prefix: str = "10.1.2.3/32", confirmed: float = 2.0) -> Binding:
    return Binding(
        subscriber=subscriber,
        prefix=parse_prefix(prefix),
        since_s=1.0,
        confirmed_s=confirmed,
        nas="bng-1",
        session="s1",
    )


def test_a_binding_gives_its_place_to_every_registration_of_the_subscriber_whatever_its_status() -> None:
    allowlist = Allowlist()
    one, two = mobile("PK-1"), mobile("PK-2", status="suspended")
    for each in (one, two, mobile("PK-3", BANO), registration("PK-4")):
        allowlist.upsert(each)
    given = (BoundRegistration(one, HOME), BoundRegistration(two, HOME))
    assert allowlist.bound_registrations_at(binding()) == given


def test_a_registration_is_given_each_place_of_its_subscriber() -> None:
    allowlist = Allowlist()
    one, other, fixed = mobile("PK-1"), mobile("PK-3", BANO), mobile("PK-4", None)
    for each in (one, other, fixed):
        allowlist.upsert(each)
    site = parse_prefix("2001:db8::/56")
    allowlist.bindings.put(binding())
    allowlist.bindings.put(binding(prefix=str(site)))
    assert allowlist.bound_registrations_of(one) == (BoundRegistration(one, HOME), BoundRegistration(one, site))
    never = mobile("PK-9")
    assert allowlist.bound_registrations_of(never) == (
        BoundRegistration(never, HOME),
        BoundRegistration(never, site),
    )
    assert allowlist.bound_registrations_of(other) == allowlist.bound_registrations_of(fixed) == ()


def test_the_subscribers_are_live_and_those_that_registrations_name() -> None:
    allowlist = Allowlist()
    subscribers = allowlist.subscribers
    allowlist.bindings.put(binding(BANO))
    assert ALI not in subscribers
    assert BANO not in subscribers
    for each in (mobile("PK-1"), mobile("PK-2")):
        allowlist.upsert(each)
    allowlist.withdraw("PK-1")
    assert ALI in subscribers
    allowlist.withdraw("PK-2")
    assert ALI not in subscribers


def test_a_binding_may_be_there_before_its_registration_and_stay_after_it() -> None:
    allowlist = Allowlist()
    bound = binding()
    assert allowlist.bound_registrations_at(bound) == ()
    allowlist.bindings.put(bound)
    one = mobile()
    allowlist.upsert(one)
    assert allowlist.bound_registrations_of(one) == (BoundRegistration(one, HOME),)
    assert allowlist.registrations_of(ALI) == (one,)
    assert allowlist.withdraw("PK-7") is one
    assert allowlist.bound_registrations_of(one) == (BoundRegistration(one, HOME),), "what it loses"
    assert allowlist.registrations_of(ALI) == ()
    assert allowlist.bound_registrations_at(bound) == ()


def test_matching_knows_a_bound_registration_only_while_it_is_bound() -> None:
    allowlist = Allowlist()
    one = mobile()
    allowlist.upsert(one)
    subject = Flow(50, ADDRESS, parse_address("198.51.100.1"))
    assert allowlist.matching(subject, 0.0) == ()
    home, far = binding(), binding(BANO, "10.0.0.0/8")
    allowlist.bindings.put(home)
    allowlist.bindings.put(far)
    assert allowlist.matching(subject, 0.0) == (one,)
    allowlist.bindings.remove(home)
    assert allowlist.matching(subject, 0.0) == ()
    allowlist.bindings.put(binding(prefix="10.1.0.0/16"))
    allowlist.bindings.remove(far)
    assert allowlist.matching(subject, 0.0) == (one,)
    allowlist.withdraw(one.id)
    assert allowlist.matching(subject, 0.0) == ()


def test_a_registration_by_client_and_by_binding_matches_once_and_those_by_client_come_first() -> None:
    allowlist = Allowlist()
    both = Registration("PK-1", "bpo", "active", (parse_prefix("10.1.2.0/24"),), subscriber=ALI)
    bound_only, far = mobile("PK-2"), registration("PK-3", "198.51.100.1/32")
    for each in (bound_only, both, far):
        allowlist.upsert(each)
    allowlist.bindings.put(binding())
    allowlist.bindings.put(binding(prefix="10.1.2.0/24"))
    assert allowlist.matching(Flow(50, ADDRESS, parse_address("198.51.100.1")), 0.0) == (both, far, bound_only)


def test_who_came_and_who_left_the_subscribers_is_told_by_what_was_replaced() -> None:
    allowlist = Allowlist()
    subscribers = allowlist.subscribers

    def upsert(new: Registration) -> tuple[bytes, ...]:
        return allowlist.subscribers_changed(allowlist.upsert(new), new)

    def withdraw(id: str) -> tuple[bytes, ...]:
        return allowlist.subscribers_changed(allowlist.withdraw(id), None)

    assert upsert(registration("PK-0")) == ()
    assert upsert(mobile("PK-1")) == (ALI,)
    assert upsert(mobile("PK-1")) == ()
    assert upsert(mobile("PK-1", status="revoked")) == ()
    assert ALI in subscribers
    assert upsert(mobile("PK-2")) == ()
    assert upsert(mobile("PK-1", BANO)) == (BANO,)
    assert withdraw("PK-1") == (BANO,)
    assert BANO not in subscribers
    assert upsert(mobile("PK-2", BANO)) == (ALI, BANO)
    assert ALI not in subscribers
    assert upsert(registration("PK-2")) == (BANO,)
    assert withdraw("PK-2") == withdraw("PK-9") == ()


def test_a_bound_address_within_the_own_prefix_of_others_is_named_once_each() -> None:
    allowlist = Allowlist()
    own = registration("PK-own", "10.1.2.0/24", "10.1.2.0/28")
    for each in (own, registration("PK-pool", "10.1.0.0/16")):
        allowlist.upsert(each)
    mobile = Registration("PK-mobile", "bank", "active", (parse_prefix("10.1.2.3/32"),), ALI)
    allowlist.upsert(mobile)
    binding = Binding(subscriber=ALI, prefix=HOME, since_s=0, confirmed_s=0, nas="bng", session="s")
    assert allowlist.owners_around(binding) == (own,)


def test_registrations_of_a_crowd_are_found_by_their_peers() -> None:
    allowlist = Allowlist()
    home = (parse_prefix("203.0.113.0/28"),)
    for number in range(100):
        peers = (parse_prefix(f"198.51.100.{number}/32"),)
        allowlist.upsert(Registration(f"PK-{number}", "bank", "active", home, None, peers))
    inside, peer = parse_address("203.0.113.5"), parse_address("198.51.100.7")
    assert [each.id for each in allowlist.facing(inside, peer)] == ["PK-7"]
    assert len(allowlist.covering(inside)) == 100
    assert [each.id for each in allowlist.around(inside, peer, 2)] == ["PK-7", "PK-0", "PK-1"]
    allowlist.withdraw("PK-7")
    assert list(allowlist.facing(inside, peer)) == []
    assert [each.id for each in allowlist.around(inside, peer, 2)] == ["PK-0", "PK-1"]
    assert allowlist.matching(Flow(50, inside, peer), 0.0) == ()


def test_a_subscriber_has_a_place_while_a_binding_of_it_is_there() -> None:
    allowlist = Allowlist()
    allowlist.upsert(mobile())
    assert not allowlist.has_place(ALI), "a registration alone gives none"
    one, other = binding(), binding(prefix="10.1.2.4/32")
    for each in (one, other):
        allowlist.bindings.put(each)
    assert allowlist.has_place(ALI)
    assert not allowlist.has_place(BANO)
    allowlist.bindings.remove(one)
    assert allowlist.has_place(ALI)
    allowlist.bindings.remove(other)
    assert not allowlist.has_place(ALI)
