"""A client that tries again counts once a minute."""

from __future__ import annotations

from gatewayd.watch.repeats import MAX_SEEN, WINDOW_S, Repeats
from tests.support.owning import flow


def test_another_try_is_no_other_attempt_within_a_minute() -> None:
    repeats = Repeats()
    assert repeats.note(flow("39.32.0.1", port=40000), 0.0)
    assert not repeats.note(flow("39.32.0.1", port=40000), 1.0)
    assert not repeats.note(flow("39.32.0.1", port=40001), 59.9)
    assert repeats.note(flow("39.32.0.1", port=40002), WINDOW_S)
    assert repeats.note(flow("39.32.0.2"), WINDOW_S)
    assert repeats.note(flow("39.32.0.1", "udp/4500"), WINDOW_S)
    assert repeats.count == 4


def test_what_is_remembered_is_bounded() -> None:
    repeats = Repeats()
    for number in range(MAX_SEEN + 1):
        repeats.note(flow(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"), 0.0)
    assert repeats.note(flow("10.0.0.0"), 1.0)
    assert not repeats.note(flow("10.0.0.5"), 1.0)
