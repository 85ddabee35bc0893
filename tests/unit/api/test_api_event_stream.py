"""Server-sent events: where a reader begins, and the bytes both ways (WHATWG HTML §9.2)."""

from __future__ import annotations

import json

import pytest

from gatewayd.api.event_stream import (
    COMMENT,
    UNKNOWN,
    Message,
    NotAStream,
    Start,
    StreamReader,
    encode_batch,
    encode_opening,
    read_start,
)
from gatewayd.api.queries import ParameterRejected
from gatewayd.log.ring import EventRing, Position


def ring_of(count: int) -> EventRing:
    ring = EventRing(7, max_events=3)
    for number in range(count):
        ring.append(1_730_689_200.0, "info", "registry.applied", {"text": f"line\nof {number} é"})
    return ring


@pytest.mark.parametrize(
    ("parameters", "header", "expected"),
    [
        ({}, None, Start()),
        ({}, "", Start()),
        ({}, "7-3", Start(Position(7, 3))),
        ({}, "of another program", Start(UNKNOWN)),
        ({"since": "7-3"}, None, Start(Position(7, 3))),
        ({"since": "7-3"}, "7-9", Start(Position(7, 9))),
        ({"since": "2024-11-04T03:00:00Z", "follow": "no"}, None, Start(at_s=1_730_689_200.0, follows=False)),
        ({"follow": "yes"}, None, Start()),
    ],
)
def test_a_reader_says_where_it_begins(parameters: dict[str, str], header: str | None, expected: Start) -> None:
    assert read_start(parameters, header) == expected


@pytest.mark.parametrize(("name", "text"), [("since", "yesterday"), ("follow", "maybe")])
def test_what_says_nothing_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(ParameterRejected) as caught:
        read_start({name: text}, None)
    assert caught.value.parameter == name


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_what_is_written_is_read_in_any_pieces(piece: int, end: bytes) -> None:
    stream = encode_opening() + COMMENT + encode_batch(ring_of(5).after(Position(7, 1)))
    stream = stream.replace(b"\n", end)
    reader = StreamReader()
    found = [
        message for start in range(0, len(stream), piece) for message in reader.feed(stream[start : start + piece])
    ]
    if end == b"\r":  # the last of them may be the first half of CR LF
        found += reader.feed(b"")
    assert [(each.event, each.id) for each in found] == [
        ("gap", "7-2"), ("message", "7-3"), ("message", "7-4"), ("message", "7-5"),
    ]  # fmt: skip
    assert json.loads(found[0].data) == {"reason": "overrun", "missed": 1}
    assert json.loads(found[1].data)["fields"] == {"text": "line\nof 2 é"}


def test_a_gap_of_a_restart_has_no_number() -> None:
    (gap, _) = StreamReader().feed(encode_batch(ring_of(1).after(UNKNOWN)))
    assert json.loads(gap.data) == {"reason": "restart", "missed": None}
    assert gap.id == "7-0"


def test_messages_of_other_writers_are_read_by_the_standard() -> None:
    text = b"data:a\ndata: b\nevent: e\nunknown: x\nid: 1\n\nid: 2\x003\ndata\n\nevent: lost\n\n:comment\n"
    assert list(StreamReader().feed(text)) == [Message("e", "a\nb", "1"), Message("message", "", "1")]


def test_a_line_without_an_end_is_no_stream() -> None:
    with pytest.raises(NotAStream):
        list(StreamReader().feed(b"x" * 70_000))
