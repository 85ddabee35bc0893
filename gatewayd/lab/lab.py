"""Customers, a gateway and the internet, in three namespaces joined by two veth pairs.

The gateway is a plain router: both families forwarded, a route for each customer prefix, a default route to
the internet, and no ruleset. Each end takes in TCP and ICMP for *any* address and swallows the rest without a
word (the taps see it before that), by policy routing on the wire's interface: a `local` route in the main
table would also capture what the end itself sends, the gateway's own address included.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from pathlib import Path
from socket import AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP
from typing import Literal, Self

from pyroute2 import IPRoute

from gatewayd.errors import MissingPrerequisite
from gatewayd.lab.namespace import Namespace
from gatewayd.lab.world import announced_prefixes
from gatewayd.model import Family, Prefix

Side = Literal["customers", "internet"]

LINK_UP_PATIENCE_S = 5.0
CONNTRACK_ACCOUNTING = "net.netfilter.nf_conntrack_acct"


@dataclass(frozen=True, slots=True)
class End:
    """One side of the gateway: where its traffic starts, and the wire that it arrives by."""

    namespace: Namespace
    interface: str


@dataclass(frozen=True, slots=True)
class _Wire:
    """A veth pair between the gateway and an end. Hardware addresses are fixed and known to both sides, so
    that nothing waits for ARP or neighbour discovery and no packet is dropped for it."""

    gateway_interface: str
    end_interface: str
    gateway_addresses: dict[Family, str]
    end_addresses: dict[Family, str]
    gateway_hardware: str
    end_hardware: str


# Of the benchmarking range (RFC 2544) and a unique local one (RFC 4193): no customer or peer is there.
INSIDE = _Wire(
    "inside0", "uplink0",
    {4: "198.19.255.1", 6: "fd67:6174:6577:1::1"}, {4: "198.19.255.2", 6: "fd67:6174:6577:1::2"},
    "02:67:77:00:01:01", "02:67:77:00:01:02",
)  # fmt: skip
OUTSIDE = _Wire(
    "outside0", "far0",
    {4: "198.19.255.5", 6: "fd67:6174:6577:2::1"}, {4: "198.19.255.6", 6: "fd67:6174:6577:2::2"},
    "02:67:77:00:02:01", "02:67:77:00:02:02",
)  # fmt: skip
_LINK_LENGTH: dict[Family, int] = {4: 30, 6: 64}
_FAMILIES: tuple[Family, Family] = (4, 6)
_AF = {4: AF_INET, 6: AF_INET6}


def missing_for_lab() -> str | None:
    """None, or why the lab cannot be had on this host."""
    for program, package in (("nsenter", "util-linux"), ("setpriv", "util-linux"), ("nft", "nftables")):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian package {package})"
    try:
        with Lab(customer_prefixes=()) as lab:
            lab.gateway.run(["nft", "list", "ruleset"])
    except (MissingPrerequisite, OSError) as error:
        return str(error)
    except subprocess.CalledProcessError as error:
        return f"{error} {error.stderr.strip()}"
    return None


class Lab:
    """The three namespaces, ready for traffic once constructed. Close it, or use `with`; a killed process
    leaves nothing either.

    `customer_prefixes` are routed to the customers; None = all that are announced in Pakistan. Everything
    else is the internet's. Safe to use beside a running event loop; construction blocks for some tenths of a
    second. Raises MissingPrerequisite where the kernel or the privileges are not enough.
    """

    def __init__(self, customer_prefixes: Iterable[Prefix] | None = None) -> None:
        with ExitStack() as stack:
            self.customers = stack.enter_context(Namespace("customers"))
            self.gateway = stack.enter_context(Namespace("gateway"))
            self.internet = stack.enter_context(Namespace("internet"))
            self.inside = End(self.customers, INSIDE.end_interface)
            self.outside = End(self.internet, OUTSIDE.end_interface)
            prepare_gateway(self.gateway)
            for end, wire in ((self.inside, INSIDE), (self.outside, OUTSIDE)):
                _join(self.gateway, end, wire)
                take_in_any_destination(end)
            for namespace, via in (
                (self.customers, INSIDE.gateway_addresses),
                (self.internet, OUTSIDE.gateway_addresses),
                (self.gateway, OUTSIDE.end_addresses),
            ):
                self._add_routes(namespace, [("default", address) for address in via.values()])
            if customer_prefixes is None:
                customer_prefixes = (p for family in _FAMILIES for p in announced_prefixes(family))
            self.route_customers(customer_prefixes)
            near = [End(self.gateway, wire.gateway_interface) for wire in (INSIDE, OUTSIDE)]
            wait_until_up([*near, self.inside, self.outside])
            self._stack = stack.pop_all()

    def route_customers(self, prefixes: Iterable[Prefix]) -> None:
        """Have the gateway route `prefixes` to the customers too; those under another, or known, are fine.

        Neighbouring prefixes become one route, which forwards the same: a route costs 0.4 ms of processor time.
        """
        found = list(prefixes)
        ipv4 = collapse_addresses(IPv4Network(str(prefix)) for prefix in found if prefix.family == 4)
        ipv6 = collapse_addresses(IPv6Network(str(prefix)) for prefix in found if prefix.family == 6)
        routes = [(str(network), INSIDE.end_addresses[4]) for network in ipv4]
        routes += [(str(network), INSIDE.end_addresses[6]) for network in ipv6]
        self._add_routes(self.gateway, routes)

    @staticmethod
    def _add_routes(namespace: Namespace, routes: Iterable[tuple[str, str]]) -> None:
        """Pairs of a destination and the address of the next hop."""

        def add(ip: IPRoute) -> None:
            for destination, via in routes:
                ip.route("replace", dst=destination, gateway=via)

        namespace.configure(add)

    def end(self, side: Side) -> End:
        return self.inside if side == "customers" else self.outside

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prepare_gateway(gateway: Namespace) -> None:
    """A router. ICMP errors are not rate limited here: each refused probe must hear of it, and by default the
    kernel sends one a second to an address, and few to all together (Documentation/networking/ip-sysctl.rst:
    icmp_ratelimit, icmp_ratemask, icmp_msgs_per_sec)."""
    quiet(gateway)
    gateway.sysctl("net.ipv4.ip_forward", "1")
    gateway.sysctl("net.ipv6.conf.all.forwarding", "1")
    gateway.sysctl("net.ipv4.icmp_ratemask", "0")
    gateway.sysctl("net.ipv6.icmp.ratemask", "0")
    if not Path("/proc/sys", *CONNTRACK_ACCOUNTING.split(".")).exists():
        _load_conntrack(gateway)
    gateway.sysctl(CONNTRACK_ACCOUNTING, "1")


def _load_conntrack(gateway: Namespace) -> None:
    """The kernel loads the module for the first rule that uses it; nothing of the rule stays."""
    table = "inet gatewayd_lab"
    script = f"""add table {table}
add chain {table} any
add rule {table} any ct state new
delete table {table}
"""
    gateway.nft(script)


def quiet(namespace: Namespace) -> None:
    """Undo what a new namespace may inherit from the host: reverse path filters, no IPv6, and the like."""
    for which in ("all", "default"):
        namespace.sysctl(f"net.ipv4.conf.{which}.rp_filter", "0")
        namespace.sysctl(f"net.ipv6.conf.{which}.disable_ipv6", "0")
        namespace.sysctl(f"net.ipv6.conf.{which}.accept_ra", "0")
        namespace.sysctl(f"net.ipv6.conf.{which}.accept_dad", "0")


def _join(gateway: Namespace, end: End, wire: _Wire) -> None:
    quiet(end.namespace)
    peer = {"ifname": wire.end_interface, "address": wire.end_hardware, "net_ns_fd": end.namespace.descriptor}
    link = {"ifname": wire.gateway_interface, "address": wire.gateway_hardware, "kind": "veth", "peer": peer}
    gateway.configure(lambda ip: ip.link("add", **link))
    inner, outer = wire.gateway_addresses, wire.end_addresses
    for namespace, interface, own, other, hardware in (
        (gateway, wire.gateway_interface, inner, outer, wire.end_hardware),
        (end.namespace, wire.end_interface, outer, inner, wire.gateway_hardware),
    ):
        namespace.bring_up(interface, *(f"{own[family]}/{_LINK_LENGTH[family]}" for family in _FAMILIES))
        namespace.configure(partial(_add_neighbours, interface, other, hardware))


def _add_neighbours(interface: str, addresses: dict[Family, str], hardware: str, ip: IPRoute) -> None:
    index = ip.link_lookup(ifname=interface)[0]
    for address in addresses.values():
        ip.neigh("replace", dst=address, lladdr=hardware, ifindex=index, state="permanent")


def take_in_any_destination(end: End) -> None:
    """Tables 100 (deliver here) and 101 (swallow) for what comes off the wire; addresses that are really
    configured come first, by the local table. What the end sends itself has no such interface and takes the
    main table.

    UDP and the rest are not delivered: without a socket the kernel would answer with an ICMP error, and a
    refusal must be the gateway's alone. ICMP is, so that a connect() here learns that the gateway refused it.
    """
    icmp = {4: IPPROTO_ICMP, 6: IPPROTO_ICMPV6}

    def configure(ip: IPRoute) -> None:
        loopback = ip.link_lookup(ifname="lo")[0]
        for family in _FAMILIES:
            af = _AF[family]
            ip.route("add", family=af, dst="default", type="local", scope="host", oif=loopback, table=100)
            ip.route("add", family=af, dst="default", type="blackhole", table=101)
            for priority, protocol, table in ((100, IPPROTO_TCP, 100), (101, icmp[family], 100), (102, None, 101)):
                which = {} if protocol is None else {"ip_proto": int(protocol)}
                ip.rule("add", family=af, priority=priority, iifname=end.interface, table=table, **which)

    end.namespace.configure(configure)


def wait_until_up(ends: Iterable[End]) -> None:
    """A veth drops what is sent before the kernel has noticed its carrier, up to a second after `up` (linkwatch).

    Asked for one link by name, newer kernels notice at once (net/core/rtnetlink.c: rtnl_getlink); in a dump they do
    not.
    """
    deadline = time.monotonic() + LINK_UP_PATIENCE_S
    waiting = list(ends)
    while waiting:
        if waiting[-1].namespace.configure(partial(_is_up, waiting[-1].interface)):
            waiting.pop()
        elif time.monotonic() > deadline:
            raise MissingPrerequisite("the lab's links do not come up", "look at `dmesg`")
        else:
            time.sleep(0.01)


def _is_up(interface: str, ip: IPRoute) -> bool:
    return bool(ip.link("get", ifname=interface)[0].get("operstate") == "UP")
