from __future__ import annotations

import pytest

from gatewayd.model import Decision, Flow, parse_address, reverse_flow
from gatewayd.model.flow import AF_INET, AF_INET6, ConnectionEvent, ConnectionKey


def test_flows_are_equal_and_hash_by_their_tuple() -> None:
    source, destination = parse_address("203.0.113.9"), parse_address("198.51.100.7")
    one, same = (Flow(17, source, destination, 40000, 500) for _ in range(2))
    assert one == same
    assert len({one, same, Flow(17, destination, source, 500, 40000)}) == 2


def test_protocols_without_ports_have_the_port_0() -> None:
    flow = Flow(50, bytes(4), bytes(4))
    assert (flow.source_port, flow.destination_port) == (0, 0)


def test_a_flow_and_a_decision_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Flow(50, bytes(4), bytes(4)).protocol = 51  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Decision("registered", (), "").reason = "else"  # type: ignore[misc]


def test_the_other_end_starts_the_reversed_flow() -> None:
    flow = Flow(17, b"\1\1\1\1", b"\2\2\2\2", 40000, 500)
    assert reverse_flow(flow) == Flow(17, b"\2\2\2\2", b"\1\1\1\1", 500, 40000)
    assert reverse_flow(reverse_flow(flow)) == flow


@pytest.mark.parametrize(("width", "family"), [(4, AF_INET), (16, AF_INET6)])
def test_a_connection_is_found_by_its_tuple_its_family_and_its_zone(width: int, family: int) -> None:
    flow = Flow(17, bytes(width), bytes(width))
    event = ConnectionEvent("new", flow, 0, 0, 0, 0, 0, 0, tuple_bytes=b"tuple", zone=7)
    assert event.key == ConnectionKey(b"tuple", family, 7)


def test_the_same_tuple_in_two_zones_is_two_connections() -> None:
    flow = Flow(17, bytes(4), bytes(4))
    events = [ConnectionEvent("new", flow, 0, 0, 0, 0, 0, 0, tuple_bytes=b"tuple", zone=each) for each in (0, 7)]
    assert [each.identity for each in events] == [b"tuple", b"tuple\0\7"]
