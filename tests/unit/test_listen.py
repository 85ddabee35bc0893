from __future__ import annotations

import errno
import socket
from contextlib import suppress

import pytest

from gatewayd.lab.namespace import Namespace
from gatewayd.listen.ahead import bind_ahead
from tests.support.lab_daemon import holds


@pytest.mark.kernel
@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_packets_come_in_once_an_interface_has_the_address(host: str, caplog: pytest.LogCaptureFixture) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with Namespace("host") as namespace:
        with namespace.entered():
            listening, sender = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        with listening, sender:
            bind_ahead(listening, host, 1813)
            namespace.bring_up("lo", f"{host}/{128 if ':' in host else 32}")
            listening.settimeout(0.1)

            def comes_in() -> bool:
                sender.sendto(b"accounting", (host, 1813))
                with suppress(TimeoutError):
                    return listening.recv(100) == b"accounting"
                return False

            assert holds(comes_in)
    assert caplog.messages == ["daemon.address_absent"]
    assert vars(caplog.records[0])["fields"] == {"host": host, "port": 1813}


def test_an_address_that_is_there_is_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as opened:
        bind_ahead(opened, "127.0.0.1", 0)
    assert caplog.messages == []


def test_another_refusal_is_the_callers() -> None:
    with socket.socket() as first, socket.socket() as second:
        bind_ahead(first, "127.0.0.1", 0)
        first.listen()
        with pytest.raises(OSError, match="in use") as caught:
            bind_ahead(second, *first.getsockname())
    assert caught.value.errno == errno.EADDRINUSE
