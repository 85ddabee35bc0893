"""An assertion: the flows that it is about, and what makes two the same."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from gatewayd.model import Flow, parse_address, parse_service
from gatewayd.model.assertion import Assertion

ONE = Assertion(
    "must_pass",
    "hbl-swift",
    parse_address("203.0.113.5"),
    parse_address("198.51.100.7"),
    parse_service("ipsec"),
    "ticket 4712",
    inf,
    3,
    "a.yaml",
)


def test_it_is_about_a_flow_for_each_service() -> None:
    ends = ONE.source, ONE.destination
    assert ONE.flows == (Flow(17, *ends, 0, 500), Flow(17, *ends, 0, 4500), Flow(50, *ends), Flow(51, *ends))


def test_its_place_and_comment_are_not_its_subject() -> None:
    assert ONE.place == "a.yaml:3"
    assert replace(ONE, line=9, file="b.yaml", comment="other").subject == ONE.subject
    assert replace(ONE, kind="must_not_pass").subject != ONE.subject
