"""Use of registrations by real flows: over a kill, a full disk, a clock that is set; and events as they come."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from gatewayd.demo.cast import BANK, EMBASSY, FAR, SOFTWARE_HOUSE
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of
from gatewayd.model import Flow
from tests.support.lab_daemon import LabDaemon, holds
from tests.support.wrong_clock import LIBRARY, NOT_INSTALLED, WrongClock

pytestmark = pytest.mark.kernel

CAST: list[dict[str, Any]] = [BANK | {"registrant": "hbl"}, SOFTWARE_HOUSE, EMBASSY]
_ports = count(20000)


def run(daemon: LabDaemon, **how: Any) -> Lab:
    daemon.write_registry("national", CAST)
    daemon.configure("reject", isp={"prefixes": ["39.32.0.0/16"], "pools": []})
    daemon.start(**how)
    daemon.wait_ready()
    return daemon.lab


def house_flow() -> Flow:
    return flow_of("39.32.64.10", FAR, "udp/51820", next(_ports))


def report(daemon: LabDaemon) -> Any:
    """Of now: the daemon writes before it answers."""
    return json.loads(daemon.ask("report", "--since", "1d", "--json").stdout)


def used(daemon: LabDaemon, id: str = str(SOFTWARE_HOUSE["id"])) -> tuple[int, int]:
    """Flows and bytes of a registration today."""
    rows = daemon.ask("report", "--since", "1d", "--csv").stdout.splitlines()
    columns = rows[0].split(",")
    for row in rows[1:]:
        found = dict(zip(columns, row.split(","), strict=True))
        if found["id"] == id:
            return int(found["flows"]), int(found["bytes"])
    raise AssertionError(rows)


def file_of(daemon: LabDaemon) -> Any:
    return next(each for each in daemon.status()["state_files"] if each["name"] == "activity")


def passes(lab: Lab, flow: Flow, packets: int = 20) -> None:
    with Stream(lab, [flow], rate_pps=100) as stream:
        assert stream.wait_for_arrivals(packets)


def test_real_flows_are_in_the_report_and_in_the_list_that_an_isp_signs(daemon: LabDaemon) -> None:
    lab = run(daemon)
    passes(lab, house_flow())
    passes(lab, house_flow())
    assert holds(lambda: used(daemon)[0] == 2)
    found = report(daemon)
    assert found["counts"]["registered"] == 3
    assert found["counts"]["active"] == 1
    assert {each["id"] for each in found["unseen"]} == {BANK["id"], EMBASSY["id"]}
    assert [each["registrant"] for each in found["groups"]].count("hbl") == 1
    assert any(each["event"] == "policy.in_force" for each in found["events"])
    listed = daemon.ask("registry", "verify", "--json")
    assert listed.returncode == 1
    verdicts = {each["id"]: each for each in json.loads(listed.stdout)["items"]}
    assert verdicts[SOFTWARE_HOUSE["id"]]["last_seen_at"] is not None
    assert "not_seen" not in verdicts[SOFTWARE_HOUSE["id"]]["findings"]
    assert "not_seen" in verdicts[BANK["id"]]["findings"]
    daemon.stop_for_good()
    offline = daemon.cli(
        "registry", "verify", "--json", "--config", str(daemon.config_path), "--socket", "/nonexistent"
    )
    assert "from the last good on disk" in offline.stderr
    assert {each["id"]: each["findings"] for each in json.loads(offline.stdout)["items"]} == {
        id: each["findings"] for id, each in verdicts.items()
    }


def test_what_changed_was_rejected_and_was_cut_is_in_the_report(daemon: LabDaemon) -> None:
    lab = run(daemon)
    with Stream(lab, [house_flow()], rate_pps=100) as stream:
        assert stream.wait_for_arrivals(20)
        daemon.write_registry("national", [CAST[0], {"id": "PK-BAD", "colour": "red"}, CAST[2]])
        assert holds(lambda: report(daemon)["flows_drained"] == 1)  # after the drain of 2 s
    found = report(daemon)
    assert [(each["came"], each["went"]) for each in found["changes"]][-1] == ([], [SOFTWARE_HOUSE["id"]])
    (record,) = found["rejected_records"]
    assert (record["source"], record["line"], record["id"]) == ("national", 2, "PK-BAD")
    page = daemon.directory / "report.html"
    assert daemon.ask("report", "--html", str(page)).returncode == 0
    assert "PK-BAD" in page.read_text()
    assert "39.32." not in page.read_text()  # no address of a client


def test_a_kill_loses_no_more_than_what_was_not_written_and_counts_nothing_twice(daemon: LabDaemon) -> None:
    lab = run(daemon)
    flow = house_flow()
    with Stream(lab, [flow], rate_pps=100) as stream:
        assert stream.wait_for_arrivals(20)
        assert holds(lambda: used(daemon)[0] == 1)
        daemon.stop_for_good()  # kill -9
        assert stream.wait_for_arrivals(20)
        daemon.start()
        daemon.wait_ready()
        assert holds(lambda: daemon.status()["watch"]["flows_tracked"] == 1)
        flows, size_bytes = used(daemon)
        assert flows == 1  # the flow goes on: it is no second one
        assert stream.wait_for_arrivals(20)
        assert size_bytes <= stream.sent * 200
    passes(lab, house_flow())
    assert holds(lambda: used(daemon)[0] == 2)


def test_a_full_disk_costs_no_traffic_and_what_waited_comes_when_there_is_room(daemon: LabDaemon) -> None:
    state = daemon.directory / "state"
    state.mkdir()
    daemon._base["state_dir"] = str(state)
    mount = f'mount -t tmpfs -o size=4m tmpfs {state} && exec "$@"'
    lab = run(daemon, wrapper=["unshare", "-m", "sh", "-c", mount, "sh"])
    filler = Path(f"/proc/{daemon.pid}/root{state}/filler")
    passes(lab, house_flow())
    assert holds(lambda: used(daemon)[0] == 1)
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    passes(lab, house_flow())
    assert holds(lambda: bool(report(daemon)) and file_of(daemon)["state"] == "failing")
    passes(lab, house_flow())
    assert any("is not written" in note for note in report(daemon)["notes"])
    assert used(daemon)[0] == 1
    daemon.wait_log("state_file.failed")
    filler.unlink()
    assert holds(lambda: used(daemon)[0] == 3)
    assert (file_of(daemon)["state"], file_of(daemon)["lost"]) == ("ok", 0)
    assert daemon.status()["ready"]


def test_a_file_of_a_newer_version_is_left_as_it_is(daemon: LabDaemon) -> None:
    path = daemon.directory / "activity.sqlite"
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    lab = run(daemon)
    passes(lab, house_flow())
    assert any("a newer gatewayd wrote it" in note for note in report(daemon)["notes"])
    assert file_of(daemon)["state"] == "newer"
    assert path.read_bytes() == before


@pytest.mark.skipif(LIBRARY is None, reason=NOT_INSTALLED)
def test_a_clock_that_was_ahead_by_a_year_takes_no_day_away(daemon: LabDaemon) -> None:
    clock = WrongClock(daemon.directory / "clock")
    lab = run(daemon, env=clock.environment)
    passes(lab, house_flow())
    assert holds(lambda: used(daemon)[0] == 1)
    clock.set_by(500 * 86400)
    passes(lab, house_flow())
    assert holds(lambda: used(daemon)[0] == 2)  # a report from now on to then
    clock.set_by(0)
    passes(lab, house_flow())
    assert holds(lambda: used(daemon)[0] in (2, 3))  # one of them may be of a day to come
    assert [each["day"] for each in report(daemon)["days"]] == [datetime.now(UTC).date().isoformat()]


def test_events_come_as_they_happen_and_a_restart_is_a_gap(daemon: LabDaemon) -> None:
    lab = run(daemon)
    command = [sys.executable, "-m", "gatewayd", "events", "-f", "--json", "--socket", str(daemon.socket_path)]
    follower = lab.gateway.popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(os.environ))
    lines: list[Any] = []
    try:
        assert follower.stdout is not None

        def has(name: str) -> bool:
            assert follower.stdout is not None
            while not any(each.get("event") == name or name in each for each in lines):
                line = follower.stdout.readline()
                assert line, lines
                lines.append(json.loads(line))
            return True

        assert has("daemon.ready")
        daemon.write_registry("national", CAST[:2])
        assert has("registry.applied")
        lab.gateway.run(["nft", "flush", "chain", "inet", "gatewayd", "forward"])
        assert has("reconcile.external_change")
        assert daemon.ask("reload").returncode == 0
        assert has("reload.done")
        lines.clear()
        os.kill(daemon.pid, SIGTERM)
        assert holds(lambda: not daemon.is_running())
        daemon.start()
        assert has("gap")
        assert lines[-1]["gap"] == {"reason": "restart", "missed": None}
        assert has("daemon.ready")
    finally:
        follower.kill()
        follower.wait()
        assert follower.stdout is not None
        follower.stdout.close()
