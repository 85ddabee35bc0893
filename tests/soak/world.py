"""Registries that change from round to round, and the flows that are registered in all of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, count, islice
from typing import Any

import msgspec

from gatewayd.compile.masks import compile_bound, compile_elements
from gatewayd.demo.cast import (
    BANK,
    ELSEWHERE,
    EMBASSY,
    FAR,
    FREELANCER,
    SOFTWARE_HOUSE,
    STRANGER,
    registration,
)
from gatewayd.feed.record import parse_record
from gatewayd.lab.traffic import flow_of
from gatewayd.model import Flow
from gatewayd.model.mask import Mask
from gatewayd.model.registration import BoundRegistration
from tests.soak import subscribers

FAR_IPV6, ELSEWHERE_IPV6 = "2001:db8:7::7", "2001:db8:99::1"
HOST = registration("SOAK-HOST", "software_house", ["39.36.0.1/32"])
ROUTED = ("39.32.0.0/11", "2400:adc0::/31")
MOST = 100_000
"""Of the registrations that come and go: there are no more addresses for them under ROUTED."""
MODES = ("observe", "mark", "limit", "reject", "reject", "reject")
SHARES = (0.02, 0.4, 1.0)
"""Of the registrations that come and go; sets made for the first are outgrown by the others."""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Registry:
    """What the file says and, by mask, the keys that shall be in the kernel."""

    records: list[Record]
    keys: dict[Mask, frozenset[bytes]]


class World:
    """`size`: how many registrations come and go besides the constant ones."""

    def __init__(self, chance: random.Random, size: int) -> None:
        self._chance = chance
        self._extras = [_extra(number) for number in range(min(size, MOST))]

    def registry(self, bound_registrations: Iterable[BoundRegistration]) -> Registry:
        """The constant registrations, in one of the forms that they may have, and some of the others.
        `bound_registrations`: what the subscribers among them have."""
        chance = self._chance
        some = chance.sample(self._extras, round(len(self._extras) * chance.choice(SHARES)))
        rare = [each for each in _RARE if chance.random() < 0.5]
        house = dict(SOFTWARE_HOUSE, clients=[chance.choice(_HOUSE_IPV4), "2400:adc0:100::/56"])
        house["clients"] = [*house["clients"][0].split(), house["clients"][1]]
        house["services"] = chance.choice([SOFTWARE_HOUSE["services"], []])
        records = [BANK, house, EMBASSY, FREELANCER, HOST, *subscribers.RECORDS, *rare, *some]
        return registry_of(records, bound_registrations)

    def mode(self) -> str:
        return self._chance.choice(MODES)


_HOUSE_IPV4 = ("39.32.64.8/29", "39.32.64.8/30 39.32.64.12/30", "39.32.64.0/28", "39.32.64.8/29 39.32.64.10/32")
"""All of them cover 39.32.64.8 to .15: it moves from set to set and is registered all the time."""
_RARE = [
    registration("SOAK-NET", "bpo", ["39.37.0.0/24"], peers=["198.51.100.0/24"], services=["openvpn"]),
    registration("SOAK-PORTS", "bpo", ["39.37.1.0/25"], services=["udp/51900-51999", "udp/8000-8031"]),
    registration("SOAK-SIX", "bank", ["2400:adc1:8::/64"], services=["esp", "gre"]),
    registration("SOAK-PPTP", "bpo", ["39.37.2.0/26", "39.37.2.64/27"], services=["pptp"]),
]
"""Each with masks that nobody else has."""


def _extra(number: int) -> Record:
    """In the masks of the constant registrations, whose sets so grow and shrink."""
    id, address = f"SOAK-{number}", number * 8
    first = f"39.{44 + (address >> 16)}.{address >> 8 & 255}.{address & 255}"
    if number % 4 == 1:
        return registration(id, "freelancer", [f"{first}/32"])
    if number % 4 == 2:
        return registration(id, "bpo", [f"2400:adc1:{0x1000 + number % 0xE000:x}::/48"])
    return registration(id, "software_house", [f"{first}/29"], services=["wireguard"])


def registry_of(records: list[Record], bound_registrations: Iterable[BoundRegistration]) -> Registry:
    wanted: dict[Mask, set[bytes]] = {}
    own = (compile_elements(parse_record(msgspec.json.encode(record))) for record in records)
    for mask, key in chain.from_iterable((*own, *map(compile_bound, bound_registrations))):
        wanted.setdefault(mask, set()).add(key)
    return Registry(records, {mask: frozenset(keys) for mask, keys in wanted.items()})


# -- flows -------------------------------------------------------------------------------------------------


def lasting_flows() -> list[Flow]:
    """Registered in every registry."""
    return [
        flow_of("39.32.64.10", ELSEWHERE, "udp/51820", 1000),
        flow_of("39.32.0.5", FAR, "udp/4500", 1000),
        flow_of("39.32.0.6", FAR, "esp"),
        flow_of("39.32.64.12", ELSEWHERE, "gre"),
        flow_of("2400:adc0:100::10", ELSEWHERE_IPV6, "udp/51820", 1000),
        flow_of("39.36.0.1", ELSEWHERE, "udp/1701", 1000),
        subscribers.flow(60_000),
    ]


def fresh_flows() -> Iterator[Flow]:
    """Registered in every registry, and each another one: some 360,000 of them."""
    for number in range(60_000):
        port = 2000 + number
        yield flow_of(f"39.32.64.{8 + number % 8}", ELSEWHERE, "udp/51820", port)
        yield flow_of(f"39.32.0.{number % 16}", FAR, "udp/4500", port)
        yield flow_of(f"2400:adc1:7::{number:x}", ELSEWHERE_IPV6, "esp")
        yield flow_of("39.36.0.1", ELSEWHERE, "udp/500", port)
        yield flow_of(f"2400:adc0:100::{number + 16:x}", ELSEWHERE_IPV6, "udp/51820", port)
        yield subscribers.flow(number)


@cache
def traffic(packets: int) -> list[Flow]:
    """A lasting flow and a fresh one by turns."""
    lasting = lasting_flows()
    fresh = islice(fresh_flows(), packets // 2)
    return list(chain.from_iterable((lasting[number % len(lasting)], flow) for number, flow in enumerate(fresh)))


_ports = count()


def handshakes() -> list[Flow]:
    """New TCP flows, registered in every registry."""
    port = 62_100 + next(_ports) % 3000
    return [
        flow_of("39.32.64.9", ELSEWHERE, "tcp/1194", port),
        flow_of("39.32.64.11", ELSEWHERE, "tcp/1723", port),
        flow_of("2400:adc0:100::9", ELSEWHERE_IPV6, "tcp/1194", port),
    ]


def inbound() -> list[Flow]:
    """New flows that the far end opens, registered in every registry."""
    port = 62_100 + next(_ports) % 3000
    return [
        flow_of(FAR, "39.32.0.9", "udp/500", port),
        flow_of(ELSEWHERE, "39.36.0.1", "udp/51820", port),
        flow_of(FAR_IPV6, "2400:adc1:7::1", "udp/1194", port),
    ]


def stranger() -> Flow:
    return flow_of(STRANGER, ELSEWHERE, "udp/51820", 62_100 + next(_ports) % 3000)
