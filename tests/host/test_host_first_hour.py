"""The first hour of the documents works as printed, and its page shows the traffic."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gatewayd.lab.lab import Lab
from tests.host.first_hour import SECTION, Hour
from tests.soak.manual import OPERATIONS, read_days
from tests.support.booted import booted
from tests.support.pages import CHROMIUM, chromium

pytestmark = pytest.mark.host

ADDRESS = "http://127.0.0.1:9480/"
PATIENCE_MS = 60_000
COMPANIES_THAT_MISS = ("KHYBER-BANK", "RAVI-SOFTWARE")
STRANGERS = "39.40.9.0/24"


def test_the_commands_of_the_first_hour_work_as_printed_with_nothing_but_the_package(
    lab: Lab, suite: str, base: Path, package_of: Callable[[str], Path], tmp_path: Path
) -> None:
    with booted(lab, [base]) as host:
        shutil.copy(package_of(suite), host.root / "root")
        hour = Hour(host, read_days(OPERATIONS.read_text(), SECTION), lambda: look_at_the_page(hour, tmp_path))
        hour.run()


def look_at_the_page(hour: Hour, directory: Path) -> None:
    """In Chromium, which has the host's loopback, as a tunnel of ssh gives it to the operator."""
    program = directory / "chromium"
    program.write_text(f'#!/bin/sh\nexec nsenter --net={hour.lab.gateway.path} {CHROMIUM} "$@"\n')
    program.chmod(0o755)
    faults: list[str] = []
    elsewhere: list[str] = []
    with chromium(str(program)) as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(ADDRESS) else elsewhere.append(asked.url))
        page.goto(ADDRESS)

        def shows(part: str, words: str) -> None:
            page.locator(part, has_text=words).wait_for()

        shows("#top", "READY")
        shows("#top", "observe")
        for company in COMPANIES_THAT_MISS:
            shows("#problems", company)
        shows("#tables", STRANGERS)
        before = page.inner_text("#tables")
        # It follows without being loaded again.
        hour.send()
        page.wait_for_function("before => document.querySelector('#tables').innerText !== before", arg=before)
        page.fill("#q", "39.32.0.5 198.51.100.7 udp/500")
        page.press("#q", "Enter")
        shows("#answer", "KHYBER-BANK")
        assert "q=39.32.0.5" in page.url
    assert faults == []
    assert elsewhere == []
