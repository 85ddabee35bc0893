"""Starts, Interims and Stops, in every order that networks have been seen to deliver them."""

from __future__ import annotations

from itertools import permutations

from gatewayd.subscribers.sessions.index import MAX_OF_SUBSCRIBER
from gatewayd.subscribers.sessions.naming import MAX_ADDRESSES
from gatewayd.subscribers.sessions.session import Terms
from tests.support.accounting import ALI, BANO, CHAND, Table


def test_a_start_binds_and_its_stop_unbinds() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    assert table.bound() == {"10.0.0.1/32": ALI}
    (binding,) = table.confirmed()
    assert (binding.since_s, binding.confirmed_s, binding.nas, binding.session) == (10, 10, "bng1", "s1")
    table.stop("s1", ALI, "10.0.0.1", at=20)
    assert table.bound() == {}
    assert len(table.sessions) == 0


def test_a_repeated_start_changes_nothing() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.next_changes()
    table.start("s1", ALI, "10.0.0.1", at=10, received=15)
    table.start("s1", ALI, "10.0.0.1", at=10.4, received=16)
    assert table.next_changes() == []
    assert len(table.sessions) == 1
    assert table.sessions.counts.repeated == 1


def test_an_interim_confirms() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.bound()
    table.interim("s1", ALI, "10.0.0.1", at=70)
    assert table.next_changes() == []
    (binding,) = table.confirmed()
    assert (binding.since_s, binding.confirmed_s) == (10, 70)


def test_an_interim_whose_start_nobody_heard_is_taken_as_one() -> None:
    table = Table()
    table.interim("s1", ALI, "10.0.0.1", at=70)
    assert table.bound() == {"10.0.0.1/32": ALI}
    assert table.sessions.counts.interims_first == 1


def test_a_start_that_comes_after_its_interim_adds_what_that_left_out() -> None:
    table = Table()
    table.interim("s1", ALI, "2001:db8::/56", at=11)
    table.start("s1", ALI, "10.0.0.1", at=10, received=12)
    assert table.bound() == {"10.0.0.1/32": ALI, "2001:db8::/56": ALI}
    table.stop("s1", at=10.5)
    assert table.bound() == {}, "it began at 10, so a Stop at 10.5 is its own"


def test_a_stop_of_an_unknown_session_changes_nothing_but_holds_back_its_late_start() -> None:
    table = Table()
    table.stop("s1", ALI, "10.0.0.1", at=20)
    table.start("s1", ALI, "10.0.0.1", at=10, received=21)
    assert table.bound() == {}
    assert table.sessions.counts.unknown_stops == 1
    assert table.sessions.counts.tombstoned == 1


def test_a_late_stop_leaves_the_session_that_has_the_address_since() -> None:
    table = Table()
    table.start("old", ALI, "10.0.0.1", at=10)
    table.start("new", BANO, "10.0.0.1", at=20)
    table.stop("old", ALI, "10.0.0.1", at=19, received=25)
    assert table.bound() == {"10.0.0.1/32": BANO}


def test_a_late_stop_leaves_the_new_session_of_the_same_subscriber() -> None:
    table = Table()
    table.start("old", ALI, "10.0.0.1", at=10)
    table.start("new", ALI, "10.0.0.1", at=20)
    table.next_changes()
    table.stop("old", ALI, "10.0.0.1", at=19, received=25)
    assert table.next_changes() == []
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_an_interim_after_its_stop_raises_nothing() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.stop("s1", ALI, at=100)
    table.interim("s1", ALI, "10.0.0.1", at=90, received=101)
    table.interim("s1", ALI, "10.0.0.1", at=100, received=102)
    table.interim("s1", ALI, "10.0.0.1", at=101)
    assert table.bound() == {}
    assert table.sessions.counts.tombstoned == 3


def test_an_interim_that_happened_well_after_the_stop_opens_the_session_again() -> None:
    table = Table()
    table.stop("s1", ALI, at=100)
    table.interim("s1", ALI, "10.0.0.1", at=160)
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_a_session_id_that_is_used_again_after_its_stop_is_another_session() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.stop("s1", ALI, at=20)
    table.start("s1", BANO, "10.0.0.2", at=21)
    assert table.bound() == {"10.0.0.2/32": BANO}
    table.stop("s1", ALI, at=20, received=30)
    assert table.bound() == {"10.0.0.2/32": BANO}
    assert table.sessions.counts.late_stops == 1


def test_a_session_id_that_is_used_again_without_a_stop_ends_the_former_session() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.start("s1", BANO, "10.0.0.2", at=20)
    assert table.bound() == {"10.0.0.2/32": BANO}
    assert table.sessions.counts.missed_stops == 1
    table.interim("s1", ALI, "10.0.0.1", at=15, received=25)
    assert table.bound() == {"10.0.0.2/32": BANO}
    assert table.sessions.counts.before_restart == 1


def test_a_start_without_a_number_at_another_address_does_not_inherit_the_subscriber() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.start("s1", None, "10.0.0.2", at=20)
    assert table.bound() == {}
    assert table.sessions.counts.missed_stops == 1


def test_a_start_without_a_number_at_the_same_address_is_a_repetition() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.start("s1", None, "10.0.0.1", at=20)
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_a_stop_older_than_an_interim_already_heard_ends_what_was_before_it() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", "2001:db8::/56", at=10)
    table.interim("s1", ALI, "10.0.0.1", at=60)
    table.stop("s1", ALI, at=20, received=61)
    assert table.bound() == {"10.0.0.1/32": ALI}
    assert table.sessions.counts.late_stops == 1
    table.stop("s1", ALI, at=70)
    assert table.bound() == {}


def test_a_stop_with_another_number_still_ends_its_session() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.stop("s1", BANO, at=20)
    assert table.bound() == {}


def test_a_number_that_only_a_later_word_names_binds_what_the_session_has() -> None:
    table = Table()
    table.start("s1", None, "10.0.0.1", at=10)
    assert table.bound() == {}
    table.interim("s1", ALI, at=20)
    assert table.bound() == {"10.0.0.1/32": ALI}
    table.interim("s1", None, "10.0.0.1", at=30)
    assert table.bound() == {"10.0.0.1/32": ALI}


# Addresses


def test_an_interim_that_is_a_snapshot_takes_away_what_it_does_not_name() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", "2001:db8::/64", "2001:db8:1::/56", at=10, is_snapshot=True)
    table.bound()
    table.interim("s1", ALI, "10.0.0.1", "2001:db8:1::/56", at=20, is_snapshot=True)
    assert table.next_changes() == ["-2001:db8::/64"]


def test_an_interim_that_is_no_snapshot_takes_nothing_away() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", "2001:db8::/64", at=10)
    table.interim("s1", ALI, "2001:db8:1::/56", at=20)
    assert table.bound().keys() == {"10.0.0.1/32", "2001:db8::/64", "2001:db8:1::/56"}


def test_a_word_that_names_no_address_says_nothing_of_addresses() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10, is_snapshot=True)
    table.interim("s1", ALI, at=20, is_snapshot=True)
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_a_change_of_address_adds_the_new_one_before_it_removes_the_old_one() -> None:
    for is_snapshot in (False, True):
        table = Table()
        table.start("s1", ALI, "10.0.0.1", at=10, is_snapshot=is_snapshot)
        table.bound()
        table.interim("s1", ALI, "10.0.0.2", at=20, is_snapshot=is_snapshot)
        assert table.next_changes() == ["+10.0.0.2/32", "-10.0.0.1/32"]


def test_an_older_address_does_not_come_back_with_a_late_interim() -> None:
    for is_snapshot in (False, True):
        table = Table()
        table.start("s1", ALI, "10.0.0.1", at=10, is_snapshot=is_snapshot)
        table.interim("s1", ALI, "10.0.0.3", at=30, is_snapshot=is_snapshot)
        table.interim("s1", ALI, "10.0.0.2", at=20, received=31, is_snapshot=is_snapshot)
        assert table.bound() == {"10.0.0.3/32": ALI}


def test_ipv6_that_comes_in_interims_of_the_second_of_the_start_is_added_in_any_order() -> None:
    table = Table()
    table.interim("s1", ALI, "10.0.0.1", "2001:db8::/64", "2001:db8:1::/56", at=10, is_snapshot=True)
    table.interim("s1", ALI, "10.0.0.1", "2001:db8::/64", at=10, is_snapshot=True)
    table.start("s1", ALI, "10.0.0.1", at=10, is_snapshot=True)
    assert table.bound().keys() == {"10.0.0.1/32", "2001:db8::/64", "2001:db8:1::/56"}


def test_two_sessions_of_a_subscriber_are_a_union() -> None:
    table = Table()
    table.start("v4", ALI, "10.0.0.1", at=10)
    table.start("v6", ALI, "2001:db8::/56", "10.0.0.1", at=10)
    assert table.bound().keys() == {"10.0.0.1/32", "2001:db8::/56"}
    table.stop("v4", ALI, at=20)
    assert table.next_changes() == [], "the other session has the address too"
    table.stop("v6", ALI, at=30)
    assert table.bound() == {}


def test_a_subscriber_may_have_sessions_at_two_nas() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10, nas="bng1")
    table.start("s1", ALI, "10.0.0.2", at=20, nas="bng2")
    table.stop("s1", ALI, at=30, nas="bng1")
    assert table.bound() == {"10.0.0.2/32": ALI}


def test_a_session_keeps_no_more_addresses_than_it_may() -> None:
    table = Table()
    for number in range(MAX_ADDRESSES + 3):
        table.interim("s1", ALI, f"2001:db8:{number:x}::/56", at=10 + number)
    assert len(table.bound()) == MAX_ADDRESSES
    assert "2001:db8::/56" not in table.bound()
    assert table.sessions.counts.over_limit == 3


# Addresses that change hands


def test_an_address_that_is_started_for_another_subscriber_is_his_at_once() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.bound()
    table.start("s2", BANO, "10.0.0.1", at=20)
    assert table.next_changes() == ["+10.0.0.1/32", "-10.0.0.1/32"]
    assert [change.binding.subscriber for change in table.changes] == [BANO, ALI]
    assert table.sessions.counts.evictions == 1
    assert table.sessions.counts.missed_stops == 1


def test_of_two_subscribers_the_later_event_has_the_address_whichever_comes_first() -> None:
    table = Table()
    table.start("s2", BANO, "10.0.0.1", at=20)
    table.start("s1", ALI, "10.0.0.1", at=10, received=21)
    assert table.bound() == {"10.0.0.1/32": BANO}
    assert table.sessions.counts.superseded == 1


def test_an_address_does_not_fall_back_to_whom_it_was_taken_from() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.start("s2", BANO, "10.0.0.1", at=20)
    table.stop("s2", BANO, at=30)
    assert table.bound() == {}
    table.interim("s1", ALI, "10.0.0.1", at=15, received=31)
    assert table.bound() == {}
    table.interim("s1", ALI, "10.0.0.1", at=40)
    assert table.bound() == {"10.0.0.1/32": ALI}, "its own session says again that it has it"


def test_at_the_same_second_a_start_takes_what_an_interim_keeps() -> None:
    for is_start_first in (False, True):
        table = Table()
        table.start("s1", ALI, "10.0.0.1", at=10)
        if is_start_first:
            table.start("s2", BANO, "10.0.0.1", at=20)
        table.interim("s1", ALI, "10.0.0.1", at=20)
        table.start("s2", BANO, "10.0.0.1", at=20)
        assert table.bound() == {"10.0.0.1/32": BANO}


def test_a_repeated_start_takes_nothing_back() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.start("s2", BANO, "10.0.0.1", at=10)
    table.start("s1", ALI, "10.0.0.1", at=10)
    assert table.bound() == {"10.0.0.1/32": BANO}


def test_a_subscriber_nobody_knows_takes_an_address_as_any_other() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.start("s2", None, "10.0.0.1", at=20)
    assert table.bound() == {}


def test_disjoint_port_blocks_of_an_address_belong_to_several() -> None:
    table = Table()
    table.start("s1", ALI, "203.0.113.1", at=10, ports=(1024, 2047))
    table.start("s2", BANO, "203.0.113.1", at=11, ports=(2048, 3071))
    assert table.blocks() == {
        ("203.0.113.1/32", 1024, 2047): ALI,
        ("203.0.113.1/32", 2048, 3071): BANO,
    }
    table.start("s3", CHAND, "203.0.113.1", at=20, ports=(2000, 2100))
    assert table.blocks() == {("203.0.113.1/32", 2000, 2100): CHAND}
    table.interim("s3", CHAND, "203.0.113.1", at=30, ports=(5000, 5999))
    assert len(table.blocks()) == 2, "another block of the same session"
    table.start("s4", ALI, "203.0.113.1", at=40)
    assert table.bound() == {"203.0.113.1/32": ALI}
    assert table.blocks() == {}


# 3GPP bearers


def test_a_stop_of_one_bearer_leaves_the_address_that_no_other_session_is_known_to_have() -> None:
    table = Table()
    table.start("b1", ALI, "10.0.0.1", at=10)
    table.stop("b1", ALI, "10.0.0.1", at=20, is_final_stop=False)
    assert table.bound() == {"10.0.0.1/32": ALI}
    table.stop("b2", ALI, "10.0.0.1", at=30)
    assert table.bound() == {}, "the final Stop is of all bearers"


def test_a_stop_of_one_bearer_ends_its_session_once_another_has_the_address() -> None:
    for is_stop_first in (False, True):
        table = Table()
        table.start("b1", ALI, "10.0.0.1", at=10)
        if is_stop_first:
            table.stop("b1", ALI, at=20, is_final_stop=False)
        table.start("b2", ALI, "10.0.0.1", at=15, received=21)
        if not is_stop_first:
            table.stop("b1", ALI, at=20, is_final_stop=False)
        assert len(table.sessions) == 1
        assert table.bound() == {"10.0.0.1/32": ALI}
        table.stop("b2", ALI, at=30)
        assert table.bound() == {}


def test_a_word_after_the_stop_of_a_bearer_keeps_the_session() -> None:
    table = Table()
    table.start("b1", ALI, "10.0.0.1", at=10)
    table.stop("b1", ALI, at=20, is_final_stop=False)
    table.interim("b1", ALI, "10.0.0.1", at=30)
    table.stop("b1", ALI, at=25, received=31, is_final_stop=False)
    table.stop("b9", ALI, "10.0.0.1", at=40)
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_a_lingering_session_that_lost_its_addresses_ends_with_an_older_record_of_its_own_and_for_good() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.stop("s1", at=100, is_final_stop=False)
    table.start("s2", BANO, "10.0.0.1", at=101)
    table.interim("s1", ALI, "10.0.0.1", at=95, received=102)
    assert table.bound() == {"10.0.0.1/32": BANO}
    assert len(table.sessions) == 1
    for now in (200_000, 300_000):
        table.wait_until(now)
    assert (len(table.sessions), table.sessions.tombstones, table.sessions.get_timer()) == (0, 0, None)


def test_a_final_stop_leaves_bearers_at_other_addresses_and_other_nas() -> None:
    table = Table()
    table.start("b1", ALI, "10.0.0.1", at=10)
    table.start("b1", ALI, "10.0.0.2", at=10, nas="ggsn2")
    table.stop("b1", ALI, at=20, is_final_stop=False)
    table.stop("b1", ALI, at=20, is_final_stop=False, nas="ggsn2")
    table.stop("b2", ALI, "10.0.0.9", "10.0.0.2", at=30)
    assert len(table.bound()) == 2
    table.stop("b2", ALI, "10.0.0.1", at=31)
    assert table.bound() == {"10.0.0.2/32": ALI}


def test_a_stop_of_a_bearer_that_nobody_knows_changes_nothing() -> None:
    table = Table()
    table.stop("b1", ALI, "10.0.0.1", at=20, is_final_stop=False)
    table.start("b1", ALI, "10.0.0.1", at=10, received=21)
    assert table.bound() == {"10.0.0.1/32": ALI}
    assert table.sessions.counts.bearer_stops == 1


# Registered or not


def test_of_a_subscriber_whom_no_registration_knows_nothing_is_told_until_one_does() -> None:
    registered: set[bytes] = set()
    table = Table(registered)
    table.start("s1", ALI, "10.0.0.1", at=10)
    assert table.next_changes() == []
    registered.add(ALI)
    table.sessions.recheck(ALI)
    assert table.next_changes() == ["+10.0.0.1/32"]
    registered.remove(ALI)
    table.sessions.recheck(ALI)
    assert table.next_changes() == ["-10.0.0.1/32"]


def test_what_changed_between_a_revocation_and_its_recheck_is_told_too() -> None:
    registered = {ALI}
    table = Table(registered)
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.next_changes()
    registered.remove(ALI)
    table.stop("s1", ALI, at=20)
    table.sessions.recheck(ALI)
    assert table.next_changes() == ["-10.0.0.1/32"]
    table.sessions.recheck(ALI)
    assert table.next_changes() == []


def test_what_went_and_came_back_in_between_is_no_change() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.next_changes()
    table.stop("s1", ALI, at=20)
    table.start("s2", ALI, "10.0.0.1", at=20)
    assert table.next_changes() == []
    assert [binding.session for binding in table.confirmed()] == ["s2"]


def test_a_binding_that_is_gone_and_not_told_yet_is_not_listed() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.next_changes()
    table.stop("s1", ALI, at=20)
    assert table.confirmed() == []


# Bounds


def test_a_full_table_refuses_the_unregistered_and_never_the_registered() -> None:
    table = Table({ALI}, max_sessions=1)
    table.start("s1", BANO, "10.0.0.1", at=10)
    table.start("s2", CHAND, "10.0.0.2", at=11)
    table.start("s3", None, "10.0.0.3", at=12)
    table.start("s4", ALI, "10.0.0.4", at=13)
    assert table.bound() == {"10.0.0.4/32": ALI}
    assert len(table.sessions) == 2
    assert table.sessions.counts.refused == 2


def test_a_session_that_is_refused_still_takes_the_address_from_whom_it_was_given_before() -> None:
    table = Table({ALI}, max_sessions=1)
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.start("s2", BANO, "10.0.0.1", "2001:db8::/56", at=20)
    assert table.bound() == {}
    table.interim("s1", ALI, "10.0.0.1", at=15, received=21)
    assert table.bound() == {}
    table.interim("s1", ALI, "10.0.0.1", at=30)
    table.start("s3", CHAND, "10.0.0.1", at=25, received=31)
    table.start("s5", CHAND, "203.0.113.1", at=32, ports=(1024, 2047))
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_a_subscriber_with_too_many_sessions_loses_the_one_longest_unheard() -> None:
    table = Table()
    for number in range(MAX_OF_SUBSCRIBER + 1):
        table.start(f"s{number}", ALI, f"10.0.0.{number}", at=10 + number)
    assert len(table.bound()) == MAX_OF_SUBSCRIBER
    assert "10.0.0.0/32" not in table.bound()
    assert table.sessions.counts.over_limit == 1
    table.stop("s1", at=200)
    table.stop("s2", at=200)
    assert len(table.sessions.sessions_of(ALI)) == MAX_OF_SUBSCRIBER - 2


def test_a_nas_beyond_the_bound_is_refused_unless_another_is_idle() -> None:
    table = Table(max_nas=1)
    table.start("s1", ALI, "10.0.0.1", at=10, nas="bng1")
    table.start("s2", BANO, "10.0.0.2", at=11, nas="bng2")
    assert table.bound() == {"10.0.0.1/32": ALI}
    assert table.sessions.counts.nas_refused == 1
    table.stop("s1", at=20, nas="bng1")
    table.start("s2", BANO, "10.0.0.2", at=21, nas="bng2")
    assert table.bound() == {"10.0.0.2/32": BANO}


# What the property test found: words that open or hold nothing still say whose an address was not


def test_an_address_that_was_somebody_elses_in_between_is_not_had_through_the_older_word() -> None:
    """bng2 had confirmed it to ALI since; when that ends, his older session at bng1 has it no more."""
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.start("s1", ALI, "10.0.0.1", at=30, nas="bng2")
    table.start("s2", BANO, "10.0.0.1", at=20, received=31)
    assert table.bound() == {"10.0.0.1/32": ALI}
    table.stop("s1", at=40, nas="bng2")
    assert table.bound() == {}


def test_a_late_start_of_a_session_that_is_over_takes_the_address_from_older_ones() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.stop("s2", BANO, at=30)
    table.start("s2", BANO, "10.0.0.1", at=20, received=31)
    assert table.bound() == {}


def test_a_late_word_that_its_own_session_has_superseded_takes_the_address_from_older_ones() -> None:
    for is_snapshot in (False, True):
        table = Table()
        table.start("s1", ALI, "10.0.0.1", at=10)
        table.interim("s2", BANO, "10.0.0.2", at=30, is_snapshot=is_snapshot)
        table.start("s2", BANO, "10.0.0.1", at=20, received=31, is_snapshot=is_snapshot)
        assert table.bound() == {"10.0.0.2/32": BANO}


def test_a_word_that_was_superseded_is_remembered_against_older_ones() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=30)
    table.interim("s1", ALI, "10.0.0.9", at=40)
    table.start("s2", BANO, "10.0.0.1", at=20, received=41)
    table.interim("s3", ALI, "10.0.0.1", at=10, received=42)
    assert table.bound() == {"10.0.0.9/32": ALI}


def test_an_older_address_does_not_come_back_because_the_newer_one_was_lost() -> None:
    table = Table()
    table.start("s2", BANO, "10.0.0.2", at=30)
    table.interim("s1", ALI, "10.0.0.2", at=20, received=31)
    table.start("s1", ALI, "10.0.0.1", at=10, received=32)
    assert table.bound() == {"10.0.0.2/32": BANO}


def test_every_stop_of_a_session_id_takes_what_was_named_before_it() -> None:
    table = Table()
    table.interim("s1", ALI, at=60)
    table.interim("s1", ALI, at=10, received=61)
    table.interim("s1", ALI, "10.0.0.1", at=40, received=62)
    table.stop("s1", at=20, received=63)
    assert table.bound() == {"10.0.0.1/32": ALI}
    table.stop("s1", at=50, received=64)
    assert table.bound() == {}
    assert len(table.sessions) == 1


def test_a_late_word_without_a_number_takes_nothing_from_anybody() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.stop("s2", at=30)
    table.interim("s2", None, "10.0.0.1", at=20, received=31)
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_a_session_without_a_number_ends_as_any_other() -> None:
    table = Table()
    table.start("s1", None, "10.0.0.1", at=10)
    table.stop("s1", at=20)
    assert len(table.sessions) == 0


def test_with_one_address_the_session_that_began_last_has_it_in_whatever_order_they_are_heard() -> None:
    words = [("s1", "10.0.0.1", 10), ("s2", "10.0.0.2", 20), ("s3", "2001:db8:1::/64", 15)]
    for order in permutations(words):
        table = Table(terms=Terms(single_session=True))
        for session, address, at in order:
            table.start(session, ALI, address, at=at, received=40)
        table.interim("s1", ALI, "10.0.0.1", at=30, received=40)
        assert table.bound() == {"10.0.0.2/32": ALI, "2001:db8:1::/64": ALI}
        table.stop("s2", at=35, received=40)
        assert table.bound() == {"2001:db8:1::/64": ALI}
        table.interim("s1", ALI, "10.0.0.1", at=36, received=40)
        assert table.bound() == {"10.0.0.1/32": ALI, "2001:db8:1::/64": ALI}


def test_with_one_address_other_subscribers_keep_theirs() -> None:
    table = Table(terms=Terms(single_session=True))
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.start("s2", BANO, "10.0.0.2", at=20)
    assert table.bound() == {"10.0.0.1/32": ALI, "10.0.0.2/32": BANO}
