from __future__ import annotations

import pytest

from gatewayd.sources.client_plan import FeedIntervals, back_off_s


def test_waits_after_failures_double_up_to_the_longest() -> None:
    assert [back_off_s(failures, 10.0, 60.0) for failures in range(1, 6)] == [10, 20, 40, 60, 60]
    assert back_off_s(10**6, 10.0, 60.0) == 60
    assert back_off_s(1, 100.0, 60.0) == 60


@pytest.mark.parametrize(
    ("ours_s", "stated", "wait_s"),
    [(60, 0, 60), (60, 120, 120), (60, 1, 10), (5, 1, 5), (5, 120, 120), (60, 10**7, 86400), (10**6, 0, 86400)],
)
def test_the_feeds_refresh_counts_within_bounds(ours_s: float, stated: int, wait_s: float) -> None:
    assert FeedIntervals(refresh_s=ours_s).wait_s(0, stated_refresh=stated) == wait_s


@pytest.mark.parametrize(
    ("ours_s", "stated", "failures", "wait_s"),
    [(10, 0, 1, 10), (10, 30, 1, 30), (10, 30, 2, 60), (10, 1, 1, 1), (0.5, 1, 1, 1), (100, 0, 1, 100)],
)
def test_the_feeds_retry_counts_within_bounds(ours_s: float, stated: int, failures: int, wait_s: float) -> None:
    assert FeedIntervals(retry_s=ours_s).wait_s(failures, stated_retry=stated) == wait_s


@pytest.mark.parametrize(("stated", "holds_s"), [(0, 500), (1, 60), (3600, 3600)])
def test_the_feeds_expire_counts_if_it_is_not_too_short(stated: int, holds_s: float) -> None:
    assert FeedIntervals(expire_s=500).holds_s(stated) == holds_s
