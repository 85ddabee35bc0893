"""Facts of a host: interfaces that a name means, chains in the order in which a packet meets them."""

from __future__ import annotations

from gatewayd.doctor.facts import BaseChain, Facts, Flowtable, Rule, question_of
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


def test_objects_are_called_as_nft_calls_them() -> None:
    assert str(rule := Rule("ip", "nat", "PREROUTING", 7)) == "ip nat PREROUTING handle 7", rule
    assert str(Flowtable("inet", "fw", "fast", ("eth0",))) == "inet fw fast"
