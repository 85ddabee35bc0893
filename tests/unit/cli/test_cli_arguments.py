"""Arguments that several commands take."""

from __future__ import annotations

import socket

import pytest
from click.testing import CliRunner

from gatewayd.cli import main

GOOD_FORM = "expected one such as 127.0.0.1:9480 or [::1]:9480"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("9480", "has no port"),
        ("localhost:9480", "does not begin with an IP address"),
        ("::1:9480", "does not begin with an IP address; IPv6 goes in brackets"),
        ("127.0.0.1:65536", "does not end with a port"),
    ],
)
@pytest.mark.parametrize("command", [("demo", "--keep"), ("registry", "serve")])
def test_a_place_to_listen_that_is_none_is_refused(command: tuple[str, ...], given: str, why: str) -> None:
    result = CliRunner().invoke(main, [*command, "--listen", given])
    assert result.exit_code == 2
    assert f"{given!r} {why}, {GOOD_FORM}" in " ".join(result.stderr.split())


def test_the_demo_says_before_it_begins_that_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["demo", "--keep", "--listen", f"127.0.0.1:{port}"])
    assert result.exit_code == 2
    assert f"127.0.0.1 port {port}: Address already in use" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--listen", "127.0.0.1:9480"), "--listen is for the gateway that --keep leaves running"),
        (("--registrations", "-5"), "-5 is not in the range 1<=x<="),
    ],
)
def test_the_demo_refuses_before_it_begins_what_it_would_not_heed(arguments: tuple[str, ...], why: str) -> None:
    result = CliRunner().invoke(main, ["demo", *arguments])
    assert result.exit_code == 2
    assert why in result.stderr
