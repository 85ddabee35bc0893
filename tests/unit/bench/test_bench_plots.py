"""Plots: which there are, and that the same figures give the same file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.plots import Line, draw_plots, drawable, lines_over_size
from tests.bench.row import Context, Figures, Measure, Outcome, Row, Subject

pytest.importorskip("matplotlib", reason="matplotlib comes with the extra `bench`")


def nothing(_: Context) -> Figures:
    return {}


TIME, COUNT = Measure("s", "s", "time"), Measure("changes", "", "changes", of_size=False)
ROW = Row("fill", "fill a set", (TIME, COUNT), (Subject("gatewayd", nothing), Subject("peer & <co>", nothing)))


def outcomes(*taken: tuple[str, int, float]) -> list[Outcome]:
    return [Outcome("fill", subject, size, ({"s": value, "changes": 3.0},)) for subject, size, value in taken]


TAKEN = outcomes(
    ("gatewayd", 1000, 0.001), ("peer & <co>", 1000, 0.02), ("gatewayd", 31_000, 0.03), ("peer & <co>", 31_000, 0.5)
)


def test_a_line_is_the_medians_by_size() -> None:
    backwards = [Outcome("fill", "gatewayd", 9, ({"s": 3.0}, {"s": 1.0}, {"s": 2.0})), *TAKEN[::-1]]
    assert lines_over_size(ROW, TIME, backwards) == [
        Line("gatewayd", ((9, 2.0), (1000, 0.001), (31_000, 0.03))),
        Line("peer & <co>", ((1000, 0.02), (31_000, 0.5))),
    ]


def test_what_was_not_measured_and_what_is_zero_is_no_point() -> None:
    there = [*outcomes(("gatewayd", 1, 0.0), ("gatewayd", 2, 1.0)), Outcome("fill", "peer & <co>", 1, missing="no")]
    assert lines_over_size(ROW, TIME, there) == [Line("gatewayd", ((2, 1.0),))]


@pytest.mark.parametrize(
    ("row", "there"),
    [
        (ROW, TAKEN[:2]),
        (ROW, []),
        (Row("fill", "fill", (COUNT,), ROW.subjects), TAKEN),
        (Row("fill", "fill", (TIME,), ROW.subjects, sizes=False), TAKEN),
    ],
)
def test_without_two_sizes_of_a_measure_over_size_nothing_is_drawn(row: Row, there: list[Outcome]) -> None:
    assert list(drawable([row], there)) == []


def test_there_is_a_small_file_for_each_measure_and_drawn_again_it_is_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    (plot,) = draw_plots([ROW], TAKEN, first)
    draw_plots([ROW], TAKEN, second)
    assert (plot.row, plot.title, plot.file) == ("fill", "time", "bench-fill-s.svg")
    image = (first / plot.file).read_text()
    assert image == (second / plot.file).read_text()
    assert len(image) < 50_000
    assert "<dc:date>" not in image
    for words in ("gatewayd", "peer &amp; &lt;co&gt;", "31 k", "fill a set: time"):
        assert words in image
