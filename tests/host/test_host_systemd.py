"""The unit under the systemd of Debian 12 (252) and 13 (257): the deeds of systemd, and the words of the daemon."""

from __future__ import annotations

from functools import partial

import pytest

from gatewayd.demo.cast import MOBILE_ADDRESSES, MOBILE_NUMBER
from gatewayd.demo.gateway import SECRET, SERVER, START, DemoNas
from gatewayd.feed.notification import generate_key
from gatewayd.lab.lab import INSIDE, Lab
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.lab.world import DEMO_PEPPER
from tests.support.booted import BootedHost
from tests.support.host_gateway import (
    CONFIGURATION,
    configure,
    has_mode,
    has_restarted,
    is_ready,
    publish,
    refuses_strangers,
    registered_traffic,
    start,
    status,
)
from tests.support.lab_daemon import holds

pytestmark = pytest.mark.host

WAIT = "120"
"""Seconds: longer than all that ends."""


def begin_to_start(host: BootedHost) -> None:
    """It waits for its source."""
    configure(host, "reject")
    host.run("systemctl", "start", "--no-block", "gatewayd")
    assert holds(lambda: "source" in host.property("StatusText"))
    assert host.property("ActiveState") == "activating"


def test_the_start_ends_when_the_kernel_was_read_back(host: BootedHost) -> None:
    begin_to_start(host)
    assert "39.32.0.0" not in host.run("nft", "list", "ruleset")
    publish(host)
    host.run("systemctl", "start", "gatewayd")
    assert "39.32.0.0" in host.run("nft", "list", "table", "inet", "gatewayd")
    found = status(host)
    assert found["ready"]
    assert found["kernel"]["pending"] == 0


def test_a_reload_is_delivered_and_one_with_a_fault_changes_nothing(host: BootedHost, lab: Lab) -> None:
    start(host, "observe")
    process = host.property("MainPID")
    assert not refuses_strangers(lab)
    configure(host, "reject")
    # On 257 it returns when it is done; on 252 when the signal was sent.
    host.run("timeout", WAIT, "systemctl", "reload", "gatewayd")
    assert holds(partial(has_mode, host, "reject"))
    assert refuses_strangers(lab)
    host.write(CONFIGURATION, "policy: {mode: block}\n")
    host.run("timeout", WAIT, "systemctl", "reload", "gatewayd", status=None)
    assert holds(lambda: bool(status(host).get("reload_error")) or "'block'" in host.journal())
    assert has_mode(host, "reject")
    configure(host, "observe")
    host.run("timeout", WAIT, "systemctl", "reload", "gatewayd")
    assert holds(partial(has_mode, host, "observe"))
    assert host.property("MainPID") == process
    assert host.property("ActiveState") == "active"


def test_a_reload_during_the_start_does_not_hang(host: BootedHost) -> None:
    begin_to_start(host)
    host.run("timeout", WAIT, "systemctl", "reload", "gatewayd")
    assert host.property("ActiveState") == "active"
    assert "daemon.started_unready" in host.journal()
    # From now on it is delivered.
    publish(host)
    assert holds(lambda: is_ready(host))
    configure(host, "observe")
    host.run("timeout", WAIT, "systemctl", "reload", "gatewayd")
    assert holds(partial(has_mode, host, "observe"))


def test_systemd_restarts_a_daemon_that_does_not_move_and_no_packet_is_lost(host: BootedHost, lab: Lab) -> None:
    host.write("/etc/systemd/system/gatewayd.service.d/watchdog.conf", "[Service]\nWatchdogSec=5\n")
    host.run("systemctl", "daemon-reload")
    start(host)
    process = host.property("MainPID")
    with registered_traffic(lab) as reports:
        host.run("systemctl", "kill", "--signal=STOP", "gatewayd")
        assert holds(lambda: host.property("NRestarts") != "0", 120)
        assert holds(lambda: is_ready(host))
    assert host.property("MainPID") != process
    assert "Watchdog timeout" in host.run("journalctl", "--no-pager")
    assert reports[0].lost == ()
    assert refuses_strangers(lab)


@pytest.mark.parametrize("way", ["restart", "kill"])
def test_a_restart_under_traffic_loses_no_registered_packet(host: BootedHost, lab: Lab, way: str) -> None:
    start(host)
    with registered_traffic(lab) as reports:
        for number in (1, 2, 3):
            if way == "restart":
                host.run("systemctl", "restart", "gatewayd")
                assert is_ready(host)
            else:
                host.run("systemctl", "kill", "--signal=KILL", "gatewayd")
                assert holds(partial(has_restarted, host, number))
                assert holds(lambda: is_ready(host))
            assert refuses_strangers(lab)
        host.run("systemctl", "stop", "gatewayd")
        assert refuses_strangers(lab)
    assert reports[0].lost == ()


SUBSCRIBERS = {
    "pepper_file": "credential:pepper",
    "radius": {
        "listen": [f"{SERVER[0]}:{SERVER[1]}"],
        "clients": [{"address": INSIDE.end_addresses[4], "secret_file": "credential:radius.bng-1"}],
    },
}
CREDENTIALS = """
[Service]
LoadCredential=pepper:/etc/gatewayd/pepper
LoadCredential=radius.bng-1:/etc/gatewayd/radius.secret
LoadCredential=national.pub:/etc/gatewayd/national.pub
"""


def test_secrets_are_roots_alone_and_come_to_the_daemon_as_credentials(host: BootedHost, lab: Lab) -> None:
    key = generate_key("n").public_text()
    for name, text in (("pepper", DEMO_PEPPER.decode()), ("radius.secret", SECRET.decode()), ("national.pub", key)):
        host.write(f"/etc/gatewayd/{name}", f"{text}\n", mode=0o600)
    host.write("/etc/systemd/system/gatewayd.service.d/secrets.conf", CREDENTIALS)
    host.run("systemctl", "daemon-reload")
    start(host, subscribers=SUBSCRIBERS)
    assert "warning" not in host.run("gatewayd", "check")
    assert "warning" not in host.journal()
    with DemoNas(lab) as nas:
        nas.tell(START, "s-1", MOBILE_NUMBER, MOBILE_ADDRESSES[0])
    flow = flow_of(MOBILE_ADDRESSES[0], "203.0.113.99", "udp/51820", 31_000)
    assert holds(lambda: probe(lab, [flow]) == ["passed"])
    # Its key is read too, by a source of which no more than that is asked here.
    feed = {"name": "feed", "url": "http://198.19.255.6:9/n.jws", "keys": ["credential:national.pub"]}
    configure(host, "reject", subscribers=SUBSCRIBERS, registry={"sources": [feed], "local": None})
    host.run("systemctl", "restart", "--no-block", "gatewayd")
    assert holds(lambda: "source.failed" in host.journal())
    assert "key" not in "".join(line for line in host.journal().splitlines() if "source.failed" in line)


def test_modules_that_the_daemon_is_only_told_of_are_loaded_at_boot(host: BootedHost) -> None:
    asked = host.run("systemd-analyze", "cat-config", "modules-load.d")
    assert {"nf_conntrack_netlink", "nfnetlink_log"} <= set(asked.split())
