"""Sessions that run out, a NAS that restarts, clocks that are wrong."""

from __future__ import annotations

from math import inf

from gatewayd.subscribers.sessions.index import BATCH, USUAL_TERMS
from gatewayd.subscribers.sessions.session import Terms
from tests.support.accounting import ALI, BANO, NoJitter, Table, event

DAY_S = 86400.0


def test_a_session_runs_out_three_intervals_after_its_last_word() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=1000, interim_s=600)
    table.interim("s1", ALI, at=1600)
    table.wait_until(3390)
    assert table.bound() == {"10.0.0.1/32": ALI}
    table.wait_until(3410)
    assert table.bound() == {}
    assert table.sessions.counts.expired == 1
    assert len(table.sessions) == 0


def test_a_short_interval_does_not_make_a_short_life() -> None:
    assert USUAL_TERMS.lifetime_s(60) == 900
    assert USUAL_TERMS.lifetime_s(3600) == 10800
    assert USUAL_TERMS.lifetime_s(None) == DAY_S
    assert Terms(interim_s=600).lifetime_s(None) == 1800


def test_a_session_of_a_nas_without_interims_lives_for_as_long_as_is_said() -> None:
    for_ever = Table(terms=Terms(session_timeout_s=inf))
    for_ever.start("s1", ALI, "10.0.0.1", at=1000)
    for_ever.interim("s1", ALI, at=1100)
    assert for_ever.sessions.get_timer() is None
    for_ever.interim("s1", ALI, at=1050, interim_s=300, received=1200)
    assert for_ever.sessions.get_timer() is None, "an older word says nothing of the present interval"
    for_ever.interim("s1", ALI, at=1300, interim_s=300)
    for_ever.wait_until(1300 + 900 + 10)
    assert for_ever.bound() == {}


def test_lives_are_spread() -> None:
    class Most(NoJitter):
        def uniform(self, a: float, b: float, /) -> float:
            return b

    table = Table()
    table.sessions._randomness = Most()
    table.start("s1", ALI, "10.0.0.1", at=1000, interim_s=600)
    table.wait_until(1000 + 1800 + 100)
    assert table.bound() == {"10.0.0.1/32": ALI}
    table.wait_until(1000 + 1980 + 10)
    assert table.bound() == {}


def test_a_replay_of_old_events_prolongs_nothing() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=1000, interim_s=600)
    table.start("fresh", BANO, "10.0.0.9", at=2590, interim_s=600)
    table.interim("s1", ALI, "10.0.0.1", at=1000, received=2600)
    table.wait_until(2810)
    assert table.bound() == {"10.0.0.9/32": BANO}


def test_a_session_that_had_run_out_when_its_start_came_is_not_opened() -> None:
    table = Table()
    table.start("fresh", BANO, "10.0.0.9", at=9000)
    table.start("s1", ALI, "10.0.0.1", at=1000, received=9001, interim_s=600)
    assert table.bound() == {"10.0.0.9/32": BANO}
    assert table.sessions.counts.stale == 1


def test_a_nas_whose_clock_is_behind_loses_no_session() -> None:
    table = Table()
    for number in range(30):
        at = 1000 + 600 * number
        table.interim("s1", ALI, "10.0.0.1", at=at, received=at + 18000, interim_s=600)
        table.wait_until(at + 18000)
        assert table.bound() == {"10.0.0.1/32": ALI}
    table.wait_until(1000 + 600 * 29 + 18000 + 1810)
    assert table.bound() == {}


def test_a_nas_whose_clock_is_set_back_loses_no_session() -> None:
    table = Table()
    for number in range(20):
        received = 100_000 + 300 * number
        at = received if number < 5 else received - 3600
        table.interim("s1", ALI, "10.0.0.1", at=at, received=received, interim_s=300)
        table.wait_until(received)
        assert table.bound() == {"10.0.0.1/32": ALI}


def test_records_that_are_taken_again_have_each_reason_said_once_and_counted_each_time() -> None:
    table = Table()
    for session in ("s1", "s2"):
        table.stop(session, ALI, at=1000)
    for session, received in (("s1", 1001.0), ("s2", 1001.5)):
        table.interim(session, ALI, "10.0.0.1", at=received - 3600, received=received)
    outcome = table.take(event("interim", "s3", BANO, "10.0.0.2", at=1007 - 3600, received=1007))
    assert outcome.passed_over == ("tombstoned",)
    assert (table.sessions.counts.taken_again, table.sessions.counts.tombstoned) == (2, 4)
    assert table.bound() == {"10.0.0.2/32": BANO}


def test_a_lag_that_lasts_through_two_windows_is_believed_and_a_smaller_one_at_once() -> None:
    table = Table()
    table.start("s0", BANO, "10.0.0.9", at=10_000)
    table.start("s1", ALI, "10.0.0.1", at=100, received=10_125, interim_s=300)
    assert table.sessions.counts.stale == 1, "something fresh came in the window before"
    table.start("s1", ALI, "10.0.0.1", at=200, received=10_300, interim_s=300)
    assert table.bound().keys() == {"10.0.0.1/32", "10.0.0.9/32"}


# Accounting-On and -Off


def test_on_and_off_end_the_sessions_of_their_nas_that_are_older() -> None:
    for kind in ("on", "off"):
        table = Table()
        table.start("s1", ALI, "10.0.0.1", at=10)
        table.start("s1", BANO, "10.0.0.2", at=10, nas="bng2")
        table.start("s2", ALI, "10.0.0.3", at=30)
        table.take(event(kind, at=20, received=31))
        table.wait_until(32)
        assert table.bound() == {"10.0.0.2/32": BANO, "10.0.0.3/32": ALI}
        assert table.sessions.counts.ended_by_restart == 1


def test_sessions_stay_for_a_grace_after_on_and_for_good_if_confirmed() -> None:
    table = Table(terms=USUAL_TERMS)
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.start("s2", BANO, "10.0.0.2", at=10)
    table.on(at=20)
    table.wait_until(21)
    table.wait_until(100)
    assert len(table.bound()) == 2
    table.interim("s2", BANO, at=100)
    table.wait_until(150)
    assert table.bound() == {"10.0.0.2/32": BANO}
    assert table.sessions.counts.ended_by_restart == 1
    assert table.sessions.counts.expired == 0


def test_on_does_not_prolong_what_ends_sooner() -> None:
    table = Table(terms=Terms(min_session_timeout_s=50))
    table.start("s1", ALI, "10.0.0.1", at=10, interim_s=10)
    table.on(at=20)
    table.wait_until(70)
    assert table.bound() == {}


def test_a_start_within_the_grace_is_another_session() -> None:
    table = Table(terms=USUAL_TERMS)
    table.start("s1", ALI, "10.0.0.1", "2001:db8::/56", at=10)
    table.on(at=20)
    table.wait_until(21)
    table.start("s1", ALI, "10.0.0.1", at=25)
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_without_a_grace_an_interim_before_the_scan_is_another_session() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", "2001:db8::/56", at=10)
    table.on(at=20)
    table.interim("s1", ALI, "10.0.0.1", at=25)
    assert table.bound() == {"10.0.0.1/32": ALI}
    assert table.wait_until(26) == 1
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_words_from_before_the_restart_count_for_nothing() -> None:
    table = Table()
    table.on(at=20)
    table.start("s1", ALI, "10.0.0.1", at=10, received=21)
    assert table.bound() == {}
    assert table.sessions.counts.before_restart == 1


def test_a_stop_from_before_the_restart_ends_its_session_without_waiting_for_the_grace() -> None:
    table = Table(terms=USUAL_TERMS)
    table.start("s1", ALI, "10.0.0.1", at=10)
    table.on(at=20)
    table.stop("s1", at=19, received=22)
    table.wait_until(23)
    assert table.bound() == {}


def test_starts_by_a_clock_that_is_behind_count_though_the_restart_was_told_without_a_time() -> None:
    table = Table()
    table.on(at=20_000)
    table.start("s1", ALI, "10.0.0.1", at=2000, received=20_001)
    assert table.bound() == {"10.0.0.1/32": ALI}
    table.stop("s1", at=2060, received=20_061)
    assert table.bound() == {}


def test_a_repeated_or_older_on_is_counted_and_scans_nothing() -> None:
    table = Table()
    table.on(at=20)
    table.start("s1", ALI, "10.0.0.1", at=30)
    table.on(at=20)
    table.on(at=10)
    assert table.wait_until(40) == 0
    assert table.bound() == {"10.0.0.1/32": ALI}
    assert table.sessions.counts.restarts == 3


def test_a_restart_with_many_sessions_is_swept_in_batches() -> None:
    table = Table()
    count = 2 * BATCH + 1
    for number in range(count):
        table.start(f"s{number}", number.to_bytes(32, "big"), f"10.0.{number // 256}.{number % 256}", at=10)
    assert len(table.bound()) == count
    table.on(at=20)
    assert table.sessions.get_timer() == 20
    table.sessions.handle_timer(20)
    assert len(table.sessions) == count - BATCH
    table.start("s0", ALI, "10.0.0.0", at=25)
    table.on(at=30)
    assert table.wait_until(31) == 3, "two for the rest, one for the second restart"
    assert len(table.sessions) == 0
    assert table.bound() == {}


def test_many_sessions_that_run_out_together_end_in_batches() -> None:
    table = Table(set())
    for number in range(BATCH + 1):
        table.start(f"s{number}", number.to_bytes(32, "big"), at=10, interim_s=300)
    table.sessions.handle_timer(1000)
    assert len(table.sessions) == 1
    assert table.sessions.get_timer() == 910
    table.wait_until(1000)
    assert len(table.sessions) == 0


# Memory


def test_nothing_remains_of_an_ended_session_when_its_tombstone_is_gone() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", "2001:db8::/56", at=10)
    table.stop("s1", at=20)
    table.next_changes()
    assert table.sessions.tombstones == 3
    assert table.sessions.get_timer() == 920
    table.wait_until(1000)
    assert table.sessions.get_timer() is None
    assert table.sessions.tombstones == 0
    assert table.sessions.sessions_of(ALI) == ()
    assert not table.sessions._nas.by_key["bng1"].sessions
    assert not table.sessions._of_subscriber
    assert len(table.sessions._changes.ownership) == 0
    assert len(table.bindings) == 0


def test_tombstones_are_bounded_and_say_what_that_cost() -> None:
    table = Table(max_tombstones=2)
    for number in range(4):
        table.stop(f"s{number}", at=20)
    table.start("s0", ALI, "10.0.0.1", at=10, received=21)
    assert table.sessions.tombstones == 2
    assert table.sessions.tombstones_lost == 2
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_what_a_session_named_only_before_a_restart_that_is_heard_late_goes() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", "2001:db8::/56", at=10)
    table.start("s1", ALI, "10.0.0.1", at=30)
    table.on(at=20, received=31)
    table.wait_until(32)
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_with_a_grace_a_session_confirmed_since_the_restart_keeps_all_it_has() -> None:
    table = Table(terms=USUAL_TERMS)
    table.start("s1", ALI, "10.0.0.1", "2001:db8::/56", at=10)
    table.interim("s1", ALI, "10.0.0.1", at=30)
    table.on(at=20, received=31)
    table.wait_until(200)
    assert table.bound().keys() == {"10.0.0.1/32", "2001:db8::/56"}
