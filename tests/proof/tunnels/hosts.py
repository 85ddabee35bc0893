"""Hosts of their own behind the two ends of a lab: a tunnel's program has a whole host's network for itself.

    host ──veth── customers ── gateway ── internet ──veth── host

A host has the addresses that it is given, of both families, and a default route. The end forwards for it; the rest
stays as the lab has it (`gatewayd.lab.lab`). Hardware addresses are fixed on both sides, so no packet waits for a
neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from socket import AF_INET, AF_INET6
from typing import Any, Final

from pyroute2 import IPRoute

from gatewayd.lab.lab import End, quiet, wait_until_up
from gatewayd.lab.namespace import Namespace
from gatewayd.model import Family

ROUTER: Final[dict[Family, str]] = {4: "169.254.77.1", 6: "fe80::7777"}
"""The end, on the link of each host."""
INTERFACE: Final = "wan0"
_HOSTS_FIRST: Final = 50
"""Priority of the rule for hosts: before those by which the end takes in all."""
_MAIN_TABLE: Final = 254


def family_of(address: str) -> Family:
    return 6 if ":" in address else 4


def length_of(address: str) -> int:
    return 128 if ":" in address else 32


class Host:
    """One host behind `end`. `number`: of the host, 0 to 255, once at each end. Close it, or use `with`."""

    def __init__(self, end: End, number: int, addresses: Iterable[str]) -> None:
        self._end, self._number = end, number
        self._near = f"host{number}"
        self._routed: list[str] = []
        self.namespace = Namespace(f"host {number} behind {end.namespace.name}")
        try:
            self._join()
            for address in addresses:
                self.add(address)
        except BaseException:
            self.close()
            raise

    def _join(self) -> None:
        ends_hardware, own_hardware = (f"02:67:77:{side}:00:{self._number:02x}" for side in ("0a", "0b"))
        end = self._end.namespace
        quiet(self.namespace)
        end.sysctl("net.ipv4.ip_forward", "1")
        end.sysctl("net.ipv6.conf.all.forwarding", "1")
        peer = {"ifname": INTERFACE, "address": own_hardware, "net_ns_fd": self.namespace.descriptor}
        end.configure(lambda ip: ip.link("add", ifname=self._near, address=ends_hardware, kind="veth", peer=peer))
        end.bring_up(self._near)
        self.namespace.bring_up(INTERFACE)
        self.namespace.configure(partial(_route_all, ends_hardware))
        wait_until_up([End(end, self._near), End(self.namespace, INTERFACE)])
        self._hardware = own_hardware

    def add(self, address: str) -> None:
        """From now on the host has this address too, and the end routes it here."""

        def route(ip: IPRoute) -> None:
            index = ip.link_lookup(ifname=self._near)[0]
            destination = f"{address}/{length_of(address)}"
            ip.neigh("replace", dst=address, lladdr=self._hardware, ifindex=index, state="permanent")
            ip.route("replace", dst=destination, oif=index)
            ip.rule("add", **self._rule(address))

        if address not in self._routed:
            self._end.namespace.configure(route)
            self._routed.append(address)
        self.namespace.bring_up(INTERFACE, f"{address}/{length_of(address)}")

    def remove(self, address: str) -> None:
        """The host has this address no more; the end still routes it here."""
        self.namespace.configure(
            lambda ip: ip.addr(
                "del", index=ip.link_lookup(ifname=INTERFACE)[0], address=address, prefixlen=length_of(address)
            )
        )

    def _rule(self, address: str) -> dict[str, Any]:
        return {
            "priority": _HOSTS_FIRST, "iifname": self._end.interface, "table": _MAIN_TABLE,
            "dst": address, "dst_len": length_of(address), "family": AF_INET6 if ":" in address else AF_INET,
        }  # fmt: skip

    def close(self) -> None:
        """The end is as before; the next host may have the number. Again is harmless."""

        def forget(ip: IPRoute) -> None:
            for address in self._routed:
                ip.rule("del", **self._rule(address))
            # A link of a namespace that ends would go later than that, at some time.
            for index in ip.link_lookup(ifname=self._near):
                ip.link("del", index=index)

        self.namespace.close()
        self._end.namespace.configure(forget)
        self._routed.clear()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _route_all(hardware: str, ip: IPRoute) -> None:
    index = ip.link_lookup(ifname=INTERFACE)[0]
    for router in ROUTER.values():
        ip.neigh("replace", dst=router, lladdr=hardware, ifindex=index, state="permanent")
    # The router is on the link, under no prefix of ours.
    ip.route("add", dst=f"{ROUTER[4]}/32", oif=index, scope="link")
    ip.route("add", dst="default", gateway=ROUTER[4], oif=index)
    ip.route("add", dst="default", gateway=ROUTER[6], oif=index)
