"""How old what we know is, and what follows from it."""

from __future__ import annotations

from math import inf

import pytest

from gatewayd.registry.freshness import (
    Freshness,
    judge_freshness,
    mode_by_freshness,
    next_freshness_change,
    reasons_of,
)

FRESH = Freshness("fresh", 0.0, 180.0)
OVERDUE = Freshness("overdue", 180.0, 1000.0, "last confirmed 200 s ago")
STALE = Freshness("stale", 1000.0, inf, "last confirmed 1200 s ago")


def judge(confirmed_at_s: float | None, issued_at_s: float | None, now: float) -> Freshness:
    return judge_freshness(confirmed_at_s, issued_at_s, now, refresh_s=60.0, expire_s=1000.0)


@pytest.mark.parametrize(
    ("confirmed_at_s", "issued_at_s", "now", "word", "since_s", "changes_at_s"),
    [
        (100.0, None, 100.0, "fresh", 100.0, 280.0),
        (100.0, 90.0, 279.9, "fresh", 100.0, 280.0),
        (100.0, None, 280.0, "overdue", 280.0, 1100.0),
        (100.0, None, 1099.9, "overdue", 280.0, 1100.0),
        (100.0, None, 1100.0, "stale", 1100.0, inf),
        (100.0, 90.0, 1090.0, "stale", 1090.0, inf),
        (2000.0, 100.0, 2000.0, "stale", 1100.0, inf),
        (1000.0, 10.0, 1001.0, "fresh", 1000.0, 1010.0),
        (100.0, 500.0, 100.0, "fresh", 100.0, 280.0),
        (100.0, None, 50.0, "fresh", 100.0, 280.0),
        (None, None, 50.0, "stale", -inf, inf),
    ],
)
def test_a_source_is_fresh_then_overdue_then_stale(
    confirmed_at_s: float | None,
    issued_at_s: float | None,
    now: float,
    word: str,
    since_s: float,
    changes_at_s: float,
) -> None:
    freshness = judge(confirmed_at_s, issued_at_s, now)
    assert (freshness.word, freshness.since_s, freshness.changes_at_s) == (word, since_s, changes_at_s)
    assert bool(freshness.reason) == (word != "fresh")


def test_an_answer_that_was_issued_long_ago_confirms_nothing_newer() -> None:
    assert judge(2000.0, 100.0, 2000.0).reason == "last issued 1900 s ago"
    assert judge(100.0, 100.0, 2000.0).reason == "last confirmed 1900 s ago"
    assert judge(None, None, 0.0).reason == "never read"


@pytest.mark.parametrize("mode", ["observe", "mark", "limit", "reject"])
def test_enforcing_stops_only_where_the_operator_chose_so_and_only_when_stale(mode: str) -> None:
    assert mode_by_freshness(mode, {"a": FRESH, "b": OVERDUE}, "observe") == mode  # type: ignore[arg-type]
    assert mode_by_freshness(mode, {"a": FRESH, "b": STALE}, "keep") == mode  # type: ignore[arg-type]
    assert mode_by_freshness(mode, {"a": FRESH, "b": STALE}, "observe") == "observe"  # type: ignore[arg-type]
    assert mode_by_freshness(mode, {}, "observe") == mode  # type: ignore[arg-type]


def test_status_names_what_is_not_fresh_and_when_it_gets_worse() -> None:
    sources = {"a": FRESH, "b": OVERDUE, "c": STALE}
    assert reasons_of(sources) == (
        "source b is overdue: last confirmed 200 s ago",
        "source c is stale: last confirmed 1200 s ago",
    )
    assert next_freshness_change(sources) == 180.0
    assert next_freshness_change({}) == inf
