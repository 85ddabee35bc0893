"""What is a loss: the rule of docs/feed.md, by cases and against the slow way."""

from __future__ import annotations

from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.model import Extension, Flow, Prefix, Registration, parse_prefix, parse_services
from gatewayd.registry.limits import is_loss, opens_more
from tests.support.guarding import NOW, registration
from tests.support.strategies import flows, registrations

WHOLE = registration("a", "bpo", "203.0.113.0/24", peers=("198.51.100.0/24",), services=("udp/500-600", "esp"))


def changed(**fields: Any) -> Registration:
    return msgspec.structs.replace(WHOLE, **fields)


def prefixes(*texts: str) -> tuple[Prefix, ...]:
    return tuple(sorted(parse_prefix(text) for text in texts))


@pytest.mark.parametrize(
    "new",
    [
        WHOLE,
        changed(clients=prefixes("203.0.112.0/23")),
        changed(clients=prefixes("203.0.113.0/24", "2001:db8::/48")),
        changed(clients=prefixes("203.0.113.0/25", "203.0.113.128/25")),
        changed(peers=()),
        changed(peers=prefixes("198.51.0.0/16")),
        changed(services=()),
        changed(services=parse_services(("udp", "esp", "tcp/443"))),
        changed(services=parse_services(("udp/500-550", "udp/551-600", "udp/520", "esp"))),
        changed(category="bank"),
        changed(valid_from_s=NOW - 1),
        changed(valid_until_s=inf),
        changed(subscriber=bytes(32)),
    ],
)
def test_what_covers_as_much_is_no_loss(new: Registration) -> None:
    assert not is_loss(WHOLE, new, NOW)


@pytest.mark.parametrize(
    "new",
    [
        None,
        changed(status="suspended"),
        changed(status="revoked"),
        changed(clients=prefixes("203.0.113.0/25")),
        changed(clients=prefixes("203.0.113.0/25", "203.0.113.128/26")),
        changed(clients=prefixes("203.0.114.0/24")),
        changed(clients=prefixes("100.0.0.0/24")),
        changed(clients=prefixes("2001:db8::/48")),
        changed(clients=()),
        changed(peers=prefixes("198.51.100.7")),
        changed(services=parse_services(("udp/500-599", "esp"))),
        changed(services=parse_services(("udp/500-550", "udp/552-600", "esp"))),
        changed(services=parse_services(("udp",))),
        changed(valid_from_s=NOW + 1),
        changed(valid_until_s=NOW + 1),
    ],
)
def test_what_covers_less_is_a_loss(new: Registration | None) -> None:
    assert is_loss(WHOLE, new, NOW)


def test_to_name_peers_or_services_where_any_would_do_is_a_loss() -> None:
    old = registration()
    assert is_loss(old, registration(peers=("198.51.100.7",)), NOW)
    assert is_loss(old, registration(services=("ipsec",)), NOW)


def test_another_subscriber_is_a_loss() -> None:
    old = registration(subscriber=bytes(32))
    assert is_loss(old, registration(subscriber=bytes([1] * 32)), NOW)
    assert is_loss(old, registration(), NOW)
    assert not is_loss(old, old, NOW)


def test_to_leave_a_protected_category_is_a_loss() -> None:
    old, new = registration(category="bank"), registration(category="bpo")
    assert is_loss(old, new, NOW, {"bank"})
    assert not is_loss(old, new, NOW, {"embassy"})


@pytest.mark.parametrize(
    "old",
    [changed(status="suspended"), changed(status="revoked"), changed(valid_until_s=NOW)],
)
def test_nothing_is_lost_of_what_passes_nothing_any_more(old: Registration) -> None:
    assert not is_loss(old, None, NOW)


def test_a_window_that_opens_later_is_lost_and_one_that_stays_shut_is_not() -> None:
    old = changed(valid_from_s=NOW + 10)
    assert is_loss(old, None, NOW)
    assert is_loss(old, changed(valid_from_s=NOW + 11), NOW)
    assert not is_loss(old, changed(valid_from_s=NOW + 9), NOW)


def passes(registration: Registration, flow: Flow, now: float) -> bool:
    """The rule of docs/feed.md, the slow way."""

    def lies_in(address: bytes, prefixes: tuple[Prefix, ...]) -> bool:
        return any(prefix.covers(address) for prefix in prefixes)

    def meets(client: bytes, peer: bytes) -> bool:
        return lies_in(client, registration.clients) and (
            not registration.peers or lies_in(peer, registration.peers)
        )

    service_fits = not registration.services or any(
        service.matches(flow.protocol, flow.destination_port) for service in registration.services
    )
    is_met = meets(flow.source, flow.destination) or meets(flow.destination, flow.source)
    return registration.is_effective(now) and service_fits and is_met


@given(registrations(), registrations(), flows(), st.integers(0, 10).map(float))
def test_where_there_is_no_loss_every_flow_passes_as_before(
    old: Registration, new: Registration, flow: Flow, later: float
) -> None:
    now = 3.0
    if not is_loss(old, new, now) and passes(old, flow, now + later):
        assert passes(new, flow, now + later)


PROVIDER = Registration(
    "VPN", "provider", "active", (), services=parse_services(["ipsec"]),
    extension=Extension(endpoints=prefixes("198.51.100.0/24")),
)  # fmt: skip


def to(*endpoints: str, **fields: Any) -> Registration:
    return msgspec.structs.replace(PROVIDER, extension=Extension(endpoints=prefixes(*endpoints)), **fields)


@pytest.mark.parametrize(
    ("new", "loses", "opens"),
    [
        (to("198.51.100.0/24"), False, False),
        (to("198.51.100.0/25", "198.51.100.128/25"), False, False),
        (to("198.51.100.0/25"), True, False),
        (to("198.51.100.0/24", "192.0.2.0/24"), False, True),
        (to("192.0.2.0/24"), True, True),
        (to("198.51.100.0/24", services=parse_services(["ipsec", "esp", "tcp/443"])), False, True),
        (to("198.51.100.0/24", services=parse_services(["esp"])), True, False),
        (to("198.51.100.0/24", status="suspended"), True, False),
        (to("198.51.100.0/24", valid_until_s=NOW + 5), True, False),
        (to("198.51.100.0/24", valid_until_s=NOW), True, False),
        (msgspec.structs.replace(PROVIDER, extension=None), True, False),
    ],
)
def test_of_endpoints_less_is_a_loss_and_more_is_another_door(new: Registration, loses: bool, opens: bool) -> None:
    assert is_loss(PROVIDER, new, NOW) == loses
    assert opens_more(new, PROVIDER, NOW) == opens


@pytest.mark.parametrize(
    ("old", "opens"),
    [
        (None, True),
        (to("198.51.100.0/24", status="suspended"), True),
        (to("198.51.100.0/24", valid_until_s=NOW), True),
        (to("198.51.100.0/24", valid_from_s=NOW + 5), True),
        (to("198.51.100.0/24", valid_until_s=NOW + 5), False),
        (WHOLE, True),
    ],
)
def test_what_was_not_open_opens(old: Registration | None, opens: bool) -> None:
    assert opens_more(PROVIDER, old, NOW) == opens
