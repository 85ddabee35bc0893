"""Unregistered flows counted by the rules, in the text of whole rulesets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.compile.counting import counting_rules, counts_interfaces
from gatewayd.model import Mode, parse_services
from gatewayd.model.policy import Policy
from tests.support.rulesets import OBSERVE, REJECT, chains_of

INSIDE = replace(OBSERVE, inside=("eth1",), outside=("eth0",))
BUCKET = "jhash ip {} mod 100 seed 0x67617465"


def test_a_flow_is_counted_behind_every_look_up_and_before_it_is_marked() -> None:
    lines = chains_of(OBSERVE)["missed"]
    assert [line.split()[-1] for line in lines[2:5]] == ["count_flow", "reclassified_flows", "count_once"]
    assert lines[5].startswith("ct mark set")


def test_a_registered_flow_meets_no_rule_that_counts_others() -> None:
    counting = chains_of(OBSERVE)
    plain = chains_of(replace(OBSERVE, counts=False))
    chains = counting.keys() - plain.keys()
    assert {name.partition("_")[0] for name in chains} == {"count"}
    others = {name: lines for name, lines in counting.items() if name in plain and lines != plain[name]}
    # The first rule has the digest of all rules in its comment.
    assert others.keys() == {"missed", "forward"}
    assert [line.partition(" comment")[0] for line in counting["forward"]] == [
        line.partition(" comment")[0] for line in plain["forward"]
    ]


@pytest.mark.parametrize(
    ("mode", "new"), [("observe", "flow"), ("mark", "flow"), ("limit", "once"), ("reject", "once")]
)
def test_where_a_refused_packet_leaves_no_mark_its_flow_counts_once_a_minute(mode: Mode, new: str) -> None:
    assert counting_rules(replace(OBSERVE, mode=mode)) == [
        f"ct mark & 0x7f000000 == 0x00000000 jump count_{new}",
        "ct mark & 0x7f000000 != 0x00000000 counter name reclassified_flows",
        "ct state invalid,untracked jump count_once",
    ]
    assert ("count_flow" in chains_of(replace(OBSERVE, mode=mode))) == (new == "flow")


def test_a_flow_that_is_remembered_is_a_repeated_packet_and_without_a_place_it_is_uncertain() -> None:
    chains = chains_of(REJECT)
    key = "ip saddr . ip daddr . meta l4proto . th sport . th dport"
    assert chains["count_once4_ports"] == [
        f"{key} @recent4 counter name repeated_packets return",
        f"add @recent4 {{ {key} }} goto count_source4_ports",
        "counter name uncertain_packets",
    ]
    assert chains["count_once"] == [
        "meta nfproto ipv4 meta l4proto 17 goto count_once4_ports",
        "meta nfproto ipv4 goto count_once4",
        "meta nfproto ipv6 meta l4proto 17 goto count_once6_ports",
        "meta nfproto ipv6 goto count_once6",
    ]
    assert "th sport & 0x0000 . th dport & 0x0000" in chains["count_once6"][0]


def test_the_client_is_the_end_inside() -> None:
    chains = chains_of(INSIDE)
    for shape in ("4", "4_ports", "6", "6_ports"):
        ways = [f'iifname "eth1" goto count_source{shape}', f"goto count_destination{shape}"]
        assert chains[f"count_flow{shape}"] == ways
        assert chains[f"count_once{shape}"][1].endswith(f"goto count_flow{shape}")
    for name, end in (("source", "saddr"), ("destination", "daddr")):
        service = f"meta l4proto . th dport . {BUCKET.format(end)}"
        assert chains[f"count_{name}4_ports"] == [
            f"update @service_flows {{ {service} counter }}",
            f"update @prefix_flows4 {{ ip {end} & 255.255.255.0 . meta l4proto . th dport counter }} return",
            "counter name unplaced_flows",
        ]
        assert (
            f"{{ ip6 {end} & ffff:ffff:ffff:: . meta l4proto . th dport & 0x0000 counter }}"
            in (chains[f"count_{name}6"][-2])
        )


def test_without_a_named_side_it_is_the_source() -> None:
    chains = chains_of(OBSERVE)
    assert chains["count_flow"] == [
        "meta nfproto ipv4 meta l4proto 17 goto count_source4_ports",
        "meta nfproto ipv4 goto count_source4",
        "meta nfproto ipv6 meta l4proto 17 goto count_source6_ports",
        "meta nfproto ipv6 goto count_source6",
    ]
    assert "count_destination4" not in chains


def test_a_scope_without_ports_has_no_look_at_ports() -> None:
    chains = chains_of(replace(INSIDE, scope=parse_services(["esp", "gre"])))
    assert not {name for name in chains if name.startswith("count") and name.endswith("_ports")}
    assert chains["count_source4"][0].startswith("update @service_flows { meta l4proto . th dport & 0x0000 .")


@pytest.mark.parametrize(
    ("policy", "counts"),
    [
        (OBSERVE, False),
        (INSIDE, False),
        (replace(OBSERVE, inside=("eth1", "eth2")), True),
        (replace(OBSERVE, outside=("eth0",)), True),
        (replace(OBSERVE, inside=("eth1", "eth2"), outside=("eth*",)), False),
    ],
)
def test_flows_are_counted_by_interface_where_there_may_be_several(policy: Policy, counts: bool) -> None:
    assert counts_interfaces(policy) is counts
    chains = chains_of(policy)
    assert (chains["count_source4"][0] == "update @interface_flows { iifname counter }") is counts
    if counts:
        assert chains["count_destination6_ports"][0] == "update @interface_flows { oifname counter }"
