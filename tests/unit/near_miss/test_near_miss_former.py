"""Addresses of a moment ago: for how long, and how many."""

from __future__ import annotations

from gatewayd.model import Binding, Prefix, Registration, parse_address, parse_prefix
from gatewayd.near_miss.former import BINDING_S, CLIENT_S, Former

HERE, THERE = parse_prefix("192.0.2.0/28"), parse_prefix("198.51.100.0/28")
BANK = Registration("BANK", "bank", "active", (HERE, THERE))
MOBILE = Registration("MOBILE", "freelancer", "active", (), subscriber=b"\1" * 32)


def binding(address: str, ports: tuple[int, int] | None = None) -> Binding:
    return Binding(
        subscriber=b"\1" * 32, prefix=parse_prefix(address), ports=ports, since_s=0.0, confirmed_s=0.0, nas="n",
        session="s",
    )  # fmt: skip


def ids_at(former: Former, address: str) -> list[str]:
    return [each.registration.id for each in former.covering(parse_address(address))]


def test_a_client_prefix_is_remembered_for_a_day() -> None:
    former = Former()
    assert former.add(BANK, (HERE,), 0.0) == []
    assert ids_at(former, "192.0.2.3") == ["BANK"]
    assert ids_at(former, "198.51.100.3") == []
    assert former.expire(CLIENT_S - 1) == ([], [])
    assert former.expire(CLIENT_S) == ([HERE], [])
    assert (ids_at(former, "192.0.2.3"), len(former)) == ([], 0)


def test_an_address_of_a_subscriber_is_remembered_for_two_minutes_with_its_ports() -> None:
    former = Former()
    former.add_binding(binding("10.0.0.9/32", (1024, 2047)), [MOBILE], 5.0)
    (found,) = former.covering(parse_address("10.0.0.9"))
    assert (found.registration, found.ports, found.is_bound) == (MOBILE, (1024, 2047), True)
    assert former.expire(5.0 + BINDING_S) == ([], [parse_prefix("10.0.0.9/32")])
    assert ids_at(former, "10.0.0.9") == []


def test_an_address_without_a_registration_is_counted_back_all_the_same() -> None:
    former = Former()
    former.add_binding(binding("10.0.0.9/32"), [], 0.0)
    assert ids_at(former, "10.0.0.9") == []
    assert former.expire(BINDING_S) == ([], [parse_prefix("10.0.0.9/32")])


def test_at_the_bound_the_oldest_go_and_are_counted() -> None:
    former = Former(max_clients=2, max_bindings=1)
    gone: list[Prefix] = []
    for number in range(3):
        gone += former.add(BANK, (Prefix(bytes((10, 0, 0, number)), 32),), float(number))
    assert gone == [parse_prefix("10.0.0.0/32")]
    assert former.add_binding(binding("10.1.0.1/32"), [MOBILE], 0.0) == []
    assert former.add_binding(binding("10.1.0.2/32"), [MOBILE], 0.0) == [parse_prefix("10.1.0.1/32")]
    assert (former.lost, len(former)) == (2, 3)
