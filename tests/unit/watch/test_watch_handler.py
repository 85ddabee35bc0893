"""Events get so much of a turn of the loop and no more, whatever one of them costs."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gatewayd.model import Flow, Registration, parse_address
from gatewayd.model.flow import ConnectionEvent
from gatewayd.reconcile import Reconciler
from gatewayd.reconcile.connections import ConnectionScanner
from gatewayd.reconcile.scan_requests import ScanRequests
from gatewayd.watch.aggregate import UnregisteredAggregate
from gatewayd.watch.attribute import Attribution
from gatewayd.watch.handler import TURN_S, FlowClassifier, WatchHandler

FLOWS = [Flow(17, parse_address(f"10.0.0.{number}"), parse_address("192.0.2.1"), 4000, 500) for number in range(9)]


class Scene:
    """A classifier that takes its time, and nothing else that is asked."""

    def __init__(self, each_s: float) -> None:
        self.now = 0.0
        self.each_s = each_s
        self.seen: list[Flow] = []
        self.near: list[tuple[Flow, float]] = []
        self.aggregate = UnregisteredAggregate()
        self.attribution = Attribution()
        self.handler = WatchHandler(
            cast(FlowClassifier, self),
            cast(Reconciler, self),
            cast(ConnectionScanner, self),
            ScanRequests(0.0),
            self.attribution,
            self.aggregate,
            self.near_miss,
            moment=lambda: 100.0,
            clock=lambda: 200.0,
            monotonic=lambda: self.now,
        )

    def programmed(self, flow: Flow, now: float) -> tuple[Registration, ...]:
        self.now += self.each_s
        self.seen.append(flow)
        return ()

    matching = programmed

    def near_miss(self, flow: Flow, moment: float) -> bool:
        self.near.append((flow, moment))
        return True

    def is_to_provider(self, flow: Flow) -> bool:
        return False

    def providers(self, flow: Flow, now: float) -> tuple[Registration, ...]:
        return ()

    def note_ended_early(self, event: Any) -> None:
        """What the scanner is told of a flow that no registration explains."""


def events() -> list[ConnectionEvent]:
    return [
        ConnectionEvent("new", flow, 1, number, 0, 0, 0, 0, bytes([number]), 0) for number, flow in enumerate(FLOWS)
    ]


@pytest.mark.parametrize(("each_s", "taken"), [(0.0, 9), (TURN_S / 3.5, 4), (TURN_S * 1.5, 1), (10.0, 1)])
def test_packets_are_taken_for_the_time_of_a_turn_and_one_at_least(each_s: float, taken: int) -> None:
    scene = Scene(each_s)
    assert scene.handler.on_packets(FLOWS) == taken
    assert scene.seen == FLOWS[:taken]
    assert sum(line.flows for line in scene.aggregate.top(9)) == taken


@pytest.mark.parametrize(("each_s", "taken"), [(0.0, 9), (TURN_S / 3.5, 4), (TURN_S * 1.5, 1), (10.0, 1)])
def test_connections_are_taken_for_the_time_of_a_turn_and_one_at_least(each_s: float, taken: int) -> None:
    scene = Scene(each_s)
    assert scene.handler.on_connections(events()) == taken
    assert scene.seen == FLOWS[:taken]
    assert scene.attribution.unmatched == taken
