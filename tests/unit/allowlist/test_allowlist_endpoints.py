from __future__ import annotations

import pytest

from gatewayd.allowlist import matching_registrations, registered_by
from gatewayd.allowlist.endpoints import (
    MAX_MATCHING,
    answering,
    matching_endpoints,
    matching_reversed,
    registered_at_endpoint,
    serves_at_endpoint,
)
from gatewayd.model import (
    Flow,
    Registration,
    reverse_flow,
)
from gatewayd.model.service import TCP, UDP
from tests.support.providers import (
    CLIENT,
    ENDPOINT,
    ESP_OUT,
    IKE,
    PORT_500,
    WIREGUARD,
    allowlist_of,
    flow,
    provider,
)


@pytest.mark.parametrize("subject", [IKE, PORT_500, WIREGUARD, ESP_OUT, flow(443, protocol=TCP)])
def test_a_flow_to_an_endpoint_is_registered_and_its_reverse_is_not(subject: Flow) -> None:
    one = provider()
    held = allowlist_of(one)
    assert held.matching(subject, 0.0) == matching_registrations(held, subject, 0.0) == (one,)
    assert registered_by(subject, one, 0.0)
    assert registered_at_endpoint(subject, one, 0.0)
    back = reverse_flow(subject)
    assert held.matching(back, 0.0) == matching_registrations(held, back, 0.0) == ()
    assert not registered_by(back, one, 0.0)
    # Of a connection it does not matter whose packet made it.
    assert held.matching_connection(subject, 0.0) == held.matching_connection(back, 0.0) == (one,)
    assert matching_reversed(held, back, 0.0) == (one,)


@pytest.mark.parametrize(
    "subject",
    [flow(1194), flow(443), Flow(UDP, CLIENT, CLIENT, 40000, 500), flow(40000, 500), flow(80, protocol=TCP)],
)
def test_another_service_or_address_is_not(subject: Flow) -> None:
    assert allowlist_of(provider()).matching(subject, 0.0) == ()


@pytest.mark.parametrize("one", [provider(status="suspended"), provider(closes=0.0)])
def test_one_that_is_not_effective_registers_nothing(one: Registration) -> None:
    held = allowlist_of(one)
    assert held.matching(IKE, 0.0) == held.matching_connection(IKE, 0.0) == ()
    assert held.endpoints_at(ENDPOINT) == (one,)


def test_the_first_packet_of_an_endpoint_may_be_an_answer_but_not_one_of_tcp() -> None:
    held = allowlist_of(provider())
    assert answering(held, reverse_flow(IKE), 0.0)
    assert answering(held, reverse_flow(ESP_OUT), 0.0)
    assert answering(held, reverse_flow(flow(443, protocol=TCP)), 0.0) == ()
    assert answering(held, IKE, 0.0) == ()


def test_only_the_destination_port_is_the_services() -> None:
    assert serves_at_endpoint(provider(), flow(500))
    assert not serves_at_endpoint(provider(), flow(40000, 500))


def test_a_bounded_number_is_found_beside_what_was_found() -> None:
    held = allowlist_of(*(provider(f"VPN-{number}") for number in range(MAX_MATCHING + 5)))
    assert len(matching_endpoints(held, IKE, 0.0)) == MAX_MATCHING
    assert len(matching_endpoints(held, IKE, 0.0, (provider("VPN-x"),))) == MAX_MATCHING
