"""Assertions for tests."""

from __future__ import annotations

from math import inf
from typing import Any

from gatewayd.model import parse_address, parse_service
from gatewayd.model.assertion import Assertion, AssertionKind


def assertion(
    name: str = "hbl",
    source: str = "203.0.113.5",
    destination: str = "198.51.100.7",
    service: str = "wireguard",
    kind: AssertionKind = "must_pass",
    **fields: Any,
) -> Assertion:
    """For ever, line 1 of a.yaml, unless `fields` say otherwise."""
    return Assertion(
        kind,
        name,
        parse_address(source),
        parse_address(destination),
        parse_service(service),
        fields.pop("comment", "the NOC has their number"),
        fields.pop("until_s", inf),
        fields.pop("line", 1),
        fields.pop("file", "a.yaml"),
    )
