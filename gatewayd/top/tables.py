"""The tables of `gatewayd top`: columns, and rows of text with the question that stands behind each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gatewayd.api.near_misses import NearMissLineView
from gatewayd.api.status import AggregateView, CounterView, StatusView
from gatewayd.api.text import count, size, some
from gatewayd.api.views import FlowView, UnregisteredFlowView
from gatewayd.top.flows import FlowLine, RegistrationLine

Table = Literal["flows", "registrations", "near misses", "unregistered"]
Question = Literal["flow", "registration", "near miss", "none"]

MAX_ROWS: Final = 200
COLUMNS: Final[dict[Table, tuple[tuple[str, int], ...]]] = {
    "flows": (("rate", 11), ("source", 21), ("destination", 15), ("service", 9), ("registration", 14)),
    "registrations": (("rate", 11), ("flows", 7), ("total", 10), ("registration", 40)),
    "near misses": (("new", 6), ("flows", 7), ("registration", 18), ("service", 9), ("why", 30)),
    "unregistered": (("seen", 20), ("source", 21), ("destination", 15), ("service", 14)),
}
"""Of each table: the columns with their widths, together 78 at most, for a terminal of 80."""


@dataclass(frozen=True, slots=True)
class Row:
    """`key` finds it again. `question` and `subject`: what Enter asks."""

    key: str
    cells: tuple[str, ...]
    question: Question = "none"
    subject: Mapping[str, str] | None = None


def per_second(rate: float | None) -> str:
    """`1.2 MiB/s`; `-`: not known yet."""
    return "-" if rate is None else f"{size(round(rate))}/s"


def flow_rows(lines: Iterable[FlowLine]) -> list[Row]:
    return [
        _flow_row(line.flow, (per_second(line.rate),), (some(line.flow.registrations, 1, none="-"),))
        for line in lines
    ]


def unregistered_rows(flows: Iterable[UnregisteredFlowView]) -> list[Row]:
    return [_flow_row(flow, (flow.seen_at or "-",), ()) for flow in flows]


def _flow_row(flow: FlowView | UnregisteredFlowView, before: tuple[str, ...], after: tuple[str, ...]) -> Row:
    source = f"[{flow.src}]" if flow.sport is not None and ":" in flow.src else flow.src
    source = source if flow.sport is None else f"{source}:{flow.sport}"
    subject = {"src": flow.src, "dst": flow.dst, "service": flow.service}
    if flow.sport is not None:
        subject["sport"] = str(flow.sport)
    cells = (*before, source, flow.dst, flow.service, *after)
    return Row(" ".join(subject.values()), cells, "flow", subject)


def aggregate_rows(aggregates: Iterable[AggregateView]) -> list[Row]:
    """In the place of flows, where the daemon keeps counts of prefixes alone."""
    return [
        Row(each.prefix, (count(each.flows, "flow"), each.prefix, "-", some(each.services, 1, none="-")))
        for each in aggregates
    ]


def registration_rows(lines: Iterable[RegistrationLine]) -> list[Row]:
    return [
        Row(
            line.id,
            (per_second(line.rate), f"{line.flows:,}", size(line.size_bytes), line.id),
            "registration",
            {"id": line.id},
        )
        for line in lines
    ]


class NearMissTable:
    """The list of registrations to call about, with the flows that came since this table began to watch."""

    def __init__(self) -> None:
        self._began: dict[str, int] = {}
        self._has_begun = False

    def rows(self, lines: Iterable[NearMissLineView]) -> list[Row]:
        """In the order of the daemon, the latest first. A line that comes later is new from its first flow on."""
        rows, began = [], {}
        for line in lines:
            key = f"{line.id} {line.reason}"
            began[key] = self._began.get(key, 0 if self._has_begun else line.flows)
            new = line.flows - began[key]
            cells = (f"+{new:,}" if new > 0 else "-", f"{line.flows:,}", line.id, line.service, line.why)
            rows.append(Row(key, cells, "near miss", {"id": line.id, "why": line.why, "mend": line.mend}))
        self._began, self._has_begun = began, True
        return rows


class ClassRates:
    """Flows and bytes a second of each class that the rules count, from one status to the next."""

    def __init__(self) -> None:
        self._before: StatusView | None = None
        self._before_s = 0.0
        self._text = ""

    def take(self, view: StatusView, now_s: float) -> str:
        """`registered 12/s 3.4 MiB/s, unregistered 0/s 0 B/s`; empty before the second reading."""
        before, seconds = self._before, now_s - self._before_s
        if before is not None and seconds < 1.0:
            return self._text
        self._before, self._before_s = view, now_s
        if before is not None:
            self._text = ", ".join(
                _class_rate(word, before, view, seconds) for word in ("registered", "unregistered")
            )
        return self._text


def _class_rate(word: str, before: StatusView, after: StatusView, seconds: float) -> str:
    """A table that was made again counts from 0."""
    nothing = CounterView(0, 0)
    then, now = (view.counters.get(f"{word}_flows", nothing) for view in (before, after))
    flows = max(now.packets - then.packets, 0) / seconds
    then, now = (view.counters.get(f"{word}_packets", nothing) for view in (before, after))
    return f"{word} {flows:,.0f}/s {per_second(max(now.bytes - then.bytes, 0) / seconds)}"
