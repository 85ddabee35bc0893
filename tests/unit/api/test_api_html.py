"""A report as one HTML file: well formed, escaped, and nothing from elsewhere."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from gatewayd.api import html
from gatewayd.api.html import Bars, Facts, Part, Series, Table, Text, render_page

HOSTILE = """<script>alert("x")</script> & 'y'"""


def say_time(at: float) -> str:
    return f"t={at:.0f}"


def page(*parts: Part, title: str = "Impact") -> ElementTree.Element:
    """The page, as a parser of XML takes it: what is not escaped or not closed would be an error."""
    text = render_page(title, "gw1, 7 days", parts, say_time)
    assert text.startswith("<!DOCTYPE html>\n")
    closed = re.sub(r"<(meta [^>]*)>", r"<\1/>", text.removeprefix("<!DOCTYPE html>\n"))
    return ElementTree.fromstring(closed.replace(' xmlns="http://www.w3.org/2000/svg"', ""))


def texts(element: ElementTree.Element, tag: str) -> list[str]:
    return ["".join(each.itertext()) for each in element.iter(tag)]


def test_a_page_has_its_title_and_loads_nothing_from_elsewhere() -> None:
    found = page()
    assert texts(found, "h1") == texts(found, "title") == ["Impact"]
    assert texts(found, "p") == ["gw1, 7 days"]
    policy = next(each.get("content") for each in found.iter("meta") if each.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    text = render_page("Impact", "", (Bars("b", [("a", 1)]), Series("s", [(0, 1)], 60)), say_time)
    assert not re.search(r"<script|<link|<img|src=|href=|url\(|@import", text)


def test_every_text_is_escaped() -> None:
    found = page(
        Text(HOSTILE, warning=True),
        Facts(((HOSTILE, HOSTILE),), HOSTILE),
        Table(HOSTILE, (HOSTILE,), [(HOSTILE,)], HOSTILE),
        Bars(HOSTILE, [(HOSTILE, 1.0)], HOSTILE),
        Series(HOSTILE, [(0.0, 1.0)], 60.0, HOSTILE),
        title=HOSTILE,
    )
    assert texts(found, "script") == []
    assert texts(found, "h1") == texts(found, "td") == texts(found, "th") == texts(found, "dt") == [HOSTILE]
    assert {each.get("aria-label") for each in found.iter("svg")} == {HOSTILE}


def test_texts_and_facts() -> None:
    found = page(Text("plain"), Text("loud", warning=True), Facts((("flows", 1234567), ("since", None))))
    paragraphs = [(each.text, each.get("class")) for each in found.iter("p")][1:]
    assert paragraphs == [("plain", None), ("loud", "warning")]
    assert (texts(found, "dt"), texts(found, "dd")) == (["flows", "since"], ["1,234,567", ""])
    assert texts(found, "h2") == []


def test_a_table_says_numbers_to_the_right_and_how_many_rows_it_leaves_out() -> None:
    rows = [("a", number, 12.345) for number in range(html.MAX_ROWS + 5)]
    found = page(Table("By prefix", ("prefix", "flows", "%"), rows, "beyond the bound"))
    assert texts(found, "h2") == ["By prefix"]
    cells = [(each.text, each.get("class")) for each in found.iter("td")]
    assert cells[3:6] == [("a", None), ("1", "n"), ("12.3", "n")]
    assert len(cells) == 3 * html.MAX_ROWS
    assert texts(found, "p")[1:] == ["and 5 more", "beyond the bound"]
    assert texts(page(Table("Empty", ("prefix",), [])), "p")[1:] == []


def test_bars_are_as_long_as_their_share_of_the_greatest_or_of_a_whole() -> None:
    bars = [("reject", 200.0), ("canary 10 %", 20.5), ("none", 0.0)]
    for of, widths in ((None, ["510.0", "52.3", "0.0"]), (400.0, ["255.0", "26.1", "0.0"])):
        found = page(Bars("Refused", bars, "flows", of))
        assert [each.get("width") for each in found.iter("rect")] == widths
        assert texts(found, "text") == [
            "reject", "200 flows", "canary 10 %", "20 flows", "none", "0 flows",
        ]  # fmt: skip


def test_bars_of_nothing_have_no_length_and_no_bars_are_said() -> None:
    assert [each.get("width") for each in page(Bars("b", [("a", 0.0)])).iter("rect")] == ["0.0"]
    assert texts(page(Bars("b", [])), "p")[1:] == ["none"]


def test_a_series_has_a_column_for_each_point_and_the_ends_of_its_time() -> None:
    found = page(Series("Flows an hour", [(0.0, 10.0), (3600.0, 40.0), (10800.0, 0.5)], 3600.0, "flows"))
    columns = list(found.iter("rect"))
    assert [each.get("x") for each in columns] == ["70.0", "267.5", "662.5"]
    assert [each.get("height") for each in columns] == ["36.0", "144.0", "1.8"]
    assert texts(found, "title")[1:] == ["t=0: 10 flows", "t=3600: 40 flows", "t=10800: 0.5 flows"]
    assert texts(found, "text") == ["0", "10", "20", "30", "40", "t=0", "t=14400"]


def test_a_series_of_nothing_is_said_and_of_zeros_is_flat() -> None:
    assert texts(page(Series("s", [], 60.0)), "p")[1:] == ["none"]
    assert [each.get("height") for each in page(Series("s", [(0.0, 0.0)], 60.0)).iter("rect")] == ["0.0"]


def test_of_many_points_the_last_are_shown() -> None:
    points = [(float(number), 1.0) for number in range(html.MAX_POINTS + 3)]
    assert len(list(page(Series("s", points, 1.0)).iter("rect"))) == html.MAX_POINTS
