"""Which packets the policy is about, in the text of whole rulesets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.compile.judging import interface_warnings, knows_inside, unmatched
from gatewayd.model import Mode, parse_services
from tests.support.rulesets import OBSERVE, REJECT, chains_of

JUDGED = "goto judge_packet"
SERVERS = "meta l4proto 17 th sport { 1-499, 501-1023 } accept"


@pytest.mark.parametrize(
    ("inside", "outside", "reply"),
    [
        (
            ("ppp*", "eth2", "eth1"),
            (),
            [SERVERS, f'iifname {{ "eth1", "eth2" }} {JUDGED}', f'iifname "ppp*" {JUDGED}', "accept"],
        ),
        (("eth1",), ("eth0",), [SERVERS, f'iifname {{ "eth1" }} {JUDGED}', "accept"]),
        ((), ("eth0", "wan*"), [SERVERS, f'oifname {{ "eth0" }} {JUDGED}', f'oifname "wan*" {JUDGED}', "accept"]),
        ((), (), ["jump look_up", "accept"]),
        # An interface that may be of both sides tells nothing.
        (("eth1",), ("eth*",), ["jump look_up", "accept"]),
        (("eth*",), ("eth0",), ["jump look_up", "accept"]),
        (("eth1*",), ("eth*",), ["jump look_up", "accept"]),
        (("vlan7",), ("vlan7",), ["jump look_up", "accept"]),
    ],
)
def test_in_reply_direction_the_clients_packet_is_judged_and_where_none_is_known_it_is_looked_up_alone(
    inside: tuple[str, ...], outside: tuple[str, ...], reply: list[str]
) -> None:
    chains = chains_of(replace(REJECT, inside=inside, outside=outside))
    assert chains["judge"] == ["ct direction reply goto reply", JUDGED]
    assert chains["judge_packet"][0] == "jump look_up"
    assert chains["reply"] == reply


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
    assert chains_of(policy)["reply"] == [*servers, f'iifname {{ "eth1" }} {JUDGED}', "accept"]


def test_the_priority_is_the_operators_and_the_policy_of_the_chain_is_always_accept() -> None:
    for policy in (OBSERVE, replace(REJECT, priority=-150)):
        assert chains_of(policy)["forward"][0] == (
            f"type filter hook forward priority {policy.priority}; policy accept;"
        )


def test_what_stays_on_a_bridge_leaves_whatever_the_policy() -> None:
    """An index is compared with the other in eight digits of 16 values, the last of 8."""
    for policy in (OBSERVE, REJECT, replace(REJECT, inside=("br0",), outside=("eth0",))):
        chains = chains_of(policy)
        assert chains["forward"][2] == 'meta iifkind "bridge" meta oifkind "bridge" jump bridged'
        *digits, last = chains["bridged"]
        assert last == "accept"
        assert [line.count(" . ") - 1 for line in digits] == [16] * 7 + [8]
        assert all(line.endswith("} return") for line in digits)


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
                'iifname "ppp*" oifname { "eth0" } goto scope',
                'iifname { "eth0" } oifname "ppp*" goto scope',
            ],
        ),
        # nft before 1.0.3 takes no wildcard in a set.
        (
            ("ppp*", "eth1"),
            ("wan*",),
            [
                'iifname { "eth1" } oifname "wan*" goto scope',
                'iifname "ppp*" oifname "wan*" goto scope',
                'iifname "wan*" oifname { "eth1" } goto scope',
                'iifname "wan*" oifname "ppp*" goto scope',
            ],
        ),
    ],
)
def test_a_side_without_interfaces_is_any_interface(
    inside: tuple[str, ...], outside: tuple[str, ...], tests: list[str]
) -> None:
    assert chains_of(replace(OBSERVE, inside=inside, outside=outside))["forward"][4:] == tests


@pytest.mark.parametrize(
    ("words", "scope", "ports"),
    [
        ("", [], {}),
        ("esp gre", ["meta l4proto vmap { 47 : goto judge, 50 : goto judge }"], {}),
        (
            "ipsec tcp/8000-8100",
            ["meta l4proto vmap { 6 : goto scope_6, 17 : goto scope_17, 50 : goto judge, 51 : goto judge }"],
            {
                "scope_6": [
                    "th dport { 8000-8100 } goto judge",
                    "ct state new,untracked th sport { 8000-8100 } goto answer",
                ],
                "scope_17": [
                    "th dport { 500, 4500 } goto judge",
                    "ct state new,untracked th sport { 500, 4500 } goto answer",
                ],
            },
        ),
        ("udp wireguard", ["meta l4proto vmap { 17 : goto judge }"], {}),
    ],
)
def test_the_scope_is_one_look_up_of_the_protocol_and_one_of_the_port(
    words: str, scope: list[str], ports: dict[str, list[str]]
) -> None:
    chains = chains_of(replace(OBSERVE, scope=parse_services(words.split())))
    assert chains["scope"] == scope
    assert {name: lines for name, lines in chains.items() if name.startswith("scope_")} == ports


def test_the_log_is_bounded_and_goes_to_our_group_before_the_verdict() -> None:
    lines = chains_of(replace(REJECT, log_group=77, log_packets_s=9))["judge_packet"]
    assert lines[-2:] == [
        "limit rate 9/second burst 9 packets log group 77 snaplen 128 queue-threshold 1",
        "goto unregistered",
    ]


@pytest.mark.parametrize("mode", ["limit", "reject"])
def test_a_mark_brings_nothing_before_the_policy_that_it_is_not_about(mode: Mode) -> None:
    policy = replace(OBSERVE, mode=mode, inside=("eth1",), scope=parse_services(["ipsec", "tcp/443"]))
    chains = chains_of(policy)
    assert chains["in_policy"] == [
        'iifname { "eth1" } goto in_scope', 'oifname { "eth1" } goto in_scope', "accept",
    ]  # fmt: skip
    assert chains["in_scope"] == [
        "meta l4proto vmap { 6 : goto in_scope_6, 17 : goto in_scope_17, 50 : return, 51 : return }", "accept",
    ]  # fmt: skip
    assert chains["in_scope_17"] == ["th dport { 500, 4500 } return", "th sport { 500, 4500 } return", "accept"]
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


# -- interfaces that are there -----------------------------------------------------------------------------

PRESENT = ("lo", "eth0", "eth1", "eth1.100", "eth1.200", "ppp0", "ppp17")


@pytest.mark.parametrize(
    ("patterns", "absent"),
    [
        ((), ()),
        (("eth0", "ppp*", "eth1.*"), ()),
        (("eth1.100", "eth1.10", "ppp", "pppoe*", "eth0*"), ("eth1.10", "ppp", "pppoe*")),
        (("eth0.100", "wan"), ("eth0.100", "wan")),
    ],
)
def test_a_name_is_there_or_is_the_beginning_of_one_with_a_star(
    patterns: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    assert unmatched(patterns, PRESENT) == absent
    assert unmatched(patterns, ()) == patterns


def test_names_that_are_all_there_are_not_worth_a_word() -> None:
    assert interface_warnings(replace(OBSERVE, inside=("ppp*", "eth1"), outside=("eth0",)), PRESENT) == ()
    assert interface_warnings(OBSERVE, ()) == ()


def test_a_side_of_which_nothing_is_there_turns_enforcement_off_and_that_is_said_first() -> None:
    policy = replace(REJECT, inside=("pppoe*",), outside=("eth0.5", "eth0", "wan"))
    assert interface_warnings(policy, PRESENT) == (
        "no interface has a name of policy.interfaces.inside (pppoe*): the rules judge no packet, in any mode,"
        " until one has",
        "no interface is named pppoe* now (policy.interfaces.inside)",
        "no interface is named eth0.5 now (policy.interfaces.outside); is eth0 meant?",
        "no interface is named wan now (policy.interfaces.outside)",
    )
    assert interface_warnings(replace(REJECT, inside=("eth1.", "eth0")), PRESENT) == (
        "no interface is named eth1. now (policy.interfaces.inside); is eth1 or eth1.100 or eth1.200 meant?",
    )
