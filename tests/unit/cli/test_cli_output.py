from __future__ import annotations

import re

import pytest
import rich.console
from rich.console import Console

from gatewayd.cli.output import (
    BAD,
    Line,
    print_headline,
    print_lines,
    print_table,
)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = Console(force_terminal=True, width=40, color_system="standard", _environ={})
    monkeypatch.setattr(rich.console, "Console", lambda: coloured)


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
