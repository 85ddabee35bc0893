"""One lab for many tests: what a test leaves in its gateway, it clears away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.lab.lab import Lab
from gatewayd.model import parse_prefix
from tests.support.lab_daemon import LabDaemon, clean, daemon_in
from tests.support.talk import Talk


@pytest.fixture(scope="module")
def shared_lab(kernel: None) -> Iterator[Lab]:
    with Lab((parse_prefix("39.32.0.0/11"), parse_prefix("2400:adc0::/31"))) as lab:
        for name in ("udp", "gre"):
            # A connection outlives a test, however long its commands take: 30 s go by on a busy machine.
            lab.gateway.sysctl(f"net.netfilter.nf_conntrack_{name}_timeout", "3600")
        yield lab


@pytest.fixture
def daemon(shared_lab: Lab, tmp_path: Path) -> Iterator[LabDaemon]:
    clean(shared_lab)
    with daemon_in(shared_lab, tmp_path, warm=True) as made:
        yield made


@pytest.fixture(scope="module")
def lab(kernel: None) -> Iterator[Lab]:
    """Of a module's own, with customers of both families."""
    with Lab((parse_prefix("39.32.0.0/11"), parse_prefix("2400:adc0::/31"))) as made:
        yield made


@pytest.fixture
def talk(lab: Lab) -> Iterator[Talk]:
    """Packets from either side of it."""
    with Talk(lab) as made:
        yield made
