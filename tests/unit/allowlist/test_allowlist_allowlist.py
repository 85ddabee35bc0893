from __future__ import annotations

from gatewayd.allowlist import Allowlist
from gatewayd.model import Flow, Registration, Status, parse_address, parse_prefix

ADDRESS = parse_address("10.1.2.3")


def registration(
    id: str = "PK-1", *clients: str, category: str = "bank", status: Status = "active"
) -> Registration:
    return Registration(id, category, status, tuple(sorted(map(parse_prefix, clients or ("10.1.2.0/24",)))))


def test_what_is_upserted_is_found_by_id_by_address_and_by_prefix() -> None:
    allowlist = Allowlist()
    one = registration("PK-1", "10.1.2.0/24", "2001:db8::/48")
    assert allowlist.upsert(one) is None
    assert allowlist.get("PK-1") is one
    assert "PK-1" in allowlist
    assert allowlist.covering(ADDRESS) == allowlist.covering(parse_address("2001:db8::1")) == (one,)
    assert allowlist.at(parse_prefix("10.1.2.0/24")) == (one,)
    assert allowlist.at(parse_prefix("10.1.2.0/25")) == ()
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
