"""Who may change something: the mode of the socket's file decides, and the kernel says who it was."""

from __future__ import annotations

import pytest

from gatewayd.demo.cast import BANK
from tests.support.lab_daemon import LabDaemon

pytestmark = pytest.mark.kernel

ASK = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect(sys.argv[1])
except OSError as error:
    sys.exit(f"errno {error.errno}")
connection.sendall(b"POST /v1/mode?mode=mark HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
print(connection.recv(65536).decode().partition("\\r")[0])
"""
STRANGER = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
IN_THE_GROUP = ("setpriv", "--reuid", "65533", "--regid", "65533", "--groups", "0")
ROOT_OF_A_NAMESPACE = ("setpriv", "--reuid", "65532", "--regid", "65532", "--clear-groups", "unshare", "-Ur")


@pytest.fixture
def running(daemon: LabDaemon) -> LabDaemon:
    # The directory of a test is closed to others; the file's own mode is asked here.
    for path in (daemon.directory, *daemon.directory.parents):
        if not path.stat().st_mode & 0o001:
            path.chmod(0o711)
    daemon.write_registry("national", [BANK])
    daemon.configure("observe")
    daemon.start()
    daemon.wait_ready()
    return daemon


def ask(daemon: LabDaemon, *user: str) -> str:
    words = [*user, "/usr/bin/python3", "-c", ASK, str(daemon.socket_path)]
    done = daemon.lab.gateway.run(words, check=False)
    return (done.stdout + done.stderr).strip()


def by(daemon: LabDaemon) -> str:
    """The user id of the last command that the log has."""
    lines = [line for line in daemon.log_text().splitlines() if "uid " in line]
    return lines[-1].partition("uid ")[2].partition('"')[0] if lines else ""


def test_only_root_and_the_group_reach_the_socket(running: LabDaemon) -> None:
    for user in (STRANGER, ROOT_OF_A_NAMESPACE):
        assert ask(running, *user) == "errno 13"
    assert by(running) == ""
    assert "200" in ask(running)
    assert by(running) == "0"
    assert "200" in ask(running, *IN_THE_GROUP)
    assert by(running) == "65533"


def test_a_socket_that_was_opened_to_all_says_who_came(running: LabDaemon) -> None:
    """The mode is the right: an operator who opens the file has given it. The name is the kernel's, and one that is
    root in a user namespace of its own has its number here."""
    running.socket_path.chmod(0o666)
    assert "200" in ask(running, *STRANGER)
    assert by(running) == "65534"
    assert "200" in ask(running, *ROOT_OF_A_NAMESPACE)
    assert by(running) == "65532"
