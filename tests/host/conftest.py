"""Booted hosts of each suite. `./run host` makes their trees first."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from gatewayd.lab.lab import Lab
from gatewayd.model import parse_prefix
from tests.support.booted import SUITES, BootedHost, add_layer, base_tree, booted
from tests.support.packages import debian_package


@pytest.fixture(scope="module", params=SUITES)
def suite(request: pytest.FixtureRequest, kernel: None) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(suite: str) -> Path:
    """The tree of each suite in turn."""
    return base_tree(suite)


@pytest.fixture(scope="session")
def package_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Of a suite."""
    return cache(lambda suite: debian_package(suite, tmp_path_factory.mktemp(f"package-{suite}")))


@pytest.fixture(scope="session")
def layers_of(package_of: Callable[[str], Path]) -> Callable[[str], list[Path]]:
    """Of a host of a suite that has the package and no configuration."""

    @cache
    def install(suite: str) -> list[Path]:
        package = package_of(suite)
        layer = package.parent / "installed"
        (layer / "root").mkdir(parents=True)
        shutil.copy(package, layer / "root")
        base = base_tree(suite)
        add_layer(base, layer, "dpkg", "--install", f"/root/{package.name}")
        return [layer, base]

    return install


@pytest.fixture(scope="module")
def installed(suite: str, layers_of: Callable[[str], list[Path]]) -> list[Path]:
    return layers_of(suite)


CUSTOMERS = (parse_prefix("39.32.0.0/11"), parse_prefix("2400:adc0::/31"))


@pytest.fixture
def lab(kernel: None) -> Iterator[Lab]:
    """For one host, with customers of both families."""
    with Lab(CUSTOMERS) as made:
        yield made


@pytest.fixture
def second_lab(kernel: None) -> Iterator[Lab]:
    """For the same host after a reboot, which leaves nothing in a kernel; it forwards nothing yet."""
    with Lab(CUSTOMERS) as made:
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            made.gateway.sysctl(name, "0")
        yield made


@pytest.fixture
def host(lab: Lab, installed: list[Path]) -> Iterator[BootedHost]:
    """With the package installed, and not configured."""
    with booted(lab, installed) as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [each for each in terminalreporter.getreports("passed") if "tests/host/" in each.nodeid]
    if reports:
        took_s = sum(each.duration for each in reports)
        terminalreporter.write_line(f"{len(reports)} tests on booted hosts took {took_s:.0f} s")
