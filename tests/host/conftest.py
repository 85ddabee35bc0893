"""Booted hosts of each suite. `./run host` makes their trees first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.lab.lab import Lab
from gatewayd.model import parse_prefix
from tests.support.booted import SUITES, base_tree


@pytest.fixture(scope="module", params=SUITES)
def base(request: pytest.FixtureRequest, kernel: None) -> Path:
    """The tree of each suite in turn."""
    return base_tree(str(request.param))


@pytest.fixture
def lab(kernel: None) -> Iterator[Lab]:
    """For one host, with customers of both families."""
    with Lab((parse_prefix("39.32.0.0/11"), parse_prefix("2400:adc0::/31"))) as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [each for each in terminalreporter.getreports("passed") if "tests/host/" in each.nodeid]
    if reports:
        took_s = sum(each.duration for each in reports)
        terminalreporter.write_line(f"{len(reports)} tests on booted hosts took {took_s:.0f} s")
