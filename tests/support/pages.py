"""A gateway for the page: a status that has a bit of everything, a day of history, events; and a browser.

`python -m tests.support.pages` takes the pictures of docs/images anew.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import pi, sin
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gatewayd.api.history import HistoryView
from gatewayd.api.near_misses import NearMissLineView, NearMissList
from gatewayd.api.standing import HeldList, HeldRegistrant, HeldRemovalView, RejectedList, RejectedView
from gatewayd.api.status import AggregateView, CounterView, HoldView, PolicyView, SourceView, UnprogrammedView
from gatewayd.assertions.states import AssertionsView, FailingView
from gatewayd.log.ring import EventRing
from gatewayd.log.tap import EventTap
from gatewayd.model.moment import format_time
from gatewayd.model.policy import Stage
from gatewayd.model.transaction import ConntrackSize
from gatewayd.page.problems import Findings
from gatewayd.page.routes import Pages
from gatewayd.trial.views import ArmingView, TrialView
from gatewayd.watch.interfaces import InterfacesView, PatternView
from tests.support.fake_queries import NOW, SUBSCRIBED, FakeQueries, serving_in_a_thread

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES: Final = Path(__file__).parent.parent.parent / "docs" / "images"
CHROMIUM: Final = "/usr/bin/chromium"
HOST: Final = "gw-khi-1"


def busy_gateway(now_s: float = NOW) -> FakeQueries:
    """In a trial of `reject` for a tenth of its clients; this and that is to be looked at."""
    queries = FakeQueries()
    queries.bind()

    def at(ago_s: float) -> str:
        return format_time(round(now_s - ago_s)) or ""

    national = SourceView(
        "national", "https://registry.example/feed", "ok", last_success_at=at(22), next_attempt_at=at(-38),
        registrations=31_022, signed=True, serial=90_211, issued_at=at(90), rejected=2,
    )  # fmt: skip
    bpo = SourceView(
        "bpo", "https://bpo.example/list.csv", "failing", last_success_at=at(2_460), next_attempt_at=at(-12),
        last_error="HTTP status 503", registrations=412, freshness="overdue", not_fresh_since=at(600),
    )  # fmt: skip
    trial = TrialView(
        "1f2e3d4c", "confirm", Stage("observe"), Stage("reject", 10), at(48), at(-552), 552, "uid 1000",
        "ticket 4711", True,
    )  # fmt: skip
    queries.arming.shown = ArmingView(mode="reject", wanted=Stage("reject", 10), pending=trial)
    queries.view = msgspec.structs.replace(
        SUBSCRIBED,
        now=at(0),
        started_at=at(3 * 86_400 + 4_000),
        mode="reject",
        configured_mode="reject",
        enforce_from=None,
        armed=True,
        policy=PolicyView(
            "reject, canary 10 %, scope tcp/1194 … ah, inside ppp* eth1, outside eth0, drain 3600 s", 10, at(48),
            "uid 1000",
        ),
        sources=(national, bpo),
        registrations=msgspec.structs.replace(
            SUBSCRIBED.registrations,
            total=31_434, effective=31_388, unprogrammed=1,
            by_category={"software_house": 14_210, "freelancer": 9_871, "bpo": 5_930, "bank": 1_361, "embassy": 62},
            unprogrammed_examples=(UnprogrammedView("PK-2024-009913", "5,000 elements, 4,096 are allowed"),),
        ),
        kernel=replace(SUBSCRIBED.kernel, elements_desired=61_204, last_verified_at=at(130), repairs=2),
        counters={
            "registered_flows": CounterView(1_204_331, 96_000), "unregistered_flows": CounterView(18_402, 9_000),
            "registered_packets": CounterView(2_504_118_220, 1_942_000_000_000),
            "unregistered_packets": CounterView(1_840_220, 1_100_000_000),
        },
        watch=msgspec.structs.replace(SUBSCRIBED.watch, flows_tracked=9_412, late_admissions=17),
        conntrack=ConntrackSize(183_220, 524_288, 0, 0, 0),
        assertions=AssertionsView(total=12, looked_at=at(2)),
        arming=queries.arming.shown,
        interfaces=InterfacesView(
            4_114, (PatternView("ppp*", 4_096, ("ppp0", "ppp1", "ppp10")), PatternView("eth1", 1, ("eth1",))),
            (PatternView("eth0", 1, ("eth0",)),),
        ),
        held=(HoldView(90_211, at(7_300), 412, "412 removed at once, more than 5 %", {"national": 412}),),
        unregistered=(
            AggregateView("39.32.64.0/24", 812, ("udp/51820 (640)", "udp/500 (172)")),
            AggregateView("111.68.96.0/24", 377, ("tcp/1194 (377)",)),
            AggregateView("2400:adc0:12::/48", 41, ("esp (41)",)),
        ),
    )  # fmt: skip
    removal = HeldRemovalView("PK-2023-000811", "bpo", ("203.0.113.16/28",), "nothing", "national", at(7_300), 3)
    queries.held_list = HeldList(
        90_211, at(7_300), "412 removed at once", 412, 0, (removal,),
        registrants=(HeldRegistrant("Indus Contact Ltd", 380, 380), HeldRegistrant("Ravi Software", 32, 90)),
    )  # fmt: skip
    queries.rejected_views = [
        RejectedView("national", 90_211, 20_117, "PK-2025-004410", "prefix_host_bits", "clients", False),
        RejectedView("national", 90_211, 20_118, None, "unknown_field", "", False),
    ]
    queries.near_miss_lines = [
        NearMissLineView(
            "PK-2024-002207", "bank", "service_not_listed", "udp/4500 is not among its services",
            "registry: add the service udp/4500 to PK-2024-002207", "udp/4500", "198.51.100.0/24", 14, at(4_000),
            at(31), registrant="Khyber Bank",
        ),
        NearMissLineView(
            "PK-2024-000300", "freelancer", "address_moved", "the flow came from its former address",
            "gatewayd bindings --registration PK-2024-000300", "udp/51820", "192.0.2.0/24", 2, at(900), at(700),
        ),
    ]  # fmt: skip
    queries.history_view = a_day(now_s)
    return queries


def failing_assertion(queries: FakeQueries) -> None:
    """A named customer would be cut."""
    example = FailingView(
        "khyber-hq", "must_pass", "no registration has 203.0.113.9", "Khyber Bank, head office", "50-must.yaml:3",
        queries.view.now,
    )  # fmt: skip
    queries.view = msgspec.structs.replace(
        queries.view,
        assertions=AssertionsView(total=12, failing=1, looked_at=queries.view.now, examples=(example,)),
    )


def a_day(now_s: float) -> HistoryView:
    """Flows as people make them by day and by night, with a gap where the daemon was upgraded."""
    random, end = Random(7), int(now_s // 60 * 60)
    at = tuple(end - 60 * back for back in range(1_439, -1, -1) if back not in range(402, 409))

    def wave(height: float) -> tuple[int | None, ...]:
        return tuple(
            round(
                height * (0.55 - 0.45 * sin(2 * pi * (each % 86_400) / 86_400 - 3.6)) * random.uniform(0.86, 1.14)
            )
            for each in at
        )

    def seldom(often: float, most: int) -> tuple[int | None, ...]:
        return tuple(random.randint(1, most) if random.random() < often else 0 for _ in at)

    return HistoryView(60, at, wave(1_450), wave(64), seldom(0.002, 1), seldom(0.012, 3), wave(2_300))


@contextmanager
def serving_page(
    queries: FakeQueries, directory: Path, events: EventTap | None = None, port: int = 0
) -> Iterator[str]:
    """Its address, without the final slash."""
    pages, tap = Pages(queries, HOST), events or EventTap(EventRing(1))
    with serving_in_a_thread(queries, directory / "api.sock", pages.add_to, tap, port) as server:
        yield f"http://127.0.0.1:{server.port}"


@contextmanager
def chromium(program: str = CHROMIUM) -> Generator[Browser, None, None]:
    """Debian's, without a sandbox of its own: root has none. It ends with the block. `program`: runs it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def findings_of(
    held: HeldList | None = None, rejected: RejectedList | None = None, near_misses: NearMissList | None = None
) -> Findings:
    return Findings(
        held or HeldList(0, None, "", 0, 0, ()),
        rejected or RejectedList(0, 0, 0, ()),
        near_misses or NearMissList(0, 0, 0, ()),
    )


NOTHING = findings_of()


def near_miss(id: str) -> NearMissLineView:
    return NearMissLineView(
        id, "bank", "service_not_listed", "gre is not among its services", "registry: add gre", "gre",
        "198.51.100.0/24", 3, None, "2024-11-04T02:59:20Z", registrant="Khyber Bank",
    )  # fmt: skip


PICTURES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "page.jpg": ("/", {"viewport": {"width": 1500, "height": 860}}),
    "page-dark.jpg": (
        "/?q=203.0.113.5+198.51.100.7+udp/51820",
        {"viewport": {"width": 1500, "height": 860}, "color_scheme": "dark"},
    ),
}
"""Name, question, and the browser."""


def take_pictures() -> None:
    """Into docs/images, as a browser shows the gateway of the tests now."""
    IMAGES.mkdir(exist_ok=True)
    now_s = time.time()
    tap = EventTap(EventRing(1), lambda: now_s)
    tap.take("trial.applied", {"to": "reject, canary 10%", "by": "uid 1000"})
    tap.take("source.failed", {"source": "bpo", "error": "HTTP status 503"})
    tap.take("source.read", {"source": "national", "serial": 90_211, "registrations": 31_022})
    with (
        TemporaryDirectory() as directory,
        serving_page(busy_gateway(now_s), Path(directory), tap) as url,
        chromium() as browser,
    ):
        for name, (target, options) in PICTURES.items():
            page = browser.new_context(**options).new_page()
            page.goto(url + target)
            page.wait_for_selector("#events td")
            page.wait_for_selector("figure.plot canvas")
            page.screenshot(path=IMAGES / name, type="jpeg", quality=72)


if __name__ == "__main__":
    take_pictures()
