"""How long flows that came marked registered are left alone."""

from __future__ import annotations

import pytest

from gatewayd.model import Flow, parse_address, parse_prefix
from gatewayd.reconcile.scan_requests import Grace

MAX_S = 900.0


def flow(source: str, destination: str = "198.51.100.7") -> Flow:
    return Flow(17, parse_address(source), parse_address(destination), 40000, 51820)


def scan(grace: Grace, now: float, *flows: Flow) -> list[bool]:
    grace.begin()
    held = [grace.holds(repr(each).encode(), each, now) for each in flows]
    grace.finish()
    return held


def test_without_a_time_nothing_is_held() -> None:
    assert scan(Grace(), 0.0, flow("39.42.0.1")) == [False]


def test_a_flow_is_held_for_the_longest_time_from_when_it_was_met() -> None:
    grace = Grace(MAX_S)
    one, other = flow("39.42.0.1"), flow("39.42.0.2")
    assert scan(grace, 0.0, one) == [True]
    assert scan(grace, 600.0, one, other) == [True, True]
    assert grace.waiting == 2
    assert scan(grace, 900.0, one, other) == [False, True]
    assert scan(grace, 1500.0, one, other) == [False, False]
    assert grace.waiting == 0


def test_a_flow_that_was_gone_in_between_begins_anew() -> None:
    grace = Grace(MAX_S)
    assert scan(grace, 0.0, flow("39.42.0.1")) == [True]
    assert scan(grace, 800.0) == []
    assert scan(grace, 1000.0, flow("39.42.0.1")) == [True]


@pytest.mark.parametrize(
    ("named", "source", "is_held"),
    [
        ("39.42.0.1/32", "39.42.0.1", False),
        ("39.42.0.2/32", "39.42.0.1", True),
        ("39.42.0.0/29", "39.42.0.1", False),
        ("39.42.0.8/29", "39.42.0.1", True),
        ("39.40.0.0/13", "39.42.0.1", False),
        ("2400:adc0:1:2::/64", "2400:adc0:1:2::9", False),
        ("2400:adc0:1:3::/64", "2400:adc0:1:2::9", True),
        ("2400:adc0:1::/56", "2400:adc0:1:2::9", False),
        ("2400:adc0::/40", "2400:adc0:1:2::9", False),
        ("2400:adc1::/40", "2400:adc0:1:2::9", True),
        ("2400:adc0:1:2::9/128", "2400:adc0:1:2::9", False),
    ],
)
@pytest.mark.parametrize("is_opener", [True, False])
def test_accounting_that_names_an_end_ends_it(named: str, source: str, is_held: bool, is_opener: bool) -> None:
    grace = Grace(MAX_S)
    far = "2001:db8::7" if ":" in source else "198.51.100.7"
    waiting = flow(source, far) if is_opener else flow(far, source)
    assert scan(grace, 0.0, waiting) == [True]
    grace.hear([parse_prefix(named)])
    assert scan(grace, 1.0, waiting) == [is_held]


def test_what_was_named_before_a_flow_was_met_does_not_count() -> None:
    """A few bytes for each address of a million sessions would be many; the next Interim names it again."""
    grace = Grace(MAX_S)
    grace.hear([parse_prefix("39.42.0.1/32")])
    assert scan(grace, 0.0, flow("39.42.0.1")) == [True]


def test_beyond_the_bound_flows_are_left_alone_and_take_their_turn() -> None:
    grace = Grace(MAX_S, capacity=1)
    one, other = flow("39.42.0.1"), flow("39.42.0.2")
    assert scan(grace, 0.0, one, other) == [True, True]
    assert scan(grace, MAX_S, one, other) == [False, True]
    assert grace.waiting == 1
    assert scan(grace, MAX_S, other) == [True]
    assert scan(grace, 2 * MAX_S, other) == [True]
    assert scan(grace, 3 * MAX_S, other) == [False]


def test_what_was_heard_is_forgotten_with_the_last_flow_that_waits() -> None:
    grace = Grace(MAX_S)
    scan(grace, 0.0, flow("39.42.0.1"))
    grace.hear([parse_prefix("39.42.0.1/32")])
    scan(grace, 1.0)
    assert scan(grace, 2.0, flow("39.42.0.1")) == [True]
