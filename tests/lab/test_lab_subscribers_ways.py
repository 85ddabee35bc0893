"""The other ways by which a gateway hears of subscribers, what operators see of them, and disks that fail."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatewayd.demo.cast import FAR
from gatewayd.demo.gateway import _UnixConnection
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.lab.world import subscriber_of
from gatewayd.model import Flow, parse_address
from tests.lab.test_lab_subscribers import (
    ABROAD,
    CODER,
    FREELANCER,
    HOME,
    NUMBER,
    SOMEBODY,
    run,
    wait_passes,
    wireguard,
)
from tests.support.freeradius import FreeRadius, Way
from tests.support.lab_daemon import LabDaemon, elements, holds
from tests.support.nas import Nas
from tests.support.radius import attribute, extended, integer

pytestmark = pytest.mark.kernel

_ports = count(30000)


@pytest.fixture
def nas(daemon: LabDaemon) -> Iterator[Nas]:
    with Nas(daemon.lab.gateway) as made:
        yield made


def ask(daemon: LabDaemon, method: str, body: Any) -> tuple[int, Any]:
    connection = _UnixConnection(daemon.socket_path)
    try:
        connection.request(method, "/v1/bindings", msgspec.json.encode(body))
        response = connection.getresponse()
        return response.status, msgspec.json.decode(response.read())
    finally:
        connection.close()


# -- ways in -------------------------------------------------------------------------------------------------------


def test_a_dhcp_server_tells_by_the_api(daemon: LabDaemon) -> None:
    lab = run(daemon, subscribers={"radius": None})
    entry = {"nas": "dhcp-1", "session": "lease-17", "number": NUMBER, "addresses": [HOME], "interim": 3600}
    assert ask(daemon, "PUT", entry) == (200, {"sessions": 1, "passed_over": {}, "conflicting": 0})
    wait_passes(lab, HOME)
    assert ask(daemon, "PUT", entry | {"addresses": [ABROAD]})[0] == 200
    wait_passes(lab, ABROAD)
    daemon.end(signal.SIGKILL)
    daemon.start()
    daemon.wait_ready()
    assert probe(lab, [wireguard(ABROAD)]) == ["passed"]
    assert probe(lab, [wireguard(HOME)]) == ["rejected"]
    assert ask(daemon, "DELETE", {"nas": "dhcp-1", "session": "lease-17"}) == (200, {"sessions": 1})
    assert holds(lambda: probe(lab, [wireguard(ABROAD)]) == ["rejected"])


def test_a_bad_entry_is_refused_with_its_place_and_nothing_of_its_list_is_taken(daemon: LabDaemon) -> None:
    lab = run(daemon)
    good = {"nas": "dhcp-1", "session": "1", "number": NUMBER, "addresses": [HOME]}
    status, answer = ask(daemon, "PUT", [good, good | {"session": "2", "addresses": ["0.0.0.0"]}])
    assert status == 400
    assert (answer["entry"], answer["field"]) == (1, "addresses")
    assert probe(lab, [wireguard(HOME)]) == ["rejected"]
    with pytest.raises(subprocess.CalledProcessError):  # read only there
        lab.gateway.run(["curl", "-sSf", "-X", "PUT", "http://127.0.0.1:9480/v1/bindings", "-d", "{}"])


@pytest.mark.parametrize("suffix", ["csv", "ndjson"])
def test_a_list_of_sessions_is_read_at_a_cold_start(daemon: LabDaemon, suffix: str) -> None:
    digest = subscriber_of(1)
    lists = {
        "csv": f"nas,session,subscriber,addresses,ports,at,interim\nbng-9,s1,{digest},{HOME},,,\nbng-9,,x,,,,\n",
        "ndjson": msgspec.json.encode(
            {"nas": "bng-9", "session": "s1", "number": NUMBER, "addresses": [HOME]}
        ).decode()
        + "\nrubbish\n",
    }
    path = daemon.write_file(f"sessions.{suffix}", lists[suffix].encode())
    lab = run(daemon, subscribers={"sessions_file": str(path)})
    wait_passes(lab, HOME)
    daemon.wait_log("sessions_file.refused")
    with Nas(lab.gateway, "bng-9") as nas:
        nas.stop("s1", NUMBER, HOME)
    assert holds(lambda: probe(lab, [wireguard(HOME)]) == ["rejected"])


@pytest.mark.parametrize("way", ["buffered", "replicate"])
def test_real_freeradius_hands_on_what_its_nas_says(daemon: LabDaemon, tmp_path: Path, way: Way) -> None:
    lab = run(daemon)
    (daemon.directory / "radius.secret").write_text("what-gatewayd-has\n")
    daemon.reload()
    daemon.wait_log("reload.done")
    scratch = tmp_path / "freeradius"
    scratch.mkdir()
    word = f'Acct-Session-Id = "s1", NAS-Identifier = "bng-7", Calling-Station-Id = "{NUMBER}"'
    with FreeRadius(scratch, way, ("127.0.0.1", 1813), namespace=lab.gateway) as radius:
        assert radius.send(f"Acct-Status-Type = Start, {word}, Framed-IP-Address = {HOME}", tries=5)
        wait_passes(lab, HOME)
        assert daemon.get("/v1/bindings")["items"][0]["nas"] == "bng-7"
        assert radius.send(f"Acct-Status-Type = Stop, {word}, Framed-IP-Address = {HOME}", tries=5)
        assert holds(lambda: probe(lab, [wireguard(HOME)]) == ["rejected"])


# -- a shared address ----------------------------------------------------------------------------------------------


def from_port(source: str, port: int, service: str = "udp/51820") -> Flow:
    return flow_of(source, FAR, service, port)


def test_of_a_shared_address_only_the_subscribers_ports_pass(daemon: LabDaemon, nas: Nas) -> None:
    """RFC 8045: an address and a block of its ports. The gateway is outside of the NAT."""
    lab = run(daemon, subscribers={"profile": {"nat_side": "outside"}})
    block = extended(6, port_range(2000, 2999, HOME))
    nas.exchange(nas.encode(1, "s1", NUMBER, extra=block))
    assert holds(lambda: probe(lab, [from_port(HOME, 2500)]) == ["passed"])
    edges = [from_port(HOME, port) for port in (2000, 2999, 1999, 3000, 52000)]
    assert probe(lab, edges) == ["passed", "passed", "rejected", "rejected", "rejected"]
    assert probe(lab, [flow_of(HOME, FAR, "esp"), flow_of(HOME, FAR, "gre")]) == ["rejected"] * 2
    items = daemon.get("/v1/bindings")["items"]
    assert [(each["prefix"], each["ports"]) for each in items] == [(f"{HOME}/32", [2000, 2999])]
    nas.stop("s1", NUMBER)
    assert holds(lambda: probe(lab, [from_port(HOME, 2501)]) == ["rejected"])


def port_range(first: int, last: int, address: str) -> bytes:
    """IP-Port-Range (RFC 8045 §3.1.2): IP-Port-Range-Start, -End, and the external address."""
    return attribute(3, parse_address(address)) + integer(9, first) + integer(10, last)


# -- what is seen --------------------------------------------------------------------------------------------------


def test_an_operator_sees_who_has_what_and_why(daemon: LabDaemon, nas: Nas) -> None:
    lab = run(daemon)
    nas.start("s1", NUMBER, HOME)
    nas.start("s2", SOMEBODY, ABROAD)
    wait_passes(lab, HOME)
    listed = daemon.ask("bindings")
    assert listed.returncode == 0
    assert f"{HOME}/32" in listed.stdout
    assert FREELANCER["id"] in listed.stdout
    assert ABROAD not in listed.stdout
    explained = daemon.ask("explain", HOME, FAR, "udp/51820")
    assert "bng-1" in explained.stdout
    assert FREELANCER["id"] in explained.stdout
    status = daemon.ask("status")
    assert "2 sessions" in status.stdout.replace(",", "")
    planned = daemon.cli("plan", "--config", str(daemon.config_path))
    assert (planned.returncode, planned.stdout.strip()) == (0, "Nothing would change.")
    told = listed.stdout + explained.stdout + status.stdout + daemon.log_text()
    for each in (NUMBER[1:], SOMEBODY[1:], subscriber_of(1).partition(":")[2]):
        assert each not in told


# -- disks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "directory"])
def test_a_damaged_journal_costs_bindings_until_the_next_word_never_the_start(
    daemon: LabDaemon, nas: Nas, damage: str
) -> None:
    lab = run(daemon)
    nas.start("s1", NUMBER, HOME)
    wait_passes(lab, HOME)
    daemon.end(signal.SIGKILL)
    path = daemon.directory / "sessions.sqlite"
    for leftover in daemon.directory.glob("sessions.sqlite-*"):
        leftover.unlink()
    raw = path.read_bytes()
    path.unlink()
    match damage:
        case "cut":
            path.write_bytes(raw[: len(raw) // 2])
        case "noise":
            path.write_bytes(os.urandom(len(raw)))
        case "empty":
            path.touch()
        case _:
            path.mkdir()
    daemon.start()
    daemon.wait_ready()
    nas.interim("s1", NUMBER, HOME)
    wait_passes(lab, HOME)
    daemon.end(signal.SIGTERM)
    daemon.start()
    daemon.wait_ready()
    assert probe(lab, [wireguard(HOME)]) == ["passed"]


@contextmanager
def small_disk(path: Path, size: str = "512k") -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    """Until there is no space left."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_cuts_nobody_off(daemon: LabDaemon, nas: Nas, tmp_path: Path) -> None:
    """What was answered meanwhile is made good once there is room again."""
    with small_disk(tmp_path / "state") as state:
        daemon.write_registry("national", [FREELANCER, CODER])
        daemon._base["state_dir"] = str(state)
        lab = run(daemon)
        nas.start("s1", NUMBER, HOME)
        wait_passes(lab, HOME)
        filler = state / "filler"
        fill(filler)
        assert os.statvfs(state).f_bavail == 0
        for number in range(1, 60):
            nas.interim("s1", NUMBER, f"39.41.{number}.1")
        wait_passes(lab, "39.41.59.1")
        daemon.wait_log("journal.suspended")
        filler.unlink()
        daemon.wait_log("journal.resumed")
        daemon.end(signal.SIGKILL)
        daemon.start()
        daemon.wait_ready()
        assert probe(lab, [wireguard("39.41.59.1")]) == ["passed"]
        daemon.stop_for_good()


def test_bindings_stay_while_the_registry_is_away_and_go_when_it_takes_them_back(
    daemon: LabDaemon, nas: Nas
) -> None:
    lab = run(daemon)
    nas.start("s1", NUMBER, HOME)
    wait_passes(lab, HOME)
    (daemon.directory / "national.ndjson").rename(daemon.directory / "away.ndjson")
    daemon.end(signal.SIGKILL)
    daemon.start()
    daemon.wait_ready()
    assert probe(lab, [wireguard(HOME)]) == ["passed"]
    daemon.write_registry("national", [CODER])
    assert holds(lambda: probe(lab, [wireguard(HOME)]) == ["rejected"])
    assert not any(bytes((39, 41, 0, 7)) in keys for keys in elements(lab).values())


def test_the_api_without_the_section_says_so(daemon: LabDaemon) -> None:
    daemon.write_registry("national", [CODER])
    daemon.configure("reject")
    daemon.start()
    daemon.wait_ready()
    status, answer = ask(daemon, "PUT", {"nas": "a", "session": "b", "number": NUMBER, "addresses": [HOME]})
    assert status == 409
    assert "subscribers" in answer["error"]
