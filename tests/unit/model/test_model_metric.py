from __future__ import annotations

import pytest

from gatewayd.model.metric import (
    THE_FIELD,
    Metric,
    counter,
    equals,
    gauge,
    histogram,
    is_there,
    number,
    one_of,
    summary,
    total,
)


@pytest.mark.parametrize(
    ("value", "read"), [(3, 3), (None, None), ({"a": 1}, {"a": 1}), ("2024-11-04T03:00:00Z", 1_730_689_200.0)]
)
def test_a_field_is_its_number_and_a_time_is_in_unix_seconds(value: object, read: object) -> None:
    assert number(value) == read


def test_a_field_that_is_a_word_becomes_numbers() -> None:
    assert (is_there("why"), is_there(None)) == (True, False)
    assert (equals("stale")("stale"), equals("stale")("fresh")) == (True, False)
    assert one_of(("observe", "reject"))("reject") == {"observe": False, "reject": True}
    assert total({"a": 1, "b": 2}) == 3


def test_the_words_of_a_label_share_their_family() -> None:
    events = counter("events", "Events.", "rises", label="kind")
    packet, own = events.of("packet", meaning="From NFLOG."), events.of(read=total)
    assert packet == Metric("counter", "events", "Events.", "rises", "kind", number, "packet", "From NFLOG.")
    assert (own.word, own.read, own.help) == (THE_FIELD, total, "Events.")


def test_each_kind_says_of_itself_what_it_is() -> None:
    made = [
        gauge("a", "A."),
        counter("b", "B."),
        summary("c", "C.", times="count"),
        histogram("d", "D.", read=number),
    ]
    assert [each.kind for each in made] == ["gauge", "counter", "summary", "histogram"]
    assert made[2].times == "count"
