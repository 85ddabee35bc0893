"""A gateway that goes back to an older version: its state directory is that of a newer one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewayd.demo.cast import FAR, SOFTWARE_HOUSE, STRANGER
from gatewayd.lab.traffic import flow_of, probe
from tests.support.lab_daemon import LabDaemon
from tests.support.newer import contents_of, make_newer, make_newer_last_good, newer_guard

pytestmark = pytest.mark.kernel

HOUSE = "39.32.64.10"


def test_traffic_passes_as_before_and_each_file_is_left_byte_for_byte(daemon: LabDaemon) -> None:
    daemon.write_registry("national", [SOFTWARE_HOUSE])
    daemon.configure("reject")
    daemon.start()
    daemon.wait_ready()
    state = Path(daemon.directory)
    last_good = state / "registry" / "national.sqlite3"
    daemon.wait(last_good.exists, "the last good is on disk")
    daemon.wait((state / "guard").exists, "the guard's record is on disk")
    daemon.end()
    databases = sorted(state.glob("*.sqlite"))
    assert databases
    for each in databases:
        make_newer(each, ["PRAGMA user_version = 99"], killed=False)
    make_newer_last_good(last_good)
    (state / "guard").write_bytes(newer_guard((state / "guard").read_bytes()))
    names = {str(each.relative_to(state)) for each in (*databases, last_good, state / "guard")}
    before = {name: content for name, content in contents_of(state).items() if name in names}

    daemon.start()
    daemon.wait_ready()
    flows = [flow_of(HOUSE, FAR, "udp/51820", 30001), flow_of(STRANGER, FAR, "udp/51820", 30002)]
    assert probe(daemon.lab, flows) == ["passed", "rejected"]
    # Another record has all of it tried: the last good, the guard, and the rows of a minute at the end.
    second = {**SOFTWARE_HOUSE, "id": "second", "clients": ["39.32.70.0/29"]}
    daemon.write_registry("national", [SOFTWARE_HOUSE, second])
    late = flow_of("39.32.70.1", FAR, "udp/51820")
    daemon.wait(lambda: probe(daemon.lab, [late]) == ["passed"], "it is in force")
    daemon.wait(
        lambda: "a newer gatewayd wrote it" in str(daemon.status()["sources"][0]["store_error"]), "it is said"
    )
    daemon.end()
    after = {name: content for name, content in contents_of(state).items() if name in names}
    assert after == before
