"""The report as parts of a page and as rows."""

from __future__ import annotations

from gatewayd.api.html import Table, Text, render_page
from gatewayd.api.report import (
    ActivityView,
    ChangeCountsView,
    CountsView,
    EventView,
    GroupView,
    MissView,
    ProvisionalView,
    RejectedCountView,
    ReportView,
    UnseenView,
    UnwatchedView,
    UseView,
)
from gatewayd.api.report_page import COLUMNS, csv_row, parts_of, subtitle_of
from gatewayd.api.standing import RejectedView, StepView

FULL = ReportView(
    "2024-09-04T00:00:00Z", "2024-10-04T00:00:00Z", "2024-09-20", CountsView(4, 3, 1, 1, 2, 1),
    (GroupView("hbl", 3, 1, 1, 4, 2**20, "2024-10-03T00:00:00Z"), GroupView(None, 1, 0, 0, 0, 0, None)), 2,
    (UnseenView("a", "hbl", "bank", None), UnseenView("b", None, "bpo", "2024-01-01")),
    (
        ProvisionalView("a", "hbl", "bank", "2024-10-09T00:00:00Z", True),
        ProvisionalView("b", None, "bank", None, False),
    ),
    (MissView("a", "suspended", "it is suspended", "esp", "198.51.100.0/24", 3, None, None),),
    (RejectedCountView("national", 3, {"bad_json": 1, "bad_clients": 2}),),
    (
        RejectedView("national", 7, 12, "PK-1", "unknown_field", "colour", False),
        RejectedView("national", 8, 1, None, "bad_json", "", True),
    ),
    ChangeCountsView(9, 12, 1, 0, 3),
    (StepView(None, "national", 7, "", tuple("abcdefg"), ("x",), (), 3),),
    (EventView("2024-10-03T00:00:00Z", "guard.held", {"removals": 412, "reason": "<b>"}),),
    (EventView("2024-10-03T00:00:00Z", "policy.in_force", {"mode": "reject"}),),
    7, (UseView("2024-10-03", 1, 4, 2**20),), (UnwatchedView("2024-10-01T00:00:00Z", "2024-10-02T00:00:00Z"),),
    ("known since 2024-09-20 only",),
)  # fmt: skip


def tables(view: ReportView) -> dict[str, Table]:
    return {each.title: each for each in parts_of(view) if isinstance(each, Table)}


def test_every_part_has_its_rows() -> None:
    found = tables(FULL)
    assert found["Registrants"].rows[1] == ("(no registrant)", 1, 0, 0, 0, 0, "never")
    assert found["Effective and not used"].rows == [("a", "hbl", "bank", "never"), ("b", None, "bpo", "2024-01-01")]
    assert found["Effective and not used"].note == ""
    assert found["Rejected records"].rows == [("national", "bad_clients", 2), ("national", "bad_json", 1)]
    assert found["Where they stand"].rows == [
        ("national", "7", "12", "PK-1", "unknown_field", "colour"),
        ("national", "8", "1 of the delta", "-", "bad_json", "-"),
    ]
    assert found["Where they stand"].note == "2 of 3"
    assert found["Provisional"].rows == [
        ("a", "hbl", "bank", "2024-10-09T00:00:00Z", "yes"), ("b", "-", "bank", "-", "no"),
    ]  # fmt: skip
    assert found["Near misses"].rows == [("a", 3, "", "it is suspended")]
    assert found["Held"].rows == [("2024-10-03T00:00:00Z", "guard.held", "removals=412 reason=<b>")]
    (step,) = found["Changes of the registry"].rows
    assert step == ("", "national", 7, "", "a b c d e and 2 more", "x", "", 3)
    assert found["Changes of the registry"].note == "1 of 9"
    assert all(len(row) == len(table.columns) for table in found.values() for row in table.rows)


def test_what_the_reader_must_know_stands_first() -> None:
    first, second, *_ = parts_of(FULL)
    assert first == Text("known since 2024-09-20 only", warning=True)
    assert isinstance(second, Text)
    assert "no daemon watched from 2024-10-01" in second.text


def test_the_page_is_one_file_of_text() -> None:
    for view in (FULL, ReportView(None, None, None, CountsView())):
        page = render_page("x", subtitle_of(view), list(parts_of(view)), str)
        assert "<b>" not in page


def test_a_row_of_csv_has_all_columns() -> None:
    used = ActivityView("a", "hbl", "bank", "active", True, False, 3, 300, 2, "2024-10-04T01:00:00Z")
    unused = ActivityView("a", None, "bank", "active", False, True, 0, 0, 0, None)
    assert csv_row(used) == ("a", "hbl", "bank", "active", "yes", "no", 3, 300, 2, "2024-10-04T01:00:00Z")
    assert csv_row(unused) == ("a", "", "bank", "active", "no", "yes", 0, 0, 0, "")
    assert len(COLUMNS) == len(csv_row(used))
