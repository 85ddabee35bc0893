"""Trials of a mode with packets: kept, forgotten, killed, held up, and by a wrong clock."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatewayd.demo.cast import BANK, FAR, SOFTWARE_HOUSE, STRANGER
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import Outcome, flow_of, probe
from gatewayd.model import Flow
from gatewayd.trial.record import decode_state, encode_state
from tests.support.holding import holding, write_large_ruleset
from tests.support.lab_daemon import LabDaemon, decode, holds
from tests.support.wrong_clock import LIBRARY, NOT_INSTALLED, WrongClock

pytestmark = pytest.mark.kernel

HOUSE = "39.32.64.10"
_ports, _peers = count(30000), count(1)


def customer() -> Flow:
    return flow_of(HOUSE, FAR, "udp/51820", next(_ports))


def stranger(daemon: LabDaemon) -> Outcome:
    """What becomes of a new flow of somebody who is not registered."""
    return probe(daemon.lab, [flow_of(STRANGER, FAR, "udp/51820", next(_ports))])[0]


@contextmanager
def registered_traffic(lab: Lab) -> Iterator[None]:
    """Not a packet of it is lost."""
    with Stream(lab, [customer(), customer()], rate_pps=200.0) as stream:
        assert holds(lambda: stream.arrived > 10)
        yield
    assert stream.report().lost == ()


@pytest.fixture
def gateway(daemon: LabDaemon) -> LabDaemon:
    """In observe by its file, and ready."""
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
    daemon.configure("observe")
    daemon.start()
    daemon.wait_ready()
    return daemon


def pending(daemon: LabDaemon) -> Any:
    return daemon.get("/v1/trial")["pending"]


def notices(daemon: LabDaemon) -> list[str]:
    return [each["kind"] for each in daemon.get("/v1/trial")["notices"]]


def order(daemon: LabDaemon, *arguments: str) -> None:
    """A command that succeeds."""
    done = daemon.ask(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def record(daemon: LabDaemon) -> Path:
    return daemon.directory / "trial.json"


def restart(daemon: LabDaemon, **options: Any) -> None:
    daemon.start(**options)
    daemon.wait_ready()


# -- confirmed and forgotten -------------------------------------------------------------------------------------


def test_a_trial_that_is_forgotten_is_taken_back_while_traffic_flows(gateway: LabDaemon) -> None:
    with registered_traffic(gateway.lab):
        assert stranger(gateway) == "passed"
        order(gateway, "mode", "reject", "--confirm", "6s", "--comment", "order 17")
        assert stranger(gateway) == "rejected"
        assert gateway.ask("trial").returncode == 0
        first = gateway.ask("status").stdout.splitlines()[0]
        assert first.startswith("READY; TRIAL of reject, canary 100%: reverts to observe in ")
        assert holds(lambda: stranger(gateway) == "passed", deadline_s=30)
    assert gateway.ask("trial").returncode == 1
    assert "REVERTED" in gateway.ask("status").stdout.splitlines()[0]
    gateway.wait_log("mode.stepped_back")
    order(gateway, "trial", "--ack")
    assert gateway.ask("status").stdout.startswith("READY\n")
    assert b"gatewayd_trial_reverts_total 1.0" in gateway_metrics(gateway)


def gateway_metrics(daemon: LabDaemon) -> bytes:
    asked = ["curl", "-s", "--unix-socket", str(daemon.socket_path), "http://gatewayd/metrics"]
    return daemon.lab.gateway.run(asked).stdout.encode()


def test_a_trial_that_is_confirmed_stays_and_is_written_into_the_file(gateway: LabDaemon) -> None:
    with registered_traffic(gateway.lab):
        order(gateway, "mode", "reject", "--confirm", "5s", "--canary", "100%")
        order(gateway, "confirm")
        assert holds(lambda: pending(gateway) is None)
        gateway.end(signal.SIGTERM)
        assert stranger(gateway) == "rejected"  # the kernel goes on
        restart(gateway)
        assert stranger(gateway) == "passed"  # the file counts
        order(gateway, "mode", "reject")
        order(gateway, "mode", "--write")
        assert yaml.safe_load(gateway.config_path.read_text())["policy"]["mode"] == "reject"
        gateway.end(signal.SIGTERM)
        restart(gateway)
        assert stranger(gateway) == "rejected"


def test_a_trial_with_an_end_and_a_reload_meanwhile(gateway: LabDaemon) -> None:
    with registered_traffic(gateway.lab):
        order(gateway, "mode", "reject", "--for", "8s")
        refused = gateway.ask("reload")
        assert (refused.returncode, "a trial of reject, canary 100% is pending" in refused.stdout) == (1, True)
        assert gateway.ask("confirm").returncode == 1
        assert stranger(gateway) == "rejected"
        assert holds(lambda: notices(gateway) == ["ended"], deadline_s=30)
        assert holds(lambda: stranger(gateway) == "passed")
        order(gateway, "reload")


def test_a_trial_with_an_end_leaves_a_report(gateway: LabDaemon, tmp_path: Path) -> None:
    file = tmp_path / "trial.html"
    asking = gateway.lab.gateway.popen(
        ["sh", "-c", f"exec {command(gateway, 'mode', 'reject', '--for', '8s', '--report', str(file))}"]
    )
    gateway.wait_mode("reject")
    assert [stranger(gateway) for _ in range(5)] == ["rejected"] * 5
    assert asking.wait(120) == 0
    page = file.read_text()
    assert "how it ended" in page
    assert "rejected packets" in page
    assert STRANGER not in page
    assert stranger(gateway) == "passed"
    again = tmp_path / "again.html"
    order(gateway, "trial", "--report", str(again))
    assert again.read_text() == page
    gateway.end(signal.SIGTERM)
    restart(gateway)
    order(gateway, "trial", "--report", str(again))


# -- kill -9 at each step ----------------------------------------------------------------------------------------


def test_killed_while_it_is_pending_the_trial_goes_on_and_is_taken_back_in_time(gateway: LabDaemon) -> None:
    with registered_traffic(gateway.lab):
        order(gateway, "mode", "reject", "--confirm", "30s")
        gateway.end(signal.SIGKILL)
        assert stranger(gateway) == "rejected"
        restart(gateway)
        assert pending(gateway)["to"]["mode"] == "reject"
        assert stranger(gateway) == "rejected"
        assert holds(lambda: stranger(gateway) == "passed", deadline_s=60)
        assert notices(gateway) == ["reverted"]


def test_killed_and_down_until_after_its_time_it_comes_back_disarmed(gateway: LabDaemon) -> None:
    with registered_traffic(gateway.lab):
        order(gateway, "mode", "reject", "--confirm", "3s")
        gateway.end(signal.SIGKILL)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert stranger(gateway) == "rejected"
        restart(gateway)
        assert (stranger(gateway), notices(gateway)) == ("passed", ["reverted"])


def test_killed_while_it_is_being_applied_it_is_not_armed(gateway: LabDaemon, tmp_path: Path) -> None:
    write_large_ruleset(tmp_path / "large.nft")
    with registered_traffic(gateway.lab):
        with holding(gateway.lab.gateway, tmp_path / "large.nft"):
            asking = gateway.lab.gateway.popen(
                ["sh", "-c", f"sleep 1; exec {command(gateway, 'mode', 'reject', '--confirm', '60s')}"]
            )
            assert holds(lambda: record(gateway).exists())
            gateway.end(signal.SIGKILL)
            asking.kill()
            asking.wait()
        restart(gateway)
        assert (pending(gateway), notices(gateway)) == (None, ["cut_short"])
        assert stranger(gateway) == "passed"


def command(daemon: LabDaemon, *arguments: str) -> str:
    return " ".join([sys.executable, "-m", "gatewayd", *arguments, "--socket", str(daemon.socket_path)])


def test_another_program_holds_nf_tables_at_the_moment_of_the_revert_and_the_daemon_is_killed(
    gateway: LabDaemon, tmp_path: Path
) -> None:
    write_large_ruleset(tmp_path / "large.nft")
    with registered_traffic(gateway.lab):
        order(gateway, "mode", "reject", "--confirm", "4s")
        with holding(gateway.lab.gateway, tmp_path / "large.nft"):
            gateway.wait_log("trial.reverting")
            gateway.end(signal.SIGKILL)
        restart(gateway)
        assert holds(lambda: stranger(gateway) == "passed")
        assert notices(gateway) == ["reverted"]


def test_another_program_holds_nf_tables_at_the_moment_of_the_revert(gateway: LabDaemon, tmp_path: Path) -> None:
    write_large_ruleset(tmp_path / "large.nft")
    with registered_traffic(gateway.lab):
        order(gateway, "mode", "reject", "--confirm", "4s")
        with holding(gateway.lab.gateway, tmp_path / "large.nft"):
            gateway.wait_log("trial.reverting")
            assert holds(lambda: stranger(gateway) == "passed", deadline_s=120)
        assert pending(gateway) is None
        assert holds(lambda: "mode.stepped_back" in gateway.log_text())


# -- reboot, clock, disk -----------------------------------------------------------------------------------------


def test_rebooted_within_the_window_nothing_is_armed(gateway: LabDaemon) -> None:
    """As a reboot leaves it: an empty kernel, and a record of another boot."""
    order(gateway, "mode", "reject", "--confirm", "1h")
    gateway.end(signal.SIGKILL)
    gateway.lab.gateway.run(["nft", "flush", "ruleset"])
    state = decode_state(record(gateway).read_bytes())
    assert state.trial is not None
    before = replace(state, trial=replace(state.trial, boot_id="another"))
    record(gateway).write_bytes(encode_state(before))
    restart(gateway)
    assert (pending(gateway), notices(gateway), stranger(gateway)) == (None, ["rebooted"], "passed")
    # And so it is after the next restart.
    gateway.end(signal.SIGTERM)
    restart(gateway)
    assert (stranger(gateway), notices(gateway)) == ("passed", ["rebooted"])


@pytest.mark.skipif(LIBRARY is None, reason=NOT_INSTALLED)
@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_the_clock_is_set_by_an_hour_and_the_trial_lasts_as_long_as_it_was_to(
    daemon: LabDaemon, tmp_path: Path, step_s: int
) -> None:
    clock = WrongClock(tmp_path / "faketime")
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
    daemon.configure("observe")
    daemon.start(env=clock.environment)
    daemon.wait_ready()
    with registered_traffic(daemon.lab):
        began_s = time.monotonic()
        order(daemon, "mode", "reject", "--confirm", "8s")
        clock.set_by(step_s)
        while time.monotonic() < began_s + 6:
            assert stranger(daemon) == "rejected"
        assert holds(lambda: stranger(daemon) == "passed", deadline_s=30)
        assert time.monotonic() - began_s >= 8
        assert notices(daemon) == ["reverted"]


def test_a_full_disk_refuses_to_arm_and_lets_disarm(daemon: LabDaemon) -> None:
    state = daemon.directory / "state"
    state.mkdir()
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
    daemon.configure("observe")
    document = yaml.safe_load(daemon.config_path.read_text()) | {"state_dir": str(state)}
    daemon.write_file("gatewayd.yaml", yaml.safe_dump(document).encode())
    mount = f'mount -t tmpfs -o size=16m tmpfs {state} && exec "$@"'
    daemon.start(wrapper=["unshare", "-m", "sh", "-c", mount, "sh"])
    daemon.wait_ready()
    inside = Path(f"/proc/{daemon.pid}/root{state}")
    with registered_traffic(daemon.lab):
        order(daemon, "mode", "limit", "--confirm", "1h")
        fill(inside / "full")
        refused = daemon.ask("mode", "reject", "--confirm", "1h")
        assert (refused.returncode, "No space left on device" in refused.stderr) == (1, True)
        assert daemon.status()["mode"] == "limit"
        order(daemon, "mode", "observe")
        assert daemon.status()["mode"] == "observe"
        assert not (inside / "trial.json").exists()
        (inside / "full").unlink()
        order(daemon, "mode", "reject", "--confirm", "1h")
        assert stranger(daemon) == "rejected"


def fill(path: Path) -> None:
    with path.open("wb") as file:
        try:
            while True:
                os.write(file.fileno(), bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


# -- the trip ----------------------------------------------------------------------------------------------------


def near_miss(number: int) -> Flow:
    """Of the bank, to a peer that its registration does not name."""
    return flow_of("39.32.0.5", f"203.0.113.{number}", "udp/4500", next(_ports))


def test_near_misses_past_the_threshold_disarm_until_it_is_rearmed(daemon: LabDaemon) -> None:
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
    daemon.configure("reject", policy={"trip": {"near_misses": 3}})
    daemon.start()
    daemon.wait_ready()
    with registered_traffic(daemon.lab):
        assert stranger(daemon) == "rejected"
        daemon.wait(lambda: daemon.status()["kernel"]["last_verified_at"] is not None, "looked at")
        for _ in range(10):  # the same client tries again and again
            assert probe(daemon.lab, [near_miss(90)]) == ["rejected"]
        assert daemon.status()["mode"] == "reject"
        assert holds(lambda: probe(daemon.lab, [near_miss(next(_peers))]) == ["passed"], deadline_s=60)
        assert holds(lambda: stranger(daemon) == "passed")
        first = daemon.ask("status").stdout.splitlines()[0]
        assert "TRIPPED: observe since" in first
        assert "near misses within a minute, more than 3: DEMO-BANK" in first
        assert daemon.ask("mode", "reject", "--confirm", "10m").returncode == 1
        daemon.end(signal.SIGKILL)
        restart(daemon)
        assert stranger(daemon) == "passed"
        order(daemon, "rearm")
        assert holds(lambda: stranger(daemon) == "rejected")


def test_stopped_for_good_the_log_says_that_the_kernel_keeps_the_mode(gateway: LabDaemon) -> None:
    order(gateway, "mode", "reject", "--confirm", "3s")
    gateway.end(signal.SIGTERM)
    assert "trial.left" in gateway.log_text()
    restart(gateway)
    assert holds(lambda: stranger(gateway) == "passed")
    assert notices(gateway) == ["reverted"]


# -- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("mode", "refuse"), 2, "'refuse' is not one of"),
        (("confirm",), 1, "no trial is pending"),
        (("revert",), 1, "no trial is pending"),
        (("rearm",), 1, "has not tripped"),
        (("trial", "--ack"), 1, "no revert to acknowledge"),
        (("mode", "observe", "--confirm", "10m"), 1, "observe needs no timer"),
        (("mode", "reject", "--confirm", "soon"), 2, "expected a duration"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    gateway: LabDaemon, arguments: tuple[str, ...], status: int, sentence: str
) -> None:
    done = gateway.ask(*arguments)
    assert (done.returncode, sentence in done.stderr) == (status, True), done.stderr
    assert decode(gateway.ask("mode", "--json").stdout)["mode"] == "observe"
