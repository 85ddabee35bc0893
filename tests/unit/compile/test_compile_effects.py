"""What comes of a packet, in the text of whole rulesets."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from gatewayd.compile import compile_ruleset
from gatewayd.compile.rule_sets import RULE_SETS
from gatewayd.model import Mode
from tests.support.rulesets import HOOKS, OBSERVE, REJECT, chains_of


def test_registered_flows_are_seen_by_conntrack_before_they_are_marked() -> None:
    lines = chains_of(OBSERVE)["registered"]
    assert lines[0].startswith("ct event set 0x")
    assert lines[-1] == "accept"


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
    assert limit["unregistered"][-1] == "goto throttle"
    assert {limit[name][-1] for name in ("throttle4", "throttle6", "unfollowed")} == {"accept"}
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


HALF = "& ffff:ffff:ffff:ffff::"
RATE = "limit rate over 1000 bytes/second burst 1000 bytes } goto over_limit"


def test_without_a_named_side_a_limit_is_each_openers_own_and_untracked_packets_are_limited_by_source() -> None:
    policy = replace(OBSERVE, mode="limit", limit_bytes_s=1000)
    text = compile_ruleset("gatewayd", policy, HOOKS, 1).text
    assert set(re.findall(r"set (\w+) \{\n\t\ttype", text)) == RULE_SETS
    chains = chains_of(policy)
    assert chains["throttle"] == [
        "update @followed4 { ct original ip saddr } goto throttle4",
        f"update @followed6 {{ ct original ip6 saddr {HALF} }} goto throttle6",
        "ct state untracked update @followed4 { ip saddr } goto throttle_source4",
        f"ct state untracked update @followed6 {{ ip6 saddr {HALF} }} goto throttle_source6",
        "goto unfollowed",
    ]
    assert chains["throttle4"] == [f"update @limiter4 {{ ct original ip saddr {RATE}", "accept"]
    assert chains["throttle6"] == [f"update @limiter6 {{ ct original ip6 saddr {HALF} {RATE}", "accept"]


def test_a_limit_is_each_clients_own() -> None:
    chains = chains_of(replace(OBSERVE, mode="limit", limit_bytes_s=1000, inside=("eth1",)))
    assert chains["throttle"] == [
        'iifname "eth1" update @followed4 { ip saddr } goto throttle_source4',
        f'iifname "eth1" update @followed6 {{ ip6 saddr {HALF} }} goto throttle_source6',
        'iifname != "eth1" update @followed4 { ip daddr } goto throttle4',
        f'iifname != "eth1" update @followed6 {{ ip6 daddr {HALF} }} goto throttle6',
        "goto unfollowed",
    ]
    for name, end in (("throttle", "daddr"), ("throttle_source", "saddr")):
        assert chains[f"{name}4"] == [f"update @limiter4 {{ ip {end} {RATE}", "accept"]
        assert chains[f"{name}6"] == [f"update @limiter6 {{ ip6 {end} {HALF} {RATE}", "accept"]


def test_clients_for_which_there_is_no_place_share_a_rate() -> None:
    chains = chains_of(replace(OBSERVE, mode="limit", limit_bytes_s=1000))
    for prefix, over in (("", "over_limit"), ("judged_", "look_up")):
        assert chains[f"{prefix}unfollowed"] == [
            "counter name unfollowed_packets",
            f"update @unfollowed {{ meta mark & 0x00000000 {RATE.replace('over_limit', over)}",
            "accept",
        ]


def test_a_flow_known_as_judged_has_the_rates_of_all_others_and_is_looked_up_beyond_them() -> None:
    chains = chains_of(replace(OBSERVE, mode="limit", limit_bytes_s=1000, inside=("eth1",)))
    names = [name for name in chains if name.startswith("judged_")]
    assert len(names) == 6
    for name in names:
        again = [line.replace("goto look_up", "goto over_limit") for line in chains[name]]
        assert [line.replace("goto judged_", "goto ") for line in again] == chains[name.removeprefix("judged_")]
    assert chains["judged"][-1] == "goto judged_throttle"


BEYOND = "mod 100 seed 0x67617465 >= 25 accept"


@pytest.mark.parametrize("mode", ["mark", "limit", "reject"])
def test_beyond_the_canary_packets_are_accepted_before_anything_is_done_to_them(mode: Mode) -> None:
    chains = chains_of(replace(OBSERVE, mode=mode, canary_percent=25, unregistered_dscp=8))
    for name in {"unregistered", "judged"} & chains.keys():
        assert chains[name][:7] == [
            "counter name unregistered_packets",
            f"ct direction reply meta nfproto ipv4 jhash ip daddr {BEYOND}",
            f"ct direction reply meta nfproto ipv6 jhash @nh,192,64 {BEYOND}",
            f"ct direction original meta nfproto ipv4 jhash ip saddr {BEYOND}",
            f"ct direction original meta nfproto ipv6 jhash @nh,64,64 {BEYOND}",
            f"ct state invalid,untracked meta nfproto ipv4 jhash ip saddr {BEYOND}",
            f"ct state invalid,untracked meta nfproto ipv6 jhash @nh,64,64 {BEYOND}",
        ]


def test_the_canary_is_of_clients_where_a_side_is_named() -> None:
    assert chains_of(replace(REJECT, canary_percent=25, outside=("eth0", "wan*")))["unregistered"][1:-1] == [
        f'oifname "eth0" meta nfproto ipv4 jhash ip saddr {BEYOND}',
        f'oifname "eth0" meta nfproto ipv6 jhash @nh,64,64 {BEYOND}',
        f'oifname "wan*" meta nfproto ipv4 jhash ip saddr {BEYOND}',
        f'oifname "wan*" meta nfproto ipv6 jhash @nh,64,64 {BEYOND}',
        f'oifname != "eth0" oifname != "wan*" meta nfproto ipv4 jhash ip daddr {BEYOND}',
        f'oifname != "eth0" oifname != "wan*" meta nfproto ipv6 jhash @nh,192,64 {BEYOND}',
    ]


def test_a_full_canary_tests_nothing() -> None:
    assert not any("jhash" in line for line in chains_of(REJECT)["unregistered"])


def test_with_each_ruleset_limits_begin_anew_and_shares_of_the_log_do_not() -> None:
    """To flush a full set makes 65,536 notifications, for us to read too."""
    flushes = {
        mode: re.findall(
            r"^flush set inet gatewayd (\w+)$", compile_ruleset("gatewayd", policy, HOOKS, 1).text, re.M
        )
        for mode in ("observe", "limit")
        for policy in (replace(OBSERVE, mode=mode),)
    }
    assert flushes == {"observe": [], "limit": ["followed4", "followed6", "limiter4", "limiter6", "unfollowed"]}


def test_observing_counts_what_a_limit_would_drop_by_the_rules_that_would_drop_it() -> None:
    limit = replace(OBSERVE, inside=("eth1",), mode="limit", limit_bytes_s=1000)
    shadow = chains_of(replace(limit, mode="observe", shadows_limit=True))
    real = chains_of(limit)
    assert shadow["unregistered"] == ["counter name unregistered_packets", "goto throttle"]
    throttles = [name for name in real if name.startswith(("throttle", "unfollowed", "judged", "in_"))]
    assert throttles
    assert {name: shadow[name] for name in throttles} == {name: real[name] for name in throttles}
    assert real["over_limit"] == ["counter name limited_packets drop"]
    assert shadow["over_limit"] == ["counter name over_limit_packets accept"]
    assert not [line for lines in shadow.values() for line in lines if "drop" in line]
