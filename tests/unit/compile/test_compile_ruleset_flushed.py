"""A chain of ours that another program flushes: what passed before passes, whichever chain it is.

In the text of whole rulesets. `tests/property/test_property_chains_flushed.py` flushes them in the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from gatewayd.model import Mode, parse_services
from gatewayd.model.mask import ANY_PEER, ENDPOINT, Mask, set_name
from gatewayd.model.policy import Policy
from gatewayd.model.service import BUNDLES
from tests.support.rulesets import HOOKS, OBSERVE, chains_in, chains_of, every_bound_mask, every_mask

GOLDEN = Path(__file__).parents[2] / "golden" / "cases"
MAX_DEPTH = 16
"""Chains on a packet's way, `goto` like `jump` (include/net/netfilter/nf_tables.h: NFT_JUMP_STACK_SIZE)."""
MAX_VISITS = 2_000_000
"""Rules on all ways through a ruleset. The kernel goes every one when rules are checked, before 6.19: 20 ms."""

MODES: tuple[Mode, ...] = ("observe", "mark", "limit", "reject")
SIDES = (((), ()), (("eth1",), ("eth0",)), (("ppp*", "eth1"), ()))
SCOPES: tuple[list[str], ...] = (["ipsec", "wireguard", "tcp/443"], ["esp", "udp"], [])
_MASKS = [
    *every_mask(),
    *every_bound_mask(),
    *(Mask(family, 32, ANY_PEER, name, ENDPOINT) for family in (4, 6) for name in ("proto", "port9", *BUNDLES)),
    Mask(4, 28, selector="near"),
    Mask(6, 48, selector="near"),
]  # fmt: skip
HOOKS_OF: dict[str, dict[Mask, str]] = {
    "none": {}, "few": HOOKS, "every kind": {mask: set_name(mask, 0) for mask in _MASKS},
}  # fmt: skip

Chains = Mapping[str, list[str]]


def policies() -> list[Policy]:
    return [
        replace(
            OBSERVE,
            mode=mode,
            inside=inside,
            outside=outside,
            scope=parse_services(words),
            canary_percent=percent,
            limit_bytes_s=1000,
            shadows_limit=True,
            registered_dscp=46,
        )
        for mode, (inside, outside), words, percent in product(MODES, SIDES, SCOPES, (25, 100))
    ]


@cache
def rulesets() -> Sequence[tuple[str, Chains]]:
    golden = [(case.name, chains_in((case / "expected.nft").read_text())) for case in sorted(GOLDEN.iterdir())]
    return golden + [
        (f"{policy} {name}", chains_of(policy, hooks)) for policy in policies() for name, hooks in HOOKS_OF.items()
    ]


def targets(line: str, ways: str = "goto|jump") -> list[str]:
    return re.findall(rf"\b(?:{ways}) (\w+)", line)


def reached(chains: Chains, start: set[str]) -> set[str]:
    found, open_ = set(start), [*start]
    while open_:
        for line in chains[open_.pop()]:
            new = set(targets(line)) - found
            found |= new
            open_ += new
    return found


def jumped_to(chains: Chains) -> set[str]:
    """Chains from which a packet comes back."""
    return reached(chains, {each for lines in chains.values() for line in lines for each in targets(line, "jump")})


def looks_up(line: str) -> bool:
    return "_near" not in line and re.search(r" @[bce][46]_\w+ ", line) is not None


def test_a_packet_comes_back_from_chains_that_change_nothing_of_its_way_alone() -> None:
    """Everything else is a `goto`, so a way that ends in an empty chain ends in the base chain's policy: accept."""
    jumped = 0
    for name, chains in rulesets():
        assert chains["forward"][0].endswith("policy accept;")
        inside = jumped_to(chains)
        jumped += len(inside)
        for line in (line for each in inside for line in chains[each]):
            assert not looks_up(line), (name, line)
            assert not re.search(r"\b(accept|drop|reject|mark set)\b", line), (name, line)
    assert jumped > len(rulesets())


def test_no_rule_returns_from_a_chain_of_the_way() -> None:
    """A return means the same as the end of an empty chain."""
    for name, chains in rulesets():
        inside = jumped_to(chains)
        back = [line for each in chains.keys() - inside for line in chains[each] if line.endswith(" return")]
        assert back == [], name


def test_a_chain_of_look_ups_ends_in_a_way_to_the_next() -> None:
    seen = 0
    for name, chains in rulesets():
        for lines in chains.values():
            if any(map(looks_up, lines)):
                assert re.fullmatch(r"goto \w+", lines[-1]), (name, lines[-1])
                seen += 1
    assert seen > len(rulesets())


def test_what_is_refused_or_marked_as_judged_has_passed_the_last_look_ups() -> None:
    """Where these stages are empty, no way leads beyond them."""
    seen = 0
    for name, chains in rulesets():
        assert "missed" not in reached({**chains, "classify4_rest": [], "classify6_rest": []}, {"forward"}), name
        seen += "missed" in reached(chains, {"forward"})
    assert seen > len(rulesets()) / 2


def test_no_way_is_longer_than_the_kernel_lets_it_be() -> None:
    deepest = 0
    for _, chains in rulesets():

        @cache
        def depth(name: str, chains: Chains = chains) -> int:
            return 1 + max((depth(each) for line in chains[name] for each in targets(line)), default=0)

        deepest = max(deepest, depth("forward"))
    assert deepest == MAX_DEPTH


@pytest.mark.parametrize("case", sorted(case.name for case in GOLDEN.iterdir()))
def test_the_kernel_has_few_ways_to_check(case: str) -> None:
    chains = chains_in((GOLDEN / case / "expected.nft").read_text())

    @cache
    def visits(name: str) -> int:
        return sum(1 + sum(map(visits, targets(line))) for line in chains[name])

    assert visits("forward") < MAX_VISITS
