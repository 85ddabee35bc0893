from __future__ import annotations

import re

import pytest
import rich.console
from rich.console import Console

from gatewayd.cli.output import (
    BAD,
    Line,
    ago,
    count,
    place,
    print_headline,
    print_lines,
    print_table,
    size,
    some,
    span,
)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = Console(force_terminal=True, width=40, color_system="standard", _environ={})
    monkeypatch.setattr(rich.console, "Console", lambda: coloured)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (4.9, "4s"), (130, "2m 10s"), (3600, "1h"), (3605, "1h"), (273_605, "3d 4h")],
)
def test_a_span_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("then", "text"),
    [(None, "never"), ("2024-11-04T02:59:20Z", "40s ago"), ("2024-11-04T03:05:00Z", "in 5m")],
)
def test_a_moment_is_told_from_now(then: str | None, text: str) -> None:
    assert ago("2024-11-04T03:00:00Z", then) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**62, "4096.0 PiB")]
)
def test_a_size_has_a_unit(size_bytes: int, text: str) -> None:
    assert size(size_bytes) == text


def test_one_is_singular() -> None:
    assert [count(number, "flow") for number in (0, 1, 31022)] == ["0 flows", "1 flow", "31,022 flows"]


def test_a_place_has_its_ports() -> None:
    assert place("10.1.2.3/32", None) == "10.1.2.3/32"
    assert place("10.1.2.3/32", (1, 9)) == "10.1.2.3/32 ports 1-9"


def test_a_long_list_is_cut_and_says_so() -> None:
    assert some(()) == "any"
    assert some(("a", "b", "c")) == "a, b, c"
    assert some(("a", "b", "c", "d", "e")) == "a, b, c +2"


def test_without_a_terminal_columns_are_aligned_and_nothing_is_cut(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("id", "why"), [("a" * 50, "x"), ("b", "[red]y\x1b[2J")])
    assert capsys.readouterr().out == (f"id{' ' * 48}  why\n{'a' * 50}  x\nb{' ' * 49}  [red]y�[2J\n")


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_a_table_has_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("id", "why"), [("PK-1", "[red]x\x1b[2J")])
    printed = capsys.readouterr().out
    assert "\x1b[1mid" in printed
    assert "[red]x�[2J" in printed


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_cells_go_on_between_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        ("id", "clients", "why"),
        [("PK-2024-000101", "203.0.113.0/28, 2400:adc0:12::/48", "ok"), ("PK-1", "198.51.100.0/28", "")],
    )
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "id              clients              why",
        "PK-2024-000101  203.0.113.0/28,      ok",
        "                2400:adc0:12::/48",
        "PK-1            198.51.100.0/28",
    ]


@pytest.mark.usefixtures("terminal")
def test_what_is_longer_than_the_terminal_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    ids = ("PK-" + "7" * 45, "2001:db8:1234:5678:9abc:def0:1234:5678/128")
    print_table(("id", "client"), [ids])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ids)
    assert len(printed.splitlines()) == 2


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_lines_have_styles_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_headline("NOT READY", BAD)
    print_lines([Line("source", "[bold]lab\x07", BAD), Line("", "more")])
    assert capsys.readouterr().out == (
        "\x1b[1;31mNOT READY\x1b[0m\n"
        "\x1b[1msource         \x1b[0m\x1b[1;31m[bold]lab�\x1b[0m\n"
        "               more\n"
    )


@pytest.mark.parametrize("label", ["needs a restart", "a label past the width"])
def test_a_wide_label_stands_apart_from_its_text(capsys: pytest.CaptureFixture[str], label: str) -> None:
    print_lines([Line(label, "kernel.table")])
    assert capsys.readouterr().out == f"{label} kernel.table\n"
