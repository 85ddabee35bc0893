"""Endpoints of licensed providers, through the whole state: held back, over a restart, accepted."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.errors import SerialNotHeld
from gatewayd.model import Extension, Registration, parse_prefix, parse_services
from gatewayd.registry.state import ENDPOINTS
from tests.support.guarding import BANK, NOW, OTHERS, InForce, overrides, registration, registry

LIMIT = 16


def provider(id: str = "VPN", *endpoints: str, **fields: Any) -> Registration:
    extension = Extension(endpoints=tuple(sorted(map(parse_prefix, endpoints or ("198.51.100.0/24",)))))
    services = parse_services(["ipsec"])
    return Registration(id, "provider", "active", (), services=services, extension=extension, **fields)


def many(count: int = LIMIT + 1) -> list[Registration]:
    return [provider(f"VPN-{number}", f"198.51.{number}.0/24") for number in range(count)]


def running(*some: Registration) -> InForce:
    it = InForce("a")
    it.read("a", BANK, *OTHERS, *some)
    return it


def held_back(it: InForce) -> set[str]:
    held = it.state.endpoints.held()
    return set() if held is None else set(held.held)


def test_the_first_registry_is_taken_as_it_is() -> None:
    it = running(*many())
    assert len(it.in_force) == 11 + LIMIT + 1
    assert held_back(it) == set()


@pytest.mark.parametrize("way", ["reading", "delta"])
def test_too_many_are_not_in_force_before_a_word(way: str) -> None:
    it = running()
    if way == "reading":
        it.read("a", BANK, *OTHERS, registration("new"), *many())
    else:
        it.follow("a", registration("new"), *many())
    assert it.in_force == registry(BANK, *OTHERS, registration("new"))
    assert held_back(it) == {each.id for each in many()}
    assert it.held() == {}, "nothing was removed"
    with pytest.raises(SerialNotHeld):
        it.take(it.state.accept(it.serial + 1, NOW))
    assert it.state.releasable(it.serial) == {ENDPOINTS: LIMIT + 1}
    it.take(it.state.accept(it.serial, NOW, "uid 0"))
    assert it.in_force == registry(BANK, *OTHERS, registration("new"), *many())
    assert it.state.history.since()[-1].by == "uid 0"


def test_a_few_apply_at_once() -> None:
    it = running()
    it.follow("a", *many(3))
    assert set(it.in_force) >= {"VPN-0", "VPN-1", "VPN-2"}


def test_what_is_held_back_is_held_back_after_a_restart_and_what_was_there_stays() -> None:
    it = running(provider("VPN-0", "198.51.0.0/25"))
    it.follow("a", *many())
    assert it.in_force["VPN-0"] == provider("VPN-0", "198.51.0.0/25")
    again = it.restarted("a").restarted("a")
    assert again.in_force == it.in_force
    assert held_back(again) == held_back(it)
    # Another run that finds other sources compares with what was in force.
    moved = it.restarted("b")
    moved.read("b", BANK, *OTHERS, *many())
    assert moved.in_force == it.in_force
    assert held_back(moved) == held_back(it)
    again.take(again.state.accept(it.serial, NOW))
    assert again.in_force == registry(BANK, *OTHERS, *many())


def test_what_was_held_back_and_withdrawn_leaves_nothing() -> None:
    it = running(provider("VPN-0", "198.51.0.0/25"))
    it.follow("a", *many())
    it.follow("a", withdraw=[f"VPN-{number}" for number in range(1, LIMIT + 1)])
    assert held_back(it) == {"VPN-0"}
    # To withdraw what is in force of it is a removal like any other: the only one of its category may go.
    it.follow("a", withdraw=["VPN-0"])
    assert it.in_force == registry(BANK, *OTHERS)
    assert held_back(it) == set()


def test_one_word_lets_go_of_both_under_one_serial() -> None:
    it = running()
    it.read("a", *OTHERS, *many())
    assert it.held() == {"a": 1}
    assert it.state.releasable(it.serial) == {"a": 1, ENDPOINTS: LIMIT + 1}
    it.take(it.state.accept(it.serial, NOW))
    assert it.in_force == registry(*OTHERS, *many())


def test_a_local_pin_is_an_operators_word_and_a_filter_takes_endpoints_away() -> None:
    it = running()
    pins = "".join(
        f"  - {{id: VPN-{n}, category: provider, services: [ipsec], endpoints: [198.51.{n}.0/24], comment: x}}\n"
        for n in range(LIMIT + 1)
    )
    it.use_overrides(overrides("pins:\n" + pins))
    assert held_back(it) == set()
    assert len(it.in_force) == 11 + LIMIT + 1
    it = running(provider("VPN", "198.51.100.0/24", "192.0.2.0/24"), provider("GONE", "198.51.100.7/32"))
    it.use_overrides(overrides('filters:\n  - {prefix: 198.51.100.0/24, comment: "abused"}\n'))
    held = it.state.held()
    assert held is not None
    it.take(it.state.accept(held.serial, NOW))
    assert it.in_force["VPN"] == provider("VPN", "192.0.2.0/24")
    assert "GONE" not in it.in_force
