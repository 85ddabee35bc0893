from __future__ import annotations

import pytest

from gatewayd.model import Decision, Flow, parse_address


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
