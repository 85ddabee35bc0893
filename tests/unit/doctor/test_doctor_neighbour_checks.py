"""Checks of other programs, at their edges; tests/lab/test_lab_doctor.py has them on a real kernel."""

from __future__ import annotations

import msgspec
import pytest

from gatewayd.doctor.facts import BaseChain, Facts, Flowtable, LegacyTable, Listener, Rule
from gatewayd.doctor.findings import Finding
from gatewayd.doctor.neighbour_checks import CHECKS, free_mask
from gatewayd.model.service import ESP, UDP, Service
from tests.support.facts import QUESTION, facts

OFFLOADS = Rule("inet", "fw", "forward", 7, deeds=frozenset({"offloads"}), flowtable="fast")


def found(check: str, of: Facts) -> list[Finding]:
    return list(CHECKS[check](of))


def test_a_chain_at_our_priority_is_given_the_next_that_is_free() -> None:
    chains = tuple(BaseChain("inet", "fw", f"c{each}", "forward", each, False) for each in (-10, -11))
    assert [each.setting for each in found("chain-order", facts(chains=chains))] == ["kernel.priority: -12"]
    lowest = msgspec.structs.replace(QUESTION, priority=-400)
    (said,) = found("chain-order", facts(lowest, chains=(BaseChain("ip", "a", "b", "forward", -400, False),)))
    assert said.setting == "kernel.priority: -399"


@pytest.mark.parametrize(
    ("chain", "command", "setting"),
    [
        (
            BaseChain("inet", "fw", "f", "forward", 0, True),
            "nft insert rule inet fw f 'ct mark & 0x80000000 == 0x80000000 accept'", None,
        ),
        (
            BaseChain("ip6", "filter", "FORWARD", "forward", 0, True),
            "ip6tables -t filter -I FORWARD -m connmark --mark 0x80000000/0x80000000 -j ACCEPT", None,
        ),
        (
            BaseChain("ip", "filter", "FORWARD", "forward", -50, True),
            "iptables -t filter -I FORWARD -m connmark --mark 0x80000000/0x80000000 -j ACCEPT",
            "kernel.priority: -60",
        ),
        (BaseChain("inet", "fw", "pre", "prerouting", 0, True), None, None),
        (BaseChain("inet", "fw", "f", "forward", 0, False), None, None),
    ],
)  # fmt: skip
def test_a_chain_that_drops_what_it_does_not_accept(
    chain: BaseChain, command: str | None, setting: str | None
) -> None:
    said = found("dropping-chain", facts(chains=(chain,)))
    assert [(each.command, each.setting) for each in said] == ([] if command is None else [(command, setting)])


def test_a_chain_that_accepts_by_our_mark_is_well_but_before_ours() -> None:
    admits = Rule("inet", "fw", "f", 3, deeds=frozenset({"accepts_registered"}))
    for priority, findings in ((0, 0), (-50, 1)):
        chain = BaseChain("inet", "fw", "f", "forward", priority, True)
        assert len(found("dropping-chain", facts(chains=(chain,), rules=(admits,)))) == findings


def test_a_rule_behind_one_that_drops_all_is_never_reached() -> None:
    chain = BaseChain("inet", "fw", "f", "forward", 0, False)
    drops = Rule("inet", "fw", "f", 3, 2, deeds=frozenset({"drops", "drops_all"}))
    for number, findings in ((1, 0), (3, 1)):
        admits = Rule("inet", "fw", "f", 4, number, deeds=frozenset({"accepts_registered"}))
        assert len(found("dropping-chain", facts(chains=(chain,), rules=(drops, admits)))) == findings


def test_firewalld_is_given_a_policy_for_what_is_in_scope() -> None:
    chain = BaseChain("inet", "firewalld", "filter_FORWARD", "forward", 10, True)
    asked = msgspec.structs.replace(QUESTION, scope=(Service(ESP), Service(UDP, 500, 510)))
    (said,) = found("dropping-chain", facts(asked, chains=(chain,)))
    assert said.command is not None
    steps = said.command.split(" && ")
    assert steps[0] == "firewall-cmd --permanent --new-policy=gatewayd"
    change = "firewall-cmd --permanent --policy=gatewayd"
    assert {f"{change} --add-{each}" for each in ("protocol=50", "port=500-510/udp", "source-port=500-510/udp")} < {
        *steps
    }
    assert steps[-1] == "firewall-cmd --reload"
    policy = Rule("inet", "firewalld", "pre", 4, deeds=frozenset({"jumps"}), into="filter_FWD_policy_gatewayd")
    assert found("dropping-chain", facts(asked, chains=(chain,), rules=(policy,))) == []
    elsewhere = Rule("ip", "firewalld", "pre", 4, deeds=frozenset({"jumps"}), into="filter_FWD_policy_gatewayd")
    assert len(found("dropping-chain", facts(asked, chains=(chain,), rules=(elsewhere,)))) == 1


def test_a_chain_that_drops_what_is_invalid_is_a_note_though_it_accepts_our_mark() -> None:
    chain = BaseChain("inet", "fw", "f", "forward", 0, True)
    admits = Rule("inet", "fw", "f", 3, 1, deeds=frozenset({"accepts_registered"}))
    drops = Rule("inet", "fw", "f", 4, 2, deeds=frozenset({"drops", "drops_invalid"}))
    (said,) = found("invalid-drop", facts(chains=(chain,), rules=(admits, drops)))
    assert (said.severity, said.command) == ("note", "nft -a list chain inet fw f")
    assert found("invalid-drop", facts(chains=(chain,), rules=(admits,))) == []


def test_rules_that_drop_some_are_a_note() -> None:
    chain = BaseChain("inet", "fw", "f", "forward", 0, False)
    drops = Rule("inet", "fw", "f", 3, deeds=frozenset({"drops"}))
    assert [each.severity for each in found("other-drops", facts(chains=(chain,), rules=(drops,)))] == ["note"]
    assert found("other-drops", facts(chains=(chain,))) == []
    early = BaseChain("inet", "fw", "f", "prerouting", 0, True)
    assert [each.severity for each in found("other-drops", facts(chains=(early,)))] == ["note"]


@pytest.mark.parametrize(
    ("devices", "rules", "inside", "severity"),
    [
        (("eth0", "ppp0"), (OFFLOADS,), ("ppp*",), "fault"),
        (("eth7",), (OFFLOADS,), ("ppp*",), "warning"),
        (("eth7",), (OFFLOADS,), (), "fault"),
        ((), (), ("ppp*",), "warning"),
    ],
)
def test_a_flowtable(
    devices: tuple[str, ...], rules: tuple[Rule, ...], inside: tuple[str, ...], severity: str
) -> None:
    asked = msgspec.structs.replace(QUESTION, inside=inside, outside=())
    table = Flowtable("inet", "fw", "fast", devices, is_hardware=True)
    (said,) = found("flowtable", facts(asked, flowtables=(table,), rules=rules))
    assert said.severity == severity
    deleting = "delete rule inet fw forward handle 7; " if rules else ""
    assert said.command == f"nft '{deleting}delete flowtable inet fw fast'"


def test_marks_over_our_bits_and_bits_that_are_free() -> None:
    writer = Rule("inet", "fw", "p", 3, writes=0xFF00000F)
    (said,) = found("mark-written", facts(rules=(writer,)))
    assert said.setting == 'kernel.ct_mark_mask: "0x00ff0000"'
    everything = Rule("inet", "fw", "p", 4, writes=0xFFFFFFFF)
    assert [each.setting for each in found("mark-written", facts(rules=(writer, everything)))] == [None, None]
    assert free_mask(facts(rules=(Rule("ip", "a", "b", 1, writes=0x0F0F0F0F),))) == 0xF0000000
    assert found("mark-written", facts(rules=(Rule("ip", "a", "b", 1, writes=0xF),))) == []


@pytest.mark.parametrize(
    ("rule", "command"),
    [
        (
            Rule("ip", "mangle", "PREROUTING", 5, 2, leaks=0xFF000000, is_bare=True, is_target=True),
            "iptables -t mangle -R PREROUTING 2 -j CONNMARK --restore-mark --nfmask 0x00ffffff --ctmask 0x00ffffff",
        ),
        (
            Rule("ip6", "mangle", "PREROUTING", 5, leaks=0xFF000000, is_bare=True, is_target=True),
            "ip6tables -t mangle -R PREROUTING 1 -j CONNMARK --restore-mark"
            " --nfmask 0x00ffffff --ctmask 0x00ffffff",
        ),
        (
            Rule("inet", "fw", "p", 5, leaks=0xFF000000, is_bare=True),
            "nft replace rule inet fw p handle 5 'meta mark set ct mark & 0x00ffffff'",
        ),
        (Rule("inet", "fw", "p", 5, leaks=0xFF000000), "nft delete rule inet fw p handle 5"),
        (Rule("inet", "fw", "p", 5, leaks=0x0000000F), None),
    ],
)
def test_marks_that_go_into_the_packet_mark(rule: Rule, command: str | None) -> None:
    said = found("mark-leaked", facts(rules=(rule,)))
    assert [each.command for each in said] == ([] if command is None else [command])


@pytest.mark.parametrize(("check", "deed"), [("conntrack-zone", "zone"), ("notrack", "notrack")])
def test_rules_that_change_tracking(check: str, deed: str) -> None:
    rule = Rule("ip", "raw", "PREROUTING", 9, deeds=frozenset({deed}))  # type: ignore[arg-type]
    (said,) = found(check, facts(rules=(rule,)))
    assert said.command == "nft delete rule ip raw PREROUTING handle 9"
    assert found(check, facts(rules=(OFFLOADS,))) == []


def test_listeners_of_our_groups() -> None:
    held = (
        Listener(9480, 12, "ulogd", "ulogd2.service"),
        Listener(9481),
        Listener(9482, 13, "tcpdump"),
        Listener(9483, 14, "gatewayd", is_ours=True),
    )
    said = found("nflog-group", facts(listeners=held))
    assert [(each.command, each.setting) for each in said] == [
        ("systemctl stop ulogd2.service", "kernel.nflog_group: 9484"),
        (None, "kernel.near_miss_group: 9484"),
        ("kill 13", None),
    ]


@pytest.mark.parametrize(
    ("table", "command"),
    [
        (LegacyTable("ip", "nat", 0), None),
        (LegacyTable("ip6", "filter"), "ip6tables-legacy-save -t filter | ip6tables-nft-restore -n"
            " && ip6tables-legacy -t filter -F"),
        (LegacyTable("ip", "filter", 0, ("FORWARD",)), "iptables-legacy-save -t filter | iptables-nft-restore -n"
            " && iptables-legacy -t filter -F && iptables-legacy -t filter -P FORWARD ACCEPT"),
    ],
)  # fmt: skip
def test_tables_of_the_old_iptables(table: LegacyTable, command: str | None) -> None:
    said = found("legacy-iptables", facts(legacy=(table,)))
    assert [each.command for each in said] == ([] if command is None else [command])
