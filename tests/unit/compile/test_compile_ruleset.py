from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import permutations

import pytest

from gatewayd.compile import compile_ruleset, parse_tag, policy_digest, replace_script
from gatewayd.compile.ruleset import COUNTERS, RULE_SETS
from gatewayd.model import Service, parse_services
from gatewayd.model.mask import ANY_PEER, Mask, set_name
from gatewayd.model.policy import MarkLayout, Mode, Policy
from gatewayd.model.service import BUNDLES
from gatewayd.model.transaction import RulesTag

LAYOUT = MarkLayout(0xFF000000)
OBSERVE = Policy("observe", parse_services(["ipsec", "wireguard"]), LAYOUT)
REJECT = replace(OBSERVE, mode="reject")
HOOKS = {mask: set_name(mask, 0) for mask in (Mask(4, 29), Mask(4, 32, 24, "ipsec"), Mask(6, 48))}


WITH_PORTS = "meta l4proto { 6, 17, 132, 136 }"


def chains_of(policy: Policy, hooks: Mapping[Mask, str] | None = None, epoch: int = 1) -> dict[str, list[str]]:
    """The lines of each chain, declarations of hooks included."""
    text = compile_ruleset("gatewayd", policy, HOOKS if hooks is None else hooks, epoch).text
    found = re.findall(r"^\tchain (\w+) \{\n(.*?)^\t\}$", text, re.M | re.S)
    assert len(found) == len(dict(found)), "a chain is declared twice"
    return {name: [line.strip() for line in body.splitlines()] for name, body in found}


def every_mask() -> list[Mask]:
    selectors = ("", *BUNDLES, "proto", "port1", "port9", "port16")
    return [
        Mask(family, length, peer, selector)
        for family, length in ((4, 29), (4, 32), (6, 48), (6, 128))
        for peer in (ANY_PEER, length, 24)
        for selector in selectors
    ]


def every_bound_mask() -> list[Mask]:
    return [replace_source(mask, bits) for mask in every_mask() for bits in (0, 1, 9, 16)]


def replace_source(mask: Mask, bits: int) -> Mask:
    return Mask(mask.family, mask.client_length, mask.peer_length, mask.selector, bits)


def test_the_text_is_the_same_for_the_same_input_in_any_order() -> None:
    texts = {compile_ruleset("gatewayd", REJECT, dict(some), 1) for some in permutations(HOOKS.items())}
    assert len(texts) == 1
    turned = replace(REJECT, scope=tuple(reversed(REJECT.scope)))
    assert chains_of(turned)["scope"] == chains_of(REJECT)["scope"]


def test_every_jump_leads_to_a_chain_that_is_declared_before_it() -> None:
    for mode in ("observe", "mark", "limit", "reject"):
        policy = replace(OBSERVE, mode=mode, registered_dscp=46, scope=parse_services([*BUNDLES, "tcp/1-5", "udp"]))
        hooks = {mask: str(mask) for mask in (*every_mask(), *every_bound_mask())}
        text = compile_ruleset("gatewayd", policy, hooks, 1).text
        declared = set(re.findall(r"chain (\w+) \{", text))
        assert set(re.findall(r"(?:goto|jump) (\w+)", text)) <= declared
        assert declared <= {"forward", *re.findall(r"(?:goto|jump) (\w+)", text)}


def test_the_ruleset_says_which_sets_it_looks_into_and_all_of_them_it_does() -> None:
    hooks = {mask: set_name(mask, 2) for mask in (*every_mask(), *every_bound_mask())}
    ruleset = compile_ruleset("gatewayd", OBSERVE, hooks, 1)
    assert ruleset.set_names == frozenset(hooks.values()) == set(re.findall(r"@(\w+) goto", ruleset.text))


def lookups_of(mask: Mask) -> tuple[str, ...]:
    """Of a ruleset that has nothing else, in order of appearance, without the test of protocols."""
    text = compile_ruleset("gatewayd", OBSERVE, {mask: str(mask)}, 1).text
    found = re.findall(rf"^\t\t(.*) @{mask} goto registered$", text, re.M)
    guarded = mask.source_bits > 0 and not mask.port_length
    assert all(line.startswith(f"{WITH_PORTS} ") == guarded for line in found)
    return tuple(line.removeprefix(f"{WITH_PORTS} ") for line in found)


def swapped(text: str, one: str, other: str) -> str:
    return text.replace(one, "?").replace(other, one).replace("?", other)


def test_each_set_is_looked_up_once_as_source_and_once_as_destination_and_by_either_port() -> None:
    for mask in (*every_mask(), *every_bound_mask()):
        first, second, *by_source_port = lookups_of(mask)
        word = "ip" if mask.family == 4 else "ip6"
        assert first.startswith(f"{word} saddr")
        assert second.startswith(f"{word} daddr")
        for lookup, other in ((first, "daddr"), (second, "saddr")):
            assert (other in lookup) == (mask.peer_length != ANY_PEER)
            assert lookup.count("th ") == (mask.port_length > 0) + (mask.source_bits > 0)
        # A packet and its reverse meet the same elements.
        if mask.port_length:
            ends = [swapped(swapped(line, "saddr", "daddr"), "sport", "dport") for line in (second, first)]
            assert by_source_port == ends
        else:
            assert by_source_port == []
            assert second == swapped(swapped(first, "saddr", "daddr"), "sport", "dport")


def test_a_block_of_ports_is_the_clients_port() -> None:
    for mask in every_bound_mask():
        if mask.source_bits > 0:
            for lookup in lookups_of(mask):
                assert lookup.split(" . ")[-1].startswith(
                    "th sport" if " saddr" in lookup.split(" . ")[0] else "th dport"
                )


def test_a_source_port_is_looked_at_of_protocols_with_ports_alone() -> None:
    """Sets with a destination port in the key are in a chain that only those reach."""
    for mask in every_bound_mask():
        chains = chains_of(OBSERVE, {mask: str(mask)})
        names = [name for name, lines in chains.items() if any("goto registered" in line for line in lines)]
        if mask.port_length:
            family = mask.family
            assert names == [f"classify{family}_ports", f"answered{family}_ports"]
            assert chains[f"classify{family}"] == [f"{WITH_PORTS} jump {names[0]}", f"goto classify{family}_rest"]
            assert chains[f"answered{family}"] == [f"{WITH_PORTS} jump {names[1]}"]
        else:
            assert len(names) == 1


@pytest.mark.parametrize(
    ("mask", "lookup"),
    [
        (Mask(4, 32, source_bits=0), "ip saddr @b4_32"),
        (Mask(6, 56, source_bits=0), "ip6 saddr & ffff:ffff:ffff:ff00:: @b6_56"),
        (Mask(4, 32, 24, "ipsec", 0), "ip saddr . ip daddr & 255.255.255.0 @b4_32_p24_ipsec"),
        (Mask(4, 32, source_bits=16), f"{WITH_PORTS} ip saddr . th sport @b4_32_s16"),
        (Mask(4, 32, source_bits=1), f"{WITH_PORTS} ip saddr . th sport & 0x8000 @b4_32_s1"),
        (Mask(4, 32, 32, "ipsec", 6), f"{WITH_PORTS} ip saddr . ip daddr . th sport & 0xfc00 @b4_32_p32_ipsec_s6"),
        (
            Mask(4, 32, ANY_PEER, "proto", 9),
            f"{WITH_PORTS} ip saddr . meta l4proto . th sport & 0xff80 @b4_32_proto_s9",
        ),
        (
            Mask(4, 32, ANY_PEER, "port7", 9),
            "ip saddr . meta l4proto . th dport & 0xfe00 . th sport & 0xff80 @b4_32_port7_s9",
        ),
        (Mask(4, 32), "ip saddr @c4_32"),
        (Mask(4, 29), "ip saddr & 255.255.255.248 @c4_29"),
        (Mask(6, 128), "ip6 saddr @c6_128"),
        (Mask(6, 48), "ip6 saddr & ffff:ffff:ffff:: @c6_48"),
        (Mask(4, 29, 32), "ip saddr & 255.255.255.248 . ip daddr @c4_29_p32"),
        (Mask(4, 32, 24, "ipsec"), "ip saddr . ip daddr & 255.255.255.0 @c4_32_p24_ipsec"),
        (Mask(4, 32, ANY_PEER, "proto"), "ip saddr . meta l4proto @c4_32_proto"),
        (Mask(4, 32, ANY_PEER, "port16"), "ip saddr . meta l4proto . th dport @c4_32_port16"),
        (Mask(4, 32, ANY_PEER, "port7"), "ip saddr . meta l4proto . th dport & 0xfe00 @c4_32_port7"),
        (
            Mask(6, 64, 128, "port1"),
            "ip6 saddr & ffff:ffff:ffff:ffff:: . ip6 daddr . meta l4proto . th dport & 0x8000 @c6_64_p128_port1",
        ),
    ],
)
def test_a_look_up_names_the_significant_bits(mask: Mask, lookup: str) -> None:
    text = compile_ruleset("gatewayd", OBSERVE, {mask: str(mask)}, 1).text
    assert f"\t\t{lookup} goto registered\n" in text


def test_look_ups_come_in_the_order_of_the_sets() -> None:
    hooks = {mask: str(mask) for mask in (Mask(4, 32), Mask(4, 24), Mask(4, 8))}
    assert [line.split("@")[1].split()[0] for line in chains_of(OBSERVE, hooks)["classify4_rest"]] == [
        "c4_32", "c4_24", "c4_8", "c4_32", "c4_24", "c4_8",
    ]  # fmt: skip


def test_a_set_of_bindings_comes_among_the_others_in_the_order_of_the_sets() -> None:
    hooks = {mask: str(mask) for mask in (Mask(4, 32), Mask(4, 24), Mask(4, 32, source_bits=0))}
    assert [line.split("@")[1].split()[0] for line in chains_of(OBSERVE, hooks)["classify4_rest"]] == [
        "c4_32", "c4_24", "b4_32", "c4_32", "c4_24", "b4_32",
    ]  # fmt: skip


def test_the_client_is_looked_for_as_source_before_as_destination() -> None:
    hooks = {mask: str(mask) for mask in (Mask(4, 32), Mask(4, 24))}
    ends = [line.split()[1] for line in chains_of(OBSERVE, hooks)["classify4_rest"]]
    assert ends == ["saddr", "saddr", "daddr", "daddr"]


def ways_to(bundle: str, key: str, *values: str) -> tuple[str, str]:
    """A map, and behind it a set with the same values."""
    ways = ", ".join(f"{value} : goto classify6_{bundle}" for value in values)
    return f"{key} vmap {{ {ways} }}", f"{key} {{ {', '.join(values)} }} goto classify6_{bundle}"


PORT, PROTOCOL = "meta l4proto . th dport", "meta l4proto"
TO_BUNDLES = {
    "ipsec": (*ways_to("ipsec", PORT, "17 . 500", "17 . 4500"), *ways_to("ipsec", PROTOCOL, "50", "51")),
    "wireguard": ways_to("wireguard", PORT, "17 . 51820"),
    "openvpn": ways_to("openvpn", PORT, "6 . 1194", "17 . 1194"),
    "pptp": (*ways_to("pptp", PORT, "6 . 1723"), *ways_to("pptp", PROTOCOL, "47")),
    "l2tp": ways_to("l2tp", PORT, "17 . 1701"),
}


def test_every_bundle_has_a_way_to_its_sets() -> None:
    assert TO_BUNDLES.keys() == BUNDLES.keys()


@pytest.mark.parametrize("bundle", BUNDLES)
def test_sets_of_a_bundle_are_for_flows_of_its_services_alone(bundle: str) -> None:
    mask = Mask(6, 48, ANY_PEER, bundle)
    chains = chains_of(OBSERVE, {mask: str(mask)})
    assert chains["classify6"] == ["jump classify6_bundle", "goto classify6_rest"]
    assert tuple(chains["classify6_bundle"]) == TO_BUNDLES[bundle]
    assert chains["answered6"] == ["jump answered6_bundle"]
    by_port = [line for line in TO_BUNDLES[bundle] if "dport" in line]
    assert chains["answered6_bundle"] == [line.replace("dport", "sport") for line in by_port]
    assert len(chains[f"classify6_{bundle}"]) == 2
    assert chains["classify4"] == ["goto classify4_rest"]
    assert chains["classify4_rest"] == chains["answered4"] == []


def test_one_map_leads_to_all_bundles_and_any_service_comes_last() -> None:
    hooks = {mask: str(mask) for mask in (Mask(4, 32), *(Mask(4, 32, ANY_PEER, name) for name in BUNDLES))}
    chains = chains_of(OBSERVE, hooks)
    assert chains["classify4"] == ["jump classify4_bundle", "goto classify4_rest"]
    assert len(chains["classify4_rest"]) == 2
    maps = [line for line in chains["classify4_bundle"] if " vmap " in line]
    assert len(maps) == 2
    assert chains["classify4_bundle"][0] == maps[0]
    for name in BUNDLES:
        assert f"goto classify4_{name}" in "".join(maps)


@pytest.mark.parametrize("mode", ["observe", "mark", "limit", "reject"])
def test_whether_a_packet_is_registered_is_never_asked_of_a_map_alone(mode: Mode) -> None:
    """While rules are replaced, maps of the old ones are empty for packets that are on their way through them. What
    a map misses in `scope` and `in_scope` leaves, and is accepted."""
    hooks = {mask: str(mask) for mask in (Mask(4, 32), *(Mask(6, 48, ANY_PEER, name) for name in BUNDLES))}
    for name, lines in chains_of(replace(OBSERVE, mode=mode), hooks).items():
        for line in lines:
            key, is_map, ways = line.partition(" vmap ")
            if not is_map or name in ("scope", "in_scope"):
                continue
            found = dict(way.split(" : goto ") for way in ways.strip("{} ").split(", "))
            sets = [each for each in lines[lines.index(line) + 1 :] if each.startswith(f"{key} {{ ")]
            behind = {
                value: target
                for values, target in (each.removeprefix(f"{key} {{ ").split(" } goto ") for each in sets)
                for value in values.split(", ")
            }
            assert behind == found


def test_no_service_is_in_two_bundles() -> None:
    services = [service for members in BUNDLES.values() for service in members]
    assert len(services) == len(set(services))


def test_a_bundle_without_ports_would_be_told_by_its_protocols_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUNDLES, "tunnels", (Service(47), Service(50)))
    mask = Mask(4, 24, ANY_PEER, "tunnels")
    chains = chains_of(OBSERVE, {mask: str(mask)})
    assert chains["classify4"] == ["jump classify4_bundle", "goto classify4_rest"]
    assert chains["classify4_bundle"] == [
        "meta l4proto vmap { 47 : goto classify4_tunnels, 50 : goto classify4_tunnels }",
        "meta l4proto { 47, 50 } goto classify4_tunnels",
    ]
    assert chains["answered4"] == []


def test_sets_with_ports_in_the_key_are_for_protocols_that_have_ports() -> None:
    hooks = {mask: str(mask) for mask in (Mask(4, 32, ANY_PEER, "port16"), Mask(4, 32, ANY_PEER, "port9"))}
    chains = chains_of(OBSERVE, hooks)
    assert chains["classify4"] == [
        "meta l4proto { 6, 17, 132, 136 } jump classify4_ports",
        "goto classify4_rest",
    ]
    assert len(chains["classify4_ports"]) == len(chains["answered4_ports"]) == 4


def test_flows_known_as_registered_are_accepted_before_anything_else_and_the_rule_carries_the_tag() -> None:
    ruleset = compile_ruleset("gatewayd", REJECT, HOOKS, 5)
    first = chains_of(REJECT, epoch=5)["forward"][1]
    assert first == (
        f'ct mark & 0x80000000 == 0x80000000 counter name registered_packets accept comment "{ruleset.tag}"'
    )


def test_the_epoch_is_in_the_mark_of_what_was_judged_and_other_bits_are_kept() -> None:
    chains = chains_of(replace(REJECT, mark_layout=MarkLayout(0x000FF000)), epoch=3)
    assert chains["forward"][3] == "ct mark & 0x0007f000 == 0x00003000 goto judged"
    assert "ct mark set ct mark & 0xfff00fff | 0x00003000" in chains["judge_packet"]
    assert "ct mark set ct mark & 0xfff00fff | 0x00080000" in chains["registered"]


def test_registered_flows_are_seen_by_conntrack_before_they_are_marked() -> None:
    lines = chains_of(OBSERVE)["registered"]
    assert lines[0].startswith("ct event set 0x")
    assert lines[-1] == "accept"


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


def test_what_was_judged_before_is_looked_up_again_before_it_is_refused() -> None:
    chains = chains_of(REJECT)
    assert chains["forward"][3].endswith("goto judged")
    refused = ["jump look_up", "jump in_policy", "goto refuse"]
    assert chains["judged"] == ["counter name unregistered_packets", *refused]
    assert chains["unregistered"] == ["counter name unregistered_packets", "goto refuse"]
    limit = chains_of(replace(OBSERVE, mode="limit"))
    assert limit["over_limit"] == ["jump look_up", "jump in_policy", "counter name limited_packets drop"]
    beyond = chains_of(replace(REJECT, canary_percent=25))["judged"]
    assert beyond.index("jump canary") < beyond.index("jump look_up")


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


def test_observing_enforces_nothing() -> None:
    everything = replace(OBSERVE, unregistered_dscp=8, unregistered_mark=1, canary_percent=5, limit_bytes_s=1)
    ruleset = compile_ruleset("gatewayd", everything, HOOKS, 1)
    assert chains_of(everything)["unregistered"] == ["counter name unregistered_packets", "accept"]
    assert "drop" not in ruleset.text
    assert "reject with" not in ruleset.text
    assert "dscp" not in ruleset.text


def test_every_mode_but_reject_ends_in_accept_and_reject_always_answers() -> None:
    for mode in ("observe", "mark"):
        assert chains_of(replace(OBSERVE, mode=mode))["unregistered"][-1] == "accept"
    limit = chains_of(replace(OBSERVE, mode="limit"))
    assert (limit["unregistered"][-1], limit["throttle"][-1]) == ("goto throttle", "accept")
    text = compile_ruleset("gatewayd", REJECT, HOOKS, 1).text
    assert chains_of(REJECT)["refuse"] == [
        "counter name rejected_packets",
        "meta l4proto tcp reject with tcp reset",
        "reject with icmpx admin-prohibited",
    ]
    assert not re.search(r"\bdrop\b", text)


def test_marking_sets_what_boxes_downstream_see() -> None:
    policy = replace(
        OBSERVE, mode="mark", registered_dscp=46, registered_mark=0x10, unregistered_dscp=0, unregistered_mark=0
    )
    chains = chains_of(policy)
    registered = ["ip dscp set 46", "ip6 dscp set 46", "meta mark set 0x00000010", "accept"]
    assert chains["registered_packet"] == ["counter name registered_packets", *registered]
    assert chains["registered"][-4:] == registered
    assert chains["unregistered"][1:] == ["ip dscp set 0", "ip6 dscp set 0", "meta mark set 0x00000000", "accept"]
    assert "goto registered_packet" in chains["forward"][1]


@pytest.mark.parametrize("mode", ["limit", "reject"])
def test_a_mark_brings_nothing_before_the_policy_that_it_is_not_about(mode: str) -> None:
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


RATE = "limit rate over 1000 bytes/second burst 1000 bytes } goto over_limit"


def test_without_a_named_side_a_limit_is_each_openers_own_and_untracked_packets_are_limited_by_source() -> None:
    policy = replace(OBSERVE, mode="limit", limit_bytes_s=1000)
    text = compile_ruleset("gatewayd", policy, HOOKS, 1).text
    assert set(re.findall(r"set (limited\d) \{", text)) == RULE_SETS
    assert chains_of(policy)["throttle"] == [
        f"update @limited4 {{ ct original ip saddr {RATE}",
        f"update @limited6 {{ ct original ip6 saddr {RATE}",
        f"ct state untracked update @limited4 {{ ip saddr {RATE}",
        f"ct state untracked update @limited6 {{ ip6 saddr {RATE}",
        "accept",
    ]


def test_a_limit_is_each_clients_own() -> None:
    chains = chains_of(replace(OBSERVE, mode="limit", limit_bytes_s=1000, inside=("eth1",)))
    assert chains["throttle"] == [
        'iifname { "eth1" } goto throttle_source',
        f"update @limited4 {{ ip daddr {RATE}",
        f"update @limited6 {{ ip6 daddr {RATE}",
        "accept",
    ]
    assert chains["throttle_source"] == [
        f"update @limited4 {{ ip saddr {RATE}",
        f"update @limited6 {{ ip6 saddr {RATE}",
        "accept",
    ]


BEYOND = "mod 100 seed 0x67617465 >= 25 accept"


@pytest.mark.parametrize("mode", ["mark", "limit", "reject"])
def test_beyond_the_canary_packets_are_accepted_before_anything_is_done_to_them(mode: str) -> None:
    chains = chains_of(replace(OBSERVE, mode=mode, canary_percent=25, unregistered_dscp=8))
    assert chains["unregistered"][:2] == ["counter name unregistered_packets", "jump canary"]
    assert chains["canary"] == [
        f"meta nfproto ipv4 jhash ct original ip saddr {BEYOND}",
        f"meta nfproto ipv6 jhash ct original ip6 saddr {BEYOND}",
        f"meta nfproto ipv4 ct state untracked jhash ip saddr {BEYOND}",
        f"meta nfproto ipv6 ct state untracked jhash ip6 saddr {BEYOND}",
    ]


def test_the_canary_is_of_clients_where_a_side_is_named() -> None:
    assert chains_of(replace(REJECT, canary_percent=25, outside=("eth0",)))["canary"] == [
        f'oifname {{ "eth0" }} meta nfproto ipv4 jhash ip saddr {BEYOND}',
        f'oifname {{ "eth0" }} meta nfproto ipv6 jhash ip6 saddr {BEYOND}',
        'oifname { "eth0" } return',
        f"meta nfproto ipv4 jhash ip daddr {BEYOND}",
        f"meta nfproto ipv6 jhash ip6 daddr {BEYOND}",
    ]


def test_a_full_canary_tests_nothing() -> None:
    assert not any("jhash" in line for line in chains_of(REJECT)["unregistered"])


def test_counters_are_declared_in_every_ruleset() -> None:
    text = compile_ruleset("gatewayd", OBSERVE, {}, 1).text
    assert re.findall(r"^\tcounter (\w+) \{$", text, re.M) == list(COUNTERS)


def test_the_log_is_bounded_and_goes_to_our_group_before_the_verdict() -> None:
    lines = chains_of(replace(REJECT, log_group=77, log_packets_s=9))["judge_packet"]
    assert lines[-2:] == [
        "limit rate 9/second burst 9 packets log group 77 snaplen 128 queue-threshold 1",
        "goto unregistered",
    ]


OTHER_POLICIES = {
    "mode": "mark",
    "scope": (Service(50),),
    "mark_layout": MarkLayout(0xF0),
    "priority": -20,
    "inside": ("eth1",),
    "outside": ("eth0",),
    "canary_percent": 5,
    "registered_dscp": 0,
    "registered_mark": 0,
    "unregistered_dscp": 0,
    "unregistered_mark": 0,
    "limit_bytes_s": 1,
}
OTHER_LOGGING = {"log_group": 1, "log_packets_s": 1}


def test_how_much_is_logged_is_no_other_policy() -> None:
    assert policy_digest(replace(OBSERVE, **OTHER_LOGGING)) == policy_digest(OBSERVE)


def test_each_field_of_the_policy_is_in_its_digest() -> None:
    assert OTHER_POLICIES.keys() | OTHER_LOGGING.keys() == {field.name for field in fields(Policy)}
    others = [replace(OBSERVE, **{name: value}) for name, value in OTHER_POLICIES.items()]
    assert len({policy_digest(policy) for policy in (OBSERVE, *others)}) == len(others) + 1
    assert policy_digest(OBSERVE) == policy_digest(replace(OBSERVE))


def test_new_hooks_are_a_new_digest_of_rules_but_the_same_policy() -> None:
    old = compile_ruleset("gatewayd", REJECT, HOOKS, 1)
    new = compile_ruleset("gatewayd", REJECT, {**HOOKS, Mask(4, 8): "c4_8"}, 1)
    assert old.policy == new.policy == policy_digest(REJECT)
    assert old.tag != new.tag


def test_the_tag_is_read_back_and_tells_epochs_hooks_tables_and_policies_apart() -> None:
    rulesets = [
        compile_ruleset("gatewayd", REJECT, HOOKS, 1),
        compile_ruleset("gatewayd", REJECT, HOOKS, 2),
        compile_ruleset("gatewayd", REJECT, {}, 1),
        compile_ruleset("other", REJECT, HOOKS, 1),
        compile_ruleset("gatewayd", OBSERVE, HOOKS, 1),
    ]
    tags = [parse_tag(ruleset.tag) for ruleset in rulesets]
    assert len({tag.digest for tag in tags if tag is not None}) == len(rulesets)
    assert tags[1] == RulesTag(2, policy_digest(REJECT), tags[1].digest if tags[1] else "", "reject")
    assert all(len(ruleset.tag) <= 128 for ruleset in rulesets), "nft takes comments up to 128 characters"


@pytest.mark.parametrize(
    "comment",
    [
        "",
        "accept ours",
        "gatewayd epoch=1 mode=mark policy=x",
        "gatewayd epoch=1 mode=mark policy=x rules=y more=z",
        "crowdsec epoch=1 mode=mark policy=x rules=y",
        "gatewayd epoch=one mode=mark policy=x rules=y",
        "gatewayd epoch=1 mode=drop policy=x rules=y",
        "gatewayd epoch mode policy rules",
        "gatewayd epoch=1 mode=mark policy=x digest=y",
    ],
)
def test_other_comments_are_no_tags(comment: str) -> None:
    assert parse_tag(comment) is None


def test_replacing_takes_all_chains_away_and_puts_ours_in_one_script() -> None:
    ruleset = compile_ruleset("gatewayd", OBSERVE, HOOKS, 1)
    script = replace_script(ruleset, "gatewayd", {"judge", "forward", "somebodys"})
    names = ["forward", "judge", "somebodys"]
    assert script == (
        "".join(f"flush chain inet gatewayd {name}\n" for name in names)
        + "".join(f"delete chain inet gatewayd {name}\n" for name in names)
        + ruleset.text
    )
    assert replace_script(ruleset, "gatewayd", []) == ruleset.text
