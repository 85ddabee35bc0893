"""Subscribers behind one CGNAT address, each with a block of ports that accounting tells, and that changes."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from gatewayd.demo.cast import registration
from gatewayd.feed.record import parse_record
from gatewayd.lab.traffic import flow_of
from gatewayd.lab.world import DEMO_PEPPER, mobile_number, subscriber_of
from gatewayd.model import Flow, parse_prefix
from gatewayd.model.registration import BoundRegistration
from tests.support.lab_daemon import LabDaemon
from tests.support.nas import START, STOP, Nas, write_secrets
from tests.support.radius import text, vendor

SHARED = "39.41.0.1"
RECORDS = [
    registration(f"SOAK-CGNAT-{number}", "freelancer", [], subscriber=subscriber_of(number), services=["wireguard"])
    for number in range(1, 9)
]
_SHAPES = ((0, 999), (200, 799), (0, 1199), (150, 1023))
"""Of a block, from its first port on; all of them have ports 200 to 799."""
_REGISTRATIONS = [parse_record(msgspec.json.encode(each)) for each in RECORDS]


def flow(number: int) -> Flow:
    """Registered whatever the shapes are; each of some 100,000 another one."""
    round_, who = divmod(number, len(RECORDS))
    return flow_of(SHARED, f"203.0.113.{round_ // 600}", "udp/51820", _first(who) + 200 + round_ % 600)


def _first(who: int) -> int:
    return 1024 + 2000 * who


class Cgnat:
    """Tells `daemon` of every block. What was answered outlives a kill: nothing is told twice."""

    def __init__(self, daemon: LabDaemon, chance: random.Random) -> None:
        self._gateway = daemon.lab.gateway
        self._chance = chance
        self._shapes = [_SHAPES[0]] * len(RECORDS)
        self._sessions = [0] * len(RECORDS)
        self.section: dict[str, Any] = write_secrets(daemon.directory, pepper=DEMO_PEPPER) | {
            "nas": [{"name": "cgn-1", "profile": {"country_code": "92", "nat_side": "outside"}}]
        }
        """`subscribers` of the configuration."""

    def start(self) -> None:
        """Every session begins. The daemon runs."""
        for who in range(len(RECORDS)):
            self._tell(START, who, 0, self._shapes[who])

    def change(self) -> str:
        """Some of the blocks take another shape: the next session begins before the last one ends."""
        some = self._chance.sample(range(len(RECORDS)), 3)
        for who in some:
            former, self._shapes[who] = self._shapes[who], self._chance.choice(_SHAPES)
            self._sessions[who] += 1
            self._tell(START, who, self._sessions[who], self._shapes[who])
            self._tell(STOP, who, self._sessions[who] - 1, former)
        return ", ".join(f"{who + 1}: {self._shapes[who]}" for who in some)

    def bound_registrations(self) -> list[BoundRegistration]:
        """What the subscribers' registrations have by what was told."""
        return [
            BoundRegistration(each, parse_prefix(f"{SHARED}/32"), (_first(who) + first, _first(who) + last))
            for who, (each, (first, last)) in enumerate(zip(_REGISTRATIONS, self._shapes, strict=True))
        ]

    def _tell(self, status: int, who: int, session: int, shape: tuple[int, int]) -> None:
        first, last = (_first(who) + each for each in shape)
        block = vendor(6527, text(121, f"{SHARED} {first}-{last} router base"))
        with Nas(self._gateway, "cgn-1") as nas:
            nas.exchange(nas.encode(status, f"s{who}-{session}", f"+{mobile_number(who + 1)}", extra=block))
