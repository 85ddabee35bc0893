"""Tests with the marker `kernel` are skipped, with the reason, where the lab cannot be had."""

from __future__ import annotations

from functools import cache

import pytest

from gatewayd.demo.lab import missing_for_lab

_missing = cache(missing_for_lab)


@pytest.fixture(scope="session")
def kernel() -> None:
    """For fixtures of session or module scope that need the lab."""
    if reason := _missing():
        pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") and (reason := _missing()):
        pytest.skip(reason)
