"""Tests with the marker `kernel` are skipped, with the reason, where the lab cannot be had.

`./run test` runs them in a user namespace where it is not root. With CI=true in the environment a kernel test
that is skipped, for whatever reason, fails: there, nobody would read that it was.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import Counter
from collections.abc import Generator
from functools import cache

import pytest
from hypothesis import Phase, settings

from gatewayd.lab.lab import missing_for_lab

_missing = cache(missing_for_lab)
FUZZ_INPUTS = "fuzz inputs"
"""Property of a report of tests/fuzz: how many there were."""
_SKIPPED = "kernel test skipped"
"""Property of a report, with the reason: reports come from other processes too (pytest-xdist)."""


# Collection makes many objects and no garbage: to look for cycles among them is a fifth of its time.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The tests that were found stay to the end: no later look for cycles goes through them again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def kernel() -> None:
    """For fixtures of session or module scope that need the lab."""
    if reason := _missing():
        pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") and (reason := _missing()):
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("kernel"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if os.environ.get("CI") == "true":
            report.outcome = "failed"
            report.longrepr = f"a kernel test may not be skipped in CI: {reason}"
        else:
            report.user_properties.append((_SKIPPED, reason))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("skipped")
    # A file that is skipped whole has a report without properties.
    found = (pair for report in reports for pair in getattr(report, "user_properties", ()))
    skipped = Counter(str(value) for name, value in found if name == _SKIPPED)
    for reason, count in sorted(skipped.items()):
        terminalreporter.write_line(f"{count} kernel tests did not run: {reason}", yellow=True)
    passed = terminalreporter.getreports("passed")
    inputs = [value for each in passed for name, value in each.user_properties if name == FUZZ_INPUTS]
    if inputs:
        terminalreporter.write_line(f"{sum(inputs):,} inputs fuzzed, {len(inputs)} targets")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """gzip writes the time into its header: a test's name is the same in every process all the same."""
    return f"{argname}_gz" if isinstance(val, bytes) and b"\x1f\x8b\x08" in val else None


# A shell has what it starts in the background ignore SIGINT, and so would every program that a test interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is no property of the code; timing lives in the benchmark.
settings.register_profile("gatewayd", deadline=None)
# For ./run cover: random examples differ between releases of Python, and a gate must not.
settings.register_profile("explicit", deadline=None, phases=[Phase.explicit])
settings.load_profile("gatewayd")
