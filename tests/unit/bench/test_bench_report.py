"""The table, for whoever reads it: on a terminal, as Markdown, as JSON."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from tests.bench.goals import Verdict
from tests.bench.plots import Plot
from tests.bench.report import describe, encode, lines_of, markdown, notes_of, print_row, print_verdicts, short_size
from tests.bench.row import Context, Figures, Machine, Measure, Outcome, Row, Subject


def nothing(_: Context) -> Figures:
    return {}


ROW = Row(
    "fill",
    "fill a set",
    (Measure("s", "s", "time"), Measure("rss_mb", "MB", "memory")),
    (Subject("gatewayd", nothing), Subject("peer [x]", nothing)),
)
MACHINE = Machine(2, "Fast", 24.0, "6.18", {"nft": "1.0.6"}, "2026-01-02", "abc1234")
OUTCOMES = [
    Outcome("fill", "gatewayd", 1000, ({"s": 0.5, "rss_mb": 60.0}, {"s": 0.7, "rss_mb": 60.0}, {"s": 0.6})),
    Outcome("fill", "peer [x]", 1000, missing="not installed (Debian: peer)"),
    Outcome("fill", "gatewayd", 1_000_000, ({"s": 2.0, "rss_mb": 90.0},)),
    Outcome("fill", "peer [x]", 1_000_000, missing="would take 3 h"),
]
VERDICTS = [
    Verdict("filling", "under 1 s", "2 s", False),
    Verdict("room", "under 100 MB", "90 MB", True),
    Verdict("speed", "as fast as light", "", None),
]


def printed(*, width: int = 120) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=width, color_system=None), stream


@pytest.mark.parametrize(
    ("size", "text"),
    [(1, "1"), (999, "999"), (1000, "1 k"), (31_000, "31 k"), (1_000_000, "1 M"), (2_000_000, "2 M")],
)
def test_sizes_are_short(size: int, text: str) -> None:
    assert short_size(size) == text


def test_a_line_has_the_size_the_subject_and_each_measure_with_its_span() -> None:
    assert list(lines_of(ROW, OUTCOMES)) == [
        ("1 k", "gatewayd", "600 ms (500–700)", "60 MB"),
        ("1 k", "peer [x]", "*", ""),
        ("1 M", "gatewayd", "2 s", "90 MB"),
        ("1 M", "peer [x]", "*", ""),
    ]


def test_where_the_size_means_nothing_none_is_given() -> None:
    row = Row("codec", "codec", ROW.measures, ROW.subjects, sizes=False)
    assert [line[0] for line in lines_of(row, OUTCOMES[:1])] == ["–"]


def test_every_reason_is_given_once_with_the_size_that_it_is_about() -> None:
    assert notes_of([*OUTCOMES, OUTCOMES[1]]) == [
        "peer [x] at 1 k: not installed (Debian: peer)",
        "peer [x] at 1 M: would take 3 h",
    ]


def test_the_terminal_has_a_line_for_each_subject_and_the_reasons_below() -> None:
    console, stream = printed()
    print_row(console, ROW, OUTCOMES)
    text = stream.getvalue()
    assert "fill: fill a set" in text
    assert text.count("peer [x]") == 4
    assert "  * peer [x] at 1 M: would take 3 h\n" in text


def test_each_goal_says_whether_it_was_met() -> None:
    console, stream = printed()
    print_verdicts(console, VERDICTS)
    lines = [line.split() for line in stream.getvalue().splitlines() if line.strip()]
    assert lines[-3:] == [
        ["filling", "under", "1", "s", "2", "s", "not", "met"],
        ["room", "under", "100", "MB", "90", "MB", "met"],
        ["speed", "as", "fast", "as", "light", "not", "measured"],
    ]


def test_the_report_in_markdown_has_all_of_it() -> None:
    other = Row("other", "not run", (), ())
    text = markdown([ROW, other], OUTCOMES, VERDICTS, MACHINE, [Plot("fill", "time", "bench-fill-s.svg")])
    assert text.startswith(f"# Benchmark\n\n{describe(MACHINE)}\n")
    assert "| filling | under 1 s | 2 s | not met |\n" in text
    assert "| 1 k | gatewayd | 600 ms (500–700) | 60 MB |\n" in text
    assert "| 1 M | peer [x] | * |  |\n" in text
    assert "\\* peer [x] at 1 M: would take 3 h\n" in text
    assert "![time](bench-fill-s.svg)\n" in text
    assert "not run" not in text


def test_a_reader_learns_what_it_was_taken_on() -> None:
    text = describe(MACHINE)
    assert "2 cores of Fast, 24 GiB, Linux 6.18, nft 1.0.6; 2026-01-02, abc1234" in text


def test_the_json_gives_back_every_run() -> None:
    class Whole(msgspec.Struct):
        machine: Machine
        outcomes: list[Outcome]
        goals: list[Verdict]

    whole = msgspec.json.decode(encode(OUTCOMES, VERDICTS, MACHINE), type=Whole)
    assert (whole.machine, whole.outcomes, whole.goals) == (MACHINE, OUTCOMES, VERDICTS)
