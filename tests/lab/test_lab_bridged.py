"""Frames that a bridge of the gateway only switches meet the rules too, where br_netfilter is on.

Docker, Kubernetes and libvirt turn it on for the whole host. Such a packet is in the inet forward hook as one that
comes in and goes out by the bridge itself (net/bridge/br_netfilter_hooks.c: br_nf_forward_ip).

    one, two ── br-one ───┐
    digit0 ──── br-0 ─────┤
      …           …       ├ gateway     routes between all of them; between one and two the bridge switches
    digit7 ──── br-7 ─────┤
    plain ───── plain ────┘
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest
from pyroute2 import IPRoute

from gatewayd.compile.ruleset import compile_ruleset
from gatewayd.lab.namespace import Namespace
from gatewayd.model.flow import Mode
from gatewayd.model.mask import Mask
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.service import UDP, Service

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists(), reason="this kernel has no br_netfilter"
    ),
]

PORT, PATIENCE_S = 51820, 30.0
Outcome = Literal["passed", "rejected"]
REFUSAL = "No route to host|Permission denied"
"""What a socket makes of an answer "administratively prohibited", of either family."""
INDEX = 0x1235
"""Of br-one; each of the other bridges has an index that is another in one hexadecimal digit."""
BRIDGES = {"br-one": INDEX} | {f"br-{digit}": INDEX ^ (1 << 4 * digit) for digit in range(8)}
ENDS = {"one": ("br-one", 1, 11), "two": ("br-one", 1, 12), "plain": ("plain", 2, 11)} | {
    f"digit{digit}": (f"br-{digit}", 10 + digit, 11) for digit in range(8)
}
"""By which interface of the gateway, in which network, and as which host of it."""
BEHIND_TWO, BEHIND_PLAIN = 8, 9
"""Networks that the gateway routes by way of an end."""


def addresses(network: int, host: int) -> tuple[str, str]:
    return f"198.18.{network}.{host}", f"fd67:{network}::{host}"


def address_of(end: str) -> tuple[str, str]:
    _, network, host = ENDS[end]
    return addresses(network, host)


class Bridged:
    """A gateway with two bridges and a plain interface, and an end on each port of them."""

    def __init__(self, stack: ExitStack) -> None:
        self.gateway = self._namespace(stack, "gateway")
        self.ends = {name: self._namespace(stack, name) for name in ENDS}
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            self.gateway.sysctl(name, "1")
        for name in ("net.ipv4.icmp_ratemask", "net.ipv6.icmp.ratemask", "net.ipv4.conf.all.send_redirects"):
            self.gateway.sysctl(name, "0")
        for version in ("ip", "ip6"):
            self.gateway.sysctl(f"net.bridge.bridge-nf-call-{version}tables", "1")
        self.gateway.configure(self._add_links)
        for interface, network in {(interface, network) for interface, network, _ in ENDS.values()}:
            self.gateway.bring_up(interface, *self._with_length(network, 1))
        for end, network in (("two", BEHIND_TWO), ("plain", BEHIND_PLAIN)):
            four, six = address_of(end)
            self._add_route(self.gateway, f"198.18.{network}.0/24", four)
            self._add_route(self.gateway, f"fd67:{network}::/64", six)
        for name, (_, network, host) in ENDS.items():
            behind = self._with_length(BEHIND_TWO, 9) if name == "two" else ()
            self.ends[name].bring_up("wire", *self._with_length(network, host), *behind)
            for each in addresses(network, 1):
                self._add_route(self.ends[name], "default", each)

    def _add_links(self, ip: IPRoute) -> None:
        for name, index in BRIDGES.items():
            ip.link("add", ifname=name, index=index, kind="bridge")
        for name, (interface, _, _) in ENDS.items():
            near = "plain" if interface == "plain" else f"to-{name}"
            peer = {"ifname": "wire", "net_ns_fd": self.ends[name].descriptor}
            ip.link("add", ifname=near, kind="veth", peer=peer)
            if interface != "plain":
                ip.link("set", index=ip.link_lookup(ifname=near)[0], master=BRIDGES[interface], state="up")

    @staticmethod
    def _add_route(namespace: Namespace, destination: str, via: str) -> None:
        namespace.configure(lambda ip: ip.route("add", dst=destination, gateway=via))

    @staticmethod
    def _namespace(stack: ExitStack, name: str) -> Namespace:
        namespace = stack.enter_context(Namespace(name))
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0")
        namespace.sysctl("net.ipv6.conf.all.accept_dad", "0")
        return namespace

    @staticmethod
    def _with_length(network: int, host: int) -> tuple[str, str]:
        four, six = addresses(network, host)
        return f"{four}/24", f"{six}/64"

    def put(self, mode: Mode, inside: tuple[str, ...] = (), outside: tuple[str, ...] = ()) -> None:
        policy = Policy(mode, (Service(UDP, PORT, PORT),), MarkLayout(0xFF000000), inside=inside, outside=outside)
        hooks = {Mask(4, 32): "c4_32", Mask(6, 128): "c6_128"}
        sets = "set c4_32 {\ntype ipv4_addr\n}\nset c6_128 {\ntype ipv6_addr\n}\n"
        text = (
            f"flush ruleset\ntable inet gatewayd {{\n{sets}}}\n{compile_ruleset('gatewayd', policy, hooks, 1).text}"
        )
        self.gateway.run(["nft", "-f", "-"], input=text)

    def send(self, start: str, to: tuple[str, str]) -> set[Outcome]:
        """What becomes of a packet of each family."""
        return {self._send(start, address) for address in to}

    def _send(self, start: str, address: str) -> Outcome:
        with ExitStack() as stack:
            far = [self._listen(stack, end, address) for end in self.ends.values()]
            near = self._near(stack, start, address)
            near.send(b"hello")
            ready, _, _ = select.select([near, *far], [], [], PATIENCE_S)
            assert ready, f"what {start} sent to {address} is lost"
            return _take_refusal(near) if near in ready else "passed"

    def is_refused_before(self, start: str, to: tuple[str, str], refused: tuple[str, str]) -> bool:
        """Whether `start` hears of a refusal of what it sends somewhere, before that of what it sends next."""
        return any(self._is_refused_before(start, *pair) for pair in zip(to, refused, strict=True))

    def _is_refused_before(self, start: str, address: str, refused: str) -> bool:
        with ExitStack() as stack:
            first, second = self._near(stack, start, address), self._near(stack, start, refused)
            first.send(b"hello")
            second.send(b"hello")
            ready, _, _ = select.select([second], [], [], PATIENCE_S)
            assert ready, f"what {start} sent to {refused} is lost"
            assert _take_refusal(second) == "rejected"
            return bool(select.select([first], [], [], 0)[0])

    def _near(self, stack: ExitStack, start: str, address: str) -> socket.socket:
        with self.ends[start].entered():
            near = stack.enter_context(socket.socket(_family(address), socket.SOCK_DGRAM))
            near.connect((address, PORT))
        return near

    @staticmethod
    def _listen(stack: ExitStack, end: Namespace, address: str) -> socket.socket:
        with end.entered():
            listener = stack.enter_context(socket.socket(_family(address), socket.SOCK_DGRAM))
            listener.bind(("", PORT))
        return listener


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _take_refusal(near: socket.socket) -> Outcome:
    with pytest.raises(OSError, match=REFUSAL):
        near.recv(100)
    return "rejected"


@pytest.fixture(scope="module")
def bridged(kernel: None) -> Iterator[Bridged]:
    with ExitStack() as stack:
        yield Bridged(stack)


NAMED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "unnamed": ((), ()),
    "one side": (("br-one",), ()),
    "apart": (("br-one",), ("br-0", "plain")),
    "on both sides by a wildcard": (("br-*",), ("br-one",)),
}


@pytest.mark.parametrize("named", NAMED)
@pytest.mark.parametrize("to", ["switched", "routed back by the same bridge"])
def test_what_stays_on_a_bridge_is_left_alone(bridged: Bridged, named: str, to: str) -> None:
    bridged.put("reject", *NAMED[named])
    destination = address_of("two") if to == "switched" else addresses(BEHIND_TWO, 9)
    assert bridged.send("one", destination) == {"passed"}


@pytest.mark.parametrize("named", ["unnamed", "one side"])
@pytest.mark.parametrize("end", sorted(ENDS.keys() - {"one", "two"}))
def test_what_is_routed_from_a_bridge_to_another_interface_is_judged(
    bridged: Bridged, end: str, named: str
) -> None:
    bridged.put("reject", *NAMED[named])
    assert bridged.send("one", address_of(end)) == {"rejected"}
    assert bridged.send(end, address_of("one")) == {"rejected"}


@pytest.mark.parametrize("named", ["unnamed", "apart"])
def test_what_goes_back_by_a_wire_is_judged_where_no_interfaces_are_named(bridged: Bridged, named: str) -> None:
    """One interface may be a router's only one."""
    bridged.put("reject", *NAMED[named])
    is_refused = bridged.is_refused_before("plain", addresses(BEHIND_PLAIN, 9), address_of("one"))
    assert is_refused is (named == "unnamed")


@pytest.mark.parametrize("mode", ["observe", "mark", "limit"])
def test_no_mode_looks_at_what_a_bridge_switches(bridged: Bridged, mode: Mode) -> None:
    bridged.put(mode)
    assert bridged.send("one", address_of("two")) == {"passed"}
    listing = bridged.gateway.run(["nft", "list", "counter", "inet", "gatewayd", "unregistered_flows"]).stdout
    assert "packets 0" in listing
