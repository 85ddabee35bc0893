from __future__ import annotations

import pytest

from gatewayd.api.views import FlowPage, FlowView
from gatewayd.top.flows import PAGE, STILL_S, FlowTable, Order


def flow(
    number: int, size_bytes: int, at: int | None = 0, ids: tuple[str, ...] = ("PK-1",), first: int = 0
) -> FlowView:
    """`at`: the second of the scan."""
    first_seen = f"2024-11-04T02:00:{first:02}Z"
    last_seen = None if at is None else f"2024-11-04T03:00:{at:02}Z"
    return FlowView("10.0.0.1", "192.0.2.1", "udp/51820", number, ids, 1, size_bytes, first_seen, last_seen)


def take(table: FlowTable, *flows: FlowView, now_s: float = 0.0) -> None:
    """A round of one page."""
    assert table.next_page()[0] == 0
    table.take(FlowPage(len(flows), 0, flows), now_s)


def rates(
    table: FlowTable, order: Order = "rate", registration: str | None = None
) -> list[tuple[int | None, float | None]]:
    return [(line.flow.sport, line.rate) for line in table.flows(order, 100, registration)]


def test_a_rate_is_between_two_scans() -> None:
    table = FlowTable()
    take(table, flow(1, 1000), flow(2, 9000))
    assert rates(table) == [(2, None), (1, None)]
    take(table, flow(1, 1600, 30), flow(2, 9000, 0))
    assert rates(table) == [(1, 20.0), (2, None)]
    take(table, flow(1, 1600, 30), flow(2, 9000, 0))
    assert rates(table) == [(1, 20.0), (2, None)]
    assert rates(table, "bytes") == [(2, None), (1, 20.0)]


def test_two_scans_in_one_second_are_a_second() -> None:
    table = FlowTable()
    take(table, flow(1, 1000))
    take(table, flow(1, 1500))
    assert rates(table) == [(1, 500.0)]


def test_without_a_time_there_is_no_rate() -> None:
    table = FlowTable()
    take(table, flow(1, 1000, None))
    take(table, flow(1, 1500, None))
    assert rates(table) == [(1, None)]
    take(table, flow(1, 1600, 1))
    assert rates(table) == [(1, None)]


@pytest.mark.parametrize(
    "later", [flow(1, 10, 30), flow(1, 5000, 30, first=9)], ids=["set to zero", "another flow"]
)
def test_what_cannot_be_compared_has_no_rate(later: FlowView) -> None:
    table = FlowTable()
    take(table, flow(1, 1000))
    take(table, flow(1, 2000, 10))
    assert rates(table) == [(1, 100.0)]
    take(table, later)
    assert rates(table) == [(1, None)]


def test_a_flow_that_stands_for_three_scans_carries_nothing() -> None:
    table = FlowTable()
    take(table, flow(1, 1000), now_s=100.0)
    take(table, flow(1, 2000, 10), now_s=110.0)
    take(table, flow(1, 2000, 10), now_s=110.0 + STILL_S)
    assert rates(table) == [(1, 100.0)]
    take(table, flow(1, 2000, 10), now_s=111.0 + STILL_S)
    assert rates(table) == [(1, 0.0)]


def test_a_flow_is_gone_when_two_rounds_did_not_have_it() -> None:
    table = FlowTable()
    take(table, flow(1, 1000), flow(2, 1000))
    take(table, flow(1, 1000))
    assert len(table) == 2
    take(table, flow(1, 1000))
    assert rates(table) == [(1, None)]
    take(table)
    take(table)
    assert len(table) == 0


def test_a_round_goes_through_all_pages_and_is_bounded() -> None:
    table = FlowTable(most=PAGE + 10)
    assert table.next_page() == (0, PAGE)
    table.take(FlowPage(5000, 0, tuple(flow(number, 1) for number in range(PAGE))), 0.0)
    assert not table.is_whole
    assert table.next_page() == (PAGE, 10)
    table.take(FlowPage(5000, PAGE, tuple(flow(number, 1) for number in range(PAGE, PAGE + 10))), 0.0)
    assert table.is_whole
    assert table.next_page() == (0, PAGE)
    assert (len(table), table.total) == (PAGE + 10, 5000)
    table.take(FlowPage(5000, 0, (flow(65_000, 1),)), 0.0)
    assert len(table) == PAGE + 10


def test_a_list_that_became_shorter_between_two_pages_ends_the_round() -> None:
    table = FlowTable()
    table.take(FlowPage(3000, 0, tuple(flow(number, 1) for number in range(PAGE))), 0.0)
    table.take(FlowPage(900, PAGE, ()), 0.0)
    assert table.next_page() == (0, PAGE)


def test_registrations_are_sums_and_a_flow_of_two_counts_for_both() -> None:
    table = FlowTable()
    take(table, flow(1, 1000), flow(2, 100, ids=("PK-1", "PK-2")), flow(3, 9000, ids=("PK-3",)), flow(4, 1, ids=()))
    take(
        table,
        flow(1, 2000, 10),
        flow(2, 200, 10, ("PK-1", "PK-2")),
        flow(3, 9000, ids=("PK-3",)),
        flow(4, 1, ids=()),
    )
    lines = table.registrations("rate", 10)
    assert [(line.id, line.flows, line.rate, line.size_bytes) for line in lines] == [
        ("PK-1", 2, 110.0, 2200),
        ("PK-2", 1, 10.0, 200),
        ("PK-3", 1, None, 9000),
    ]
    assert [line.id for line in table.registrations("bytes", 2)] == ["PK-3", "PK-1"]
    assert [sport for sport, _ in rates(table, registration="PK-2")] == [2]
