"""Checks of settings, at their edges; tests/lab/test_lab_doctor.py has them on a real kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from gatewayd.doctor.facts import Facts, Link
from gatewayd.doctor.settings_checks import CHECKS, interface_sysctl
from gatewayd.model.transaction import ConntrackSize
from tests.support.facts import LINKS, QUESTION, facts

BRIDGE = (Link("br0", "bridge"), Link("p1", master="br0", master_kind="bridge"), Link("p2", "", "br0", "bridge"))
OFF = {"net.bridge.bridge-nf-call-iptables": 0, "net.bridge.bridge-nf-call-ip6tables": 0}
STRICT = {"net.ipv4.conf.eth0.rp_filter": 1}


def found(check: str, of: Facts) -> list[tuple[str, str | None]]:
    return [(each.severity, each.command) for each in CHECKS[check](of)]


def test_forwarding() -> None:
    assert found("forwarding", facts(sysctls={"net.ipv4.ip_forward": 1})) == []
    off = {"net.ipv4.ip_forward": 0, "net.ipv6.conf.all.forwarding": 0}
    assert found("forwarding", facts(sysctls=off)) == [("fault", "sysctl -w net.ipv4.ip_forward=1")]
    assert len(found("forwarding", facts(sysctls=off, has_ipv6=True))) == 2
    bridged = {**off, "net.bridge.bridge-nf-call-iptables": 1}
    assert found("forwarding", facts(sysctls=bridged, links=BRIDGE)) == []
    assert len(found("forwarding", facts(sysctls=bridged))) == 1


def test_forwarding_of_an_interface_is_looked_at_where_the_host_forwards() -> None:
    off = {"net.ipv4.conf.eth0.forwarding": 0, "net.ipv4.conf.ppp0.forwarding": 1}
    assert found("interface-forwarding", facts(sysctls={**off, "net.ipv4.ip_forward": 0})) == []
    said = found("interface-forwarding", facts(sysctls={**off, "net.ipv4.ip_forward": 1}))
    assert said == [("fault", "sysctl -w net.ipv4.conf.eth0.forwarding=1")]


def test_an_interface_with_dots_is_written_with_slashes() -> None:
    assert interface_sysctl("ipv4", "eth0", "forwarding") == "net.ipv4.conf.eth0.forwarding"
    assert interface_sysctl("ipv4", "eth0.7", "forwarding") == "net/ipv4/conf/eth0.7/forwarding"


@pytest.mark.parametrize(
    ("entries", "most", "dropped", "dropping", "expected"),
    [
        (10, 1_048_576, 0, 0, {}),
        (10, 65_536, 0, 0, {"conntrack-max": "warning"}),
        (60_000, 65_536, 0, 0, {"conntrack-fill": "fault"}),
        (10, 1_048_576, 7, 0, {"conntrack-drops": "note"}),
        (10, 1_048_576, 7, 3, {"conntrack-drops": "note"}),  # two packets of a flow raced: there is room
        (1_000_000, 1_048_576, 7, 3, {"conntrack-fill": "fault", "conntrack-drops": "fault"}),
        (1_000_000, 1_048_576, 7, 0, {"conntrack-fill": "fault", "conntrack-drops": "note"}),
        (10, 1_048_576, None, 0, {}),
    ],
)
def test_connection_tracking(
    entries: int, most: int, dropped: int | None, dropping: int, expected: dict[str, str]
) -> None:
    of = facts(conntrack=ConntrackSize(entries, most, dropped), dropping=dropping)
    said = {check: found(check, of) for check in ("conntrack-max", "conntrack-fill", "conntrack-drops")}
    assert {check: each[0][0] for check, each in said.items() if each} == expected
    assert all(found(check, facts()) == [] for check in said)


def test_accounting_of_connections() -> None:
    assert len(found("conntrack-acct", facts(sysctls={"net.netfilter.nf_conntrack_acct": 0}))) == 1
    assert found("conntrack-acct", facts(sysctls={"net.netfilter.nf_conntrack_acct": 1})) == []


@pytest.mark.parametrize(
    ("sysctls", "routes", "expected"),
    [
        (STRICT, 1, ["note"]),
        (STRICT, 2, ["warning"]),
        ({**STRICT, "net.ipv4.conf.all.rp_filter": 2}, 2, []),
        ({"net.ipv4.conf.eth0.rp_filter": 0, "net.ipv4.conf.all.rp_filter": 1}, 2, ["warning"]),
        ({}, 2, []),
    ],
)
def test_a_strict_reverse_path(sysctls: dict[str, int], routes: int, expected: list[str]) -> None:
    said = found("rp-filter", facts(sysctls=sysctls, default_routes=routes))
    assert [severity for severity, _ in said] == expected


def test_limits_of_icmp_are_a_warning_once_flows_are_refused() -> None:
    slow = {"net.ipv4.icmp_msgs_per_sec": 1000, "net.ipv4.icmp_ratelimit": 1000, "net.ipv6.icmp.ratelimit": 100}
    assert [severity for severity, _ in found("icmp-limits", facts(sysctls=slow))] == ["warning"] * 2
    observing = msgspec.structs.replace(QUESTION, mode="observe")
    assert [severity for severity, _ in found("icmp-limits", facts(observing, sysctls=slow))] == ["note"] * 2
    assert found("icmp-limits", facts(sysctls={"net.ipv4.icmp_msgs_per_sec": 10_000})) == []


@pytest.mark.parametrize(
    ("inside", "links", "sysctls", "expected"),
    [
        ((), BRIDGE, OFF, "warning"),
        (("br0",), BRIDGE, OFF, "warning"),
        (("p1",), BRIDGE, OFF, "warning"),
        (("ppp*",), (*LINKS, *BRIDGE), OFF, "note"),
        ((), BRIDGE[:2], OFF, None),
        ((), BRIDGE, dict.fromkeys(OFF, 1), None),
    ],
)
def test_a_bridge_without_netfilter(
    inside: tuple[str, ...], links: tuple[Link, ...], sysctls: dict[str, int], expected: str | None
) -> None:
    asked = msgspec.structs.replace(QUESTION, inside=inside, outside=())
    said = found("bridge-netfilter", facts(asked, links=links, sysctls=sysctls))
    assert [severity for severity, _ in said] == ([] if expected is None else [expected])


def test_a_bridge_where_the_module_is_not_loaded() -> None:
    changes: dict[str, Any] = {"links": BRIDGE}
    (said,) = found("bridge-netfilter", replace(facts(), **changes))
    assert said[1] is not None
    assert said[1].startswith("modprobe br_netfilter && sysctl -w ")
    assert found("bridge-netfilter", facts(links=None)) == []
    assert found("forwarding", facts(links=None, sysctls={"net.bridge.bridge-nf-call-iptables": 1})) == []
