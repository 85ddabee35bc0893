"""Sequences that real gear sent, and what should be bound after each.

Origins: the attribute lists of a Nokia 7750's call trace of 2025-04-13 (hatakkey/MAG-integrated); the tests of
dapphp/radius; the SQL accounting tests of FreeRADIUS (acct_update_no_start, acct_start_conflict, acct_2_stop).
"""

from __future__ import annotations

from itertools import permutations

import pytest

from gatewayd.model.accounting import AccountingEvent
from tests.support.accounting import ALI, Table, event

NOKIA_S = 0x67FBD27E
NOKIA_SESSION = "181007000001C267FBD27E"
V4, SLAAC, DELEGATED = "180.0.0.2/32", "2005:2005:2005:52::/64", "2002:2002:2002:5100::/56"


def nokia(is_snapshot: bool) -> list[AccountingEvent]:
    """One session; the triggered Interims have the Event-Timestamp of the Start and Acct-Session-Time 0."""
    return [
        event("start", NOKIA_SESSION, ALI, V4, at=NOKIA_S, is_snapshot=is_snapshot),
        event("interim", NOKIA_SESSION, ALI, V4, SLAAC, at=NOKIA_S, is_snapshot=is_snapshot),
        event("interim", NOKIA_SESSION, ALI, V4, SLAAC, DELEGATED, at=NOKIA_S, is_snapshot=is_snapshot),
    ]


@pytest.mark.parametrize("is_snapshot", [False, True])
def test_nokia_ipoe_dual_stack(is_snapshot: bool) -> None:
    table = Table()
    for word, expected in zip(nokia(is_snapshot), [{V4}, {V4, SLAAC}, {V4, SLAAC, DELEGATED}], strict=True):
        table.take(word)
        assert table.bound().keys() == expected
        assert len(table.sessions) == 1


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_nokia_ipoe_dual_stack_in_any_order(order: tuple[int, ...]) -> None:
    table = Table()
    for index in order:
        table.take(nokia(is_snapshot=True)[index])
    assert table.bound().keys() == {V4, SLAAC, DELEGATED}


def test_dapphp_start_interim_stop_without_addresses_and_all_of_one_second() -> None:
    table = Table()
    table.start("SESSION_ID", ALI, at=1764894138)
    assert len(table.sessions) == 1
    table.interim("SESSION_ID", ALI, at=1764894138)
    assert len(table.sessions) == 1
    table.stop("SESSION_ID", ALI, at=1764894138)
    assert len(table.sessions) == 0
    assert table.bound() == {}


def test_freeradius_interim_without_start() -> None:
    table = Table()
    table.interim("00000004", ALI, "198.51.100.59", at=1000)
    assert len(table.sessions) == 1
    assert table.bound() == {"198.51.100.59/32": ALI}


def test_freeradius_duplicate_start() -> None:
    table = Table()
    for at in (1000, 1003):
        table.start("00000003", ALI, "198.51.100.59", at=at)
        assert len(table.sessions) == 1
        assert table.bound() == {"198.51.100.59/32": ALI}


def test_freeradius_stop_without_start() -> None:
    table = Table()
    table.stop("00000002", ALI, "198.51.100.59", at=1000)
    assert len(table.sessions) == 0
    assert table.bound() == {}
