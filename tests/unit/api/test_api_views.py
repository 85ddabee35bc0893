from __future__ import annotations

from math import inf

import msgspec
import pytest

from gatewayd.api.views import (
    binding_view,
    bound_view,
    flow_service,
    flow_view,
    registration_view,
    unregistered_flow_view,
)
from gatewayd.model import (
    Extension,
    Flow,
    Registration,
    parse_address,
    parse_prefix,
    parse_services,
)
from gatewayd.model.moment import format_time, parse_time
from tests.support.fake_queries import BANK, FREELANCER, NOW, SHARED

INSIDE, PEER, OTHER = (parse_address(text) for text in ("203.0.113.5", "198.51.100.7", "192.0.2.9"))
OUT = Flow(17, INSIDE, PEER, 40000, 51820)


@pytest.mark.parametrize(
    ("at_s", "text"),
    [
        (None, None),
        (inf, None),
        (-inf, None),
        (0, "1970-01-01T00:00:00Z"),
        (NOW, "2024-11-04T03:00:00Z"),
        (NOW + 0.25, "2024-11-04T03:00:00.250Z"),
        (NOW + 0.9999, "2024-11-04T03:00:01Z"),
    ],
)
def test_a_time_is_rfc_3339_in_utc(at_s: float | None, text: str | None) -> None:
    assert format_time(at_s) == text


@pytest.mark.parametrize("at_s", [0.0, NOW, NOW + 0.125])
def test_a_time_can_be_read_back(at_s: float) -> None:
    assert parse_time(format_time(at_s) or "") == at_s


def test_a_service_has_a_port_where_the_protocol_has() -> None:
    assert flow_service(OUT) == "udp/51820"
    assert flow_service(Flow(50, INSIDE, PEER)) == "esp"


def test_a_binding_shows_no_digest_of_its_subscriber() -> None:
    view = binding_view(SHARED, NOW, registrations=("a", "b"), in_kernel=None)
    assert msgspec.to_builtins(view) == {
        "prefix": "192.0.2.77/32",
        "ports": (1024, 2047),
        "registrations": ("a", "b"),
        "since": "2024-11-03T02:00:00Z",
        "confirmed": "2024-11-04T02:00:00Z",
        "age_s": 3600.0,
        "nas": "cgn-2",
        "session": "s-77",
        "restored": True,
        "in_kernel": None,
        "also_of": (),
    }


def test_a_binding_that_is_confirmed_by_a_clock_ahead_of_ours_is_of_now() -> None:
    ahead = msgspec.structs.replace(SHARED, confirmed_s=NOW + 9)
    assert bound_view(ahead, NOW).age_s == 0.0
    assert bound_view(msgspec.structs.replace(SHARED, confirmed_s=NOW - 0.12345), NOW).age_s == 0.123


def test_a_registration_shows_no_digest_of_its_subscriber() -> None:
    view = registration_view(FREELANCER, NOW)
    assert view.subscriber is True
    assert "d1d1" not in msgspec.json.encode(view).decode()
    assert (view.status, view.effective, view.in_kernel, view.last_seen_at) == (
        "suspended",
        False,
        None,
        None,
    )


def test_a_registration_has_its_window_and_what_is_known_of_it() -> None:
    view = registration_view(
        msgspec.structs.replace(BANK, valid_until_s=NOW + 1),
        NOW,
        in_kernel=False,
        unprogrammed="too many",
        last_seen_s=NOW,
        flows=3,
        size_bytes=9,
    )
    assert msgspec.to_builtins(view) == {
        "id": "PK-2024-000123",
        "category": "bank",
        "status": "active",
        "effective": True,
        "clients": ("203.0.113.0/28", "2001:db8:12::/48"),
        "peers": ("198.51.100.7/32",),
        "services": ("ipsec", "udp/51820"),
        "subscriber": False,
        "valid_from": "2024-11-03T03:00:00Z",
        "valid_until": "2024-11-04T03:00:01Z",
        "in_kernel": False,
        "unprogrammed": "too many",
        "last_seen_at": "2024-11-04T03:00:00Z",
        "flows": 3,
        "bytes": 9,
        "standing": None,
        "registrant": None,
        "provisional": False,
        "endpoints": (),
    }


def test_a_provider_has_its_company_and_its_endpoints_and_may_be_provisional() -> None:
    services, endpoints = parse_services(["ipsec"]), (parse_prefix("198.51.100.64/27"),)
    extension = Extension("co-000031", is_provisional=True, endpoints=endpoints)
    provider = Registration("p", "provider", "active", (), services=services, extension=extension)
    view = registration_view(provider, NOW)
    assert (view.registrant, view.provisional, view.endpoints) == ("co-000031", True, ("198.51.100.64/27",))
    assert (view.clients, view.peers, view.services) == ((), (), ("ipsec",))


def test_a_flow_without_ports_has_none() -> None:
    view = flow_view(Flow(50, INSIDE, PEER), ("a", "b"), packets=1, size_bytes=2, last_seen_s=NOW)
    assert (view.service, view.sport, view.registrations) == ("esp", None, ("a", "b"))
    assert (view.first_seen_at, view.last_seen_at) == (None, "2024-11-04T03:00:00Z")


def test_services_are_the_words_of_the_registry() -> None:
    assert parse_services(registration_view(BANK, NOW).services) == BANK.services


def test_an_unregistered_flow_has_its_ends_and_its_moment() -> None:
    view = unregistered_flow_view(OUT, NOW)
    assert (view.src, view.dst, view.service) == ("203.0.113.5", "198.51.100.7", "udp/51820")
