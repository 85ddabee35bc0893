"""The look-ups of endpoints, in the text of whole rulesets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.compile import compile_ruleset
from gatewayd.compile.endpoints import endpoint_chains, ends_of_lookups
from gatewayd.model.mask import ANY_PEER, ENDPOINT, Mask, set_name
from tests.support.rulesets import HOOKS, OBSERVE, REJECT, chains_of

E4 = Mask(4, 24, ANY_PEER, "ipsec", ENDPOINT)
E6 = Mask(6, 48, ANY_PEER, "port9", ENDPOINT)
BOTH = HOOKS | {mask: set_name(mask, 0) for mask in (E4, E6)}
NAMED = replace(REJECT, inside=("ppp*", "eth1"), outside=("eth0",))


def test_without_endpoints_there_is_not_one_rule_more() -> None:
    assert endpoint_chains(NAMED, HOOKS) == []
    assert ends_of_lookups(HOOKS) == {4: "missed", 6: "missed"}
    for policy in (OBSERVE, REJECT, NAMED):
        text = compile_ruleset("gatewayd", policy, HOOKS, 1).text
        assert "endpoint" not in text


def test_what_nothing_else_registers_comes_here_last() -> None:
    assert ends_of_lookups(BOTH) == {4: "endpoints4", 6: "endpoints6"}
    chains = chains_of(NAMED, BOTH)
    assert chains["classify6_rest"][-1] == "goto endpoints6"
    assert chains["answered4_ipsec"][-1] == "goto endpoints4"
    # The other look-ups have nothing of them.
    ends = {"classify4_rest", "classify6_rest", "answered4_ipsec", "forward"}
    plain = chains_of(NAMED)
    assert {name for name in chains if chains[name] != plain.get(name)} - ends == {
        "endpoints4", "endpoints6", "to_endpoint4", "to_endpoint6", "from_endpoint4", "from_endpoint6",
    }  # fmt: skip


OTHER_PORTS = "meta l4proto 17 th dport != { 500, 4500, 51820 } accept"


def test_a_packet_from_inside_is_to_an_endpoint_and_one_from_outside_is_from_one() -> None:
    assert chains_of(NAMED, BOTH)["endpoints4"][2:] == [
        'iifname "eth1" goto to_endpoint4',
        'iifname "ppp*" goto to_endpoint4',
        "goto from_endpoint4",
    ]


def test_a_packet_with_a_service_at_its_source_port_alone_is_not_looked_up_here() -> None:
    """A flow known as judged is, whatever its ports: it is refused otherwise."""
    assert chains_of(NAMED, BOTH)["endpoints4"][:2] == [
        f"ct mark & 0x7f000000 != 0x01000000 {OTHER_PORTS}",
        f"ct state untracked {OTHER_PORTS}",
    ]
    assert chains_of(replace(NAMED, mode="observe"), BOTH)["endpoints4"][0] == OTHER_PORTS


def test_the_flags_of_tcp_tell_what_opens_a_flow_and_what_answers() -> None:
    chains = chains_of(NAMED, BOTH)
    assert chains["to_endpoint4"][0] == "tcp flags & (syn | ack) == (syn | ack) goto missed"
    assert chains["from_endpoint4"][0] == "tcp flags & (syn | ack) == syn goto missed"
    unnamed = chains_of(REJECT, BOTH)["endpoints4"]
    assert unnamed[2] == "tcp flags & (syn | ack) == (syn | ack) goto from_endpoint4"


def test_where_no_side_is_named_a_packet_is_looked_up_as_one_to_an_endpoint_and_then_as_one_from_it() -> None:
    unnamed, named = chains_of(REJECT, BOTH), chains_of(NAMED, BOTH)
    assert unnamed["endpoints4"][3:] == [*named["to_endpoint4"][1:-1], "goto from_endpoint4"]
    assert unnamed["from_endpoint4"] == named["from_endpoint4"]
    assert "to_endpoint4" not in unnamed


def test_the_service_is_at_the_endpoints_port() -> None:
    chains = chains_of(NAMED, BOTH)
    assert chains["to_endpoint4"][1:] == [
        "meta l4proto . th dport { 17 . 500, 17 . 4500 } ip daddr & 255.255.255.0 @e4_24_ipsec goto registered",
        "meta l4proto { 50, 51 } ip daddr & 255.255.255.0 @e4_24_ipsec goto registered",
        "goto missed",
    ]
    assert chains["from_endpoint4"][1:] == [
        "meta l4proto . th sport { 17 . 500, 17 . 4500 } ip saddr & 255.255.255.0 @e4_24_ipsec accept",
        "meta l4proto { 50, 51 } ip saddr & 255.255.255.0 @e4_24_ipsec accept",
        "goto missed",
    ]
    assert chains["to_endpoint6"][1:] == [
        "meta l4proto { 6, 17, 132, 136 } ip6 daddr & ffff:ffff:ffff:: . meta l4proto . th dport & 0xff80 "
        "@e6_48_port9 goto registered",
        "goto missed",
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
    hooks = {mask: set_name(mask, 0)}
    chains = chains_of(NAMED, hooks)
    assert chains["to_endpoint4"][1:] == [line, "goto missed"]
    assert "endpoints6" not in chains
    assert ends_of_lookups(hooks) == {4: "endpoints4", 6: "missed"}
