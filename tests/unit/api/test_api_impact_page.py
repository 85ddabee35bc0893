"""The report of impact for people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from gatewayd.api.html import Bars, Facts, Part, Series, Table, Text
from gatewayd.api.impact_page import (
    CSV_COLUMNS,
    csv_rows,
    facts_of,
    gap_rows,
    interface_rows,
    parts_of,
    prefix_rows,
    service_columns,
    service_rows,
    share_of,
    subtitle_of,
    warnings_of,
)
from gatewayd.impact.buckets import OTHER_PREFIX
from gatewayd.impact.counting import PrefixService
from gatewayd.impact.report import Run, Sums
from tests.support.impact import ASKED, NOON, PEACE, report_of

REPORT = report_of()
RUNS = [
    Run(NOON - 9000, NOON - 3000, 0, is_new_table=True),
    Run(NOON - 2400, NOON - 1200, 5, is_new_table=False),
    Run(NOON - 600, NOON, 7, is_new_table=True),
]


def test_it_says_of_what_time_it_is_and_since_when_flows_are_counted() -> None:
    assert subtitle_of(REPORT) == (
        "2025-06-15T14:06:40Z to 2025-06-15T15:06:40Z, watched since 2025-06-14T15:06:40Z"
    )
    assert subtitle_of(report_of(Sums())).endswith(", not watched yet")


def test_in_peace_there_is_nothing_to_warn_of() -> None:
    assert list(warnings_of(REPORT)) == []


@pytest.mark.parametrize(
    ("packets", "changes", "words"),
    [
        ({"unregistered_flows": 31}, {}, ["1 flows are of a prefix", "of a service", "of an interface"]),
        (
            {"unregistered_flows": 34, "uncertain_packets": 4},
            {},
            ["4 refused packets, of new flows or repeated ones, are in no number"],
        ),
        ({}, {"prefixes": {PrefixService(OTHER_PREFIX, 6, 80): 30}}, ["30 flows are of prefixes past the bound"]),
        ({}, {"runs": [Run(NOON - 60, NOON, 0, is_new_table=True)]}, ["nothing is known from before"]),
        ({}, {"runs": RUNS[:2]}, ["not watched once, 10 min together"]),
        (
            {},
            {"runs": RUNS},
            ["not watched 2 times, 20 min together; over 1 of them the kernel's counts are lost"],
        ),
    ],
)
def test_what_makes_the_numbers_less_than_the_whole_is_said(
    packets: dict[str, int], changes: dict[str, Any], words: list[str]
) -> None:
    sums = replace(PEACE, packets={**PEACE.packets, **packets}, **changes)
    warnings = list(warnings_of(report_of(sums)))
    assert len(warnings) == len(words)
    for warning, word in zip(warnings, words, strict=True):
        assert word in warning


def test_a_file_that_fails_and_counting_that_is_off_are_said() -> None:
    off = msgspec.structs.replace(REPORT, counts=False, file="disk is full")
    assert list(warnings_of(off)) == [
        "flows are not counted: watch.unregistered is off",
        "impact.sqlite: disk is full",
    ]


def test_facts_say_what_each_policy_would_do() -> None:
    facts = dict(facts_of(REPORT))
    assert facts["unregistered flows"] == facts["reject would refuse"] == 30
    assert facts["  of them with canary: 5%"] == 20
    assert facts["limit would drop"] == "not counted: watch.shadow_limit is off"
    assert "packets refused" not in facts
    sums = replace(
        PEACE,
        packets={**PEACE.packets, "over_limit_packets": 9, "rejected_packets": 4, "limited_packets": 1},
        size_bytes={"over_limit_packets": 9000, "limited_packets": 1000},
    )
    facts = dict(facts_of(report_of(sums, replace(ASKED, shadows_limit=True))))
    assert facts["limit would drop"] == "10 of 900 packets, 10,000 bytes"
    assert (facts["packets refused"], facts["packets dropped"]) == (4, 1)


def test_rows_of_tables() -> None:
    assert service_columns(REPORT) == ("service", "flows", "share", "canary: 10%")
    assert service_rows(REPORT) == [
        ("udp/51820", 20, "66.7 %", 20), ("esp", 6, "20.0 %", 0), ("tcp/1194", 4, "13.3 %", 0),
    ]  # fmt: skip
    assert interface_rows(REPORT) == [("ppp*", 24, "80.0 %"), ("eth1", 6, "20.0 %")]
    assert prefix_rows(REPORT) == [
        ("10.0.1.0/24", 24, "udp/51820 20, tcp/1194 4"),
        ("2001:db8:c::/48", 6, "esp 6"),
    ]
    assert gap_rows(report_of(replace(PEACE, runs=RUNS))) == [
        ("2025-06-15T14:16:40Z", "2025-06-15T14:26:40Z", 5),
        ("2025-06-15T14:46:40Z", "2025-06-15T14:56:40Z", "the kernel's counts are lost"),
    ]
    assert share_of(1, 0) == "-"


def test_rows_of_csv_have_a_name_a_service_and_flows() -> None:
    rows = list(csv_rows(REPORT))
    assert {len(row) for row in rows} == {len(CSV_COLUMNS)}
    assert rows[0] == ("service", "udp/51820", "udp/51820", 20, 20)
    assert ("interface", "ppp*", "", 24, "") in rows
    assert ("prefix", "10.0.1.0/24", "", 24, "") in rows
    assert ("prefix_service", "10.0.1.0/24", "tcp/1194", 4, "") in rows


def kinds_of(parts: list[Part]) -> list[type]:
    return [type(part) for part in parts]


def test_a_page_has_facts_plots_and_tables() -> None:
    parts = list(parts_of(REPORT))
    assert kinds_of(parts) == [Facts, Series, Bars, Table, Table, Table]
    series = parts[1]
    assert isinstance(series, Series)
    assert (series.title, series.points) == (
        "Unregistered flows an hour",
        [(NOON - 3600, 10.0), (NOON, 20.0)],
    )
    table = parts[-1]
    assert isinstance(table, Table)
    assert table.note == "2 of 2 shown, the most flows first"


def test_a_page_of_a_month_is_by_the_day_and_begins_with_what_is_wrong() -> None:
    sums = Sums(packets={"unregistered_flows": 1}, runs=RUNS)
    parts = list(parts_of(report_of(sums, replace(ASKED, step_s=86_400))))
    assert kinds_of(parts) == [Text, Text, Text, Facts, Series, Bars, Table, Table, Table]
    series = parts[4]
    assert isinstance(series, Series)
    assert series.title == "Unregistered flows a day"
