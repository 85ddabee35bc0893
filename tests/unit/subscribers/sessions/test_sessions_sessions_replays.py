"""The same records again, when no sender repeats them any more: they change nothing."""

from __future__ import annotations

import pytest

from gatewayd.subscribers.sessions.nas import MAX_RESTARTS, RESTART_KEPT_S
from tests.support.accounting import ALI, BANO, CHAND, Table

ONE, OTHER = bytes(16), b"\1" * 16
PLAIN = {"is_by_our_clock": True}
"""Of a record without a time of its own."""
AGAIN = PLAIN | {"is_replay": True}


def test_a_replayed_start_does_not_take_an_address_from_its_present_holder() -> None:
    table = Table({ALI})
    table.start("a1", ALI, "10.0.0.1", at=10, **PLAIN)
    table.stop("a1", ALI, at=20, **PLAIN)
    table.start("c1", CHAND, "10.0.0.1", at=30, **PLAIN)
    table.start("a1", ALI, "10.0.0.1", at=70, **AGAIN)
    assert table.bound() == {}
    table.start("b1", BANO, "10.0.0.2", at=71)
    assert table.sessions.counts.replayed == 1


@pytest.mark.parametrize("kind", ["start", "interim"])
def test_a_record_that_says_what_is_known_confirms_though_it_came_before(kind: str) -> None:
    table = Table({ALI})
    table.start("a1", ALI, "10.0.0.1", at=10, **PLAIN)
    getattr(table, kind)("a1", ALI, "10.0.0.1", at=500, **AGAIN)
    assert table.bound() == {"10.0.0.1/32": ALI}
    (binding,) = table.confirmed()
    assert (binding.confirmed_s, table.sessions.counts.replayed) == (500, 0)


@pytest.mark.parametrize(
    "record",
    [
        {"address": "10.0.0.2"},
        {"subscriber": BANO},
        {"session": "a2"},
        {"kind": "stop"},
    ],
)
def test_a_replay_that_says_more_is_passed_over(record: dict[str, object]) -> None:
    table = Table({ALI, BANO})
    table.start("a1", ALI, "10.0.0.1", at=10, **PLAIN)
    said = {"kind": "interim", "session": "a1", "subscriber": ALI, "address": "10.0.0.1"} | record
    take = getattr(table, str(said["kind"]))
    take(said["session"], said["subscriber"], said["address"], at=500, **AGAIN)
    assert table.bound() == {"10.0.0.1/32": ALI}
    assert table.sessions.counts.replayed == 1


def test_a_replayed_snapshot_takes_nothing_away_that_came_later() -> None:
    table = Table({ALI})
    table.interim("a1", ALI, "10.0.0.1", at=10, is_snapshot=True, **PLAIN)
    table.interim("a1", ALI, "10.0.0.1", "2001:db8::/64", at=20, is_snapshot=True, **PLAIN)
    table.interim("a1", ALI, "10.0.0.1", at=90, is_snapshot=True, **AGAIN)
    assert table.bound() == {"10.0.0.1/32": ALI, "2001:db8::/64": ALI}
    table.interim("a1", ALI, "10.0.0.1", "2001:db8::/64", at=91, is_snapshot=True, **AGAIN)
    assert table.sessions.counts.replayed == 1


def test_a_replay_does_not_carry_a_session_over_a_restart_of_its_nas() -> None:
    table = Table({ALI})
    table.start("a1", ALI, "10.0.0.1", at=10, **PLAIN)
    table.on(at=20, **PLAIN)
    table.interim("a1", ALI, "10.0.0.1", at=21, **AGAIN)
    table.wait_until(30)
    assert table.bound() == {}


def test_a_replay_does_not_carry_a_session_over_the_stop_of_its_bearer() -> None:
    table = Table({ALI})
    table.start("a1", ALI, "10.0.0.1", at=10, **PLAIN)
    table.stop("a1", ALI, at=20, is_final_stop=False, **PLAIN)
    table.interim("a1", ALI, "10.0.0.1", at=30, **AGAIN)
    assert table.sessions.counts.replayed == 1


# Accounting-On and -Off


@pytest.mark.parametrize("kind", ["on", "off"])
def test_a_restart_that_is_replayed_ends_nothing(kind: str) -> None:
    table = Table({ALI})
    restart = getattr(table, kind)
    restart(at=10, authenticator=ONE, **PLAIN)
    table.start("a1", ALI, "10.0.0.1", at=20, **PLAIN)
    restart(at=600, authenticator=ONE, **PLAIN)
    table.wait_until(700)
    assert table.bound() == {"10.0.0.1/32": ALI}
    assert table.sessions.counts.replayed == 1
    restart(at=800, authenticator=OTHER, **PLAIN)
    table.wait_until(900)
    assert table.bound() == {}


def test_a_restart_that_is_replayed_ends_nothing_after_a_restart_of_ours() -> None:
    before = Table({ALI})
    before.on(at=10, authenticator=ONE, **PLAIN)
    before.start("a1", ALI, "10.0.0.1", at=20, **PLAIN)
    table = Table({ALI})
    table.sessions.restore(before.next_rows(), 30)
    table.on(at=600, authenticator=ONE, **PLAIN)
    table.wait_until(700)
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_a_restart_that_the_listener_knows_ends_nothing_either() -> None:
    table = Table({ALI})
    table.start("a1", ALI, "10.0.0.1", at=20, **PLAIN)
    table.on(at=600, authenticator=ONE, **AGAIN)
    table.wait_until(700)
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_the_same_restart_counts_again_after_a_day_and_one_without_an_authenticator_always() -> None:
    table = Table({ALI})
    table.on(at=10, authenticator=ONE, **PLAIN)
    later = 10 + RESTART_KEPT_S
    table.start("a1", ALI, "10.0.0.1", at=later - 5, **PLAIN)
    table.on(at=later, authenticator=ONE, **PLAIN)
    table.wait_until(later + 1)
    assert table.bound() == {}
    for _ in range(2):
        table.on(at=later + 5, **PLAIN)
    assert table.sessions.counts.replayed == 0


def test_of_one_nas_so_many_restarts_are_remembered() -> None:
    table = Table({ALI})
    for number in range(MAX_RESTARTS + 1):
        table.on(at=10 + number, authenticator=bytes([number]) * 16, **PLAIN)
    table.start("a1", ALI, "10.0.0.1", at=100, **PLAIN)
    table.on(at=200, authenticator=bytes([1]) * 16, **PLAIN)
    table.wait_until(300)
    assert table.bound() == {"10.0.0.1/32": ALI}
    table.on(at=400, authenticator=bytes([0]) * 16, **PLAIN)
    table.wait_until(500)
    assert table.bound() == {}, "the first is forgotten"
