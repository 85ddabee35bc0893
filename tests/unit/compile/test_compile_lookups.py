"""By which sets a packet is looked up, in the text of whole rulesets."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from gatewayd.compile import compile_ruleset
from gatewayd.model import Mode, Service
from gatewayd.model.mask import ANY_PEER, Mask
from gatewayd.model.service import BUNDLES
from tests.support.rulesets import OBSERVE, chains_of, every_bound_mask, every_mask

WITH_PORTS = "meta l4proto { 6, 17, 132, 136 }"


def lookups_of(mask: Mask) -> tuple[str, ...]:
    """Of a ruleset that has nothing else, in order of appearance, without the test of protocols."""
    text = compile_ruleset("gatewayd", OBSERVE, {mask: str(mask)}, 1).text
    found = re.findall(rf"^\t\t(.*) @{mask} goto registered$", text, re.M)
    if mask.selector in BUNDLES:
        # Once more by the source port.
        assert found[2:] == found[:2]
        found = found[:2]
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
            others = f"meta l4proto != {WITH_PORTS.removeprefix('meta l4proto ')} goto"
            first, rest = f"classify{mask.family}_ports", f"classify{mask.family}_rest"
            assert names == [first, rest]
            assert chains[first][0] == f"{others} {rest}"
            assert chains[first][-1] == f"goto {rest}"
            assert chains[rest][0] == f"{others} missed"
            assert chains["look_up"] == [
                f"meta nfproto ipv{family} goto {first if family == mask.family else f'classify{family}_rest'}"
                for family in (4, 6)
            ]
        else:
            assert len(names) == (2 if mask.selector in BUNDLES else 1)


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
    assert [line.split("@")[1].split()[0] for line in chains_of(OBSERVE, hooks)["classify4_rest"][:-1]] == [
        "c4_32", "c4_24", "c4_8", "c4_32", "c4_24", "c4_8",
    ]  # fmt: skip


def test_a_set_of_bindings_comes_among_the_others_in_the_order_of_the_sets() -> None:
    hooks = {mask: str(mask) for mask in (Mask(4, 32), Mask(4, 24), Mask(4, 32, source_bits=0))}
    assert [line.split("@")[1].split()[0] for line in chains_of(OBSERVE, hooks)["classify4_rest"][:-1]] == [
        "c4_32", "c4_24", "b4_32", "c4_32", "c4_24", "b4_32",
    ]  # fmt: skip


def test_the_client_is_looked_for_as_source_before_as_destination() -> None:
    hooks = {mask: str(mask) for mask in (Mask(4, 32), Mask(4, 24))}
    ends = [line.split()[1] for line in chains_of(OBSERVE, hooks)["classify4_rest"][:-1]]
    assert ends == ["saddr", "saddr", "daddr", "daddr"]


def ways_to(bundle: str, key: str, *values: str) -> tuple[str, str]:
    """A map, and behind it a set with the same values."""
    ways = ", ".join(f"{value} : goto classify6_{bundle}" for value in values)
    return f"{key} vmap {{ {ways} }}", f"{key} {{ {', '.join(values)} }} accept"


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
    assert chains["look_up"] == [
        "meta nfproto ipv4 goto classify4_rest",
        *(f"meta nfproto ipv6 {line}" for line in TO_BUNDLES[bundle]),
        "meta nfproto ipv6 goto classify6_rest",
    ]
    by_port = [line for line in TO_BUNDLES[bundle] if "dport" in line]
    assert chains["classify6_rest"] == [
        "meta l4proto != { 6, 17, 132, 136 } goto missed",
        *(line.replace("dport", "sport").replace("classify6", "answered6") for line in by_port),
        "goto missed",
    ]
    *found, following = chains[f"classify6_{bundle}"]
    assert (len(found), following) == (2, "goto classify6_rest")
    assert chains[f"answered6_{bundle}"] == [*found, "goto missed"]
    assert chains["classify4_rest"] == ["goto missed"]


def test_one_map_leads_to_all_bundles_and_any_service_comes_last() -> None:
    hooks = {mask: str(mask) for mask in (Mask(4, 32), *(Mask(4, 32, ANY_PEER, name) for name in BUNDLES))}
    chains = chains_of(OBSERVE, hooks)
    maps = [line for line in chains["look_up"] if " vmap " in line]
    assert len(maps) == 2
    assert chains["look_up"][0] == maps[0]
    for name in BUNDLES:
        assert f"goto classify4_{name}" in "".join(maps)
        assert chains[f"classify4_{name}"][-1] == "goto classify4_rest"
    assert [line.split()[-1] for line in chains["classify4_rest"][:2]] == ["registered"] * 2


@pytest.mark.parametrize("mode", ["observe", "mark", "limit", "reject"])
def test_whether_a_packet_is_registered_is_never_asked_of_a_map_alone(mode: Mode) -> None:
    """While rules are replaced, maps of the old ones are empty for packets that are on their way through them. What
    a map misses in `scope` and `in_scope` leaves, and is accepted."""
    hooks = {mask: str(mask) for mask in (Mask(4, 32), *(Mask(6, 48, ANY_PEER, name) for name in BUNDLES))}
    maps = 0
    for name, lines in chains_of(replace(OBSERVE, mode=mode), hooks).items():
        for line, following in pairwise(lines):
            key, is_map, ways = line.partition(" vmap ")
            if not is_map or name in ("scope", "in_scope"):
                continue
            values = [way.partition(" : goto ")[0] for way in ways.strip("{} ").split(", ")]
            assert following == f"{key} {{ {', '.join(values)} }} accept"
            maps += 1
    assert maps == 3


def test_no_service_is_in_two_bundles() -> None:
    services = [service for members in BUNDLES.values() for service in members]
    assert len(services) == len(set(services))


def test_a_bundle_without_ports_would_be_told_by_its_protocols_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUNDLES, "tunnels", (Service(47), Service(50)))
    mask = Mask(4, 24, ANY_PEER, "tunnels")
    chains = chains_of(OBSERVE, {mask: str(mask)})
    assert chains["look_up"][:3] == [
        "meta nfproto ipv4 meta l4proto vmap { 47 : goto classify4_tunnels, 50 : goto classify4_tunnels }",
        "meta nfproto ipv4 meta l4proto { 47, 50 } accept",
        "meta nfproto ipv4 goto classify4_rest",
    ]
    assert "answered4_tunnels" not in chains


def test_sets_with_ports_in_the_key_are_for_protocols_that_have_ports() -> None:
    hooks = {mask: str(mask) for mask in (Mask(4, 32, ANY_PEER, "port16"), Mask(4, 32, ANY_PEER, "port9"))}
    chains = chains_of(OBSERVE, hooks)
    by_port = ["port16", "port9"] * 2
    assert [re.findall(r"@c4_32_(\w+)", line) for line in chains["classify4_ports"]] == [
        [], *([each] for each in by_port), [],
    ]  # fmt: skip
    assert [line.count("th sport") for line in chains["classify4_rest"]] == [0, 1, 1, 1, 1, 0]
