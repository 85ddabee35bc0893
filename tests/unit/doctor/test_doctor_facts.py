"""Facts of a host: interfaces that a name means, chains in the order in which a packet meets them."""

from __future__ import annotations

import pytest

from gatewayd.doctor.facts import BaseChain, Deed, Facts, Flowtable, Rule, question_of
from gatewayd.model.service import Service
from gatewayd.settings import load_settings
from tests.support.facts import LINKS, QUESTION, facts

CONFIG = """
registry: {sources: [{name: any, url: "file:/any", allow_unsigned: true}]}
policy: {interfaces: {inside: [ppp*]}}
"""


def test_a_question_is_what_the_host_matters_to_in_the_configuration() -> None:
    asked = question_of(load_settings(CONFIG, "test"))
    assert (asked.inside, asked.groups, asked.is_daemon) == (("ppp*",), (9480, 9481), False)
    assert question_of(load_settings(CONFIG, "test"), is_daemon=True).groups == ()
    assert asked.registered == 0x80000000
    assert Service(50) in asked.scope


def test_names_mean_interfaces_as_nft_compares_them() -> None:
    assert [link.name for link in facts().named(("pp*", "eth0"))] == ["ppp0", "eth0"]
    assert facts().named(("ppp",)) == ()
    assert Facts(QUESTION).named(("ppp*",)) == ()
    assert LINKS[0].name == "lo"


def test_chains_come_in_the_order_in_which_a_packet_meets_them() -> None:
    chains = (
        BaseChain("ip", "filter", "FORWARD", "forward", 0, True),
        BaseChain("inet", "fw", "late", "postrouting", 0, False),
        BaseChain("inet", "fw", "same", "forward", -10, False),
        BaseChain("inet", "fw", "early", "forward", -200, False),
        BaseChain("bridge", "fw", "ports", "forward", 5, False),
        BaseChain("inet", "fw", "pre", "prerouting", -300, False),
        BaseChain("netdev", "fw", "in", "ingress", 0, False),
    )
    rules = (
        Rule("ip", "filter", "FORWARD", 3, deeds=frozenset({"drops"})),
        Rule("ip", "filter", "FORWARD", 4, deeds=frozenset({"accepts_registered"})),
        Rule("inet", "fw", "late", 5, deeds=frozenset({"drops", "drops_all"})),
    )
    found = facts(chains=chains, rules=rules).others
    assert [(each.name, each.order) for each in found] == [
        ("in", "before"), ("pre", "before"), ("early", "before"), ("same", "same"), ("FORWARD", "after"),
        ("ports", "before"), ("late", "after"),
    ]  # fmt: skip
    forward, late = found[4], found[6]
    assert (forward.drops, forward.drops_all, forward.admits, forward.is_iptables) == (2, True, True, True)
    assert (late.drops, late.drops_all, late.admits, late.is_iptables) == (1, True, False, False)


def step(chain: str, number: int, *deeds: Deed, into: str = "") -> Rule:
    return Rule("ip", "filter", chain, number, number, frozenset(deeds), into=into)


ADMIT = step("user", 1, "accepts_registered")


@pytest.mark.parametrize(
    ("rules", "admits", "drops_all"),
    [
        ((step("F", 1, "jumps", into="user"), ADMIT), True, True),
        ((step("F", 1, "goes", into="user"), ADMIT, step("F", 2, "accepts_all")), True, True),
        ((step("F", 1, "jumps", into="user"), step("user", 0, "returns"), ADMIT), False, True),
        ((step("F", 1, "jumps", into="user"), step("user", 0, "drops", "drops_all"), ADMIT), False, True),
        ((step("F", 1, "accepts_all"), step("F", 2, "drops", "drops_all")), False, False),
        ((step("F", 1, "jumps", into="a"), step("a", 1, "jumps", into="user"), ADMIT), True, True),
        ((step("F", 1, "jumps", into="a"), step("a", 1, "accepts_all")), False, False),
        ((step("F", 1, "jumps", into="a"), step("F", 2, "jumps", into="a"), step("a", 1, "returns")), False, True),
        (
            (step("F", 1, "jumps", into="a"), step("a", 1, "jumps", into="F"), step("F", 2, "jumps", into="a")),
            False,
            True,
        ),
        ((step("F", 1, "zone"), ADMIT), False, True),
    ],
)
def test_a_chain_is_what_every_packet_meets_in_it(rules: tuple[Rule, ...], admits: bool, drops_all: bool) -> None:
    """Docker's and ufw's users have their rules in chains that FORWARD jumps to."""
    (found,) = facts(chains=(BaseChain("ip", "filter", "F", "forward", 0, True),), rules=rules).others
    assert (found.admits, found.drops_all) == (admits, drops_all)


def test_a_drop_of_what_is_invalid_is_the_chains_where_every_packet_meets_it() -> None:
    drop = step("user", 1, "drops", "drops_invalid")
    for into, expected in (("user", True), ("input", False)):
        rules = step("F", 1, "jumps", into=into), drop
        (found,) = facts(chains=(BaseChain("ip", "filter", "F", "forward", 0, False),), rules=rules).others
        assert found.drops_invalid is expected


def test_objects_are_called_as_nft_calls_them() -> None:
    assert str(rule := Rule("ip", "nat", "PREROUTING", 7)) == "ip nat PREROUTING handle 7", rule
    assert str(Flowtable("inet", "fw", "fast", ("eth0",))) == "inet fw fast"
