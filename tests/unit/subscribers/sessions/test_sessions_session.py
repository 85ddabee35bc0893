from __future__ import annotations

from math import inf

from gatewayd.subscribers.sessions.nas import Nas
from gatewayd.subscribers.sessions.session import TICK_S, Expiry, Session

NAS = Nas("bng1")


def session(name: str = "s") -> Session:
    return Session(name, NAS, None, 0.0, 0.0)


def test_a_session_runs_out_once_and_never_early() -> None:
    expiry, one = Expiry(), session()
    assert expiry.next_due() is None
    expiry.extend(one, 101)
    assert expiry.next_due() == 110
    assert expiry.due(109, 9) == []
    assert expiry.due(110, 9) == [one]
    assert expiry.due(1000, 9) == []
    assert expiry.next_due() is None


def test_extending_only_prolongs_and_hastening_only_shortens() -> None:
    expiry, one = Expiry(), session()
    expiry.extend(one, 100)
    expiry.extend(one, 50)
    expiry.hasten(one, 150)
    assert expiry.due(99, 9) == []
    expiry.hasten(one, 40)
    assert expiry.due(40, 9) == [one]


def test_a_session_that_lives_for_ever_can_be_hastened() -> None:
    expiry, one = Expiry(), session()
    expiry.extend(one, 100)
    expiry.extend(one, inf)
    assert expiry.due(1e9, 9) == []
    expiry.hasten(one, 200)
    assert expiry.due(200, 9) == [one]


def test_what_is_due_comes_in_batches() -> None:
    expiry = Expiry()
    several = [session(str(number)) for number in range(5)]
    for each in several:
        expiry.extend(each, 100)
    first = expiry.due(100, 3)
    assert len(first) == 3
    assert expiry.next_due() == 100
    assert {each.id for each in first + expiry.due(100, 3)} == {each.id for each in several}


def test_sessions_that_left_a_bucket_are_dropped_when_half_of_it_has() -> None:
    expiry = Expiry()
    several = [session(str(number)) for number in range(5)]
    for each in several:
        expiry.extend(each, 100)
    for each in several[:3]:
        expiry.forget(each)
    expiry.forget(several[0])
    assert several[3].bucket is not None
    assert len(several[3].bucket.sessions) == 2


def test_one_that_left_its_bucket_is_passed_over_when_it_comes_up() -> None:
    expiry = Expiry()
    one, other, third = session("1"), session("2"), session("3")
    for each in (one, other, third):
        expiry.extend(each, 100)
    expiry.extend(third, 100 + TICK_S)
    assert expiry.due(100, 9) == [other, one]
    assert expiry.due(100 + TICK_S, 9) == [third]
