"""What a real daemon keeps of a source that is taken out of its configuration, and put back."""

from __future__ import annotations

import pytest

from gatewayd.demo.cast import ELSEWHERE, EMBASSY, FREELANCER
from gatewayd.lab.traffic import flow_of, probe
from tests.support.lab_daemon import LabDaemon

pytestmark = pytest.mark.kernel


def test_a_source_that_is_left_out_keeps_its_last_good_which_is_named_until_it_is_back(daemon: LabDaemon) -> None:
    daemon.write_registry("national", [EMBASSY])
    daemon.write_registry("desk", [FREELANCER])
    daemon.configure(sources=["national", "desk"])
    daemon.start()
    daemon.wait_ready()
    kept = daemon.directory / "registry" / "desk.sqlite3"
    # Ready is what the kernel has; what is kept on disk comes after.
    daemon.wait(kept.exists, "the last good of desk is on disk")
    daemon.end()

    daemon.configure(sources=["national"])
    daemon.start()
    daemon.wait_ready()
    said = f"store.unused source=desk file={kept}"
    daemon.wait_log(said)
    daemon.reload()
    daemon.wait_log("reload.done")
    daemon.wait_log(said, times=2)
    assert kept.exists()

    daemon.configure(sources=["national", "desk"], policy={"scope": ["udp/51900-51999"]})
    daemon.reload()
    daemon.wait_log("reload.done", times=2)
    assert daemon.log_text().count(said) == 2
    daemon.wait_mode("reject")
    assert probe(daemon.lab, [flow_of("39.34.55.123", ELSEWHERE, "udp/51900")]) == ["passed"]
