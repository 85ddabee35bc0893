"""Why a flow is missed: each reason by a case, and the same rule as the allowlist's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.allowlist import Allowlist, registered_by
from gatewayd.lab.traffic import flow_of
from gatewayd.model import Binding, Extension, Flow, Registration, Service, parse_prefix, parse_services
from gatewayd.near_miss.former import Former
from gatewayd.near_miss.reasons import REASONS, Miss, classify, failures

NOW = 1000.0
FAR = "198.51.100.7"
BANK = Registration(
    "BANK", "bank", "active", (parse_prefix("192.0.2.0/28"),), peers=(parse_prefix("198.51.100.0/24"),),
    services=parse_services(["ipsec"]), valid_from_s=500.0, valid_until_s=2000.0,
)  # fmt: skip
MOBILE = Registration(
    "MOBILE", "freelancer", "active", (), subscriber=b"\1" * 32, services=parse_services(["wireguard"])
)


def changed(**fields: Any) -> Registration:
    return msgspec.structs.replace(BANK, **fields)


def bound(address: str, ports: tuple[int, int] | None = None) -> Binding:
    return Binding(
        subscriber=b"\1" * 32, prefix=parse_prefix(address), ports=ports, since_s=0.0, confirmed_s=0.0, nas="n",
        session="s",
    )  # fmt: skip


def allowlist_of(*registrations: Registration, bindings: tuple[Binding, ...] = ()) -> Allowlist:
    made = Allowlist()
    for each in registrations:
        made.upsert(each)
    for binding in bindings:
        made.bindings.put(binding)
    return made


def reason_of(allowlist: Allowlist, flow: Flow, former: Former | None = None) -> tuple[str, str] | None:
    miss = classify(allowlist, former or Former(), flow, NOW)
    return None if miss is None else (miss.registration_id, miss.reason)


IKE = flow_of("192.0.2.3", FAR, "udp/500", 4000)


@pytest.mark.parametrize(
    ("registration", "flow", "reason"),
    [
        (BANK, flow_of("192.0.2.3", FAR, "udp/51820"), "service_not_listed"),
        (BANK, flow_of("192.0.2.3", "203.0.113.9", "udp/500"), "peer_not_listed"),
        (BANK, flow_of("192.0.2.3", "203.0.113.9", "udp/51820"), "peer_not_listed"),
        (changed(valid_from_s=NOW + 1), IKE, "not_open_yet"),
        (changed(valid_until_s=NOW), IKE, "window_closed"),
        (changed(status="suspended"), IKE, "suspended"),
        (changed(status="revoked"), IKE, "revoked"),
        (BANK, IKE, "not_programmed"),
    ],
)
def test_each_condition_has_its_reason(registration: Registration, flow: Flow, reason: str) -> None:
    assert reason_of(allowlist_of(registration), flow) == ("BANK", reason)


def test_a_stranger_and_what_comes_from_the_far_end_are_no_near_misses() -> None:
    allowlist = allowlist_of(BANK)
    assert reason_of(allowlist, flow_of("192.0.2.99", FAR, "udp/500")) is None
    assert reason_of(allowlist, flow_of("203.0.113.9", "192.0.2.3", "udp/51820")) is None


def test_what_is_kept_of_a_flow_has_no_address_of_the_client() -> None:
    miss = classify(allowlist_of(BANK), Former(), flow_of("192.0.2.3", FAR, "udp/51820"), NOW)
    assert miss == Miss(
        "BANK", "bank", "service_not_listed", Service(17, 51820, 51820), parse_prefix("198.51.100.0/24")
    )
    other = msgspec.structs.replace(BANK, clients=(parse_prefix("2400:adc0:12::/48"),))
    flow = flow_of("2400:adc0:12::3", "2001:db8:7:1::7", "gre")
    miss = classify(allowlist_of(other), Former(), flow, NOW)
    assert miss is not None
    assert (miss.service, miss.far) == (Service(47), parse_prefix("2001:db8:7::/48"))


def test_a_fragment_has_a_protocol_and_no_port() -> None:
    flow = Flow(17, IKE.source, IKE.destination)
    miss = classify(allowlist_of(BANK), Former(), flow, NOW)
    assert miss is not None
    assert miss.service == Service(17)


def test_the_registration_that_fails_least_is_named_and_then_the_longest_prefix() -> None:
    wide = msgspec.structs.replace(
        BANK, id="ISP", clients=(parse_prefix("192.0.2.0/24"), parse_prefix("10.0.0.0/8")), status="suspended"
    )
    allowlist = allowlist_of(BANK, wide)
    assert reason_of(allowlist, flow_of("192.0.2.3", FAR, "udp/51820")) == ("BANK", "service_not_listed")
    assert reason_of(allowlist, flow_of("192.0.2.99", FAR, "udp/500")) == ("ISP", "suspended")
    both = allowlist_of(BANK, msgspec.structs.replace(BANK, id="A-BRANCH"))
    assert reason_of(both, flow_of("192.0.2.3", FAR, "gre")) == ("A-BRANCH", "service_not_listed")


def test_a_subscriber_is_found_by_his_address_and_port() -> None:
    at = bound("10.0.0.9/32", (1024, 2047))
    allowlist = allowlist_of(MOBILE, bindings=(at,))
    assert reason_of(allowlist, flow_of("10.0.0.9", FAR, "udp/500", 1500)) == ("MOBILE", "service_not_listed")
    assert reason_of(allowlist, flow_of("10.0.0.9", FAR, "udp/500", 3000)) is None
    assert reason_of(allowlist, flow_of("10.0.0.9", FAR, "esp")) is None
    whole = allowlist_of(MOBILE, bindings=(bound("10.0.0.9/32"),))
    assert reason_of(whole, flow_of("10.0.0.9", FAR, "esp")) == ("MOBILE", "service_not_listed")


def test_a_former_address_is_withdrawn_or_moved() -> None:
    former = Former()
    former.add(BANK, BANK.clients, 0.0)
    assert reason_of(Allowlist(), IKE, former) == ("BANK", "withdrawn")
    renumbered = allowlist_of(changed(clients=(parse_prefix("192.0.3.0/28"),)))
    assert reason_of(renumbered, IKE, former) == ("BANK", "address_moved")
    # Who has it now, and is missed by one condition alone, is as near.
    now = allowlist_of(msgspec.structs.replace(BANK, id="A-NEW", services=parse_services(["wireguard"])))
    assert reason_of(now, IKE, former) == ("A-NEW", "service_not_listed")


def test_a_session_that_ended_and_one_that_moved() -> None:
    former = Former()
    former.add_binding(bound("10.0.0.9/32", (1024, 2047)), [MOBILE], 0.0)
    flow = flow_of("10.0.0.9", FAR, "udp/51820", 1500)
    assert reason_of(allowlist_of(MOBILE), flow, former) == ("MOBILE", "binding_ended")
    elsewhere = allowlist_of(MOBILE, bindings=(bound("10.0.0.200/32"),))
    assert reason_of(elsewhere, flow, former) == ("MOBILE", "address_moved")
    assert reason_of(allowlist_of(MOBILE), flow_of("10.0.0.9", FAR, "udp/51820", 4000), former) is None
    suspended = msgspec.structs.replace(MOBILE, status="suspended")
    other = Former()
    other.add_binding(bound("10.0.0.9/32"), [suspended], 0.0)
    assert reason_of(allowlist_of(suspended), flow, other) == ("MOBILE", "suspended")


def test_a_crowd_at_one_prefix_costs_a_bound_of_work() -> None:
    peers = [parse_prefix(f"203.0.{number // 250}.{number % 250}/32") for number in range(3000)]
    crowd = [
        msgspec.structs.replace(BANK, id=f"BRANCH-{number:05}", peers=(peer,)) for number, peer in enumerate(peers)
    ]
    allowlist = allowlist_of(*crowd)
    found = classify(allowlist, Former(), flow_of("192.0.2.3", "203.0.4.7", "udp/51820"), NOW)
    # The one whose peer it is, of all of them.
    assert found is not None
    assert (found.registration_id, found.reason) == ("BRANCH-01007", "service_not_listed")
    assert reason_of(allowlist, flow_of("192.0.2.3", FAR, "udp/500")) == ("BRANCH-00000", "peer_not_listed")


@given(
    status=st.sampled_from(["active", "suspended", "revoked"]),
    window=st.tuples(st.sampled_from([0.0, NOW, NOW + 1]), st.sampled_from([NOW, NOW + 1])),
    peers=st.sampled_from([(), ("198.51.100.0/24",), ("203.0.113.0/24",)]),
    services=st.sampled_from([(), ("ipsec",), ("udp/4000",), ("wireguard", "gre")]),
    word=st.sampled_from(["udp/500", "udp/51820", "gre", "esp"]),
)
def test_no_condition_fails_where_the_rule_lets_a_flow_pass(
    status: Any, window: tuple[float, float], peers: tuple[str, ...], services: tuple[str, ...], word: str
) -> None:
    registration = changed(
        status=status,
        valid_from_s=window[0],
        valid_until_s=window[1],
        peers=tuple(map(parse_prefix, peers)),
        services=parse_services(services),
    )
    flow = flow_of("192.0.2.3", FAR, word, 4000)
    found = failures(registration, flow.destination, flow, NOW)
    assert (not found) == registered_by(flow, registration, NOW)
    assert list(found) == sorted(found, key=REASONS.index)


PROVIDER = Registration(
    "VPN", "provider", "active", (), services=parse_services(["ipsec"]),
    extension=Extension(endpoints=(parse_prefix("203.0.113.0/24"),)),
)  # fmt: skip


TO_VPN = flow_of("10.9.9.9", "203.0.113.7", "esp")


@pytest.mark.parametrize(
    ("provider", "flow", "reason"),
    [
        (PROVIDER, flow_of("10.9.9.9", "203.0.113.7", "udp/1194"), "service_not_listed"),
        (PROVIDER, flow_of("10.9.9.9", "203.0.113.7", "udp/1194", 500), "service_not_listed"),
        (
            msgspec.structs.replace(PROVIDER, status="suspended"),
            flow_of("10.9.9.9", "203.0.113.7", "esp"),
            "suspended",
        ),
        (
            msgspec.structs.replace(PROVIDER, valid_from_s=2e3),
            flow_of("10.9.9.9", "203.0.113.7", "esp"),
            "not_open_yet",
        ),
        (
            msgspec.structs.replace(PROVIDER, valid_until_s=9.0),
            flow_of("10.9.9.9", "203.0.113.7", "esp"),
            "window_closed",
        ),
    ],
)
def test_a_stranger_to_a_provider_misses_the_provider(provider: Registration, flow: Flow, reason: str) -> None:
    assert reason_of(allowlist_of(provider), flow) == ("VPN", reason)


def test_a_flow_that_a_provider_registers_is_no_miss_and_neither_is_one_from_it() -> None:
    held = allowlist_of(PROVIDER)
    assert reason_of(held, flow_of("10.9.9.9", "203.0.113.7", "esp")) is None
    assert reason_of(held, flow_of("203.0.113.7", "10.9.9.9", "udp/1194")) is None
    # A client's own registration is nearer.
    both = allowlist_of(PROVIDER, changed(peers=()))
    assert reason_of(both, flow_of("192.0.2.3", "203.0.113.7", "udp/1194")) == ("BANK", "service_not_listed")
