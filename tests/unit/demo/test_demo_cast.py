from __future__ import annotations

from gatewayd.demo.cast import BRANCH, CAST, ELSEWHERE, FAR, LATECOMER, lines, registered_flows
from gatewayd.feed.record import registration_of
from gatewayd.lab.traffic import flow_of
from gatewayd.model.service import TCP
from gatewayd.settings.model import ShrinkGuardSettings


def test_every_registration_of_the_cast_is_valid() -> None:
    registrations = [registration_of(each) for each in (*CAST, LATECOMER)]
    assert len({each.id for each in registrations}) == len(registrations)


def test_a_stream_of_registered_flows_needs_no_handshake_and_no_other_end() -> None:
    flows = registered_flows(40001)
    assert flows
    assert TCP not in {each.protocol for each in flows}
    registered = {line.flow for line in lines(40001) if line.expected == "registered" and line.start == "customers"}
    assert set(flows) <= registered


def test_another_source_port_makes_other_flows() -> None:
    assert flow_of("39.32.0.5", FAR, "udp/500", 1) != flow_of("39.32.0.5", FAR, "udp/500", 2)
    assert flow_of("39.32.0.5", ELSEWHERE, "esp", 1) == flow_of("39.32.0.5", ELSEWHERE, "esp", 2)


def test_the_branch_that_closes_is_protected_by_the_guard_as_it_comes() -> None:
    assert BRANCH["category"] in {each.category for each in ShrinkGuardSettings().protected}
