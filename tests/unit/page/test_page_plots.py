from __future__ import annotations

import pytest

from gatewayd.api.history import HistoryView
from gatewayd.page.plots import PLOTS, SPANS, plots_of, segments_of

NOW = 1_730_689_200


def test_a_missing_or_unknown_minute_ends_a_line() -> None:
    at = [0, 60, 120, 300, 360, 420]
    numbers = [1, 2, None, 4, 5, 6]
    assert segments_of(at, numbers, 60, 1, 60) == [[(60, 2)], [(300, 4), (360, 5), (420, 6)]]


def test_a_point_of_a_long_span_is_the_highest_of_its_minutes() -> None:
    at = [60 * minute for minute in range(10)]
    assert segments_of(at, [3, 9, 1, 0, 0, 7, 7, 8, 2, 0], 0, 5, 60) == [[(0, 9), (300, 8)]]


@pytest.mark.parametrize(
    ("most", "labels"),
    [(0, (">1<", ">0<")), (3, (">5<", ">0<")), (10, (">10<", ">5<", ">0<")), (1_200, (">2,000<", ">1,000<"))],
)
def test_the_axis_ends_at_a_round_number_and_has_whole_ones_alone(most: int, labels: tuple[str, ...]) -> None:
    history = HistoryView(60, (NOW - 60, NOW), *([(most, 0)] * 5))
    figure = next(plots_of(history, NOW))
    assert all(label in figure for label in labels)
    assert ">2.5<" not in figure
    assert ">0.5<" not in figure


def test_each_plot_is_there_for_each_span_and_says_in_words_what_it_shows() -> None:
    history = HistoryView(60, (NOW - 60, NOW), (5, 7), (1, 0), (0, 0), (0, 0), (None, None))
    figures = list(plots_of(history, NOW))
    assert len(figures) == len(PLOTS) * len(SPANS)
    assert 'aria-label="Flows judged, a minute, last hour. registered: 7 at the end, 7 at most; ' in figures[0]
    assert "unregistered: 0 at the end, 1 at most" in figures[0]
    assert "accounting: no sample yet" in figures[2]
    assert figures[0].count("<polyline") == 2
    assert figures[2].count("<polyline") == 0


def test_a_lone_minute_is_seen() -> None:
    history = HistoryView(60, (NOW,), *([(4,)] * 5))
    assert 'points="472.0,26.4 474.0,26.4"' in next(plots_of(history, NOW))
