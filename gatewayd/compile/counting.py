"""Unregistered flows counted by the rules, at a flow's first packet: nft text of these chains. Pure.

    missed             new, or judged before?
    count_once…        a flow that no ct mark will know again: once a minute
    count_flow…        which end is the client?
    count_source4…     its interface, its prefix with its service, and the service with the client's canary bucket

A packet that is refused or dropped leaves no connection behind (it is confirmed after the last hook), and an
untracked one has none: of these each packet would be a new flow. So their addresses and ports are remembered for a
minute. For a flow that passes the mark says it, at no cost.

The client is the end inside; without a named side it is the source: then only packets of who opened the flow come
here. Registered flows do not.
"""

from __future__ import annotations

from collections.abc import Callable

from gatewayd.compile.effects import bucket_of
from gatewayd.compile.interfaces import client_tests
from gatewayd.compile.judging import as_hex
from gatewayd.compile.lookups import FAMILIES, chain
from gatewayd.compile.rule_sets import INTERFACE_FLOWS, SERVICE_FLOWS
from gatewayd.model.policy import Policy
from gatewayd.model.prefix import Family
from gatewayd.model.service import PROTOCOLS_WITH_PORTS

PREFIX_LENGTHS: dict[Family, int] = {4: 24, 6: 48}
_PREFIXES = {4: "ip {} & 255.255.255.0", 6: "ip6 {} & ffff:ffff:ffff::"}
_FORGETS_REFUSED = ("limit", "reject")


def counting_rules(policy: Policy) -> list[str]:
    """Of the chain `missed`. None where nothing is counted."""
    if not policy.counts:
        return []
    way = "count_once" if policy.mode in _FORGETS_REFUSED else "count_flow"
    mark = f"ct mark & {as_hex(policy.mark_layout.epoch_mask)}"
    return [
        f"{mark} == 0x00000000 jump {way}",
        f"{mark} != 0x00000000 counter name reclassified_flows",
        "ct state invalid,untracked jump count_once",
    ]


def counting_chains(policy: Policy) -> list[str]:
    """None where nothing is counted."""
    if not policy.counts:
        return []
    chains = _once(policy)
    if policy.mode not in _FORGETS_REFUSED:
        chains += chain("count_flow", _by_shape(policy, lambda shape: f"goto {_way_to_count(policy, shape)}"))
    return chains + _count_flow(policy)


def _by_shape(policy: Policy, way: Callable[[str], str]) -> list[str]:
    """A way for each family, with ports or without: `4_ports`, `4`, `6_ports`, `6`."""
    return [
        f"meta nfproto ipv{family} {line}"
        for family in FAMILIES
        for line in (
            *(f"{each} {way(f'{family}_ports')}" for each in _have_ports(policy)),
            way(f"{family}"),
        )
    ]


def _shapes(policy: Policy, family: Family, with_ports: str, without: str) -> list[tuple[str, str]]:
    """Those of `_by_shape`, each with its part of a key."""
    ported = [(f"{family}_ports", with_ports)] if _have_ports(policy) else []
    return [*ported, (f"{family}", without)]


def _way_to_count(policy: Policy, shape: str) -> str:
    return f"count_flow{shape}" if client_tests(policy) else f"count_source{shape}"


def _once(policy: Policy) -> list[str]:
    """A look-up and an addition: `add` alone matches whether the element was there or not."""
    chains = chain("count_once", _by_shape(policy, "goto count_once{}".format))
    for family in FAMILIES:
        word = "ip" if family == 4 else "ip6"
        ends = f"{word} saddr . {word} daddr . meta l4proto"
        with_ports = f"{ends} . th sport . th dport"
        without = f"{ends} . th sport & 0x0000 . th dport & 0x0000"
        for shape, key in _shapes(policy, family, with_ports, without):
            lines = [
                f"{key} @recent{family} counter name repeated_packets return",
                f"add @recent{family} {{ {key} }} goto {_way_to_count(policy, shape)}",
                "counter name uncertain_packets",
            ]
            chains += chain(f"count_once{shape}", lines)
    return chains


def _count_flow(policy: Policy) -> list[str]:
    tests = client_tests(policy)
    chains: list[str] = []
    for family in FAMILIES:
        for shape, port in _shapes(policy, family, "th dport", "th dport & 0x0000"):
            if tests:
                ways = [f"{test} goto count_source{shape}" for test in tests]
                chains += chain(f"count_flow{shape}", [*ways, f"goto count_destination{shape}"])
                chains += chain(f"count_destination{shape}", _updates(policy, family, "daddr", port))
            chains += chain(f"count_source{shape}", _updates(policy, family, "saddr", port))
    return chains


def counts_interfaces(policy: Policy) -> bool:
    """Whether flows are counted by interface: with one name inside, all are its flows."""
    return bool(client_tests(policy)) and len(policy.inside) != 1


def _have_ports(policy: Policy) -> list[str]:
    """A test for each protocol in scope that has ports: cheaper than one look-up in a set."""
    return [
        f"meta l4proto {protocol}"
        for protocol in sorted({each.protocol for each in policy.scope} & PROTOCOLS_WITH_PORTS, reverse=True)
    ]


def _updates(policy: Policy, family: Family, end: str, port: str) -> list[str]:
    """Other protocols than those with ports have port 0; a constant cannot stand in a concatenation."""
    service = f"meta l4proto . {port}"
    interface = "iifname" if end == "saddr" else "oifname"
    return [
        *([f"update @{INTERFACE_FLOWS} {{ {interface} counter }}"] if counts_interfaces(policy) else []),
        f"update @{SERVICE_FLOWS} {{ {service} . {bucket_of(family, end)} counter }}",
        f"update @prefix_flows{family} {{ {_PREFIXES[family].format(end)} . {service} counter }} return",
        "counter name unplaced_flows",
    ]
