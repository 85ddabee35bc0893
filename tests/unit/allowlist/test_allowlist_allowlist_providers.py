from __future__ import annotations

from gatewayd.allowlist.endpoints import (
    MAX_MATCHING,
    has_endpoint,
    matching_endpoints,
)
from gatewayd.model import (
    Registration,
    parse_prefix,
    reverse_flow,
)
from tests.support.providers import CLIENT, ENDPOINT, IKE, allowlist_of, provider


def test_what_is_registered_by_a_client_too_is_named_once_and_first() -> None:
    bank = Registration("PK-1", "bank", "active", (parse_prefix("39.32.9.9/32"),))
    one, other = provider(), provider("VPN-8", "198.51.100.7/32", "ipsec")
    held = allowlist_of(one, bank, other)
    assert held.matching(IKE, 0.0) == (bank, other, one)
    assert held.matching_connection(reverse_flow(IKE), 0.0) == (bank,)
    assert matching_endpoints(held, IKE, 0.0, (one,)) == (one, other)


def test_a_bounded_number_is_found() -> None:
    held = allowlist_of(*(provider(f"VPN-{number}") for number in range(MAX_MATCHING + 5)))
    assert len(held.matching(IKE, 0.0)) == MAX_MATCHING


def test_providers_come_and_go_and_leave_nothing_behind() -> None:
    held = allowlist_of(provider())
    assert held.has_providers
    wider = provider(endpoints="198.51.100.0/24 2001:db8:7::/48")
    held.upsert(wider)
    assert held.endpoints_at(ENDPOINT) == (wider,)
    assert has_endpoint(wider, ENDPOINT)
    assert not has_endpoint(wider, CLIENT)
    held.withdraw("VPN-7")
    assert (held.has_providers, held.endpoints_at(ENDPOINT), held.matching(IKE, 0.0)) == (False, (), ())
