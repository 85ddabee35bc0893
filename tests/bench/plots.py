"""What was measured, drawn over the size: an SVG file for each measure of a row, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.figures import figure
from tests.bench.report import short_size
from tests.bench.row import Measure, Outcome, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

INCHES = (8.0, 5.0)
SETTINGS: dict[RcKeyType, Any] = {"svg.hashsalt": "gatewayd", "svg.fonttype": "none"}
"""The same figures give the same bytes; letters are letters, not outlines."""
OURS, THEIRS = {"linewidth": 2.6, "color": "black"}, {"linewidth": 1.2}
OUR_DASHES = ("-", "--", ":", "-.")
"""One after another, where several subjects of a row are gatewayd."""


@dataclass(frozen=True, slots=True)
class Plot:
    """`file`: its name in the output directory."""

    row: str
    title: str
    file: str


@dataclass(frozen=True, slots=True)
class Line:
    """Medians of one subject: (size, value), by size."""

    subject: str
    points: tuple[tuple[int, float], ...]


def lines_over_size(row: Row, measure: Measure, outcomes: Sequence[Outcome]) -> list[Line]:
    """Of each subject that was measured. What is not above 0 has no place on a logarithmic axis."""
    lines = []
    for subject in row.subjects:
        mine = [each for each in outcomes if (each.row, each.subject) == (row.name, subject.name)]
        taken = sorted((each.size, value) for each in mine if (value := each.median(measure.name)) is not None)
        points = tuple((size, value) for size, value in taken if value > 0)
        if points:
            lines.append(Line(subject.name, points))
    return lines


def drawable(rows: Sequence[Row], outcomes: Sequence[Outcome]) -> Iterator[tuple[Row, Measure, list[Line]]]:
    """Where a subject has two sizes or more."""
    for row in rows:
        for measure in row.measures if row.sizes else ():
            lines = lines_over_size(row, measure, outcomes) if measure.of_size else []
            if any(len(line.points) > 1 for line in lines):
                yield row, measure, lines


def draw_plots(rows: Sequence[Row], outcomes: Sequence[Outcome], directory: Path) -> list[Plot]:
    """`bench-<row>-<measure>.svg` in the directory, in the order of the table."""
    chosen = list(drawable(rows, outcomes))
    if not chosen:
        return []
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    plots = []
    for row, measure, lines in chosen:
        plot = Plot(row.name, measure.title, f"bench-{row.name}-{measure.name}.svg")
        with matplotlib.rc_context(SETTINGS):
            canvas = FigureCanvasSVG(Figure(figsize=INCHES, layout="constrained"))
            axes = canvas.figure.add_subplot()
            axes.set_title(f"{row.title}: {measure.title}", loc="left", fontsize="medium")
            _draw(axes, measure, lines)
            canvas.figure.savefig(directory / plot.file, format="svg", metadata={"Date": None, "Creator": None})
        plots.append(plot)
    return plots


def _draw(axes: Axes, measure: Measure, lines: Sequence[Line]) -> None:
    dashes = cycle(OUR_DASHES)
    for line in lines:
        sizes, values = zip(*line.points, strict=True)
        style = {**OURS, "linestyle": next(dashes)} if line.subject.startswith("gatewayd") else THEIRS
        axes.plot(sizes, values, marker="o", markersize=3.5, label=line.subject, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes_met = sorted({size for line in lines for size, _ in line.points})
    axes.set_xticks(sizes_met, [short_size(size) for size in sizes_met])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter(lambda value, _: figure(value, measure.unit))
    axes.yaxis.set_minor_formatter(lambda *_: "")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, linewidth=0.3)
    axes.legend(fontsize="x-small", frameon=False)
