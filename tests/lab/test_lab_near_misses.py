"""Near misses by real packets: a customer whose service is not listed, beside a flood of strangers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import Event, Thread
from typing import Any

import pytest

from gatewayd.demo.cast import BANK, EMBASSY, FAR, SOFTWARE_HOUSE
from gatewayd.lab.lab import Lab
from gatewayd.lab.tap import Tap
from gatewayd.lab.traffic import flow_of
from tests.support.lab_daemon import LabDaemon, holds

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
