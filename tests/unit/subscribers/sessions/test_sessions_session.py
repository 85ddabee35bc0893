from __future__ import annotations

from math import inf

import pytest

from gatewayd.model.prefix import parse_prefix
from gatewayd.subscribers.sessions.nas import Nas
from gatewayd.subscribers.sessions.session import TICK_S, Expiry, Hold, Ownership, Session, Terms
from tests.support.accounting import ALI, BANO, CHAND

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


# Terms


@pytest.mark.parametrize(
    ("terms", "interim_s", "lifetime_s"),
    [
        (Terms(), None, 86400.0),
        (Terms(), 600, 1800.0),
        (Terms(), 60, 900.0),
        (Terms(interim_s=600, missed_interims=2), None, 1200.0),
        (Terms(interim_s=600, missed_interims=2), 1000, 2000.0),
        (Terms(session_timeout_s=inf), None, inf),
    ],
)
def test_a_session_is_believed_for_some_intervals_or_for_its_time(
    terms: Terms, interim_s: int | None, lifetime_s: float
) -> None:
    assert terms.lifetime_s(interim_s) == lifetime_s


# Addresses


def hold(of: Session, address: str = "10.0.0.1", ports: tuple[int, int] | None = None, at_s: float = 0.0) -> Hold:
    return Hold(parse_prefix(address), ports, of, at_s)


def owned(*subscribers: bytes | None) -> tuple[Ownership, list[Hold]]:
    """Sessions of these subscribers, all at one address."""
    ownership, holds = Ownership(), []
    for number, subscriber in enumerate(subscribers):
        one = Session(str(number), NAS, subscriber, 0.0, 0.0)
        holds.append(hold(one, at_s=float(number)))
        ownership.add(holds[-1])
    return ownership, holds


@pytest.mark.parametrize(
    ("one", "other", "do_overlap"),
    [
        (None, None, True),
        (None, (1, 2), True),
        ((1, 2), None, True),
        ((1024, 2047), (2047, 4095), True),
        ((1024, 2047), (2048, 4095), False),
        ((2048, 4095), (1024, 2047), False),
    ],
)
def test_port_blocks_overlap_where_they_share_a_port(
    one: tuple[int, int] | None, other: tuple[int, int] | None, do_overlap: bool
) -> None:
    assert hold(session(), ports=one).overlaps(other) is do_overlap


def test_a_session_finds_its_own_holds() -> None:
    ownership, one = Ownership(), session()
    holds = [hold(one, "10.0.0.1"), hold(one, "10.0.0.2", (1, 2)), hold(one, "2001:db8::/64")]
    assert one.holds == ()
    for each in holds:
        ownership.add(each)
    assert one.holds == tuple(holds)
    assert one.hold_of(holds[1].prefix, (1, 2)) is holds[1]
    assert one.hold_of(holds[1].prefix, None) is None
    assert (len(ownership), ownership.count) == (3, 3)


def test_an_address_may_have_several_holders() -> None:
    ownership, holds = owned(ALI, BANO, ALI, None)
    prefix = holds[0].prefix
    assert (len(ownership), ownership.count) == (1, 4)
    assert ownership.holder(ALI, prefix, None) is holds[2], "the latest of its own"
    assert ownership.holder(CHAND, prefix, None) is None
    assert ownership.rivals(holds[0].session, prefix, None) == [holds[1], holds[3]]
    assert ownership.rivals(holds[3].session, prefix, None) == holds[:3], "one that is not known is another"
    assert ownership.rivals(holds[0].session, parse_prefix("10.0.0.2"), None) == []
    for each in (holds[1], holds[3], holds[0], holds[2]):
        ownership.remove(each)
    assert (len(ownership), ownership.count) == (0, 0)
    assert all(each.session.holds == () for each in holds)


def test_what_was_forgotten_leaves_its_bucket_when_half_of_it_has_left() -> None:
    expiry = Expiry()
    several = [session(str(number)) for number in range(4)]
    for each in several:
        expiry.extend(each, 100)
    for each in several[:3]:
        expiry.forget(each)
    expiry.forget(several[0])
    assert expiry.due(100, 9) == [several[3]]
    expiry.extend(several[0], 200)
    expiry.forget(several[0])
    assert expiry.next_due() is None
