"""Unregistered flows counted by the rules, at a flow's first packet: nft text of these chains. Pure.

    count           new, or judged before?
    count_once      a flow that no ct mark will know again: once a minute
    count_flow      which end is the client? its interface
    count_source4…  of the client's prefix with its service, and of the service with the client's canary bucket

A packet that is refused or dropped leaves no connection behind (it is confirmed after the last hook), and an
untracked one has none: of these each packet would be a new flow. So their addresses and ports are remembered for a
minute. For a flow that passes the mark says it, at no cost.

The client is the end inside; without a named side it is the source: then only packets of who opened the flow come
here. Registered flows do not.
"""

from __future__ import annotations

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


def counting_chains(policy: Policy) -> list[str]:
    """None where nothing is counted."""
    if not policy.counts:
        return []
    way = "count_once" if policy.mode in _FORGETS_REFUSED else "count_flow"
    new = [
        f"ct mark & {as_hex(policy.mark_layout.epoch_mask)} == 0x00000000 goto {way}",
        "ct state untracked goto count_once",
        "counter name reclassified_flows",
    ]
    return [*chain("count", new), *_once(policy), *_count_flow(policy)]


def _once(policy: Policy) -> list[str]:
    """A look-up and an addition: `add` alone matches whether the element was there or not."""
    ways = []
    chains: list[str] = []
    for family in FAMILIES:
        word = "ip" if family == 4 else "ip6"
        ends = f"{word} saddr . {word} daddr . meta l4proto"
        with_ports = f"{ends} . th sport . th dport"
        without = f"{ends} . th sport & 0x0000 . th dport & 0x0000"
        for name, key in ((f"once{family}_ports", with_ports), (f"once{family}", without)):
            lines = [
                f"{key} @recent{family} counter name repeated_packets return",
                f"add @recent{family} {{ {key} }} goto count_flow",
                "counter name uncertain_packets",
            ]
            chains += chain(f"count_{name}", lines)
        ways += [
            *(f"meta nfproto ipv{family} {each} goto count_once{family}_ports" for each in _have_ports(policy)),
            f"meta nfproto ipv{family} goto count_once{family}",
        ]
    return [*chain("count_once", ways), *chains]


def _count_flow(policy: Policy) -> list[str]:
    tests = client_tests(policy)
    lines = [f"{test} goto count_source" for test in tests]
    lines.append(f"goto count_{'destination' if tests else 'source'}")
    chains = chain("count_flow", lines)
    for end in ["saddr", "daddr"] if tests else ["saddr"]:
        chains += _count_client(policy, end)
    return chains


def _count_client(policy: Policy, end: str) -> list[str]:
    name, interface = ("count_source", "iifname") if end == "saddr" else ("count_destination", "oifname")
    ways = [f"update @{INTERFACE_FLOWS} {{ {interface} counter }}"] if counts_interfaces(policy) else []
    chains: list[str] = []
    for family in FAMILIES:
        ways.append(f"meta nfproto ipv{family} goto {name}{family}")
        prefix = _PREFIXES[family].format(end)
        ported = f"{name}{family}_ports"
        to_ports = [f"{each} goto {ported}" for each in _have_ports(policy)]
        chains += chain(f"{name}{family}", [*to_ports, *_updates(family, prefix, end, "th dport & 0x0000")])
        if to_ports:
            chains += chain(ported, _updates(family, prefix, end, "th dport"))
    return [*chain(name, ways), *chains]


def counts_interfaces(policy: Policy) -> bool:
    """Whether flows are counted by interface: with one name inside, all are its flows."""
    return bool(client_tests(policy)) and len(policy.inside) != 1


def _have_ports(policy: Policy) -> list[str]:
    """A test for each protocol in scope that has ports: cheaper than one look-up in a set."""
    return [
        f"meta l4proto {protocol}"
        for protocol in sorted({each.protocol for each in policy.scope} & PROTOCOLS_WITH_PORTS, reverse=True)
    ]


def _updates(family: Family, prefix: str, end: str, port: str) -> list[str]:
    """Other protocols than those with ports have port 0; a constant cannot stand in a concatenation."""
    service = f"meta l4proto . {port}"
    return [
        f"update @{SERVICE_FLOWS} {{ {service} . {bucket_of(family, end)} counter }}",
        f"update @prefix_flows{family} {{ {prefix} . {service} counter }} return",
        "counter name unplaced_flows",
    ]
