from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import quote

from msgspec.structs import replace

from gatewayd.api.history import HistoryView
from gatewayd.page.answer import Answer, Row
from gatewayd.page.html import MARKS, render
from gatewayd.page.overview import Countdown, Fact, Overview, Table
from gatewayd.page.problems import Problem

HOSTILE = """<img src=x onerror="alert(1)">'--></title></script>&amp;"""
QUIET = Overview(
    "gw-1", "0.1.0", "2024-11-04T03:00:00Z", "READY", "all is in force", "good", "nothing is wrong", "good",
    "observe", "nothing is blocked", "plain", "", None, (), (), (),
)  # fmt: skip


class Tags(HTMLParser):
    """Names of the elements, in their order; each that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "link", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def hostile() -> tuple[Overview, Answer]:
    """Each text is from outside."""
    table = Table(HOSTILE, (HOSTILE,), ((HOSTILE,),), ("bad",), HOSTILE)
    problem = Problem(HOSTILE, HOSTILE, HOSTILE, HOSTILE, "bad", HOSTILE)
    overview = Overview(
        HOSTILE, HOSTILE, "2024-11-04T03:00:00Z", HOSTILE, HOSTILE, "bad", HOSTILE, "bad", HOSTILE, HOSTILE,
        "doubtful", HOSTILE, Countdown(HOSTILE, 9, HOSTILE), (problem,), (Fact(HOSTILE, HOSTILE, HOSTILE, "bad"),),
        (table,),
    )  # fmt: skip
    return overview, Answer(HOSTILE, HOSTILE, "bad", (Row(HOSTILE, HOSTILE, "bad"),), (table,))


def test_no_text_from_outside_becomes_markup() -> None:
    page = Tags(render(*hostile(), HistoryView()))
    assert "img" not in page.names
    assert page.names.count("script") == 2
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert ("href", f"/?q={quote(HOSTILE, safe='')}") in page.attributes
    assert ("value", HOSTILE) in page.attributes


def test_a_page_in_peace_is_whole() -> None:
    text = render(QUIET, None, HistoryView())
    page = Tags(text)
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert "<title>READY · gw-1 · gatewayd</title>" in text
    assert "Nothing.</p>" in text
    assert page.names.count("figure") == 8
    assert page.names.count("h1") == 1


def test_it_loads_from_this_port_alone_and_has_nothing_inline() -> None:
    text = render(*hostile(), HistoryView())
    loaded = re.findall(r'(?:src|href|action)="([^"]*)"', text)
    assert all(each.startswith("/") and not each.startswith("//") for each in loaded)
    assert "<style" not in text
    assert re.search(r"<script[^>]*></script>", text)
    assert not re.search(r"<script[^>]*>[^<]", text)


def test_beside_each_colour_is_a_shape() -> None:
    text = render(*hostile(), HistoryView())
    assert text.count(f'<span class="mark bad" aria-hidden="true">{MARKS["bad"]}</span>') == 8
    assert len(set(MARKS.values())) == len(MARKS)


def test_a_line_without_a_subject_or_a_command_has_no_place_for_it() -> None:
    problem = Problem("warning", "", "the reason", "", "bad")
    text = render(replace(QUIET, problems=(problem,)), Answer("q", "title", "plain"), HistoryView())
    assert "<p><strong></strong>the reason</p></td>" in text
    assert '<h2 class="tone plain">title</h2></section>' in text
