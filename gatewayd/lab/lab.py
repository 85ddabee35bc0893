"""Customers, a gateway and the internet, in three namespaces joined by two veth pairs.

The gateway is a plain router: both families forwarded, a route for each customer prefix, a default route to
the internet, and no ruleset. Each end takes in TCP and ICMP for *any* address and swallows the rest without a
word (the taps see it before that), by policy routing on the wire's interface: a `local` route in the main
table would also capture what the end itself sends, the gateway's own address included.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP
from typing import Literal, Self

from gatewayd.errors import MissingPrerequisite
from gatewayd.lab.announced import announced_prefixes
from gatewayd.lab.namespace import Namespace
from gatewayd.lab.world import outermost_prefixes
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


# Of the benchmarking range (RFC 2544) and a unique local one (RFC 4193): nobody's customers or peers.
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


def missing_for_lab() -> str | None:
    """None, or why the lab cannot be had on this host."""
    for program, package in (
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
        ("setpriv", "util-linux"),
        ("nft", "nftables"),
    ):
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
            self.customers = self._namespace(stack, "customers")
            self.gateway = self._namespace(stack, "gateway")
            self.internet = self._namespace(stack, "internet")
            self.inside = End(self.customers, INSIDE.end_interface)
            self.outside = End(self.internet, OUTSIDE.end_interface)
            _prepare_gateway(self.gateway)
            for end, wire in ((self.inside, INSIDE), (self.outside, OUTSIDE)):
                _join(self.gateway, end, wire)
                _take_in_any_destination(end)
            self._add_default_routes()
            if customer_prefixes is None:
                customer_prefixes = (p for family in _FAMILIES for p in announced_prefixes(family))
            self.route_customers(customer_prefixes)
            _wait_until_up(self.gateway, self.customers, self.internet)
            self._stack = stack.pop_all()

    @staticmethod
    def _namespace(stack: ExitStack, name: str) -> Namespace:
        namespace = Namespace(name)
        stack.callback(namespace.close)
        return namespace

    def _add_default_routes(self) -> None:
        for family in _FAMILIES:
            for namespace, via in (
                (self.customers, INSIDE.gateway_addresses[family]),
                (self.internet, OUTSIDE.gateway_addresses[family]),
                (self.gateway, OUTSIDE.end_addresses[family]),
            ):
                _ip(namespace, family, [f"route add default via {via}"])

    def route_customers(self, prefixes: Iterable[Prefix]) -> None:
        """Have the gateway route `prefixes` to the customers too; those under another, or known, are fine."""
        wanted = outermost_prefixes(prefixes)
        for family in _FAMILIES:
            via = INSIDE.end_addresses[family]
            lines = [f"route replace {prefix} via {via}" for prefix in wanted if prefix.family == family]
            _ip(self.gateway, family, lines)

    def end(self, side: Side) -> End:
        return self.inside if side == "customers" else self.outside

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ip(namespace: Namespace, family: Family, lines: Iterable[str]) -> None:
    """Lines as they would follow `ip -4` or `ip -6`, all in one process; none at all is fine."""
    script = "".join(f"{line}\n" for line in lines)
    if script:
        namespace.run(["ip", f"-{family}", "-batch", "-"], input=script)


def _prepare_gateway(gateway: Namespace) -> None:
    """A router. ICMP errors are not rate limited here: each refused probe must hear of it, and by default the
    kernel sends one a second to an address, and few to all together (Documentation/networking/ip-sysctl.rst:
    icmp_ratelimit, icmp_ratemask, icmp_msgs_per_sec)."""
    _quiet(gateway)
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
    gateway.run(["nft", "-f", "-"], input=script)


def _quiet(namespace: Namespace) -> None:
    """Undo what a new namespace may inherit from the host: reverse path filters, no IPv6, and the like."""
    for which in ("all", "default"):
        namespace.sysctl(f"net.ipv4.conf.{which}.rp_filter", "0")
        namespace.sysctl(f"net.ipv6.conf.{which}.disable_ipv6", "0")
        namespace.sysctl(f"net.ipv6.conf.{which}.accept_ra", "0")
        namespace.sysctl(f"net.ipv6.conf.{which}.accept_dad", "0")


def _join(gateway: Namespace, end: End, wire: _Wire) -> None:
    _quiet(end.namespace)
    pair = (
        f"link add {wire.gateway_interface} address {wire.gateway_hardware} type veth "
        f"peer name {wire.end_interface} address {wire.end_hardware} netns {end.namespace.path}"
    )
    _ip(gateway, 4, [pair, "link set lo up", f"link set {wire.gateway_interface} up"])
    _ip(end.namespace, 4, ["link set lo up", f"link set {wire.end_interface} up"])
    for family in _FAMILIES:
        inner, outer = wire.gateway_addresses, wire.end_addresses
        for namespace, interface, own, other, hardware in (
            (gateway, wire.gateway_interface, inner, outer, wire.end_hardware),
            (end.namespace, wire.end_interface, outer, inner, wire.gateway_hardware),
        ):
            dad = "nodad" if family == 6 else ""
            address = f"address add {own[family]}/{_LINK_LENGTH[family]} dev {interface} {dad}"
            neighbor = f"neighbor replace {other[family]} lladdr {hardware} dev {interface} nud permanent"
            _ip(namespace, family, [address, neighbor])


def _take_in_any_destination(end: End) -> None:
    """Tables 100 (deliver here) and 101 (swallow) for what comes off the wire; addresses that are really
    configured come first, by the local table. What the end sends itself has no such interface and takes the
    main table.

    UDP and the rest are not delivered: without a socket the kernel would answer with an ICMP error, and a
    refusal must be the gateway's alone. ICMP is, so that a connect() here learns that the gateway refused it.
    """
    # Numbers: not every host has the names (/etc/protocols, of the package netbase).
    tcp, icmp = IPPROTO_TCP, {4: IPPROTO_ICMP, 6: IPPROTO_ICMPV6}
    for family in _FAMILIES:
        _ip(
            end.namespace,
            family,
            [
                "route add local default dev lo table 100",
                "route add blackhole default table 101",
                f"rule add priority 100 iif {end.interface} ipproto {tcp} lookup 100",
                f"rule add priority 101 iif {end.interface} ipproto {icmp[family]} lookup 100",
                f"rule add priority 102 iif {end.interface} lookup 101",
            ],
        )


def _wait_until_up(*namespaces: Namespace) -> None:
    """A veth drops what is sent before the kernel has noticed its carrier, some time after `up` (linkwatch)."""
    deadline = time.monotonic() + LINK_UP_PATIENCE_S
    waiting = list(namespaces)
    while waiting:
        links = json.loads(waiting[-1].run(["ip", "-json", "link", "show", "type", "veth"]).stdout)
        if all(link["operstate"] == "UP" for link in links):
            waiting.pop()
        elif time.monotonic() > deadline:
            raise MissingPrerequisite("the lab's links do not come up", "look at `dmesg`")
        else:
            time.sleep(0.01)
