"""Rows of the journal, put right for the present."""

from __future__ import annotations

from math import inf

import pytest
from msgspec import structs

from gatewayd.model.prefix import parse_prefix
from gatewayd.subscribers.journal_rows import (
    AddressRow,
    EndedRow,
    HoldRow,
    NasRow,
    Row,
    SessionRow,
    Value,
    key_of,
)
from gatewayd.subscribers.sessions.restoring import SortedRows, sort_rows
from gatewayd.subscribers.sessions.session import JITTER, TICK_S, Terms
from tests.support.accounting import ALI

NOW = 1000.0
IPV4 = parse_prefix("10.0.0.1")
TERMS = Terms(interim_s=100, missed_interims=3, min_session_timeout_s=0)
SESSION = SessionRow(
    "bng1", "s1", ALI, 10.0, 20.0, NOW + 100, None, False, 20.0, 20.0, (HoldRow(IPV4, None, 20.0, 10.0),)
)
LAST_DUE_S = NOW + 300 * (1 + JITTER) + TICK_S


def put_right(*values: Value, terms: Terms = TERMS) -> SortedRows:
    return sort_rows([Row(key_of(each), each) for each in values], NOW, lambda _: terms)


SOUND = [
    SESSION,
    structs.replace(SESSION, due_s=LAST_DUE_S),
    EndedRow("bng1", "s2", ALI, 10.0, 20.0),
    AddressRow(IPV4, ALI, 10.0, 20.0, -inf),
    NasRow("bng1", 10.0, 3, ((bytes(16), 20.0),)),
    NasRow("bng1", -inf),
]


@pytest.mark.parametrize("value", SOUND, ids=lambda value: type(value).__name__)
def test_what_is_sound_stays_as_it_is(value: Value) -> None:
    found = put_right(value)
    assert [*found.nas, *found.stones, *found.sessions] == [value]
    assert found.changed == []


FUTURE = NOW + 1e6
WRONG: list[tuple[Value, Value]] = [
    (structs.replace(SESSION, due_s=FUTURE), structs.replace(SESSION, due_s=LAST_DUE_S)),
    (structs.replace(SESSION, due_s=None), structs.replace(SESSION, due_s=LAST_DUE_S)),
    (structs.replace(SESSION, at_s=FUTURE, since_s=FUTURE), structs.replace(SESSION, at_s=NOW, since_s=NOW)),
    (structs.replace(SESSION, snapshot_s=FUTURE), structs.replace(SESSION, snapshot_s=NOW)),
    (
        structs.replace(SESSION, holds=(HoldRow(IPV4, (1, 2), FUTURE, FUTURE),)),
        structs.replace(SESSION, holds=(HoldRow(IPV4, (1, 2), NOW, NOW),)),
    ),
    (EndedRow("bng1", "s2", ALI, FUTURE, 20.0), EndedRow("bng1", "s2", ALI, NOW, 20.0)),
    (EndedRow("bng1", "s2", ALI, 10.0, FUTURE), EndedRow("bng1", "s2", ALI, 10.0, NOW)),
    (AddressRow(IPV4, ALI, FUTURE, 20.0, FUTURE), AddressRow(IPV4, ALI, NOW, 20.0, NOW)),
    (NasRow("bng1", FUTURE), NasRow("bng1", NOW)),
    (NasRow("bng1", 10.0, 0, ((bytes(16), FUTURE),)), NasRow("bng1", 10.0, 0, ((bytes(16), NOW),))),
]


@pytest.mark.parametrize(("value", "right"), WRONG)
def test_no_time_is_ahead_of_the_present_and_no_session_lasts_for_ever(value: Value, right: Value) -> None:
    found = put_right(value)
    assert [*found.nas, *found.stones, *found.sessions] == [right]
    assert found.changed == [key_of(value)]


def test_a_session_that_never_runs_out_stays_so_where_its_nas_may_have_such() -> None:
    for_ever = Terms(session_timeout_s=inf)
    endless = structs.replace(SESSION, due_s=None)
    assert put_right(endless, terms=for_ever).sessions == [endless]
    with_interval = structs.replace(SESSION, due_s=FUTURE, interim_s=600)
    (session,) = put_right(with_interval, terms=for_ever).sessions
    assert session.due_s == NOW + 1800 * (1 + JITTER) + TICK_S


def test_rows_come_in_the_order_in_which_they_are_restored() -> None:
    sessions = [structs.replace(SESSION, session=f"s{number}", since_s=float(number)) for number in (3, 1, 2)]
    stones = [EndedRow("bng1", f"s{number}", ALI, 1.0, float(number)) for number in (3, 1, 2)]
    rows = [Row(key_of(each), each) for each in sessions]
    rows += [Row(key_of(each), each) for each in stones]
    found = sort_rows([*rows, Row(("nas", "x", ""), None)], NOW, lambda _: TERMS)
    assert [each.since_s for each in found.sessions] == [1.0, 2.0, 3.0]
    assert [each.buried_s for each in found.stones] == [1.0, 2.0, 3.0]
    assert found.nas == []
