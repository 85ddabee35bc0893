"""The ring of followed events: what a reader gets, and what it is told of what it does not get."""

from __future__ import annotations

import json

import pytest

from gatewayd.log.ring import (
    MAX_EVENT_BYTES,
    Batch,
    Entry,
    EventRing,
    Position,
    parse_position,
    stamp_of,
)

NOW = 1_730_689_200.0


def filled(count: int, **bounds: int) -> EventRing:
    ring = EventRing(7, **bounds)
    for number in range(1, count + 1):
        ring.append(NOW + number, "info", "registry.applied", {"upserts": number})
    return ring


def numbers(entries: tuple[Entry, ...]) -> list[int]:
    return [each.position.number for each in entries]


def test_an_event_is_what_was_logged_with_an_id_and_a_time() -> None:
    ring = filled(1)
    (entry,) = ring.after(None).entries
    assert json.loads(entry.body) == {
        "id": "7-1", "at": "2024-11-04T03:00:01.000Z", "level": "info", "event": "registry.applied",
        "fields": {"upserts": 1}, "omitted": [],
    }  # fmt: skip
    assert ring.last == Position(7, 1)


def test_a_reader_gets_what_came_after_its_place() -> None:
    ring = filled(5)
    assert ring.after(Position(7, 3)) == Batch(Position(7, 3), ring.after(None).entries[3:])
    assert numbers(ring.after(Position(7, 0), 2).entries) == [1, 2]
    assert ring.after(ring.last) == Batch(ring.last, ())


@pytest.mark.parametrize("bounds", [{"max_events": 3}, {"max_bytes": 3 * 140}])
def test_the_oldest_give_way_and_a_slow_reader_is_told_how_many(bounds: dict[str, int]) -> None:
    ring = filled(10, **bounds)
    assert ring.dropped == 7
    batch = ring.after(Position(7, 2))
    assert (batch.after, batch.loss, batch.missed) == (Position(7, 7), "overrun", 5)
    assert numbers(batch.entries) == [8, 9, 10]
    fresh = ring.after(None)
    assert (fresh.after, fresh.loss, fresh.missed) == (Position(7, 7), None, 0)


def test_one_event_stays_however_long_it_is() -> None:
    assert numbers(filled(3, max_bytes=1).after(None).entries) == [3]


@pytest.mark.parametrize("position", [Position(6, 2), Position(8, 2), Position(7, 99), Position(0, 0)])
def test_an_id_of_another_run_is_told_of_the_restart(position: Position) -> None:
    batch = filled(2).after(position)
    assert (batch.after, batch.loss, batch.missed) == (Position(7, 0), "restart", None)
    assert numbers(batch.entries) == [1, 2]


@pytest.mark.parametrize(
    ("at_s", "expected"),
    [
        (NOW + 3, (Position(7, 2), None)),
        (NOW + 2.5, (Position(7, 2), None)),
        (NOW + 99, (Position(7, 5), None)),
        (NOW - 99, (Position(7, 0), "restart")),
    ],
)
def test_a_reader_may_begin_at_a_time(at_s: float, expected: object) -> None:
    assert filled(5).position_of(at_s) == expected


def test_a_time_of_which_events_are_forgotten_is_said() -> None:
    assert filled(5, max_events=2).position_of(NOW) == (Position(7, 3), "overrun")


def test_a_field_that_is_too_long_is_left_out_and_named() -> None:
    ring = EventRing(7)
    ring.append(NOW, "error", "x", {"ids": ["A"] * MAX_EVENT_BYTES, "error": "b" * MAX_EVENT_BYTES, "serial": 3})
    (entry,) = ring.after(None).entries
    event = json.loads(entry.body)
    assert event["fields"] == {"serial": 3}
    assert event["omitted"] == ["ids", "error"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1764518948123-17", Position(1764518948123, 17)), ("0-0", Position(0, 0)), ("17", None), ("-1-2", None),
        ("1-2-3", None), ("٣-1", None), ("1-" + "9" * 17, None), ("", None), ("1-2\n", None),
    ],
)  # fmt: skip
def test_an_id_is_two_numbers(text: str, expected: Position | None) -> None:
    assert parse_position(text) == expected
    if expected is not None:
        assert str(expected) == text


def test_a_stamp_has_milliseconds() -> None:
    assert stamp_of(NOW + 0.25) == "2024-11-04T03:00:00.250Z"
