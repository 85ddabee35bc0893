"""The look-ups of endpoints, in the text of whole rulesets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.compile import compile_ruleset
from gatewayd.compile.endpoints import endpoint_chains, has_endpoints
from gatewayd.model.mask import ANY_PEER, ENDPOINT, Mask, set_name
from tests.support.rulesets import HOOKS, OBSERVE, REJECT, chains_of

E4 = Mask(4, 24, ANY_PEER, "ipsec", ENDPOINT)
E6 = Mask(6, 48, ANY_PEER, "port9", ENDPOINT)
BOTH = HOOKS | {mask: set_name(mask, 0) for mask in (E4, E6)}
NAMED = replace(REJECT, inside=("ppp*", "eth1"), outside=("eth0",))


def test_without_endpoints_there_is_not_one_rule_more() -> None:
    assert endpoint_chains(NAMED, HOOKS) == []
    assert not has_endpoints(HOOKS)
    for policy in (OBSERVE, REJECT, NAMED):
        text = compile_ruleset("gatewayd", policy, HOOKS, 1).text
        assert "endpoint" not in text
        assert chains_of(policy)["look_up"][2] == "meta l4proto != { 6, 17, 132, 136 } return"


def test_what_nothing_else_registers_comes_here_last() -> None:
    assert has_endpoints(BOTH)
    assert chains_of(NAMED, BOTH)["look_up"] == [
        "meta nfproto ipv4 jump classify4",
        "meta nfproto ipv6 jump classify6",
        "meta l4proto != { 6, 17, 132, 136 } goto endpoints",
        "meta nfproto ipv4 jump answered4",
        "meta nfproto ipv6 jump answered6",
        "goto endpoints",
    ]
    # The other look-ups have nothing of them.
    with_them, without = chains_of(NAMED, BOTH), chains_of(NAMED)
    assert {name for name in with_them if with_them[name] != without.get(name)} - {"look_up", "forward"} == {
        "endpoints", "to_endpoint", "from_endpoint",
        "to_endpoint4", "to_endpoint6", "from_endpoint4", "from_endpoint6",
    }  # fmt: skip


def test_a_packet_from_inside_is_to_an_endpoint_and_one_from_outside_is_from_one() -> None:
    chains = chains_of(NAMED, BOTH)
    assert chains["endpoints"] == [
        'iifname "eth1" goto to_endpoint',
        'iifname "ppp*" goto to_endpoint',
        "goto from_endpoint",
    ]
    assert chains["to_endpoint"] == [
        "tcp flags & (syn | ack) == (syn | ack) return",
        "meta nfproto ipv4 goto to_endpoint4",
        "meta nfproto ipv6 goto to_endpoint6",
    ]
    assert chains["from_endpoint"][0] == "tcp flags & (syn | ack) == syn return"
    assert chains_of(REJECT, BOTH)["endpoints"] == ["jump to_endpoint", "goto from_endpoint"]


def test_the_service_is_at_the_endpoints_port() -> None:
    chains = chains_of(NAMED, BOTH)
    assert chains["to_endpoint4"] == [
        "meta l4proto . th dport { 17 . 500, 17 . 4500 } ip daddr & 255.255.255.0 @e4_24_ipsec goto registered",
        "meta l4proto { 50, 51 } ip daddr & 255.255.255.0 @e4_24_ipsec goto registered",
    ]
    assert chains["from_endpoint4"] == [
        "meta l4proto . th sport { 17 . 500, 17 . 4500 } ip saddr & 255.255.255.0 @e4_24_ipsec accept",
        "meta l4proto { 50, 51 } ip saddr & 255.255.255.0 @e4_24_ipsec accept",
    ]
    assert chains["to_endpoint6"] == [
        "meta l4proto { 6, 17, 132, 136 } ip6 daddr & ffff:ffff:ffff:: . meta l4proto . th dport & 0xff80 "
        "@e6_48_port9 goto registered"
    ]


@pytest.mark.parametrize(
    ("selector", "line"),
    [
        ("proto", "ip daddr . meta l4proto @e4_32_proto goto registered"),
        ("wireguard", "meta l4proto . th dport { 17 . 51820 } ip daddr @e4_32_wireguard goto registered"),
        (
            "port16",
            "meta l4proto { 6, 17, 132, 136 } ip daddr . meta l4proto . th dport @e4_32_port16 goto registered",
        ),
    ],
)
def test_one_family_alone_and_every_kind_of_selector(selector: str, line: str) -> None:
    mask = Mask(4, 32, ANY_PEER, selector, ENDPOINT)
    chains = chains_of(REJECT, {mask: set_name(mask, 0)})
    assert chains["to_endpoint4"] == [line]
    assert "to_endpoint6" not in chains
    assert chains["to_endpoint"][1:] == ["meta nfproto ipv4 goto to_endpoint4"]
