"""How old what we know is, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import get_args

import msgspec
import pytest

from gatewayd.errors import SourceUnreadable
from gatewayd.feed.reading import MAX_REJECTIONS_LISTED, Rejection
from gatewayd.model import Mode, Registration
from gatewayd.model.registration import Changes
from gatewayd.registry.freshness import Freshness, SourceState, judge_freshness, mode_by_freshness, rejections_of
from gatewayd.settings import RegistrySettings
from gatewayd.sources.last_good import Restored
from gatewayd.sources.update import FeedPosition, SourceUpdate

FRESH = Freshness("fresh", 0.0)
OVERDUE = Freshness("overdue", 180.0)
STALE = Freshness("stale", 1000.0)
A = Registration("a", "bank", "active", ())


def judge(confirmed_at_s: float | None, issued_at_s: float | None, now: float) -> Freshness:
    return judge_freshness(confirmed_at_s, issued_at_s, now, refresh_s=60.0, expire_s=1000.0)


@pytest.mark.parametrize(
    ("confirmed_at_s", "issued_at_s", "now", "word", "since_s"),
    [
        (100.0, None, 100.0, "fresh", 100.0),
        (100.0, 90.0, 279.9, "fresh", 100.0),
        (100.0, None, 280.0, "overdue", 280.0),
        (100.0, None, 1099.9, "overdue", 280.0),
        (100.0, None, 1100.0, "stale", 1100.0),
        (100.0, 90.0, 1090.0, "stale", 1090.0),
        (2000.0, 100.0, 2000.0, "stale", 1100.0),
        (1000.0, 10.0, 1001.0, "fresh", 1000.0),
        (100.0, 500.0, 100.0, "fresh", 100.0),
        (100.0, None, 50.0, "fresh", 100.0),
        (None, None, 50.0, "stale", -inf),
    ],
)
def test_a_source_is_fresh_then_overdue_then_stale(
    confirmed_at_s: float | None,
    issued_at_s: float | None,
    now: float,
    word: str,
    since_s: float,
) -> None:
    freshness = judge(confirmed_at_s, issued_at_s, now)
    assert (freshness.word, freshness.since_s) == (word, since_s)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_enforcing_stops_only_where_the_operator_chose_so_and_only_when_stale(mode: Mode) -> None:
    assert mode_by_freshness(mode, {"a": FRESH, "b": OVERDUE}, "observe") == mode
    assert mode_by_freshness(mode, {"a": FRESH, "b": STALE}, "keep") == mode
    assert mode_by_freshness(mode, {"a": FRESH, "b": STALE}, "observe") == "observe"
    assert mode_by_freshness(mode, {}, "observe") == mode


def test_a_source_is_as_it_was_last_said_to_be() -> None:
    settings, state = RegistrySettings((), refresh_s=60.0, expire_s=1000.0), SourceState()
    assert (state.serial, state.session, state.issued_at) == (0, None, None)
    assert state.freshness(settings, 50.0) == Freshness("stale", -inf)
    state.take(SourceUpdate("a", 100.0, SourceUnreadable("a", "gone")))
    assert (state.error, state.has_answered) == ("gone", False)
    state.take(SourceUpdate("a", 200.0, registrations={"a": A}, rejected={"bad_id": 2}, retained=1))
    assert (state.error, state.has_answered, state.registrations, state.retained) == (None, True, 1, 1)
    assert (state.serial, state.session, state.issued_at) == (200, None, None)
    state.take(SourceUpdate("a", 300.0))
    assert (state.read_at, state.confirmed_at) == (200.0, 300.0)
    assert state.freshness(settings, 479.0) == Freshness("fresh", 300.0)
    state.set_back(250.0)
    assert state.confirmed_at == 250.0


def test_records_that_a_delta_cannot_use_are_counted_on_until_the_feed_is_read_whole() -> None:
    state, position = SourceState(), FeedPosition("s", 7, 90.0, expire=500)
    state.take(SourceUpdate("a", 100.0, registrations={}, position=position, rejected={"bad_id": 2}))
    delta = SourceUpdate(
        "a", 110.0, registrations={}, changes=Changes((), ()), rejected={"bad_id": 1, "bad_time": 1}
    )
    for each in (delta, replace(delta, rejected={})):
        state.take(each)
        assert state.rejected == {"bad_id": 3, "bad_time": 1}
    state.take(SourceUpdate("a", 120.0, registrations={}, position=position))
    assert (state.rejected, state.serial, state.session, state.issued_at) == ({}, 7, "s", 90.0)
    assert state.freshness(RegistrySettings(()), 590.0).word == "stale"  # as the feed says


def test_a_source_goes_on_from_its_last_good() -> None:
    state = SourceState()
    state.restore(Restored({}))
    assert state == SourceState()
    state.restore(Restored({"a": A}, FeedPosition("s", 7, 90.0), 100.0, {"bad_id": 2}))
    assert (state.registrations, state.rejected, state.serial) == (1, {"bad_id": 2}, 7)
    assert (state.restored_at, state.confirmed_at, state.has_answered) == (100.0, 100.0, False)
    state.restore(Restored({}, FeedPosition("", 1)))
    assert state.confirmed_at == -inf


def listed(state: SourceState) -> list[tuple[int, int, str | None, bool]]:
    return [(each.serial, each.line, each.id, each.is_delta) for each in state.rejections]


def test_rejected_records_are_listed_until_they_are_mended() -> None:
    state, position = SourceState(), FeedPosition("s", 7)
    first = (
        Rejection(3, "B", "bad_time", "valid_until", "it says 2025-13-01"),
        Rejection(9, None, "not_json", "", ""),
    )
    state.take(
        SourceUpdate("a", 1.0, registrations={"A": A}, position=position, rejected={"x": 2}, rejections=first)
    )
    assert listed(state) == [(7, 3, "B", False), (7, 9, None, False)]
    later = FeedPosition("s", 8)
    more = Rejection(1, "B", "bad_type", "peers", ""), Rejection(2, "C", "bad_id", "id", "")
    nothing = Changes((), ())
    state.take(SourceUpdate("a", 2.0, registrations={}, changes=nothing, position=later, rejections=more))
    assert listed(state)[2:] == [(8, 1, "B", True), (8, 2, "C", True)]
    newest = state.rejection_of("B")
    assert newest is not None
    assert (newest.serial, newest.code, newest.field) == (8, "bad_type", "peers")
    mended = Changes((msgspec.structs.replace(A, id="B"),), ("C",))
    state.take(SourceUpdate("a", 3.0, registrations={}, changes=mended, position=FeedPosition("s", 9)))
    assert listed(state) == [(7, 9, None, False)]
    assert state.rejection_of("B") is None
    # Nothing of a record's content is kept.
    assert "2025-13-01" not in repr(state)
    state.take(SourceUpdate("a", 4.0, registrations={"A": A}, position=position))
    assert listed(state) == []


def test_the_list_of_rejected_records_is_bounded_and_survives_a_restart() -> None:
    state = SourceState()
    many = tuple(Rejection(line, None, "not_json", "", "") for line in range(MAX_REJECTIONS_LISTED))
    state.take(SourceUpdate("a", 1.0, registrations={"A": A}, rejections=many))
    state.take(SourceUpdate("a", 2.0, registrations={}, changes=Changes((), ()), rejections=many[:5]))
    assert len(state.rejections) == MAX_REJECTIONS_LISTED
    again = SourceState()
    again.restore(Restored({"A": A}, FeedPosition("s", 7), 5.0, rejections=state.rejections[:3]))
    assert again.rejections == state.rejections[:3]
    assert (rejections_of({"a": again}, "a"), rejections_of({"a": again}, "b")) == (again.rejections, ())
