"""Which packets the policy is about, in the text of whole rulesets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.compile.interfaces import knows_inside
from gatewayd.model import Mode, parse_services
from gatewayd.model.mask import Mask, set_name
from tests.support.rulesets import OBSERVE, REJECT, chains_of

SERVERS = "ct direction reply meta l4proto 17 th sport { 1-499, 501-1023 } accept"


@pytest.mark.parametrize(
    ("inside", "outside", "others"),
    [
        (("ppp*", "eth2", "eth1"), (), 'iifname != { "eth1", "eth2" } iifname != "ppp*"'),
        (("eth1",), ("eth0",), 'iifname != "eth1"'),
        ((), ("eth0", "wan*"), 'oifname != "eth0" oifname != "wan*"'),
        ((), (), ""),
        # An interface that may be of both sides tells nothing.
        (("eth1",), ("eth*",), ""),
        (("eth*",), ("eth0",), ""),
        (("eth1*",), ("eth*",), ""),
        (("vlan7",), ("vlan7",), ""),
    ],
)
def test_in_reply_direction_the_clients_packet_is_judged_and_where_none_is_known_it_is_looked_up_alone(
    inside: tuple[str, ...], outside: tuple[str, ...], others: str
) -> None:
    chains = chains_of(replace(REJECT, inside=inside, outside=outside))
    is_known = bool(others)
    if is_known:
        assert chains["judge"] == [SERVERS, f"ct direction reply {others} accept", "goto look_up"]
    assert chains["scope_17"][0].split()[-1] == ("judge" if is_known else "look_up")
    assert (chains["missed"][1] == "ct direction reply accept") is not is_known


@pytest.mark.parametrize(
    ("words", "servers"),
    [
        ("esp gre", []),
        ("udp", []),
        ("tcp/1-1023", []),
        ("tcp/1-2000 tcp/443", []),
        ("tcp/443", ["meta l4proto 6 th sport { 1-442, 444-1023 } accept"]),
        ("tcp/1 tcp/1023 udp/2-1022", [
            "meta l4proto 6 th sport { 2-1022 } accept", "meta l4proto 17 th sport { 1, 1023 } accept",
        ]),
        ("udp/51820 udp/1000-2000", ["meta l4proto 17 th sport { 1-999 } accept"]),
    ],
)  # fmt: skip
def test_a_server_inside_has_a_system_port_that_is_no_service_in_scope(words: str, servers: list[str]) -> None:
    policy = replace(REJECT, inside=("eth1",), scope=parse_services(words.split()))
    assert chains_of(policy)["judge"] == [
        *(f"ct direction reply {line}" for line in servers),
        'ct direction reply iifname != "eth1" accept',
        "goto look_up",
    ]


def test_the_priority_is_the_operators_and_the_policy_of_the_chain_is_always_accept() -> None:
    for policy in (OBSERVE, replace(REJECT, priority=-150)):
        assert chains_of(policy)["forward"][0] == (
            f"type filter hook forward priority {policy.priority}; policy accept;"
        )


def test_what_stays_on_a_bridge_leaves_whatever_the_policy() -> None:
    """An index is compared with the other in eight digits of 16 values, the last of 8."""
    for policy in (OBSERVE, REJECT, replace(REJECT, inside=("br0",), outside=("eth0",))):
        chains = chains_of(policy)
        begin, *digits = chains["forward"][2].split(" meta iif & ")
        assert begin == 'meta iifkind "bridge" meta oifkind "bridge"'
        assert [digit.count(" . ") - 1 for digit in digits] == [16] * 7 + [8]
        assert digits[-1].endswith(" } accept")


@pytest.mark.parametrize(
    ("inside", "outside", "tests"),
    [
        ((), (), ["goto scope"]),
        (("ppp*",), (), ['iifname "ppp*" goto scope', 'oifname "ppp*" goto scope']),
        ((), ("eth1", "eth0"), ['iifname { "eth0", "eth1" } goto scope', 'oifname { "eth0", "eth1" } goto scope']),
        (
            ("ppp*",),
            ("eth0",),
            [
                'iifname "ppp*" oifname "eth0" goto scope',
                'iifname "eth0" oifname "ppp*" goto scope',
            ],
        ),
        # nft before 1.0.3 takes no wildcard in a set.
        (
            ("ppp*", "eth1"),
            ("wan*",),
            [
                'iifname "eth1" oifname "wan*" goto scope',
                'iifname "ppp*" oifname "wan*" goto scope',
                'iifname "wan*" oifname "eth1" goto scope',
                'iifname "wan*" oifname "ppp*" goto scope',
            ],
        ),
    ],
)
def test_a_side_without_interfaces_is_any_interface(
    inside: tuple[str, ...], outside: tuple[str, ...], tests: list[str]
) -> None:
    rest = [] if tests == ["goto scope"] else ["goto uncrossed"]
    assert chains_of(replace(OBSERVE, inside=inside, outside=outside))["forward"][4:] == tests + rest


COUNTED = "counter name uncrossed_packets accept"


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("", []),
        ("esp gre", [f"meta l4proto {{ 47, 50 }} {COUNTED}"]),
        (
            "esp udp/51820 tcp/8000-8100",
            [
                f"meta l4proto {{ 50 }} {COUNTED}",
                f"meta l4proto 6 th dport {{ 8000-8100 }} {COUNTED}",
                f"meta l4proto 6 th sport {{ 8000-8100 }} {COUNTED}",
                f"meta l4proto 17 th dport {{ 51820 }} {COUNTED}",
                f"meta l4proto 17 th sport {{ 51820 }} {COUNTED}",
            ],
        ),
    ],
)
def test_what_is_in_scope_and_crosses_no_named_side_is_counted(words: str, lines: list[str]) -> None:
    policy = replace(OBSERVE, scope=parse_services(words.split()))
    assert chains_of(replace(policy, inside=("eth1",)))["uncrossed"] == [*lines, "accept"]
    assert "uncrossed" not in chains_of(policy)


@pytest.mark.parametrize(
    ("words", "scope", "ports"),
    [
        ("", [], {}),
        ("esp gre", ["meta l4proto vmap { 47 : goto look_up, 50 : goto look_up }"], {}),
        (
            "ipsec tcp/8000-8100",
            ["meta l4proto vmap { 6 : goto scope_6, 17 : goto scope_17, 50 : goto look_up, 51 : goto look_up }"],
            {
                "scope_6": [
                    "th dport { 8000-8100 } goto look_up",
                    "ct state new,untracked th sport { 8000-8100 } goto answer",
                ],
                "scope_17": [
                    "th dport { 500, 4500 } goto look_up",
                    "ct state new,untracked th sport { 500, 4500 } goto answer",
                ],
            },
        ),
        ("udp wireguard", ["meta l4proto vmap { 17 : goto look_up }"], {}),
    ],
)
def test_the_scope_is_one_look_up_of_the_protocol_and_one_of_the_port(
    words: str, scope: list[str], ports: dict[str, list[str]]
) -> None:
    chains = chains_of(replace(OBSERVE, scope=parse_services(words.split())))
    assert chains["scope"] == scope
    assert {name: lines for name, lines in chains.items() if name.startswith("scope_")} == ports


def test_the_log_is_bounded_and_goes_to_our_group_before_the_verdict() -> None:
    chains = chains_of(replace(REJECT, log_group=77, log_packets_s=900))
    assert chains["missed"][-2:] == ["jump note", "goto unregistered"]
    over = "limit rate over 45/second burst 45 packets } counter name unlogged_flows return"
    assert chains["note"] == [
        f"update @noted4 {{ ip saddr {over}",
        f"update @noted6 {{ ip6 saddr & ffff:ffff:ffff:ffff:: {over}",
        "limit rate 900/second burst 900 packets log group 77 snaplen 128 queue-threshold 1 return",
        "counter name unlogged_flows",
    ]
    assert "over 1/second" in chains_of(replace(REJECT, log_packets_s=9))["note"][0]


def test_packets_from_near_clients_have_a_log_of_their_own_that_strangers_do_not_use_up() -> None:
    policy = replace(REJECT, log_packets_s=900, near_group=78, near_packets_s=400)
    assert "note_near" not in chains_of(policy)
    masks = (Mask(4, 28, selector="near"), Mask(6, 48, selector="near"), Mask(4, 32))
    chains = chains_of(policy, {mask: set_name(mask, 0) for mask in masks})
    assert chains["note"][:2] == [
        "ip saddr & 255.255.255.240 @c4_28_near goto note_near",
        "ip6 saddr & ffff:ffff:ffff:: @c6_48_near goto note_near",
    ]
    assert chains["note"][2:] == chains_of(policy)["note"]
    over = "limit rate over 20/second burst 20 packets } counter name unlogged_near_flows return"
    assert chains["note_near"] == [
        f"update @nearby4 {{ ip saddr {over}",
        f"update @nearby6 {{ ip6 saddr & ffff:ffff:ffff:ffff:: {over}",
        "limit rate 400/second burst 400 packets log group 78 snaplen 128 queue-threshold 1 return",
        "counter name unlogged_near_flows",
    ]


@pytest.mark.parametrize("mode", ["limit", "reject"])
def test_a_mark_brings_nothing_before_the_policy_that_it_is_not_about(mode: Mode) -> None:
    policy = replace(OBSERVE, mode=mode, inside=("eth1",), scope=parse_services(["ipsec", "tcp/443"]))
    chains = chains_of(policy)
    refused = "refuse" if mode == "reject" else "over_limit"
    assert chains["in_policy"] == [
        'iifname "eth1" goto in_scope', 'oifname "eth1" goto in_scope', "accept",
    ]  # fmt: skip
    assert chains["in_scope"] == [
        "meta l4proto vmap { 6 : goto in_scope_6, 17 : goto in_scope_17, "
        f"50 : goto {refused}, 51 : goto {refused} }}",
        "accept",
    ]  # fmt: skip
    ways = [f"th {port} {{ 500, 4500 }} goto {refused}" for port in ("dport", "sport")]
    assert chains["in_scope_17"] == [*ways, "accept"]
    assert chains_of(replace(policy, inside=(), scope=()))["in_policy"] == ["goto in_scope"]
    assert chains_of(replace(policy, scope=()))["in_scope"] == ["accept"]


@pytest.mark.parametrize(
    ("inside", "outside", "known"),
    [((), (), False), (("lan0",), (), True), ((), ("wan0",), True), (("eth*",), ("eth1",), False)],
)
def test_an_end_inside_is_known_where_a_side_is_named_and_the_sides_are_apart(
    inside: tuple[str, ...], outside: tuple[str, ...], known: bool
) -> None:
    assert knows_inside(replace(OBSERVE, inside=inside, outside=outside)) == known


def test_what_has_no_service_in_scope_at_its_destination_port_is_left_alone_behind_the_look_ups() -> None:
    policy = replace(OBSERVE, scope=parse_services(["ipsec", "tcp/443"]))
    chains = chains_of(policy)
    assert chains["answer"] == ["meta nfproto ipv4 goto classify4_rest", "meta nfproto ipv6 goto classify6_rest"]
    assert chains["missed"][1:3] == [
        "meta l4proto 6 th dport != { 443 } accept",
        "meta l4proto 17 th dport != { 500, 4500 } accept",
    ]
    assert "answer" not in chains_of(replace(OBSERVE, scope=parse_services(["esp", "udp"])))
