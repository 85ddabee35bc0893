"""What of the sessions goes to disk, when, and what a restart makes of it."""

from __future__ import annotations

from math import inf

import pytest
from msgspec import structs

from gatewayd.model.prefix import parse_prefix
from gatewayd.subscribers.journal_rows import AddressRow, EndedRow, HoldRow, NasRow, Row, SessionRow, Value, key_of
from gatewayd.subscribers.sessions.index import MAX_OF_SUBSCRIBER
from gatewayd.subscribers.sessions.session import Terms
from tests.support.accounting import ALI, BANO, CHAND, Table

WITH_GRACE = Terms(restart_grace_s=120)
IPV4 = parse_prefix("10.0.0.1")


class Kept:
    """The rows of a table as they add up; `told`: those of the last call, `-` before what went."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.rows: dict[tuple[str, str, str], Value] = {}

    def told(self) -> list[str]:
        """Where changes were looked at meanwhile, a row may have come and gone since the last call."""
        found = self.table.next_rows()
        rows = [row for row in found if row.value is not None or row.key in self.rows]
        for row in rows:
            if row.value is None:
                del self.rows[row.key]
            else:
                self.rows[row.key] = row.value
        return sorted(("-" if row.value is None else "") + " ".join(row.key[:2]) + row.key[2] for row in rows)

    def all(self) -> list[Row]:
        self.told()
        return [Row(key, value) for key, value in self.rows.items()]


def table(*registered: bytes, terms: Terms = WITH_GRACE, **more: int) -> tuple[Table, Kept]:
    made = Table(set(registered), terms, **more)
    return made, Kept(made)


def again(kept: Kept, now: float, *registered: bytes, terms: Terms = WITH_GRACE, **more: int) -> tuple[Table, Kept]:
    """A crash, and the start after it."""
    rows = kept.all()
    made, after = table(*registered, terms=terms, **more)
    after.rows = {row.key: row.value for row in rows if row.value is not None}
    made.sessions.restore(rows, now)
    return made, after


# What is written


def test_of_a_subscriber_whom_no_registration_knows_nothing_is_written() -> None:
    net, kept = table(ALI)
    net.start("s1", CHAND, "10.0.0.1", at=10)
    net.interim("s1", CHAND, "10.0.0.2", at=20)
    net.stop("s1", CHAND, at=30)
    net.start("s2", None, "10.0.0.3", at=40)
    net.stop("s3", None, at=50)
    net.wait_until(100_000)
    assert kept.told() == []


def test_a_registered_subscribers_session_is_one_row_however_often_it_changed() -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, "10.0.0.1", at=10, interim_s=300)
    net.interim("s1", ALI, "2001:db8::/56", at=20)
    assert kept.told() == ["session bng1s1"]
    assert kept.told() == []
    (value,) = kept.rows.values()
    assert value == SessionRow(
        "bng1",
        "s1",
        ALI,
        10.0,
        20.0,
        920.0,
        300,
        False,
        -inf,
        10.0,
        (HoldRow(IPV4, None, 10.0, 10.0), HoldRow(parse_prefix("2001:db8::/56"), None, 20.0, 20.0)),
    )
    net.bound()
    net.interim("s1", ALI, "10.0.0.1", at=25)
    kept.told()
    (value,) = kept.rows.values()
    assert isinstance(value, SessionRow)
    assert value.holds[0] == HoldRow(IPV4, None, 25.0, 10.0), "confirmed now, bound since then"


def test_a_session_that_never_runs_out_has_no_time() -> None:
    net, kept = table(ALI, terms=Terms(session_timeout_s=inf))
    net.start("s1", ALI, at=10)
    (row,) = kept.all()
    assert isinstance(row.value, SessionRow)
    assert row.value.due_s is None
    net, _ = again(kept, 1e9, ALI, terms=Terms(session_timeout_s=inf))
    assert len(net.sessions) == 1
    assert net.sessions.get_timer() is None
    net, kept = again(kept, 2000, ALI, terms=Terms(session_timeout_s=1000))
    net.wait_until(2000 + 1100 + 20)
    assert len(net.sessions) == 0, "the terms were changed meanwhile"


def test_a_session_that_opened_and_ended_between_two_calls_leaves_its_tombstones_alone() -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, "10.0.0.1", at=10)
    net.stop("s1", ALI, at=20)
    assert kept.told() == ["address 0a00000132", "ended bng1s1"]
    net.wait_until(20 + 900)
    assert kept.told() == ["-address 0a00000132", "-ended bng1s1"]
    assert net.sessions.get_timer() is None


def test_a_stop_takes_the_row_of_its_session() -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, "10.0.0.1", at=10)
    kept.told()
    net.stop("s1", None, at=20)
    assert kept.told() == ["-session bng1s1", "address 0a00000132", "ended bng1s1"]


def test_a_stop_that_names_a_stranger_is_the_registered_subscribers_all_the_same() -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, at=10)
    net.stop("s1", CHAND, at=20)
    assert kept.told() == ["ended bng1s1"]
    (value,) = kept.rows.values()
    assert value == EndedRow("bng1", "s1", ALI, 20.0, 20.0)


def test_an_eviction_by_a_stranger_writes_the_evicted_sessions_and_nothing_of_him() -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, "10.0.0.1", at=10)
    net.start("s2", ALI, "10.0.0.1", "2001:db8::/56", at=11)
    kept.told()
    net.start("x", CHAND, "10.0.0.1", at=20)
    assert kept.told() == ["address 0a00000132", "session bng1s1", "session bng1s2"]
    for value in kept.rows.values():
        assert isinstance(value, SessionRow | AddressRow)
        if isinstance(value, SessionRow):
            assert IPV4 not in {hold.prefix for hold in value.holds}
        else:
            assert value == AddressRow(IPV4, ALI, 11.0, 20.0, -inf), "the time is his own word's"


def test_a_session_is_written_when_a_word_says_whose_it_is() -> None:
    net, kept = table(ALI)
    net.start("s1", None, "10.0.0.1", at=10)
    assert kept.told() == []
    net.interim("s1", ALI, at=20)
    assert kept.told() == ["session bng1s1"]
    (value,) = kept.rows.values()
    assert isinstance(value, SessionRow)
    assert [hold.prefix for hold in value.holds] == [IPV4]


def test_an_id_that_goes_to_another_subscriber_leaves_no_stale_row() -> None:
    net, kept = table(ALI, BANO)
    net.start("s1", ALI, "10.0.0.1", at=10)
    kept.told()
    net.start("s1", BANO, "10.0.0.2", at=20)
    assert kept.told() == ["address 0a00000132", "session bng1s1"]
    assert {value.subscriber for value in kept.rows.values() if isinstance(value, SessionRow)} == {BANO}
    net.start("s1", CHAND, "10.0.0.3", at=30)
    assert kept.told() == ["-session bng1s1", "address 0a00000232"]


def test_who_becomes_registered_gets_rows_and_who_is_no_more_loses_all() -> None:
    registered = {BANO}
    net = Table(registered, WITH_GRACE)
    kept = Kept(net)
    net.start("s1", ALI, "10.0.0.1", at=10)
    net.start("s2", ALI, "10.0.0.2", at=10)
    assert kept.told() == []
    registered.add(ALI)
    net.sessions.recheck(ALI)
    assert kept.told() == ["session bng1s1", "session bng1s2"]
    net.stop("s2", ALI, at=20)
    assert kept.told() == ["-session bng1s2", "address 0a00000232", "ended bng1s2"]
    registered.remove(ALI)
    net.sessions.recheck(ALI)
    assert kept.told() == ["-address 0a00000232", "-ended bng1s2", "-session bng1s1"]
    net.stop("s1", ALI, at=30)
    net.wait_until(100_000)
    assert kept.told() == []


def test_who_was_registered_for_a_moment_is_in_no_row() -> None:
    registered = {ALI}
    net = Table(registered, WITH_GRACE)
    kept = Kept(net)
    net.start("s1", ALI, "10.0.0.1", at=10)
    net.stop("s1", ALI, at=20)
    net.start("s2", ALI, "10.0.0.1", at=30)
    registered.clear()
    net.sessions.recheck(ALI)
    assert kept.told() == []


def test_a_nas_that_restarts_is_a_row_and_its_sessions_change_in_their_batches() -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, "10.0.0.1", at=10)
    kept.told()
    net.on(at=20)
    assert kept.told() == ["nas bng1"]
    net.wait_until(20)
    assert kept.told() == ["session bng1s1"]
    net.on(at=20, received=21)
    assert kept.told() == ["nas bng1"], "a repeat is answered when the first is on disk"


def test_the_row_of_a_nas_goes_when_it_is_forgotten() -> None:
    net, kept = table(ALI, max_nas=1)
    net.on(at=10, nas="bng1")
    kept.told()
    net.on(at=20, nas="bng2")
    assert kept.told() == ["-nas bng1", "nas bng2"]


def test_all_rows_can_be_had_again() -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, "10.0.0.1", at=10)
    kept.told()
    net.start("s2", ALI, "10.0.0.2", at=10)
    net.sessions.touch_every_row()
    assert {row.key[2] for row in net.next_rows()} == {"s1", "s2"}
    assert net.next_rows() == []


@pytest.mark.parametrize("is_bearer", [True, False])
def test_a_stop_of_a_bearer_and_a_late_stop_change_the_row(is_bearer: bool) -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, "10.0.0.1", at=10)
    net.interim("s1", ALI, at=100)
    kept.told()
    net.stop("s1", ALI, at=110 if is_bearer else 50, is_final_stop=not is_bearer)
    assert "session bng1s1" in kept.told()
    value = kept.rows["session", "bng1", "s1"]
    assert isinstance(value, SessionRow)
    assert (value.is_lingering, value.since_s) == (is_bearer, 10 if is_bearer else 100)


# What a restart makes of it


def test_what_is_restored_is_bound_as_it_was_and_says_so_until_it_is_confirmed() -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, "10.0.0.1", at=10, interim_s=300)
    net.bound()
    net.interim("s1", ALI, "10.0.0.1", at=310)
    net.bound()
    (before,) = net.confirmed()
    net, kept = again(kept, 400, ALI)
    assert net.next_changes() == ["+10.0.0.1/32"]
    (change,) = net.changes
    assert change.binding.is_restored
    (after,) = net.confirmed()
    assert (after.since_s, after.confirmed_s, after.nas, after.session) == (10, 310, "bng1", "s1")
    assert not before.is_restored
    assert net.sessions.confirmed(change.binding) == after
    assert net.sessions.confirmed(structs.replace(after, subscriber=BANO)) is None
    assert kept.told() == [], "it is on disk as it is"
    net.interim("s1", ALI, "10.0.0.1", at=310, received=401)
    assert [each.is_restored for each in net.confirmed()] == [True], "an old word confirms nothing"
    net.interim("s1", ALI, at=610)
    assert [each.is_restored for each in net.confirmed()] == [False]
    assert net.next_changes() == []


def test_a_restored_session_runs_out_when_it_would_have() -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, "10.0.0.1", at=10, interim_s=300)
    net, _ = again(kept, 500, ALI)
    net.wait_until(909)
    assert net.bound() == {"10.0.0.1/32": ALI}
    net.wait_until(910)
    assert net.bound() == {}
    assert net.sessions.counts.expired == 1


def test_what_ran_out_while_we_were_down_is_counted_and_never_bound() -> None:
    net, kept = table(ALI, BANO)
    net.start("s1", ALI, "10.0.0.1", at=10, interim_s=300)
    net.start("s2", BANO, "10.0.0.2", at=500, interim_s=300)
    net, kept = again(kept, 1000, ALI, BANO)
    assert net.next_changes() == ["+10.0.0.2/32"]
    assert net.sessions.counts.expired == 1
    assert kept.told() == ["-session bng1s1", "address 0a00000132"]


def test_a_late_start_after_the_restart_does_not_raise_what_had_stopped() -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, "10.0.0.1", at=10)
    net.stop("s1", ALI, at=20)
    net.stop("s2", ALI, at=25)
    net, kept = again(kept, 30, ALI)
    net.start("s1", ALI, "10.0.0.1", at=10, received=31)
    net.start("s2", ALI, "10.0.0.2", at=24, received=32)
    assert net.bound() == {}
    assert net.sessions.counts.tombstoned == 2
    net, kept = again(kept, 20 + 900, ALI)
    assert net.sessions.tombstones == 3, "that of s2, and the last words of the two late Starts"
    assert "-ended bng1s1" in kept.told()


def test_an_older_word_of_another_does_not_take_what_was_let_go_before_the_restart() -> None:
    net, kept = table(ALI, BANO)
    net.start("s1", ALI, "10.0.0.1", at=10)
    net.start("s2", BANO, "10.0.0.1", at=20)
    net.stop("s2", BANO, at=30)
    net, _ = again(kept, 35, ALI, BANO)
    net.interim("s1", ALI, "10.0.0.1", at=15, received=40)
    assert net.bound() == {}
    net.interim("s1", ALI, "10.0.0.1", at=45)
    assert net.bound() == {"10.0.0.1/32": ALI}


def test_what_a_restart_of_the_nas_had_not_ended_yet_it_ends_after_ours() -> None:
    net, kept = table(ALI, terms=Terms(restart_grace_s=0))
    net.start("s1", ALI, "10.0.0.1", at=10)
    net.on(at=20)
    net, kept = again(kept, 30, ALI, terms=Terms(restart_grace_s=0))
    net.wait_until(30)
    assert net.bound() == {}
    assert net.sessions.counts.ended_by_restart == 1
    net.start("s2", ALI, "10.0.0.1", at=19, received=31)
    assert net.bound() == {}, "from before the restart of the NAS"


@pytest.mark.parametrize(("session_timeout_s", "due_s"), [(inf, 900), (86400, 86410), (600, 900)])
def test_an_interval_that_was_told_late_does_not_shorten_a_life_by_our_restart(
    session_timeout_s: float, due_s: float
) -> None:
    terms = Terms(session_timeout_s=session_timeout_s)
    net, kept = table(ALI, terms=terms)
    net.start("s1", ALI, "10.0.0.1", at=0)
    net.interim("s1", ALI, at=0, interim_s=300)
    net, _ = again(kept, 0, ALI, terms=terms)
    net.wait_until(due_s - 20)
    assert len(net.sessions) == 1
    net.wait_until(due_s + 10)
    assert len(net.sessions) == 0


def test_a_registration_that_comes_after_the_restart_finds_its_sessions() -> None:
    net, kept = table(ALI, BANO)
    net.start("s1", ALI, "10.0.0.1", at=10)
    net.start("s2", BANO, "10.0.0.2", at=10)
    net.bound()
    rows = kept.all()
    registered: set[bytes] = set()
    net = Table(registered, WITH_GRACE)
    net.sessions.restore(rows, 20)
    assert net.bound() == {}
    assert net.next_rows() == [], "the registry may not be read yet"
    registered.add(ALI)
    net.sessions.recheck(ALI)
    assert net.bound() == {"10.0.0.1/32": ALI}
    (binding,) = net.confirmed()
    assert (binding.since_s, binding.is_restored) == (10, True)
    assert [row.key[2] for row in net.next_rows()] == ["s1"]
    net.sessions.forget_unregistered()
    assert net.next_rows() == [Row(("session", "bng1", "s2"), None)]
    registered.add(BANO)
    net.sessions.recheck(BANO)
    assert net.bound() == {"10.0.0.1/32": ALI, "10.0.0.2/32": BANO}


def test_an_address_that_was_let_go_before_its_binding_was_told_is_bound_anew() -> None:
    net, kept = table(ALI)
    net.start("s1", ALI, "10.0.0.1", at=10)
    net, _ = again(kept, 20, ALI)
    net.stop("s1", ALI, at=30)
    assert net.next_changes() == []
    net.start("s2", ALI, "10.0.0.1", at=40)
    net.bound()
    assert [each.since_s for each in net.confirmed()] == [40]


def test_a_wall_clock_that_was_set_back_makes_nothing_last_for_ever() -> None:
    terms = Terms(session_timeout_s=900)
    net, kept = table(ALI, BANO, terms=terms)
    ahead = 10_000_000
    net.start("s1", ALI, "10.0.0.1", at=ahead, interim_s=300, is_snapshot=True)
    net.start("s2", BANO, "10.0.0.2", at=ahead)
    net.stop("s2", BANO, at=ahead)
    net.on(nas="bng2", at=ahead)
    net, kept = again(kept, 1000, ALI, BANO, terms=terms)
    assert kept.told() == ["address 0a00000232", "ended bng1s2", "nas bng2", "session bng1s1"], "put right on disk"
    session = kept.rows["session", "bng1", "s1"]
    assert isinstance(session, SessionRow)
    assert (session.at_s, session.snapshot_s, session.holds[0].named_s) == (1000, 1000, 1000)
    assert net.bound() == {"10.0.0.1/32": ALI}
    net.start("s9", ALI, "10.0.0.9", at=1310, nas="bng2")
    assert "10.0.0.9/32" in net.bound(), "the NAS is heard"
    net.wait_until(1000 + 900)
    assert net.sessions.tombstones == 0
    net.wait_until(1000 + 990 + 20)
    assert set(net.bound()) == {"10.0.0.9/32"}


def test_two_who_have_one_address_by_the_rows_are_told_apart_by_the_later_word() -> None:
    def session(name: str, subscriber: bytes, named_s: float) -> Row:
        value = SessionRow(
            "bng1", name, subscriber, 1.0, 9.0, 900.0, 300, False, -inf, 1.0, (HoldRow(IPV4, None, named_s, 1.0),)
        )
        return Row(key_of(value), value)

    net, _ = table(ALI, BANO)
    assert net.sessions.restore([session("s1", ALI, 9.0), session("s2", BANO, 5.0)], 20) == 2
    assert net.bound() == {"10.0.0.1/32": ALI}
    assert [row.key[2] for row in net.next_rows() if row.key[0] == "session"] == ["s2"]


@pytest.mark.parametrize(
    ("max_nas", "lives", "gone"),
    [
        (0, 0, ["-nas bng1", "-nas bng2", "-session bng1s1", "-session bng2s2"]),
        (1, 1, ["-nas bng1", "-nas bng2", "-session bng2s2"]),
        (2, 2, []),
    ],
)
def test_what_there_is_no_room_for_goes_from_the_disk(max_nas: int, lives: int, gone: list[str]) -> None:
    rows: list[Value] = [
        NasRow("bng1", 5.0),
        NasRow("bng2", 5.0),
        SessionRow("bng1", "s1", ALI, 1.0, 9.0, 900.0, 300, False, -inf, 1.0, ()),
        SessionRow("bng2", "s2", ALI, 1.0, 9.0, 900.0, 300, False, -inf, 1.0, (HoldRow(IPV4, None, 9.0, 1.0),)),
    ]
    net, kept = table(ALI, max_nas=max_nas)
    kept.rows = {key_of(value): value for value in rows}
    given = [*(Row(key_of(value), value) for value in rows), Row(("nas", "x", ""), None)]
    assert net.sessions.restore(given, 20) == lives
    assert kept.told() == gone


def test_of_more_sessions_of_one_subscriber_than_may_be_the_oldest_goes() -> None:
    net, kept = table(ALI)
    holds = (HoldRow(IPV4, None, 1.0, 1.0),)
    crowd = [
        SessionRow("bng1", f"s{each}", ALI, float(each), float(each), 75.0, 300, False, -inf, 1.0, holds)
        for each in range(MAX_OF_SUBSCRIBER + 1)
    ]
    kept.rows = {key_of(value): value for value in crowd}
    net.sessions.restore([Row(key_of(value), value) for value in crowd], 70)
    assert len(net.sessions) == MAX_OF_SUBSCRIBER
    assert kept.told() == ["-session bng1s0"]
    net.wait_until(80)
    assert len(net.sessions) == 0


def test_what_is_known_of_an_address_is_known_of_its_parts() -> None:
    net, _ = table(ALI)
    net.start("s1", ALI, "10.0.0.1", "2001:db8::/56", at=10)
    net.start("s2", ALI, "10.0.0.2", at=10, ports=(1024, 2047))
    net.start("s3", ALI, "10.0.0.3", at=10)
    net.stop("s3", ALI, at=20)
    knows = net.sessions.knows
    assert knows(IPV4, None)
    assert knows(IPV4, (1, 2))
    assert knows(parse_prefix("2001:db8:0:1::/64"), None)
    assert not knows(parse_prefix("2001:db8:1::/64"), None)
    assert knows(parse_prefix("10.0.0.2"), (2040, 3000))
    assert not knows(parse_prefix("10.0.0.2"), (2048, 3000))
    assert knows(parse_prefix("10.0.0.3"), None), "it is remembered"
    assert not knows(parse_prefix("10.0.0.4"), None)


@pytest.mark.parametrize("off_s", [-18_000, -90, 40, 18_000])
def test_what_a_nas_clock_is_off_by_is_known_after_a_restart(off_s: int) -> None:
    """Its first Start after the restart counts at once: an address that goes from hand to hand is not held up."""
    net, kept = table(ALI, BANO)
    for now in range(100_000, 100_300, 30):
        net.interim("s1", ALI, "10.0.0.1", at=now + off_s, received=now)
    net, kept = again(kept, 100_300, ALI, BANO)
    net.start("s2", BANO, "10.0.0.1", at=100_301 + off_s, received=100_301)
    assert net.bound() == {"10.0.0.1/32": BANO}


def test_of_a_nas_whose_clock_is_right_there_is_no_row() -> None:
    net, kept = table(ALI)

    def told_of_nas() -> list[str]:
        return [row for row in kept.told() if "nas" in row]

    net.start("s1", ALI, "10.0.0.1", at=100.2, received=100)
    net.interim("s1", ALI, "10.0.0.1", at=99, received=101)
    assert told_of_nas() == []
    net.interim("s1", ALI, "10.0.0.1", at=112, received=102)
    assert told_of_nas() == ["nas bng1"]
    net.interim("s1", ALI, "10.0.0.1", at=103, received=103)
    assert told_of_nas() == ["-nas bng1"]


def test_a_start_of_before_a_nas_restart_that_comes_late_after_one_of_ours_is_old() -> None:
    """The restart, said again, is late too: that is no clock that is behind, as the run before knew."""
    net, kept = table(ALI, terms=Terms(restart_grace_s=0))
    net.start("s1", ALI, "10.0.0.1", at=1006, received=1012)
    net.on(at=1027, received=1028)
    net.wait_until(1030)
    net, kept = again(kept, 1054, ALI, terms=Terms(restart_grace_s=0))
    net.on(at=1027, received=1057)
    net.wait_until(1058)
    net.start("s1", ALI, "10.0.0.1", at=1006, received=1067)
    assert net.bound() == {}
