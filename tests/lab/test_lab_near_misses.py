"""Near misses by real packets: a customer whose service is not listed, beside a flood of strangers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import Event, Thread
from typing import Any

import pytest

from gatewayd.demo.cast import (
    BANK,
    ELSEWHERE,
    EMBASSY,
    FAR,
    MOBILE,
    MOBILE_ADDRESSES,
    MOBILE_NUMBER,
    SOFTWARE_HOUSE,
)
from gatewayd.lab.lab import Lab
from gatewayd.lab.tap import Tap
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.lab.world import DEMO_PEPPER
from tests.support.lab_daemon import LabDaemon, holds
from tests.support.nas import Nas, write_secrets

pytestmark = pytest.mark.kernel

CAST: list[dict[str, Any]] = [BANK, SOFTWARE_HOUSE, EMBASSY]
HOUSE, NEIGHBOUR = "39.32.64.10", "39.32.65"
_ports = count(20000)


def run(daemon: LabDaemon, records: list[dict[str, Any]], **sections: Any) -> Lab:
    daemon.write_registry("national", records)
    daemon.configure("observe", **sections)
    daemon.start()
    daemon.wait_ready()
    return daemon.lab


def misses(daemon: LabDaemon) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["id"], each["reason"]): each for each in daemon.get("/v1/near-misses")["items"]}


@contextmanager
def strangers(lab: Lab, per_s: int) -> Iterator[list[int]]:
    """Wireguard flows, each of another address, so many a second; how many were sent."""
    done, sent = Event(), [0]

    def flood() -> None:
        began = time.monotonic()
        with Tap(lab.inside) as tap:
            while not done.is_set():
                due = int((time.monotonic() - began) * per_s)
                for number in range(sent[0], due):
                    address = f"39.{40 + number // 62500 % 10}.{number // 250 % 250}.{1 + number % 250}"
                    tap.send(flow_of(address, FAR, "udp/51820", 1024 + number % 60000), b"stranger")
                sent[0] = max(due, sent[0])
                done.wait(0.005)

    thread = Thread(target=flood)
    thread.start()
    try:
        yield sent
    finally:
        done.set()
        thread.join()


def test_a_flood_of_strangers_hides_no_flow_of_a_customer(daemon: LabDaemon) -> None:
    house = {**SOFTWARE_HOUSE, "services": ["ipsec"]}
    lab = run(daemon, [BANK, house, EMBASSY], kernel={"nflog_rate": 200})
    flows = [flow_of(HOUSE, FAR, "udp/51820", next(_ports)) for _ in range(40)]
    with strangers(lab, 2000) as sent, Tap(lab.inside) as inside:
        assert holds(lambda: sent[0] > 2000)
        inside.send(flows[0], b"first")
        began = time.monotonic()
        assert holds(lambda: (house["id"], "service_not_listed") in misses(daemon))
        took_s = time.monotonic() - began
        for flow in flows[1:]:
            inside.send(flow, b"new")
            time.sleep(0.02)
    # The common log could not take them all; what the customer sent is there to the last.
    assert holds(lambda: misses(daemon)[house["id"], "service_not_listed"]["flows"] == len(flows))
    found = misses(daemon)
    assert set(found) == {(house["id"], "service_not_listed")}
    assert found[house["id"], "service_not_listed"]["service"] == "udp/51820"
    unlogged = daemon.status()["counters"]
    assert unlogged["unlogged_flows"]["packets"] > 500
    assert unlogged["unlogged_near_flows"]["packets"] == 0
    print(f"listed after {took_s * 1000:.0f} ms, {sent[0]} strangers")


def test_each_customer_who_is_missed_by_little_is_named_with_his_reason(daemon: LabDaemon) -> None:
    house = {**SOFTWARE_HOUSE, "status": "suspended"}
    later = {**EMBASSY, "valid_from": "2099-01-01T00:00:00Z"}
    gone = {**SOFTWARE_HOUSE, "id": "DEMO-GONE", "clients": ["39.36.1.0/29"]}
    lab = run(daemon, [BANK, house, later, gone])
    # Not even their addresses are near those of a customer.
    sources = {"39.32.0.5": ELSEWHERE, "39.32.64.10": FAR, "39.33.7.5": FAR, "39.40.9.9": FAR}
    flows = [flow_of(source, far, "udp/500", next(_ports)) for source, far in sources.items()]
    assert probe(lab, flows) == ["passed"] * 4
    daemon.write_registry("national", [BANK, house, later, {**gone, "clients": ["39.36.2.0/29"]}])
    daemon.wait(lambda: daemon.get("/v1/registrations/DEMO-GONE")["clients"] == ["39.36.2.0/29"], "the new address")
    moved = flow_of("39.36.1.3", FAR, "udp/51820", next(_ports))
    assert holds(lambda: probe(lab, [moved]) == ["passed"] and ("DEMO-GONE", "address_moved") in misses(daemon))
    daemon.write_registry("national", [BANK, house, later])
    daemon.wait(lambda: "error" in daemon.get("/v1/registrations/DEMO-GONE"), "the withdrawal")
    flow = flow_of("39.36.2.3", FAR, "udp/51820", next(_ports))
    assert holds(lambda: probe(lab, [flow]) == ["passed"] and ("DEMO-GONE", "withdrawn") in misses(daemon))
    found = misses(daemon)
    assert set(found) == {
        ("DEMO-BANK", "peer_not_listed"),
        ("DEMO-SOFTWARE-HOUSE", "suspended"),
        ("DEMO-EMBASSY", "not_open_yet"),
        ("DEMO-GONE", "address_moved"),
        ("DEMO-GONE", "withdrawn"),
    }
    assert found["DEMO-BANK", "peer_not_listed"]["far"] == "203.0.113.0/24"
    # Not an address of a client is anywhere in what is told or written.
    told = str(list(found.values())) + daemon.log_text()
    assert not [source for source in sources if source in told]


def test_a_line_is_taken_off_the_list_and_the_list_outlives_the_daemon(daemon: LabDaemon) -> None:
    house = {**SOFTWARE_HOUSE, "services": ["ipsec"]}
    lab = run(daemon, [BANK, house, EMBASSY])

    def miss() -> None:
        assert probe(lab, [flow_of(HOUSE, FAR, "udp/51820", next(_ports))]) == ["passed"]

    miss()
    assert holds(lambda: bool(misses(daemon)))
    assert "registry: add the service udp/51820" in daemon.ask("impact", "near-misses").stdout
    assert daemon.ask("impact", "ack", house["id"]).returncode == 0
    assert misses(daemon) == {}
    miss()
    assert holds(lambda: daemon.get("/v1/near-misses?all=1")["items"][0]["flows"] == 2)
    assert probe(lab, [flow_of("39.32.0.5", ELSEWHERE, "udp/500", next(_ports))]) == ["passed"]
    assert holds(lambda: (BANK["id"], "peer_not_listed") in misses(daemon))
    before = daemon.get("/v1/near-misses?all=1")["items"]
    assert daemon.end() == 0
    daemon.start()
    daemon.wait_ready()
    assert daemon.get("/v1/near-misses?all=1")["items"] == before
    # The sets for the log are there as before, and found again.
    miss()
    assert holds(lambda: daemon.get("/v1/near-misses?all=1")["items"][0]["flows"] == 3)
    assert misses(daemon).keys() == {(BANK["id"], "peer_not_listed")}


def test_a_session_that_ended_a_moment_ago_is_a_near_miss(daemon: LabDaemon) -> None:
    daemon.write_registry("national", [BANK, MOBILE])
    daemon.configure("observe", subscribers=write_secrets(daemon.directory, pepper=DEMO_PEPPER))
    daemon.start()
    daemon.wait_ready()
    with Nas(daemon.lab.gateway) as nas:
        first, second = MOBILE_ADDRESSES
        nas.start("s1", f"+{MOBILE_NUMBER}", first)
        flow = flow_of(first, FAR, "udp/500", next(_ports))
        assert holds(
            lambda: (
                probe(daemon.lab, [flow]) == ["passed"] and (MOBILE["id"], "service_not_listed") in misses(daemon)
            )
        )
        nas.stop("s1", f"+{MOBILE_NUMBER}", first)
        assert holds(lambda: daemon.get("/v1/bindings")["total"] == 0)
        assert probe(daemon.lab, [flow_of(first, FAR, "udp/51820", next(_ports))]) == ["passed"]
        assert holds(lambda: (MOBILE["id"], "binding_ended") in misses(daemon))
        nas.start("s2", f"+{MOBILE_NUMBER}", second)
        assert holds(lambda: daemon.get("/v1/bindings")["total"] == 1)
        assert probe(daemon.lab, [flow_of(first, FAR, "udp/51820", next(_ports))]) == ["passed"]
        assert holds(lambda: (MOBILE["id"], "address_moved") in misses(daemon))
    told = str(daemon.get("/v1/near-misses")) + daemon.log_text()
    assert first not in told
    assert MOBILE_NUMBER not in told


def test_nftables_flushed_by_another_program_is_mended_and_lists_go_on(daemon: LabDaemon) -> None:
    house = {**SOFTWARE_HOUSE, "services": ["ipsec"]}
    lab = run(daemon, [BANK, house, EMBASSY])
    lab.gateway.run(["nft", "flush", "set", "inet", "gatewayd", "c4_28_near"])
    assert holds(lambda: daemon.status()["kernel"]["repairs"] >= 1 and daemon.status()["ready"])
    flow = flow_of(HOUSE, FAR, "udp/51820", next(_ports))
    assert holds(lambda: probe(lab, [flow]) == ["passed"])
    assert holds(lambda: (house["id"], "service_not_listed") in misses(daemon))
