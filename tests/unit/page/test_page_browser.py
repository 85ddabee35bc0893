"""The page in Chromium: what is seen with and without a script, what changes by itself, what is asked for."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from gatewayd.log.ring import EventRing
from gatewayd.log.tap import EventTap
from gatewayd.model.moment import format_time, parse_time
from tests.support.fake_queries import FakeQueries
from tests.support.lab_daemon import holds
from tests.support.pages import (
    CHROMIUM,
    HOST,
    a_day,
    busy_gateway,
    chromium,
    failing_assertion,
    near_miss,
    serving_page,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium (Debian package chromium)")

PATIENCE_MS = 120_000
FLOW = "203.0.113.5 198.51.100.7 udp/51820"
HOSTILE = """<img src="/x" onerror="document.title='taken'">"""
HOSTILE_ID = """<img>"'&lt;"""
PARTS = ("top", "facts", "problems", "tables", "answer")

TEXT_CONTRAST = """() => {
  const parse = (text) => {
    const found = text.match(/[\\d.]+/g).map(Number);
    return found.length < 4 ? [...found, 1] : found;
  };
  const light = ([r, g, b]) => {
    const linear = (part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const part = [r, g, b].map((each) => linear(each / 255));
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || element.closest("svg, script, noscript") || !element.offsetParent) continue;
    const colours = [parse(getComputedStyle(element).color), behind(element)];
    const [one, other] = colours.map(light).sort((a, b) => b - a);
    found.push([(one + 0.05) / (other + 0.05), text.slice(0, 40)]);
  }
  return found;
}"""
"""Each text with its contrast to what is behind it (WCAG 2.2 §1.4.3)."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


class Gateway:
    """`tap`: the events of the daemon. `queries`: what it answers."""

    def __init__(self, queries: FakeQueries, tap: EventTap, url: str) -> None:
        self.queries = queries
        self.tap = tap
        self.url = url


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    queries, tap = busy_gateway(time.time()), EventTap(EventRing(1))
    with serving_page(queries, tmp_path, tap) as url:
        yield Gateway(queries, tap, url)


class Tab:
    """A page that is open, and what went wrong in it. `asked`: each URL that it asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        self.asked: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def go(self, url: str) -> Tab:
        self.page.goto(url)
        return self

    def live(self) -> Tab:
        """The script has drawn all of it."""
        self.page.wait_for_selector("#events:not([hidden]) h2")
        self.until("document.querySelectorAll('figure.plot canvas').length === 8")
        self.page.wait_for_selector("#tables .part:nth-child(3)")
        return self

    def until(self, condition: str) -> None:
        """A condition in JavaScript; the page's own policy lets no waiting be put into it."""
        assert holds(lambda: bool(self.page.evaluate(condition))), condition

    def text(self, selector: str = "body") -> str:
        return self.page.inner_text(selector)


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Any]:
    contexts = []

    def open_with(**options: Any) -> Tab:
        contexts.append(browser.new_context(**options))
        return Tab(contexts[-1].new_page())

    yield open_with
    for each in contexts:
        each.close()


def test_without_a_script_everything_is_there(gateway: Gateway, open_tab: Any) -> None:
    tab = open_tab(java_script_enabled=False).go(f"{gateway.url}/?q={quote(FLOW)}")
    text = tab.text()
    for words in (
        "READY", HOST, "reject, canary 10 %", "TRIAL of reject, canary 10%", "9m 12s left, then observe",
        "7 things to look at, 3 of them urgent", "PASSES: it is registered and in the kernel",
        "not programmed", "gatewayd registrations PK-2024-009913", "gatewayd held; gatewayd accept 90211",
        "registry: add the service udp/4500 to PK-2024-002207", "HTTP status 503", "39.32.64.0/24",
    ):  # fmt: skip
        assert words in text, words
    assert tab.page.locator("figure.plot svg polyline").count() >= 10
    assert tab.page.input_value("#q") == FLOW
    tab.page.fill("#q", "PK-2024-000300")
    tab.page.click("button")
    assert "PK-2024-000300 is in force and in the kernel" in tab.text("#answer")
    assert tab.page.url == f"{gateway.url}/?q=PK-2024-000300"
    assert tab.faults == []


def test_the_script_draws_what_the_server_wrote(gateway: Gateway, open_tab: Any) -> None:
    url = f"{gateway.url}/?q={quote(FLOW)}"
    plain = open_tab(java_script_enabled=False).go(url)
    live = open_tab().go(url).live()

    def seen(tab: Tab, part: str) -> str:
        found = tab.page.locator(f"#{part}").inner_html()
        found = re.sub(r'data-left="\d+"|\d+m \d+s(?=</strong> left)', "", found)
        return re.sub(r">\s+<", "><", found.replace("&gt;", ">")).strip()

    for part in PARTS:
        assert seen(live, part) == seen(plain, part), part


def test_nothing_is_asked_for_elsewhere_and_no_error_is_reported(gateway: Gateway, open_tab: Any) -> None:
    tab = open_tab().go(f"{gateway.url}/?q=203.0.113.5").live()
    assert tab.asked
    assert [each for each in tab.asked if not each.startswith(f"{gateway.url}/")] == []
    assert tab.faults == []


def test_an_event_changes_the_page_without_a_reload(gateway: Gateway, open_tab: Any) -> None:
    tab = open_tab().go(gateway.url).live()
    assert "assertion fails" not in tab.text("#problems")
    failing_assertion(gateway.queries)
    gateway.queries.near_miss_lines.append(near_miss("PK-2024-000777"))
    gateway.tap.take("assertion.failing", {"name": "khyber-hq", "reason": "no registration has 203.0.113.9"})
    tab.page.wait_for_selector("#problems td:has-text('assertion fails')")
    assert "Khyber Bank, head office" in tab.text("#problems tbody tr:nth-child(1)")
    assert "PK-2024-000777" in tab.text("#problems")
    assert "assertion.failing" in tab.text("#events")
    assert "name=khyber-hq" in tab.text("#events")
    assert tab.page.locator("#top h1.bad").count() == 1
    assert tab.asked.count(f"{gateway.url}/") == 1


def test_the_countdown_runs(gateway: Gateway, open_tab: Any) -> None:
    tab = open_tab().go(gateway.url).live()
    tab.until("Number(document.querySelector('.left').dataset.left) < 551")
    assert re.fullmatch(r"9m \d+s", tab.text(".left"))


def test_the_box_asks_without_a_reload_and_the_address_carries_the_question(
    gateway: Gateway, open_tab: Any
) -> None:
    tab = open_tab().go(gateway.url).live()
    tab.page.fill("#q", FLOW)
    tab.page.press("#q", "Enter")
    tab.page.wait_for_selector("#answer h2.good")
    assert tab.page.url == f"{gateway.url}/?q={quote(FLOW, safe='')}"
    tab.page.fill("#q", "192.0.2.1 198.51.100.7 udp/51820")
    tab.page.click("button")
    tab.page.wait_for_selector("#answer h2:not(.good)")
    tab.page.go_back()
    tab.page.wait_for_selector("#answer h2.good")
    assert tab.page.input_value("#q") == FLOW
    assert tab.asked.count(f"{gateway.url}/") == 1


def test_a_mobile_number_leaves_the_address_and_the_box(gateway: Gateway, open_tab: Any) -> None:
    tab = open_tab().go(gateway.url).live()
    tab.page.fill("#q", "0300 1234567")
    tab.page.press("#q", "Enter")
    tab.page.wait_for_selector("#answer h2:has-text('ask by its digest')")
    tab.until("location.search === ''")
    assert tab.page.input_value("#q") == ""


def test_without_a_script_the_number_leaves_the_address_too(gateway: Gateway, open_tab: Any) -> None:
    for script in (False, True):
        tab = open_tab(java_script_enabled=script).go(f"{gateway.url}/?q=0300+1234567")
        if script:
            tab.live()
        assert tab.page.url == f"{gateway.url}/?refused=number"
        assert "ask by its digest" in tab.text("#answer")
        assert tab.page.input_value("#q") == ""


def test_hostile_texts_stay_texts(gateway: Gateway, open_tab: Any) -> None:
    queries = gateway.queries
    source = replace(queries.view.sources[0], name=HOSTILE, state="failing", last_error=HOSTILE)
    queries.view = replace(queries.view, sources=(source,), warnings=(HOSTILE,))
    queries.near_miss_lines = [replace(near_miss(HOSTILE), why=HOSTILE, mend=HOSTILE, registrant=HOSTILE)]
    gateway.tap.take("source.failed", {"source": HOSTILE, "error": HOSTILE})
    for options in ({}, {"java_script_enabled": False}):
        tab = open_tab(**options).go(f"{gateway.url}/?q={quote(HOSTILE_ID)}")
        if not options:
            tab.live().page.wait_for_selector("#events td:has-text('onerror')")
        assert tab.page.locator("img").count() == 0
        assert tab.text("#problems").count(HOSTILE) >= 5
        assert HOSTILE_ID in tab.text("#answer")
        assert tab.page.title().startswith("READY")
        assert not [each for each in tab.asked if each.endswith("/x")]


def test_a_daemon_that_is_gone_is_said_and_a_new_one_is_seen(tmp_path: Path, open_tab: Any) -> None:
    queries = busy_gateway(time.time())
    with serving_page(queries, tmp_path) as url:
        tab = open_tab().go(url).live()
        port = int(url.rpartition(":")[2])
    tab.page.evaluate("dispatchEvent(new PopStateEvent('popstate'))")
    tab.page.wait_for_selector("#top h1.bad")
    assert "NO ANSWER" in tab.text("#top")
    assert "this is old" in tab.text("#top")
    with serving_page(queries, tmp_path, port=port):
        tab.page.wait_for_selector("#top h1.good")
    assert "READY" in tab.page.title() or "NO ANSWER" in tab.page.title()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(gateway: Gateway, open_tab: Any, scheme: str) -> None:
    failing_assertion(gateway.queries)
    gateway.tap.take("source.failed", {"source": "bpo", "error": "HTTP status 503"})
    tab = open_tab(color_scheme=scheme).go(f"{gateway.url}/?q=PK-2024-000300").live()
    tab.page.wait_for_selector("#events td")
    contrasts = tab.page.evaluate(TEXT_CONTRAST)
    assert len(contrasts) > 150
    assert [each for each in contrasts if each[0] < 4.5] == []
    ground = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(15, 19, 23)") == (scheme == "dark")


def test_what_helps_those_who_do_not_see_is_there(gateway: Gateway, open_tab: Any) -> None:
    tab = open_tab(java_script_enabled=False).go(f"{gateway.url}/?q={quote(FLOW)}")
    page = tab.page
    assert page.get_by_label("Explain an address, an id, the digest of a number, or a flow").count() == 1
    assert page.get_by_role("button", name="Explain").count() == 1
    assert page.get_by_role("search").count() == 1
    assert page.get_by_role("banner").count() == page.get_by_role("main").count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.locator("html[lang=en]").count() == 1
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("svg:not([aria-label])").count() == 0
    for each in page.locator("svg").all():
        assert re.search(r"a minute, last (hour|day)\. .*at most|no sample", each.get_attribute("aria-label") or "")
    for each in page.locator(".mark").all():
        assert each.evaluate("node => node.parentElement.innerText.trim().length > 1"), (
            "a shape has a word beside it"
        )
    ids = [each.get_attribute("id") for each in page.locator("[id]").all()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_nothing_is_wider_than_the_screen(gateway: Gateway, open_tab: Any, width: int) -> None:
    for script in (True, False):
        tab = open_tab(viewport={"width": width, "height": 800}, java_script_enabled=script)
        tab.go(f"{gateway.url}/?q=203.0.113.5")
        if script:
            tab.live()
        box = tab.page.locator("html").bounding_box()
        assert box is not None
        widest = max(
            (each.bounding_box() or box)["width"] for each in tab.page.locator("section, header, .part").all()
        )
        assert widest <= width
        if script:
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [360, 900, 1200, 1366])
def test_no_table_of_the_first_screen_hides_a_cell(gateway: Gateway, open_tab: Any, width: int) -> None:
    """A wall display is not scrolled, and a telephone's line has more than one letter."""
    gateway.tap.take("policy.in_force", {"mode": "reject", "policy": "canary 100%, scope tcp/1194 udp/500 " * 4})
    tab = open_tab(viewport={"width": width, "height": 800}).go(gateway.url).live()
    tab.page.wait_for_selector("#events td:has-text('policy.in_force')")
    parts = "#problems .scroll, #events .scroll" + (", #tables .scroll" if width > 360 else "")
    hidden = f"[...document.querySelectorAll('{parts}')].filter((each) => each.scrollWidth > each.clientWidth)"
    assert tab.page.evaluate(f"{hidden}.map((each) => each.innerText)") == []
    tall = "[...document.querySelectorAll('#events tbody tr')].map((each) => each.offsetHeight)"
    assert max(tab.page.evaluate(tall)) < 400


@pytest.mark.parametrize("width", [360, 1024, 1300, 1500, 1920])
def test_a_number_fits_its_tile(gateway: Gateway, open_tab: Any, width: int) -> None:
    view = gateway.queries.view
    verified = format_time(parse_time(view.now) - 86_399)
    gateway.queries.view = replace(view, kernel=dataclasses.replace(view.kernel, last_verified_at=verified))
    tab = open_tab(viewport={"width": width, "height": 800}, java_script_enabled=False).go(gateway.url)
    assert "23h 59m ago" in tab.text("#facts")
    wide = "each => each.scrollWidth > each.clientWidth"
    assert (
        tab.page.evaluate(f"[...document.querySelectorAll('.fact p')].filter({wide}).map(e => e.innerText)") == []
    )


def test_the_print_has_the_state_and_no_controls(gateway: Gateway, open_tab: Any) -> None:
    tab = open_tab(color_scheme="dark").go(gateway.url).live()
    tab.page.emulate_media(media="print")
    assert not tab.page.is_visible("form")
    assert tab.page.is_visible("#top h1")
    assert tab.page.is_visible("#problems table")
    assert tab.page.evaluate("getComputedStyle(document.querySelector('#top h1')).color") == "rgb(0, 0, 0)"
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_rows_stay_in_their_order_when_numbers_change(gateway: Gateway, open_tab: Any) -> None:
    tab = open_tab().go(gateway.url).live()
    before = tab.page.locator("#problems tbody td:first-child").all_inner_texts()
    view = gateway.queries.view
    gateway.queries.view = replace(view, watch=replace(view.watch, flows_tracked=10_077))
    gateway.queries.history_view = a_day(time.time())
    gateway.tap.take("source.read", {"source": "national", "registrations": 31_022})
    tab.page.wait_for_selector("#facts .value:has-text('10,077')")
    assert tab.page.locator("#problems tbody td:first-child").all_inner_texts() == before
