from __future__ import annotations

import os
import re
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.systemd import Notifier, watchdog_interval_s


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, Notifier]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@gatewayd-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0"))
        listening.settimeout(10)
        notifier = Notifier({"NOTIFY_SOCKET": name})
        yield listening, notifier
        notifier.close()


def heard(listening: socket.socket) -> str:
    return listening.recv(4096).decode()


def test_every_word_reaches_the_manager(manager: tuple[socket.socket, Notifier]) -> None:
    listening, notifier = manager
    assert notifier.ready()
    assert heard(listening) == "READY=1"
    assert notifier.ready("3 registrations")
    assert heard(listening) == "READY=1\nSTATUS=3 registrations"
    assert notifier.watchdog()
    assert heard(listening) == "WATCHDOG=1"
    assert notifier.stopping()
    assert heard(listening) == "STOPPING=1"


def test_a_reload_carries_the_time(manager: tuple[socket.socket, Notifier]) -> None:
    listening, notifier = manager
    assert notifier.reloading()
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=[1-9]\d+", heard(listening))


def test_a_status_is_one_line(manager: tuple[socket.socket, Notifier]) -> None:
    listening, notifier = manager
    assert notifier.status("held\nREADY=1")
    assert heard(listening) == "STATUS=held READY=1"


def test_what_could_not_be_delivered_goes_along_with_the_next_word(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert not notifier.status("loading")
    assert not notifier.ready()
    assert not notifier.status("ready")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name)
        listening.settimeout(10)
        assert notifier.watchdog()
        assert heard(listening) == "READY=1\nSTATUS=ready\nWATCHDOG=1"
        assert notifier.watchdog()
        assert heard(listening) == "WATCHDOG=1"
    notifier.close()


def test_a_manager_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    notifier = Notifier({"NOTIFY_SOCKET": name})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name)
        while notifier.watchdog():
            pass
        listening.recv(4096)
        assert notifier.watchdog()
    notifier.close()


def test_to_say_something_takes_no_file(manager: tuple[socket.socket, Notifier]) -> None:
    """The notifier is told of the state of a daemon whose files have run out."""
    listening, notifier = manager
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most[1]))
    try:
        assert notifier.watchdog()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert heard(listening) == "WATCHDOG=1"
    notifier.close()
    assert not notifier.watchdog()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_socket_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    assert not notifier.ready()
    assert not notifier.watchdog()


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time_if_it_is_ours(
    environ: dict[str, str], interval_s: float | None
) -> None:
    assert watchdog_interval_s(environ, 42) == interval_s


def test_our_own_process_is_meant_unless_another_is_given() -> None:
    assert watchdog_interval_s({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}) == 0.5
