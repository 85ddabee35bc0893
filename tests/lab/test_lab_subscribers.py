"""Subscribers in a real gateway: RADIUS accounting comes in, and their packets pass or do not."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from gatewayd.demo.cast import BANK, FAR, FAR_IPV6, registration
from gatewayd.lab.lab import Lab
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.lab.world import DEMO_PEPPER, mobile_number, subscriber_of
from gatewayd.model import Flow
from tests.support.lab_daemon import LabDaemon, elements, holds
from tests.support.nas import Nas, write_secrets

pytestmark = pytest.mark.kernel

FREELANCER = registration("PK-FREELANCER", "freelancer", [], subscriber=subscriber_of(1), services=["wireguard"])
CODER = registration(
    "PK-CODER", "freelancer", [], subscriber=subscriber_of(2), services=["ipsec"], peers=[f"{FAR}/32"]
)
NUMBER, CODERS_NUMBER, SOMEBODY = (f"+{mobile_number(each)}" for each in (1, 2, 3))
HOME, ABROAD, HOME_IPV6 = "39.41.0.7", "39.41.9.200", "2400:adc1:41:7::/64"
_ports = count(21000)


def wireguard(source: str) -> Flow:
    """A flow that conntrack has not seen yet."""
    return flow_of(source, FAR_IPV6 if ":" in source else FAR, "udp/51820", next(_ports))


def run(daemon: LabDaemon, **sections: Any) -> Lab:
    daemon.write_registry("national", [BANK, FREELANCER, CODER])
    subscribers = write_secrets(daemon.directory, pepper=DEMO_PEPPER) | sections.pop("subscribers", {})
    daemon.configure("reject", subscribers=subscribers, **sections)
    daemon.start()
    daemon.wait_ready()
    return daemon.lab


@pytest.fixture
def nas(daemon: LabDaemon) -> Iterator[Nas]:
    with Nas(daemon.lab.gateway) as made:
        yield made


def wait_passes(lab: Lab, source: str) -> None:
    """A new flow of the source passes, soon."""
    assert holds(lambda: probe(lab, [wireguard(source)]) == ["passed"])


def test_a_subscriber_passes_from_start_to_stop_and_nobody_else_does(daemon: LabDaemon, nas: Nas) -> None:
    lab = run(daemon)
    assert probe(lab, [wireguard(HOME)]) == ["rejected"]
    nas.start("s1", NUMBER, HOME)
    wait_passes(lab, HOME)
    assert probe(lab, [wireguard("39.41.0.8"), flow_of(HOME, FAR, "udp/500", next(_ports))]) == ["rejected"] * 2
    # The far end may speak first: to the service of the registration, and from it.
    knocking = [flow_of(FAR, HOME, "udp/51820", next(_ports)), flow_of(FAR, HOME, "udp/40123", 51820)]
    assert probe(lab, knocking, start="internet") == ["passed"] * 2
    assert probe(lab, [flow_of(FAR, HOME, "udp/500", next(_ports))], start="internet") == ["rejected"]
    nas.start("s2", SOMEBODY, "39.41.0.8")
    assert probe(lab, [wireguard("39.41.0.8")]) == ["rejected"]
    nas.stop("s1", NUMBER, HOME)
    assert holds(lambda: probe(lab, [wireguard(HOME)]) == ["rejected"])


def test_no_packet_is_lost_while_the_address_changes(daemon: LabDaemon, nas: Nas) -> None:
    """Make before break: what flows from the old address drains, and the new one passes from its first packet."""
    lab = run(daemon)
    nas.start("s1", NUMBER, HOME)
    wait_passes(lab, HOME)
    with Stream(lab, [wireguard(HOME)], rate_pps=400) as old:
        assert old.wait_for_arrivals(100)
        addresses = [f"39.41.{number}.1" for number in range(1, 11)]
        for address in addresses:
            nas.interim("s1", NUMBER, address)
            wait_passes(lab, address)
        assert old.wait_for_arrivals(100)
    assert old.report().lost == ()
    assert holds(lambda: set().union(*elements(lab).values()) >= {bytes((39, 41, 10, 1))})
    assert bytes((39, 41, 9, 1)) not in set().union(*elements(lab).values())


def test_a_flow_that_came_before_its_start_is_admitted_late(daemon: LabDaemon, nas: Nas) -> None:
    lab = run(daemon)
    with Stream(lab, [wireguard(HOME)], rate_pps=100) as early:
        assert holds(lambda: len(early.report().rejected) > 5)
        nas.start("s1", NUMBER, HOME)
        assert early.wait_for_arrivals(50)


def test_an_address_that_goes_to_somebody_else_is_his_at_once(daemon: LabDaemon, nas: Nas) -> None:
    lab = run(daemon)
    nas.start("s1", NUMBER, HOME)
    wait_passes(lab, HOME)
    nas.start("s2", SOMEBODY, HOME)
    assert holds(lambda: probe(lab, [wireguard(HOME)]) == ["rejected"])


def test_a_record_around_bound_addresses_loses_nobody_a_packet(daemon: LabDaemon, nas: Nas) -> None:
    """An embassy's slip: a whole /8, one peer, one service; and a bank that has the very address."""
    lab = run(daemon)
    nas.start("s1", NUMBER, HOME)
    wait_passes(lab, HOME)
    slip = registration("PK-SLIP", "embassy", ["39.0.0.0/8"], services=["esp"], peers=["203.0.113.99/32"])
    same = registration("PK-SAME", "bank", [f"{HOME}/32"], services=["ipsec"])
    with Stream(lab, [wireguard(HOME)], rate_pps=400) as flow:
        assert flow.wait_for_arrivals(100)
        daemon.write_registry("national", [BANK, FREELANCER, CODER, slip, same])
        assert holds(lambda: probe(lab, [flow_of(HOME, FAR, "udp/500", next(_ports))]) == ["passed"])
        wait_passes(lab, HOME)
        daemon.write_registry("national", [BANK, FREELANCER, CODER])
        assert holds(lambda: probe(lab, [flow_of(HOME, FAR, "udp/500", next(_ports))]) == ["rejected"])
        wait_passes(lab, HOME)
        assert flow.wait_for_arrivals(100)
    assert flow.report().lost == ()


def test_both_families_of_a_session_pass(daemon: LabDaemon, nas: Nas) -> None:
    lab = run(daemon)
    nas.start("s1", NUMBER, HOME, HOME_IPV6)
    wait_passes(lab, HOME)
    wait_passes(lab, "2400:adc1:41:7:1:2:3:4")
    assert probe(lab, [wireguard("2400:adc1:41:8::1")]) == ["rejected"]


def test_another_registration_has_its_own_services_and_peers(daemon: LabDaemon, nas: Nas) -> None:
    lab = run(daemon)
    nas.start("s1", CODERS_NUMBER, HOME)
    assert holds(lambda: probe(lab, [flow_of(HOME, FAR, "esp")]) == ["passed"])
    assert probe(lab, [flow_of(HOME, "203.0.113.99", "esp"), wireguard(HOME)]) == ["rejected"] * 2


def test_a_registration_that_comes_after_the_start_takes_effect_at_once(daemon: LabDaemon, nas: Nas) -> None:
    lab = run(daemon)
    nas.start("s1", SOMEBODY, HOME)
    assert probe(lab, [wireguard(HOME)]) == ["rejected"]
    late = registration("PK-LATE", "freelancer", [], subscriber=subscriber_of(3), services=["wireguard"])
    daemon.write_registry("national", [BANK, FREELANCER, CODER, late])
    wait_passes(lab, HOME)
    daemon.write_registry("national", [BANK, FREELANCER, CODER])
    assert holds(lambda: probe(lab, [wireguard(HOME)]) == ["rejected"])


@pytest.mark.parametrize("damage", ["a bit of the log", "the log", "all of it"])
def test_what_a_damaged_journal_lost_passes_on_until_somebody_else_has_the_address(
    daemon: LabDaemon, nas: Nas, damage: str
) -> None:
    lab = run(daemon)
    nas.start("s0", NUMBER, ABROAD)
    nas.start("s1", NUMBER, HOME)
    wait_passes(lab, HOME)
    with Stream(lab, [wireguard(HOME)], rate_pps=200) as flow:
        assert flow.wait_for_arrivals(50)
        daemon.end(signal.SIGKILL)
        journal = daemon.directory / "sessions.sqlite"
        log = journal.with_name(f"{journal.name}-wal")
        if damage == "a bit of the log":
            raw = bytearray(log.read_bytes())
            raw[len(raw) // 3] ^= 1
            log.write_bytes(raw)
        else:
            log.unlink()
        if damage == "all of it":
            journal.unlink()
        daemon.start()
        daemon.wait_ready()
        daemon.wait_log("journal.lost")
        daemon.wait_log("reconcile.left")
        assert probe(lab, [wireguard(HOME), wireguard(ABROAD)]) == ["passed"] * 2
        assert "until their time is over" in daemon.ask("status").stdout
        assert flow.wait_for_arrivals(50)
    assert flow.report().lost == ()
    nas.start("s2", SOMEBODY, ABROAD)
    assert holds(lambda: probe(lab, [wireguard(ABROAD)]) == ["rejected"])
    assert probe(lab, [wireguard(HOME)]) == ["passed"]
    nas.stop("s1", NUMBER, HOME)
    assert holds(lambda: probe(lab, [wireguard(HOME)]) == ["rejected"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stop", "kill"])
def test_what_was_answered_outlives_a_restart(daemon: LabDaemon, nas: Nas, number: Any) -> None:
    """New flows pass all the while: the kernel keeps them while nobody is there, the journal after."""
    lab = run(daemon)
    nas.start("s1", NUMBER, HOME)
    daemon.end(number)
    assert probe(lab, [wireguard(HOME)]) == ["passed"]
    daemon.start()
    daemon.wait_ready()
    assert probe(lab, [wireguard(HOME)]) == ["passed"]
    nas.interim("s1", NUMBER, ABROAD)
    wait_passes(lab, ABROAD)
    # Nor does the kernel keep what went while nobody was there to hear it.
    daemon.end(number)
    daemon.start()
    daemon.wait_ready()
    assert probe(lab, [wireguard(ABROAD)]) == ["passed"]
    assert probe(lab, [wireguard(HOME)]) == ["rejected"]


def test_a_kernel_that_was_emptied_gets_the_bindings_back(daemon: LabDaemon, nas: Nas) -> None:
    lab = run(daemon)
    nas.start("s1", NUMBER, HOME)
    wait_passes(lab, HOME)
    lab.gateway.run(["nft", "flush", "ruleset"])
    assert holds(lambda: any(bytes((39, 41, 0, 7)) in keys for keys in elements(lab).values()))
    daemon.wait_ready()
    assert probe(lab, [wireguard(HOME)]) == ["passed"]


def test_nothing_of_a_subscriber_is_in_the_log_or_the_state(daemon: LabDaemon, nas: Nas) -> None:
    lab = run(daemon)
    nas.start("s1", NUMBER, HOME)
    nas.start("s2", SOMEBODY, ABROAD)
    wait_passes(lab, HOME)
    daemon.end(signal.SIGTERM)
    written = b"".join(path.read_bytes() for path in daemon.directory.rglob("*") if path.is_file())
    assert NUMBER[1:].encode() not in written
    assert SOMEBODY[1:].encode() not in written
    # Of who is not registered, not even the digest or the address.
    kept = (daemon.directory / "sessions.sqlite").read_bytes()
    assert bytes.fromhex(subscriber_of(1).partition(":")[2]) in kept
    assert bytes.fromhex(subscriber_of(3).partition(":")[2]) not in written
    assert ABROAD.encode() not in written


def test_a_wrong_secret_and_a_stranger_get_no_answer(daemon: LabDaemon, nas: Nas) -> None:
    lab = run(daemon)
    with Nas(lab.gateway, secret=b"another") as wrong:
        request = wrong.encode(1, "s1", NUMBER, HOME)
        wrong.send(request)
        assert wrong.answer(request, 0.5) is None
    nas.start("s9", SOMEBODY, ABROAD)
    assert probe(lab, [wireguard(HOME)]) == ["rejected"]


def test_a_secret_is_changed_under_way(daemon: LabDaemon, nas: Nas) -> None:
    """Both are good while both are in the file, and the old one no more once it is gone."""
    lab = run(daemon)
    nas.start("s1", NUMBER, HOME)
    path = daemon.directory / "radius.secret"
    path.write_text("testing123\nthe-new-secret\n")
    daemon.reload()
    daemon.wait_log("reload.done")
    with Nas(lab.gateway, secret=b"the-new-secret") as changed:
        changed.interim("s1", NUMBER, ABROAD)
        nas.interim("s1", NUMBER, HOME)
        path.write_text("the-new-secret\n")
        daemon.reload()
        daemon.wait_log("reload.done", 2)
        changed.interim("s1", NUMBER, ABROAD)
        wait_passes(lab, ABROAD)
        request = nas.encode(3, "s1", NUMBER, HOME)
        nas.send(request)
        assert nas.answer(request, 0.5) is None
    # A file that went costs nothing that was in force.
    path.unlink()
    daemon.reload()
    daemon.wait_log("radius.secret_unusable")
    with Nas(lab.gateway, secret=b"the-new-secret") as changed:
        changed.interim("s1", NUMBER, HOME)
    wait_passes(lab, HOME)


def test_a_nas_that_restarts_takes_its_sessions_along_after_a_grace(daemon: LabDaemon, nas: Nas) -> None:
    lab = run(daemon, subscribers={"profile": {"restart_grace": "1s"}})
    nas.start("s1", NUMBER, HOME, at=int(time.time()) - 10)
    nas.start("s2", CODERS_NUMBER, ABROAD, at=int(time.time()) - 10)
    wait_passes(lab, HOME)
    nas.restart()
    assert probe(lab, [wireguard(HOME)]) == ["passed"]
    nas.interim("s2", CODERS_NUMBER, ABROAD)
    assert holds(lambda: probe(lab, [wireguard(HOME)]) == ["rejected"])
    assert probe(lab, [flow_of(ABROAD, FAR, "esp")]) == ["passed"]
