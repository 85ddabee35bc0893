"""One record that takes another form again and again, at a timer of a second, on a busy machine: not a packet is
refused. And bounds: what plan says of them."""

from __future__ import annotations

import random
from itertools import cycle, islice
from typing import Any

import msgspec
import pytest

from gatewayd.demo.cast import BANK, ELSEWHERE, SOFTWARE_HOUSE, registration
from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow
from tests.support.busy import busy
from tests.support.lab_daemon import LabDaemon, elements, holds

pytestmark = pytest.mark.kernel

CHANGES = 28
RATE_PPS = 400.0
FORMS: list[dict[str, Any]] = [
    {"clients": ["39.32.64.8/29"]},
    {"clients": ["39.32.64.0/28"]},
    {"clients": ["39.32.64.8/30", "39.32.64.12/30"]},
    {"clients": ["39.32.64.8/29"], "services": []},
    {"clients": ["39.32.64.8/29", "39.32.64.10/32"], "services": ["udp/51820", "esp"]},
    {"clients": ["39.32.64.0/27"], "peers": [f"{ELSEWHERE}/32"]},
]
"""All of them cover 39.32.64.8 to .15 for wireguard; each has masks that the others have not."""


def fresh_flows() -> list[Flow]:
    """Each another one: first packets are what is looked up."""
    return [
        flow_of(f"39.32.64.{8 + number % 8}", ELSEWHERE, "udp/51820", 2000 + number // 8)
        for number in range(200_000)
    ]


def test_a_record_that_changes_its_form_under_traffic_loses_no_first_packet(daemon: LabDaemon) -> None:
    chance = random.Random(618204)
    forms = list(islice(cycle(range(len(FORMS))), CHANGES))
    chance.shuffle(forms)

    def write(number: int) -> None:
        daemon.write_registry("national", [BANK, dict(SOFTWARE_HOUSE, **FORMS[number])])

    daemon.configure("reject", kernel={"verify_every": "1s"})
    write(forms[0])
    daemon.start()
    daemon.wait_ready()
    with busy(), Stream(daemon.lab, fresh_flows(), rate_pps=RATE_PPS) as stream:
        for number in forms[1:]:
            write(number)
            assert stream.wait_for_arrivals(chance.choice([5, 100, 450]), 60.0)
        assert stream.wait_for_arrivals(100, 60.0)
    report = stream.stop()
    assert (report.lost, report.rejected) == ((), ())
    assert report.sent > CHANGES * 100


def test_a_record_past_the_bound_of_masks_takes_nobodys_place_and_plan_and_status_name_it(
    daemon: LabDaemon,
) -> None:
    crowd = [
        registration(f"CROWD-{length}-{far}", "bpo", [f"39.0.0.0/{length}"], peers=[f"192.0.0.0/{far}"])
        for length in range(10, 29)
        for far in range(10, 26)
    ]
    house = flow_of("39.32.64.10", ELSEWHERE, "udp/51820", 1000)
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE])
    daemon.configure("reject")
    daemon.start()
    daemon.wait_ready()
    daemon.end()
    # They come first now.
    daemon.write_registry("national", [*crowd, BANK, SOFTWARE_HOUSE])
    done = daemon.cli("plan", "--config", str(daemon.config_path), "--json")
    named = msgspec.json.decode(done.stdout)["unprogrammed"]
    assert (done.returncode, done.stderr) == (1, "")
    assert named
    assert all(id.startswith("CROWD-") for id in named)
    done = daemon.cli("plan", "--config", str(daemon.config_path))
    assert done.returncode == 1
    assert f"{next(iter(named))}: needs 1 new masks for IPv4" in done.stdout
    daemon.start()
    daemon.wait_ready()
    assert probe(daemon.lab, [house]) == ["passed"]
    assert daemon.status()["registrations"]["unprogrammed"] == len(named)
    daemon.wait_log("reconcile.past_bound")
    # What needs one more than there are stays in its former form, by name.
    moved = dict(SOFTWARE_HOUSE, clients=["39.32.64.8/30", "39.32.64.12/30"], peers=["203.0.113.98/31"])
    before = elements(daemon.lab)["c4_29_wireguard"]
    daemon.write_registry("national", [*crowd, BANK, moved])
    assert holds(lambda: daemon.status()["registrations"]["in_former_form"] == 1)
    assert elements(daemon.lab)["c4_29_wireguard"] == before
    assert probe(daemon.lab, [house]) == ["passed"]
    assert not daemon.status()["ready"]
    daemon.end()
    daemon.start()
    assert holds(lambda: "in their former form alone" in str(daemon.ask("status").stdout))
    assert probe(daemon.lab, [house]) == ["passed"]
