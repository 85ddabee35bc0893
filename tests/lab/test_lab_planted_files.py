"""What lies in the place of each file of the state directory at a start: the daemon starts, and no link is written
through."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gatewayd.demo.cast import BANK, FAR, SOFTWARE_HOUSE
from gatewayd.lab.traffic import flow_of
from tests.support.lab_daemon import LabDaemon

pytestmark = pytest.mark.kernel

INPUTS = frozenset({"national.ndjson", "gatewayd.yaml", "gatewayd.log", "api.sock", "elsewhere"})
VICTIM = b"of another program\n"


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def dangling(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("made"))


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, _: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("plant", [link, dangling, pipe, directory], ids=lambda plant: plant.__name__)
def test_a_start_with_strange_things_in_the_state_directory(
    daemon: LabDaemon, plant: Callable[[Path, Path], None]
) -> None:
    daemon.write_registry("national", [BANK])
    daemon.configure("reject")
    daemon.start()
    daemon.wait_ready()
    assert daemon.ask("mode", "mark", "--for", "1s").returncode == 0
    daemon.wait(lambda: daemon.get("/v1/trial")["notices"] != [], "the end of the trial")
    daemon.end()
    written = [
        path
        for path in sorted(daemon.directory.rglob("*"))
        if path.is_file() and path.relative_to(daemon.directory).parts[0] not in INPUTS
    ]
    assert len(written) >= 5, written
    victim = daemon.directory / "elsewhere" / "victim"
    victim.parent.mkdir()
    victim.write_bytes(VICTIM)
    for path in written:
        path.unlink()
        plant(path, victim)
    daemon.start()
    daemon.wait_ready()
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
    daemon.wait_in_kernel(flow_of("39.32.64.10", FAR, "udp/51820", 40000))
    assert daemon.status()["ready"]
    daemon.end()
    assert victim.read_bytes() == VICTIM
    assert [each.name for each in victim.parent.iterdir()] == ["victim"]
