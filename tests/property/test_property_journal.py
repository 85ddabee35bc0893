"""Crashes at any moment: what the rows rebuild is what there was, and nobody is in them who is not registered.

A crash is that the table of sessions is dropped, and another made of the rows as they add up by key, through their
bytes. Networks misbehave as they like; events that are late say so (Acct-Delay-Time): that a clock was set back is
found out anew after a restart.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gatewayd.model.accounting import AccountingEvent, AccountingKind
from gatewayd.model.prefix import Prefix
from gatewayd.subscribers.journal_rows import Key, Row, decode_row, encode_key, encode_value
from gatewayd.subscribers.sessions.session import Terms
from tests.support.accounting import ALI, BANO, CHAND, Table, event

SUBSCRIBERS = [ALI, BANO, CHAND]
NAS = ["bng1", "bng2"]
IDS = ["s1", "s2", "s3"]
ADDRESSES = ["10.0.0.1", "10.0.0.2", "2001:db8::/56"]
PORTS = [None, None, None, (1024, 2047), (2000, 2100)]
WITH_GRACE = Terms(restart_grace_s=120)

Bound = set[tuple[bytes, Prefix, tuple[int, int] | None, float, float]]


class Disk:
    """The rows as they add up, in bytes."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def write(self, rows: list[Row]) -> None:
        assert len({row.key for row in rows}) == len(rows), "a row was given twice"
        for row in rows:
            key = encode_key(row.key)
            if row.value is None:
                del self.rows[key]
            else:
                self.rows[key] = encode_value(key, row.value)

    def read(self) -> list[Row]:
        found = [decode_row(key, value) for key, value in sorted(self.rows.items())]
        return [row for row in found if row is not None]

    def kept(self) -> set[Key]:
        return {row.key for row in self.read()}


def step(table: Table, disk: Disk, now: float) -> None:
    """What the shell does after each call."""
    table.wait_until(now)
    disk.write(table.next_rows())
    table.bound()


def restored(disk: Disk, now: float, table: Table) -> Table:
    disk_rows = disk.read()
    assert len(disk_rows) == len(disk.rows), "what was written can be read"
    table.sessions.restore(disk_rows, now)
    step(table, disk, now)
    return table


def bindings(table: Table) -> Bound:
    table.bound()
    return {
        (each.subscriber, each.prefix, each.ports, each.since_s, each.confirmed_s) for each in table.confirmed()
    }


def words(subscribers: list[bytes | None]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["start", "start", "interim", "interim", "stop", "on", "off"]),
            "session": st.sampled_from(IDS),
            "subscriber": st.sampled_from(subscribers),
            "addresses": st.lists(st.sampled_from(ADDRESSES), max_size=3, unique=True),
            "nas": st.sampled_from(NAS),
            "age_s": st.sampled_from([0.0, 0.0, 0.0, 1.0, 5.0, 40.0]),
            "ports": st.sampled_from(PORTS),
            "interim_s": st.sampled_from([None, 300, 600]),
            "is_snapshot": st.booleans(),
            "is_final_stop": st.sampled_from([True, True, False]),
        }
    )


def heard(word: dict[str, Any], now: float) -> AccountingEvent:
    kind: AccountingKind = word["kind"]
    return event(
        kind,
        word["session"],
        word["subscriber"],
        *word["addresses"],
        at=now - word["age_s"],
        received=now,
        nas=word["nas"],
        ports=word["ports"],
        interim_s=word["interim_s"],
        is_snapshot=word["is_snapshot"],
        is_final_stop=kind == "stop" and word["is_final_stop"],
        delay_s=word["age_s"],
    )


WAITS = st.sampled_from([0.25, 0.25, 0.25, 1.0, 30.0, 200.0, 880.0])


@given(
    st.lists(st.tuples(words([ALI, BANO, CHAND]), WAITS, st.booleans(), st.booleans()), max_size=25),
    st.sampled_from([Terms(restart_grace_s=0), WITH_GRACE]),
)
def test_crashes_make_no_difference_to_registered_subscribers(
    stream: list[tuple[dict[str, Any], float, bool, bool]], terms: Terms
) -> None:
    def fresh() -> Table:
        return Table(terms=terms)

    now = 1000.0
    steady, struck = fresh(), fresh()
    disk, other_disk = Disk(), Disk()
    for word, wait_s, is_crash, names_nobody in stream:
        now += wait_s
        for table, rows in ((steady, other_disk), (struck, disk)):
            step(table, rows, now)
        if is_crash:
            struck = restored(disk, now, fresh())
        live = steady.sessions._nas.by_key.get(word["nas"])
        # A Start that names nobody may begin another life of its id, of which nothing may be on disk.
        is_known = live is not None and word["session"] in live.sessions
        if names_nobody and is_known and word["kind"] != "start":
            word = {**word, "subscriber": None}
        for table, rows in ((steady, other_disk), (struck, disk)):
            table.take(heard(word, now))
            step(table, rows, now)
        assert bindings(struck) == bindings(steady)
        assert len(struck.sessions) == len(steady.sessions)
        assert disk.kept() == other_disk.kept()
    for table, rows in ((steady, other_disk), (struck, disk)):
        step(table, rows, now + 100_000)
        step(table, rows, now + 101_000)
        assert bindings(table) == set()
        assert {key[0] for key in rows.kept()} <= {"nas"}, "what ended leaves nothing"


class Crashes(RuleBasedStateMachine):
    """Some are registered, some are not, and it changes; some words name nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.registered = {ALI, BANO}
        self.now = 1000.0
        self.disk = Disk()
        self.table = self.fresh()

    def fresh(self) -> Table:
        return Table(self.registered, WITH_GRACE, max_sessions=5, max_nas=2, max_tombstones=20)

    @rule(word=words([*SUBSCRIBERS, None]), wait_s=WAITS, is_old=st.booleans())
    def hear(self, word: dict[str, Any], wait_s: float, is_old: bool) -> None:
        self.now += wait_s
        step(self.table, self.disk, self.now)
        self.table.take(heard({**word, "age_s": 4000.0} if is_old else word, self.now))
        step(self.table, self.disk, self.now)

    @rule(subscriber=st.sampled_from(SUBSCRIBERS))
    def register_or_revoke(self, subscriber: bytes) -> None:
        self.registered ^= {subscriber}
        self.table.sessions.recheck(subscriber)
        step(self.table, self.disk, self.now)

    @rule(wait_s=st.sampled_from([0.0, 5.0]))
    def crash(self, wait_s: float) -> None:
        self.now += wait_s
        step(self.table, self.disk, self.now)
        before = bindings(self.table)
        self.table = restored(self.disk, self.now, self.fresh())
        assert bindings(self.table) == before
        assert all(each.is_restored for each in self.table.confirmed())

    @rule(subscriber=st.sampled_from(SUBSCRIBERS))
    def revoke_while_down(self, subscriber: bytes) -> None:
        step(self.table, self.disk, self.now)
        before = bindings(self.table)
        self.registered.discard(subscriber)
        self.table = restored(self.disk, self.now, self.fresh())
        self.table.sessions.forget_unregistered()
        step(self.table, self.disk, self.now)
        assert bindings(self.table) == {each for each in before if each[0] != subscriber}

    @invariant()
    def nobody_is_on_disk_who_is_not_registered(self) -> None:
        raw = b"".join(key + value for key, value in self.disk.rows.items())
        for subscriber in SUBSCRIBERS:
            if subscriber not in self.registered:
                assert subscriber not in raw

    @invariant()
    def the_rows_are_what_lives(self) -> None:
        live = {
            ("session", session.nas.name, session.id)
            for subscriber in self.registered
            for session in self.table.sessions.sessions_of(subscriber)
        }
        assert {key for key in self.disk.kept() if key[0] == "session"} == live


TestCrashes = Crashes.TestCase
