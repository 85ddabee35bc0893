"""Two NAS of one name are two, and one NAS that comes by another way is one."""

from __future__ import annotations

from gatewayd.model.accounting import NasIdentity
from gatewayd.subscribers.sessions.nas import SameName
from gatewayd.subscribers.sessions.session import FOLLOWED, Terms
from tests.support.accounting import ALI, BANO, Table, event


def by(source: str | None) -> NasIdentity:
    """The NAS `bng` as it speaks from a place; None: as a list has it."""
    return NasIdentity("bng", None if source is None else "bng", (), source)


ONE, OTHER, LISTED = by("192.0.2.1"), by("192.0.2.2"), by(None)


# -- two NAS ---------------------------------------------------------------------------------------------------


def test_two_nas_of_one_name_leave_each_others_sessions_alone_and_it_is_said() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10, identity=ONE)
    outcome = table.take(event("start", "s1", BANO, "10.0.0.2", at=11, identity=OTHER))
    assert outcome.same_name == SameName("bng", ("192.0.2.1", "192.0.2.2"))
    assert table.take(event("interim", "s1", ALI, "10.0.0.1", at=20, identity=ONE)) == FOLLOWED
    assert table.bound() == {"10.0.0.1/32": ALI, "10.0.0.2/32": BANO}
    assert (len(table.sessions), table.sessions.counts.same_name, table.sessions.counts.missed_stops) == (2, 1, 0)
    table.on(at=30, identity=OTHER)
    table.wait_until(31)
    assert table.bound() == {"10.0.0.1/32": ALI}
    table.stop("s1", BANO, at=40, identity=OTHER)
    assert table.bound() == {"10.0.0.1/32": ALI}


def test_a_stop_at_one_holds_back_no_session_of_another_subscriber_at_the_other() -> None:
    table = Table()
    table.stop("s1", ALI, at=20, identity=ONE)
    table.start("s1", BANO, "10.0.0.2", at=15, received=21, identity=OTHER)
    assert table.bound() == {"10.0.0.2/32": BANO}


# -- one NAS by two ways -----------------------------------------------------------------------------------------


def test_a_session_belongs_to_the_way_that_reported_it_last() -> None:
    table = Table(terms=Terms(restart_grace_s=0))
    table.start("s1", ALI, "10.0.0.1", at=10, identity=ONE)
    for at, way in ((20, OTHER), (30, ONE), (40, OTHER)):
        table.interim("s1", ALI, "10.0.0.1", at=at, identity=way)
        assert table.bound() == {"10.0.0.1/32": ALI}
        assert len(table.sessions) == 1
    table.on(at=50, identity=ONE)
    table.wait_until(51)
    assert table.bound() == {"10.0.0.1/32": ALI}, "it is the other's by now"
    table.on(at=60, identity=OTHER)
    table.wait_until(61)
    assert table.bound() == {}
    assert table.sessions.counts.same_name == 0


def test_a_stop_by_the_other_way_ends_it_and_no_late_record_by_either_raises_it() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10, identity=ONE)
    table.stop("s1", ALI, "10.0.0.1", at=30, identity=OTHER)
    for way in (OTHER, ONE):
        outcome = table.take(event("interim", "s1", ALI, "10.0.0.1", at=20, received=31, identity=way))
        assert outcome.passed_over == ("tombstoned",)
    assert table.bound() == {}


def test_an_interim_that_names_nothing_prolongs_the_session_of_either() -> None:
    """It opens none: whose it would be is not known."""
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=0, interim_s=300, identity=ONE)
    for at in range(600, 3000, 600):
        table.interim("s1", at=at, identity=OTHER)
        table.wait_until(at)
        assert table.bound() == {"10.0.0.1/32": ALI}
    assert len(table.sessions) == 1
    table.wait_until(2400 + 900 + 10)
    assert table.bound() == {}


def test_an_id_that_went_on_to_the_subscriber_of_the_other_is_taken_from_there() -> None:
    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10, identity=ONE)
    table.start("s1", BANO, "10.0.0.2", at=11, identity=OTHER)
    table.interim("s1", BANO, "10.0.0.2", at=20, identity=ONE)
    assert table.bound() == {"10.0.0.2/32": BANO}
    assert (len(table.sessions), table.sessions.counts.missed_stops) == (1, 1)


# -- a NAS that a list names -------------------------------------------------------------------------------------


def test_a_session_of_a_list_is_of_the_one_nas_of_that_name() -> None:
    table = Table()
    table.interim("s1", ALI, "10.0.0.1", at=10, identity=LISTED)
    table.interim("s1", at=20, identity=ONE)
    assert table.sessions.last_record_s("bng", "s1") == 20
    table.stop("s1", at=30, identity=ONE)
    assert table.bound() == {}
    assert table.sessions.counts.unknown_stops == 0


def test_a_list_that_comes_later_is_of_it_too() -> None:
    table = Table()
    table.interim("s0", ALI, "10.0.0.9", at=5, identity=LISTED)
    table.start("s1", ALI, "10.0.0.1", at=10, identity=ONE)
    table.interim("s1", ALI, "10.0.0.2", at=20, identity=LISTED)
    assert table.bound() == {"10.0.0.2/32": ALI, "10.0.0.9/32": ALI}
    table.on(at=30, identity=ONE)
    table.wait_until(31)
    assert table.bound() == {}, "a restart is of what the list has of it"


def test_of_two_nas_of_the_name_a_session_of_a_list_is_of_neither() -> None:
    table = Table()
    table.interim("s1", ALI, "10.0.0.1", at=10, identity=LISTED)
    table.start("s0", BANO, "10.0.0.8", at=11, identity=ONE)
    table.start("s0", BANO, "10.0.0.9", at=12, identity=OTHER)
    table.stop("s1", at=20, identity=ONE)
    assert "10.0.0.1/32" in table.bound(), "which of the two said so?"
    table.stop("s1", ALI, at=21, identity=ONE)
    assert "10.0.0.1/32" not in table.bound()
