from __future__ import annotations

import msgspec

from gatewayd.api.near_misses import NearMissLineView
from gatewayd.api.status import AggregateView, CounterView, StatusView
from gatewayd.api.views import FlowView, UnregisteredFlowView
from gatewayd.top.flows import FlowLine, RegistrationLine
from gatewayd.top.tables import (
    COLUMNS,
    ClassRates,
    NearMissTable,
    aggregate_rows,
    flow_rows,
    registration_rows,
    unregistered_rows,
)
from tests.support.fake_queries import PEACE

V4 = FlowView("10.0.0.1", "192.0.2.1", "udp/51820", 4000, ("PK-1", "PK-2"), 1, 10, None, None)
V6 = FlowView("2001:db8::1", "2001:db8::2", "udp/500", 4000, (), 1, 10, None, None)
ESP = FlowView("2001:db8::1", "2001:db8::2", "esp", None, ("PK-1",), 1, 10, None, None)


def miss(id: str, flows: int) -> NearMissLineView:
    return NearMissLineView(
        id, "bank", "revoked", "it is revoked", "mend it", "esp", "192.0.2.0/24", flows, None, None
    )


def test_a_flow_has_its_ends_and_asks_about_itself() -> None:
    rows = flow_rows([FlowLine(V4, 2048.4), FlowLine(V6, None), FlowLine(ESP, 0.0)])
    assert [row.cells for row in rows] == [
        ("2.0 KiB/s", "10.0.0.1:4000", "192.0.2.1", "udp/51820", "PK-1 +1"),
        ("-", "[2001:db8::1]:4000", "2001:db8::2", "udp/500", "-"),
        ("0 B/s", "2001:db8::1", "2001:db8::2", "esp", "PK-1"),
    ]
    assert rows[0].subject == {"src": "10.0.0.1", "dst": "192.0.2.1", "service": "udp/51820", "sport": "4000"}
    assert rows[2].subject == {"src": "2001:db8::1", "dst": "2001:db8::2", "service": "esp"}
    assert len({row.key for row in rows}) == 3


def test_unregistered_flows_and_prefixes() -> None:
    (row,) = unregistered_rows([UnregisteredFlowView("10.0.0.1", "192.0.2.1", "esp", None, None)])
    assert (row.cells, row.question) == (("-", "10.0.0.1", "192.0.2.1", "esp"), "flow")
    (row,) = aggregate_rows([AggregateView("10.0.0.0/24", 1200, ("esp (9)", "gre (1)"))])
    assert (row.cells, row.question, row.subject) == (
        ("1,200 flows", "10.0.0.0/24", "-", "esp (9) +1"),
        "none",
        None,
    )


def test_a_registration_asks_for_its_flows() -> None:
    (row,) = registration_rows([RegistrationLine("PK-1", 1200, None, 4096)])
    assert row.cells == ("-", "1,200", "4.0 KiB", "PK-1")
    assert (row.question, row.subject) == ("registration", {"id": "PK-1"})


def test_near_misses_count_from_the_first_look() -> None:
    table = NearMissTable()
    assert [row.cells[:3] for row in table.rows([miss("PK-1", 7)])] == [("-", "7", "PK-1")]
    rows = table.rows([miss("PK-2", 2), miss("PK-1", 9)])
    assert [row.cells[:3] for row in rows] == [("+2", "2", "PK-2"), ("+2", "9", "PK-1")]
    rows = table.rows([miss("PK-2", 3), miss("PK-1", 9)])
    assert [row.cells[:3] for row in rows] == [("+3", "3", "PK-2"), ("+2", "9", "PK-1")]
    assert rows[0].subject == {"id": "PK-2", "why": "it is revoked", "mend": "mend it"}


def counted(flows: int, size_bytes: int) -> StatusView:
    counters = {
        "registered_flows": CounterView(flows, 0),
        "registered_packets": CounterView(1, size_bytes),
    }
    return msgspec.structs.replace(PEACE, counters=counters)


def test_rates_of_classes_are_between_two_readings() -> None:
    rates = ClassRates()
    assert rates.take(counted(10, 1000), 100.0) == ""
    assert rates.take(counted(14, 5096), 100.5) == ""
    second = rates.take(counted(30, 9192), 104.0)
    assert second == "registered 5/s 2.0 KiB/s, unregistered 0/s 0 B/s"
    assert rates.take(counted(40, 9192), 104.9) == second
    assert rates.take(counted(1, 0), 106.0) == "registered 0/s 0 B/s, unregistered 0/s 0 B/s"


def test_every_row_has_a_cell_for_each_column() -> None:
    rows = {
        "flows": flow_rows([FlowLine(V4, None)]),
        "registrations": registration_rows([RegistrationLine("PK-1", 1, None, 0)]),
        "near misses": NearMissTable().rows([miss("PK-1", 1)]),
        "unregistered": unregistered_rows([UnregisteredFlowView("10.0.0.1", "192.0.2.1", "esp", None, None)]),
    }
    assert {name: len(each[0].cells) for name, each in rows.items()} == {
        name: len(columns) for name, columns in COLUMNS.items()
    }
