"""Checks of the kernel's settings: forwarding, connection tracking, reverse path, ICMP, bridges. Pure.

A setting is changed by `sysctl -w` until the next boot; a file in /etc/sysctl.d keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gatewayd.doctor.facts import Facts
from gatewayd.doctor.findings import Finding, Severity

_FORWARDING: Final = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
MAX: Final = "net.netfilter.nf_conntrack_max"
ACCT: Final = "net.netfilter.nf_conntrack_acct"
USUAL_SIZE: Final = 1_048_576
SMALL_SIZE: Final = 262_144
"""What the kernel takes by itself from 4 GiB of memory on (nf_conntrack_core.c: nf_conntrack_init_start)."""
NEARLY_FULL: Final = 0.8
_OF_ALL: Final = "net.ipv4.conf.all.rp_filter"
_STRICT, _LOOSE = 1, 2
"""Of rp_filter: RFC 3704 §2.2 and §2.4."""
ICMP_A_SECOND: Final = "net.ipv4.icmp_msgs_per_sec"
_ICMP_BURST: Final = "net.ipv4.icmp_msgs_burst"
ICMP_EACH: Final = {4: "net.ipv4.icmp_ratelimit", 6: "net.ipv6.icmp.ratelimit"}
_MIN_ICMP_A_SECOND: Final = 10_000
_MAX_ICMP_EACH_MS: Final = 100
BRIDGE_CALLS: Final = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")

READ: Final = (*_FORWARDING.values(), ACCT, ICMP_A_SECOND, *ICMP_EACH.values(), *BRIDGE_CALLS, _OF_ALL)
"""Settings of the whole host that the checks need."""


def interface_sysctl(family: str, interface: str, name: str) -> str:
    """With slashes where the interface's name has dots (sysctl(8)): `net/ipv4/conf/eth1.100/rp_filter`."""
    key = f"net.{family}.conf.{interface}.{name}"
    return key if "." not in interface else f"net/{family}/conf/{interface}/{name}"


def forwarding(facts: Facts) -> Iterator[Finding]:
    """IPv6 counts where the host has a global address of it. A gateway that bridges forwards without."""
    if facts.sysctls.get(BRIDGE_CALLS[0]) and any(link.master_kind == "bridge" for link in facts.links or ()):
        return
    for family, name in _FORWARDING.items():
        if facts.sysctls.get(name) == 0 and (family == 4 or facts.has_ipv6):
            yield Finding(
                "forwarding",
                "fault" if family == 4 else "warning",
                f"{name} is 0",
                f"the host forwards no IPv{family} packet, so no customer's traffic passes it",
                f"sysctl -w {name}=1",
            )


def interface_forwarding(facts: Facts) -> Iterator[Finding]:
    """Of an interface of the configuration, while the host as a whole forwards."""
    if facts.sysctls.get(_FORWARDING[4]) != 1:
        return
    question = facts.question
    for link in facts.named((*question.inside, *question.outside)):
        name = interface_sysctl("ipv4", link.name, "forwarding")
        if facts.sysctls.get(name) == 0:
            yield Finding(
                "interface-forwarding",
                "fault",
                f"{name} is 0",
                f"packets that come in by {link.name} are not forwarded",
                f"sysctl -w {name}=1",
            )


def conntrack_max(facts: Facts) -> Iterator[Finding]:
    size = facts.conntrack
    if size is not None and size.fill < NEARLY_FULL and size.most < SMALL_SIZE:
        yield Finding(
            "conntrack-max",
            "warning",
            f"{MAX} is {size.most:,}, small for a gateway",
            "our rules have connection tracking follow all forwarded flows; when it is full, new flows of every"
            " customer are dropped",
            f"sysctl -w {MAX}={USUAL_SIZE}",
        )


def conntrack_fill(facts: Facts) -> Iterator[Finding]:
    size = facts.conntrack
    if size is not None and size.fill >= NEARLY_FULL:
        yield Finding(
            "conntrack-fill",
            "fault",
            f"connection tracking is {size.fill:.0%} full ({size.entries:,} of {size.most:,})",
            "at 100% the kernel drops new flows of every customer",
            f"sysctl -w {MAX}={max(USUAL_SIZE, 2 * size.entries)}",
        )


def conntrack_drops(facts: Facts) -> Iterator[Finding]:
    """The kernel counts two causes as one (nf_conntrack_core.c: nf_conntrack_in, nf_ct_resolve_clash). Drops of the
    past are a note, as the counter never goes back."""
    size = facts.conntrack
    if size is None or not (facts.dropping or size.dropped):
        return
    if facts.dropping and size.fill >= NEARLY_FULL:
        yield Finding(
            "conntrack-drops",
            "fault",
            f"connection tracking has no room, and dropped {facts.dropping:,} packets while it was watched",
            "each is the first packet of a customer's flow, registered or not",
            f"sysctl -w {MAX}={max(USUAL_SIZE, 2 * size.most)}",
        )
        return
    number, when = (facts.dropping, "while it was watched") if facts.dropping else (size.dropped, "since the boot")
    yield Finding(
        "conntrack-drops",
        "note",
        f"connection tracking dropped {number:,} packets {when}",
        "its table was full then, or two first packets of a flow raced; it has room now",
    )


def conntrack_acct(facts: Facts) -> Iterator[Finding]:
    if facts.sysctls.get(ACCT) == 0:
        yield Finding(
            "conntrack-acct",
            "warning",
            f"{ACCT} is 0",
            "connections count no bytes: flows, registrations and the report say 0",
            f"sysctl -w {ACCT}=1",
        )


def reverse_path(facts: Facts) -> Iterator[Finding]:
    """Strict on an outside interface: a fault where there is more than one way out. Towards customers it is right
    (BCP 38)."""
    outside = facts.named(facts.question.outside)
    has_ways = len(outside) > 1 or facts.default_routes > 1
    of_all = facts.sysctls.get(_OF_ALL, 0)
    for link in outside:
        name = interface_sysctl("ipv4", link.name, "rp_filter")
        if name in facts.sysctls and max(of_all, facts.sysctls[name]) == _STRICT:
            yield Finding(
                "rp-filter",
                "warning" if has_ways else "note",
                f"rp_filter is strict on {link.name}, which leads outside",
                "an answer that comes back by another way than the host would take is dropped before our rules,"
                " without a trace; BGP with two ways makes such answers",
                f"sysctl -w {name}={_LOOSE}",
            )


def icmp_limits(facts: Facts) -> Iterator[Finding]:
    """They matter in mode reject; before it they are a note."""
    severity: Severity = "warning" if facts.question.mode == "reject" else "note"
    per_second = facts.sysctls.get(ICMP_A_SECOND)
    if per_second is not None and per_second < _MIN_ICMP_A_SECOND:
        yield Finding(
            "icmp-limits",
            severity,
            f"{ICMP_A_SECOND} is {per_second:,}",
            "mode reject answers with ICMP; past so many a second, for all customers together, a refusal is silent"
            " and clients wait for their timeout",
            f"sysctl -w {ICMP_A_SECOND}={_MIN_ICMP_A_SECOND} {_ICMP_BURST}={_MIN_ICMP_A_SECOND // 10}",
        )
    for name in ICMP_EACH.values():
        if facts.sysctls.get(name, 0) > _MAX_ICMP_EACH_MS:
            yield Finding(
                "icmp-limits",
                severity,
                f"{name} is {facts.sysctls[name]:,} ms",
                "mode reject tells an address that often that its flow is refused; other refusals are silent",
                f"sysctl -w {name}={_MAX_ICMP_EACH_MS}",
            )


def bridge_netfilter(facts: Facts) -> Iterator[Finding]:
    """Frames between two ports of a bridge pass no rule of ours while br_netfilter is off."""
    question = facts.question
    patterns = (*question.inside, *question.outside)
    named = {link.name for link in facts.named(patterns)}
    for bridge in (link.name for link in facts.links or () if link.kind == "bridge"):
        ports = [link.name for link in facts.links or () if link.master == bridge]
        off = [name for name in BRIDGE_CALLS if not facts.sysctls.get(name)]
        if len(ports) < 2 or not off:
            continue
        load = "" if BRIDGE_CALLS[0] in facts.sysctls else "modprobe br_netfilter && "
        is_meant = not patterns or bridge in named or bool(named & set(ports))
        yield Finding(
            "bridge-netfilter",
            "warning" if is_meant else "note",
            f"the bridge {bridge} forwards between {', '.join(sorted(ports))} without netfilter ({' '.join(off)})",
            "our rules do not see what passes from port to port",
            f"{load}sysctl -w {' '.join(f'{name}=1' for name in BRIDGE_CALLS)}",
        )


CHECKS: Final = {
    "forwarding": forwarding,
    "interface-forwarding": interface_forwarding,
    "conntrack-max": conntrack_max,
    "conntrack-fill": conntrack_fill,
    "conntrack-drops": conntrack_drops,
    "conntrack-acct": conntrack_acct,
    "rp-filter": reverse_path,
    "icmp-limits": icmp_limits,
    "bridge-netfilter": bridge_netfilter,
}
