"""Rows are values that can be compared and sorted."""

from __future__ import annotations

from gatewayd.activity.rows import Activity, DayTotal, Run, Span


def test_rows_are_values() -> None:
    assert Span(1, 2) == (1, 2)
    assert Activity(1, 2, 3, 4).days == 3
    assert DayTotal(9, 1, 2, 3).day == 9
    assert sorted([Run(5, 6), Run(1, 2)])[0].until_s == 2
