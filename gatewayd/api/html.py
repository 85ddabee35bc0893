"""A report as one HTML file that can be mailed: its parts as values, rendered with inline SVG and no script. Pure.

Nothing is loaded from elsewhere, and a Content-Security-Policy in the file says so. Every text is escaped here: a
caller hands in text, never HTML. It prints in black on white, and follows a dark screen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

Cell = str | int | float | None
"""A number stands to the right with its thousands apart; None is an empty cell."""

MAX_ROWS = 1000
"""Of a table, and bars of a plot; how many more there are is said."""
MAX_POINTS = 1000
WIDTH = 860
_BAR_HEIGHT, _BAR_STEP, _LABEL_WIDTH, _VALUE_WIDTH = 16, 22, 240, 110
_PLOT_HEIGHT, _LEFT, _BOTTOM = 180, 70, 24
_TICKS = 4


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; a `warning` stands out."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, one a line."""

    facts: tuple[tuple[str, Cell], ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """`columns`: their headings; each row has as many cells."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars of values from 0 on. `of`: the value of a full width; None: the greatest."""

    title: str
    bars: Sequence[tuple[str, float]]
    unit: str = ""
    of: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Columns over time: Unix seconds of each column's begin, each `step_s` wide; what is absent is a gap."""

    title: str
    points: Sequence[tuple[float, float]]
    step_s: float
    unit: str = ""


Part = Text | Facts | Table | Bars | Series


def render_page(title: str, subtitle: str, parts: Sequence[Part], say_time: Callable[[float], str]) -> str:
    """The whole file. `say_time`: Unix seconds in words, for the ends of a time axis."""
    body = "\n".join(line for part in parts for line in _render(part, say_time))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_CSS}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="sub">{escape(subtitle)}</p>
{body}
</body>
</html>
"""


def _render(part: Part, say_time: Callable[[float], str]) -> Iterator[str]:
    match part:
        case Text(text, warning):
            yield f'<p class="warning">{escape(text)}</p>' if warning else f"<p>{escape(text)}</p>"
        case Facts(facts, title):
            yield from _heading(title)
            yield "<dl>"
            yield from (f"<dt>{escape(name)}</dt><dd>{_shown(value)}</dd>" for name, value in facts)
            yield "</dl>"
        case Table():
            yield from _table(part)
        case Bars():
            yield from _bars(part)
        case _:
            yield from _series(part, say_time)


def _heading(title: str) -> Iterator[str]:
    if title:
        yield f"<h2>{escape(title)}</h2>"


def _shown(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else escape(value)


def _table(table: Table) -> Iterator[str]:
    yield from _heading(table.title)
    yield "<table><thead><tr>"
    yield "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    yield "</tr></thead><tbody>"
    for row in table.rows[:MAX_ROWS]:
        yield "<tr>" + "".join(map(_cell, row)) + "</tr>"
    yield "</tbody></table>"
    yield from _more(len(table.rows))
    if table.note:
        yield f'<p class="note">{escape(table.note)}</p>'


def _cell(value: Cell) -> str:
    number = ' class="n"' if isinstance(value, (int, float)) else ""
    return f"<td{number}>{_shown(value)}</td>"


def _more(count: int) -> Iterator[str]:
    if count > MAX_ROWS:
        yield f'<p class="note">and {count - MAX_ROWS:,} more</p>'


def _bars(bars: Bars) -> Iterator[str]:
    shown = bars.bars[:MAX_ROWS]
    yield from _heading(bars.title)
    if not shown:
        yield '<p class="note">none</p>'
        return
    most = bars.of or max(value for _, value in shown) or 1.0
    room = WIDTH - _LABEL_WIDTH - _VALUE_WIDTH
    height = len(shown) * _BAR_STEP
    yield _open_svg(height, bars.title)
    for number, (label, value) in enumerate(shown):
        top, middle = number * _BAR_STEP, number * _BAR_STEP + 12
        length = room * min(1.0, value / most)
        yield f'<text x="{_LABEL_WIDTH - 8}" y="{middle}" text-anchor="end">{escape(label)}</text>'
        yield f'<rect x="{_LABEL_WIDTH}" y="{top}" width="{length:.1f}" height="{_BAR_HEIGHT}"/>'
        yield f'<text x="{_LABEL_WIDTH + length + 6:.1f}" y="{middle}">{_quantity(value, bars.unit)}</text>'
    yield "</svg>"
    yield from _more(len(bars.bars))


def _series(series: Series, say_time: Callable[[float], str]) -> Iterator[str]:
    points = series.points[-MAX_POINTS:]
    yield from _heading(series.title)
    if not points:
        yield '<p class="note">none</p>'
        return
    first, last = points[0][0], points[-1][0] + series.step_s
    most = max(value for _, value in points) or 1.0
    scale = (WIDTH - _LEFT) / (last - first)
    bottom = _PLOT_HEIGHT - _BOTTOM
    yield _open_svg(_PLOT_HEIGHT, series.title)
    for tick in range(_TICKS + 1):
        y = bottom - (bottom - 12) * tick / _TICKS
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}"/>'
        label = _quantity(most * tick / _TICKS, "")
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    for at, value in points:
        height = (bottom - 12) * value / most
        width = max(1.0, series.step_s * scale - 1.0)
        label = escape(f"{say_time(at)}: {_quantity(value, series.unit)}")
        yield (
            f'<rect x="{_LEFT + (at - first) * scale:.1f}" y="{bottom - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}"><title>{label}</title></rect>'
        )
    yield f'<text x="{_LEFT}" y="{_PLOT_HEIGHT - 6}">{escape(say_time(first))}</text>'
    yield f'<text x="{WIDTH}" y="{_PLOT_HEIGHT - 6}" text-anchor="end">{escape(say_time(last))}</text>'
    yield "</svg>"


def _open_svg(height: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">'
    )


def _quantity(value: float, unit: str) -> str:
    whole = f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:,.1f}"
    return escape(f"{whole} {unit}".rstrip())


_CSS = """:root {
  --ink: #1a1c1e; --paper: #fff; --soft: #5c6670; --line: #d5dade; --bar: #2f6f9f; --alarm: #9c2f1f;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --paper: #16191c; --soft: #9aa5af; --line: #363d44; --bar: #5aa2d8; --alarm: #ff9a85; }
}
@media print { :root { --ink: #000; --paper: #fff; --soft: #444; --line: #bbb; --bar: #555; --alarm: #000; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 900px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; }
h2 { font-size: 1.15em; margin: 1.8em 0 .5em; }
.sub, .note { color: var(--soft); margin-top: .2em; }
.warning { border-left: 4px solid var(--alarm); padding: .3em .8em; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2em 1.5em; }
dt { color: var(--soft); }
dd { margin: 0; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { border-bottom: 1px solid var(--line); padding: .25em .8em .25em 0; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
tr { break-inside: avoid; }
svg { max-width: 100%; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg rect { fill: var(--bar); }
svg line { stroke: var(--line); }
"""
