"""The page of a real daemon, in a browser that is in the gateway: its traffic, its faults, its end and return."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gatewayd.demo.cast import BANK, ELSEWHERE, EMBASSY, FAR, SOFTWARE_HOUSE, STRANGER
from gatewayd.lab.lab import Lab
from gatewayd.lab.traffic import flow_of, probe
from tests.support.lab_daemon import LabDaemon
from tests.support.pages import CHROMIUM, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium (Debian package chromium)"),
]

HOUSE = "39.32.64.10"
URL = "http://127.0.0.1:9480"
_ports = count(20000)


@pytest.fixture
def page(shared_lab: Lab) -> Iterator[Page]:
    """What the thread starts is in the gateway's namespace, the browser too."""
    with shared_lab.gateway.entered(), chromium() as browser:
        found = browser.new_page()
        found.set_default_timeout(120_000)
        yield found


def test_the_page_shows_the_traffic_of_a_gateway_and_says_when_it_is_gone(daemon: LabDaemon, page: Page) -> None:
    house = {**SOFTWARE_HOUSE, "services": ["ipsec"]}
    daemon.write_registry("national", [BANK, house, EMBASSY])
    daemon.configure("reject")
    daemon.start()
    daemon.wait_ready()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(URL)
    page.wait_for_selector("#top h1:has-text('READY')")
    page.wait_for_selector(".mode strong:has-text('reject')")

    registered = flow_of(HOUSE, FAR, "udp/500", next(_ports))
    missed = flow_of(HOUSE, FAR, "udp/51820", next(_ports))
    stranger = flow_of(STRANGER, ELSEWHERE, "udp/500", next(_ports))
    assert probe(daemon.lab, [registered, missed, stranger]) == ["passed", "rejected", "rejected"]
    # Live, by the event of the near miss.
    page.wait_for_selector(f"#problems td:has-text('{house['id']}')")
    page.wait_for_selector("#tables td:has-text('39.40.9.0/24')")
    page.wait_for_selector("#events td:has-text('near_miss.found')")
    assert "registry: add the service udp/51820" in page.inner_text("#problems")

    page.fill("#q", f"{HOUSE} {FAR} udp/500")
    page.press("#q", "Enter")
    page.wait_for_selector("#answer h2.good:has-text('PASSES: it is registered and in the kernel')")
    page.goto(f"{URL}/?q={STRANGER}+{ELSEWHERE}+udp/500")
    page.wait_for_selector("#answer h2.bad:has-text('IS REJECTED: it is not registered')")

    daemon.stop_for_good()
    page.wait_for_selector("#top h1:has-text('NO ANSWER')")
    daemon.start()
    daemon.wait_ready()
    page.wait_for_selector("#top h1.good:has-text('READY')")
    page.wait_for_selector("#answer h2.bad:has-text('IS REJECTED')")
    assert faults == []
