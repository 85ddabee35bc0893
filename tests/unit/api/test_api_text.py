from __future__ import annotations

import pytest

from gatewayd.api.text import ago, by_number, count, numbers_of, place, size, some, span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (4.9, "4s"), (130, "2m 10s"), (3600, "1h"), (3605, "1h"), (273_605, "3d 4h")],
)
def test_a_span_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("then", "text"),
    [(None, "never"), ("2024-11-04T02:59:20Z", "40s ago"), ("2024-11-04T03:05:00Z", "in 5m")],
)
def test_a_moment_is_told_from_now(then: str | None, text: str) -> None:
    assert ago("2024-11-04T03:00:00Z", then) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**62, "4096.0 PiB")]
)
def test_a_size_has_a_unit(size_bytes: int, text: str) -> None:
    assert size(size_bytes) == text


def test_one_is_singular() -> None:
    assert [count(number, "flow") for number in (0, 1, 31022)] == ["0 flows", "1 flow", "31,022 flows"]


def test_a_place_has_its_ports() -> None:
    assert place("10.1.2.3/32", None) == "10.1.2.3/32"
    assert place("10.1.2.3/32", (1, 9)) == "10.1.2.3/32 ports 1-9"


def test_a_long_list_is_cut_and_says_so() -> None:
    assert some(()) == "any"
    assert some(("a", "b", "c")) == "a, b, c"
    assert some(("a", "b", "c", "d", "e")) == "a, b, c +2"


def test_numbers_have_their_words() -> None:
    assert numbers_of([]) == ""
    assert numbers_of([("bank", 31000), ("bpo", 0)]) == ": bank 31,000, bpo 0"
    assert by_number({"bpo": 2, "bank": 31000, "embassy": 0}) == ": bank 31,000, bpo 2"
