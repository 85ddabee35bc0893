from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from gatewayd.model.prefix import Prefix, parse_prefix
from gatewayd.subscribers.radius.flood import MAX_INSTRUCTIONS, filter_of
from gatewayd.subscribers.radius.sockets import attach_filter, bind_udp, detach_filter, dropped_datagrams


@pytest.fixture(params=["127.0.0.1", "::1"])
def opened(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with bind_udp(request.param, 0) as made:
        yield made


def sends(opened: socket.socket) -> bool:
    """Whether a datagram of the loopback comes in; delivery there is done when sendto returns."""
    with socket.socket(opened.family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", opened.getsockname())
    try:
        return opened.recv(16) == b"x"
    except BlockingIOError:
        return False


def program(opened: socket.socket, *prefixes: str) -> bytes:
    made = filter_of(map(parse_prefix, prefixes), 6 if opened.family == socket.AF_INET6 else 4)
    assert made is not None
    return made


OWN = ("127.0.0.0/8", "::1/128")
OTHER = ("192.0.2.0/24", "198.51.100.7/32", "2001:db8::/33", "2001:db8::7/128")


def test_the_kernel_passes_what_is_of_a_client_and_drops_the_rest(opened: socket.socket) -> None:
    assert attach_filter(opened, program(opened, *OTHER, *OWN))
    assert sends(opened)
    before = dropped_datagrams(opened)
    assert attach_filter(opened, program(opened, *OTHER)), "in place of the one before"
    assert not sends(opened)
    assert dropped_datagrams(opened) == before + 1
    detach_filter(opened)
    assert sends(opened)


def test_a_client_that_is_everybody_shields_nothing(opened: socket.socket) -> None:
    width = 16 if opened.family == socket.AF_INET6 else 4
    made = filter_of([Prefix(bytes(width), 0)], 6 if width == 16 else 4)
    assert made is not None
    assert attach_filter(opened, made)
    assert sends(opened)


def test_a_program_that_the_kernel_refuses_changes_nothing(opened: socket.socket) -> None:
    assert not attach_filter(opened, bytes(8 * (MAX_INSTRUCTIONS + 1)))
    assert sends(opened)
