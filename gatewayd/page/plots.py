"""Plots of the last hour and day as SVG, for a browser without scripts; a script draws the same live. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gatewayd.api.history import HistoryView
from gatewayd.model.moment import format_time
from gatewayd.page.markup import Markup, element

WIDTH, HEIGHT = 480, 120
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 20
_HOUR: Final = 3600


@dataclass(frozen=True, slots=True)
class Plot:
    """`series`: fields of HistoryView, in the order of drawing."""

    title: str
    series: tuple[str, ...]


PLOTS: Final = (
    Plot("Flows judged, a minute", ("registered", "unregistered")),
    Plot("Accounting requests, a minute", ("accounting",)),
    Plot("Late admissions, a minute", ("late_admissions",)),
    Plot("Repairs of the table, a minute", ("repairs",)),
)
SPANS: Final = (("last hour", _HOUR, 1), ("last day", 24 * _HOUR, 5))
"""Name, seconds, and how many minutes a point stands for: of them, the highest."""

Points = list[tuple[int, int]]


def plots_of(history: HistoryView, now_s: float) -> Iterator[Markup]:
    """A figure for each plot and span."""
    for plot in PLOTS:
        for name, span_s, minutes in SPANS:
            yield _figure(plot, name, span_s, minutes, history, int(now_s))


def segments_of(
    at: Sequence[int], numbers: Sequence[int | None], since_s: int, minutes: int, step_s: int
) -> list[Points]:
    """Unbroken lines: a minute that is missing or not known ends one. A point is the highest of `minutes`."""
    highest: dict[int, int] = {}
    width = minutes * step_s
    for at_s, number in zip(at, numbers, strict=True):
        if at_s >= since_s and number is not None:
            slot = at_s - at_s % width
            highest[slot] = max(number, highest.get(slot, 0))
    segments: list[Points] = []
    for slot, number in sorted(highest.items()):
        if not segments or slot - segments[-1][-1][0] > width:
            segments.append([])
        segments[-1].append((slot, number))
    return segments


def _figure(plot: Plot, name: str, span_s: int, minutes: int, history: HistoryView, now_s: int) -> Markup:
    since_s = now_s - span_s
    found = {
        word: segments_of(history.at, getattr(history, word), since_s, minutes, history.step_s)
        for word in plot.series
    }
    most = max((number for lines in found.values() for line in lines for _, number in line), default=0)
    top = _round_up(most)
    legend = [
        element("span", word.replace("_", " "), class_=f"key {word}")
        for word in plot.series
        if len(plot.series) > 1
    ]
    caption = element("figcaption", element("span", plot.title), element("span", name, class_="span"), legend)
    words = "; ".join(f"{word.replace('_', ' ')}: {_say(lines)}" for word, lines in found.items())
    return element(
        "figure",
        caption,
        element(
            "svg",
            _axes(top, since_s, now_s),
            [_line(word, line, since_s, span_s, top) for word, lines in found.items() for line in lines],
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=f"{plot.title}, {name}. {words}",
        ),
        class_="plot",
        data_series=" ".join(plot.series),
        data_span=span_s,
    )


def _say(lines: list[Points]) -> str:
    if not lines:
        return "no sample yet"
    return f"{lines[-1][-1][1]:,} at the end, {max(number for line in lines for _, number in line):,} at most"


def _round_up(most: int) -> int:
    """The top of the axis: 1, 2 or 5 times a power of ten."""
    power = 1
    while power * 10 <= most:
        power *= 10
    return next(step * power for step in (1, 2, 5, 10) if step * power >= most)


def _axes(top: int, since_s: int, now_s: int) -> Iterator[Markup]:
    low = HEIGHT - _BOTTOM
    for number, y in ((top, _TOP), (top / 2, (_TOP + low) / 2), (0, low)):
        yield element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
        if number == int(number):
            yield element("text", f"{number:,.0f}", x=_LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end")
    for at_s, x, anchor in ((since_s, _LEFT, "start"), (now_s, WIDTH - _RIGHT, "end")):
        yield element("text", (format_time(at_s) or "")[11:16], x=x, y=HEIGHT - 5, text_anchor=anchor)


def _line(word: str, line: Points, since_s: int, span_s: int, top: int) -> Markup:
    across, down = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    places = [
        (_LEFT + across * max(at_s - since_s, 0) / span_s, HEIGHT - _BOTTOM - down * number / top)
        for at_s, number in line
    ]
    if len(places) == 1:  # a lone minute is seen too
        places.append((places[0][0] + 2, places[0][1]))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return element("polyline", points=points, class_=f"series {word}")
