"""Rulesets as a whole: their chains, tags and digests."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from itertools import permutations
from typing import Any

import pytest

from gatewayd.compile import compile_ruleset, parse_tag, policy_digest, replace_script
from gatewayd.compile.ruleset import COUNTERS
from gatewayd.model import Service, parse_services
from gatewayd.model.mask import Mask, set_name
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.service import BUNDLES
from gatewayd.model.transaction import RulesTag
from tests.support.rulesets import HOOKS, OBSERVE, REJECT, chains_of, every_bound_mask, every_mask


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


def test_flows_known_as_registered_are_accepted_before_anything_else_and_the_rule_carries_the_tag() -> None:
    ruleset = compile_ruleset("gatewayd", REJECT, HOOKS, 5)
    first = chains_of(REJECT, epoch=5)["forward"][1]
    assert first == (
        f'ct mark & 0x80000000 == 0x80000000 counter name registered_packets accept comment "{ruleset.tag}"'
    )


def test_the_epoch_is_in_the_mark_of_what_was_judged_and_other_bits_are_kept() -> None:
    chains = chains_of(replace(REJECT, mark_layout=MarkLayout(0x000FF000)), epoch=3)
    assert chains["forward"][3] == "ct mark & 0x0007f000 == 0x00003000 goto judged"
    assert "ct mark set ct mark & 0xfff00fff | 0x00003000" in chains["missed"]
    assert "ct mark set ct mark & 0xfff00fff | 0x00080000" in chains["registered"]


def test_what_was_judged_before_is_looked_up_again_before_it_is_refused() -> None:
    chains = chains_of(REJECT)
    assert chains["forward"][3].endswith("goto judged")
    assert chains["judged"] == ["counter name unregistered_packets", "goto look_up"]
    assert chains["unregistered"] == ["counter name unregistered_packets", "goto refuse"]
    known = "ct mark & 0x7f000000 == 0x01000000 goto in_policy"
    assert chains["missed"][0] == known
    limit = chains_of(replace(OBSERVE, mode="limit"))
    assert limit["forward"][3].endswith("goto judged")
    assert limit["judged_throttle4"][0].endswith("goto look_up")
    assert (limit["missed"][0], limit["over_limit"]) == (known, ["counter name limited_packets drop"])
    for mode in ("observe", "mark"):
        others = chains_of(replace(OBSERVE, mode=mode))
        assert others["forward"][3].endswith("goto unregistered")
        assert known not in others["missed"]


def test_counters_are_declared_in_every_ruleset() -> None:
    text = compile_ruleset("gatewayd", OBSERVE, {}, 1).text
    assert re.findall(r"^\tcounter (\w+) \{$", text, re.M) == list(COUNTERS)


OTHER_POLICIES: dict[str, Any] = {
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
OTHER_LOGGING: dict[str, Any] = {
    "log_group": 1, "log_packets_s": 1, "near_group": 2, "near_packets_s": 2,
    "counts": False, "shadows_limit": True,
}  # fmt: skip


def test_how_much_is_logged_and_counted_is_no_other_policy() -> None:
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
