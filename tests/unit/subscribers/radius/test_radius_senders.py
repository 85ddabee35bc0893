from __future__ import annotations

from gatewayd.subscribers.radius.senders import ResponseTimes


def test_times_are_counted_by_their_bounds() -> None:
    times = ResponseTimes()
    for seconds in (0.0, 0.0001, 0.0002, 5.0, 5.1):
        times.observe(seconds)
    assert len(times.counts) == len(times.BOUNDS_S) + 1
    assert (times.counts[0], times.counts[1], times.counts[-2], times.counts[-1]) == (2, 1, 1, 1)
    assert times.count == 5
    assert times.sum_s == 0.0001 + 0.0002 + 5.0 + 5.1
    buckets, seconds = times.cumulated()
    assert seconds == times.sum_s
    assert [buckets[0], buckets[1], buckets[-2], buckets[-1]] == [
        ("0.0001", 2), ("0.00025", 3), ("5.0", 4), ("+Inf", 5),
    ]  # fmt: skip
