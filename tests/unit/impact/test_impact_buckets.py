"""Hours and days, and the bounds of what is kept of each."""

from __future__ import annotations

import pytest

from gatewayd.impact.buckets import (
    DAY_S,
    DAYS,
    HOURS,
    MAX_HOURLY_S,
    OTHER_INTERFACE,
    OTHER_PREFIX,
    bound_interfaces,
    bound_prefixes,
    bound_services,
    group_interface,
    group_interfaces,
    resolution_for,
)
from gatewayd.impact.counting import PrefixService, ServiceBucket

NOON = 1_750_000_000.0
"""2025-06-15T15:06:40Z."""


def prefix(number: int, port: int = 443) -> PrefixService:
    return PrefixService(bytes((10, 0, number)), 6, port)


def test_hours_and_days_begin_in_utc() -> None:
    assert HOURS.start_of(NOON) == 1_749_999_600
    assert DAYS.start_of(NOON) == 1_749_945_600
    assert HOURS.first_kept(NOON) == HOURS.start_of(NOON) - 9 * DAY_S
    assert DAYS.first_kept(NOON) == DAYS.start_of(NOON) - 400 * DAY_S


def test_a_week_is_answered_by_the_hour_and_a_month_by_the_day() -> None:
    assert resolution_for(7 * DAY_S) is HOURS
    assert resolution_for(30 * DAY_S) is DAYS
    assert HOURS.kept_s >= MAX_HOURLY_S + HOURS.step_s


def test_beyond_the_bound_a_prefix_counts_for_its_service_and_the_most_flows_come_first() -> None:
    came = {prefix(1): 5, prefix(2): 9, prefix(3): 1, prefix(4, 80): 2, prefix(9): 1}
    bounded = bound_prefixes(came, [prefix(9)], 3)
    assert bounded == {
        prefix(2): 9,
        prefix(1): 5,
        prefix(9): 1,
        PrefixService(OTHER_PREFIX, 6, 443): 1,
        PrefixService(OTHER_PREFIX, 6, 80): 2,
    }
    assert sum(bounded.values()) == sum(came.values())


def test_beyond_the_bound_a_service_counts_for_its_bucket() -> None:
    came = {ServiceBucket(17, 53, 3): 5, ServiceBucket(17, 53, 4): 1, ServiceBucket(6, 80, 3): 2}
    assert bound_services(came, [], 1) == {
        ServiceBucket(17, 53, 3): 5,
        ServiceBucket(17, 53, 4): 1,
        ServiceBucket(0, 0, 3): 2,
    }
    assert bound_services(came, [(6, 80), (17, 53)], 0) == came


def test_beyond_the_bound_an_interface_is_another() -> None:
    assert bound_interfaces({"eth1": 4, "eth2": 3, "eth3": 2}, ["eth3"], 2) == {
        "eth1": 4,
        "eth3": 2,
        OTHER_INTERFACE: 3,
    }


@pytest.mark.parametrize(
    ("name", "inside", "group"),
    [
        ("eth1", ("eth1", "ppp*"), "eth1"),
        ("ppp17", ("eth1", "ppp*"), "ppp*"),
        ("ppp17", ("p*", "ppp*"), "ppp*"),
        ("ppp17", (), "ppp*"),
        ("eth1.100", (), "eth1.*"),
        ("lan", (), "lan"),
    ],
)
def test_an_interface_counts_for_its_pattern_and_never_as_a_customers_line(
    name: str, inside: tuple[str, ...], group: str
) -> None:
    assert group_interface(name, inside) == group


def test_interfaces_of_one_pattern_are_one() -> None:
    assert group_interfaces({"ppp1": 1, "ppp2": 2, "eth1": 4}, ("ppp*",)) == {"ppp*": 3, "eth*": 4}
