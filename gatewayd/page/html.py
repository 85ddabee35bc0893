"""The whole page as HTML: what a browser shows before a script runs, or without one. Pure.

`static/page.js` draws the same parts again from the same values; a test compares what both made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from gatewayd.api.history import HistoryView
from gatewayd.model.moment import parse_time
from gatewayd.page.answer import Answer
from gatewayd.page.markup import Content, Markup, element, joined
from gatewayd.page.overview import Fact, Overview, Table
from gatewayd.page.plots import plots_of
from gatewayd.page.problems import Problem, Tone
from gatewayd.trial.views import span

MARKS: Final[dict[Tone, str]] = {"good": "●", "doubtful": "▲", "bad": "■", "plain": ""}
"""A shape beside each colour."""
_REFRESH_S: Final = 30


def render(overview: Overview, answer: Answer | None, history: HistoryView) -> str:
    """From the first line on."""
    title = f"{overview.word} · {overview.host} · gatewayd"
    head = (
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="/page/icon.svg"),
        element("link", rel="stylesheet", href="/page/uPlot.min.css"),
        element("link", rel="stylesheet", href="/page/page.css"),
        element("script", src="/page/uPlot.iife.min.js", defer=True),
        element("script", src="/page/page.js", type="module"),
        element("noscript", element("meta", http_equiv="refresh", content=_REFRESH_S)),
    )
    plots = plots_of(history, parse_time(overview.now))
    body = (
        element("header", top(overview), id="top"),
        element(
            "main",
            _form(answer),
            element("section", [] if answer is None else answered(answer), id="answer", aria_live="polite"),
            element("section", facts(overview.facts), id="facts", aria_label="Numbers"),
            element(
                "div",
                element("section", problems(overview.problems), id="problems"),
                element("section", map(table, overview.tables), id="tables", aria_label="Tables"),
                class_="side",
            ),
            element(
                "div",
                element("section", element("h2", "Last hour and day"), plots, id="plots"),
                element("section", id="events", hidden=True),
                class_="side",
            ),
        ),
        element("footer", foot(overview), id="foot"),
    )
    page = element("html", element("head", head), element("body", body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def top(view: Overview) -> Iterator[Markup]:
    """The first line: ready or not, and why; the mode; a trial that runs."""
    yield element(
        "div",
        element("h1", mark(view.tone), element("strong", view.word), class_=f"tone {view.tone}"),
        element("p", element("strong", mark(view.looks_tone), view.looks, class_=f"tone {view.looks_tone}")),
        element("p", view.headline, class_="soft"),
        class_="state",
    )
    yield element(
        "div",
        element("p", "mode ", element("strong", view.mode, class_=f"tone {view.mode_tone}")),
        element("p", view.mode_note, class_="soft"),
        class_="mode",
    )
    if view.trial is not None:
        left = element("strong", span(view.trial.left_s), class_="left", data_left=view.trial.left_s)
        yield element(
            "div",
            element("p", mark("doubtful"), view.trial.text, class_="tone doubtful"),
            element("p", left, f" left, {view.trial.then}"),
            class_="trial",
        )
    yield element(
        "div",
        element("p", element("strong", view.host)),
        element("p", f"{view.now[:10]} {view.now[11:19]} UTC", class_="soft"),
        class_="host",
    )


def _form(answer: Answer | None) -> Markup:
    hint = "203.0.113.5 198.51.100.7 udp/51820"
    return element(
        "form",
        element("label", "Explain an address, an id, the digest of a number, or a flow", for_="q"),
        element(
            "div",
            element(
                "input", id="q", name="q", type="search", value="" if answer is None else answer.q, maxlength=200,
                placeholder=hint, autocomplete="off", spellcheck="false", enterkeyhint="search",
            ),
            element("button", "Explain", type="submit"),
            class_="box",
        ),
        action="/", method="get", id="ask", role="search",
    )  # fmt: skip


def answered(view: Answer) -> Iterator[Markup]:
    yield element("h2", mark(view.tone), view.title, class_=f"tone {view.tone}")
    if view.rows:
        yield element(
            "dl",
            ((element("dt", each.label), element("dd", mark(each.tone), each.text)) for each in view.rows),
        )
    yield from (table(each) for each in view.tables)


def facts(found: Iterable[Fact]) -> Iterator[Markup]:
    for each in found:
        yield element(
            "div",
            element("p", each.label, class_="label"),
            element("p", mark(each.tone), each.value, class_=f"value tone {each.tone}"),
            element("p", each.note, class_="soft"),
            class_="fact",
        )


def problems(found: Iterable[Problem]) -> Iterator[Markup]:
    rows = [
        element(
            "tr",
            element("td", mark(each.tone), each.kind, class_=f"tone {each.tone}"),
            element(
                "td",
                element("p", element("strong", _linked(each)), " " if each.subject else "", each.reason),
                element("p", element("code", each.mend)) if each.mend else "",
            ),
        )
        for each in found
    ]
    if not rows:
        yield element("h2", "What is wrong")
        yield element("p", mark("good"), "Nothing.", class_="tone good")
        return
    yield element("h2", "What is wrong")
    head = element("tr", (element("th", each, scope="col") for each in ("kind", "reason, and what mends it")))
    yield _scrolled("What is wrong", element("table", element("thead", head), element("tbody", rows)))


def _linked(problem: Problem) -> Content:
    if not problem.link:
        return problem.subject
    return element("a", problem.subject, href=f"/?q={quote(problem.link, safe='')}")


def table(view: Table) -> Markup:
    plain: tuple[Tone, ...] = ("plain",)
    tones = view.tones or plain * len(view.rows)
    head = element("tr", (element("th", each, scope="col") for each in view.columns))
    rows = [
        element(
            "tr",
            element("td", mark(tone), row[0], class_=f"tone {tone}"),
            (element("td", cell) for cell in row[1:]),
        )
        for row, tone in zip(view.rows, tones, strict=True)
    ]
    grid = _scrolled(view.title, element("table", element("thead", head), element("tbody", rows)))
    return element(
        "div",
        element("h2", view.title),
        grid if view.rows else "",
        element("p", view.note, class_="soft") if view.note else "",
        class_="part",
    )


def _scrolled(label: str, grid: Markup) -> Markup:
    """A table that is too wide for a telephone is moved sideways, by keys too."""
    return element("div", grid, class_="scroll", tabindex=0, role="region", aria_label=label)


def foot(view: Overview) -> Iterator[Content]:
    yield element("p", view.policy) if view.policy else ""
    yield element("p", f"gatewayd {view.version} · read only · the same numbers: ", _also(), class_="soft")


def _also() -> Markup:
    links = [element("a", each, href=each) for each in ("/v1/status", "/v1/overview", "/v1/history", "/metrics")]
    return joined([part for link in links for part in (link, " ")])


def mark(tone: Tone) -> Content:
    return element("span", MARKS[tone], class_=f"mark {tone}", aria_hidden="true") if tone != "plain" else ""
