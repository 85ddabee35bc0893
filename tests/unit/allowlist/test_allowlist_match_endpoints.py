from __future__ import annotations

import pytest

from gatewayd.allowlist import decide
from gatewayd.model import (
    Flow,
    Registration,
    reverse_flow,
)
from gatewayd.model.service import UDP
from tests.support.providers import CLIENT, ENDPOINT, IKE, PORT_500, SCOPE, WIREGUARD, allowlist_of, flow, provider


@pytest.mark.parametrize(
    ("subject", "held", "word", "reason"),
    [
        (
            PORT_500,
            (provider(registrant="co-9"),),
            "registered",
            "registered by VPN-7 of co-9 (provider): destination in 198.51.100.0/24, an endpoint of a licensed "
            "provider, from inside alone, service ipsec",
        ),
        (
            WIREGUARD,
            (provider(), provider("VPN-8", "198.51.100.7/32")),
            "registered",
            "registered by VPN-8 (provider): destination in 198.51.100.7/32, an endpoint of a licensed provider, "
            "from inside alone, service udp/51820; also by VPN-7",
        ),
        (
            reverse_flow(IKE),
            (provider(),),
            "out_of_scope",
            "198.51.100.7 is an endpoint of VPN-7, so this may be an answer, and the client's packet decides",
        ),
        (
            Flow(UDP, ENDPOINT, CLIENT, 40000, 500),
            (provider(),),
            "unregistered",
            "VPN-7 has as an endpoint the source, but a flow to its endpoints is registered, and never one from "
            "them",
        ),
        (
            WIREGUARD,
            (provider(services="ipsec"),),
            "unregistered",
            "VPN-7 has as an endpoint the destination, but its services are ipsec, not udp/51820",
        ),
        (
            IKE,
            (provider(status="suspended"),),
            "unregistered",
            "VPN-7 has as an endpoint the destination, but is suspended",
        ),
        (
            flow(443, 500),  # from a port in scope, as an answer; the endpoint's service is no business of it
            (provider(services="udp/443"),),
            "out_of_scope",
            "udp/443 is outside the scope (ipsec, tcp/443, udp/51820); in scope it would be registered by VPN-7",
        ),
    ],
)
def test_a_decision_names_the_provider(
    subject: Flow, held: tuple[Registration, ...], word: str, reason: str
) -> None:
    found = decide(allowlist_of(*held), SCOPE, subject, 0.0)
    assert (found.word, found.reason) == (word, reason)
