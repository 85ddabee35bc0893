"""What many sessions, addresses and names cost is bounded, and never at the cost of a registered subscriber."""

from __future__ import annotations

from ipaddress import IPv4Address

from gatewayd.subscribers.sessions.index import BATCH
from gatewayd.subscribers.sessions.naming import MAX_ADDRESSES, MAX_ADDRESSES_OF_SUBSCRIBER
from gatewayd.subscribers.sessions.session import Terms
from tests.support.accounting import ALI, BANO, CHAND, Table


def hosts(count: int, first: str = "10.0.0.0") -> list[str]:
    return [str(IPv4Address(first) + number) for number in range(count)]


# Addresses


def test_addresses_of_all_sessions_are_bounded_and_the_registered_have_theirs() -> None:
    table = Table({ALI}, max_addresses=2)
    table.interim("c1", CHAND, *hosts(3), at=10, is_snapshot=True)
    assert table.sessions.counts.addresses_refused == 1
    table.start("a1", ALI, "10.9.0.1", at=11)
    table.start("b1", BANO, "10.9.0.2", at=12)
    assert table.bound() == {"10.9.0.1/32": ALI}
    assert table.sessions.counts.addresses_refused == 2


def test_an_address_that_is_refused_is_still_taken_from_whom_it_was_given_before() -> None:
    table = Table({ALI}, max_addresses=1)
    table.start("a1", ALI, "10.0.0.1", at=10)
    table.start("b1", BANO, "10.0.0.1", at=20)
    assert table.bound() == {}
    table.start("c1", CHAND, "10.0.0.2", "10.0.0.1", at=30)
    table.interim("a1", ALI, "10.0.0.1", at=25, now=40)
    assert table.bound() == {}, "somebody else had it later"


def test_room_that_is_given_back_is_given_out_again() -> None:
    table = Table({ALI}, max_addresses=1)
    table.start("b1", BANO, "10.0.0.1", at=10)
    table.start("c1", CHAND, "10.0.0.2", at=11)
    table.stop("b1", BANO, at=12)
    table.interim("c1", CHAND, "10.0.0.2", at=13)
    assert table.sessions.counts.addresses_refused == 1


def test_a_subscriber_has_no_more_addresses_than_it_may_in_however_many_sessions() -> None:
    table = Table({ALI})
    sessions = MAX_ADDRESSES_OF_SUBSCRIBER // MAX_ADDRESSES + 1
    for number in range(sessions):
        some = hosts(MAX_ADDRESSES, f"10.0.{number}.0")
        table.interim(f"a{number}", ALI, *some, at=10 + number, is_snapshot=True)
    bound = table.bound()
    assert len(bound) == MAX_ADDRESSES_OF_SUBSCRIBER
    assert not any(each.startswith("10.0.0.") for each in bound), "those that were confirmed longest ago went"
    assert table.sessions.counts.over_limit == MAX_ADDRESSES


def test_what_a_journal_has_too_much_of_goes_at_the_start() -> None:
    before = Table({ALI})
    for number in range(MAX_ADDRESSES_OF_SUBSCRIBER // MAX_ADDRESSES):
        before.interim(f"a{number}", ALI, *hosts(MAX_ADDRESSES, f"10.0.{number}.0"), at=10, is_snapshot=True)
    rows = before.next_rows()
    other = Table({ALI})
    other.interim("extra", ALI, *hosts(5, "10.9.0.0"), at=5, is_snapshot=True)
    after = Table({ALI})
    after.sessions.restore([*rows, *other.next_rows()], 20)
    assert len(after.bound()) == MAX_ADDRESSES_OF_SUBSCRIBER
    assert not any(each.startswith("10.9.") for each in after.bound())


# NAS


def test_a_new_nas_of_a_registered_subscriber_finds_room_among_those_without_one() -> None:
    table = Table({ALI, BANO}, max_nas=3)
    table.start("a1", ALI, "10.0.0.1", at=10, nas="bng1")
    table.start("c1", CHAND, "10.0.0.2", at=11, nas="made up 1")
    table.start("c2", CHAND, "10.0.0.3", at=12, nas="made up 1")
    table.start("c3", CHAND, "10.0.0.4", at=13, nas="made up 2")
    table.start("c4", CHAND, "10.0.0.5", at=14, nas="made up 3")
    assert table.sessions.counts.nas_refused == 1
    table.start("b1", BANO, "10.0.0.6", at=15, nas="bng2")
    assert table.bound() == {"10.0.0.1/32": ALI, "10.0.0.6/32": BANO}
    assert (table.sessions.counts.nas_evicted, len(table.sessions)) == (1, 4), "the one with one session made room"


def test_where_every_nas_has_registered_subscribers_a_new_one_is_refused() -> None:
    table = Table({ALI, BANO}, max_nas=1)
    table.start("a1", ALI, "10.0.0.1", at=10, nas="bng1")
    table.start("b1", BANO, "10.0.0.2", at=11, nas="bng2")
    assert table.bound() == {"10.0.0.1/32": ALI}
    assert (table.sessions.counts.nas_evicted, table.sessions.counts.nas_refused) == (0, 1)


# Tombstones


def test_tombstones_of_the_registered_outlive_any_number_of_others() -> None:
    table = Table({ALI}, max_tombstones=4)
    table.start("a1", ALI, "10.0.0.1", at=10)
    table.stop("a1", ALI, "10.0.0.1", at=20)
    for number in range(20):
        table.stop(f"c{number}", CHAND, f"10.1.0.{number}", at=21)
    assert table.sessions.tombstones_lost > 0
    table.interim("a1", ALI, "10.0.0.1", at=15, now=30)
    assert table.bound() == {}
    assert table.sessions.counts.tombstoned == 1


def test_the_last_record_of_a_registered_subscribers_address_outlives_others_too() -> None:
    table = Table({ALI, BANO}, max_tombstones=4)
    table.start("a1", ALI, "10.0.0.1", at=20)
    table.stop("a1", ALI, at=21)
    for number in range(20):
        table.start(f"c{number}", CHAND, f"10.1.0.{number}", at=22)
        table.stop(f"c{number}", CHAND, at=23)
    table.start("b1", BANO, "10.0.0.1", at=15, now=30)
    assert table.bound() == {}, "ALI had it later"


def test_long_session_ids_are_told_apart() -> None:
    long = ["x" * 252 + last for last in "ab"]
    table = Table()
    for session, address in zip(long, hosts(2), strict=True):
        table.start(session, ALI, address, at=10)
    table.stop(long[0], ALI, at=20)
    for session, address in zip(long, hosts(2), strict=True):
        table.interim(session, ALI, address, at=15, now=30)
    assert table.bound() == {"10.0.0.1/32": ALI}


# Questions


def test_the_last_record_of_a_session_is_found_by_the_name_of_its_nas() -> None:
    table = Table()
    table.start("a1", ALI, "10.0.0.1", at=10)
    table.interim("a1", ALI, at=20)
    assert table.sessions.last_record_s("bng1", "a1") == 20
    assert table.sessions.last_record_s("bng1", "a2") is None
    assert table.sessions.last_record_s("bng2", "a1") is None
    assert table.sessions.restored == 0
    assert table.sessions.same_names() == ()


def test_a_session_that_runs_out_after_a_restart_of_its_nas_ended_by_it() -> None:
    table = Table(terms=Terms(restart_grace_s=60))
    table.start("a1", ALI, "10.0.0.1", at=10)
    table.start("a2", ALI, "10.0.0.2", at=100)
    table.on(at=50, now=100)
    table.wait_until(100)
    table.wait_until(200)
    assert table.bound() == {"10.0.0.2/32": ALI}
    assert table.sessions.counts.ended_by_restart == 1


def test_of_a_session_that_a_restart_did_not_end_what_was_named_before_goes() -> None:
    table = Table(terms=Terms(restart_grace_s=0))
    table.start("a1", ALI, "10.0.0.1", at=10)
    table.interim("a1", ALI, "2001:db8::/64", at=60)
    table.start("a2", ALI, "10.0.0.2", at=60)
    table.on(at=50, now=60)
    table.wait_until(70)
    assert table.bound() == {"2001:db8::/64": ALI, "10.0.0.2/32": ALI}


def test_a_session_that_ended_before_the_scan_came_to_it_is_passed_over() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    for number in range(BATCH):
        table.start(f"t{number}", number.to_bytes(32, "big"), at=10)
    table.on(at=20)
    table.sessions.handle_timer(20)
    table.stop("s1", at=21)
    table.wait_until(22)
    assert len(table.sessions) == 0
    assert table.sessions.counts.ended_by_restart == BATCH
