"""The live registered flows, gathered from pages of the API, and what each carries a second.

One round goes through all pages. Flows come and go between two pages, so a round can miss a flow that lives. One
that two rounds did not have is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nlargest
from typing import Final, Literal

from gatewayd.api.views import FlowPage, FlowView
from gatewayd.model.moment import parse_time

MAX_FLOWS: Final = 20_000
PAGE: Final = 1000
STILL_S: Final = 90.0
"""A flow whose counters stand for so long, three scans of the daemon, carries nothing."""

Order = Literal["rate", "bytes"]
FlowKey = tuple[str, int | None, str, str]


def key_of(flow: FlowView) -> FlowKey:
    return flow.src, flow.sport, flow.dst, flow.service


@dataclass(slots=True)
class _Known:
    flow: FlowView
    rate: float | None
    changed_s: float
    round: int


@dataclass(frozen=True, slots=True)
class FlowLine:
    """`rate`: bytes a second; None: not known yet."""

    flow: FlowView
    rate: float | None


@dataclass(frozen=True, slots=True)
class RegistrationLine:
    """The live flows of a registration. A flow of two registrations counts for both."""

    id: str
    flows: int
    rate: float | None
    size_bytes: int


class FlowTable:
    """`total`: flows that the daemon has; those beyond `most` are not gathered. `is_whole`: a round is complete."""

    def __init__(self, most: int = MAX_FLOWS) -> None:
        self._most = most
        self._known: dict[FlowKey, _Known] = {}
        self._offset = self._round = 0
        self.total = 0
        self.is_whole = False

    def __len__(self) -> int:
        return len(self._known)

    def next_page(self) -> tuple[int, int]:
        """Offset and limit of what to ask for."""
        return self._offset, min(PAGE, self._most - self._offset)

    def take(self, page: FlowPage, now_s: float) -> None:
        """The answer. `now_s`: of a clock that only goes forward."""
        self.total = page.total
        for flow in page.items:
            self._put(flow, now_s)
        self._offset += len(page.items)
        if not page.items or self._offset >= min(page.total, self._most):
            self._end_round()

    def _put(self, flow: FlowView, now_s: float) -> None:
        key = key_of(flow)
        known = self._known.get(key)
        if known is None:
            if len(self._known) < self._most:
                self._known[key] = _Known(flow, None, now_s, self._round)
            return
        if flow.first_seen_at != known.flow.first_seen_at or flow.bytes < known.flow.bytes:
            known.rate, known.changed_s = None, now_s  # another flow of the same ends, or counters set to zero
        elif flow.bytes > known.flow.bytes:
            known.rate, known.changed_s = _rate(known.flow, flow), now_s
        elif now_s - known.changed_s > STILL_S:
            known.rate = 0.0
        known.flow, known.round = flow, self._round

    def _end_round(self) -> None:
        self._known = {key: known for key, known in self._known.items() if known.round >= self._round - 1}
        self._round += 1
        self._offset = 0
        self.is_whole = True

    def flows(self, order: Order, most: int, registration: str | None = None) -> list[FlowLine]:
        """The first of `order`, of one registration or of all; where they are equal, the one that began first."""
        chosen = (
            FlowLine(each.flow, each.rate)
            for each in self._known.values()
            if registration is None or registration in each.flow.registrations
        )
        return nlargest(most, chosen, key=lambda line: _place(order, line.rate, line.flow.bytes))

    def registrations(self, order: Order, most: int) -> list[RegistrationLine]:
        return nlargest(most, self._sums(), key=lambda line: _place(order, line.rate, line.size_bytes))

    def _sums(self) -> Iterable[RegistrationLine]:
        flows: dict[str, int] = {}
        rates: dict[str, float] = {}
        sizes: dict[str, int] = {}
        for each in self._known.values():
            for id in each.flow.registrations:
                flows[id] = flows.get(id, 0) + 1
                sizes[id] = sizes.get(id, 0) + each.flow.bytes
                if each.rate is not None:
                    rates[id] = rates.get(id, 0.0) + each.rate
        return (RegistrationLine(id, number, rates.get(id), sizes[id]) for id, number in flows.items())


def _place(order: Order, rate: float | None, size_bytes: int) -> tuple[float, int]:
    """Flows without a rate come after all that have one, and the one with the most bytes first."""
    return (-1.0 if rate is None or order == "bytes" else rate), size_bytes


def _rate(before: FlowView, after: FlowView) -> float | None:
    """By the times of the two scans, which the daemon gives in whole seconds."""
    if before.last_seen_at is None or after.last_seen_at is None:
        return None
    seconds = parse_time(after.last_seen_at) - parse_time(before.last_seen_at)
    return (after.bytes - before.bytes) / max(seconds, 1.0)
