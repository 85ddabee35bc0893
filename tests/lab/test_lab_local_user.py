"""What others on the host can do to the daemon, a user without any right first: nothing that lasts or ends it."""

from __future__ import annotations

import fcntl
import http.client
import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from gatewayd.demo.cast import BANK, EMBASSY, FAR, SOFTWARE_HOUSE
from gatewayd.lab.traffic import flow_of
from tests.support.lab_daemon import LabDaemon, holds

pytestmark = pytest.mark.kernel

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
HAMMER = """
import resource, select, socket, sys
port, wanted, hold = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held, made = [], 0
while True:
    if len(held) < hold:
        each = socket.socket()
        each.settimeout(1)
        try:
            each.connect(("127.0.0.1", port))
            each.send(b"GET /v1/registrations?q=x HTTP/1.1\\r\\nHost: a\\r\\nX: ")
            held.append(each)
            made += 1
        except OSError:
            each.close()
        if made == wanted:
            print("made", flush=True)
    if made % 50 == 0 or len(held) >= hold:
        for each in select.select(held[-1000:], [], [], 0)[0] if held else ():
            held.remove(each)
            each.close()
"""
FILES_WANTED = 1500
"""More than the daemon may have open in the first test."""


@contextmanager
def hammering(daemon: LabDaemon, wanted: int) -> Iterator[None]:
    """An unprivileged user opens connections and never ends a request; it has made as many as are `wanted`."""
    with daemon.lab.gateway.popen(
        [*NOBODY, "/usr/bin/python3", "-c", HAMMER, "9480", str(wanted), str(wanted)], stdout=subprocess.PIPE
    ) as attacker:
        try:
            assert attacker.stdout is not None
            assert attacker.stdout.readline() == b"made\n"
            yield
        finally:
            attacker.kill()


def healthz(daemon: LabDaemon) -> int | None:
    """The status of a fresh connection to the port; None where there is no answer."""
    with daemon.lab.gateway.entered(), suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", 9480, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status
        finally:
            connection.close()
    return None


def start(daemon: LabDaemon) -> int:
    """Ready; its process id."""
    daemon.write_registry("national", [BANK])
    daemon.configure("reject")
    # A service manager that hears nothing is told all the same.
    daemon.start(env={"NOTIFY_SOCKET": str(daemon.directory / "notify"), "WATCHDOG_USEC": "600000"})
    daemon.wait_ready()
    return daemon.pid


def allow_files(pid: int, number: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


def test_connections_without_end_do_not_end_the_daemon_nor_keep_others_out(daemon: LabDaemon) -> None:
    pid = start(daemon)
    allow_files(pid, 400)
    with hammering(daemon, FILES_WANTED):
        # The Unix socket answers, changes of the registry come through, and so does a fresh request on the port.
        daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
        daemon.wait_in_kernel(flow_of("39.32.64.10", FAR, "udp/51820", 40000))
        assert daemon.get("/healthz") == {"status": "ok"}
        assert holds(lambda: healthz(daemon) == 200)
        assert len(os.listdir(f"/proc/{pid}/fd")) < 400
    assert daemon.pid == pid
    assert daemon.is_running()
    assert holds(lambda: healthz(daemon) == 200)
    listeners = {each["name"]: each for each in daemon.status()["listeners"]}
    assert listeners["tcp"]["evicted"] > 0
    assert holds(lambda: daemon.status()["listeners"][0]["connections"] <= 1)


@contextmanager
def without_files(daemon: LabDaemon) -> Iterator[None]:
    """The daemon can open no file; those that it has stay open."""
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    allow_files(daemon.pid, 3)
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)


def test_without_a_single_file_left_it_lives_and_goes_on_afterwards(daemon: LabDaemon) -> None:
    pid = start(daemon)
    with without_files(daemon):
        # The source and the configuration cannot be opened, the program of the rules cannot be started.
        daemon.write_registry("national", [BANK, EMBASSY])
        daemon.wait_log("source.failed")
        daemon.configure("observe")
        daemon.reload()
        daemon.wait_log("reload.refused")
        daemon.lab.gateway.run(["nft", "flush", "ruleset"])
        daemon.wait_log("reconcile.failed")
        assert healthz(daemon) is None
        daemon.wait_log("api.no_files")
    daemon.reload()
    daemon.wait_mode("observe")
    assert holds(lambda: healthz(daemon) == 200)
    daemon.wait_in_kernel(flow_of("39.33.7.9", FAR, "esp"))
    assert daemon.status()["listeners"][0]["paused"] > 0
    assert daemon.pid == pid
    assert daemon.is_running()


def test_names_and_ports_that_others_hold_keep_no_daemon_from_starting(daemon: LabDaemon) -> None:
    with daemon.lab.gateway.entered():
        name, port = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), socket.socket()
        name.bind("\0gatewayd/gatewayd")
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind(("127.0.0.1", 9480))
        port.listen()
    with name, port:
        pid = start(daemon)
        assert not daemon.status()["listeners"][0]["is_listening"]
        assert any("127.0.0.1:9480" in warning for warning in daemon.status()["warnings"])
    assert holds(lambda: healthz(daemon) == 200)
    assert daemon.pid == pid


def test_a_log_that_nobody_reads_holds_nothing_up(daemon: LabDaemon) -> None:
    daemon.write_registry("national", [BANK])
    daemon.configure("reject", log={"level": "debug"})
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    daemon.start(output=writing)
    os.close(writing)
    daemon.wait_ready()
    daemon.configure("reject", kernel={"table": "other"})
    while daemon.status()["log_lost"] < 100:
        daemon.ask("reload")
        for _ in range(100):
            daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
            assert daemon.sync()["errors"] == {}
            daemon.write_registry("national", [BANK])
            assert daemon.sync()["errors"] == {}
    assert daemon.get("/healthz") == {"status": "ok"}
    assert daemon.status()["loop"]["lag_max_s"] < 5
    with os.fdopen(reading) as output:
        while "log.lost" not in output.readline():
            pass
    daemon.end()
