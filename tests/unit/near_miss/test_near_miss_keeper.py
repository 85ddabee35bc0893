"""What the registry, sessions and the kernel's log make of the list, and the list on disk."""

from __future__ import annotations

import random
import sqlite3
from math import inf
from pathlib import Path

import msgspec

from gatewayd.allowlist import Allowlist
from gatewayd.compile.near import NearClients
from gatewayd.lab.traffic import flow_of
from gatewayd.model import Binding, Registration, parse_prefix, parse_services
from gatewayd.near_miss.former import BINDING_S, CLIENT_S
from gatewayd.near_miss.keeper import MAX_RECENT, REPEATED_S, NearMissKeeper
from gatewayd.near_miss.store import FILE

FAR = "198.51.100.7"
BANK = Registration("BANK", "bank", "active", (parse_prefix("192.0.2.0/28"),), services=parse_services(["ipsec"]))
MOBILE = Registration(
    "MOBILE", "freelancer", "active", (), subscriber=b"\1" * 32, services=parse_services(["wireguard"])
)
BOUND = Binding(
    subscriber=b"\1" * 32, prefix=parse_prefix("10.0.0.9/32"), since_s=0.0, confirmed_s=0.0, nas="n", session="s"
)
WRONG = flow_of("192.0.2.3", FAR, "udp/51820")


class Scene:
    """An allowlist that is fed as the programmer feeds it."""

    def __init__(self) -> None:
        self.allowlist = Allowlist()
        self.near = NearClients()
        self.told = 0
        self.now = 1000.0
        self.keeper = NearMissKeeper(
            self.allowlist, self.near, self.tell, clock=lambda: self.now, monotonic=lambda: self.now
        )

    def tell(self) -> None:
        self.told += 1

    def upsert(self, registration: Registration) -> None:
        self.keeper.replaced(self.allowlist.get(registration.id), registration)
        self.allowlist.upsert(registration)

    def withdraw(self, id: str) -> None:
        self.keeper.replaced(self.allowlist.get(id), None)
        self.allowlist.withdraw(id)

    def reasons(self) -> list[tuple[str, str, int]]:
        return [(each.registration_id, each.reason, each.flows) for each in self.keeper.listed()]

    def prefixes(self) -> set[str]:
        came, went = self.near.take(100)
        assert not went
        return {f"{key.hex()}/{mask.client_length}" for mask, key in came}


def test_a_flow_of_a_customer_is_a_line_and_a_strangers_is_none() -> None:
    scene = Scene()
    scene.upsert(BANK)
    assert scene.told == 1
    assert not scene.keeper.seen(flow_of("192.0.2.99", FAR, "udp/500"), scene.now)
    assert scene.keeper.seen(WRONG, scene.now)
    assert scene.keeper.seen(msgspec.structs.replace(WRONG, source_port=4001), scene.now)
    assert scene.reasons() == [("BANK", "service_not_listed", 2)]
    view = scene.keeper.view()
    assert (view.flows, view.listed, view.prefixes, scene.keeper.flows) == (2, 1, 1, 2)


def test_a_refused_packet_that_is_repeated_counts_once_a_minute() -> None:
    scene = Scene()
    scene.upsert(BANK)
    for _ in range(5):
        assert scene.keeper.seen(WRONG, scene.now)
        scene.now += REPEATED_S / 6
    assert scene.reasons() == [("BANK", "service_not_listed", 1)]
    assert scene.keeper.listed()[0].last_seen_s == scene.now - REPEATED_S / 6
    scene.now += REPEATED_S
    assert scene.keeper.seen(WRONG, scene.now)
    for port in range(10_000, 10_001 + MAX_RECENT):
        scene.keeper.seen(msgspec.structs.replace(WRONG, source_port=port), scene.now)
    assert scene.reasons()[0][2] == MAX_RECENT + 3
    assert len(scene.keeper._recent) == MAX_RECENT


def test_what_a_registration_loses_is_near_for_a_day() -> None:
    scene = Scene()
    scene.upsert(BANK)
    scene.upsert(msgspec.structs.replace(BANK, category="embassy"))
    scene.upsert(msgspec.structs.replace(BANK, clients=(parse_prefix("192.0.3.0/28"),)))
    assert scene.keeper.seen(flow_of("192.0.2.3", FAR, "esp"), scene.now)
    assert scene.reasons() == [("BANK", "address_moved", 1)]
    scene.withdraw("BANK")
    assert scene.keeper.seen(flow_of("192.0.3.3", FAR, "esp"), scene.now)
    assert scene.prefixes() == {"c0000200/28", "c0000300/28"}
    scene.now += CLIENT_S
    scene.keeper.expire()
    assert not scene.keeper.seen(flow_of("192.0.3.3", FAR, "esp"), scene.now)
    assert len(scene.near) == 0


def test_an_address_of_a_subscriber_is_near_while_it_is_bound_and_two_minutes_more() -> None:
    scene = Scene()
    scene.upsert(MOBILE)
    assert scene.told == 0  # it has no clients
    scene.keeper.bound(BOUND)
    scene.allowlist.bindings.put(BOUND)
    assert scene.prefixes() == {"0a000009/32"}
    assert scene.keeper.seen(flow_of("10.0.0.9", FAR, "udp/500"), scene.now)
    scene.keeper.unbound(BOUND, (MOBILE,))
    scene.allowlist.bindings.remove(BOUND)
    assert scene.keeper.seen(flow_of("10.0.0.9", FAR, "udp/51820"), scene.now)
    assert scene.reasons() == [("MOBILE", "binding_ended", 1), ("MOBILE", "service_not_listed", 1)]
    scene.now += BINDING_S
    scene.keeper.expire()
    assert not scene.keeper.seen(flow_of("10.0.0.9", FAR, "udp/51820"), scene.now)
    assert len(scene.near) == 0


def test_at_the_bound_an_ended_session_makes_room() -> None:
    scene = Scene()
    scene.keeper._former._max_bindings = 1
    for number in (1, 2):
        binding = msgspec.structs.replace(BOUND, prefix=parse_prefix(f"10.0.0.{number}/32"))
        scene.keeper.bound(binding)
        scene.keeper.unbound(binding, (MOBILE,))
    assert (len(scene.near), scene.keeper.view().former_lost) == (1, 1)


async def test_the_list_survives_a_restart_and_so_does_an_acknowledgement(tmp_path: Path) -> None:
    scene = Scene()
    await scene.keeper.open(tmp_path)
    scene.upsert(BANK)
    scene.keeper.seen(WRONG, scene.now)
    assert await scene.keeper.acknowledge("BANK", inf, "uid 0") == 1
    assert await scene.keeper.acknowledge("OTHER", inf, "uid 0") == 0
    scene.withdraw("BANK")
    scene.keeper.seen(flow_of("192.0.2.3", FAR, "esp"), scene.now)
    await scene.keeper.close()
    # Not an address of a client is in the file.
    assert b"192.0.2" not in (tmp_path / FILE).read_bytes()
    again = Scene()
    await again.keeper.open(tmp_path)
    assert again.reasons() == [("BANK", "withdrawn", 1)]
    assert len(again.keeper.listed(with_acknowledged=True)) == 2
    assert again.keeper.file_view.state == "ok"
    await again.keeper.close()


async def test_a_disk_that_takes_nothing_costs_nothing_but_what_it_would_have_kept(tmp_path: Path) -> None:
    scene = Scene()
    (tmp_path / FILE).mkdir()
    await scene.keeper.open(tmp_path)
    scene.upsert(BANK)
    scene.keeper.seen(WRONG, scene.now)
    assert await scene.keeper.acknowledge("BANK", 1060.0, "uid 0") == 1
    scene.now = 1100.0
    assert scene.reasons() == [("BANK", "service_not_listed", 1)]
    await scene.keeper.close()


async def test_what_could_not_be_written_is_written_with_what_comes_next(tmp_path: Path) -> None:
    scene = Scene()
    await scene.keeper.open(tmp_path)
    scene.upsert(BANK)
    scene.keeper.seen(WRONG, scene.now)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    await scene.keeper._save()
    other.close()
    scene.keeper.seen(msgspec.structs.replace(WRONG, source_port=4001), scene.now)
    await scene.keeper.close()
    again = Scene()
    await again.keeper.open(tmp_path)
    assert again.reasons() == [("BANK", "service_not_listed", 2)]
    await again.keeper.close()


def test_without_a_file_the_list_is_there() -> None:
    scene = Scene()
    scene.upsert(BANK)
    scene.keeper.seen(WRONG, scene.now)
    assert scene.keeper.file_view.state == "closed"


def test_whatever_comes_and_goes_no_prefix_is_left_over() -> None:
    chance, scene = random.Random(3), Scene()
    scene.keeper._former._max_clients, scene.keeper._former._max_bindings = 5, 3
    bound: list[Binding] = []
    for _ in range(1500):
        scene.now += chance.choice([0.0, 1.0, BINDING_S / 3, CLIENT_S / 20])
        id, word = f"R{chance.randrange(6)}", chance.randrange(5)
        words = {f"192.0.{chance.randrange(3)}.{16 * chance.randrange(4)}/28" for _ in range(3)}
        clients = tuple(map(parse_prefix, sorted(words)))
        if word < 2:
            scene.upsert(msgspec.structs.replace(BANK, id=id, clients=clients))
        elif word == 2:
            scene.withdraw(id)
        elif word == 3:
            bound.append(msgspec.structs.replace(BOUND, prefix=parse_prefix(f"10.0.0.{chance.randrange(9)}/32")))
            scene.keeper.bound(bound[-1])
        elif bound:
            scene.keeper.unbound(bound.pop(chance.randrange(len(bound))), (MOBILE,))
        scene.keeper.expire()
        here = {prefix for each in scene.allowlist for prefix in each.clients} | {each.prefix for each in bound}
        assert len(here) <= len(scene.near) <= len(here) + 5 + 3
    for number in range(6):
        scene.withdraw(f"R{number}")
    for binding in bound:
        scene.keeper.unbound(binding, ())
    scene.now += CLIENT_S
    scene.keeper.expire()
    assert len(scene.near) == 0
