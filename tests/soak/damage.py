"""Elements and rules taken away behind its back: no flow may notice that was there."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass, field
from functools import partial

from gatewayd.lab.stream import Stream
from gatewayd.lab.traffic import probe
from tests.soak.sight import Sight, is_as_wanted
from tests.soak.subscribers import Cgnat
from tests.soak.world import World, handshakes, inbound, traffic
from tests.support.lab_daemon import LabDaemon, holds

RATE_PPS = 400.0
_PACKETS = 240_000
_SETTLE_PACKETS = 40
DAMAGES = {
    "flush set": "flush set inet gatewayd c4_32",
    "flush sets": "flush set inet gatewayd c4_28_p32_ipsec ; flush set inet gatewayd c6_48",
    "delete element": "delete element inet gatewayd c4_32 { 39.36.0.1 }",
    "flush look-ups": "flush chain inet gatewayd classify4_rest ; flush chain inet gatewayd classify6_rest",
}

SAVED = "flush look-ups"
"""Costs nothing: a packet that comes to an empty chain passes."""


def has_repaired(daemon: LabDaemon, repairs: int) -> bool:
    """Once more than `repairs`."""
    return bool(daemon.status()["kernel"]["repairs"] > repairs)


@dataclass
class Bill:
    """`refused`: packets of new flows between a damage and its repair; `refused_while_dead`: where the daemon had
    been killed before, and the next one repaired it."""

    rounds: int = 0
    kills: int = 0
    sent: int = 0
    refused: int = 0
    refused_while_dead: int = 0
    lost: int = 0
    """Packets of flows that were there, and of new ones outside that time."""
    losses: list[str] = field(default_factory=list)


def run_damages(daemon: LabDaemon, sight: Sight, *, seed: int, rounds: int) -> Bill:
    """Every second time the daemon is killed before it can repair anything. Raises AssertionError where there is no
    repair."""
    chance = random.Random(seed)
    cgnat = Cgnat(daemon, chance)
    registry = World(chance, 200).registry(cgnat.bound_registrations())
    daemon.write_registry("national", registry.records)
    daemon.configure("reject", subscribers=cgnat.section)
    daemon.start()
    daemon.wait_ready()
    cgnat.start()
    assert holds(lambda: is_as_wanted(sight.contents(), registry.keys))
    bill = Bill()
    spans: list[tuple[str, bool, range]] = []
    with Stream(daemon.lab, traffic(_PACKETS), rate_pps=RATE_PPS) as stream:
        assert stream.wait_for_arrivals(_SETTLE_PACKETS)
        for number in range(rounds):
            name = chance.choice([*DAMAGES])
            killed = number % 2 == 1
            repairs = daemon.status()["kernel"]["repairs"]
            first = stream.sent - 1
            if killed:
                daemon.end(signal.SIGKILL)
                bill.kills += 1
            daemon.lab.gateway.run(["nft", DAMAGES[name]])
            if killed:
                daemon.start()
            else:
                assert holds(partial(has_repaired, daemon, repairs)), name
            daemon.wait_ready()
            assert holds(lambda: is_as_wanted(sight.contents(), registry.keys)), name
            spans.append((name, killed, range(first, stream.sent + 1)))
            assert {*probe(daemon.lab, handshakes()), *probe(daemon.lab, inbound(), start="internet")} == {"passed"}
            assert stream.wait_for_arrivals(_SETTLE_PACKETS)
            bill.rounds += 1
    report = stream.stop()
    bill.sent = report.sent
    for number in report.lost:
        span = next((each for each in spans if number in each[2] and each[0] != SAVED), None)
        if number % 2 and span is not None:
            bill.refused_while_dead += span[1]
            bill.refused += not span[1]
        else:
            bill.lost += 1
            bill.losses.append(f"--seed {seed}: packet {number}, damages at {spans}")
    return bill
