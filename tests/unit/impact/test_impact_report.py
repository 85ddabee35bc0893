"""Sums over a time, and the report of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.compile.effects import canary_bucket
from gatewayd.impact.buckets import OTHER_PREFIX
from gatewayd.impact.counting import PrefixService, ServiceBucket
from gatewayd.impact.report import (
    SERVICES_OF_A_PREFIX,
    CanaryLine,
    DoneLine,
    GapLine,
    ImpactReport,
    LimitLine,
    LostLine,
    PrefixLine,
    Question,
    Run,
    ServiceLine,
    StepLine,
    Sums,
    flows_of,
    make_report,
    prefix_of,
    service_name,
)
from gatewayd.state_file.view import StateFileView

ASKED = Question(3600.0, 7200.0, 3600, top=2, percent=10, counts=True, shadows_limit=False)
ONE, TWO = bytes((10, 0, 1)), bytes((10, 0, 2))
SIX = bytes.fromhex("20010db8000c")


def report(sums: Sums, asked: Question = ASKED, kept: StateFileView | None = None) -> ImpactReport:
    return make_report(sums, asked, kept or StateFileView("impact", "ok"))


def test_nothing_yet() -> None:
    found = report(Sums())
    assert (found.flows, found.watched_since, found.file) == (0, None, "ok")
    assert (found.since, found.until) == ("1970-01-01T01:00:00Z", "1970-01-01T02:00:00Z")
    assert found.lost == LostLine(0, 0, 0, 0)
    assert found.canaries == tuple(CanaryLine(percent, 0) for percent in (1, 5, 10, 25, 50, 100))
    assert found.prefixes == found.services == found.interfaces == found.gaps == ()


def test_a_flow_that_is_judged_again_or_repeated_is_no_new_one() -> None:
    assert flows_of({"unregistered_flows": 100, "reclassified_flows": 7, "repeated_packets": 20}) == 73
    assert flows_of({"unregistered_flows": 100, "uncertain_packets": 101}) == 0


def test_a_canary_of_n_percent_has_the_first_n_buckets() -> None:
    services = {ServiceBucket(17, 51820, bucket): bucket + 1 for bucket in range(100)}
    found = report(Sums(services=services), replace(ASKED, percent=3))
    assert found.buckets == tuple(range(1, 101))
    assert {line.percent: line.flows for line in found.canaries} == {
        1: 1, 3: 6, 5: 15, 10: 55, 25: 325, 50: 1275, 100: 5050,
    }  # fmt: skip
    assert found.services == (ServiceLine("udp/51820", 5050, 6),)


def test_the_bucket_is_the_canarys_own() -> None:
    """Those whose bucket is below N are in a canary of N %, as the rules have it (`>= N accept`)."""
    address = bytes((10, 0, 1, 77))
    bucket = canary_bucket(address)
    services = {ServiceBucket(17, 51820, bucket): 1}
    assert report(Sums(services=services), replace(ASKED, percent=bucket + 1)).services[0].canary == 1
    assert report(Sums(services=services), replace(ASKED, percent=bucket)).services[0].canary == 0


def test_services_and_prefixes_with_the_most_flows_come_first() -> None:
    prefixes = {
        PrefixService(ONE, 17, 51820): 5,
        PrefixService(ONE, 6, 1194): 6,
        PrefixService(SIX, 50, 0): 20,
        PrefixService(TWO, 47, 0): 1,
        PrefixService(OTHER_PREFIX, 17, 500): 4,
    }
    services = {ServiceBucket(50, 0, 1): 20, ServiceBucket(0, 0, 2): 30, ServiceBucket(6, 1194, 9): 20}
    found = report(Sums(prefixes=prefixes, services=services, interfaces={"ppp*": 3, "eth1": 4}))
    assert found.prefixes == (
        PrefixLine("2001:db8:c::/48", 20, (("esp", 20),)),
        PrefixLine("10.0.1.0/24", 11, (("tcp/1194", 6), ("udp/51820", 5))),
    )
    assert (found.prefix_count, found.other_flows) == (3, 4)
    assert [line.service for line in found.services] == ["other", "esp", "tcp/1194"]
    assert [(line.interface, line.flows) for line in found.interfaces] == [("eth1", 4), ("ppp*", 3)]


def test_of_a_prefix_a_few_services_are_named() -> None:
    prefixes = {PrefixService(ONE, 17, port): port for port in range(1, 20)}
    (line,) = report(Sums(prefixes=prefixes)).prefixes
    assert line.flows == 190
    assert line.services[0] == ("udp/19", 19)
    assert len(line.services) == SERVICES_OF_A_PREFIX


def test_what_is_in_the_total_and_not_in_a_part_is_lost() -> None:
    sums = Sums(
        packets={"unregistered_flows": 110, "uncertain_packets": 10},
        prefixes={PrefixService(ONE, 17, 53): 90},
        services={ServiceBucket(17, 53, 1): 101},
        interfaces={"eth1": 95},
    )
    assert report(sums).lost == LostLine(prefixes=10, services=0, interfaces=5, uncertain_packets=10)
    assert report(replace(sums, interfaces={})).lost.interfaces == 0


def test_what_the_rules_did_and_what_limit_would_have_done() -> None:
    sums = Sums(
        packets={
            "unregistered_packets": 1000, "over_limit_packets": 40, "limited_packets": 2, "rejected_packets": 9,
        },
        size_bytes={"over_limit_packets": 4000, "limited_packets": 200},
    )  # fmt: skip
    found = report(sums, replace(ASKED, shadows_limit=True))
    assert found.limit == LimitLine(is_counted=True, packets=42, size_bytes=4200, of_packets=1000)
    assert found.done == DoneLine(rejected_packets=9, limited_packets=2)


def test_since_when_it_has_watched_and_when_it_did_not() -> None:
    runs = [
        Run(0.0, 1000.0, 0, is_new_table=True),
        Run(2000.0, 3000.0, 5, is_new_table=False),
        Run(4000.0, 5000.0, 7, is_new_table=False),
        Run(6000.0, 6500.0, 8, is_new_table=True),
    ]
    found = report(Sums(runs=runs, steps=[(3600, 12)]))
    assert found.watched_since == "1970-01-01T00:00:00Z"
    assert found.gaps == (
        GapLine("1970-01-01T00:50:00Z", "1970-01-01T01:06:40Z", 7),
        GapLine("1970-01-01T01:23:20Z", "1970-01-01T01:40:00Z", None),
    )
    assert found.steps == (StepLine("1970-01-01T01:00:00Z", 12),)


def test_a_file_that_fails_is_said() -> None:
    assert report(Sums(), kept=StateFileView("impact", "failing", "disk is full")).file == "disk is full"


@pytest.mark.parametrize(
    ("protocol", "port", "name"),
    [(17, 51820, "udp/51820"), (50, 0, "esp"), (6, 0, "tcp/0"), (99, 0, "99"), (0, 0, "other")],
)
def test_a_service_has_a_name(protocol: int, port: int, name: str) -> None:
    assert service_name(protocol, port) == name


def test_a_prefix_is_a_24_or_a_48() -> None:
    assert str(prefix_of(ONE)) == "10.0.1.0/24"
    assert str(prefix_of(SIX)) == "2001:db8:c::/48"
